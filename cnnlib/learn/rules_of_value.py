"""Rules about the values of an output that has the right form: what would have to be done to the right one to get this one?

A rule returns its sentence when it fits what came in all cases, else None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnlib.learn.closeness import as_array, close
from cnnlib.learn.derivative import numericals
from cnnlib.learn.evidence import Evidence, axes_named
from cnnlib.learn.exercise import reference


def sign(ev: Evidence) -> str | None:
    if ev.aligned and ev.fits(lambda i, e: -1.0 * e):
        return f"your {ev.output} has the opposite sign everywhere."
    return None


def factor(ev: Evidence) -> str | None:
    if not ev.aligned:
        return None
    ratios = [_ratio(e, g) for e, g in zip(ev.e, ev.g)]
    known = [r for r in ratios if r is not None]
    if all(abs(r - 1) < 1e-4 for r in known):
        return None  # an eps
    if len(known) < 2 or not ev.fits(lambda i, e: e if ratios[i] is None else ratios[i] * e):
        return None
    if all(abs(r) <= 1e-12 for r in known):
        return f"your {ev.output} is zero everywhere."
    if all(math.isclose(r, known[0], rel_tol=1e-6) for r in known):
        why = "too much" if abs(known[0]) > 1 else "missing"
        return f"your {ev.output} is the right one times {_number(known[0])}: a constant factor is {why}."
    named = list(_sizes(ev))
    for exactly in (True, False):  # first those that need no other number
        for name, values in named:
            for what, why, power in (("times", "too much", 1), ("divided by", "missing", -1)):
                rest = [r / v**power for r, v in zip(ratios, values) if r is not None and v]
                if len(rest) < len(known) or not all(math.isclose(c, rest[0], rel_tol=1e-6) for c in rest):
                    continue
                if math.isclose(rest[0], 1.0, rel_tol=1e-6):
                    return f"your {ev.output} is the right one {what} {name}: this factor is {why}."
                if not exactly:
                    return f"your {ev.output} is the right one times {_number(rest[0])}, {what} {name}."
    return None


def _number(c: float) -> str:
    """-1/3 rather than -0.333333."""
    whole = round(1 / c) if abs(c) < 1 else 1
    return f"{'-' * (c < 0)}1/{abs(whole)}" if abs(whole) > 1 and math.isclose(c * whole, 1.0, rel_tol=1e-6) else f"{c:.6g}"


def _ratio(e: np.ndarray, g: np.ndarray) -> float | None:
    """The c of g = c e, None where e is zero."""
    e, g = e.astype(np.float64).ravel(), g.astype(np.float64).ravel()
    keep = np.isfinite(e) & np.isfinite(g)
    square = float(e[keep] @ e[keep])
    return float(e[keep] @ g[keep]) / square if square else None


def _sizes(ev: Evidence) -> Iterator[tuple[str, list[float]]]:
    """Numbers that a factor may be, by name: lengths of axes and their products, and numbers among the arguments."""
    for name, values in ev.arguments():
        arrays = [as_array(v) for v in values]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            yield name, [float(v) for v in values]
            yield f"(1 − {name})", [1.0 - v for v in values]
            yield f"{name}²", [float(v) ** 2 for v in values]
        elif all(a is not None for a in arrays):
            shapes = [a.shape for a in arrays if a is not None]
            rank = min(len(s) for s in shapes)
            for count in range(1, rank + 1):
                for axes in itertools.combinations(range(rank), count):
                    of = (
                        f"the length of {name}'s axis {axes[0]}"
                        if count == 1
                        else f"the product of the lengths of {name}'s axes {axes}"
                    )
                    if count == rank > 1:
                        of = f"the number of elements of {name}"
                    yield of, [float(math.prod(s[a] for a in axes)) for s in shapes]
            if all(isinstance(v, tuple) for v in values):
                yield f"the product of {name}", [float(np.prod(a)) for a in arrays]  # type: ignore[arg-type]


def flipped(ev: Evidence) -> str | None:
    if not ev.aligned or len({e.ndim for e in ev.e}) != 1:
        return None
    for count in range(1, ev.e[0].ndim + 1):
        for axes in itertools.combinations(range(ev.e[0].ndim), count):
            if ev.fits(lambda i, e, axes=axes: np.flip(e, axes)):  # type: ignore[misc]
                return f"your {ev.output} is turned around along {axes_named(axes)}: its first element is the right one's last."
    return None


def upstream(ev: Evidence) -> str | None:
    """Equal to the result for dy = 1, for one of the arguments that are upstream gradients or for all of them."""
    positions = _upstream_positions(ev)
    f = reference(ev.exercise)[ev.function]
    index = ev.exercise.outputs_of(ev.function).index(ev.output)
    for chosen in [positions, *((p,) for p in positions)] if positions else []:
        try:
            with np.errstate(all="ignore"):
                ones = [f(*(_ones(a) if i in chosen else a for i, a in enumerate(c.args))) for c in ev.cases]
        except Exception:
            continue
        one = [o if len(ev.exercise.outputs_of(ev.function)) == 1 else o[index] for o in ones]
        if ev.aligned and ev.fits(lambda i, e, one=one: one[i]):  # type: ignore[misc]
            name = ev.parameters[chosen[0]]
            return (
                f"your {ev.output} ignores the upstream gradient {name}: it is right for {name} = 1 only, multiply with {name}."
            )
    return None


def _upstream_positions(ev: Evidence) -> tuple[int, ...]:
    for n in numericals(ev.exercise):
        if (n.function or ev.exercise.function_names[0]) == ev.function and n.upstream is not None:
            ups = n.upstream if isinstance(n.upstream, tuple) else (n.upstream,)
            return tuple(u for u in ups if u is not None)
    return tuple(i for i, p in enumerate(ev.parameters) if p in ("dy", "dl", "dh", "dout", "upstream"))


def _ones(value: Any) -> Any:
    return np.ones_like(value) if isinstance(value, np.ndarray) else 1.0 if isinstance(value, float) else value


def constant(ev: Evidence) -> str | None:
    if not ev.aligned or any(e.dtype.kind == "b" for e in ev.e):
        return None
    gaps = [float(np.mean(g.astype(np.float64) - e)) for e, g in zip(ev.e, ev.g) if e.size]
    told = any(e.size > 1 for e in ev.e) and not any(ev.right)  # a single number is always off by some constant
    if len(gaps) == len(ev.e) and told and ev.fits(lambda i, e: e + gaps[i]):
        if all(math.isclose(c, gaps[0], rel_tol=1e-6) for c in gaps):
            return f"your {ev.output} is the right one plus {gaps[0]:.6g} everywhere."
        return f"your {ev.output} is off by one constant per case (here {gaps[0]:.6g}): a term that is a single number."
    return None


def term(ev: Evidence) -> str | None:
    if not ev.aligned:
        return None
    for name, values in itertools.chain(ev.arguments(), ev.others.items()):
        arrays = [as_array(v) for v in values]
        if any(a is None or a.shape != e.shape for a, e in zip(arrays, ev.e)):
            continue
        bits = all(np.isin(e, (0, 1)).all() for e in ev.e)  # zeros and ones add up by chance
        for sign, word in () if bits else ((1.0, "too much"), (-1.0, "missing")):
            if ev.fits(lambda i, e, s=sign, a=arrays: e + s * a[i]):  # type: ignore[misc]
                return f"your {ev.output} is the right one {'plus' if sign > 0 else 'minus'} {name}: this term is {word}."
        if ev.fits(lambda i, e, a=arrays: a[i]):  # type: ignore[misc]
            return f"your {ev.output} is just {'the argument ' * (name in ev.parameters)}{name}."
    return None


def precision(ev: Evidence) -> str | None:
    if not ev.aligned or any(e.dtype.kind not in "f" for e in ev.e):
        return None
    with np.errstate(all="ignore"):
        worst = max(float((np.abs(g - e) / np.abs(e).max()).max()) for e, g, ok in zip(ev.e, ev.g, ev.right) if not ok)
    if worst < 1e-5:
        why = "a float32 array, a rounded constant, or an eps?"
        return f"your {ev.output} is right to {worst:.0e} only, not to double precision: {why}"
    return None


def edge(ev: Evidence) -> str | None:
    """Wrong at one end of an axis only: a window or a loop that starts or stops one too early."""
    if not ev.aligned or len({e.ndim for e in ev.e}) != 1:
        return None
    wrong = [~close(e, g, ev.exercise.tolerance) for e, g in zip(ev.e, ev.g)]
    for axis in range(ev.e[0].ndim):
        for end, name in ((0, "first"), (-1, "last")):
            long = [w for w in wrong if w.any()]
            if all(w.shape[axis] > 1 and not np.delete(w, end, axis).any() for w in long):
                return (
                    f"your {ev.output} is right except at the {name} index of axis {axis}: does a loop leave it out, or is "
                    "its formula another?"
                )
    return None
