"""As many cores as threads: a process that wanders between cores, or shares one by chance, is timed as something else."""

from __future__ import annotations

import os
from pathlib import Path


def pin(threads: int) -> None:
    """Keep this process, and all threads that it starts later, on as many cores as threads, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(one_per_core(sorted(os.sched_getaffinity(0)))[:threads]))


def one_per_core(cpus: list[int]) -> list[int]:
    """One hardware thread of each core first, then the rest."""
    first, rest, seen = [], [], set()
    for cpu in cpus:
        file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = file.read_text() if file.exists() else str(cpu)
        (rest if core in seen else first).append(cpu)
        seen.add(core)
    return first + rest
