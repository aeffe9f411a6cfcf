"""What messages say of NaN and infinity: where in a sequence it began, the step and the gate; and what a user can do."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.errors import NonFiniteError


def blew_up(operation: str, what: str = "scores") -> NonFiniteError:
    """The error of an operation that was asked of a network in which ``what`` is not finite."""
    return NonFiniteError(f"{operation}: the network's {what} are not finite: its training blew up. Use an earlier checkpoint.")


def first_in_sequence(levels, order):
    """``", at step t = 3 of 0 … 19, in the forget gate f: …"``; empty where all is finite.

    ``levels``: {name: (T, B, H)} of what a step computes, one after the other: of two in one level, neither depends on the
    other, so both are named. ``order``: the steps in the order in which they were done.
    """
    spoilt = [{name: ~xp_of(a).isfinite(a) for name, a in level.items()} for level in levels]
    for t in order:
        for level in spoilt:
            if bad := {name: b[t] for name, b in level.items() if bool(b[t].any())}:
                return (
                    f", at step t = {t} of 0 … {len(order) - 1}, in {_several(list(bad))}: {_counted(next(iter(bad.values())))}"
                )
    return ""


def _several(names):
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _counted(bad):
    """bad (B, H) as words."""
    b, unit = (int(axis[0]) for axis in xp_of(bad).nonzero(bad))
    return f"{int(bad.sum())} of {bad.size} values, the first in sequence {b}, unit {unit}"
