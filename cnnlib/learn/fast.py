"""``cnnlib learn fast``: how long the learner's function takes beside the textbook and the kernels of every backend.

All get the same arguments of benchmark size, in float32, and take turns in one child process (``python -m
cnnlib.learn.fast``), so that whatever else the machine does hits all alike; the first round warms up, the median of the
others counts. What takes seconds is measured once.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib.backends import available, kernel_set
from cnnlib.errors import DeviceError, ValueRangeError
from cnnlib.learn.exercise import Exercise, Fast, exercises, find, reference
from cnnlib.learn.process import Event, TooSlow, events, learners_functions, serve, text_of
from cnnlib.tensor import to_device

LIMIT = 90.0  # seconds for everything
SHARE = 4.0  # seconds for each contender, but one call at least
ROUNDS = 15


@dataclass
class Timings:
    """``seconds`` of a call: of "yours", "textbook" and every backend that runs here; ``notes``: who could not take part."""

    seconds: dict[str, float]
    notes: list[str]


def fast(exercise: Exercise, path: Path) -> Timings:
    """Time the learner's function in the file ``path`` beside the others.

    Raises ValueRangeError for an exercise without this rung, LearnerError when the learner's code fails or takes too long.
    """
    if exercise.fast is None:
        able = ", ".join(str(e.number) for e in exercises() if e.fast)
        raise ValueRangeError(f"exercise {exercise.number}, {exercise.name}, is not timed; those that are: {able}.")
    task = {"exercise": exercise.name, "path": str(path)}
    try:
        (result,) = events("cnnlib.learn.fast", task, LIMIT)
    except TooSlow as reason:
        raise TooSlow(f"on arguments of benchmark size {reason} {_loops_cost(exercise)}") from None
    return Timings(result["seconds"], result["notes"])


def next_step(exercise: Exercise, seconds: Mapping[str, float]) -> str:
    """What to try next, by how far the learner's function is from the textbook and the textbook from the fastest kernel."""
    if exercise.fast and exercise.fast.build:
        return _after_building(seconds)
    ratio = seconds["yours"] / seconds["textbook"]
    if ratio > 30:
        return _loops_cost(exercise)
    if ratio > 1.5:
        return "Most loops are gone. What is left is many small products and copies: " + _few_products(exercise)
    if exercise.fast and not exercise.fast.kernel:
        return (
            "You are level with the textbook, and there is no kernel to beat: sums and products over whole arrays run at the "
            "speed of memory in NumPy already."
        )
    kernels = {name: s for name, s in seconds.items() if name not in ("yours", "textbook")}
    if not kernels:
        return "You are level with the textbook; no compiled backend runs here (cnnlib doctor says why)."
    name, best = min(kernels.items(), key=lambda item: item[1])
    if seconds["yours"] < best:
        return f"You are faster than the {name} kernel here. Open an issue: that kernel should learn from you."
    return (
        f"You are level with the textbook; NumPy has little more to give. The {name} kernel is {seconds['yours'] / best:.1f} "
        "times faster: it touches memory once where NumPy makes a new array for every operation. Read it in csrc/; exercise 37 "
        "lets you write one."
    )


def _after_building(seconds: Mapping[str, float]) -> str:
    built = [s for name, s in seconds.items() if name.startswith("yours, ")]
    if not built:
        return "as it is, it shows what a loop costs in Python. What is missing to build it stands above."
    kernels = [s for name, s in seconds.items() if name not in ("yours", "textbook") and not name.startswith("yours, ")]
    text = f"The same loops, built: {seconds['yours'] / built[0]:,.0f} times faster than before."
    if kernels and min(kernels) < built[0]:
        text += (
            f" The library's kernel is {built[0] / min(kernels):.1f} times faster still: vectors, threads, tiles. See csrc/."
        )
    return text


def _loops_cost(exercise: Exercise) -> str:
    return "Loops over samples or pixels cost most. Keep only the short loops: " + _short_loops(exercise)


