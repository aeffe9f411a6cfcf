"""Rows of the operation-case table, one file per family; ``tests/op_cases.py`` joins them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


class Draw:
    """Inputs of a case: a random generator with the few distributions that cases need. Floats are float64."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape)

    def positive(self, *shape: int) -> np.ndarray:
        return self.rng.uniform(0.5, 2.0, shape)

    def away_from_zero(self, *shape: int) -> np.ndarray:
        """Magnitudes in 0.2 … 2, random signs: no kink at 0 within reach of a finite difference."""
        return self.rng.uniform(0.2, 2.0, shape) * self.rng.choice([-1.0, 1.0], shape)

    def distinct(self, *shape: int) -> np.ndarray:
        """A shuffled ladder with steps of 0.1: no two elements tie within reach of a finite difference."""
        n = int(np.prod(shape))
        return (self.rng.permutation(n) * 0.1 - 0.05 * n).reshape(shape)

    def labels(self, n: int, classes: int) -> np.ndarray:
        return self.rng.integers(0, classes, n)


@dataclasses.dataclass(frozen=True)
class Case:
    """One row: a public function, how to draw its array arguments, and its settings."""

    name: str
    function: Callable[..., Any]
    inputs: Callable[[Draw], tuple[np.ndarray | None, ...]]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    differentiable: tuple[int, ...] | None = None  # positions of the arguments to differentiate; None: every float array

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class ErrorCase:
    """A call that must be refused: the exception type and a text that its message must contain."""

    name: str
    call: Callable[[], Any]
    error: type[Exception]
    message: str

    def __str__(self) -> str:
        return self.name
