"""Which of several ways to compute the same is the faster on this GPU: timed once for each problem, and remembered.

What was measured is kept beside the kernels that CuPy compiled, in a file for this GPU, CUDA and cnnlib: the ways differ in
rounding, and so a later run takes the same ones and gives equal bits. Delete the file, and all is measured anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cnnlib import __version__
from cnnlib.backends.cuda import source

BURSTS, CALLS = 3, 3  # the least of three bursts of three calls, after one to warm up

Times = dict[str, dict[str, float]]  # problem -> way -> milliseconds


def fastest(problem: str, ways: dict[str, Callable[[], Any]], otherwise: str) -> str:
    """The name of the fastest of ``ways``, of which any computes ``problem``. Waits for the GPU where it has to measure.

    ``otherwise`` is the answer while a graph is recorded, when nothing can be measured.
    """
    times = measured()
    if times.get(problem, {}).keys() != ways.keys():
        if not _may_measure():
            return otherwise
        times[problem] = _milliseconds(ways)
        _keep(times)
    return min(times[problem], key=times[problem].__getitem__)


def measured() -> Times:
    """What is known of the current GPU; the table itself, to which :func:`fastest` adds."""
    import cupy

    return _table(cupy.cuda.runtime.getDevice())


def file() -> Path:
    """Where it is kept for the current GPU."""
    import cupy

    name = hashlib.sha256(json.dumps(_conditions(cupy.cuda.runtime.getDevice())).encode()).hexdigest()[:16]
    return Path(os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache").expanduser() / f"cnnlib-{name}.json"


@cache
def _conditions(device: int) -> dict[str, str]:
    """What a measurement holds for."""
    import cupy

    runtime, kernels = cupy.cuda.runtime, "".join(map(source.text, source.sources()))
    return {
        "gpu": runtime.getDeviceProperties(device)["name"].decode(),
        "cuda": str(runtime.runtimeGetVersion()),
        "tf32": os.environ.get("CUPY_TF32", "0"),
        "cnnlib": __version__,
        "kernels": hashlib.sha256(kernels.encode()).hexdigest(),
    }


@cache
def _table(device: int) -> Times:
    return _read(file())


def _read(path: Path) -> Times:
    """What a file holds; nothing, if it is none of ours."""
    try:
        times = json.loads(path.read_text(encoding="utf-8"))["milliseconds"]
        return {str(problem): {way: float(ms) for way, ms in found.items()} for problem, found in times.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(times: Times) -> None:
    """Beside what another process has measured in the meantime, whose figures for the same problem stay for later runs."""
    import cupy

    path = file()
    content = _conditions(cupy.cuda.runtime.getDevice()) | {"milliseconds": times | _read(path)}
    with contextlib.suppress(OSError):  # a folder that cannot be written to: every run measures for itself
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".json", delete=False) as whole:
            json.dump(content, whole, indent=1)
        os.replace(whole.name, path)


def _may_measure() -> bool:
    import cupy

    return not cupy.cuda.get_current_stream().is_capturing()


def _milliseconds(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Of a call of each, in turns, so that all meet the same clock of the GPU. Infinite for one that has no memory."""
    import cupy

    times = dict.fromkeys(ways, math.inf)
    for burst in range(1 + BURSTS):
        for way, run in ways.items():
            with contextlib.suppress(cupy.cuda.memory.OutOfMemoryError):
                took = _elapsed(run, CALLS if burst else 1)
                if burst:
                    times[way] = min(times[way], took)
    return times


def _elapsed(run: Callable[[], Any], calls: int) -> float:
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / calls
