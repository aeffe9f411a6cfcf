"""The checker: right answers in any style pass, wrong ones never do, and a verdict says the same everywhere."""

import json
import math
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from cnnlib.errors import CnnlibError, UnknownNameError, ValueRangeError
from cnnlib.learn import Verdict, check, checker, derivative, exercise
from cnnlib.learn.checker import check_source
from cnnlib.learn.closeness import as_array, same
from cnnlib.learn.exercise import Case, Exercise, Explanation, Given, Intermediates, Mutant, Numerical, find, solution_text

SOFTMAX = find("softmax_cross_entropy")
SOLUTION = solution_text(SOFTMAX)


def scaled(dy, x, w):
    return dy * w, (dy * x).sum(axis=0)


def scaled_cases(rng):
    def case(N, C, *features):
        return Case((rng.normal(size=(N, C)), rng.normal(size=(N, C)), rng.normal(size=C)), features)

    return [case(4, 3), case(1, 3, "N = 1"), case(5, 2, "two columns"), case(2, 2, "square")]


def toy(function=scaled, **fields):
    """y = x · w, backward: small enough to make every mistake with it."""
    made = dict(
        number=1, name="scaled", topic="", function=function, outputs=("dx", "dw"), starter="def scaled(dy, x, w): ...\n",
        cases=scaled_cases, hints=("", "", ""), question="", answer="", link="",
        numerical=Numerical(lambda dy, x, w: x * w, {"dx": 1, "dw": 2}),
    )  # fmt: skip
    return Exercise(**(made | fields))


TOY = toy()


def verdict(body, of=TOY, **settings):
    return check_source(of, f"import numpy as np\ndef scaled(dy, x, w):\n    {body}\n".encode(), **settings)


# ---- right answers


@pytest.mark.parametrize("text", [SOLUTION, *SOFTMAX.alternatives])
@pytest.mark.parametrize("seed", ["", "a student", "2026-0017"])
def test_right_answers_of_any_style_pass(text, seed):
    found = check_source(SOFTMAX, text.encode(), seed=seed)
    assert found.passed and found.key == "passed" and found.seed == seed


@pytest.mark.parametrize(
    "body",
    [
        "return dy * w, (dy * x).sum(0)",
        "return [dy * w, np.einsum('nc,nc->c', dy, x)]",
        "return (dy * w).tolist(), (dy * x).sum(axis=0).tolist()",
        "return np.asfortranarray(dy * w[None]), np.diagonal(dy.T @ x)",
        "return np.matrix(dy * w), (dy * x).astype(np.longdouble).sum(axis=0)",
        "print('checked', file=__import__('sys').stderr); return dy * w, (dy * x).sum(axis=0)",
        "x = x.copy(); x *= dy; return dy * w, x.sum(axis=0)",
    ],
)
def test_containers_layouts_and_prints_do_not_matter(body):
    found = verdict(body)
    assert found.passed, found


def test_a_hash_of_the_file_stands_in_the_verdict():
    assert check_source(SOFTMAX, SOLUTION.encode()).file_hash == (__import__("hashlib").sha256(SOLUTION.encode()).hexdigest())


# ---- who cheats


@pytest.mark.parametrize(
    "text",
    [
        "print('✓ softmax_cross_entropy: right in all 7 cases.')",
        "import sys\nprint('passed')\nsys.exit(0)",
        "import os\nos._exit(0)",
        "import numpy as np\nnp.allclose = np.isclose = np.array_equal = lambda *a, **k: True\n"
        "def softmax_cross_entropy(dl, x, t): return np.zeros(len(t)), np.zeros_like(x)",
        "import numpy.testing\nnumpy.testing.assert_allclose = lambda *a, **k: None\n"
        "def softmax_cross_entropy(dl, x, t): return dl, x",
        "class Same(float):\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0.0\n"
        "def softmax_cross_entropy(dl, x, t): return Same(0), Same(0)",
        "import numpy as np\nclass Same(np.ndarray):\n    def __array_ufunc__(self, *a, **k): return True\n"
        "def softmax_cross_entropy(dl, x, t): return np.zeros(len(t)).view(Same), np.zeros_like(x).view(Same)",
        "import numpy as np\ndef softmax_cross_entropy(dl, x, t): return np.full(len(t), np.nan), np.full(x.shape, np.nan)",
        "import gc\ndef softmax_cross_entropy(dl, x, t):\n"
        "    return next(o for o in gc.get_objects() if isinstance(o, dict) and 'expected' in o)['expected']",
        "import sys\ndef softmax_cross_entropy(dl, x, t):\n    frame = sys._getframe()\n    while frame:\n"
        "        if 'expected' in frame.f_locals: return frame.f_locals['expected']\n        frame = frame.f_back",
        "from cnnlib.learn.exercise import find, reference\n"
        "softmax_cross_entropy = reference(find(8))['softmax_cross_entropy']",
        "import torch\ndef softmax_cross_entropy(dl, x, t):\n    pass",
        "import glob\nfor p in glob.glob('/**/learn/exercises/softmax_cross_entropy.py', recursive=True) or ['/nowhere']:\n"
        "    exec(open(p).read())",
        "import sys\nsys.modules['__main__'].main = None\ndef softmax_cross_entropy(dl, x, t): return dl, x",
    ],
)
def test_cheating_does_not_pass(text, monkeypatch):
    monkeypatch.chdir("/")
    if "glob" in text:
        text = text.replace("'/**/learn/exercises/softmax_cross_entropy.py'", repr(find.__code__.co_filename))
    assert not check_source(SOFTMAX, text.encode(), seconds=5).passed


