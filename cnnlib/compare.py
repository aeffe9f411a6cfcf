"""One training step, the same on every backend: where do they differ, how long does it take, what memory does it need?

Same seed, so same weights; same batch; every operation is recorded with :class:`cnnlib.trace`. Differences are relative:
max |a − reference| / max |reference|, forward over an operation's outputs, backward over the adjoints that it returns.
Times are medians of warm runs; on a GPU each operation is waited for.

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
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnlib import nn
from cnnlib.backends import available, kernel_set, override_kernel, synchronize, use
from cnnlib.errors import unknown_name
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
    batches: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)  # batch size -> backend -> ms a step

    @property
    def worst(self) -> float:
        """The largest relative difference of all."""
        return float(np.max([d for row in self.layers for d in (*row.forward.values(), *row.backward.values())]))

    @property
    def agree(self) -> bool:
        """Whether all backends give the reference's numbers up to rounding. A NaN is a disagreement."""
        return self.worst < SUSPICIOUS or self.ties

    @property
    def culprit(self) -> str | None:
        """Where the first wrong numbers come from, None where all agree: errors travel on, so the first one counts.

        Forward that is the first operation of the step, and where forward is right everywhere, backward the last one.
        """
        if self.agree:
            return None
        for direction, rows in (("forward", self.layers), ("backward", self.layers[::-1])):
            for row in rows:
                for name, difference in getattr(row, direction).items():
                    if not difference < SUSPICIOUS:
                        return f"{direction} of {row.name} on {name}, off by {difference:.1e}"
        return None

    def wins(self) -> list[tuple[int, str]]:
        """(batch size, the backend that is fastest from there on), of the batch sizes that were measured."""
        fastest = [(n, min(ms, key=ms.__getitem__)) for n, ms in sorted(self.batches.items())]
        return [(n, name) for i, (n, name) in enumerate(fastest) if i == 0 or fastest[i - 1][1] != name]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {
            "worst": self.worst,
            "agree": self.agree,
            "culprit": self.culprit,
            "wins": self.wins(),
        }

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
            if self.ties:
                text.append("they agree: in float64 to the last digits; in float32 up to a relative difference of "
                            f"{self.worst:.1e}, where rounding decided a tie in max pooling or at a kink")  # fmt: skip
            else:
                verdict = "they agree" if self.agree else "THEY DISAGREE"
                text.append(f"largest relative difference {self.worst:.1e}: {verdict}")
        if self.culprit:
            text.append(f"the first wrong numbers: {self.culprit}")
        for n, ms in self.batches.items():
            text.append(f"batch {n:5}: " + ", ".join(f"{name} {t:.2f} ms" for name, t in ms.items()))
        if self.batches:
            text.append("the fastest: " + ", ".join(f"{name} from batch {n} on" for n, name in self.wins()))
        return text


def compare(
    make: Callable[[], Module],
    x: np.ndarray,
    y: np.ndarray,
    loss: Module | None = None,
    seed: int = 0,
    repeats: int = 5,
    backends: Sequence[str] | None = None,
    batch_sizes: Sequence[int] = (),
    inject: str | None = None,
) -> Comparison:
    """Run ``loss(make()(x), y)`` forward and backward on each backend, the reference first.

    ``make``: builds the model; it is called once per backend, after the same ``manual_seed(seed)``. ``loss``: by default
    cross-entropy. ``backends``: names, by default all; the reference is always among them, and backends that cannot run here
    are listed with the reason. ``batch_sizes``: whole steps are timed for these, too, with the samples repeated or cut.
    ``inject``: the name of a kernel that gives results 1 % too large on every backend but the reference, to see that this is
    found. Random streams are afterwards as before. Raises UnknownNameError for an unknown backend or kernel.
    """
    loss = loss or nn.CrossEntropyLoss()
    chosen, streams = _chosen(backends), get_state()
    rows: list[Backend] = []
    traces: dict[str, list[Entry]] = {}
    wide: dict[str, list[Entry]] = {}
    result = Comparison(rows, [])
    try:
        for name, reason in chosen.items():
            if reason is not None:
                rows.append(Backend(name, skipped=reason))
                continue
            with _running(name, inject):
                step = _Step(make, loss, x, y, seed, name)
                traces[name] = step.traced(repeats)
                rows.append(Backend(name, step.milliseconds(repeats), step.memory_mb()))
                for n in batch_sizes:
                    ms = _Step(make, loss, _repeated(x, n), _repeated(y, n), seed, name).milliseconds(repeats)
                    result.batches.setdefault(n, {})[name] = ms
        result.layers = _layers(traces)
        if not result.agree:
            for name in traces:
                with _running(name, inject):
                    wide[name] = _Step(make, loss, x, y, seed, name, "float64").traced(1)
            result.ties = Comparison(rows, _layers(wide)).worst < EXACT and _share_off(traces) < RARE
    finally:
        set_state(streams)
    return result


def _chosen(names: Sequence[str] | None) -> dict[str, str | None]:
    """The backends to run, in their usual order, with None or the reason why not."""
    found = usable()
    for name in names or ():
        if name not in found:
            raise unknown_name("backend", name, found)
    return {name: reason for name, reason in found.items() if names is None or name in names or name == "reference"}


@contextlib.contextmanager
def _running(name: str, inject: str | None):
    """Kernels of the backend ``name``, of which one may be made wrong."""
    with contextlib.ExitStack() as stack:
        if name != "cuda":
            stack.enter_context(use(name))
        if inject is not None:
            wrong = override_kernel(inject, _one_percent_off(getattr(kernel_set(name), inject, None)))
            if name != "reference":
                stack.enter_context(wrong)
        yield


def _one_percent_off(kernel: Any) -> Callable:
    def wrong(*arguments: Any, **settings: Any) -> Any:
        result = kernel(*arguments, **settings)
        if isinstance(result, tuple):
            return (result[0] * 1.01, *result[1:])
        return result * 1.01

    return wrong


def _repeated(samples: np.ndarray, n: int) -> np.ndarray:
    return samples[np.arange(n) % len(samples)]


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
        synchronize(self.x)

    def traced(self, repeats: int) -> list[Entry]:
        """Every operation of a step, with the median of its times over ``repeats`` steps."""
        self()  # warm up: the first call of a kernel may compile it
        runs = []
        for _ in range(repeats):
            with trace() as t:
                self()
            runs.append([(e.forward_ms, e.backward_ms or 0.0) for e in t])
        entries = list(t)
        for entry, times in zip(entries, zip(*runs, strict=True), strict=True):
            entry.forward_ms, entry.backward_ms = (statistics.median(ms) for ms in zip(*times, strict=True))
        return entries

    def milliseconds(self, repeats: int) -> float:
        self()
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
