"""Recurrent kernels on the emulated device: blocks alone and together, each number of sequences a block takes."""

import ctypes
import re

import numpy as np
import pytest

from cnnlib.backends import REFERENCE
from cnnlib.backends.cuda import recurrent, source
from cnnlib.backends.cuda.recordable import recordable
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
        self.x, self.h0, self.dh = self.normal(T, B, 6), self.normal(B, H), self.normal(T, B, H)
        self.w_ih, self.b = self.normal(gates * H, 6) / 2, self.normal(gates * H)
        self.w = (self.normal(gates * H, H) / (2 * H**0.5)).astype(dtype)

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    def rnn(self, nonlinearity):
        forward = self.x, self.h0, self.w_ih, self.w, self.b, nonlinearity, *self.order
        return "rnn", forward, (self.dh, REFERENCE.rnn_forward(*forward), self.h0, self.w, nonlinearity, *self.order)

    def lstm(self, peephole, output_activation):
        _, B, H = self.sizes
        c0, dc = self.normal(B, H), self.normal(B, H)
        p = None if peephole is None else (self.normal(3, *(H,) * (peephole - 1)) / (2 * H**0.5)).astype(self.dtype)
        forward = self.x, self.h0, c0, self.w_ih, self.w, self.b, p, output_activation, *self.order
        states = REFERENCE.lstm_forward(*forward)
        return "lstm", forward, (self.dh, dc, *states, self.h0, c0, self.w, p, output_activation, *self.order)

    def gru(self, reset_after, bias):
        b = self.normal(3 * self.sizes[2]) if bias else None
        forward = self.x, self.h0, self.w_ih, self.w, self.b if bias else None, b, reset_after, *self.order
        states = REFERENCE.gru_forward(*forward)
        return "gru", forward, (self.dh, *states, self.h0, self.w, reset_after, *self.order)


def both_agree(cell):
    name, forward, backward = cell
    assert_agrees(f"{name}_forward", getattr(recurrent, f"{name}_forward"), forward)
    assert_agrees(f"{name}_backward", getattr(recurrent, f"{name}_backward"), backward)


@pytest.fixture(params=[(True, 2), (False, 1), (False, 4)], ids=["alone, in two", "together", "together, in four"])
def mode(request, monkeypatch):
    """Whether each block has all units of its sequences, and how many warps share a sum."""
    alone, splits = request.param
    monkeypatch.setattr(recurrent, "_alone", lambda H, B: alone)
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


def every_cell(layer):
    """Of each kind of kernel one, for a layer of as many gates."""
    variants = {
        1: [lambda: layer.rnn("tanh")],
        3: [lambda: layer.gru(True, True), lambda: layer.gru(False, True)],
        4: [lambda: layer.lstm(None, "tanh"), lambda: layer.lstm(2, "tanh"), lambda: layer.lstm(3, "tanh")],
    }
    return [variant() for variant in variants[layer.gates]]


@pytest.mark.parametrize("gates", [1, 3, 4])
@pytest.mark.parametrize("sizes", [(3, 2, 5), (3, 1, recurrent.MOST_UNITS + 1), (2, recurrent.MOST_SEQUENCES + 1, 2)], ids=str)
def test_a_sequence_is_one_launch(gates, sizes):
    """Of any length, with any cell."""
    alone = recurrent._alone(*sizes[:0:-1])
    for name, forward, backward in every_cell(Layer(gates, sizes, "float32", True, False)):
        for way, arguments in (("forward", forward), ("backward", backward)):
            emulator.launches.clear()
            results(getattr(recurrent, f"{name}_{way}"), arguments)
            of_this = [launched for launched in emulator.launches if launched.startswith(name)]
            batch = 1 if alone or sizes[1] == 1 else 16
            assert of_this == [f"{name}_{batch}" if way == "forward" else f"{name}_backward_{batch}"]


