"""Recurrent network: one step's function along a sequence, and back through time

A recurrent network reads a sequence as you read this sentence: one element after the other, with a state in mind that
each element changes. The same weights work at every step, so three matrices read a text of any length.

    h_t = tanh(W_ih x_t + W_hh h_(t−1) + b)            t = 0 … T − 1,  h_(−1) = h0

    x (T, B, D)   T steps of B sequences              w_ih (H, D)   w_hh (H, H)   b (H,)
    h (T, B, H)   the state after every step          h0 (B, H)     the state before the first

**Back through time.** Unroll the loop, and it is an ordinary network of T layers that share their weights:
backpropagation needs nothing new. The state h_t goes two ways, to the output of its own step and into the next step. So
two adjoints add up:

    dh_t       = dy_t + W_hhᵀ da_(t+1)                 nothing comes from behind the last step
    da_t       = dh_t ⊙ (1 − h_t²)                     through tanh, whose derivative is known from its output h_t
    dx_t       = W_ihᵀ da_t                            dh0 = W_hhᵀ da_0

and because the weights were used T times, their adjoints are sums over all steps (and over the batch):

    dW_ih = Σ_t da_t x_tᵀ        dW_hh = Σ_t da_t h_(t−1)ᵀ        db = Σ_t da_t

(These are for columns; a batch has its samples in rows: W x_t becomes x_t @ w.T, da x_tᵀ becomes da.T @ x_t.)

Write rnn(x, h0, w_ih, w_hh, b), which returns h, and rnn_bptt(dy, x, h0, w_ih, w_hh, b, h), which gets the upstream
gradient dy (T, B, H) of all states, what rnn got and what it returned, and gives dx, dh0, dw_ih, dw_hh, db.

Source: lecture: recurrent networks; Elman, "Finding structure in time", 1990; Werbos, "Backpropagation through time:
what it does and how to do it", 1990.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant, Numerical, Train
from cnnlib.ops.activation import relu_forward, sigmoid_forward
from cnnlib.ops.recurrent import (
    _activated,
    _order,
    _outer,
    _slope,
    _states_before,
    _where_alive,
    rnn_backward,
    rnn_steps,
    share_of_inputs,
)


def rnn(x, h0, w_ih, w_hh, b):
    return rnn_steps(x @ w_ih.T + b, h0, w_hh, "tanh", None, False)


def rnn_bptt(dy, x, h0, w_ih, w_hh, b, h):
    da, dh0, dw_hh = rnn_backward(dy, h, h0, w_hh, "tanh", None, False)
    return da @ w_ih, dh0, _outer(da, x), dw_hh, da.sum(axis=(0, 1))


def states(dy, x, h0, w_ih, w_hh, b, h):
    before, found = h0, []
    for x_t in x:
        before = np.tanh(x_t @ w_ih.T + before @ w_hh.T + b)
        found.append(before)
    return np.stack(found)


def cases(rng):
    found = []
    for T, B, D, H, *features in (
        (5, 3, 4, 3),
        (1, 2, 3, 4, "T = 1"),
        (6, 1, 2, 3, "B = 1"),
        (4, 2, 3, 1, "one unit"),
        (9, 2, 2, 5, "a longer sequence"),
    ):
        x, h0, w_ih, b = rng.normal(size=(T, B, D)), 0.5 * rng.normal(size=(B, H)), rng.normal(size=(H, D)), rng.normal(size=H)
        w_hh, dy = rng.normal(size=(H, H)) / H**0.5, rng.normal(size=(T, B, H))
        args = (x, h0, w_ih, w_hh, b)
        found += [Case(args, features, "rnn"), Case((dy, *args, states(dy, *args, None)), features, "rnn_bptt")]
    return found


def fast(rng):
    T, B, H = 50, 32, 128
    x, h0, w = rng.normal(size=(T, B, H)), np.zeros((B, H)), rng.normal(size=(2, H, H)) / H**0.5
    args = (x, h0, w[0], w[1], np.zeros(H))
    return (rng.normal(size=(T, B, H)), *args, states(None, *args, None))


def kernel_args(dy, x, h0, w_ih, w_hh, b, h):
    return dy, h, h0, w_hh, "tanh", None, False


def kernels(f):
    """The learner's two functions as kernels, which give da: dx, with gx = x W_ihᵀ + b for x and the identity for W_ih."""
    rnn, rnn_bptt = f
    last = {}

    def with_identity(gx, h0, w_hh):
        H = len(w_hh)
        return gx, h0, np.eye(H, dtype=gx.dtype), w_hh, np.zeros(H, gx.dtype)

    def forward(x, h0, w_ih, w_hh, b, nonlinearity, lengths, reverse):
        last["gx"] = share_of_inputs(x, w_ih, b)
        return rnn(*with_identity(last["gx"], h0, w_hh))

    def backward(dh, h, h0, w_hh, nonlinearity, lengths, reverse):
        da, dh0, _, dw_hh, _ = rnn_bptt(dh, *with_identity(last["gx"], h0, w_hh), h)
        return da, dh0, dw_hh

    return {"rnn_forward": forward, "rnn_backward": backward}


