"""Normalisations on the emulated device: channels of several parts, rows of a warp and of a block, means far from 0."""

import numpy as np
import pytest

from cnnlib.backends import REFERENCE
from cnnlib.backends.cuda import norm
from tests.cuda.agreement import assert_agrees, results

pytestmark = [pytest.mark.usefixtures("device"), pytest.mark.parametrize("dtype", ["float32", "float64"])]


def draw(dtype):
    rng = np.random.default_rng(5)
    normal = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    return normal, lambda *shape: rng.uniform(0.5, 2.0, shape).astype(dtype)


CHANNELS = [(4, 1, 1), (1, 2, 3), (7, 3, 1), (300, 2, 1), (5, 3, 49), (40, 2, 130), (3, 1, 4100), (1, 2, 9000), (600, 1, 300)]


@pytest.mark.parametrize("shape", CHANNELS)
def test_batch_norm(shape, dtype):
    normal, positive = draw(dtype)
    x, C = normal(*shape) + np.dtype(dtype).type(1), shape[1]
    dy = normal(*shape) + x  # no sum, also with x, that cancels: the tolerance goes by its size
    gamma, beta, mean, var = positive(C), normal(C), x.mean(axis=(0, 2)), x.var(axis=(0, 2))
    for g, b in ((gamma, beta), (None, None)):
        assert_agrees("batch_norm_forward", norm.batch_norm_forward, (x, g, b, 1e-5))
        assert_agrees("batch_norm_backward", norm.batch_norm_backward, (dy, x, g, mean, var, 1e-5))
        assert_agrees("batch_norm_inference_forward", norm.batch_norm_inference_forward, (x, g, b, mean, var, 1e-5))
        assert_agrees("batch_norm_inference_backward", norm.batch_norm_inference_backward, (dy, x, g, mean, var, 1e-5))


@pytest.mark.parametrize("rows, D", [(1, 1), (9, 7), (150, 33), (3, 1025), (2, 3000), (70, 40)])
def test_layer_norm(rows, D, dtype):
    normal, positive = draw(dtype)
    x, dy = normal(rows, D), normal(rows, D)
    mean, rstd = x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + x.dtype.type(1e-5))
    for gamma, beta in ((positive(D), normal(D)), (None, None)):
        assert_agrees("layer_norm_forward", norm.layer_norm_forward, (x, gamma, beta, 1e-5))
        assert_agrees("layer_norm_backward", norm.layer_norm_backward, (dy, x, gamma, mean, rstd))


@pytest.mark.parametrize("distance", [1e3, 1e5])
def test_a_mean_far_from_zero_costs_no_digits(distance, dtype):
    """Rounding x is no kernel's fault, so the textbook gets the rounded x, too."""
    normal, _ = draw(dtype)
    x = normal(6, 3, 700) + np.dtype(dtype).type(distance)
    wide = x.astype(np.float64)
    tolerance = 2e-6 if dtype == "float32" else 1e-10
    y, mean, var = results(norm.batch_norm_forward, (x, None, None, 1e-5))
    np.testing.assert_allclose(mean, wide.mean(axis=(0, 2)), rtol=tolerance)
    np.testing.assert_allclose(var, wide.var(axis=(0, 2)), rtol=tolerance * 10)
    expected = (wide - wide.mean(axis=(0, 2))[:, None]) / np.sqrt(wide.var(axis=(0, 2)) + 1e-5)[:, None]
    np.testing.assert_allclose(y, expected, atol=tolerance * 10)
    y, _, rstd = results(norm.layer_norm_forward, (x.reshape(18, 700), None, None, 1e-5))
    rows = wide.reshape(18, 700)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(rows.var(axis=1) + 1e-5), rtol=tolerance * 10)
    np.testing.assert_allclose(y, (rows - rows.mean(axis=1)[:, None]) * rstd[:, None].astype(float), atol=tolerance * 10)


@pytest.mark.parametrize("distance", [1e3, 1e5])
def test_a_mean_far_from_zero_costs_no_digits_backward(distance, dtype):
    """dy follows x, so that the path through the variance counts, and rounding the mean would show in it."""
    normal, positive = draw(dtype)
    x, noise, gamma = normal(6, 3, 700) + np.dtype(dtype).type(distance), normal(6, 3, 700), positive(700)
    dy, tolerance = x - np.dtype(dtype).type(distance) + noise, 2e-5 if dtype == "float32" else 1e-9
    mean, var = (f(x.astype(np.float64), axis=(0, 2)).astype(dtype) for f in (np.mean, np.var))
    for name, arguments in {
        "batch_norm_backward": (dy, x, None, mean, var, 1e-5),
        "layer_norm_backward": (dy.reshape(18, 700), x.reshape(18, 700), gamma, mean.repeat(6), 1 / np.sqrt(var.repeat(6))),
    }.items():
        wide = getattr(REFERENCE, name)(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments))
        for y, y64 in zip(results(getattr(norm, name), arguments), wide, strict=True):
            np.testing.assert_allclose(y, y64, atol=tolerance * abs(y64).max())


def test_a_constant_has_no_variance(dtype):
    x = np.full((50, 2, 400), 1 / 3, dtype)
    y, mean, var = results(norm.batch_norm_forward, (x, None, None, 1e-5))
    assert not var.any() and not y.any() and (mean == x[0, :, 0]).all()


def test_a_nan_stays_in_its_channel_or_row(dtype):
    normal, _ = draw(dtype)
    x = normal(4, 3, 9)
    x[2, 1, 5] = np.nan
    y, _, var = results(norm.batch_norm_forward, (x, None, None, 1e-5))
    assert np.isnan(y[:, 1]).all() and np.isfinite(y[:, [0, 2]]).all() and np.isnan(var).tolist() == [False, True, False]
    y, _, _ = results(norm.layer_norm_forward, (x.reshape(12, 9), None, None, 1e-5))
    assert np.isnan(y).any(axis=1).tolist() == [row == 7 for row in range(12)] and np.isnan(y[7]).all()


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize("shape, size", [((2, 7, 150), 5), ((3, 8, 1), 3), ((1, 3, 10), 9), ((2, 6, 33), 4), ((2, 3, 4), 1)])
def test_local_response_norm(shape, size, beta, dtype):
    normal, positive = draw(dtype)
    x, dy, s = normal(*shape), normal(*shape), positive(*shape)
    assert_agrees("local_response_norm_forward", norm.local_response_norm_forward, (x, size, 0.7, beta, 1.5))
    assert_agrees("local_response_norm_backward", norm.local_response_norm_backward, (dy, x, s, size, 0.7, beta))


IMAGES = [
    ((2, 3, 20, 23), 9, 1e-4),
    ((2, 2, 4, 5), 9, 1e-4),
    ((1, 1, 6, 7), 3, 1e-4),
    ((3, 3, 3, 4), 1, 1e-4),
    ((1, 2, 5, 5), 5, 10.0),
    ((2, 2, 1, 9), 5, 1e-4),
]


@pytest.mark.parametrize("shape, size, eps", IMAGES)
def test_local_contrast_norm(shape, size, eps, dtype):
    normal, positive = draw(dtype)
    x, dy, v, deviation = normal(*shape), normal(*shape), normal(*shape), positive(shape[0], *shape[2:])
    assert_agrees("local_contrast_norm_forward", norm.local_contrast_norm_forward, (x, size, 1.7, eps))
    assert_agrees("local_contrast_norm_backward", norm.local_contrast_norm_backward, (dy, v, deviation, size, 1.7, eps))
