"""Which kernels run: dispatch by where an array lives, and ``use``, ``override``, ``override_kernel``, ``shadow``.

A backend is a :class:`KernelSet`: one attribute per kernel of ``interface.py``.

- ``reference``: the textbook functions of ``cnnlib/ops/``, registered with :func:`kernel`. They run on NumPy and CuPy.
- ``cpu``: the compiled kernels for NumPy arrays.
- ``cuda``: the kernels for CuPy arrays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from cnnlib.backends.state import Changed, State, current
from cnnlib.errors import DeviceError, unknown_name

F = TypeVar("F", bound=Callable)


class KernelSet(SimpleNamespace):
    """The kernels of one backend as attributes, and its ``name``."""

    name: str


REFERENCE = KernelSet(name="reference")


def kernel(function: F) -> F:
    """Register a textbook kernel: it becomes the reference backend's, under its own name."""
    setattr(REFERENCE, function.__name__, function)
    return function


def xp_of(x: Any):
    """The array module of ``x``: cupy for a CuPy array, else numpy."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def on_gpu(x: Any) -> bool:
    """Whether looking at a value of ``x`` would make the host wait for a GPU."""
    return xp_of(x) is not np


def synchronize(x: Any) -> None:
    """Wait until the GPU has computed ``x``; an array on the CPU is there already. For timing and for errors, not for loops."""
    if on_gpu(x):
        xp_of(x).cuda.get_current_stream().synchronize()


def readable(a: Any) -> Any:
    """``a``, or a copy where kernels could not read it: they want C-contiguous and aligned (``np.frombuffer`` may not be)."""
    flags = a.flags
    aligned = flags.aligned if hasattr(flags, "aligned") else a.data.ptr % a.itemsize == 0  # CuPy's flags do not say
    return a if flags.c_contiguous and aligned else a.copy()


def available() -> dict[str, str | None]:
    """Each backend with the reason why it cannot be used here, or None where it can."""
    from cnnlib.backends import cpu, cuda

    return {"reference": None, "cpu": cpu.why_not(), "cuda": cuda.why_not()}


_loaded: dict[str, KernelSet] = {"reference": REFERENCE}


def kernel_set(name: str) -> KernelSet:
    """The backend called ``name``; DeviceError with the reason when it cannot be used here."""
    if name not in _loaded:
        if name not in ("cpu", "cuda"):
            raise unknown_name("backend", name, ("reference", "cpu", "cuda"))
        from cnnlib.backends import cpu, cuda

        module = cpu if name == "cpu" else cuda
        if reason := module.why_not():
            raise DeviceError(f"backend {name!r} is not available: {reason} Run `cnnlib doctor` for what to do.")
        _loaded[name] = KernelSet(name=name, **module.kernels())
    return _loaded[name]


def _process_default() -> str:
    """The CPU backend that a new process starts with: $CNNLIB_BACKEND, else compiled where built, else the textbook."""
    name = os.environ.get("CNNLIB_BACKEND")
    if name is None:
        from cnnlib.backends import cpu

        return "cpu" if cpu.available() else "reference"
    return _cpu_backend(name)


def _cpu_backend(name: str) -> str:
    if name == "cuda":
        raise DeviceError("use('cuda'): where an array lives decides: model.to('cuda') and tensor.to('cuda') run on the GPU.")
    if name not in ("cpu", "reference"):
        raise unknown_name("CPU backend", name, ("cpu", "reference"))
    kernel_set(name)
    return name


_process: str | None = None  # what a new process starts with, found out at first use
_choices: list[use] = []  # calls of use() that were not blocks: the last one holds


def backend() -> str:
    """Name of the backend that runs on NumPy arrays here and now."""
    global _process
    chosen = current().backend
    if chosen is None and _choices:
        chosen = _choices[-1].name
    if chosen is None:
        if _process is None:
            _process = _process_default()
        chosen = _process
    return chosen


def kernels_for(array: Any, state: State) -> KernelSet:
    """The kernels that an operation on ``array`` binds at forward: by device, then ``override_kernel``, then ``shadow``."""
    name = backend() if type(array) is np.ndarray or xp_of(array) is np else "cuda"
    kernels = kernel_set(name)
    if state.kernel_overrides:
        kernels = KernelSet(**{**vars(kernels), **state.kernel_overrides})
    if state.shadow is not None:
        from cnnlib.backends.shadow import shadowed

        kernels = shadowed(kernels, kernel_set(state.shadow))
    return kernels


class use:
    """Choose the kernels for NumPy arrays: ``"cpu"`` (compiled) or ``"reference"`` (the textbook in ``cnnlib/ops/``).

    As a call it sets the choice of the process; as a ``with`` block it holds inside the block, in this thread, only:

    >>> import cnnlib as cl
    >>> with cl.use("reference"):
    ...     cl.backend()
    'reference'

    An operation's backward runs on the backend that its forward was bound to, whatever is in use by then.
    Raises UnknownNameError for another name, DeviceError when the compiled kernels were not built.
    """

    def __init__(self, name: str):
        self.name = name
        self._block = Changed(backend=_cpu_backend(name))
        _choices.append(self)

    def __enter__(self):
        if self in _choices:
            _choices.remove(self)  # it was a block after all, not a choice for the process
        self._block.__enter__()
        return self

    def __exit__(self, *exc):
        self._block.__exit__(*exc)


class override(Changed):
    """Inside the block, operation ``op`` uses your ``forward`` and/or ``backward`` in place of its own.

    Signatures are those of the op: ``forward(ctx, *arrays, **settings)`` and ``backward(ctx, *dys)``. Binding happens at
    forward: a graph recorded inside the block uses your backward even when ``.backward()`` is called after it.

    >>> import cnnlib as cl, numpy as np
    >>> def leaky(ctx, dy):
    ...     return np.where(ctx.y > 0, dy, 0.1 * dy)
    >>> x = cl.Tensor([-1.0, 2.0], requires_grad=True)
    >>> with cl.override(cl.ops.ReLU, backward=leaky):
    ...     cl.ops.relu(x).sum().backward()
    >>> x.grad
    array([0.1, 1. ], dtype=float32)
    """

    def __init__(self, op: type, forward: Callable | None = None, backward: Callable | None = None):
        if not (isinstance(op, type) and hasattr(op, "apply")):
            raise TypeError(f"override: the first argument is an Op class such as ops.Conv2d, got {op!r}.")
        if forward is None and backward is None:
            raise TypeError(f"override({op.__name__}): pass forward=, backward= or both.")
        super().__init__()
        self._op, self._pair = op, (forward, backward)

    def changes(self):
        outer = current().overrides
        forward, backward = outer.get(self._op, (None, None))
        pair = (self._pair[0] or forward, self._pair[1] or backward)
        return {"overrides": {**outer, self._op: pair}}


class override_kernel(Changed):
    """Inside the block, ``function`` runs in place of the kernel ``name`` (one of ``interface.py``), on every backend."""

    def __init__(self, name: str, function: Callable):
        known = [k for k in vars(REFERENCE) if k != "name"]
        if name not in known:
            raise unknown_name("kernel", name, known)
        super().__init__()
        self._kernel = {name: function}

    def changes(self):
        return {"kernel_overrides": {**current().kernel_overrides, **self._kernel}}


class shadow(Changed):
    """Inside the block, every kernel also runs on backend ``name``; the first that disagrees raises ShadowError naming it.

    >>> import cnnlib as cl
    >>> with cl.shadow("reference"):
    ...     _ = cl.ops.relu(cl.Tensor([-1.0, 2.0]))
    """

    def __init__(self, name: str):
        kernel_set(name)
        super().__init__(shadow=name)
