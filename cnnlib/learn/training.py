"""``cnnlib learn train``: a real network learns with the learner's function in place of ours.

The work is done in a child process, ``python -m cnnlib.learn.training``: a function that hangs, exits or prints there harms
nobody. It reads its task as one line of JSON and writes what happens, a line of JSON each; `train` starts it, passes the
lines on as they come, and ends it when its time is up.

The same batches train the network three times from the same weights: with the learner's function, with the library's, and for
a few steps with the textbook. A right function gives the library's own curve, however slow it is; how slow, the clock inside
the replaced kernels tells.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import cnnlib
from cnnlib.backends import backend, kernel_set, override_kernel, use
from cnnlib.errors import ValueRangeError
from cnnlib.learn.exercise import Exercise, exercises, find
from cnnlib.learn.networks import Network, network
from cnnlib.learn.process import Event, events, learners_functions, serve
from cnnlib.nn.module import in_mode

BUDGET = 30.0  # seconds of training with the learner's function
OVERHEAD = 60.0  # seconds for all else, until everything is ended
SEED = 0
MOST_STEPS, USEFUL_STEPS, FEWEST_STEPS = 200, 100, 3
BATCHES = (1, 8, 32)
TEXTBOOK_STEPS = 10


def train(exercise: Exercise, path: Path, budget: float = BUDGET) -> Iterator[Event]:
    """Train the exercise's network with the functions in ``path``; what happens, as it happens:

    ``{"event": "plan", "model", "steps", "batch", "kernels"}``, then ``{"event": "step", "who": "yours" or "library", "step",
    "loss"}`` for each, then ``{"event": "result", "accuracy": {who: …}, "milliseconds": {"yours": …, "reference": …, …}}``:
    those spent in the replaced kernels per step of training.

    Raises ValueRangeError for an exercise without a network; LearnerError when the learner's code fails, or takes too long.
    """
    if exercise.train is None:
        able = ", ".join(str(e.number) for e in exercises() if e.train)
        raise ValueRangeError(f"exercise {exercise.number}, {exercise.name}, has no network to train; those with one: {able}.")
    task = {"exercise": exercise.name, "path": str(path), "budget": budget}
    return events("cnnlib.learn.training", task, budget + OVERHEAD)


# ---- inside the child


def work(task: Event, send: Callable[[Event], None]) -> None:
    exercise = find(task["exercise"])
    if exercise.train is None:
        raise ValueRangeError(f"exercise {exercise.name} has no network.")
    functions = learners_functions(exercise, Path(task["path"]))
    name = exercise.train.model
    kernels = dict(exercise.train.kernels(functions if len(functions) > 1 else functions[0]))
    batch, steps = _plan(name, kernels, task["budget"])
    send({"event": "plan", "model": name, "batch": batch, "steps": steps, "kernels": sorted(kernels)})
    library = dict.fromkeys(kernels)
    milliseconds, accuracy = {}, {}
    for who, replaced in (("yours", kernels), ("library", library)):
        training = Training(name, batch, replaced)
        for step in range(steps):
            send({"event": "step", "who": who, "step": step, "loss": training.step()})
        accuracy[who] = training.network.accuracy()
        milliseconds["yours" if who == "yours" else backend()] = training.milliseconds
    if "reference" not in milliseconds:
        with use("reference"):
            milliseconds["reference"] = _timed(name, batch, library, TEXTBOOK_STEPS)
    send({"event": "result", "accuracy": accuracy, "milliseconds": milliseconds})


class Training:
    """A network on its way: ``step()`` trains on the next batch and returns the loss.

    ``kernels``: {name: function in place of that kernel, or None for the backend's own}; ``milliseconds`` per step is what
    they took.
    """

    def __init__(self, name: str, batch: int, kernels: Mapping[str, Callable | None]):
        cnnlib.manual_seed(SEED)
        self.network: Network = network(name)
        self.network.optimizer.lr *= (batch / BATCHES[-1]) ** 0.5  # small batches are noisy
        self.batch, self.kernels = batch, kernels
        self.seconds, self.steps = 0.0, 0
        self._rng = np.random.default_rng(SEED)

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
        kernel = function or getattr(kernel_set(backend()), name)

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
