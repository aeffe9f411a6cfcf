"""Batch-norm backward: three paths from y to x

Batch normalisation asks each channel to keep still: take the channel's values from all images and all pixels of the batch,
bring them to mean 0 and variance 1, and let the network choose its own scale γ and shift β afterwards. Algorithm 1 of the
paper, for a channel with m = N·H·W values x_i:

    μ = Σ x_i / m      σ² = Σ (x_i − μ)² / m      x̂_i = (x_i − μ) / sqrt(σ² + ε)      y_i = γ x̂_i + β

    dy, x, dx (N, C, H, W)    gamma, dgamma, dbeta (C,)    ε inside the root, 1/m and not 1/(m − 1)

Backward is famous for being got wrong, and for one reason. Move one pixel of one image: its own x̂ moves, but μ moves,
too, and σ² as well, and with them every other value of the channel, in every image. So three paths lead back to x_i.
With r = 1 / sqrt(σ² + ε):

    dβ = Σ dy_i      dγ = Σ dy_i x̂_i      dx̂_i = γ dy_i
    dσ² = Σ dx̂_i (x_i − μ) · (−r³ / 2)      dμ = −r Σ dx̂_i         (σ² depends on μ, too, but Σ (x_i − μ) = 0)
    dx_i = dx̂_i r  +  dσ² · 2 (x_i − μ) / m  +  dμ / m

Write it in these steps first. Then, on paper, put them together: nearly everything cancels, and one line is left,
dx = γ r (dy − mean(dy) − x̂ mean(dy x̂)). Read it aloud: batch norm takes out of the gradient what it took out of the
values, their mean and their scale.

You get dy, x, gamma and eps, and compute μ and σ² again. If dx is off, return after the three outputs a dict with any of
{"xhat": (N, C, H, W), "dxhat": (N, C, H, W), "dvar": (C,), "dmean": (C,)}, and you are told which goes wrong first.

Source: lecture: regularisation (batch normalisation); Ioffe & Szegedy, "Batch normalization: accelerating deep network training
by reducing internal covariate shift", 2015, Algorithm 1.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Intermediates, Mutant, Numerical, Train
from cnnlib.ops.norm import _column, _recentred, _scaled, batch_norm_backward, batch_norm_forward


def batch_norm2d_backward(dy, x, gamma, eps):
    N, C, H, W = x.shape
    dy, values = dy.reshape(N, C, H * W), x.reshape(N, C, H * W)
    mean, var = values.mean(axis=(0, 2)), values.var(axis=(0, 2))
    dx, dgamma, dbeta = batch_norm_backward(dy, values, gamma, mean, var, eps)
    return dx.reshape(x.shape), dgamma, dbeta


def forward(dy, x, gamma, eps, beta=None):
    return batch_norm_forward(x.reshape(*x.shape[:2], -1), gamma, beta, eps)[0].reshape(x.shape)


def cases(rng):
    def case(shape, eps, *features, scale=1.0, shift=0.0):
        dy, x = rng.standard_normal(shape), rng.standard_normal(shape) * scale + shift
        return Case((dy, x, rng.uniform(0.5, 2.0, shape[1]) * rng.choice([-1, 1], shape[1]), eps), features)

    return [
        case((4, 3, 2, 5), 0.1),
        case((1, 2, 3, 4), 0.2, "N = 1"),
        case((6, 4, 1, 1), 0.1, "one pixel"),
        case((3, 1, 2, 2), 1e-5, "one channel", "small eps"),
        case((2, 3, 3, 2), 0.5, "values far from 0", shift=30.0, scale=2.0),
        case((3, 2, 2, 3), 1e-2, "hardly any variance", scale=0.05),
    ]


def intermediates(dy, x, gamma, eps):
    channel = (slice(None), None, None)
    d = x - x.mean(axis=(0, 2, 3), keepdims=True)
    r = 1 / np.sqrt((d * d).mean(axis=(0, 2, 3)) + eps)
    dxhat = dy * gamma[channel]
    return {
        "xhat": d * r[channel],
        "dxhat": dxhat,
        "dvar": (dxhat * d).sum(axis=(0, 2, 3)) * (-(r**3) / 2),
        "dmean": -r * dxhat.sum(axis=(0, 2, 3)),
    }


def feature_maps(rng):
    """Sixteen maps of 28×28 pixels, 32 pictures."""
    dy, x = (rng.standard_normal((32, 16, 28, 28), dtype=np.float32) for _ in range(2))
    return dy, x, np.ones(16, np.float32), 1e-5


def with_statistics(dy, x, gamma, eps):
    dy, x = (a.reshape(*a.shape[:2], -1) for a in (dy, x))
    return dy, x, gamma, x.mean(axis=(0, 2)), x.var(axis=(0, 2)), eps


def kernels(f):
    def backward(dy, x, gamma, mean, var, eps):
        dx, dgamma, dbeta = f(dy[..., None], x[..., None], gamma, eps)[:3]
        return np.asarray(dx, x.dtype).reshape(x.shape), np.asarray(dgamma, x.dtype), np.asarray(dbeta, x.dtype)

    return {"batch_norm_backward": backward}


def one_image_at_a_time(dy, x, gamma, eps):
    dx, dgamma, dbeta = zip(*(batch_norm2d_backward(d[None], v[None], gamma, eps) for d, v in zip(dy, x)))
    return np.concatenate(dx), sum(dgamma), sum(dbeta)


STEPS = """\
import numpy as np


