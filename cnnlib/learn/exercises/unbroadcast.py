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

Write ``unbroadcast(dy, shape)``: dy is the adjoint of an array after it was broadcast, shape the one that it had before, a
tuple. Return its adjoint, of that shape. This one function, called after every operation, is how an engine gets away with
backward rules that know nothing of broadcasting.

Source: lecture: backpropagation, automatic differentiation; NumPy's documentation on broadcasting.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train


def unbroadcast(dy, shape):
    new = dy.ndim - len(shape)
    stretched = [new + i for i, n in enumerate(shape) if n == 1]
    return dy.sum(axis=(*range(new), *stretched)).reshape(shape)


STARTER = '''import numpy as np


def unbroadcast(dy, shape):
    """dy, an adjoint, summed to ``shape``, which broadcasts to dy.shape."""
    ...
'''


def cases(rng):
    def case(large, small, *features):
        return Case((rng.standard_normal(large), small), features)

    return [
        case((4, 3), (3,), "a new axis"),
        case((4, 3), (4, 1), "a stretched axis"),
        case((2, 4, 3), (1, 3), "a new and a stretched axis"),
        case((4, 3), (4, 3), "nothing repeated"),
        case((2, 3), (), "a scalar"),
        case((3, 3), (3,), "a square", "a new axis"),
        case((3, 3), (3, 1), "a square", "a stretched axis"),
        case((2, 1, 5, 4), (1, 5, 1), "an axis of length 1 that nobody stretched"),
    ]


def _sum(dy, axes, keep=False):
    return dy.sum(axis=tuple(axes), keepdims=keep)


def _new_axes(dy, shape):
    return range(dy.ndim - len(shape))


EXERCISE = Exercise(
    number=11,
    name="unbroadcast",
    topic="lecture: backpropagation, automatic differentiation",
    function=unbroadcast,
    outputs=("dx",),
    starter=STARTER,
    cases=cases,
    numerical=Numerical(forward=lambda dy, shape, x: np.broadcast_to(x, dy.shape), wrt={"dx": "x"}, upstream=0),
    hints=(
        "Which axes does dy have that shape has not? NumPy puts them on the left, so there are dy.ndim − len(shape) of them, "
        "and they come first.",
        "After those are summed away, the axes line up: sum over each where shape has a 1, with keepdims=True, so that the "
        "others stay where they are.",
        "new = dy.ndim - len(shape); dy = dy.sum(axis=tuple(range(new))); then dy.sum(axis=tuple(i for i, n in "
        "enumerate(shape) if n == 1), keepdims=True)",
    ),
    question="A convolution's bias (F,) is added to y (N, F, H, W). It is stored as (F,), used as (F, 1, 1). What is its "
    "gradient, and why is it often large?",
    answer="db = Σ over n, h, w of dy: two stretched axes and a new one. It collects N·H·W messages, a hundred thousand for "
    "a batch of 100 pictures of 32×32, where a weight of a fully connected layer collects N. In batch norm the same sums "
    "appear as dbeta.",
    link="cnnlib/tape.py",
    explanations=(
        Explanation(
            "average",
            "you average where you must sum: each copy of the value sends its own message, and all of them count in full.",
            lambda dy, shape: unbroadcast(dy, shape) * (np.prod(shape) / dy.size),
        ),
        Explanation(
            "new axes only",
            "you sum over the axes that were added on the left only: an axis of length 1 that was stretched must be summed "
            "as well (and kept, with length 1).",
            lambda dy, shape: _sum(dy, _new_axes(dy, shape)),
        ),
        Explanation(
            "stretched axes only",
            "you sum over the stretched axes only: axes that shape does not have were added on the left, and must be summed "
            "away.",
            lambda dy, shape: _sum(dy, [i + dy.ndim - len(shape) for i, n in enumerate(shape) if n == 1], keep=True),
        ),
        Explanation(
            "one copy",
            "you take the message of one copy only: all copies send one, and they add up.",
            lambda dy, shape: dy[
                (*(0 for _ in _new_axes(dy, shape)), *(slice(0, 1) if n == 1 else slice(None) for n in shape))
            ],
        ),
        Explanation(
            "keepdims lost",
            "you summed over the right axes, but a stretched axis must stay, with length 1: keepdims=True, or reshape(shape).",
            lambda dy, shape: _sum(
                dy, [*_new_axes(dy, shape), *(i + dy.ndim - len(shape) for i, n in enumerate(shape) if n == 1)]
            ),
        ),
        Explanation(
            "from the right",
            "you took the missing axes from the right end of dy: NumPy adds them on the left.",
        ),
        Explanation(
            "reshape",
            "you cut a piece of the right size out of dy: nothing may be thrown away, sum over what was repeated.",
            lambda dy, shape: dy.ravel()[: int(np.prod(shape))].reshape(shape),
        ),
        Explanation(
            "first axis only",
            "you always sum over the first axis, as for a bias: which axes were repeated depends on the two shapes.",
            lambda dy, shape: dy.sum(axis=0),
        ),
    ),
    mutants=(
        Mutant("dy.sum(", "dy.mean(", says="average"),
        Mutant(
            "    return dy.sum(axis=(*range(new), *stretched)).reshape(shape)",
            "    return dy.sum(axis=tuple(range(new)))",
            says="new axes only",
        ),
        Mutant(
            "dy.sum(axis=(*range(new), *stretched)).reshape(shape)",
            "dy.sum(axis=tuple(stretched), keepdims=True)",
            says="stretched axes only",
        ),
        Mutant(".reshape(shape)", "", says="keepdims lost"),
        Mutant(
            "dy.sum(axis=(*range(new), *stretched)).reshape(shape)",
            "dy.ravel()[: int(np.prod(shape))].reshape(shape)",
            says="reshape",
        ),
        Mutant(
            "dy.sum(axis=(*range(new), *stretched)).reshape(shape)",
            "dy[(*(0,) * new, *(slice(0, 1) if n == 1 else slice(None) for n in shape))]",
            says="one copy",
        ),
        Mutant("dy.sum(axis=(*range(new), *stretched)).reshape(shape)", "dy.sum(axis=0)", says="first axis only"),
        Mutant(
            "    return dy.sum(axis=(*range(new), *stretched)).reshape(shape)",
            "    dy = dy.sum(axis=tuple(range(len(shape), dy.ndim)))\n"
            "    return dy.sum(axis=tuple(i - new for i in stretched), keepdims=True)",
            says="from the right",
        ),
    ),
    alternatives=(
        """def unbroadcast(dy, shape):
    while dy.ndim > len(shape):
        dy = dy.sum(axis=0)
    for axis, length in enumerate(shape):
        if length < dy.shape[axis]:
            dy = dy.sum(axis=axis, keepdims=True)
    return dy
""",
    ),
    train=Train(lambda f: {"linear_backward_bias": lambda dy: f(dy, dy.shape[1:])}, "mlp"),
)
