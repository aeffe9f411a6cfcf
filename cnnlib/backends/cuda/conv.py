"""Convolutions on CuPy arrays: csrc/conv*.cu, and cuBLAS. Four methods:

- ``tiles``: the implicit matrix product of csrc/conv.cu. For any geometry; the windows are never written down.
- ``windows``: they are, and cuBLAS multiplies. Costs K = C·KH·KW times the memory of one output channel.
- ``pointwise``: 1×1 kernels are a matrix product as they stand.
- ``depthwise``: one input channel per group: no product of matrices, a loop over the taps.

Where two of them could, the faster on this GPU does it (tuning.py). A step that is to be recorded does without cuBLAS
(recordable.py), and so without ``windows`` and ``pointwise``.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from cnnlib.backends import xp_of
from cnnlib.backends.cuda import tuning
from cnnlib.backends.cuda.recordable import without_cublas
from cnnlib.backends.cuda.source import THREADS, elements, launch

COLUMNS = 128  # of a tile, as in csrc/conv.cu: pixels or taps, and as many threads
ENOUGH_BLOCKS = 264  # two for each multiprocessor of an H200, whichever GPU runs: equal bits on all
LARGEST_WINDOWS = 2**30  # bytes

# Where nothing can be measured: cuBLAS multiplies faster than our tiles; for that its windows must be worth writing and
# reading: at least so many products for each of them, and so many terms in a sum.
LEAST_FILTERS, LEAST_TERMS = 256, 512


class Geometry(NamedTuple):
    """The sizes of a convolution, per group where groups matter: C and M are input and output channels of one group."""

    groups: int
    N: int
    C: int
    H: int
    W: int
    M: int
    OH: int
    OW: int
    KH: int
    KW: int
    SH: int
    SW: int
    top: int
    left: int
    DH: int
    DW: int

    @property
    def K(self):
        return self.C * self.KH * self.KW

    @property
    def pixels(self):
        return self.N * self.OH * self.OW


def _geometry(x_shape, w_shape, stride, pads, dilation, groups):
    (N, _, H, W), (F, C, KH, KW), (top, bottom, left, right) = x_shape, w_shape, pads
    OH, OW = (
        (size + pad - d * (k - 1) - 1) // s + 1
        for size, pad, k, s, d in zip((H, W), (top + bottom, left + right), (KH, KW), stride, dilation, strict=True)
    )
    return Geometry(groups, N, C, H, W, F // groups, OH, OW, KH, KW, *stride, top, left, *dilation)


def _methods(g, pads, itemsize):
    """Those that may compute it, the likely one first."""
    if g.groups > 1 and g.C == 1:
        return ["depthwise"]
    if g.groups > 1 or without_cublas():
        return ["tiles"]
    if (g.KH, g.KW, g.SH, g.SW) == (1, 1, 1, 1) and not any(pads):
        return ["pointwise", "tiles"]
    if g.K * g.pixels * itemsize > LARGEST_WINDOWS:
        return ["tiles"]
    return ["windows", "tiles"] if g.M >= LEAST_FILTERS and g.K >= LEAST_TERMS else ["tiles", "windows"]


def _method(passing, g, pads, arrays):
    methods = _methods(g, pads, arrays[0].itemsize)
    if len(methods) == 1 or not g.pixels:
        return methods[0]
    problem = f"{passing} {arrays[0].dtype} {' '.join(map(str, g))}"
    ways = {method: partial(METHODS[passing][method], g, *arrays) for method in methods}
    return tuning.fastest(problem, ways, otherwise=methods[0])


def _run(passing, g, pads, *arrays):
    return METHODS[passing][_method(passing, g, pads, arrays)](g, *arrays)


def conv2d_forward(x, w, b, stride, pads, dilation, groups):
    return _run("forward", _geometry(x.shape, w.shape, stride, pads, dilation, groups), pads, x, w, b)


def conv2d_backward_input(dy, w, x_shape, stride, pads, dilation, groups):
    return _run("backward_input", _geometry(x_shape, w.shape, stride, pads, dilation, groups), pads, dy, w)


def conv2d_backward_weight(dy, x, w_shape, stride, pads, dilation, groups):
    return _run("backward_weight", _geometry(x.shape, w_shape, stride, pads, dilation, groups), pads, dy, x).reshape(w_shape)


def conv2d_backward_bias(dy):
    N, F, OH, OW = dy.shape
    parts = _parts(F, N)
    db = xp_of(dy).empty((parts, F), dy.dtype)
    launch("conv", "conv2d_bias", dy.dtype.char, (F * parts,), (THREADS,), N, F, OH * OW, parts, dy, db)
    return _sum_of_parts(db)


# ---- tiles


def _rows_per_thread(M):
    return 2 if M <= 16 else 4 if M <= 32 else 8


def _parts(blocks, most):
    """Into how many parts a sum is cut so that there are blocks enough; ``most`` keeps the parts from getting too short."""
    return max(1, min(-(-ENOUGH_BLOCKS // max(1, blocks)), most))


def _sum_of_parts(partial, bias=None):
    """partial (parts, ..., C, S) -> their sum, plus bias (C,)."""
    if len(partial) == 1 and bias is None:
        return partial[0]
    out = xp_of(partial).empty(partial.shape[1:], partial.dtype)
    C, S = (1, 1) if bias is None else (out.shape[1], out.shape[2] * out.shape[3])
    launch("conv", "sum_of_parts", out.dtype.char, *elements(out.size), out.size, len(partial), C, S, partial, bias, out)
    return out


def _convolve(backward, g, source, w, bias, columns, phases):
    """``source`` has g.C channels a group, H and W; the result g.M, OH and OW: of dy and dx when ``backward``."""
    rows = _rows_per_thread(g.M)
    tiles = -(-g.M // (8 * rows)) * g.groups * phases * -(-columns // COLUMNS)
    parts = _parts(tiles, g.K // (64 * phases))
    out = xp_of(source).empty((parts, g.N, g.groups * g.M, g.OH, g.OW), source.dtype)
    arrays = w, source, bias if parts == 1 else None, out
    launch("conv", f"conv2d_{rows}", source.dtype.char, (tiles * parts,), (COLUMNS,), int(backward), *g, parts, *arrays)
    return out[0] if parts == 1 else _sum_of_parts(out, bias)


def forward_tiles(g, x, w, b):
    return _convolve(False, g, x, w, b, g.pixels, 1)


def backward_input_tiles(g, dy, w):
    exchanged = g._replace(C=g.M, H=g.OH, W=g.OW, M=g.C, OH=g.H, OW=g.W)
    of_a_phase = g.N * -(-g.H // g.SH) * -(-g.W // g.SW)
    return _convolve(True, exchanged, dy, w, None, of_a_phase, g.SH * g.SW)


def backward_weight_tiles(g, dy, x):
    rows = _rows_per_thread(g.M)
    tiles = -(-g.M // (8 * rows)) * -(-g.K // COLUMNS) * g.groups
    parts = _parts(tiles, -(-g.pixels // 256))
    dw = xp_of(x).empty((parts, g.groups * g.M * g.K), x.dtype)
    launch("conv", f"conv2d_weight_{rows}", x.dtype.char, (tiles * parts,), (COLUMNS,), *g, parts, dy, x, dw)
    return _sum_of_parts(dw)


# ---- windows: (K, N·OH·OW), one product for the whole batch


def _channels_first(a):
    """(N, C, H, W) -> (C, N·H·W)."""
    N, C, H, W = a.shape
    return xp_of(a).ascontiguousarray(a.swapaxes(0, 1)).reshape(C, N * H * W)


def _windows(g, x):
    if _is_pointwise(g):
        return _channels_first(x)
    cols = xp_of(x).empty((g.K, g.pixels), x.dtype)
    blocks = -(-g.pixels // THREADS)
    launch("conv_windows", "windows", x.dtype.char, (g.C * blocks,), (THREADS,), *_one_group(g), x, cols)
    return cols


def _is_pointwise(g):
    return g.KH * g.KW == 1 and (g.H, g.W) == (g.OH, g.OW)


def _one_group(g):
    """The sizes as kernels without groups take them."""
    return g.N, g.C, g.H, g.W, g.OH, g.OW, g.KH, g.KW, g.SH, g.SW, g.top, g.left, g.DH, g.DW


def forward_windows(g, x, w, b):
    xp = xp_of(x)
    product = (w.reshape(g.M, g.K) @ _windows(g, x)).reshape(g.M, g.N, g.OH, g.OW).swapaxes(0, 1)
    y = xp.empty(product.shape, x.dtype)
    if b is None:
        y[...] = product
    else:
        xp.add(product, b[:, None, None], out=y)
    return y


def backward_input_windows(g, dy, w):
    dcols = w.reshape(g.M, g.K).T @ _channels_first(dy)  # (K, F) @ (F, N·OH·OW)
    dx = xp_of(dy).empty((g.N, g.C, g.H, g.W), dy.dtype)
    launch("conv_windows", "windows_backward", dy.dtype.char, *elements(dx.size), *_one_group(g), dcols, dx)
    return dx


def backward_weight_windows(g, dy, x):
    return _channels_first(dy) @ _windows(g, x).T  # (F, N·OH·OW) @ (N·OH·OW, K)


# ---- pointwise


def forward_pointwise(g, x, w, b):
    y = xp_of(x).matmul(w.reshape(g.M, g.C), x.reshape(g.N, g.C, g.H * g.W))  # (F, C) @ (N, C, H·W)
    if b is not None:
        y += b[:, None]
    return y.reshape(g.N, g.M, g.OH, g.OW)


def backward_input_pointwise(g, dy, w):
    dx = xp_of(dy).matmul(w.reshape(g.M, g.C).T, dy.reshape(g.N, g.M, g.OH * g.OW))  # (C, F) @ (N, F, OH·OW)
    return dx.reshape(g.N, g.C, g.H, g.W)


# ---- depthwise


def _all_channels(g):
    """The sizes as the depthwise kernels take them: C and F of all groups together."""
    N, _, H, W, OH, OW, *rest = _one_group(g)
    return N, g.groups, H, W, g.groups * g.M, OH, OW, *rest


def forward_depthwise(g, x, w, b):
    y = xp_of(x).empty((g.N, g.groups * g.M, g.OH, g.OW), x.dtype)
    launch("conv_depthwise", "depthwise", x.dtype.char, *elements(y.size), *_all_channels(g), x, w, b, y)
    return y


def backward_input_depthwise(g, dy, w):
    dx = xp_of(dy).empty((g.N, g.groups, g.H, g.W), dy.dtype)
    launch("conv_depthwise", "depthwise_input", dy.dtype.char, *elements(dx.size), *_all_channels(g), dy, w, dx)
    return dx


def backward_weight_depthwise(g, dy, x):
    taps = g.groups * g.M * g.KH * g.KW
    parts = _parts(taps, g.N)
    dw = xp_of(x).empty((parts, taps), x.dtype)
    launch("conv_depthwise", "depthwise_weight", x.dtype.char, (taps * parts,), (THREADS,), *_all_channels(g), parts, dy, x, dw)
    return _sum_of_parts(dw)


METHODS = {
    "forward": {
        "tiles": forward_tiles,
        "windows": forward_windows,
        "pointwise": forward_pointwise,
        "depthwise": forward_depthwise,
    },
    "backward_input": {
        "tiles": backward_input_tiles,
        "windows": backward_input_windows,
        "pointwise": backward_input_pointwise,
        "depthwise": backward_input_depthwise,
    },
    "backward_weight": {
        "tiles": backward_weight_tiles,
        "windows": backward_weight_windows,
        "pointwise": backward_weight_windows,
        "depthwise": backward_weight_depthwise,
    },
}
