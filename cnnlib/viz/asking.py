"""What pictures of a network's answers share: how the network is asked without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cnnlib.data import Dataset
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.nn.module import Module, in_mode
from cnnlib.tensor import Tensor, to_device
from cnnlib.viz.figure import to_array


@contextmanager
def looked_at(model: Module) -> Iterator[None]:
    """Inside the block the model is evaluated and its parameters are constants; afterwards all is as it was.

    So a gradient with respect to the picture costs no gradients of weights, and leaves every ``.grad`` alone.
    """
    learning = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for p, _ in learning:
            p.requires_grad = False
        with in_mode(model, training=False):
            yield
    finally:
        for p, learns in learning:
            p.requires_grad = learns


def pictures_of(name: str, x: Any, most: int | None = 8) -> np.ndarray:
    """x, one picture (C, H, W) or several (N, C, H, W), as (N, C, H, W). Raises ShapeError that begins with ``name``."""
    if isinstance(x, Dataset):
        raise ShapeError(f"{name}: x must be pictures, (N, C, H, W), got a data set: take data.x.")
    x = to_array(x)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or not x.size:
        raise ShapeError(f"{name}: x must be one picture, (C, H, W), or several, (N, C, H, W), got shape {x.shape}.")
    if most is not None and len(x) > most:
        raise ShapeError(f"{name}: at most {most} pictures fit beside each other, got {len(x)}: take x[:{most}].")
    return x


def on_device_of(model: Module, x: np.ndarray, requires_grad: bool = False) -> Tensor:
    """x as a tensor where the model lives."""
    like: Any = next(model.parameters(), None)
    return Tensor(to_device(x, "cpu" if like is None else like.device), requires_grad)


def scores_of(name: str, model: Module, x: Tensor) -> Tensor:
    """The model's scores (N, K) of the pictures. Raises ShapeError for a model that gives something else."""
    scores = model(x)
    if getattr(scores, "ndim", None) != 2 or len(scores) != len(x):
        came = getattr(scores, "shape", type(scores).__name__)
        raise ShapeError(f"{name}: the model must give one row of class scores per picture, (N, K), got {came}.")
    return scores


def labels_of(name: str, labels: Any, scores: np.ndarray) -> np.ndarray:
    """(N,) class numbers: ``labels``, one number for all or one each; by default the class of the highest score."""
    if labels is None:
        return scores.argmax(axis=1)
    labels = to_array(labels)
    N, K = scores.shape
    if labels.dtype.kind not in "iu" or labels.shape not in ((), (N,)):
        raise ShapeError(f"{name}: labels must be a class number or {N} of them, got {labels.dtype} of shape {labels.shape}.")
    if labels.min() < 0 or labels.max() >= K:
        raise ValueRangeError(f"{name}: labels must be 0 … {K - 1}, got {labels.min()} … {labels.max()}.")
    return np.broadcast_to(labels, (N,))


def layer_of(model: Module, path: str) -> Module:
    """The layer at ``path``, as in ``model.named_modules()``. Raises UnknownNameError that names the nearest match."""
    paths = dict(model.named_modules())
    if path not in paths:
        raise unknown_name("layer", path, [p for p in paths if p])
    return paths[path]


def class_name(classes: Any, label: int) -> str:
    """Its name, or "class 3" where there are no names. Raises ShapeError where the names do not reach that far."""
    if classes is not None and label >= len(classes):
        raise ShapeError(f"classes: there are {len(classes)} names, but the model says class {label}: one per class is needed.")
    return f"class {label}" if classes is None else str(classes[label])
