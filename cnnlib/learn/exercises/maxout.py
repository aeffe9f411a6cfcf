"""Maxout: an activation that is learnt

Why should we choose the activation? A maxout unit has several linear pieces, and its output is the largest of them. The
lecture writes it with two: max(w₁ᵀx + b₁, w₂ᵀx + b₂).

    z[n, o, p] = Σ_i w[o, p, i] x[n, i] + b[o, p]        y[n, o] = max_p z[n, o, p]

    x (N, I)    w (O, P, I)    b (O, P)    dy, y (N, O)        O units of P pieces

With two pieces, one of them all zeros, it is a ReLU. With w₂ = −w₁ it is the absolute value. With many it bends into any
convex curve you like, and it never saturates: some piece is always on, with a slope of its own.

Backward is a matter of "who won?", as in max pooling. For each sample and unit one piece made y, and it alone gets dy;
the others did not matter. From there it is a linear layer, in which a piece that never won learns nothing:

    dz[n, o, p] = dy[n, o] if p won, else 0        (the first of several equal ones wins)
    dw[o, p, i] = Σ_n dz[n, o, p] x[n, i]      db[o, p] = Σ_n dz[n, o, p]      dx[n, i] = Σ_o Σ_p dz[n, o, p] w[o, p, i]

Write maxout_layer_backward. You get x, w and b, and find out who won by computing z again.

Source: lecture: activations; Goodfellow, Warde-Farley, Mirza, Courville & Bengio, "Maxout networks", 2013.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import maxout_backward, maxout_forward
from cnnlib.ops.linear import linear_backward_bias, linear_backward_input, linear_backward_weight, linear_forward


def maxout_layer_backward(dy, x, w, b):
    units, pieces, inputs = w.shape
    rows = w.reshape(units * pieces, inputs)  # all pieces as one linear layer
    z = linear_forward(x, rows, b.reshape(-1))
    argmax = maxout_forward(z.reshape(-1, pieces, 1))[1]  # (N·O, P, 1) -> (N·O, 1)
    dz = maxout_backward(dy.reshape(-1, 1), argmax, pieces).reshape(z.shape)
    dw, db = linear_backward_weight(dz, x), linear_backward_bias(dz)
    return linear_backward_input(dz, rows), dw.reshape(w.shape), db.reshape(b.shape)


def forward(dy, x, w, b):
    return (np.einsum("ni,opi->nop", x, w) + b).max(axis=2)


def cases(rng):
    def case(N, units, pieces, inputs, *features):
        while True:
            x, w, b = (rng.standard_normal(shape) for shape in ((N, inputs), (units, pieces, inputs), (units, pieces)))
            z = np.sort(np.einsum("ni,opi->nop", x, w) + b, axis=2)
            if pieces == 1 or (z[..., -1] - z[..., -2]).min() > 0.01:  # nobody wins by a hair
                return Case((rng.standard_normal((N, units)), x, w, b), features)

    tied = case(3, 2, 3, 2, "ties")
    tied.args[2][:, 1:], tied.args[3][:, 1:] = tied.args[2][:, :1], tied.args[3][:, :1]
    relu = case(6, 3, 2, 4, "ReLU: one piece of zeros")
    relu.args[2][:, 1], relu.args[3][:, 1] = 0.0, 0.0
    return [
        case(5, 3, 2, 4),
        case(1, 2, 3, 5, "N = 1"),
        case(6, 3, 4, 2, "4 pieces"),
        case(4, 4, 1, 3, "1 piece: a linear layer"),
        case(3, 1, 3, 4, "1 unit"),
        relu,
        tied,
    ]


def kernels(f):
    def backward(dy, argmax, pieces):
        """dz, by a layer of one sample with the input 1: there db is dz, and z is 1 for the winner, 0 for the others."""
        units = argmax.reshape(-1)
        won = (units[:, None] == np.arange(pieces)).astype(dy.dtype)
        dz = np.asarray(f(dy.reshape(1, -1), np.ones((1, 1), dy.dtype), won[:, :, None], np.zeros_like(won))[2], dy.dtype)
        return np.ascontiguousarray(dz.reshape(*argmax.shape, pieces).swapaxes(1, 2))

    return {"maxout_backward": backward}


LOOPS = """\
import numpy as np


