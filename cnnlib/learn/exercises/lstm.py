"""LSTM: three gates around a cell, forward and back through time

A plain recurrent network multiplies its memory by a matrix and squashes it at every step; after twenty steps little is
left. The LSTM keeps a cell c beside the state h and changes it by addition. Gates, numbers in 0 … 1 for every unit,
decide what comes in (i), what is kept (f) and what is shown (o):

    a_t = gx_t + W_hh h_(t−1), cut into four parts a_i, a_f, a_g, a_o
    i = σ(a_i)    f = σ(a_f)    g = tanh(a_g)    o = σ(a_o)
    c_t = f ⊙ c_(t−1) + i ⊙ g
    h_t = o ⊙ tanh(c_t)

    gx (T, B, 4H)   the inputs' share W_ih x_t + b of all four sums, a linear layer that is done already
    w_hh (4H, H)    rows in the same order            h0, c0 (B, H)   before the first step
    h, c (T, B, H)  after every step                  gates (T, B, 4H)   i, f, g, o of every step, kept for the way back

(One slide misprints an f for the i in it: then the input gate would have no job.)

**Back.** With dh = dh_t + W_hhᵀ da_(t+1), as in every recurrent network, and dc what step t + 1 sent back along the
cell:

    da_o = dh ⊙ tanh(c_t) ⊙ o (1 − o)
    dc  += dh ⊙ o ⊙ (1 − tanh²(c_t))                               the cell is seen by the next step and through h_t
    da_i = dc ⊙ g ⊙ i (1 − i)      da_f = dc ⊙ c_(t−1) ⊙ f (1 − f)      da_g = dc ⊙ i ⊙ (1 − g²)
    dc_(t−1) = dc ⊙ f                                              the carousel: with f = 1 nothing gets lost

Write lstm(gx, h0, c0, w_hh) -> h, c, gates, and lstm_bptt(dh, dc, gx, h0, c0, w_hh, h, c, gates) -> da, dh0, dc0,
dw_hh. There dh (T, B, H) is the upstream gradient of all states and dc (B, H) that of the last cell; da has the shape
of gx, whose adjoint it is, and dW_hh = Σ_t da_t h_(t−1)ᵀ.

Source: lecture: recurrent networks (LSTM); Hochreiter & Schmidhuber, "Long short-term memory", 1997; Gers, Schmidhuber
& Cummins, "Learning to forget", 2000.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant, Numerical, Train
from cnnlib.ops.activation import relu_forward, sigmoid_forward
from cnnlib.ops.recurrent import (
    _activated,
    _order,
    _outer,
    _parts,
    _peep,
    _peep_backward,
    _peep_weights,
    _slope,
    _states_before,
    _where_alive,
    lstm_backward,
    lstm_steps,
    share_of_inputs,
)


def lstm(gx, h0, c0, w_hh):
    return lstm_steps(gx, h0, c0, w_hh, None, "tanh", None, False)


def lstm_bptt(dh, dc, gx, h0, c0, w_hh, h, c, gates):
    da, dh0, dc0, dw_hh, _ = lstm_backward(dh, dc, h, c, gates, h0, c0, w_hh, None, "tanh", None, False)
    return da, dh0, dc0, dw_hh


def run(gx, h, c, w_hh):
    """h, c and gates of all steps, written step by step."""
    sigmoid, kept = lambda a: 0.5 * (1 + np.tanh(0.5 * a)), ([], [], [])
    for gx_t in gx:
        a_i, a_f, a_g, a_o = np.split(gx_t + h @ w_hh.T, 4, axis=1)
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        c = f * c + i * g
        h = o * np.tanh(c)
        for found, value in zip(kept, (h, c, np.hstack([i, f, g, o])), strict=True):
            found.append(value)
    return tuple(np.stack(found) for found in kept)


def states(dh, dc, gx, h0, c0, w_hh, h, c, gates):
    h, c, _ = run(gx, h0, c0, w_hh)
    return h, c[-1]


def cases(rng):
    found = []
    for T, B, H, *features in (
        (4, 3, 3),
        (1, 2, 4, "T = 1"),
        (5, 1, 2, "B = 1"),
        (4, 2, 1, "one unit"),
        (9, 2, 3, "a longer sequence"),
    ):
        gx, w_hh = rng.normal(size=(T, B, 4 * H)), rng.normal(size=(4 * H, H)) / H**0.5
        args = (gx, 0.5 * rng.normal(size=(B, H)), rng.normal(size=(B, H)), w_hh)
        found += [
            Case(args, features, "lstm"),
            Case((rng.normal(size=(T, B, H)), rng.normal(size=(B, H)), *args, *run(*args)), features, "lstm_bptt"),
        ]
    return found


def fast(rng):
    T, B, H = 50, 32, 128
    args = (rng.normal(size=(T, B, 4 * H)), np.zeros((B, H)), np.zeros((B, H)), rng.normal(size=(4 * H, H)) / H**0.5)
    return (rng.normal(size=(T, B, H)), np.zeros((B, H)), *args, *run(*args))


def kernel_args(dh, dc, gx, h0, c0, w_hh, h, c, gates):
    return dh, dc, h, c, gates, h0, c0, w_hh, None, "tanh", None, False


def kernels(f):
    """The learner's two functions as kernels; backward's is not given gx, so it is remembered."""
    lstm, lstm_bptt = f
    last = {}

    def forward(x, h0, c0, w_ih, w_hh, b, peephole, output_activation, lengths, reverse):
        last["gx"] = share_of_inputs(x, w_ih, b)
        return lstm(last["gx"], h0, c0, w_hh)

    def backward(dh, dc, h, c, gates, h0, c0, w_hh, peephole, output_activation, lengths, reverse):
        return (*lstm_bptt(dh, dc, last["gx"], h0, c0, w_hh, h, c, gates), None)

    return {"lstm_forward": forward, "lstm_backward": backward}


EXERCISE = Exercise(
    number=24,
    name="lstm",
    topic="lecture: recurrent networks (LSTM)",
    function=(lstm, lstm_bptt),
    uses=(
        relu_forward,
        sigmoid_forward,
        _activated,
        _slope,
        _order,
        _where_alive,
        _states_before,
        _outer,
        _parts,
        _peep,
        _peep_backward,
        _peep_weights,
        lstm_steps,
        lstm_backward,
    ),
    specialised=True,
    outputs={"lstm": ("h", "c", "gates"), "lstm_bptt": ("da", "dh0", "dc0", "dw_hh")},
    starter='''\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm(gx, h0, c0, w_hh):
    """gx (T, B, 4H), h0 and c0 (B, H), w_hh (4H, H) -> h, c (T, B, H) and gates (T, B, 4H): i, f, g, o of every step"""
    # for every t: a = gx_t + W_hh h, cut into four parts (B, H)
    #     i, f, g, o; then c, then h
    ...


def lstm_bptt(dh, dc, gx, h0, c0, w_hh, h, c, gates):
    """dh (T, B, H), dc (B, H) of the last cell, what lstm got, what it returned -> da, dh0, dc0, dw_hh

    da (T, B, 4H) has the shape of gx, the others those of h0, c0, w_hh
    """
    # from the last step to the first, with the adjoints of h and of c that the step behind sent back
    ...
''',
    cases=cases,
    numerical=Numerical(states, wrt={"da": 2, "dh0": 3, "dc0": 4, "dw_hh": 5}, upstream=(0, 1), function="lstm_bptt"),
    hints=(
        "Draw one step as a graph: which two arrows leave c_t, which two leave h_t? Each arrow is one term of an adjoint.",
        "Two arrays (B, H) go back in time side by side: what W_hhᵀ da sends to h_(t−1), and dc ⊙ f, which is sent to c_(t−1). "
        "i, f, g, o = np.split(gates[t], 4, axis=1).",
        "dc = dc + d * o * (1 - np.tanh(c[t]) ** 2) with d = dh[t] + carried; then da_i = dc * g * i * (1 - i) and so on; "
        "da[t] = np.hstack([da_i, da_f, da_g, da_o]); carried = da[t] @ w_hh; dc = dc * f.",
    ),
    question="Set i = 1, f = 0, o = 1 for good: which network do you get? And which gate's bias would you start above 0?",
    answer="c_t = g = tanh(…) and h_t = tanh(c_t): a plain recurrent network but for a second tanh; with h = o ⊙ c it is "
    "exactly "
    "one. The forget gate's: with σ(0) = ½ half of the cell is lost at every step, with a bias of 1 only a quarter, so that "
    "gradients get through from the first iteration.",
    link="cnnlib/ops/recurrent.py",
    explanations=(
        Explanation(
            "f_for_i", "your cell adds f ⊙ g (a slide's misprint): what is new comes in through the input gate, i ⊙ g."
        ),
        Explanation("order", "your first two parts are taken for f, i: the rows of w_hh and the parts of gx are i, f, g, o."),
        Explanation("last_two", "your last two parts are taken for o, g: the rows of w_hh and the parts of gx are i, f, g, o."),
        Explanation("g_sigmoid", "your candidate g goes through σ: it is no gate, g = tanh(a_g) may be negative."),
        Explanation("h_is_oc", "your state is o ⊙ c: the cell goes through tanh first, h = o ⊙ tanh(c)."),
        Explanation(
            "no_cell", "your cell starts from c0 at every step: c_t = f ⊙ c_(t−1) + i ⊙ g needs the cell of the step before."
        ),
        Explanation("da_o_c", "your da_o multiplies by c_t: h = o ⊙ tanh(c), so ∂h/∂o = tanh(c_t)."),
        Explanation(
            "no_cell_path", "your dc only sees h_t: the cell also went into c_(t+1), add the dc ⊙ f that came back from there."
        ),
        Explanation("no_forgetting", "your dc goes back unchanged: c_t = f ⊙ c_(t−1) + …, so dc_(t−1) = dc ⊙ f."),
        Explanation("no_slope_c", "your dc leaves out the derivative of tanh(c): dc += dh ⊙ o ⊙ (1 − tanh²(c_t))."),
        Explanation(
            "c_now", "your da_f multiplies by c_t: the forget gate was multiplied by the cell before the step, c_(t−1)."
        ),
        Explanation("g_slope", "your da_g uses the slope of σ: g = tanh(a_g), so the factor is 1 − g²."),
        Explanation("no_time", "your dh_t is only what came from above: h_t also went into the next step, add W_hhᵀ da_(t+1)."),
        Explanation("no_gate_slope", "your da_i is the adjoint of i: to get to a_i it must go through σ, times i (1 − i)."),
        Explanation("sigmoid_twice", "your slope takes σ of the gate again: i is σ(a_i) already, so the slope is i (1 − i)."),
        Explanation("same_step", "your dw_hh pairs da_t with h_t: W_hh was multiplied by the state before the step, h_(t−1)."),
        Explanation("dc_ignored", "your backward starts from dc = 0: the last cell has an upstream gradient of its own, dc."),
        Explanation(
            "i_and_g", "your da_i and da_g have each other's factor: c = f ⊙ c_(t−1) + i ⊙ g, so di = dc ⊙ g and dg = dc ⊙ i."
        ),
        Explanation("old_cell", "your state shows the old cell: c_t first, then h_t = o ⊙ tanh(c_t)."),
        Explanation("gates_order", "your gates come back in another order: i, f, g, o, as the rows of w_hh."),
        Explanation("no_slope_f", "your da_f is the adjoint of f: to get to a_f it must go through σ, times f (1 − f)."),
        Explanation("no_slope_o", "your da_o is the adjoint of o: to get to a_o it must go through σ, times o (1 − o)."),
        Explanation("no_slope_g", "your da_g is the adjoint of g: to get to a_g it must go through tanh, times 1 − g²."),
        Explanation(
            "tanh_twice", "your slope of the candidate takes tanh of g again: g is tanh(a_g) already, so it is 1 − g²."
        ),
        Explanation("no_w", "your recurrent adjoint is not W_hhᵀ da: all four parts of da go back to h_(t−1) through W_hh."),
        Explanation(
            "forward_loop",
            "your loop over the steps goes forward in time: what step t + 1 sends back must be known at step t, start at the "
            "last.",
        ),
    ),
    mutants=(
        Mutant("new_c = f * c0 + i * g", "new_c = f * c0 + f * g", says="f_for_i"),
        Mutant("a_i, a_f, a_g, a_o = _parts", "a_f, a_i, a_g, a_o = _parts", says="order"),
        Mutant("a_i, a_f, a_g, a_o = _parts", "a_i, a_f, a_o, a_g = _parts", says="last_two"),
        Mutant("np.tanh(a_g)", "sigmoid_forward(a_g)", says="g_sigmoid"),
        Mutant("new_h = o * np.tanh(new_c)", "new_h = o * new_c", says="h_is_oc"),
        Mutant("c0 = c[t] = new_c", "c[t] = new_c", says="no_cell"),
        Mutant("da_o = dstate * squashed", "da_o = dstate * c[t]", says="da_o_c"),
        Mutant("dcell = dc + dstate * o", "dcell = (dc if t == len(h) - 1 else 0) + dstate * o", says="no_cell_path"),
        Mutant("dcell = dc + dstate * o", "dcell = (0 if t == len(h) - 1 else dc) + dstate * o", says="dc_ignored"),
        Mutant("dc_before = dcell * f", "dc_before = dcell", says="no_forgetting"),
        Mutant("dstate * o * (1 - squashed * squashed)", "dstate * o", says="no_slope_c"),
        Mutant("dcell * c_before[t] * f * (1 - f)", "dcell * c[t] * f * (1 - f)", says="c_now"),
        Mutant("dcell * i * (1 - g * g)", "dcell * i * g * (1 - g)", says="g_slope"),
        Mutant("dstate, squashed = dh[t] + dbefore,", "dstate, squashed = dh[t],", says="no_time"),
        Mutant("dcell * g * i * (1 - i)", "dcell * g", says="no_gate_slope"),
        Mutant("dcell * g * i * (1 - i)", "dcell * g * sigmoid_forward(i) * (1 - sigmoid_forward(i))", says="sigmoid_twice"),
        Mutant(
            "dcell * g * i * (1 - i), dcell * c_before[t] * f * (1 - f), dcell * i * (1 - g * g)",
            "dcell * i * i * (1 - i), dcell * c_before[t] * f * (1 - f), dcell * g * (1 - g * g)",
            says="i_and_g",
        ),
        Mutant("_outer(da, np.concatenate((h0[None], h[:-1])))", "_outer(da, h)", says="same_step"),
        Mutant("new_h = o * np.tanh(new_c)", "new_h = o * np.tanh(c0)", says="old_cell"),
        Mutant(
            "gates[t] = np.concatenate((i, f, g, o), axis=1)",
            "gates[t] = np.concatenate((i, f, o, g), axis=1)",
            says="gates_order",
        ),
        Mutant(
            "gates[t] = np.concatenate((i, f, g, o), axis=1)",
            "gates[t] = np.concatenate((f, i, g, o), axis=1)",
            says="gates_order",
        ),
        Mutant("dcell = dc + dstate * o", "dcell = dstate * o", says="no_cell_path"),
        Mutant("c_before[t] * f * (1 - f)", "c_before[t]", says="no_slope_f"),
        Mutant("squashed * o * (1 - o)", "squashed", says="no_slope_o"),
        Mutant("dcell * i * (1 - g * g)", "dcell * i", says="no_slope_g"),
        Mutant("(1 - g * g)", "(1 - np.tanh(g) ** 2)", says="tanh_twice"),
        Mutant("dbefore = da[t] @ w_hh", "dbefore = da[t][:, :H] @ w_hh[:H]", says="no_w"),
        Mutant("for t in range(len(h) - 1, -1, -1)", "for t in range(len(h))", says="forward_loop"),
    ),
    equivalent={
        **dict.fromkeys(("_outer: 1 -> 2", "_outer: 1 -> 2 #2"), "NumPy finds the length for any negative number"),
        "lstm_backward: dpeephole -> da": "there are no peepholes: nobody reads it",
    },
    alternatives=(
        """\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm(gx, h0, c0, w_hh):
    T, B, G = gx.shape
    H = G // 4
    h, c, gates = np.empty((T, B, H)), np.empty((T, B, H)), np.empty((T, B, G))
    h_before, c_before = h0, c0
    for t in range(T):
        a = gx[t] + h_before @ w_hh.T
        i, f, o = sigmoid(a[:, :H]), sigmoid(a[:, H : 2 * H]), sigmoid(a[:, 3 * H :])
        g = np.tanh(a[:, 2 * H : 3 * H])
        c[t] = f * c_before + i * g
        h[t] = o * np.tanh(c[t])
        gates[t] = np.hstack([i, f, g, o])
        h_before, c_before = h[t], c[t]
    return h, c, gates


