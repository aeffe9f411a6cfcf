"""Dropout and DropConnect: learning with half of the brain

A network that may rely on every unit learns conspiracies: this unit is right as long as that one is wrong. Dropout ends
them: in training, each unit is switched off with probability p, afresh for every sample. Nobody can count on anybody, and
one network trains as a crowd of thinned ones. DropConnect does it to the weights: each connection is cut with probability p.

    m_i = 1 where u_i ≥ p, else 0                        u_i uniform in [0, 1): P(m_i = 0) = p
    dropout      y = m ⊙ x / (1 − p)                     in evaluation: y = x
    DropConnect  y = x Vᵀ + b,  V = m ⊙ W / (1 − p)      one mask for the whole batch

    x (N, I)    W (O, I)    b (O,)    u as large as what it masks

Dividing by 1 − p ("inverted" dropout) keeps the mean: E[y] = x. So nothing has to be done in evaluation, which is the
moment that everybody forgets. In the lecture's and Hinton's first version it was the other way: no division, and all weights
times 1 − p in the end.

Backward there is nothing new. The mask is a constant, so dropout is a multiplication by a constant, and DropConnect is a
linear layer with the weights V. Only one thing can go wrong, and it does: backward must use the mask of forward. A fresh one
sends the gradient to units that were silent. That is why both functions are handed the same random numbers u, instead of
drawing them.

Write all four. None needs more than three lines.

Source: lecture: regularisation; Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout", 2014; Wan, Zeiler,
Zhang, LeCun & Fergus, "Regularization of neural networks using DropConnect", 2013.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.linear import linear_backward_bias, linear_backward_input, linear_backward_weight, linear_forward
from cnnlib.random import philox_words


def mask(u, p):
    return (u >= p) / (1.0 - p)


def dropout(x, u, p, training):
    return x * mask(u, p) if training else x


def dropout_backward(dy, u, p):
    return dy * mask(u, p)


def dropconnect(x, w, b, u, p):
    return linear_forward(x, w * mask(u, p), b)


def dropconnect_backward(dy, x, w, u, p):
    m = mask(u, p)
    dv = linear_backward_weight(dy, x)
    return linear_backward_input(dy, w * m), dv * m, linear_backward_bias(dy)


def cases(rng):
    x, b = rng.standard_normal((5, 8)), rng.standard_normal(3)
    w, dy, u, v = rng.standard_normal((3, 8)), rng.standard_normal((5, 3)), rng.random((5, 8)), rng.random((3, 8))
    image = rng.standard_normal((2, 3, 4, 4))
    return [
        Case((x, u, 0.5, True), (), "dropout"),
        Case((x, u, 0.5, False), ("evaluation",), "dropout"),
        Case((image, rng.random(image.shape), 0.2, True), ("p ≠ ½", "images"), "dropout"),
        Case((rng.standard_normal((5, 8)), u, 0.5), (), "dropout_backward"),
        Case((image, rng.random(image.shape), 0.8), ("p ≠ ½", "images"), "dropout_backward"),
        Case((x, w, b, v, 0.5), (), "dropconnect"),
        Case((x[:1], w, b, v, 0.3), ("p ≠ ½", "N = 1"), "dropconnect"),
        Case((dy, x, w, v, 0.5), (), "dropconnect_backward"),
        Case((dy[:1], x[:1], w, v, 0.3), ("p ≠ ½", "N = 1"), "dropconnect_backward"),
    ]


def forward(dy, u, p, x=None):
    return dropout(x, u, p, True)


def connected_forward(dy, x, w, u, p, b=None):
    return dropconnect(x, w, 0.0 if b is None else b, u, p)


def kernels(functions):
    def forward(x, p, key):
        u = (philox_words(key, x.size) / 2.0**32).reshape(x.shape)
        return np.asarray(functions[0](x, u, p, True), x.dtype), np.packbits(u >= p, bitorder="little")

    def backward(dy, keep, p):
        u = np.unpackbits(keep, bitorder="little")[: dy.size].reshape(dy.shape) * 1.0  # 1 where kept, 0 where not
        return np.asarray(functions[1](dy, u, p), dy.dtype)

    return {"dropout_forward": forward, "dropout_backward": backward}


WHERE = """\
import numpy as np


