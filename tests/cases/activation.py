"""Activation cases. Inputs stay away from the kink at 0; that it is skipped, not failed, is tested in test_gradcheck."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase

CASES = [
    Case("relu", ops.relu, lambda d: (d.away_from_zero(3, 5),)),
    Case("relu, more than one vector", ops.relu, lambda d: (d.away_from_zero(2, 3, 7, 9),)),
    Case("leaky_relu", ops.leaky_relu, lambda d: (d.away_from_zero(3, 5),)),
    Case("leaky_relu slope 0.2", ops.leaky_relu, lambda d: (d.away_from_zero(2, 21),), {"slope": 0.2}),
    Case("noisy_relu", ops.noisy_relu, lambda d: (d.normal(4, 5),), {"std": 0.5}),
    Case("noisy_relu in evaluation", ops.noisy_relu, lambda d: (d.away_from_zero(4, 5),), {"training": False}),
    Case("elu", ops.elu, lambda d: (d.away_from_zero(3, 19),)),
    Case("elu alpha 0.5", ops.elu, lambda d: (d.away_from_zero(3, 5),), {"alpha": 0.5}),
    Case("softplus", ops.softplus, lambda d: (4 * d.normal(3, 19),)),
    Case("sigmoid", ops.sigmoid, lambda d: (4 * d.normal(3, 19),)),
    Case("tanh", ops.tanh, lambda d: (2 * d.normal(3, 19),)),
    Case("softmax", ops.softmax, lambda d: (3 * d.normal(4, 7),)),
    Case("softmax axis 1 of 4", ops.softmax, lambda d: (d.normal(2, 5, 3, 2),), {"axis": 1}),
    Case("log_softmax", ops.log_softmax, lambda d: (3 * d.normal(4, 37),)),
    Case("log_softmax axis 0", ops.log_softmax, lambda d: (d.normal(4, 3),), {"axis": 0}),
    Case("maxout", ops.maxout, lambda d: (d.distinct(4, 6),), {"pieces": 3}),
    Case("maxout of the last axis", ops.maxout, lambda d: (d.distinct(3, 2, 4),), {"pieces": 2, "axis": -1}),
    Case("maxout of maps", ops.maxout, lambda d: (d.distinct(2, 4, 3, 5),), {"pieces": 2}),
]

INTEGERS = np.arange(6).reshape(2, 3)

ERRORS = [
    ErrorCase("relu of integers", lambda: ops.relu(INTEGERS), DtypeError, "relu: x must be float32 or float64, got int64"),
    ErrorCase(
        "softmax axis", lambda: ops.softmax(np.ones((2, 3)), axis=2), ShapeError, "axis 2 does not exist in shape (2, 3)"
    ),
    ErrorCase("softmax of nothing", lambda: ops.softmax(np.ones((0, 3))), ShapeError, "softmax: x is empty"),
    ErrorCase(
        "maxout pieces do not divide",
        lambda: ops.maxout(np.ones((2, 5)), 2),
        ShapeError,
        "maxout: pieces = 2 must divide x.shape[1] = 5 (x.shape = (2, 5))",
    ),
    ErrorCase(
        "maxout no piece",
        lambda: ops.maxout(np.ones((2, 4)), 0),
        ValueRangeError,
        "maxout: pieces must be a whole number in 1 … 256, got 0",
    ),
    ErrorCase("maxout axis", lambda: ops.maxout(np.ones(4), 2), ShapeError, "maxout: axis 1 does not exist in shape (4,)"),
    ErrorCase(
        "noisy_relu std", lambda: ops.noisy_relu(np.ones(3), std=-1), ValueRangeError, "noisy_relu: std must be >= 0, got -1"
    ),
    ErrorCase("sigmoid of integers", lambda: ops.sigmoid(INTEGERS), DtypeError, "sigmoid: x must be float32 or float64"),
]
