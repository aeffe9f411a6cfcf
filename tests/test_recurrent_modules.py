"""Recurrent layers as modules, on each backend: summary, trace, checkpoint, repr, one's own backward, and what is refused."""

import json

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.backends import available
from cnnlib.errors import DtypeError, ShapeError, UnknownNameError, ValueRangeError
from cnnlib.train import checkpoint


@pytest.fixture(params=[name for name in ("reference", "cpu") if available()[name] is None], autouse=True)
def backend(request):
    with cl.use(request.param):
        yield request.param


# ---- looking at it, keeping it


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.lstm = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)
        self.output = nn.Linear(32, 4)

    def forward(self, tokens):
        return self.output(self.lstm(self.embedding(tokens))[0])


def test_summary_counts_units_and_products_once_a_step():
    table = nn.summary(Tagger(), (7,), dtype="int64")
    row = next(r for r in table.rows if r.name == "lstm")
    weights = 2 * (4 * 16 * (8 + 16)) + 2 * (4 * 16 * (32 + 16))
    assert (row.kind, row.output_shape) == ("LSTM", (7, 32))
    assert (row.weights, row.biases) == (weights, 2 * 2 * 2 * 4 * 16)
    assert (row.neurons, row.multiply_adds) == (7 * 2 * 2 * 16, 7 * weights)
    assert [r.name for r in table.rows] == ["embedding", "lstm", "output"]
    json.dumps(table.as_dict())


@pytest.mark.parametrize(
    ("layer", "shape", "neurons", "multiply_adds"),
    [
        (lambda: nn.RNN(3, 5, batch_first=True), (7, 3), 35, 7 * 5 * 8),
        (lambda: nn.GRU(3, 5, batch_first=True, bidirectional=True, merge="sum"), (7, 3), 70, 2 * 7 * 15 * 8),
        (lambda: nn.LSTM(3, 5, peepholes="diagonal", batch_first=True), (7, 3), 35, 7 * (20 * 8 + 15)),
        (lambda: nn.LSTMCell(3, 5, peepholes="full"), (3,), 5, 20 * 8 + 75),
        (lambda: nn.GRUCell(3, 5), (3,), 5, 15 * 8),
    ],
)
def test_summary_of_one_layer(layer, shape, neurons, multiply_adds):
    s = nn.summary(layer(), shape)
    assert (s.neurons, s.multiply_adds) == (neurons, multiply_adds)


def test_a_trace_names_layer_and_formula_and_shows_the_gates():
    net, tokens = Tagger(), np.array([[1, 2, 3], [4, 5, 6]])
    with cl.trace() as t:
        net(tokens).sum().backward()
    names = [e.name for e in t]
    assert [n for n in names if "lstm.lstm" in n] == ["lstm.lstm", "lstm.lstm_2", "lstm.lstm_3", "lstm.lstm_4"]
    entry = t["lstm.lstm_2"]
    assert entry.formula == ops.LSTM.formula and entry.settings["reverse"] is True
    assert entry.sources["w_hh"] == "lstm.weight_hh_l0_reverse" and entry.inputs["c0"] is None
    i, f, g, o = np.split(entry.saved["gates"], 4, axis=2)
    np.testing.assert_allclose(entry.outputs[0], o * np.tanh(entry.saved["c"]), rtol=1e-6)
    assert min(i.min(), f.min(), o.min()) > 0 > g.min()
    np.testing.assert_array_equal(entry.grads["w_hh"], net.lstm.weight_hh_l0_reverse.grad)
    assert "lstm.lstm_2" in str(t) and "→ (3·2·16), (2·16), (2·16)" in str(t)


def test_a_saved_network_computes_the_same_when_loaded(tmp_path):
    net, tokens = Tagger(), np.array([[1, 2, 3], [4, 5, 6]])
    checkpoint.save(tmp_path / "net.safetensors", net)
    other = Tagger()
    assert other(tokens).data.tobytes() != net(tokens).data.tobytes()
    other.load_state_dict(checkpoint.load(tmp_path / "net.safetensors").model)
    assert other(tokens).data.tobytes() == net(tokens).data.tobytes()


def test_repr_shows_what_is_not_usual():
    assert repr(nn.LSTM(3, 5)) == "LSTM(3, 5)"
    assert repr(nn.RNN(3, 5, nonlinearity="relu", bias=False)) == "RNN(3, 5, nonlinearity='relu', bias=False)"
    assert repr(nn.GRU(3, 5, 2, bidirectional=True, merge="sum")) == "GRU(3, 5, num_layers=2, bidirectional=True, merge='sum')"
    assert repr(nn.LSTMCell(3, 5, peepholes="full")) == "LSTMCell(3, 5, peepholes='full')"


