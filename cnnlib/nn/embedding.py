"""Embedding as a layer. The maths is in cnnlib/ops/embedding.py."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.nn import init
from cnnlib.nn.module import Module
from cnnlib.tensor import Parameter


class Embedding(Module):
    """A table of num_embeddings vectors: integers (...) -> (..., embedding_dim). Weight (V, D), N(0, 1) at the start.

    >>> import cnnlib as cl
    >>> cl.nn.Embedding(10, 3)(cl.Tensor([[1, 2], [3, 4]])).shape
    (2, 2, 3)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(init.normal_((num_embeddings, embedding_dim), 1.0))

    def forward(self, indices):
        return ops.embedding(indices, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
