"""Activations: their slopes, and how they fall silent

Between two linear layers stands a function of one number. On the way back it multiplies what arrives by its slope, and that
slope decides whether a deep network can learn.

    sigmoid       s = 1 / (1 + e⁻ˣ)                     slope s (1 − s), at most ¼
    tanh          t = tanh x                            slope 1 − t², at most 1
    relu          max(x, 0)                             slope 1 for x > 0, else 0
    leaky_relu    x for x ≥ 0, else 0.01 x              slope 1 for x > 0, else 0.01
    elu           x for x > 0, else eˣ − 1              slope 1 for x > 0, else eˣ
    softplus      ln(1 + eˣ)                            slope: one of the functions above. Which?

    dx = dy ⊙ slope(x)                                  dy, x, dx of one shape

(Beware: one slide has the two branches of leaky ReLU exchanged.) ReLU has no slope at exactly 0: one slide says 1, cnnlib and
PyTorch say 0. Both are subgradients, both are accepted here.

A sigmoid with x = 7 has a slope of 0.0009: whatever its weights did wrong, a thousandth of the message comes through. It is
*saturated*; a ReLU that is negative for every sample is *dead*. So count them.

Write ``activation_backward(kind, dy, x)``, where kind is one of the six names. Return

    dx        the gradient, of x's shape
    silent    the share of elements with a slope below 0.001, a number in 0 … 1

Large x must not turn into NaN: e⁸⁰⁰ is infinite, and ∞/∞ is not a number. e^−|x| never overflows.

Source: lecture: activations; vanishing gradients; Glorot & Bengio, "Understanding the difficulty of training deep
feedforward neural networks", 2010; Maas, Hannun & Ng, 2013 (leaky ReLU); Clevert, Unterthiner & Hochreiter, 2016 (ELU).
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import (
    elu_backward,
    leaky_relu_backward,
    relu_backward,
    sigmoid_backward,
    sigmoid_forward,
    softplus_backward,
    tanh_backward,
    tanh_forward,
)


def slope(kind, x):
    one = np.ones_like(x)
    if kind == "sigmoid":
        return sigmoid_backward(one, sigmoid_forward(x))
    if kind == "tanh":
        return tanh_backward(one, tanh_forward(x))
    if kind == "relu":
        return relu_backward(one, x)  # relu(x) > 0 where x > 0
    if kind == "leaky_relu":
        return leaky_relu_backward(one, x, 0.01)
    if kind == "elu":
        return elu_backward(one, x, 1.0)
    return softplus_backward(one, x)


def activation_backward(kind, dy, x):
    s = slope(kind, x)
    return dy * s, (s < 0.001).mean()


STARTER = '''import numpy as np


def slope(kind, x):
    """The derivative of the activation at every element of x."""
    if kind == "sigmoid":
        ...
    if kind == "tanh":
        ...
    if kind == "relu":
        ...
    if kind == "leaky_relu":
        ...
    if kind == "elu":
        ...
    if kind == "softplus":
        ...
    return np.zeros_like(x)  # the kinds that are not written yet


def activation_backward(kind, dy, x):
    s = slope(kind, x)
    dx = ...
    silent = ...
    return dx, silent
'''

KINDS = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus")


def cases(rng):
    def draw(shape, scale):
        x = scale * rng.standard_normal(shape)
        x = np.where(abs(x) < 0.01, 0.5, x)  # away from the kinks
        return rng.standard_normal(shape), x

    spread = [Case((kind, *draw((4, 5), 5.0)), (kind,)) for kind in KINDS]
    far = np.array([-800.0, -30.0, -2.0, 1.0, 30.0, 800.0])
    return spread + [Case((kind, rng.standard_normal(6), far), (kind, "|x| = 800")) for kind in ("sigmoid", "tanh")]


def _forward(kind, dy, x):
    if kind == "sigmoid":
        return 0.5 * (1.0 + np.tanh(0.5 * x))
    if kind == "tanh":
        return np.tanh(x)
    if kind == "softplus":
        return np.logaddexp(0.0, x)
    return np.where(x > 0.0, x, {"relu": 0.0 * x, "leaky_relu": 0.01 * x, "elu": np.expm1(np.minimum(x, 0.0))}[kind])


def _with(kind, wrong_slope):
    """The outputs of who is wrong about the slope of one kind."""

    def outputs(k, dy, x):
        s = wrong_slope(x)
        return (dy * s, (s < 0.001).mean()) if k == kind else None

    return outputs


def _sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


EXERCISE = Exercise(
    number=7,
    name="activation_backward",
    topic="lecture: activations, vanishing gradients",
    function=activation_backward,
    uses=(
        sigmoid_forward,
        sigmoid_backward,
        tanh_forward,
        tanh_backward,
        relu_backward,
        leaky_relu_backward,
        elu_backward,
        softplus_backward,
        slope,
    ),
    outputs=("dx", "silent"),
    starter=STARTER,
    cases=cases,
    numerical=Numerical(forward=_forward, wrt={"dx": 2}, upstream=1),
    hints=(
        "Write slope() kind by kind and check as you go: a verdict names the kinds that are right already. For sigmoid and "
        "tanh compute the value first, its slope is made of the value.",
        "np.where(x > 0, one_slope, other_slope) makes the piecewise ones. Differentiate ln(1 + eˣ): e^x / (1 + eˣ), and "
        "divide above and below by eˣ.",
        "s * (1 - s); 1 - np.tanh(x)**2; np.where(x > 0, 1.0, 0.0); np.where(x > 0, 1.0, 0.01); np.where(x > 0, 1.0, "
        "np.exp(np.minimum(x, 0))); and softplus has the sigmoid as its slope. dx = dy * s; silent = (s < 0.001).mean()",
    ),
    question="A gradient passes ten sigmoid layers whose weights keep its size. How much of it is left at best, and how much "
    "after ten ReLU layers?",
    answer="At best (¼)¹⁰, about a millionth, and that with every x at 0, where the slope is largest. A ReLU's slope is 1 or "
    "0: along a path of active units all of it arrives, along any other nothing. At exactly 0 the ReLU has any slope between "
    "0 and 1 (a subgradient); a value that is hit so rarely makes no difference to training, hence both answers are accepted.",
    link="cnnlib/ops/activation.py",
    explanations=(
        Explanation(
            "leaky branches",
            "your leaky ReLU has its branches exchanged, as on one slide: positive x passes whole, negative x is scaled by "
            "0.01.",
            _with("leaky_relu", lambda x: np.where(x > 0.0, 0.01, 1.0)),
        ),
        Explanation(
            "no leak",
            "your leaky ReLU does not leak: its slope for negative x is 0.01, not 0.",
            _with("leaky_relu", lambda x: np.where(x > 0.0, 1.0, 0.0)),
        ),
        Explanation(
            "leak's value",
            "for negative x your leaky ReLU has the value 0.01 x where its slope belongs: the slope is 0.01.",
            _with("leaky_relu", lambda x: np.where(x > 0.0, 1.0, 0.01 * x)),
        ),
        Explanation(
            "sigmoid of the value",
            "you took the sigmoid twice: with s = σ(x) at hand, the slope is s (1 − s).",
            _with("sigmoid", lambda x: _sigmoid(_sigmoid(x)) * (1.0 - _sigmoid(_sigmoid(x)))),
        ),
        Explanation(
            "sigmoid in x",
            "your sigmoid's slope is x (1 − x): the formula s (1 − s) is in the output s = σ(x), not in x.",
            _with("sigmoid", lambda x: x * (1.0 - x)),
        ),
        Explanation(
            "sigmoid's half",
            "your sigmoid's slope lacks a factor: it is s (1 − s), and both go to 0 at one of the ends.",
            _with("sigmoid", lambda x: 1.0 - _sigmoid(x)),
        ),
        Explanation(
            "tanh's square",
            "your tanh has the slope 1 − t: the square is missing, 1 − t².",
            _with("tanh", lambda x: 1.0 - np.tanh(x)),
        ),
        Explanation(
            "tanh as sigmoid",
            "your tanh has the sigmoid's form t (1 − t): tanh's slope is 1 − t².",
            _with("tanh", lambda x: np.tanh(x) * (1.0 - np.tanh(x))),
        ),
        Explanation(
            "relu's value",
            "you multiply by ReLU's value max(x, 0) instead of its slope, which is 1 or 0.",
            _with("relu", lambda x: np.maximum(x, 0.0)),
        ),
        Explanation(
            "elu's value",
            "for negative x your ELU has the value eˣ − 1 where its slope belongs: the derivative of eˣ − 1 is eˣ.",
            _with("elu", lambda x: np.where(x > 0.0, 1.0, np.expm1(np.minimum(x, 0.0)))),
        ),
        Explanation(
            "softplus falls",
            "your softplus has the slope 1 − σ(x), which falls: softplus becomes steeper to the right, its slope is σ(x).",
            _with("softplus", lambda x: _sigmoid(-x)),
        ),
        Explanation(
            "silent or loud",
            "your silent is the share of slopes that are large: count those below 0.001.",
            lambda k, dy, x: (dy * slope(k, x), (slope(k, x) >= 0.001).mean()),
        ),
        Explanation(
            "count",
            "your silent is a number of elements: divide by how many there are, so that it is a share.",
            lambda k, dy, x: (dy * slope(k, x), (slope(k, x) < 0.001).sum()),
        ),
        Explanation(
            "silent gradient",
            "your silent looks at dx: saturation is a property of the activation, so count small slopes, whatever dy is.",
            lambda k, dy, x: (dy * slope(k, x), (abs(dy * slope(k, x)) < 0.001).mean()),
        ),
        Explanation(
            "overflow",
            "for large |x| your exponentials overflow and ∞/∞ is NaN: use e^−|x|, or np.tanh.",
        ),
    ),
    mutants=(
        Mutant("np.where(x > 0.0, dy, slope * dy)", "np.where(x > 0.0, slope * dy, dy)", says="leaky branches"),
        Mutant("np.where(x > 0.0, dy, slope * dy)", "np.where(x > 0.0, dy, 0.0)", says="no leak"),
        Mutant("np.where(x > 0.0, dy, slope * dy)", "np.where(x > 0.0, dy, slope * x)", says="leak's value"),
        Mutant(
            "sigmoid_backward(one, sigmoid_forward(x))",
            "sigmoid_backward(one, sigmoid_forward(sigmoid_forward(x)))",
            says="sigmoid of the value",
        ),
        Mutant("sigmoid_backward(one, sigmoid_forward(x))", "sigmoid_backward(one, x)", says="sigmoid in x"),
        Mutant("dy * (y * (1.0 - y))", "dy * (1.0 - y)", says="sigmoid's half"),
        Mutant("dy * (1.0 - y * y)", "dy * (1.0 - y)", says="tanh's square"),
        Mutant("dy * (1.0 - y * y)", "dy * (y - y * y)", says="tanh as sigmoid"),
        Mutant("np.where(y > 0.0, dy, 0.0)", "np.where(y > 0.0, y * dy, 0.0)", says="relu's value"),
        Mutant("np.exp(np.minimum(x, 0.0))", "np.expm1(np.minimum(x, 0.0))", says="elu's value"),
        Mutant("return dy * sigmoid_forward(x)", "return dy * (1.0 - sigmoid_forward(x))", says="softplus falls"),
        Mutant("(s < 0.001).mean()", "(s >= 0.001).mean()", says="silent or loud"),
        Mutant("(s < 0.001).mean()", "(s < 0.001).sum()", says="count"),
        Mutant("(s < 0.001).mean()", "(abs(dy * s) < 0.001).mean()", says="silent gradient"),
        Mutant("return dy * s, ", "return s, ", says="upstream"),
        Mutant("    return np.tanh(x)", "    return (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))", says="overflow"),
    ),
    equivalent={
        "sigmoid_backward: dy * (y * (1.0 - y)) -> y * (1.0 - y)": "slope() calls it with dy = 1",
        "tanh_backward: dy * (1.0 - y * y) -> 1.0 - y * y": "slope() calls it with dy = 1",
        "leaky_relu_backward: slope * dy -> slope": "slope() calls it with dy = 1",
        "leaky_relu_backward: slope * dy -> slope / dy": "slope() calls it with dy = 1",
        "elu_backward: alpha -> dy": "slope() calls it with alpha = 1 and dy = 1",
        "elu_backward: alpha * np.exp(np.minimum(x, 0.0)) -> np.exp(np.minimum(x, 0.0))": "slope() calls it with alpha = 1",
        "elu_backward: 0.0 -> 1.0 #2": "only x ≤ 0 is taken from there",
    },
    alternatives=(
        """import numpy as np

SLOPES = {
    "sigmoid": lambda x: 1 / (2 + 2 * np.cosh(np.clip(x, -700, 700))),
    "tanh": lambda x: 1 / np.cosh(np.clip(x, -700, 700)) ** 2,
    "relu": lambda x: np.heaviside(x, 1.0),  # 1 at 0
    "leaky_relu": lambda x: np.where(x < 0, 0.01, 1.0),
    "elu": lambda x: np.exp(np.minimum(x, 0)),
    "softplus": lambda x: 1 / (1 + np.exp(-x)),
}


def activation_backward(kind, dy, x):
    slopes = SLOPES[kind](x)
    return slopes * dy, np.count_nonzero(slopes < 1e-3) / x.size
""",
    ),
    train=Train(lambda f: {"elu_backward": lambda dy, x, alpha: f("elu", dy, x)[0]}, "elu"),
)
