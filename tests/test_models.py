"""The systems of 1943 to 1998: their rules, their limits, their parameter counts."""

import inspect

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, ops
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from tests.nets import parameter_count

SQUARE = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
AND, OR, XOR = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])


def test_every_listed_model_can_be_created():
    assert {"adaline", "lenet5", "linear_svm", "mcculloch_pitts", "mlp", "perceptron"} <= set(models.list())
    for name in models.list():
        assert isinstance(models.create(name, **narrow(name)), nn.Module)  # full-size ones: where their parameters are counted


def test_what_is_no_picture_is_refused():
    with pytest.raises(ShapeError, match=r"LeNet5: x must be \(N, 1, 32, 32\), got list: create it"):
        models.LeNet5()([1, 2])


def test_unknown_names_name_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'lenet5'"):
        models.create("lenet")
    with pytest.raises(UnknownNameError, match="unknown option of lenet5 'classes': did you mean 'num_classes'"):
        models.create("lenet5", classes=3)


# ---- McCulloch–Pitts


def test_gates():
    gate = {name: models.McCullochPitts(name) for name in ("and", "or", "not")}
    assert gate["and"](SQUARE).numpy().tolist() == AND.tolist()
    assert gate["or"](SQUARE).numpy().tolist() == OR.tolist()
    assert gate["not"](np.array([[0], [1]], np.float32)).numpy().tolist() == [1, 0]
    with pytest.raises(UnknownNameError, match="unknown gate 'xor'"):
        models.McCullochPitts("xor")


def test_a_second_layer_of_gates_gives_xor():
    a, o, n = (models.McCullochPitts(g) for g in ("and", "or", "not"))
    nand = n(a(SQUARE).numpy()[:, None].astype(np.float32))
    assert a(np.stack([o(SQUARE).numpy(), nand.numpy()], axis=1).astype(np.float32)).numpy().tolist() == XOR.tolist()


def test_own_weights_give_a_majority_and_nothing_is_learnt():
    majority = models.McCullochPitts(weights=[1, 1, 1], threshold=2)
    assert majority(np.array([[1, 0, 1], [1, 0, 0]], np.float32)).numpy().tolist() == [1, 0]
    assert not any(p.requires_grad for p in majority.parameters())


# ---- perceptron


@pytest.mark.parametrize("y", [AND, OR], ids=["and", "or"])
def test_perceptron_learns_separable_gates(y):
    neuron = models.Perceptron(2)
    run = neuron.fit(SQUARE, y)
    assert run.converged and run.mistakes[-1] == 0 and run.epochs == len(run.mistakes) and run.updates == sum(run.mistakes)
    assert neuron(SQUARE).numpy().tolist() == y.tolist()


def test_perceptron_never_learns_xor():
    run = models.Perceptron(2).fit(SQUARE, XOR, max_epochs=500)
    assert not run.converged and run.epochs == 500 and min(run.mistakes) > 0


def test_perceptron_keeps_novikoffs_bound():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    normal = np.array([0.6, -0.8, 0.0])  # the separating line goes through 0; the bias counts as an input of 1
    x = x[np.abs(x @ normal[:2]) > 0.2]
    y = (x @ normal[:2] > 0).astype(int)
    extended = np.c_[x, np.ones(len(x))]
    radius, margin = np.linalg.norm(extended, axis=1).max(), np.abs(extended @ normal).min()
    run = models.Perceptron(2).fit(x, y, max_epochs=10_000)
    assert run.converged and run.updates <= (radius / margin) ** 2


def test_perceptron_goes_on_from_where_it_was():
    neuron = models.Perceptron(2)
    neuron.fit(SQUARE, AND)
    assert neuron.fit(SQUARE, AND).updates == 0


@pytest.mark.parametrize("model", [models.Perceptron, models.Adaline])
def test_rules_refuse_what_they_cannot_learn_from(model):
    with pytest.raises(ShapeError, match=r"x must be \(N, D\)"):
        model(2).fit(SQUARE, [0, 1])
    with pytest.raises(ValueRangeError, match="classes 0 and 1"):
        model(2).fit(SQUARE, [-1, 1, 1, 1])


# ---- ADALINE


def test_adaline_descends_and_classifies():
    neuron = models.Adaline(2)
    errors = neuron.fit(SQUARE, OR, lr=0.05, epochs=60)
    assert errors[-1] < errors[0] / 2
    assert neuron.predict(SQUARE).numpy().tolist() == OR.tolist()


def test_delta_rule_is_gradient_descent_on_half_the_squared_error():
    rng = np.random.default_rng(0)
    x, lr = rng.normal(size=(1, 3)).astype(np.float32), 0.1
    by_rule, by_tape = models.Adaline(3), models.Adaline(3)
    for model in (by_rule, by_tape):
        model.weight.set([[0.5, -1.0, 2.0]])
        model.bias.set([0.25])
    by_rule.fit(x, [0], lr=lr, epochs=1)
    ((cl.Tensor(np.array([-1.0], np.float32)) - by_tape(x)) ** 2 * 0.5).sum().backward()
    np.testing.assert_allclose(by_rule.weight.data, by_tape.weight.data - lr * by_tape.weight.grad, rtol=1e-5)
    np.testing.assert_allclose(by_rule.bias.data, by_tape.bias.data - lr * by_tape.bias.grad, rtol=1e-5)


# ---- MLP


