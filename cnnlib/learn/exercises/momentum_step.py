"""SGD, momentum, Nesterov: a ball in a valley

Plain gradient descent walks down the steepest slope, w ← w − η g. In a long narrow valley the steepest slope points across:
it bounces from wall to wall and hardly moves along. Give it a mass. A heavy ball averages the bounces away and gathers speed
where the slope always points the same way (Polyak, 1964):

    v ← μ v + g                     velocity: what is left of the old one, plus the new push
    w ← w − η v                     η the learning rate, μ the momentum, 0.9 as a rule

With a constant g the velocity grows to g + μg + μ²g + … = g / (1 − μ): with μ = 0.9 ten times plain SGD. μ = 0 *is* plain SGD.

Nesterov's is the ball that looks ahead. It goes where its velocity will take it anyway, and corrects from there; written for
the gradient at w, as cnnlib and PyTorch do, the look-ahead is one more μ v:

    v ← μ v + g
    w ← w − η (g + μ v)             with the *new* v

A worked step, η = 0.1, μ = 0.9, w = 1, g = 2, v = 1: the new v is 2.9; momentum goes to 1 − 0.29 = 0.71, Nesterov to
1 − 0.1 (2 + 2.61) = 0.539.

Write ``momentum_step(w, g, v, lr, momentum, nesterov)`` for arrays w, g, v of one shape. Return the new w and the new v, and
leave the old ones as they are. (A library's optimiser writes into w to save memory. Yours may be clean.)

Conventions differ, and papers copy formulas from each other: here the velocity is a sum of gradients, and η stands outside, so
that a change of the learning rate acts at once. No (1 − μ) before g: that would be Adam's running mean.

Source: lecture: optimisation; Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Nesterov 1983;
Sutskever, Martens, Dahl & Hinton, "On the importance of initialization and momentum in deep learning", 2013.
"""

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Train


def momentum_step(w, g, v, lr, momentum, nesterov):
    v = momentum * v + g
    step = g + momentum * v if nesterov else v
    return w - lr * step, v


STARTER = """import numpy as np


def momentum_step(w, g, v, lr, momentum, nesterov):
    new_v = ...
    if nesterov:
        new_w = ...
    else:
        new_w = ...
    return new_w, new_v
"""


def cases(rng):
    def case(shape, lr, momentum, nesterov, *features, start=1.0):
        w, g, v = (rng.standard_normal(shape) for _ in range(3))
        return Case((w, g, start * v, lr, momentum, nesterov), features)

    return [
        case((5,), 0.1, 0.0, False, "plain SGD"),
        case((4, 3), 0.1, 0.9, False, "momentum"),
        case((4, 3), 0.1, 0.9, True, "Nesterov"),
        case((3,), 0.02, 0.5, True, "Nesterov"),
        case((2, 3, 2), 1.5, 0.8, False, "momentum", "a large learning rate"),
        case((6,), 0.05, 0.9, True, "Nesterov", "at rest", start=0.0),
        case((6,), 0.05, 0.9, False, "momentum", "at rest", start=0.0),
    ]


def _step(w, g, v, lr, momentum, nesterov, *, push=None, ahead=None, uphill=False):
    """A step with a choice of mistakes in it: ``push`` makes the new velocity, ``ahead`` Nesterov's direction."""
    new = momentum * v + g if push is None else push(v, g, momentum, lr)
    direction = (g + momentum * new if ahead is None else ahead(g, v, new, momentum)) if nesterov else new
    return w + (lr if uphill else -lr) * direction, new


def _in_place(f, w, dw, velocity, lr, momentum, dampening, weight_decay, nesterov):
    """The learner's step as the library's kernel: it writes into w and velocity."""
    w[...], velocity[...] = f(w.copy(), dw, velocity.copy(), lr, momentum, nesterov)


