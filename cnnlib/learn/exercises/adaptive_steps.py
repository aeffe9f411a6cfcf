"""Adagrad, RMSProp, Adam: a learning rate for every weight

One learning rate for all weights is a compromise: the weight of a rare word sees a gradient once in a thousand steps, that of
"the" at every step. The adaptive methods divide each weight's gradient by how large its gradients usually are.

Adagrad (2011) adds up all squared gradients, for each weight by itself:

    G ← G + g²                       w ← w − η g / (√G + ε)

G only grows, so the steps die away. RMSProp (Hinton's lecture, 2012) forgets: a running mean in place of the sum,

    G ← α G + (1 − α) g²             w ← w − η g / (√G + ε)

and Adam (2015) puts momentum on top, as a running mean of g, and corrects the start. m and v begin at 0, so after t steps they
hold only the share 1 − βᵗ of a mean; dividing by it undoes that.

    m ← β₁ m + (1 − β₁) g            m̂ = m / (1 − β₁ᵗ)
    v ← β₂ v + (1 − β₂) g²           v̂ = v / (1 − β₂ᵗ)             w ← w − η m̂ / (√v̂ + ε)

t = 1 at the first step. A worked first step with g = 0.01, β₁ = 0.9, β₂ = 0.999: m = 0.001, v = 10⁻⁷, m̂ = 0.01, v̂ = 10⁻⁴,
so w moves by η · 0.01/0.01 = η. With g = 1000 it moves by η as well: Adam's steps do not care for the size of the gradient.

Where does ε stand? The lecture's Adagrad has √(G + ε), inside the root; PyTorch, and so this exercise, √G + ε, outside. With
ε = 10⁻⁸ the first adds 10⁻⁴ to a root near 0, the second 10⁻⁸: for small gradients that is a different optimiser.

Write all three: ``adagrad(w, g, square_sum, lr, eps)`` returns w and G; ``rmsprop(w, g, square_avg, lr, alpha, eps)`` returns w
and G; ``adam(w, g, m, v, t, lr, beta1, beta2, eps)`` returns w, m and v. Return new arrays, leave the old ones as they are.

Source: lecture: optimisation; Duchi, Hazan & Singer, "Adaptive subgradient methods", 2011; Tieleman & Hinton, lecture 6.5,
2012; Kingma & Ba, "Adam: a method for stochastic optimization", 2015.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Train


def adagrad(w, g, square_sum, lr, eps):
    square_sum = square_sum + g * g
    return w - lr * g / (np.sqrt(square_sum) + eps), square_sum


def rmsprop(w, g, square_avg, lr, alpha, eps):
    square_avg = alpha * square_avg + (1.0 - alpha) * (g * g)
    return w - lr * g / (np.sqrt(square_avg) + eps), square_avg


def adam(w, g, m, v, t, lr, beta1, beta2, eps):
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * (g * g)
    m_hat = m / (1.0 - beta1**t)  # undoes the start at 0
    v_hat = v / (1.0 - beta2**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


STARTER = """import numpy as np


def adagrad(w, g, square_sum, lr, eps):
    new_sum = ...
    new_w = ...
    return new_w, new_sum


def rmsprop(w, g, square_avg, lr, alpha, eps):
    new_avg = ...
    new_w = ...
    return new_w, new_avg


def adam(w, g, m, v, t, lr, beta1, beta2, eps):
    new_m = ...
    new_v = ...
    m_hat = ...
    v_hat = ...
    new_w = ...
    return new_w, new_m, new_v
