"""The tape: operations with a hand-written backward on raw arrays, and the walk back through them.

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

from cnnlib.backends import kernels_for, xp_of
from cnnlib.backends.state import Changed, State, current, scope
from cnnlib.errors import DeviceError, DtypeError, GraphError, NonFiniteError, ShapeError
from cnnlib.tensor import Parameter, Tensor

_sequence = itertools.count()


class no_grad(Changed):
    """Inside the block nothing is recorded and no intermediates are kept."""

    def __init__(self):
        super().__init__(grad=False)


class check_finite(Changed):
    """Inside the block every output and every adjoint is checked; the first NaN or infinity raises NonFiniteError naming it."""

    def __init__(self):
        super().__init__(check_finite=True)


class Context:
    """What one run of an operation binds at forward and keeps for backward.

    - ``ctx.save(x=x, w=w)`` in forward, then ``ctx.x``, ``ctx.w`` in backward: the saved values are public, by name.
    - ``ctx.needs``: per array argument, whether its adjoint is wanted; backward may return None for the others.
    - ``ctx.xp``: numpy or cupy. ``ctx.kernels``: the kernels of the backend bound at forward.
    - ``ctx.settings``: the keyword settings of the call.
    """

    __slots__ = ("backward", "check_finite", "inputs", "kernels", "needs", "non_differentiable", "op", "outputs", "recorder",
                 "saved", "scope", "sequence", "settings", "versions", "xp")  # fmt: skip

    saved: dict[str, Any] | None

    def __init__(self, op: type[Op], kernels: Any, xp: Any, needs: tuple[bool, ...], settings: dict[str, Any]):
        self.op, self.kernels, self.xp, self.needs, self.settings = op, kernels, xp, needs, settings
        self.backward: Callable = op.backward
        self.saved = {}
        self.non_differentiable: tuple[int, ...] = ()

    def save(self, **values: Any) -> None:
        """Keep values for backward, readable there as attributes."""
        self.saved = values if not self.saved else {**self.saved, **values}

    def mark_non_differentiable(self, *indices: int) -> None:
        """Declare that the outputs with these indices carry no gradient."""
        self.non_differentiable = indices

    def __getattr__(self, name: str) -> Any:  # only called for what is not in __slots__
        if name.startswith("__") or self.saved is None:
            raise AttributeError(name)
        try:
            return self.saved[name]
        except KeyError:
            saved = ", ".join(self.saved) or "nothing"
            raise AttributeError(f"{self.op.name()}: ctx has no {name!r}; forward saved {saved}.") from None


class Op:
    """Base of all operations. See the module's docstring for how to write one."""

    formula = ""  # one line for traces
    contiguous = True  # arrays and adjoints are made C-contiguous before forward and backward
    broadcasts = False  # adjoints are summed back to the shape of a broadcast input

    @staticmethod
    def forward(ctx: Context, *arrays: Any, **settings: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Context, *dys: Any) -> Any:
        raise NotImplementedError

    @classmethod
    @cache
    def name(cls) -> str:
        """``Conv2d`` -> ``conv2d``, ``BatchNorm`` -> ``batch_norm``: the name of the public function and in traces."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    @cache
    def arguments(cls) -> tuple[str, ...]:
        """Names of the array arguments of ``forward``; of a variable number, ``*xs``, the one name ``xs``."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return tuple(p.name for p in inspect.signature(cls.forward).parameters.values() if p.kind in kinds)[1:]

    @classmethod
    def argument(cls, i: int) -> str:
        """Name of array argument ``i``."""
        names = cls.arguments()
        return names[i] if i < len(names) and len(names) > 1 else f"{names[-1]}[{i}]" if i else names[0]

    @classmethod
    def run(cls, *arrays: Any, **settings: Any) -> tuple[Any, Context]:
        """Forward without a tape: returns ``(outputs, ctx)``, so that ``Op.backward(ctx, dy)`` can be called by hand.

        >>> import numpy as np
        >>> from cnnlib import ops
        >>> y, ctx = ops.ReLU.run(np.array([-1.0, 2.0]))
        >>> ops.ReLU.backward(ctx, np.array([10.0, 10.0]))
        array([ 0., 10.])
        """
        state = current()
        arrays = _as_arrays(cls, arrays)
        ctx, outputs, _ = _forward(cls, state, arrays, tuple(a is not None and a.dtype.kind == "f" for a in arrays), settings)
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
            ctx.scope = scope.get()
            ctx.recorder = state.recorder
            ctx.check_finite = state.check_finite
            ctx.inputs = inputs
            ctx.versions = [t.version if type(t) is Parameter else 0 for t in inputs]
        if several:
            result: Any = tuple([_output(ctx, i, y, recorded) for i, y in enumerate(outputs)])
            if recorded:
                ctx.outputs = [(y.shape, y.dtype) for y in outputs]
        else:
            result = _output(ctx, 0, outputs, recorded)
            if recorded:
                ctx.outputs = [(outputs.shape, outputs.dtype)]
        if state.recorder is not None:
            state.recorder.forward(ctx, inputs, arrays, outputs if several else (outputs,), started)
        return result


