"""Linear kernels on the emulated device: transposed operands, and the bias' adjoint over many rows."""

import contextlib

import numpy as np
import pytest

from cnnlib.backends.cuda import linear
from cnnlib.backends.cuda.recordable import recordable
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
    operands = normal(*batch, *left[0], dtype=dtype), normal(*batch, *right[1], dtype=dtype)
    assert_agrees("gemm", linear.gemm, (*operands, *flags))
    with recordable():
        assert_agrees("gemm", linear.gemm, (*operands, *flags))


@pytest.mark.parametrize("M, K, N", [(1, 1, 1), (70, 9, 130), (3, 700, 5), (130, 17, 2), (4, 0, 3), (0, 4, 3), (4, 3, 0)])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_products_without_cublas_take_any_size(M, K, N, flags):
    left, right = ((K, M) if flags[0] else (M, K)), ((N, K) if flags[1] else (K, N))
    with recordable():
        assert_agrees("gemm", linear.gemm, (normal(*left), normal(*right), *flags))


def test_products_without_cublas_broadcast_and_read_any_strides():
    with recordable():
        assert_agrees("gemm", linear.gemm, (normal(2, 1, 4, 5), normal(3, 5, 6)))
        assert_agrees("gemm", linear.gemm, (normal(4, 9)[:, 3:8], normal(6, 5).T))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows, inputs, outputs", [(1, 1, 1), (7, 5, 33), (200, 3, 40), (5000, 2, 3)])
def test_layers(rows, inputs, outputs, dtype):
    x, w, b = normal(rows, inputs, dtype=dtype), normal(outputs, inputs, dtype=dtype), normal(outputs, dtype=dtype)
    dy = normal(rows, outputs, dtype=dtype)
    for products in (contextlib.nullcontext(), recordable()):
        with products:
            for bias in (b, None):
                assert_agrees("linear_forward", linear.linear_forward, (x, w, bias))
            assert_agrees("linear_backward_input", linear.linear_backward_input, (dy, w))
            assert_agrees("linear_backward_weight", linear.linear_backward_weight, (dy, x))
    assert_agrees("linear_backward_bias", linear.linear_backward_bias, (dy,))
