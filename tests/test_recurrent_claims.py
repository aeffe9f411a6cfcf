"""What the lecture claims of recurrent networks, each claim a test: gates, memory, vanishing and exploding gradients."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.backends import available, kernel_set
from examples import adding_problem
from examples.vanishing_gradient import OPEN, gated_lstm, memory_curves, norms, recurrent_weights, with_gates

ROOT = Path(__file__).parent.parent
COMPILED = available()["cpu"] is None and hasattr(kernel_set("cpu"), "lstm_forward")
D, H = 3, 7


@pytest.fixture(autouse=True)
def usable_backend():
    with cl.use("cpu" if COMPILED and cl.backend() == "cpu" else "reference"):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- gates


def plain_rnn_inside():
    """x and the weights of an RNN; with one more input they become an LSTM's with the gates (i, f, o) = (1, 0, 1)."""
    x, w_ih, w_hh = normal(12, 4, D), normal(H, D, seed=1), 0.5 * normal(H, H, seed=2)
    bias = np.repeat([2 * OPEN, -2 * OPEN, 0.0, 2 * OPEN], H)  # σ(40) is 1 in float64
    nothing = np.zeros((H, D)), np.zeros((H, H))
    lstm = [np.vstack([nothing[k], nothing[k], w, nothing[k]]) for k, w in enumerate((w_ih, w_hh))]
    return x, w_ih, w_hh, (*lstm, bias)


