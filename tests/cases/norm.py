"""Normalisation cases."""

import numpy as np

from cnnlib import ops
from cnnlib.errors import ShapeError, ValueRangeError
from tests.cases import Case, ErrorCase


def image(d, *shape):
    """Normal, and not the first numbers of the stream: gradcheck's adjoints are those when the seeds are equal, and for
    dy = x + constant the derivative of a normalisation is 0."""
    d.normal(7)
    return d.normal(*shape)


def batch(name, shape, gamma=True, beta=True, **settings):
    C = shape[1]
    draw = lambda d: (image(d, *shape), d.positive(C) if gamma else None, d.normal(C) if beta else None)  # noqa: E731
    return Case(f"batch_norm {name}", ops.batch_norm, draw, settings)


def inference(name, shape, gamma=True, beta=True, **settings):
    C = shape[1]

    def draw(d):
        return image(d, *shape), d.normal(C), d.positive(C), d.positive(C) if gamma else None, d.normal(C) if beta else None

    return Case(f"batch_norm_inference {name}", ops.batch_norm_inference, draw, settings, differentiable=(0, 3, 4))


def layer_norm(x, gamma, beta, **settings):  # arrays first, as the table wants it
    return ops.layer_norm(x, settings.pop("normalized_shape"), gamma, beta, **settings)


def layer(name, shape, normalized, gamma=True, beta=True, **settings):
    sizes = (normalized,) if isinstance(normalized, int) else normalized
    draw = lambda d: (image(d, *shape), d.positive(*sizes) if gamma else None, d.normal(*sizes) if beta else None)  # noqa: E731
    return Case(f"layer_norm {name}", layer_norm, draw, {"normalized_shape": normalized, **settings})


def response(name, shape, **settings):
    return Case(f"local_response_norm {name}", ops.local_response_norm, lambda d: (image(d, *shape),), settings)


def contrast(name, shape, **settings):
    return Case(f"local_contrast_norm {name}", ops.local_contrast_norm, lambda d: (image(d, *shape),), settings)


CASES = [
    batch("images", (3, 4, 5, 6)),
    batch("odd sizes", (2, 3, 7, 3)),
    batch("rows", (7, 5)),
    batch("rows, many channels", (3, 37)),
    batch("signals", (2, 3, 9)),
    batch("one image", (1, 2, 3, 3)),
    batch("neither gamma nor beta", (4, 3, 2, 2), gamma=False, beta=False),
    batch("gamma only", (4, 3, 2), beta=False),
    batch("beta only", (4, 3, 2), gamma=False),
    batch("large eps", (4, 3, 2), eps=0.5),
    inference("images", (2, 3, 4, 5)),
    inference("rows", (5, 18)),
    inference("one value", (1, 3)),
    inference("neither gamma nor beta", (2, 3, 4), gamma=False, beta=False),
    inference("gamma only", (2, 3, 4), beta=False, eps=0.1),
    layer("last axis", (4, 7), 7),
    layer("wide", (3, 41), 41),
    layer("last axis of three", (2, 3, 5), (5,)),
    layer("two axes", (3, 4, 5), (4, 5)),
    layer("all axes", (2, 3), (2, 3)),
    layer("one row", (6,), 6),
    layer("neither gamma nor beta", (4, 6), 6, gamma=False, beta=False),
    layer("gamma only", (4, 6), 6, beta=False, eps=0.3),
    response("size 5", (2, 7, 3, 4), size=5, alpha=0.5),
    response("size 1", (2, 3, 4), size=1, alpha=0.7, beta=0.5),
    response("even size", (2, 6, 3, 3), size=4, alpha=1.3, beta=1.0, k=2.0),
    response("more than the channels", (1, 3, 2, 5), size=9, alpha=2.0),
    response("rows", (3, 8), size=3, alpha=0.9, beta=0.6),
    response("AlexNet's", (1, 6, 5, 5), size=5, alpha=5e-4, beta=0.75, k=2.0),
    contrast("9×9", (2, 3, 10, 11)),
    contrast("window larger than image", (2, 2, 4, 5), size=9),
    contrast("3×3, narrow", (1, 1, 6, 7), size=3, sigma=0.6),
    contrast("1×1: across channels only", (1, 3, 3, 4), size=1),
    contrast("eps decides", (1, 2, 5, 5), size=5, eps=10.0),
    contrast("one row", (2, 2, 1, 9), size=5),
]


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


