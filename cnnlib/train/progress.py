"""What a run shows: a bar on a terminal, one line per epoch elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

REDRAWN = 0.1  # seconds between two readings of the running averages: on a GPU each reading waits for it


def show(progress: bool) -> Silent:
    """What suits this process."""
    if not progress:
        return Silent()
    return Bar() if sys.stdout.isatty() else Lines()


class Silent:
    """Shows nothing; the others inherit from it."""

    def say(self, text: str) -> None:
        """A remark."""

    def start_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        """Epochs count from 1 here; ``done`` batches were done before a resume."""

    def start(self, what: str, steps: int, done: int) -> None:
        """A stretch of steps without epochs; ``done`` of them were done before a resume."""

    def step(self, samples: int, values: Callable[[], Mapping[str, float]]) -> None:
        """One batch is done; ``values()`` reads the averages so far, and is called only when they are shown."""

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        """The row of the history."""

    def close(self) -> None:
        """The run is over, for good or ill."""


class Lines(Silent):
    """One line per epoch, for files and pipes."""

    epochs = 0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def start_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        self.epochs = epochs

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        self.say(f"epoch {row['epoch']}/{self.epochs}  {readable(row)}")


class Bar(Lines):
    """A bar with loss, metrics, samples per second and the time left; above it one line per epoch."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(), transient=True,
        )  # fmt: skip
        self._task: Any = None
        self._bar.start()

    def say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def start_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        self.epochs = epochs
        self.start(f"epoch {epoch}/{epochs}", batches, done)

    def start(self, what: str, steps: int, done: int) -> None:
        self._samples, self._started, self._shown = 0, time.perf_counter(), 0.0
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=steps, completed=done, values="")

    def step(self, samples: int, values: Callable[[], Mapping[str, float]]) -> None:
        self._samples += samples
        self._bar.advance(self._task)
        now = time.perf_counter()
        if now - self._shown >= REDRAWN:
            self._shown = now
            speed = self._samples / max(now - self._started, 1e-9)
            self._bar.update(self._task, values=f"{readable(values())}  {speed:,.0f} samples/s")

    def close(self) -> None:
        self._bar.stop()


def readable(values: Mapping[str, Any]) -> str:
    """``loss 0.5312  accuracy 83.10 %  12.3 s``"""
    texts = []
    for name, value in values.items():
        if name == "epoch":
            continue
        if name.removeprefix("validation_").startswith(("accuracy", "error", "top_")):
            texts.append(f"{name} {100 * value:.2f} %")
        elif name == "seconds":
            texts.append(f"{value:.1f} s")
        else:
            texts.append(f"{name} {value:.4g}" if isinstance(value, (int, float)) else f"{name} {value}")
    return "  ".join(texts)