def batch_norm2d_backward(dy, x, gamma, eps):
    axes, m = (0, 2, 3), x.size / x.shape[1]
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std

    dxhat = dy * gamma.reshape(1, -1, 1, 1)
    dvar = (dxhat * (x - mean)).sum(axis=axes, keepdims=True) * -0.5 * (var + eps) ** -1.5
    dmean = -(dxhat / std).sum(axis=axes, keepdims=True) - 2 * dvar * (x - mean).mean(axis=axes, keepdims=True)
    dx = dxhat / std + dvar * 2 * (x - mean) / m + dmean / m
    return dx, (dy * xhat).sum(axis=axes), dy.sum(axis=axes)
"""

PROJECTION = '''\
import numpy as np


def batch_norm2d_backward(dy, x, gamma, eps):
    """Channel by channel: dx = γ r P dy, where P takes out the directions of the ones and of x̂."""
    dx, dgamma, dbeta = np.empty_like(x), np.empty_like(gamma), np.empty_like(gamma)
    for c in range(len(gamma)):
        v, d = x[:, c].ravel(), dy[:, c].ravel()
        m = len(v)
        r = (v.var() + eps) ** -0.5
        xhat = (v - v.mean()) * r
        P = np.eye(m) - np.ones((m, m)) / m - np.outer(xhat, xhat) / m
        dx[:, c] = (gamma[c] * r * P @ d).reshape(x[:, c].shape)
        dgamma[c], dbeta[c] = xhat @ d, d.sum()
    return dx, dgamma, dbeta
'''

EINSUM = """\
import numpy as np


def batch_norm2d_backward(dy, x, gamma, eps):
    m = x.shape[0] * x.shape[2] * x.shape[3]
    d = x - np.einsum("nchw->c", x)[:, None, None] / m
    r = 1 / np.sqrt(np.einsum("nchw,nchw->c", d, d) / m + eps)
    xhat = np.einsum("nchw,c->nchw", d, r)
    dbeta, dgamma = np.einsum("nchw->c", dy), np.einsum("nchw,nchw->c", dy, xhat)
    inner = m * dy - dbeta[:, None, None] - np.einsum("c,nchw->nchw", dgamma, xhat)
    return np.einsum("c,nchw->nchw", gamma * r / m, inner), dgamma, dbeta
