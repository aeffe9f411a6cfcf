"""One training step, the same on every backend: where do they differ, how long does it take, what memory does it need?

Same seed, so same weights; same batch; every operation is recorded with :class:`cnnlib.trace`. Differences are relative:
max |a − reference| / max |reference|, forward over an operation's outputs, backward over the adjoints that it returns.

>>> import cnnlib as cl, numpy as np
>>> result = compare(lambda: cl.models.MLP(4, (3,), 2), np.ones((5, 4), np.float32), np.zeros(5, np.int64))
>>> result.backends[0].name
'reference'
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib import nn
from cnnlib.backends import available, kernel_set, use
from cnnlib.nn.module import Module
from cnnlib.random import get_state, manual_seed, set_state
from cnnlib.tensor import Tensor, to_device
from cnnlib.trace import Entry, trace

SUSPICIOUS = 1e-3  # rounding in float32 stays well below
EXACT = 1e-9  # and in float64 below this
RARE = 1e-3  # ties that rounding decides are fewer than this share of the elements


@dataclasses.dataclass
class Backend:
    """``ms``: median of a training step. ``memory_mb``: peak of the arrays of one step."""

    name: str
    ms: float | None = None
    memory_mb: float | None = None
    skipped: str = ""  # why it cannot run here


@dataclasses.dataclass
class Layer:
    """An operation; per backend the milliseconds (forward, backward) and the largest relative difference."""

    name: str
    ms: dict[str, tuple[float, float]]
    forward: dict[str, float]
    backward: dict[str, float]


@dataclasses.dataclass
class Comparison:
    backends: list[Backend]
    layers: list[Layer]
    ties: bool = False  # the differences come from rounding that decided between two maxima, or between the sides of a kink

    @property
    def worst(self) -> float:
        """The largest relative difference of all."""
        return float(np.max([d for row in self.layers for d in (*row.forward.values(), *row.backward.values())]))

    @property
    def agree(self) -> bool:
        """Whether all backends give the reference's numbers up to rounding. A NaN is a disagreement."""
        return self.worst < SUSPICIOUS or self.ties

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"worst": self.worst, "agree": self.agree}

    def __rich__(self) -> Any:
        from rich.box import SIMPLE
        from rich.table import Table

        names = [b.name for b in self.backends if not b.skipped]
        table = Table(box=SIMPLE, pad_edge=False)
        table.add_column("operation")
        for name in names:
            table.add_column(f"{name} ms", justify="right")
        for name in names[1:]:
            table.add_column(f"{name} Δ forward", justify="right")
            table.add_column("Δ backward", justify="right")
        for row in self.layers:
            times = ["{:.2f} + {:.2f}".format(*row.ms[n]) for n in names]
            table.add_row(row.name, *times, *(f"{d[n]:.0e}" for n in names[1:] for d in (row.forward, row.backward)))
        return table

    def lines(self) -> list[str]:
        """What the table does not say: whole steps, memory, backends that are missing."""
        text = []
        for b in self.backends:
            if b.skipped:
                text.append(f"{b.name:10} not run: {b.skipped}")
            else:
                text.append(f"{b.name:10} {b.ms:.1f} ms a step, {b.memory_mb:.1f} MB")
        others = [b for b in self.backends[1:] if not b.skipped]
        if others:
            verdict = "they agree" if self.agree else "THEY DISAGREE"
            if self.ties:
                verdict += " (in float64 to the last digits; in float32 a tie in max pooling or at a kink fell the other way)"
            text.append(f"largest relative difference {self.worst:.1e}: {verdict}")
        return text


def compare(
    make: Callable[[], Module], x: np.ndarray, y: np.ndarray, loss: Module | None = None, seed: int = 0, repeats: int = 5
) -> Comparison:
    """Run ``loss(make()(x), y)`` forward and backward on each backend, the reference first.

    ``make``: builds the model; it is called once per backend, after the same ``manual_seed(seed)``. ``loss``: by default
    cross-entropy. Backends that cannot run here are listed with the reason. Random streams are afterwards as before.
    """
    loss = loss or nn.CrossEntropyLoss()
    streams = get_state()
    backends, traces, wide = [], {}, {}
    try:
        for name, reason in usable().items():
            if reason is not None:
                backends.append(Backend(name, skipped=reason))
                continue
            with contextlib.nullcontext() if name == "cuda" else use(name):
                step = _Step(make, loss, x, y, seed, name)
                traces[name] = step.traced()
                backends.append(Backend(name, step.milliseconds(repeats), step.memory_mb()))
        result = Comparison(backends, _layers(traces))
        if not result.agree:
            for name in traces:
                with contextlib.nullcontext() if name == "cuda" else use(name):
                    wide[name] = _Step(make, loss, x, y, seed, name, "float64").traced()
            result.ties = Comparison(backends, _layers(wide)).worst < EXACT and _share_off(traces) < RARE
    finally:
        set_state(streams)
    return result


