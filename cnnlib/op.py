"""Operations with a hand-written backward on raw arrays, and how running one puts it on the tape.

An operation is a class with two static methods, next to each other::

    class Multiply(Op):
        formula = "y = a b"

        @staticmethod
        def forward(ctx, a, b):
            ctx.save(a=a, b=b)
            return a * b

        @staticmethod
        def backward(ctx, dy):
            return dy * ctx.b, dy * ctx.a

``forward`` gets arrays and returns an array or a tuple of arrays. ``backward`` gets one adjoint per output (None where
none arrived) and returns one adjoint (or None) per array argument of ``forward``. There is no double backprop.
``tape.py`` walks back.

Source: lecture: backpropagation; Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", 1986.
"""

from __future__ import annotations

import inspect
import itertools
import re
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from cnnlib.backends import kernels_for, readable, xp_of
from cnnlib.backends.state import Changed, State, current, scope
from cnnlib.errors import DeviceError, DtypeError, NonFiniteError, ValueRangeError
from cnnlib.tensor import Parameter, Tensor

_sequence = itertools.count()


class no_grad(Changed):
    """Inside the block nothing is recorded and no intermediates are kept."""

    def __init__(self):
        super().__init__(grad=False)


class check_finite(Changed):
    """Inside the block every output and every adjoint is checked; the first NaN or infinity raises NonFiniteError naming it.

    In a recurrent layer it names the time step and the gate, too.
    """

    def __init__(self):
        super().__init__(check_finite=True)


class Edge:
    """An input that is output ``index`` of the operation ``ctx``, without its values."""

    __slots__ = ("ctx", "dtype", "index", "shape")

    def __init__(self, ctx: Context, index: int, shape: tuple[int, ...], dtype: Any):
        self.ctx, self.index, self.shape, self.dtype = ctx, index, shape, dtype


class Context:
    """What one run of an operation binds at forward and keeps for backward.

    - ``ctx.save(x=x, w=w)`` in forward, then ``ctx.x``, ``ctx.w`` in backward: the saved values are public, by name.
    - ``ctx.needs``: per array argument, whether its adjoint is wanted; backward may return None for the others.
    - ``ctx.xp``: numpy or cupy. ``ctx.kernels``: the kernels of the backend bound at forward.
    - ``ctx.settings``: the keyword settings of the call.
    """

    __slots__ = ("__dict__", "backward", "check_finite", "freed", "inputs", "kernels", "needs", "non_differentiable", "op",
                 "outputs", "recorder", "scope", "sequence", "settings", "versions", "xp")  # fmt: skip

    sequence: int
    versions: list[int]
    outputs: int
    recorder: Any
    check_finite: bool

    def __init__(self, op: type[Op], kernels: Any, xp: Any, needs: tuple[bool, ...], settings: dict[str, Any]):
        self.op, self.kernels, self.xp, self.needs, self.settings = op, kernels, xp, needs, settings
        self.backward: Callable = op.backward
        self.freed = False
        self.non_differentiable: tuple[int, ...] = ()
        self.scope = scope.get()
        self.inputs: tuple = ()

    def save(self, **values: Any) -> None:
        """Keep values for backward, readable there as attributes."""
        if not _RESERVED.isdisjoint(values):
            taken = ", ".join(sorted(_RESERVED & values.keys()))
            raise ValueRangeError(f"{self.op.name()}: ctx.save cannot use the name {taken}: the engine has it. Choose another.")
        self.__dict__.update(values)

    @property
    def saved(self) -> dict[str, Any] | None:
        """What forward saved, by name; None once backward has freed it."""
        return None if self.freed else self.__dict__

    def free(self) -> None:
        """Let go of what was saved, and of the inputs."""
        self.freed, self.inputs = True, ()
        self.__dict__.clear()

    def mark_non_differentiable(self, *indices: int) -> None:
        """Declare that the outputs with these indices carry no gradient."""
        self.non_differentiable = indices

    def where(self) -> str:
        """Module path and operation, for messages: ``features.0.conv2d``."""
        return f"{self.scope}.{self.op.name()}" if self.scope else self.op.name()

    def __getattr__(self, name: str) -> Any:  # only called for what is neither in __slots__ nor saved
        if name in _RESERVED or name.startswith("__"):
            raise AttributeError(name)
        if self.freed:
            raise AttributeError(f"{self.op.name()}: ctx.{name} was freed by backward.")
        saved = ", ".join(self.__dict__) or "nothing"
        raise AttributeError(f"{self.op.name()}: ctx has no {name!r}; forward saved {saved}.")


