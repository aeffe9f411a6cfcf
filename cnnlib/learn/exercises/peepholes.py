"""Peepholes: gates that see the cell, and three more ways back

An LSTM's gates read the input and the state h = o ⊙ tanh(c). While the output gate is closed h is nearly 0, and the
gates are blind to the very cell that they control: a network that must count steps in c cannot look at its counter. A
peephole is one weight per unit through which a gate sees the cell:

    i = σ(a_i + p_i ⊙ c_(t−1))    f = σ(a_f + p_f ⊙ c_(t−1))    g = tanh(a_g)
    c_t = f ⊙ c_(t−1) + i ⊙ g
    o = σ(a_o + p_o ⊙ c_t)                                         the output gate comes last: it sees the new cell
    h_t = o ⊙ tanh(c_t)

    peephole (3, H): p_i, p_f, p_o        all else as in exercise 24; a = gx_t + W_hh h_(t−1)

Forward is 24's with three terms more, so it is done for you. Backward is where people lose one: c_t is now seen by h_t,
by c_(t+1), by the output gate of the same step and by the input and forget gates of the next one.

    da_o     = dh ⊙ tanh(c_t) ⊙ o (1 − o)                          first: the cell's adjoint needs it
    dc      += dh ⊙ o ⊙ (1 − tanh²(c_t)) + p_o ⊙ da_o
    da_i     = dc ⊙ g ⊙ i (1 − i)     da_f = dc ⊙ c_(t−1) ⊙ f (1 − f)     da_g = dc ⊙ i ⊙ (1 − g²)
    dc_(t−1) = dc ⊙ f + p_i ⊙ da_i + p_f ⊙ da_f
    dp_i = Σ da_i ⊙ c_(t−1)     dp_f = Σ da_f ⊙ c_(t−1)     dp_o = Σ da_o ⊙ c_t         sums over steps and batch

The lecture writes W_ci c with a whole matrix; one weight per unit is what is used in practice, as here.

Write peephole_lstm_bptt(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates) -> da, dh0, dc0, dw_hh, dpeephole. When it
will not come right, return after these five a dict of your steps, arrays (T, B, H) by the names da_o, dcell, da_i,
da_f, da_g, dc_before (dcell is dc after its +=, dc_before is dc_(t−1)): you are told the first that is wrong.

Source: lecture: recurrent networks (LSTM with peepholes); Gers, Schraudolph & Schmidhuber, "Learning precise timing
with LSTM recurrent networks", 2002.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Intermediates, Mutant, Numerical, Train
from cnnlib.ops.activation import relu_forward, sigmoid_forward
from cnnlib.ops.recurrent import (
    _activated,
    _order,
    _outer,
    _parts,
    _peep_backward,
    _peep_weights,
    _slope,
    _states_before,
    _where_alive,
    lstm_backward,
)


def peephole_lstm_bptt(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates):
    return lstm_backward(dh, dc, h, c, gates, h0, c0, w_hh, peephole, "tanh", None, False)


def run(gx, h, c, w_hh, peephole):
    """h, c and gates of all steps."""
    sigmoid, kept, (p_i, p_f, p_o) = lambda a: 0.5 * (1 + np.tanh(0.5 * a)), ([], [], []), peephole
    for gx_t in gx:
        a_i, a_f, a_g, a_o = np.split(gx_t + h @ w_hh.T, 4, axis=1)
        i, f, g = sigmoid(a_i + p_i * c), sigmoid(a_f + p_f * c), np.tanh(a_g)
        c = f * c + i * g
        o = sigmoid(a_o + p_o * c)
        h = o * np.tanh(c)
        for found, value in zip(kept, (h, c, np.hstack([i, f, g, o])), strict=True):
            found.append(value)
    return tuple(np.stack(found) for found in kept)


def states(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates):
    h, c, _ = run(gx, h0, c0, w_hh, peephole)
    return h, c[-1]


def steps(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates):
    """The intermediates, {name: (T, B, H)}, in the order in which a step computes them."""
    found, dh_next, (p_i, p_f, p_o) = [], 0, peephole
    for t in reversed(range(len(h))):
        (i, f, g, o), squashed, before = np.split(gates[t], 4, axis=1), np.tanh(c[t]), c[t - 1] if t else c0
        d = dh[t] + dh_next
        da_o = d * squashed * o * (1 - o)
        dcell = dc + d * o * (1 - squashed**2) + p_o * da_o
        da_i, da_f, da_g = dcell * g * i * (1 - i), dcell * before * f * (1 - f), dcell * i * (1 - g**2)
        dc = dcell * f + p_i * da_i + p_f * da_f
        found.insert(0, (da_o, dcell, da_i, da_f, da_g, dc))
        dh_next = np.hstack([da_i, da_f, da_g, da_o]) @ w_hh
    return dict(zip(FORMULAS, (np.stack(step) for step in zip(*found, strict=True)), strict=True))


FORMULAS = {
    "da_o": "da_o = dh · tanh(c_t) · o (1 − o)",
    "dcell": "dc = dc from the next step + dh · o · (1 − tanh²(c_t)) + p_o · da_o",
    "da_i": "da_i = dc · g · i (1 − i)",
    "da_f": "da_f = dc · c_(t−1) · f (1 − f)",
    "da_g": "da_g = dc · i · (1 − g²)",
    "dc_before": "dc_(t−1) = dc · f + p_i · da_i + p_f · da_f",
}


def cases(rng):
    found = []
    for T, B, H, *features in (
        (4, 3, 3),
        (1, 2, 4, "T = 1"),
        (5, 1, 2, "B = 1"),
        (4, 2, 1, "one unit"),
        (9, 2, 3, "a longer sequence"),
    ):
        args = (
            rng.normal(size=(T, B, 4 * H)),
            0.5 * rng.normal(size=(B, H)),
            rng.normal(size=(B, H)),
            rng.normal(size=(4 * H, H)) / H**0.5,
            rng.normal(size=(3, H)),
        )
        found.append(Case((rng.normal(size=(T, B, H)), rng.normal(size=(B, H)), *args, *run(*args)), features))
    return found


def fast(rng):
    T, B, H = 50, 32, 128
    args = (
        rng.normal(size=(T, B, 4 * H)),
        np.zeros((B, H)),
        np.zeros((B, H)),
        rng.normal(size=(4 * H, H)) / H**0.5,
        0.1 * rng.normal(size=(3, H)),
    )
    return (rng.normal(size=(T, B, H)), np.zeros((B, H)), *args, *run(*args))


def kernel_args(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates):
    return dh, dc, h, c, gates, h0, c0, w_hh, peephole, "tanh", None, False


def kernels(f):
    """The learner's function as a kernel; gx, which that is not given, is found from the gates."""

    def backward(dh, dc, h, c, gates, h0, c0, w_hh, peephole, output_activation, lengths, reverse):
        H, before = h.shape[2], np.concatenate([c0[None], c[:-1]])
        seen = np.concatenate([peephole[0] * before, peephole[1] * before, 0 * c, peephole[2] * c], axis=2)
        y = np.clip(gates, -1 + 1e-6, 1 - 1e-6)
        a = np.log(np.maximum(y, 1e-6) / (1 - y))
        a[:, :, 2 * H : 3 * H] = np.arctanh(y[:, :, 2 * H : 3 * H])
        gx = a - seen - np.concatenate([h0[None], h[:-1]]) @ w_hh.T
        return f(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates)[:5]

    return {"lstm_backward": backward}


