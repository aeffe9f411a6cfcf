"""OverFeat: its table, and that sliding over a larger picture gives the scores of the windows."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models
from cnnlib.errors import ShapeError
from cnnlib.nn.summary import summary
from tests.nets import without_weights

rng = np.random.default_rng(0)


def net_of(size, width=1 / 32, **options):
    cl.manual_seed(0)
    return models.OverFeat(num_classes=3, in_channels=1, input_size=size, width=width, **options).eval()


def picture(*sides):
    return rng.normal(size=(2, 1, *sides)).astype(np.float32)


def by_crops(net, x, step):
    """(N, classes, GH, GW): the scores of every window, cut out and classified one by one."""
    size = net.input_shape[1]
    corners = [range(0, side - size + 1, step) for side in x.shape[2:]]
    scores = [[net(x[:, :, i : i + size, j : j + size]).numpy() for j in corners[1]] for i in corners[0]]
    return np.moveaxis(np.array(scores), (2, 3), (0, 1))


def test_counts_are_those_of_table_1(monkeypatch):
    """145 million parameters; the paper gives 2,810 million connections, within 0.3 % of weights used plus biases."""
    without_weights(monkeypatch)
    table = summary(models.OverFeat(), (3, 231, 231))
    rows = {r.name: r for r in table.rows if r.weights}
    counts = [r.weights + r.biases for r in rows.values()]
    assert counts == [34_944, 614_656, 1_180_160, 4_719_616, 9_438_208, 113_249_280, 12_587_008, 4_097_000]
    assert table.parameters == 145_920_872 and table.parameters // 10**6 == 145
    assert table.multiply_adds == 2_801_403_904
    assert table.multiply_adds + table.neurons == pytest.approx(2_810e6, rel=0.003)
    sides = {r.name: r.output_shape[-1] for r in table.rows}
    paper = {"conv2": 24, "pool2": 12, "conv3": 12, "conv4": 12, "conv5": 12, "pool5": 6, "fc6": 1, "fc7": 1, "fc8": 1}
    assert {name: sides[name] for name in paper} == paper


@pytest.mark.parametrize(("fine", "step"), [(False, 32), (True, 16)])
def test_dense_evaluation_is_that_of_every_window(fine, step):
    """Exactly, where no layer pads; the picture's rest, less than a step, is not looked at."""
    net = net_of(167, padding=0)
    x = picture(167 + 2 * 32 + 5, 167 + 32 + 15)
    expected = by_crops(net, x, step)
    assert expected.shape[2:] == ((5, 3) if fine else (3, 2))
    assert np.ptp(expected) > 0.01  # windows differ
    np.testing.assert_allclose(net.dense(x, fine=fine).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_fine_scores_are_pools_from_every_offset_interleaved():
    """Section 3.3, as the paper tells it: pool from each offset, classify, interleave."""
    net = net_of(71)
    x = picture(71 + 64, 71 + 96)
    fine = net.dense(x, fine=True).numpy()
    layers = list(net)
    pool = layers.index(net.pool5)
    maps = cl.Tensor(x)
    for layer in layers[:pool]:
        maps = layer(maps)
    expected = np.full_like(fine, np.nan)
    for i in range(2):
        for j in range(2):
            scores = maps[:, :, i:, j:]
            for layer in layers[pool:-1]:
                scores = layer(scores)
            expected[:, :, i::2, j::2] = scores.numpy()
    np.testing.assert_allclose(fine, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fine[:, :, ::2, ::2], net.dense(x).numpy(), rtol=1e-5, atol=1e-6)


def test_padding_shows_a_cut_out_window_zeros_where_the_picture_goes_on():
    net = net_of(103)
    x = picture(103 + 32, 103)
    assert np.abs(net.dense(x).numpy() - by_crops(net, x, 32)).max() > 1e-3


def test_a_picture_of_one_window_has_one_score_map_entry():
    net = net_of(71)
    x = picture(71, 71)
    np.testing.assert_array_equal(net.dense(x).numpy()[:, :, 0, 0], net(x).numpy())
    assert net.dense(picture(71, 71 + 31)).shape == (2, 3, 1, 1)


def test_gradients_flow_through_dense_scores():
    net = net_of(71)
    net.dense(picture(71 + 16, 71), fine=True).sum().backward()
    assert all(np.abs(p.grad).max() > 0 for p in net.parameters())


def test_what_does_not_fit_a_window_is_refused():
    net = net_of(71)
    for shape in ((1, 1, 70, 90), (1, 3, 71, 71), (1, 71, 71)):
        with pytest.raises(ShapeError, match=r"OverFeat.dense: x must be \(N, 1, H, W\) with H and W at least 71"):
            net.dense(np.zeros(shape, np.float32))
    with pytest.raises(ShapeError, match="166×166 are too small for conv3, conv4 and conv5 without padding: at least 167×167"):
        models.OverFeat(input_size=166, padding=0)
    net_of(167, padding=0)(picture(167, 167))
