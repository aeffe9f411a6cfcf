"""VGG, GoogLeNet and ResNet: their counts, their shapes, their wiring, their limits."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.nets import parameter_count, without_weights

PARAMETERS = {  # torchvision's documentation; googlenet: with both auxiliary heads; the last two: counted by hand
    "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248,
    "googlenet": 13_378_280, "googlenet_bn": 13_004_888,
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "resnet20": 269_722, "vgg_small": 1_188_170,
}  # fmt: skip
SMALL = {
    "vgg16": {"width": 0.0625, "input_size": 32},
    "vgg11_bn": {"width": 0.0625, "input_size": 32},
    "vgg_small": {"width": 0.0625, "input_size": 16},
    "googlenet": {"width": 0.0625, "input_size": 64},
    "googlenet_bn": {"width": 0.0625, "input_size": 64},
    "resnet18": {"width": 0.0625, "input_size": 32},
    "resnet50": {"width": 0.0625, "input_size": 32},
    "resnet20": {"width": 4, "input_size": 16},
}


@pytest.fixture
def no_drawing(monkeypatch):
    """Weights of zeros: full-size networks in no time, where only shapes matter."""
    without_weights(monkeypatch)


def small(name, **options):
    cl.manual_seed(0)
    return models.create(name, **{"num_classes": 10, **SMALL[name], **options})


def pictures(net, n=2, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *net.input_shape)).astype(dtype)


# ---- counts


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_known_ones(no_drawing, name):
    assert parameter_count(models.create(name)) == PARAMETERS[name]


def test_the_plain_loss_names_the_one_that_weights_the_heads():
    net = small("googlenet")
    with pytest.raises(DtypeError, match=r"logits, got a tuple of 3 outputs: .* model\.criterion\(\)"):
        nn.CrossEntropyLoss()(net(pictures(net)), np.array([0, 1]))


def test_googlenet_without_its_heads(no_drawing):
    assert parameter_count(models.GoogLeNet(auxiliary=False)) == 6_998_552
    assert parameter_count(models.GoogLeNetBN(auxiliary=False)) == 6_624_904


@pytest.mark.parametrize(
    ("name", "options", "billions"),  # of the papers: He et al. table 1; VGG has no column of its own
    [
        ("vgg16", {}, 15.5),
        ("resnet18", {}, 1.8),
        ("resnet34", {}, 3.6),
        ("resnet50", {"stride_on": 1}, 3.8),
        ("resnet50", {}, 4.1),
    ],
)
def test_multiply_adds(no_drawing, name, options, billions):
    net = models.create(name, **options)
    assert nn.summary(net, net.input_shape).multiply_adds / 1e9 == pytest.approx(billions, abs=0.07)


def test_googlenets_table(no_drawing):
    """Multiply–adds of table 1 in millions. conv1 and 5a are misprints there: 34 and 54 for these kernels' 118 and 51."""
    table = {
        "conv1": 118,
        "3a": 128,
        "3b": 304,
        "4a": 73,
        "4b": 88,
        "4c": 100,
        "4d": 119,
        "4e": 170,
        "5a": 51,
        "5b": 71,
        "fc": 1,
    }
    rows = nn.summary(models.GoogLeNet(), (3, 224, 224)).rows
    for block, millions in table.items():
        ours = sum(r.multiply_adds for r in rows if r.name.removeprefix("inception").split(".")[0] == block)
        assert ours / 1e6 == pytest.approx(millions, abs=1), block
    conv2 = sum(r.multiply_adds for r in rows if r.name in ("conv2.conv", "conv3.conv"))
    assert conv2 / 1e6 == pytest.approx(360, abs=1)


@pytest.mark.parametrize(("depth", "thousands"), [(8, 75), (20, 270), (32, 460), (44, 660), (56, 850), (110, 1700)])
def test_resnet20_of_other_depths(no_drawing, depth, thousands):
    net = models.ResNet20(depth=depth)
    assert parameter_count(net) / 1e3 == pytest.approx(thousands, rel=0.03)  # table 6, in millions with two digits
    weights = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weights) == depth
    assert parameter_count(models.ResNet20(depth=depth, skip=False)) == parameter_count(net)


# ---- shapes


@pytest.mark.parametrize("name", SMALL)
def test_scaled_down_forms_and_other_pictures(name):
    net = small(name, in_channels=1, num_classes=3, input_size=64)
    assert net.eval()(pictures(net)).shape == (2, 3)
    assert parameter_count(net) < 300_000