def dropout(x, u, p, training):
    y = x.copy()
    if training:
        y[u < p] = 0
        y /= 1 - p
    return y


def dropout_backward(dy, u, p):
    return np.where(u < p, 0, dy / (1 - p))


def dropconnect(x, w, b, u, p):
    y = np.empty((x.shape[0], w.shape[0]))
    for n, row in enumerate(x):
        for o in range(w.shape[0]):
            kept = u[o] >= p
            y[n, o] = b[o] + row[kept] @ w[o, kept] / (1 - p)
    return y


def dropconnect_backward(dy, x, w, u, p):
    kept = np.where(u < p, 0, 1 / (1 - p))
    dw = np.einsum("no,ni,oi->oi", dy, x, kept)
    return np.einsum("no,oi,oi->ni", dy, w, kept), dw, dy.sum(0)
"""

EXERCISE = Exercise(
    number=19,
    name="dropout",
    topic="lecture: regularisation",
    function=(dropout, dropout_backward, dropconnect, dropconnect_backward),
    uses=(mask, linear_forward, linear_backward_input, linear_backward_weight, linear_backward_bias),
    outputs={"dropout": ("y",), "dropout_backward": ("dx",), "dropconnect": ("y",), "dropconnect_backward": ("dx", "dw", "db")},
    starter='''\
import numpy as np


def dropout(x, u, p, training):
    """x and u (uniform random numbers) of one shape -> y of that shape. In evaluation (training = False) nothing is dropped."""
    ...


def dropout_backward(dy, u, p):
    """dy and the u of forward, of one shape -> dx of that shape."""
    ...


def dropconnect(x, w, b, u, p):
    """x (N, I), w and u (O, I), b (O,) -> y (N, O), with connections cut where u < p."""
    ...


def dropconnect_backward(dy, x, w, u, p):
    """dy (N, O), x (N, I), w and u (O, I) -> dx (N, I), dw (O, I), db (O,)."""
    ...
''',
    cases=cases,
    numerical=(
        Numerical(forward, wrt={"dx": "x"}, upstream=0, function="dropout_backward"),
        Numerical(connected_forward, wrt={"dx": 1, "dw": 2, "db": "b"}, upstream=0, function="dropconnect_backward"),
    ),
    hints=(
        "u >= p is an array of booleans: True where a unit is kept. Multiplied with a float it counts as 1 and 0.",
        "Make one array kept = (u >= p) / (1 - p), and dropout is x * kept. For DropConnect put v = w * kept in place of w, "
        "and write the linear layer that you know.",
        "kept = (u >= p) / (1 - p)\n"
        "dropout_backward:  dx = dy * kept\n"
        "dropconnect_backward:  dx = dy @ (w * kept),  dw = (dy.T @ x) * kept,  db = dy.sum(axis=0)",
    ),
    question="With p = ½ and a layer of 100 units: how many thinned networks are there, and what does the full network in "
    "evaluation have to do with them?",
    answer="2¹⁰⁰, which share their weights; each mini-batch trains a few. The full network stands in for their average. "
    "For one linear layer with a softmax it is exactly the (normalised) geometric mean of the thinned networks' "
    "predictions; with more layers, a good approximation. Keep dropping in evaluation and average many passes, and you have "
    "Monte Carlo dropout: the spread says how sure the network is.",
    link="cnnlib/ops/dropout.py",
    explanations=(
        Explanation("other elements", "you keep the right share, but not these elements: u is kept where u ≥ p."),
        Explanation(
            "first version",
            "this is dropout's first version, 1 − p in evaluation: here training divides by 1 − p, and evaluation is y = x.",
            lambda x, u, p, training: x * (u >= p) if training else x * (1.0 - p),
        ),
        Explanation(
            "unscaled", "your dropout does not divide by 1 − p: what is kept must be scaled up, so that the mean stays x."
        ),
        Explanation(
            "unscaled backward",
            "your dropout_backward does not divide by 1 − p: forward multiplied by m / (1 − p), so backward does, too.",
        ),
        Explanation("divided by p", "you divide by p, but the share that is kept is 1 − p."),
        Explanation(
            "kept and dropped exchanged",
            "you drop what should be kept: p is the probability of a zero, so an element is kept where u ≥ p.",
        ),
        Explanation("dropped in evaluation", "you drop in evaluation, too: with training=False, y is x itself."),
        Explanation(
            "scaled in evaluation",
            "you multiply by 1 − p in evaluation: that belongs to dropout without division in training; here y = x.",
        ),
        Explanation(
            "mask redrawn",
            "your backward draws a mask of its own: it must be the one of forward, u ≥ p, or the gradient reaches units "
            "that were silent.",
        ),
        Explanation(
            "backward not masked",
            "your dropout_backward lets the gradient through everywhere: a dropped unit did not change y, so its dx is 0.",
        ),
        Explanation(
            "activations masked",
            "your DropConnect drops outputs (that is dropout): the mask belongs to the weights, and has their shape.",
        ),
        Explanation(
            "dw not masked", "your dw is not masked: a connection that was cut did not change y, so its gradient is 0."
        ),
        Explanation(
            "dx through cut weights", "your dx goes through w: forward used V = m ⊙ W / (1 − p), and so must backward."
        ),
        Explanation("dw not scaled", "your dw lacks 1 / (1 − p): V = m ⊙ W / (1 − p)."),
        Explanation(
            "one mask for all", "you use the first sample's mask for all: u has a random number for every element of x."
        ),
        Explanation("bias scaled", "your bias is divided by 1 − p, too: only the connections are masked and scaled."),
    ),
    mutants=(
        Mutant("(u >= p) / (1.0 - p)", "(u < 1.0 - p) / (1.0 - p)", "other elements"),
        Mutant("return x * mask(u, p)", "return x * (u >= p)", "unscaled"),
        Mutant(
            "return x * mask(u, p) if training else x",
            "return x * (u >= p) if training else x * (1.0 - p)",
            "first version",
        ),
        Mutant("return dy * mask(u, p)", "return dy * (u >= p)", "unscaled backward"),
        Mutant("(u >= p) / (1.0 - p)", "(u >= p) / p", "divided by p"),
        Mutant("(u >= p) / (1.0 - p)", "(u < p) / (1.0 - p)", "kept and dropped exchanged"),
        Mutant("x * mask(u, p) if training else x", "x * mask(u, p)", "dropped in evaluation"),
        Mutant("if training else x", "if training else x * (1.0 - p)", "scaled in evaluation"),
        Mutant("return dy * mask(u, p)", "return dy * mask(np.random.default_rng(0).random(dy.shape), p)", "mask redrawn"),
        Mutant("return dy * mask(u, p)", "return dy", "backward not masked"),
        Mutant("linear_forward(x, w * mask(u, p), b)", "linear_forward(x, w, b) * mask(u[:, 0], p)", "activations masked"),
        Mutant("dv * m,", "dv,", "dw not masked"),
        Mutant("linear_backward_input(dy, w * m)", "linear_backward_input(dy, w)", "dx through cut weights"),
        Mutant("dv * m,", "dv * (u >= p),", "dw not scaled"),
        Mutant("return x * mask(u, p)", "return x * mask(u[:1], p)", "one mask for all"),
        Mutant("linear_forward(x, w * mask(u, p), b)", "linear_forward(x, w * mask(u, p), b / (1.0 - p))", "bias scaled"),
        Mutant("return dy.sum(axis=0)", "return dy.mean(axis=0)", "factor"),
        Mutant("return dy.T @ x", "return -dy.T @ x", "sign"),
    ),
    alternatives=(WHERE,),
    train=Train(kernels, "dropout"),
)
