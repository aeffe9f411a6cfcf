"""The first wrong step: a learner may return a dict of named intermediates after the outputs.

For exercises with ``intermediates``, the dict is compared step by step in the order of computation. Steps before the first
wrong one are right, so that is where to look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlib.learn.closeness import as_array, same
from cnnlib.learn.exercise import Case, Exercise


@dataclass(frozen=True)
class Step:
    """The first intermediate that is wrong: its name, and the sentence about it."""

    name: str
    sentence: str


def first_wrong_step(exercise: Exercise, cases: list[Case], steps: list[dict[str, Any] | None]) -> Step | None:
    """Compare the dicts that came in each case (None where none came); None when nothing named is wrong."""
    if exercise.intermediates is None or all(s is None for s in steps):
        return None
    with np.errstate(all="ignore"):
        expected = [dict(exercise.intermediates.compute(*c.args)) for c in cases]
    if exercise.intermediates.back_in_time and (step := _first_back_in_time(exercise, expected, steps)):
        return step
    right: list[str] = []
    for name in expected[0]:
        pairs = [(e[name], s[name]) for e, s in zip(expected, steps) if s is not None and name in s]
        if not pairs:
            continue
        if wrong := [p for p in pairs if not same(*p, exercise.tolerance)]:
            return Step(name, _sentence(exercise, name, right, *wrong[0]))
        right.append(name)
    return None


def _first_back_in_time(exercise: Exercise, expected: list[dict], steps: list[dict[str, Any] | None]) -> Step | None:
    """The same where each array (T, …) is computed from its last step of time to its first: what is wrong at the last step is
    the mistake, what is wrong before may follow from it."""
    assert exercise.intermediates is not None
    for e, s in ((e, s) for e, s in zip(expected, steps) if s is not None):
        names = [name for name in e if name in s and np.shape(s[name]) == np.shape(e[name])]
        for t in reversed(range(len(next(iter(e.values()))))):
            for k, name in enumerate(names):
                if not same(e[name][t], s[name][t], exercise.tolerance):
                    sentence = _sentence(exercise, name, names[:k], e[name][t], s[name][t], f" at t = {t}")
                    return Step(name, sentence)
    return None


def _sentence(exercise: Exercise, name: str, right: list[str], expected: Any, got: Any, when: str = "") -> str:
    formula = exercise.intermediates.formulas.get(name, "") if exercise.intermediates else ""
    before = f"{', '.join(right)} {'is' if len(right) == 1 else 'are'} right; " if right else ""
    e, g = as_array(expected), as_array(got)
    detail = ""
    if e is not None and g is not None and e.shape != g.shape:
        detail = f" (expected shape {e.shape}, got {g.shape})"
    elif e is not None and g is not None and same(-e, g, exercise.tolerance):
        detail = " (yours has the opposite sign)"
    return f"{before}{name} is the first step that is wrong{when}{detail}{': ' + formula if formula else ''}."
