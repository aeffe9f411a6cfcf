"""Operations that move elements without changing them. The adjoint moves them back.

Source: lecture: backpropagation (automatic differentiation).
"""

from __future__ import annotations

import math

from cnnlib.backends import on_gpu, readable
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.op import Op


class _View(Op):
    contiguous = False


class Reshape(_View):
    """Saves shape, the input's."""

    formula = "y = x in another shape"

    @staticmethod
    def forward(ctx, x, *, shape):
        ctx.save(shape=x.shape)
        try:
            return x.reshape(shape)
        except ValueError:
            raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not fit into shape {tuple(shape)}.") from None

    @staticmethod
    def backward(ctx, dy):
        return dy.reshape(ctx.shape)


class Transpose(_View):
    """Saves inverse, the permutation that leads back."""

    formula = "y = x with permuted axes"

    @staticmethod
    def forward(ctx, x, *, axes=None):
        axes = (
            tuple(reversed(range(x.ndim))) if axes is None else tuple(a % x.ndim if -x.ndim <= a < x.ndim else a for a in axes)
        )
        if sorted(axes) != list(range(x.ndim)):
            raise ShapeError(f"transpose: axes must be a permutation of 0 … {x.ndim - 1}, got {axes} for shape {x.shape}.")
        ctx.save(inverse=tuple(axes.index(i) for i in range(x.ndim)))
        return x.transpose(axes)

    @staticmethod
    def backward(ctx, dy):
        return dy.transpose(ctx.inverse)


class BroadcastTo(_View):
    """The engine sums the adjoint back."""

    formula = "y = x repeated"
    broadcasts = True

    @staticmethod
    def forward(ctx, x, *, shape):
        try:
            return ctx.xp.broadcast_to(x, shape)
        except ValueError:
            raise ShapeError(f"broadcast_to: shape {x.shape} does not broadcast to {tuple(shape)}.") from None

    @staticmethod
    def backward(ctx, dy):
        return dy


