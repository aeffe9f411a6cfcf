"""Random words and dropout on CuPy arrays: csrc/random.cu.

The call number of a key may be an array of one int64 on the device, whose value then counts when the kernel runs.
"""

from __future__ import annotations

import math

from cnnlib.backends import xp_of
from cnnlib.backends.cuda.source import elements, launch


def _key(key):
    """As the kernels take it: the halves of the seed, the stream, the call as a number or where to find it."""
    seed, stream, call = key
    by_value = (call, None) if isinstance(call, int) else (0, call)
    return seed & 0xFFFFFFFF, seed >> 32, stream, *by_value


def random_bits(key, n):
    import cupy

    words = cupy.empty(n, "uint32")
    launch("random", "random_bits", "f", *elements(n, 4), n, *_key(key), words)
    return words


def dropout_forward(x, p, key):
    xp, n = xp_of(x), x.size
    y, keep = xp.empty_like(x), xp.empty(-(-n // 8), "uint8")
    threshold = math.ceil(p * 2.0**32)
    launch("random", "dropout", x.dtype.char, *elements(n, 8), n, *_key(key), threshold, _scale(p), x, y, keep)
    return y, keep


def dropout_backward(dy, keep, p):
    dx = xp_of(dy).empty_like(dy)
    launch("random", "dropout_backward", dy.dtype.char, *elements(dy.size, 8), dy.size, _scale(p), dy, keep, dx)
    return dx


def _scale(p):
    return 1.0 / (1.0 - p)
