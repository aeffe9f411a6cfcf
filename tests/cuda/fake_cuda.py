"""The part of the stand-in that is ``cupy.cuda``: streams, events, memory, and graphs.

The device does at once what it is asked for, but for copies out of pinned memory: those happen when an event recorded after
them is waited for, so that who forgets to wait reads memory that was never filled.

While a graph is recorded everything is done, too, for the shapes of results; it is undone at the end, as if it had only been
written down, and done anew at each launch, into the same memory.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np

synchronisations: list[str] = []


class CUDARuntimeError(RuntimeError): ...


class Graph:
    def __init__(self):
        self.steps, self.before, self.launches = [], [], 0

    def launch(self, stream=None):
        self.launches += 1
        for compute, results in self.steps:
            for old, new in zip(results, _arrays(compute()), strict=True):
                if not np.shares_memory(old, new):
                    old[...] = new


_recording: Graph | None = None


def do(compute, written=()):
    """What the device is asked for; ``written``: memory of before that it changes."""
    with np.errstate(all="ignore"):  # a device does not warn
        if _recording is None:
            return compute()
        _recording.before += [(a, a.copy()) for a in written]
        result = compute()
        result = np.asarray(result) if isinstance(result, np.generic) else result
        _recording.steps.append((compute, _arrays(result)))
        return result


def _arrays(result):
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return [a for a in map(np.asarray, parts) if a.dtype != object]


def wait(what: str) -> None:
    """The host waits for the device."""
    if _recording is not None:
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
    synchronisations.append(what)


def from_host(size: int) -> None:
    """As CuPy, by pinned memory. CUDA records such a copy; a replay reads what is there by then."""
    _pinned_allocator(size)
    if _recording is not None:
        raise AssertionError("a copy from the host was recorded: at a replay its memory would be another's")


def set_pinned_memory_allocator(allocator) -> None:
    global _pinned_allocator
    _pinned_allocator = allocator


class PinnedMemoryPool:
    def malloc(self, size): ...


pinned_pool = PinnedMemoryPool()
_pinned_allocator = pinned_pool.malloc


def not_recorded(library: str) -> None:
    """A library that works, but not while a graph is recorded."""
    if _recording is not None:
        raise NotImplementedError(f"calling {library} API during stream capture is currently unsupported")


class Event:
    def __init__(self, upto=()):
        self.upto = list(upto)

    def record(self, stream=None):
        self.upto = list((stream or get_current_stream()).pending)

    def synchronize(self):
        _finish(self.upto)


def get_elapsed_time(start, end):
    return 1.0


def _finish(copies):
    for copy in copies:
        copy()


class Stream:
    def __init__(self, non_blocking=False):
        self.pending = []

    def later(self, copy):
        """Each is done once."""

        def once():
            if once in self.pending:
                self.pending.remove(once)
                copy()

        self.pending.append(once)

    def record(self):
        return Event(self.pending)

    def wait_event(self, event):
        _finish(event.upto)

    def synchronize(self):
        wait("stream")
        _finish(list(self.pending))

    def __enter__(self):
        _current.append(self)
        return self

    def __exit__(self, *exc):
        _current.remove(self)

    def is_capturing(self):
        return _recording is not None

    def begin_capture(self):
        global _recording
        if self is _null:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the default stream cannot be captured")
        _recording = Graph()

    def end_capture(self):
        global _recording
        graph, _recording = _recording, None
        for a, values in reversed(graph.before):
            a[...] = values
        return graph


_null = Stream()
_current = [_null]


def get_current_stream():
    return _current[-1]


class MemoryPool:
    def malloc(self, n): ...

    def free_all_blocks(self):
        self.freed = True

    def total_bytes(self):
        return 123_000_000

    def used_bytes(self):
        return 0


pool = MemoryPool()
using_allocator = contextlib.nullcontext


class Device:
    mem_info = (1_000_000_000, 80_000_000_000)

    @property
    def attributes(self):
        from tests.cuda.emulator import MULTIPROCESSORS

        return {"MultiProcessorCount": MULTIPROCESSORS}


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory's."""


memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)


runtime = SimpleNamespace(
    getDevice=lambda: 0,
    getDeviceProperties=lambda device: {"name": b"the stand-in", "multiProcessorCount": 2},
    runtimeGetVersion=lambda: 12090,
)


def empty_pinned(shape, dtype):
    """Of cupyx."""
    return np.empty(shape, dtype)
