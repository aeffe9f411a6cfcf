"""ADALINE: the delta rule is a gradient

The perceptron learns only from mistakes, by a fixed push. Widrow and Hoff (1960) asked for more: not just the right side of
the line, but the right value, with a push as large as the error. It was the first neuron to roll down a loss, and the
electronics in your phone line cancel echoes with its rule to this day.

The neuron is linear, s = wᵀx + b, and the loss is the lecture's, summed over samples, with a ½:

    e_n = t_n − s_n            L = ½ Σ_n e_n²            x (N, D), t (N,), w (D,), b a number

Differentiate with the chain rule. e_n depends on w_d through s_n only, and ∂s_n/∂w_d = x_nd, so

    ∂L/∂w_d = Σ_n e_n · (−1) · x_nd = −Σ_n e_n x_nd          ∂L/∂b = −Σ_n e_n

The ½ eats the 2 of the square; the minus comes from e = t − s. Gradient descent steps against the gradient,
w ← w − η ∂L/∂w = w + η Σ e x: that is the delta rule.

A worked number: x = (1, 2), t = 1, w = (0.5, 0), b = 0. Then s = 0.5, e = 0.5, L = 0.125, dw = (−0.5, −1), db = −0.5.

Write ``adaline_gradient(x, t, w, b)`` and return L, ∂L/∂w (D,) and ∂L/∂b. Beware of conventions: PyTorch's MSE divides by N
and has no ½. Yours is the sum, with ½.

Source: lecture: neurons, ADALINE; Widrow & Hoff, "Adaptive switching circuits", 1960.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train


def adaline_gradient(x, t, w, b):
    e = t - (x @ w + b)  # (N,)
    loss = 0.5 * (e * e).sum()
    dw = -(e @ x)  # (N,) @ (N, D) -> (D,)
    db = -e.sum()
    return loss, dw, db


STARTER = """def adaline_gradient(x, t, w, b):
    e = ...  # (N,): target minus output
    loss = ...
    dw = ...  # (D,): which sample pushes which weight, and how far?
    db = ...
    return loss, dw, db
