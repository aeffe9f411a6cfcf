"""Rosenblatt's perceptron: learn by correcting yourself

The neuron of 1943 was set by hand. Fifteen years later Rosenblatt let it set itself: show it a sample, and only if it is
wrong, push the weights towards the answer. No calculus, no learning rate, one line of arithmetic; a newspaper announced a
machine that would walk and talk.

With targets t_n = +1 or −1, for each sample in turn:

    if  t_n (wᵀx_n + b) ≤ 0:        w ← w + t_n x_n,   b ← b + t_n

t (wᵀx + b) is positive when the sample is on its right side. Zero counts as a mistake: otherwise a neuron that starts with
w = 0 is never wrong, and never learns. Why the push helps: afterwards t (wᵀx + b) is larger by ‖x‖² + 1.

A worked step: w = (0, 0), b = 0, x = (2, 1), t = −1. The score 0 is a mistake, so w = (−2, −1), b = −1; now the score is
−2·2 − 1·1 − 1 = −6, and t times it is 6.

If a line separates the classes, only finitely many corrections are made (Novikoff 1962). If none does, as with XOR, the
perceptron is busy for ever.

Write ``perceptron_epoch(x, t, w, b)``: one pass over x (N, D), t (N,), first sample first, starting from w (D,) and b. Each
sample is judged with the weights as they are by then. Return w, b and the number of mistakes. The caller's w stays as it was.

Source: lecture: neurons, perceptron; Rosenblatt, "The perceptron: a probabilistic model for information storage and
organization in the brain", 1958; Novikoff, "On convergence proofs on perceptrons", 1962.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant


def perceptron_epoch(x, t, w, b):
    mistakes = 0
    for x_n, t_n in zip(x, t):
        if t_n * (w @ x_n + b) <= 0.0:
            w = w + t_n * x_n
            b = b + t_n
            mistakes += 1
    return w, b, mistakes


STARTER = """def perceptron_epoch(x, t, w, b):
    mistakes = 0
    for x_n, t_n in zip(x, t):  # x_n (D,), t_n +1 or -1
        ...  # wrong, or undecided? then correct w and b, and count
    return w, b, mistakes
