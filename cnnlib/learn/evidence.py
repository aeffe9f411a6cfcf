"""What the diagnosis looks at: one output of a function in all cases, what was expected and what came."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cnnlib.learn.closeness import as_array, same
from cnnlib.learn.exercise import Case, Exercise, reference


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


def axes_named(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