class Getitem(Op):
    """Saves index and shape. Elements that were picked twice add up, in the order of dy."""

    formula = "y = x[index]"
    contiguous = False

    @staticmethod
    def forward(ctx, x, *, index):
        ctx.save(index=index, shape=x.shape)
        try:
            return x[index]
        except IndexError as error:
            raise ShapeError(f"getitem: {error} (x.shape = {x.shape}).") from None

    @staticmethod
    def backward(ctx, dy):
        xp = ctx.xp
        if _is_basic(ctx.index):
            dx = xp.zeros(ctx.shape, dtype=dy.dtype)
            dx[ctx.index] = dy
            return dx
        if getattr(ctx.index, "dtype", None) is not None and ctx.index.dtype.kind in "iu":
            n, rows = ctx.shape[0], xp.asarray(ctx.index)  # x was a table of n rows
        else:
            n = math.prod(ctx.shape)  # x was one of n elements
            rows = xp.arange(n).reshape(ctx.shape)[ctx.index]
        dy = readable(dy).reshape(rows.size, math.prod(ctx.shape) // n if n else 1)
        return ctx.kernels.embedding_backward(dy, rows.reshape(-1).astype("int64") % max(n, 1), n).reshape(ctx.shape)


def _is_basic(index):
    """Whether an index is made of numbers, slices, None and ... only, so that no element is picked twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or (isinstance(p, (int, slice)) and not isinstance(p, bool)) for p in parts)


class Concat(Op):
    """Saves ends, where each input ends along the axis, and axis."""

    formula = "y = [x₀, x₁, …]"

    @staticmethod
    def forward(ctx, *xs, axis=0):
        _check_joined("concat", xs, axis)
        sizes = [x.shape[axis] for x in xs]
        ctx.save(ends=[sum(sizes[: i + 1]) for i in range(len(sizes) - 1)], axis=axis)
        return _joined(ctx.xp, xs, axis)

    @staticmethod
    def backward(ctx, dy):
        return tuple(ctx.xp.split(dy, ctx.ends, axis=ctx.axis))


def _joined(xp, xs, axis):
    """concatenate, on a GPU eight at a time: of more, CuPy sends the addresses from the host, which no graph can replay."""
    while len(xs) > 8 and on_gpu(xs[0]):
        xs = [xp.concatenate(xs[i : i + 8], axis=axis) for i in range(0, len(xs), 8)]
    return xp.concatenate(xs, axis=axis)


def _check_joined(op, xs, axis):
    if not xs:
        raise ShapeError(f"{op}: nothing to join.")
    ndim = xs[0].ndim
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{op}: axis {axis} does not exist in shape {xs[0].shape}.")
    rest = [x.shape[: axis % ndim] + x.shape[axis % ndim + 1 :] for x in xs if x.ndim == ndim]
    if len(rest) != len(xs) or any(r != rest[0] for r in rest):
        raise ShapeError(f"{op}: all shapes must agree except along axis {axis}, got {', '.join(str(x.shape) for x in xs)}.")


class Stack(Op):
    """Saves axis."""

    formula = "y = x₀, x₁, … along a new axis"

    @staticmethod
    def forward(ctx, *xs, axis=0):
        if not xs or any(x.shape != xs[0].shape for x in xs):
            raise ShapeError(f"stack: all shapes must be equal, got {', '.join(str(x.shape) for x in xs) or 'nothing'}.")
        ndim = xs[0].ndim + 1
        if not -ndim <= axis < ndim:
            raise ShapeError(f"stack: axis {axis} does not exist in the result, which has {ndim} axes: shapes {xs[0].shape}.")
        ctx.save(axis=axis)
        new = (slice(None),) * (axis % ndim) + (None,)
        return _joined(ctx.xp, [x[new] for x in xs], axis)

    @staticmethod
    def backward(ctx, dy):
        return tuple(ctx.xp.moveaxis(dy, ctx.axis, 0))


class Split(_View):
    """Several outputs; one that is not used sends a zero adjoint. Saves shapes, dtype and axis."""

    formula = "y₀, y₁, … = parts of x"

    @staticmethod
    def forward(ctx, x, *, sizes, axis=0):
        if not -x.ndim <= axis < x.ndim:
            raise ShapeError(f"split: axis {axis} does not exist in shape {x.shape}.")
        n = x.shape[axis]
        if isinstance(sizes, int):
            if sizes < 1:
                raise ValueRangeError(f"split: the size of a part must be at least 1, got {sizes}.")
            sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
        if sum(sizes) != n:
            raise ShapeError(f"split: sizes {list(sizes)} add up to {sum(sizes)}, but axis {axis} of shape {x.shape} has {n}.")
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        parts = tuple(ctx.xp.split(x, ends, axis=axis))
        ctx.save(shapes=[p.shape for p in parts], dtype=x.dtype, axis=axis)
        return parts

    @staticmethod
    def backward(ctx, *dys):
        dys = [ctx.xp.zeros(s, dtype=ctx.dtype) if dy is None else dy for dy, s in zip(dys, ctx.shapes, strict=True)]
        return _joined(ctx.xp, dys, ctx.axis)


class Pad(Op):
    """Saves window, the slices where x lies inside y."""

    formula = "y = x with a border"

    @staticmethod
    def forward(ctx, x, *, widths, value=0.0):
        ctx.save(window=tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True)))
        return ctx.xp.pad(x, widths, constant_values=value)

    @staticmethod
    def backward(ctx, dy):
        return dy[ctx.window]


def reshape(x, shape):
    """x in another shape of equal size; one axis may be -1."""
    return Reshape.apply(x, shape=(shape,) if isinstance(shape, int) else tuple(shape))


def flatten(x, start_dim=0, end_dim=-1):
    """Axes start_dim … end_dim made one."""
    first, last = start_dim % x.ndim, end_dim % x.ndim
    return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def transpose(x, axes=None):
    """Axes permuted (reversed, without ``axes``): y.shape[i] = x.shape[axes[i]]."""
    return Transpose.apply(x, axes=axes)


def broadcast_to(x, shape):
    """x repeated to ``shape``, by NumPy's rules."""
    return BroadcastTo.apply(x, shape=tuple(shape))


def getitem(x, index):
    """x[index]: numbers, slices, None, ..., integer arrays, boolean masks."""
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(p.data if hasattr(p, "ctx") else p for p in parts)
    return Getitem.apply(x, index=parts if isinstance(index, tuple) else parts[0])


def concat(xs, axis=0):
    """Join along an existing axis."""
    return Concat.apply(*xs, axis=axis)


def stack(xs, axis=0):
    """Join along a new axis."""
    return Stack.apply(*xs, axis=axis)


def split(x, sizes, axis=0):
    """Cut along an axis into parts of ``sizes`` (a list, or one number for equal parts; the last may be smaller).

    >>> import cnnlib as cl
    >>> [p.shape for p in cl.ops.split(cl.Tensor([1.0, 2.0, 3.0]), 2)]
    [(2,), (1,)]
    """
    return Split.apply(x, sizes=sizes, axis=axis)


def pad(x, widths, value=0.0):
    """A border of ``value``: ``widths`` holds (before, after) for each axis."""
    if len(widths) != x.ndim or any(before < 0 or after < 0 for before, after in widths):
        raise ShapeError(f"pad: widths must hold one (before, after) pair >= 0 for each of the {x.ndim} axes, got {widths}.")
    return Pad.apply(x, widths=tuple((int(a), int(b)) for a, b in widths), value=float(value))
