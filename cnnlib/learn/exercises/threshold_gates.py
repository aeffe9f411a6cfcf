"""A neuron of 1943: threshold gates, and XOR out of three of them

In 1943 nobody had trained anything. McCulloch and Pitts took what was known of nerve cells, inputs that add up and a cell
that fires or stays silent, and showed that such cells can compute: pick the weights by hand, and a cell is a logic gate.

    y_n = 1  if  Σ_i w_i x_ni ≥ θ,  else 0              x (N, D) of zeros and ones, w (D,), θ a number -> y (N,)

Reaching the threshold is enough: the sign is ≥. With w = (1, 1) the threshold decides what the cell is:

    a b   a + b    AND: θ = 2    OR: θ = 1
    0 0     0          0             0
    0 1     1          0             1
    1 0     1          0             1
    1 1     2          1             1

A weight of −1 lets an input forbid instead of urge: w = (−1,), θ = 0 is NOT.

One gate is out of reach. XOR fires when exactly one input does, and no w and θ give it (Minsky and Papert made that famous
in 1969). Two layers do: XOR(a, b) = OR(a, b) AND NAND(a, b), where NAND is "not both".

Write ``threshold_gates(x, w, threshold)`` for x (N, 2). Return three arrays of zeros and ones, each (N,):

    y       the neuron with the given w and threshold
    nand    NAND of the two columns of x: one neuron, weights and threshold by your own hand
    xor     XOR of the two columns of x, made of neurons: the second layer's inputs are the first layer's outputs

Source: lecture: neurons, McCulloch–Pitts and XOR; McCulloch & Pitts, "A logical calculus of the ideas immanent in nervous
activity", 1943; Minsky & Papert, "Perceptrons", 1969.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant


def neuron(x, w, threshold):
    return (x @ w >= threshold).astype(x.dtype)  # (N, D) @ (D,) -> (N,)


def threshold_gates(x, w, threshold):
    y = neuron(x, w, threshold)
    nand = neuron(x, np.array([-1.0, -1.0]), -1.0)
    either = neuron(x, np.array([1.0, 1.0]), 1.0)
    hidden = np.stack([either, nand], axis=1)  # (N, 2): the first layer's outputs
    xor = neuron(hidden, np.array([1.0, 1.0]), 2.0)
    return y, nand, xor


STARTER = '''def neuron(x, w, threshold):
    """y (N,): 1.0 where the weighted sum of a row of x (N, D) reaches the threshold, else 0.0."""
    ...


def threshold_gates(x, w, threshold):
    y = neuron(x, w, threshold)
    nand = ...  # one neuron: which weights, which threshold?
    xor = ...  # a neuron that looks at two other neurons
    return y, nand, xor
'''

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def cases(rng):
    many = rng.integers(0, 2, (9, 2)).astype(float)
    return [
        Case((CORNERS, np.array([1.0, 1.0]), 2.0), ("a sum equal to the threshold",)),
        Case((CORNERS, np.array([1.0, 1.0]), 1.0), ("a sum equal to the threshold",)),
        Case((CORNERS[::-1], np.array([0.7, -1.6]), -0.5), ("a negative weight",)),
        Case((many, rng.standard_normal(2), 0.2), ("N = 9",)),
        Case((CORNERS[2:3], np.array([-1.0, 0.5]), -0.7), ("N = 1",)),
    ]


def _xor_of_y(x, w, threshold):
    y, nand, _ = threshold_gates(x, w, threshold)
    return y, nand, y * nand


def _weighted_sum(x, w, threshold):
    return x @ w, *threshold_gates(x, w, threshold)[1:]


EXERCISE = Exercise(
    number=1,
    name="threshold_gates",
    topic="lecture: neurons, McCulloch–Pitts",
    function=threshold_gates,
    uses=(neuron,),
    outputs=("y", "nand", "xor"),
    starter=STARTER,
    cases=cases,
    hints=(
        "Write neuron() first: a matrix product, a comparison with ≥, and ones and zeros out of True and False.",
        "NAND is AND turned round: where AND has weights (1, 1) and asks for at least 2, NAND has (−1, −1) and asks for at "
        "least … what, so that only a + b = 2 fails?",
        "nand = neuron(x, np.array([-1.0, -1.0]), -1.0); either = neuron(x, np.array([1.0, 1.0]), 1.0); XOR is AND of the two, "
        "with np.stack([either, nand], axis=1) as its input.",
    ),
    question="Why can no single neuron be XOR, whatever its weights? Four inequalities are enough.",
    answer="(0,0) → 0 asks 0 < θ. (1,0) → 1 and (0,1) → 1 ask w₁ ≥ θ and w₂ ≥ θ, so w₁ + w₂ ≥ 2θ, which is more than θ as θ "
    "> 0. But (1,1) → 0 asks w₁ + w₂ < θ. In a picture: no straight line has the two corners with one 1 on its one side and "
    "the other two corners on its other side.",
    link="cnnlib/models/mcculloch_pitts.py",
    explanations=(
        Explanation(
            "reaching",
            "your neuron stays silent when the sum equals the threshold, but reaching it is enough: y = 1 where Σ w x ≥ θ.",
            lambda x, w, threshold: ((x @ w > threshold).astype(float), *threshold_gates(x, w, threshold)[1:]),
        ),
        Explanation(
            "xor of y",
            "your xor is made of y, the neuron with the weights that were given: it needs an OR of its own.",
            _xor_of_y,
        ),
        Explanation(
            "nand never fires",
            "your nand never fires: with weights −1 the sum is 0, −1 or −2, so its threshold must lie between −2 and −1.",
            lambda x, w, threshold: (threshold_gates(x, w, threshold)[0], np.zeros(len(x)), np.zeros(len(x))),
        ),
        Explanation(
            "no threshold",
            "your y is the weighted sum itself: a neuron of 1943 fires or it does not, so compare the sum with the threshold.",
            _weighted_sum,
        ),
        Explanation(
            "inverted",
            "your neuron fires below the threshold: y is 1 where Σ w x ≥ θ, and yours is 1 where it is not.",
            lambda x, w, threshold: (1.0 - neuron(x, w, threshold), *threshold_gates(x, w, threshold)[1:]),
        ),
        Explanation(
            "weights ignored",
            "your y adds up the inputs without their weights: each x_i counts w_i times.",
            lambda x, w, threshold: ((x.sum(axis=1) >= threshold).astype(float), *threshold_gates(x, w, threshold)[1:]),
        ),
        Explanation(
            "xor is or",
            "your xor fires for (1, 1) as well, so it is OR: its second layer must also ask that not both inputs are on.",
            lambda x, w, threshold: (*threshold_gates(x, w, threshold)[:2], x.max(axis=1)),
        ),
        Explanation(
            "xnor",
            "your xor fires where the inputs are equal: that is XNOR, its opposite.",
            lambda x, w, threshold: (*threshold_gates(x, w, threshold)[:2], 1.0 - threshold_gates(x, w, threshold)[2]),
        ),
        Explanation(
            "xor is nand",
            "your xor fires for (0, 0) as well, so it is NAND: the second layer must ask for OR and NAND, and yours is content "
            "with NAND.",
            lambda x, w, threshold: (*threshold_gates(x, w, threshold)[:2], threshold_gates(x, w, threshold)[1]),
        ),
        Explanation(
            "nand is nor",
            "your nand is silent as soon as one input is on, which is NOR: only both together may silence it, so its threshold "
            "must still be reached by −1.",
            lambda x, w, threshold: (
                neuron(x, w, threshold),
                neuron(x, np.array([-1.0, -1.0]), 0.0),
                *threshold_gates(x, w, threshold)[2:],
            ),
        ),
        Explanation(
            "nand is and",
            "your nand fires only when both inputs are on, which is AND: NAND is the opposite.",
            lambda x, w, threshold: (neuron(x, w, threshold), x.min(axis=1), *threshold_gates(x, w, threshold)[2:]),
        ),
    ),
    mutants=(
        Mutant("y = neuron(x, w, threshold)", "y = (x @ w > threshold).astype(x.dtype)", says="reaching"),
        Mutant("y = neuron(x, w, threshold)", "y = x @ w", says="no threshold"),
        Mutant("y = neuron(x, w, threshold)", "y = (x @ w < threshold).astype(x.dtype)", says="inverted"),
        Mutant("y = neuron(x, w, threshold)", "y = neuron(x, np.ones(2), threshold)", says="weights ignored"),
        Mutant("np.array([1.0, 1.0]), 2.0)", "np.array([1.0, 0.0]), 1.0)", says="xor is or"),
        Mutant("np.array([1.0, 1.0]), 2.0)", "np.array([0.0, 1.0]), 1.0)", says="xor is nand"),
        Mutant("np.array([1.0, 1.0]), 2.0)", "np.array([-1.0, -1.0]), -1.0)", says="xnor"),
        Mutant("return y, nand, xor", "return y, 1.0 - nand, xor", says="nand is and"),
        Mutant("return y, nand, xor", "return y, neuron(x, np.array([-1.0, -1.0]), 0.0), xor", says="nand is nor"),
        Mutant("return y, nand, xor", "return y, xor, nand", says="swapped"),
    ),
    equivalent={
        "neuron: x -> w": "both are float64",
        "threshold_gates: 1.0 -> 2.0 #3": "other weights, still OR",
        "threshold_gates: 1.0 -> 2.0 #4": "other weights, still OR",
    },
    alternatives=(
        """import numpy as np


def fires(total, threshold):
    return np.where(total >= threshold, 1.0, 0.0)


def threshold_gates(x, w, threshold):
    a, b = x[:, 0], x[:, 1]
    y = fires(w[0] * a + w[1] * b, threshold)
    both = fires(a + b, 2)
    nand = fires(-both, 0)  # NOT
    xor = fires(a + b - 2 * both, 1)  # two layers, the inputs go to both
    return y, nand, xor
""",
    ),
)
