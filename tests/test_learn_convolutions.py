"""Exercises 13 to 20, 37 and 38: the lecture's numbers, named intermediates, a learner's function in a kernel's place."""

import importlib.util
import shutil

import numpy as np
import pytest

from cnnlib.backends import REFERENCE
from cnnlib.errors import DeviceError
from cnnlib.learn import typed
from cnnlib.learn.checker import check_source
from cnnlib.learn.exercise import find, load, reference, solution_text
from cnnlib.learn.exercises.conv2d_forward import DEMO_W, DEMO_X, LECTURE_W, LECTURE_X
from cnnlib.ops.dropout import dropout_forward
from cnnlib.ops.norm import local_response_norm_forward
from cnnlib.random import Key

NUMBERS = (*range(13, 21), 37, 38)


def functions(number):
    return tuple(reference(find(number)).values())


def test_the_lectures_convolution():
    y = functions(13)[0](LECTURE_X[None, None], LECTURE_W[None, None], None, (1, 1), (0,) * 4, (1, 1), 1)
    np.testing.assert_allclose(y[0, 0, 0, :2], [-0.7, 5.5], rtol=1e-12)


def test_the_convolution_demo_of_cs231n():
    y = functions(13)[0](DEMO_X[None], DEMO_W, np.array([1.0, 0.0]), (2, 2), (1, 1, 1, 1), (1, 1), 1)
    right = [[[-2, 4, 2], [2, 8, 1], [2, 4, 1]], [[-2, -4, -3], [3, -3, 1], [6, 4, 3]]]
    np.testing.assert_array_equal(y[0], right)


def test_the_lectures_pooling():
    for image, maxima in (
        ([[2, 8, 9, 4], [3, 6, 5, 7], [3, 1, 6, 4], [2, 5, 7, 3]], [[8, 9], [5, 7]]),
        ([[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]], [[20, 30], [112, 37]]),
    ):
        y, _ = functions(37)[0](np.array(image, float)[None, None], (2, 2), (2, 2), (0, 0, 0, 0))
        np.testing.assert_array_equal(y[0, 0], maxima)


@pytest.mark.parametrize("number", NUMBERS)
def test_solutions_stand_alone(number):
    text = solution_text(find(number))
    assert "cnnlib" not in text and "xp" not in text.replace("np.exp", "").replace("expf", "")
    assert [line for line in text.splitlines() if line.startswith(("import", "from"))] == ["import numpy as np"]


@pytest.mark.parametrize(("number", "named"), [(13, "windows"), (14, "dcols"), (17, "dvar")])
def test_the_first_wrong_step_is_named(number, named):
    """A right alternative, but for one mistake that its intermediates show."""
    exercise = find(number)
    texts = {
        13: (exercise.alternatives[1], "return y if b is None", "return (y if b is None else y + b.reshape(1, -1, 1, 1)) + 1, "
             '{"x_padded": x, "windows": 0 * windows.transpose(0, 1, 4, 5, 2, 3)}\n    return y if b is None'),
        14: (exercise.alternatives[0], "return dxp[", "wrong = np.zeros((N, C, KH, KW, *dy.shape[2:]))\n"
             '    return dxp[:, :, top : top + H, left : left + W] + 1, dw, db, {"dcols": wrong}\n    return dxp['),
        17: (exercise.alternatives[0], "return dx,", 'wrong = {"xhat": xhat, "dxhat": dxhat, "dvar": dvar[0, :, 0, 0] + 1}\n'
             "    return dx + 1, (dy * xhat).sum(axis=axes), dy.sum(axis=axes), wrong\n    return dx,"),
    }  # fmt: skip
    text, old, new = texts[number]
    verdict = check_source(exercise, text.replace(old, new).encode())
    assert not verdict.passed and f"{named} is the first step that is wrong" in verdict.step


ARRAYS = np.random.default_rng(0)
KEY = Key(1, 2, 3)
WINNERS = ARRAYS.integers(0, 4, (2, 3, 2, 2)).astype(np.uint8)


def draw(*shape):
    return ARRAYS.standard_normal(shape, dtype=np.float32)


