"""Reduction cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import ShapeError
from tests.cases import Case, ErrorCase

CASES = [
    Case("sum", ops.sum, lambda d: (d.normal(3, 4),)),
    Case("sum axis", ops.sum, lambda d: (d.normal(3, 4, 2),), {"axis": (0, -1)}),
    Case("sum keepdims", ops.sum, lambda d: (d.normal(3, 4),), {"axis": 1, "keepdims": True}),
    Case("mean", ops.mean, lambda d: (d.normal(3, 4),)),
    Case("mean axis", ops.mean, lambda d: (d.normal(3, 4, 2),), {"axis": 1}),
    Case("max", ops.max, lambda d: (d.distinct(3, 4),)),
    Case("max axis", ops.max, lambda d: (d.distinct(3, 4),), {"axis": 0, "keepdims": True}),
    Case("max axes", ops.max, lambda d: (d.distinct(3, 4, 2),), {"axis": (0, 2)}),
    Case("mean axes", ops.mean, lambda d: (d.normal(3, 4, 2),), {"axis": (0, -1), "keepdims": True}),
    Case("min", ops.min, lambda d: (d.distinct(3, 4),)),
    Case("min axis", ops.min, lambda d: (d.distinct(3, 4),), {"axis": -1}),
]

ERRORS = [
    ErrorCase("axis", lambda: ops.sum(np.ones((2, 3)), axis=2), ShapeError, "sum: axis 2 does not exist in an array of 2 axes"),
    ErrorCase(
        "mean of nothing", lambda: ops.mean(np.ones((0, 3))), ShapeError, "mean: nothing to average in an array of shape (0, 3)"
    ),
    ErrorCase("max of nothing", lambda: ops.max(np.ones((0,))), ShapeError, "max: no elements in an array of shape (0,)"),
    ErrorCase(
        "axis twice", lambda: ops.sum(np.ones((2, 3)), axis=(0, -2)), ShapeError, "sum: axis (0, -2) names an axis twice"
    ),
    ErrorCase(
        "min axis", lambda: ops.min(np.ones(3), axis=-2), ShapeError, "min: axis -2 does not exist in an array of 1 axes"
    ),
]