def _output(ctx: Context, index: int, y: Any, recorded: bool) -> Tensor:
    t = Tensor.wrap(y)
    if recorded and index not in ctx.non_differentiable and y.dtype.kind == "f":
        t.requires_grad, t.ctx, t.index = True, ctx, index
    return t


def _as_arrays(op: type[Op], inputs: tuple) -> list:
    """Arrays of the inputs, contiguous where the operation wants that; one device, one float dtype."""
    arrays = []
    dtype = None
    numbers = False
    for t in inputs:
        if isinstance(t, Tensor):
            a = t.data
        elif t is None or isinstance(t, np.ndarray):
            a = t
        elif isinstance(t, (bool, int, float)):
            a, numbers = t, True
            arrays.append(a)
            continue
        elif hasattr(t, "__array_interface__") or hasattr(t, "__cuda_array_interface__"):
            a = t if hasattr(t, "__cuda_array_interface__") else np.asarray(t)
        else:
            raise DtypeError(f"{op.name()}: {op.argument(len(arrays))} must be a Tensor or an array, got {type(t).__name__}.")
        if a is not None:
            if a.dtype.kind == "f" and a.dtype is not dtype:
                if dtype is None:
                    dtype = a.dtype
                elif a.dtype != dtype:
                    raise _mixed_types(op, inputs)
            if op.contiguous and not a.flags.c_contiguous:
                a = xp_of(a).ascontiguousarray(a)
        arrays.append(a)
    if numbers:
        like = next((a for a in arrays if hasattr(a, "dtype")), None)
        xp = xp_of(like)
        arrays = [xp.asarray(a, dtype=dtype or np.float32) if isinstance(a, (bool, int, float)) else a for a in arrays]
    return arrays


def _mixed_types(op: type[Op], inputs: tuple) -> DtypeError:
    came = ", ".join(f"{op.argument(i)} {t.dtype}" for i, t in enumerate(inputs) if hasattr(t, "dtype"))
    return DtypeError(f"{op.name()}: all float arrays must have one dtype, got {came}. Cast one, such as {op.argument(0)}.astype('float32').")


def _check_devices(op: type[Op], arrays: list) -> None:
    devices = {("cpu" if xp_of(a) is np else "cuda") for a in arrays if a is not None}
    if len(devices) > 1:
        where = ", ".join(f"{op.argument(i)} on {'cpu' if xp_of(a) is np else 'cuda'}" for i, a in enumerate(arrays) if a is not None)
        raise DeviceError(f"{op.name()}: all arrays must live on one device, got {where}. Move them with .to('cpu') or .to('cuda').")


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
    dtype = next((a.dtype for a in arrays if a is not None and a.dtype.kind == "f"), None)
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
            "A NumPy float64 scalar in the formula does this: use Python floats."
        )
    if type(y) is np.ndarray or not isinstance(y, np.generic):
        return y
    return np.asarray(y)  # a reduction to one number gives a NumPy scalar


def _check_finite_forward(ctx: Context, inputs: tuple, outputs: tuple) -> None:
    for i, y in enumerate(outputs):
        if y.dtype.kind == "f" and not bool(ctx.xp.isfinite(y).all()):
            bad = [ctx.op.argument(j) for j, t in enumerate(inputs) if _non_finite(t)]
            from_where = f"already in {', '.join(bad)}" if bad else "all inputs were finite: it began here"
            raise NonFiniteError(f"{_where(scope.get(), ctx)}: output {i} {y.shape} has NaN or infinity; {from_where}.")


