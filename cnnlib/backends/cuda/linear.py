"""Matrix products on CuPy arrays: cuBLAS, in true float32 (TF32 only where CUPY_TF32=1 asks for it), or, where a step is to be
recorded, the tiles of csrc/conv.cu; csrc/linear.cu.
"""

from __future__ import annotations

import math

from cnnlib.backends import xp_of
from cnnlib.backends.cuda.conv import Geometry, backward_input_tiles, backward_weight_tiles, forward_tiles
from cnnlib.backends.cuda.recordable import without_cublas
from cnnlib.backends.cuda.source import launch

LEAST_ROWS, MOST_PARTS = 64, 64  # of a part of a sum over rows: eight for each warp of a block; a second launch adds the parts


def gemm(a, b, transpose_a=False, transpose_b=False):
    if without_cublas():
        return _tiled(a, b, transpose_a, transpose_b)
    a = a.swapaxes(-1, -2) if transpose_a else a  # a view: cuBLAS reads either way
    b = b.swapaxes(-1, -2) if transpose_b else b
    return xp_of(a).matmul(a, b)


def _tiled(a, b, transpose_a, transpose_b):
    """A product is a convolution of one image, a pixel high, by 1×1 kernels, and a batch of products are its groups: a b is the
    convolution, aᵀ b the adjoint of its input, a bᵀ that of its weights."""
    xp = xp_of(a)
    if transpose_a and transpose_b:
        a, transpose_a = a.swapaxes(-1, -2), False
    batch = xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (xp.ascontiguousarray(xp.broadcast_to(m, batch + m.shape[-2:])) for m in (a, b))
    M, K = a.shape[-2:][::-1] if transpose_a else a.shape[-2:]
    N, groups = b.shape[-2 if transpose_b else -1], math.prod(batch)
    if not K:
        return xp.zeros((*batch, M, N), a.dtype)
    if transpose_b:
        y = backward_weight_tiles(_pointwise(groups, N, M, K), a, b)
    elif transpose_a:
        y = backward_input_tiles(_pointwise(groups, M, K, N), b, a)
    else:
        y = forward_tiles(_pointwise(groups, K, M, N), b, a, None)
    return y.reshape(*batch, M, N)


def _pointwise(groups, C, F, pixels):
    """1×1 kernels (F, C) over an image of one row, for each group."""
    return Geometry(groups, 1, C, 1, pixels, F, 1, pixels, 1, 1, 1, 1, 0, 0, 1, 1)


def linear_forward(x, w, b):
    y = gemm(x, w, transpose_b=True)  # (R, I) @ (I, O) -> (R, O)
    if b is not None:
        y += b
    return y


def linear_backward_input(dy, w):
    return gemm(dy, w)  # (R, O) @ (O, I) -> (R, I)


def linear_backward_weight(dy, x):
    return gemm(dy, x, transpose_a=True)  # (O, R) @ (R, I) -> (O, I)


def linear_backward_bias(dy):
    R, C = dy.shape
    rows_of_part = max(LEAST_ROWS, -(-R // MOST_PARTS))
    parts = max(1, -(-R // rows_of_part))
    sums = xp_of(dy).empty((parts, C), dy.dtype)
    launch("linear", "column_sums", dy.dtype.char, (-(-C // 32) * parts,), (32, 8), R, C, rows_of_part, dy, sums)
    return sums[0] if parts == 1 else linear_backward_bias(sums)
