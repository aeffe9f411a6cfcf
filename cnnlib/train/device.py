"""Training on a GPU: batches that arrive while the step before still computes, and an error that helps when memory ends.

The GPU works behind the host: an operation is only asked for, and its arrays are filled later, in the order of a stream. A
batch is copied on a stream of its own, from pinned memory (which the system never moves, so that the copy needs no processor)::

    compute stream   step k − 1   | step k           | step k + 1
    copy stream                   | copy batch k + 1 | copy batch k + 2

Two rules keep this right. A copy waits until the steps that may still read the memory that it was given are done, and a step
waits for the copy of its own batch.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from cnnlib.errors import DeviceMemoryError
from cnnlib.op import Context

Batch = tuple[Any, ...]


def on_device(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """The batches, with their arrays on ``device``; on a GPU the next one is on its way while a step computes."""
    if device == "cpu":
        yield from batches
        return
    import cupy

    copies = cupy.cuda.Stream(non_blocking=True)
    ahead = None
    try:
        for batch, place in zip(batches, itertools.cycle((_Pinned(), _Pinned()))):
            coming = place.send(batch, copies)
            if ahead is not None:
                yield _arrived(*ahead)
            ahead = coming
        if ahead is not None:
            yield _arrived(*ahead)
    finally:
        copies.synchronize()  # a copy must not end in memory that was given back meanwhile


class _Pinned:
    """Pinned memory for one batch, and when the last copy out of it is done."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.sent: Any = None

    def send(self, batch: Batch, copies: Any) -> tuple[Batch, Any]:
        """Start to copy ``batch``; the arrays on the GPU, and the event after which they are filled."""
        import cupy

        if self.sent is not None:
            self.sent.synchronize()  # of two batches ago: the host runs no further ahead than that
        if [(a.shape, a.dtype) for a in self.arrays] != [(a.shape, a.dtype) for a in batch]:
            self.arrays = [_pinned_like(a) for a in batch]
        arrays = tuple([cupy.empty(a.shape, a.dtype) for a in batch])
        copies.wait_event(cupy.cuda.get_current_stream().record())
        for pinned, a, there in zip(self.arrays, batch, arrays, strict=True):
            pinned[...] = a
            there.set(pinned, stream=copies)
        self.sent = copies.record()
        return arrays, self.sent


def _pinned_like(a: Any) -> Any:
    import cupyx

    return cupyx.empty_pinned(a.shape, a.dtype)


def _arrived(arrays: Batch, sent: Any) -> Batch:
    import cupy

    cupy.cuda.get_current_stream().wait_event(sent)
    return arrays


@contextlib.contextmanager
def memory_errors(device: str, batch_size: int | None) -> Iterator[None]:
    """Inside, CuPy's out-of-memory becomes a DeviceMemoryError: what was being allocated where, and what to do."""
    if device == "cpu":
        yield
        return
    import cupy

    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        where = f"{running}: " if (running := operation_of(error)) else ""
        message = str(error).rstrip(".")
        error.__traceback__ = None  # its frames hold the arrays of the step
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        free, total = cupy.cuda.Device().mem_info
        smaller = f"batch_size={max(1, batch_size // 2)} instead of {batch_size}" if batch_size else "a smaller batch"
        raise DeviceMemoryError(
            f"{where}{message}. After freeing the pool, {free / 1e9:.2f} of the GPU's {total / 1e9:.2f} GB are free. "
            f"Try {smaller}, or smaller pictures or sequences; other processes may hold memory, too (nvidia-smi)."
        ) from None


def operation_of(error: BaseException) -> str:
    """``"conv1.conv2d"``, the innermost operation that was running; empty outside of operations."""
    where, step = "", error.__traceback__
    while step is not None:
        ctx = step.tb_frame.f_locals.get("ctx")
        if isinstance(ctx, Context):
            where = ctx.where()
        step = step.tb_next
    return where


def memory_summary(device: str) -> str:
    """``"GPU memory: 1,204 MB held at most"`` for the end of a run; empty on the CPU."""
    if device == "cpu" or "cupy" not in sys.modules:
        return ""
    from cnnlib.backends.cuda import pool_bytes

    return f"GPU memory: {pool_bytes() / 1e6:,.0f} MB held by the pool, which is the most that was needed so far"
