"""Embedding: a table of vectors, one per word (or character, or category); the layer looks its inputs up in it.

Formula: y[r, :] = w[indices[r], :]. The same as a product of one-hot rows with w, without the products with 0.

Adjoint: row r of dy arrives at the row of w that was read, and rows that were read several times add up::

    dw[v, :] = Σ over r with indices[r] = v of dy[r, :]

Source: lecture: recurrent networks (language models); Bengio, Ducharme, Vincent & Jauvin, "A neural probabilistic language
model", 2003.
"""

from __future__ import annotations

from cnnlib.backends import kernel, on_gpu, xp_of
from cnnlib.errors import ValueRangeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_integers, check_ndim, check_not_empty, first_wrong

# ---- the textbook


@kernel
def embedding_forward(indices, w):
    return w[indices]  # (R,), (V, D) -> (R, D)


@kernel
def embedding_backward(dy, indices, num_embeddings):
    xp = xp_of(dy)
    dw = xp.zeros((num_embeddings, dy.shape[1]), dtype=dy.dtype)
    xp.add.at(dw, indices, dy)
    return dw


# ---- the operation


class Embedding(Op):
    """Saves indices, as (R,) int64, and num_embeddings = V."""

    formula = "y = w[indices]"
    integers = ("indices",)

    @staticmethod
    def forward(ctx, indices, w):
        check_integers("embedding", "indices", indices)
        check_float("embedding", "w", w)
        check_ndim("embedding", "w", w, 2, "(num_embeddings, embedding_dim)")
        check_not_empty("embedding", "indices", indices)
        check_not_empty("embedding", "w", w)
        rows = indices.reshape(-1).astype("int64")
        if not on_gpu(indices):  # there, the kernel notes them
            _check_indices(indices, len(w))
        ctx.save(indices=rows, num_embeddings=len(w))
        return ctx.kernels.embedding_forward(rows, w).reshape(*indices.shape, w.shape[1])

    @staticmethod
    def backward(ctx, dy):
        return None, ctx.kernels.embedding_backward(dy.reshape(-1, dy.shape[-1]), ctx.indices, ctx.num_embeddings)


def _check_indices(indices, V):
    where = first_wrong("embedding", (indices < 0) | (indices >= V))
    if where is not None:
        raise ValueRangeError(
            f"embedding: index {int(indices[where])} at position {where} is outside 0 … {V - 1}: "
            f"w has {V} rows (num_embeddings)."
        )


# ---- the public function


def embedding(indices, w):
    """Rows of a table: indices of any shape (...), w (V, D) -> (..., D).

    >>> import cnnlib as cl
    >>> table = cl.Tensor([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]])
    >>> cl.ops.embedding(cl.Tensor([2, 1, 2]), table).numpy()
    array([[ 2., 20.],
           [ 1., 10.],
           [ 2., 20.]], dtype=float32)

    Raises ValueRangeError naming an index outside 0 … V − 1 and its position, DtypeError when indices are not integers.
    """
    return Embedding.apply(indices, w)
