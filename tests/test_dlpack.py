"""DLPack: memory shared with other libraries, in both directions."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.errors import DeviceError, DtypeError, GraphError


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_memory_is_shared_in_both_directions(dtype):
    a = np.arange(6).astype(dtype).reshape(2, 3)
    t = cl.Tensor.from_dlpack(a)
    assert t.dtype == a.dtype and t.shape == (2, 3)
    a[1, 2] = 9
    assert t.numpy()[1, 2] == 9
    back = np.from_dlpack(t)
    back[0, 0] = 5
    assert a[0, 0] == 5


def test_torch_shares_memory_in_both_directions():
    torch = pytest.importorskip("torch")
    theirs = torch.zeros(2, 3)
    ours = cl.Tensor.from_dlpack(theirs)
    theirs[0, 1] = 4.0
    assert ours.numpy()[0, 1] == 4.0
    again = torch.from_dlpack(ours)
    again[1, 1] = 2.0
    assert theirs[1, 1] == 2.0 and ours.numpy()[1, 1] == 2.0


def test_a_strided_array_keeps_its_strides_and_can_be_used():
    a = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    t = cl.Tensor.from_dlpack(a)
    assert np.shares_memory(t.numpy(), a)
    np.testing.assert_array_equal((t * 2.0).numpy(), 2 * a)


def test_a_tensor_that_requires_a_gradient_is_not_handed_out():
    t = cl.Tensor([1.0], requires_grad=True)
    with pytest.raises(GraphError, match=r"t\.detach\(\) first"):
        np.from_dlpack(t)
    assert np.shares_memory(np.from_dlpack(t.detach()), t.data)


def test_what_speaks_no_dlpack_is_refused():
    with pytest.raises(DtypeError, match=r"expected an array that speaks DLPack \(__dlpack__\), got list"):
        cl.Tensor.from_dlpack([1.0])


class Elsewhere:
    def __init__(self, device):
        self.device = device

    def __dlpack__(self, **_):
        raise AssertionError("must not be asked for")

    def __dlpack_device__(self):
        return (self.device, 0)


def test_a_foreign_device_is_refused():
    with pytest.raises(DeviceError, match="DLPack device 8; cnnlib knows the CPU and CUDA only"):
        cl.Tensor.from_dlpack(Elsewhere(8))


def test_cuda_memory_without_a_usable_gpu_says_why():
    if cl.backends.available()["cuda"] is None:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="device 'cuda' is not available"):
        cl.Tensor.from_dlpack(Elsewhere(2))


def test_an_unusable_type_is_refused():
    with pytest.raises(DtypeError, match="float16"):
        cl.Tensor.from_dlpack(np.zeros(2, np.float16))
