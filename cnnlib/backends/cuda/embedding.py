"""Embedding on CuPy arrays: csrc/embedding.cu."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.backends.cuda import errors
from cnnlib.backends.cuda.source import THREADS, elements, launch

DIGIT_BITS = 8


def embedding_forward(indices, w):
    R, (V, D) = indices.size, w.shape
    y = xp_of(w).empty((R, D), w.dtype)
    arguments = R, D, V, indices, w, y, errors.bit("embedding"), errors.word()
    launch("embedding", "embedding", w.dtype.char, *elements(R * D, 4), *arguments)
    return y


def embedding_backward(dy, indices, num_embeddings):
    R, D = dy.shape
    dw = xp_of(dy).empty((num_embeddings, D), dy.dtype)
    arguments = R, D, num_embeddings, dy, indices, _sorted_rows(indices, num_embeddings), dw
    lanes = min(32, 1 << max(0, D - 1).bit_length())
    block = lanes, THREADS // lanes
    launch("embedding", "embedding_backward", dy.dtype.char, (-(-num_embeddings // block[1]),), block, *arguments)
    return dw


def _sorted_rows(indices, V):
    """0 … R − 1 in the order of their indices, equal ones in their own."""
    xp, R = xp_of(indices), indices.size
    grid, block = elements(R)
    n = max(1, grid[0]) << DIGIT_BITS
    counts, order = xp.empty(n, "int64"), None
    for shift in range(0, V.bit_length(), DIGIT_BITS):
        pass_of = R, V, shift, indices, order
        launch("embedding", "digit_counts", "f", grid, block, *pass_of, counts)
        launch("embedding", "digit_offsets", "f", (1,), (min(1024, n),), n, counts)
        after = xp.empty(R, "int64")
        launch("embedding", "digit_scatter", "f", grid, block, *pass_of, counts, after)
        order = after
    return order