def test_outputs_of_the_stages(no_drawing):
    shapes = {}
    net = models.ResNet50(num_classes=5)
    for i in range(1, 5):
        getattr(net, f"layer{i}").register_forward_hook(lambda m, xs, y, i=i: shapes.update({i: y.shape[1:]}))
    with cl.no_grad():
        net.eval()(np.zeros((1, 3, 224, 224), np.float32))
    assert shapes == {1: (256, 56, 56), 2: (512, 28, 28), 3: (1024, 14, 14), 4: (2048, 7, 7)}


def test_width_multiplies_maps():
    assert models.VGG11(width=0.125, input_size=32).features[0].out_channels == 8
    assert models.ResNet18(width=0.5, input_size=32).fc.in_features == 256
    assert models.ResNet20(width=8).fc.in_features == 32
    with pytest.raises(ValueRangeError, match=r"width.* must be > 0, got 0"):
        models.VGG11(width=0)
    with pytest.raises(ValueRangeError, match=r"width is a number of maps, at least 1, 16 in the paper; got 0\.5"):
        models.ResNet20(width=0.5)


# ---- wiring


def silence(block):
    """Make F(x) of a residual block 0."""
    last = block.conv3 if hasattr(block, "conv3") else block.conv2
    last.weight.set(0.0)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
def test_where_f_is_zero_a_block_passes_its_input_on(name):
    for version in (1, 2):
        block = small(name, version=version).eval().layer2[1]
        silence(block)
        x = np.random.default_rng(0).normal(size=(2, block.conv1.in_channels, 4, 4)).astype(np.float32)
        expected = np.maximum(x, 0) if version == 1 else x
        np.testing.assert_array_equal(block(cl.Tensor(x)).data, expected)


def test_a_plain_block_passes_nothing_on():
    block = small("resnet20", skip=False).eval().layer1[0]
    silence(block)
    assert not block(cl.Tensor(np.ones((1, 4, 4, 4), np.float32))).data.any()


def test_the_parameter_free_shortcut_takes_every_other_pixel_and_adds_zeros():
    block = small("resnet20").eval().layer2[0]
    silence(block)
    x = np.random.default_rng(0).random((1, 4, 6, 6)).astype(np.float32)
    y = block(cl.Tensor(x)).data
    np.testing.assert_array_equal(y[:, :4], x[:, :, ::2, ::2])
    assert y.shape == (1, 8, 3, 3) and not y[:, 4:].any()


def test_preactivation_normalises_before_each_convolution_and_once_more_at_the_end():
    for name, blocks in (("resnet18", 8), ("resnet50", 16)):
        net = small(name, version=2).eval()
        assert isinstance(net.layer1[0].bn1, nn.Identity)  # the stem's normalisation and ReLU came before it
        with cl.trace() as t:
            net(pictures(net))
        kinds = [e.name.rpartition(".")[2].partition("#")[0] for e in t]
        ends = [i for i, kind in enumerate(kinds) if kind == "add"]
        assert len(ends) == blocks
        assert all(kinds[i + 1 : i + 3] == ["batch_norm_inference", "relu"] for i in ends)  # nothing else on the way


def test_the_paper_halves_the_maps_in_the_first_convolution_of_a_bottleneck():
    assert models.ResNet50(width=0.0625, stride_on=1).layer2[0].conv1.settings["stride"] == 2
    ours = models.ResNet50(width=0.0625).layer2[0]
    assert (ours.conv1.settings["stride"], ours.conv2.settings["stride"]) == (1, 2)


def test_inception_joins_its_branches_in_order():
    block = small("googlenet").eval().inception3a
    x = cl.Tensor(np.random.default_rng(0).normal(size=(1, block.branch1.conv.in_channels, 8, 8)).astype(np.float32))
    y = block(x).data
    parts = [branch(x).data for branch in (block.branch1, block.branch2, block.branch3, block.branch4)]
    np.testing.assert_array_equal(y, np.concatenate(parts, axis=1))
    assert [c.weight.shape[2] for c in (block.branch2[1].conv, block.branch3[1].conv)] == [3, 5]


# ---- auxiliary heads


def test_heads_answer_in_training_only():
    net = small("googlenet")
    main, first, second = net(pictures(net))
    assert main.shape == first.shape == second.shape == (2, 10)
    assert isinstance(net.eval()(pictures(net)), cl.Tensor)
    assert isinstance(small("googlenet", auxiliary=False)(pictures(net)), cl.Tensor)


