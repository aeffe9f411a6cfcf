"""Loss cases. Targets and class weights are constants: only the prediction is differentiated."""

import numpy as np

from cnnlib import Tensor, ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase

X = (0,)


def signs(d, *shape):
    return d.rng.choice([-1.0, 1.0], shape)


def probabilities(d, n, c):
    q = d.positive(n, c)
    return q / q.sum(axis=1, keepdims=True)


CASES = [
    Case("cross_entropy", ops.cross_entropy, lambda d: (d.normal(5, 4), d.labels(5, 4)), {}, X),
    Case("cross_entropy sum", ops.cross_entropy, lambda d: (d.normal(5, 4), d.labels(5, 4)), {"reduction": "sum"}, X),
    Case("cross_entropy none", ops.cross_entropy, lambda d: (d.normal(5, 21), d.labels(5, 21)), {"reduction": "none"}, X),
    Case("cross_entropy weight", ops.cross_entropy, lambda d: (d.normal(5, 4), d.labels(5, 4), d.positive(4)), {}, X),
    Case(
        "cross_entropy smoothing, weight, ignored",
        ops.cross_entropy,
        lambda d: (d.normal(5, 4), np.array([0, 3, -100, 1, 1]), d.positive(4)),
        {"label_smoothing": 0.1},
        X,
    ),
    Case("cross_entropy of maps", ops.cross_entropy, lambda d: (d.normal(2, 3, 4, 2), d.labels(16, 3).reshape(2, 4, 2)), {}, X),
    Case("cross_entropy probabilities", ops.cross_entropy, lambda d: (d.normal(5, 4), probabilities(d, 5, 4)), {}),
    Case(
        "cross_entropy probabilities, smoothing, weight",
        ops.cross_entropy,
        lambda d: (d.normal(5, 4), probabilities(d, 5, 4), d.positive(4)),
        {"label_smoothing": 0.2},
        X,
    ),
    Case("nll_loss", ops.nll_loss, lambda d: (d.normal(5, 4), d.labels(5, 4)), {}, X),
    Case(
        "nll_loss weight, ignored",
        ops.nll_loss,
        lambda d: (d.normal(4, 3), np.array([0, 9, 2, 1]), d.positive(3)),
        {"ignore_index": 9},
        X,
    ),
    Case("mse_loss", ops.mse_loss, lambda d: (d.normal(3, 4), d.normal(3, 4))),
    Case("mse_loss none", ops.mse_loss, lambda d: (d.normal(3, 4), d.normal(3, 4)), {"reduction": "none"}),
    Case("l1_loss", ops.l1_loss, lambda d: (d.away_from_zero(3, 4), np.zeros((3, 4)))),
    Case(
        "binary_cross_entropy_with_logits",
        ops.binary_cross_entropy_with_logits,
        lambda d: (3 * d.normal(3, 4), d.rng.uniform(0, 1, (3, 4))),
        {},
        X,
    ),
    Case(
        "binary_cross_entropy_with_logits pos_weight, sum",
        ops.binary_cross_entropy_with_logits,
        lambda d: (d.normal(6), np.array([0.0, 1, 1, 0, 1, 0]), np.full(6, 3.0)),
        {"reduction": "sum"},
        X,
    ),
    Case(
        "binary_cross_entropy_with_logits, target too",
        ops.binary_cross_entropy_with_logits,
        lambda d: (3 * d.normal(3, 4), d.rng.uniform(0.1, 0.9, (3, 4))),
    ),
    Case(
        "multi_margin_loss",
        ops.multi_margin_loss,
        lambda d: (d.distinct(5, 4) + 0.03 * np.arange(4), d.labels(5, 4)),
        {"margin": 0.55},
    ),
    Case(
        "multi_margin_loss of maps, sum",
        ops.multi_margin_loss,
        lambda d: (d.distinct(2, 3, 2) + 0.03 * np.arange(3)[:, None], d.labels(4, 3).reshape(2, 2)),
        {"reduction": "sum"},
    ),
    Case(
        "hinge_loss of integers, none",
        ops.hinge_loss,
        lambda d: (d.normal(5), np.array([1, -1, -1, 1, 1])),
        {"reduction": "none"},
    ),
    Case("hinge_loss", ops.hinge_loss, lambda d: (2 * d.normal(12), signs(d, 12)), {}, X),
]

LOGITS = np.zeros((3, 4), np.float32)