"""

CENTRED = "x less its mean is centred already; the second time takes out what rounding left in float32"
ANY_MEAN = "_recentred takes out what is left of the mean, whichever was taken off"


def each_pixel_alone(dy, x, gamma, eps):
    N, C, H, W = x.shape
    pixels = [a.reshape(N, C * H * W, 1, 1) for a in (dy, x)]
    dx, dgamma, dbeta = batch_norm2d_backward(*pixels, np.repeat(gamma, H * W), eps)
    return dx.reshape(x.shape), dgamma.reshape(C, H, W), dbeta.reshape(C, H, W)


EXERCISE = Exercise(
    number=17,
    name="batch_norm_backward",
    topic="lecture: regularisation (batch normalisation)",
    function=batch_norm2d_backward,
    uses=(_recentred, _column, _scaled, batch_norm_backward),
    outputs=("dx", "dgamma", "dbeta"),
    starter='''\
import numpy as np


def batch_norm2d_backward(dy, x, gamma, eps):
    """dy, x (N, C, H, W), gamma (C,) -> dx (N, C, H, W), dgamma (C,), dbeta (C,)."""
    # 1. forward again: mean and variance of each channel (over which axes?), xhat
    # 2. dbeta and dgamma
    # 3. dxhat, then the three paths to dx: directly, through the variance, through the mean
    ...
''',
    cases=cases,
    numerical=Numerical(forward, wrt={"dx": 1, "dgamma": 2, "dbeta": "beta"}, upstream=0),
    hints=(
        "A channel has N·H·W values, so every mean and every sum runs over axis=(0, 2, 3). keepdims=True saves you from "
        "reshaping; gamma becomes gamma[:, None, None].",
        "dbeta and dgamma are two sums. For dx write the three terms of the story on three lines, and check them one by one "
        "with the dict of intermediates.",
        "dx = dxhat * r + dvar * 2 * (x - mean) / m + dmean / m\n"
        "with m = N*H*W, dvar = (dxhat * (x - mean)).sum(axes) * -0.5 * r**3, dmean = -(dxhat * r).sum(axes)",
    ),
    question="Add 5 to all of x, or double it: what happens to y (take ε = 0)? What does that say about the sum of dx over "
    "a channel, and of dx · x? And what does it mean for the bias of a convolution that stands right before batch norm?",
    answer="y stays the same in both cases. So dx has no part along the direction of the ones: it sums to 0 over every "
    "channel; and none along x − μ: Σ dx (x − μ) = 0. Check it on your dx. A bias before batch norm is added to every value "
    "of a channel and taken out again: its gradient is 0, it never learns, and networks with batch norm leave it out.",
    link="cnnlib/ops/norm.py",
    explanations=(
        Explanation(
            "per pixel",
            "you sum over the batch only, axis 0: a channel has one mean, one variance, one gamma for all images and all "
            "pixels, so sum over axes (0, 2, 3).",
            each_pixel_alone,
        ),
        Explanation(
            "m forgotten in the variance path",
            "your path through the variance is not divided by m: ∂σ²/∂x_i = 2 (x_i − μ) / m.",
        ),
        Explanation("m forgotten in the mean path", "your path through the mean is not divided by m: ∂μ/∂x_i = 1/m."),
        Explanation(
            "power of the variance",
            "your dσ² has the wrong power of σ² + ε: the derivative of (σ² + ε)^(−½) is −½ (σ² + ε)^(−3/2).",
        ),
        Explanation(
            "variance path forgotten",
            "your dx forgets the path through the variance: σ² depends on every x_i, which adds dσ² · 2 (x_i − μ) / m.",
        ),
        Explanation(
            "mean path forgotten", "your dx forgets the path through the mean: μ depends on every x_i, which adds dμ / m."
        ),
        Explanation(
            "given statistics",
            "your dx takes mean and variance as given constants, as at inference: in training both depend on x, and two "
            "more paths lead back.",
        ),
        Explanation("eps outside the root", "your eps stands outside the root: it is sqrt(σ² + ε), not sqrt(σ²) + ε."),
        Explanation("eps forgotten", "you forgot eps: r = 1 / sqrt(σ² + ε)."),
        Explanation(
            "m - 1", "your variance divides by m − 1: batch norm uses the batch's own variance, with 1/m (np.var with ddof=0)."
        ),
        Explanation(
            "m is N", "your m is N: a channel has N·H·W values, and the two paths through the statistics divide by that."
        ),
        Explanation(
            "half of the variance path",
            "your path through the variance is half as large as it should be: ∂σ²/∂x_i = 2 (x_i − μ) / m, with the 2.",
        ),
        Explanation("variance path's sign", "your path through the variance has the wrong sign: ∂r/∂σ² = −r³/2."),
        Explanation("gamma forgotten", "your dx forgets gamma: dx̂ = γ dy."),
        Explanation("gamma in dgamma", "your dgamma is multiplied by gamma: y = γ x̂ + β, so dγ = Σ dy x̂, with dy and not dx̂."),
        Explanation("x for xhat", "your dgamma uses x where it should use x̂: γ is multiplied by the normalised value."),
        Explanation("xhat not centred", "your x̂ is not centred: x̂ = (x − μ) r."),
        Explanation("r forgotten", "your dx lacks the factor r = 1 / sqrt(σ² + ε): x̂ = (x − μ) r."),
        Explanation(
            "r for r squared",
            "your path through the variance lacks a factor r: dσ² has r³, one of which goes with (x − μ) into x̂.",
        ),
        Explanation(
            "one image at a time",
            "your statistics are those of each image alone (instance norm): batch norm takes a channel's mean and variance "
            "over the whole batch, axes (0, 2, 3).",
            one_image_at_a_time,
        ),
        Explanation("mean in dbeta", "your dbeta is the mean of dy: β was added m times, so dβ is the sum."),
    ),
    mutants=(
        Mutant("_column(dgamma / m)", "_column(dgamma)", "m forgotten in the variance path"),
        Mutant("_column(dbeta / m)", "_column(dbeta)", "m forgotten in the mean path"),
        Mutant("xhat * _column(dgamma / m)", "xhat / r**2 * _column(dgamma / m)", "power of the variance"),
        Mutant(" - xhat * _column(dgamma / m)", "", "variance path forgotten"),
        Mutant("dy - _column(dbeta / m)", "dy", "mean path forgotten"),
        Mutant("dy - _column(dbeta / m) - xhat * _column(dgamma / m)", "dy", "given statistics"),
        Mutant("r = 1 / np.sqrt(_column(var) + eps)", "r = 1 / (np.sqrt(_column(var)) + eps)", "eps outside the root"),
        Mutant("r = 1 / np.sqrt(_column(var) + eps)", "r = 1 / np.sqrt(_column(var))", "eps forgotten"),
        Mutant("values.var(axis=(0, 2))", "values.var(axis=(0, 2), ddof=1)", "m - 1"),
        Mutant("m = x.shape[0] * x.shape[2]", "m = x.shape[0]", "m is N"),
        Mutant("_column(dgamma / m)", "_column(dgamma / (2 * m))", "half of the variance path"),
        Mutant("- xhat * _column(dgamma / m)", "+ xhat * _column(dgamma / m)", "variance path's sign"),
        Mutant("dgamma / m), _column(gamma), None) * r", "dgamma / m), None, None) * r", "gamma forgotten"),
        Mutant("return dx, dgamma, dbeta", "return dx, dgamma * gamma, dbeta", "gamma in dgamma"),
        Mutant("return dx, dgamma, dbeta", "return dx, (dy * x).sum(axis=(0, 2)), dbeta", "x for xhat"),
        Mutant("xhat = _recentred(x - _column(mean), (0, 2)) * r", "xhat = x * r", "xhat not centred"),
        Mutant("_column(gamma), None) * r", "_column(gamma), None)", "r forgotten"),
        Mutant("xhat * _column(dgamma / m)", "xhat / r * _column(dgamma / m)", "r for r squared"),
        Mutant("return dx, dgamma, dbeta", "return dx, dgamma, dbeta / m", "mean in dbeta"),
        Mutant("return dx, dgamma, dbeta", "return dx, (dy * xhat).sum(axis=0), dbeta", "shape"),
        Mutant("return dx.reshape(x.shape), dgamma, dbeta", "return dx.reshape(x.shape), dbeta, dgamma", "swapped"),
        Mutant("return dx.reshape(x.shape), dgamma, dbeta", "return -dx.reshape(x.shape), dgamma, dbeta", "sign"),
    ),
    equivalent={
        "_recentred: d - d.mean(axis=axes, keepdims=True) -> d + d.mean(axis=axes, keepdims=True)": CENTRED,
        "_recentred: d - d.mean(axis=axes, keepdims=True) -> d": CENTRED,
        "_recentred: d.mean(axis=axes, keepdims=True) -> d.sum(axis=axes, keepdims=True)": CENTRED,
        "batch_norm_backward: x - _column(mean) -> x": ANY_MEAN,
        "batch_norm_backward: mean -> var": ANY_MEAN,
        "batch_norm2d_backward: mean -> var": ANY_MEAN,
        "batch_norm2d_backward: values.mean(axis=(0, 2)) -> values.sum(axis=(0, 2))": ANY_MEAN,
        "batch_norm_backward: x - _column(mean) -> x + _column(mean)": ANY_MEAN,
    },
    alternatives=(STEPS, PROJECTION, EINSUM),
    intermediates=Intermediates(
        intermediates,
        {
            "xhat": "xhat = (x − μ) / sqrt(σ² + ε), μ and σ² over axes (0, 2, 3)",
            "dxhat": "dxhat = γ dy",
            "dvar": "dvar = Σ dxhat (x − μ) · (−½ (σ² + ε)^(−3/2)), over axes (0, 2, 3)",
            "dmean": "dmean = −Σ dxhat / sqrt(σ² + ε), over axes (0, 2, 3)",
        },
    ),
    fast=Fast(feature_maps, "batch_norm_backward", with_statistics),
    train=Train(kernels, "batch_norm"),
)
