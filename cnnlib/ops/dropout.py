"""Noise for training: dropout, masking, salt-and-pepper and Gaussian noise.

Formulas, with a fresh mask m_i ∈ {0, 1}, P(m_i = 0) = p, for each element and each call::

    dropout          y = m ⊙ x / (1 − p)      "inverted": E[y] = x, so that evaluation, y = x, needs no scaling
    masking noise    y = m ⊙ x                the corrupted input of a denoising autoencoder
    salt and pepper  y = m ⊙ x + (1 − m) ⊙ b  b_i ∈ {0, 1}, P(b_i = 1) = ½
    Gaussian noise   y = x + σ ε              ε ~ N(0, 1)

DropConnect is dropout applied to the weights: ``linear(x, dropout(w, p, training), b)``.

Adjoints: the mask is a constant, so dx = m ⊙ dy / (1 − p), with the mask of the forward pass. Element i is kept when the 32
random bits of its place in the sequence ``key`` are at least p · 2³². The bits are a function of key and i
(cnnlib/random.py): dropout saves its mask, a bit per element; the others save the key, and draw the mask again.

Source: lecture: regularisation; Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout", 2014; Wan, Zeiler,
Zhang, LeCun & Fergus, "Regularization of neural networks using DropConnect", 2013; Vincent et al., "Stacked denoising
autoencoders", 2010 (the other three).
"""

from __future__ import annotations

import math
from numbers import Real

from cnnlib.backends import kernel, xp_of
from cnnlib.errors import ValueRangeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float
from cnnlib.random import next_key, normal, philox_words
from cnnlib.tensor import Tensor

# ---- the textbook


@kernel
def random_bits(key, n):
    return philox_words(key, n)


@kernel
def dropout_forward(x, p, key):
    xp = xp_of(x)
    m = philox_words(key, x.size, xp) >= threshold(p)
    y = xp.where(m.reshape(x.shape), x * (1.0 / (1.0 - p)), 0.0)
    return y, xp.packbits(m, bitorder="little")


@kernel
def dropout_backward(dy, keep, p):
    xp = xp_of(dy)
    m = xp.unpackbits(keep, bitorder="little")[: dy.size].astype(bool)
    return xp.where(m.reshape(dy.shape), dy * (1.0 / (1.0 - p)), 0.0)


def threshold(p):
    """The smallest whole number of at least p · 2³²: for words, ``word >= p · 2³²`` is ``word >= threshold(p)``."""
    return math.ceil(p * 2.0**32)


# ---- the operations


class Dropout(Op):
    """Saves p and keep, the mask m as packed bits (uint8, the first element lowest): 1/32 of the bytes of x in float32."""

    formula = "y = m ⊙ x / (1 − p)"

    @staticmethod
    def forward(ctx, x, *, p=0.5):
        check_float("dropout", "x", x)
        y, keep = ctx.kernels.dropout_forward(x, p, next_key("dropout"))
        ctx.save(p=p, keep=keep)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.dropout_backward(dy, ctx.keep, ctx.p)


class MaskingNoise(Op):
    """Saves p and key, which names the mask."""

    formula = "y = m ⊙ x"

    @staticmethod
    def forward(ctx, x, *, p=0.5):
        check_float("masking_noise", "x", x)
        ctx.save(p=p, key=next_key("dropout"))
        return _masked(ctx, x)

    @staticmethod
    def backward(ctx, dy):
        return _masked(ctx, dy)


def _masked(ctx, x):
    bits = ctx.xp.asarray(ctx.kernels.random_bits(ctx.key, x.size)).reshape(x.shape)
    return ctx.xp.where(bits >= threshold(ctx.p), x, 0.0)


class SaltAndPepperNoise(Op):
    """Element i is 1 (salt) below p/2 · 2³², 0 (pepper) below p · 2³², else x. Saves p and key, which names both."""

    formula = "y = m ⊙ x + (1 − m) ⊙ b"

    @staticmethod
    def forward(ctx, x, *, p=0.5):
        check_float("salt_and_pepper_noise", "x", x)
        ctx.save(p=p, key=next_key("dropout"))
        bits = ctx.xp.asarray(ctx.kernels.random_bits(ctx.key, x.size)).reshape(x.shape)
        extreme = (bits < threshold(p / 2)).astype(x.dtype)
        return ctx.xp.where(bits >= threshold(p), x, extreme)

    @staticmethod
    def backward(ctx, dy):
        return _masked(ctx, dy)


class GaussianNoise(Op):
    """Adding a constant has the derivative 1. Saves key, which names the noise."""

    formula = "y = x + σ ε"

    @staticmethod
    def forward(ctx, x, *, std=0.1):
        check_float("gaussian_noise", "x", x)
        key = next_key("dropout")
        ctx.save(key=key)
        return x + (std * normal(key, x.shape, ctx.xp)).astype(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        return dy


# ---- the public functions


def dropout(x, p=0.5, training=True):
    """Each element is 0 with probability p, else x / (1 − p); in evaluation (``training=False``) x itself. Any shape.

    >>> import cnnlib as cl
    >>> cl.manual_seed(0)
    >>> sorted(set(cl.ops.dropout(cl.Tensor([1.0] * 100), p=0.5).numpy().tolist()))
    [0.0, 2.0]

    Raises ValueRangeError unless 0 <= p < 1: at p = 1 nothing is left to divide by (PyTorch gives zeros there).
    """
    _check_probability("dropout", p)
    return Dropout.apply(x, p=float(p)) if training and p > 0 else _unchanged(x)


def masking_noise(x, p=0.5, training=True):
    """Each element is 0 with probability p, else x, not rescaled; in evaluation x itself.

    >>> import cnnlib as cl
    >>> cl.manual_seed(0)
    >>> sorted(set(cl.ops.masking_noise(cl.Tensor([1.0] * 100), p=0.5).numpy().tolist()))
    [0.0, 1.0]

    Raises ValueRangeError unless 0 <= p < 1.
    """
    _check_probability("masking_noise", p)
    return MaskingNoise.apply(x, p=float(p)) if training and p > 0 else _unchanged(x)


def salt_and_pepper_noise(x, p=0.5, training=True):
    """Each element is 1 with probability p/2, 0 with probability p/2, else x; in evaluation x itself. For x in 0 … 1.

    >>> import cnnlib as cl
    >>> cl.manual_seed(0)
    >>> sorted(set(cl.ops.salt_and_pepper_noise(cl.Tensor([0.5] * 100), p=0.5).numpy().tolist()))
    [0.0, 0.5, 1.0]

    Raises ValueRangeError unless 0 <= p < 1.
    """
    _check_probability("salt_and_pepper_noise", p, "a 0 or a 1")
    return SaltAndPepperNoise.apply(x, p=float(p)) if training and p > 0 else _unchanged(x)


def gaussian_noise(x, std=0.1, training=True):
    """x + std · ε, ε ~ N(0, 1), from the stream "dropout"; in evaluation x itself. Raises ValueRangeError for std < 0."""
    if not 0 <= std < math.inf:
        raise ValueRangeError(f"gaussian_noise: std must be a finite number >= 0, got {std}.")
    return GaussianNoise.apply(x, std=float(std)) if training and std > 0 else _unchanged(x)


def _unchanged(x):
    return x if isinstance(x, Tensor) else Tensor(x)


def _check_probability(op, p, of="a zero"):
    if not (isinstance(p, Real) and 0 <= p < 1):
        raise ValueRangeError(f"{op}: p is the probability of {of} and must be in 0 <= p < 1, got {p!r}.")
