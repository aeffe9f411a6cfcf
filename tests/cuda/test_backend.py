"""The CUDA backend, with its kernels run on the CPU by the emulator: every case against the textbook, in both dtypes."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import ops
from cnnlib.backends import REFERENCE, interface, kernel_set, readable
from cnnlib.backends.shadow import ShadowError
from cnnlib.tensor import to_device
from cnnlib.train.metrics import confusion_matrix
from tests.cuda.agreement import assert_agrees
from tests.kernel_calls import FAMILIES, Calls, Sizes
from tests.op_cases import CASES
from tests.test_cuda import run

CONTRACT = {name: f for name, f in vars(interface).items() if inspect.isfunction(f)}
rng = np.random.default_rng(3)
ALLOWED = {"float32": 2e-4, "float64": 1e-10}
SIZES = (
    Sizes(),
    Sizes(M=1, N=1, n=3, elements=1, H=5, W=4, window=(3, 2), step=(1, 3), margin=(1, 0, 1, 0)),
    Sizes(M=3, n=2100, elements=2500, H=7, W=30, window=(3, 3), step=(2, 2), margin=(1, 1, 1, 1), p=1.5, size=4),
)


def agree(got, expected, allowed, what=""):
    for y, y0 in zip(got, expected, strict=True):
        assert y.dtype == y0.dtype and y.shape == y0.shape, what
        scale = abs(y0).max(initial=0.0) or 1.0
        np.testing.assert_allclose(y, y0, rtol=allowed, atol=allowed * scale, err_msg=str(what))


# ---- the contract


def test_the_backend_has_every_kernel_of_the_contract_and_no_other(device):
    assert set(vars(kernel_set("cuda"))) - {"name"} == set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_signatures_equal_the_contract(device, name):
    parameters = inspect.signature(getattr(kernel_set("cuda"), name)).parameters.values()
    expected = inspect.signature(CONTRACT[name]).parameters.values()
    assert [(p.name, p.default) for p in parameters] == [(p.name, p.default) for p in expected]


# ---- arrays


def test_what_a_kernel_could_not_read_is_copied_first(device):
    """CuPy's flags do not say whether an array is aligned; its address does."""

    class Array:
        itemsize, flags = 4, SimpleNamespace(c_contiguous=True)

        def __init__(self, address):
            self.data = SimpleNamespace(ptr=address)

        def copy(self):
            return "a copy"

    aligned = Array(512)
    assert readable(aligned) is aligned and readable(Array(514)) == "a copy"
    x = device.asarray(rng.standard_normal((5, 4)))
    np.testing.assert_array_equal(ops.relu(cl.Tensor(x.T)).numpy(), np.maximum(x.get().T, 0))


def test_an_element_that_was_picked_twice_gets_the_sum_in_order(device):
    """Without atomics, whose order would differ from run to run."""
    x = cl.Tensor(device.asarray(np.zeros((3, 2), np.float32)), requires_grad=True)
    dy = (rng.standard_normal((600, 2)) * 10.0 ** rng.integers(-6, 6, (600, 1))).astype(np.float32)
    rows = rng.integers(-3, 3, 600)
    ops.getitem(x, device.asarray(rows)).backward(device.asarray(dy))
    expected = np.zeros((3, 2), np.float32)
    for row, d in zip(rows, dy, strict=True):
        expected[row] += d
    np.testing.assert_array_equal(x.grad.get(), expected)


def test_a_kernel_is_shadowed_by_the_textbook(device):
    x, w = (cl.Tensor(device.asarray(rng.standard_normal(s).astype(np.float32))) for s in ((2, 3, 6, 6), (4, 3, 3, 3)))
    with cl.shadow("reference"):
        y = ops.dropout(ops.relu(ops.conv2d(x, w)), 0.5, training=True)
        assert y.device == "cuda"
        with cl.override_kernel("relu_forward", lambda a: a * 1.01), pytest.raises(ShadowError, match="kernel relu_forward"):
            ops.relu(x)


def test_a_confusion_matrix_of_what_the_device_answered(device):
    answers, labels = np.array([0, 1, 1, 2]), np.array([0, 1, 0, 2])
    on_device = confusion_matrix(device.asarray(answers), device.asarray(labels))
    np.testing.assert_array_equal(on_device.get(), confusion_matrix(answers, labels))


# ---- results


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operation_agrees_with_the_textbook(device, case, dtype):
    with cl.use("reference"):
        expected = run(case, "cpu", dtype)
    agree(run(case, "cuda", dtype), expected, ALLOWED[dtype])


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("sizes", SIZES, ids=["plain", "small", "large"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_kernel_agrees_with_the_textbook_whatever_the_order_of_threads(device, family, sizes, dtype):
    """To the tolerance of ``shadow``; two orders give equal bits; arguments stay as they are; nothing waits for the device."""
    kernels = kernel_set("cuda")
    for call in Calls(1, dtype, sizes).of(family):
        if not call.kernel.endswith("_step"):
            assert_agrees(call.kernel, getattr(kernels, call.kernel), call.arguments)


@pytest.mark.parametrize("dtype", ALLOWED)
def test_a_step_agrees_with_the_textbook(device, dtype):
    """In place, and in nothing but what it may write to."""
    for sizes in SIZES:
        for call in Calls(1, dtype, sizes).of("optim"):
            got = [to_device(a, "cpu") for a in call.with_arrays(device.asarray).on(kernel_set("cuda"))]
            agree(got, call.on(REFERENCE), 2e-6 if dtype == "float32" else 1e-14, call)
            assert got[1].tobytes() == call.arguments[1].tobytes(), "dw"
