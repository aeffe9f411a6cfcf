"""Initialisation: signals that neither fade nor explode

Weights must start at random, or all hidden units stay twins. But how large? A unit adds up fan_in products of a weight and an
input. With independent ones of mean 0 the variances add up:

    var(Σ_i w_i x_i) = fan_in · var(w) · var(x)

If fan_in · var(w) is 2 the signal's variance doubles in each layer: a million times after 20. If it is ½ it is a millionth. So:

    LeCun     var(w) = 1 / fan_in                     keeps the signal through linear and tanh layers near 0
    Xavier    var(w) = 2 / (fan_in + fan_out)         a compromise: the gradient's sum on the way back has fan_out terms
    He        var(w) = 2 / fan_in                     ReLU sets half of the signal to 0, the 2 makes up for it

fan_in is the number of inputs of a unit, fan_out the number of units that an input feeds. For a fully connected weight
(out, in) they are in and out. For a convolution's (F, C, KH, KW) a unit sees KH·KW pixels of each of C channels, and a pixel is
seen by KH·KW units of each of F maps:

    fan_in = C·KH·KW          fan_out = F·KH·KW

A variance needs a distribution. z normal, N(0, 1), has variance 1; z uniform in (−1, 1) has variance ∫ z²/2 dz = ⅓. Multiply
z by the number that gives w the variance it must have. A worked one: He, uniform, (8, 3, 3, 3): fan_in = 27, var = 2/27, and
w is uniform in ±√(3 · 2/27) = ±0.471.

Write ``initial_weights(rule, distribution, z)``: rule is "lecun", "xavier" or "he"; distribution is "normal" or "uniform" and
says what z was drawn from. z has the weight's shape, (out, in) or (F, C, KH, KW) or (F, C, K). Return w, of the same shape.

Source: lecture: initialisation heuristics; LeCun et al., "Efficient BackProp", 1998; Glorot & Bengio, "Understanding the
difficulty of training deep feedforward neural networks", 2010; He, Zhang, Ren & Sun, "Delving deep into rectifiers", 2015.
"""

import math

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Train
from cnnlib.nn.init import fans
from cnnlib.ops.linear import linear_forward


def initial_weights(rule, distribution, z):
    window = math.prod(z.shape[2:])  # KH·KW, and 1 for (out, in)
    fan_in, fan_out = z.shape[1] * window, z.shape[0] * window
    if rule == "lecun":
        variance = 1.0 / fan_in
    elif rule == "xavier":
        variance = 2.0 / (fan_in + fan_out)
    else:
        variance = 2.0 / fan_in
    variance_of_z = 1.0 if distribution == "normal" else 1.0 / 3.0
    return z * math.sqrt(variance / variance_of_z)


STARTER = """import math

import numpy as np


def initial_weights(rule, distribution, z):
    fan_in, fan_out = ..., ...
    variance = ...  # of w, by the rule
    ...  # z has variance 1 or 1/3: by which number must it be multiplied?
    return w
"""


def cases(rng):
    def case(rule, distribution, *shape):
        z = rng.standard_normal(shape) if distribution == "normal" else rng.uniform(-1.0, 1.0, shape)
        return Case((rule, distribution, z), (rule, distribution, "a convolution" if len(shape) > 2 else "fully connected"))

    return [
        case("lecun", "normal", 5, 7),
        case("xavier", "normal", 4, 9),
        case("he", "normal", 6, 3),
        case("lecun", "uniform", 5, 2, 3, 3),
        case("xavier", "uniform", 4, 3, 5, 2),
        case("he", "uniform", 8, 3, 3, 3),
        case("he", "normal", 2, 4, 3),
        case("xavier", "uniform", 3, 8),
    ]


def _weights(rule, distribution, z, *, window=True, exchanged=False, root=True, uniform=3.0, of=None):
    """The weights of who is wrong about one thing."""
    places = math.prod(z.shape[2:]) if window else 1
    fan_in, fan_out = z.shape[1] * places, z.shape[0] * places
    if exchanged:
        fan_in, fan_out = fan_out, fan_in
    if of and rule not in of:
        return None
    rules = {"lecun": 1.0 / fan_in, "xavier": 2.0 / (fan_in + fan_out), "he": 2.0 / fan_in, **(of or {})}
    variance = rules[rule](fan_in, fan_out) if callable(rules[rule]) else rules[rule]
    variance *= 1.0 if distribution == "normal" else uniform
    return z * (math.sqrt(variance) if root else variance)


class Start:
    """The first time that a layer is used its weights become the learner's, made from the z that the library's came from."""

    def __init__(self, f):
        self.f, self.seen = f, {}

    def forward(self, x, w, b):
        if id(w) not in self.seen:
            self.seen[id(w)] = w  # kept, so that no other array gets this id
            z = w / math.sqrt(6.0 / fans(w.shape)[0])  # he_uniform backwards
            w[...] = np.asarray(self.f("he", "uniform", z.astype(np.float64)))
        return linear_forward(x, w, b)


