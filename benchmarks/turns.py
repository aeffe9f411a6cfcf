"""Contenders in processes of their own, which take turns.

Two libraries in one process disturb each other: after a parallel call the threads of one pool go on spinning for a while, on
the cores that the other now wants. So each contender is a process that blocks on a pipe until it gets the turn, works for a
short burst, and hands the turn back only when its threads sleep. Short turns, because the machine's speed drifts: all
contenders must meet the same weather.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROUNDS = 5  # bursts of each contender per row

# glibc gives blocks above 128 kB (up to 32 MB, adapting) back to the system at once, and the next call pays for fresh pages.
# Never mmap, never trim, grow by 64 MB: what is freed stays with the process.
TUNED_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 26)}
MEANT_FOR_OTHERS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "GLIBC_TUNABLES")
# CNNLIB_ISA=avx2 holds our kernels to AVX2: then PyTorch's own, oneDNN's and MKL's are held to it as well.
AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def environment(kind: str, threads: int) -> dict[str, str]:
    """What a user has who set nothing but the number of threads; and tuned malloc for the contender of that name."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(MEANT_FOR_OTHERS)}
    env |= {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    env |= AVX2_ONLY if env.get("CNNLIB_ISA") == "avx2" else {}
    return env | (TUNED_MALLOC if kind == "torch tuned" else {})


class Contender:
    """``kind``: "cnnlib", "reference", "torch" or "torch tuned". ``rows``: the module whose all_rows() it knows."""

    def __init__(self, kind: str, threads: int, rows: str = "benchmarks.rows"):
        self.kind = kind
        command = [sys.executable, "-m", "benchmarks.contender", kind, str(threads), rows]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment(kind, threads), cwd=ROOT, **pipes)

    def ask(self, what: str, **details):
        """Give the process the turn, and wait for its answer."""
        try:
            self.process.stdin.write(json.dumps([what, details]) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            sys.exit(f"benchmarks: {self.kind} ended at {what} {details}; what it said is above.")

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended before
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def take_turns(contenders: list[Contender], row: str, seconds: float) -> dict[str, float]:
    """Median seconds of a call, for each contender and each of its ways to do the row ("torch channels_last")."""
    sides = [(one, way) for one in contenders for way in one.ask("prepare", row=row)]
    times: dict[str, list[float]] = {f"{one.kind} {way}".strip(): [] for one, way in sides}
    for _ in range(ROUNDS):
        for one, way in sides:
            times[f"{one.kind} {way}".strip()] += one.ask("burst", way=way, seconds=seconds / ROUNDS)
    for one in contenders:
        one.ask("drop")
    return {name: statistics.median(found) for name, found in times.items()}


def memory(kind: str, threads: int, row: str, rows: str = "benchmarks.rows") -> int | None:
    """Bytes that a training step needs at its peak, above what the process held after import; None where not known."""
    with Contender(kind, threads, rows) as one:
        return one.ask("memory", row=row)
