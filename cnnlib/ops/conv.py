"""Convolutions (cross-correlations: the kernel is not flipped), and transposed convolutions.

Formula, for one image and one group, with stride S, padding P and dilation D::

    y[f, oh, ow] = b[f] + Σ_c Σ_kh Σ_kw w[f, c, kh, kw] x[c, oh·S + kh·D − P, ow·S + kw·D − P]
    OH = (H + 2P − D (KH − 1) − 1) / S + 1, rounded down; OW likewise.

x counts as zero outside the image. With groups = G, output channel f sees only the C/G input channels of its own group.

Adjoints, with dy = ∂J/∂y. Each product w·x of the sum sends dy to its two factors::

    ∂J/∂w[f, c, kh, kw] = Σ_n Σ_oh Σ_ow dy[n, f, oh, ow] x[n, c, oh·S + kh·D − P, ow·S + kw·D − P]
    ∂J/∂x[c, h, w]      = the sum of w[f, c, kh, kw] dy[f, oh, ow] over all (f, oh, ow, kh, kw) that read pixel (h, w)
    ∂J/∂b[f]            = Σ_n Σ_oh Σ_ow dy[n, f, oh, ow]

Written with windows: gather every window of x as a column (im2col), and the convolution is one matrix product; its
adjoints are the two transposed products, and the adjoint of gathering is adding back (col2im).

The transposed convolution is the adjoint ∂J/∂x used as a forward: it maps (OH, OW) back to (H, W).

Source: lecture: convolutional networks; LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
recognition", 1998; Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016.
"""

from __future__ import annotations

from cnnlib.backends import kernel, xp_of
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_ndim, check_not_empty, check_shape, pair
from cnnlib.ops.shape import reshape

# ---- the textbook. pads = (top, bottom, left, right); stride, dilation = (height, width).


@kernel
def conv2d_forward(x, w, b, stride, pads, dilation, groups):
    cols = im2col(x, w.shape[2:], stride, pads, dilation)  # (N, C, KH, KW, OH, OW)
    N, _, _, _, OH, OW = cols.shape
    F = w.shape[0]
    wg, colsg = _grouped(w, cols, groups)
    y = (wg @ colsg).reshape(N, F, OH, OW)  # (G, F/G, K) @ (N, G, K, OH·OW) -> (N, G, F/G, OH·OW)
    return y if b is None else y + b[:, None, None]


