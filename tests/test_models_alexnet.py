"""AlexNet and ZFNet at full size: every number of the papers and of the lecture's table."""

import numpy as np
import pytest

from cnnlib import models, nn, ops
from cnnlib.nn.summary import summary
from tests.nets import parameter_count, without_weights

K, M = 1_000, 1_000_000


@pytest.fixture
def full(monkeypatch):
    """A function: name -> (network, its layers with parameters, by name)."""
    without_weights(monkeypatch)

    def make(name):
        net = models.create(name)
        table = summary(net, net.input_shape)
        return net, table, {r.name: r for r in table.rows if r.weights}

    return make


# ---- AlexNet in two towers


def test_alexnet_parameters_neurons_and_multiply_adds(full):
    _, table, rows = full("alexnet")
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    assert tuple(rows) == layers
    counts = [r.weights + r.biases for r in rows.values()]
    assert counts == [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    assert table.parameters == 60_965_224
    neurons = [r.neurons for r in rows.values()]
    assert neurons == [290_400, 186_624, 64_896, 64_896, 43_264, 4_096, 4_096, 1_000] and table.neurons == 659_272
    multiply_adds = [r.multiply_adds for r in rows.values()]
    assert multiply_adds[:5] == [105_415_200, 223_948_800, 149_520_384, 112_140_288, 74_760_192]
    assert multiply_adds[5:] == [37_748_736, 16_777_216, 4_096_000] and table.multiply_adds == 724_406_816


def test_alexnet_shapes(full):
    _, table, _ = full("alexnet")
    shapes = {r.name: r.output_shape for r in table.rows}
    assert shapes["conv1"] == shapes["norm1"] == (96, 55, 55) and shapes["pool1"] == (96, 27, 27)
    assert shapes["conv2"] == (256, 27, 27) and shapes["pool2"] == (256, 13, 13)
    assert shapes["conv3"] == shapes["conv4"] == (384, 13, 13) and shapes["conv5"] == (256, 13, 13)
    assert shapes["pool5"] == (256, 6, 6) and shapes["fc8"] == (1000,)


def as_on_the_slide(row, first):
    """The slide counts weights only, and cuts off to thousands or millions; the first count has biases, and is rounded."""
    if first:
        return f"{round((row.weights + row.biases) / K)} K"
    return f"{row.weights // M} M" if row.weights >= M else f"{row.weights // K} K"


def test_the_slides_row_follows_from_its_convention(full):
    _, table, rows = full("alexnet")
    slide = ["35 K", "307 K", "884 K", "663 K", "442 K", "37 M", "16 M", "4 M"]
    assert [as_on_the_slide(r, name == "conv1") for name, r in rows.items()] == slide
    assert table.parameters // M == 60
    assert (
        sum(int(n.split()[0]) for n in slide if n.endswith("M")) == 57
    )  # the slide's fully connected part: cut off, then added
    exact = sum(r.weights + r.biases for name, r in rows.items() if name.startswith("fc"))
    assert exact == 58_631_144 and round(exact / M, 1) == 58.6


def test_the_slides_first_layer_of_neurons_is_narrower(full):
    """253,440 = 55·48·96, as in the paper's figure 2; 55×55 maps have 290,400. The rest of the row is exact."""
    _, _, rows = full("alexnet")
    slide = [253_440, 186_624, 64_896, 64_896, 43_264, 4_096, 4_096, 1_000]
    assert [r.neurons for r in rows.values()][1:] == slide[1:]
    assert slide[0] == 55 * 48 * 96 and rows["conv1"].neurons == 55 * 55 * 96
    assert sum(slide) == 622_312


def test_convolutions_compute_and_full_connections_store(full):
    _, table, rows = full("alexnet")
    convolutions = [r for name, r in rows.items() if name.startswith("conv")]
    assert round(sum(r.share for r in convolutions), 3) == 0.919
    assert round(sum(r.weights + r.biases for r in convolutions) / table.parameters, 3) == 0.038


def test_a_tower_sees_its_own_maps_only():
    net = models.AlexNet(num_classes=3, in_channels=1, input_size=67, width=1 / 16).eval()
    x = np.random.default_rng(0).normal(size=(1, net.conv2.in_channels, 7, 7)).astype(np.float32)
    changed = x.copy()
    changed[:, : x.shape[1] // 2] += 1
    same = (net.conv2(x).numpy() == net.conv2(changed).numpy()).all(axis=(0, 2, 3))
    half = len(same) // 2
    assert same.tolist() == [False] * half + [True] * half
    assert [m.settings["groups"] for m in (net.conv1, net.conv3, net.conv4, net.conv5)] == [1, 1, 2, 2]


def test_normalisation_is_the_papers_formula():
    """b_i = a_i / (k + α Σ_j a_j²)^β over 5 neighbours, k = 2, α = 1e-4, β = 0.75 (section 3.3)."""
    a = np.random.default_rng(0).normal(size=(1, 9, 1, 1)).astype(np.float32) * 100
    net = models.AlexNet(num_classes=3, width=0.01)
    expected = [
        a[0, i, 0, 0] / (2 + 1e-4 * (a[0, max(i - 2, 0) : i + 3, 0, 0].astype(float) ** 2).sum()) ** 0.75 for i in range(9)
    ]
    np.testing.assert_allclose(net.norm1(a).numpy().ravel(), expected, rtol=1e-5)
    np.testing.assert_array_equal(net.norm1(a).numpy(), net.norm2(a).numpy())


def test_alexnet_is_this_sequence_of_operations():
    """Written out once more from the paper, with operations only."""
    net = models.AlexNet(num_classes=3, in_channels=1, input_size=99, width=1 / 16).eval()
    x = np.random.default_rng(0).normal(size=(2, 1, 99, 99)).astype(np.float32)

    def conv(h, layer, **settings):
        return ops.relu(ops.conv2d(h, layer.weight, layer.bias, **settings))

    def norm(h):
        return ops.local_response_norm(h, 5, alpha=5e-4, beta=0.75, k=2.0)

    h = ops.max_pool2d(norm(conv(x, net.conv1, stride=4)), 3, 2)
    h = ops.max_pool2d(norm(conv(h, net.conv2, padding=2, groups=2)), 3, 2)
    h = conv(conv(h, net.conv3, padding=1), net.conv4, padding=1, groups=2)
    h = ops.flatten(ops.max_pool2d(conv(h, net.conv5, padding=1, groups=2), 3, 2), 1)
    for layer in (net.fc6, net.fc7):
        h = ops.relu(ops.linear(h, layer.weight, layer.bias))
    h = ops.linear(h, net.fc8.weight, net.fc8.bias)
    np.testing.assert_allclose(net(x).numpy(), h.numpy(), rtol=1e-5, atol=1e-6)


# ---- AlexNet in one tower


def test_single_tower_counts(full):
    _, table, rows = full("alexnet_single")
    counts = {name: r.weights + r.biases for name, r in rows.items()}
    assert counts == {
        "features.0": 23_296,
        "features.3": 307_392,
        "features.6": 663_936,
        "features.8": 884_992,
        "features.10": 590_080,
        "classifier.1": 37_752_832,
        "classifier.4": 16_781_312,
        "classifier.6": 4_097_000,
    }
    assert table.parameters == 61_100_840


def test_single_tower_has_torchvisions_names_and_shapes(full):
    """So that a state dict from there loads by name; these are torchvision.models.alexnet's."""
    net, _, _ = full("alexnet_single")
    shapes = {
        "features.0": (64, 3, 11, 11),
        "features.3": (192, 64, 5, 5),
        "features.6": (384, 192, 3, 3),
        "features.8": (256, 384, 3, 3),
        "features.10": (256, 256, 3, 3),
        "classifier.1": (4096, 9216),
        "classifier.4": (4096, 4096),
        "classifier.6": (1000, 4096),
    }
    expected = {f"{name}.weight": shape for name, shape in shapes.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    assert {name: p.shape for name, p in net.named_parameters()} == expected


# ---- ZFNet


def test_zfnet_counts_and_the_figures_sizes_of_maps(full):
    _, table, rows = full("zfnet")
    counts = [r.weights + r.biases for r in rows.values()]
    assert counts == [14_208, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000]
    assert table.parameters == 62_357_608 and table.multiply_adds == 1_168_032_896
    sides = {r.name: r.output_shape[-1] for r in table.rows}
    figure_3 = {"conv1": 110, "pool1": 55, "conv2": 26, "pool2": 13, "conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}
    assert {name: sides[name] for name in figure_3} == figure_3


def test_zfnet_normalises_behind_the_pool_and_has_no_groups():
    net = models.ZFNet(num_classes=3, width=1 / 32)
    kinds = [type(layer) for layer in net][:4]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.LocalResponseNorm]
    assert all(m.settings["groups"] == 1 for m in net if isinstance(m, nn.Conv2d))
    assert parameter_count(models.ZFNet(num_classes=10, in_channels=1, width=1 / 32)) < 100_000
