"""Pictures of what models draw: where each picture stands, and what is refused."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import viz
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.viz.samples import latent_plane

pytest.importorskip("matplotlib")


def shown(figure):
    (ax,) = figure.axes
    return np.asarray(ax.images[0].get_array())


def test_pictures_stand_in_rows_with_white_between():
    pictures = np.arange(5, dtype=np.float32)[:, None, None, None] / 10 * np.ones((5, 1, 2, 3), np.float32)
    sheet = viz.mosaic(pictures, columns=3)[0]
    assert sheet.shape == (2 * 3 - 1, 3 * 4 - 1)
    for i in range(5):
        r, c = divmod(i, 3)
        assert (sheet[3 * r : 3 * r + 2, 4 * c : 4 * c + 3] == np.float32(i / 10)).all()
    assert (sheet[2] == 1).all() and (sheet[:, 3] == 1).all() and (sheet[3:, 8:] == 1).all()
    assert np.array_equal(shown(viz.sample_grid(pictures, 3, "five")), sheet)


def test_values_are_cut_and_colours_kept():
    pictures = np.stack([np.full((3, 2, 2), v, np.float32) for v in (-1.0, 2.0)])
    pictures[0, 1] = 0.5
    sheet = shown(viz.sample_grid(pictures))
    assert sheet.shape == (2, 5, 3) and sheet[0, 0].tolist() == [0, 0.5, 0] and (sheet[:, 3:] == 1).all()


def test_the_plane_of_a_code_is_cut_into_equal_shares_and_stands_upright():
    z = latent_plane(4).reshape(4, 4, 2)
    drawn = np.random.default_rng(0).normal(size=100_000)
    edges = (z[0, 1:, 0] + z[0, :-1, 0]) / 2
    np.testing.assert_allclose(np.bincount(np.searchsorted(edges, drawn)) / 1e5, 0.25, atol=0.03)
    assert (np.diff(z[0, :, 0]) > 0).all() and (np.diff(z[:, 0, 1]) < 0).all()
    decode = lambda z: np.stack([np.full((1, 1, 1), abs(a) / 2, np.float32) for a, _ in z])  # noqa: E731
    assert np.allclose(shown(viz.latent_grid(decode, 4))[0, ::2], abs(z[0, :, 0]) / 2)


def test_a_walk_begins_and_ends_at_the_codes_given():
    start, end = np.float32([[0.0], [1.0]]), np.float32([[1.0], [0.5]])
    way = shown(viz.interpolation(lambda z: z[:, :, None, None], start, end, steps=3))
    assert np.allclose(way[::2, ::2], [[0, 0.5, 1], [1, 0.75, 0.5]])


def test_a_distribution_is_shown_by_its_mean():
    cl.manual_seed(0)
    net, z = cl.models.VAE(input_shape=(1, 2, 2), latents=2, hidden=()), np.zeros((1, 2), np.float32)
    with cl.no_grad():
        mean = net.decode(z).mean.numpy()
    assert np.allclose(shown(viz.interpolation(net.decode, z, z, steps=2))[:, :2], mean[0, 0])


def test_what_cannot_be_shown():
    with pytest.raises(ShapeError, match=r"mosaic: expected pictures of shape \(N, C, H, W\), N >= 1, got \(2, 3\)"):
        viz.sample_grid(np.zeros((2, 3)))
    with pytest.raises(ValueRangeError, match="mosaic: columns must be at least 1, got 0"):
        viz.mosaic(np.zeros((2, 1, 3, 3)), 0)
    with pytest.raises(ShapeError, match=r"codes of one shape \(N, K\), got \(1, 2\) and \(2, 2\)"):
        viz.interpolation(lambda z: z, np.zeros((1, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueRangeError, match="steps must be at least 2, start and end, got 1"):
        viz.interpolation(lambda z: z, np.zeros((1, 2)), np.zeros((1, 2)), steps=1)
