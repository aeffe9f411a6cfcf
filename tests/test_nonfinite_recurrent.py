"""A recurrent layer that makes NaN or an infinity: the message names the first step and the gate, forward and backward."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.data.dataset import arrays
from cnnlib.errors import NonFiniteError
from cnnlib.train import NaNStop, Trainer

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
T, B, D, H = 6, 3, 2, 4
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
HUGE = np.float32(3e38)


def sequence(seed=0):
    return np.random.default_rng(seed).normal(size=(T, B, D)).astype(np.float32)


def planted(kind, gate, unit=1, **settings):
    """A layer with ∞ − ∞ in the sum inside one gate of one unit, from the second step on, where x[..., 0] is huge.

    All units go to h ≈ 1 at once. W_hh h overflows to −∞ in that row, which alone only closes the gate; W_ih x to ∞.
    """
    net = LAYERS[kind](D, H, **settings)
    for name, p in net.named_parameters():
        p.set(np.full(p.shape, 5.0 if name.startswith("bias") else 0.0))
    if kind == "gru":  # z closed: h = n
        net.bias_ih_l0.set(np.repeat([5.0, -5.0, 5.0], H))
    w_ih, w_hh = np.zeros(net.weight_ih_l0.shape), np.zeros(net.weight_hh_l0.shape)
    w_ih[gate * H + unit], w_hh[gate * H + unit] = (100.0, 0.0), -3e38
    net.weight_ih_l0.set(w_ih)
    net.weight_hh_l0.set(w_hh)
    return net


def message(run):
    with cl.check_finite(), pytest.raises(NonFiniteError) as error:
        run()
    return str(error.value)


LSTM_GATES = ["the input gate i", "the forget gate f", "the candidate g", "the output gate o"]
GRU_GATES = ["the reset gate r", "the update gate z", "the candidate n"]
EACH_GATE = [(kind, k, name) for kind, names in (("lstm", LSTM_GATES), ("gru", GRU_GATES[:2])) for k, name in enumerate(names)]


@pytest.mark.parametrize("kind, gate, name", [("rnn", 0, "the state h"), *EACH_GATE])
@pytest.mark.parametrize("reverse", [False, True])
def test_forward_names_the_step_and_the_gate(kind, gate, name, reverse):
    net, x = planted(kind, gate, bidirectional=reverse), sequence()
    if reverse:
        for p in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(net, p + "_reverse").set(getattr(net, p).data)
            getattr(net, p).set(np.zeros(getattr(net, p).shape))
    x[1:3, 2] = HUGE
    said = message(lambda: net(x))
    step = 2 if reverse else 1  # read backwards, the second comes first
    assert f"{kind}: output 0 (6, 3, 4) has NaN or infinity; all inputs were finite: it began here" in said
    assert said.endswith(f"at step t = {step} of 0 … 5, in {name}: 1 of 12 values, the first in sequence 2, unit 1.")


def test_gates_that_are_bad_at_once_are_all_named_and_their_consequences_are_not():
    net, x = planted("lstm", 0), sequence()
    for p in (net.weight_ih_l0, net.weight_hh_l0):
        w = p.data.copy()
        w[3 * H] = w[1]
        p.set(w)
    x[4, :, 0] = HUGE
    assert "at step t = 4 of 0 … 5, in the input gate i and the output gate o: 3 of 12" in message(lambda: net(x))
    seeing = nn.LSTM(D, H, peepholes="diagonal")
    seeing.load_state_dict({**net.state_dict(), "weight_peephole_l0": np.zeros((3, H), np.float32)})
    assert "at step t = 4 of 0 … 5, in the input gate i: 3 of 12" in message(lambda: seeing(x))  # here o sees c, which is NaN


def test_the_states_share_of_the_grus_candidate_is_named_although_tanh_hides_its_infinity():
    net, x = planted("gru", 2), np.zeros((T, B, D), np.float32)
    x[4, 2, 0] = HUGE  # there n is NaN; but W_hn h is −∞ long before
    assert "at step t = 1 of 0 … 5, in the state's share q of n: 3 of 12 values" in message(lambda: net(x))


def test_a_bad_input_is_blamed_and_its_step_named():
    x = sequence()
    x[3, 1, 0] = np.nan
    said = message(lambda: nn.GRU(D, H)(x))
    assert "already in x, at step t = 3 of 0 … 5, in the reset gate r and the update gate z: 4 of 12 values" in said


def test_a_state_that_grows_without_bounds_is_named_at_the_step_of_the_overflow():
    net = nn.RNN(1, 1, nonlinearity="identity", bias=False)
    net.weight_ih_l0.set([[1.0]])
    net.weight_hh_l0.set([[1e10]])
    x = np.zeros((8, 1, 1), np.float32)
    x[1] = 1.0  # h_t = 1e10^(t − 1): over 3.4e38 at t = 5
    assert "at step t = 5 of 0 … 7, in the state h: 1 of 1 values, the first in sequence 0, unit 0" in message(lambda: net(x))


# ---- backward


@pytest.mark.parametrize("reverse", [False, True])
def test_backward_names_the_step_at_which_the_adjoint_overflowed(reverse):
    w, x = cl.Tensor([[1e10]]), leaf(8, 1, 1)
    with cl.check_finite():
        _, h_n = ops.rnn(x, None, w, w, nonlinearity="identity", reverse=reverse)
    with pytest.raises(NonFiniteError) as error:
        h_n.sum().backward()  # da at k steps before the last is 1e10^k: over 3.4e38 at k = 4
    said = str(error.value)
    assert "rnn: backward gave dx (8, 1, 1) with NaN or infinity; the adjoint that arrived was finite: it began here" in said
    assert f"at step t = {4 if reverse else 3} of 0 … 7, in the adjoint of the state h: 1 of 1" in said


def leaf(*shape):
    return cl.Tensor(np.zeros(shape, np.float32), requires_grad=True)


def constant(*shape, value=0.0):
    return cl.Tensor(np.full(shape, value, np.float32))


def test_backward_names_the_gate():
    """Huge factors, 1e20 · 1e22, meet in the adjoints of these gates only, and at the last step first."""
    x, w4, w3, huge = leaf(T, 1, 1), constant(4, 1), constant(3, 1), constant(1, 1, value=1e22)
    w_n = cl.Tensor(np.array([[0], [0], [1e22]], np.float32))
    runs = [
        (lambda: ops.lstm(x, None, huge, w4, w4)[2], {"the forget gate f"}),  # da_f = dc c₋ f (1 − f)
        (
            lambda: ops.lstm(x, None, huge, w4, w4, output_activation="identity")[1],  # and da_o = dh c o (1 − o)
            {"the forget gate f", "the output gate o"},
        ),
        (lambda: ops.gru(x, huge, w3, w3)[1], {"the update gate z"}),  # da_z = dh (h₋ − n) z (1 − z)
        (lambda: ops.gru(x, None, w3, w_n, reset_after=False)[1], {"the reset gate r"}),  # da_r = W_hnᵀ da_n h₋ r (1 − r)
    ]
    for run, gates in runs:
        with cl.check_finite():
            y = run()
        with pytest.raises(NonFiniteError) as error:
            y.backward(np.full(y.shape, 1e20, np.float32))
        named = {gate for gate in (*LSTM_GATES, *GRU_GATES) if f"the adjoint of {gate}" in str(error.value)}
        assert "at step t = 5 of 0 … 5, in the adjoint of" in str(error.value) and named == gates, error.value


def test_an_adjoint_that_arrived_bad_has_its_step():
    x = cl.Tensor(sequence(), requires_grad=True)
    with cl.check_finite():
        y, _ = nn.GRU(D, H)(x)
    dy = np.ones(y.shape, np.float32)
    dy[2, 0, 3] = np.inf
    with pytest.raises(NonFiniteError, match="already in the adjoint that arrived, at step t = 2 of 0 … 5, in the adjoint of"):
        y.backward(dy)


def test_where_only_a_product_overflows_no_gate_is_blamed():
    x = cl.Tensor(np.full((T, 1, 1), 1e30, np.float32), requires_grad=True)
    w = cl.Tensor([[1e-30]], requires_grad=True)
    with cl.check_finite():
        y, _ = ops.rnn(x, None, w, constant(1, 1), nonlinearity="identity")
    with pytest.raises(NonFiniteError, match=r"backward gave dw_ih .* every gate's adjoint is finite at every step"):
        y.backward(np.full((T, 1, 1), 1e10, np.float32))


def test_a_forward_or_backward_of_ones_own_is_not_explained():
    w, x = constant(1, 1, value=1.0), leaf(T, 1, 1)
    bad = lambda ctx, *dys: [np.full((T, 1, 1), np.nan, np.float32)] + [None] * 5  # noqa: E731
    with cl.check_finite(), cl.override(ops.RNN, backward=bad):
        y, _ = ops.rnn(x, None, w, w)
    with pytest.raises(NonFiniteError, match=r"finite: it began here\.$"):
        y.sum().backward()
    own = lambda ctx, x, *rest, **settings: (x * np.float32(np.nan), x[0])  # noqa: E731
    with cl.check_finite(), cl.override(ops.RNN, forward=own), pytest.raises(NonFiniteError, match=r"it began here\.$"):
        ops.rnn(x, None, w, w)


# ---- in training


class Classifier(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.head = LAYERS[kind](D, H, batch_first=True), nn.Linear(H, 2)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


def stopped(net, x):
    t = Trainer(net, nn.CrossEntropyLoss(), cl.optim.SGD(net.parameters(), lr=0.1), callbacks=[NaNStop()], progress=False)
    with pytest.raises(NonFiniteError) as error:
        t.fit(arrays(x, np.zeros(len(x), int)), epochs=1)
    return str(error.value)


def test_training_that_blows_up_stops_with_the_step_and_the_gate():
    net, x = Classifier("lstm"), sequence().transpose(1, 0, 2).copy()
    net.recurrent.load_state_dict(planted("lstm", 1).state_dict())
    x[1, 3, 0] = HUGE
    said = stopped(net, x)
    assert "the loss is nan in epoch 1, batch 1 (step 1); the optimiser has not used it" in said
    assert "Where it began: recurrent.lstm: output 0 (6, 3, 4)" in said
    assert "at step t = 3 of 0 … 5, in the forget gate f: 1 of 12 values" in said
    assert "Its parameters: recurrent.weight_ih_l0 up to 100, " in said


def test_a_gradient_that_explodes_in_training_stops_with_the_step():
    net, x = Classifier("rnn"), np.zeros((3, T, D), np.float32)
    net.recurrent.weight_hh_l0.set(np.eye(H) * 1e15)  # at states of 0 tanh' is 1: the adjoint grows by 1e15 a step
    net.recurrent.bias_ih_l0.set(np.zeros(H))
    net.recurrent.bias_hh_l0.set(np.zeros(H))
    said = stopped(net, x)
    assert "the gradient of recurrent.weight_ih_l0 has NaN or infinity" in said
    assert "Where it began: recurrent.rnn: backward gave d" in said
    assert "at step t = 2 of 0 … 5, in the adjoint of the state h" in said
