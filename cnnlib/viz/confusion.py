"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.viz.figure import MAPS, new_figure, to_array


def confusion_matrix(labels: Any, predictions: Any, classes: Sequence[str] | None = None, figure: Any = None) -> Any:
    """Row: the true class, column: the predicted one; colour: the share of the row, number: how many samples.

    ``labels`` (N,) and ``predictions`` (N,) are class numbers; ``classes`` their names.

    Source: lecture: convolutional networks.

    >>> figure = confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], classes=["cat", "dog"])

    Raises ShapeError, or ValueRangeError for a number without a name.
    """
    counts = _counts(to_array(labels), to_array(predictions), None if classes is None else len(classes))
    n = len(counts)
    names = [str(c) for c in classes] if classes is not None else [str(c) for c in range(n)]
    figure = figure or new_figure(0.42 * n + 2.2, 0.42 * n + 1.6)
    ax = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(share, cmap=MAPS, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count and n <= 25:
            ax.text(column, row, f"{count}", ha="center", va="center", fontsize=8,
                    color="black" if share[row, column] > 0.55 else "white")  # fmt: skip
    long = max(map(len, names)) > 3
    ax.set_xticks(range(n), names, rotation=45 if long else 0, ha="right" if long else "center", rotation_mode="anchor")
    ax.set_yticks(range(n), names)
    ax.tick_params(length=0)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(f"{np.trace(counts) / counts.sum():.1%} of {counts.sum():,} right", fontsize=11)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, label="share of the true class")
    for spine in (*ax.spines.values(), bar.outline):
        spine.set_visible(False)
    return figure


def _counts(labels: np.ndarray, predictions: np.ndarray, n: int | None) -> np.ndarray:
    if labels.ndim != 1 or labels.shape != predictions.shape or not labels.size:
        raise ShapeError(f"confusion_matrix: labels and predictions must be (N,), got {labels.shape} and {predictions.shape}.")
    if labels.dtype.kind not in "iu" or predictions.dtype.kind not in "iu":
        raise ValueRangeError("confusion_matrix: labels and predictions must be class numbers; take logits.argmax(axis=1).")
    n = int(max(labels.max(), predictions.max())) + 1 if n is None else n
    both = np.concatenate([labels, predictions])
    if both.min() < 0 or both.max() >= n:
        raise ValueRangeError(f"confusion_matrix: class numbers must be 0 … {n - 1}, got {both.min()} … {both.max()}.")
    return np.bincount(labels.astype(np.int64) * n + predictions.astype(np.int64), minlength=n * n).reshape(n, n)