EXERCISE = Exercise(
    number=28,
    name="momentum_step",
    topic="lecture: optimisation",
    function=momentum_step,
    outputs=("w", "v"),
    starter=STARTER,
    cases=cases,
    hints=(
        "The velocity first, the same line for both kinds. Then w, which uses the new velocity, not the old one.",
        "new_v = momentum * v + g. The ball goes along new_v; Nesterov's goes along g + momentum * new_v.",
        "new_w = w - lr * (g + momentum * new_v) if nesterov else w - lr * new_v",
    ),
    question="With μ = 0.9 and a constant gradient, how fast does the ball go in the end, and how many steps does it take to "
    "stop if the ground becomes flat? What does that say about the learning rate when you raise μ from 0.9 to 0.99?",
    answer="10 times as fast as plain SGD, η g / (1 − μ); on flat ground the velocity falls by 0.9 each step, to a third "
    "after 10, to a hundredth after 44. With μ = 0.99 it is 100 times: keep η / (1 − μ) about the same, so divide η by ten.",
    link="cnnlib/optim.py",
    explanations=(
        Explanation(
            "uphill",
            "your w climbs: the gradient points uphill, so w ← w − η v.",
            lambda *a: _step(*a, uphill=True),
        ),
        Explanation(
            "running mean",
            "your velocity is a running mean, μ v + (1 − μ) g: here it is a sum, μ v + g (the mean belongs to Adam).",
            lambda *a: _step(*a, push=lambda v, g, mu, lr: mu * v + (1.0 - mu) * g),
        ),
        Explanation(
            "rate inside",
            "your velocity has the learning rate inside, μ v + η g: here it is a sum of gradients, and η comes in when w "
            "moves.",
            lambda w, g, v, lr, mu, nesterov: (
                w - (lr * g + mu * (mu * v + lr * g) if nesterov else mu * v + lr * g),
                mu * v + lr * g,
            ),
        ),
        Explanation(
            "downhill velocity",
            "your velocity points downhill and has the learning rate inside, v ← μ v − η g, as some books write it: here v "
            "is a sum of gradients, μ v + g, and the − η comes in when w moves.",
            lambda w, g, v, lr, mu, nesterov: (
                w + (mu * (mu * v - lr * g) - lr * g if nesterov else mu * v - lr * g),
                mu * v - lr * g,
            ),
        ),
        Explanation(
            "no friction",
            "your velocity never fades: the old one counts μ times, v ← μ v + g.",
            lambda *a: _step(*a, push=lambda v, g, mu, lr: v + g),
        ),
        Explanation(
            "friction on the push",
            "your velocity is μ (v + g): only the old velocity fades, the new gradient counts in full.",
            lambda *a: _step(*a, push=lambda v, g, mu, lr: mu * (v + g)),
        ),
        Explanation(
            "old velocity",
            "you move w with the old velocity: update v first, then go along the new one.",
            lambda w, g, v, lr, mu, nesterov: (w - lr * (g + mu * v if nesterov else v), mu * v + g),
        ),
        Explanation(
            "no look-ahead",
            "your Nesterov does what plain momentum does: it goes along g + μ v with the *new* v (with the old one, g + μ v "
            "is just the new velocity).",
            lambda *a: _step(*a, ahead=lambda g, old, new, mu: new),
        ),
        Explanation(
            "nesterov without friction",
            "your Nesterov goes along g + v: the velocity that is looked ahead along counts μ times.",
            lambda *a: _step(*a, ahead=lambda g, old, new, mu: g + new),
        ),
        Explanation(
            "gradient twice",
            "your Nesterov goes along v + μ v: the first term is the gradient g, not the velocity.",
            lambda *a: _step(*a, ahead=lambda g, old, new, mu: new + mu * new),
        ),
        Explanation(
            "state is the step",
            "you hand Nesterov's direction on as the velocity: the new v is μ v + g for both kinds, the look-ahead is for "
            "this step only.",
            lambda w, g, v, lr, mu, nesterov: (
                momentum_step(w, g, v, lr, mu, nesterov)[0],
                -_step(0 * w, g, v, 1.0, mu, nesterov)[0],
            ),
        ),
        Explanation(
            "always nesterov",
            "you look ahead always: without nesterov w ← w − η v.",
            lambda w, g, v, lr, mu, nesterov: _step(w, g, v, lr, mu, True),
        ),
    ),
    mutants=(
        Mutant(
            "    v = momentum * v + g\n    step = g + momentum * v if nesterov else v\n    return w - lr * step, v",
            "    v = momentum * v - lr * g\n    return w + (momentum * v - lr * g if nesterov else v), v",
            says="downhill velocity",
        ),
        Mutant("w - lr * step", "w + lr * step", says="uphill"),
        Mutant("momentum * v + g\n", "momentum * v + (1.0 - momentum) * g\n", says="running mean"),
        Mutant(
            "    v = momentum * v + g\n    step = g + momentum * v if nesterov else v\n    return w - lr * step, v",
            "    v = momentum * v + lr * g\n    step = lr * g + momentum * v if nesterov else v\n    return w - step, v",
            says="rate inside",
        ),
        Mutant("    v = momentum * v + g", "    v = v + g", says="no friction"),
        Mutant("    v = momentum * v + g", "    v = momentum * (v + g)", says="friction on the push"),
        Mutant(
            "    v = momentum * v + g\n    step = g + momentum * v if nesterov else v",
            "    step = g + momentum * v if nesterov else v\n    v = momentum * v + g",
            says="old velocity",
        ),
        Mutant("    step = g + momentum * v if nesterov else v", "    step = v", says="no look-ahead"),
        Mutant("g + momentum * v if", "g + v if", says="nesterov without friction"),
        Mutant("g + momentum * v if", "v + momentum * v if", says="gradient twice"),
        Mutant("g + momentum * v if nesterov else v", "g + momentum * v", says="always nesterov"),
        Mutant("    v = momentum * v + g", "    v *= momentum\n    v += g", says="mutated"),
        Mutant("return w - lr * step, v", "return v, w - lr * step", says="swapped"),
        Mutant("return w - lr * step, v", "return w - lr * step, step", says="state is the step"),
    ),
    alternatives=(
        """def momentum_step(w, g, v, lr, momentum, nesterov):
    fading = momentum * v
    v = fading + g
    if nesterov:  # the step of the ball, and once more what will be left of it
        return w - lr * fading * momentum - lr * (1 + momentum) * g, v
    return w - lr * v, v
""",
    ),
    train=Train(lambda f: {"sgd_step": lambda *a: _in_place(f, *a)}, "nesterov"),
)
