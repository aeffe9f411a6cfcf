"""When two values are the same: element by element, within a relative error, whatever containers they came in."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOOR = 1e-13  # rounding errors where the right value is zero


def as_array(value: Any) -> np.ndarray | None:
    """Numbers, arrays and nested lists of them as an array; None for anything else (strings, ragged lists, dicts)."""
    if value is None or isinstance(value, str | dict):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "biufc" else None


def close(expected: np.ndarray, got: np.ndarray, tolerance: float) -> np.ndarray:
    """Where two arrays of one shape agree: floats within ``tolerance`` of the element, or 1 % of it of the largest element."""
    if expected.dtype.kind not in "fc":
        return np.asarray(expected == got)
    with np.errstate(all="ignore"):
        finite = np.isfinite(expected)
        largest = float(np.abs(expected[finite]).max(initial=0.0))
        allowed = tolerance * np.abs(expected) + tolerance * 0.01 * largest + FLOOR
        near = np.abs(expected - got) <= allowed
        return np.where(finite, near, (expected == got) | (np.isnan(expected) & np.isnan(got)))


def same(expected: Any, got: Any, tolerance: float) -> bool:
    """Whether ``got`` is ``expected``: shapes equal, floats close, whole numbers equal; containers of arrays part by part."""
    e, g = as_array(expected), as_array(got)
    if e is not None:
        if g is None or e.shape != g.shape:
            return False
        return bool(close(e, g, tolerance).all())
    if isinstance(expected, dict):
        return (
            isinstance(got, dict) and set(expected) == set(got) and all(same(expected[k], got[k], tolerance) for k in expected)
        )
    if isinstance(expected, list | tuple):
        parts = got if isinstance(got, list | tuple) else list(got) if isinstance(got, np.ndarray) and got.ndim else []
        return len(parts) == len(expected) and all(same(e, p, tolerance) for e, p in zip(expected, parts))
    return type(expected) is type(got) and bool(expected == got)