ERRORS = [
    ErrorCase(
        "batch norm: one value per channel",
        lambda: ops.batch_norm(zeros(1, 3, 1, 1)),
        ShapeError,
        "batch_norm: x has one value per channel (x.shape = (1, 3, 1, 1)), so y would be β whatever x is",
    ),
    ErrorCase(
        "batch norm: axes",
        lambda: ops.batch_norm(zeros(4)),
        ShapeError,
        "batch_norm: x must have at least 2 axes (N, C, ...), got shape (4,)",
    ),
    ErrorCase("batch norm: empty", lambda: ops.batch_norm(zeros(0, 3)), ShapeError, "batch_norm: x is empty"),
    ErrorCase(
        "batch norm: gamma",
        lambda: ops.batch_norm(zeros(2, 3), zeros(2)),
        ShapeError,
        "gamma must have shape (3,), one value per channel of x; got (2,)",
    ),
    ErrorCase(
        "batch norm: beta", lambda: ops.batch_norm(zeros(2, 3), None, zeros(3, 1)), ShapeError, "beta must have shape (3,)"
    ),
    ErrorCase("batch norm: eps", lambda: ops.batch_norm(zeros(2, 3), eps=0), ValueRangeError, "batch_norm: eps must be > 0"),
    ErrorCase(
        "inference: mean",
        lambda: ops.batch_norm_inference(zeros(2, 3), zeros(1), zeros(3)),
        ShapeError,
        "batch_norm_inference: mean must have shape (3,)",
    ),
    ErrorCase(
        "layer norm: shape",
        lambda: ops.layer_norm(zeros(2, 3), 4),
        ShapeError,
        "layer_norm: normalized_shape (4,) must be the last axes of x, got x.shape = (2, 3)",
    ),
    ErrorCase(
        "layer norm: gamma",
        lambda: ops.layer_norm(zeros(2, 3), 3, zeros(2)),
        ShapeError,
        "layer_norm: gamma must have shape (3,)",
    ),
    ErrorCase(
        "layer norm: eps", lambda: ops.layer_norm(zeros(2, 3), 3, eps=-1.0), ValueRangeError, "layer_norm: eps must be > 0"
    ),
    ErrorCase(
        "response: size",
        lambda: ops.local_response_norm(zeros(2, 3), 0),
        ValueRangeError,
        "size must be a whole number of channels >= 1, got 0",
    ),
    ErrorCase(
        "response: k",
        lambda: ops.local_response_norm(zeros(2, 3), 3, k=0.0),
        ValueRangeError,
        "so that k + alpha/size Σ x² is positive; got k = 0.0, alpha = 0.0001",
    ),
    ErrorCase(
        "response: axes",
        lambda: ops.local_response_norm(zeros(3), 3),
        ShapeError,
        "local_response_norm: x must have at least 2 axes",
    ),
    ErrorCase(
        "contrast: size",
        lambda: ops.local_contrast_norm(zeros(1, 1, 4, 4), 4),
        ValueRangeError,
        "size must be an odd whole number",
    ),
    ErrorCase(
        "contrast: sigma",
        lambda: ops.local_contrast_norm(zeros(1, 1, 4, 4), 3, 0.0),
        ValueRangeError,
        "sigma, the width of the Gaussian",
    ),
    ErrorCase(
        "contrast: eps",
        lambda: ops.local_contrast_norm(zeros(1, 1, 4, 4), eps=0.0),
        ValueRangeError,
        "local_contrast_norm: eps must be > 0",
    ),
    ErrorCase("contrast: axes", lambda: ops.local_contrast_norm(zeros(3, 4, 4)), ShapeError, "x must have 4 axes (N, C, H, W)"),
]
