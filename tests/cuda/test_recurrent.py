"""Recurrent kernels on the emulated device: all steps in one launch and one by one, each number of sequences a block takes."""

import numpy as np
import pytest

from cnnlib.backends import REFERENCE
from cnnlib.backends.cuda import recurrent
from tests.cuda import emulator
from tests.cuda.agreement import assert_agrees, results

pytestmark = pytest.mark.usefixtures("device")

SIZES = [(1, 1, 1), (3, 1, 37), (2, 2, 9), (3, 7, 33), (2, 19, 21), (4, 70, 5)]  # T steps, B sequences, H units


class Layer:
    """Arguments of the forward and backward kernels of one cell."""

    def __init__(self, gates, sizes, dtype, lengths, reverse, seed=6):
        self.rng, self.dtype, self.gates = np.random.default_rng(seed), dtype, gates
        T, B, H = self.sizes = sizes
        self.order = (self.rng.integers(1, T + 1, B) if lengths else None), reverse
        self.gx, self.h0, self.w = self.normal(T, B, gates * H), self.normal(B, H), self.normal(gates * H, H) / (2 * H**0.5)
        self.w, self.dh = self.w.astype(dtype), self.normal(T, B, H)

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    def rnn(self, nonlinearity):
        forward = self.gx, self.h0, self.w, nonlinearity, *self.order
        return "rnn", forward, (self.dh, REFERENCE.rnn_forward(*forward), self.h0, self.w, nonlinearity, *self.order)

    def lstm(self, peephole, output_activation):
        _, B, H = self.sizes
        c0, dc = self.normal(B, H), self.normal(B, H)
        p = None if peephole is None else (self.normal(3, *(H,) * (peephole - 1)) / (2 * H**0.5)).astype(self.dtype)
        forward = self.gx, self.h0, c0, self.w, p, output_activation, *self.order
        states = REFERENCE.lstm_forward(*forward)
        return "lstm", forward, (self.dh, dc, *states, self.h0, c0, self.w, p, output_activation, *self.order)

    def gru(self, reset_after, bias):
        b = self.normal(3 * self.sizes[2]) if bias else None
        forward = self.gx, self.h0, self.w, b, reset_after, *self.order
        states = REFERENCE.gru_forward(*forward)
        return "gru", forward, (self.dh, *states, self.h0, self.w, reset_after, *self.order)


def both_agree(cell):
    name, forward, backward = cell
    assert_agrees(f"{name}_forward", getattr(recurrent, f"{name}_forward"), forward)
    assert_agrees(f"{name}_backward", getattr(recurrent, f"{name}_backward"), backward)


@pytest.fixture(params=[(True, 2), (False, 1), (False, 4)], ids=["at once, in two", "step by step", "step by step, in four"])
def mode(request, monkeypatch):
    """All steps in one launch or not, and how many warps share a sum."""
    at_once, splits = request.param
    monkeypatch.setattr(recurrent, "_at_once", lambda H, B: at_once)
    monkeypatch.setattr(recurrent, "_splits", lambda *_: splits)


every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)
types_and_orders = pytest.mark.parametrize(
    "dtype, lengths, reverse", [("float32", False, True), ("float64", True, False), ("float32", True, True)]
)


@every_size
def test_rnn(mode, sizes):
    both_agree(Layer(1, sizes, "float32", True, False).rnn("tanh"))


@types_and_orders
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid", "identity"])
def test_nonlinearities(mode, nonlinearity, dtype, lengths, reverse):
    both_agree(Layer(1, (3, 4, 10), dtype, lengths, reverse).rnn(nonlinearity))


@every_size
def test_lstm(mode, sizes):
    both_agree(Layer(4, sizes, "float32", False, False).lstm(None, "tanh"))


@every_size
def test_lstm_of_two_phases(mode, sizes):
    both_agree(Layer(4, sizes, "float64", True, True).lstm(3, "tanh"))


@types_and_orders
@pytest.mark.parametrize("peephole", [None, 2, 3])
@pytest.mark.parametrize("output_activation", ["tanh", "identity"])
def test_peepholes(mode, peephole, output_activation, dtype, lengths, reverse):
    both_agree(Layer(4, (4, 5, 7), dtype, lengths, reverse).lstm(peephole, output_activation))


@every_size
@pytest.mark.parametrize("reset_after", [True, False])
def test_gru(mode, sizes, reset_after):
    both_agree(Layer(3, sizes, "float32", True, False).gru(reset_after, bias=True))


@types_and_orders
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False])
def test_resets(mode, reset_after, bias, dtype, lengths, reverse):
    both_agree(Layer(3, (4, 3, 9), dtype, lengths, reverse).gru(reset_after, bias))


@pytest.mark.parametrize("units, launches", [(recurrent.MOST_UNITS, (1, 1)), (recurrent.MOST_UNITS + 1, (3, 4))])
def test_a_step_is_one_launch_at_most(units, launches):
    """Backward has one more, for the adjoint of the state before all steps."""
    layer = Layer(4, (3, 1, units), "float32", False, False)
    _, forward, backward = layer.lstm(None, "tanh")
    for function, arguments, expected in zip(
        (recurrent.lstm_forward, recurrent.lstm_backward), (forward, backward), launches, strict=True
    ):
        emulator.launches.clear()
        results(function, arguments)
        assert emulator.launches == [emulator.launches[0]] * expected and "lstm" in emulator.launches[0]


def test_long_sums_of_few_units_are_shared_by_warps():
    assert recurrent._splits(1000, 512, recurrent.ENOUGH_WARPS, 8) == 4  # a lane keeps four terms
    assert recurrent._splits(1000, 2048, recurrent.ENOUGH_WARPS, 8) == 4  # enough warps
    assert recurrent._splits(10, 1 << 20, recurrent.ENOUGH_WARPS, 8) == 8  # a block has no more
    assert recurrent._splits(10, 255, recurrent.ENOUGH_WARPS, 8) == 1
    both_agree(Layer(4, (2, 2, 257), "float32", True, False).lstm(2, "tanh"))


def test_a_nan_stays_in_its_sequence(mode):
    layer = Layer(3, (3, 5, 7), "float32", False, False)
    layer.gx[1, 2, 3] = np.nan
    h, _ = results(recurrent.gru_forward, layer.gru(True, True)[1])
    assert np.isfinite(h[0]).all() and np.isnan(h[2, 2]).all() and np.isfinite(h[:, [0, 1, 3, 4]]).all()
