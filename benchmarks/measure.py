"""Interleaved timing of contenders that do the same work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def medians(
    contenders: dict[str, Callable[[], object]], seconds: float = 0.6, rounds: tuple[int, int] = (5, 200)
) -> dict[str, float]:
    """Median seconds of each contender. They take turns, so that a drift of the machine's speed meets all of them alike."""
    for run in contenders.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    least, most = rounds
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < most:
        if time.perf_counter() > end and len(next(iter(times.values()))) >= least:
            break
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(t) for name, t in times.items()}
