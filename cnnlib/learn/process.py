"""Work with a learner's code in a process of its own: one JSON task in, JSON lines out, and an end when the time is up.

The judge has a stricter child (`cnnlib.learn.judge`); this one serves `cnnlib.learn.training` and `cnnlib.learn.fast`, which
run code that has passed already. It is no sandbox.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cnnlib
from cnnlib.errors import LearnerError
from cnnlib.learn.exercise import Exercise, given_text, load

Event = dict[str, Any]


class TooSlow(LearnerError):
    """Not done within the limit."""


def events(module: str, task: Event, limit: float) -> Iterator[Event]:
    """Start ``python -m module`` with ``task``; yield the events that it sends, the last of which must be a "result".

    Raises LearnerError when the learner's code fails there or ends the process, TooSlow when it is not done within ``limit``
    seconds.
    """
    paths = [str(Path(cnnlib.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],  # -P: a numpy.py in the learner's folder is not imported
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    try:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True).start()
        yield from _until_result(lines, process, time.monotonic() + limit, limit)
    finally:
        process.kill()
        process.wait()


def _forward(stream: Any, lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")  # the end


def _until_result(lines: queue.SimpleQueue[str], process: subprocess.Popen, deadline: float, limit: float) -> Iterator[Event]:
    while True:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            raise TooSlow(f"your function was not done after {limit:.0f} s: it was stopped.") from None
        if not line:
            raise LearnerError(f"the process that ran your function ended by itself, with exit code {process.wait()}.")
        event = json.loads(line)
        if event["event"] == "error":
            raise LearnerError(event["message"])
        yield event
        if event["event"] == "result":
            return


# ---- inside the child


def serve(work: Callable[[Event, Callable[[Event], None]], None]) -> None:
    """Run ``work(task, send)`` on the task from standard input; what the learner's code prints goes nowhere."""
    task = json.load(sys.stdin)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)

    def send(event: Event) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    try:
        work(task, send)
    except BaseException as error:
        send({"event": "error", "message": _where(error, task["path"])})


def learners_functions(exercise: Exercise, path: Path) -> tuple[Callable, ...]:
    """The functions that the exercise asks for, out of the learner's file."""
    return load(text_of(path), exercise.function_names, str(path), given_text(exercise))


def text_of(path: Path) -> str:
    """Of a Python file, without the mark that some editors put in front."""
    return path.read_text(encoding="utf-8-sig")


def _where(error: BaseException, path: str) -> str:
    """``ValueError: …, in line 12 of 14_conv2d_backward.py`` where the learner's file had a part in it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text[:300]}, in line {lines[-1]} of {Path(path).name}" if lines else text[:300]
