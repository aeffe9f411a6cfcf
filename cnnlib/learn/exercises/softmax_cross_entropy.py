"""Softmax and cross-entropy: the loss and its gradient in one step

A classifier ends in C logits per sample. Softmax turns them into probabilities, cross-entropy asks how surprised these are by
the right label. Each of the two has an unpleasant derivative; together they have the shortest one of the whole course.

    p[n, c]  = exp(x[n, c]) / Σ_k exp(x[n, k])                     x (N, C) logits, p (N, C)
    l[n]     = −ln p[n, t[n]] = lse[n] − x[n, t[n]]                 lse[n] = ln Σ_k exp(x[n, k]), l (N,)
    dx[n, c] = dl[n] · (p[n, c] − [c = t[n]])                       dl (N,) the upstream gradient ∂J/∂l, dx (N, C)

Logits of a trained network may be in the hundreds, and exp(1000) is infinite. Softmax does not change when the same number is
taken from all logits of a row: take the row's largest one, and no exponential is above 1.

A worked row: x = (2, 1, 0), t = 1. The exponentials of x − 2 are 1, 0.368, 0.135, their sum is 1.503, so p = (0.665, 0.245,
0.090), l = −ln 0.245 = 1.408, and with dl = 1 dx = (0.665, −0.755, 0.090): the right class is pushed up, each wrong one down
by as much as it was believed.

Write ``softmax_cross_entropy(dl, x, t)``: it returns the losses l and the gradient dx. There is no mean over the batch in l:
whoever takes the mean sends dl = 1/N upstream, and your code must use the dl that it gets.

Source: lecture: backpropagation (losses); Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import log_softmax_backward, log_softmax_forward


def softmax_cross_entropy(dl, x, t):
    rows = np.arange(len(t))
    log_p = log_softmax_forward(x)
    dlog_p = np.zeros_like(x)
    dlog_p[rows, t] = -dl  # l = -log_p[rows, t]
    return -log_p[rows, t], log_softmax_backward(dlog_p, log_p)


def loss(dl, x, t):
    largest = x.max(axis=1)
    return np.log(np.exp(x - largest[:, None]).sum(axis=1)) + largest - x[np.arange(len(t)), t]


def cases(rng):
    def case(N, C, *features, shift=0.0):
        return Case((rng.normal(size=N), rng.normal(size=(N, C)) + shift, rng.integers(0, C, size=N)), features)

    return [
        case(5, 4),
        case(1, 3, "N = 1"),
        case(4, 4, "N = C"),
        case(6, 2, "two classes"),
        case(3, 5, "logits near 1000", shift=1000.0),
        case(3, 5, "logits near -1000", shift=-1000.0),
        case(2, 3, "rows far apart", shift=np.array([[500.0], [-500.0]])),
        Case((rng.normal(size=1), np.array([[-30.0, 0.0, 1.0]]), np.array([0])), ("an unlikely label",)),
    ]


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def one_hot(x, t):
    return np.eye(x.shape[1])[t]


def ones_at_label_missing(dl, x, t):
    return loss(dl, x, t), dl[:, None] * softmax(x)


def mean_in_gradient(dl, x, t):
    return loss(dl, x, t), dl[:, None] * (softmax(x) - one_hot(x, t)) / len(t)


def softmax_over_batch(dl, x, t):
    e = np.exp(x - x.max())
    p = e / e.sum(axis=0)
    return -np.log(p[np.arange(len(t)), t]), dl[:, None] * (p - one_hot(x, t))


def softmax_over_all(dl, x, t):
    e = np.exp(x - x.max())
    p = e / e.sum()
    return -np.log(p[np.arange(len(t)), t]), dl[:, None] * (p - one_hot(x, t))


def composed(dl, x, t, *, shift=lambda x: x.max(axis=1, keepdims=True), added=0.0):
    """In two steps, p and then its logarithm, as most people write it first."""
    e = np.exp(x - shift(x))
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(t)), t] + added), dl[:, None] * (p - one_hot(x, t))


def ones_in_columns(dl, x, t):
    p = softmax(x)
    p[:, t] -= 1.0
    return loss(dl, x, t), dl[:, None] * p


def _kernels(f):
    """The learner's function as both kernels of the loss."""

    def forward(x, labels, weight, label_smoothing, ignore_index):
        losses = np.asarray(f(np.zeros(len(x), x.dtype), x, labels)[0])
        return losses, losses + x[np.arange(len(x)), labels]  # lse = l + x[t]

    def backward(dl, x, labels, lse, weight, label_smoothing, ignore_index):
        return f(dl, x, labels)[1]

    return {"cross_entropy_forward": forward, "cross_entropy_backward": backward}


