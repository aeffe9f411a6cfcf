"""RBM and contrastive divergence: learn from the difference between data and dreams

A restricted Boltzmann machine has visible units v (the pixels), hidden units h, and a weight between each two of
different kind. It has no output and no target: it is to find the data likely and all else unlikely.

    p(h_j = 1 | v) = σ(c + W v)_j        p(v_i = 1 | h) = σ(b + Wᵀh)_i        w (H, D), b (D,), c (H,)

The gradient of ln p(v) is what the machine does with the data minus what it does when it dreams, left to itself. To
dream properly takes for ever, so contrastive divergence begins at the data and dreams k steps only (CD-k). For every
step, with two sets of uniform random numbers u:

    h is 1 where u_h < p(h | v), else 0            drawn, not the probability
    v is 1 where u_v < p(v | h), else 0            drawn, too

After k steps v_k is compared with the data v_0. In the statistics nothing needs to be drawn, probabilities say the same
with less noise:

    Δw = mean of p(h | v_0) v_0ᵀ − p(h | v_k) v_kᵀ    Δb = mean of v_0 − v_k    Δc = mean of p(h | v_0) − p(h | v_k)

The means are over the N samples; these are the changes that one adds, times a learning rate.

Write contrastive_divergence(v, w, b, c, u_h, u_v): v (N, D) in 0 … 1, u_h (k, N, H) and u_v (k, N, D), one set for each
of the k steps. Return v_k (N, D), of zeros and ones, and dw, db, dc of the shapes of w, b, c.

Source: lecture: unsupervised learning (restricted Boltzmann machine); Hinton, "Training products of experts by
minimizing contrastive divergence", 2002; Hinton, "A practical guide to training restricted Boltzmann machines", 2010,
section 3.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import sigmoid_forward
from cnnlib.ops.linear import linear_backward_weight, linear_forward


def contrastive_divergence(v, w, b, c, u_h, u_v):
    v_k = v
    for chance_h, chance_v in zip(u_h, u_v):
        h = (chance_h < sigmoid_forward(linear_forward(v_k, w, c))).astype(w.dtype)
        v_k = (chance_v < sigmoid_forward(linear_forward(h, w.T, b))).astype(w.dtype)
    data, dream = sigmoid_forward(linear_forward(v, w, c)), sigmoid_forward(linear_forward(v_k, w, c))
    dw = linear_backward_weight(data, v) - linear_backward_weight(dream, v_k)
    return v_k, dw / len(v), (v - v_k).mean(axis=0), (data - dream).mean(axis=0)


def chain(v, w, b, c, u_h, u_v):
    """v_k, and how near a u came to its probability: a draw that near might be told either way."""
    nearest = 1.0
    for chance_h, chance_v in zip(u_h, u_v, strict=True):
        p = 1 / (1 + np.exp(-(v @ w.T + c)))
        h = (chance_h < p) * 1.0
        q = 1 / (1 + np.exp(-(h @ w + b)))
        v = (chance_v < q) * 1.0
        nearest = min(nearest, np.abs(chance_h - p).min(), np.abs(chance_v - q).min())
    return v, nearest


def likelier(v, w, b, c, u_h, u_v):
    """mean F(v_k) − mean F(v_0), F the free energy, whose derivative with v_k held fixed is the change that CD makes."""

    def free_energy(v):
        return -v @ b - np.logaddexp(0, v @ w.T + c).sum(axis=1)

    return (free_energy(chain(v, w, b, c, u_h, u_v)[0]) - free_energy(v)).mean()


def shorter(v, w, b, c, u_h, u_v):
    """What the chain must not end in, or nothing would tell: the data, and where k > 1 its first or last step alone."""
    alone = (0, -1) if len(u_h) > 1 else ()
    return [v, *(chain(v, w, b, c, u_h[i][None], u_v[i][None])[0] for i in alone)]


def cases(rng):
    def case(N, D, H, k, *features, grey=False):
        while True:
            v = rng.uniform(size=(N, D))
            weights = rng.normal(size=(H, D)), rng.normal(size=D), rng.normal(size=H)
            args = (v if grey else (v < 0.5) * 1.0, *weights, rng.uniform(size=(k, N, H)), rng.uniform(size=(k, N, D)))
            v_k, nearest = chain(*args)
            if nearest > 1e-2 and all((v_k != other).any() for other in shorter(*args)):
                return Case(args, features)

    return [
        case(10, 6, 4, 1),
        case(6, 5, 3, 3, "k = 3"),
        case(1, 4, 2, 1, "N = 1"),
        case(3, 4, 1, 2, "k = 2", "one hidden unit"),
        case(4, 4, 4, 1, "N = D = H"),
        case(4, 5, 3, 1, "grey pixels", grey=True),
    ]


EXERCISE = Exercise(
    number=36,
    name="contrastive_divergence",
    topic="lecture: unsupervised learning (restricted Boltzmann machine)",
    function=contrastive_divergence,
    uses=(sigmoid_forward, linear_forward, linear_backward_weight),
    outputs=("v_k", "dw", "db", "dc"),
    starter='''\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def contrastive_divergence(v, w, b, c, u_h, u_v):
    """v (N, D), w (H, D), b (D,), c (H,), u_h (k, N, H), u_v (k, N, D) -> v_k (N, D), dw, db, dc"""
    # k times: draw h from v, draw v from h
    # statistics of the data minus statistics of v_k
    ...
''',
    cases=cases,
    numerical=Numerical(likelier, wrt={"dw": 1, "db": 2, "dc": 3}, upstream=None),
    hints=(
        "Which of the quantities are drawn, zeros and ones, and in which place is a probability used as it is?",
        "Two matrices (N, H) go into the statistics: p(h | v_0) and p(h | v_k), the second computed anew after the last draw.",
        "h = (u_h[i] < sigmoid(v_k @ w.T + c)) * 1.0; v_k = (u_v[i] < sigmoid(h @ w + b)) * 1.0; then dw = (p_0.T @ v - "
        "p_k.T @ v_k) "
        "/ N.",
    ),
    question="Why must h be drawn within the chain: what would go wrong if the reconstruction were made of the probabilities?",
    answer="Probabilities are real numbers, and a hidden unit could hand on much more than the one bit that it has: the "
    "machine would be "
    "trained as an autoencoder and not as a distribution of binary units. In the statistics no information is handed on, so "
    "there "
    "the probabilities are right, and quieter.",
    link="cnnlib/models/rbm.py",
    explanations=(
        Explanation(
            "h_not_drawn", "your chain hands on p(h | v): h must be drawn, 1 where u_h < p, or it tells more than one bit."
        ),
        Explanation("v_not_drawn", "your v_k holds probabilities: it must be drawn, 1 where u_v < p(v | h)."),
        Explanation("one_step", "your chain has one step only: there are k, as many as u_h and u_v have sets."),
        Explanation("restart", "your chain begins at the data in every step: step 2 goes on from the v that step 1 drew."),
        Explanation("drawn_statistics", "your statistics of the dream use the drawn h: take the probabilities p(h | v_k)."),
        Explanation("data_drawn", "your statistics of the data use the drawn h: take the probabilities p(h | v_0)."),
        Explanation("stale_h", "your last hidden probabilities are those of the data: compute p(h | v_k) anew from v_k."),
        Explanation(
            "crossed", "your dream's statistics pair p(h | v_k) with the data v_0: both factors come from the end of the chain."
        ),
        Explanation("no_dream", "your Δw has the data's part only: without the dream's the weights grow for ever."),
        Explanation("upside_down", "your draw is upside down: a unit is 1 with probability p, where u < p."),
        Explanation("no_b", "your reconstruction leaves out the visible bias: p(v | h) = σ(b + Wᵀh)."),
        Explanation("no_c", "your hidden probabilities leave out the hidden bias: p(h | v) = σ(c + W v)."),
        Explanation("sum", "your Δw is a sum over the samples: it is the mean, divide by N."),
        Explanation("rounded", "your draws are rounded probabilities: compare them with the random numbers u, not with ½."),
        Explanation("added", "your Δw adds data and dream: what the machine dreams is to become less likely, subtract it."),
    ),
    mutants=(
        Mutant(
            "h = (chance_h < sigmoid_forward(linear_forward(v_k, w, c))).astype(w.dtype)",
            "h = sigmoid_forward(linear_forward(v_k, w, c))",
            says="h_not_drawn",
        ),
        Mutant(
            "v_k = (chance_v < sigmoid_forward(linear_forward(h, w.T, b))).astype(w.dtype)",
            "v_k = sigmoid_forward(linear_forward(h, w.T, b))",
            says="v_not_drawn",
        ),
        Mutant("zip(u_h, u_v)", "zip(u_h[:1], u_v[:1])", says="one_step"),
        Mutant(
            "(chance_h < sigmoid_forward(linear_forward(v_k, w, c)))",
            "(chance_h < sigmoid_forward(linear_forward(v, w, c)))",
            says="restart",
        ),
        Mutant("linear_backward_weight(dream, v_k)", "linear_backward_weight(h, v_k)", says="drawn_statistics"),
        Mutant(
            "linear_backward_weight(data, v) -",
            "linear_backward_weight((u_h[0] < data).astype(w.dtype), v) -",
            says="data_drawn",
        ),
        Mutant(
            "data, dream = sigmoid_forward(linear_forward(v, w, c)), sigmoid_forward(linear_forward(v_k, w, c))",
            "data = dream = sigmoid_forward(linear_forward(v, w, c))",
            says="stale_h",
        ),
        Mutant("linear_backward_weight(dream, v_k)", "linear_backward_weight(dream, v)", says="crossed"),
        Mutant(" - linear_backward_weight(dream, v_k)", "", says="no_dream"),
        Mutant(
            "linear_backward_weight(data, v) - linear_backward_weight(dream, v_k)",
            "linear_backward_weight(dream, v_k) - linear_backward_weight(data, v)",
            says="sign",
        ),
        Mutant("h = (chance_h <", "h = (chance_h >", says="upside_down"),
        Mutant("v_k = (chance_v <", "v_k = (chance_v >", says="upside_down"),
        Mutant("linear_forward(h, w.T, b)", "linear_forward(h, w.T, None)", says="no_b"),
        Mutant("linear_forward(v_k, w, c))).astype", "linear_forward(v_k, w, None))).astype", says="no_c"),
        Mutant("dw / len(v)", "dw", says="sum"),
        Mutant("h = (chance_h <", "h = (0.5 <", says="rounded"),
        Mutant("linear_backward_weight(data, v) - ", "linear_backward_weight(data, v) + ", says="added"),
    ),
    alternatives=(
        """\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def contrastive_divergence(v, w, b, c, u_h, u_v):
    k, N, H = u_h.shape
    hidden = lambda visible: sigmoid(visible @ w.T + c)
    dreamt = v.copy()
    for step in range(k):
        h = np.where(u_h[step] < hidden(dreamt), 1.0, 0.0)
        dreamt = np.where(u_v[step] < sigmoid(h @ w + b), 1.0, 0.0)
    dw, db, dc = np.zeros_like(w), np.zeros_like(b), np.zeros_like(c)
    for n in range(N):
        for sign, visible in ((+1, v[n]), (-1, dreamt[n])):
            dw += sign * np.outer(hidden(visible), visible) / N
            db += sign * visible / N
            dc += sign * hidden(visible) / N
    return dreamt, dw, db, dc
""",
    ),
    train=Train(lambda f: {"contrastive_divergence": f}, "rbm"),
)
