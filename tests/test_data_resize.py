"""Scaling pictures: against Pillow, and what any scaling must keep."""

import numpy as np
import pytest

from cnnlib.data import Compose, Normalize, RandomFlip, Resize
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from cnnlib.train import preprocessing


@pytest.mark.parametrize("shape", [(28, 28), (7, 30), (1, 1), (64, 50)])
@pytest.mark.parametrize("size", [1, 9, 28, 64])
def test_it_scales_as_pillow_does(shape, size):
    Image = pytest.importorskip("PIL.Image")
    x = np.random.default_rng(0).random((2, 3, *shape)).astype(np.float32)
    y = Resize(size)(x)
    assert y.shape == (2, 3, size, size) and y.dtype == np.float32
    for maps, scaled in zip(x.reshape(-1, *shape), y.reshape(-1, size, size), strict=True):
        expected = np.asarray(Image.fromarray(maps).resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(scaled, expected, atol=2e-6)


def test_pictures_of_that_size_stay_as_they_are_and_grey_stays_grey():
    x = np.random.default_rng(0).random((2, 1, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(Resize(16)(x), x)
    np.testing.assert_allclose(Resize(40)(np.full((1, 1, 12, 20), 0.3, np.float32)), 0.3, rtol=1e-6)


def test_evaluation_and_a_checkpoint_scale_too():
    transform = Compose([RandomFlip(), Resize(12), Normalize(0.5, 0.25)])
    kept = preprocessing.build(preprocessing.describe(preprocessing.without_chance(transform)))
    x = np.random.default_rng(0).random((2, 1, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(kept(x, np.arange(2), 0, 0), Normalize(0.5, 0.25)(Resize(12)(x)))


def test_misuse():
    for size in (0, 2.5, True):
        with pytest.raises(ValueRangeError, match="Resize: size must be a whole number of pixels, at least 1; got"):
            Resize(size)
    with pytest.raises(ShapeError, match=r"Resize: expected pictures \(N, C, H, W\), got x.shape = \(2, 8\)"):
        Resize(4)(np.zeros((2, 8), np.float32))
    with pytest.raises(DtypeError, match="Resize: expected floats, got uint8: scale pixels first"):
        Resize(4)(np.full((1, 1, 8, 8), 200, np.uint8))
