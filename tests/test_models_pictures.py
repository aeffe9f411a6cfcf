"""What each system of 2012 and 2013 must do, scaled down: fit its pictures, refuse others, get its gradients right."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from cnnlib.models.pictures import scaled, side_after
from tests.nets import check_gradients, parameter_count

SMALLEST = {"alexnet": 67, "alexnet_single": 63, "zfnet": 63, "overfeat": 71}
rng = np.random.default_rng(0)


def tiny(name, channels=1, width=1 / 32, extra=0, **options):
    return models.create(
        name, num_classes=3, in_channels=channels, input_size=SMALLEST[name] + extra, width=width, **options
    )  # fmt: skip


def pictures(net, n=2):
    return rng.normal(size=(n, *net.input_shape)).astype(np.float32)


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("extra", [0, 1, 13, 40])
def test_every_size_from_the_smallest_on_fits(name, extra):
    net = tiny(name, extra=extra)
    assert net(pictures(net)).shape == (2, 3)


@pytest.mark.parametrize("name", SMALLEST)
def test_too_small_pictures_are_refused_with_the_smallest(name):
    side = SMALLEST[name]
    assert models.get(name).smallest == side
    with pytest.raises(ShapeError, match=f"pictures of {side - 1}×{side - 1} are too small.* at least {side}×{side} is needed"):
        models.create(name, input_size=side - 1, width=0.1)
    smaller = tiny(name)
    smaller.input_shape = (1, side - 1, side - 1)  # what would happen without that check
    with pytest.raises(ShapeError):
        smaller(pictures(smaller))


@pytest.mark.parametrize("name", SMALLEST)
def test_pictures_of_another_shape_are_refused(name):
    net, side = tiny(name, channels=3), SMALLEST[name]
    expected = (
        rf"x must be \(N, 3, {side}, {side}\), got \(1, 1, {side}, {side}\): .* \(at least {side}×{side}\), or scale them"
    )
    with pytest.raises(ShapeError, match=expected):
        net(np.zeros((1, 1, side, side), np.float32))
    with pytest.raises(ShapeError, match=r"needs square pictures, .* have shape \(3, 80, 90\)"):
        models.get(name).options_for((3, 80, 90), 10)
    assert models.get(name).options_for((1, 90, 90), 7) == {"num_classes": 7, "in_channels": 1, "input_size": 90}
    with pytest.raises(UnknownNameError, match="did you mean 'num_classes'"):
        models.create(name, classes=10)


@pytest.mark.parametrize("name", SMALLEST)
def test_width_multiplies_every_layer_but_the_last(name):
    def sizes(width):
        layers = [m for m in tiny(name, width=width).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        return [layer.weight.shape[0] for layer in layers]

    whole, half = sizes(1 / 8), sizes(1 / 16)
    assert whole[-1] == half[-1] == 3
    assert [2 * units for units in half[:-1]] == whole[:-1]


@pytest.mark.parametrize("name", SMALLEST)
def test_whole_network_against_differences(name):
    """In training: with the same dropout each time."""
    net = tiny(name)
    check_gradients(net, net.criterion(), pictures(net), np.array([2, 0]))


@pytest.mark.parametrize("name", SMALLEST)
def test_first_weights_keep_the_variance_through_relus(name):
    """He's: variance 2 / fan_in. Without noise from narrow layers: of all weights together, in units of their own deviation."""
    net = tiny(name, width=1 / 4)
    weights = [p.numpy() for p in net.parameters() if p.ndim > 1]
    unit = np.concatenate([(w * np.sqrt(w[0].size / 2)).ravel() for w in weights])
    assert np.mean(unit**2) == pytest.approx(1, abs=0.01) and abs(unit).max() <= np.sqrt(3) + 1e-5
    assert all((p.numpy() == 0).all() for p in net.parameters() if p.ndim == 1)


@pytest.mark.parametrize("name", SMALLEST)
def test_dropout_acts_in_training_only(name):
    net = tiny(name, width=1 / 8)
    x = pictures(net)
    assert (net(x).numpy() != net(x).numpy()).any()
    net.eval()
    np.testing.assert_array_equal(net(x).numpy(), net(x).numpy())


@pytest.mark.parametrize("name", SMALLEST)
def test_it_fits_eight_pictures(name):
    cl.manual_seed(1)
    net = tiny(name, width=1 / 16).eval()
    optimizer, loss = cl.optim.Adam(net.parameters(), lr=1e-3), net.criterion()
    x, y = pictures(net, 8), np.arange(8) % 3
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(net(x), y)
        value.backward()
        optimizer.step()
    assert value.item() < 0.1


def test_widths_are_rounded_to_the_groups():
    assert [scaled(96, w, multiple=2) for w in (1, 0.1, 0.001)] == [96, 10, 2]
    with pytest.raises(ValueRangeError, match=r"width.* must be > 0, got -1"):
        scaled(96, -1)
    net = models.AlexNet(num_classes=3, width=0.03)
    assert parameter_count(net) == sum(p.size for p in net.parameters()) and net.conv2.out_channels == 8


@pytest.mark.parametrize("side", range(3, 30))
def test_sides_are_those_of_the_operations(side):
    x = np.zeros((1, 1, side, side), np.float32)
    for ceil in (False, True):
        assert cl.ops.max_pool2d(x, 3, 2, ceil_mode=ceil).shape[2] == side_after(side, (3, 2, 0), ceil=ceil)
    w = np.zeros((1, 1, 3, 3), np.float32)
    assert cl.ops.conv2d(x, w, stride=2, padding=1).shape[2] == side_after(side, (3, 2, 1))
