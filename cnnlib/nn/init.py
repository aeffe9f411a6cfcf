"""Initial weights, drawn from the stream "init" on the CPU, so that a seed gives the same weights on every device.

fan_in = inputs of one unit, fan_out = units that one input feeds; for a convolution both count KH·KW.

Sources: lecture: initialisation heuristics; LeCun et al., "Efficient BackProp", 1998; Glorot & Bengio 2010;
He et al. 2015; Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear networks", 2014.
"""

from __future__ import annotations

import math

import numpy as np

from cnnlib.errors import ShapeError
from cnnlib.random import next_key, normal, uniform

PART = 1 << 16  # numbers drawn at a time: their float64 and integer temporaries stay in the cache


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, ...)."""
    if len(shape) < 2:
        raise ShapeError(f"fans: a weight needs at least 2 axes (out, in, ...), got shape {shape}.")
    if 0 in shape:
        raise ShapeError(f"fans: a layer needs at least one input and one output, got a weight of shape {shape}.")
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def uniform_(shape: tuple[int, ...], bound: float) -> np.ndarray:
    """Uniform in (−bound, bound), float32."""
    w, key = np.empty(math.prod(shape), np.float32), next_key("init")
    for start in range(0, w.size, PART):
        part = w[start : start + PART]
        part[:] = (2.0 * uniform(key, part.shape, start=start) - 1.0) * bound
    return w.reshape(shape)


def normal_(shape: tuple[int, ...], std: float) -> np.ndarray:
    """N(0, std²), float32."""
    return (normal(next_key("init"), shape) * std).astype(np.float32)


def xavier_uniform(shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Uniform with variance 2 / (fan_in + fan_out): keeps the variance of signals and adjoints through tanh layers."""
    return uniform_(shape, gain * math.sqrt(6.0 / sum(fans(shape))))


def xavier_normal(shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """N(0, 2 / (fan_in + fan_out))."""
    return normal_(shape, gain * math.sqrt(2.0 / sum(fans(shape))))


def he_uniform(shape: tuple[int, ...]) -> np.ndarray:
    """Uniform with variance 2 / fan_in: keeps the variance through ReLU layers."""
    return uniform_(shape, math.sqrt(6.0 / fans(shape)[0]))


def he_normal(shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 2 / fan_in)."""
    return normal_(shape, math.sqrt(2.0 / fans(shape)[0]))


def lecun_uniform(shape: tuple[int, ...]) -> np.ndarray:
    """Uniform with variance 1 / fan_in."""
    return uniform_(shape, math.sqrt(3.0 / fans(shape)[0]))


def lecun_normal(shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1 / fan_in)."""
    return normal_(shape, math.sqrt(1.0 / fans(shape)[0]))


def orthogonal(shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Orthonormal rows (or columns, where there are fewer of them) of the weight seen as (out, in·KH·KW)."""
    rows, cols = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(normal(next_key("init"), (max(rows, cols), min(rows, cols))))
    q = q * np.sign(np.diag(r))
    return (gain * (q if rows >= cols else q.T)).reshape(shape).astype(np.float32)


def default_weight(shape: tuple[int, ...]) -> np.ndarray:
    """PyTorch's default for Linear and Conv: uniform in ±1/√fan_in."""
    return uniform_(shape, 1.0 / math.sqrt(fans(shape)[0]))


def default_bias(weight_shape: tuple[int, ...], size: int) -> np.ndarray:
    """PyTorch's default: uniform in ±1/√fan_in of the weight."""
    return uniform_((size,), 1.0 / math.sqrt(fans(weight_shape)[0]))