def test_auxiliary_losses_count_three_tenths():
    criterion, y = models.GoogLeNet.criterion(), np.array([0, 2])
    heads = tuple(cl.Tensor(x) for x in np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32))
    main, first, second = (ops.cross_entropy(x, y).item() for x in heads)
    assert criterion(heads, y).item() == pytest.approx(main + 0.3 * (first + second), rel=1e-6)
    assert criterion(heads[0], y).item() == pytest.approx(main)


def test_the_trainer_measures_the_main_output_of_a_network_with_heads():
    net = small("googlenet_bn")
    for head in (net.aux1, net.aux2):  # they would say 3 whatever comes
        head.fc2.weight.set(0.0)
        head.fc2.bias.set(np.eye(10)[3])
    x, y = pictures(net, n=12), np.full(12, 3)
    net.fc.bias.set(50 * np.eye(10)[4])  # and the end says 4
    trainer = cl.Trainer(net, net.criterion(), cl.optim.SGD(net.parameters(), lr=0.0), ("accuracy", "top_1"), progress=False)
    row = trainer.fit((x, y), (x, y))[-1]
    assert row["accuracy"] == row["top_1"] == row["validation_accuracy"] == 0
    assert trainer.predict(x).shape == (12, 10)


# ---- limits


@pytest.mark.parametrize(
    ("name", "least"), [("vgg16", 32), ("vgg_small", 8), ("googlenet", 48), ("resnet18", 32), ("resnet20", 8)]
)
def test_too_small_pictures_are_refused_and_the_smallest_work(name, least):
    assert small(name, input_size=least).eval()(np.zeros((1, 3, least, least), np.float32)).shape == (1, 10)
    with pytest.raises(ShapeError, match=rf"{least - 1}×{least - 1} are too small.*at least {least}×{least} is needed.*Resize"):
        small(name, input_size=least - 1)


@pytest.mark.parametrize("name", SMALL)
def test_wrong_pictures_are_refused(name):
    net = small(name)
    _, side, _ = net.input_shape
    with pytest.raises(ShapeError, match=rf"x must be \(N, 3, {side}, {side}\), got \(2, 1, {side}, {side}\): create it with"):
        net(np.zeros((2, 1, side, side), np.float32))
    with pytest.raises(ShapeError, match="needs square pictures"):
        type(net).options_for((3, 32, 20), 10)


def test_versions_depths_and_strides_that_do_not_exist_are_refused():
    with pytest.raises(ValueRangeError, match="version must be 1, or 2 for pre-activation, got 3"):
        models.ResNet18(version=3)
    with pytest.raises(ValueRangeError, match=r"stride_on must be 1 or 3, .* got 2"):
        models.ResNet50(stride_on=2)
    with pytest.raises(ValueRangeError, match=r"depth must be 6n \+ 2.*got 21"):
        models.ResNet20(depth=21)


# ---- the whole gradient


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg11_bn", {}), ("vgg16", {}), ("vgg_small", {}), ("googlenet", {}), ("googlenet_bn", {}), ("resnet18", {}),
        ("resnet50", {}), ("resnet50", {"stride_on": 1}), ("resnet18", {"version": 2}), ("resnet50", {"version": 2}),
        ("resnet20", {}), ("resnet20", {"version": 2}), ("resnet20", {"skip": False}),
    ],
)  # fmt: skip
def test_the_gradient_of_a_whole_network_along_a_random_direction(name, options):
    """dJ(w + h v)/dh at h = 0 in float64, once as ⟨gradient, v⟩ and once by differences."""
    net, rng = small(name, **options).to("float64"), np.random.default_rng(1)
    for p in net.parameters():
        if p.ndim == 1:  # with biases of 0 many a ReLU stands at its kink, where there is no derivative
            p.set(p.data + 0.1 * rng.normal(size=p.shape))
    criterion, y = net.criterion(), np.array([3, 7])
    x, streams = pictures(net, dtype=np.float64), cl.random.get_state()

    def loss():
        cl.random.set_state(streams)  # equal dropout masks
        return criterion(net(x), y)

    loss().backward()
    parameters = list(net.parameters())
    start = [p.data.copy() for p in parameters]
    along = [rng.normal(size=p.shape) * (abs(p.data).mean() + 0.01) for p in parameters]
    expected = sum(float((p.grad * v).sum()) for p, v in zip(parameters, along, strict=True))

    def moved(h):
        for p, w, v in zip(parameters, start, along, strict=True):
            p.set(w + h * v)
        return loss().item()

    h = 1e-8  # small: deep networks have many kinks near
    assert (moved(h) - moved(-h)) / (2 * h) == pytest.approx(expected, rel=3e-5)
