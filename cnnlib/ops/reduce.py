"""Sums, means and extremes over axes. The adjoint of a sum is a broadcast.

Source: lecture: backpropagation (automatic differentiation).
"""

from __future__ import annotations

import builtins
import math
import operator

from cnnlib.errors import ShapeError
from cnnlib.op import Op


def _axes(op, axis, ndim):
    """axis as a tuple of non-negative axes."""
    axes = tuple(range(ndim)) if axis is None else tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if builtins.any(not hasattr(a, "__index__") or not -ndim <= a < ndim for a in axes):
        raise ShapeError(f"{op}: axis {axis} does not exist in an array of {ndim} axes.")
    axes = tuple(sorted(operator.index(a) % ndim for a in axes))
    if len(set(axes)) < len(axes):
        raise ShapeError(f"{op}: axis {axis} names an axis twice.")
    return axes


def _expanded(y, axes, shape):
    """y with its reduced axes back as 1, so that it broadcasts against the input of ``shape``."""
    return y.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)))


class Sum(Op):
    """Saves shape and axes."""

    formula = "y = Σ x"

    @staticmethod
    def forward(ctx, x, *, axis=None, keepdims=False):
        axes = _axes("sum", axis, x.ndim)
        ctx.save(shape=x.shape, axes=axes)
        return x.sum(axis=axes, keepdims=keepdims)

    @staticmethod
    def backward(ctx, dy):
        return ctx.xp.broadcast_to(_expanded(dy, ctx.axes, ctx.shape), ctx.shape)


class Mean(Op):
    """Saves shape, axes and count, the number of elements in each mean."""

    formula = "y = Σ x / m"

    @staticmethod
    def forward(ctx, x, *, axis=None, keepdims=False):
        axes = _axes("mean", axis, x.ndim)
        count = math.prod(x.shape[a] for a in axes)
        if count == 0:
            raise ShapeError(f"mean: nothing to average in an array of shape {x.shape} over axis {axis}.")
        ctx.save(shape=x.shape, axes=axes, count=count)
        return x.mean(axis=axes, keepdims=keepdims)

    @staticmethod
    def backward(ctx, dy):
        return ctx.xp.broadcast_to(_expanded(dy / ctx.count, ctx.axes, ctx.shape), ctx.shape)


class Max(Op):
    """Saves winners, 1 / (number of ties) where x equals the maximum, and axes."""

    formula = "y = max x"

    @staticmethod
    def forward(ctx, x, *, axis=None, keepdims=False):
        return _extreme(ctx, x, axis, keepdims, "max")

    @staticmethod
    def backward(ctx, dy):
        return ctx.winners * _expanded(dy, ctx.axes, ctx.winners.shape)


class Min(Op):
    """Saves winners, 1 / (number of ties) where x equals the minimum, and axes."""

    formula = "y = min x"

    @staticmethod
    def forward(ctx, x, *, axis=None, keepdims=False):
        return _extreme(ctx, x, axis, keepdims, "min")

    @staticmethod
    def backward(ctx, dy):
        return ctx.winners * _expanded(dy, ctx.axes, ctx.winners.shape)


def _extreme(ctx, x, axis, keepdims, which):
    axes = _axes(which, axis, x.ndim)
    if math.prod(x.shape[a] for a in axes) == 0:
        raise ShapeError(f"{which}: no elements in an array of shape {x.shape} over axis {axis}.")
    y = getattr(x, which)(axis=axes, keepdims=True)
    if True in ctx.needs:
        ties = x == y
        ctx.save(winners=ties.astype(x.dtype) / ties.sum(axis=axes, keepdims=True).astype(x.dtype), axes=axes)
    return y if keepdims else y.reshape(tuple(n for i, n in enumerate(y.shape) if i not in axes))


def sum(x, axis=None, keepdims=False):
    """Sum over one axis, several, or all (None).

    >>> import cnnlib as cl
    >>> cl.ops.sum(cl.Tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).numpy()
    array([4., 6.], dtype=float32)
    """
    return Sum.apply(x, axis=axis, keepdims=keepdims)


def mean(x, axis=None, keepdims=False):
    """Mean over one axis, several, or all (None)."""
    return Mean.apply(x, axis=axis, keepdims=keepdims)


def max(x, axis=None, keepdims=False):
    """Maximum over one axis, several, or all (None); ties share the adjoint equally."""
    return Max.apply(x, axis=axis, keepdims=keepdims)


def min(x, axis=None, keepdims=False):
    """Minimum over one axis, several, or all (None); ties share the adjoint equally."""
    return Min.apply(x, axis=axis, keepdims=keepdims)
