"""Linear layers, locally connected layers and matrix products.

**Linear.** Formula: y = x Wᵀ + b, for each row of x:  y_o = Σ_i W_oi x_i + b_o.

Adjoints, with dy = ∂J/∂y (the matrix gradient recipe: every product of forward comes back transposed)::

    ∂J/∂x_ri = Σ_o ∂J/∂y_ro W_oi        dx = dy W
    ∂J/∂W_oi = Σ_r ∂J/∂y_ro x_ri        dw = dyᵀ x
    ∂J/∂b_o  = Σ_r ∂J/∂y_ro             db = sum of dy over the rows

**Locally connected.** A convolution whose positions do not share their weights: each unit looks at its own window of the
image, as in a convolution, with weights and bias of its own, as in a linear layer. With stride S and padding P::

    y[f, oh, ow] = b[f, oh, ow] + Σ_c Σ_kh Σ_kw w[oh, ow, f, c, kh, kw] x[c, oh·S + kh − P, ow·S + kw − P]
    OH = (H + 2P − KH) / S + 1, rounded down; OW likewise

At one position p = (oh, ow) this is a linear layer from the K = C·KH·KW numbers of the window to F outputs. With X_p (K, N),
the windows of all N images as columns, and Y_p (F, N), the recipe above holds position by position::

    Y_p = W_p X_p + b_p      dW_p = dY_p X_pᵀ      dX_p = W_pᵀ dY_p      db_p = Σ_n dY_p

where a convolution has one W for all p, and so adds the dW_p up. Windows overlap: dx collects the dX_p of all windows that
cover a pixel. Gathering the windows and adding them back are one loop over the kernel's offsets; each product is one batched
matrix product over the positions.

Source: lecture: backpropagation, the matrix gradient recipe; convolutional networks, locally connected layers; Rumelhart,
Hinton & Williams 1986; LeCun, "Generalization and network design strategies", 1989 (local connections without sharing).
"""

from __future__ import annotations

from cnnlib.backends import kernel, readable, xp_of
from cnnlib.errors import ShapeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_ndim, check_not_empty, check_shape, pair
from cnnlib.ops.conv import check_window, output_size, resolve_padding
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


def gather_windows(x, kernel_size, stride, pads):
    """The windows of each position as columns: (N, C, H, W) -> (OH·OW, C·KH·KW, N)."""
    xp = xp_of(x)
    (KH, KW), (SH, SW) = kernel_size, stride
    N, C = x.shape[:2]
    OH, OW = output_size(x.shape[2:], kernel_size, stride, pads, (1, 1))
    x = xp.ascontiguousarray(xp.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:])).transpose(2, 3, 1, 0))  # (H, W, C, N)
    windows = xp.empty((OH, OW, C, KH, KW, N), dtype=x.dtype)
    for kh in range(KH):
        for kw in range(KW):
            windows[:, :, :, kh, kw] = x[kh : kh + SH * OH : SH, kw : kw + SW * OW : SW]
    return windows.reshape(OH * OW, C * KH * KW, N)


def scatter_windows(dwindows, x_shape, kernel_size, stride, pads):
    """The adjoint of gathering: add every window's entries back to the pixels they came from."""
    xp = xp_of(dwindows)
    (KH, KW), (SH, SW), (top, bottom, left, right) = kernel_size, stride, pads
    N, C, H, W = x_shape
    OH, OW = output_size((H, W), kernel_size, stride, pads, (1, 1))
    dwindows = dwindows.reshape(OH, OW, C, KH, KW, N)
    dx = xp.zeros((H + top + bottom, W + left + right, C, N), dtype=dwindows.dtype)
    for kh in range(KH):
        for kw in range(KW):
            dx[kh : kh + SH * OH : SH, kw : kw + SW * OW : SW] += dwindows[:, :, :, kh, kw]
    return xp.ascontiguousarray(dx[top : top + H, left : left + W].transpose(3, 2, 0, 1))


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


class LocallyConnected2d(Op):
    """Saves x, w and geometry = (kernel_size, stride, pads). P = OH·OW positions, K = C·KH·KW."""

    formula = "y_p = w_p x_p + b_p at every position p"

    @staticmethod
    def forward(ctx, x, w, b=None, *, stride=1, padding=0):
        geometry = _local_geometry(x, w, b, stride, padding)
        OH, OW, F = w.shape[:3]
        ctx.save(x=x, w=w, geometry=geometry)
        windows = gather_windows(x, *geometry)
        y = ctx.kernels.gemm(w.reshape(OH * OW, F, -1), windows)  # (P, F, K) @ (P, K, N) -> (P, F, N)
        y = ctx.xp.ascontiguousarray(y.transpose(2, 1, 0)).reshape(-1, F, OH, OW)
        return y if b is None else y + b

    @staticmethod
    def backward(ctx, dy):
        x, w, geometry = ctx.x, ctx.w, ctx.geometry
        N, F, OH, OW = dy.shape
        db = dy.sum(axis=0) if ctx.needs[2] else None
        dy = ctx.xp.ascontiguousarray(dy.reshape(N, F, OH * OW).transpose(2, 1, 0))  # (P, F, N)
        dx = dw = None
        if ctx.needs[0]:
            dwindows = ctx.kernels.gemm(w.reshape(OH * OW, F, -1), dy, transpose_a=True)  # (P, K, F) @ (P, F, N)
            dx = scatter_windows(dwindows, x.shape, *geometry)
        if ctx.needs[1]:
            windows = gather_windows(x, *geometry)
            dw = ctx.kernels.gemm(dy, windows, transpose_b=True).reshape(w.shape)  # (P, F, N) @ (P, N, K)
        return dx, dw, db


