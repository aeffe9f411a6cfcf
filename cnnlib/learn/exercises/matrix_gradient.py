"""The matrix gradient recipe: all of backpropagation in three lines

Here is the algorithm that trains every network you have heard of. A deep network is a chain,

    h₀ = x        h_i = s(W_i h_{i−1})        f = h_m = s(W_m h_{m−1})        J = ℓ(f)

and its gradient is a chain that runs back. Call δ_i the derivative of J by what goes *into* the i-th non-linearity,
a_i = W_i h_{i−1}. Then

    δ_m = ℓ′(f) ⊙ s′(a_m)
    δ_i = (W_{i+1}ᵀ δ_{i+1}) ⊙ s′(a_i)              back through the weights, then through the slope
    ∂J/∂W_i = δ_i h_{i−1}ᵀ                          what came back, times what went in

Beware: a slide prints δ_m = ℓ′(f), without s′(a_m). That holds for a linear output only; here the last layer has a sigmoid
like the others.

In this exercise m = 3, s is the sigmoid, for which s′(a) = h (1 − h) with h = s(a), already computed; and J = ½ Σ (f − y)²,
so ℓ′(f) = f − y. Samples are columns, as on the slide: x (D, N), y (O, N), so that δ h_{i−1}ᵀ adds up over the N samples by
itself. W₁ (H₁, D), W₂ (H₂, H₁), W₃ (O, H₂).

Write ``matrix_gradient(x, y, w1, w2, w3)`` and return ∂J/∂W₁, ∂J/∂W₂, ∂J/∂W₃. Every gradient has its matrix's shape: if a
product does not fit, something is transposed.

Source: lecture: backpropagation, the matrix gradient recipe; Rumelhart, Hinton & Williams, "Learning representations by
back-propagating errors", 1986.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import sigmoid_backward, sigmoid_forward
from cnnlib.ops.linear import linear_forward


def matrix_gradient(x, y, w1, w2, w3):
    h1 = sigmoid_forward(w1 @ x)  # (H1, D) @ (D, N) -> (H1, N)
    h2 = sigmoid_forward(w2 @ h1)
    f = sigmoid_forward(w3 @ h2)
    delta3 = sigmoid_backward(f - y, f)  # ℓ′(f) ⊙ f (1 − f)
    delta2 = sigmoid_backward(w3.T @ delta3, h2)  # (H2, O) @ (O, N) -> (H2, N)
    delta1 = sigmoid_backward(w2.T @ delta2, h1)
    return delta1 @ x.T, delta2 @ h1.T, delta3 @ h2.T  # (H1, N) @ (N, D) -> (H1, D)


STARTER = """import numpy as np


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def matrix_gradient(x, y, w1, w2, w3):
    h1 = ...  # forward: keep what backward needs
    h2 = ...
    f = ...
    delta3 = ...  # (O, N)
    delta2 = ...  # (H2, N)
    delta1 = ...  # (H1, N)
    dw1, dw2, dw3 = ..., ..., ...
    return dw1, dw2, dw3
