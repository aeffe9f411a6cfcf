"""Pooling: each window of an image becomes one number, so that small shifts of the input matter less.

Formulas, for one channel, with window (KH, KW), stride S and padding P; the window at (oh, ow) covers the pixels
(oh·S − P + kh, ow·S − P + kw)::

    max       y[oh, ow] = max of the window                  padding never wins, NaN does; the first of several maxima wins
    average   y[oh, ow] = Σ window / m                       m = KH·KW, or the number of its pixels inside the image
    Lp        y[oh, ow] = (Σ |window|^p)^(1/p)               p = 2: "L2 pooling"; p → ∞ tends to the maximum of |x|
    OH = (H + 2P − KH) / S + 1, rounded down; OW likewise

Adjoints, with dy = ∂J/∂y. Windows may overlap (stride < kernel), so a pixel collects from every window that covers it::

    max       dx[h, w] = Σ dy[oh, ow] over the windows that (h, w) won
    average   dx[h, w] = Σ dy[oh, ow] / m over the windows that cover (h, w)
    Lp        ∂y/∂x = 1/p (Σ |x|^p)^(1/p − 1) · p |x|^(p−1) sign(x) = sign(x) (|x| / y)^(p−1), so
              dx[h, w] = sign(x) Σ dy[oh, ow] (|x| / y[oh, ow])^(p−1), with 0 for y = 0

Source: lecture: convolutional networks (pooling); Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep
convolutional neural networks", 2012 (overlapping windows); Sermanet, Chintala & LeCun, "Convolutional neural networks
applied to house numbers digit classification", 2012 (Lp).
"""

from __future__ import annotations

from cnnlib.backends import kernel, xp_of
from cnnlib.errors import ValueRangeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_ndim, check_not_empty, pair
from cnnlib.ops.conv import check_window, output_size
from cnnlib.ops.shape import reshape

# ---- the textbook. pads = (top, bottom, left, right); kernel_size, stride = (height, width).


@kernel
def max_pool2d_forward(x, kernel_size, stride, pads):
    xp = xp_of(x)
    KH, KW = kernel_size
    OH, OW = _output_size(x.shape, kernel_size, stride, pads)
    first_row = xp.maximum(pads[0] - xp.arange(OH) * stride[0], 0)  # of each window: its first row inside the image
    first_column = xp.maximum(pads[2] - xp.arange(OW) * stride[1], 0)
    argmax = xp.empty((*x.shape[:2], OH, OW), dtype="uint8" if KH * KW <= 256 else "int32")
    argmax[...] = first_row[:, None] * KW + first_column
    y = xp.full(argmax.shape, -xp.inf, dtype=x.dtype)
    for k, window in _offsets(_padded(x, pads, -xp.inf), kernel_size, stride, (OH, OW)):
        wins = (window > y) | (xp.isnan(window) & ~xp.isnan(y))
        y = xp.where(wins, window, y)
        argmax[wins] = k
    return y, argmax


@kernel
def max_pool2d_backward(dy, argmax, x_shape, kernel_size, stride, pads):
    xp = xp_of(dy)
    dx = _padded_zeros(dy, x_shape, pads)
    for k, window in _offsets(dx, kernel_size, stride, dy.shape[2:]):
        window += xp.where(argmax == k, dy, 0)
    return _inside(dx, x_shape, pads)


@kernel
def avg_pool2d_forward(x, kernel_size, stride, pads, count_include_pad):
    OH, OW = _output_size(x.shape, kernel_size, stride, pads)
    y = xp_of(x).zeros((*x.shape[:2], OH, OW), dtype=x.dtype)
    for _, window in _offsets(_padded(x, pads, 0), kernel_size, stride, (OH, OW)):
        y += window
    return y / _counts(x, y.shape, x.shape, kernel_size, stride, pads, count_include_pad)


@kernel
def avg_pool2d_backward(dy, x_shape, kernel_size, stride, pads, count_include_pad):
    share = dy / _counts(dy, dy.shape, x_shape, kernel_size, stride, pads, count_include_pad)
    dx = _padded_zeros(dy, x_shape, pads)
    for _, window in _offsets(dx, kernel_size, stride, dy.shape[2:]):
        window += share
    return _inside(dx, x_shape, pads)


