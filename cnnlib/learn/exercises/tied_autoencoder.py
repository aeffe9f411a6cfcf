"""Tied autoencoder: one matrix, two ways to its gradient

An autoencoder squeezes x through a narrow code and is asked for x again. With tied weights the decoder uses the
encoder's matrix, transposed: half the parameters, and without σ the best it can do is PCA.

    y = σ(W x + b)              the code: x (N, D) -> y (N, K)
    z = Wᵀ y + c                the reconstruction: (N, K) -> (N, D)
    J = 1/(N·D) Σ (z − x)²      the mean over all elements

    w (K, D), b (K,), c (D,)    with samples in rows: y = σ(x @ w.T + b), z = y @ w + c

The matrix is used twice, so two paths lead from J back to it, and its gradient is the sum of what comes along both, as
for a weight that a recurrent network uses at two steps:

    dz = 2 (z − x) / (N·D)
    ∂J/∂W by way of the decoder:   Σ_n y_n dz_nᵀ                                    (K, D)
    ∂J/∂W by way of the encoder:   Σ_n da_n x_nᵀ,  da = (W dz) ⊙ y (1 − y)          (K, D)

(x is the target, too, but it is data: nobody asks for its gradient here.)

Write tied_autoencoder(x, w, b, c): it returns J, a number, and dw, db, dc, of the shapes of w, b, c.

Source: lecture: unsupervised learning (autoencoders, tied weights); Bourlard & Kamp, "Auto-association by multilayer
perceptrons and singular value decomposition", 1988; Vincent et al., "Stacked denoising autoencoders", 2010.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import sigmoid_backward, sigmoid_forward
from cnnlib.ops.linear import linear_backward_bias, linear_backward_input, linear_backward_weight, linear_forward


def tied_autoencoder(x, w, b, c):
    y = sigmoid_forward(linear_forward(x, w, b))
    z = linear_forward(y, w.T, c)
    dz = 2 * (z - x) / x.size
    da = sigmoid_backward(linear_backward_input(dz, w.T), y)
    through_decoder = linear_backward_weight(dz, y).T
    through_encoder = linear_backward_weight(da, x)
    return ((z - x) ** 2).mean(), through_encoder + through_decoder, linear_backward_bias(da), linear_backward_bias(dz)


def loss(x, w, b, c):
    y = 0.5 * (1 + np.tanh(0.5 * (x @ w.T + b)))
    return ((y @ w + c - x) ** 2).mean()


def cases(rng):
    def case(N, D, K, *features):
        return Case((rng.normal(size=(N, D)), rng.normal(size=(K, D)), rng.normal(size=K), rng.normal(size=D)), features)

    return [
        case(5, 4, 2),
        case(1, 3, 2, "N = 1"),
        case(4, 3, 3, "K = D"),
        case(3, 2, 5, "a code larger than x"),
        case(4, 5, 1, "one code unit"),
    ]


EXERCISE = Exercise(
    number=31,
    name="tied_autoencoder",
    topic="lecture: unsupervised learning (autoencoders)",
    function=tied_autoencoder,
    uses=(
        sigmoid_forward,
        sigmoid_backward,
        linear_forward,
        linear_backward_input,
        linear_backward_weight,
        linear_backward_bias,
    ),
    outputs=("loss", "dw", "db", "dc"),
    starter='''\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def tied_autoencoder(x, w, b, c):
    """x (N, D), w (K, D), b (K,), c (D,) -> the loss, dw (K, D), db (K,), dc (D,)"""
    # forward: code y, reconstruction z
    # backward: dz, then da, the adjoint of the code before σ
    # dw has two parts
    ...
''',
    cases=cases,
    numerical=Numerical(loss, wrt={"dw": 1, "db": 2, "dc": 3}, upstream=None),
    hints=(
        "Pretend that the decoder had a matrix V (K, D) of its own, z = y @ V + c. What are dV and dW? Then set V = W.",
        "The decoder's part is y.T @ dz, the encoder's da.T @ x: both (K, D).",
        "dz = 2 * (z - x) / x.size; da = (dz @ w.T) * y * (1 - y); dw = da.T @ x + y.T @ dz; db = da.sum(0); dc = dz.sum(0).",
    ),
    question="Without σ and biases z = WᵀW x. Which W are best, and are its rows the principal components?",
    answer="WᵀW must be the projection onto the plane of the first K principal components: any W whose rows span that plane "
    "and are "
    "orthonormal. Rotate them within the plane and the loss stays the same, so the rows need not be the components themselves.",
    link="cnnlib/models/autoencoder.py",
    explanations=(
        Explanation("decoder_only", "your dw has the decoder's path only: W also made the code, add da.T @ x."),
        Explanation("encoder_only", "your dw has the encoder's path only: W also made the reconstruction, add y.T @ dz."),
        Explanation("minus", "your two parts of dw are subtracted: the adjoints of two uses of a parameter add up."),
        Explanation("half", "your dw is the mean of its two parts: the adjoints of two uses of a parameter add up."),
        Explanation("no_slope", "your da leaves out the derivative of σ: da = (W dz) ⊙ y (1 − y)."),
        Explanation(
            "slope_twice", "your derivative of σ takes σ of the code again: y is σ(a) already, the slope is y (1 − y)."
        ),
        Explanation("no_two", "your dz lacks the 2 of the square: ∂(z − x)²/∂z = 2 (z − x)."),
        Explanation("per_sample", "your dz is divided by N: J is the mean over all N·D elements."),
        Explanation("no_mean", "your dz is that of the sum: J is the mean over all N·D elements."),
        Explanation("linear_code", "your code never goes through σ: y = σ(W x + b)."),
        Explanation("sigmoid_output", "your reconstruction goes through σ: here the output is linear, z = Wᵀ y + c."),
        Explanation("no_c", "your reconstruction leaves out its bias c."),
        Explanation("residual", "your encoder's path multiplies by z − x: W was multiplied by x, so it is da.T @ x."),
    ),
    mutants=(
        Mutant("through_encoder + through_decoder", "through_decoder", says="decoder_only"),
        Mutant("through_encoder + through_decoder", "through_encoder", says="encoder_only"),
        Mutant("through_encoder + through_decoder", "through_encoder - through_decoder", says="minus"),
        Mutant("through_encoder + through_decoder", "(through_encoder + through_decoder) / 2", says="half"),
        Mutant("sigmoid_backward(linear_backward_input(dz, w.T), y)", "linear_backward_input(dz, w.T)", says="no_slope"),
        Mutant(
            "sigmoid_backward(linear_backward_input(dz, w.T), y)",
            "sigmoid_backward(linear_backward_input(dz, w.T), sigmoid_forward(y))",
            says="slope_twice",
        ),
        Mutant("dz = 2 * (z - x) / x.size", "dz = (z - x) / x.size", says="no_two"),
        Mutant("dz = 2 * (z - x) / x.size", "dz = 2 * (z - x) / len(x)", says="per_sample"),
        Mutant("dz = 2 * (z - x) / x.size", "dz = 2 * (z - x)", says="no_mean"),
        Mutant("dz = 2 * (z - x) / x.size", "dz = 2 * (x - z) / x.size", says="sign"),
        Mutant("y = sigmoid_forward(linear_forward(x, w, b))", "y = linear_forward(x, w, b)", says="linear_code"),
        Mutant("z = linear_forward(y, w.T, c)", "z = sigmoid_forward(linear_forward(y, w.T, c))", says="sigmoid_output"),
        Mutant("z = linear_forward(y, w.T, c)", "z = linear_forward(y, w.T, None)", says="no_c"),
        Mutant("linear_backward_weight(da, x)", "linear_backward_weight(da, z - x)", says="residual"),
    ),
    alternatives=(
        """\
import numpy as np


def tied_autoencoder(x, w, b, c):
    N, D = x.shape
    J, dw, db, dc = 0.0, np.zeros_like(w), np.zeros_like(b), np.zeros_like(c)
    for x_n in x:
        y = 1 / (1 + np.exp(-(w @ x_n + b)))
        error = w.T @ y + c - x_n
        J += error @ error / (N * D)
        dz = 2 * error / (N * D)
        da = (w @ dz) * y * (1 - y)
        dw += np.outer(y, dz) + np.outer(da, x_n)
        db += da
        dc += dz
    return J, dw, db, dc
""",
    ),
    train=Train(lambda f: {"tied_autoencoder": f}, "tied"),
)
