"""What users hand over by mistake: arrays of two devices, the CPU's labels, NumPy's arrays, arrays of another layout."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import ops
from cnnlib.errors import DeviceError, DtypeError
from cnnlib.tensor import to_device

rng = np.random.default_rng(0)
X, W = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((2, 3)).astype(np.float32)
IMAGES, FILTERS = rng.standard_normal((2, 3, 6, 6)).astype(np.float32), rng.standard_normal((4, 3, 3, 3)).astype(np.float32)

MIXED = {
    "labels of the CPU, logits of the GPU": (lambda x: ops.cross_entropy(x, np.array([0, 1, 2, 0])), "cross_entropy: "),
    "a NumPy array in an operation of the GPU": (lambda x: x + X, "add: "),
    "weights that were left on the CPU": (lambda x: ops.linear(x, cl.Tensor(W), None), "linear: "),
    "an adjoint of the CPU": (lambda x: (x * 2.0).backward(X), "backward: "),
}


@pytest.mark.parametrize("name", MIXED)
def test_arrays_of_two_devices_are_refused_with_what_to_call(device, name):
    call, operation = MIXED[name]
    x = cl.Tensor(to_device(X, "cuda"), requires_grad=True)
    with pytest.raises(DeviceError, match=r"\.to\('c") as raised:
        call(x)
    assert str(raised.value).startswith(operation) and "on cpu" in str(raised.value) and "on cuda" in str(raised.value)


@pytest.mark.parametrize(
    "change", [lambda a: a[:, ::-1], lambda a: a.T.copy().T, lambda a: a[::2]], ids=["back", "T", "every 2nd"]
)
def test_device_arrays_of_every_layout_give_the_same(device, change):
    on_gpu, on_cpu = change(to_device(IMAGES, "cuda")), change(IMAGES)
    w = to_device(FILTERS, "cuda")
    if on_cpu.shape[1] != 3:
        on_gpu, on_cpu = on_gpu.transpose(0, 3, 1, 2)[:, :3], on_cpu.transpose(0, 3, 1, 2)[:, :3]
    y = ops.conv2d(cl.Tensor(on_gpu), cl.Tensor(w), None)
    with cl.use("reference"):
        expected = ops.conv2d(cl.Tensor(on_cpu.copy()), cl.Tensor(FILTERS), None)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_half_precision_is_refused(device):
    with pytest.raises(DtypeError, match="float16"):
        cl.Tensor(to_device(X.astype(np.float16), "cuda"))


def test_a_class_to_ignore_is_a_whole_number_of_any_kind(device):
    """Kernels take 64 bits; CuPy passes a NumPy number of 32 bits as it is, and None would be read as class 0."""
    x, labels = cl.Tensor(device.asarray(rng.standard_normal((3, 3)))), device.asarray(np.arange(3))
    expected = ops.cross_entropy(x, labels, ignore_index=1).item()
    assert ops.cross_entropy(x, labels, ignore_index=np.int32(1)).item() == expected
    with pytest.raises(TypeError):
        ops.cross_entropy(x, labels, ignore_index=None)
