"""The walk back through the tape: each recorded operation hands its adjoints to its inputs, latest first.

An operation's adjoint is complete when every operation that used its output has been visited; as an operation can only use
what existed before it, going back in the order of recording visits them all in time. Adjoints of one tensor that arrive
along several paths add up (the multivariate chain rule).

Source: lecture: backpropagation; Griewank & Walther, "Evaluating Derivatives", 2008, chapter 3.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlib.backends import readable, xp_of
from cnnlib.errors import DeviceError, DtypeError, GraphError, NonFiniteError, ShapeError
from cnnlib.tensor import Parameter, Tensor

if TYPE_CHECKING:
    from cnnlib.op import Context, Edge


def backward(root: Tensor, dy: Any = None, retain: bool = False) -> None:
    """Add d root / d leaf, times ``dy``, to the ``.grad`` of every leaf that requires a gradient."""
    seed = _seed_adjoint(root, dy)
    leaves: dict[int, tuple[Tensor, Any, bool]] = {}
    if root.ctx is None:
        _accumulate(leaves, id(root), root, seed, False)
    else:
        _walk(root, seed, leaves, retain)
    for leaf, grad, owned in leaves.values():  # only now: a failing backward leaves every .grad as it was
        if leaf.grad is not None:
            leaf.grad = _sum(leaf.grad, grad)
        else:
            leaf.grad = grad if owned else grad.copy()
    for leaf, _, _ in leaves.values():
        for hook in leaf.hooks:
            hook(leaf.grad)


def _seed_adjoint(root: Tensor, dy: Any) -> Any:
    if not root.requires_grad:
        raise GraphError(
            "backward: this tensor does not require a gradient: nothing it was computed from has requires_grad=True."
        )
    if dy is None:
        if root.size != 1:
            raise ShapeError(
                f"backward: only a tensor of one element has an implicit adjoint of 1, this has shape {root.shape}: pass dy."
            )
        return xp_of(root.data).ones_like(root.data)
    dy = dy.data if isinstance(dy, Tensor) else np.asarray(dy) if isinstance(dy, np.generic) else dy
    if getattr(dy, "shape", None) != root.shape or dy.dtype != root.dtype:
        came = f"{getattr(dy, 'shape', dy)} {getattr(dy, 'dtype', '')}"
        raise ShapeError(f"backward: dy must have shape {root.shape} and dtype {root.dtype}, got {came}.")
    if xp_of(dy) is not xp_of(root.data):
        there = "cpu" if xp_of(dy) is np else "cuda"
        raise DeviceError(f"backward: the tensor is on {root.device}, dy on {there}: move dy with .to({root.device!r}).")
    return dy


def _tape(root: Context | None) -> list[Context]:
    """The recorded operations that ``root`` depends on, latest first: a topological order, as inputs exist before outputs."""
    assert root is not None
    seen = {id(root): root}
    stack = [root]
    while stack:
        ctx = stack.pop()
        if ctx.freed:
            raise GraphError(
                f"backward: the graph of {ctx.where()} was freed by an earlier backward; "
                "pass retain=True to the first one to go back twice, or cut what is carried on from there with .detach(), "
                "such as a recurrent layer's state."
            )
        for t in ctx.inputs:
            if t is not None and t.ctx is not None and id(t.ctx) not in seen:
                seen[id(t.ctx)] = t.ctx
                stack.append(t.ctx)
    return sorted(seen.values(), key=lambda ctx: -ctx.sequence)


def _walk(root: Tensor, seed: Any, leaves: dict, retain: bool) -> None:
    pending: dict[tuple[int, int], tuple[Tensor | Edge, Any, bool]] = {}  # (operation, output) -> its adjoint so far
    _accumulate(pending, (id(root.ctx), root.index), root, seed, False)
    for ctx in _tape(root.ctx):
        dys = [_arrived(pending, ctx, i) for i in range(ctx.outputs)]
        if not all([dy is None for dy in dys]):
            _check_versions(ctx)
            dxs = _adjoints(ctx, dys)
            for i, t in enumerate(ctx.inputs):
                dx = dxs[i]
                if dx is not None:
                    grads, key = (leaves, id(t)) if t.ctx is None else (pending, (id(t.ctx), t.index))
                    _accumulate(grads, key, t, dx, _nobody_else_holds(dx))
            dx = None
        if not retain:
            ctx.free()


def _arrived(pending: dict, ctx: Context, output: int) -> Any:
    """The adjoint of an output, or None where none arrived."""
    entry = pending.pop((id(ctx), output), None)
    if entry is None:
        return None
    dy = entry[1]
    return readable(dy) if ctx.op.contiguous else dy


def _adjoints(ctx: Context, dys: list) -> list:
    """What the operation's backward returns, checked, and shown to the trace that was recording."""
    started = time.perf_counter() if ctx.recorder is not None else 0.0
    dxs = ctx.backward(ctx, *dys)
    if dxs is None:
        raise GraphError(f"{ctx.where()}: backward returned None: does it end without a return? It gives one adjoint per array "
                         f"argument of forward ({', '.join(ctx.op.arguments())}).")  # fmt: skip
    dxs = _checked_adjoints(ctx, dxs if isinstance(dxs, (tuple, list)) else (dxs,), dys)
    if ctx.recorder is not None:
        ctx.recorder.backward(ctx, dys, dxs, started)
    return dxs


