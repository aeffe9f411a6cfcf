"""``cnnlib learn train``: a real network learns with the learner's function in place of ours.

The work is done in a child process, ``python -m cnnlib.learn.training``: a function that hangs, exits or prints there harms
nobody. It reads its task as one line of JSON and writes what happens, a line of JSON each; `train` starts it, passes the
lines on as they come, and ends it when its time is up.

The same batches train the same network twice from the same weights: with the learner's function and with the library's. A
right function gives the library's own curve, however slow it is; how slow, a stop watch around the replaced functions tells.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import cnnlib
from cnnlib.backends import backend, kernel_set, override_kernel, use
from cnnlib.errors import ValueRangeError
from cnnlib.learn.exercise import Exercise, Train, exercises, find, reference
from cnnlib.learn.loops import LOOPS, Loop
from cnnlib.learn.networks import Network, network
from cnnlib.learn.process import Event, events, learners_functions, serve
from cnnlib.nn.module import in_mode

BUDGET = 30.0  # seconds of training with the learner's function
OVERHEAD = 60.0  # seconds for all else, until everything is ended
SEED = 0
MOST_STEPS, USEFUL_STEPS, FEWEST_STEPS = 200, 100, 3
BATCHES = (1, 8, 32)
TEXTBOOK_STEPS = 10


def trainable() -> list[Exercise]:
    """The exercises whose functions can be put to work: as a network's kernels, or in a loop of their own."""
    return [e for e in exercises() if e.train or e.name in LOOPS]


def train(exercise: Exercise, path: Path, budget: float = BUDGET) -> Iterator[Event]:
    """Train with the functions in ``path``; what happens, as it happens:

    ``{"event": "plan", "what", "measured", "steps"}``, then ``{"event": "step", "who": "yours" or "library", "step",
    "value"}`` for each, then ``{"event": "result", "accuracy": {who: …}, "milliseconds": {"yours": …, "reference": …, …}}``:
    the accuracy where classes are learnt, and the milliseconds spent in the functions per step of training.

    Raises ValueRangeError for an exercise that has nothing to train; LearnerError when the learner's code fails or takes too
    long.
    """
    if exercise not in (able := trainable()):
        numbers = ", ".join(str(e.number) for e in able)
        raise ValueRangeError(f"exercise {exercise.number}, {exercise.name}, has nothing to train; those that have: {numbers}.")
    task = {"exercise": exercise.name, "path": str(path), "budget": budget}
    return events("cnnlib.learn.training", task, budget + OVERHEAD)


# ---- inside the child

Send = Callable[[Event], None]


def work(task: Event, send: Send) -> None:
    exercise = find(task["exercise"])
    functions = learners_functions(exercise, Path(task["path"]))
    if exercise.train is None:
        _train_in_loop(exercise, functions, task["budget"], send)
    else:
        _train_network(exercise.train, functions, task["budget"], send)


def _train_network(train: Train, functions: tuple[Callable, ...], budget: float, send: Send) -> None:
    kernels = dict(train.kernels(functions if len(functions) > 1 else functions[0]))
    batch, steps = _plan(train.model, kernels, budget)
    names = " and ".join(sorted(kernels))
    what = f"the network {train.model} learns with your function as {names}, in batches of {batch}"
    send({"event": "plan", "what": what, "measured": "loss", "steps": steps})
    library = dict.fromkeys(kernels)
    milliseconds, accuracy = {}, {}
    for who, replaced in (("yours", kernels), ("library", library)):
        training = Training(train.model, batch, replaced)
        for step in range(steps):
            send({"event": "step", "who": who, "step": step, "value": training.step()})
        accuracy[who] = training.network.accuracy()
        milliseconds["yours" if who == "yours" else backend()] = training.milliseconds
    if "reference" not in milliseconds:
        with use("reference"):
            milliseconds["reference"] = _timed(train.model, batch, library, TEXTBOOK_STEPS)
    send({"event": "result", "accuracy": accuracy, "milliseconds": milliseconds})


def _train_in_loop(exercise: Exercise, functions: tuple[Callable, ...], budget: float, send: Send) -> None:
    loop = LOOPS[exercise.name]
    watches = {"yours": StopWatch(functions), "library": StopWatch(tuple(reference(exercise).values()))}
    steps = _steps_of(loop, watches["yours"], budget)
    send({"event": "plan", "what": loop.what, "measured": loop.measured, "steps": steps})
    for who, watch in watches.items():
        cnnlib.manual_seed(SEED)
        watch.seconds = 0.0
        for step, value in enumerate(itertools.islice(loop.run(*watch.functions), steps)):
            send({"event": "step", "who": who, "step": step, "value": float(value)})
    milliseconds = {name: 1000 * watches[who].seconds / steps for who, name in (("yours", "yours"), ("library", "reference"))}
    send({"event": "result", "accuracy": {}, "milliseconds": milliseconds})