"""


def cases(rng):
    def draw(N, D):
        return rng.standard_normal((N, D)), np.where(rng.random(N) < 0.5, -1.0, 1.0)

    gate = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return [
        Case((gate, np.array([-1.0, 1.0, 1.0, 1.0]), np.zeros(2), 0.0), ("a score of exactly 0",)),
        Case((*draw(12, 3), rng.standard_normal(3), 0.3), ("N = 12",)),
        Case((*draw(7, 5), rng.standard_normal(5), -0.8)),
        Case((np.array([[2.0, 1.0]]), np.array([-1.0]), np.zeros(2), 0.0), ("a score of exactly 0", "N = 1")),
        Case((gate, np.array([-1.0, 1.0, 1.0, -1.0]), np.array([0.3, -0.2]), 0.1), ("XOR",)),
        Case((*draw(12, 2), np.array([0.4, -0.3]), 2.5), ("a large bias",)),
    ]


def _epoch(x, t, w, b, *, tie=(-1.0, 1.0), always=False, frozen=False, rate=1.0, bias=True, of_mistake=None):
    """The rule with a choice of mistakes in it."""
    start, mistakes = (w, b), 0
    for x_n, t_n in zip(x, t):
        score = t_n * (start[0] @ x_n + start[1] if frozen else w @ x_n + b)
        wrong = score < 0.0 or (score == 0.0 and t_n in tie)
        mistakes += wrong
        if wrong or always:
            step = rate * (t_n if of_mistake is None else of_mistake(t_n))
            w, b = w + step * x_n, b + (step if bias else 0.0)
    return w, b, mistakes


EXERCISE = Exercise(
    number=2,
    name="perceptron_epoch",
    topic="lecture: neurons, perceptron",
    function=perceptron_epoch,
    outputs=("w", "b", "mistakes"),
    starter=STARTER,
    cases=cases,
    hints=(
        "Only mistakes teach: most of the loop's body stands inside one `if`.",
        "A sample is on the wrong side when its target and its score wᵀx + b differ in sign, that is when their product is "
        "negative; and a product of 0 is a mistake, too.",
        "if t_n * (w @ x_n + b) <= 0: w = w + t_n * x_n; b = b + t_n; mistakes += 1. (Not w += …: that would write into the "
        "array that the caller gave you.)",
    ),
    question="Multiply every correction by a learning rate of 0.1 and start from w = 0, b = 0. What changes in what is learnt?",
    answer="Nothing: w and b are always 0.1 times what they would have been, the score's sign is the same at every step, so "
    "the same samples are corrected. That is why the perceptron has no learning rate. From a start other than 0 the path "
    "differs, but what Novikoff's proof says still holds.",
    link="cnnlib/models/perceptron.py",
    explanations=(
        Explanation(
            "tie",
            "a score of exactly 0 passes as right in yours, so a neuron that starts with w = 0 never learns: the test is ≤ 0.",
            lambda *a: _epoch(*a, tie=()),
        ),
        Explanation(
            "tie for one class",
            "a score of exactly 0 counts as class +1 in yours, so samples with t = +1 pass: 0 is undecided, a mistake for both "
            "classes.",
            lambda *a: _epoch(*a, tie=(-1.0,)),
        ),
        Explanation(
            "tie for the other class",
            "a score of exactly 0 counts as class −1 in yours, so samples with t = −1 pass: 0 is undecided, a mistake for both "
            "classes.",
            lambda *a: _epoch(*a, tie=(1.0,)),
        ),
        Explanation(
            "always",
            "you correct after every sample: the perceptron learns only from those on the wrong side, t (wᵀx + b) ≤ 0.",
            lambda *a: _epoch(*a, always=True),
        ),
        Explanation(
            "frozen",
            "you judge all samples with the weights of the start: each must be judged with the weights as they are after the "
            "corrections before it.",
            lambda *a: _epoch(*a, frozen=True),
        ),
        Explanation(
            "away",
            "your correction goes the wrong way, w − t x: it must add t x, which raises t (wᵀx + b) by ‖x‖² + 1.",
            lambda *a: _epoch(*a, rate=-1.0),
        ),
        Explanation(
            "no target",
            "your correction adds x whatever the target says: add t x, so that samples with t = −1 push w away from x.",
            lambda *a: _epoch(*a, of_mistake=lambda t_n: 1.0),
        ),
        Explanation(
            "bias",
            "your bias never moves: it is the weight of an input that is always 1, so b ← b + t at every mistake.",
            lambda *a: _epoch(*a, bias=False),
        ),
        Explanation(
            "twice",
            "your corrections are twice as long, as t − y is ±2 when both are ±1: the perceptron rule is w ← w + t x.",
            lambda *a: _epoch(*a, rate=2.0),
        ),
        Explanation(
            "twice, and a tie",
            "your corrections are twice as long, as t − y is ±2 when both are ±1 (the rule is w ← w + t x), and a score of "
            "exactly 0 counts as class −1, though it is a mistake for both classes.",
            lambda *a: _epoch(*a, rate=2.0, tie=(1.0,)),
        ),
        Explanation(
            "half",
            "your corrections are half as long: the perceptron rule has no ½ and no learning rate, w ← w + t x.",
            lambda *a: _epoch(*a, rate=0.5),
        ),
        Explanation(
            "bias first",
            "your score leaves out the bias: a sample is wrong when t (wᵀx + b) ≤ 0, not when t wᵀx ≤ 0.",
        ),
    ),
    mutants=(
        Mutant("t_n * (w @ x_n + b) <= 0.0", "(w @ x_n + b >= 0.0) != (t_n > 0.0)", says="tie for one class"),
        Mutant("t_n * (w @ x_n + b) <= 0.0", "(w @ x_n + b > 0.0) != (t_n > 0.0)", says="tie for the other class"),
        Mutant(
            "w = w + t_n * x_n\n            b = b + t_n", "w = w + 2.0 * t_n * x_n\n            b = b + 2.0 * t_n", says="twice"
        ),
        Mutant("+ b) <= 0.0", "+ b) < 0.0", says="tie"),
        Mutant(
            "        if t_n * (w @ x_n + b) <= 0.0:\n            w = w + t_n * x_n\n            b = b + t_n\n            "
            "mistakes += 1",
            "        mistakes += t_n * (w @ x_n + b) <= 0.0\n        w, b = w + t_n * x_n, b + t_n",
            says="always",
        ),
        Mutant(
            "    for x_n, t_n in zip(x, t):\n        if t_n * (w @ x_n + b) <= 0.0:",
            "    start = w, b\n    for x_n, t_n in zip(x, t):\n        if t_n * (start[0] @ x_n + start[1]) <= 0.0:",
            says="frozen",
        ),
        Mutant("w = w + t_n * x_n\n            b = b + t_n", "w = w - t_n * x_n\n            b = b - t_n", says="away"),
        Mutant("w = w + t_n * x_n\n            b = b + t_n", "w = w + x_n\n            b = b + 1.0", says="no target"),
        Mutant("            b = b + t_n\n", "", says="bias"),
        Mutant("w = w + t_n * x_n\n            b = b + t_n", "w = w + t_n * x_n / 2\n            b = b + t_n / 2", says="half"),
        Mutant("(w @ x_n + b)", "(w @ x_n)", says="bias first"),
        Mutant("            w = w + t_n * x_n", "            w += t_n * x_n", says="mutated"),
        Mutant("    return w, b, mistakes", "    return w, b", says="count"),
    ),
    alternatives=(
        """import numpy as np


def perceptron_epoch(x, t, w, b):
    samples = np.column_stack([x, np.ones(len(x))])  # the bias as the weight of a constant input
    weights = np.append(w, b)
    wrong = []
    for sample, target in zip(samples, t):
        if np.sign(weights @ sample) != target:  # 0 is neither
            weights = weights + target * sample
            wrong.append(target)
    return weights[:-1], weights[-1], len(wrong)
""",
    ),
)