"""


def cases(rng):
    def draw(*shape, scale=1.0):
        w, g = rng.standard_normal(shape), scale * rng.standard_normal(shape)
        return w, g, scale**2 * rng.uniform(0.2, 2.0, shape)

    def adam_case(shape, t, lr, beta1, beta2, eps, *features, scale=1.0):
        w, g, v = draw(*shape, scale=scale)
        m = scale * rng.standard_normal(shape)
        if t == 1:
            m, v = np.zeros(shape), np.zeros(shape)
        return Case((w, g, m, v, t, lr, beta1, beta2, eps), features, "adam")

    w, g, squares = draw(4, scale=1e-3)
    return [
        Case((*draw(4, 3), 0.1, 0.01), (), "adagrad"),
        Case((w, g, squares, 0.1, 1e-4), ("small gradients",), "adagrad"),
        Case((*draw(5)[:2], np.zeros(5), 0.5, 0.1), ("the first step",), "adagrad"),
        Case((*draw(4, 3), 0.1, 0.9, 0.01), (), "rmsprop"),
        Case((w, g, squares, 0.02, 0.7, 1e-4), ("small gradients",), "rmsprop"),
        adam_case((4, 3), 7, 0.1, 0.9, 0.99, 0.01),
        adam_case((5,), 1, 0.1, 0.9, 0.999, 1e-3, "the first step"),
        adam_case((4,), 3, 0.02, 0.8, 0.95, 1e-4, "small gradients", scale=1e-3),
    ]


def _adam(w, g, m, v, t, lr, beta1, beta2, eps, *, start=(True, True), count=0, power=2, keep=True, outside=False):
    """Adam with a choice of mistakes in it."""
    m = beta1 * m + (1.0 - beta1 if keep else 1.0) * g
    v = beta2 * v + (1.0 - beta2 if keep else 1.0) * abs(g) ** power
    m_hat = m / (1.0 - beta1 ** (t + count)) if start[0] else m
    v_hat = v / (1.0 - beta2 ** (t + count)) ** (2 if outside else 1) if start[1] else v
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def _in_place(f, w, dw, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """The learner's Adam as the library's kernel: it writes into w, m and v."""
    w[...], m[...], v[...] = f(w.copy(), dw, m.copy(), v.copy(), step, lr, beta1, beta2, eps)


EXERCISE = Exercise(
    number=29,
    name="adaptive_steps",
    topic="lecture: optimisation",
    function=(adagrad, rmsprop, adam),
    outputs={"adagrad": ("w", "square_sum"), "rmsprop": ("w", "square_avg"), "adam": ("w", "m", "v")},
    starter=STARTER,
    cases=cases,
    hints=(
        "One line per formula. All of it is element by element: nothing is summed over the elements of w, each weight has "
        "its own G.",
        "Update the state first and use the new state in the step. ε is added after the root. In Adam, t is a power: "
        "1 - beta1**t.",
        "adagrad: new_sum = square_sum + g * g; w - lr * g / (np.sqrt(new_sum) + eps). rmsprop: new_avg = alpha * square_avg + "
        "(1 - alpha) * g * g, and the same step. adam: m_hat = new_m / (1 - beta1**t), v_hat likewise, and "
        "w - lr * m_hat / (np.sqrt(v_hat) + eps).",
    ),
    question="Multiply the loss by 1000. What do SGD, Adagrad, RMSProp and Adam do differently from before?",
    answer="SGD's steps become 1000 times as long, and it probably diverges. The others divide g by the root of something in "
    "g², so the factor cancels (but for ε, which matters less than before). That is why one learning rate, 0.001, works for "
    "so many networks with Adam, and why weight decay through g does not do with Adam what it does with SGD: AdamW keeps it "
    "outside.",
    link="cnnlib/optim.py",
    explanations=(
        Explanation(
            "adagrad: eps inside",
            "your Adagrad has ε inside the root, √(G + ε), as the lecture has it: this exercise, like PyTorch, adds it "
            "after, √G + ε.",
            lambda w, g, G, lr, eps: (w - lr * g / np.sqrt(G + g * g + eps), G + g * g),
            function="adagrad",
        ),
        Explanation(
            "adagrad: not squared",
            "your Adagrad adds |g| up: it is the squares that are summed, and the root that is taken of them.",
            lambda w, g, G, lr, eps: (w - lr * g / (np.sqrt(G + abs(g)) + eps), G + abs(g)),
            function="adagrad",
        ),
        Explanation(
            "adagrad: no root",
            "your Adagrad divides by G itself: divide by its root, so that the units of g cancel.",
            lambda w, g, G, lr, eps: (w - lr * g / (G + g * g + eps), G + g * g),
            function="adagrad",
        ),
        Explanation(
            "adagrad: old sum",
            "your Adagrad divides by the sum before this step: add g² first, or the very first step divides by ε alone.",
            lambda w, g, G, lr, eps: (w - lr * g / (np.sqrt(G) + eps), G + g * g),
            function="adagrad",
        ),
        Explanation(
            "adagrad: forgets",
            "your Adagrad knows only the present gradient: G adds up all squared gradients since the beginning.",
            lambda w, g, G, lr, eps: (w - lr * g / (abs(g) + eps), g * g),
            function="adagrad",
        ),
        Explanation(
            "rmsprop: sum",
            "your RMSProp adds g² in full: in a running mean it counts 1 − α times, or G grows to 1/(1 − α) times the mean.",
            lambda w, g, G, lr, alpha, eps: (w - lr * g / (np.sqrt(alpha * G + g * g) + eps), alpha * G + g * g),
            function="rmsprop",
        ),
        Explanation(
            "rmsprop: exchanged",
            "your RMSProp has α and 1 − α exchanged: the old mean counts α times (0.99 as a rule), the new square 1 − α times.",
            lambda w, g, G, lr, alpha, eps: rmsprop(w, g, G, lr, 1.0 - alpha, eps),
            function="rmsprop",
        ),
        Explanation(
            "rmsprop: eps inside",
            "your RMSProp has ε inside the root: add it after, √G + ε.",
            lambda w, g, G, lr, alpha, eps: (
                w - lr * g / np.sqrt(rmsprop(w, g, G, lr, alpha, eps)[1] + eps),
                rmsprop(w, g, G, lr, alpha, eps)[1],
            ),
            function="rmsprop",
        ),
        Explanation(
            "adam: no correction",
            "your Adam does not correct the start: m and v begin at 0, so divide them by 1 − β₁ᵗ and 1 − β₂ᵗ.",
            lambda *a: _adam(*a, start=(False, False)),
            function="adam",
        ),
        Explanation(
            "adam: v uncorrected",
            "your Adam corrects m only: v began at 0, too, so v̂ = v / (1 − β₂ᵗ).",
            lambda *a: _adam(*a, start=(True, False)),
            function="adam",
        ),
        Explanation(
            "adam: m uncorrected",
            "your Adam corrects v only: m began at 0, too, so m̂ = m / (1 − β₁ᵗ).",
            lambda *a: _adam(*a, start=(False, True)),
            function="adam",
        ),
        Explanation(
            "adam: t late",
            "your Adam corrects with t + 1: t counts from 1, it is the number of this very step.",
            lambda *a: _adam(*a, count=1),
            function="adam",
        ),
        Explanation(
            "adam: correction outside the root",
            "your Adam divides √v by 1 − β₂ᵗ: the correction belongs to v, inside the root, √(v / (1 − β₂ᵗ)).",
            lambda *a: _adam(*a, outside=True),
            function="adam",
        ),
        Explanation(
            "adam: not a power",
            "your Adam multiplies by t: the share of the mean that is missing after t steps is a power, βᵗ (β**t).",
        ),
        Explanation(
            "adam: not squared",
            "your Adam takes |g| into v: v is the running mean of the squares g².",
            lambda *a: _adam(*a, power=1),
            function="adam",
        ),
        Explanation(
            "adam: corrected state",
            "your Adam hands the corrected m̂ and v̂ on as its state: the correction is for this step only, return m and v.",
        ),
        Explanation(
            "adam: exchanged",
            "your Adam has β₁ and β₂ exchanged: β₁ (0.9) is for the mean of g, β₂ (0.999) for that of g².",
            lambda w, g, m, v, t, lr, beta1, beta2, eps: adam(w, g, m, v, t, lr, beta2, beta1, eps),
            function="adam",
        ),
        Explanation(
            "adam: eps inside",
            "your Adam has ε inside the root: add it after, √v̂ + ε.",
        ),
        Explanation(
            "adam: eps before the correction",
            "your Adam adds ε to √v, before the correction, as the paper's short form does with another ε: here it is √v̂ + ε.",
        ),
        Explanation(
            "adam: sums",
            "your Adam's m and v are fading sums: in running means what is new counts 1 − β times.",
            lambda *a: _adam(*a, keep=False),
            function="adam",
        ),
    ),
    mutants=(
        Mutant("(np.sqrt(square_sum) + eps)", "np.sqrt(square_sum + eps)", says="adagrad: eps inside"),
        Mutant("square_sum + g * g", "square_sum + abs(g)", says="adagrad: not squared"),
        Mutant("(np.sqrt(square_sum) + eps)", "(square_sum + eps)", says="adagrad: no root"),
        Mutant(
            "    square_sum = square_sum + g * g\n    return w - lr * g / (np.sqrt(square_sum) + eps), square_sum",
            "    return w - lr * g / (np.sqrt(square_sum) + eps), square_sum + g * g",
            says="adagrad: old sum",
        ),
        Mutant("    square_sum = square_sum + g * g", "    square_sum = g * g", says="adagrad: forgets"),
        Mutant(
            "square_avg = alpha * square_avg + (1.0 - alpha) * (g * g)",
            "square_avg = alpha * square_avg + g * g",
            says="rmsprop: sum",
        ),
        Mutant(
            "square_avg = alpha * square_avg + (1.0 - alpha) * (g * g)",
            "square_avg = (1.0 - alpha) * square_avg + alpha * (g * g)",
            says="rmsprop: exchanged",
        ),
        Mutant("(np.sqrt(square_avg) + eps)", "np.sqrt(square_avg + eps)", says="rmsprop: eps inside"),
        Mutant(
            "    m_hat = m / (1.0 - beta1**t)  # undoes the start at 0\n    v_hat = v / (1.0 - beta2**t)",
            "    m_hat, v_hat = m, v",
            says="adam: no correction",
        ),
        Mutant("v_hat = v / (1.0 - beta2**t)", "v_hat = v / (1.0 - beta2**t) ** 2", says="adam: correction outside the root"),
        Mutant("v / (1.0 - beta2**t)", "v", says="adam: v uncorrected"),
        Mutant("m / (1.0 - beta1**t)", "m", says="adam: m uncorrected"),
        Mutant("    m_hat = m", "    t = t + 1\n    m_hat = m", says="adam: t late"),
        Mutant(
            "    m_hat = m / (1.0 - beta1**t)  # undoes the start at 0\n    v_hat = v / (1.0 - beta2**t)",
            "    m_hat = m / (1.0 - beta1 * t)\n    v_hat = v / (1.0 - beta2 * t)",
            says="adam: not a power",
        ),
        Mutant("v = beta2 * v + (1.0 - beta2) * (g * g)", "v = beta2 * v + (1.0 - beta2) * abs(g)", says="adam: not squared"),
        Mutant("(np.sqrt(v_hat) + eps), m, v", "(np.sqrt(v_hat) + eps), m_hat, v_hat", says="adam: corrected state"),
        Mutant("    m = beta1 * m", "    beta1, beta2 = beta2, beta1\n    m = beta1 * m", says="adam: exchanged"),
        Mutant("(np.sqrt(v_hat) + eps)", "np.sqrt(v_hat + eps)", says="adam: eps inside"),
        Mutant(
            "(np.sqrt(v_hat) + eps)",
            "(np.sqrt(v_hat) + eps / np.sqrt(1.0 - beta2**t))",
            says="adam: eps before the correction",
        ),
        Mutant(
            "    m = beta1 * m + (1.0 - beta1) * g\n    v = beta2 * v + (1.0 - beta2) * (g * g)",
            "    m = beta1 * m + g\n    v = beta2 * v + g * g",
            says="adam: sums",
        ),
        Mutant("    m = beta1 * m + (1.0 - beta1) * g", "    m *= beta1\n    m += (1.0 - beta1) * g", says="mutated"),
    ),
    alternatives=(
        """import numpy as np


