"""Pooling cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase


def pool(name, function, shape, draw="distinct", **settings):
    return Case(f"{function.__name__} {name}", function, lambda d: (getattr(d, draw)(*shape),), settings)


GEOMETRIES = [
    ("2×2", (2, 3, 6, 8), {"kernel_size": 2}),
    ("2×2 that leaves a rest", (2, 3, 5, 7), {"kernel_size": 2}),
    ("overlapping 3×3 stride 2", (2, 2, 7, 9), {"kernel_size": 3, "stride": 2}),
    ("overlapping 3×3 stride 2, rest", (1, 2, 8, 10), {"kernel_size": 3, "stride": 2}),
    ("3×3 stride 2 padding 1", (2, 2, 6, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("3×3 stride 1 padding 1", (1, 3, 4, 5), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("kernel ≠ stride ≠ padding", (2, 1, 7, 9), {"kernel_size": (2, 4), "stride": (3, 1), "padding": (1, 2)}),
    ("stride larger than kernel", (1, 2, 8, 9), {"kernel_size": 2, "stride": 3}),
    ("1×1", (2, 2, 3, 3), {"kernel_size": 1}),
    ("kernel as large as image", (1, 2, 4, 3), {"kernel_size": (4, 3)}),
    ("wide", (1, 1, 3, 40), {"kernel_size": 3, "stride": 2, "padding": 1}),
]

CASES = [
    *(pool(name, ops.max_pool2d, shape, **settings) for name, shape, settings in GEOMETRIES),
    *(pool(name, ops.avg_pool2d, shape, "normal", **settings) for name, shape, settings in GEOMETRIES),
    *(pool(name, ops.lp_pool2d, shape, "away_from_zero", norm_type=2, **settings) for name, shape, settings in GEOMETRIES),
    pool("ceil_mode", ops.max_pool2d, (2, 2, 6, 7), kernel_size=3, stride=2, ceil_mode=True),
    pool("ceil_mode, padding", ops.max_pool2d, (1, 2, 6, 8), kernel_size=(3, 2), stride=(2, 3), padding=1, ceil_mode=True),
    pool("ceil_mode, last window in the padding", ops.max_pool2d, (1, 1, 5, 5), kernel_size=2, stride=3, ceil_mode=True),
    pool("17×17, argmax int32", ops.max_pool2d, (1, 1, 18, 19), kernel_size=17),
    pool(
        "padding not counted",
        ops.avg_pool2d,
        (2, 2, 6, 7),
        "normal",
        kernel_size=3,
        stride=2,
        padding=1,
        count_include_pad=False,
    ),
    pool(
        "padding not counted, asymmetric",
        ops.avg_pool2d,
        (1, 2, 5, 8),
        "normal",
        kernel_size=(2, 5),
        stride=(1, 2),
        padding=(1, 2),
        count_include_pad=False,
    ),
    pool("p = 1", ops.lp_pool2d, (2, 2, 5, 6), "away_from_zero", norm_type=1, kernel_size=2),
    pool("p = 1.5", ops.lp_pool2d, (2, 2, 5, 6), "away_from_zero", norm_type=1.5, kernel_size=3, stride=2, padding=1),
    pool("p = 3", ops.lp_pool2d, (1, 2, 6, 6), "away_from_zero", norm_type=3, kernel_size=3, stride=1),
    pool("", ops.max_pool1d, (2, 3, 9), kernel_size=3, stride=2, padding=1),
    pool("ceil_mode", ops.max_pool1d, (2, 3, 8), kernel_size=3, stride=2, ceil_mode=True),
    pool("", ops.avg_pool1d, (2, 3, 9), "normal", kernel_size=4, stride=3, padding=2, count_include_pad=False),
    pool("", ops.lp_pool1d, (2, 3, 9), "away_from_zero", norm_type=2, kernel_size=3, stride=2),
    pool("", ops.global_max_pool2d, (2, 3, 4, 5)),
    pool("", ops.global_avg_pool2d, (2, 3, 4, 5), "normal"),
    pool("20×20", ops.global_max_pool2d, (1, 2, 20, 20)),
]


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


ERRORS = [
    ErrorCase(
        "max pool padding",
        lambda: ops.max_pool2d(zeros(1, 1, 8, 8), 3, padding=2),
        ValueRangeError,
        "max_pool2d: padding (2, 2) must be at most half of kernel_size (3, 3), rounded down",
    ),
    ErrorCase(
        "avg pool padding",
        lambda: ops.avg_pool2d(zeros(1, 1, 8, 8), (4, 1), padding=(2, 1)),
        ValueRangeError,
        "avg_pool2d: padding (2, 1)",
    ),
    ErrorCase(
        "pool kernel larger than image",
        lambda: ops.max_pool2d(zeros(1, 1, 3, 3), 4),
        ShapeError,
        "max_pool2d: the kernel (4, 4) reaches over (4, 4) pixels but the padded image has only (3, 3)",
    ),
    ErrorCase(
        "pool axes",
        lambda: ops.avg_pool2d(zeros(3, 4, 4), 2),
        ShapeError,
        "avg_pool2d: x must have 4 axes (N, C, H, W), got shape (3, 4, 4)",
    ),
    ErrorCase(
        "pool empty batch",
        lambda: ops.max_pool2d(zeros(0, 1, 4, 4), 2),
        ShapeError,
        "max_pool2d: x is empty, shape (0, 1, 4, 4)",
    ),
    ErrorCase(
        "pool integers", lambda: ops.max_pool2d(zeros(1, 1, 4, 4, dtype="int64"), 2), DtypeError, "x must be float32 or float64"
    ),
    ErrorCase(
        "pool kernel 0",
        lambda: ops.max_pool2d(zeros(1, 1, 4, 4), 0),
        ValueRangeError,
        "kernel_size must be a whole number >= 1",
    ),
    ErrorCase(
        "pool stride 0", lambda: ops.max_pool2d(zeros(1, 1, 4, 4), 2, 0), ValueRangeError, "stride must be a whole number >= 1"
    ),
    ErrorCase(
        "pool padding -1",
        lambda: ops.max_pool2d(zeros(1, 1, 4, 4), 2, padding=-1),
        ValueRangeError,
        "padding must be a whole number >= 0",
    ),
    ErrorCase(
        "lp pool p < 1",
        lambda: ops.lp_pool2d(zeros(1, 1, 4, 4), 0.5, 2),
        ValueRangeError,
        "must be a finite number >= 1, got 0.5",
    ),
    ErrorCase(
        "lp pool p = inf",
        lambda: ops.lp_pool2d(zeros(1, 1, 4, 4), float("inf"), 2),
        ValueRangeError,
        "For p = inf use max_pool2d",
    ),
    ErrorCase(
        "pool 1d axes", lambda: ops.max_pool1d(zeros(1, 1, 4, 4), 2), ShapeError, "max_pool1d: x must have 3 axes (N, C, L)"
    ),
    ErrorCase(
        "pool 1d pair",
        lambda: ops.avg_pool1d(zeros(1, 1, 4), (2, 2)),
        ValueRangeError,
        "avg_pool1d: kernel_size must be a whole number, got (2, 2)",
    ),
    ErrorCase(
        "global pool axes", lambda: ops.global_avg_pool2d(zeros(1, 4)), ShapeError, "global_avg_pool2d: x must have 4 axes"
    ),
]
