"""The numerical gradient check: trust, but verify

Everybody gets a backward pass wrong sometimes, and a wrong one often still trains, only worse. There is a test that needs no
mathematics at all: wiggle an input, look how much the output moves.

    ∂f/∂x_i ≈ ( f(x + h eᵢ) − f(x − h eᵢ) ) / 2h

eᵢ is 1 at element i and 0 elsewhere. Why both sides? The Taylor series shows what is neglected:

    f(x + h) = f + h f′ + h²/2 f″ + h³/6 f‴ + …

One-sided, (f(x + h) − f(x)) / h leaves an error of h/2 f″; with both sides the even terms cancel and h²/6 f‴ is left: with
h = 10⁻⁴ that is 10⁻⁸ in place of 10⁻⁴. A worked number: f = x³ at x = 1, h = 0.1: (1.331 − 0.729) / 0.2 = 3.01, one-sided
3.31; the truth is 3.

Then compare with what backward claims, relative to the largest derivative, so that the answer means something for large and
for small gradients alike:

    error = max_i |claimed_i − numeric_i| / max( max_i |claimed_i|, max_i |numeric_i| )

Below 10⁻⁶ in float64 you may sleep well. The right answers to your other exercises are held against such differences, too.

Write ``gradient_check(f, x, claimed, h)``. f takes an array of x's shape, of any number of axes, and returns a number;
claimed has x's shape. Return the numerical gradient, of x's shape, and the error. Leave x as it was.

Source: lecture: backpropagation; CS231n's notes on gradient checks.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Given, Mutant


def gradient_check(f, x, claimed, h):
    numeric = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        numeric[i] = (f(x + step) - f(x - step)) / (2.0 * h)
    difference = np.abs(claimed - numeric).max()
    error = difference / max(np.abs(claimed).max(), np.abs(numeric).max())
    return numeric, error


def waves(x):
    return float(np.sin(x).sum() + 0.5 * x.sum() ** 2)


def valley(x):
    return float((x**3).sum() + np.exp(0.3 * x).prod())


STARTER = """import numpy as np


def gradient_check(f, x, claimed, h):
    numeric = np.zeros_like(x)
    for i in np.ndindex(x.shape):  # i = (0, 0), (0, 1), … : numeric[i] is one element
        ...
    error = ...
    return numeric, error