def _steps_of(loop: Loop, watch: StopWatch, budget: float) -> int:
    """As many as show something, or as the budget allows."""
    cnnlib.manual_seed(SEED)
    started = time.perf_counter()
    for done, _ in enumerate(loop.run(*watch.functions), start=1):
        seconds = time.perf_counter() - started
        if done == FEWEST_STEPS or seconds > 1.0:
            return int(np.clip(budget * done / seconds, FEWEST_STEPS, loop.steps))
    raise AssertionError("a loop never ends")


class StopWatch:
    """Functions that note how long they take, in ``seconds``."""

    def __init__(self, functions: Iterable[Callable]):
        self.seconds = 0.0
        self.functions = [self._timed(function) for function in functions]

    def _timed(self, function: Callable) -> Callable:
        def timed(*args: Any) -> Any:
            started = time.perf_counter()
            returned = function(*args)
            self.seconds += time.perf_counter() - started
            return returned

        return timed


class Training:
    """A network on its way: ``step()`` trains on the next batch and returns the loss.

    ``kernels``: {name: function in place of that kernel, or None for the backend's own}; ``milliseconds`` per step is what
    they took.
    """

    def __init__(self, name: str, batch: int, kernels: Mapping[str, Callable | None]):
        cnnlib.manual_seed(SEED)
        self.network: Network = network(name)
        self.network.optimizer.lr *= (batch / BATCHES[-1]) ** 0.5  # small batches are noisy
        self.batch, self.kernels = batch, {n: f for n, f in kernels.items() if n not in self.network.functions}
        self.seconds, self.steps = 0.0, 0
        self._rng = np.random.default_rng(SEED)
        for own in kernels.keys() & self.network.functions.keys():
            self.network.functions[own] = self._timed(own, kernels[own])

    def step(self) -> float:
        chosen = self._rng.integers(0, len(self.network.x), self.batch)
        with contextlib.ExitStack() as inside:
            for name, function in self.kernels.items():
                inside.enter_context(override_kernel(name, self._timed(name, function)))
            inside.enter_context(in_mode(self.network.model, True))
            self.network.model.zero_grad()
            loss = self.network.loss(self.network.x[chosen], self.network.y[chosen])
            loss.backward()
            self.network.optimizer.step()
        self.steps += 1
        return float(loss.item())

    @property
    def milliseconds(self) -> float:
        return 1000 * self.seconds / self.steps

    def _timed(self, name: str, function: Callable | None) -> Callable:
        kernel = function or self.network.functions.get(name) or getattr(kernel_set(backend()), name)

        def timed(*args: Any) -> Any:
            started = time.perf_counter()
            returned = kernel(*args)
            self.seconds += time.perf_counter() - started
            return returned if function is None else fitted(returned, args)

        return timed


def fitted(returned: Any, args: tuple) -> Any:
    """What a learner's function returned, as a kernel would have: arrays, of the arguments' float type, C-contiguous."""
    if returned is None:
        return None
    if isinstance(returned, tuple):
        return tuple(fitted(r, args) for r in returned)
    dtype = next((a.dtype for a in args if isinstance(a, np.ndarray) and a.dtype.kind == "f"), None)
    array = np.asarray(returned, order="C")
    return array.astype(dtype) if array.dtype.kind == "f" and dtype is not None else array


def _plan(name: str, kernels: Mapping[str, Callable], budget: float) -> tuple[int, int]:
    """The largest batch of which the budget allows a useful number of steps, and how many it allows."""
    batch, seconds = BATCHES[0], _seconds(name, BATCHES[0], kernels)
    for larger in BATCHES[1:]:
        if seconds * larger / batch * USEFUL_STEPS > 3 * budget:
            break  # not even worth trying
        needed = _seconds(name, larger, kernels)
        if needed * USEFUL_STEPS > budget:
            break
        batch, seconds = larger, needed
    return batch, int(np.clip(budget / seconds, FEWEST_STEPS, MOST_STEPS))


def _seconds(name: str, batch: int, kernels: Mapping[str, Callable]) -> float:
    """Of one step, warm where that is quick."""
    training = Training(name, batch, kernels)
    for _ in range(2):
        started = time.perf_counter()
        training.step()
        seconds = time.perf_counter() - started
        if seconds > 1.0:
            break
    return seconds


def _timed(name: str, batch: int, kernels: Mapping[str, None], steps: int) -> float:
    training = Training(name, batch, kernels)
    for _ in range(steps):
        training.step()
    return training.milliseconds


if __name__ == "__main__":
    serve(work)
