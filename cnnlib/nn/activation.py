"""Activations as layers. The maths is in cnnlib/ops/activation.py."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.nn.module import Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return ops.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope · x."""

    def __init__(self, negative_slope: float = 0.01):
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x):
        return ops.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class NoisyReLU(Module):
    """max(x + ε, 0) with ε ~ N(0, std²) in training, ReLU in evaluation."""

    def __init__(self, std: float = 1.0):
        super().__init__()
        self.std = std

    def forward(self, x):
        return ops.noisy_relu(x, self.std, self.training)

    def extra_repr(self) -> str:
        return f"std={self.std}"


class ELU(Module):
    """x where x > 0, else alpha (eˣ − 1)."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def forward(self, x):
        return ops.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(Module):
    """ln(1 + eˣ)."""

    def forward(self, x):
        return ops.softplus(x)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ)."""

    def forward(self, x):
        return ops.sigmoid(x)


class Tanh(Module):
    """tanh x."""

    def forward(self, x):
        return ops.tanh(x)


class Softmax(Module):
    """eˣ / Σ eˣ along the axis ``dim``. CrossEntropyLoss wants logits: do not put a Softmax before it."""

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        return ops.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x − ln Σ eˣ along the axis ``dim``, what NLLLoss expects."""

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        return ops.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
