"""Linear and matrix-product cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase


def local(name, x, w, bias=True, **settings):
    OH, OW, F = w[:3]
    return Case(
        f"locally_connected2d {name}",
        ops.locally_connected2d,
        lambda d: (d.normal(*x), d.normal(*w), d.normal(F, OH, OW) if bias else None),
        settings,
    )


CASES = [
    Case("linear", ops.linear, lambda d: (d.normal(5, 3), d.normal(4, 3), d.normal(4))),
    Case("linear no bias", ops.linear, lambda d: (d.normal(5, 3), d.normal(4, 3), None)),
    Case("linear one row", ops.linear, lambda d: (d.normal(1, 17), d.normal(33, 17), d.normal(33))),
    Case("linear many axes", ops.linear, lambda d: (d.normal(2, 3, 4), d.normal(5, 4), d.normal(5))),
    Case("matmul", ops.matmul, lambda d: (d.normal(5, 3), d.normal(3, 4))),
    Case("matmul batched", ops.matmul, lambda d: (d.normal(2, 5, 3), d.normal(2, 3, 4))),
    Case("matmul transposed", lambda a, b: ops.matmul(a, b.T), lambda d: (d.normal(5, 3), d.normal(4, 3))),
    Case("matmul broadcast", ops.matmul, lambda d: (d.normal(2, 1, 5, 3), d.normal(4, 3, 2))),
    local("3×3", (2, 3, 6, 5), (4, 3, 4, 3, 3, 3)),
    local("no bias, one image", (1, 2, 5, 4), (4, 3, 3, 2, 2, 2), bias=False),
    local("same, even kernel", (2, 2, 4, 5), (4, 5, 2, 2, 2, 4), padding="same"),
    local("stride ≠ padding, a rest", (2, 2, 8, 9), (4, 3, 3, 2, 3, 2), stride=(2, 3), padding=(1, 0)),
    local("stride larger than kernel", (3, 1, 7, 7), (3, 3, 2, 1, 1, 1), stride=3),
    local("kernel as large as image", (5, 2, 3, 4), (1, 1, 6, 2, 3, 4)),
]


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


ERRORS = [
    ErrorCase(
        "features",
        lambda: ops.linear(zeros(2, 3), zeros(5, 4)),
        ShapeError,
        "linear: the last axis of x (x.shape = (2, 3)) must equal in_features = 4 (w.shape = (5, 4))",
    ),
    ErrorCase("empty batch", lambda: ops.linear(zeros(0, 4), zeros(5, 4)), ShapeError, "linear: x is empty, shape (0, 4)"),
    ErrorCase("bias", lambda: ops.linear(zeros(2, 4), zeros(5, 4), zeros(4)), ShapeError, "linear: b must have shape (5,)"),
    ErrorCase(
        "integers",
        lambda: ops.linear(zeros(2, 4, dtype="int32"), zeros(5, 4)),
        DtypeError,
        "linear: x must be float32 or float64, got int32",
    ),
    ErrorCase(
        "inner", lambda: ops.matmul(zeros(2, 3), zeros(4, 5)), ShapeError, "matmul: (..., M, K) @ (..., K, N) needs equal K"
    ),
    ErrorCase(
        "local: axes",
        lambda: ops.locally_connected2d(zeros(2, 3, 6, 6), zeros(4, 3, 3, 3)),
        ShapeError,
        "locally_connected2d: w must have 6 axes (OH, OW, F, C, KH, KW), got shape (4, 3, 3, 3)",
    ),
    ErrorCase(
        "local: channels",
        lambda: ops.locally_connected2d(zeros(2, 3, 6, 6), zeros(4, 4, 2, 1, 3, 3)),
        ShapeError,
        "locally_connected2d: x has 3 channels (x.shape = (2, 3, 6, 6)) but w expects 1 (w.shape = (4, 4, 2, 1, 3, 3))",
    ),
    ErrorCase(
        "local: another size of image",
        lambda: ops.locally_connected2d(zeros(2, 1, 7, 6), zeros(4, 4, 2, 1, 3, 3)),
        ShapeError,
        "locally_connected2d: x of (7, 6) pixels has (5, 4) windows of (3, 3), (H + 2P - KH) / S + 1 each way, but w has "
        "weights for (4, 4) (w.shape = (4, 4, 2, 1, 3, 3)): the layer is made for one size of image.",
    ),
    ErrorCase(
        "local: kernel larger than image",
        lambda: ops.locally_connected2d(zeros(2, 1, 2, 2), zeros(1, 1, 2, 1, 3, 3)),
        ShapeError,
        "locally_connected2d: the kernel (3, 3) reaches over (3, 3) pixels but the padded image has only (2, 2)",
    ),
    ErrorCase(
        "local: bias",
        lambda: ops.locally_connected2d(zeros(2, 1, 6, 6), zeros(4, 4, 2, 1, 3, 3), zeros(2)),
        ShapeError,
        "locally_connected2d: b must have shape (2, 4, 4), (F, OH, OW), one bias per unit; got (2,)",
    ),
    ErrorCase(
        "local: same with stride",
        lambda: ops.locally_connected2d(zeros(1, 1, 6, 6), zeros(3, 3, 1, 1, 3, 3), stride=2, padding="same"),
        ValueRangeError,
        'locally_connected2d: padding="same" needs stride 1',
    ),
    ErrorCase(
        "local: empty batch",
        lambda: ops.locally_connected2d(zeros(0, 1, 6, 6), zeros(4, 4, 2, 1, 3, 3)),
        ShapeError,
        "locally_connected2d: x is empty, shape (0, 1, 6, 6)",
    ),
    ErrorCase(
        "integers",
        lambda: ops.matmul(zeros(2, 3), np.ones((3, 2), int)),
        DtypeError,
        "matmul: b must be float32 or float64, got int64. Use b.astype('float32').",
    ),
    ErrorCase("lead", lambda: ops.matmul(zeros(2, 2, 3), zeros(3, 3, 5)), ShapeError, "do not broadcast"),
]
