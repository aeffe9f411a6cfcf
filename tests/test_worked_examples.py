"""The worked examples of the lecture on convolutional networks, digit for digit. docs/worked-examples.md shows them."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.backends import available


@pytest.fixture(autouse=True, params=[name for name in ("reference", "cpu") if available()[name] is None])
def backend(request):
    with cl.use(request.param):
        yield


each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def matrices(text, dtype="float32"):
    """Rows separated by "/", matrices by ";": ``"1 2 / 3 4"`` -> (1, 2, 2)."""
    return np.array([[row.split() for row in matrix.split("/")] for matrix in text.split(";")], dtype)


# ---- 7×7×3, two filters of 3×3×3, stride 2: the demo of CS231n

X = """0 0 0 0 0 0 0 / 0 1 1 1 0 0 0 / 0 0 2 0 1 0 0 / 0 2 1 0 1 2 0 / 0 0 2 1 0 1 0 / 0 1 1 1 2 1 0 / 0 0 0 0 0 0 0 ;
       0 0 0 0 0 0 0 / 0 2 1 1 1 0 0 / 0 0 1 2 1 1 0 / 0 0 0 2 0 2 0 / 0 0 2 2 2 2 0 / 0 1 2 1 0 1 0 / 0 0 0 0 0 0 0 ;
       0 0 0 0 0 0 0 / 0 2 0 0 1 2 0 / 0 2 0 1 0 2 0 / 0 0 1 2 2 0 0 / 0 1 2 0 0 2 0 / 0 0 1 1 1 2 0 / 0 0 0 0 0 0 0"""
W0 = "0 -1 1 / 1 0 -1 / 1 0 0 ; 0 -1 1 / 1 0 -1 / 0 0 1 ; 1 0 0 / 1 0 0 / 1 -1 -1"
W1 = "0 0 1 / 1 1 1 / 0 0 -1 ; -1 -1 1 / 0 1 -1 / -1 -1 -1 ; 0 1 0 / 1 0 0 / -1 -1 0"
OUTPUT = "-2 4 2 / 2 8 1 / 2 4 1 ; -2 -4 -3 / 3 -3 1 / 6 4 3"


@each_dtype
def test_two_filters_over_three_channels(dtype):
    x, w, b = matrices(X, dtype)[None], np.stack([matrices(W0, dtype), matrices(W1, dtype)]), np.array([1, 0], dtype)
    expected = matrices(OUTPUT, dtype)[None]
    np.testing.assert_array_equal(ops.conv2d(x, w, b, stride=2).numpy(), expected)
    inside = np.ascontiguousarray(x[:, :, 1:-1, 1:-1])
    np.testing.assert_array_equal(ops.conv2d(inside, w, b, stride=2, padding=1).numpy(), expected)
    ring = x.copy()
    ring[:, :, 1:-1, 1:-1] = 0
    assert not ring.any(), "the figure's border is the padding"


# ---- 5×5, one kernel of 2×2, no bias


@each_dtype
def test_a_kernel_of_two_by_two(dtype):
    x = matrices("1 3 5 2 4 / 6 0 2 1 3 / 6 3 1 3 6 / 7 3 2 1 3 / 5 3 0 0 2", dtype)[None]
    w = matrices("0.2 0.7 / -0.5 0.7", dtype)[None]
    y = ops.conv2d(x, w).numpy()[0, 0]
    assert y.shape == (4, 4)
    assert y[0, 0] == pytest.approx(0.2 * 1 + 0.7 * 3 - 0.5 * 6 + 0.7 * 0) == pytest.approx(-0.7)
    assert y[0, 1] == pytest.approx(0.2 * 3 + 0.7 * 5 - 0.5 * 0 + 0.7 * 2) == pytest.approx(5.5)
    expected = matrices("-0.7 5.5 2.1 4.8 / 0.3 0.6 2.7 5 / 1.9 1.2 2 6.4 / 3.1 0.5 1.1 3.7", dtype)[0]
    np.testing.assert_allclose(y, expected, atol=1e-6 if dtype == "float32" else 1e-14)


# ---- pooling


@each_dtype
def test_max_pooling(dtype):
    x = matrices("2 8 9 4 / 3 6 5 7 / 3 1 6 4 / 2 5 7 3", dtype)[None]
    np.testing.assert_array_equal(ops.max_pool2d(x, 2).numpy()[0], matrices("8 9 / 5 7"))


@each_dtype
def test_max_and_average_pooling_where_the_lecture_rounds(dtype):
    x = matrices("12 20 30 0 / 8 12 2 0 / 34 70 37 4 / 112 100 25 12", dtype)[None]
    np.testing.assert_array_equal(ops.max_pool2d(x, 2).numpy()[0], matrices("20 30 / 112 37"))
    average = ops.avg_pool2d(x, 2).numpy()[0]
    np.testing.assert_array_equal(average, matrices("13 8 / 79 19.5"))
    np.testing.assert_array_equal(np.floor(average + 0.5), matrices("13 8 / 79 20"))  # as printed


@each_dtype
def test_l2_pooling(dtype):
    x = matrices("3 4 6 0 / 0 0 0 8 / -3 0 0 0 / 0 -4 0 0", dtype)[None]
    np.testing.assert_allclose(ops.lp_pool2d(x, 2, 2).numpy()[0], matrices("5 10 / 5 0"), rtol=1e-6)


# ---- signals


@each_dtype
def test_convolution_and_pooling_of_a_signal(dtype):
    x = matrices("1 3 2 5 4 6", dtype)
    w = matrices("1 0 -1", dtype)
    np.testing.assert_array_equal(ops.conv1d(x, w).numpy()[0, 0], [1 - 2, 3 - 5, 2 - 4, 5 - 6])
    np.testing.assert_array_equal(ops.conv1d(x, w, stride=2, padding=1).numpy()[0, 0], [0 - 3, 3 - 5, 5 - 6])
    np.testing.assert_array_equal(ops.max_pool1d(x, 2).numpy()[0, 0], [3, 5, 6])
    np.testing.assert_array_equal(ops.avg_pool1d(x, 2).numpy()[0, 0], [2, 3.5, 5])
    np.testing.assert_array_equal(ops.max_pool1d(x, 3, stride=2).numpy()[0, 0], [3, 5])


@each_dtype
def test_a_kernel_over_three_words(dtype):
    """Text: a word is a column of D = 2 numbers, and one filter looks at two words at a time."""
    x = matrices("1 0 2 1 / 0 3 1 1", dtype)
    w = matrices("1 -1 / 2 0", dtype)
    expected = [1 * 1 - 1 * 0 + 2 * 0, 1 * 0 - 1 * 2 + 2 * 3, 1 * 2 - 1 * 1 + 2 * 1]
    y = ops.conv1d(x, w, np.array([0.5], dtype)).numpy()[0, 0]
    np.testing.assert_array_equal(y, np.add(expected, 0.5))
    assert ops.max_pool1d(y.reshape(1, 1, 3), 3).item() == 4.5  # "max over time"


# ---- formulas


@pytest.mark.parametrize("size", [5, 8, 13])
@pytest.mark.parametrize("F, P, S", [(1, 0, 1), (3, 0, 1), (3, 1, 1), (3, 1, 2), (2, 0, 2), (5, 2, 3), (5, 0, 4)])
def test_output_size_and_number_of_parameters(size, F, P, S):
    D, K = 3, 4
    layer = nn.Conv2d(D, K, F, stride=S, padding=P)
    W2 = (size - F + 2 * P) // S + 1  # rounded down where S leaves a rest
    assert layer(np.zeros((1, D, size, size), np.float32)).shape == (1, K, W2, W2)
    assert layer.weight.size == F * F * D * K
    assert sum(p.size for p in layer.parameters()) == (F * F * D + 1) * K


@pytest.mark.parametrize("F", [1, 3, 5, 7])
def test_a_padding_of_half_the_kernel_keeps_the_size(F):
    x, w = np.random.default_rng(0).random((1, 2, 9, 8)), np.random.default_rng(1).random((3, 2, F, F))
    y = ops.conv2d(x, w, padding=(F - 1) // 2).numpy()
    assert y.shape == (1, 3, 9, 8)
    np.testing.assert_array_equal(y, ops.conv2d(x, w, padding="same").numpy())


def test_alexnets_first_layer():
    layer = nn.Conv2d(3, 96, 11, stride=4)
    assert (227 - 11 + 2 * 0) / 4 + 1 == 55
    assert layer(np.zeros((1, 3, 227, 227), np.float32)).shape == (1, 96, 55, 55)
    assert sum(p.size for p in layer.parameters()) == (11 * 11 * 3 + 1) * 96 == 34_944


def test_locally_connected_has_27_weights_per_unit_where_a_convolution_has_27_per_map():
    layer = nn.LocallyConnected2d(3, 3, input_size=20, kernel_size=3, padding=1, bias=False)
    assert layer.weight.size == 27 * (20 * 20 * 3) and nn.Conv2d(3, 3, 3, bias=False).weight.size == 27 * 3


# ---- no flip


@each_dtype
def test_what_is_called_convolution_is_correlation(dtype):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 7, 9)).astype(dtype), rng.standard_normal((2, 3, 4)).astype(dtype)
    y = ops.conv2d(x[None], w[None]).numpy()[0, 0]
    correlation = sum(signal.correlate2d(x[c], w[c], mode="valid") for c in range(2))
    convolution = sum(signal.convolve2d(x[c], w[c], mode="valid") for c in range(2))
    close = {"rtol": 0, "atol": 1e-5 if dtype == "float32" else 1e-13}
    np.testing.assert_allclose(y, correlation, **close)
    assert abs(y - convolution).max() > 0.5
    flipped = np.ascontiguousarray(w[:, ::-1, ::-1])
    np.testing.assert_allclose(ops.conv2d(x[None], flipped[None]).numpy()[0, 0], convolution, **close)