def maxout_layer_backward(dy, x, w, b):
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    for n in range(x.shape[0]):
        for o in range(w.shape[0]):
            p = np.argmax(w[o] @ x[n] + b[o])
            dx[n] += dy[n, o] * w[o, p]
            dw[o, p] += dy[n, o] * x[n]
            db[o, p] += dy[n, o]
    return dx, dw, db
"""

ONE_HOT = """\
import numpy as np


def maxout_layer_backward(dy, x, w, b):
    z = np.tensordot(x, w, axes=(1, 2)) + b
    dz = np.eye(w.shape[1])[z.argmax(-1)] * dy[:, :, None]
    return np.einsum("nop,opi->ni", dz, w), np.einsum("nop,ni->opi", dz, x), np.einsum("nop->op", dz)
"""


def first_piece_learns(dy, x, w, b):
    dx, dw, db = maxout_layer_backward(dy, x, w, b)
    first = np.eye(w.shape[1])[0][:, None]
    return dx, first * dw.sum(axis=1, keepdims=True), first[:, 0] * db.sum(axis=1, keepdims=True)


def first_pieces_dw(dy, x, w, b):
    dx, _, db = maxout_layer_backward(dy, x, w, b)
    return dx, first_piece_learns(dy, x, w, b)[1], db


def all_ties_win(dy, x, w, b):
    z = np.einsum("opi,ni->nop", w, x) + b
    dz = dy[:, :, None] * (z == z.max(axis=2, keepdims=True))
    return np.einsum("nop,opi->ni", dz, w), np.einsum("nop,ni->opi", dz, x), dz.sum(axis=0)


EXERCISE = Exercise(
    number=20,
    name="maxout",
    topic="lecture: activations",
    function=maxout_layer_backward,
    uses=(linear_forward, linear_backward_input, linear_backward_weight, linear_backward_bias, maxout_forward, maxout_backward),
    outputs=("dx", "dw", "db"),
    starter='''\
import numpy as np


def maxout_layer_backward(dy, x, w, b):
    """dy (N, O), x (N, I), w (O, P, I), b (O, P) -> dx (N, I), dw (O, P, I), db (O, P)."""
    # 1. z (N, O, P), and which piece of each unit is the largest
    # 2. dz (N, O, P): dy at the winners, 0 elsewhere
    # 3. the linear layer's three gradients
    ...
''',
    cases=cases,
    numerical=Numerical(forward, wrt={"dx": 1, "dw": 2, "db": 3}, upstream=0),
    hints=(
        "One sample and one unit: z = w[o] @ x[n] + b[o] has P numbers. Who is the largest? Only this piece's weights hear "
        "of dy[n, o].",
        "Two loops, over n and o, and three lines of +=. Or without loops: np.einsum('ni,opi->nop', x, w) makes all z at once.",
        "p = np.argmax(w[o] @ x[n] + b[o])\ndx[n] += dy[n, o] * w[o, p];  dw[o, p] += dy[n, o] * x[n];  db[o, p] += dy[n, o]",
    ),
    question="All pieces of a unit start with the same weights. What happens in training?",
    answer="All are equally large for every sample, the first one wins each time and gets all gradients; it moves, the "
    "others stay where they are, and win only where the moved one falls below them. The unit may still learn, but slowly, "
    "and with fewer pieces than were paid for: one more reason for random initial weights.",
    link="cnnlib/ops/activation.py",
    explanations=(
        Explanation(
            "first piece learns",
            "your dw and db go to the first piece of every unit: they belong to the one that won.",
            first_piece_learns,
        ),
        Explanation(
            "first piece's dw",
            "your dw goes to the first piece of every unit: it belongs to the one that won.",
            first_pieces_dw,
        ),
        Explanation("last tie", "of several equal pieces your last one wins: here the first one does."),
        Explanation(
            "ties all win",
            "of several equal pieces each gets dy in yours, which counts it more than once: only the first one wins.",
            all_ties_win,
        ),
        Explanation("all pieces learn", "you give dy to all pieces of a unit: only the winner made y, the others get 0."),
        Explanation("smallest piece", "you give dy to the smallest piece: y is the largest."),
        Explanation("largest in size", "you look for the largest absolute value: a piece of −3 is smaller than one of 2."),
        Explanation("winner without bias", "you find the winner without the bias: z = w x + b decides."),
        Explanation("bias learns everywhere", "your db gives dy to all pieces: only the winner's bias was in y."),
        Explanation("shared equally", "you share dy equally among the pieces, as a mean would: the largest takes all."),
        Explanation("one sample in dw", "your dw comes from the first sample only: sum over the batch."),
        Explanation(
            "first piece's weights", "your dx goes through the first piece of every unit: it must go through the one that won."
        ),
        Explanation("softmax", "you deal dy out by a softmax over the pieces: max is not soft, the winner takes all."),
        Explanation("winner of the batch", "you choose one winner per unit for the whole batch: each sample has its own."),
    ),
    mutants=(
        Mutant("argmax = x.argmax(axis=1)", "argmax = x.shape[1] - 1 - x[:, ::-1].argmax(axis=1)", "last tie"),
        Mutant("return np.where(won, dy[:, None], 0.0)", "return np.where(won | True, dy[:, None], 0.0)", "all pieces learn"),
        Mutant("argmax = x.argmax(axis=1)", "argmax = x.argmin(axis=1)", "smallest piece"),
        Mutant("argmax = x.argmax(axis=1)", "argmax = abs(x).argmax(axis=1)", "largest in size"),
        Mutant("linear_forward(x, rows, b.reshape(-1))", "linear_forward(x, rows, None)", "winner without bias"),
        Mutant("db.reshape(b.shape)", "dy.sum(axis=0)[:, None] + 0 * b", "bias learns everywhere"),
        Mutant(
            "return np.where(won, dy[:, None], 0.0)", "return np.where(won | True, dy[:, None], 0.0) / pieces", "shared equally"
        ),
        Mutant("return dy.T @ x", "return dy[:1].T @ x[:1]", "one sample in dw"),
        Mutant("return linear_backward_input(dz, rows)", "return dy @ w[:, 0]", "first piece's weights"),
        Mutant(
            "dz = maxout_backward(dy.reshape(-1, 1), argmax, pieces).reshape(z.shape)",
            "e = np.exp(z.reshape(*dy.shape, pieces))\n"
            "    dz = (dy[:, :, None] * e / e.sum(axis=2, keepdims=True)).reshape(z.shape)",
            "softmax",
        ),
        Mutant(
            "argmax = maxout_forward(z.reshape(-1, pieces, 1))[1]",
            "argmax = np.tile(z.sum(axis=0).reshape(-1, pieces).argmax(axis=1), len(x))[:, None]",
            "winner of the batch",
        ),
        Mutant("return dy.T @ x", "return -dy.T @ x", "sign"),
        Mutant("return dy.sum(axis=0)", "return dy.mean(axis=0)", "factor"),
        Mutant("maxout_backward(dy.reshape(-1, 1), argmax", "maxout_backward(np.ones((dy.size, 1)), argmax", "upstream"),
        Mutant("dw.reshape(w.shape), db", "dw, db", "shape"),
    ),
    equivalent={f"maxout_layer_backward: 1 -> 2{n}": "reshape takes -2 for -1" for n in ("", " #2", " #4", " #6")},
    alternatives=(LOOPS, ONE_HOT),
    train=Train(kernels, "maxout"),
)