"""


def cases(rng):
    def draw(D, H1, H2, O, N, scale=1.0):
        weights = (scale * rng.standard_normal(s) for s in ((H1, D), (H2, H1), (O, H2)))
        return rng.standard_normal((D, N)), rng.random((O, N)), *weights

    return [
        Case(draw(3, 4, 5, 2, 6)),
        Case(draw(2, 3, 4, 1, 1), ("N = 1", "one output")),
        Case(draw(4, 4, 4, 4, 4), ("square matrices",)),
        Case(draw(5, 2, 3, 2, 8), ("a bottleneck",)),
        Case(draw(1, 6, 2, 3, 5, scale=2.0), ("one input",)),
    ]


def _loss(x, y, w1, w2, w3):
    f = x
    for w in (w1, w2, w3):
        f = 1.0 / (1.0 + np.exp(-(w @ f)))
    return np.asarray(0.5 * ((f - y) ** 2).sum())


def _recipe(x, y, w1, w2, w3, *, output=lambda h: h * (1.0 - h), hidden=lambda h: h * (1.0 - h), first=None, factor=1.0):
    """The recipe with a choice of mistakes in it: the slopes of the output, of the hidden layers, of the first one."""
    h = [x]
    for w in (w1, w2, w3):
        h.append(1.0 / (1.0 + np.exp(-(w @ h[-1]))))
    delta3 = factor * (h[3] - y) * output(h[3])
    delta2 = (w3.T @ delta3) * hidden(h[2])
    delta1 = (w2.T @ delta2) * (first or hidden)(h[1])
    return delta1 @ x.T, delta2 @ h[1].T, delta3 @ h[2].T


def _slope_of_h(h):
    return sigmoid_forward(h) * (1.0 - sigmoid_forward(h))


class Recipe:
    """The learner's recipe as kernels of a network of three sigmoid layers: it makes all gradients when the first is asked for.

    The adjoint dy of the output f is ℓ′(f) = f − y, so that the recipe's y is f − dy, whatever the loss.
    """

    def __init__(self, f):
        self.f, self.layers, self.gradients = f, [], []

    def forward(self, x, w, b):
        self.layers = [*self.layers[-2:], (x, w)]  # the last three
        return linear_forward(x, w, b)

    def slope(self, dy, y):
        if not self.gradients:
            weights = [w for _, w in self.layers]
            self.gradients = list(self.f(self.layers[0][0].T, (y - dy).T, *weights))
        return sigmoid_backward(dy, y)

    def gradient(self, dy, x):
        return self.gradients.pop()  # the last layer's is asked for first


def _kernels(f):
    recipe = Recipe(f)
    return {
        "linear_forward": recipe.forward,
        "sigmoid_backward": recipe.slope,
        "linear_backward_weight": recipe.gradient,
    }


EXERCISE = Exercise(
    number=5,
    name="matrix_gradient",
    topic="lecture: backpropagation, the matrix gradient recipe",
    function=matrix_gradient,
    uses=(sigmoid_forward, sigmoid_backward),
    outputs=("dw1", "dw2", "dw3"),
    starter=STARTER,
    cases=cases,
    numerical=Numerical(forward=_loss, wrt={"dw1": 2, "dw2": 3, "dw3": 4}, upstream=None),
    hints=(
        "Write the forward pass and keep x, h1, h2, f. Then start at the end: what is the derivative of ½(f − y)² by f, and "
        "how steep is the sigmoid that made f?",
        "Every δ has two factors. For the output ℓ′(f) = f − y; for a hidden layer the next layer's δ sent back through its "
        "weights, W.T @ δ. Each is multiplied by that layer's own slope h (1 − h).",
        "delta3 = (f - y) * f * (1 - f); delta2 = (w3.T @ delta3) * h2 * (1 - h2); dw3 = delta3 @ h2.T; delta1 and dw2 "
        "follow the same pattern, and dw1 = delta1 @ x.T.",
    ),
    question="The backward pass costs about twice as much as the forward pass. Which two products does each layer need on "
    "the way back, and which of them can the first layer do without?",
    answer="δ_i h_{i−1}ᵀ for the weights, and W_iᵀ δ_i to go on to the layer below; each costs as much as the forward product "
    "W_i h_{i−1}. The first layer has no layer below it, so W₁ᵀ δ₁, the gradient by the input, is needed only by who asks what "
    "the picture should look like (saliency maps, adversarial examples).",
    link="cnnlib/ops/linear.py",
    explanations=(
        Explanation(
            "output slope",
            "your δ₃ lacks the output's slope: δ₃ = (f − y) ⊙ f (1 − f); ℓ′(f) alone, as one slide prints it, is right only "
            "for a linear output.",
            lambda *a: _recipe(*a, output=np.ones_like),
        ),
        Explanation(
            "hidden slope",
            "your hidden δ lack the slope of their sigmoid: δ_i = (W_{i+1}ᵀ δ_{i+1}) ⊙ h_i (1 − h_i).",
            lambda *a: _recipe(*a, hidden=np.ones_like),
        ),
        Explanation(
            "no slopes",
            "no slope of a sigmoid is in your δ, neither in the output's nor in the hidden ones: multiply each by h (1 − h).",
            lambda *a: _recipe(*a, hidden=np.ones_like, output=np.ones_like),
        ),
        Explanation(
            "first slope",
            "your δ₁ lacks the slope of its sigmoid: δ₁ = (W₂ᵀ δ₂) ⊙ h₁ (1 − h₁), the same as for δ₂.",
            lambda *a: _recipe(*a, first=np.ones_like),
        ),
        Explanation(
            "half a slope",
            "your hidden δ have the factor 1 − h only: the sigmoid's slope is h (1 − h).",
            lambda *a: _recipe(*a, hidden=lambda h: 1.0 - h),
        ),
        Explanation(
            "the other half",
            "your hidden δ have the factor h only: the sigmoid's slope is h (1 − h).",
            lambda *a: _recipe(*a, hidden=lambda h: h),
        ),
        Explanation(
            "slope of a sigmoid of a sigmoid",
            "you put h, which is s(a) already, into s′ once more: s′(a) = s(a) (1 − s(a)) = h (1 − h), without another "
            "sigmoid.",
            lambda *a: _recipe(*a, output=_slope_of_h, hidden=_slope_of_h),
        ),
        Explanation(
            "tanh",
            "your slope 1 − h² is tanh's: the sigmoid's is h (1 − h).",
            lambda *a: _recipe(*a, output=lambda h: 1.0 - h * h, hidden=lambda h: 1.0 - h * h),
        ),
        Explanation(
            "uphill",
            "all your gradients have the opposite sign: ℓ′(f) = f − y, output minus target.",
            lambda *a: _recipe(*a, factor=-1.0),
        ),
        Explanation(
            "no half",
            "all your gradients are twice as large: J has a ½, which cancels the 2 of the square's derivative.",
            lambda *a: _recipe(*a, factor=2.0),
        ),
        Explanation(
            "mean",
            "you divided by the number of samples: J is the sum over them, and δ h ᵀ adds them up by itself.",
            lambda x, *a: _recipe(x, *a, factor=1.0 / x.shape[1]),
        ),
        Explanation(
            "not transposed",
            "you sent δ back through W where it must be Wᵀ: with square matrices both fit, but only Wᵀ sums over the units "
            "that a hidden unit feeds.",
        ),
        Explanation(
            "skipped",
            "your δ₁ skips a layer's slope: it must be made from δ₂, which has h₂ (1 − h₂) in it, and not from W₃ᵀ δ₃.",
        ),
    ),
    mutants=(
        Mutant("sigmoid_backward(w2.T @ delta2, h1)", "w2.T @ delta2", says="first slope"),
        Mutant(
            "delta2 = sigmoid_backward(w3.T @ delta3, h2)  # (H2, O) @ (O, N) -> (H2, N)\n    delta1 = sigmoid_backward(w2.T "
            "@ delta2, h1)",
            "delta2 = (w3.T @ delta3) * (1.0 - h2)\n    delta1 = (w2.T @ delta2) * (1.0 - h1)",
            says="half a slope",
        ),
        Mutant(
            "delta2 = sigmoid_backward(w3.T @ delta3, h2)  # (H2, O) @ (O, N) -> (H2, N)\n    delta1 = sigmoid_backward(w2.T "
            "@ delta2, h1)",
            "delta2 = (w3.T @ delta3) * h2\n    delta1 = (w2.T @ delta2) * h1",
            says="the other half",
        ),
        Mutant("delta3 = sigmoid_backward(f - y, f)", "delta3 = f - y", says="output slope"),
        Mutant(
            "delta2 = sigmoid_backward(w3.T @ delta3, h2)  # (H2, O) @ (O, N) -> (H2, N)\n"
            "    delta1 = sigmoid_backward(w2.T @ delta2, h1)",
            "delta2 = w3.T @ delta3\n    delta1 = w2.T @ delta2",
            says="hidden slope",
        ),
        Mutant("return dy * (y * (1.0 - y))", "return dy", says="no slopes"),
        Mutant(
            "return dy * (y * (1.0 - y))",
            "return dy * sigmoid_forward(y) * (1.0 - sigmoid_forward(y))",
            says="slope of a sigmoid of a sigmoid",
        ),
        Mutant("return dy * (y * (1.0 - y))", "return dy * (1.0 - y * y)", says="tanh"),
        Mutant("sigmoid_backward(f - y, f)", "sigmoid_backward(y - f, f)", says="uphill"),
        Mutant("sigmoid_backward(f - y, f)", "sigmoid_backward(2.0 * (f - y), f)", says="no half"),
        Mutant("sigmoid_backward(f - y, f)", "sigmoid_backward((f - y) / x.shape[1], f)", says="mean"),
        Mutant("sigmoid_backward(w2.T @ delta2, h1)", "sigmoid_backward(w2.T @ (w3.T @ delta3), h1)", says="skipped"),
        Mutant("delta1 @ x.T, delta2 @ h1.T, delta3 @ h2.T", "delta3 @ h2.T, delta2 @ h1.T, delta1 @ x.T", says="swapped"),
        Mutant("delta1 @ x.T, delta2 @ h1.T, delta3 @ h2.T", "x @ delta1.T, h1 @ delta2.T, h2 @ delta3.T", says="transpose"),
        Mutant(
            "sigmoid_backward(w2.T @ delta2, h1)",
            "sigmoid_backward((w2 if w2.shape[0] == w2.shape[1] else w2.T) @ delta2, h1)",
            says="not transposed",
        ),
    ),
    alternatives=(
        """import numpy as np


def matrix_gradient(x, y, *weights):
    inputs, slopes = [], []
    h = x
    for w in weights:
        inputs.append(h)
        e = np.exp(-(w @ h))
        h = 1 / (1 + e)
        slopes.append(e / (1 + e) ** 2)  # the derivative by the quotient rule
    back, gradients = h - y, []
    for w, h, slope in zip(reversed(weights), reversed(inputs), reversed(slopes)):
        delta = back * slope
        gradients.insert(0, np.einsum("on,in->oi", delta, h))
        back = w.T @ delta
    return gradients
""",
    ),
    train=Train(_kernels, "recipe"),
)