EXERCISE = Exercise(
    number=30,
    name="initial_weights",
    topic="lecture: initialisation heuristics",
    function=initial_weights,
    outputs=("w",),
    starter=STARTER,
    cases=cases,
    hints=(
        "Three small questions: what are the two fans of this shape, which variance does the rule ask for, and what does a "
        "factor do to a variance?",
        "math.prod(z.shape[2:]) is KH·KW, and 1 when there are no such axes. Multiplying z by c multiplies its variance by c².",
        "w = z * math.sqrt(variance) for normal z; uniform z has variance ⅓ only, so w = z * math.sqrt(3 * variance).",
    ),
    question="A ReLU network with 50 layers was started with LeCun's variance 1 / fan_in instead of He's 2 / fan_in. How "
    "large is the signal at the end? And why does batch normalisation make people careless about this?",
    answer="Each ReLU layer halves the mean square of the signal, so 2⁻⁵⁰ is left, 10⁻¹⁵: in amplitude 3·10⁻⁸, and the "
    "gradient on its way back shrinks as much. Batch norm divides every layer's signal by its own deviation, whatever the "
    "weights were. See it happen: `cnnlib learn train 30` starts eight ReLU layers with your weights; put 1 / fan_in into He's "
    "rule, or forget the root, and train again.",
    link="cnnlib/nn/init.py",
    explanations=(
        Explanation(
            "window",
            "your fans leave out the window: a convolution's unit sees KH·KW pixels per channel, so fan_in = C·KH·KW, "
            "fan_out likewise.",
            lambda *a: _weights(*a, window=False),
        ),
        Explanation(
            "exchanged",
            "you exchanged the fans: a weight is (out, in, …), so fan_in comes from shape[1] and fan_out from shape[0].",
            lambda *a: _weights(*a, exchanged=True),
        ),
        Explanation(
            "no root",
            "you multiplied by the variance: a factor c multiplies the variance by c², so the factor is the root, the "
            "deviation.",
            lambda *a: _weights(*a, root=False),
        ),
        Explanation(
            "uniform",
            "your uniform weights have a third of the variance: z in (−1, 1) has variance ⅓, so the bound is √(3 var).",
            lambda *a: _weights(*a, uniform=1.0),
        ),
        Explanation(
            "uniform of width 1",
            "your uniform factor is √12, as for numbers between −½ and ½: z lies in (−1, 1), with variance ⅓, so it is √3.",
            lambda *a: _weights(*a, uniform=12.0),
        ),
        Explanation(
            "uniform with 6",
            "you put the well-known √6 on top: √(6 / fan_in) has the 2 of He's (and Xavier's) variance inside; the factor "
            "for uniform is √3.",
            lambda *a: _weights(*a, uniform=6.0),
        ),
        Explanation(
            "always normal",
            "you treat all z as uniform: a normal z has variance 1, so there is no 3.",
        ),
        Explanation(
            "xavier: fan_in",
            "your Xavier uses fan_in alone: it takes the mean of both fans, 2 / (fan_in + fan_out).",
            lambda *a: _weights(*a, of={"xavier": lambda i, o: 1.0 / i}),
        ),
        Explanation(
            "xavier: one",
            "your Xavier has 1 / (fan_in + fan_out): the mean of the fans is half their sum, so it is 2 over the sum.",
            lambda *a: _weights(*a, of={"xavier": lambda i, o: 1.0 / (i + o)}),
        ),
        Explanation(
            "he: one",
            "your He is LeCun's 1 / fan_in: ReLU kills half of the signal, so the variance is 2 / fan_in.",
            lambda *a: _weights(*a, of={"he": lambda i, o: 1.0 / i}),
        ),
        Explanation(
            "he: fan_out",
            "your He uses fan_out: to keep the signal on its way forward, it is 2 / fan_in.",
            lambda *a: _weights(*a, of={"he": lambda i, o: 2.0 / o}),
        ),
        Explanation(
            "all inputs",
            "your fan_in counts all weights: it is the inputs of one unit, C·KH·KW, without the number of units.",
        ),
    ),
    mutants=(
        Mutant("math.prod(z.shape[2:])", "1", says="window"),
        Mutant("z.shape[1] * window, z.shape[0] * window", "z.shape[0] * window, z.shape[1] * window", says="exchanged"),
        Mutant("math.sqrt(variance / variance_of_z)", "(variance / variance_of_z)", says="no root"),
        Mutant("1.0 / 3.0", "1.0", says="uniform"),
        Mutant("1.0 / 3.0", "1.0 / 12.0", says="uniform of width 1"),
        Mutant("1.0 / 3.0", "1.0 / 6.0", says="uniform with 6"),
        Mutant('1.0 if distribution == "normal" else 1.0 / 3.0', "1.0 / 3.0", says="always normal"),
        Mutant("2.0 / (fan_in + fan_out)", "1.0 / fan_in", says="xavier: fan_in"),
        Mutant("2.0 / (fan_in + fan_out)", "1.0 / (fan_in + fan_out)", says="xavier: one"),
        Mutant("        variance = 2.0 / fan_in\n", "        variance = 1.0 / fan_in\n", says="he: one"),
        Mutant("        variance = 2.0 / fan_in\n", "        variance = 2.0 / fan_out\n", says="he: fan_out"),
        Mutant("fan_in, fan_out = z.shape[1] * window", "fan_in, fan_out = z.size", says="all inputs"),
    ),
    alternatives=(
        """import numpy as np


def initial_weights(rule, distribution, z):
    fan_in = z[0].size
    fan_out = z[:, 0].size
    n = {"lecun": fan_in, "he": fan_in / 2, "xavier": np.mean([fan_in, fan_out])}[rule]
    if distribution == "uniform":
        z = z * 3**0.5
    return z / np.sqrt(n)
""",
    ),
    train=Train(lambda f: {"linear_forward": Start(f).forward}, "deep"),
)