def test_mlp_parameters_and_shapes():
    net = models.MLP(in_features=64, hidden=(32, 16), num_classes=10)
    assert parameter_count(net) == 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10
    assert net(np.zeros((3, 1, 8, 8), np.float32)).shape == (3, 10)
    assert net(np.zeros((3, 64), np.float32)).shape == (3, 10)
    with pytest.raises(UnknownNameError, match="did you mean 'sigmoid'"):
        models.MLP(activation="sigmoyd")


def test_bias_free_mlp_cannot_tell_x_from_minus_x():
    net = models.MLP(2, hidden=(2,), num_classes=1, activation="sigmoid", bias=False)
    assert parameter_count(net) == 6
    x = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]], np.float32)
    s = net(x).numpy()[:, 0]
    np.testing.assert_allclose(s[0] + s[1], s[2] + s[3], rtol=1e-5)  # so not one pair below 0 and the other above


# ---- LeNet-5


def test_lenet5_has_the_known_parameters():
    net = models.create("lenet5")
    assert parameter_count(net) == 61_706
    counts = {name: sum(p.size for p in m.parameters()) for name, m in net.named_modules() if name and list(m.parameters())}
    assert counts == {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850}


@pytest.mark.parametrize(
    ("size", "channels", "classes", "parameters"), [(28, 1, 10, 61_706), (32, 3, 10, 62_006), (64, 3, 2, 337_806)]
)
def test_lenet5_fits_other_pictures(size, channels, classes, parameters):
    net = models.LeNet5(num_classes=classes, in_channels=channels, input_size=size)
    assert net(np.zeros((2, channels, size, size), np.float32)).shape == (2, classes)
    assert parameter_count(net) == parameters


def test_lenet5_of_the_paper_like_parts():
    net = models.LeNet5(activation="tanh", pooling="avg")
    assert isinstance(net.s2, nn.AvgPool2d) and isinstance(net.act1, nn.Tanh)
    with pytest.raises(UnknownNameError, match="unknown pooling 'mean'"):
        models.LeNet5(pooling="mean")


def test_lenet5_refuses_wrong_pictures():
    with pytest.raises(ShapeError, match=r"x must be \(N, 1, 32, 32\), got \(2, 1, 28, 28\)"):
        models.LeNet5()(np.zeros((2, 1, 28, 28), np.float32))
    with pytest.raises(ShapeError, match="at least 12×12"):
        models.LeNet5(input_size=8)
    with pytest.raises(ShapeError, match="square pictures"):
        models.LeNet5.options_for((1, 20, 30), 10)


def test_lenet5_trains_in_float32_only():
    net = models.LeNet5()
    with cl.trace() as t:
        ops.cross_entropy(net(np.ones((2, 1, 32, 32), np.float32)), np.array([1, 2])).backward()
    arrays = [a for e in t for a in (*e.outputs, *e.grads.values()) if a is not None]
    assert arrays and all(a.dtype == np.float32 for a in arrays)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg_small", {"input_size": "32"}, "VGGSmall: input_size must be a whole number >= 1, got '32'"),
        ("vgg_small", {"input_size": (32, 32)}, r"VGGSmall: input_size must be a whole number >= 1, got \(32, 32\)"),
        ("vgg_small", {"in_channels": 1.0}, r"VGGSmall: in_channels must be a whole number >= 1, got 1\.0"),
        ("vgg_small", {"num_classes": 2.0}, r"Linear: out_features must be a whole number >= 1, got 2\.0"),
        ("resnet20", {"num_classes": 0}, "Linear: out_features must be a whole number >= 1, got 0"),
        ("lenet5_original", {"num_classes": 2.5}, "LeNet5Original: num_classes must be a whole number >= 1"),
        ("vgg_small", {"width": "2"}, "width, by which .* must be > 0, got '2'"),
        ("resnet20", {"width": float("nan")}, "width is a number of maps, at least 1, 16 in the paper; got nan"),
        ("resnet20", {"depth": "20"}, "ResNet20: depth must be a whole number >= 1, got '20'"),
    ],
)
def test_settings_that_are_no_numbers(name, options, message):
    with pytest.raises(ValueRangeError, match=message):
        models.create(name, **options)


def test_settings_may_be_numpys():
    net = models.create("vgg_small", num_classes=np.int64(3), width=np.float32(0.0625), input_size=np.int32(8))
    assert net(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 3)


def narrow(name):
    """The option that makes few maps, where a model has it."""
    return {"width": 4 if name == "resnet20" else 0.0625} if "width" in inspect.signature(models.get(name)).parameters else {}


def scaled_down(name):
    """The smallest useful form of a model that learns by gradient descent, and the shape of its samples."""
    kind = models.get(name)
    known = inspect.signature(kind).parameters
    side = getattr(kind, "smallest", 32)
    shape = (1, side, side) if "input_size" in known else (64,)
    return models.create(name, **kind.options_for(shape, 10), **narrow(name)), shape


@pytest.mark.parametrize("name", [name for name in models.list() if hasattr(models.get(name), "options_for")])
def test_a_training_step_leaves_no_float64_on_the_tape(name):
    net, shape = scaled_down(name)
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    with cl.trace() as t:
        net.criterion()(net(x), np.array([0, 3, 9, 3])).backward()
    assert len(t) > 1
    for entry in t:
        arrays = [*entry.inputs.values(), *entry.outputs, *entry.dys, *entry.grads.values(), *entry.saved.values()]
        assert not [a for a in arrays if getattr(a, "dtype", None) == np.float64], entry.name
    assert all(p.grad.dtype == np.float32 for p in net.parameters())
