"""One hidden layer, every derivative by hand

The lecture works one network through with indices, no matrices: regression with K hidden units, and a linear output. Do it
once in your life and backpropagation has no more secrets, only bookkeeping.

    h_nk = g(w_kᵀ x_n)         f_n = Σ_k v_k h_nk          e_n = y_n − f_n          L = ½ Σ_n e_n²

x is (N, D), y (N,), w (D, K) with a column w_k per hidden unit, v (K,), and g = tanh, so g′(a) = 1 − g(a)². The chain rule,
from the end to the beginning:

    ∂L/∂v_k  = −Σ_n e_n h_nk
    ∂L/∂h_nk = −e_n v_k
    ∂L/∂w_dk = Σ_n (∂L/∂h_nk) (∂h_nk/∂w_dk) = −Σ_n e_n v_k g′(w_kᵀ x_n) x_nd

(Beware: a slide drops the minus in a second form of ∂L/∂v. A gradient with the wrong sign climbs.)

Notice the reuse. The forward pass has e_n and h_nk already; ∂L/∂h is computed once for each sample and hidden unit, and
serves all D weights of that unit. Without reuse the cost would grow with the number of paths; with it backward costs about
two forwards.

A worked number: x = (1, 2), y = 1, w = 0, v = (3,): h = 0, f = 0, e = 1; dv = −1·0 = 0; dw = −1·3·(1 − 0²)·(1, 2) = (−3, −6).

Write ``regression_gradient(x, y, w, v)`` and return L, ∂L/∂w (D, K) and ∂L/∂v (K,). Loops are fine; matrix products are
shorter.

Source: lecture: backpropagation, one-hidden-layer regression; Bishop, "Pattern Recognition and Machine Learning", 2006, 5.3.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import tanh_backward, tanh_forward
from cnnlib.ops.linear import linear_forward


def regression_gradient(x, y, w, v):
    h = tanh_forward(x @ w)  # (N, D) @ (D, K) -> (N, K)
    e = y - h @ v  # (N,)
    loss = 0.5 * (e * e).sum()
    dv = -(e @ h)  # (N,) @ (N, K) -> (K,)
    dh = -e[:, None] * v  # (N, 1) * (K,) -> (N, K)
    dw = x.T @ tanh_backward(dh, h)  # (D, N) @ (N, K) -> (D, K)
    return loss, dw, dv


STARTER = """import numpy as np


def regression_gradient(x, y, w, v):
    h = ...  # (N, K)
    e = ...  # (N,)
    loss = ...
    dv = ...  # (K,)
    dh = ...  # (N, K)
    dw = ...  # (D, K)
    return loss, dw, dv