EXERCISE = Exercise(
    number=25,
    name="peepholes",
    topic="lecture: recurrent networks (LSTM with peepholes)",
    function=peephole_lstm_bptt,
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
        _peep_backward,
        _peep_weights,
        lstm_backward,
    ),
    specialised=True,
    outputs=("da", "dh0", "dc0", "dw_hh", "dpeephole"),
    starter='''\
import numpy as np


def peephole_lstm_bptt(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates):
    """dh (T, B, H), dc (B, H) of the last cell, what the LSTM got, what it returned -> da, dh0, dc0, dw_hh, dpeephole

    da (T, B, 4H) has the shape of gx, the others those of h0, c0, w_hh and peephole (3, H): p_i, p_f, p_o
    """
    # your loop of exercise 24, with
    #     one more term in dc, two more in dc of the step before
    #     dpeephole, summed over steps and batch
    ...
''',
    cases=cases,
    numerical=Numerical(states, wrt={"da": 2, "dh0": 3, "dc0": 4, "dw_hh": 5, "dpeephole": 6}, upstream=(0, 1)),
    hints=(
        "List every place of the forward formulas in which c_t appears, with the step in which it does. There are five.",
        "Two of the five lie in the same step, h_t and o_t; three in the next one, c_(t+1), i_(t+1) and f_(t+1). Those three "
        "make "
        "what is sent back: three terms.",
        "da_o before dc: dc = dc + d * o * (1 - np.tanh(c[t]) ** 2) + p_o * da_o. After the gates: dc = dc * f + p_i * da_i + "
        "p_f * da_f. And dpeephole += np.stack([(da_i * before).sum(0), (da_f * before).sum(0), (da_o * c[t]).sum(0)]).",
    ),
    question="Hochreiter & Schmidhuber cut the gradient where it would leave the cell through the gates. Which terms would you "
    "drop, and what does it save?",
    answer="All that goes back by way of a gate: p_o ⊙ da_o, p_i ⊙ da_i, p_f ⊙ da_f, and W_hhᵀ da between the steps. What is "
    "left "
    "is the carousel dc_(t−1) = dc ⊙ f, which needs no memory of the past: weights can be trained while the sequence comes "
    "in. The "
    "price is a wrong gradient; today all of it is taken back through time.",
    link="cnnlib/ops/recurrent.py",
    explanations=(
        Explanation("no_p_o", "your dc forgets the output gate's peephole: o also sees c_t, add p_o ⊙ da_o."),
        Explanation("no_p_i", "your dc_(t−1) forgets the input gate's peephole: i of the step sees c_(t−1), add p_i ⊙ da_i."),
        Explanation("no_p_f", "your dc_(t−1) forgets the forget gate's peephole: f of the step sees c_(t−1), add p_f ⊙ da_f."),
        Explanation(
            "no_peepholes", "your dc_(t−1) is the plain LSTM's dc ⊙ f: the peepholes of i and f lead back to c_(t−1) too."
        ),
        Explanation("order", "your peepholes are mixed up: the rows of peephole are p_i, p_f, p_o."),
        Explanation("parts", "your da has its last two parts interchanged: they are i, f, g, o, as in gx."),
        Explanation("o_sees_old", "your dp_o multiplies by c_(t−1): the output gate comes last and sees the new cell c_t."),
        Explanation("i_sees_new", "your dp_i multiplies by c_t: the input gate sees the cell before the step, c_(t−1)."),
        Explanation("f_sees_new", "your dp_f multiplies by c_t: the forget gate sees the cell before the step, c_(t−1)."),
        Explanation("one_step", "your dpeephole is that of one step: the weights are used at every step, sum over t."),
        Explanation(
            "batch_mean", "your dpeephole is a mean over the batch: adjoints of a shared weight are summed, over t and batch."
        ),
        Explanation(
            "no_slope", "your p_o ⊙ da_o lacks the gate's slope: the way leads through σ, da_o has the factor o (1 − o)."
        ),
        Explanation(
            "no_forgetting", "your dc goes back without f: c_t = f ⊙ c_(t−1) + …, so the first term of dc_(t−1) is dc ⊙ f."
        ),
        Explanation(
            "c_now", "your da_f multiplies by c_t: the forget gate was multiplied by the cell before the step, c_(t−1)."
        ),
        Explanation("no_time", "your dh_t is only what came from above: h_t also went into the next step, add W_hhᵀ da_(t+1)."),
        Explanation("f_for_i", "your da_i has the slope of f: it goes through the input gate's own σ, i (1 − i)."),
        Explanation(
            "forward_loop",
            "your loop over the steps goes forward in time: what step t + 1 sends back must be known at step t, start at the "
            "last.",
        ),
    ),
    mutants=(
        Mutant(" + _peep_backward(peephole, 2, da_o)", "", says="no_p_o"),
        Mutant(" + _peep_backward(peephole, 0, da_i)", "", says="no_p_i"),
        Mutant(" + _peep_backward(peephole, 1, da_f)", "", says="no_p_f"),
        Mutant(" + _peep_backward(peephole, 0, da_i) + _peep_backward(peephole, 1, da_f)", "", says="no_peepholes"),
        Mutant(
            "_peep_backward(peephole, 0, da_i) + _peep_backward(peephole, 1, da_f)",
            "_peep_backward(peephole, 1, da_i) + _peep_backward(peephole, 0, da_f)",
            says="order",
        ),
        Mutant("(da_i, da_f, da_g, da_o), axis", "(da_i, da_f, da_o, da_g), axis", says="parts"),
        Mutant("(da[:, :, 3 * H:], c)]", "(da[:, :, 3 * H:], c_before)]", says="o_sees_old"),
        Mutant("(da[:, :, :H], c_before)", "(da[:, :, :H], c)", says="i_sees_new"),
        Mutant("(da[:, :, H:2 * H], c_before)", "(da[:, :, H:2 * H], c)", says="f_sees_new"),
        Mutant("(d * s).sum(axis=(0, 1))", "(d * s)[-1].sum(axis=0)", says="one_step"),
        Mutant("(d * s).sum(axis=(0, 1))", "(d * s)[0].sum(axis=0)", says="one_step"),
        Mutant("(d * s).sum(axis=(0, 1))", "(d * s).sum(axis=0).mean(axis=0)", says="batch_mean"),
        Mutant("_peep_backward(peephole, 2, da_o)", "_peep_backward(peephole, 2, dstate * squashed)", says="no_slope"),
        Mutant("dc_before = dcell * f", "dc_before = dcell", says="no_forgetting"),
        Mutant("dcell * c_before[t] * f * (1 - f)", "dcell * c[t] * f * (1 - f)", says="c_now"),
        Mutant("dstate, squashed = dh[t] + dbefore,", "dstate, squashed = dh[t],", says="no_time"),
        Mutant("dcell * g * i * (1 - i)", "dcell * g * f * (1 - f)", says="f_for_i"),
        Mutant("for t in range(len(h) - 1, -1, -1)", "for t in range(len(h))", says="forward_loop"),
    ),
    equivalent=dict.fromkeys(("_outer: 1 -> 2", "_outer: 1 -> 2 #2"), "NumPy finds the length for any negative number"),
    alternatives=(
        """\
import numpy as np


def peephole_lstm_bptt(dh, dc, gx, h0, c0, w_hh, peephole, h, c, gates):
    T, B, H = h.shape
    p_i, p_f, p_o = peephole
    da, dw_hh, dpeephole = np.empty_like(gx), np.zeros_like(w_hh), np.zeros_like(peephole)
    carried = np.zeros_like(h0)
    names = ("da_o", "dcell", "da_i", "da_f", "da_g", "dc_before")
    kept = {name: np.empty_like(h) for name in names}
    for t in range(T - 1, -1, -1):
        i, f, g, o = (gates[t, :, k * H : (k + 1) * H] for k in range(4))
        h_before, c_before = (h[t - 1], c[t - 1]) if t else (h0, c0)
        d = dh[t] + carried
        da_o = d * np.tanh(c[t]) * o * (1 - o)
        dcell = dc + d * o * (1 - np.tanh(c[t]) ** 2) + p_o * da_o
        da_i = dcell * g * i * (1 - i)
        da_f = dcell * c_before * f * (1 - f)
        da_g = dcell * i * (1 - g**2)
        dc = dcell * f + p_i * da_i + p_f * da_f
        da[t] = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dpeephole[0] += (da_i * c_before).sum(axis=0)
        dpeephole[1] += (da_f * c_before).sum(axis=0)
        dpeephole[2] += (da_o * c[t]).sum(axis=0)
        dw_hh += da[t].T @ h_before
        carried = da[t] @ w_hh
        for name, value in zip(names, (da_o, dcell, da_i, da_f, da_g, dc)):
            kept[name][t] = value
    return da, carried, dc, dw_hh, dpeephole, kept
""",
    ),
    intermediates=Intermediates(steps, FORMULAS, back_in_time=True),
    fast=Fast(fast, "lstm_backward", kernel_args),
    train=Train(kernels, "peepholes"),
)
