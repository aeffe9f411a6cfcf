"""XOR with a multi-layer perceptron, by your own hand

One neuron cannot be XOR. Two sigmoid neurons that feed a third can, and this is the smallest network that the lecture draws
(Rumelhart, Hinton and Williams trained one like it in 1986):

    p(y|x) = σ( w₂ᵀ [σ(w₁₁ᵀ x), σ(w₁₂ᵀ x)]ᵀ )            σ(a) = 1 / (1 + e⁻ᵃ)

For a batch x (N, 2), with the two hidden neurons' weights as the rows of w1 (2, 2), and w2 (2,):

    h = σ(x w1ᵀ)   (N, 2)          p = σ(h w2)   (N,)

There are no biases, which makes a good puzzle: for x = (0, 0) both hidden neurons say σ(0) = ½ whatever their weights.

Write ``xor_mlp(x, w1, w2)`` and return two arrays:

    p      (N,), the network's output with the weights that were given
    y      (N,), zeros and ones: whether p > ½ with *your own* six weights, chosen by hand so that y is the XOR of x

Any weights that work are right. Pencil first: let both hidden neurons treat the inputs alike, σ(u (a + b)) and σ(v (a + b)),
and look at the sum w₂₁ σ(u s) + w₂₂ σ(v s) for s = 0, 1, 2. It must be negative, positive, negative.

Source: lecture: neurons, multi-layer perceptron; Rumelhart, Hinton & Williams, "Learning representations by
back-propagating errors", 1986.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant
from cnnlib.ops.activation import sigmoid_forward


def forward(x, w1, w2):
    h = sigmoid_forward(x @ w1.T)  # (N, 2) @ (2, 2) -> (N, 2)
    return sigmoid_forward(h @ w2)  # (N, 2) @ (2,) -> (N,)


def xor_mlp(x, w1, w2):
    p = forward(x, w1, w2)
    own_w1 = np.array([[10.0, 10.0], [1.0, 1.0]])  # a fast neuron and a slow one
    own_w2 = np.array([20.0, -25.0])
    y = (forward(x, own_w1, own_w2) > 0.5).astype(x.dtype)
    return p, y


STARTER = '''import numpy as np


def sigmoid(a):
    ...


def forward(x, w1, w2):
    """p (N,) of x (N, 2), w1 (2, 2) with a hidden neuron per row, w2 (2,)."""
    ...


def xor_mlp(x, w1, w2):
    p = forward(x, w1, w2)
    own_w1 = np.array([[..., ...], [..., ...]])
    own_w2 = np.array([..., ...])
    y = ...  # 1.0 where forward(x, own_w1, own_w2) > 0.5, else 0.0
    return p, y
'''

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def cases(rng):
    def weights():
        return rng.standard_normal((2, 2)), rng.standard_normal(2)

    return [
        (CORNERS, *weights()),
        (CORNERS[::-1], *weights()),
        Case((rng.integers(0, 2, (7, 2)).astype(float), *weights()), ("N = 7",)),
        Case((CORNERS[1:2], *weights()), ("N = 1",)),
        Case((CORNERS, 9.0 * rng.standard_normal((2, 2)), 9.0 * rng.standard_normal(2)), ("large weights",)),
    ]


def _xor(x):
    return (x[:, 0] != x[:, 1]).astype(float)


def _sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


EXERCISE = Exercise(
    number=4,
    name="xor_mlp",
    topic="lecture: neurons, multi-layer perceptron",
    function=xor_mlp,
    uses=(sigmoid_forward, forward),
    outputs=("p", "y"),
    starter=STARTER,
    cases=cases,
    hints=(
        "p first: two matrix products, a sigmoid after each. For y, note that σ(a) > ½ exactly where a > 0: only the sign of "
        "w₂₁ h₁ + w₂₂ h₂ counts.",
        "At s = 0 the sum is ½ (w₂₁ + w₂₂), so the negative weight must be a bit larger. Let the first neuron be fast, u = 10: "
        "½, 1, 1 for s = 0, 1, 2. The second, slow one takes back what it gives: too little at s = 1, too much at s = 2.",
        "With v = 1 the slow neuron says 0.5, 0.731, 0.881. Find k with 0.731 k < 1 < 0.881 k and k > 1: then "
        "own_w1 = [[10, 10], [1, 1]] and own_w2 = [20, −20 k].",
    ),
    question="Can the same network without biases be XOR when false and true are written as −1 and +1?",
    answer="No. σ(a) = ½ + an odd function of a, so w₂ᵀh is a constant c plus an odd function of x. XOR gives x and −x the "
    "same class: (1, 1) and (−1, −1) are 0, so c + o < 0 and c − o < 0, hence c < 0; (1, −1) and (−1, 1) are 1, hence c > 0. "
    "A bias, or a constant input appended to x, breaks the symmetry.",
    link="cnnlib/models/mlp.py",
    explanations=(
        Explanation(
            "linear hidden layer",
            "your hidden layer has no sigmoid: then both layers together are one linear map, and no better than one neuron.",
            lambda x, w1, w2: (_sigmoid(x @ w1.T @ w2), _xor(x)),
        ),
        Explanation(
            "no output sigmoid",
            "your p is the weighted sum of the hidden neurons: the output neuron has a sigmoid, too, so that p is a "
            "probability.",
            lambda x, w1, w2: (_sigmoid(x @ w1.T) @ w2, _xor(x)),
        ),
        Explanation(
            "columns",
            "you took the columns of w1 as the hidden neurons' weights: they are its rows, so the product is x @ w1.T.",
            lambda x, w1, w2: (_sigmoid(_sigmoid(x @ w1) @ w2), _xor(x)),
        ),
        Explanation(
            "tanh",
            "your hidden neurons are tanh: here they are sigmoids, σ(a) = 1 / (1 + e⁻ᵃ), with σ(0) = ½ and not 0.",
            lambda x, w1, w2: (_sigmoid(np.tanh(x @ w1.T) @ w2), _xor(x)),
        ),
        Explanation(
            "sign of the exponent",
            "your sigmoid falls where it should rise: it is 1 / (1 + e⁻ᵃ), with the minus.",
            lambda x, w1, w2: (_sigmoid(-_sigmoid(-x @ w1.T) @ w2), _xor(x)),
        ),
        Explanation(
            "or",
            "your own weights make OR: at (1, 1) the output must fall below ½ again, so the slow neuron must win there.",
            lambda x, w1, w2: (forward(x, w1, w2), x.max(axis=1)),
        ),
        Explanation(
            "and",
            "your own weights make AND: (0, 1) and (1, 0) must be on, and (1, 1) off.",
            lambda x, w1, w2: (forward(x, w1, w2), x.min(axis=1)),
        ),
        Explanation(
            "xnor",
            "your own weights make the opposite of XOR: turn the signs of own_w2 round.",
            lambda x, w1, w2: (forward(x, w1, w2), 1.0 - _xor(x)),
        ),
        Explanation(
            "never",
            "with your own weights no input is on: at (0, 1) and (1, 0) the positive neuron must outweigh the negative one.",
            lambda x, w1, w2: (forward(x, w1, w2), np.zeros(len(x))),
        ),
        Explanation(
            "given weights",
            "your y uses the weights that were given: choose six numbers of your own, with which the network is XOR.",
            lambda x, w1, w2: (forward(x, w1, w2), (forward(x, w1, w2) > 0.5).astype(float)),
        ),
        Explanation(
            "always",
            "with your own weights every input is on: at (0, 0) and (1, 1) the negative neuron must outweigh the positive one.",
            lambda x, w1, w2: (forward(x, w1, w2), np.ones(len(x))),
        ),
        Explanation(
            "probabilities",
            "your y is the probability: return 1 where it is above ½ and 0 elsewhere.",
        ),
    ),
    mutants=(
        Mutant("h = sigmoid_forward(x @ w1.T)", "h = x @ w1.T", says="linear hidden layer"),
        Mutant("p = forward(x, w1, w2)", "p = sigmoid_forward(x @ w1.T) @ w2", says="no output sigmoid"),
        Mutant("p = forward(x, w1, w2)", "p = forward(x, w1.T, w2)", says="columns"),
        Mutant("p = forward(x, w1, w2)", "p = sigmoid_forward(np.tanh(x @ w1.T) @ w2)", says="tanh"),
        Mutant("p = forward(x, w1, w2)", "p = sigmoid_forward(-sigmoid_forward(-x @ w1.T) @ w2)", says="sign of the exponent"),
        Mutant("[20.0, -25.0]", "[20.0, -21.0]", says="or"),
        Mutant("[20.0, -25.0]", "[-20.0, 25.0]", says="xnor"),
        Mutant("[20.0, -25.0]", "[20.0, -40.0]", says="never"),
        Mutant("[[10.0, 10.0], [1.0, 1.0]]", "[[10.0, 10.0], [-1.0, -1.0]]", says="or"),
        Mutant(
            "[[10.0, 10.0], [1.0, 1.0]])  # a fast neuron and a slow one\n    own_w2 = np.array([20.0, -25.0])",
            "[[1.0, 1.0], [-1.0, -1.0]])\n    own_w2 = np.array([1.0, -3.0])",
            says="and",
        ),
        Mutant("(forward(x, own_w1, own_w2) > 0.5).astype(x.dtype)", "forward(x, own_w1, own_w2)", says="probabilities"),
        Mutant("(forward(x, own_w1, own_w2) > 0.5)", "(forward(x, w1, w2) > 0.5)", says="given weights"),
        Mutant("[20.0, -25.0]", "[20.0, 25.0]", says="always"),
        Mutant("return p, y", "return y, p", says="swapped"),
    ),
    equivalent={
        "xor_mlp: x -> w1 #2": "both are float64",
        "xor_mlp: 10.0 -> 20.0": "other weights, still XOR",
        "xor_mlp: 10.0 -> 20.0 #2": "other weights, still XOR",
    },
    alternatives=(
        """import numpy as np


def sigma(a):
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def network(x, w1, w2):
    first, second = (sigma(x @ row) for row in w1)
    return sigma(w2[0] * first + w2[1] * second)


def xor_mlp(x, w1, w2):
    mine = network(x, np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([-12.0, 10.0]))
    return network(x, w1, w2), np.round(mine)
""",
    ),
)