def _local_geometry(x, w, b, stride, padding):
    """(kernel_size, stride, pads) after all checks."""
    op = "locally_connected2d"
    check_float(op, "x", x)
    check_ndim(op, "x", x, 4, "(N, C, H, W)")
    check_ndim(op, "w", w, 6, "(OH, OW, F, C, KH, KW)")
    check_not_empty(op, "x", x)
    check_not_empty(op, "w", w)
    kernel_size, stride = w.shape[4:], pair(op, "stride", stride)
    if x.shape[1] != w.shape[3]:
        raise ShapeError(
            f"{op}: x has {x.shape[1]} channels (x.shape = {x.shape}) but w expects {w.shape[3]} (w.shape = {w.shape}): "
            "x.shape[1] must equal w.shape[3]."
        )
    pads = resolve_padding(op, padding, kernel_size, stride, (1, 1))
    check_window(op, x.shape[2:], kernel_size, stride, pads)
    positions = output_size(x.shape[2:], kernel_size, stride, pads, (1, 1))
    if positions != w.shape[:2]:
        raise ShapeError(
            f"{op}: x of {x.shape[2:]} pixels has {positions} windows of {kernel_size}, (H + 2P - KH) / S + 1 each way, but w "
            f"has weights for {w.shape[:2]} (w.shape = {w.shape}): the layer is made for one size of image."
        )
    if b is not None:
        check_shape(op, "b", b, (w.shape[2], *positions), "(F, OH, OW), one bias per unit")
    return kernel_size, stride, pads


class Matmul(Op):
    """Saves a and b. Leading axes broadcast, as in NumPy."""

    formula = "y = a b"
    broadcasts = True
    contiguous = False  # _operand makes them so, without a copy where it can

    @staticmethod
    def forward(ctx, a, b):
        check_float("matmul", "a", a)
        check_float("matmul", "b", b)
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
    a, transpose_a = _operand(a, transpose_a)
    b, transpose_b = _operand(b, transpose_b)
    if a.ndim == 2 and b.ndim == 2:
        return ctx.kernels.gemm(a, b, transpose_a, transpose_b)
    lead = ctx.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = ctx.xp.ascontiguousarray(ctx.xp.broadcast_to(a, lead + a.shape[-2:])).reshape(-1, *a.shape[-2:])
    b = ctx.xp.ascontiguousarray(ctx.xp.broadcast_to(b, lead + b.shape[-2:])).reshape(-1, *b.shape[-2:])
    y = ctx.kernels.gemm(a, b, transpose_a, transpose_b)
    return y.reshape(*lead, *y.shape[-2:])


def _operand(a, transpose):
    """``a`` as the kernel reads it; a transposed view, as in x @ w.T, as what it is a view of and the other flag."""
    if a.flags.c_contiguous:
        return readable(a), transpose
    stored = a.swapaxes(-1, -2)
    return (readable(stored), not transpose) if stored.flags.c_contiguous else (readable(a), transpose)


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


def locally_connected2d(x, w, b=None, stride=1, padding=0):
    """A convolution with weights of its own at every position, as defined at the top of this file.

    x (N, C, H, W), w (OH, OW, F, C, KH, KW), b (F, OH, OW) or None -> y (N, F, OH, OW); float32 or float64.
    ``w[oh, ow]`` is what conv2d's weight is everywhere. ``stride``, ``padding``: as in :func:`conv2d`.

    >>> import cnnlib as cl, numpy as np
    >>> x = cl.Tensor([[[[1.0, 2.0, 3.0]]]])
    >>> w = np.array([[1.0, 1.0], [1.0, -1.0]], np.float32).reshape(1, 2, 1, 1, 1, 2)   # a sum here, a difference there
    >>> cl.ops.locally_connected2d(x, cl.Tensor(w)).numpy()
    array([[[[ 3., -1.]]]], dtype=float32)

    Raises ShapeError (channels, an image of another size than w was made for, empty batch), ValueRangeError, DtypeError.
    """
    return LocallyConnected2d.apply(x, w, b, stride=stride, padding=padding)


def matmul(a, b):
    """a @ b over the last two axes: (..., M, K) @ (..., K, N) -> (..., M, N); leading axes broadcast.

    Raises ShapeError, DtypeError for integers or mixed types.
    """
    return Matmul.apply(a, b)
