"""Linear and matrix-product cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError
from tests.cases import Case, ErrorCase

CASES = [
    Case("linear", ops.linear, lambda d: (d.normal(5, 3), d.normal(4, 3), d.normal(4))),
    Case("linear no bias", ops.linear, lambda d: (d.normal(5, 3), d.normal(4, 3), None)),
    Case("linear one row", ops.linear, lambda d: (d.normal(1, 17), d.normal(33, 17), d.normal(33))),
    Case("linear many axes", ops.linear, lambda d: (d.normal(2, 3, 4), d.normal(5, 4), d.normal(5))),
    Case("matmul", ops.matmul, lambda d: (d.normal(5, 3), d.normal(3, 4))),
    Case("matmul batched", ops.matmul, lambda d: (d.normal(2, 5, 3), d.normal(2, 3, 4))),
    Case("matmul broadcast", ops.matmul, lambda d: (d.normal(2, 1, 5, 3), d.normal(4, 3, 2))),
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
    ErrorCase("lead", lambda: ops.matmul(zeros(2, 2, 3), zeros(3, 3, 5)), ShapeError, "do not broadcast"),
]
