"""Noise in training as layers; in evaluation each passes x on. The maths is in cnnlib/ops/dropout.py."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.nn.module import Module


class Dropout(Module):
    """In training each element is 0 with probability p, else x / (1 − p). 0 <= p < 1."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return ops.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class MaskingNoise(Module):
    """In training each element is 0 with probability p, else x: corrupts the input of a denoising autoencoder."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return ops.masking_noise(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class SaltAndPepperNoise(Module):
    """In training each element is 0 or 1, at the toss of a coin, with probability p, else x: pixels that are black or white."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return ops.salt_and_pepper_noise(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class GaussianNoise(Module):
    """In training x + std · ε, ε ~ N(0, 1)."""

    def __init__(self, std: float = 0.1):
        super().__init__()
        self.std = std

    def forward(self, x):
        return ops.gaussian_noise(x, self.std, self.training)

    def extra_repr(self) -> str:
        return f"std={self.std}"
