"""Where things live: imports point one way, small files, a light import, names and docstrings."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlib
from cnnlib import ops
from cnnlib.op import Op

PACKAGE = Path(cnnlib.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)

# A module may import from its own layer and from those above it in this list.
LAYERS = (
    ("errors", "files"),
    ("backends",),
    ("tensor", "op", "tape", "random"),
    ("ops",),
    ("trace", "gradcheck"),
    ("nn", "optim", "distributions"),
    ("models", "train", "data", "compare", "doctor"),
    ("learn", "viz"),
    ("microscope",),
    ("cli", "__main__"),
)
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}

# Imports that point the other way. At the top level there is one knot: the operators of Tensor are operations.
KNOTS = {("tensor", "ops")}
# Inside functions: what is needed only when it is called.
LAZY = {
    ("trace", "viz"),  # trace.to_svg draws
}


def part(path):
    """First name below cnnlib: ``ops`` for cnnlib/ops/conv.py, ``tensor`` for cnnlib/tensor.py."""
    relative = path.relative_to(PACKAGE).with_suffix("").parts
    return relative[0]


def imported(path):
    """(dotted name, whether inside a function) of everything that a file imports, but for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = list(path.relative_to(ROOT).parent.parts)
    found = []

    def visit(node, inside):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base == "cnnlib":  # from cnnlib import ops, nn
                found.extend((f"cnnlib.{alias.name}", inside) for alias in node.names)
            else:
                found.append((base, inside))
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(tree, False)
    return found


def names(paths):
    return [p.relative_to(ROOT).as_posix() for p in paths]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_imports_point_one_way(path):
    own = part(path)
    if own == "__init__":
        return
    assert own in LAYER, f"cnnlib/{own} has no layer: add it to LAYERS"
    for name, lazy in imported(path):
        if not name.startswith("cnnlib."):
            continue
        other = name.split(".")[1]
        if other not in LAYER or LAYER[other] <= LAYER[own] or (own, other) in KNOTS:
            assert other in LAYER or not (PACKAGE / other).exists(), f"cnnlib/{other} has no layer"
            continue
        assert lazy and (own, other) in LAZY, f"{path.name} of layer {own!r} imports {name}, which lies above it"


@pytest.mark.parametrize("path", [p for p in FILES if part(p) == "ops"], ids=lambda p: p.name)
def test_operations_know_no_array_library(path):
    assert not {n.split(".")[0] for n, _ in imported(path)} & {"numpy", "cupy", "scipy"}


@pytest.mark.parametrize("path", [p for p in FILES if part(p) in ("learn", "viz")], ids=lambda p: p.name)
def test_exercises_and_pictures_use_public_names_only(path):
    for name, _ in imported(path):
        assert not (name.startswith("cnnlib") and any(piece.startswith("_") for piece in name.split("."))), name


def test_operations_and_backends_do_not_import_each_other_in_a_circle():
    for path in FILES:
        if part(path) == "backends":
            assert not [
                n for n, _ in imported(path) if n.split(".")[:2] in (["cnnlib", "ops"], ["cnnlib", "tensor"], ["cnnlib", "op"])
            ]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_nothing_is_pickled(path):
    assert not {n.split(".")[0] for n, _ in imported(path)} & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


SOURCES = (
    FILES + sorted(p for p in (ROOT / "csrc").glob("*") if p.suffix in {".c", ".h", ".cu"}) + sorted(PACKAGE.rglob("*.px[di]"))
)


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_files_are_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout


def test_import_is_light():
    heavy = "rich click PIL matplotlib safetensors pooch scipy cupy hypothesis pytest".split()
    loaded = run("import sys, cnnlib; print(*{m.split('.')[0] for m in sys.modules})").split()
    assert not set(heavy) & set(loaded)


@pytest.mark.parametrize(
    "first",
    ["cl.check_op", "cl.nn", "import cnnlib.gradcheck", "from cnnlib.gradcheck import GradientError", "import cnnlib.trace"],
)
def test_public_names_do_not_depend_on_what_was_imported_before(first):
    assert run(f"import cnnlib as cl\n{first}\nprint(callable(cl.gradcheck), isinstance(cl.trace, type))").split() == [
        "True",
        "True",
    ]


def test_everything_promised_is_there():
    for name in cnnlib.__all__:
        assert getattr(cnnlib, name) is not None
        assert name in dir(cnnlib)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cnnlib.nonsense  # noqa: B018


FUNCTIONS = {n: f for n, f in vars(ops).items() if inspect.isfunction(f) and not n.startswith("_")}
CLASSES = {n: c for n, c in vars(ops).items() if inspect.isclass(c) and issubclass(c, Op)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_of_ops_is_documented(name):
    assert (FUNCTIONS[name].__doc__ or "").strip(), f"ops.{name} has no docstring"


@pytest.mark.parametrize("name", CLASSES)
def test_every_operation_has_a_formula_on_one_line(name):
    formula = CLASSES[name].formula
    assert formula and "\n" not in formula and len(formula) < 100


@pytest.mark.parametrize("name", CLASSES)
def test_the_name_in_a_trace_leads_to_the_public_function(name):
    """``relu`` of ReLU, or at least its beginning: ``cross_entropy_of_probabilities`` runs in ``cross_entropy``."""
    assert any(CLASSES[name].name() == f or CLASSES[name].name().startswith(f + "_") for f in FUNCTIONS)


@pytest.mark.parametrize("name", CLASSES)
def test_every_operation_has_its_two_halves_next_to_each_other(name):
    own = vars(CLASSES[name])
    assert isinstance(own.get("forward"), staticmethod) and isinstance(own.get("backward"), staticmethod)
    _, first = inspect.getsourcelines(CLASSES[name].forward)
    lines, _ = inspect.getsourcelines(CLASSES[name].forward)
    _, second = inspect.getsourcelines(CLASSES[name].backward)
    assert 0 < second - (first + len(lines)) <= 3


SAVING = [n for n, c in CLASSES.items() if "ctx.save(" in inspect.getsource(c)]


@pytest.mark.parametrize("name", SAVING)
def test_what_an_operation_saves_is_documented(name):
    assert "Saves" in (CLASSES[name].__doc__ or "") or "saves" in (CLASSES[name].__doc__ or "")
