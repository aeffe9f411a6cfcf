"""Linear kernels on the emulated device: transposed operands, and the bias' adjoint over many rows."""

import numpy as np
import pytest

from cnnlib.backends.cuda import linear
from tests.cuda.agreement import assert_agrees

pytestmark = pytest.mark.usefixtures("device")


def normal(*shape, dtype="float32"):
    return np.random.default_rng(4).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_products(flags, batch, dtype):
    a, b = ((4, 5), (5, 6)), ((5, 4), (6, 5))
    left, right = (b if flag else a for flag in flags)
    assert_agrees("gemm", linear.gemm, (normal(*batch, *left[0], dtype=dtype), normal(*batch, *right[1], dtype=dtype), *flags))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows, inputs, outputs", [(1, 1, 1), (7, 5, 33), (200, 3, 40), (5000, 2, 3)])
def test_layers(rows, inputs, outputs, dtype):
    x, w, b = normal(rows, inputs, dtype=dtype), normal(outputs, inputs, dtype=dtype), normal(outputs, dtype=dtype)
    dy = normal(rows, outputs, dtype=dtype)
    for bias in (b, None):
        assert_agrees("linear_forward", linear.linear_forward, (x, w, bias))
    assert_agrees("linear_backward_input", linear.linear_backward_input, (dy, w))
    assert_agrees("linear_backward_weight", linear.linear_backward_weight, (dy, x))
    assert_agrees("linear_backward_bias", linear.linear_backward_bias, (dy,))