def usable() -> dict[str, str | None]:
    """Each backend with None, or the reason why it cannot run here; a build that lacks kernels is named as such."""
    reasons = available()
    for name, reason in reasons.items():
        if reason is None and (missing := sorted(set(vars(kernel_set("reference"))) - set(vars(kernel_set(name))))):
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            reasons[name] = f"built from other sources, it lacks {', '.join(missing[:3])}{more}."
    return reasons


class _Step:
    def __init__(self, make: Callable, loss: Module, x: Any, y: Any, seed: int, backend: str, dtype: str = "float32"):
        manual_seed(seed)
        device = "cuda" if backend == "cuda" else "cpu"
        self.model, self.loss, self.seed = make().to(device), loss, seed
        if dtype == "float64":
            self.model.to(dtype)
            x = x.astype(dtype) if x.dtype.kind == "f" else x
        self.x, self.y = to_device(x, device), to_device(y, device)

    def __call__(self) -> None:
        manual_seed(self.seed)  # the same dropout masks each time
        self.model.zero_grad()
        self.loss(self.model(Tensor(self.x)), Tensor(self.y)).backward()

    def wait(self) -> None:
        """Until the GPU is done with what it was told."""
        if not isinstance(self.x, np.ndarray):
            import cupy

            cupy.cuda.get_current_stream().synchronize()

    def traced(self) -> list[Entry]:
        self()  # warm up: the first call of a kernel may compile it
        with trace() as t:
            self()
        return list(t)

    def milliseconds(self, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            self()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times) * 1e3

    def memory_mb(self) -> float:
        """Peak of the arrays of one step. Scratch memory inside compiled kernels is not seen."""
        self.model.zero_grad()
        if not isinstance(self.x, np.ndarray):
            import cupy

            pool = cupy.get_default_memory_pool()
            pool.free_all_blocks()
            before = pool.used_bytes()
            self()
            return (pool.total_bytes() - before) / 1e6
        tracemalloc.start()
        self()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 1e6


def _layers(traces: dict[str, list[Entry]]) -> list[Layer]:
    layers = []
    for row in zip(*traces.values(), strict=True):
        entries: dict[str, Entry] = dict(zip(traces, row, strict=True))
        reference = row[0]
        layers.append(Layer(
            name=reference.name,
            ms={n: (e.forward_ms, e.backward_ms or 0.0) for n, e in entries.items()},
            forward={n: _difference(e.outputs, reference.outputs) for n, e in entries.items()},
            backward={n: _difference(list(e.grads.values()), list(reference.grads.values())) for n, e in entries.items()},
        ))  # fmt: skip
    return layers


def _share_off(traces: dict[str, list[Entry]]) -> float:
    """The largest share of elements of one array that differ suspiciously from the reference's."""
    reference, *others = traces.values()
    shares = [0.0]
    for entries in others:
        for e, r in zip(entries, reference, strict=True):
            for a, b in zip([*e.outputs, *e.grads.values()], [*r.outputs, *r.grads.values()], strict=True):
                a, b = to_device(a, "cpu"), to_device(b, "cpu")
                shares.append(float((abs(a - b) > SUSPICIOUS * abs(b).max(initial=0.0)).mean()) if a.size else 0.0)
    return max(shares)


def _difference(arrays: Any, references: Any) -> float:
    """Largest relative difference over pairs of arrays; NaN where one has a NaN that the other has not."""
    worst = 0.0
    for a, r in zip(arrays, references, strict=True):
        a, r = (to_device(v, "cpu").astype(np.float64) for v in (a, r))
        both_nan = np.isnan(a) & np.isnan(r)
        gap = np.abs(np.where(both_nan, 0.0, a - r)).max(initial=0.0)
        scale = np.abs(np.where(both_nan, 0.0, r)).max(initial=0.0)
        worst = float(np.maximum(worst, gap / scale if scale else gap))
    return worst
