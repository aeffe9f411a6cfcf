"""Cases of operations that move elements."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase

CASES = [
    Case("reshape", ops.reshape, lambda d: (d.normal(3, 4),), {"shape": (2, -1)}),
    Case("flatten", ops.flatten, lambda d: (d.normal(2, 3, 4),), {"start_dim": 1}),
    Case("transpose", ops.transpose, lambda d: (d.normal(2, 3, 4),)),
    Case("transpose axes", ops.transpose, lambda d: (d.normal(2, 3, 4),), {"axes": (1, -1, 0)}),
    Case("broadcast_to", ops.broadcast_to, lambda d: (d.normal(3, 1),), {"shape": (2, 3, 4)}),
    Case("getitem slice", lambda x: ops.getitem(x, (slice(None), slice(0, 4, 2))), lambda d: (d.normal(3, 5),)),
    Case("getitem repeated", lambda x: ops.getitem(x, np.array([0, 2, 2])), lambda d: (d.normal(3, 5),)),
    Case("getitem mask", lambda x: ops.getitem(x, np.array([True, False, True])), lambda d: (d.normal(3, 5),)),
    Case("getitem new axis, ellipsis", lambda x: ops.getitem(x, (..., None, 1)), lambda d: (d.normal(3, 5),)),
    Case("flatten all", ops.flatten, lambda d: (d.normal(2, 3, 2),)),
    Case("concat", lambda a, b: ops.concat([a, b], axis=1), lambda d: (d.normal(2, 3), d.normal(2, 1))),
    Case("stack", lambda a, b: ops.stack([a, b], axis=-1), lambda d: (d.normal(2, 3), d.normal(2, 3))),
    Case("split", ops.split, lambda d: (d.normal(2, 5),), {"sizes": [2, 3], "axis": 1}),
    Case("split with a rest", ops.split, lambda d: (d.normal(5),), {"sizes": 2}),
    Case("pad", ops.pad, lambda d: (d.normal(2, 3),), {"widths": ((0, 1), (2, 0)), "value": 7.0}),
]

X = np.ones((2, 3))

ERRORS = [
    ErrorCase(
        "reshape",
        lambda: ops.reshape(X, (4, 2)),
        ShapeError,
        "reshape: 6 elements of shape (2, 3) do not fit into shape (4, 2)",
    ),
    ErrorCase(
        "transpose", lambda: ops.transpose(X, (0, 0)), ShapeError, "transpose: axes must be a permutation of 0 … 1, got (0, 0)"
    ),
    ErrorCase(
        "broadcast_to",
        lambda: ops.broadcast_to(X, (3, 2)),
        ShapeError,
        "broadcast_to: shape (2, 3) does not broadcast to (3, 2)",
    ),
    ErrorCase("getitem", lambda: ops.getitem(X, 2), ShapeError, "getitem: index 2 is out of bounds"),
    ErrorCase(
        "concat",
        lambda: ops.concat([X, np.ones((3, 3))], axis=1),
        ShapeError,
        "concat: all shapes must agree except along axis 1",
    ),
    ErrorCase("concat nothing", lambda: ops.concat([]), ShapeError, "concat: nothing to join"),
    ErrorCase("stack", lambda: ops.stack([X, X[:1]]), ShapeError, "stack: all shapes must be equal, got (2, 3), (1, 3)"),
    ErrorCase("split sizes", lambda: ops.split(X, [1, 1], axis=1), ShapeError, "split: sizes [1, 1] add up to 2, but axis 1"),
    ErrorCase("split zero", lambda: ops.split(X, 0), ValueRangeError, "split: the size of a part must be at least 1, got 0"),
    ErrorCase("pad", lambda: ops.pad(X, [(1, 1)]), ShapeError, "pad: widths must hold one (before, after) pair"),
    ErrorCase("concat axis", lambda: ops.concat([X], axis=2), ShapeError, "concat: axis 2 does not exist in shape (2, 3)"),
    ErrorCase(
        "stack axis", lambda: ops.stack([X], axis=3), ShapeError, "stack: axis 3 does not exist in the result, which has 3"
    ),
    ErrorCase("split axis", lambda: ops.split(X, 1, axis=3), ShapeError, "split: axis 3 does not exist in shape (2, 3)"),
    ErrorCase("stack nothing", lambda: ops.stack([]), ShapeError, "stack: all shapes must be equal, got nothing"),
    ErrorCase(
        "pad negative", lambda: ops.pad(X, [(0, -1), (0, 0)]), ShapeError, "pad: widths must hold one (before, after) pair >= 0"
    ),
]