def test_answers_learnt_by_heart_fail_with_another_seed():
    cases = checker.prepare(TOY, "").cases
    table = {c.args[0].tobytes().hex(): [o.tolist() for o in checker.expected_outputs(TOY, c)] for c in cases}
    body = f"return {table!r}[dy.tobytes().hex()]"
    assert verdict(body).passed
    assert verdict(body, seed="1").key == "raised"


REMEMBERS = {
    "the first result for a shape": "_seen.setdefault(x.shape, (dy * w, (dy * x).sum(axis=0)))",
    "a sum": "dy * w, _seen.setdefault(x.shape, np.zeros(len(w))).__iadd__((dy * x).sum(axis=0)).copy()",
}


@pytest.mark.parametrize("answer", REMEMBERS.values(), ids=REMEMBERS)
def test_who_remembers_an_earlier_call_is_told_so(answer):
    found = verdict(f"return {answer}\n_seen = {{}}")
    assert not found.passed and "the shapes of an earlier call (does it remember that one?)" in found.sentence


def test_backward_may_not_live_on_what_forward_left_behind():
    source = solution_text(find("rnn")) + (
        "\n_rnn, _bptt, _left = rnn, rnn_bptt, {}\n"
        "def rnn(*args):\n    _left['h'] = _rnn(*args)\n    return _left['h']\n"
        "def rnn_bptt(*args):\n    return _bptt(*args[:-1], _left['h'])\n"
    )
    assert not check_source(find("rnn"), source.encode()).passed


KEEPS = "dx, dw = _kept.setdefault(x.shape, (np.zeros(x.shape), np.zeros(len(w))))"


def test_memory_that_is_used_again_is_no_new_array():
    """It has the right numbers when it comes, and the next call's later."""
    found = verdict(f"{KEEPS}; dx[:] = dy * w; dw[:] = (dy * x).sum(axis=0); return dx, dw\n_kept = {{}}")
    assert found.key == "overwritten" and "changed by a later call" in found.sentence


def test_memory_that_is_used_again_is_found_in_a_notebook():
    kept = np.zeros((64, 64))

    def softmax_cross_entropy(dl, x, t):
        losses, dx = checker.reference(SOFTMAX)["softmax_cross_entropy"](dl, x, t)
        kept[: len(x), : x.shape[1]] = dx
        return losses, kept[: len(x), : x.shape[1]]

    assert check("softmax_cross_entropy", softmax_cross_entropy).key == "overwritten"


def test_complex_numbers_are_no_answer():
    assert verdict("return dy * w + 0j, (dy * x).sum(axis=0)").key == "dtype"


def _checked(text):
    return check_source(SOFTMAX, text.encode()).key


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_checks_run_in_other_processes_however_they_start(method):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(_checked, [SOLUTION, SOFTMAX.starter])) == ["passed", "none"]


# ---- tolerances


@pytest.mark.parametrize("output", [0, 1])
def test_an_error_of_a_thousandth_in_one_element_is_seen(output):
    body = f"out = [dy * w, (dy * x).sum(axis=0)]; out[{output}].flat[-1] *= 1.001; return out"
    found = verdict(body)
    assert not found.passed and found.output == ("dx", "dw")[output]
    assert found.got == pytest.approx(1.001 * found.expected) and found.numerical == pytest.approx(found.expected)


@pytest.mark.parametrize(
    "body", ["return dy * w, np.float32((dy * x).sum(axis=0))", "return np.float32(dy * w), (dy * x).sum(axis=0)"]
)
def test_single_precision_is_no_double_precision(body):
    assert verdict(body).key == "dtype"


