"""Convolution cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase


def conv(name, x, w, bias=True, **settings):
    return Case(
        f"conv2d {name}", ops.conv2d, lambda d: (d.normal(*x), d.normal(*w), d.normal(w[0]) if bias else None), settings
    )


CASES = [
    conv("3×3", (2, 3, 6, 5), (4, 3, 3, 3)),
    conv("no bias", (2, 3, 6, 5), (4, 3, 3, 3), bias=False),
    conv("padding 1", (2, 3, 6, 5), (4, 3, 3, 3), padding=1),
    conv("same, even kernel", (1, 2, 5, 6), (3, 2, 2, 4), padding="same"),
    conv("stride 2 that leaves a rest", (2, 2, 8, 7), (3, 2, 3, 3), stride=2),
    conv("stride ≠ padding ≠ dilation", (1, 2, 9, 10), (2, 2, 3, 2), stride=(2, 3), padding=(1, 2), dilation=(2, 1)),
    conv("stride larger than kernel", (1, 1, 9, 9), (2, 1, 2, 2), stride=3),
    conv("groups", (2, 4, 5, 5), (6, 2, 3, 3), groups=2, padding=1),
    conv("depthwise", (2, 3, 6, 6), (3, 1, 3, 3), groups=3, padding=1),
    conv("depthwise, multiplier 2", (1, 3, 5, 5), (6, 1, 3, 3), groups=3),
    conv("depthwise 3×3, stride 2", (2, 2, 7, 6), (2, 1, 3, 3), groups=2, padding=1, stride=2),
    conv("depthwise 5×5, multiplier 2, stride 2", (1, 2, 8, 7), (4, 1, 5, 5), groups=2, padding=2, stride=2),
    conv("depthwise 7×7", (1, 2, 5, 9), (2, 1, 7, 7), groups=2, padding=3),
    conv("many outputs", (2, 3, 5, 4), (18, 3, 3, 2), stride=(1, 2), padding=1),
    conv("many outputs, dilation, groups", (1, 4, 7, 6), (36, 2, 3, 2), groups=2, dilation=2, padding=1),
    conv("1×1", (2, 5, 4, 4), (7, 5, 1, 1)),
    conv("kernel as large as image", (2, 2, 4, 3), (3, 2, 4, 3)),
    conv("one image, one pixel out", (1, 1, 3, 3), (1, 1, 3, 3)),
    conv("5×5 wide", (1, 2, 7, 40), (3, 2, 5, 5), padding=2),
    conv("Winograd, partial tiles", (2, 32, 11, 13), (33, 32, 3, 3), padding=1),
    conv("Winograd, one image, no padding", (1, 37, 19, 18), (32, 37, 3, 3), bias=False),
    conv("Winograd, wide padding", (2, 32, 9, 14), (34, 32, 3, 3), padding=(2, 3)),
    conv("Winograd, groups", (3, 64, 12, 10), (64, 32, 3, 3), groups=2, padding="same"),
    Case("conv1d", ops.conv1d, lambda d: (d.normal(2, 3, 9), d.normal(4, 3, 3), d.normal(4)), {"padding": 1, "stride": 2}),
    Case("conv1d same", ops.conv1d, lambda d: (d.normal(2, 2, 9), d.normal(4, 2, 4), None), {"padding": "same"}),
    Case("conv_transpose2d", ops.conv_transpose2d, lambda d: (d.normal(2, 3, 4, 5), d.normal(3, 2, 3, 3), d.normal(2))),
    Case(
        "conv_transpose2d stride 2, padding, output_padding",
        ops.conv_transpose2d,
        lambda d: (d.normal(2, 4, 3, 4), d.normal(4, 3, 4, 3), d.normal(3)),
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
    Case(
        "conv_transpose2d groups, dilation",
        ops.conv_transpose2d,
        lambda d: (d.normal(1, 4, 3, 3), d.normal(4, 2, 2, 3), None),
        {"groups": 2, "dilation": 2},
    ),
]


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


ERRORS = [
    ErrorCase(
        "channels",
        lambda: ops.conv2d(zeros(8, 3, 32, 32), zeros(16, 4, 3, 3)),
        ShapeError,
        "conv2d: x has 3 channels (x.shape = (8, 3, 32, 32)) but w expects C/groups = 4 (w.shape = (16, 4, 3, 3), groups = 1): "
        "x.shape[1] must equal w.shape[1] * groups.",
    ),
    ErrorCase(
        "groups do not divide",
        lambda: ops.conv2d(zeros(1, 4, 5, 5), zeros(6, 1, 3, 3), groups=4),
        ShapeError,
        "conv2d: groups = 4 must divide w.shape[0] = 6.",
    ),
    ErrorCase(
        "kernel larger than image",
        lambda: ops.conv2d(zeros(1, 1, 3, 3), zeros(1, 1, 5, 5)),
        ShapeError,
        "conv2d: the kernel (5, 5) reaches over (5, 5) pixels but the padded image has only (3, 3)",
    ),
    ErrorCase(
        "same with stride",
        lambda: ops.conv2d(zeros(1, 1, 4, 4), zeros(1, 1, 3, 3), stride=2, padding="same"),
        ValueRangeError,
        'conv2d: padding="same" needs stride 1',
    ),
    ErrorCase(
        "stride 0",
        lambda: ops.conv2d(zeros(1, 1, 4, 4), zeros(1, 1, 3, 3), stride=0),
        ValueRangeError,
        "stride must be a whole number >= 1",
    ),
    ErrorCase(
        "padding word",
        lambda: ops.conv2d(zeros(1, 1, 4, 4), zeros(1, 1, 3, 3), padding="valid"),
        ValueRangeError,
        'a pair or "same"',
    ),
    ErrorCase(
        "axes",
        lambda: ops.conv2d(zeros(3, 4, 4), zeros(1, 1, 3, 3)),
        ShapeError,
        "x must have 4 axes (N, C, H, W), got shape (3, 4, 4)",
    ),
    ErrorCase(
        "empty batch",
        lambda: ops.conv2d(zeros(0, 1, 4, 4), zeros(1, 1, 3, 3)),
        ShapeError,
        "conv2d: x is empty, shape (0, 1, 4, 4)",
    ),
    ErrorCase(
        "bias shape", lambda: ops.conv2d(zeros(1, 1, 4, 4), zeros(2, 1, 3, 3), zeros(3)), ShapeError, "b must have shape (2,)"
    ),
    ErrorCase(
        "mixed types",
        lambda: ops.conv2d(zeros(1, 1, 4, 4), zeros(1, 1, 3, 3, dtype="float64")),
        DtypeError,
        "conv2d: all float arrays must have one dtype, got x float32, w float64",
    ),
    ErrorCase(
        "integers",
        lambda: ops.conv2d(zeros(1, 1, 4, 4, dtype="int64"), zeros(1, 1, 3, 3)),
        DtypeError,
        "x must be float32 or float64",
    ),
    ErrorCase(
        "transposed: padding too large",
        lambda: ops.conv_transpose2d(zeros(1, 1, 2, 2), zeros(1, 1, 3, 3), padding=3),
        ShapeError,
        "conv_transpose2d: the output would have size (-2, -2)",
    ),
    ErrorCase(
        "transposed: output_padding",
        lambda: ops.conv_transpose2d(zeros(1, 1, 2, 2), zeros(1, 1, 3, 3), stride=2, output_padding=2),
        ValueRangeError,
        "output_padding (2, 2) must be smaller than stride (2, 2)",
    ),
    ErrorCase(
        "transposed: output_padding of a dilated kernel",
        lambda: ops.conv_transpose2d(zeros(1, 1, 4, 4), zeros(1, 1, 3, 3), stride=1, output_padding=1, dilation=2),
        ValueRangeError,
        "output_padding (1, 1) must be smaller than stride (1, 1)",
    ),
]