EXERCISE = Exercise(
    number=8,
    name="softmax_cross_entropy",
    topic="lecture: backpropagation (losses)",
    function=softmax_cross_entropy,
    uses=(log_softmax_forward, log_softmax_backward),
    outputs=("l", "dx"),
    starter='''\
import numpy as np


def softmax_cross_entropy(dl, x, t):
    """dl (N,) upstream gradient, x (N, C) logits, t (N,) labels 0 … C − 1 -> l (N,), dx (N, C)"""
    # p = softmax of every row, without an overflow
    # l = -ln p at the labels
    # dx = dl · (p − one-hot labels)
    ...
''',
    cases=cases,
    numerical=Numerical(loss, wrt={"dx": 1}, upstream=0),
    hints=(
        "Which of the two indices of x does the softmax's sum run over, and which shape must the sum have to be divided by?",
        "x[np.arange(N), t] picks one logit per row, and the same index with -= takes 1 from one probability per row.",
        "p[np.arange(N), t] -= 1 makes p − [c = t]; then dx = dl[:, None] * p.",
    ),
    question="Every row of dx sums to zero. Why must it?",
    answer="Adding the same number to all logits of a row does not change the loss, so the derivative in that direction, "
    "the sum of the row, is zero.",
    link="cnnlib/ops/loss.py",
    explanations=(
        Explanation(
            "label", "your dx is dl · p: the 1 at the label is not taken off, dx = dl · (p − [c = t]).", ones_at_label_missing
        ),
        Explanation(
            "mean", "your dx is divided by N: whoever takes the mean puts 1/N into dl, do not divide again.", mean_in_gradient
        ),
        Explanation(
            "batch",
            "your softmax sums over the batch (axis 0): every row is a distribution, sum over axis 1.",
            softmax_over_batch,
        ),
        Explanation(
            "all", "your softmax sums over all elements: every row is a distribution, sum over axis 1.", softmax_over_all
        ),
        Explanation(
            "not squashed",
            "you took the logits for probabilities: softmax them first, p = exp(x) / Σ exp(x).",
            lambda dl, x, t: (loss(dl, x, t), dl[:, None] * (x - one_hot(x, t))),
        ),
        Explanation(
            "two steps",
            "you multiplied by the slope p (1 − p) once more: the derivative of the logarithm, −1/p, has cancelled it, and "
            "p − [c = t] is all that is left.",
            lambda dl, x, t: (loss(dl, x, t), dl[:, None] * (softmax(x) - one_hot(x, t)) * softmax(x) * (1.0 - softmax(x))),
        ),
        Explanation(
            "probability",
            "your l is the probability of the right label: the loss is minus its logarithm.",
            lambda dl, x, t: (np.exp(-loss(dl, x, t)), dl[:, None] * (softmax(x) - one_hot(x, t))),
        ),
        Explanation(
            "overflow",
            "your exponentials overflow for large logits: take each row's maximum off before exp, the softmax stays the same.",
            lambda *a: composed(*a, shift=np.zeros_like),
        ),
        Explanation(
            "one maximum for all rows",
            "you take one maximum off all rows: in a row far below it all exponentials vanish, and 0/0 is not a number; each "
            "row has its own, x.max(axis=1, keepdims=True).",
            lambda *a: composed(*a, shift=np.max),
        ),
        Explanation(
            "added in the logarithm",
            "you add a small number to p before the logarithm: where the right label is unlikely, it is all that counts; "
            "l = lse − x[t] needs none.",
            lambda *a: composed(*a, added=1e-9),
        ),
        Explanation(
            "ones in columns",
            "your p[:, t] −= 1 takes 1 off the columns of all labels, in every row: p[np.arange(N), t] is one element per row.",
            ones_in_columns,
        ),
    ),
    mutants=(
        Mutant("dlog_p[rows, t] = -dl", "dlog_p[rows, t] = dl", says="sign"),
        Mutant("return -log_p[rows, t]", "return log_p[rows, t]", says="sign"),
        Mutant("dlog_p[rows, t] = -dl", "dlog_p[rows, t] = -1.0", says="upstream"),
        Mutant("dlog_p[rows, t] = -dl", "dlog_p[rows, t] = -dl / len(t)", says="mean"),
        Mutant("return dy - np.exp(y)", "return -np.exp(y)", says="label"),
        Mutant("- np.log(np.exp(shifted).sum(axis=1, keepdims=True))", "- np.log(np.exp(shifted).sum(axis=0))", says="batch"),
        Mutant("- np.log(np.exp(shifted).sum(axis=1, keepdims=True))", "- np.log(np.exp(shifted).sum())", says="all"),
        Mutant("shifted = x - x.max(axis=1, keepdims=True)", "shifted = x", says="overflow"),
        Mutant("shifted = x - x.max(axis=1, keepdims=True)", "shifted = x - x.max()", says="one maximum for all rows"),
        Mutant("return -log_p[rows, t]", "return -np.log(np.exp(log_p[rows, t]) + 1e-9)", says="added in the logarithm"),
        Mutant(
            "-log_p[rows, t], log_softmax_backward(dlog_p, log_p)",
            "-log_p[rows, t], dlog_p + dl[:, None] * x",
            says="not squashed",
        ),
        Mutant(
            "-log_p[rows, t], log_softmax_backward(dlog_p, log_p)",
            "-log_p[rows, t], log_softmax_backward(dlog_p, log_p) * np.exp(log_p) * (1.0 - np.exp(log_p))",
            says="two steps",
        ),
        Mutant("return -log_p[rows, t]", "return np.exp(log_p[rows, t])", says="probability"),
    ),
    equivalent={
        "log_softmax_forward: x.max(axis=1, keepdims=True) -> x.min(axis=1, keepdims=True)": "any shift gives the same "
        "softmax; the maximum is the one that cannot overflow, the minimum overflows for logits 700 apart only",
    },
    alternatives=(
        """\
import numpy as np


def softmax_cross_entropy(dl, x, t):
    N = x.shape[0]
    p = np.exp(x - x.max(1)[:, None])
    p /= p.sum(1)[:, None]
    losses = -np.log(p[range(N), t])
    p[range(N), t] -= 1.0
    return losses, p * dl.reshape(N, 1)
""",
        """\
from math import exp, log


def softmax_cross_entropy(dl, x, t):
    losses, dx = [], []
    for row, label, upstream in zip(x.tolist(), t.tolist(), dl.tolist()):
        largest = max(row)
        e = [exp(v - largest) for v in row]
        total = sum(e)
        losses.append(log(total) + largest - row[label])
        dx.append([upstream * (v / total - (c == label)) for c, v in enumerate(e)])
    return losses, dx
""",
    ),
    train=Train(_kernels, "mlp"),
)
