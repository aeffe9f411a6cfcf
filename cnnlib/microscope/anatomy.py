"""What each family of operations tells about itself: the rules of its arrays, the names of their axes, what it holds inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib.microscope.rules import Rule
from cnnlib.trace import Entry

LETTERS = "i j k l m p q r".split()  # axes without a name


@dataclasses.dataclass
class Anatomy:
    """Of one operation that ran. An adjoint of ``x`` is called ``dx``; its axes are those of x.

    ``axes``: array -> names of its axes, "n c h w"; arrays without are shown as they come. ``rules``: array -> its rule.
    ``inner``: arrays that are neither input nor output, gates for example, by name; their adjoints too.
    ``says``: what stands beside an array's name; ``note``: what is not shown, and why.
    """

    rules: dict[str, Rule]
    axes: dict[str, str] = dataclasses.field(default_factory=dict)
    inner: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    says: dict[str, str] = dataclasses.field(default_factory=dict)
    outputs: tuple[str, ...] = ("y",)
    note: str = ""

    def __post_init__(self) -> None:
        for name, how in self.rules.items():
            if not how.axes:
                self.rules[name] = dataclasses.replace(how, axes=tuple(self.axes_of(name).split()))

    def axes_of(self, name: str) -> str:
        return self.axes.get(name) or self.axes.get(name.removeprefix("d"), "")


class Ran:
    """An operation that ran, with its arrays as NumPy arrays: what a family's function looks at.

    ``a["x"]`` is an input, None where it was left out; ``saved``, ``settings`` as in the trace; ``y``, ``dy``: lists.
    """

    def __init__(self, entry: Entry):
        self.op = entry.op
        self.a = {name: to_numpy(a) for name, a in entry.inputs.items()}
        self.saved = {name: to_numpy(a) for name, a in entry.saved.items()}
        self.settings = entry.settings
        self.y = [to_numpy(y) for y in entry.outputs]
        self.dy = [to_numpy(dy) for dy in entry.dys]

    @property
    def backward_ran(self) -> bool:
        return bool(self.dy)


def to_numpy(a: Any) -> Any:
    return a.get() if hasattr(a, "get") and hasattr(a, "dtype") else a


_FAMILIES: dict[Any, Callable[[Ran], Anatomy]] = {}


def explains(*operations: Any) -> Callable:
    def register(function: Callable[[Ran], Anatomy]) -> Callable[[Ran], Anatomy]:
        _FAMILIES.update(dict.fromkeys(operations, function))
        return function

    return register


def anatomy(entry: Entry) -> Anatomy:
    """The rules of an operation, without those that speak of arrays which are not there: a bias of None, an unused output."""
    family = _FAMILIES.get(entry.op)
    outputs = ("y",) if len(entry.outputs) == 1 else tuple(f"y{i}" for i in range(len(entry.outputs)))
    found = family(Ran(entry)) if family else Anatomy({}, outputs=outputs, note=f"{entry.op.name()}: numbers and formula only.")
    there = {
        *(n for n, a in entry.inputs.items() if a is not None),
        *found.outputs,
        *found.inner,
        *(f"d{n}" for n in entry.grads),
    }
    there |= {f"d{n}" for n, dy in zip(found.outputs, entry.dys, strict=False) if dy is not None}
    rules = {}
    for name, how in found.rules.items():
        if name in there:
            rules[name] = dataclasses.replace(how, sums=tuple(p for p in how.sums if p.arrays <= there))
    return dataclasses.replace(found, rules=rules)


def letters_of(a: np.ndarray) -> str:
    """Names for the axes of an array that has none of its own."""
    return " ".join(LETTERS[: a.ndim])