def _non_finite(t: Any) -> bool:
    a = getattr(t, "data", t) if isinstance(t, Tensor) else t
    return getattr(a, "dtype", None) is not None and a.dtype.kind == "f" and not bool(xp_of(a).isfinite(a).all())


def _where(path: str, ctx: Context) -> str:
    return f"{path}.{ctx.op.name()}" if path else ctx.op.name()


# ---- the walk back ------------------------------------------------------------------------------------------------------


def backward(root: Tensor, dy: Any = None, retain: bool = False) -> None:
    """Add d root / d leaf, times ``dy``, to the ``.grad`` of every leaf that requires a gradient."""
    seed = _seed_adjoint(root, dy)
    leaves: dict[int, tuple[Tensor, Any, bool]] = {}
    if root.ctx is None:
        _accumulate(leaves, id(root), root, seed, False)
    else:
        _walk(root, seed, leaves, retain)
    for leaf, grad, owned in leaves.values():  # only now: a failing backward leaves every .grad as it was
        if leaf.grad is None:
            leaf.grad = grad if owned else grad.copy()
        else:
            leaf.grad = leaf.grad + grad
        for hook in leaf.hooks:
            hook(leaf.grad)


def _seed_adjoint(root: Tensor, dy: Any) -> Any:
    if not root.requires_grad:
        raise GraphError("backward: this tensor does not require a gradient: nothing it was computed from has requires_grad=True.")
    if dy is None:
        if root.size != 1:
            raise ShapeError(f"backward: only a tensor of one element has an implicit adjoint of 1, this has shape {root.shape}: pass dy.")
        return xp_of(root.data).ones_like(root.data)
    dy = dy.data if isinstance(dy, Tensor) else dy
    if getattr(dy, "shape", None) != root.shape or dy.dtype != root.dtype:
        raise ShapeError(f"backward: dy must have shape {root.shape} and dtype {root.dtype}, got {getattr(dy, 'shape', dy)} {getattr(dy, 'dtype', '')}.")
    return dy


def _tape(root: Context) -> list[Context]:
    """The recorded operations that ``root`` depends on, latest first: a topological order, as inputs exist before outputs."""
    seen = {id(root): root}
    stack = [root]
    while stack:
        ctx = stack.pop()
        if ctx.saved is None:
            raise GraphError(
                f"backward: the graph of {_where(ctx.scope, ctx)} was freed by an earlier backward; pass retain=True to the first one to go back twice."
            )
        for t in ctx.inputs:
            if isinstance(t, Tensor) and t.ctx is not None and id(t.ctx) not in seen:
                seen[id(t.ctx)] = t.ctx
                stack.append(t.ctx)
    return sorted(seen.values(), key=lambda ctx: -ctx.sequence)


def _walk(root: Tensor, seed: Any, leaves: dict, retain: bool) -> None:
    assert root.ctx is not None
    pending: dict[tuple[int, int], tuple[Tensor, Any, bool]] = {}
    _accumulate(pending, (id(root.ctx), root.index), root, seed, False)
    for ctx in _tape(root.ctx):
        dys = []
        for i, (shape, _) in enumerate(ctx.outputs):
            entry = pending.pop((id(ctx), i), None)
            if entry is None:
                dys.append(None)
                continue
            dy = entry[1]
            if ctx.op.contiguous and not dy.flags.c_contiguous:
                dy = ctx.xp.ascontiguousarray(dy)
            dys.append(dy)
        if all([dy is None for dy in dys]):
            continue
        _check_versions(ctx)
        started = time.perf_counter() if ctx.recorder is not None else 0.0
        dxs = ctx.backward(ctx, *dys)
        if not isinstance(dxs, (tuple, list)):
            dxs = (dxs,)
        dxs = _checked_adjoints(ctx, dxs, dys)
        if ctx.recorder is not None:
            ctx.recorder.backward(ctx, dys, dxs, started)
        for t, dx in zip(ctx.inputs, dxs, strict=True):
            if dx is None:
                continue
            fresh = ctx.recorder is None and _is_fresh(dx, dys, dxs, ctx)
            if t.ctx is None:
                _accumulate(leaves, id(t), t, dx, fresh)
            else:
                _accumulate(pending, (id(t.ctx), t.index), t, dx, fresh)
        if not retain:
            ctx.saved, ctx.inputs = None, ()


