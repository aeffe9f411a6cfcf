"""The file that `cnnlib learn template NAME` writes: an exercise that works, to be changed into one's own."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from cnnlib.errors import DataError, ValueRangeError

NUMBER = 101  # own exercises come after the library's

TEXT = '''"""The derivative of a scaled tanh

LeCun's networks of 1998 had neurons with a scaled hyperbolic tangent, whose output for ±1 is ±1:

    y = a tanh(b x)

You are given dy, the derivative of the loss with respect to y (the same shape as x), x, and the numbers a and b. Return dx.

Source: lecture: activation functions; LeCun et al., Efficient BackProp, 1998.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical

# Change it piece by piece, and after each piece: cnnlib learn verify NAME.py
# What the fields mean: cnnlib/learn/exercise.py; more examples: cnnlib/learn/exercises.


def NAME(dy, x, a, b):
    """The right answer, in plain NumPy: its text is the solution that learners may see."""
    t = np.tanh(b * x)
    return dy * a * b * (1 - t**2)


def scaled_tanh(dy, x, a, b):
    """The forward pass, for the derivative by differences."""
    return a * np.tanh(b * x)


def cases(rng):
    """4 to 8 small ones; upstream gradients are random, and something is odd in each."""
    return [
        Case((rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), 1.7159, 2 / 3)),
        Case((rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 2)), 1.0, 2.0), ("a = 1",)),
        Case((rng.normal(size=(5,)), rng.normal(size=(5,)), 2.5, 1.0), ("b = 1",)),
        Case((rng.normal(size=(1, 1)), rng.normal(size=(1, 1)), 0.5, 3.0), ("N = 1",)),
    ]


EXERCISE = Exercise(
    number=NUMBER,
    name="NAME",
    topic="lecture: activation functions",
    function=NAME,
    outputs=("dx",),
    starter="def NAME(dy, x, a, b):\\n    # dx, of the shape of x\\n    ...\\n",
    cases=cases,
    numerical=Numerical(forward=scaled_tanh, wrt={"dx": 1}, upstream=0),
    hints=(
        "The chain rule three times: a, tanh, and b.",
        "The derivative of tanh(z) is 1 - tanh(z)²; here z = b x.",
        "dx = dy · a · b · (1 - tanh(b x)²)",
    ),
    question="Why is the largest slope not at x = ±1?",
    answer="1 - tanh² is largest at 0, where the neuron is nearly linear, and falls on both sides.",
    link="cnnlib/ops/activation.py",
    explanations=(
        Explanation("inner", "your dx lacks the factor b: the inner derivative of tanh(b x)."),
        Explanation("slope", "your slope is 1 - t; the derivative of tanh is 1 - t²."),
    ),
    mutants=(
        Mutant("dy * a * b * (1", "dy * a * (1", "inner"),
        Mutant("1 - t**2", "1 - t", "slope"),
        Mutant("return dy * a", "return -dy * a", "sign"),
        Mutant("return dy * a", "return a", "upstream"),
        Mutant("return dy", "return 2 * dy", "factor"),
    ),
    alternatives=(
        """
import numpy as np

def NAME(dy, x, a, b):
    dx = np.empty_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = dy[i] * a * b / np.cosh(b * x[i]) ** 2
    return dx
""",
    ),
)
'''


def write_template(name: str, folder: Path, number: int = NUMBER) -> Path:
    """Write NAME.py into ``folder`` and return its path. Raises ValueRangeError for a name that no function can have, DataError
    where the file is there already or cannot be written."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueRangeError(
            f"learn template: {name!r} must be a name for a file and a function: lower-case letters, digits and _, such as "
            "scaled_tanh_backward."
        )
    path = folder / f"{name}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(re.sub(r"\bNAME\b", name, TEXT).replace("number=NUMBER", f"number={number}"))
    except OSError as reason:
        raise DataError(f"{path}: could not be written: {reason.strerror or reason}. Nothing was changed.") from reason
    return path