"""


def cases(rng):
    def draw(N, D, K):
        return tuple(rng.standard_normal(s) for s in ((N, D), (N,), (D, K), (K,)))

    return [
        Case(draw(5, 3, 4)),
        Case(draw(1, 2, 3), ("N = 1",)),
        Case(draw(4, 4, 4), ("N = D = K",)),
        Case(draw(7, 1, 5), ("D = 1",)),
        Case(draw(6, 5, 1), ("one hidden unit",)),
    ]


def _loss(x, y, w, v):
    return np.asarray(0.5 * ((y - np.tanh(x @ w) @ v) ** 2).sum())


def _gradient(x, y, w, v, *, slope=lambda h: 1.0 - h * h, share=lambda v: v, error=lambda e: e):
    """The outputs of who is wrong about one factor of dw."""
    h = np.tanh(x @ w)
    loss, _, dv = regression_gradient(x, y, w, v)
    return loss, x.T @ (-error(y - h @ v)[:, None] * share(v) * slope(h)), dv


class Regressions:
    """The learner's gradients as kernels of a network with ten outputs: ten regressions that share their hidden units.

    What arrives at the outputs is dy = f − y = −e, so that each regression's y is f − dy.
    """

    def __init__(self, f):
        self.f, self.layers, self.dw = f, [], None

    def forward(self, x, w, b):
        self.layers = [*self.layers[-1:], (x, w)]  # the last two
        return linear_forward(x, w, b)

    def gradient(self, dy, h):
        if self.dw is not None:  # the first layer's, made together with the second's
            dw, self.dw = self.dw, None
            return dw.T
        (x, w), (_, v) = self.layers
        made = [self.f(x, y, w.T, v_o) for y, v_o in zip((h @ v.T - dy).T, v)]
        self.dw = sum(np.asarray(dw) for _, dw, _ in made)
        return np.stack([dv for *_, dv in made])


def _kernels(f):
    regressions = Regressions(f)
    return {"linear_forward": regressions.forward, "linear_backward_weight": regressions.gradient}


EXERCISE = Exercise(
    number=6,
    name="regression_gradient",
    topic="lecture: backpropagation, one-hidden-layer regression",
    function=regression_gradient,
    uses=(tanh_forward, tanh_backward),
    outputs=("loss", "dw", "dv"),
    starter=STARTER,
    cases=cases,
    numerical=Numerical(forward=_loss, wrt={"dw": 2, "dv": 3}, upstream=None),
    hints=(
        "Go through the formulas in the order of the story: h, e, L, then dv, dh, dw. Each line needs only lines before it.",
        "dh is (N, K): the outer product of −e (N,) and v (K,). Multiply it by the slope 1 − h², which has the same shape, "
        "before x comes in.",
        "dv = -(e @ h); dh = -e[:, None] * v; dw = x.T @ (dh * (1 - h**2))",
    ),
    question="Start with w = 0 and v = 0. What are the gradients, and what does gradient descent do? And with all columns of "
    "w equal and all v_k equal, but not 0?",
    answer="With zeros h = 0, so dv = 0, and v = 0, so dw = 0: nothing ever moves, a saddle. With equal units all hidden "
    "units get equal gradients and stay equal for ever: K units that do the work of one. Hence weights start at random: "
    "exercise 30.",
    link="cnnlib/ops/activation.py",
    explanations=(
        Explanation(
            "minus of dv",
            "your dv lacks the minus: e = y − f falls when f rises, so ∂L/∂v_k = −Σ e_n h_nk (one slide drops it as well).",
            lambda *a: (*regression_gradient(*a)[:2], -regression_gradient(*a)[2]),
        ),
        Explanation(
            "minus of dw",
            "your dw lacks the minus of ∂L/∂h_nk = −e_n v_k.",
            lambda *a: (regression_gradient(*a)[0], -regression_gradient(*a)[1], regression_gradient(*a)[2]),
        ),
        Explanation(
            "uphill",
            "both your gradients have the opposite sign: e = y − f has a minus before f, so ∂L/∂f = −e.",
            lambda *a: (regression_gradient(*a)[0], -regression_gradient(*a)[1], -regression_gradient(*a)[2]),
        ),
        Explanation(
            "slope",
            "your dw lacks the slope of the hidden unit, g′ = 1 − h²: what arrives at h must pass through tanh before it "
            "reaches w.",
            lambda *a: _gradient(*a, slope=np.ones_like),
        ),
        Explanation(
            "tanh of tanh",
            "you applied tanh once more inside the slope: with h = tanh(a) at hand, g′(a) = 1 − h².",
            lambda *a: _gradient(*a, slope=lambda h: 1.0 - np.tanh(h) ** 2),
        ),
        Explanation(
            "sigmoid's slope",
            "your slope h (1 − h) is the sigmoid's: g is tanh here, and its slope is 1 − h².",
            lambda *a: _gradient(*a, slope=lambda h: h * (1.0 - h)),
        ),
        Explanation(
            "output weight",
            "your dw does not know v: a hidden unit's share of the error is −e_n v_k, so a unit that the output ignores learns "
            "nothing.",
            lambda *a: _gradient(*a, share=np.ones_like),
        ),
        Explanation(
            "error",
            "your dw does not know the errors: each sample counts in proportion to e_n.",
            lambda *a: _gradient(*a, error=np.ones_like),
        ),
        Explanation(
            "no half",
            "your loss and gradients are twice as large: L = ½ Σ e², and the ½ cancels the 2 of the square's derivative.",
            lambda *a: tuple(2.0 * g for g in regression_gradient(*a)),
        ),
        Explanation(
            "derivative of the square",
            "your gradients are twice as large, your loss is not: d(½e²) = e de, the 2 and the ½ cancel.",
            lambda *a: (regression_gradient(*a)[0], *(2.0 * g for g in regression_gradient(*a)[1:])),
        ),
        Explanation(
            "mean",
            "you averaged over the samples: the lecture's L is a sum, nothing is divided by N.",
            lambda x, *a: tuple(g / len(x) for g in regression_gradient(x, *a)),
        ),
        Explanation(
            "before the slope",
            "your dv uses the hidden units before their tanh: the output sees h_nk, so ∂L/∂v_k = −Σ e_n h_nk.",
            lambda x, y, w, v: (*regression_gradient(x, y, w, v)[:2], -((y - np.tanh(x @ w) @ v) @ (x @ w))),
        ),
    ),
    mutants=(
        Mutant("dv = -(e @ h)", "dv = e @ h", says="minus of dv"),
        Mutant("dh = -e[:, None] * v", "dh = e[:, None] * v", says="minus of dw"),
        Mutant("e = y - h @ v", "e = h @ v - y", says="uphill"),
        Mutant("tanh_backward(dh, h)", "dh", says="slope"),
        Mutant("tanh_backward(dh, h)", "tanh_backward(dh, np.tanh(h))", says="tanh of tanh"),
        Mutant("return dy * (1.0 - y * y)", "return dy * (y * (1.0 - y))", says="sigmoid's slope"),
        Mutant("dh = -e[:, None] * v", "dh = -e[:, None] * np.ones_like(v)", says="output weight"),
        Mutant("dh = -e[:, None] * v", "dh = -np.ones_like(e)[:, None] * v", says="error"),
        Mutant("return loss, dw, dv", "return 2 * loss, 2 * dw, 2 * dv", says="no half"),
        Mutant("return loss, dw, dv", "return loss, 2 * dw, 2 * dv", says="derivative of the square"),
        Mutant("return loss, dw, dv", "return loss / len(x), dw / len(x), dv / len(x)", says="mean"),
        Mutant("dv = -(e @ h)", "dv = -(e @ (x @ w))", says="before the slope"),
        Mutant("dv = -(e @ h)", "dv = -(e[:, None] * h)", says="shape"),
    ),
    alternatives=(
        """import numpy as np


def regression_gradient(x, y, w, v):
    N, D = x.shape
    K = len(v)
    loss, dw, dv = 0.0, np.zeros((D, K)), np.zeros(K)
    for n in range(N):
        a = [sum(w[d, k] * x[n, d] for d in range(D)) for k in range(K)]
        df = sum(v[k] * np.tanh(a[k]) for k in range(K)) - y[n]  # the derivative by the output
        loss += df * df / 2
        for k in range(K):
            dv[k] += df * np.tanh(a[k])
            back = df * v[k] / np.cosh(a[k]) ** 2
            for d in range(D):
                dw[d, k] += back * x[n, d]
    return loss, dw, dv
""",
    ),
    train=Train(_kernels, "regression"),
)