def test_same_looks_at_shape_values_nan_and_containers():
    a = np.array([[1.0, np.nan, np.inf]])
    assert same(a, a.tolist(), 1e-7) and not same(a, a[0], 1e-7)
    assert not same(a, np.array([[1.0, np.nan, -np.inf]]), 1e-7) and not same(a, np.array([[1.0, 2.0, np.inf]]), 1e-7)
    assert same({"a": 1.0, "b": [a]}, {"b": [a], "a": 1}, 1e-7) and not same({"a": 1.0}, {"a": 1.0, "b": 0}, 1e-7)
    assert same([np.zeros(2), np.zeros(3)], (np.zeros(2), np.zeros(3)), 1e-7)
    assert not same([np.zeros(2), np.zeros(3)], [np.zeros(2)], 1e-7)
    assert same(60_965_224, 60_965_224.0, 1e-7) and not same(60_965_224, 60_965_225, 1e-7)
    assert same(np.array([True, False]), [1, 0], 1e-7) and not same(np.array([1, 2]), [1, 2.5], 1e-7)
    assert same("left", "left", 1e-7) and not same("left", 1.0, 1e-7) and not same(1.0, "1", 1e-7)
    assert same(0.0, 1e-15, 1e-7) and not same(0.0, 1e-9, 1e-7)
    assert as_array([1, [2]]) is None and as_array("a") is None


# ---- derivatives by differences


def test_differences_are_right_to_nine_digits():
    assert derivative.richardson(math.sin) == pytest.approx(1.0, abs=1e-11)
    assert derivative.richardson(lambda h: math.exp(3 * h)) == pytest.approx(3.0, abs=1e-9)


@pytest.mark.parametrize(
    "f", [abs, lambda h: max(h, 2 * h), lambda h: abs(h - 2e-4), lambda h: float(h > 0), lambda h: abs(h + 6e-4)]
)
def test_kinks_are_reported(f):
    with pytest.raises(derivative.Kink):
        derivative.richardson(f)


def test_a_bias_that_is_no_argument_starts_at_zero():
    case = Case((np.arange(6.0).reshape(2, 3), np.ones((2, 3))), (), "f")
    numerical = Numerical(lambda dy, x, b=0.0: x + b, {"db": "b"})
    assert derivative.element(numerical, case, "db", (3,), (1,)) == pytest.approx(1.0 + 4.0)


# ---- in this process


def test_check_takes_functions():
    found = check("softmax_cross_entropy", exercise.load(SOLUTION, ["softmax_cross_entropy"])[0])
    assert found.passed and isinstance(found, Verdict)
    assert check(8, lambda dl, x, t: (0, 0)).passed is False


def test_check_gives_copies():
    kept = []

    def spoils(dl, x, t):
        kept.append(x)
        x *= 0
        return dl, x

    assert check(8, spoils).key in ("raised", "mutated")
    assert check(8, exercise.load(SOLUTION, ["softmax_cross_entropy"])[0]).passed and not kept[0].any()


def test_check_names_the_line_of_an_exception():
    def raises(dl, x, t):
        return x.nothing

    found = check(8, raises)
    assert found.key == "raised" and found.line == raises.__code__.co_firstlineno + 1 and "nothing" in found.sentence


def test_check_refuses_what_is_no_exercise_or_no_function():
    with pytest.raises(UnknownNameError, match="did you mean 'softmax_cross_entropy'"):
        check("softmax_crossentropy", print)
    with pytest.raises(UnknownNameError, match=r"'conv' \(did you mean 'conv.*' or 'conv.*'\?\)"):
        check("conv", print)
    with pytest.raises(UnknownNameError, match=r"'99' \(they have numbers, 1 to 38, and names\)"):
        check(99, print)
    with pytest.raises(ValueRangeError, match=r"needs 1 function\(s\): softmax_cross_entropy; got 2"):
        check(8, print, print)
    with pytest.raises(ValueRangeError, match="needs 1"):
        check(8, "print")
    with pytest.raises(ValueRangeError, match=r"needs 1 function\(s\): softmax_cross_entropy; got 1: int\."):
        check(8, 5)


# ---- verdicts


def test_a_verdict_is_text_html_and_json():
    found = verdict("return dy * w * np.inf, (dy * x).sum(axis=0)")
    assert found.key == "nan" and json.loads(json.dumps(found.to_dict(), allow_nan=False))["got"] in ("inf", "-inf")
    assert found.to_dict()["right"] == ["dw"] and str(found).startswith("✗ scaled: your dx is infinite")
    page = found._repr_html_()
    assert "✗ scaled" in page and "right already" in page
    assert "<script>" not in verdict("print('<script>'); return 1, 2")._repr_html_()


def test_a_verdict_prints_with_rich(capsys):
    from rich.console import Console

    Console(width=100).print(verdict("return dy * w, (dy * x).sum(axis=0)"))
    assert "✓ scaled: right in all 6 cases." in capsys.readouterr().out


# ---- the localiser

STEPS = Intermediates(lambda dy, x, w: {"product": dy * x, "total": (dy * x).sum(axis=0)}, {"product": "product = dy · x"})


