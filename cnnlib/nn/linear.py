"""Fully and locally connected layers. The maths is in cnnlib/ops/linear.py, activation.py and dropout.py."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.nn import init
from cnnlib.nn.module import Module
from cnnlib.tensor import Parameter


class Linear(Module):
    """y = x Wᵀ + b: (..., in_features) -> (..., out_features). Weight (out, in), bias (out,), ±1/√in at the start.

    >>> import cnnlib as cl
    >>> cl.nn.Linear(4, 3)(cl.Tensor([[1.0, 2.0, 3.0, 4.0]])).shape
    (1, 3)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init.default_weight((out_features, in_features)))
        self.bias = Parameter(init.default_bias((out_features, in_features), out_features)) if bias else None

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Maxout(Module):
    """The largest of ``pieces`` linear maps: max_p(w_pᵀ x + b_p): (..., in_features) -> (..., out_features).

    Source: lecture: activations; Goodfellow et al., "Maxout networks", 2013.
    """

    def __init__(self, in_features: int, out_features: int, pieces: int = 2, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features, self.pieces = in_features, out_features, pieces
        self.linear = Linear(in_features, out_features * pieces, bias)

    def forward(self, x):
        return ops.maxout(self.linear(x), self.pieces, axis=-1)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, pieces={self.pieces}"


class DropConnect(Module):
    """A Linear layer that drops weights, not units: in training each weight is zero with probability p, else divided by 1 − p.

    One mask for the whole batch; in evaluation the mean weights are used.

    Source: lecture: regularisation; Wan et al., "Regularization of neural networks using DropConnect", 2013.
    """

    def __init__(self, in_features: int, out_features: int, p: float = 0.5, bias: bool = True):
        super().__init__()
        self.p = p
        self.linear = Linear(in_features, out_features, bias)

    def forward(self, x):
        return ops.linear(x, ops.dropout(self.linear.weight, self.p, self.training), self.linear.bias)

    def extra_repr(self) -> str:
        return f"{self.linear.in_features}, {self.linear.out_features}, p={self.p}"