def adagrad(w, g, square_sum, lr, eps):
    total = square_sum + np.square(g)
    return w - lr / (eps + total**0.5) * g, total


def rmsprop(w, g, square_avg, lr, alpha, eps):
    mean = square_avg + (1 - alpha) * (g**2 - square_avg)
    return w - lr / (eps + mean**0.5) * g, mean


def adam(w, g, m, v, t, lr, beta1, beta2, eps):
    m = m + (1 - beta1) * (g - m)
    v = v + (1 - beta2) * (g**2 - v)
    # the form at the end of section 2 of the paper: the corrections go into the learning rate, and into eps
    root = np.sqrt(1 - beta2**t)
    return w - lr * root / (1 - beta1**t) * m / (np.sqrt(v) + eps * root), m, v
""",
        """import math

import numpy as np


def mean(old, new, share):
    return np.average([old, new], axis=0, weights=[share, 1 - share])


def divide(w, g, G, lr, eps):
    out = np.empty(w.shape)
    for i in np.ndindex(w.shape):
        out[i] = w[i] - lr * g[i] / (math.sqrt(G[i]) + eps)
    return out


def adagrad(w, g, square_sum, lr, eps):
    G = square_sum + g * g
    return divide(w, g, G, lr, eps), G


def rmsprop(w, g, square_avg, lr, alpha, eps):
    G = mean(square_avg, g * g, alpha)
    return divide(w, g, G, lr, eps), G


def adam(w, g, m, v, t, lr, beta1, beta2, eps):
    m, v = mean(m, g, beta1), mean(v, g * g, beta2)
    return divide(w, m / (1 - math.pow(beta1, t)), v / (1 - math.pow(beta2, t)), lr, eps), m, v
""",
    ),
    train=Train(lambda f: {"adam_step": lambda *a: _in_place(f[2], *a)}, "adam"),
)