"""


def cases(rng):
    def draw(N, D):
        return rng.standard_normal((N, D)), rng.standard_normal(N), rng.standard_normal(D), float(rng.standard_normal())

    return [
        Case((np.array([[1.0, 2.0]]), np.array([1.0]), np.array([0.5, 0.0]), 0.0), ("N = 1", "b = 0")),
        Case(draw(6, 3)),
        Case(draw(4, 4), ("N = D",)),
        Case(draw(2, 7), ("D > N",)),
        Case(draw(11, 1), ("D = 1",)),
    ]


def _of_layer(f, dy, x):
    """The gradients (O, I) and (O,) of a linear layer by the delta rule, unit by unit: dy is minus its error."""
    silent = np.zeros(x.shape[1], x.dtype)
    units = [f(x, -dy_o, silent, 0.0) for dy_o in dy.T]
    return np.stack([dw for _, dw, _ in units]), np.array([db for *_, db in units])


def _kernels(f):
    return {
        "linear_backward_weight": lambda dy, x: _of_layer(f, dy, x)[0],
        "linear_backward_bias": lambda dy: _of_layer(f, dy, dy)[1],
    }


EXERCISE = Exercise(
    number=3,
    name="adaline_gradient",
    topic="lecture: neurons, ADALINE",
    function=adaline_gradient,
    outputs=("loss", "dw", "db"),
    starter=STARTER,
    cases=cases,
    numerical=Numerical(
        forward=lambda x, t, w, b: np.asarray(0.5 * ((t - x @ w - b) ** 2).sum()),
        wrt={"dw": 2, "db": 3},
        upstream=None,
    ),
    hints=(
        "Shapes lead the way: e is (N,), x is (N, D), dw must be (D,). Which product of the two sums over the samples?",
        "dw_d = −Σ_n e_n x_nd is a vector times a matrix; db is the same with an x that is always 1.",
        "e = t - (x @ w + b); loss = 0.5 * (e * e).sum(); dw = -(e @ x); db = -e.sum()",
    ),
    question="The perceptron comes to rest as soon as every sample is on its right side, ADALINE does not. For one sample with "
    "t = 1 and s = 3, which way does ADALINE push, and is that good?",
    answer="e = 1 − 3 = −2, so it pushes s down, towards 1, although the sample lies safely on the right side: the squared "
    "loss punishes being too right. A far outlier can so turn the line until others are wrong. The hinge loss (right enough "
    "is enough) and cross-entropy after a sigmoid (the push fades) are the answers of later decades. And the delta rule "
    "lives on: with dy in place of −e it is the weight gradient of every linear layer, and so `cnnlib learn train 3` trains "
    "an MLP with yours.",
    link="cnnlib/models/adaline.py",
    explanations=(
        Explanation(
            "uphill",
            "your gradient has the opposite sign: e = t − s depends on the output with a factor of −1, so dw = −Σ e x; the "
            "plus of the delta rule w + η Σ e x comes from stepping against the gradient.",
            lambda *a: (adaline_gradient(*a)[0], -adaline_gradient(*a)[1], -adaline_gradient(*a)[2]),
        ),
        Explanation(
            "no half",
            "your loss and gradients are twice as large: this loss is ½ Σ e², and the ½ cancels the 2 of the square's "
            "derivative.",
            lambda *a: tuple(2.0 * v for v in adaline_gradient(*a)),
        ),
        Explanation(
            "derivative of the square",
            "your gradients are twice as large, your loss is not: d(½e²) = e de, the 2 and the ½ cancel.",
            lambda *a: (adaline_gradient(*a)[0], 2.0 * adaline_gradient(*a)[1], 2.0 * adaline_gradient(*a)[2]),
        ),
        Explanation(
            "mean",
            "you averaged over the samples: the lecture's loss is the sum ½ Σ e², so nothing is divided by N.",
            lambda x, *a: tuple(v / len(x) for v in adaline_gradient(x, *a)),
        ),
        Explanation(
            "loss without half",
            "your loss is Σ e² without the ½, while your gradients are those of ½ Σ e²: they do not belong together.",
            lambda *a: (2.0 * adaline_gradient(*a)[0], *adaline_gradient(*a)[1:]),
        ),
        Explanation(
            "steps",
            "you return the weights after a step: the gradient itself is asked for, −Σ e x and −Σ e.",
            lambda x, t, w, b: (
                adaline_gradient(x, t, w, b)[0],
                w - adaline_gradient(x, t, w, b)[1],
                b - adaline_gradient(x, t, w, b)[2],
            ),
        ),
        Explanation(
            "no bias",
            "your output leaves out the bias: s = wᵀx + b.",
            lambda x, t, w, b: adaline_gradient(x, t, w, 0.0),
        ),
        Explanation(
            "threshold",
            "your error compares the target with the thresholded output, as the perceptron does: ADALINE learns from the "
            "linear output s = wᵀx + b, before any threshold.",
            lambda x, t, w, b: adaline_gradient(x, t - np.sign(x @ w + b), np.zeros_like(w), 0.0),
        ),
        Explanation(
            "no input",
            "your dw does not know the inputs: each error must be weighted by the input that the weight was multiplied with, "
            "dw_d = −Σ_n e_n x_nd.",
            lambda x, t, w, b: (
                adaline_gradient(x, t, w, b)[0],
                np.full(len(w), adaline_gradient(x, t, w, b)[2]),
                adaline_gradient(x, t, w, b)[2],
            ),
        ),
    ),
    mutants=(
        Mutant("dw = -(e @ x)  # (N,) @ (N, D) -> (D,)\n    db = -e.sum()", "dw = e @ x\n    db = e.sum()", says="uphill"),
        Mutant("e = t - (x @ w + b)", "e = np.sqrt(2.0) * (t - (x @ w + b))", says="no half"),
        Mutant(
            "dw = -(e @ x)  # (N,) @ (N, D) -> (D,)\n    db = -e.sum()",
            "dw = -2 * e @ x\n    db = -2 * e.sum()",
            says="derivative of the square",
        ),
        Mutant("    return loss, dw, db", "    return loss / len(x), dw / len(x), db / len(x)", says="mean"),
        Mutant("0.5 * (e * e).sum()", "(e * e).sum()", says="loss without half"),
        Mutant("(x @ w + b)", "x @ w", says="no bias"),
        Mutant("(x @ w + b)", "np.sign(x @ w + b)", says="threshold"),
        Mutant("-(e @ x)", "-e.sum() * np.ones_like(w)", says="no input"),
        Mutant("-(e @ x)", "-(e[:, None] * x)", says="shape"),
        Mutant("    e = t - (x @ w + b)", "    t -= x @ w + b\n    e = t", says="mutated"),
    ),
    alternatives=(
        """import numpy as np


def adaline_gradient(x, t, w, b):
    loss, dw, db = 0.0, np.zeros(len(w)), 0.0
    for n in range(len(t)):
        delta = float(np.dot(w, x[n])) + b - t[n]
        loss += delta**2 / 2
        dw += delta * x[n]
        db += delta
    return loss, dw, db
""",
    ),
    train=Train(_kernels, "mlp"),
)
