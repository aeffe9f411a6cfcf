"""Pictures of what a network answers to: numbers against finite differences and loops, and the network left as it was."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, ops, viz
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError

pytest.importorskip("matplotlib")
rng = np.random.default_rng(0)


def small():
    """3 channels in, 4 classes, ReLU and max pooling, and layers that behave differently in training."""
    cl.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 4),
    )  # fmt: skip


def pictures(n=2):
    return rng.uniform(size=(n, 3, 8, 8)).astype(np.float32)


def images(figure):
    """What is drawn as an image, by axes, in order."""
    return [np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes if ax.get_images()]


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


@pytest.mark.parametrize("draw", [
    lambda net, x: viz.saliency(net, x),
    lambda net, x: viz.occlusion(net, x, size=4, stride=4),
    lambda net, x: viz.deconvnet(net, x, "5", units=[0]),
    lambda net, x: viz.architecture(net, x.shape[1:]),
], ids=["saliency", "occlusion", "deconvnet", "architecture"])  # fmt: skip
def test_the_network_stays_as_it_was(draw):
    net = small()
    net[1].train(False)
    net[4].weight.requires_grad = False
    kept = net[0].weight.grad = np.ones_like(net[0].weight.data)
    state, streams = net.state_dict(), cl.random.get_state()
    draw(net, pictures())
    assert [m.training for m in net] == [True, False] + [True] * 7
    assert [p.requires_grad for p in net.parameters()] == [p is not net[4].weight for p in net.parameters()]
    assert net[0].weight.grad is kept and all(p.grad is None for p in net.parameters() if p is not net[0].weight)
    assert all((state[n] == a).all() for n, a in net.state_dict().items()) and cl.random.get_state() == streams
    assert not any(m._forward_hooks for m in net.modules())


def test_saliency_is_the_largest_slope_of_the_score_over_the_channels():
    net, x = small().to("float64"), pictures().astype(np.float64)
    M, labels = viz.saliency_map(net, x, labels=[1, 3])
    assert labels.tolist() == [1, 3] and M.shape == (2, 8, 8)
    net.eval()
    h = 1e-6
    for n, k, row, column in ((0, 1, 2, 3), (1, 3, 7, 0), (1, 3, 4, 4)):
        slopes = []
        for c in range(3):
            up, down = x.copy(), x.copy()
            up[n, c, row, column] += h
            down[n, c, row, column] -= h
            slopes.append((net(up).numpy()[n, k] - net(down).numpy()[n, k]) / (2 * h))
        assert M[n, row, column] == pytest.approx(max(map(abs, slopes)), rel=1e-4, abs=1e-9)


def test_saliency_draws_the_map_under_each_picture():
    net, x = small(), pictures(3)
    figure = viz.saliency(net, x, classes=["a", "b", "c", "d"])
    M, labels = viz.saliency_map(net, x)
    drawn = images(figure)
    for n in range(3):
        np.testing.assert_array_equal(drawn[n], x[n].transpose(1, 2, 0))
        np.testing.assert_array_equal(drawn[3 + n], M[n])
    assert titles(figure) == ["abcd"[k] for k in labels]
    np.testing.assert_array_equal(labels, net.eval()(x).numpy().argmax(axis=1))


def test_occlusion_hides_one_square_after_the_other():
    net, x = small(), pictures()
    M, whole, labels = viz.occlusion_map(net, x, labels=2, size=3, stride=2, grey=0.25)
    net.eval()
    np.testing.assert_allclose(whole, ops.softmax(net(x)).numpy()[:, 2], atol=1e-6)
    assert M.shape == (2, 4, 4) and labels.tolist() == [2, 2]
    for i, j in ((0, 0), (1, 3), (3, 2)):
        hidden = x.copy()
        for row in range(2 * i - 1, 2 * i + 2):  # the 3 × 3 pixels around (2i, 2j), inside the picture
            for column in range(2 * j - 1, 2 * j + 2):
                if 0 <= row < 8 and 0 <= column < 8:
                    hidden[:, :, row, column] = 0.25
        np.testing.assert_allclose(M[:, i, j], ops.softmax(net(hidden)).numpy()[:, 2], atol=1e-6)


def test_occlusion_finds_the_only_part_that_matters():
    """A score that is one pixel: the map is low exactly where the square covers it."""

    class OnePixel(nn.Module):
        def forward(self, x):
            x = cl.Tensor(x) if isinstance(x, np.ndarray) else x
            return ops.stack([x[:, 0, 2, 5] * 10.0, x[:, 0, 2, 5] * 0.0], axis=1)

    x = np.zeros((1, 8, 8), np.float32)
    x[0, 2, 5] = 1
    figure = viz.occlusion(OnePixel(), x, size=3, stride=1, grey=0.0)
    M = images(figure)[1]
    low = M < 0.75
    assert low[1:4, 4:7].all() and low.sum() == 9
    assert images(figure)[0].shape == (8, 8) and titles(figure) == ["class 0\n100%"]
    image = figure.axes[1].get_images()[0]
    assert image.get_extent() == [-0.5, 7.5, 7.5, -0.5] and image.get_clim() == (0, 1)


def test_occlusion_takes_the_mean_for_grey():
    net, x = small(), pictures(1)
    auto, given = (viz.occlusion_map(net, x, size=4, stride=4, grey=g)[0] for g in (None, float(x.mean(dtype=np.float64))))
    np.testing.assert_array_equal(auto, given)


def by_hand(x, conv1, conv2, unit):
    """The projection of ``unit``, in loops over pixels: conv, ReLU, 2 × 2 maximum, conv, ReLU, and back."""

    def conv(x, w, b):
        F, _, K, _ = w.shape
        y = np.zeros((F, x.shape[1] - K + 1, x.shape[2] - K + 1))
        for f, i, j in np.ndindex(y.shape):
            y[f, i, j] = (x[:, i : i + K, j : j + K] * w[f]).sum() + b[f]
        return y

    def transposed(y, w):
        K = w.shape[2]
        x = np.zeros((w.shape[1], y.shape[1] + K - 1, y.shape[2] + K - 1))
        for f, i, j in np.ndindex(y.shape):
            x[:, i : i + K, j : j + K] += y[f, i, j] * w[f]
        return x

    a = np.maximum(conv(x, *conv1), 0)
    pooled = np.zeros((a.shape[0], a.shape[1] // 2, a.shape[2] // 2))
    switch = {}
    for f, i, j in np.ndindex(pooled.shape):
        window = a[f, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        di, dj = np.unravel_index(window.argmax(), (2, 2))
        pooled[f, i, j], switch[f, i, j] = window.max(), (f, 2 * i + di, 2 * j + dj)
    y = np.maximum(conv(pooled, *conv2), 0)
    signal = np.zeros_like(y)
    top = (unit, *np.unravel_index(y[unit].argmax(), y[unit].shape))
    signal[top] = y[top]
    signal = transposed(np.maximum(signal, 0), conv2[0])
    unpooled = np.zeros_like(a)
    for place, target in switch.items():
        unpooled[target] = signal[place]
    return transposed(np.maximum(unpooled, 0), conv1[0]), y[top]  # rectified by the signal's sign, not by that of a


def test_deconvnet_is_the_network_run_backwards():
    cl.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.ReLU()).to("float64")
    x = rng.normal(size=(3, 3, 8, 8))
    convs = [(net[i].weight.numpy(), net[i].bias.numpy()) for i in (0, 3)]
    units = [0, 3, 4]
    picked, p = viz.projection(net, x, "4", units)
    for i, unit in enumerate(units):
        each = [by_hand(picture, *convs, unit) for picture in x]
        assert picked[i] == np.argmax([a for _, a in each])
        np.testing.assert_allclose(p[i], each[picked[i]][0], atol=1e-12)
    assert np.abs(p).max() > 0


def test_deconvnet_differs_from_the_gradient_where_a_unit_was_silent():
    """A ReLU that was off lets a positive signal back, and one that was on stops a negative one."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).to("float64")
    net[1].weight.set(np.eye(2))
    net[3].weight.set(np.array([[2.0, -1.0]]))
    x = np.array([-1.0, 3.0]).reshape(1, 1, 1, 2)
    for weight, signal in (([2.0, 1.0], [6.0, 3.0]), ([2.0, -1.0], [0.0, 3.0])):  # h = (0, 3), y = w₂ · 3 times w, rectified
        net[3].weight.set(np.array([weight]))
        _, p = viz.projection(net, x, "3", [0])
        np.testing.assert_allclose(p.ravel(), signal)


