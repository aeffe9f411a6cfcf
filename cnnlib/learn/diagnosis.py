"""What is wrong, from the numbers alone: one rule per kind of mistake, tried in order; the first that fits exactly speaks.

A rule gets the Evidence about one output of a function (what was expected and what came, in every case) and returns a sentence
or None. The exercise's own explanations come before these rules (checker.py).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cnnlib.learn.closeness import as_array, close, same
from cnnlib.learn.derivative import numericals
from cnnlib.learn.exercise import Case, Exercise, reference
from cnnlib.learn.wire import Other

# Keys that a mutant may name in ``says``, with what they are. Those before "shape" come from the checker.
KEYS = {
    "raised": "an exception",
    "none": "returned None: not written yet",
    "count": "another number of outputs",
    "swapped": "equal to another output",
    "transpose": "equal to the transpose",
    "permuted": "equal with the axes in another order",
    "shape": "wrong shape",
    "type": "not numbers",
    "dtype": "float32 or integers",
    "nan": "NaN or infinity",
    "mutated": "wrote to an argument",
    "sign": "equal with the opposite sign",
    "factor": "equal times a number, a size or an argument",
    "flipped": "equal when turned around along an axis",
    "upstream": "equal to the result for an upstream gradient of ones",
    "constant": "equal plus a constant",
    "term": "equal plus or minus an argument or another output",
    "precision": "right to single precision only",
    "feature": "right except in cases with one feature",
    "edge": "right except at one end of an axis",
    "step": "a named intermediate is the first that is wrong",
    "value": "the largest difference",
}


@dataclass
class Evidence:
    """One output in all cases of its function: what was expected, what came."""

    exercise: Exercise
    function: str
    output: str
    cases: list[Case]
    expected: list[Any]
    got: list[Any]
    others: dict[str, list[Any]]  # what was expected of the other outputs
    mutated: tuple[str, ...] = ()  # names of arguments that were written to

    @cached_property
    def e(self) -> list[np.ndarray]:
        return [np.asarray(as_array(v)) for v in self.expected]

    @cached_property
    def g(self) -> list[np.ndarray]:
        return [np.asarray(as_array(v)) for v in self.got]

    @cached_property
    def right(self) -> list[bool]:
        return [same(e, g, self.exercise.tolerance) for e, g in zip(self.expected, self.got)]

    @property
    def numeric(self) -> bool:
        return all(as_array(v) is not None for v in (*self.expected, *self.got))

    @property
    def aligned(self) -> bool:
        """Arrays of the right shapes in all cases: what the rules about values need."""
        return self.numeric and all(e.shape == g.shape for e, g in zip(self.e, self.g))

    def only_failing(self) -> Evidence:
        keep = [i for i, ok in enumerate(self.right) if not ok]
        return replace(
            self,
            cases=[self.cases[i] for i in keep],
            expected=[self.expected[i] for i in keep],
            got=[self.got[i] for i in keep],
            others={n: [v[i] for i in keep] for n, v in self.others.items()},
        )

    def fits(self, change: Callable[[int, np.ndarray], Any]) -> bool:
        """Whether ``change(i, expected)`` is what came in every case, and is not simply the right answer."""
        made = []
        for i, e in enumerate(self.e):
            made.append(change(i, e))
            if made[-1] is None or not same(made[-1], self.g[i], self.exercise.tolerance):
                return False
        return not all(same(e, m, self.exercise.tolerance) for e, m in zip(self.e, made))

    @cached_property
    def parameters(self) -> list[str]:
        names = list(inspect.signature(reference(self.exercise)[self.function]).parameters)
        longest = max(len(c.args) for c in self.cases)
        return names + [f"argument {i}" for i in range(len(names), longest)]

    def arguments(self) -> Iterator[tuple[str, list[Any]]]:
        """(name, its value in every case), for arguments that every case has."""
        for i in range(min(len(c.args) for c in self.cases)):
            yield self.parameters[i], [c.args[i] for c in self.cases]


def diagnose(evidence: Evidence) -> tuple[str, str]:
    """(key, sentence) of the first rule that fits; else of one that fits the failing cases; else the largest difference."""
    for key, rule in RULES.items():
        if sentence := rule(evidence):
            return key, sentence
    only = _feature(evidence)
    if any(evidence.right):
        failing = evidence.only_failing()
        where = only[:-1] if only else f"{sum(evidence.right)} of {len(evidence.right)} cases are right"
        for key, rule in RULES.items():
            if sentence := rule(failing):
                return key, f"{where}; in the others {sentence}"
    return ("feature", only) if only else ("value", _value(evidence))


# ---- rules about form


def _none(ev: Evidence) -> str | None:
    if any(g is None and e is not None for e, g in zip(ev.expected, ev.got)):
        return f"your {ev.output} is None: it is not computed yet."
    return None


def _swapped(ev: Evidence) -> str | None:
    for name, values in ev.others.items():
        if not ev.numeric or any(as_array(v) is None for v in values):
            continue
        if ev.fits(lambda i, e, values=values: values[i]):  # type: ignore[misc]
            return f"your {ev.output} is what {name} should be: the outputs are in the wrong order, or the formula is {name}'s."
    return None


def _transpose(ev: Evidence) -> str | None:
    if ev.numeric and all(e.ndim == 2 for e in ev.e) and ev.fits(lambda i, e: e.T):
        return f"your {ev.output} is the transpose of the right one: swap the two factors, or transpose the result."
    return None


def _permuted(ev: Evidence) -> str | None:
    if not ev.numeric or len({e.ndim for e in ev.e}) != 1 or not 3 <= ev.e[0].ndim <= 6:
        return None
    for axes in itertools.permutations(range(ev.e[0].ndim)):
        if ev.fits(lambda i, e, axes=axes: e.transpose(axes)):  # type: ignore[misc]
            back = tuple(int(a) for a in np.argsort(axes))
            return f"your {ev.output} has its axes in another order: {ev.output}.transpose{back} is the right one."
    return None


def _shape(ev: Evidence) -> str | None:
    if not ev.numeric:
        return None
    wrong = [i for i, (e, g) in enumerate(zip(ev.e, ev.g)) if e.shape != g.shape]
    if not wrong:
        return None
    i = wrong[0]
    e, g = ev.e[i], ev.g[i]
    but = f"your {ev.output} must have shape {e.shape}, got {g.shape}"
    if g.ndim > 8:
        return but + "."
    for count in range(1, g.ndim + 1):
        for axes in itertools.combinations(range(g.ndim), count):
            if g.sum(axis=axes).shape == e.shape and same(e, g.sum(axis=axes), ev.exercise.tolerance):
                return f"{but}: {_axes(axes)} must be summed over, too."
            if g.sum(axis=axes, keepdims=True).shape == e.shape and same(
                e, g.sum(axis=axes, keepdims=True), ev.exercise.tolerance
            ):
                return f"{but}: {_axes(axes)} must be summed over and stay with length 1."
    for count in range(1, e.ndim + 1):
        for axes in itertools.combinations(range(e.ndim), count):
            if same(e.mean(axis=axes), g, ev.exercise.tolerance):
                return f"{but}: you averaged over {_axes(axes)}, which must stay."
            if same(e.sum(axis=axes), g, ev.exercise.tolerance) or same(
                e.sum(axis=axes, keepdims=True), g, ev.exercise.tolerance
            ):
                return f"{but}: you summed over {_axes(axes)}, which must stay."
    if e.size == g.size and same(e, g.reshape(e.shape), ev.exercise.tolerance):
        return f"{but}: the numbers are right, reshape them."
    return but + "."


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"


def _type(ev: Evidence) -> str | None:
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


def _dtype(ev: Evidence) -> str | None:
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


def _nan(ev: Evidence) -> str | None:
    if not ev.aligned:
        return None
    for e, g in zip(ev.e, ev.g):
        if g.dtype.kind == "f" and not np.isfinite(g[np.isfinite(e)]).all():
            count = int((~np.isfinite(g) & np.isfinite(e)).sum())
            kind = "NaN" if np.isnan(g[np.isfinite(e)]).any() else "infinite"
            return (
                f"your {ev.output} is {kind} in {count} of {g.size} elements: a division by zero, an overflow, or the log of 0."
            )
    return None


def _mutated(ev: Evidence) -> str | None:
    if ev.mutated:
        return f"your function writes to its argument {ev.mutated[0]}: the caller still needs it, work on a copy."
    return None


# ---- rules about values


def _sign(ev: Evidence) -> str | None:
    if ev.aligned and ev.fits(lambda i, e: -1.0 * e):
        return f"your {ev.output} has the opposite sign everywhere."
    return None


def _factor(ev: Evidence) -> str | None:
    if not ev.aligned:
        return None
    ratios = [_ratio(e, g) for e, g in zip(ev.e, ev.g)]
    known = [r for r in ratios if r is not None]
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


def _flipped(ev: Evidence) -> str | None:
    if not ev.aligned or len({e.ndim for e in ev.e}) != 1:
        return None
    for count in range(1, ev.e[0].ndim + 1):
        for axes in itertools.combinations(range(ev.e[0].ndim), count):
            if ev.fits(lambda i, e, axes=axes: np.flip(e, axes)):  # type: ignore[misc]
                return f"your {ev.output} is turned around along {_axes(axes)}: its first element is the right one's last."
    return None


def _upstream(ev: Evidence) -> str | None:
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


def _constant(ev: Evidence) -> str | None:
    if not ev.aligned or any(e.dtype.kind == "b" for e in ev.e):
        return None
    gaps = [float(np.mean(g.astype(np.float64) - e)) for e, g in zip(ev.e, ev.g) if e.size]
    if len(gaps) == len(ev.e) and any(e.size > 1 for e in ev.e) and ev.fits(lambda i, e: e + gaps[i]):
        if all(math.isclose(c, gaps[0], rel_tol=1e-6) for c in gaps):
            return f"your {ev.output} is the right one plus {gaps[0]:.6g} everywhere."
        return f"your {ev.output} is off by one constant per case (here {gaps[0]:.6g}): a term that is a single number."
    return None


def _term(ev: Evidence) -> str | None:
    if not ev.aligned:
        return None
    for name, values in itertools.chain(ev.arguments(), ev.others.items()):
        arrays = [as_array(v) for v in values]
        if any(a is None or a.shape != e.shape for a, e in zip(arrays, ev.e)):
            continue
        for sign, word in ((1.0, "too much"), (-1.0, "missing")):
            if ev.fits(lambda i, e, s=sign, a=arrays: e + s * a[i]):  # type: ignore[misc]
                return f"your {ev.output} is the right one {'plus' if sign > 0 else 'minus'} {name}: this term is {word}."
        if ev.fits(lambda i, e, a=arrays: a[i]):  # type: ignore[misc]
            return f"your {ev.output} is just {name}."
    return None


def _precision(ev: Evidence) -> str | None:
    if not ev.aligned or any(e.dtype.kind not in "f" for e in ev.e):
        return None
    with np.errstate(all="ignore"):
        worst = max(
            float((np.abs(g - e) / np.abs(e).max()).max()) if e.size and np.abs(e).max() else 0.0 for e, g in zip(ev.e, ev.g)
        )
    if worst < 1e-5:
        why = "a float32 array, a rounded constant, or an eps?"
        return f"your {ev.output} is right to {worst:.0e} only, not to double precision: {why}"
    return None


def _feature(ev: Evidence) -> str | None:
    """Right in some cases: what do exactly the failing ones have in common?"""
    failing = [set(c.features) for c, ok in zip(ev.cases, ev.right) if not ok]
    passing = [set(c.features) for c, ok in zip(ev.cases, ev.right) if ok]
    return only_with(f"your {ev.output} is right", failing, passing)


def only_with(subject: str, failing: list[set[str]], passing: list[set[str]]) -> str | None:
    """ "your dx is right except in the cases with stride": a feature of all the failing and of none of the passing cases."""
    if not passing or not failing:
        return None
    common = set.intersection(*failing) - set().union(*passing)
    if common:
        return f"{subject} except in the case{'s' * (len(failing) > 1)} with {' and '.join(sorted(common))}."
    always = set.intersection(*passing) - set().union(*failing)
    if always:
        return f"{subject} only in the case{'s' * (len(passing) > 1)} with {' and '.join(sorted(always))}."
    return None


def _edge(ev: Evidence) -> str | None:
    """Wrong at one end of an axis only: a window or a loop that starts or stops one too early."""
    if not ev.aligned or len({e.ndim for e in ev.e}) != 1:
        return None
    wrong = [~close(e, g, ev.exercise.tolerance) for e, g in zip(ev.e, ev.g)]
    for axis in range(ev.e[0].ndim):
        for end, name in ((0, "first"), (-1, "last")):
            long = [w for w in wrong if w.any()]
            if all(w.shape[axis] > 1 and not np.delete(w, end, axis).any() for w in long):
                return (
                    f"your {ev.output} is right except at the {name} index of axis {axis}: where does the loop start and stop?"
                )
    return None


def _value(ev: Evidence) -> str:
    if not ev.numeric:
        return f"your {ev.output} differs from the right one."
    return f"your {ev.output} is wrong in {sum(not r for r in ev.right)} of {len(ev.right)} cases."


RULES: dict[str, Callable[[Evidence], str | None]] = {
    "none": _none,
    "swapped": _swapped,
    "transpose": _transpose,
    "permuted": _permuted,
    "shape": _shape,
    "type": _type,
    "dtype": _dtype,
    "nan": _nan,
    "mutated": _mutated,
    "sign": _sign,
    "factor": _factor,
    "flipped": _flipped,
    "upstream": _upstream,
    "constant": _constant,
    "term": _term,
    "precision": _precision,
    "edge": _edge,
}
