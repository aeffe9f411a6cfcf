"""Metrics: functions ``(outputs, labels) -> number``, the mean over the samples of a batch.

``outputs`` and ``labels`` are plain arrays (NumPy, or CuPy on the GPU). Of a model with several outputs they come as a tuple;
the metrics here measure the first, as the others are those of auxiliary heads. Any function of that form is a metric, under its
own name; the trainer weighs the batches by their size.

>>> def confident(outputs, labels):
...     return (outputs.max(1) > 5).mean()
>>> trainer = Trainer(net, loss, optimizer, metrics=("accuracy", "top_5", confident))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from cnnlib.backends import xp_of
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError, unknown_name

Metric = Callable[[Any, Any], Any]


def accuracy(outputs: Any, labels: Any) -> Any:
    """Share of samples whose class is right, 0 … 1.

    Class scores (N, C), (N, C, ...) or (N, T, C) against integer labels: the largest score wins, the first of equal ones.
    One logit per sample, of the shape of the labels: class 1 where it is above 0.
    """
    return (_classes(_main(outputs), labels) == labels).mean()


def error(outputs: Any, labels: Any) -> Any:
    """1 − accuracy."""
    return 1.0 - accuracy(outputs, labels)


def top_k(k: int) -> Metric:
    """A metric: share of samples whose class is among the ``k`` largest scores. ``"top_5"`` is short for ``top_k(5)``.

    A class is among them when fewer than ``k`` scores are larger.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueRangeError(f"top_k: k must be a whole number of at least 1, got {k!r}.")

    def metric(outputs: Any, labels: Any) -> Any:
        scores, labels = _scores(_main(outputs), labels)  # (R, C), (R,)
        right = scores[xp_of(scores).arange(len(labels)), labels][:, None]
        return ((scores > right).sum(axis=1) < k).mean()

    metric.__name__ = f"top_{k}"
    return metric


def mean_absolute_error(outputs: Any, labels: Any) -> Any:
    """Mean of |output − target|, for regression; in the unit of the target."""
    outputs = _main(outputs)
    if outputs.shape != labels.shape:
        raise ShapeError(f"mean_absolute_error: outputs and targets need one shape, got {outputs.shape} and {labels.shape}.")
    return abs(outputs - labels).mean()


def confusion_matrix(outputs: Any, labels: Any, num_classes: int | None = None) -> Any:
    """(C, C) counts: row = the right class, column = the answer. For whole data sets, not for training.

    ``outputs``: class scores (N, C), or answers (N,) int; then ``num_classes`` unless the largest number tells it.

    >>> import numpy as np
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]))
    array([[1, 1],
           [0, 1]])
    """
    xp = xp_of(outputs)
    answers = outputs if outputs.dtype.kind in "iu" else _classes(outputs, labels)
    if answers.shape != labels.shape:
        raise ShapeError(f"confusion_matrix: one answer per label is needed, got {answers.shape} and {labels.shape}.")
    answers, labels = answers.reshape(-1), labels.reshape(-1)
    largest = max((int(a.max()) for a in (answers, labels) if a.size), default=-1)
    n = num_classes or max(largest + 1, outputs.shape[1] if outputs.dtype.kind == "f" and outputs.ndim > 1 else 0)
    if largest >= n:
        raise ValueRangeError(f"confusion_matrix: class {largest} needs num_classes of at least {largest + 1}, got {n}.")
    return xp.bincount(labels * n + answers, minlength=n * n).reshape(n, n)


METRICS: dict[str, Metric] = {"accuracy": accuracy, "error": error, "mean_absolute_error": mean_absolute_error}


def resolve(metrics: Iterable[str | Metric]) -> dict[str, Metric]:
    """Name -> function, from names and functions. Raises UnknownNameError with the nearest match."""
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    found: dict[str, Metric] = {}
    for metric in metrics:
        function = metric if callable(metric) else _named(metric)
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
        if name == "loss" or name in found:
            raise ValueRangeError(f"metrics: {name!r} is taken; give the function another __name__.")
        found[name] = function
    return found


def larger_is_better(column: str) -> bool | None:
    """Whether more of a column is better; None where the name does not tell."""
    name = column.removeprefix("validation_")
    if name.endswith(("loss", "error", "bits")):
        return False
    return True if name.endswith("accuracy") or name.startswith("top_") else None


def _named(name: Any) -> Metric:
    if isinstance(name, str) and (match := re.fullmatch(r"top_(\d+)", name)):
        return top_k(int(match[1]))
    if name not in METRICS:
        raise unknown_name("metric", str(name), [*METRICS, "top_5"])
    return METRICS[name]


def _main(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _classes(outputs: Any, labels: Any) -> Any:
    if outputs.shape == labels.shape:
        return (outputs > 0).astype(labels.dtype)
    return outputs.argmax(axis=_class_axis(outputs, labels))


def _scores(outputs: Any, labels: Any) -> tuple[Any, Any]:
    """Class scores as (R, C) and labels as (R,)."""
    axis = _class_axis(outputs, labels)
    return xp_of(outputs).moveaxis(outputs, axis, -1).reshape(-1, outputs.shape[axis]), labels.reshape(-1)


def _class_axis(outputs: Any, labels: Any) -> int:
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"accuracy: labels must be integers, got {labels.dtype}: for regression pass metrics=().")
    if outputs.ndim > 1 and outputs.shape[:1] + outputs.shape[2:] == labels.shape:
        return 1
    if outputs.ndim > 1 and outputs.shape[:-1] == labels.shape:
        return -1
    raise ShapeError(f"accuracy: outputs {outputs.shape} do not fit labels {labels.shape}: expected (N, C) for (N,) labels.")