def test_deconvnet_draws_the_picture_and_its_projection():
    net, x = small(), pictures(6)
    figure = viz.deconvnet(net, x, "2", units=[4, 1])
    picked, p = viz.projection(net, x, "2", [4, 1])
    drawn = images(figure)
    for i in range(2):
        np.testing.assert_array_equal(drawn[i], x[picked[i]].transpose(1, 2, 0))
        np.testing.assert_allclose(drawn[2 + i], (0.5 + 0.5 * p[i] / np.abs(p[i]).max()).transpose(1, 2, 0), atol=1e-6)
    assert titles(figure) == ["unit 4", "unit 1"]


def test_deconvnet_chooses_units_that_fire():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU())
    net[0].weight.set(np.array([1.0, -1.0, 2.0]).reshape(3, 1, 1, 1))
    net[0].bias.set(0.0)
    x = np.ones((2, 1, 3, 3), np.float32)
    assert titles(viz.deconvnet(net, x, "1")) == ["unit 0", "unit 2"]
    with pytest.raises(ValueRangeError, match="no unit of '1' fires"):
        viz.deconvnet(net, 0.0 * x, "1")


def with_spare_layer():
    net = nn.Module()
    net.s = nn.ReLU()
    net.forward = lambda x: x
    return net


def test_a_unit_may_be_one_number():
    x = pictures()
    one, several = (viz.deconvnet(small(), x, "2", units=units) for units in (1, [1]))
    np.testing.assert_array_equal(images(one)[1], images(several)[1])


