"""Un-broadcasting: what was repeated must be summed

NumPy adds a bias (3,) to a batch (4, 3) without being asked: it repeats the bias four times. Convenient forward, and the most
common bug backward: the adjoint that arrives has the shape (4, 3), the bias has the shape (3,), and somebody must make
three numbers out of twelve.

The chain rule says how. The one bias b_j stands in all four rows, y_nj = x_nj + b_j, so its message comes from all four:

    ∂J/∂b_j = Σ_n ∂J/∂y_nj · 1

The adjoint of repeating is summing. NumPy's rule repeats in two ways:

    (3,)      in  (4, 3)        axes that are missing on the left are put there         sum over the new axes
    (4, 1)    in  (4, 3)        an axis of length 1 is stretched                        sum over it, and keep it with length 1
    (1, 3)    in  (2, 4, 3)     both                                                    both

A worked one: dy = ((1, 2, 3), (10, 20, 30)) becomes (11, 22, 33) for shape (3,), ((6,), (60,)) for (2, 1), and 66 for ().

Write two functions:

    unbroadcast(dy, shape)          dy is the adjoint of an array after it was repeated, shape the one it had before, a tuple:
                                    returns the adjoint dx, of that shape
    multiply_backward(dy, a, b)     for y = a ⊙ b, where a and b are broadcast to the shape of y: returns da and db, of the
                                    shapes of a and b. ∂(ab)/∂a = b: first the product rule, then unbroadcast

With unbroadcast called after every operation, an engine's backward rules need not know of broadcasting at all.

Source: lecture: backpropagation, automatic differentiation; NumPy's documentation on broadcasting.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train


def unbroadcast(dy, shape):
    for _ in range(dy.ndim - len(shape)):
        dy = dy.sum(axis=0)  # an axis that was put on the left
    for axis, length in enumerate(shape):
        if length == 1:
            dy = dy.sum(axis=axis, keepdims=True)
    return dy


def multiply_backward(dy, a, b):
    da = unbroadcast(dy * b, a.shape)
    db = unbroadcast(dy * a, b.shape)
    return da, db


STARTER = '''import numpy as np


def unbroadcast(dy, shape):
    """dy, an adjoint, summed to ``shape``, which broadcasts to dy.shape."""
    ...


def multiply_backward(dy, a, b):
    """The adjoints of a and b for y = a * b, with broadcasting."""
    ...
'''


def cases(rng):
    def adjoint(large, small, *features):
        return Case((rng.standard_normal(large), small), features)

    def product(a, b, *features):
        y = np.broadcast_shapes(a, b)
        return Case(tuple(rng.standard_normal(shape) for shape in (y, a, b)), features, "multiply_backward")

    return [
        adjoint((4, 3), (3,), "a new axis"),
        adjoint((4, 3), (4, 1), "a stretched axis"),
        adjoint((2, 4, 3), (1, 3), "a new and a stretched axis"),
        adjoint((4, 3), (4, 3), "nothing repeated"),
        adjoint((2, 3), (), "a scalar"),
        adjoint((3, 3), (3,), "a square", "a new axis"),
        adjoint((3, 3), (3, 1), "a square", "a stretched axis"),
        adjoint((2, 1, 5, 4), (1, 5, 1), "an axis of length 1 that nobody stretched"),
        product((4, 3), (4, 3), "nothing repeated"),
        product((4, 3), (3,), "b repeated"),
        product((1, 3), (2, 4, 1), "both repeated"),
        product((3,), (3, 1), "both repeated", "a square"),
    ]


def _axes(dy, shape):
    """(new, stretched) axes of dy."""
    new = dy.ndim - len(shape)
    return tuple(range(new)), tuple(new + i for i, n in enumerate(shape) if n == 1)


def _one_copy(dy, shape):
    new, stretched = _axes(dy, shape)
    return dy[tuple(0 if i in new else slice(0, 1) if i in stretched else slice(None) for i in range(dy.ndim))]


EXERCISE = Exercise(
    number=11,
    name="unbroadcast",
    topic="lecture: backpropagation, automatic differentiation",
    function=(unbroadcast, multiply_backward),
    outputs={"unbroadcast": ("dx",), "multiply_backward": ("da", "db")},
    starter=STARTER,
    cases=cases,
    numerical=(
        Numerical(forward=lambda dy, shape, x: np.broadcast_to(x, dy.shape), wrt={"dx": "x"}, upstream=0),
        Numerical(forward=lambda dy, a, b: a * b, wrt={"da": 1, "db": 2}, upstream=0, function="multiply_backward"),
    ),
    hints=(
        "Which axes does dy have that shape has not? NumPy puts them on the left, so there are dy.ndim − len(shape) of them, "
        "and they come first.",
        "After those are summed away, the axes line up: sum over each where shape has a 1, with keepdims=True, so that the "
        "others stay where they are. In multiply_backward, dy * b has the shape of y already.",
        "for _ in range(dy.ndim - len(shape)): dy = dy.sum(axis=0); for axis, n in enumerate(shape): if n == 1: "
        "dy = dy.sum(axis=axis, keepdims=True). And da = unbroadcast(dy * b, a.shape).",
    ),
    question="A convolution's bias (F,) is added to y (N, F, H, W). It is stored as (F,), used as (F, 1, 1). What is its "
    "gradient, and why is it often large?",
    answer="db = Σ over n, h, w of dy: two stretched axes and a new one. It collects N·H·W messages, a hundred thousand for a "
    "batch of 100 pictures of 32×32, where a weight of a fully connected layer collects N. In batch norm the same sums appear "
    "as dbeta.",
    link="cnnlib/tape.py",
    explanations=(
        Explanation(
            "average",
            "you average where you must sum: each copy of the value sends its own message, and all of them count in full.",
            lambda dy, shape: unbroadcast(dy, shape) * (np.prod(shape) / dy.size),
        ),
        Explanation(
            "new axes only",
            "you sum over the axes that were added on the left only: an axis of length 1 that was stretched must be summed as "
            "well (and kept, with length 1).",
            lambda dy, shape: dy.sum(axis=_axes(dy, shape)[0]),
        ),
        Explanation(
            "stretched axes only",
            "you sum over the stretched axes only: axes that shape does not have were added on the left, and must be summed "
            "away.",
            lambda dy, shape: dy.sum(axis=_axes(dy, shape)[1], keepdims=True),
        ),
        Explanation(
            "one copy",
            "you take the message of one copy only: all copies send one, and they add up.",
            _one_copy,
        ),
        Explanation(
            "keepdims lost",
            "you summed over the right axes, but a stretched axis must stay, with length 1: keepdims=True, or reshape(shape).",
            lambda dy, shape: dy.sum(axis=sum(_axes(dy, shape), ())),
        ),
        Explanation(
            "from the right",
            "you sum away the axes on the right end of dy: NumPy adds the missing ones on the left.",
            lambda dy, shape: unbroadcast(dy.sum(axis=tuple(range(len(shape), dy.ndim))), shape),
        ),
        Explanation(
            "cut",
            "you cut a piece of the right size out of dy: nothing may be thrown away, sum over what was repeated.",
            lambda dy, shape: dy.ravel()[: int(np.prod(shape))].reshape(shape),
        ),
        Explanation(
            "first axis only",
            "you always sum over the first axis, as for a bias: which axes were repeated depends on the two shapes.",
            lambda dy, shape: dy.sum(axis=0),
        ),
        Explanation(
            "all",
            "you sum over everything: only what was repeated is summed, the other axes stay.",
            lambda dy, shape: np.full(shape, dy.sum()),
        ),
        Explanation(
            "own factor",
            "your product sends back the factor itself: for y = a b the derivative by a is b, the *other* one.",
            lambda dy, a, b: (
                unbroadcast(dy * np.broadcast_to(a, dy.shape), a.shape),
                unbroadcast(dy * np.broadcast_to(b, dy.shape), b.shape),
            ),
            function="multiply_backward",
        ),
        Explanation(
            "summed too early",
            "you unbroadcast dy before you multiply: each copy has a partner of its own in the other factor, so multiply "
            "first, then sum.",
            lambda dy, a, b: (
                unbroadcast(np.broadcast_to(unbroadcast(dy, a.shape), dy.shape) * b, a.shape),
                unbroadcast(np.broadcast_to(unbroadcast(dy, b.shape), dy.shape) * a, b.shape),
            ),
            function="multiply_backward",
        ),
        Explanation(
            "not unbroadcast",
            "your adjoints have the shape of y: sum each to the shape of its factor with your unbroadcast.",
            lambda dy, a, b: (dy * b, dy * a),
            function="multiply_backward",
        ),
        Explanation(
            "sum rule",
            "your product hands dy on as a sum would: for y = a b it is multiplied with the other factor.",
            lambda dy, a, b: (unbroadcast(dy, a.shape), unbroadcast(dy, b.shape)),
            function="multiply_backward",
        ),
    ),
    mutants=(
        Mutant(
            "def unbroadcast(dy, shape):\n",
            "def unbroadcast(dy, shape):\n    dy = dy * np.prod(shape) / dy.size\n",
            says="average",
        ),
        Mutant(
            "    for axis, length in enumerate(shape):\n        if length == 1:\n            dy = dy.sum(axis=axis, "
            "keepdims=True)\n",
            "",
            says="new axes only",
        ),
        Mutant(
            "    for _ in range(dy.ndim - len(shape)):\n        dy = dy.sum(axis=0)  # an axis that was put on the left\n",
            "",
            says="stretched axes only",
        ),
        Mutant(
            "        dy = dy.sum(axis=0)  # an axis that was put on the left\n    for axis, length in enumerate(shape):\n "
            "       if length == 1:\n            dy = dy.sum(axis=axis, keepdims=True)\n",
            " "
            "       dy = dy[0]\n    for axis, length in enumerate(shape):\n        if length == 1:\n            dy = "
            "dy.take([0], axis=axis)\n",
            says="one copy",
        ),
        Mutant(
            "    for axis, length in enumerate(shape):\n        if length == 1:\n            dy = dy.sum(axis=axis, "
            "keepdims=True)\n",
            "    dy = dy.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1))\n",
            says="keepdims lost",
        ),
        Mutant("dy.sum(axis=0)", "dy.sum(axis=-1)", says="from the right"),
        Mutant(
            "def unbroadcast(dy, shape):\n",
            "def unbroadcast(dy, shape):\n    return dy.ravel()[: int(np.prod(shape))].reshape(shape)\n",
            says="cut",
        ),
        Mutant(
            "def unbroadcast(dy, shape):\n", "def unbroadcast(dy, shape):\n    return dy.sum(axis=0)\n", says="first axis only"
        ),
        Mutant(
            "def unbroadcast(dy, shape):\n", "def unbroadcast(dy, shape):\n    return np.full(shape, dy.sum())\n", says="all"
        ),
        Mutant(
            "    da = unbroadcast(dy * b, a.shape)\n    db = unbroadcast(dy * a, b.shape)\n",
            "    da = unbroadcast(dy * "
            "np.broadcast_to(a, dy.shape), a.shape)\n    db = unbroadcast(dy * np.broadcast_to(b, dy.shape), b.shape)\n",
            says="own factor",
        ),
        Mutant(
            "    da = unbroadcast(dy * b, a.shape)\n    db = unbroadcast(dy * a, b.shape)\n",
            "    da = unbroadcast(unbroadcast(dy, a.shape) * np.broadcast_to(b, dy.shape), a.shape)\n    db = "
            "unbroadcast(unbroadcast(dy, b.shape) * np.broadcast_to(a, dy.shape), b.shape)\n",
            says="summed too early",
        ),
        Mutant(
            "    da = unbroadcast(dy * b, a.shape)\n    db = unbroadcast(dy * a, b.shape)\n",
            "    da, db = dy * b, dy * a\n",
            says="not unbroadcast",
        ),
        Mutant(
            "    da = unbroadcast(dy * b, a.shape)\n    db = unbroadcast(dy * a, b.shape)\n",
            "    da, db = unbroadcast(dy, a.shape), unbroadcast(dy, b.shape)\n",
            says="sum rule",
        ),
        Mutant("return da, db", "return db, da", says="swapped"),
        Mutant("unbroadcast(dy * b, a.shape)", "unbroadcast(0 * dy + b, a.shape)", says="upstream"),
    ),
    alternatives=(
        """import numpy as np


def unbroadcast(dy, shape):
    padded = (1,) * (dy.ndim - len(shape)) + shape
    repeated = tuple(i for i in range(dy.ndim) if padded[i] == 1)
    return np.sum(dy, axis=repeated).reshape(shape)


def multiply_backward(dy, a, b):
    return tuple(unbroadcast(np.multiply(dy, other), own.shape) for own, other in ((a, b), (b, a)))
""",
    ),
    train=Train(lambda f: {"linear_backward_bias": lambda dy: f[0](dy, dy.shape[1:])}, "mlp"),
)
