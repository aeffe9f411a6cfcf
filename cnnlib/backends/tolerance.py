"""One tolerance for tests, shadow and compare: how far a kernel's result may lie from the float64 textbook.

Adding K products, each addition rounds the partial sum it makes. With terms of random signs the partial sums stay small and
the errors add up to about eps · (|x| ⋆ |w|); with terms of one sign they grow to the result, and the errors to about
eps · √K · |y|. Both together, c for what the order of summation changes:

    |y − y₆₄| ≤ c · eps · (|x| ⋆ |w| + √K · |y₆₄|),

where ⋆ is the kernel itself, applied to absolute values, and K counts the terms: the kernel applied to ones. For the
other kernels the size of the terms is taken as the largest |y₆₄|. c belongs to the algorithm.

Source: Higham, "Accuracy and Stability of Numerical Algorithms", 2002, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

CONSTANT = {"direct": 16.0, "winograd": 160.0}

# Kernels that are sums of products of their array arguments.
BILINEAR = frozenset(
    "gemm linear_forward linear_backward_input linear_backward_weight linear_backward_bias "
    "conv2d_forward conv2d_backward_input conv2d_backward_weight conv2d_backward_bias "
    "max_pool2d_backward avg_pool2d_forward avg_pool2d_backward embedding_backward".split()
)


# Differences of terms as large as dy, their first argument: the result may be much smaller than what was rounded.
CANCELLING = frozenset(["softmax_backward", "log_softmax_backward"])


def in_float64(value: Any) -> Any:
    """Float arrays as float64 copies, everything else unchanged."""
    return value.astype(np.float64) if _is_float(value) else value


def bound(name: str, reference: Callable, arguments: tuple, y64: Any, dtype: Any, algorithm: str = "direct") -> Any:
    """The largest |y − y₆₄| that rounding explains, an array that broadcasts against ``y64``; 0 for integer results."""
    if y64.dtype.kind != "f":
        return 0.0
    unit = CONSTANT[algorithm] * float(np.finfo(dtype).eps)
    if name in BILINEAR:
        magnitude = reference(*(abs(in_float64(a)) if _is_float(a) else a for a in arguments))
        terms = reference(*(in_float64(a) * 0.0 + 1.0 if _is_float(a) else a for a in arguments))
        root_k = float(max(1.0, terms.max(initial=1.0))) ** 0.5
        return unit * (magnitude + root_k * abs(y64)) + _tiny(dtype)
    largest = _largest(y64)
    if name in CANCELLING:
        largest = max(largest, _largest(arguments[0]))
    return unit * largest + _tiny(dtype)


def first_difference(y: Any, y64: Any, allowed: Any) -> tuple[tuple[int, ...], float] | None:
    """Index and relative size of the worst violation of ``allowed``, or None. NaN and infinity must agree exactly.

    Another shape than expected is a violation without an index.
    """
    if y.shape != y64.shape:
        return (), float("inf")
    wrong = np.isnan(y64) != np.isnan(y) if y64.dtype.kind == "f" else y != y64
    with np.errstate(invalid="ignore"):
        difference = abs(y.astype(np.float64) - y64)
        excess = np.where(
            wrong, np.inf, np.where((y == y64) | np.isnan(difference), 0.0, difference / np.maximum(allowed, 1e-300))
        )
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
