"""Denoising autoencoder and greedy pre-training: layer by layer, without labels

An autoencoder with a code as large as x may simply copy. Take some of x away, ask for all of it, and copying does not
help: what is missing must be told from what is left.

    x̃ = x ⊙ keep                         keep (N, D): 0 where a pixel is blotted out, else 1; nothing is scaled up
    y = σ(W x̃ + b),  z = σ(Wᵀ y + c)     tied weights, w (K, D), b (K,), c (D,)
    J = mean of −x ln z − (1 − x) ln(1 − z) over all N·D elements: against the *clean* x

As always, σ and cross-entropy together have a short adjoint: before the last σ it is (z − x)/(N·D). W has its two paths
as in exercise 31; its encoder's path saw x̃.

**Greedy.** A deep network is pre-trained one layer at a time. Train layer 1 as a denoising autoencoder on x, then
freeze it, throw its decoder's c away, and let layer 2 learn to denoise the codes of layer 1. Noise is for learning
only: what goes up to the next layer is the code of the clean input, made by the layer as it is *after* its training.

    layer 1 learns from x;   h = σ(W₁ x + b₁);   layer 2 learns from h;   code = σ(W₂ h + b₂)

Write denoising_gradient(x, keep, w, b, c) -> J, dw, db, dc, and pretrain(x, keep1, w1, b1, c1, keep2, w2, b2, c2, lr),
which does one step of gradient descent for each layer and returns w1, b1, w2, b2 after it and the code of the stack (N,
K₂). keep2 (N, K₁) blots out codes of layer 1.

Source: lecture: unsupervised learning (denoising autoencoders, greedy layer-wise pre-training); Vincent et al.,
"Extracting and composing robust features with denoising autoencoders", 2008; Bengio et al., "Greedy layer-wise training
of deep networks", 2007.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train
from cnnlib.ops.activation import sigmoid_backward, sigmoid_forward, softplus_forward
from cnnlib.ops.linear import linear_backward_bias, linear_backward_input, linear_backward_weight, linear_forward


def denoising_gradient(x, keep, w, b, c):
    noisy = x * keep
    y = sigmoid_forward(linear_forward(noisy, w, b))
    s = linear_forward(y, w.T, c)
    ds = (sigmoid_forward(s) - x) / x.size
    da = sigmoid_backward(linear_backward_input(ds, w.T), y)
    dw = linear_backward_weight(da, noisy) + linear_backward_weight(ds, y).T
    return (softplus_forward(s) - x * s).mean(), dw, linear_backward_bias(da), linear_backward_bias(ds)


def pretrain(x, keep1, w1, b1, c1, keep2, w2, b2, c2, lr):
    _, dw, db, _ = denoising_gradient(x, keep1, w1, b1, c1)
    w1, b1 = w1 - lr * dw, b1 - lr * db
    h = sigmoid_forward(linear_forward(x, w1, b1))
    _, dw, db, _ = denoising_gradient(h, keep2, w2, b2, c2)
    w2, b2 = w2 - lr * dw, b2 - lr * db
    return w1, b1, w2, b2, sigmoid_forward(linear_forward(h, w2, b2))


def loss(x, keep, w, b, c):
    y = 1 / (1 + np.exp(-((x * keep) @ w.T + b)))
    z = 1 / (1 + np.exp(-(y @ w + c)))
    return -(x * np.log(z) + (1 - x) * np.log(1 - z)).mean()


def cases(rng):
    found = []
    for N, D, K, K2, *features in (
        (5, 6, 3, 2),
        (1, 4, 3, 2, "N = 1"),
        (4, 3, 5, 6, "codes larger than x"),
        (3, 4, 4, 4, "D = K"),
    ):

        def layer(D, K):
            return rng.normal(size=(K, D)), rng.normal(size=K), rng.normal(size=D)

        def keep(*shape):
            mask = (rng.uniform(size=shape) < 0.6) * 1.0
            mask[0, 0], mask[0, 1] = 0.0, 1.0
            return mask

        x, first, second = rng.uniform(0.05, 0.95, size=(N, D)), layer(D, K), layer(K, K2)
        found += [
            Case((x, keep(N, D), *first), features, "denoising_gradient"),
            Case((x, keep(N, D), *first, keep(N, K), *second, 0.5), features, "pretrain"),
        ]
    return found


def without_lr(x, keep1, w1, b1, c1, keep2, w2, b2, c2, lr):
    return pretrain(x, keep1, w1, b1, c1, keep2, w2, b2, c2, 1.0)


EXERCISE = Exercise(
    number=32,
    name="denoising",
    topic="lecture: unsupervised learning (denoising autoencoders, greedy pre-training)",
    function=(denoising_gradient, pretrain),
    uses=(
        sigmoid_forward,
        sigmoid_backward,
        softplus_forward,
        linear_forward,
        linear_backward_input,
        linear_backward_weight,
        linear_backward_bias,
    ),
    outputs={"denoising_gradient": ("loss", "dw", "db", "dc"), "pretrain": ("w1", "b1", "w2", "b2", "code")},
    starter='''\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def denoising_gradient(x, keep, w, b, c):
    """x and keep (N, D), w (K, D), b (K,), c (D,) -> the loss, dw, db, dc"""
    # forward from the corrupted x, loss against the clean one
    # backward as in exercise 31, with another dz
    ...


def pretrain(x, keep1, w1, b1, c1, keep2, w2, b2, c2, lr):
    """One step of size lr for layer 1, then one for layer 2 -> w1, b1, w2, b2, code (N, K2)"""
    # layer 1 learns from x
    # layer 2 learns from the codes of x
    ...
''',
    cases=cases,
    numerical=Numerical(loss, wrt={"dw": 2, "db": 3, "dc": 4}, upstream=None, function="denoising_gradient"),
    hints=(
        "Two x go through this exercise, the clean and the corrupted one. Which of the two does each formula mean?",
        "The clean x is the target, and what goes up to the next layer; the corrupted one is what the encoder saw, so it "
        "stands in the "
        "encoder's part of dw.",
        "ds = (z - x) / x.size; da = (ds @ w.T) * y * (1 - y); dw = da.T @ (x * keep) + y.T @ ds. Then w1 = w1 - lr * dw "
        "before "
        "h = sigmoid(x @ w1.T + b1).",
    ),
    question="Dropout, too, sets inputs to 0, and divides what is left by the probability of staying. Why is nothing divided "
    "here?",
    answer="Dropout wants the sum that reaches the next layer to have the same mean with and without it, because at test "
    "time the same "
    "weights see everything. The denoiser is to see a picture with holes as such: a pixel that is left has its true value, "
    "which is "
    "part of the evidence for those that are missing.",
    link="cnnlib/models/stacked_autoencoder.py",
    explanations=(
        Explanation("no_lr", "your step has length 1: it is lr times the gradient.", without_lr, function="pretrain"),
        Explanation(
            "target_noisy", "your target is the corrupted x: the loss compares z with the clean x, or holes are what it learns."
        ),
        Explanation("not_corrupted", "your encoder sees the clean x: it gets x ⊙ keep."),
        Explanation("rescaled", "your corrupted x is scaled up as in dropout: a pixel that is left keeps its value."),
        Explanation("dw_clean", "your dw takes the clean x in the encoder's path: W was multiplied by x ⊙ keep."),
        Explanation("encoder_only", "your dw has the encoder's path only: the decoder uses Wᵀ, add Σ y dsᵀ."),
        Explanation("decoder_only", "your dw has the decoder's path only: W also made the code, add Σ da x̃ᵀ."),
        Explanation("slope_at_output", "your ds has σ's derivative: with cross-entropy it has cancelled, ds = (z − x)/(N·D)."),
        Explanation("per_sample", "your adjoints are divided by N: J is the mean over all N·D elements."),
        Explanation("no_slope", "your da leaves out the derivative of σ: da = (W ds) ⊙ y (1 − y)."),
        Explanation(
            "masked_loss", "your loss counts only the pixels that were kept: what is missing is the very thing to be learnt."
        ),
        Explanation(
            "up_noisy", "your layer 2 learns from codes of the corrupted x: the noise is for learning, what goes up is clean."
        ),
        Explanation("up_old", "your layer 2 learns from codes of the untrained layer 1: first the step, then the code."),
        Explanation("up_linear", "your codes that go up never went through σ: h = σ(W₁ x + b₁)."),
        Explanation("ascent", "your step goes up the hill: w − lr · dw goes down."),
        Explanation("b_forgotten", "your biases do not learn: b takes its step, too."),
        Explanation("code_noisy", "your last code is made of the corrupted h: the code of the stack is made without noise."),
    ),
    mutants=(
        Mutant("ds = (sigmoid_forward(s) - x)", "ds = (sigmoid_forward(s) - noisy)", says="target_noisy"),
        Mutant("noisy = x * keep", "noisy = x", says="not_corrupted"),
        Mutant("noisy = x * keep", "noisy = x * keep / keep.mean()", says="rescaled"),
        Mutant("linear_backward_weight(da, noisy)", "linear_backward_weight(da, x)", says="dw_clean"),
        Mutant(" + linear_backward_weight(ds, y).T", "", says="encoder_only"),
        Mutant("linear_backward_weight(da, noisy) + ", "", says="decoder_only"),
        Mutant(
            "ds = (sigmoid_forward(s) - x)",
            "ds = (sigmoid_forward(s) - x) * sigmoid_forward(s) * sigmoid_forward(-s)",
            says="slope_at_output",
        ),
        Mutant("- x) / x.size", "- x) / len(x)", says="per_sample"),
        Mutant("sigmoid_backward(linear_backward_input(ds, w.T), y)", "linear_backward_input(ds, w.T)", says="no_slope"),
        Mutant("- x) / x.size", "- x) * keep / x.size", says="masked_loss"),
        Mutant(
            "h = sigmoid_forward(linear_forward(x, w1, b1))",
            "h = sigmoid_forward(linear_forward(x * keep1, w1, b1))",
            says="up_noisy",
        ),
        Mutant(
            "    w1, b1 = w1 - lr * dw, b1 - lr * db\n    h = sigmoid_forward(linear_forward(x, w1, b1))",
            "    h = sigmoid_forward(linear_forward(x, w1, b1))\n    w1, b1 = w1 - lr * dw, b1 - lr * db",
            says="up_old",
        ),
        Mutant("h = sigmoid_forward(linear_forward(x, w1, b1))", "h = linear_forward(x, w1, b1)", says="up_linear"),
        Mutant("w1, b1 = w1 - lr * dw, b1 - lr * db", "w1, b1 = w1 + lr * dw, b1 + lr * db", says="ascent"),
        Mutant("w2, b2 = w2 - lr * dw, b2 - lr * db", "w2, b2 = w2 - lr * dw, b2", says="b_forgotten"),
        Mutant(
            "sigmoid_forward(linear_forward(h, w2, b2))",
            "sigmoid_forward(linear_forward(h * keep2, w2, b2))",
            says="code_noisy",
        ),
    ),
    alternatives=(
        """\
import numpy as np


def code(x, w, b):
    return 1 / (1 + np.exp(-(x @ w.T + b)))


def denoising_gradient(x, keep, w, b, c):
    seen = np.where(keep > 0, x, 0)
    y = code(seen, w, b)
    z = code(y, w.T, c)
    error = (z - x) / (x.shape[0] * x.shape[1])
    da = y * (1 - y) * (error @ w.T)
    J = -np.mean(x * np.log(z) + (1 - x) * np.log(1 - z))
    return J, da.T @ seen + y.T @ error, np.ones(len(x)) @ da, np.ones(len(x)) @ error


def pretrain(x, keep1, w1, b1, c1, keep2, w2, b2, c2, lr):
    trained, h = [], x
    for keep, w, b, c in ((keep1, w1, b1, c1), (keep2, w2, b2, c2)):
        J, dw, db, dc = denoising_gradient(h, keep, w, b, c)
        w, b = w - lr * dw, b - lr * db
        trained += [w, b]
        h = code(h, w, b)
    return *trained, h
""",
    ),
    train=Train(lambda f: {"denoising_gradient": f[0]}, "denoiser"),
)
