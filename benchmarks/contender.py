"""One contender: a process that prepares a row and runs it in bursts when benchmarks.turns asks.

Questions and answers are lines of JSON on stdin and stdout.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.pin import pin

MOST_CALLS = 200  # of one burst
MOVING_IN = 0.03  # seconds: a system may wake all threads on one core, and spread them only when they stay busy


class Process:
    """What a contender answers: one method per question."""

    def __init__(self, kind: str, threads: int, rows: str = "benchmarks.rows"):
        self.kind, self.threads, self.ready = kind, threads, {}
        if kind.startswith("torch"):
            import torch

            torch.set_num_threads(threads)
            self.torch = torch
        else:
            import cnnlib as cl
            from cnnlib.backends import kernel_set

            self.kernels = kernel_set("cpu" if kind == "cnnlib" else "reference")
            if kind == "cnnlib":
                cl.set_num_threads(threads)
        self.rows = {row.name: row for row in importlib.import_module(rows).all_rows()}
        self.held = memory_now()

    def prepare(self, row: str) -> list[str]:
        """Build the row and run each way of doing it twice. Answers the names of the ways: "" is the plain one."""
        ways = self.rows[row].ways if self.kind.startswith("torch") else [""]
        self.ready = {way: self.build(row, way) for way in ways}
        for run in self.ready.values():
            run()
            run()
        return list(self.ready)

    def build(self, row: str, way: str = "") -> Callable:
        found = self.rows[row]
        return found.run_torch(self.torch, way) if self.kind.startswith("torch") else found.run(self.kernels)

    def burst(self, way: str, seconds: float) -> list[float]:
        run, times, clock = self.ready[way], [], time.perf_counter
        warm = clock() + (MOVING_IN if self.threads > 1 else 0.0)
        run()  # wakes the threads, and fills the caches that the others have used meanwhile
        while clock() < warm:
            run()
        end = clock() + seconds
        while not times or (clock() < end and len(times) < MOST_CALLS):
            started = clock()
            run()
            times.append(clock() - started)
        if self.threads > 1:
            fall_asleep()
        return times

    def drop(self) -> None:
        self.ready = {}
        gc.collect()

    def memory(self, row: str) -> int | None:
        """Peak of three calls above what the process held after its imports. Building the row does not count."""
        run = self.build(row)
        gc.collect()
        if not forget_peak():
            return None
        for _ in range(3):
            run()
        return memory_peak() - self.held

    def versions(self) -> dict[str, str]:
        if self.kind.startswith("torch"):
            return {"torch": str(self.torch.__version__), "cpu capability": self.torch.backends.cpu.get_cpu_capability()}
        import numpy as np

        import cnnlib as cl
        from cnnlib.backends import cpu

        isa = {"instruction set": cpu.isa()} if self.kind == "cnnlib" else {}
        return {"cnnlib": cl.__version__, "numpy": np.__version__, **isa}


def fall_asleep(window: float = 0.01, longest: float = 0.2) -> None:
    """Wait until the threads of this process no longer spin: until a while of sleep has cost it no processor time.

    The window is as long as the slowest usual tick of the system, for only a tick books the time of a thread that spins.
    """
    end = time.perf_counter() + longest
    while time.perf_counter() < end:
        used = time.process_time()
        time.sleep(window)
        if time.process_time() - used < window / 10:
            return


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes; 0 where there is none."""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def memory_now() -> int:
    return status("VmRSS")


def memory_peak() -> int:
    return status("VmHWM")


def forget_peak() -> bool:
    """Let the peak start again from what is held now. Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def main() -> None:
    kind, threads, rows = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    pin(threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints goes to stderr
    process = Process(kind, threads, rows)
    for line in sys.stdin:
        what, details = json.loads(line)
        ask: Callable = getattr(process, what)
        print(json.dumps(ask(**details)), file=answers, flush=True)


if __name__ == "__main__":
    main()
