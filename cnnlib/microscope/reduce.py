"""Sums, means and extremes over axes; backwards, every element that was summed gets dy, or its share of it."""

from __future__ import annotations

import math

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import LETTERS, Anatomy, Ran, explains
from cnnlib.microscope.rules import LARGEST, arrays, places, rule, total

x, dy, winners = arrays("x dy winners")


@explains(ops.Sum, ops.Mean, ops.Max)
def over_axes(ran: Ran) -> Anatomy:
    shape, axes = ran.a["x"].shape, ran.saved.get("axes", ())
    if ran.op is ops.Max and "axes" not in ran.saved:
        return Anatomy({}, note="max: without a gradient it keeps nothing.")
    names = LETTERS[: len(shape)]
    kept = [n for i, n in enumerate(names) if i not in axes]
    with_ones = ran.y[0].ndim == len(shape)
    own = names if with_ones else kept
    if with_ones:  # an axis of 1 remains: its place is 0, the variable that runs needs another name
        running = {i: f"{names[i]}'" for i in axes}
    else:
        running = {i: names[i] for i in axes}
    inside = tuple(places(running.get(i, n))[0] for i, n in enumerate(names))
    over = {running[i]: shape[i] for i in axes}
    here = tuple(places(" ".join(names))) if names else ()
    to_y = tuple(0 if i in axes else p for i, p in enumerate(here) if with_ones or i not in axes)
    letters = {"x": " ".join(names), "y": " ".join(own)}
    if ran.op is ops.Max:
        return Anatomy(
            {"y": rule(total(x[inside], **over)).by(LARGEST), "dx": rule(dy[to_y] * winners[here])},
            axes={**letters, "winners": " ".join(names)},
            inner={"winners": np.broadcast_to(ran.saved["winners"], shape)},
            says={"winners": "1, or equal shares of a tie"},
        )
    share = 1.0 if ran.op is ops.Sum else 1 / math.prod(shape[i] for i in axes)
    return Anatomy({"y": rule(total(x[inside] * share, **over)), "dx": rule(dy[to_y] * share)}, axes=letters)
