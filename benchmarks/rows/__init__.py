"""What is timed: a row per operation and pass, family by family, and whole training steps."""

from __future__ import annotations

from benchmarks.rows import activation, conv, linear, loss, norm, optim, pool, recurrent, steps
from benchmarks.rows.row import Row

FAMILIES = (linear, conv, pool, norm, activation, loss, recurrent, optim)


def primitives(batch: int | None = None) -> list[Row]:
    """All rows but the training steps. ``batch``: at most so many images, where a test wants the same rows in less time."""
    return [row for family in FAMILIES for row in family.rows(batch)]


def all_rows() -> list[Row]:
    return primitives() + steps.rows()
