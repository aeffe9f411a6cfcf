"""Embedding cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase

CASES = [
    Case("embedding", ops.embedding, lambda d: (d.labels(5, 4), d.normal(4, 3))),
    Case("embedding of a matrix, repeated", ops.embedding, lambda d: (np.array([[0, 2, 2], [2, 1, 0]]), d.normal(4, 19))),
]

W = np.ones((4, 3))

ERRORS = [
    ErrorCase(
        "index too large",
        lambda: ops.embedding(np.array([0, 4]), W),
        ValueRangeError,
        "embedding: index 4 at position (1,) is outside 0 … 3: w has 4 rows (num_embeddings).",
    ),
    ErrorCase(
        "index negative",
        lambda: ops.embedding(np.array([[-1]]), W),
        ValueRangeError,
        "index -1 at position (0, 0) is outside 0 … 3",
    ),
    ErrorCase(
        "float indices",
        lambda: ops.embedding(np.array([1.0]), W),
        DtypeError,
        "embedding: indices must be integers, got float64",
    ),
    ErrorCase(
        "table of one axis",
        lambda: ops.embedding(np.array([0]), W[0]),
        ShapeError,
        "embedding: w must have 2 axes (num_embeddings, embedding_dim), got shape (3,)",
    ),
    ErrorCase(
        "indices as NumPy's floats",
        lambda: ops.embedding(np.zeros(2), W.astype("float32")),
        DtypeError,
        "embedding: indices must be integers, got float64. Use indices.astype('int64').",
    ),
    ErrorCase("integer table", lambda: ops.embedding(np.array([0]), W.astype(int)), DtypeError, "w must be float32 or float64"),
    ErrorCase("no indices", lambda: ops.embedding(np.array([], int), W), ShapeError, "embedding: indices is empty"),
]
