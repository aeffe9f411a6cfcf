"""Arithmetic cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase

CASES = [
    Case("add", ops.add, lambda d: (d.normal(3, 4), d.normal(3, 4))),
    Case("add broadcast both", ops.add, lambda d: (d.normal(3, 1, 2), d.normal(4, 1))),
    Case("subtract broadcast", ops.subtract, lambda d: (d.normal(4), d.normal(3, 4))),
    Case("multiply broadcast", ops.multiply, lambda d: (d.normal(3, 4), d.normal(4))),
    Case("divide", ops.divide, lambda d: (d.normal(3, 4), d.away_from_zero(3, 1))),
    Case("maximum", ops.maximum, lambda d: (d.distinct(3, 4), np.zeros((3, 4)) + 0.02)),
    Case("maximum broadcast", ops.maximum, lambda d: (d.distinct(3, 4), d.distinct(4) + 0.03)),
    Case("power 0", lambda x: ops.power(x, 0), lambda d: (d.normal(3),)),
    Case("cast", lambda x: ops.cast(ops.cast(x, "float64"), x.dtype.name), lambda d: (d.normal(3, 4),)),
    Case("add a number", lambda x: 2 - x * 3 + 1 / x, lambda d: (d.away_from_zero(3, 4),)),
    Case("power", lambda x: ops.power(x, 3), lambda d: (d.normal(3, 4),)),
    Case("power fraction", lambda x: ops.power(x, -0.5), lambda d: (d.positive(3, 4),)),
    Case("negative", ops.negative, lambda d: (d.normal(3),)),
    Case("absolute", ops.absolute, lambda d: (d.away_from_zero(3, 4),)),
    Case("exp", ops.exp, lambda d: (d.normal(3, 4),)),
    Case("log", ops.log, lambda d: (d.positive(3, 4),)),
    Case("sqrt", ops.sqrt, lambda d: (d.positive(3, 4),)),
    Case("clip", ops.clip, lambda d: (d.distinct(4, 5),), {"low": -0.52, "high": 0.48}),
    Case("where", ops.where, lambda d: (np.array([True, False, True]), d.normal(2, 3), d.normal(3))),
]

ERRORS = [
    ErrorCase(
        "clip bounds",
        lambda: ops.clip(np.ones(2), 2, 1),
        ValueRangeError,
        "clip: low must not be above high, got low = 2, high = 1",
    ),
    ErrorCase(
        "broadcast", lambda: ops.add(np.ones((2, 3)), np.ones(4)), ShapeError, "add: shapes (2, 3) and (4,) do not broadcast"
    ),
    ErrorCase("mixed types", lambda: ops.multiply(np.ones(2), np.ones(2, np.float32)), DtypeError, "got a float64, b float32"),
    ErrorCase("exponent", lambda: ops.power(np.ones(2), np.ones(2)), TypeError, "the exponent must be a Python number"),
    ErrorCase("text", lambda: ops.add(np.ones(2), "1"), DtypeError, "add: b must be a Tensor or an array, got str"),
    ErrorCase(
        "where",
        lambda: ops.where(np.array([True, False]), np.ones(3), np.ones(3)),
        ShapeError,
        "where: shapes (2,) and (3,) and (3,) do not",
    ),
]
