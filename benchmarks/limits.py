"""The machine's limits: its peak of multiply-adds, and its bandwidth for arrays of each size.

python -m benchmarks.limits 2     # for two threads

limits.c is compiled for this machine with the system's C compiler and called from Python threads (ctypes releases the lock).
Each figure is the best of several runs: a limit is what can be reached, not what usually is.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")
SMALLEST = 1 << 18  # bytes: fits into every second-level cache


def measure(threads: int, seconds: float = 0.15) -> dict:
    """{"float32": GFLOP/s, "float64": GFLOP/s, "bandwidth": {bytes: GB/s}}; SystemExit without a compiler."""
    from benchmarks.pin import pin

    pin(threads)
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder) / "limits.so")
        with ThreadPoolExecutor(threads) as pool:
            found: dict = {dtype: peak(library, pool, threads, dtype, seconds) for dtype in ("float32", "float64")}
            found["bandwidth"] = {size: bandwidth(library, pool, threads, size, seconds) for size in footprints()}
    return found


def better(old: Any, new: Any) -> Any:
    """Of two measurements each larger figure, as a limit is what the machine reached; of one that failed, the other."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: better(old.get(key), value) for key, value in new.items()}
    if isinstance(old, float) and isinstance(new, float):
        return max(old, new)
    return old if isinstance(old, dict) else new


def compiled(target: Path) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if not compiler:
        sys.exit("no C compiler found")
    best = ["-mavx2", "-mfma"] if os.environ.get("CNNLIB_ISA") == "avx2" else ["-march=native"]
    for native in (best, []):  # clang for some machines does not know "native"
        command = [compiler, "-O3", *native, "-ffp-contract=fast", "-shared", "-fPIC", str(SOURCE), "-o", str(target)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return ctypes.CDLL(str(target))
    sys.exit(f"{compiler} could not compile {SOURCE.name}")


def best_rate(pool: ThreadPoolExecutor, work: list[Callable[[int], float]], seconds: float, times: int = 5) -> float:
    """Work per second when all threads do theirs at once; each is a function of a number of rounds, and says what it did."""

    def run(rounds: int) -> tuple[float, float]:
        started = time.perf_counter()
        done = sum(pool.map(lambda one: one(rounds), work))
        return done, time.perf_counter() - started

    rounds = 1
    while run(rounds)[1] < seconds / times:
        rounds *= 2
    return max(done / took for done, took in (run(rounds) for _ in range(times)))


def peak(library: ctypes.CDLL, pool: ThreadPoolExecutor, threads: int, dtype: str, seconds: float) -> float:
    """GFLOP/s of multiply-adds, each counted as two operations."""
    real = ctypes.c_float if dtype == "float32" else ctypes.c_double
    function = library[f"multiply_adds_{dtype}"]
    function.restype = ctypes.c_double
    function.argtypes = [ctypes.c_long, real, real, ctypes.POINTER(real)]
    sinks = [real() for _ in range(threads)]
    work = [lambda rounds, sink=sink: function(rounds, 0.999, 0.001, ctypes.byref(sink)) for sink in sinks]
    return best_rate(pool, work, seconds) / 1e9


def bandwidth(library: ctypes.CDLL, pool: ThreadPoolExecutor, threads: int, size: int, seconds: float) -> float:
    """GB/s while streaming through ``size`` bytes in all: the better of y = a + s b and memcpy."""
    import numpy as np

    rates = []
    for name, arrays in (("triad", 3), ("copy", 2)):
        function = library[name]
        function.restype = ctypes.c_double
        n = size // 8 // arrays // threads
        held = [[np.ones(n) for _ in range(arrays)] for _ in range(threads)]
        pointers = [[ctypes.c_void_p(a.ctypes.data) for a in one] for one in held]
        work = [lambda rounds, p=p, f=function, n=n: f(*p, ctypes.c_long(n), ctypes.c_long(rounds)) for p in pointers]
        rates.append(best_rate(pool, work, seconds))
    return max(rates) / 1e9


def footprints() -> list[int]:
    """From the second-level cache to well beyond the last level."""
    largest = min(max(4 * last_level_cache(), 1 << 26), 1 << 30)
    return [SMALLEST << 2 * i for i in range(math.ceil(math.log(largest / SMALLEST, 4)) + 1)]


def last_level_cache() -> int:
    caches = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [file.read_text().strip() for file in caches.glob("index*/size")]
    return max((int(s[:-1]) << {"K": 10, "M": 20}[s[-1]] for s in sizes if s[-1:] in "KM"), default=1 << 25)


def in_process_of_its_own(threads: int, seconds: float) -> dict | str:
    """The limits, or in one line why they are not known. ``seconds``: for each figure."""
    from benchmarks.turns import environment

    command = [sys.executable, "-m", "benchmarks.limits", str(threads), str(seconds)]
    root = SOURCE.parent.parent
    done = subprocess.run(command, env=environment("limits", threads), cwd=root, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), *map(float, sys.argv[2:]))))
