"""Initial weights have the variance that their formula promises, and depend on the seed only."""

import math

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn
from cnnlib.errors import ShapeError
from cnnlib.nn import init

SHAPES = [(300, 200), (64, 32, 5, 5), (100, 50, 9)]


def fans(shape):
    return shape[1] * math.prod(shape[2:]), shape[0] * math.prod(shape[2:])


VARIANCE = {
    init.xavier_uniform: lambda i, o: 2 / (i + o),
    init.xavier_normal: lambda i, o: 2 / (i + o),
    init.he_uniform: lambda i, o: 2 / i,
    init.he_normal: lambda i, o: 2 / i,
    init.lecun_uniform: lambda i, o: 1 / i,
    init.lecun_normal: lambda i, o: 1 / i,
    init.default_weight: lambda i, o: 1 / (3 * i),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("initialiser", VARIANCE, ids=lambda f: f.__name__)
def test_mean_variance_and_shape_of_the_distribution(initialiser, shape):
    cl.manual_seed(1)
    w = initialiser(shape).astype(np.float64)
    variance = VARIANCE[initialiser](*fans(shape))
    n = w.size
    kurtosis = 3.0 if "normal" in initialiser.__name__ else 1.8
    assert w.shape == shape and initialiser(shape).dtype == np.float32
    assert abs(w.mean()) < 5 * math.sqrt(variance / n)
    assert abs(w.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / n)
    assert abs((w**4).mean() / w.var() ** 2 - kurtosis) < 0.1
    if kurtosis == 1.8:
        assert abs(w).max() <= math.sqrt(3 * variance) * (1 + 1e-6)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_gain_scales(gain):
    for initialiser in (init.xavier_uniform, init.xavier_normal, init.orthogonal):
        cl.manual_seed(1)
        one = initialiser((20, 30))
        cl.manual_seed(1)
        np.testing.assert_allclose(initialiser((20, 30), gain), gain * one, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (4, 2, 3, 3), (40, 2, 3, 3)])
def test_orthogonal_rows_or_columns(shape):
    cl.manual_seed(2)
    w = init.orthogonal(shape).reshape(shape[0], -1).astype(np.float64)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-6)


def test_orthogonal_matrices_are_spread_over_all_of_them():
    """Without the sign correction of QR, the diagonal would lean to one side."""
    cl.manual_seed(3)
    diagonals = np.array([np.diag(init.orthogonal((3, 3))) for _ in range(400)])
    assert abs(diagonals.mean()) < 5 * math.sqrt(1 / 3 / diagonals.size)


def test_the_seed_decides_and_each_draw_differs():
    cl.manual_seed(7)
    first, second = init.he_normal((30, 20)), init.he_normal((30, 20))
    cl.manual_seed(7)
    np.testing.assert_array_equal(init.he_normal((30, 20)), first)
    assert not np.array_equal(first, second)
    cl.manual_seed(8)
    assert not np.array_equal(init.he_normal((30, 20)), first)


def test_numpys_own_generator_has_no_part_in_it():
    cl.manual_seed(7)
    first = nn.Linear(5, 4).weight.data
    cl.manual_seed(7)
    np.random.seed(0)
    np.random.random(100)
    np.testing.assert_array_equal(nn.Linear(5, 4).weight.data, first)


def test_other_streams_do_not_move_the_weights():
    cl.manual_seed(7)
    first = nn.Linear(5, 4).weight.data
    cl.manual_seed(7)
    for stream in ("dropout", "data", "sampling"):
        cl.random.next_key(stream)
    np.testing.assert_array_equal(nn.Linear(5, 4).weight.data, first)


@pytest.mark.parametrize("shape", [(5,), ()])
def test_a_weight_needs_two_axes(shape):
    with pytest.raises(ShapeError, match=r"fans: a weight needs at least 2 axes"):
        init.he_normal(shape)


def test_signals_keep_their_variance_through_deep_layers():
    cl.manual_seed(5)
    x = np.random.default_rng(0).normal(size=(200, 256))
    forward = x
    for _ in range(10):
        forward = np.maximum(forward @ init.he_normal((256, 256)).T, 0.0)
    assert 0.3 < (forward**2).mean() / (x**2).mean() < 3.0