def lstm_bptt(dh, dc, gx, h0, c0, w_hh, h, c, gates):
    T, B, H = h.shape
    da, dw_hh = np.empty_like(gx), np.zeros_like(w_hh)
    dh_next, dc_next = np.zeros_like(h0), dc
    for t in reversed(range(T)):
        i, f, g, o = np.split(gates[t], 4, axis=1)
        h_before = h[t - 1] if t else h0
        c_before = c[t - 1] if t else c0
        tanh_c = np.tanh(c[t])
        dh_t = dh[t] + dh_next
        dc_t = dc_next + dh_t * o * (1 - tanh_c**2)
        di, df, dg, do = dc_t * g, dc_t * c_before, dc_t * i, dh_t * tanh_c
        da[t] = np.hstack([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)])
        dw_hh += da[t].T @ h_before
        dh_next, dc_next = da[t] @ w_hh, dc_t * f
    return da, dh_next, dc_next, dw_hh
""",
        """\
import numpy as np


class Cell:
    \"\"\"One step: remembers what it needs for its own way back. Gates as one array (4, B, H).\"\"\"

    def __init__(self, w_hh):
        self.w = w_hh.reshape(4, -1, w_hh.shape[1])

    def forward(self, gx, h, c):
        a = gx.reshape(len(gx), 4, -1).swapaxes(0, 1) + h @ self.w.swapaxes(1, 2)
        self.gates = np.tanh(np.where(np.arange(4)[:, None, None] == 2, a, a / 2))
        self.gates[[0, 1, 3]] = (1 + self.gates[[0, 1, 3]]) / 2
        i, f, g, o = self.gates
        self.before, self.squashed = (h, c), np.tanh(f * c + i * g)
        return o * self.squashed, f * c + i * g

    def backward(self, dh, dc):
        (i, f, g, o), (h, c) = self.gates, self.before
        dc = dc + dh * o * (1 - self.squashed**2)
        slopes = np.stack([i - i * i, f - f * f, 1 - g * g, o - o * o])
        da = slopes * np.stack([dc * g, dc * c, dc * i, dh * self.squashed])
        return da, (da @ self.w).sum(axis=0), dc * f, da.swapaxes(1, 2) @ h


def cells(gx, h, c, w_hh):
    for gx_t in gx:
        cell = Cell(w_hh)
        h, c = cell.forward(gx_t, h, c)
        yield cell, h, c


def lstm(gx, h0, c0, w_hh):
    steps = list(cells(gx, h0, c0, w_hh))
    gates = [np.concatenate(cell.gates, axis=1) for cell, _, _ in steps]
    return np.array([h for _, h, _ in steps]), np.array([c for _, _, c in steps]), np.array(gates)


def lstm_bptt(dh, dc, gx, h0, c0, w_hh, h, c, gates):
    back, dw, dbefore = [], 0, 0
    for dh_t, (cell, _, _) in zip(dh[::-1], reversed(list(cells(gx, h0, c0, w_hh)))):
        da, dbefore, dc, dw_t = cell.backward(dh_t + dbefore, dc)
        dw = dw + dw_t
        back.insert(0, np.concatenate(da, axis=1))
    return np.array(back), dbefore, dc, dw.reshape(w_hh.shape)
""",
    ),
    fast=Fast(fast, "lstm_backward", kernel_args),
    train=Train(kernels, "lstm"),
)