CALLS = {
    13: [("conv2d_forward", (draw(2, 4, 6, 5), draw(6, 2, 3, 3), draw(6), (2, 1), (1, 1, 0, 1), (1, 1), 2))],
    14: [
        ("conv2d_backward_input", (draw(2, 6, 3, 3), draw(6, 2, 3, 3), (2, 4, 6, 5), (2, 1), (0, 1, 0, 0), (1, 1), 2)),
        ("conv2d_backward_weight", (draw(2, 6, 3, 3), draw(2, 4, 6, 5), (6, 2, 3, 3), (2, 1), (0, 1, 0, 0), (1, 1), 2)),
    ],
    15: [
        ("conv2d_forward", (draw(2, 3, 6, 5), draw(4, 3, 3, 2), draw(4), (2, 1), (1, 1, 0, 1), (1, 1), 1)),
        ("conv2d_backward_input", (draw(2, 4, 3, 4), draw(4, 3, 3, 2), (2, 3, 6, 5), (2, 1), (0, 1, 0, 0), (1, 1), 1)),
        ("conv2d_backward_weight", (draw(2, 4, 3, 4), draw(2, 3, 6, 5), (4, 3, 3, 2), (2, 1), (0, 1, 0, 0), (1, 1), 1)),
    ],
    16: [("max_pool2d_backward", (draw(2, 3, 2, 2), WINNERS, (2, 3, 4, 4), (2, 2), (2, 2), (0,) * 4))],
    17: [("batch_norm_backward", (dy := draw(4, 3, 5), x := draw(4, 3, 5), draw(3), x.mean((0, 2)), x.var((0, 2)), 1e-5))],
    18: [("local_response_norm_backward", (dy, x, local_response_norm_forward(x, 2, 0.5, 0.75, 2.0)[1], 2, 0.5, 0.75))],
    19: [("dropout_forward", (x, 0.3, KEY)), ("dropout_backward", (x, dropout_forward(x, 0.3, KEY)[1], 0.3))],
    20: [("maxout_backward", (draw(5, 2), ARRAYS.integers(0, 3, (5, 2)).astype(np.uint8), 3))],
    37: [("max_pool2d_forward", (draw(2, 3, 5, 4), (3, 2), (2, 1), (1, 0, 0, 1)))],
}  # fmt: skip


@pytest.mark.parametrize("number", CALLS)
def test_a_learners_function_takes_a_kernels_place(number):
    """What training puts in place of the library's kernels gives what they give, in float32."""
    found = functions(number)
    kernels = find(number).train.kernels(found[0] if len(found) == 1 else found)
    assert set(kernels) == {name for name, _ in CALLS[number]}
    for name, args in CALLS[number]:
        got, right = kernels[name](*args), getattr(REFERENCE, name)(*args)
        for g, r in zip(*((a if isinstance(a, tuple) else (a,)) for a in (got, right)), strict=True):
            assert g.dtype == r.dtype
            np.testing.assert_allclose(g, r, rtol=1e-5, atol=1e-5, err_msg=name)


def test_typed_code_runs_as_plain_python():
    text = """
@cython.boundscheck(False)
def f(x: cython.floating[:, ::1]):
    n: cython.Py_ssize_t = 3
    return cython.int(n)
"""
    (f,) = load(text, ("f",), given="from cnnlib.learn.typed import cython")
    assert f(None) == 3 and not typed.cython.compiled


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("Cython") is None or shutil.which("cc") is None, reason="no Cython or no C compiler"
)


@needs_compiler
def test_typed_code_is_compiled():
    text = """
def f(n: cython.int):
    s: cython.double = 0
    for i in range(n):
        s += i
    return s, cython.compiled
"""
    (f,) = typed.compiled(text, ("f",))
    assert f(5) == (10.0, True)


@needs_compiler
def test_what_does_not_compile_is_said():
    with pytest.raises(DeviceError, match=r"it does not compile: line 2: .*nowhere"):
        typed.compiled("def f(n: cython.int):\n    return nowhere\n", ("f",))


def test_without_cython_the_verdict_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert typed.whether() == "It ran as plain Python; to compile it, Cython would be needed."
    with pytest.raises(DeviceError, match="pip install Cython"):
        typed.compiled("", ())
