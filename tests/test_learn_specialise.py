"""Textbook code with what an exercise does not use taken out."""

import numpy as np
import pytest

from cnnlib.learn import exercise as exercise_module
from cnnlib.learn.checker import arguments
from cnnlib.learn.exercise import exercises, find, given_text, load, plain_source, reference, solution_text
from cnnlib.learn.specialise import specialised

SPECIALISED = [e for e in exercises() if e.specialised]


def cut(text, *keep):
    return specialised(text, keep or ("learners",))


def test_what_constants_decide_goes_and_so_do_arguments_that_are_always_the_same():
    text = """
def kernel(x, w, lengths, reverse):
    y = x @ w
    for t in range(len(x) - 1, -1, -1) if reverse else range(len(x)):
        y[t] = y[t] if lengths is None else y[t] * lengths[t]
    return y
def learners(x, w):
    return kernel(x, w, None, False)
"""
    assert cut(text) == (
        "def kernel(x, w):\n    y = x @ w\n    for t in range(len(x)):\n        y[t] = y[t]\n    return y\n\n\n"
        "def learners(x, w):\n    return kernel(x, w)"
    )


def test_a_function_that_constants_decide_is_put_in_place_of_its_call():
    text = """
def slope(y, name):
    if name == "relu":
        return (y > 0).astype(y.dtype)
    return {"tanh": 1 - y * y, "identity": 1}[name]
def learners(dy, y):
    return dy * slope(y, "tanh")
"""
    assert cut(text) == "def learners(dy, y):\n    return dy * (1 - y * y)"


def test_an_argument_with_two_values_stays():
    text = """
def order(T, back):
    steps = list(range(T))
    return steps[::-1] if back else steps
def learners(T, back):
    return order(T, back) + order(T, True)
"""
    assert "def order(T, back):" in cut(text) and "if back else" in cut(text)


def test_functions_that_nobody_calls_go_and_those_to_keep_stay_whole():
    text = "def unused(x):\n    return x\ndef helper(x):\n    return 2 * x\ndef learners(x, y):\n    return helper(x)\n"
    assert cut(text) == "def helper(x):\n    return 2 * x\n\n\ndef learners(x, y):\n    return helper(x)"
    assert "def unused(x)" in cut(text, "learners", "unused")


@pytest.mark.parametrize("line", ["return (a, b)[0]", "x = (a + b) * (b + a)", "x = (a for a in b)"])
def test_brackets_that_mean_something_stay(line):
    assert cut(f"def learners(a, b):\n    {line}") == f"def learners(a, b):\n    {line}"


def test_tuples_need_no_brackets():
    assert cut("def learners(a, b):\n    a, b = b, a\n    return a, (b, a)").endswith("    a, b = b, a\n    return a, (b, a)")


@pytest.mark.parametrize("exercise", SPECIALISED, ids=lambda e: e.name)
def test_the_shorter_text_computes_what_the_librarys_does(exercise):
    whole = "import numpy as np\n\n" + "\n\n".join(plain_source(f) for f in (*exercise.uses, *exercise.functions))
    assert len(solution_text(exercise)) < len(whole)
    functions = dict(
        zip(exercise.function_names, load(whole, exercise.function_names, given=given_text(exercise)), strict=True)
    )
    for case in exercise.cases_of(np.random.default_rng(3)):
        for of in (functions, reference(exercise)):
            assert callable(of[case.function])
        expected = functions[case.function](*arguments(exercise, case))
        got = reference(exercise)[case.function](*arguments(exercise, case))
        for e, g in zip(*((v if isinstance(v, tuple) else (v,)) for v in (expected, got)), strict=True):
            np.testing.assert_array_equal(g, e)


def test_a_solution_names_nothing_that_its_exercise_leaves_out():
    for word in ("lengths", "reverse", "peephole", "output_activation", "nonlinearity"):
        assert word not in solution_text(find("lstm")).replace("dpeephole", ""), word
    assert exercise_module.specialised is specialised