ERRORS = [
    ErrorCase(
        "label -1",
        lambda: ops.cross_entropy(LOGITS, np.array([0, -1, 2])),
        ValueRangeError,
        "label -1 at position (1,) is outside 0 … 3 (or ignore_index = -100): x has C = 4 classes (x.shape = (3, 4)).",
    ),
    ErrorCase(
        "label too large",
        lambda: ops.cross_entropy(LOGITS, np.array([0, 1, 4])),
        ValueRangeError,
        "label 4 at position (2,) is outside 0 … 3",
    ),
    ErrorCase(
        "labels (N, 1)",
        lambda: ops.cross_entropy(LOGITS, np.array([[0], [1], [2]])),
        ShapeError,
        "x has shape (3, 4), (N, C) or (N, C, d1, ...), so target must have shape (3,), one label per row; got (3, 1).",
    ),
    ErrorCase(
        "float labels of another shape",
        lambda: ops.cross_entropy(LOGITS, np.zeros(3, np.float32)),
        DtypeError,
        "target must be integer labels of shape (3,) or probabilities of x's shape (3, 4), got float32 of shape (3,)",
    ),
    ErrorCase(
        "boolean labels",
        lambda: ops.cross_entropy(LOGITS, np.zeros(3, bool)),
        DtypeError,
        "cross_entropy: target must be integer labels of shape (3,)",
    ),
    ErrorCase(
        "all ignored",
        lambda: ops.cross_entropy(LOGITS, np.full(3, -100)),
        ValueRangeError,
        "cross_entropy: every label is ignore_index, so there is nothing to average",
    ),
    ErrorCase(
        "smoothing",
        lambda: ops.cross_entropy(LOGITS, np.zeros(3, int), label_smoothing=1.5),
        ValueRangeError,
        "label_smoothing must be in 0 … 1",
    ),
    ErrorCase(
        "reduction", lambda: ops.mse_loss(LOGITS, LOGITS, "avg"), ValueRangeError, 'reduction must be "mean", "sum" or "none"'
    ),
    ErrorCase(
        "labels as NumPy's floats",
        lambda: ops.cross_entropy(LOGITS, np.zeros(len(LOGITS))),
        DtypeError,
        "cross_entropy: target must be integers, got float64. Use target.astype('int64').",
    ),
    ErrorCase(
        "empty batch", lambda: ops.cross_entropy(np.zeros((0, 4)), np.zeros(0, int)), ShapeError, "cross_entropy: x is empty"
    ),
    ErrorCase(
        "integer logits",
        lambda: ops.cross_entropy(np.zeros((3, 4), int), np.zeros(3, int)),
        DtypeError,
        "x must be float32 or float64",
    ),
    ErrorCase(
        "class weights",
        lambda: ops.cross_entropy(LOGITS, np.zeros(3, int), np.ones(3, np.float32)),
        ShapeError,
        "one weight per class",
    ),
    ErrorCase(
        "(N, 1) against (N,)",
        lambda: ops.mse_loss(np.zeros((3, 1)), np.zeros(3)),
        ShapeError,
        "mse_loss: x and target must have one shape, got (3, 1) and (3,): broadcasting would compare every prediction",
    ),
    ErrorCase(
        "hinge labels",
        lambda: ops.hinge_loss(np.zeros(2), np.array([0.0, 1.0])),
        ValueRangeError,
        "hinge_loss: target must be -1 or 1, got 0 at position (0,)",
    ),
    ErrorCase(
        "bce targets",
        lambda: ops.binary_cross_entropy_with_logits(np.zeros(2), np.array([0.0, 2.0])),
        ValueRangeError,
        "target 2 at position (1,) is outside 0 … 1",
    ),
    ErrorCase(
        "one-hot integers",
        lambda: ops.cross_entropy(LOGITS, np.zeros((3, 4), int)),
        ShapeError,
        "got (3, 4). One-hot rows: target.argmax(axis=1).",
    ),
    ErrorCase(
        "one axis", lambda: ops.cross_entropy(LOGITS[0], np.array([1])), ShapeError, "x must have at least 2 axes (N, C)"
    ),
    ErrorCase(
        "a list", lambda: ops.cross_entropy(LOGITS, [0, 1, 2]), DtypeError, "target must be a Tensor or an array, got list"
    ),
    ErrorCase(
        "negative probability",
        lambda: ops.cross_entropy(LOGITS, np.full((3, 4), -0.5, np.float32)),
        ValueRangeError,
        "target holds probabilities, which are >= 0, but -0.5 is at position (0, 0)",
    ),
    ErrorCase(
        "smoothing of probabilities",
        lambda: ops.cross_entropy(LOGITS, np.ones((3, 4), np.float32), label_smoothing=-1.0),
        ValueRangeError,
        "label_smoothing must be in 0 … 1, got -1.0",
    ),
    ErrorCase(
        "weights of all labels 0",
        lambda: ops.cross_entropy(LOGITS, np.zeros(3, int), np.array([0, 1, 1, 1], np.float32)),
        ValueRangeError,
        "cross_entropy: the weights of all labels are 0, so there is nothing to average",
    ),
    ErrorCase(
        "weights to be learnt",
        lambda: ops.nll_loss(LOGITS, np.zeros(3, int), Tensor(np.ones(4, np.float32), requires_grad=True)),
        ValueRangeError,
        "nll_loss: weight is a constant and gets no gradient, but it has requires_grad=True. Pass weight.detach().",
    ),
    ErrorCase(
        "nll label", lambda: ops.nll_loss(LOGITS, np.array([0, 1, 9])), ValueRangeError, "nll_loss: label 9 at position (2,)"
    ),
    ErrorCase("nll float labels", lambda: ops.nll_loss(LOGITS, np.zeros(3)), DtypeError, "nll_loss"),
    ErrorCase(
        "margin",
        lambda: ops.multi_margin_loss(LOGITS, np.zeros(3, int), margin=0),
        ValueRangeError,
        "multi_margin_loss: margin must be a finite number > 0, got 0",
    ),
    ErrorCase(
        "margin label",
        lambda: ops.multi_margin_loss(LOGITS, np.array([0, -100, 1])),
        ValueRangeError,
        "multi_margin_loss: label -100 at position (1,) is outside 0 … 3: x has C = 4 classes",
    ),
    ErrorCase("empty mse", lambda: ops.mse_loss(np.zeros((0, 2)), np.zeros((0, 2))), ShapeError, "mse_loss: x is empty"),
    ErrorCase("integer mse", lambda: ops.mse_loss(np.zeros(2, int), np.zeros(2)), DtypeError, "mse_loss: x must be float32"),
    ErrorCase(
        "integer target", lambda: ops.l1_loss(np.zeros(2), np.zeros(2, int)), DtypeError, "l1_loss: target must be float32"
    ),
    ErrorCase(
        "pos_weight",
        lambda: ops.binary_cross_entropy_with_logits(np.zeros(2), np.zeros(2), np.ones((3, 2))),
        ShapeError,
        "pos_weight of shape (3, 2) does not broadcast to x.shape = (2,)",
    ),
]
