"""CUDA kernels on the emulator, with arrays at the edge of forbidden memory: as tests/guarded.py, which see.

``python -m tests.cuda.guarded PROGRESS PLACE DTYPE COUNT``
"""

from __future__ import annotations

import sys

import numpy as np

from cnnlib.backends import kernel_set
from tests.cuda import emulator
from tests.cuda.device import emulated
from tests.guarded import Guard, calls_of_size_zero
from tests.kernel_calls import Calls, random_sizes


def run(call, guard, device, kernels) -> None:
    """In two orders of threads, of which one sees plain memory: damage there shows too late."""
    emulator.seed = 0
    with guard():
        guarded = call.with_arrays(device.asarray)
        results = guarded.on(kernels)
        bits = [(y.shape, y.dtype, y.tobytes()) for y in results]
    del guarded, results
    emulator.seed = 1
    if guard.damaged or bits != call.with_arrays(device.asarray).bits_on(kernels):
        raise AssertionError(f"{call}: " + ("wrote outside of its arrays" if guard.damaged else "gives other results there"))


def main(progress_path: str, place: str, dtype: str, count: str) -> None:
    rng, guard = np.random.default_rng(72), Guard(place)
    calls = [call for i in range(int(count)) for call in Calls(i, dtype, random_sizes(rng, 1 << 12))]
    calls += calls_of_size_zero(dtype)
    with emulated() as device, open(progress_path, "w") as progress:
        kernels = kernel_set("cuda")
        for call in calls:
            progress.seek(0)
            progress.write(f"{call}\n".ljust(600))
            progress.flush()
            run(call, guard, device, kernels)
    print(f"{len(calls)} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
