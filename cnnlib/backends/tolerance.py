"""One tolerance for tests, shadow and compare: how far a kernel's result may lie from the float64 textbook.

Adding K products, each addition rounds the partial sum it makes. With terms of random signs the partial sums stay small and
the errors add up to about eps · (|x| ⋆ |w|); with terms of one sign they grow to the result, and the errors to about
eps · √K · |y|. Both together, c for what the order of summation changes:

    |y − y₆₄| ≤ c · eps · (|x| ⋆ |w| + √K · |y₆₄|),

where ⋆ is the kernel itself, applied to absolute values, and K counts the terms: the kernel applied to ones. For the
other kernels the size of the terms is taken as the largest |y₆₄|. c belongs to the algorithm.

A recurrent kernel adds K products at each of T steps, and for the weights' adjoints over T·B rows: c · eps · √(K + T·B) times
the largest term. What is handed on may grow from step to step, with large weights without limit: c · √K times what the
textbook's own result moves by when every argument grows by eps is allowed, too.

Winograd's convolution forms sums and differences of a whole tile before it multiplies, so an output's error comes from
everything that its tile meets: each tap of w counts as the largest of its 3×3, and (|x| ⋆ |w|) as the largest within reach
of a tile. A larger kernel is filled up to multiples of three with zeros, which meet what they multiply, too. With stride 2 the
pixels of a tile of dx are two apart. Where the size is not finite the result may be anything, as long as no NaN or infinity
gets lost.

Source: Higham, "Accuracy and Stability of Numerical Algorithms", 2002, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib.backends import cpu

CONSTANT = {"direct": 16.0, "winograd": 16.0}

# Kernels that are sums of products of their array arguments.
BILINEAR = frozenset(
    "gemm linear_forward linear_backward_input linear_backward_weight linear_backward_bias "
    "conv2d_forward conv2d_backward_input conv2d_backward_weight conv2d_backward_bias "
    "max_pool2d_backward avg_pool2d_forward avg_pool2d_backward embedding_backward".split()
)

# Kernels with a Winograd algorithm, and how far apart two outputs of one tile are.
TILED = {"conv2d_forward": 3, "conv2d_backward_input": 3, "conv2d_backward_weight": 2}
LEAST_CHANNELS = 16  # with fewer, csrc/winograd.c never pays
SIDES, STRIDED_SIDES = range(3, 13), range(3, 5)  # of its kernels; with stride 2

# Differences of terms as large as dy, their first argument: the result may be much smaller than what was rounded.
CANCELLING = frozenset(["softmax_backward", "log_softmax_backward"])

RECURRENT = frozenset(f"{cell}_{way}" for cell in ("rnn", "lstm", "gru") for way in ("forward", "backward"))


def in_float64(value: Any) -> Any:
    """Float arrays as float64 copies, everything else unchanged."""
    return value.astype(np.float64) if _is_float(value) else value


def algorithm_of(name: str, arguments: tuple, dtype: Any) -> str:
    """What the compiled kernels may compute with: "winograd" or "direct"."""
    if name not in TILED or dtype != np.float32 or cpu.get_precision() == "exact":
        return "direct"
    w_shape, dilation, groups = _w_shape(name, arguments), arguments[5], arguments[6]
    sides = {(1, 1): SIDES, (2, 2): () if name == "conv2d_backward_weight" else STRIDED_SIDES}.get(tuple(arguments[3]), ())
    fits = all(side in sides for side in w_shape[2:]) and tuple(dilation) == (1, 1)
    return "winograd" if fits and min(w_shape[0] // groups, w_shape[1]) >= LEAST_CHANNELS else "direct"


def bound(name: str, reference: Callable, arguments: tuple, y64: Any, dtype: Any, algorithm: str | None = None) -> Any:
    """The largest |y − y₆₄| that rounding explains, an array that broadcasts against ``y64``; 0 for integer results.

    Infinite where only being finite or not is compared. ``algorithm``: by default what :func:`algorithm_of` says.
    """
    if y64.dtype.kind != "f":
        return 0.0
    algorithm = algorithm or algorithm_of(name, arguments, dtype)
    unit = CONSTANT[algorithm] * float(np.finfo(dtype).eps)
    if name in BILINEAR:
        sizes = tuple(abs(in_float64(a)) if _is_float(a) else a for a in arguments)
        terms = reference(*(a * 0.0 + 1.0 if _is_float(a) else a for a in sizes))
        root_k = float(max(1.0, terms.max(initial=1.0))) ** 0.5
        if algorithm == "winograd":
            reach, beyond = _reach(name, arguments)
            magnitude = _of_tiles(name, reference, sizes, reach, beyond)
            y64 = _within_reach(abs(y64), reach)
        else:
            magnitude = reference(*sizes)
        allowed = unit * (magnitude + root_k * abs(y64)) + _tiny(dtype)
        return np.where(np.isfinite(allowed), allowed, np.inf if algorithm == "winograd" else 0.0)
    largest, grown = _largest(y64), 0.0
    if name in RECURRENT:  # what backward adds up over all rows may cancel, too
        T, B, K = arguments[0].shape
        unit *= (K + T * B) ** 0.5
        grown = CONSTANT[algorithm] * K**0.5 * _change(reference, arguments, y64, float(np.finfo(dtype).eps))
    if name in CANCELLING | RECURRENT:
        largest = max(largest, _largest(arguments[0]))
    return unit * largest + grown + _tiny(dtype)


def _change(reference: Callable, arguments: tuple, y64: Any, eps: float) -> float:
    """How far the result that is y64 moves when the arguments grow by eps: of several of its shape, the nearest is it."""
    results = reference(*(in_float64(a) * (1 + eps) if _is_float(a) else a for a in arguments))
    results = results if isinstance(results, tuple) else (results,)
    return min(_largest(abs(y - y64)) for y in results if y is not None and y.shape == y64.shape)


def _w_shape(name: str, arguments: tuple) -> tuple[int, ...]:
    return arguments[2] if name == "conv2d_backward_weight" else arguments[1].shape


def _reach(name: str, arguments: tuple) -> tuple[int, int]:
    """How far apart two outputs of a tile are, and with how many zeros the kernel is filled up."""
    if tuple(arguments[3]) == (2, 2):
        return TILED[name] * (2 if name == "conv2d_backward_input" else 1), 0
    beyond = max(-side % 3 for side in _w_shape(name, arguments)[2:])
    return TILED[name] + beyond, beyond


def _of_tiles(name: str, reference: Callable, sizes: tuple, reach: int, beyond: int) -> Any:
    """(|x| ⋆ |w|) of all that meets in a tile."""
    first, second, *others = sizes
    if name == "conv2d_backward_weight":
        first = _within_reach(first, 3 + beyond)  # dy and x of a tile meet although no tap joins them
    else:
        second = _within_reach(second, 2)
    return _within_reach(reference(first, second, *others), reach)


def _within_reach(a: Any, reach: int) -> Any:
    """The largest element at most ``reach`` rows and columns away."""
    for axis in (-2, -1):
        lines, largest = np.moveaxis(a, axis, 0), a.copy()
        moved = np.moveaxis(largest, axis, 0)
        for step in range(1, min(reach, len(lines) - 1) + 1):
            np.maximum(moved[step:], lines[:-step], out=moved[step:])
            np.maximum(moved[:-step], lines[step:], out=moved[:-step])
        a = largest
    return a


def first_difference(y: Any, y64: Any, allowed: Any) -> tuple[tuple[int, ...], float] | None:
    """Index and relative size of the worst violation of ``allowed``, or None.

    NaN and infinity must agree exactly; where infinitely much is allowed, what is not finite must only stay so. Another
    shape than expected is a violation without an index.
    """
    if y.shape != y64.shape:
        return (), float("inf")
    wrong = np.isnan(y64) != np.isnan(y) if y64.dtype.kind == "f" else y != y64
    with np.errstate(invalid="ignore"):
        difference = abs(y.astype(np.float64) - y64)
        excess = np.where(
            wrong, np.inf, np.where((y == y64) | np.isnan(difference), 0.0, difference / np.maximum(allowed, 1e-300))
        )
    lost = np.isfinite(y) & ~np.isfinite(y64)
    excess = np.where(np.isinf(allowed), np.where(lost, np.inf, 0.0), excess)
    if not excess.size or excess.max() <= 1.0:
        return None
    index = np.unravel_index(int(excess.argmax()), excess.shape)
    scale = float(abs(y64).max(initial=0.0)) or 1.0
    return tuple(int(i) for i in index), float(difference[index]) / scale


def _largest(a: Any) -> float:
    return float(abs(a).max(initial=0.0, where=np.isfinite(a)))


def _is_float(value: Any) -> bool:
    return getattr(value, "dtype", None) is not None and value.dtype.kind == "f"


def _tiny(dtype: Any) -> float:
    return float(np.finfo(dtype).tiny)