@pytest.mark.parametrize(
    "steps, step",
    [
        ("{'product': dy - x, 'total': x}", "product is the first step that is wrong: product = dy · x."),
        ("{'product': -dy * x}", "product is the first step that is wrong (yours has the opposite sign): product = dy · x."),
        ("{'product': dy * x, 'total': (dy * x).sum(axis=1)}", "product is right; total is the first step that is wrong"),
        ("{'product': dy * x, 'total': (dy * x).sum(axis=0)}", ""),
        ("{'something': x}", ""),
    ],
)
def test_the_first_wrong_step_is_named(steps, step):
    found = verdict(f"return dy * w, x[0] ** 2 + w, {steps}", toy(intermediates=STEPS))
    assert not found.passed and found.step.startswith(step) and bool(found.step) == bool(step)
    assert found.key == ("step" if step else "value")


def test_steps_are_no_duty_and_do_not_spoil_a_right_answer():
    right = "return dy * w, (dy * x).sum(axis=0)"
    assert verdict(right, toy(intermediates=STEPS)).passed
    assert verdict(right + ", {'product': 3}", toy(intermediates=STEPS)).passed


# ---- exercises


def test_exercises_are_found_by_name_number_and_file():
    assert find(8) is find("8") is find("08_softmax_cross_entropy.py") is find("work/08_softmax_cross_entropy.py") is SOFTMAX
    with pytest.raises(UnknownNameError, match="unknown exercise"):
        find("99")


def test_a_solution_is_plain_numpy():
    assert SOLUTION.startswith("import numpy as np\n\n\ndef log_softmax_forward(x):\n")
    assert not re.search(r"cnnlib|\bxp\b|xp_of|@", SOLUTION)


def test_two_exercises_of_one_number_are_refused(monkeypatch):
    monkeypatch.setattr(exercise.pkgutil, "iter_modules", lambda path: [SimpleNamespace(name="a"), SimpleNamespace(name="b")])
    monkeypatch.setattr(exercise, "from_module", lambda module: module)
    modules = iter([SimpleNamespace(__name__="e", __path__=[]), *(toy(name=n) for n in "ab")])
    monkeypatch.setattr(exercise.importlib, "import_module", lambda name: next(modules))
    with pytest.raises(CnnlibError, match="a and b have the same number 1"):
        exercise._registry.__wrapped__()


@pytest.mark.parametrize(
    "there, lacks", [({"EXERCISE": TOY}, "a docstring"), ({"__doc__": "T"}, "EXERCISE"), ({"EXERCISE": 1}, "EXERCISE")]
)
def test_a_file_that_is_no_exercise_is_named(there, lacks):
    with pytest.raises(CnnlibError, match=f"mine .*is no exercise: it lacks {lacks}"):
        exercise.from_module(SimpleNamespace(**{"__name__": "mine", "__doc__": None, **there}))


def test_several_functions_are_judged_one_after_the_other():
    outputs = {"scaled": ("dx", "dw"), "double": ("y",)}
    two = toy((scaled, double), outputs=outputs, cases=two_cases, given=(half,), numerical=None)
    right = "def scaled(dy, x, w): return dy * w, (dy * x).sum(axis=0)\n"
    assert check_source(two, (right + "def double(g, x): return 4 * g(x)\n").encode()).passed
    found = check_source(two, (right + "def double(g, x): return g(x)\n").encode())
    assert (found.key, found.function, found.output) == ("factor", "double", "y")
    found = check_source(two, (right.replace("dy * w", "-dy * w") + "def double(g, x): return g(x)\n").encode())
    assert (found.key, found.function, found.output) == ("sign", "scaled", "dx")
    found = check_source(two, right.encode())
    assert found.sentence == "your file defines no function double: keep the name of the starter."


def half(x):
    return x / 2


def double(g, x):
    return 2 * x


def two_cases(rng):
    return scaled_cases(rng) + [Case((Given("half"), rng.normal(size=n)), (), "double") for n in (2, 3)]


def test_an_explanation_speaks_before_the_rules():
    known = toy(explanations=(Explanation("forgot", "you forgot w.", lambda dy, x, w: (-dy, (dy * x).sum(axis=0))),))
    assert verdict("return -dy, (dy * x).sum(axis=0)", known).sentence == "you forgot w."
    assert verdict("return -dy * w, (dy * x).sum(axis=0)", known).key == "sign"
    assert verdict("return -dy, x", known).key == "forgot", "it explains the first wrong output"


def test_a_mutants_numbers_are_an_explanation():
    known = toy(
        explanations=(Explanation("mean", "do not average."),),
        mutants=(Mutant("(dy * x).sum(axis=0)", "(dy * x).mean(axis=0) + 1", says="mean"),),
    )
    assert verdict("return dy * w, 1 + np.mean(x * dy, 0)", known).sentence == "do not average."