"""


def cases(rng):
    def waves_gradient(x):
        return np.cos(x) + x.sum()

    def valley_gradient(x):
        return 3.0 * x**2 + 0.3 * np.exp(0.3 * x).prod()

    x1, x2, x3, x4 = (rng.standard_normal(s) for s in ((4,), (2, 3), (3,), (2, 1, 2)))
    off = waves_gradient(x1)
    off[2] += 0.3
    return [
        Case((Given("waves"), x1, off, 0.1), ("one wrong element",)),
        Case((Given("waves"), x2, -waves_gradient(x2), 0.05), ("two axes", "a claim of the wrong sign")),
        Case((Given("valley"), x3, 1.02 * valley_gradient(x3), 0.01), ("a claim that is 2 % too large",)),
        Case((Given("valley"), x4, 0.5 * valley_gradient(x4), 0.1), ("three axes", "a claim of half the size")),
        Case((Given("waves"), x1[:1], 3.0 * waves_gradient(x1[:1]), 0.02), ("one element", "a claim of three times the size")),
        Case((Given("valley"), x2[:1] - 1.0, valley_gradient(x2[:1] - 1.0) - 0.2, 0.2), ("a large step",)),
    ]


def _check(f, x, claimed, h, *, steps=(1.0, -1.0), divisor=2.0, error="both", keep=False):
    """The check with a choice of mistakes in it."""
    numeric, at = np.zeros_like(x), np.array(x)
    for i in np.ndindex(x.shape):
        values = []
        for s in steps:
            moved = at.copy()
            moved[i] += s * h
            values.append(f(moved))
        if keep:
            at[i] -= h
        numeric[i] = (values[0] - values[1]) / (divisor * h)
    return numeric, _error(claimed, numeric, error)


def _rows(f, x, claimed, h):
    numeric = np.zeros_like(x)
    for i in range(len(x)):
        step = np.zeros_like(x)
        step[i] = h
        numeric[i] = (f(x + step) - f(x - step)) / (2.0 * h)
    return numeric, _error(claimed, numeric, "both")


def _error(claimed, numeric, kind):
    d, c, n = abs(claimed - numeric), abs(claimed), abs(numeric)
    return {
        "both": d.max() / max(c.max(), n.max()),
        "absolute": d.max(),
        "mean": d.mean() / max(c.max(), n.max()),
        "signed": (claimed - numeric).max() / max(c.max(), n.max()),
        "claimed": d.max() / c.max(),
        "numeric": d.max() / n.max(),
        "elements": (d / np.maximum(c, n)).max(),
        "norms": np.linalg.norm(d) / max(np.linalg.norm(c), np.linalg.norm(n)),
        "sum": d.max() / (c.max() + n.max()),
    }[kind]


EXERCISE = Exercise(
    number=9,
    name="gradient_check",
    topic="lecture: backpropagation, numerical gradients",
    function=gradient_check,
    outputs=("numeric", "error"),
    starter=STARTER,
    cases=cases,
    given=(waves, valley),
    hints=(
        "Two calls of f for every element of x: one with this element a bit larger, one with it a bit smaller. All other "
        "elements stay where they are.",
        "Make a copy of x (or an array of zeros with h at i that you add), so that nothing of the caller's x is changed and "
        "the next element starts from the true x again.",
        "step = np.zeros_like(x); step[i] = h; numeric[i] = (f(x + step) - f(x - step)) / (2 * h). And error = "
        "np.abs(claimed - numeric).max() / max(np.abs(claimed).max(), np.abs(numeric).max())",
    ),
    question="Smaller h, smaller error? Why not take h = 10⁻¹²?",
    answer="f is known to about 16 digits, so f(x + h) − f(x − h) carries a rounding error of about 10⁻¹⁶ |f|, and the "
    "division by 2h blows it up: with h = 10⁻¹² only some 4 digits are right. The neglected h²/6 f‴ falls and the rounding "
    "10⁻¹⁶/h rises; they meet near h = 10⁻⁵, the cube root of 10⁻¹⁶. In float32 (7 digits) the best h gives 4 or 5 digits: "
    "gradient checks are done in float64.",
    link="cnnlib/gradcheck.py",
    explanations=(
        Explanation(
            "one-sided",
            "your difference is one-sided, (f(x + h) − f(x)) / h, with an error of h/2 f″: take f(x + h) − f(x − h) over 2h.",
            lambda *a: _check(*a, steps=(1.0, 0.0), divisor=1.0),
        ),
        Explanation(
            "backward-sided",
            "your difference looks back only, (f(x) − f(x − h)) / h: take f(x + h) − f(x − h) over 2h.",
            lambda *a: _check(*a, steps=(0.0, -1.0), divisor=1.0),
        ),
        Explanation(
            "over h",
            "your numeric is twice as large: x + h and x − h are 2h apart, so divide by 2h.",
            lambda *a: _check(*a, divisor=1.0),
        ),
        Explanation(
            "half steps",
            "you move x by h/2 to either side: the formula asks for h, and 2h below the line.",
            lambda *a: _check(*a, steps=(0.5, -0.5), divisor=1.0),
        ),
        Explanation(
            "falling",
            "your numeric has the opposite sign: it is f(x + h) minus f(x − h), not the other way round.",
            lambda *a: _check(*a, divisor=-2.0),
        ),
        Explanation(
            "all at once",
            "you moved all elements at once: that gives the sum of all derivatives, so move element i alone.",
        ),
        Explanation(
            "rows",
            "you move a whole row at once, as i runs over the first axis only: np.ndindex(x.shape) runs over all elements.",
            _rows,
        ),
        Explanation(
            "not put back",
            "after an element you do not put it back to where it was, so the later ones are taken at another point.",
            lambda *a: _check(*a, keep=True),
        ),
        Explanation(
            "absolute",
            "your error is absolute: divide it by the largest of |claimed| and |numeric|, or 10⁻³ may be nothing or "
            "everything.",
            lambda *a: _check(*a, error="absolute"),
        ),
        Explanation(
            "mean",
            "your error averages the differences: one wrong element among many would hide, so take the largest.",
            lambda *a: _check(*a, error="mean"),
        ),
        Explanation(
            "signed",
            "your error takes the largest difference with its sign, so a claim that is too small looks right: take absolute "
            "values.",
            lambda *a: _check(*a, error="signed"),
        ),
        Explanation(
            "claimed only",
            "you divide by the claim alone, so a claim that is too large makes its own error small: the divisor is the "
            "larger of max |claimed| and max |numeric|.",
            lambda *a: _check(*a, error="claimed"),
        ),
        Explanation(
            "numeric only",
            "you divide by the numerical gradient alone: the divisor is the larger of max |claimed| and max |numeric|.",
            lambda *a: _check(*a, error="numeric"),
        ),
        Explanation(
            "by element",
            "you divide element by element, so tiny derivatives that are mostly rounding decide: divide the largest "
            "difference by the largest derivative.",
            lambda *a: _check(*a, error="elements"),
        ),
        Explanation(
            "norms",
            "your error compares norms: here it is the largest difference over the largest derivative.",
            lambda *a: _check(*a, error="norms"),
        ),
        Explanation(
            "sum",
            "you divide by the sum of the two sizes: the divisor is the larger of max |claimed| and max |numeric|.",
            lambda *a: _check(*a, error="sum"),
        ),
    ),
    mutants=(
        Mutant("(f(x + step) - f(x - step)) / (2.0 * h)", "(f(x + step) - f(x)) / h", says="one-sided"),
        Mutant("(f(x + step) - f(x - step)) / (2.0 * h)", "(f(x) - f(x - step)) / h", says="backward-sided"),
        Mutant("/ (2.0 * h)", "/ h", says="over h"),
        Mutant("(f(x + step) - f(x - step)) / (2.0 * h)", "(f(x + step / 2) - f(x - step / 2)) / h", says="half steps"),
        Mutant("f(x + step) - f(x - step)", "f(x - step) - f(x + step)", says="falling"),
        Mutant("        step[i] = h", "        step[...] = h", says="all at once"),
        Mutant("np.ndindex(x.shape)", "range(len(x))", says="rows"),
        Mutant("/ (2.0 * h)", "/ (2.0 * h)\n        x = x - step", says="not put back"),
        Mutant(" / max(np.abs(claimed).max(), np.abs(numeric).max())", "", says="absolute"),
        Mutant("np.abs(claimed - numeric).max()", "np.abs(claimed - numeric).mean()", says="mean"),
        Mutant("np.abs(claimed - numeric).max()", "(claimed - numeric).max()", says="signed"),
        Mutant("max(np.abs(claimed).max(), np.abs(numeric).max())", "np.abs(claimed).max()", says="claimed only"),
        Mutant("max(np.abs(claimed).max(), np.abs(numeric).max())", "np.abs(numeric).max()", says="numeric only"),
        Mutant(
            "    difference = np.abs(claimed - numeric).max()\n    error = difference / max(np.abs(claimed).max(), "
            "np.abs(numeric).max())",
            "    error = (np.abs(claimed - numeric) / np.maximum(np.abs(claimed), np.abs(numeric))).max()",
            says="by element",
        ),
        Mutant(
            "np.abs(claimed - numeric).max()\n    error = difference / max(np.abs(claimed).max(), np.abs(numeric).max())",
            "np.linalg.norm(claimed - numeric)\n    error = difference / max(np.linalg.norm(claimed), np.linalg.norm(numeric))",
            says="norms",
        ),
        Mutant(
            "max(np.abs(claimed).max(), np.abs(numeric).max())", "(np.abs(claimed).max() + np.abs(numeric).max())", says="sum"
        ),
    ),
    equivalent={
        "gradient_check: np.zeros_like(x) -> np.ones_like(x)": "every element is written later",
        "gradient_check: x -> claimed": "claimed has the shape of x",
        "gradient_check: x -> claimed #2": "claimed has the shape of x",
        "gradient_check: x -> claimed #3": "claimed has the shape of x",
    },
    alternatives=(
        """import numpy as np


def gradient_check(f, x, claimed, h):
    point = np.array(x)
    slopes = []
    for k in range(point.size):
        kept = point.flat[k]
        point.flat[k] = kept + h
        above = f(point)
        point.flat[k] = kept - h
        below = f(point)
        point.flat[k] = kept
        slopes.append((above - below) / h / 2)
    numeric = np.reshape(slopes, x.shape)
    scale = np.max([np.abs(claimed), np.abs(numeric)])
    return numeric, np.max(np.abs(numeric - claimed)) / scale
""",
    ),
)
