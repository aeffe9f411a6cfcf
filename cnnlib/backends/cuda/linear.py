"""Matrix products on CuPy arrays: cuBLAS, in true float32 (TF32 only where CUPY_TF32=1 asks for it); csrc/linear.cu."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.backends.cuda.source import launch

LEAST_ROWS, MOST_PARTS = 64, 64  # of a part of a sum over rows: eight for each warp of a block; a second launch adds the parts


def gemm(a, b, transpose_a=False, transpose_b=False):
    a = a.swapaxes(-1, -2) if transpose_a else a  # a view: cuBLAS reads either way
    b = b.swapaxes(-1, -2) if transpose_b else b
    return xp_of(a).matmul(a, b)


def linear_forward(x, w, b):
    y = xp_of(x).matmul(x, w.T)  # (R, I) @ (I, O) -> (R, O)
    if b is not None:
        y += b
    return y


def linear_backward_input(dy, w):
    return xp_of(dy).matmul(dy, w)  # (R, O) @ (O, I) -> (R, I)


def linear_backward_weight(dy, x):
    return xp_of(dy).matmul(dy.T, x)  # (O, R) @ (R, I) -> (O, I)


def linear_backward_bias(dy):
    R, C = dy.shape
    rows_of_part = max(LEAST_ROWS, -(-R // MOST_PARTS))
    parts = max(1, -(-R // rows_of_part))
    sums = xp_of(dy).empty((parts, C), dy.dtype)
    launch("linear", "column_sums", dy.dtype.char, (-(-C // 32) * parts,), (32, 8), R, C, rows_of_part, dy, sums)
    return sums[0] if parts == 1 else linear_backward_bias(sums)
