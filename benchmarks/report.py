"""What the measured seconds mean: ratios, percent of the machine's limit, geometric means, rows below the floor.

The figures are one dict, as ``benchmarks.cpu --json`` writes it::

    {"date": …, "machine": {…}, "versions": {…}, "command": …,
     "limits": {"1": {"float32": GFLOP/s, "float64": …, "bandwidth": {bytes: GB/s}} or why not, "2": …},
     "rows": [{"name", "family", "dtype", "target", "flops", "bytes",
               "seconds": {"1": {"cnnlib": …, "torch": …, "torch channels_last": …, "torch tuned": …, …}, "2": …},
               "elsewhere": {"1": cores that other processes kept busy meanwhile},
               "memory": {"1": {"cnnlib": bytes, "torch": bytes}}}]}
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import NamedTuple

FLOOR = 0.97
ALONE = 0.05  # of a core: what other processes may use
STEP = "training steps"
OURS = "cnnlib"


class Bound(NamedTuple):
    """The nearer of the two limits of a row: ``rate`` in ``unit``, and the part of the limit that it reaches."""

    rate: float
    unit: str
    part: float


def ratio(row: dict, threads: str, other: str) -> float | None:
    """Seconds of the other / ours: above 1, ours is faster. ``other``: a contender, or "best", PyTorch's fastest way."""
    seconds = row["seconds"].get(threads, {})
    if other == "best":
        found = min((s for name, s in seconds.items() if name.startswith("torch")), default=None)
    else:
        found = seconds.get(other)
    return found / seconds[OURS] if found and OURS in seconds else None


def bound(row: dict, threads: str, limits: dict) -> Bound | None:
    limit, seconds = limits.get(threads), row["seconds"].get(threads, {}).get(OURS)
    if not seconds or not row["bytes"] or not isinstance(limit, dict):
        return None
    by_flops = row["flops"] / (limit[row["dtype"]] * 1e9)
    by_bytes = row["bytes"] / (bandwidth(limit["bandwidth"], row["bytes"]) * 1e9)
    if by_flops >= by_bytes:
        return Bound(row["flops"] / seconds / 1e9, "GFLOP/s", by_flops / seconds)
    return Bound(row["bytes"] / seconds / 1e9, "GB/s", by_bytes / seconds)


def bandwidth(measured: dict, size: float) -> float:
    """GB/s for so many bytes: between the measured sizes, a straight line over the logarithm of the size."""
    points = sorted((math.log(int(n)), rate) for n, rate in measured.items())
    at = math.log(max(size, 1))
    if at <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return points[-1][1]


def geometric_mean(rows: list[dict], threads: str, other: str) -> float | None:
    found = [r for row in rows if (r := ratio(row, threads, other))]
    return statistics.geometric_mean(found) if found else None


def primitives(figures: dict) -> list[dict]:
    return [row for row in figures["rows"] if row["family"] != STEP]


def steps(figures: dict) -> list[dict]:
    return [row for row in figures["rows"] if row["family"] == STEP]


def below_floor(rows: list[dict], threads: str) -> list[tuple[str, float]]:
    """Rows that PyTorch's fastest way beats, the worst first."""
    found = [(row["name"], r) for row in rows if (r := ratio(row, threads, "best")) and r < FLOOR]
    return sorted(found, key=lambda pair: pair[1])


def middle(row: dict, threads: str, runs: list[dict]) -> dict:
    """Of several measurements of a row, each {contender: seconds}, that of the middle ratio against PyTorch's fastest way."""
    ordered = sorted(runs, key=lambda seconds: ratio(row | {"seconds": {threads: seconds}}, threads, "best") or 0.0)
    return ordered[len(ordered) // 2]


def all_threads(figures: dict) -> list[str]:
    return sorted({t for row in figures["rows"] for t in row["seconds"]}, key=int)


def by_family(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each family, families in the order in which they first come."""
    families: dict[str, list[dict]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    return families


def disturbed(figures: dict, threads: str) -> list[str]:
    """Rows during whose measurement the machine had other work."""
    return [row["name"] for row in figures["rows"] if row.get("elsewhere", {}).get(threads, 0.0) > ALONE]