def _accumulate(grads: dict, key: Any, tensor: Tensor | Edge, dx: Any, owned: bool) -> None:
    """grads[key] += dx, in place only in a buffer that nobody else holds."""
    if key not in grads:
        grads[key] = (tensor, dx, owned)
        return
    _, total, ours = grads[key]
    if ours:
        total += dx
    else:
        total = _sum(total, dx)
    grads[key] = (tensor, total, True)


def _sum(a: Any, b: Any) -> Any:
    """a + b as a new array, also without axes, where ``+`` would give a NumPy scalar."""
    xp = xp_of(a)
    return xp.add(a, b, out=xp.empty_like(a))


def _nobody_else_holds(dx: Any) -> bool:
    """Whether only the walk refers to ``dx`` and to its memory, so that it may be kept, and added to, without a copy.

    CPython counts references: to the saved values, the adjoints that arrived, what an operation keeps for itself, views. A
    reshaped array, all that still refers to the one it is a view of, is as good as that one.
    """
    if sys.getrefcount(dx) > _REFERENCES:
        return False
    owner = dx.base
    if owner is None:
        return True
    whole = type(owner) is type(dx) and owner.base is None and owner.size == dx.size and dx.flags.c_contiguous
    return whole and _references_to_owner(dx) <= _REFERENCES_BY_A_VIEW


def _count_references() -> int:
    """The count that ``_nobody_else_holds`` sees for a fresh array, measured where it is held just as in ``_walk``."""
    dxs = [np.empty(0)]
    for i, _ in enumerate(dxs):
        dx = dxs[i]
        if dx is not None:
            return _references(dx)
    return 0


def _references(dx: Any) -> int:
    return sys.getrefcount(dx)


def _references_to_owner(view: Any) -> int:
    return sys.getrefcount(view.base)


_REFERENCES = _count_references() - 1  # there the loop variable `_` holds it, too
_REFERENCES_BY_A_VIEW = _references_to_owner(np.empty(1).reshape(1, 1)) + 1  # and `owner`


def _check_versions(ctx: Context) -> None:
    for t, version in zip(ctx.inputs, ctx.versions, strict=True):
        if isinstance(t, Parameter) and t.version != version:
            raise GraphError(
                f"{ctx.where()}: parameter {t.name or ctx.op.name()!r} was changed (by an optimiser step or load_state_dict) "
                "after forward used it, so its gradient would be wrong. Run forward again before backward."
            )


def _checked_adjoints(ctx: Context, dxs: Any, dys: list) -> list:
    if len(dxs) != len(ctx.inputs):
        raise ShapeError(
            f"{ctx.where()}: backward must return one adjoint (or None) per array argument of forward "
            f"({', '.join(ctx.op.arguments())}): expected {len(ctx.inputs)}, got {len(dxs)}."
        )
    return [
        _checked_adjoint(ctx, i, t, dx, dys) if needed and dx is not None else None
        for i, (t, dx, needed) in enumerate(zip(ctx.inputs, dxs, ctx.needs, strict=True))
    ]


def _checked_adjoint(ctx: Context, i: int, t: Tensor | Edge, dx: Any, dys: list) -> Any:
    """dx with the shape and dtype of the input that it belongs to, or an error that names it."""
    if not hasattr(dx, "flags"):
        raise DtypeError(f"{ctx.where()}: backward must return arrays, got {type(dx).__name__} for d{ctx.op.argument(i)}.")
    if dx.shape != t.shape:
        if not ctx.op.broadcasts:
            raise ShapeError(
                f"{ctx.where()}: backward returned d{ctx.op.argument(i)} of shape {dx.shape}, "
                f"expected the shape of {ctx.op.argument(i)}, {t.shape}."
            )
        dx = unbroadcast(dx, t.shape)
    if dx.dtype is not t.dtype and dx.dtype != t.dtype:
        raise DtypeError(
            f"{ctx.where()}: backward returned d{ctx.op.argument(i)} as {dx.dtype}, expected {t.dtype}. "
            "A NumPy float64 scalar in the formula does this: use Python floats."
        )
    if ctx.check_finite and not bool(ctx.xp.isfinite(dx).all()):
        arrived = all(dy is None or bool(ctx.xp.isfinite(dy).all()) for dy in dys)
        from_where = (
            "the adjoint that arrived was finite: it began here" if arrived else "it was already in the adjoint that arrived"
        )
        step = ctx.op.began(ctx, dys) if ctx.backward is ctx.op.backward else ""
        parameter = f" (parameter {t.name!r})" if isinstance(t, Parameter) and t.name else ""
        raise NonFiniteError(
            f"{ctx.where()}: backward gave d{ctx.op.argument(i)}{parameter} {dx.shape} with NaN or infinity; "
            f"{from_where}{step}."
        )
    return np.asarray(dx) if isinstance(dx, np.generic) else dx


def unbroadcast(dx: Any, shape: tuple[int, ...]) -> Any:
    """The adjoint of broadcasting: sum ``dx`` over the axes along which an array of ``shape`` was repeated.

    >>> import numpy as np
    >>> unbroadcast(np.ones((4, 3)), (3,))
    array([4., 4., 4.])
    """
    if dx.shape == shape:
        return dx
    added = dx.ndim - len(shape)
    if added < 0 or any(n not in (1, m) for n, m in zip(shape, dx.shape[added:], strict=True)):
        raise ShapeError(
            f"backward returned an adjoint of shape {dx.shape}, which cannot be summed to the input's shape {shape}."
        )
    axes = tuple(range(added)) + tuple(i + added for i, n in enumerate(shape) if n == 1 and dx.shape[i + added] != 1)
    return dx.sum(axis=axes).reshape(shape)
