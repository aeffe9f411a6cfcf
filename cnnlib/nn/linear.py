"""Fully and locally connected layers. The maths is in cnnlib/ops/linear.py, activation.py and dropout.py."""

from __future__ import annotations

import math

from cnnlib import ops
from cnnlib.nn import init
from cnnlib.nn.module import Module
from cnnlib.ops.arguments import check_whole, pair
from cnnlib.ops.conv import check_window, output_size, resolve_padding
from cnnlib.tensor import Parameter


class Linear(Module):
    """y = x Wᵀ + b: (..., in_features) -> (..., out_features). Weight (out, in), bias (out,), ±1/√in at the start.

    >>> import cnnlib as cl
    >>> cl.nn.Linear(4, 3)(cl.Tensor([[1.0, 2.0, 3.0, 4.0]])).shape
    (1, 3)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        check_whole("Linear", "in_features", in_features)
        check_whole("Linear", "out_features", out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init.default_weight((out_features, in_features)))
        self.bias = Parameter(init.default_bias((out_features, in_features), out_features)) if bias else None

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class LocallyConnected2d(Module):
    """A Conv2d that does not share its weights: (N, in_channels, H, W) -> (N, out_channels, OH, OW), for one ``input_size``.

    Every unit has in_channels·KH·KW weights and a bias of its own: right where pictures are registered, such as centred faces.
    Weight (OH, OW, out, in, KH, KW), bias (out, OH, OW), ±1/√(in·KH·KW) at the start. ``input_size``: H and W, or one number.

    The lecture's 200×200×3 image with 120,000 units that each see 3×3×3 numbers has 27 weights per unit:

    >>> from cnnlib import nn
    >>> layer = nn.LocallyConnected2d(3, 3, input_size=200, kernel_size=3, padding=1, bias=False)
    >>> layer.weight.size
    3240000

    Source: lecture: convolutional networks, locally connected layers; LeCun 1989; Taigman et al., "DeepFace", 2014.
    """

    def __init__(self, in_channels, out_channels, input_size, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        name = "LocallyConnected2d"
        for count, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            check_whole(name, count, value)
        self.in_channels, self.out_channels, self.input_size = in_channels, out_channels, pair(name, "input_size", input_size)
        self.kernel_size, self.stride, self.padding = (
            pair(name, "kernel_size", kernel_size),
            pair(name, "stride", stride),
            padding,
        )
        pads = resolve_padding(name, padding, self.kernel_size, self.stride, (1, 1))
        check_window(name, self.input_size, self.kernel_size, self.stride, pads)
        OH, OW = output_size(self.input_size, self.kernel_size, self.stride, pads, (1, 1))
        bound = 1.0 / math.sqrt(in_channels * math.prod(self.kernel_size))
        self.weight = Parameter(init.uniform_((OH, OW, out_channels, in_channels, *self.kernel_size), bound))
        self.bias = Parameter(init.uniform_((out_channels, OH, OW), bound)) if bias else None

    def forward(self, x):
        return ops.locally_connected2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        usual = {"stride": (1, 1), "padding": 0}
        unusual = "".join(f", {k}={getattr(self, k)!r}" for k, v in usual.items() if getattr(self, k) != v)
        return (
            f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, kernel_size={self.kernel_size}{unusual}"
            + ("" if self.bias is not None else ", bias=False")
        )


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