@kernel
def lp_pool2d_forward(x, p, kernel_size, stride, pads):
    OH, OW = _output_size(x.shape, kernel_size, stride, pads)
    total = xp_of(x).zeros((*x.shape[:2], OH, OW), dtype=x.dtype)
    for _, window in _offsets(_padded(abs(x) ** p, pads, 0), kernel_size, stride, (OH, OW)):
        total += window
    return total ** (1 / p)


@kernel
def lp_pool2d_backward(dy, x, y, p, kernel_size, stride, pads):
    xp = xp_of(dy)
    dx = _padded_zeros(dy, x.shape, pads)
    divisor = xp.where(y == 0, 1, y)  # where y = 0 all of the window is 0, and so is sign(x)
    windows = _offsets(_padded(x, pads, 0), kernel_size, stride, dy.shape[2:])
    for (_, dwindow), (_, window) in zip(_offsets(dx, kernel_size, stride, dy.shape[2:]), windows, strict=True):
        dwindow += dy * xp.sign(window) * (abs(window) / divisor) ** (p - 1)
    return _inside(dx, x.shape, pads)


def _offsets(padded, kernel_size, stride, output_size):
    """(k, view) for every offset k = kh·KW + kw: the view holds element (kh, kw) of every window, (N, C, OH, OW)."""
    (KH, KW), (SH, SW), (OH, OW) = kernel_size, stride, output_size
    for kh in range(KH):
        for kw in range(KW):
            yield kh * KW + kw, padded[:, :, kh : kh + SH * OH : SH, kw : kw + SW * OW : SW]


def _output_size(x_shape, kernel_size, stride, pads):
    return output_size(x_shape[2:], kernel_size, stride, pads, (1, 1))


def _padded(x, pads, value):
    return xp_of(x).pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]), constant_values=value)


def _padded_zeros(dy, x_shape, pads):
    N, C, H, W = x_shape
    return xp_of(dy).zeros((N, C, H + pads[0] + pads[1], W + pads[2] + pads[3]), dtype=dy.dtype)


def _inside(padded, x_shape, pads):
    """The image without its padding."""
    return xp_of(padded).ascontiguousarray(padded[:, :, pads[0] : pads[0] + x_shape[2], pads[2] : pads[2] + x_shape[3]])


def _counts(like, y_shape, x_shape, kernel_size, stride, pads, count_include_pad):
    """By how much each window's sum is divided: a number, or an array (OH, OW)."""
    xp = xp_of(like)
    if count_include_pad:
        return kernel_size[0] * kernel_size[1]
    counts = []
    for size, reach, step, before, outputs in zip(x_shape[2:], kernel_size, stride, pads[::2], y_shape[2:], strict=True):
        begin = xp.arange(outputs) * step - before
        counts.append(xp.minimum(begin + reach, size) - xp.maximum(begin, 0))
    return (counts[0][:, None] * counts[1]).astype(like.dtype)


# ---- the operations


class MaxPool2d(Op):
    """Saves x_shape, geometry = (kernel_size, stride, pads) and argmax, the winner's offset kh·KW + kw in each window."""

    formula = "y = max over the window of x"

    @staticmethod
    def forward(ctx, x, *, kernel_size, stride=None, padding=0, ceil_mode=False):
        geometry = _geometry("max_pool2d", x, kernel_size, stride, padding, ceil_mode)
        y, argmax = ctx.kernels.max_pool2d_forward(x, *geometry)
        ctx.save(x_shape=x.shape, argmax=argmax, geometry=geometry)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.max_pool2d_backward(dy, ctx.argmax, ctx.x_shape, *ctx.geometry)


class AvgPool2d(Op):
    """Saves x_shape, geometry = (kernel_size, stride, pads) and count_include_pad."""

    formula = "y = Σ window of x / m"

    @staticmethod
    def forward(ctx, x, *, kernel_size, stride=None, padding=0, count_include_pad=True):
        geometry = _geometry("avg_pool2d", x, kernel_size, stride, padding)
        ctx.save(x_shape=x.shape, geometry=geometry, count_include_pad=bool(count_include_pad))
        return ctx.kernels.avg_pool2d_forward(x, *geometry, bool(count_include_pad))

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.avg_pool2d_backward(dy, ctx.x_shape, *ctx.geometry, ctx.count_include_pad)


