"""Recurrent cases: one layer in one direction over a whole sequence, with several outputs (y, h_n, and c_n of the LSTM)."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, UnknownNameError, ValueRangeError
from tests.cases import Case, ErrorCase

SIZES = (4, 3, 2, 5)  # T steps, B sequences, D inputs, H units
BIASES = {"both": (True, True), "b_ih": (True, False), "b_hh": (False, True), "none": (False, False)}


def arrays(d, gates, sizes, bias="both", states=0, given=True):
    """x, the initial states, w_ih, w_hh, b_ih, b_hh; weights of a size that saturates no unit."""
    T, B, D, H = sizes
    weight = lambda *shape: 0.6 * d.normal(*shape)  # noqa: E731
    start = [weight(B, H) if given else None for _ in range(states)]
    biases = [weight(gates * H) if wanted else None for wanted in BIASES[bias]]
    return d.normal(T, B, D), *start, weight(gates * H, D), weight(gates * H, H), *biases


def rnn(name, sizes=SIZES, bias="both", given=True, **settings):
    return Case(f"rnn {name}", ops.rnn, lambda d: arrays(d, 1, sizes, bias, 1, given), settings)


def lstm(name, sizes=SIZES, bias="both", given=True, peephole=None, **settings):
    H = sizes[3]
    shape = {"diagonal": (3, H), "full": (3, H, H), None: None}[peephole]

    def draw(d):
        return *arrays(d, 4, sizes, bias, 2, given), None if shape is None else 0.6 * d.normal(*shape)

    return Case(f"lstm {name}", ops.lstm, draw, settings)


def gru(name, sizes=SIZES, bias="both", given=True, **settings):
    return Case(f"gru {name}", ops.gru, lambda d: arrays(d, 3, sizes, bias, 1, given), settings)


LENGTHS = [3, 4, 1]  # of the B = 3 sequences, T = 4

CASES = [
    *(rnn(g, nonlinearity=g) for g in ("tanh", "relu", "sigmoid", "identity")),
    rnn("without initial state and bias", given=False, bias="none"),
    rnn("bias of the inputs only", bias="b_ih"),
    rnn("bias of the state only", bias="b_hh"),
    rnn("one step", (1, 3, 2, 5)),
    rnn("one sequence, one input, one unit", (5, 1, 1, 1)),
    rnn("17 units", (3, 2, 5, 17)),
    rnn("reverse", reverse=True),
    rnn("lengths", lengths=LENGTHS),
    rnn("lengths, reverse", lengths=LENGTHS, reverse=True),
    rnn("lengths, ReLU", lengths=LENGTHS, nonlinearity="relu"),
    rnn("lengths, no sequence is full", lengths=[2, 1, 2], nonlinearity="sigmoid"),
    lstm("plain"),
    lstm("without initial state and bias", given=False, bias="none"),
    lstm("bias of the inputs only", bias="b_ih"),
    lstm("diagonal peepholes", peephole="diagonal"),
    lstm("full peepholes", peephole="full"),
    lstm("identity at the output", output_activation="identity"),
    lstm("one step", (1, 3, 2, 5), peephole="full"),
    lstm("one sequence, one input, one unit", (5, 1, 1, 1), peephole="diagonal"),
    lstm("17 units", (3, 2, 5, 17)),
    lstm("17 units, diagonal peepholes", (2, 3, 2, 17), bias="none", peephole="diagonal"),
    lstm("reverse", reverse=True),
    lstm("lengths", lengths=LENGTHS),
    lstm("lengths, reverse", lengths=LENGTHS, reverse=True, given=False),
    lstm("lengths, diagonal peepholes, identity at the output", peephole="diagonal", lengths=LENGTHS,
         output_activation="identity"),
    lstm("lengths, reverse, full peepholes", peephole="full", lengths=[4, 2, 3], reverse=True),
    gru("reset after"),
    gru("reset before", reset_after=False),
    gru("reset after, without initial state and bias", given=False, bias="none"),
    gru("reset before, without initial state and bias", given=False, bias="none", reset_after=False),
    gru("reset after, bias of the inputs only", bias="b_ih"),
    gru("reset before, bias of the state only", bias="b_hh", reset_after=False),
    gru("one step", (1, 3, 2, 5)),
    gru("one sequence, one input, one unit", (5, 1, 1, 1), reset_after=False),
    gru("17 units", (3, 2, 5, 17)),
    gru("17 units, reset before", (2, 3, 2, 17), reset_after=False),
    gru("reverse", reverse=True),
    gru("lengths", lengths=LENGTHS),
    gru("lengths, reverse", lengths=LENGTHS, reverse=True),
    gru("lengths, reset before", lengths=LENGTHS, reset_after=False),
    gru("lengths, reverse, reset before", lengths=[1, 4, 2], reverse=True, reset_after=False, given=False),
]  # fmt: skip


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def refused(function, gates, **changed):
    """A call with T = 4, B = 3, D = 2, H = 5, all right but for what is changed."""
    arguments = {"x": zeros(4, 3, 2), "w_ih": zeros(gates * 5, 2), "w_hh": zeros(gates * 5, 5), "h0": None, **changed}
    states = {"c0": arguments.pop("c0", None)} if function is ops.lstm else {}
    return lambda: function(**arguments, **states)


def run_rnn(**changed):
    return refused(ops.rnn, 1, **changed)


def run_lstm(**changed):
    return refused(ops.lstm, 4, **changed)


def run_gru(**changed):
    return refused(ops.gru, 3, **changed)


def length(name, lengths, error, message, run=run_rnn):
    return ErrorCase(f"recurrent: lengths {name}", run(lengths=lengths), error, message)


IN_RANGE = (
    "but every length must lie in 1 … T = 4: a sequence has at least one step, and x has T. "
    "Leave empty sequences out of the batch."
)

ERRORS = [
    ErrorCase(
        "rnn: integers",
        run_rnn(x=zeros(4, 3, 2, dtype="int64")),
        DtypeError,
        "rnn: x must be float32 or float64, got int64. Use x.astype('float32').",
    ),
    *(
        ErrorCase(
            f"lstm: integers as {name}",
            run_lstm(**{name: zeros(*shape, dtype="int64")}),
            DtypeError,
            f"lstm: {name} must be float32 or float64, got int64.",
        )
        for name, shape in {
            "h0": (3, 5),
            "c0": (3, 5),
            "w_ih": (20, 2),
            "w_hh": (20, 5),
            "b_ih": (20,),
            "b_hh": (20,),
            "peephole": (3, 5),
        }.items()
    ),
    ErrorCase(
        "rnn: axes of x",
        run_rnn(x=zeros(3, 2)),
        ShapeError,
        "rnn: x must have 3 axes (T, B, D): steps, sequences, inputs, got shape (3, 2).",
    ),
    ErrorCase("rnn: no step", run_rnn(x=zeros(0, 3, 2)), ShapeError, "rnn: x is empty, shape (0, 3, 2)"),
    ErrorCase("lstm: no sequence", run_lstm(x=zeros(4, 0, 2)), ShapeError, "lstm: x is empty, shape (4, 0, 2)"),
    ErrorCase("gru: no input", run_gru(x=zeros(4, 3, 0)), ShapeError, "gru: x is empty, shape (4, 3, 0)"),
    ErrorCase("rnn: axes of w_hh", run_rnn(w_hh=zeros(5)), ShapeError, "rnn: w_hh must have 2 axes (H, H), got shape (5,)."),
    ErrorCase(
        "lstm: axes of w_hh",
        run_lstm(w_hh=zeros(4, 5, 5)),
        ShapeError,
        "lstm: w_hh must have 2 axes (4·H, H), got shape (4, 5, 5).",
    ),
    *(
        ErrorCase(
            f"{name}: no unit",
            run(w_ih=zeros(0, 2), w_hh=zeros(0, 0)),
            ShapeError,
            f"{name}: w_hh must have one column per unit, H >= 1, got shape (0, 0): there is no unit.",
        )
        for name, run in (("rnn", run_rnn), ("lstm", run_lstm), ("gru", run_gru))
    ),
    ErrorCase(
        "gru: rows of w_hh",
        run_gru(w_hh=zeros(20, 5)),
        ShapeError,
        "gru: w_hh must have shape (15, 5), one row per gate and unit; got (20, 5).",
    ),
    ErrorCase(
        "rnn: w_ih",
        run_rnn(w_ih=zeros(5, 3)),
        ShapeError,
        "rnn: w_ih must have shape (5, 2), one row per gate and unit, one column per input (x.shape = (4, 3, 2)); got (5, 3).",
    ),
    ErrorCase(
        "lstm: b_ih",
        run_lstm(b_ih=zeros(5)),
        ShapeError,
        "lstm: b_ih must have shape (20,), one bias per gate and unit; got (5,).",
    ),
    ErrorCase(
        "gru: b_hh",
        run_gru(b_hh=zeros(15, 1)),
        ShapeError,
        "gru: b_hh must have shape (15,), one bias per gate and unit; got (15, 1).",
    ),
    ErrorCase(
        "rnn: h0",
        run_rnn(h0=zeros(1, 3, 5)),
        ShapeError,
        "rnn: h0 must have shape (3, 5), a state for each of the 3 sequences of x (T, B, D) = (4, 3, 2); got (1, 3, 5).",
    ),
    ErrorCase("lstm: c0", run_lstm(c0=zeros(3, 4)), ShapeError, "lstm: c0 must have shape (3, 5), a state for each of"),
    ErrorCase(
        "lstm: peephole",
        run_lstm(peephole=zeros(4, 5)),
        ShapeError,
        "lstm: peephole must have shape (3, H) = (3, 5), a weight per unit of the gates i, f, o, "
        "or (3, H, H) = (3, 5, 5), a matrix per gate; got (4, 5).",
    ),
    ErrorCase(
        "rnn: nonlinearity",
        run_rnn(nonlinearity="tahn"),
        UnknownNameError,
        "unknown nonlinearity of rnn 'tahn': did you mean 'tanh'",
    ),
    ErrorCase(
        "lstm: output_activation",
        run_lstm(output_activation="relu"),
        UnknownNameError,
        "unknown output_activation of lstm 'relu'",
    ),
    ErrorCase(
        "rnn: types",
        run_rnn(h0=zeros(3, 5, dtype="float64")),
        DtypeError,
        "rnn: all float arrays must have one dtype, got x float32, h0 float64",
    ),
    length("0", [4, 0, 2], ValueRangeError, f"rnn: lengths[1] = 0, {IN_RANGE}"),
    length("more than T", np.array([4, 4, 5]), ValueRangeError, f"lstm: lengths[2] = 5, {IN_RANGE}", run_lstm),
    length("negative", [-1, 4, 4], ValueRangeError, f"gru: lengths[0] = -1, {IN_RANGE}", run_gru),
    length(
        "of another batch",
        [4, 4],
        ShapeError,
        "rnn: lengths must have shape (3,), one length for each of the 3 sequences of x (T, B, D) = (4, 3, 2); got (2,).",
    ),
    length("that is one number", 4, ShapeError, "rnn: lengths must have shape (3,)"),
    length("with fractions", [4.0, 2.5, 1.0], DtypeError, "rnn: lengths must be integers, got float64."),
    length("that is a mask", [True, True, False], DtypeError, "rnn: lengths must be integers, got bool."),
]
