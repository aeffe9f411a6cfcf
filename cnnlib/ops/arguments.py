"""Settings and shapes as users write them, brought to one form or refused with a message."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from cnnlib.backends import on_gpu
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError


def check_whole(op: str, name: str, value: Any, smallest: int = 1) -> None:
    """Refuse what is no whole number of at least ``smallest``: ``Linear: out_features must be a whole number >= 1, got 0.``"""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < smallest:
        raise ValueRangeError(f"{op}: {name} must be a whole number >= {smallest}, got {value!r}.")


def pair(op: str, name: str, value: Any, smallest: int = 1) -> tuple[int, int]:
    """``3`` -> ``(3, 3)``; ``(3, 5)`` stays. Refuses what is not one or two whole numbers of at least ``smallest``."""
    values = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(values) != 2 or not all(isinstance(v, int) and v >= smallest for v in values):
        raise ValueRangeError(f"{op}: {name} must be a whole number >= {smallest} or a pair of them, got {value!r}.")
    return values  # type: ignore[return-value]


def sample_shape(op: str, name: str, value: Any) -> tuple[int, ...]:
    """``64`` -> ``(64,)``; ``(1, 8, 8)`` stays. Refuses what is not one or more whole numbers of at least 1."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if not values or any(not isinstance(v, Integral) or v < 1 for v in values):
        raise ValueRangeError(
            f"{op}: {name} must be a whole number >= 1 or a shape of them, such as (1, 28, 28), got {value!r}."
        )
    return tuple(int(v) for v in values)


def check_sizes(op: str, name: str, value: Any, fewest: int = 0) -> None:
    """Refuse ``hidden=50`` where ``hidden=(50,)`` is meant; each size is checked by the layer that it is of."""
    if not isinstance(value, (tuple, list)) or len(value) < fewest:
        many = f" of at least {fewest} whole number{'s' * (fewest > 1)}" if fewest else " of whole numbers"
        raise ValueRangeError(f"{op}: {name} must be a tuple{many}, such as (400, 200) or (400,), got {value!r}.")


def check_ndim(op: str, name: str, x: Any, ndim: int, layout: str) -> None:
    """Refuse an array of another number of axes: ``conv2d: x must have 4 axes (N, C, H, W), got shape (3, 5).``"""
    if x.ndim != ndim:
        raise ShapeError(f"{op}: {name} must have {ndim} axes {layout}, got shape {x.shape}.")


def check_not_empty(op: str, name: str, x: Any) -> None:
    if x.size == 0:
        raise ShapeError(f"{op}: {name} is empty, shape {x.shape}: an empty batch has no meaning here.")


def check_float(op: str, name: str, x: Any) -> None:
    if x.dtype.kind != "f":
        raise DtypeError(f"{op}: {name} must be float32 or float64, got {x.dtype}. Use {name}.astype('float32').")


def check_integers(op: str, name: str, x: Any) -> None:
    if x.dtype.kind not in "iu":
        raise DtypeError(f"{op}: {name} must be integers, got {x.dtype}. Use {name}.astype('int64').")


def first_wrong(problem: str, wrong: Any) -> tuple[int, ...] | None:
    """The position of the first True of ``wrong``, a boolean array, or None.

    None on a GPU, too, as finding out would make the host wait: ``problem`` is noted in the error word of the device instead
    (cnnlib/backends/cuda/errors.py), and raised where the host waits anyway.
    """
    if on_gpu(wrong):
        from cnnlib.backends.cuda import errors

        errors.note_any(problem, wrong)
        return None
    return tuple(int(i[0]) for i in wrong.nonzero()) if bool(wrong.any()) else None


def check_shape(op: str, name: str, x: Any, shape: tuple[int, ...], why: str) -> None:
    if x.shape != shape:
        raise ShapeError(f"{op}: {name} must have shape {shape}, {why}; got {x.shape}.")
