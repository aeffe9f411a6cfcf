"""A training step as a CUDA graph: recorded once, and from then on one launch.

A small network's step is a hundred kernels of some microseconds each: the GPU computes them faster than Python can ask for
them. A graph keeps their list on the GPU. What it replays is exactly what was recorded, with the same addresses and numbers; so

- arrays stay where they are: x and y are copied into the recorded step's inputs, parameters and optimiser state are written in
  place anyway, buffers (the running statistics of batch norm) are copied back at the end of the step, and everything in
  between lives in a memory pool of its own;
- numbers that change from step to step are read from the GPU's memory: the call counters of random streams, the learning
  rate and the number of the step. Before each replay they are computed as ever, and sent in one copy.

Then a graph gives the same weights as the same steps one by one. CuPy does not record cuBLAS, so that matrix products are those
of csrc/conv.cu, in the recorded step as in the eager ones before it. Steps one by one that do without cuBLAS, too
(backends/cuda/recordable.py), give equal bits, but where the GPU's power in Adam's 1 − βᵗ is not the host's to the last bit
of a float64; training with cuBLAS rounds otherwise.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cnnlib import random
from cnnlib.backends import KernelSet, kernel_set, override_kernel
from cnnlib.backends.cuda.recordable import recordable
from cnnlib.errors import GraphError
from cnnlib.nn.module import Module
from cnnlib.optim import Optimizer
from cnnlib.tensor import Tensor
from cnnlib.train.device import operation_of

EAGER_STEPS = 2  # of each shape of batch, before it is recorded: kernels get compiled, the optimiser makes its state
UPDATES = ("sgd_step", "adagrad_step", "rmsprop_step", "adam_step")


class StepGraph:
    """``compute(x, y)``: forward, backward and the step of ``optimizer``, of which it returns what is wanted.

    Call it as ``compute``. Batches of each shape are computed eagerly first, then recorded, then replayed; from then on it
    returns the same arrays each time, with new values.

    Raises GraphError when the step cannot be recorded: something in it waits for the GPU or takes numbers from the host.
    """

    def __init__(self, compute: Callable[[Tensor, Any], Any], model: Module, optimizer: Optimizer):
        if not optimizer.recordable:
            raise GraphError(f"cuda_graph: {type(optimizer).__name__} draws noise beside its kernel and cannot be recorded: "
                             "train without cuda_graph.")  # fmt: skip
        self.compute, self.model, self.optimizer = compute, model, optimizer
        self._seen: dict[tuple, int] = {}
        self._recorded: dict[tuple, _Recorded] = {}

    def __call__(self, x: Tensor, y: Any) -> Any:
        shapes = x.shape, x.dtype.str, y.shape, y.dtype.str, random.get_state()["seed"]
        if shapes in self._recorded and self._recorded[shapes].is_stale():
            del self._recorded[shapes]
        if shapes not in self._recorded:
            self._seen[shapes] = self._seen.get(shapes, 0) + 1
            if self._seen[shapes] <= EAGER_STEPS:
                with recordable():
                    return self.compute(x, y)
            self._recorded[shapes] = _Recorded(self, x, y)
            return self._recorded[shapes].launch(x, y)
        return self._recorded[shapes].replay(x, y)


class _Recorded:
    """The graph of batches of one shape."""

    def __init__(self, step: StepGraph, x: Tensor, y: Any):
        import cupy

        self.step = step
        self.x, self.y = Tensor(cupy.empty_like(x.data)), cupy.empty_like(y)
        self.tables = {"lr": _Table("float64"), "step": _Table("int64")}
        self.calls = _Table("int64")  # of each draw
        self.streams: list[str] = []  # its stream
        self.pool = cupy.cuda.MemoryPool()
        self.buffers = [(m, name, getattr(m, name)) for m in step.model.modules() for name in m._buffers]
        self.learnt = self._learnt()
        self.graph = self._record(cupy.cuda.Stream(non_blocking=True))
        self.grads = [p.grad for p in step.optimizer.params]

    def _record(self, stream: Any) -> Any:
        import cupy

        with contextlib.ExitStack() as inside:
            inside.enter_context(cupy.cuda.using_allocator(self.pool.malloc))
            inside.enter_context(stream)
            inside.enter_context(random.recording(self._call))
            inside.enter_context(_updates(self._live_update))
            inside.enter_context(recordable())
            inside.enter_context(_no_copies_from_the_host())
            stream.begin_capture()
            try:
                self.result = self.step.compute(self.x, self.y)
                self._bring_back_buffers()
            except Exception as error:
                with contextlib.suppress(Exception):  # the capture is void already
                    stream.end_capture()
                if isinstance(error, MemoryError):
                    raise  # the trainer knows what helps (device.py)
                raise _not_recordable(error) from error
            return stream.end_capture()

    def _bring_back_buffers(self) -> None:
        """Where a step, recorded or not, has given a module a new array, its values go to the one that the graph knows."""
        for module, name, known in self.buffers:
            if getattr(module, name) is not known:
                known[...] = getattr(module, name)
                module.set_buffer(name, known)

    def _learnt(self) -> list[Any]:
        """What the step writes in place: parameters, and the optimiser's state."""
        optimizer = self.step.optimizer
        states = [a for state in optimizer.state for name, a in sorted(state.items()) if name != "step"]
        return [p.data for p in optimizer.params] + states

    def is_stale(self) -> bool:
        """Whether a checkpoint has put other arrays in the place of those that the graph knows."""
        now = self._learnt()
        return len(now) != len(self.learnt) or any(a is not b for a, b in zip(now, self.learnt, strict=True))

    def replay(self, x: Tensor, y: Any) -> Any:
        self._bring_back_buffers()
        for p, grad in zip(self.step.optimizer.params, self.grads, strict=True):
            p.grad = grad
        for table in self.tables.values():
            table.values.clear()
        self.calls.values = [random.next_key(stream).call for stream in self.streams]
        with _updates(self._note_update):
            self.step.optimizer.step()
        return self.launch(x, y)

    def launch(self, x: Tensor, y: Any) -> Any:
        for table in (*self.tables.values(), self.calls):
            table.send()
        self.x.data[...] = x.data
        self.y[...] = y
        self.graph.launch()
        return self.result

    def _call(self, stream: str, call: int) -> Any:
        """While recording: where the number of this draw will stand."""
        self.streams.append(stream)
        return self.calls.place(call)

    def _live_update(self, kernel: Callable, changing: dict[int, str]) -> Callable:
        """While recording: the update with the changing ones of its arguments read from the table."""

        def update(*arguments: Any) -> None:
            kernel(*[self.tables[changing[i]].place(a) if i in changing else a for i, a in enumerate(arguments)])

        return update

    def _note_update(self, kernel: Callable, changing: dict[int, str]) -> Callable:
        """Before a replay: nothing but the changing arguments, which go into the table."""

        def update(*arguments: Any) -> None:
            for i, name in changing.items():
                self.tables[name].values.append(arguments[i])

        return update


