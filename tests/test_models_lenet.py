"""LeNet-5 of 1998: its table, its squashing, its codes, its loss, and that it learns."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn
from cnnlib.errors import DtypeError, ShapeError, UnknownNameError, ValueRangeError
from cnnlib.models.lenet_original import TABLE, EuclideanRBF, MAPLoss, ScaledTanh, Subsample, TableConv2d, codes
from cnnlib.nn.summary import summary
from tests.nets import check_gradients, parameter_count

rng = np.random.default_rng(0)


def test_parameters_and_connections_are_the_papers():
    """Section II.B states both, layer by layer: a connection is a multiply–add, or a unit's bias."""
    rows = {r.name: r for r in summary(models.LeNet5Original(), (1, 32, 32)).rows if r.multiply_adds}
    parameters = {name: r.weights + r.biases for name, r in rows.items()}
    assert parameters == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}
    connections = {name: r.multiply_adds + (r.neurons if r.biases else 0) for name, r in rows.items()}
    paper = {"c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120, "f6": 10_164}
    assert connections == paper | {"output": 840}
    assert sum(parameters.values()) == 60_000 and sum(connections.values()) == 340_908


def test_the_table_is_table_1():
    """By input map, as the paper prints it; and no two maps of c3 see the same."""
    rows = [[f for f, inputs in enumerate(TABLE) if str(c) in inputs] for c in range(6)]
    assert rows == [
        [0, 4, 5, 6, 9, 10, 11, 12, 14, 15],
        [0, 1, 5, 6, 7, 10, 11, 12, 13, 15],
        [0, 1, 2, 6, 7, 8, 11, 13, 14, 15],
        [1, 2, 3, 6, 7, 8, 9, 12, 14, 15],
        [2, 3, 4, 7, 8, 9, 10, 12, 13, 15],
        [3, 4, 5, 8, 9, 10, 11, 13, 14, 15],
    ]
    assert len(set(TABLE)) == 16


def test_a_map_depends_on_the_maps_of_its_row_only():
    layer = TableConv2d(6, TABLE, 5)
    x = rng.normal(size=(1, 6, 7, 7)).astype(np.float32)
    before = layer(x).numpy()
    for c in range(6):
        changed = x.copy()
        changed[:, c] += 1
        moved = np.abs(layer(changed).numpy() - before).max(axis=(0, 2, 3)) > 1e-4
        assert moved.tolist() == [str(c) in inputs for inputs in TABLE]


def test_a_table_convolution_is_the_sum_of_its_small_convolutions():
    layer = TableConv2d(3, ["02", "1"], 2)
    x = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    k, b = layer.weight.numpy(), layer.bias.numpy()

    def single(c, kernel):
        return cl.ops.conv2d(x[:, c : c + 1], kernel[None, None]).numpy()[:, 0]

    expected = np.stack([single(0, k[0]) + single(2, k[1]) + b[0], single(1, k[2]) + b[1]], axis=1)
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert "connections=3 of 6" in repr(layer)


def test_subsampling_sums_scales_and_shifts_each_map():
    layer = Subsample(2)
    layer.coefficient.set([0.5, -1.0])
    layer.bias.set([0.25, 1.0])
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    sums = x.reshape(1, 2, 2, 2, 2, 2).sum(axis=(3, 5))
    expected = sums * np.float32([0.5, -1.0])[:, None, None] + np.float32([0.25, 1.0])[:, None, None]
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-6)


def test_squashing_keeps_plus_and_minus_one():
    y = ScaledTanh()(np.float32([-1, 1, 50])).numpy()
    np.testing.assert_allclose(y, [-1, 1, 1.7159], atol=1e-4)


def test_squashing_is_one_operation_with_the_derivative_of_three():
    cl.gradcheck(ScaledTanh(), np.array([-3.0, -1.0, 0.0, 0.5, 2.0]))
    with pytest.raises(DtypeError, match="Squash: x"):
        ScaledTanh()(np.array([1, 2]))


def test_a_unit_on_its_code_is_at_no_distance():
    scores = EuclideanRBF(codes(10))(codes(10)).numpy()
    np.testing.assert_allclose(np.diag(scores), 0, atol=1e-4)
    assert np.sort(scores, axis=1)[:, -2].max() <= -20


def test_codes_are_pictures_of_plus_and_minus_one():
    digits = codes(10)
    assert digits.shape == (10, 84) and set(np.unique(digits)) == {-1.0, 1.0}
    one = digits[1].reshape(12, 7)
    assert (one[2:10, 3] == 1).all() and (one[0] == -1).all()
    distances = ((digits[:, None] - digits) ** 2).sum(axis=2) + 1e9 * np.eye(10)
    assert distances.min() >= 20 and distances[8].argmin() in (0, 3, 6, 9)  # similar digits have similar codes
    np.testing.assert_array_equal(codes(3), digits[:3])
    more = codes(40)
    assert set(np.unique(more)) == {-1.0, 1.0} and len({tuple(c) for c in more}) == 40


def test_an_output_is_minus_the_squared_distance_to_its_code():
    net = models.LeNet5Original()
    x = rng.normal(size=(3, 1, 32, 32)).astype(np.float32)
    f6 = x
    for layer in list(net)[:-1]:
        f6 = layer(f6)
    expected = [[-((row - code) ** 2).sum() for code in codes(10)] for row in f6.numpy()]
    np.testing.assert_allclose(net(x).numpy(), expected, rtol=1e-5)


