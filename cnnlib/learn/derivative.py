"""The same derivative by differences, so that neither the reference nor the learner has to be believed.

Central differences with Richardson's extrapolation: the errors of D(h) = (J(x + h) − J(x − h)) / 2h go with h², h⁴ …, and three
step widths remove the first two. Near a kink the three disagree, which is reported instead of a wrong number.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Numerical

STEP = 1e-3


class Kink(ArithmeticError):
    """Differences of several widths disagree: the function is not smooth here."""


def numericals(exercise: Exercise) -> tuple[Numerical, ...]:
    n = exercise.numerical
    return n if isinstance(n, tuple) else (n,) if n is not None else ()


def numerical_of(exercise: Exercise, case: Case, output: str) -> Numerical | None:
    """How this output is found numerically; None where the exercise does not say, and at kinks."""
    for n in numericals(exercise):
        if (n.function or exercise.function_names[0]) == case.function and output in n.wrt:
            return None if case.kink or "ties" in case.features else n
    return None


def element(numerical: Numerical, case: Case, output: str, shape: tuple[int, ...], index: tuple[int, ...]) -> float:
    """∂J/∂(the argument behind ``output``) at ``index``. Raises Kink."""
    direction = np.zeros(shape)
    direction[index] = 1.0
    return along(numerical, case, output, direction)


def along(numerical: Numerical, case: Case, output: str, direction: np.ndarray) -> float:
    """The derivative of J in a direction of the argument behind ``output``. Raises Kink."""
    where = numerical.wrt[output]

    def objective(step: float) -> float:
        args, extra = list(copy.deepcopy(case.args)), {}
        if isinstance(where, str):
            extra[where] = step * direction
        else:
            args[where] = args[where] + step * direction
        with np.errstate(all="ignore"):
            return _scalar(numerical, numerical.forward(*args, **extra), case.args)

    return richardson(objective)


def richardson(f: Callable[[float], float], step: float = STEP) -> float:
    """f′(0) from differences of widths step, step/2 and step/4. Raises Kink where they or the two sides disagree."""
    d = [(f(h) - f(-h)) / (2 * h) for h in (step, step / 2, step / 4)]
    first, second = (4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3
    best = (16 * second - first) / 15
    size = max(1.0, abs(best))
    wide, narrow = (abs(f(h) - 2 * f(0.0) + f(-h)) / h for h in (step, step / 4))
    if not abs(second - first) <= 1e-5 * size or narrow > max(0.5 * wide, 1e-5 * size):  # a smooth f has narrow = wide / 4
        raise Kink(f"differences give {d[0]:.9g}, {d[1]:.9g}, {d[2]:.9g}, and the two sides differ by {narrow:.3g}")
    return best


def _scalar(numerical: Numerical, y: Any, args: tuple) -> float:
    if numerical.upstream is None:
        return float(np.sum(y))
    ups = numerical.upstream if isinstance(numerical.upstream, tuple) else (numerical.upstream,)
    ys = y if isinstance(y, tuple | list) else (y,)
    return float(sum(np.sum(np.asarray(v) * args[u]) for v, u in zip(ys, ups) if u is not None and args[u] is not None))
