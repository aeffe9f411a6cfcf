"""summary(): the counts of known networks, and that looking changes nothing."""

import json

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn
from cnnlib.nn.summary import summary


def test_lenet5_row_by_row():
    s = summary(models.LeNet5(), (1, 32, 32))
    rows = {r.name: (r.output_shape, r.weights, r.biases, r.neurons, r.multiply_adds) for r in s.rows if r.weights}
    assert rows == {
        "c1": ((6, 28, 28), 150, 6, 4_704, 117_600),
        "c3": ((16, 10, 10), 2_400, 16, 1_600, 240_000),
        "c5": ((120,), 48_000, 120, 120, 48_000),
        "f6": ((84,), 10_080, 84, 84, 10_080),
        "output": ((10,), 840, 10, 10, 840),
    }
    assert (s.parameters, s.weights, s.biases) == (61_706, 61_470, 236)
    assert s.multiply_adds == 416_520 and s.neurons == 6_518
    assert sum(r.share for r in s.rows) == pytest.approx(1)


def test_pooling_and_activations_have_rows_without_parameters():
    rows = {r.name: r for r in summary(models.LeNet5(), (1, 32, 32)).rows}
    assert rows["s2"].output_shape == (6, 14, 14) and rows["s2"].neurons == 1_176
    assert rows["s2"].multiply_adds == 0 and rows["s2"].weights == 0


@pytest.mark.parametrize(
    ("layer", "shape", "multiply_adds"),
    [
        (lambda: nn.Linear(5, 7), (5,), 35),
        (lambda: nn.Linear(5, 7), (4, 5), 140),
        (lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1), (4, 6, 6), 6 * 6 * 8 * 2 * 9),
        (lambda: nn.Conv1d(4, 8, 3), (4, 10), 8 * 8 * 4 * 3),
        (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5), 5 * 5 * 4 * 6 * 4),
        (lambda: nn.LocallyConnected2d(4, 8, 6, 3, padding=1), (4, 6, 6), 6 * 6 * 8 * 4 * 9),
        (lambda: nn.LocallyConnected2d(3, 2, (7, 5), 3, stride=2, bias=False), (3, 7, 5), 3 * 2 * 2 * 27),
        (lambda: nn.Maxout(5, 3, pieces=2), (5,), 30),
        (lambda: nn.DropConnect(5, 3), (5,), 15),
    ],
)
def test_multiply_adds(layer, shape, multiply_adds):
    s = summary(layer(), shape)
    assert s.multiply_adds == multiply_adds
    assert s.parameters == sum(p.size for p in layer().parameters())


def test_a_layer_of_ones_own_says_its_multiply_adds():
    class Moments(nn.Module):
        """x, x², x³: two products for each element."""

        def forward(self, x):
            return cl.ops.stack([x, x**2, x**3], axis=1)

        def multiply_adds(self, x, y):
            assert x == (1, 5) and y == (3, 5)
            return 2 * x[1]

    row = summary(Moments(), (5,)).rows[0]
    assert row.multiply_adds == 10 and row.neurons == 15


def test_shared_layers_are_counted_once_and_computed_twice():
    layer = nn.Linear(4, 4)
    s = summary(nn.Sequential(layer, nn.ReLU(), layer), (4,))
    assert s.parameters == 20 and s.multiply_adds == 32


def test_parameters_of_a_module_that_has_layers_too():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = cl.Parameter(np.ones(3, np.float32))
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x) * self.scale

    s = summary(Scaled(), (4,))
    assert [(r.name, r.weights, r.biases) for r in s.rows] == [("layer", 12, 3), ("Scaled", 3, 0)]


def test_layers_that_evaluation_does_not_call_have_parameters_but_no_neurons():
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return (self.layer(x), self.head(x)) if self.training else self.layer(x)

    s = summary(WithHead(), (4,))
    assert [(r.name, r.weights, r.biases, r.neurons) for r in s.rows] == [("layer", 12, 3, 3), ("WithHead", 8, 2, 0)]
    assert s.parameters == 25 and s.neurons == 3


def test_what_is_no_shape_is_refused():
    with pytest.raises(cl.errors.ShapeError, match=r"without the batch axis, such as \(1, 28, 28\), got 784"):
        summary(models.MLP(), 784)


def test_looking_changes_nothing():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3))
    net[2].eval()
    before, modes, streams = net.state_dict(), [m.training for m in net.modules()], cl.random.get_state()
    hooks = [list(m._forward_hooks) for m in net.modules()]
    summary(net, (1, 8, 8))
    assert [m.training for m in net.modules()] == modes and cl.random.get_state() == streams
    assert [m._forward_hooks for m in net.modules()] == hooks
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_failing_forward_leaves_the_model_as_it_was():
    net = models.LeNet5()
    with pytest.raises(cl.errors.ShapeError):
        summary(net, (1, 28, 28))
    assert all(m.training and not m._forward_hooks for m in net.modules())


def test_as_dict_is_json_and_print_is_a_table():
    s = summary(models.LeNet5(), (1, 32, 32))
    plain = json.loads(json.dumps(s.as_dict()))
    assert plain["parameters"] == 61_706 and plain["layers"][0]["output_shape"] == [6, 28, 28]
    text = str(s)
    assert "LeNet5" in text and "6×28×28" in text and "61,706 parameters" in text


def test_token_input():
    s = summary(nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2)), (3,), dtype="int64")
    assert s.parameters == 40 + 26
