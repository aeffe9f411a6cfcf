"""Linear layers and matrix products.

Formula: y = x Wᵀ + b, for each row of x:  y_o = Σ_i W_oi x_i + b_o.

Adjoints, with dy = ∂J/∂y (the matrix gradient recipe: every product of forward comes back transposed)::

    ∂J/∂x_ri = Σ_o ∂J/∂y_ro W_oi        dx = dy W
    ∂J/∂W_oi = Σ_r ∂J/∂y_ro x_ri        dw = dyᵀ x
    ∂J/∂b_o  = Σ_r ∂J/∂y_ro             db = sum of dy over the rows

Source: lecture: backpropagation, the matrix gradient recipe; Rumelhart, Hinton & Williams 1986.
"""

from __future__ import annotations

from cnnlib.backends import kernel
from cnnlib.errors import ShapeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_ndim, check_not_empty, check_shape
from cnnlib.tape import unbroadcast

# ---- the textbook


@kernel
def linear_forward(x, w, b):
    y = x @ w.T  # (R, I) @ (I, O) -> (R, O)
    return y if b is None else y + b


@kernel
def linear_backward_input(dy, w):
    return dy @ w  # (R, O) @ (O, I) -> (R, I)


@kernel
def linear_backward_weight(dy, x):
    return dy.T @ x  # (O, R) @ (R, I) -> (O, I)


@kernel
def linear_backward_bias(dy):
    return dy.sum(axis=0)  # (R, O) -> (O,)


@kernel
def gemm(a, b, transpose_a=False, transpose_b=False):
    a = a.swapaxes(-1, -2) if transpose_a else a
    b = b.swapaxes(-1, -2) if transpose_b else b
    return a @ b  # (..., M, K) @ (..., K, N) -> (..., M, N)


# ---- the operations


class Linear(Op):
    """Saves x and w."""

    formula = "y = x wᵀ + b"

    @staticmethod
    def forward(ctx, x, w, b=None):
        _check_linear(x, w, b)
        ctx.save(x=x, w=w)
        y = ctx.kernels.linear_forward(x.reshape(-1, x.shape[-1]), w, b)
        return y.reshape(*x.shape[:-1], w.shape[0])

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.x, ctx.w
        dy = dy.reshape(-1, w.shape[0])
        dx = ctx.kernels.linear_backward_input(dy, w).reshape(x.shape) if ctx.needs[0] else None
        dw = ctx.kernels.linear_backward_weight(dy, x.reshape(-1, x.shape[-1])) if ctx.needs[1] else None
        db = ctx.kernels.linear_backward_bias(dy) if ctx.needs[2] else None
        return dx, dw, db


def _check_linear(x, w, b):
    check_float("linear", "x", x)
    check_ndim("linear", "w", w, 2, "(out_features, in_features)")
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"linear: the last axis of x (x.shape = {x.shape}) must equal in_features = {w.shape[1]} (w.shape = {w.shape}): "
            "y = x wᵀ + b."
        )
    check_not_empty("linear", "x", x)
    if b is not None:
        check_shape("linear", "b", b, w.shape[:1], "one bias per output feature")


class Matmul(Op):
    """Saves a and b. Leading axes broadcast, as in NumPy."""

    formula = "y = a b"
    broadcasts = True

    @staticmethod
    def forward(ctx, a, b):
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise ShapeError(
                f"matmul: (..., M, K) @ (..., K, N) needs equal K and at least 2 axes each, got {a.shape} @ {b.shape}."
            )
        try:
            ctx.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            raise ShapeError(f"matmul: the leading axes of {a.shape} @ {b.shape} do not broadcast.") from None
        ctx.save(a=a, b=b)
        return _batched(ctx, a, b)

    @staticmethod
    def backward(ctx, dy):
        a, b = ctx.a, ctx.b
        da = unbroadcast(_batched(ctx, dy, b, transpose_b=True), a.shape) if ctx.needs[0] else None  # da = dy bᵀ
        db = unbroadcast(_batched(ctx, a, dy, transpose_a=True), b.shape) if ctx.needs[1] else None  # db = aᵀ dy
        return da, db


def _batched(ctx, a, b, transpose_a=False, transpose_b=False):
    """Broadcast the leading axes and flatten them to one, as the kernel takes it."""
    if a.ndim == 2 and b.ndim == 2:
        return ctx.kernels.gemm(a, b, transpose_a, transpose_b)
    lead = ctx.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = ctx.xp.ascontiguousarray(ctx.xp.broadcast_to(a, lead + a.shape[-2:])).reshape(-1, *a.shape[-2:])
    b = ctx.xp.ascontiguousarray(ctx.xp.broadcast_to(b, lead + b.shape[-2:])).reshape(-1, *b.shape[-2:])
    y = ctx.kernels.gemm(a, b, transpose_a, transpose_b)
    return y.reshape(*lead, *y.shape[-2:])


# ---- the public functions


def linear(x, w, b=None):
    """y = x wᵀ + b.

    x (..., in_features), w (out_features, in_features), b (out_features,) or None, float32 or float64 -> (..., out_features).

    >>> import cnnlib as cl
    >>> cl.ops.linear(cl.Tensor([[1.0, 2.0]]), cl.Tensor([[3.0, 4.0]]), cl.Tensor([0.5])).numpy()
    array([[11.5]], dtype=float32)

    Raises ShapeError when the last axis of x is not in_features or x is empty, DtypeError for integers or mixed types.
    """
    return Linear.apply(x, w, b)


def matmul(a, b):
    """a @ b over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N); leading axes broadcast. Raises ShapeError."""
    return Matmul.apply(a, b)