def _short_loops(exercise: Exercise) -> str:
    if _is_recurrent(exercise):
        return "only time must be a loop; samples and units are axes of a matrix product."
    if "conv" in exercise.name or "im2col" in exercise.name or "pool" in exercise.name:
        return (
            "loop over the offsets (kh, kw) of the window, and let one slice x[:, :, kh::S, kw::S] serve all windows at once."
        )
    return "one expression on whole arrays for each sum of the formula, with axis= and keepdims=True."


def _few_products(exercise: Exercise) -> str:
    if _is_recurrent(exercise):
        return "one product for all gates of a step, and one for the weights' adjoint of all steps, after the loop."
    if "conv" in exercise.name:
        return "gather all windows as columns (im2col): the whole convolution is one matrix product, which BLAS does fast."
    return "compute once what occurs twice, and avoid temporary arrays."


def _is_recurrent(exercise: Exercise) -> bool:
    return any(word in exercise.name for word in ("rnn", "lstm", "gru", "peephole", "bptt"))


# ---- inside the child


def work(task: Event, send: Callable[[Event], None]) -> None:
    exercise = find(task["exercise"])
    if exercise.fast is None:
        raise ValueRangeError(f"exercise {exercise.name} is not timed.")
    args = _float32(exercise.fast.arguments(np.random.default_rng(0)))
    which = timed_function(exercise, args)
    yours = learners_functions(exercise, Path(task["path"]))[exercise.function_names.index(which)]
    solution = reference(exercise)[which]
    contenders: dict[str, Callable[[], Any]] = {"yours": lambda: yours(*args), "textbook": lambda: solution(*args)}
    notes = []
    if exercise.fast.build is not None:
        try:
            name, built = exercise.fast.build(text_of(Path(task["path"])))
            contenders |= {"textbook": _kernels(exercise.fast, "reference", args), name: lambda: built(*args)}
        except DeviceError as reason:
            notes.append(str(reason))
    for backend, missing in available().items():
        if backend != "reference" and missing is None and exercise.fast.kernel:
            contenders[backend] = _kernels(exercise.fast, backend, args)
    send({"event": "result", "seconds": measure(contenders), "notes": notes})


def timed_function(exercise: Exercise, args: tuple) -> str:
    """Of several functions the first that takes these arguments."""
    for function in exercise.functions:
        with contextlib.suppress(TypeError):
            inspect.signature(function).bind(*args)
            return function.__name__
    raise ValueRangeError(f"exercise {exercise.name}: none of its functions takes the {len(args)} arguments of Fast.")


def measure(contenders: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS, share: float = SHARE) -> dict[str, float]:
    """The median time of a call of each, in seconds; they take turns, until the rounds or a contender's share are used up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _, (name, call) in itertools.product(range(rounds + 1), contenders.items()):
        if sum(times[name]) < share:
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken[1:] or taken) for name, taken in times.items()}


def _kernels(fast: Fast, backend: str, args: tuple) -> Callable[[], Any]:
    """A call that does the exercise's work with the backend's kernels."""
    named = {fast.kernel: fast.kernel_args} if isinstance(fast.kernel, str) else fast.kernel
    device = "cuda" if backend == "cuda" else "cpu"
    calls = [
        (getattr(kernel_set(backend), name), _on(device, chosen(*args) if chosen else args)) for name, chosen in named.items()
    ]

    def call() -> None:
        for kernel, its_args in calls:
            kernel(*its_args)
        if device == "cuda":
            import cupy

            cupy.cuda.Device().synchronize()

    return call


def _on(device: str, args: tuple) -> tuple:
    return tuple(to_device(np.ascontiguousarray(a), device) if isinstance(a, np.ndarray) else a for a in args)


def _float32(value: Any) -> Any:
    """The same arguments as a network would pass them."""
    if isinstance(value, tuple | list):
        return type(value)(_float32(v) for v in value)
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value


if __name__ == "__main__":
    serve(work)