def test_ones_own_backward_trains_the_layer():
    """cl.override reaches a layer's operation: here one that cuts the gradient of everything but the biases."""

    def biases_only(ctx, dy, dh_n, dc_n):
        grads = ops.LSTM.backward(ctx, dy, dh_n, dc_n)
        return (*[None] * 5, *grads[5:])

    layer = nn.LSTM(3, 5)
    with cl.override(ops.LSTM, backward=biases_only):
        y, _ = layer(np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32))
    y.sum().backward()
    assert layer.weight_hh_l0.grad is None and layer.weight_ih_l0.grad is None and abs(layer.bias_ih_l0.grad).max() > 0


# ---- what is refused


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.RNN(0, 5), ValueRangeError, "RNN: input_size must be a whole number >= 1, got 0."),
        (lambda: nn.LSTM(3, 2.5), ValueRangeError, "LSTM: hidden_size must be a whole number >= 1, got 2.5."),
        (lambda: nn.GRU(3, 5, 0), ValueRangeError, "GRU: num_layers must be a whole number >= 1, got 0."),
        (lambda: nn.GRU(3, 5, dropout=1), ValueRangeError, "GRU: dropout must be a probability, 0 <= dropout < 1, got 1."),
        (lambda: nn.GRU(3, 5, dropout="a"), ValueRangeError, "GRU: dropout must be a probability, 0 <= dropout < 1, got 'a'."),
        (lambda: nn.RNN(3, 5, merge="add"), UnknownNameError, "unknown merge of RNN 'add'"),
        (lambda: nn.RNN(3, 5, nonlinearity="elu"), UnknownNameError, "unknown nonlinearity of RNN 'elu'"),
        (lambda: nn.LSTM(3, 5, peepholes="ful"), UnknownNameError, "unknown peepholes of LSTM 'ful': did you mean 'full'"),
        (lambda: nn.LSTM(3, 5, output_activation="relu"), UnknownNameError, "unknown output_activation of LSTM 'relu'"),
        (
            lambda: nn.LSTM(3, 5)(zeros(4, 3)),
            ShapeError,
            "LSTM: x must have the shape (T, B, D); batch_first=True takes (B, T, D) with D = input_size = 3, got (4, 3).",
        ),
        (
            lambda: nn.GRU(3, 5, batch_first=True)(zeros(2, 4, 5)),
            ShapeError,
            "GRU: x must have the shape (B, T, D), batch_first=True with D = input_size = 3, got (2, 4, 5).",
        ),
        (lambda: nn.GRU(3, 5)([[0.0]]), DtypeError, "GRU: x must be a Tensor or an array, got list."),
        (
            lambda: nn.RNN(3, 5, 2)(zeros(4, 2, 3), zeros(1, 2, 5)),
            ShapeError,
            "RNN: state must be h_0 of shape (num_layers · directions, B, H) = (2, 2, 5), got (1, 2, 5).",
        ),
        (
            lambda: nn.LSTM(3, 5)(zeros(4, 2, 3), zeros(1, 2, 5)),
            ShapeError,
            "LSTM: state must be the pair (h_0, c_0), each of shape (num_layers · directions, B, H) = (1, 2, 5), got (1,",
        ),
        (
            lambda: nn.LSTM(3, 5, bidirectional=True)(zeros(4, 2, 3), (zeros(2, 2, 5), None)),
            ShapeError,
            "(num_layers · directions, B, H) = (2, 2, 5), got (2, 2, 5), NoneType.",
        ),
        (
            lambda: nn.GRU(3, 5)(zeros(4, 2, 3), (zeros(1, 2, 5), zeros(1, 2, 5))),
            ShapeError,
            "GRU: state must be h_0 of shape (num_layers · directions, B, H) = (1, 2, 5), got tuple.",
        ),
        (
            lambda: nn.LSTM(3, 5, batch_first=True)(zeros(2, 4, 3), None, [4, 5]),
            ValueRangeError,
            "lstm: lengths[1] = 5, but every length must lie in 1 … T = 4",
        ),
        (
            lambda: nn.LSTMCell(3, 5)(zeros(4, 2, 3)),
            ShapeError,
            "LSTMCell: x must have the shape (B, D) with D = input_size = 3, got (4, 2, 3): a cell does one step.",
        ),
        (lambda: nn.RNNCell(3, 5)(zeros(2, 4)), ShapeError, "RNNCell: x must have the shape (B, D) with D = input_size = 3"),
        (
            lambda: nn.LSTMCell(3, 5)(zeros(2, 3), zeros(2, 5)),
            ShapeError,
            "LSTMCell: state must be the pair (h_0, c_0), each of shape (B, H) = (2, 5), got (2, 5).",
        ),
        (
            lambda: nn.GRUCell(3, 5)(zeros(2, 3), zeros(1, 2, 5)),
            ShapeError,
            "GRUCell: state must be h_0 of shape (B, H) = (2, 5), got (1, 2, 5).",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_a_message(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
