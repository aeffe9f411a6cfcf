"""Dropout cases: the gradient check draws the same mask for every evaluation."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ValueRangeError
from tests.cases import Case, ErrorCase


def drop_connect(x, w, b, p, training=True):
    """What nn.DropConnect computes."""
    return ops.linear(x, ops.dropout(w, p, training), b)


CASES = [
    Case("dropout", ops.dropout, lambda d: (d.normal(5, 7),)),
    Case("dropout p 0.2", ops.dropout, lambda d: (d.normal(2, 3, 11),), {"p": 0.2}),
    Case("dropout in evaluation", ops.dropout, lambda d: (d.normal(5, 7),), {"training": False}),
    Case("masking_noise", ops.masking_noise, lambda d: (d.normal(4, 9),), {"p": 0.3}),
    Case("salt_and_pepper_noise", ops.salt_and_pepper_noise, lambda d: (d.normal(4, 9),), {"p": 0.4}),
    Case("drop_connect", drop_connect, lambda d: (d.normal(5, 7), d.normal(4, 7), d.normal(4)), {"p": 0.3}),
    Case("gaussian_noise", ops.gaussian_noise, lambda d: (d.normal(4, 9),), {"std": 0.3}),
]

ERRORS = [
    ErrorCase(
        "p 1",
        lambda: ops.dropout(np.ones(3), 1.0),
        ValueRangeError,
        "dropout: p is the probability of a zero and must be in 0 <= p < 1, got 1.0",
    ),
    ErrorCase("p negative", lambda: ops.dropout(np.ones(3), -0.1), ValueRangeError, "must be in 0 <= p < 1, got -0.1"),
    ErrorCase("p NaN", lambda: ops.dropout(np.ones(3), float("nan")), ValueRangeError, "must be in 0 <= p < 1, got nan"),
    ErrorCase("dropout p of letters", lambda: ops.dropout(np.ones(3), "half"), ValueRangeError, "0 <= p < 1, got 'half'"),
    ErrorCase("masking p", lambda: ops.masking_noise(np.ones(3), 2.0), ValueRangeError, "masking_noise: p is the probability"),
    ErrorCase(
        "salt and pepper p",
        lambda: ops.salt_and_pepper_noise(np.ones(3), 1.0),
        ValueRangeError,
        "salt_and_pepper_noise: p is the probability of a 0 or a 1 and must be in 0 <= p < 1, got 1.0",
    ),
    ErrorCase(
        "noise std",
        lambda: ops.gaussian_noise(np.ones(3), -1.0),
        ValueRangeError,
        "gaussian_noise: std must be a finite number >= 0, got -1.0",
    ),
    ErrorCase(
        "integers", lambda: ops.dropout(np.arange(3), 0.5), DtypeError, "dropout: x must be float32 or float64, got int64"
    ),
]
