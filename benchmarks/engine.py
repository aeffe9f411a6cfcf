"""What the engine costs beside the arithmetic: one operation on one element, and `import cnnlib`.

python -m benchmarks.engine
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import cnnlib as cl
from cnnlib.cli.pipe import reader_may_leave

IMPORT = "import time, numpy; t = time.perf_counter(); import cnnlib; print(time.perf_counter() - t)"


def median_microseconds(run: Callable[[], object], times: int = 20_000) -> float:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return statistics.median(found) * 1e6


def main() -> None:
    one = cl.Tensor([1.0], requires_grad=True)

    def add() -> None:
        cl.ops.add(one, one).backward()
        one.grad = None

    def its_numpy_calls() -> None:
        y = one.data + one.data
        dy = np.ones_like(y)
        np.add(dy, dy, out=np.empty_like(dy))

    whole, inside = median_microseconds(add), median_microseconds(its_numpy_calls)
    print(f"add of one element, forward and backward: {whole:.1f} µs, {inside:.1f} µs of it in NumPy (medians)")
    seconds = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(15)]
    print(f"import cnnlib, beyond NumPy's own import: {statistics.median(seconds):.3f} s (median of 15)")


if __name__ == "__main__":
    with reader_may_leave():
        main()
