"""Convolution layers. The maths is in cnnlib/ops/conv.py. Arguments, names and initial weights are PyTorch's."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.errors import ShapeError
from cnnlib.nn import init
from cnnlib.nn.module import Module
from cnnlib.ops.arguments import check_whole, pair
from cnnlib.tensor import Parameter


class _Conv(Module):
    def __init__(self, in_channels, out_channels, weight_shape, bias, **settings):
        super().__init__()
        self.in_channels, self.out_channels, self.settings = in_channels, out_channels, settings
        self.weight = Parameter(init.default_weight(weight_shape))
        self.bias = Parameter(init.default_bias(weight_shape, out_channels)) if bias else None

    def extra_repr(self) -> str:
        size = self.weight.shape[2:] if self.weight.ndim == 4 else self.weight.shape[2]
        usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}
        unusual = "".join(f", {name}={value!r}" for name, value in self.settings.items() if value != usual[name])
        return f"{self.in_channels}, {self.out_channels}, kernel_size={size}{unusual}" + (
            "" if self.bias is not None else ", bias=False"
        )


def _check(name, in_channels, out_channels, groups):
    counts = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
    for setting, count in counts.items():
        check_whole(name, setting, count)
    if in_channels % groups or out_channels % groups:
        raise ShapeError(
            f"{name}: groups = {groups} must divide in_channels = {in_channels} and out_channels = {out_channels}."
        )


def _single(value):
    """``(3,)`` -> ``3``: the other form that PyTorch takes for signals."""
    return value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value


class Conv2d(_Conv):
    """(N, in_channels, H, W) -> (N, out_channels, OH, OW). Weight (out, in/groups, KH, KW), bias (out,).

    >>> from cnnlib import nn
    >>> nn.Conv2d(3, 8, 5, padding="same")
    Conv2d(3, 8, kernel_size=(5, 5), padding='same')
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        _check("Conv2d", in_channels, out_channels, groups)
        shape = (out_channels, in_channels // groups, *pair("Conv2d", "kernel_size", kernel_size))
        super().__init__(
            in_channels, out_channels, shape, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
        )

    def forward(self, x):
        return ops.conv2d(x, self.weight, self.bias, **self.settings)


class Conv1d(_Conv):
    """(N, in_channels, L) -> (N, out_channels, OL). Weight (out, in/groups, K), bias (out,)."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        _check("Conv1d", in_channels, out_channels, groups)
        kernel_size, stride, padding, dilation = map(_single, (kernel_size, stride, padding, dilation))
        shape = (out_channels, in_channels // groups, kernel_size)
        super().__init__(
            in_channels, out_channels, shape, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
        )

    def forward(self, x):
        return ops.conv1d(x, self.weight, self.bias, **self.settings)


class ConvTranspose2d(_Conv):
    """(N, in_channels, H, W) -> (N, out_channels, OH, OW), OH = (H−1)S − 2P + D(KH−1) + output_padding + 1.

    Weight (in, out/groups, KH, KW), bias (out,).
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True, dilation=1
    ):
        _check("ConvTranspose2d", in_channels, out_channels, groups)
        shape = (in_channels, out_channels // groups, *pair("ConvTranspose2d", "kernel_size", kernel_size))
        super().__init__(
            in_channels,
            out_channels,
            shape,
            bias,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            dilation=dilation,
        )

    def forward(self, x):
        return ops.conv_transpose2d(x, self.weight, self.bias, **self.settings)
