"""Backends: their names, the kernel contract, the tolerance, shadow."""

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest

import cnnlib as cl
import cnnlib.optim  # its step kernels are part of the contract
from cnnlib import Tensor, ops
from cnnlib.backends import REFERENCE, available, interface, kernel_set
from cnnlib.backends.shadow import ShadowError
from cnnlib.backends.tolerance import BILINEAR, bound, first_difference
from cnnlib.errors import CnnlibError, DeviceError, UnknownNameError
from tests.toys import leaf

CONTRACT = {name: f for name, f in vars(interface).items() if inspect.isfunction(f)}
USABLE = [name for name, reason in available().items() if reason is None]


def python(code, **environment):
    """Run code in a new process; returns its output, or raises with its errors."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()


# ---- names


@pytest.mark.parametrize("name, near", [("refrence", "reference"), ("cpuu", "cpu"), ("Reference", "reference")])
def test_an_unknown_cpu_backend_is_refused_with_the_nearest_name(name, near):
    before = cl.backend()
    with pytest.raises(UnknownNameError, match=f"unknown CPU backend '{name}': did you mean '{near}'"):
        cl.use(name)
    assert cl.backend() == before


def test_cuda_is_no_choice_for_numpy_arrays():
    with pytest.raises(DeviceError, match=r"use\('cuda'\): where an array lives decides: .*\.to\('cuda'\)"):
        cl.use("cuda")


def test_an_unknown_shadow_is_refused():
    with pytest.raises(UnknownNameError, match=r"unknown backend 'torch'.*cpu, cuda, reference"):
        cl.shadow("torch")


@pytest.mark.skipif("cuda" in USABLE, reason="there is a GPU here")
def test_a_backend_that_cannot_run_here_says_why_and_what_to_do():
    with pytest.raises(DeviceError, match=r"backend 'cuda' is not available: .+ Run `cnnlib doctor`"):
        kernel_set("cuda")
    with pytest.raises(DeviceError, match=r"device 'cuda' is not available: .+ To mend it: "):
        Tensor([1.0]).to("cuda")


def test_the_environment_chooses_the_backend_of_a_new_process():
    assert python("import cnnlib as cl; print(cl.backend())", CNNLIB_BACKEND="reference") == "reference"


def test_a_backend_in_the_environment_that_does_not_exist_is_an_error_that_names_it():
    with pytest.raises(RuntimeError, match="unknown CPU backend 'referense': did you mean 'reference'"):
        python("import cnnlib as cl; cl.backend()", CNNLIB_BACKEND="referense")


def test_without_the_variable_the_compiled_kernels_run_where_they_were_built():
    code = "import os; os.environ.pop('CNNLIB_BACKEND', None); import cnnlib as cl; print(cl.backend())"
    assert python(code) == ("cpu" if "cpu" in USABLE else "reference")


# ---- the contract


@pytest.mark.parametrize("backend", USABLE)
def test_a_backend_has_every_kernel_of_the_contract_and_no_other(backend):
    own = set(vars(kernel_set(backend))) - {"name"}
    assert own == set(CONTRACT), f"missing {sorted(set(CONTRACT) - own)}, not in the contract {sorted(own - set(CONTRACT))}"


@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("backend", USABLE)
def test_signatures_equal_the_contract(backend, name):
    parameters = inspect.signature(getattr(kernel_set(backend), name)).parameters.values()
    expected = inspect.signature(CONTRACT[name]).parameters.values()
    assert [(p.name, p.default) for p in parameters] == [(p.name, p.default) for p in expected]


@pytest.mark.parametrize("name", CONTRACT)
def test_every_kernel_of_the_contract_is_described(name):
    assert CONTRACT[name].__doc__


def test_every_bilinear_kernel_is_in_the_contract():
    assert set(CONTRACT) >= BILINEAR


# ---- the tolerance

rng = np.random.default_rng(0)
GEOMETRY = ((1, 1), (1, 1, 1, 1), (1, 1), 1)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


x, w, dy = normal(4, 8, 9, 9), normal(6, 8, 3, 3), normal(4, 6, 9, 9)
argmax = rng.integers(0, 4, (4, 8, 4, 4)).astype(np.uint8)
ARGUMENTS = {
    "gemm": (normal(30, 50), normal(50, 20)),
    "linear_forward": (normal(32, 40), normal(10, 40), normal(10)),
    "linear_backward_input": (normal(32, 10), normal(10, 40)),
    "linear_backward_weight": (normal(32, 10), normal(32, 40)),
    "linear_backward_bias": (normal(32, 10),),
    "conv2d_forward": (x, w, normal(6), *GEOMETRY),
    "conv2d_backward_input": (dy, w, x.shape, *GEOMETRY),
    "conv2d_backward_weight": (dy, x, w.shape, *GEOMETRY),
    "conv2d_backward_bias": (dy,),
    "avg_pool2d_forward": (x, (2, 2), (2, 2), (0, 0, 0, 0), True),
    "avg_pool2d_backward": (normal(4, 8, 4, 4), x.shape, (2, 2), (2, 2), (0, 0, 0, 0), True),
    "embedding_backward": (normal(50, 6), rng.integers(0, 7, 50), 9),
    "max_pool2d_backward": (normal(4, 8, 4, 4), argmax, x.shape, (2, 2), (2, 2), (0, 0, 0, 0)),
}


def compared(name, dtype):
    """(kernel, arguments in dtype, result in dtype, result in float64)"""
    kernel = getattr(REFERENCE, name)
    arguments = tuple(a.astype(dtype) if getattr(a, "dtype", None) == np.float32 else a for a in ARGUMENTS[name])
    widened = tuple(a.astype(np.float64) if getattr(a, "dtype", None) == dtype else a for a in arguments)
    return kernel, arguments, kernel(*arguments), kernel(*widened)


def test_every_bilinear_kernel_has_arguments_here():
    assert set(ARGUMENTS) == BILINEAR


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_within_the_tolerance(name, dtype):
    kernel, arguments, y, y64 = compared(name, dtype)
    assert first_difference(y, y64, bound(name, kernel, arguments, y64, dtype)) is None


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_error_of_a_thousandth_is_outside(name, dtype):
    kernel, arguments, y, y64 = compared(name, dtype)
    allowed = bound(name, kernel, arguments, y64, dtype)
    assert first_difference(y * np.asarray(1.001, dtype), y64, allowed) is not None, "all of it"
    one = y.copy()
    largest = np.unravel_index(abs(y64).argmax(), y64.shape)
    one[largest] *= 1.001
    assert first_difference(one, y64, allowed)[0] == largest, "one element"


@pytest.mark.parametrize("K", [100, 1000, 4608])
def test_a_thousandth_is_caught_for_long_sums_too(K):
    a, b = normal(16, K), normal(K, 16)
    y64 = a.astype(np.float64) @ b
    allowed = bound("gemm", REFERENCE.gemm, (a, b), y64, "float32")
    assert first_difference((a @ b), y64, allowed) is None
    assert first_difference((a @ b) * np.float32(1.001), y64, allowed) is not None


def test_a_missing_term_is_outside():
    y64 = ARGUMENTS["gemm"][0].astype(float) @ ARGUMENTS["gemm"][1]
    a = ARGUMENTS["gemm"][0].copy()
    a[3, 7] = 0.0
    y = a @ ARGUMENTS["gemm"][1]
    assert first_difference(y, y64, bound("gemm", REFERENCE.gemm, ARGUMENTS["gemm"], y64, "float32"))[0][0] == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_must_agree(value):
    good = np.array([1.0, value])
    assert first_difference(good.astype("float32"), good, 1e-3) is None
    plain, opposite = np.array([1.0, 2.0]), np.array([1.0, -5.0 if np.isnan(value) else -value])
    for y, y64 in ((good, plain), (plain, good), (good, opposite)):
        index, _ = first_difference(y.astype("float32"), y64, 1e-3)
        assert index == (1,)


def test_integers_must_be_equal():
    assert first_difference(np.array([1, 2]), np.array([1, 2]), 0.0) is None
    assert first_difference(np.array([1, 2]), np.array([1, 3]), 0.0)[0] == (1,)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1,), ()])
def test_a_result_of_another_shape_disagrees_even_where_it_broadcasts(shape):
    y64 = np.ones(3)
    try:
        assert first_difference(np.ones(shape, np.float32), y64, 1e-3) is not None
    except CnnlibError:
        pass


@pytest.mark.parametrize("name", ["softmax_backward", "log_softmax_backward"])
def test_a_result_that_cancels_is_no_false_alarm_and_a_thousandth_of_dy_is_found(name):
    kernel = getattr(REFERENCE, name)
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, dy = rng.standard_normal((2, 1, 2)).astype(np.float32)
        y = REFERENCE.log_softmax_forward(x) if name.startswith("log") else REFERENCE.softmax_forward(x)
        y64 = kernel(dy.astype(np.float64), y.astype(np.float64))
        allowed = bound(name, kernel, (dy, y), y64, np.float32)
        assert first_difference(kernel(dy, y), y64, allowed) is None
        assert first_difference(y64 + 1e-3 * abs(dy).max(), y64, allowed) is not None


def test_nothing_disagrees_in_empty_results():
    assert first_difference(np.zeros((0, 3), "float32"), np.zeros((0, 3)), 1e-3) is None


# ---- shadow


def wrong_gemm(a, b, transpose_a=False, transpose_b=False):
    return REFERENCE.gemm(a, b, transpose_a, transpose_b) * np.asarray(1.001, a.dtype)


@pytest.fixture
def broken(monkeypatch):
    """A "compiled" backend whose gemm is off by 0.1 %."""
    kernels = {name: f for name, f in vars(REFERENCE).items() if name != "name"}
    broken = cl.backends.KernelSet(name="cpu", **{**kernels, "gemm": wrong_gemm})
    monkeypatch.setitem(cl.backends._loaded, "cpu", broken)
    with cl.use("cpu"):
        yield


def test_shadow_names_the_kernel_that_disagrees(broken):
    a, b = Tensor(ARGUMENTS["gemm"][0]), Tensor(ARGUMENTS["gemm"][1])
    with cl.shadow("reference"):
        ops.exp(a)
        with pytest.raises(
            ShadowError, match=r"shadow: kernel gemm of backend 'cpu' disagrees with 'reference': output 0 at index \("
        ):
            a @ b
    a @ b  # only inside the block


def test_shadow_is_bound_at_forward_and_watches_backward(broken, monkeypatch):
    a, b = leaf(ARGUMENTS["gemm"][0]), leaf(ARGUMENTS["gemm"][1])
    right = iter([True, False, False])
    gemm = lambda *args: (REFERENCE.gemm if next(right) else wrong_gemm)(*args)  # noqa: E731
    monkeypatch.setattr(kernel_set("cpu"), "gemm", gemm)
    with cl.shadow("reference"):
        y = (a @ b).sum()
    with pytest.raises(ShadowError, match="kernel gemm"):
        y.backward()
    assert a.grad is None and b.grad is None


def test_shadow_passes_what_is_right(monkeypatch):
    kernels = {name: f for name, f in vars(REFERENCE).items() if name != "name"}
    monkeypatch.setitem(cl.backends._loaded, "cpu", cl.backends.KernelSet(name="cpu", **kernels))
    for dtype in ("float32", "float64"):
        with cl.use("cpu"), cl.shadow("reference"):
            a, b, v = (leaf(values, dtype) for values in (x, w, ARGUMENTS["conv2d_forward"][2]))
            y = ops.conv2d(a, b, v, padding=1)
            y.backward(dy.astype(dtype))
        assert a.grad is not None and y.dtype == dtype


def test_shadow_checks_an_overridden_kernel():
    """Every kernel runs twice: also the one that the user is just writing, in either order of the blocks."""
    a, b = Tensor(ARGUMENTS["gemm"][0]), Tensor(ARGUMENTS["gemm"][1])
    with cl.shadow("reference"), cl.override_kernel("gemm", wrong_gemm), pytest.raises(ShadowError, match="kernel gemm"):
        a @ b
    with cl.override_kernel("gemm", wrong_gemm), cl.shadow("reference"), pytest.raises(ShadowError, match="kernel gemm"):
        a @ b


def test_shadow_allows_keyword_arguments(broken, monkeypatch):
    def backward(ctx, dy):
        return ctx.kernels.gemm(dy, ctx.b, transpose_b=True), None

    monkeypatch.setattr(kernel_set("cpu"), "gemm", REFERENCE.gemm)
    a = leaf(np.eye(2))
    with cl.shadow("reference"), cl.override(ops.Matmul, backward=backward):
        (a @ Tensor(np.ones((2, 2), np.float32))).sum().backward()
    np.testing.assert_array_equal(a.grad, np.full((2, 2), 2.0))


def test_shadow_passes_over_a_result_that_is_none(broken, monkeypatch):
    """The adjoint of an LSTM's peepholes where there are none."""
    monkeypatch.setattr(kernel_set("cpu"), "gemm", REFERENCE.gemm)
    monkeypatch.setattr(kernel_set("cpu"), "lstm_backward", lambda *arguments: REFERENCE.lstm_backward(*arguments))
    with cl.shadow("reference"):
        ops.lstm(leaf(normal(4, 2, 3)), None, None, Tensor(normal(20, 3)), Tensor(normal(20, 5)))[0].sum().backward()
        wrong = lambda *arguments: (*REFERENCE.lstm_backward(*arguments)[:3], *[np.zeros((20, 5), np.float32), None])  # noqa: E731
        monkeypatch.setattr(kernel_set("cpu"), "lstm_backward", wrong)
        y, _, _ = ops.lstm(leaf(normal(4, 2, 3)), None, None, Tensor(normal(20, 3)), Tensor(normal(20, 5)))
        with pytest.raises(ShadowError, match="kernel lstm_backward of backend 'cpu' disagrees with 'reference': output 3"):
            y.sum().backward()


def test_shadow_sees_a_result_of_the_wrong_shape(broken, monkeypatch):
    monkeypatch.setattr(kernel_set("cpu"), "linear_backward_bias", lambda dy: dy.sum(axis=0, keepdims=True))
    with cl.shadow("reference"), pytest.raises(CnnlibError, match="linear_backward_bias"):
        ops.linear(Tensor(np.ones((3, 2), np.float32)), leaf(np.ones((2, 2))), leaf([0.0, 0.0])).sum().backward()