def test_a_recorded_sequence_may_be_replayed(mode, device):
    """Blocks that met leave the word at which they did as it was."""
    for name, forward, backward in every_cell(Layer(3, (3, 2, 40), "float32", True, False)):
        for way, arguments in (("forward", forward), ("backward", backward)):
            run = getattr(recurrent, f"{name}_{way}")
            arguments = [device.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
            with device.cuda.Stream() as stream, recordable():
                expected = [a.get() for a in run(*arguments) if a is not None]
                stream.begin_capture()
                recorded = [a for a in run(*arguments) if a is not None]
                graph = stream.end_capture()
                for _ in range(3):
                    for a in recorded:
                        a.fill(np.nan)
                    graph.launch()
                    for a, b in zip(recorded, expected, strict=True):
                        np.testing.assert_array_equal(a.get(), b)


def without_meeting(text):
    """The source with a number at each place where the blocks meet, which may be told to leave them out there."""
    for place in range(text.count(" meet(s);")):
        text = text.replace(" meet(s);", f" if (left_out != {place}) meet (s);", 1)
    return text.replace("enum { TANH", 'extern "C" __attribute__((visibility("default"))) int left_out = -1;\nenum { TANH', 1)


@pytest.mark.parametrize("place", range(-1, 10))
def test_blocks_that_do_not_meet_are_found(place, monkeypatch):
    text = without_meeting(source.text("recurrent"))
    assert text.count("left_out != ") == 10
    module = emulator.Module(text, source.options("f"), enable_cooperative_groups=True)
    ctypes.c_int.in_dll(module.library, "left_out").value = place
    monkeypatch.setattr(source, "_modules", {("recurrent", "f", True): module})
    monkeypatch.setattr(source, "_functions", {})
    monkeypatch.setattr(recurrent, "_alone", lambda H, B: False)
    wrong = set()
    for gates in (1, 3, 4):
        for number, (name, *both) in enumerate(every_cell(Layer(gates, (3, 2, 40), "float32", False, False))):
            for way, arguments in zip(("forward", "backward"), both, strict=True):
                try:
                    assert_agrees(f"{name}_{way}", getattr(recurrent, f"{name}_{way}"), arguments)
                except AssertionError:
                    wrong.add((name, way, number))
    assert {(name, way) for name, way, _ in wrong} == ({MEETINGS[place]} if place >= 0 else set())


MEETINGS = [  # in the order of the source
    ("rnn", "forward"), ("rnn", "backward"), *[("lstm", "forward")] * 2, *[("lstm", "backward")] * 2,
    *[("gru", "forward")] * 2, *[("gru", "backward")] * 2,
]  # fmt: skip


def test_what_blocks_write_for_each_other_is_read_from_where_they_meet():
    """Of a pointer to const that is __restrict__ the compiler reads by ld.global.nc, which need not see other blocks' writes;
    a fence before and after is what makes those of a step seen in the next. Neither shows on the emulator."""
    text = source.text("recurrent")
    assert set(re.findall(r"__restrict__ (\w+)", text)) == {"lengths", "w", "peephole", "bias"}
    meet = text.partition("static __device__ void meet(")[2].partition("\n}\n")[0]
    steps = re.findall(r"__syncthreads|__threadfence|atomicAdd|volatile word", meet)
    assert steps == ["__syncthreads", "__threadfence", "atomicAdd", "volatile word", "__threadfence", "__syncthreads"]


@pytest.mark.parametrize("real_is_float", [1, 0])
def test_no_more_blocks_are_launched_together_than_the_compiler_was_told(real_is_float):
    """__launch_bounds__(threads, blocks): so many registers are left to a thread that these are at the same time on a GPU."""
    bounds = re.findall(r"^KERNELS\((\d+), \((.+)\)\)$", source.text("recurrent"), re.M)
    assert [int(batch) for batch, _ in bounds] == [1, 4, 16]
    for batch, text in bounds:
        threads, blocks = eval(f"({text})", {"REAL_IS_FLOAT": real_is_float})
        at_once = threads * blocks // recurrent.TOGETHER
        assert recurrent._most_together(int(batch), 4 if real_is_float else 8) == at_once * source.multiprocessors()


def test_long_sums_of_few_units_are_shared_by_warps():
    assert recurrent._splits(1000, 512, recurrent.ENOUGH_WARPS, 8) == 4  # a lane keeps four terms
    assert recurrent._splits(1000, 2048, recurrent.ENOUGH_WARPS, 8) == 4  # enough warps
    assert recurrent._splits(10, 1 << 20, recurrent.ENOUGH_WARPS, 8) == 8  # a block has no more
    assert recurrent._splits(10, 255, recurrent.ENOUGH_WARPS, 8) == 1
    both_agree(Layer(4, (2, 2, 257), "float32", True, False).lstm(2, "tanh"))


def test_a_nan_stays_in_its_sequence(mode):
    layer = Layer(3, (3, 5, 7), "float32", False, False)
    layer.x[1, 2, 3] = np.nan
    h, _ = results(recurrent.gru_forward, layer.gru(True, True)[1])
    assert np.isfinite(h[0]).all() and np.isnan(h[2, 2]).all() and np.isfinite(h[:, [0, 1, 3, 4]]).all()