class _Table:
    """Numbers in the GPU's memory that a recorded step reads."""

    ROOM = 1 << 16

    def __init__(self, dtype: str):
        import cupy

        self.values: list[Any] = []
        self.there = cupy.zeros(self.ROOM, dtype)

    def place(self, value: Any) -> Any:
        """The array of no dimension where ``value`` will stand."""
        n = len(self.values)
        if n == self.ROOM:
            raise GraphError(f"cuda_graph: a step with more than {self.ROOM} changing numbers cannot be recorded.")
        self.values.append(value)
        return self.there[n : n + 1].reshape(())

    def send(self) -> None:
        import cupy

        if self.values:
            self.there[: len(self.values)] = cupy.asarray(np.array(self.values, self.there.dtype))


@contextlib.contextmanager
def _no_copies_from_the_host() -> Iterator[None]:
    """CUDA would record such a copy, and a replay read its pinned memory, where by then other numbers are."""
    import cupy

    def refuse(size: int) -> None:
        raise GraphError(f"{size} bytes would be copied from the host, once, while each step needs them")

    cupy.cuda.set_pinned_memory_allocator(refuse)
    try:
        yield
    finally:
        cupy.cuda.set_pinned_memory_allocator(cupy.get_default_pinned_memory_pool().malloc)


@contextlib.contextmanager
def _updates(change: Callable[[Callable, dict[int, str]], Callable]) -> Iterator[None]:
    """Inside, the optimisers' kernels are what ``change`` makes of them and of the places of their changing arguments."""
    kernels: KernelSet = kernel_set("cuda")
    with contextlib.ExitStack() as stack:
        for update in UPDATES:
            kernel = getattr(kernels, update)
            changing = {i: name for i, name in enumerate(inspect.signature(kernel).parameters) if name in ("lr", "step")}
            stack.enter_context(override_kernel(update, change(kernel, changing)))
        yield


def _not_recordable(error: Exception) -> GraphError:
    where = f" in {running}" if (running := operation_of(error)) else ""
    why = str(error).splitlines()[0].rstrip(".") if str(error) else "no message"
    return GraphError(
        f"cuda_graph: the step cannot be recorded{where}: {type(error).__name__}: {why}. "
        "Inside a recorded step nothing may wait for the GPU or come from the host: train without cuda_graph."
    )
