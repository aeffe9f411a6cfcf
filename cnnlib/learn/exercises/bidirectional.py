"""Bidirectional network: one reader from the left, one from the right, outputs summed

Is "lead" a metal, or does it show the way? Often only the words behind it tell, and whoever labels the words of a
sentence that is there as a whole may look at them. A bidirectional network is two recurrent networks with weights of
their own: one reads x_0, x_1, …, the other reads …, x_1, x_0. At every step t their states are added:

    y_t = →h_t + ←h_t             →h_t has seen x_0 … x_t,  ←h_t has seen x_(T−1) … x_t,  both begin from zeros

Whoever reads a sequence backwards gets the states in backward order, the one for x_(T−1) first: before the sum they
must be turned round, or y_0 would be made of the first state of one and the first state of the other, neither of which
has seen much.

**Back.** The sum sends dy to both. The network that read backwards gets dy in its own order, and the dx it returns is
in that order, too. x went into both, so dx is the sum of both.

You have exercise 21's functions, ready to be called:

    rnn(x, h0, w_ih, w_hh, b) -> h
    rnn_bptt(dy, x, h0, w_ih, w_hh, b, h) -> dx, dh0, dw_ih, dw_hh, db

Write bidirectional(x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back) -> y (T, B, H) and bidirectional_bptt(dy, …the
same…) -> dx, dw_ih, dw_hh, db, dw_ih_back, dw_hh_back, db_back. x is (T, B, D), dy (T, B, H), weights are as in
exercise 21.

Source: lecture: recurrent networks (bidirectional); Schuster & Paliwal, "Bidirectional recurrent neural networks",
1997.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.learn.exercises.rnn import rnn, rnn_bptt
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
)


def bidirectional(x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back):
    h0 = np.zeros((x.shape[1], len(w_hh)))
    right = rnn(x, h0, w_ih, w_hh, b)
    left = rnn(x[::-1], h0, w_ih_back, w_hh_back, b_back)
    return right + left[::-1]


def bidirectional_bptt(dy, x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back):
    start = np.zeros((x.shape[1], len(w_hh)))
    forwards, backwards = (x, start, w_ih, w_hh, b), (x[::-1], start, w_ih_back, w_hh_back, b_back)
    dx, _, *dw = rnn_bptt(dy, *forwards, rnn(*forwards))
    dx_back, _, *dw_back = rnn_bptt(dy[::-1], *backwards, rnn(*backwards))
    return dx + dx_back[::-1], *dw, *dw_back


def both(dy, x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back):
    y, there, back = np.zeros_like(dy), 0, 0
    for t in range(len(x)):
        there = np.tanh(x[t] @ w_ih.T + there @ w_hh.T + b) if t else np.tanh(x[t] @ w_ih.T + b)
        y[t] += there
    for t in reversed(range(len(x))):
        last = t == len(x) - 1
        back = np.tanh(x[t] @ w_ih_back.T + b_back + (0 if last else back @ w_hh_back.T))
        y[t] += back
    return y


def cases(rng):
    found = []
    for T, B, D, H, *features in (
        (5, 3, 4, 3),
        (1, 2, 3, 2, "T = 1"),
        (4, 1, 2, 3, "B = 1"),
        (6, 2, 3, 1, "one unit"),
        (3, 3, 3, 3, "T = B = D = H"),
    ):
        weights = [(rng.normal(size=(H, D)), rng.normal(size=(H, H)) / H**0.5, rng.normal(size=H)) for _ in range(2)]
        args = (rng.normal(size=(T, B, D)), *weights[0], *weights[1])
        found += [
            Case(args, features, "bidirectional"),
            Case((rng.normal(size=(T, B, H)), *args), features, "bidirectional_bptt"),
        ]
    return found


WEIGHTS = ("dw_ih", "dw_hh", "db", "dw_ih_back", "dw_hh_back", "db_back")

EXERCISE = Exercise(
    number=27,
    name="bidirectional",
    topic="lecture: recurrent networks (bidirectional)",
    function=(bidirectional, bidirectional_bptt),
    given=(
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
        rnn,
        rnn_bptt,
    ),
    outputs={"bidirectional": ("y",), "bidirectional_bptt": ("dx", *WEIGHTS)},
    starter='''\
import numpy as np

# rnn(x, h0, w_ih, w_hh, b) -> h and rnn_bptt(dy, x, h0, w_ih, w_hh, b, h) -> dx, dh0, dw_ih, dw_hh, db are there to be called


def bidirectional(x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back):
    """x (T, B, D), the weights of both readers -> y (T, B, H), the sum of their states at every step"""
    # both begin from zeros (B, H)
    ...


def bidirectional_bptt(dy, x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back):
    """dy (T, B, H) -> dx, dw_ih, dw_hh, db, dw_ih_back, dw_hh_back, db_back"""
    # what is in which order?
    ...
''',
    cases=cases,
    numerical=Numerical(
        both, wrt={"dx": 1, **{name: 2 + k for k, name in enumerate(WEIGHTS)}}, upstream=0, function="bidirectional_bptt"
    ),
    hints=(
        "x[::-1] turns the steps round. What is the first state that rnn returns for it, and to which step t does it belong?",
        "Three things must be turned round for the second reader: x on the way in, its states on the way out; and back: dy on "
        "the way in, dx on the way out.",
        "y = rnn(x, h0, …) + rnn(x[::-1], h0, …)[::-1]; back: rnn_bptt(dy[::-1], x[::-1], h0, …, h of the flipped x), and dx + "
        "dx_back[::-1].",
    ),
    question="A batch holds sentences of 7, 2 and 5 words, padded with zeros to 7. What goes wrong in the second reader, and "
    "what "
    "must the library do?",
    answer="Flipped, the short ones begin with padding: the reader starts with steps full of zeros, and through b its state "
    "is no longer 0 "
    "when the first word comes. Each sequence must be read from its own last word: cnnlib's layers take lengths and leave the "
    "state as it is in the padding. Also, nothing of this works for a text that is still being written.",
    link="cnnlib/nn/recurrent.py",
    explanations=(
        Explanation(
            "not_turned", "your second reader's states are in its own order: turn them round before you add, left[::-1]."
        ),
        Explanation("same_way", "your second reader reads from left to right like the first: give it x[::-1]."),
        Explanation(
            "not_at_all", "your second reader reads from left to right like the first: turn x round, and its states back."
        ),
        Explanation(
            "same_weights", "your second reader uses the first one's weights: it has its own, w_ih_back, w_hh_back, b_back."
        ),
        Explanation("mean", "your output is the mean of the two: it is the sum."),
        Explanation("handed_on", "your second reader begins with the first one's last state: both begin from zeros."),
        Explanation("batch", "your x is turned round along the batch: the steps are the first axis."),
        Explanation("dx_half", "your dx is that of the first reader only: x went into both, add the two."),
        Explanation("dx_order", "your second dx is in the reader's order: turn it round before you add, dx_back[::-1]."),
        Explanation(
            "dy_order", "your second reader got dy from left to right: in its order the last step comes first, dy[::-1]."
        ),
        Explanation("h_of_x", "your second rnn_bptt got the states of x in the usual order: it needs those of the flipped x."),
        Explanation("both_back", "your two readers both read from right to left: the first one gets x as it is."),
    ),
    mutants=(
        Mutant("return right + left[::-1]", "return right + left", says="not_turned"),
        Mutant("left = rnn(x[::-1], h0", "left = rnn(x, h0", says="same_way"),
        Mutant(
            "left = rnn(x[::-1], h0, w_ih_back, w_hh_back, b_back)",
            "left = rnn(x, h0, w_ih_back, w_hh_back, b_back)[::-1]",
            says="not_at_all",
        ),
        Mutant(
            "left = rnn(x[::-1], h0, w_ih_back, w_hh_back, b_back)",
            "left = rnn(x[::-1], h0, w_ih, w_hh, b)",
            says="same_weights",
        ),
        Mutant("return right + left[::-1]", "return (right + left[::-1]) / 2", says="mean"),
        Mutant("return right + left[::-1]", "return np.concatenate([right, left[::-1]], axis=2)", says="shape"),
        Mutant("left = rnn(x[::-1], h0", "left = rnn(x[::-1], right[-1]", says="handed_on"),
        Mutant("left = rnn(x[::-1], h0", "left = rnn(x[:, ::-1], h0", says="batch"),
        Mutant("dx + dx_back[::-1], *dw", "dx, *dw", says="dx_half"),
        Mutant("dx + dx_back[::-1], *dw", "dx + dx_back, *dw", says="dx_order"),
        Mutant("rnn_bptt(dy[::-1], *backwards", "rnn_bptt(dy, *backwards", says="dy_order"),
        Mutant("*dw, *dw_back", "*dw_back, *dw", says="swapped"),
        Mutant("*backwards, rnn(*backwards)", "*backwards, rnn(x, *backwards[1:])", says="h_of_x"),
        Mutant("right = rnn(x, h0", "right = rnn(x[::-1], h0", says="both_back"),
    ),
    equivalent={
        "bidirectional: w_hh -> b #2": "as long as b",
        "bidirectional_bptt: w_hh -> b #2": "as long as b",
    },
    alternatives=(
        """\
import numpy as np


def flip(a):
    return np.flip(a, axis=0)


def bidirectional(x, *weights):
    h0 = np.zeros((x.shape[1], weights[0].shape[0]))
    return rnn(x, h0, *weights[:3]) + flip(rnn(flip(x), h0, *weights[3:]))


def bidirectional_bptt(dy, x, *weights):
    dx, adjoints = 0, []
    for turn, own in ((lambda a: a, weights[:3]), (flip, weights[3:])):
        h0 = np.zeros((x.shape[1], own[0].shape[0]))
        h = rnn(turn(x), h0, *own)
        dx_own, _, dw_ih, dw_hh, db = rnn_bptt(turn(dy), turn(x), h0, *own, h)
        dx = dx + turn(dx_own)
        adjoints += [dw_ih, dw_hh, db]
    return dx, *adjoints
""",
    ),
    train=Train(lambda f: dict(zip(("bidirectional", "bidirectional_bptt"), f, strict=True)), "rows"),
)