@kernel
def conv2d_backward_input(dy, w, x_shape, stride, pads, dilation, groups):
    N, F, OH, OW = dy.shape
    wg = w.reshape(groups, F // groups, -1)
    dyg = dy.reshape(N, groups, F // groups, OH * OW)
    dcols = wg.swapaxes(1, 2) @ dyg  # (G, K, F/G) @ (N, G, F/G, OH·OW) -> (N, G, K, OH·OW)
    return col2im(dcols.reshape(N, x_shape[1], *w.shape[2:], OH, OW), x_shape, stride, pads, dilation)


@kernel
def conv2d_backward_weight(dy, x, w_shape, stride, pads, dilation, groups):
    N, F, OH, OW = dy.shape
    cols = im2col(x, w_shape[2:], stride, pads, dilation)
    dyg = dy.reshape(N, groups, F // groups, OH * OW)
    colsg = cols.reshape(N, groups, -1, OH * OW)
    dw = (dyg @ colsg.swapaxes(2, 3)).sum(axis=0)  # (N, G, F/G, OH·OW) @ (N, G, OH·OW, K) -> sum over N (G, F/G, K)
    return dw.reshape(w_shape)


@kernel
def conv2d_backward_bias(dy):
    return dy.sum(axis=(0, 2, 3))  # (N, F, OH, OW) -> (F,)


def im2col(x, kernel_size, stride, pads, dilation):
    """Every window of x: (N, C, H, W) -> (N, C, KH, KW, OH, OW). The loop runs over the kernel's offsets only."""
    xp = xp_of(x)
    (KH, KW), (SH, SW), (DH, DW) = kernel_size, stride, dilation
    N, C = x.shape[:2]
    OH, OW = output_size(x.shape[2:], kernel_size, stride, pads, dilation)
    x = xp.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
    cols = xp.empty((N, C, KH, KW, OH, OW), dtype=x.dtype)
    for kh in range(KH):
        for kw in range(KW):
            h, w = kh * DH, kw * DW
            cols[:, :, kh, kw] = x[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW]
    return cols


def col2im(dcols, x_shape, stride, pads, dilation):
    """The adjoint of im2col: add every window's entries back to the pixels they came from."""
    xp = xp_of(dcols)
    N, C, KH, KW, OH, OW = dcols.shape
    (SH, SW), (DH, DW) = stride, dilation
    H, W = x_shape[2:]
    top, bottom, left, right = pads
    dx = xp.zeros((N, C, H + top + bottom, W + left + right), dtype=dcols.dtype)
    for kh in range(KH):
        for kw in range(KW):
            h, w = kh * DH, kw * DW
            dx[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW] += dcols[:, :, kh, kw]
    return xp.ascontiguousarray(dx[:, :, top : top + H, left : left + W])


def output_size(image_size, kernel_size, stride, pads, dilation):
    """(OH, OW) of a convolution or pooling."""
    top, bottom, left, right = pads
    return tuple(
        (size + pad - d * (k - 1) - 1) // s + 1
        for size, pad, k, s, d in zip(image_size, (top + bottom, left + right), kernel_size, stride, dilation, strict=True)
    )


def _grouped(w, cols, groups):
    """w as (G, F/G, K) and cols as (N, G, K, OH·OW), K = C/G·KH·KW."""
    N, _, _, _, OH, OW = cols.shape
    return w.reshape(groups, w.shape[0] // groups, -1), cols.reshape(N, groups, -1, OH * OW)


# ---- the operations


class Conv2d(Op):
    """Saves x, w and geometry = (stride, pads, dilation, groups)."""

    formula = "y = w ∗ x + b"

    @staticmethod
    def forward(ctx, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
        geometry = _geometry("conv2d", x, w, b, stride, padding, dilation, groups)
        ctx.save(x=x, w=w, geometry=geometry)
        return ctx.kernels.conv2d_forward(x, w, b, *geometry)

    @staticmethod
    def backward(ctx, dy):
        x, w, geometry = ctx.x, ctx.w, ctx.geometry
        dx = ctx.kernels.conv2d_backward_input(dy, w, x.shape, *geometry) if ctx.needs[0] else None
        dw = ctx.kernels.conv2d_backward_weight(dy, x, w.shape, *geometry) if ctx.needs[1] else None
        db = ctx.kernels.conv2d_backward_bias(dy) if ctx.needs[2] else None
        return dx, dw, db


class ConvTranspose2d(Op):
    """The same three kernels in exchanged roles: forward is Conv2d's dx, and dx is Conv2d's forward.

    Saves x, w, y_shape and geometry.
    """

    formula = "y = wᵀ ∗ x + b"

    @staticmethod
    def forward(ctx, x, w, b=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
        y_shape, geometry = _transposed_geometry(x, w, b, stride, padding, output_padding, groups, dilation)
        ctx.save(x=x, w=w, y_shape=y_shape, geometry=geometry)
        y = ctx.kernels.conv2d_backward_input(x, w, y_shape, *geometry)
        return y if b is None else y + b[:, None, None]

    @staticmethod
    def backward(ctx, dy):
        x, w, geometry = ctx.x, ctx.w, ctx.geometry
        dx = ctx.kernels.conv2d_forward(dy, w, None, *geometry) if ctx.needs[0] else None
        dw = ctx.kernels.conv2d_backward_weight(x, dy, w.shape, *geometry) if ctx.needs[1] else None
        db = ctx.kernels.conv2d_backward_bias(dy) if ctx.needs[2] else None
        return dx, dw, db


def _geometry(op, x, w, b, stride, padding, dilation, groups):
    """(stride, pads, dilation, groups) as the kernels take them, after all checks."""
    check_float(op, "x", x)
    check_ndim(op, "x", x, 4, "(N, C, H, W)")
    check_ndim(op, "w", w, 4, "(F, C/groups, KH, KW)")
    check_not_empty(op, "x", x)
    check_not_empty(op, "w", w)
    stride, dilation = pair(op, "stride", stride), pair(op, "dilation", dilation)
    _check_groups(op, groups, ("w.shape[0]", w.shape[0]))
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(
            f"{op}: x has {x.shape[1]} channels (x.shape = {x.shape}) but w expects C/groups = {w.shape[1]} "
            f"(w.shape = {w.shape}, groups = {groups}): x.shape[1] must equal w.shape[1] * groups."
        )
    if b is not None:
        check_shape(op, "b", b, w.shape[:1], "one bias per output channel")
    pads = resolve_padding(op, padding, w.shape[2:], stride, dilation)
    check_window(op, x.shape[2:], w.shape[2:], stride, pads, dilation)
    return stride, pads, dilation, groups


def _check_groups(op, groups, *counts):
    if not isinstance(groups, int) or groups < 1:
        raise ValueRangeError(f"{op}: groups must be a whole number >= 1, got {groups!r}.")
    for name, count in counts:
        if count % groups:
            raise ShapeError(f"{op}: groups = {groups} must divide {name} = {count}.")


def resolve_padding(op, padding, kernel_size, stride, dilation):
    """A number, a pair or "same" (output as large as input, stride 1; the odd pixel goes to bottom and right) as pads."""
    if isinstance(padding, str):
        if padding != "same":
            raise ValueRangeError(f'{op}: padding must be a number, a pair or "same", got {padding!r}.')
        if stride != (1, 1):
            raise ValueRangeError(f'{op}: padding="same" needs stride 1, got stride {stride}: set the padding in numbers.')
        (total_h, total_w) = (d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True))
        return total_h // 2, total_h - total_h // 2, total_w // 2, total_w - total_w // 2
    ph, pw = pair(op, "padding", padding, smallest=0)
    return ph, ph, pw, pw


def check_window(op, image_size, kernel_size, stride, pads, dilation=(1, 1)):
    """Refuse a kernel that does not fit into the padded image."""
    if min(output_size(image_size, kernel_size, stride, pads, dilation)) < 1:
        H, W = image_size
        reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True))
        raise ShapeError(
            f"{op}: the kernel {tuple(kernel_size)} reaches over {reach} pixels but the padded image has only "
            f"{(H + pads[0] + pads[1], W + pads[2] + pads[3])} (image {(H, W)}): "
            "(H + 2P - D (KH - 1) - 1) / S + 1 must be at least 1."
        )


def _transposed_geometry(x, w, b, stride, padding, output_padding, groups, dilation):
    op = "conv_transpose2d"
    check_float(op, "x", x)
    check_ndim(op, "x", x, 4, "(N, C, H, W)")
    check_ndim(op, "w", w, 4, "(C, F/groups, KH, KW)")
    check_not_empty(op, "x", x)
    check_not_empty(op, "w", w)
    stride, dilation = pair(op, "stride", stride), pair(op, "dilation", dilation)
    extra = pair(op, "output_padding", output_padding, smallest=0)
    _check_groups(op, groups, ("w.shape[0]", w.shape[0]))
    if x.shape[1] != w.shape[0]:
        raise ShapeError(
            f"{op}: x has {x.shape[1]} channels (x.shape = {x.shape}) but w expects {w.shape[0]} (w.shape = {w.shape})."
        )
    F = w.shape[1] * groups
    if b is not None:
        check_shape(op, "b", b, (F,), "one bias per output channel")
    ph, pw = pair(op, "padding", padding, smallest=0)
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        raise ValueRangeError(f"{op}: output_padding {extra} must be smaller than stride {stride}.")
    H, W = (
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], stride, (ph, pw), dilation, w.shape[2:], extra, strict=True)
    )
    if min(H, W) < 1:
        raise ShapeError(
            f"{op}: the output would have size {(H, W)}: (H - 1) S - 2P + D (KH - 1) + output_padding + 1 must be at least 1; "
            "padding is too large."
        )
    return (x.shape[0], F, H, W), (stride, (ph, ph, pw, pw), dilation, groups)


# ---- the public functions


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of images, as defined at the top of this file.

    x (N, C, H, W), w (F, C/groups, KH, KW), b (F,) or None -> y (N, F, OH, OW); float32 or float64.
    ``stride``, ``dilation``: a number or (height, width). ``padding``: likewise, or ``"same"``.

    >>> import cnnlib as cl, numpy as np
    >>> x = cl.Tensor(np.ones((1, 1, 3, 3), np.float32))
    >>> cl.ops.conv2d(x, cl.Tensor(np.ones((1, 1, 3, 3), np.float32)), padding=1).numpy()[0, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)

    Raises ShapeError (channels, groups, kernel larger than the padded image, empty batch), ValueRangeError (settings),
    DtypeError.
    """
    return Conv2d.apply(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)


def conv_transpose2d(x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Transposed convolution: x (N, C, H, W), w (C, F/groups, KH, KW), b (F,) or None -> y (N, F, OH, OW) with
    OH = (H - 1) S - 2P + D (KH - 1) + output_padding + 1. Argument order as in PyTorch. Raises as :func:`conv2d`.
    """
    return ConvTranspose2d.apply(
        x, w, b, stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation
    )


def conv1d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of signals: :func:`conv2d` with H = 1. x (N, C, L), w (F, C/groups, K), b (F,) or None -> (N, F, OL).

    >>> import cnnlib as cl
    >>> cl.ops.conv1d(cl.Tensor([[[1.0, 2.0, 4.0]]]), cl.Tensor([[[1.0, -1.0]]])).numpy()
    array([[[-1., -2.]]], dtype=float32)
    """
    check_ndim("conv1d", "x", x, 3, "(N, C, L)")
    check_ndim("conv1d", "w", w, 3, "(F, C/groups, K)")
    padding = padding if isinstance(padding, str) else (0, padding)
    y = conv2d(
        reshape(x, (*x.shape[:2], 1, x.shape[2])),
        reshape(w, (*w.shape[:2], 1, w.shape[2])),
        b,
        stride=(1, stride),
        padding=padding,
        dilation=(1, dilation),
        groups=groups,
    )
    return y.reshape(y.shape[0], y.shape[1], y.shape[3])
