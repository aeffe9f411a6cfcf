"""ADALINE: a linear unit that learns by least mean squares, the delta rule.

    s = wᵀx + b,   y = 1 if s > 0, else 0               x (N, D) -> s (N,)
    for each sample, t = ±1:    e = t − s,   w ← w + η e x,   b ← b + η e

That is gradient descent on ½e² of one sample: ∂/∂w ½(t − wᵀx − b)² = −e x. Unlike the perceptron it also learns from
samples that are on the right side already, and so comes to rest on data that no line separates.

Source: lecture: neurons, ADALINE; Widrow & Hoff, "Adaptive switching circuits", 1960.
"""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.models.perceptron import samples
from cnnlib.nn.module import Module
from cnnlib.tensor import Parameter, Tensor


class Adaline(Module):
    """``in_features`` inputs, one linear output; weights start at zero. ``predict`` puts a threshold on it.

    >>> import cnnlib as cl
    >>> neuron = cl.models.Adaline(2)
    >>> errors = neuron.fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 0, 0, 1], lr=0.1, epochs=20)      # AND
    >>> errors[-1] < errors[0]
    True
    """

    def __init__(self, in_features: int = 2):
        super().__init__()
        self.weight = Parameter(np.zeros((1, in_features), np.float32))
        self.bias = Parameter(np.zeros(1, np.float32))

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)[:, 0]

    def predict(self, x) -> Tensor:
        """Class 0 or 1 of each sample."""
        return Tensor((self(x).data > 0).astype("int64"))

    def fit(self, x, y, lr: float = 0.05, epochs: int = 20) -> list[float]:
        """The delta rule, sample by sample. Returns the mean of e² in each epoch. x (N, D), y (N,) zeros and ones."""
        x, t = samples(x, y)
        w, b = self.weight.data[0].copy(), float(self.bias.data[0])
        history = []
        for _ in range(epochs):
            total = 0.0
            for x_n, t_n in zip(x, t, strict=True):
                e = float(t_n - w @ x_n) - b
                w, b = w + lr * e * x_n, b + lr * e
                total += e * e
            history.append(total / len(x))
        self.weight.set(w[None])
        self.bias.set(b)
        return history