_RESERVED = frozenset(name for name in dir(Context) if not name.startswith("__"))


class Op:
    """Base of all operations. See the module's docstring for how to write one."""

    formula = ""  # one line for traces
    contiguous = True  # arrays and adjoints are made C-contiguous and aligned before forward and backward
    broadcasts = False  # adjoints are summed back to the shape of a broadcast input
    keeps_dtype = True  # outputs must have the inputs' float dtype
    integers: tuple[str, ...] = ()  # array arguments that are labels or indices

    @staticmethod
    def forward(ctx: Context, *arrays: Any, **settings: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Context, *dys: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def began(cls, ctx: Context, dys: list | None = None) -> str:
        """Where inside a long operation NaN or infinity began, forward or, given ``dys``, backward: the end of a message."""
        return ""

    @classmethod
    @cache
    def name(cls) -> str:
        """``Conv2d`` -> ``conv2d``, ``LeakyReLU`` -> ``leaky_relu``: the name of its function, also used in traces."""
        return re.sub(r"(?<=[A-Za-z0-9])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    @classmethod
    @cache
    def arguments(cls) -> tuple[str, ...]:
        """Names of the array arguments of ``forward``; a variable number of them, ``*xs``, counts as one."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        parameters = [p for p in inspect.signature(cls.forward).parameters.values() if p.kind in kinds][1:]
        return tuple(f"*{p.name}" if p.kind is inspect.Parameter.VAR_POSITIONAL else p.name for p in parameters)

    @classmethod
    def argument(cls, i: int) -> str:
        """Name of array argument ``i``: ``x``, or ``xs[2]`` of ``*xs``."""
        names = cls.arguments()
        if not names or (i >= len(names) and not names[-1].startswith("*")):
            return f"argument {i}"
        name = names[min(i, len(names) - 1)]
        return f"{name[1:]}[{i - len(names) + 1}]" if name.startswith("*") else name

    @classmethod
    def run(cls, *arrays: Any, **settings: Any) -> tuple[Any, Context]:
        """Forward without tape and trace: returns ``(outputs, ctx)``, so that ``Op.backward(ctx, dy)`` can be called by hand.

        >>> import numpy as np
        >>> from cnnlib import ops
        >>> y, ctx = ops.ReLU.run(np.array([-1.0, 2.0]))
        >>> ops.ReLU.backward(ctx, np.array([10.0, 10.0]))
        array([ 0., 10.])
        """
        state = current()
        values = _as_arrays(cls, arrays)
        needs = tuple(a is not None and a.dtype.kind == "f" for a in values)
        ctx, outputs, _ = _forward(cls, state, values, needs, settings)
        return outputs, ctx

    @classmethod
    def apply(cls, *inputs: Any, **settings: Any) -> Any:
        """Run forward on tensors (or arrays, numbers, None) and put the operation on the tape."""
        state = current()
        arrays = _as_arrays(cls, inputs)
        if state.grad:
            needs = tuple([type(t) is not np.ndarray and isinstance(t, Tensor) and t.requires_grad for t in inputs])
        else:
            needs = (False,) * len(inputs)
        started = time.perf_counter() if state.recorder is not None else 0.0
        ctx, outputs, several = _forward(cls, state, arrays, needs, settings)
        if state.check_finite:
            _check_finite_forward(ctx, inputs, outputs if several else (outputs,))

        recorded = True in needs
        if recorded:
            ctx.sequence = next(_sequence)
            ctx.recorder = state.recorder
            ctx.check_finite = state.check_finite
            ctx.inputs = tuple([_on_tape(t) for t in inputs])
            ctx.outputs = len(outputs) if several else 1
            ctx.versions = [t.version if isinstance(t, Parameter) else 0 for t in inputs]
        if several:
            result: Any = tuple([_output(ctx, i, y, recorded) for i, y in enumerate(outputs)])
        else:
            result = _output(ctx, 0, outputs, recorded)
        if state.recorder is not None:
            state.recorder.forward(ctx, inputs, arrays, outputs if several else (outputs,), started)
        return result


def _on_tape(t: Any) -> Any:
    """What the tape keeps of an input: a leaf itself, of what an operation made only where; the rest needs no adjoint.

    So the values of an intermediate result live as long as some operation saved them, or the caller holds the tensor.
    """
    if not isinstance(t, Tensor):
        return None
    if t.ctx is not None:
        return Edge(t.ctx, t.index, t.data.shape, t.data.dtype)
    return t if t.requires_grad or isinstance(t, Parameter) else None


def _output(ctx: Context, index: int, y: Any, recorded: bool) -> Tensor:
    t = Tensor.wrap(y)
    if recorded and index not in ctx.non_differentiable and y.dtype.kind == "f":
        t.requires_grad, t.ctx, t.index = True, ctx, index
    return t


def _as_arrays(op: type[Op], inputs: tuple) -> list:
    """Arrays of the inputs, contiguous where the operation wants that; one device, one float dtype."""
    arrays: list[Any] = []
    dtype = None
    numbers = False
    for t in inputs:
        if isinstance(t, Tensor):
            a = t.data
        elif isinstance(t, np.ndarray):
            a = t
        elif t is None:
            if not arrays:
                raise DtypeError(f"{op.name()}: {op.argument(0)} is None, expected a Tensor or an array: does the function or "
                                 "layer that should give it end without a return?")  # fmt: skip
            a = None
        elif isinstance(t, (bool, int, float, np.generic)):
            arrays.append(t.item() if isinstance(t, np.generic) else t)
            numbers = True
            continue
        elif hasattr(t, "__array_interface__") or hasattr(t, "__cuda_array_interface__"):
            a = t if hasattr(t, "__cuda_array_interface__") else np.asarray(t)
        else:
            raise DtypeError(f"{op.name()}: {op.argument(len(arrays))} must be a Tensor or an array, got {type(t).__name__}.")
        if a is not None:
            if a.dtype.kind not in "fiub":
                raise _unusable_type(op, len(arrays), a.dtype)
            if a.dtype.kind == "f" and a.dtype is not dtype:
                if dtype is None:
                    dtype = a.dtype
                elif a.dtype != dtype and a.dtype.char in "fd" and a.dtype.isnative:
                    raise _mixed_types(op, inputs)
                if a.dtype.char not in "fd" or not a.dtype.isnative:
                    raise _unusable_type(op, len(arrays), a.dtype)
            if op.contiguous:
                a = readable(a)
        arrays.append(a)
    if numbers:
        like = next((a for a in arrays if hasattr(a, "dtype")), None)
        arrays = [a if a is None or hasattr(a, "dtype") else _number(a, dtype, like) for a in arrays]
    return arrays


def _number(number: Any, dtype: Any, like: Any) -> Any:
    """A Python number as an array: of the float dtype of the other arguments, or of their integer dtype."""
    if dtype is None:
        dtype = like.dtype if like is not None and like.dtype.kind in "iu" and isinstance(number, int) else np.float32
    if type(like) is np.ndarray or like is None:
        return np.asarray(number, dtype=dtype)
    return xp_of(like).full((), number, dtype=dtype)  # no copy from the host, which a CUDA graph could not replay


def _unusable_type(op: type[Op], i: int, dtype: Any) -> DtypeError:
    name = op.argument(i)
    return DtypeError(f"{op.name()}: {name} must be float32 or float64, got {dtype}. Cast it: {name}.astype('float32').")


def _mixed_types(op: type[Op], inputs: tuple) -> DtypeError:
    dtypes = {op.argument(i): t.dtype for i, t in enumerate(inputs) if hasattr(t, "dtype") and t.dtype.kind == "f"}
    for name in op.integers:
        if name in dtypes:
            return DtypeError(f"{op.name()}: {name} must be integers, got {dtypes[name]}. Use {name}.astype('int64').")
    came = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
    wide = next(name for name, dtype in dtypes.items() if dtype == np.float64)
    return DtypeError(f"{op.name()}: all float arrays must have one dtype, got {came}. Cast, such as {wide}.astype('float32').")


def _check_devices(op: type[Op], arrays: list) -> None:
    devices = {("cpu" if xp_of(a) is np else "cuda") for a in arrays if a is not None}
    if len(devices) > 1:
        where = ", ".join(
            f"{op.argument(i)} on {'cpu' if xp_of(a) is np else 'cuda'}" for i, a in enumerate(arrays) if a is not None
        )
        raise DeviceError(
            f"{op.name()}: all arrays must live on one device, got {where}. Move them with .to('cpu') or .to('cuda')."
        )


def _forward(op: type[Op], state: State, arrays: list, needs: tuple[bool, ...], settings: dict[str, Any]):
    """Bind backend and overrides, run forward, check its outputs. Returns ctx, outputs, whether they are several."""
    first = None
    for a in arrays:
        if a is not None:
            if first is None:
                first = a
            if type(a) is not np.ndarray:
                _check_devices(op, arrays)
                break
    ctx = Context(op, kernels_for(first, state), xp_of(first), needs, settings)
    forward: Callable = op.forward
    if state.overrides and op in state.overrides:
        own_forward, own_backward = state.overrides[op]
        forward = own_forward or forward
        ctx.backward = own_backward or ctx.backward
    outputs = forward(ctx, *arrays, **settings)
    several = isinstance(outputs, (tuple, list))
    dtype = next((a.dtype for a in arrays if a is not None and a.dtype.kind == "f"), None) if op.keeps_dtype else None
    if several:
        outputs = tuple([_checked_output(op, ctx, y, dtype) for y in outputs])
    else:
        outputs = _checked_output(op, ctx, outputs, dtype)
    return ctx, outputs, several


def _checked_output(op: type[Op], ctx: Context, y: Any, dtype: Any) -> Any:
    if type(y) is not np.ndarray and not hasattr(y, "flags"):
        raise DtypeError(f"{op.name()}: forward must return arrays, got {type(y).__name__}.")
    if y.dtype is not dtype and y.dtype.kind == "f" and dtype is not None and y.dtype != dtype:
        raise DtypeError(
            f"{op.name()}: forward returned {y.dtype} for {dtype} inputs; outputs must have the inputs' dtype. "
            f"A NumPy float64 scalar in the formula, or an integer array beside a float one, does this: use Python floats, "
            f"cast integers with .astype('{dtype}')."
        )
    if dtype is None and op.keeps_dtype and y.dtype == np.float64:
        return ctx.xp.asarray(y, dtype=np.float32)  # of integers: float32 is the default
    if type(y) is np.ndarray or not isinstance(y, np.generic):
        return y
    return np.asarray(y)  # a reduction to one number gives a NumPy scalar


def _check_finite_forward(ctx: Context, inputs: tuple, outputs: tuple) -> None:
    for i, y in enumerate(outputs):
        if y.dtype.kind == "f" and not bool(ctx.xp.isfinite(y).all()):
            bad = [ctx.op.argument(j) for j, t in enumerate(inputs) if _non_finite(t)]
            from_where = f"already in {', '.join(bad)}" if bad else "all inputs were finite: it began here"
            step = ctx.op.began(ctx)
            raise NonFiniteError(f"{ctx.where()}: output {i} {y.shape} has NaN or infinity; {from_where}{step}.")


def _non_finite(t: Any) -> bool:
    a = getattr(t, "data", t) if isinstance(t, Tensor) else t
    return getattr(a, "dtype", None) is not None and a.dtype.kind == "f" and not bool(xp_of(a).isfinite(a).all())