class LpPool2d(Op):
    """Saves x, y, p and geometry = (kernel_size, stride, pads)."""

    formula = "y = (Σ window of |x|^p)^(1/p)"

    @staticmethod
    def forward(ctx, x, *, norm_type, kernel_size, stride=None, padding=0):
        geometry = _geometry("lp_pool2d", x, kernel_size, stride, padding)
        if not isinstance(norm_type, (int, float)) or not 1 <= norm_type < float("inf"):
            raise ValueRangeError(
                f"lp_pool2d: norm_type, the p of (Σ |x|^p)^(1/p), must be a finite number >= 1, got {norm_type!r}. "
                "For p = inf use max_pool2d."
            )
        p = float(norm_type)
        y = ctx.kernels.lp_pool2d_forward(x, p, *geometry)
        ctx.save(x=x, y=y, p=p, geometry=geometry)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.lp_pool2d_backward(dy, ctx.x, ctx.y, ctx.p, *ctx.geometry)


def _geometry(op, x, kernel_size, stride, padding, ceil_mode=False):
    """(kernel_size, stride, pads) as the kernels take them, after all checks."""
    check_float(op, "x", x)
    check_ndim(op, "x", x, 4, "(N, C, H, W)")
    check_not_empty(op, "x", x)
    kernel_size = pair(op, "kernel_size", kernel_size)
    stride = kernel_size if stride is None else pair(op, "stride", stride)
    ph, pw = pair(op, "padding", padding, smallest=0)
    if ph > kernel_size[0] // 2 or pw > kernel_size[1] // 2:
        raise ValueRangeError(
            f"{op}: padding {(ph, pw)} must be at most half of kernel_size {kernel_size}, rounded down, else windows would "
            "lie in the padding alone."
        )
    pads = (ph, ph, pw, pw)
    check_window(op, x.shape[2:], kernel_size, stride, pads)
    if ceil_mode:
        pads = _ceil_pads(x.shape, kernel_size, stride, pads)
    return kernel_size, stride, pads


