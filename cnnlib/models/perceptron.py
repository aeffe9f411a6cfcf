"""Rosenblatt's perceptron: a threshold unit that learns, by correcting itself after each mistake.

    y = 1 if wᵀx + b > 0, else 0                        x (N, D) -> y (N,)
    for each sample with t (wᵀx + b) ≤ 0, t = ±1:       w ← w + t x,   b ← b + t

If a line separates the classes, the rule finds one after at most (R/γ)² updates (R the largest norm of a sample, γ the
margin; Novikoff 1962). If none does, as for XOR, it goes on for ever: Minsky and Papert, 1969.

Source: lecture: neurons, perceptron; Rosenblatt, "The perceptron: a probabilistic model for information storage and
organization in the brain", 1958.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cnnlib import ops
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.nn.module import Module
from cnnlib.tensor import Parameter, Tensor


class Convergence(NamedTuple):
    """What a perceptron's training was like."""

    converged: bool
    epochs: int  # passes over the data, the last and clean one included
    updates: int  # corrections of the weights
    mistakes: list[int]  # per epoch


class Perceptron(Module):
    """``in_features`` inputs, one output, 0 or 1; weights start at zero.

    >>> import cnnlib as cl
    >>> neuron = cl.models.Perceptron(2)
    >>> neuron.fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 1]).converged      # OR
    True
    """

    def __init__(self, in_features: int = 2):
        super().__init__()
        self.weight = Parameter(np.zeros((1, in_features), np.float32), requires_grad=False)
        self.bias = Parameter(np.zeros(1, np.float32), requires_grad=False)

    def score(self, x):
        """wᵀx + b: (N, D) -> (N,)."""
        return ops.linear(x, self.weight, self.bias)[:, 0]

    def forward(self, x):
        return Tensor((self.score(x).data > 0).astype("int64"))

    def fit(self, x, y, max_epochs: int = 100) -> Convergence:
        """Rosenblatt's rule, sample by sample, until a pass makes no mistake. x (N, D), y (N,) zeros and ones."""
        x, t = samples(x, y)
        w, b = self.weight.data[0].copy(), float(self.bias.data[0])
        mistakes: list[int] = []
        while len(mistakes) < max_epochs and mistakes[-1:] != [0]:
            wrong = 0
            for x_n, t_n in zip(x, t, strict=True):
                if t_n * (w @ x_n + b) <= 0:
                    w, b = w + t_n * x_n, b + float(t_n)
                    wrong += 1
            mistakes.append(wrong)
        self.weight.set(w[None])
        self.bias.set(b)
        return Convergence(mistakes[-1:] == [0], len(mistakes), sum(mistakes), mistakes)


def samples(x, y) -> tuple[np.ndarray, np.ndarray]:
    """x as (N, D) float32, and targets t = ±1 for the classes 1 and 0 in y."""
    x, y = np.asarray(x, np.float32), np.asarray(y)
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
        raise ShapeError(f"fit: x must be (N, D) and y (N,), N at least 1; got {x.shape} and {y.shape}.")
    if not np.isin(y, (0, 1)).all():
        raise ValueRangeError(f"fit: y must hold the classes 0 and 1, got {np.unique(y)[:5].tolist()}.")
    return x, np.where(y == 1, np.float32(1), np.float32(-1))
