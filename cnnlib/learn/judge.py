"""The judge's side of the border: start child processes, hand them texts and arguments, take arrays back within limits.

>>> from cnnlib.learn.judge import Call, Worker
>>> with Worker() as worker:
...     run = worker.run(b"def twice(x): return 2 * x", ("twice",), [Call("twice", (3,))])
>>> run.results[0].value
6

A worker starts warm, with NumPy imported, and is told what to run later: whoever wants a quick answer starts it early. A
learner's text gets a worker of its own, which then ends. Only texts of ours may share one (``run(..., keep=True)``).
Everything goes through ``subprocess``, so that it works alike where there is no fork.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib.learn import wire
from cnnlib.learn.trouble import SENTENCES, Trouble

CHILD = Path(__file__).with_name("child.py")
SECONDS = 10.0
MEGABYTES = 1024
GRACE = 2.0  # how much later than the child's own watchdog we give up on it
START = 60.0  # for a child to start on a busy machine
LARGEST_FILE = 1_000_000  # bytes of a learner's text
ROOM = 4 * wire.LARGEST  # bytes that we take from a child for one text


@dataclass(frozen=True)
class Call:
    """One call: of which function, with which arguments; ``layout="strided"``: arrays with gaps, read-only."""

    function: str
    args: tuple
    layout: str = ""


@dataclass
class Result:
    """What one call gave: a value, or the trouble; and the positions of the arguments that the call wrote to."""

    value: Any = None
    trouble: Trouble | None = None
    mutated: tuple[int, ...] = ()


@dataclass
class Run:
    """What a whole text gave. ``trouble`` is about the text as a whole and ended it; there may be fewer results then."""

    results: list[Result] = field(default_factory=list)
    trouble: Trouble | None = None
    printed: str = ""
    printed_count: int = 0
    seconds: float = 0.0


class Worker:
    """A child process that waits for a text to run."""

    def __init__(self) -> None:
        self.scratch = tempfile.mkdtemp(prefix="cnnlib-learn-")
        home = str(Path(np.__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", str(CHILD), self.scratch, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.scratch,
            env=_environment(self.scratch),
            start_new_session=os.name == "posix",
        )
        self.frames: queue.SimpleQueue = queue.SimpleQueue()
        self.room = ROOM
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while self.room > 0 and (frame := wire.receive(self.process.stdout)) is not None:  # type: ignore[arg-type]
                self.room -= 1000 + sum(map(len, frame[1]))
                self.frames.put(frame)
        except (wire.BadFrame, OSError, ValueError):
            pass
        self.frames.put(None)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def run(
        self,
        source: bytes,
        functions: Sequence[str],
        calls: Sequence[Call],
        *,
        filename: str = "exercise.py",
        given: str = "",
        seconds: float = SECONDS,
        megabytes: int = MEGABYTES,
        keep: bool = False,
    ) -> Run:
        """Load ``source``, make the calls, and bring back what came. Ends the process unless ``keep``."""
        blobs = [source]
        request = {
            "source": 0,
            "filename": filename,
            "functions": list(functions),
            "given": given,
            "seconds": seconds,
            "megabytes": megabytes,
            "calls": [{"function": c.function, "args": [wire.encode(a, blobs, c.layout) for a in c.args]} for c in calls],
        }
        run = Run(trouble=unreadable(source))
        ended = run.trouble is None
        try:
            if run.trouble is None:
                self.room = ROOM
                wire.send(self.process.stdin, request, blobs)  # type: ignore[arg-type]
                ended = not self._collect(run, filename, seconds)
                if run.trouble is None and len(run.results) != len(calls):
                    run.trouble = Trouble("ended", f"{len(run.results)} of {len(calls)} calls were answered")
        except OSError:
            run.trouble = self._death(filename, seconds)
        finally:
            if ended or not keep:
                self.close()
        return run

    def _collect(self, run: Run, filename: str, seconds: float) -> bool:
        """Put what arrives into ``run``; whether the child is ready for the next text."""
        started, deadline = time.monotonic(), time.monotonic() + START
        while True:
            try:
                frame = self.frames.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                run.trouble = run.trouble or Trouble("timeout", f"{seconds:g}")
                return False
            finally:
                run.seconds = time.monotonic() - started
            if frame is None:
                run.trouble = run.trouble or self._death(filename, seconds)
                return False
            if frame[0] == "begins":  # the clock starts when NumPy is imported, however busy the machine is
                started, deadline = time.monotonic(), min(deadline, time.monotonic() + seconds + GRACE)
                continue
            try:
                if _take(run, *frame):
                    return True
            except Exception:  # whatever a hostile child may have written
                run.trouble = run.trouble or Trouble("ended", "its answer could not be read")
                return False

    def _death(self, filename: str, seconds: float) -> Trouble:
        """Why the process ended by itself: the watchdog's or a crash's traceback names the line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        code = self.process.poll()
        try:
            with open(Path(self.scratch, "trace"), errors="replace") as f:
                trace = f.read(100_000)
        except OSError:
            trace = ""
        found = re.search(rf'File "{re.escape(filename)}", line (\d+)', trace)
        line = int(found[1]) if found else None
        if "Timeout (" in trace:
            return Trouble("timeout", f"{seconds:g}", line)
        if "Fatal Python error" in trace or (code is not None and code < 0):
            reason = re.search(r"Fatal Python error: (.*)", trace)
            return Trouble("ended", reason[1] if reason else f"signal {-(code or 0)}", line)
        return Trouble("ended", f"exit code {code}", line)

    def close(self) -> None:
        """End the process and remove its scratch folder."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def unreadable(source: bytes) -> Trouble | None:
    """What is wrong with a file before any of it runs."""
    if len(source) > LARGEST_FILE:
        return Trouble("empty", f"your file has {len(source):,} bytes: an answer has a few thousand")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        return Trouble("encoding", f"byte 0x{source[e.start]:02x}", source.count(b"\n", 0, e.start) + 1)
    if not text.strip():
        return Trouble("empty", "your file is empty: `cnnlib learn reset` writes the starter again")
    return None


def _take(run: Run, message: dict[str, Any], blobs: list[bytes]) -> bool:
    """Add one message to ``run``; True after the last one."""
    if "done" in message:
        run.printed, run.printed_count = _clean(message["printed"]), int(message["count"])
        return True
    if "refused" in message:
        kind = message["refused"] if message["refused"] in SENTENCES else "ended"
        run.trouble = run.trouble or Trouble(kind, _clean(message["what"]), _line(message))
    elif "overwritten" in message:
        for i in message["overwritten"]:
            run.results[i].trouble = Trouble("overwritten")
    elif "load" in message:
        run.trouble = run.trouble or _raised(message["load"])
    elif "missing" in message:
        run.trouble = run.trouble or Trouble("missing", _clean(message["missing"]))
    elif message["call"] != len(run.results):
        raise wire.BadFrame("calls out of order")
    elif "raised" in message:
        run.results.append(Result(trouble=_raised(message["raised"])))
    else:
        mutated = tuple(int(i) for i in message["mutated"])
        run.results.append(Result(value=wire.decode(message["value"], blobs), mutated=mutated))
    return False


def _raised(error: dict[str, Any]) -> Trouble:
    name, text, line = _clean(error["error"]), _clean(error["text"]), _line(error)
    kinds = {"SystemExit": "exit", "MemoryError": "memory", "SyntaxError": "syntax", "IndentationError": "syntax"}
    kinds |= {"TabError": "syntax", "_ArrayMemoryError": "memory"}
    return Trouble(kinds.get(name, "raised"), text if kinds.get(name) == "syntax" else f"{name}: {text}".rstrip(": "), line)


def _clean(text: str) -> str:
    """Without what would move a terminal's cursor or could not be written to a file."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _line(message: dict[str, Any]) -> int | None:
    return None if message["line"] is None else int(message["line"])


def _environment(scratch: str) -> dict[str, str]:
    """Nothing of ours: only what a process needs to start, and one thread for the matrix products."""
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG")}
    keep |= {name: scratch for name in ("TMPDIR", "TEMP", "TMP")}
    return keep | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