def _ceil_pads(x_shape, kernel_size, stride, pads):
    """More padding at bottom and right, so that OH and OW are rounded up; every window still begins inside the image."""
    after = []
    for size, k, s, before in zip(x_shape[2:], kernel_size, stride, pads[::2], strict=True):
        windows = -((k - size - 2 * before) // s) + 1
        if (windows - 1) * s >= size + before:
            windows -= 1
        after.append(max(before, (windows - 1) * s + k - size - before))
    return pads[0], after[0], pads[2], after[1]


# ---- the public functions


def max_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """The maximum of each window: x (N, C, H, W) -> y (N, C, OH, OW); float32 or float64.

    ``kernel_size``, ``stride`` (default: kernel_size), ``padding`` (at most half the kernel): a number or (height, width).
    With ``ceil_mode`` OH and OW are rounded up: the last window may reach beyond the image.

    >>> import cnnlib as cl
    >>> x = cl.Tensor([[[[2.0, 8, 9, 4], [3, 6, 5, 7], [3, 1, 6, 4], [2, 5, 7, 3]]]])
    >>> cl.ops.max_pool2d(x, 2).numpy()[0, 0]
    array([[8., 9.],
           [5., 7.]], dtype=float32)

    Raises ShapeError (axes, empty batch, kernel larger than the padded image), ValueRangeError (settings), DtypeError.
    """
    return MaxPool2d.apply(x, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)


def avg_pool2d(x, kernel_size, stride=None, padding=0, count_include_pad=True):
    """The mean of each window: x (N, C, H, W) -> y (N, C, OH, OW). Zeros of the padding count, unless
    ``count_include_pad`` is False. Settings and errors as in :func:`max_pool2d`.

    >>> import cnnlib as cl
    >>> x = cl.Tensor([[[[12.0, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]]])
    >>> cl.ops.avg_pool2d(x, 2).numpy()[0, 0]
    array([[13. ,  8. ],
           [79. , 19.5]], dtype=float32)
    """
    return AvgPool2d.apply(x, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad)


def lp_pool2d(x, norm_type, kernel_size, stride=None, padding=0):
    """The Lp norm of each window, p = ``norm_type`` >= 1: x (N, C, H, W) -> y (N, C, OH, OW). Magnitudes |x| are pooled
    (PyTorch takes x^p, which differs for odd p and negative x). Settings and errors as in :func:`max_pool2d`.

    >>> import cnnlib as cl
    >>> cl.ops.lp_pool2d(cl.Tensor([[[[3.0, -4.0]]]]), 2, (1, 2)).numpy()
    array([[[[5.]]]], dtype=float32)
    """
    return LpPool2d.apply(x, norm_type=norm_type, kernel_size=kernel_size, stride=stride, padding=padding)


def global_max_pool2d(x):
    """The maximum of each feature map: x (N, C, H, W) -> y (N, C).

    >>> import cnnlib as cl
    >>> cl.ops.global_max_pool2d(cl.Tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).numpy()
    array([[6.]], dtype=float32)
    """
    check_ndim("global_max_pool2d", "x", x, 4, "(N, C, H, W)")
    return reshape(max_pool2d(x, x.shape[2:]), x.shape[:2])


def global_avg_pool2d(x):
    """The mean of each feature map: x (N, C, H, W) -> y (N, C). It replaced the wide linear layers from GoogLeNet on.

    >>> import cnnlib as cl
    >>> cl.ops.global_avg_pool2d(cl.Tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).numpy()
    array([[3.]], dtype=float32)
    """
    check_ndim("global_avg_pool2d", "x", x, 4, "(N, C, H, W)")
    return reshape(avg_pool2d(x, x.shape[2:]), x.shape[:2])


def max_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """:func:`max_pool2d` of signals, with H = 1: x (N, C, L) -> y (N, C, OL).

    >>> import cnnlib as cl
    >>> cl.ops.max_pool1d(cl.Tensor([[[1.0, 5.0, 2.0, 3.0, 0.0]]]), 3, stride=2).numpy()
    array([[[5., 3.]]], dtype=float32)
    """
    return _pool1d("max_pool1d", max_pool2d, x, kernel_size, stride, padding, ceil_mode=ceil_mode)


def avg_pool1d(x, kernel_size, stride=None, padding=0, count_include_pad=True):
    """:func:`avg_pool2d` of signals, with H = 1: x (N, C, L) -> y (N, C, OL).

    >>> import cnnlib as cl
    >>> cl.ops.avg_pool1d(cl.Tensor([[[1.0, 5.0, 2.0, 4.0]]]), 2).numpy()
    array([[[3., 3.]]], dtype=float32)
    """
    return _pool1d("avg_pool1d", avg_pool2d, x, kernel_size, stride, padding, count_include_pad=count_include_pad)


def lp_pool1d(x, norm_type, kernel_size, stride=None, padding=0):
    """:func:`lp_pool2d` of signals, with H = 1: x (N, C, L) -> y (N, C, OL).

    >>> import cnnlib as cl
    >>> cl.ops.lp_pool1d(cl.Tensor([[[3.0, -4.0, 0.0, 1.0]]]), 2, 2).numpy()
    array([[[5., 1.]]], dtype=float32)
    """
    return _pool1d("lp_pool1d", lp_pool2d, x, kernel_size, stride, padding, norm_type=norm_type)


def _pool1d(op, pool2d, x, kernel_size, stride, padding, **settings):
    check_ndim(op, "x", x, 3, "(N, C, L)")
    for name, value in (("kernel_size", kernel_size), ("stride", stride), ("padding", padding)):
        if not isinstance(value, int) and not (name == "stride" and value is None):
            raise ValueRangeError(f"{op}: {name} must be a whole number, got {value!r}.")
    y = pool2d(
        reshape(x, (*x.shape[:2], 1, x.shape[2])),
        kernel_size=(1, kernel_size),
        stride=None if stride is None else (1, stride),
        padding=(0, padding),
        **settings,
    )
    return reshape(y, (*y.shape[:2], y.shape[3]))
