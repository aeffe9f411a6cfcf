"""What the documents say is true: their Python blocks run, their links lead somewhere, the doctests of all modules hold.

The blocks of one file share a namespace, in order. A text block right after a Python block is what that block prints;
``...`` stands for anything.
"""

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import backends, random

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL_PAGES = [*PAGES, *(p for name in ("CONTRIBUTING.md", "CHANGELOG.md") if (p := ROOT / name).exists())]
FOUND = [module.name for module in pkgutil.walk_packages(cl.__path__, "cnnlib.")]
MODULES = ["cnnlib", *sorted(name for name in FOUND if not name.endswith(("._kernels", ".__main__")))]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)\s]*\)")
INDENTED = re.compile(r"^ {4}.*$", re.MULTILINE)  # quoted as it is, such as what a network wrote: x[i](y) is no link there
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(autouse=True)
def as_before(tmp_path, monkeypatch):
    """Each page and module starts from seed 0 in an empty folder, and leaves the process as it was."""
    state, process = random.get_state(), backends._process
    monkeypatch.chdir(tmp_path)
    cl.manual_seed(0)
    yield
    random.set_state(state)
    backends._process = process


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_run(page):
    namespace: dict = {"__name__": "docs"}
    text, printed = page.read_text("utf-8"), None
    for block in BLOCK.finditer(text):
        language, body = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        if language == "python":
            if "viz." in body:
                pytest.importorskip("matplotlib")
            code = compile("\n" * line + body, str(page), "exec")  # so that a traceback names the line on the page
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            printed = out.getvalue()
        elif language == "text" and printed is not None:
            same = doctest.OutputChecker().check_output(body, printed, FLAGS)
            assert same, f"{page.name}:{line} says\n{body}\nbut the code prints\n{printed}"
            printed = None
        else:
            printed = None


@pytest.mark.parametrize("page", ALL_PAGES, ids=page_id)
def test_links_lead_to_files(page):
    installed = Path(cl.__file__).parent.parent
    checkout = (ROOT / "csrc").is_dir()  # tests of a wheel run without the sources
    for target in LINK.findall(INDENTED.sub("", page.read_text("utf-8"))):
        if "://" in target:
            continue
        path = (page.parent / target).resolve()
        inside = path.relative_to(ROOT.resolve())
        if not checkout and (
            inside.parts[0] not in ("cnnlib", "tests", "examples", "benchmarks", "docs") or path.suffix == ".pyx"
        ):
            continue
        if inside.parts[0] == "cnnlib":
            path = installed / inside
        assert path.exists(), f"{page.name} links to {target}, which is not there"


def test_the_extras_that_pages_and_messages_name_can_be_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    sources = [*Path(cl.__file__).parent.rglob("*.py"), *(ROOT / "examples").rglob("*.py"), *ALL_PAGES]
    named = {
        (path.name, extra)
        for path in sources
        for found in re.findall(r"(?:cnnlib|\"\.)\[([a-z0-9,]+)\]", path.read_text("utf-8"))
        for extra in found.split(",")
    }
    assert ("video.py", "video") in named and ("README.md", "data") in named
    assert not [(path, extra) for path, extra in named if extra not in extras]


class Checker(doctest.OutputChecker):
    """An example without output shows a call: it must run, and may print what it likes."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def scene() -> dict:
    """What docstrings that show how parts work together take for granted."""
    train, test = cl.data.digits()
    net, loss = cl.nn.Sequential(cl.nn.Flatten(), cl.nn.Linear(64, 10)), cl.nn.CrossEntropyLoss()
    optimizer = cl.optim.Adam(net.parameters(), lr=1e-2)
    trainer = cl.Trainer(net, loss, optimizer, progress=False)
    made = {"train": train, "test": test, "net": net, "loss": loss, "optimizer": optimizer, "trainer": trainer}
    names = {n: getattr(cl.data, n) for n in cl.data.__all__}
    names |= {n: getattr(cl.train, n) for n in cl.train.__all__}
    return names | {"cl": cl, "np": np, "nn": cl.nn, "optim": cl.optim} | made


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    if name.startswith("cnnlib.viz."):
        pytest.importorskip("matplotlib")
    module = importlib.import_module(name)
    known = scene() if name.startswith(("cnnlib.data", "cnnlib.train")) else {}
    runner = doctest.DocTestRunner(Checker(), verbose=False, optionflags=FLAGS)
    out = io.StringIO()
    for case in doctest.DocTestFinder().find(module, name, globs={**known, **vars(module)}):
        cl.manual_seed(0)
        runner.run(case, out=out.write)
    assert not runner.failures, out.getvalue()


def test_public_names_mean_the_same_whatever_was_imported_first():
    """A submodule that is imported becomes an attribute of the package, also where a function has its name."""
    code = "import importlib, sys, cnnlib as cl\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += "meant = (*cl._MODULES, 'ops', 'optim')\n"
    code += "print(*(n for n in cl.__all__ if isinstance(getattr(cl, n), type(sys)) and n not in meant))"
    paths = [str(Path(cl.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code, *MODULES], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"these are modules now: {done.stdout}"