def test_the_codes_are_kept_but_not_learnt():
    net = models.LeNet5Original(num_classes=12)
    assert net.state_dict()["output.codes"].shape == (12, 84)
    assert "output.codes" not in dict(net.named_parameters())


@pytest.mark.parametrize("j", [0.5, 3.0])
def test_the_loss_is_equation_9(j):
    y, t = rng.uniform(0, 5, (4, 3)), np.array([0, 2, 1, 1])
    expected = np.mean(y[np.arange(4), t] + np.log(np.exp(-j) + np.exp(-y).sum(axis=1)))
    assert MAPLoss(j)(cl.Tensor(-y), t).item() == pytest.approx(expected, rel=1e-12)


def test_rubbish_keeps_far_classes_from_being_pushed_further():
    y = cl.Tensor([[-1.0, -40.0]], requires_grad=True)
    MAPLoss(j=2.0)(y, np.array([0])).backward()
    pull, push = -y.grad[0]  # ∂J/∂y of the right and of the wrong class
    assert pull > 0.1 and abs(push) < 1e-6


def test_rubbish_is_no_class_to_learn():
    scores = cl.Tensor(np.zeros((2, 3), np.float32))
    for label in (3, 4):
        with pytest.raises(ValueRangeError, match=rf"MAPLoss: label {label} is outside 0 … 2: there are C = 3 classes"):
            MAPLoss()(scores, np.array([0, label]))
    with pytest.raises(ValueRangeError, match=r"label -1 at position \(1,\) is outside"):
        MAPLoss()(scores, np.array([0, -1]))
    for wrong in ([[1.0, 2.0]], cl.Tensor([1.0, 2.0])):
        with pytest.raises(ShapeError, match=r"MAPLoss: scores must be \(N, C\).* got (list|\(2,\))"):
            MAPLoss()(wrong, np.array([0]))
    with pytest.raises(ValueRangeError, match=r"MAPLoss: j, .* must be > 0, got -1"):
        MAPLoss(j=-1)
    with pytest.raises(ValueRangeError, match="num_classes must be a whole number >= 1, got -1"):
        models.LeNet5Original(num_classes=-1)


def test_first_weights_keep_to_the_fan_in():
    net = models.LeNet5Original()
    for layer, inputs in ((net.c1, 25), (net.c5, 400), (net.f6, 120)):
        largest = np.abs(layer.weight.numpy()).max()
        assert 0.8 * 2.4 / inputs < largest <= 2.4 / inputs
    kernels = iter(net.c3.weight.numpy())
    for row in TABLE:
        own = np.stack([next(kernels) for _ in row])
        assert 0.5 * 2.4 / (25 * len(row)) < np.abs(own).max() <= 2.4 / (25 * len(row))


@pytest.mark.parametrize(("size", "channels", "parameters"), [(28, 1, 60_000), (32, 3, 60_300), (12, 1, 13_920)])
def test_other_pictures(size, channels, parameters):
    net = models.LeNet5Original(in_channels=channels, input_size=size)
    assert net(np.zeros((2, channels, size, size), np.float32)).shape == (2, 10)
    assert parameter_count(net) == parameters


def test_wrong_pictures_are_refused():
    with pytest.raises(ShapeError, match=r"LeNet5Original: pictures of 11×11 are too small.* at least 12×12 is needed"):
        models.LeNet5Original(input_size=11)
    with pytest.raises(ShapeError, match=r"x must be \(N, 1, 32, 32\), got \(2, 3, 32, 32\): create it with in_channels"):
        models.LeNet5Original()(np.zeros((2, 3, 32, 32), np.float32))
    with pytest.raises(ShapeError, match="LeNet5Original needs square pictures"):
        models.LeNet5Original.options_for((1, 20, 30), 10)
    with pytest.raises(UnknownNameError, match="unknown option of lenet5_original 'width'"):
        models.create("lenet5_original", width=2)


def test_width_of_the_modern_form():
    net = models.LeNet5(width=0.5)
    assert [net.c1.out_channels, net.c3.out_channels, net.c5.out_features, net.f6.out_features] == [3, 8, 60, 42]
    with pytest.raises(ValueRangeError, match=r"width.* must be > 0, got 0"):
        models.LeNet5(width=0)


def test_whole_network_against_differences():
    net = models.LeNet5Original(num_classes=11, input_size=12)
    check_gradients(net, MAPLoss(j=20.0), rng.normal(size=(2, 1, 12, 12)), np.array([3, 10]))


def test_it_learns_the_digits():
    train, test = cl.data.digits(size=32)
    cl.manual_seed(0)
    net = models.create("lenet5_original")
    trainer = cl.Trainer(net, net.criterion(), cl.optim.Adam(net.parameters(), lr=1e-3), progress=False,
                         transform=cl.data.Normalize.fit(train))  # fmt: skip
    assert trainer.fit(train, test, epochs=15)[-1]["validation_accuracy"] > 0.95


def test_repr_says_what_the_layers_are():
    text = repr(models.LeNet5Original())
    assert "EuclideanRBF(84, 10)" in text and repr(MAPLoss(2.0)) == "MAPLoss(j=2.0)"
    assert isinstance(models.LeNet5Original()[0], nn.Conv2d)
