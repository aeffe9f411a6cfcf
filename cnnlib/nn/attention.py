"""Additive attention: for each step of one sequence, a weighted mean over the steps of another.

A query q_t (H) is compared with every step m_s (M) of a memory by a small network; the scores become weights that add up to 1
over the real steps, and the weights a mean of the memory, the context of step t::

    e_ts = vᵀ tanh(W q_t + U m_s)        α_ts = e^(e_ts) / Σ_s' e^(e_ts')        c_t = Σ_s α_ts m_s

A step s that is padding gets a score so low that its weight is exactly 0. No adjoint is written by hand here: the operations
have theirs.

Source: Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align and translate", 2015.
"""

from __future__ import annotations

import math

from cnnlib import ops
from cnnlib.nn import init
from cnnlib.nn.linear import Linear
from cnnlib.nn.module import Module
from cnnlib.tensor import Parameter

NEVER = -1e9  # e to the power of it is 0; −∞ would be taken for a number that went wrong


class AdditiveAttention(Module):
    """Queries (B, T, H) and a memory (B, S, M) -> contexts (B, T, M) and weights (B, T, S), as defined at the top of this file.

    ``units``: the rows of W (units, H) and U (units, M), the length of v. ``real`` (B, S), boolean: which steps of the memory
    count; every sequence needs one.

    >>> import cnnlib as cl, numpy as np
    >>> attention = cl.nn.AdditiveAttention(query_size=3, memory_size=4, units=5)
    >>> context, weights = attention(cl.Tensor(np.ones((2, 6, 3), "f")), cl.Tensor(np.ones((2, 7, 4), "f")))
    >>> context.shape, weights.shape
    ((2, 6, 4), (2, 6, 7))
    """

    def __init__(self, query_size: int, memory_size: int, units: int):
        super().__init__()
        self.query = Linear(query_size, units)
        self.memory = Linear(memory_size, units, bias=False)  # W q + b + U m needs one bias
        self.score = Parameter(init.uniform_((1, units), 1 / math.sqrt(units)))

    def forward(self, query, memory, real=None):
        q, m = self.query(query), self.memory(memory)
        (B, T, A), S = q.shape, m.shape[1]
        together = ops.tanh(ops.reshape(q, (B, T, 1, A)) + ops.reshape(m, (B, 1, S, A)))
        scores = ops.reshape(ops.linear(together, self.score), (B, T, S))
        if real is not None:
            scores = ops.where(real[:, None, :], scores, NEVER)
        weights = ops.softmax(scores)
        return ops.matmul(weights, memory), weights

    def extra_repr(self) -> str:
        return f"units={self.score.shape[1]}"
