"""Rules about the form of an output: which one it is, its shape, its type, and whether it is finite.

A rule returns its sentence when it fits what came in all cases, else None.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from cnnlib.learn.closeness import as_array, same
from cnnlib.learn.evidence import Evidence, axes_named
from cnnlib.learn.wire import Other


def none(ev: Evidence) -> str | None:
    for e, g in zip(ev.expected, ev.got):
        if g is None and e is not None:
            return f"your {ev.output} is None: it is not computed yet, or by a function without a return."
        if isinstance(g, Other) and g.kind == "ellipsis":
            return f"your {ev.output} is still ...: it is not written yet."
    return None


def swapped(ev: Evidence) -> str | None:
    for name, values in ev.others.items():
        if not ev.numeric or any(as_array(v) is None for v in values):
            continue
        if ev.fits(lambda i, e, values=values: values[i]):  # type: ignore[misc]
            return f"your {ev.output} is what {name} should be: the outputs are in the wrong order, or the formula is {name}'s."
    return None


def transpose(ev: Evidence) -> str | None:
    if ev.numeric and all(e.ndim == 2 for e in ev.e) and ev.fits(lambda i, e: e.T):
        return f"your {ev.output} is the transpose of the right one: swap the two factors, or transpose the result."
    return None


def permuted(ev: Evidence) -> str | None:
    if not ev.numeric or len({e.ndim for e in ev.e}) != 1 or not 3 <= ev.e[0].ndim <= 6:
        return None
    for axes in itertools.permutations(range(ev.e[0].ndim)):
        if ev.fits(lambda i, e, axes=axes: e.transpose(axes)):  # type: ignore[misc]
            back = tuple(int(a) for a in np.argsort(axes))
            return f"your {ev.output} has its axes in another order: {ev.output}.transpose{back} is the right one."
    return None


def misshapen(ev: Evidence) -> list[int]:
    """The cases with a wrong shape, the largest first: with N = 1 several mistakes look alike."""
    wrong = [i for i, (e, g) in enumerate(zip(ev.e, ev.g)) if e.shape != g.shape] if ev.numeric else []
    return sorted(wrong, key=lambda i: -ev.g[i].size)


def shape(ev: Evidence) -> str | None:
    if not (wrong := misshapen(ev)):
        return None
    i = wrong[0]
    e, g = ev.e[i], ev.g[i]
    but = f"your {ev.output} must have shape {e.shape}, got {g.shape}"
    if g.ndim > 8:
        return but + "."
    if e.size == g.size and same(e, g.reshape(e.shape), ev.exercise.tolerance):
        return f"{but}: the numbers are right, reshape them."
    for count in range(1, g.ndim + 1):
        for axes in itertools.combinations(range(g.ndim), count):
            if g.sum(axis=axes).shape == e.shape and same(e, g.sum(axis=axes), ev.exercise.tolerance):
                return f"{but}: {axes_named(axes)} must be summed over, too."
            if g.sum(axis=axes, keepdims=True).shape == e.shape and same(
                e, g.sum(axis=axes, keepdims=True), ev.exercise.tolerance
            ):
                return f"{but}: {axes_named(axes)} must be summed over and stay with length 1."
    for count in range(1, e.ndim + 1):
        for axes in itertools.combinations(range(e.ndim), count):
            if same(e.mean(axis=axes), g, ev.exercise.tolerance):
                return f"{but}: you averaged over {axes_named(axes)}, which must stay."
            if same(e.sum(axis=axes), g, ev.exercise.tolerance) or same(
                e.sum(axis=axes, keepdims=True), g, ev.exercise.tolerance
            ):
                return f"{but}: you summed over {axes_named(axes)}, which must stay."
    if e.size and not g.size:
        return f"{but}: it is empty, as a slice a:-0 is; write where it ends, a:a + length."
    if _within(e, g, ev.exercise.tolerance):
        return f"{but}: the right numbers stand within it, cut off what is around them (the padding?)."
    return but + "."


def _within(e: np.ndarray, g: np.ndarray, tolerance: float) -> bool:
    """Whether ``e`` is a block of ``g``."""
    if e.ndim != g.ndim or any(n > m for n, m in zip(e.shape, g.shape)):
        return False
    places = itertools.product(*(range(m - n + 1) for n, m in zip(e.shape, g.shape)))
    return any(same(e, g[tuple(slice(o, o + n) for o, n in zip(place, e.shape))], tolerance) for place in places)


def not_numbers(ev: Evidence) -> str | None:
    for e, g in zip(ev.expected, ev.got):
        if isinstance(g, Other):
            return f"your {ev.output} is of type {g.kind}: return a NumPy array or numbers."
        if as_array(e) is not None and as_array(g) is None:
            return f"your {ev.output} is no array of numbers but {_named(g)}."
        if as_array(e) is None and type(e) is not type(g) and not (isinstance(e, list | tuple) and isinstance(g, list | tuple)):
            return f"your {ev.output} must be {_named(e)}, got {_named(g)}."
    return None


def _named(value: Any) -> str:
    return f"{value[:60]!r}" if isinstance(value, str) else "None" if value is None else f"a {type(value).__name__}"


def dtype(ev: Evidence) -> str | None:
    if not ev.aligned:
        return None
    for e, g in zip(ev.e, ev.g):
        if e.dtype.kind == "f" and (g.dtype.kind == "c" or (g.dtype.kind == "f" and g.dtype.itemsize < e.dtype.itemsize)):
            return f"your {ev.output} is {g.dtype}, the arguments are {e.dtype}: keep their type, do not convert."
        if (
            e.dtype.kind == "f"
            and g.dtype.kind in "iu"
            and same(np.trunc(e), g, ev.exercise.tolerance)
            and not same(e, g, 1e-7)
        ):
            return f"your {ev.output} is {g.dtype}, so everything after the decimal point got lost: make a float array."
    return None


def not_finite(ev: Evidence) -> list[int]:
    """The cases with NaN or infinity where a number should be."""
    pairs = enumerate(zip(ev.e, ev.g)) if ev.aligned else ()
    return [i for i, (e, g) in pairs if g.dtype.kind == "f" and not np.isfinite(g[np.isfinite(e)]).all()]


def nan(ev: Evidence) -> str | None:
    if not (wrong := not_finite(ev)):
        return None
    e, g = ev.e[wrong[0]], ev.g[wrong[0]]
    count = int((~np.isfinite(g) & np.isfinite(e)).sum())
    kind = "NaN" if np.isnan(g[np.isfinite(e)]).any() else "infinite"
    return (
        f"your {ev.output} is {kind} in {count} of {g.size} elements: a division by zero, an "
        "overflow, the log of 0, or memory that was never filled?"
    )


def mutated(ev: Evidence) -> str | None:
    if ev.mutated:
        return f"your function writes to its argument {ev.mutated[0]}: the caller still needs it, work on a copy."
    return None