EXERCISE = Exercise(
    number=21,
    name="rnn",
    topic="lecture: recurrent networks",
    function=(rnn, rnn_bptt),
    uses=(
        relu_forward,
        sigmoid_forward,
        _activated,
        _slope,
        _order,
        _where_alive,
        _states_before,
        _outer,
        rnn_steps,
        rnn_backward,
    ),
    specialised=True,
    outputs={"rnn": ("h",), "rnn_bptt": ("dx", "dh0", "dw_ih", "dw_hh", "db")},
    starter='''\
import numpy as np


def rnn(x, h0, w_ih, w_hh, b):
    """x (T, B, D), h0 (B, H), w_ih (H, D), w_hh (H, H), b (H,) -> h (T, B, H), the state after every step"""
    # h_t = tanh(W_ih x_t + W_hh h_(t-1) + b), one step after the other
    ...


def rnn_bptt(dy, x, h0, w_ih, w_hh, b, h):
    """dy (T, B, H), what rnn got, what it returned -> dx, dh0, dw_ih, dw_hh, db, of the shapes of x, h0, w_ih, w_hh, b"""
    # from the last step to the first:
    #     dh = dy_t + what step t + 1 sent back
    #     da = dh through tanh
    #     add da's share to dw_ih, dw_hh, db; send W_hh^T da to the step before
    ...
''',
    cases=cases,
    numerical=Numerical(states, wrt={"dx": 1, "dh0": 2, "dw_ih": 3, "dw_hh": 4, "db": 5}, upstream=0, function="rnn_bptt"),
    hints=(
        "Write the loop for T = 2 on paper. Which steps does w_hh appear in, and how many ways lead from h_0 to the loss?",
        "Keep one array (B, H) that carries W_hhᵀ da from a step to the one before; it starts as zeros and ends as dh0.",
        "for t in reversed(range(T)): da = (dy[t] + carried) * (1 - h[t] ** 2); carried = da @ w_hh; and dw_hh += da.T @ "
        "(h[t - 1] if t else h0).",
    ),
    question="Training on a novel, you cannot go back through 3 million steps. What do you do, and what does the network no "
    "longer learn?",
    answer="Truncated backpropagation through time: go back through, say, 50 steps, keep the state, but send nothing back "
    "beyond "
    "the cut. The state still carries older things forward, but no gradient tells the weights to keep something for longer "
    "than "
    "the piece.",
    link="cnnlib/ops/recurrent.py",
    explanations=(
        Explanation(
            "no_time",
            "your da_t only sees dy_t: the state also went into the next step, add W_hhᵀ da_(t+1) to dy_t before tanh.",
        ),
        Explanation(
            "tanh_twice",
            "your derivative of tanh takes tanh of h again: h is tanh(a) already, so the slope is 1 − h², not 1 − tanh²(h).",
        ),
        Explanation("no_slope", "your da leaves out the derivative of tanh: da_t = dh_t ⊙ (1 − h_t²)."),
        Explanation(
            "same_step",
            "your dw_hh pairs da_t with h_t, the state after the step: W_hh was multiplied by the state before it, h_(t−1).",
        ),
        Explanation("no_h0", "your step 0 pairs with zeros in dw_hh: the state before the first step is h0."),
        Explanation("zero_start", "your forward starts from zeros: the state before the first step is h0."),
        Explanation(
            "w_transposed",
            "your W_hh is the wrong way round: with the samples in rows, forward is h @ w_hh.T and backward is da @ w_hh.",
        ),
        Explanation(
            "last_step",
            "your dw_ih is that of one step: the same matrix was used at every step, so its adjoint is the sum over t.",
        ),
        Explanation(
            "last_db", "your db is that of one step: b was added at every step, so db sums over t as well as over the batch."
        ),
        Explanation("no_bias", "your step leaves out the bias: h_t = tanh(W_ih x_t + W_hh h_(t−1) + b)."),
        Explanation("da0", "your dh0 is da_0: h0 came in through W_hh, so dh0 = W_hhᵀ da_0."),
        Explanation("no_tanh", "your states never go through tanh: h_t = tanh(W_ih x_t + W_hh h_(t−1) + b)."),
        Explanation(
            "skips_tanh", "your recurrent adjoint skips tanh: what goes back to step t is W_hhᵀ da_(t+1), not W_hhᵀ dh_(t+1)."
        ),
        Explanation(
            "one_step_hh",
            "your dw_hh is that of one step: the same matrix was used at every step, so its adjoint is the sum over t.",
        ),
        Explanation(
            "forward_loop",
            "your loop over the steps goes forward in time: what step t + 1 sends back must be known at step t, start at the "
            "last.",
        ),
        Explanation(
            "no_w", "your recurrent adjoint lacks W_hh: h_(t−1) went into a_t through W_hh, so W_hhᵀ da_t goes back, not da_t."
        ),
        Explanation(
            "shifted", "your h is one step late: h[t] is the state after step t, so h0 is not among them and the last state is."
        ),
        Explanation(
            "db_all", "your db sums over the units as well: each unit has a bias of its own, sum over steps and batch only."
        ),
        Explanation("no_first", "your loop leaves out step 0: it is a step like the others, its state before is h0."),
    ),
    mutants=(
        Mutant("dstate = dh[t] + dbefore", "dstate = dh[t]", says="no_time"),
        Mutant("(1 - h[t] * h[t])", "(1 - np.tanh(h[t]) ** 2)", says="tanh_twice"),
        Mutant("dstate * (1 - h[t] * h[t])", "dstate", says="no_slope"),
        Mutant("_outer(da, np.concatenate((h0[None], h[:-1])))", "_outer(da, h)", says="same_step"),
        Mutant("(h0[None], h[:-1])", "(0 * h0[None], h[:-1])", says="no_h0"),
        Mutant("np.empty_like(gx), h0", "np.empty_like(gx), 0 * h0", says="zero_start"),
        Mutant("before @ w_hh.T", "before @ w_hh", says="w_transposed"),
        Mutant("da[t] @ w_hh", "da[t] @ w_hh.T", says="w_transposed"),
        Mutant("dh0, _outer(da, x)", "dh0, da[-1].T @ x[-1]", says="last_step"),
        Mutant("dh0, _outer(da, x)", "dh0, da[0].T @ x[0]", says="last_step"),
        Mutant("da.sum(axis=(0, 1))", "da[-1].sum(axis=0)", says="last_db"),
        Mutant("da.sum(axis=(0, 1))", "da.sum(axis=0)", says="shape"),
        Mutant("x @ w_ih.T + b", "x @ w_ih.T", says="no_bias"),
        Mutant("return da @ w_ih, dh0,", "return da @ w_ih, da[0],", says="da0"),
        Mutant("new = np.tanh(gx[t] + before @ w_hh.T)", "new = gx[t] + before @ w_hh.T", says="no_tanh"),
        Mutant("dbefore = da[t] @ w_hh", "dbefore = dstate @ w_hh", says="skips_tanh"),
        Mutant("_outer(da, np.concatenate((h0[None], h[:-1])))", "da[0].T @ h0", says="one_step_hh"),
        Mutant(
            "_outer(da, np.concatenate((h0[None], h[:-1])))", "da[-1].T @ (h[-2] if len(h) > 1 else h0)", says="one_step_hh"
        ),
        Mutant("for t in range(len(h) - 1, -1, -1)", "for t in range(len(h))", says="forward_loop"),
        Mutant("dbefore = da[t] @ w_hh", "dbefore = da[t]", says="no_w"),
        Mutant("return h\n", "return np.concatenate((h0[None], h[:-1]))\n", says="shifted"),
        Mutant("da.sum(axis=(0, 1))", "np.full_like(b, da.sum())", says="db_all"),
        Mutant(
            "da, dbefore = np.empty_like(h), np.zeros_like(h0)\n    for t in range(len(h) - 1, -1, -1)",
            "da, dbefore = np.zeros_like(h), np.zeros_like(h0)\n    for t in range(len(h) - 1, 0, -1)",
            says="no_first",
        ),
    ),
    equivalent=dict.fromkeys(("_outer: 1 -> 2", "_outer: 1 -> 2 #2"), "NumPy finds the length for any negative number"),
    alternatives=(
        """\
import numpy as np


def rnn(x, h0, w_ih, w_hh, b):
    states = [h0]
    for x_t in x:
        states.append(np.tanh(x_t @ w_ih.T + states[-1] @ w_hh.T + b))
    return np.array(states[1:])


def rnn_bptt(dy, x, h0, w_ih, w_hh, b, h):
    dx, dw_ih, dw_hh, db = np.zeros_like(x), np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros_like(b)
    carried = np.zeros_like(h0)
    for t in reversed(range(len(x))):
        before = h[t - 1] if t > 0 else h0
        da = (dy[t] + carried) * (1 - h[t] ** 2)
        dx[t] = da @ w_ih
        dw_ih += da.T @ x[t]
        dw_hh += da.T @ before
        db += da.sum(axis=0)
        carried = da @ w_hh
    return dx, carried, dw_ih, dw_hh, db
""",
        """\
import numpy as np


def step(joined, w):
    \"\"\"[x, h, 1] (B, D + H + 1) times one matrix (H, D + H + 1) that holds all weights.\"\"\"
    return np.tanh(joined @ w.T)


def rnn(x, h0, w_ih, w_hh, b):
    w = np.hstack([w_ih, w_hh, b[:, None]])
    ones, h, found = np.ones((x.shape[1], 1)), h0, []
    for t in range(x.shape[0]):
        h = step(np.hstack([x[t], h, ones]), w)
        found.append(h)
    return np.stack(found)


def rnn_bptt(dy, x, h0, w_ih, w_hh, b, h):
    T, B, D = x.shape
    H = h0.shape[1]
    w = np.hstack([w_ih, w_hh, b[:, None]])
    joined = np.concatenate([x, np.concatenate([h0[None], h])[:-1], np.ones((T, B, 1))], axis=2)
    dw, dx, dh = np.zeros_like(w), np.empty(x.shape), 0.0
    for t in range(T - 1, -1, -1):
        da = (1.0 - np.square(h[t])) * (dh + dy[t])
        dw += np.einsum("bh,bk->hk", da, joined[t])
        djoined = da @ w
        dx[t], dh = djoined[:, :D], djoined[:, D : D + H]
    return dx, dh, dw[:, :D], dw[:, D : D + H], dw[:, -1]
""",
    ),
    fast=Fast(fast, "rnn_backward", kernel_args),
    train=Train(kernels, "rnn"),
)