def _accumulate(grads: dict, key: Any, tensor: Tensor, dx: Any, fresh: bool) -> None:
    """grads[key] += dx, in place only in buffers that this function allocated or that nobody else holds."""
    if key not in grads:
        grads[key] = (tensor, dx, fresh)
        return
    _, total, owned = grads[key]
    if owned:
        total += dx
    else:
        total = total + dx
    grads[key] = (tensor, total, True)


def _is_fresh(dx: Any, dys: list, dxs: list, ctx: Context) -> bool:
    """Whether backward allocated ``dx`` itself, so that nobody else holds it."""
    if dx.base is not None:
        return False
    return (
        not any([dx is dy for dy in dys])
        and sum([dx is other for other in dxs]) == 1
        and not any([dx is value for value in (ctx.saved or {}).values()])
        and not any([dx is getattr(t, "data", None) for t in ctx.inputs])
    )


def _check_versions(ctx: Context) -> None:
    for t, version in zip(ctx.inputs, ctx.versions, strict=True):
        if type(t) is Parameter and t.version != version:
            raise GraphError(
                f"{_where(ctx.scope, ctx)}: parameter {t.name or ctx.op.name()!r} was changed (by an optimiser step or load_state_dict) after forward "
                "used it, so its gradient would be wrong. Run forward again before backward."
            )


def _checked_adjoints(ctx: Context, dxs: Any, dys: list) -> list:
    if len(dxs) != len(ctx.inputs):
        raise ShapeError(
            f"{ctx.op.name()}: backward must return one adjoint (or None) per array argument of forward ({', '.join(ctx.op.arguments())}): "
            f"expected {len(ctx.inputs)}, got {len(dxs)}."
        )
    checked = []
    for i, (t, dx, needed) in enumerate(zip(ctx.inputs, dxs, ctx.needs, strict=True)):
        if dx is None or not needed:
            checked.append(None)
            continue
        if not hasattr(dx, "flags"):
            raise DtypeError(f"{ctx.op.name()}: backward must return arrays, got {type(dx).__name__} for d{ctx.op.argument(i)}.")
        if isinstance(dx, np.generic):
            dx = np.asarray(dx)
        if dx.shape != t.data.shape:
            if not ctx.op.broadcasts:
                raise ShapeError(
                    f"{_where(ctx.scope, ctx)}: backward returned d{ctx.op.argument(i)} of shape {dx.shape}, "
                    f"expected the shape of {ctx.op.argument(i)}, {t.data.shape}."
                )
            dx = unbroadcast(dx, t.data.shape)
        if dx.dtype is not t.data.dtype and dx.dtype != t.data.dtype:
            raise DtypeError(
                f"{_where(ctx.scope, ctx)}: backward returned d{ctx.op.argument(i)} as {dx.dtype}, expected {t.data.dtype}. "
                "A NumPy float64 scalar in the formula does this: use Python floats."
            )
        if ctx.check_finite and not bool(ctx.xp.isfinite(dx).all()):
            arrived = all([dy is None or bool(ctx.xp.isfinite(dy).all()) for dy in dys])
            from_where = "the adjoint that arrived was finite: it began here" if arrived else "it was already in the adjoint that arrived"
            of = f" (parameter {t.name!r})" if isinstance(t, Parameter) and t.name else ""
            raise NonFiniteError(
                f"{_where(ctx.scope, ctx)}: backward gave d{ctx.op.argument(i)}{of} {dx.shape} with NaN or infinity; {from_where}."
            )
        checked.append(dx)
    return checked


def unbroadcast(dx: Any, shape: tuple[int, ...]) -> Any:
    """The adjoint of broadcasting: sum ``dx`` over the axes along which an array of ``shape`` was repeated.

    >>> import numpy as np
    >>> unbroadcast(np.ones((4, 3)), (3,))
    array([4., 4., 4.])
    """
    if dx.shape == shape:
        return dx
    added = dx.ndim - len(shape)
    axes = tuple(range(added)) + tuple(i + added for i, n in enumerate(shape) if n == 1 and dx.shape[i + added] != 1)
    if added < 0 or any(n not in (1, dx.shape[i + added]) for i, n in enumerate(shape)):
        raise ShapeError(f"backward returned an adjoint of shape {dx.shape}, which cannot be summed to the input's shape {shape}.")
    return dx.sum(axis=axes).reshape(shape)