def test_what_does_not_fit_the_model_is_refused():
    net, x = small(), pictures()
    with pytest.raises(ShapeError, match=r"saliency: x must be pictures, .* got a data set: take data\.x"):
        viz.saliency(net, cl.data.digits()[1])
    with pytest.raises(ShapeError, match="there are 1 names, but the model says class 3"):
        viz.saliency(net, x, labels=3, classes=["cat"])
    with pytest.raises(ValueRangeError, match=r"got size 3\.5 and stride 2"):
        viz.occlusion(net, x, size=3.5)
    with pytest.raises(UnknownNameError, match="unknown layer '3x'"):
        viz.deconvnet(net, x, "3x")
    with pytest.raises(UnknownNameError, match="unknown layer '7'"):
        viz.deconvnet(models.LeNet5(), np.ones((1, 1, 32, 32), np.float32), 7)
    with pytest.raises(UnknownNameError, match=r"unknown layer 'act' \(known: 0, 1"):
        viz.feature_maps(net, x[0], layers=["act"])


def test_what_cannot_be_asked_is_refused():
    net, x = small(), pictures()
    with pytest.raises(ShapeError, match=r"saliency: x must be one picture, .* got shape \(8, 8\)"):
        viz.saliency(net, np.zeros((8, 8), np.float32))
    with pytest.raises(ShapeError, match=r"at most 8 pictures .* got 9: take x\[:8\]"):
        viz.occlusion(net, pictures(9))
    with pytest.raises(ValueRangeError, match="saliency: labels must be 0 … 3, got 4 … 4"):
        viz.saliency(net, x, labels=4)
    with pytest.raises(ShapeError, match="a class number or 2 of them"):
        viz.saliency(net, x, labels=[1, 2, 3])
    with pytest.raises(ShapeError, match=r"one row of class scores per picture, \(N, K\), got \(2, 5, 8, 8\)"):
        viz.saliency(net[0], x)
    with pytest.raises(ValueRangeError, match=r"size must be 1 … 7 and its stride 1 … 8 .* got size 8 and stride 2"):
        viz.occlusion(net, x)
    with pytest.raises(UnknownNameError, match="unknown layer 'act4': did you mean 'act"):
        viz.deconvnet(models.LeNet5(), np.ones((1, 1, 32, 32), np.float32), "act4")
    with pytest.raises(ShapeError, match=r"'s' must give maps, .* got nothing: the model did not call it"):
        viz.deconvnet(with_spare_layer(), x, "s", units=[0])
    with pytest.raises(ValueRangeError, match=r"'5' has the units 0 … 5, got \[6\]"):
        viz.deconvnet(net, x, "5", units=[6])