def test_gates_1_0_1_make_the_lstm_a_plain_rnn():
    """Results and gradients, with output_activation="identity": c = g = tanh(W x + U h₋), h = c."""
    x, w_ih, w_hh, lstm = plain_rnn_inside()
    y, ctx = ops.RNN.run(x, None, w_ih, w_hh)
    z, other = ops.LSTM.run(x, None, None, *lstm, output_activation="identity")
    np.testing.assert_allclose(z[0], y[0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(z[2], y[1], rtol=0, atol=1e-14)  # the cell is the state
    dy = normal(*y[0].shape, seed=3)
    dx, _, dw_ih, dw_hh, *_ = ops.RNN.backward(ctx, dy, None)
    dx_lstm, _, _, dw_ih_lstm, dw_hh_lstm, *_ = ops.LSTM.backward(other, dy, None, None)
    np.testing.assert_allclose(dx_lstm, dx, rtol=0, atol=1e-12)
    np.testing.assert_allclose(dw_ih_lstm[2 * H : 3 * H], dw_ih, rtol=0, atol=1e-12)
    np.testing.assert_allclose(dw_hh_lstm[2 * H : 3 * H], dw_hh, rtol=0, atol=1e-12)


def test_with_the_usual_output_they_make_it_an_rnn_of_tanh_of_tanh():
    x, w_ih, w_hh, lstm = plain_rnn_inside()
    z, *_ = ops.LSTM.run(x, None, None, *lstm)[0]
    h = np.zeros((4, H))
    for x_t, z_t in zip(x, z, strict=True):
        h = np.tanh(np.tanh(x_t @ w_ih.T + h @ w_hh.T))
        np.testing.assert_allclose(z_t, h, rtol=0, atol=1e-14)
    assert abs(z - ops.RNN.run(x, None, w_ih, w_hh)[0][0]).max() > 0.1


def test_the_update_gate_of_a_gru_keeps_the_state_and_its_gradient():
    """z = 1: h = h₋, whatever arrives."""
    gate = np.repeat([0.0, 2 * OPEN, 0.0], H)
    x, h0 = normal(100, H, D), normal(H, H, seed=1)
    (y, _), ctx = ops.GRU.run(x, h0, normal(3 * H, D), 0.1 * normal(3 * H, H), gate)
    np.testing.assert_allclose(y[-1], h0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ops.GRU.backward(ctx, None, np.eye(H))[1], np.eye(H), rtol=0, atol=1e-12)


# ---- memory: Graves' figures 4.1 and 4.4


def test_a_closed_input_gate_and_an_open_forget_gate_keep_the_first_input_for_100_steps():
    rnn, cell, state = memory_curves(steps=100)
    np.testing.assert_allclose(cell, cell[0], rtol=1e-6)
    assert state[-1] > 0.5 * state[0]
    assert rnn[0] == pytest.approx(cell[0]) and rnn[-1] < 1e-9 * rnn[0], "the same layer, without gates"


def test_with_the_input_gate_open_the_forget_gate_decides_how_long():
    """∂c_t/∂c_(t−1) = f: with f = 0.9 in every step, 0.9ᵗ is left."""
    w_ih, w_hh = gated_lstm(normal(H, 1), np.zeros((H, H)))
    always = np.ones(40, bool)
    x = with_gates(normal(40, 1), always, always, always)
    x[:, 2] = np.log(0.9 / 0.1) / OPEN  # the forget gate receives σ⁻¹(0.9)
    cell = norms(ops.LSTM, x, w_ih, w_hh, of="c")
    np.testing.assert_allclose(cell[1:] / cell[:-1], 0.9, rtol=1e-6)


def test_the_output_gate_switches_the_state_and_not_the_cell():
    outputs = np.array([False, True, False, False, True, True, False, True, False, True])
    _, cell, state = memory_curves(steps=10, outputs=outputs)
    np.testing.assert_allclose(cell, cell[0], rtol=1e-6)
    assert (state[~outputs] < 1e-6 * cell[0]).all() and (state[outputs] > 0.3 * cell[0]).all()


# ---- multiplied in every step: the spectral radius


@pytest.mark.parametrize("radius", [0.5, 0.9, 1.1, 1.5])
def test_a_linear_state_shrinks_or_grows_by_the_spectral_radius_in_every_step(radius):
    """‖∂h_T/∂h_0‖ = ‖W_hhᵀ‖, whose T-th root tends to ρ (Gelfand's formula)."""
    rng = np.random.default_rng(4)
    w, x = recurrent_weights(rng, H, radius), np.zeros((80, 1))
    found = norms(ops.RNN, x, np.zeros((H, 1)), w, by="h_0", nonlinearity="identity")
    np.testing.assert_allclose(found[-1], np.linalg.norm(np.linalg.matrix_power(w, 80), 2), rtol=1e-9)
    assert (found[79] / found[19]) ** (1 / 60) == pytest.approx(radius, rel=0.05)
    assert found[-1] < 1e-2 if radius < 1 else found[-1] > 1e2


@pytest.mark.parametrize(("g", "steepest"), [("tanh", 1.0), ("sigmoid", 0.25), ("relu", 1.0)])
def test_below_the_bound_of_the_slope_the_gradient_must_vanish(g, steepest):
    """‖∂h_T/∂h_0‖ ≤ (max g′ · σ_max(W_hh))ᵀ, whatever the input: the largest singular value bounds every step."""
    w = normal(H, H, seed=5)
    w *= 0.9 / np.linalg.norm(w, 2)
    found = norms(ops.RNN, normal(40, D), normal(H, D, seed=1), w, by="h_0", nonlinearity=g)
    assert (found <= (0.9 * steepest) ** np.arange(1, 41) * (1 + 1e-9)).all()


def test_a_radius_above_1_is_needed_to_explode_and_not_enough():
    rng = np.random.default_rng(0)
    w_ih, w, x = rng.normal(size=(H, 1)), recurrent_weights(rng, H, 1.5), rng.normal(size=(50, 1))
    at_rest = norms(ops.RNN, 0 * x, w_ih, w, by="h_0")
    saturated = norms(ops.RNN, 10 * x, w_ih, w, by="h_0")
    assert at_rest[-1] > 1e6 and saturated[-1] < 1e-6


# ---- exploding gradients and clipping


def exploding(steps=40):
    """An RNN with ρ = 1.5 that shall end near 0."""
    cl.manual_seed(0)
    layer = nn.RNN(1, H, nonlinearity="identity", bias=False)
    layer.weight_hh_l0.set(recurrent_weights(np.random.default_rng(1), H, 1.5).astype(np.float32))
    x = normal(steps, 8, 1).astype(np.float32)

    def loss():
        return (layer(x)[1] ** 2).mean()

    return layer, loss


def gradient(layer):
    return np.concatenate([p.grad.ravel() for p in layer.parameters()]).astype(np.float64)


def test_clipping_scales_to_the_norm_and_keeps_the_direction():
    """g · min(1, max_norm / ‖g‖)."""
    layer, loss = exploding()
    loss().backward()
    g = gradient(layer)
    before = optim.clip_grad_norm_(layer.parameters(), 1.0)
    assert before == pytest.approx(np.linalg.norm(g), rel=1e-6) and before > 1e12
    np.testing.assert_allclose(gradient(layer), g * min(1.0, 1.0 / before), rtol=1e-5)
    optim.clip_grad_norm_(layer.parameters(), 5.0)
    np.testing.assert_allclose(gradient(layer), g / before, rtol=1e-5)


def test_gradient_descent_blows_up_without_clipping_and_goes_down_with_it():
    losses = {}
    for clip in (False, True):
        layer, loss = exploding()
        optimizer, losses[clip] = optim.SGD(layer.parameters(), lr=0.01), []
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(60):
                optimizer.zero_grad()
                value = loss()
                losses[clip].append(value.item())
                value.backward()
                if clip:
                    optim.clip_grad_norm_(layer.parameters(), 1.0)
                optimizer.step()
    assert not np.isfinite(losses[False][-1])
    assert losses[True][-1] < 1e-3 * losses[True][0]


# ---- the adding problem


def test_always_answering_1_has_an_error_of_a_sixth():
    x, y = adding_problem.sequences(np.random.default_rng(0), 20_000, 50)
    assert x.shape == (50, 20_000, 2) and y.shape == (20_000, 1) and x.dtype == y.dtype == np.float32
    assert set(np.unique(x[:, :, 1])) == {0, 1}
    np.testing.assert_array_equal(x[:25, :, 1].sum(axis=0), 1)
    np.testing.assert_array_equal(x[25:, :, 1].sum(axis=0), 1)
    np.testing.assert_allclose((x[:, :, 0] * x[:, :, 1]).sum(axis=0), y[:, 0], rtol=1e-6)
    assert ((y - 1) ** 2).mean() == pytest.approx(1 / 6, rel=0.03)


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="the compiled kernels were not built")
def test_lstm_and_gru_solve_the_adding_problem_and_the_rnn_does_not():
    last = {cell: [error for _, error in adding_problem.train(cell)][-1] for cell in adding_problem.CELLS}
    assert last["LSTM"] < 0.005 and last["GRU"] < 0.005
    assert last["RNN"] > 0.15


def run(name, *arguments, cwd):
    paths = [str(Path(cl.__file__).parent.parent), str(ROOT)]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CNNLIB_BACKEND": cl.backend()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_adding_problem_prints_a_row_for_each_layer(tmp_path):
    text = run("adding_problem.py", "--length", "6", "--hidden", "8", "--iterations", "10", cwd=tmp_path)
    rows = re.findall(r"^(RNN|LSTM|GRU) +((?:[\d.]+ +){5})\d+ s$", text, re.MULTILINE)
    assert [name for name, _ in rows] == ["RNN", "LSTM", "GRU"]


def test_the_vanishing_gradient_is_printed_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    text = run("vanishing_gradient.py", "--out", "picture.png", cwd=tmp_path)
    assert re.search(r"^  100 +6\.4e-14 +2\.6508$", text, re.MULTILINE)
    assert "output gate        —     O     —     —     O     O     —     O     —     O" in text
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
