"""Where a classifier of points in the plane changes its mind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError
from cnnlib.viz.figure import CLASSES, new_figure, to_array


def decision_boundary(predict: Callable[[np.ndarray], Any], x: Any, y: Any, title: str = "", ax: Any = None) -> Any:
    """The plane coloured by class, and the samples on it.

    ``predict``: a function from points (M, 2) float32 to class numbers (M,). x (N, 2), y (N,) class numbers.
    ``ax``: axes to draw into.

    Source: lecture: neurons, decision boundaries.

    >>> points = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> figure = decision_boundary(lambda p: (p.sum(axis=1) > 1.5).astype(int), points, [0, 0, 0, 1], title="AND")

    Raises ShapeError when the points are not in the plane, or predict gives something else than a number for each.
    """
    x, y = to_array(x), to_array(y)
    if x.ndim != 2 or x.shape[1] != 2:
        raise ShapeError(f"decision_boundary: x must be points in the plane, (N, 2), got shape {x.shape}.")
    if ax is None:
        figure = new_figure(4, 4)
        ax = figure.subplots()
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.25 * np.maximum(high - low, 1e-3)
    sides = [np.linspace(a, b, 240, dtype=np.float32) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    regions = to_array(predict(grid))
    if regions.shape != (len(grid),):
        raise ShapeError(
            f"decision_boundary: predict must give a class number for each of the {len(grid)} points, (M,), got shape "
            f"{regions.shape}; of scores take argmax(axis=1)."
        )
    regions = regions.reshape(240, 240)
    n = int(max(y.max(), regions.max())) + 1
    ax.contourf(
        *sides, regions, levels=np.arange(n + 1) - 0.5, colors=[CLASSES[c % len(CLASSES)] for c in range(n)], alpha=0.25
    )
    for c in range(n):
        ax.scatter(*x[y == c].T, s=22, color=CLASSES[c % len(CLASSES)], edgecolor="white", linewidth=0.6, label=f"class {c}")
    ax.set_title(title, fontsize=10)
    if n > 1:
        ax.legend(fontsize=8, framealpha=0.8, handletextpad=0.1, borderpad=0.3)
    ax.set_xlabel("x₁")
    ax.set_ylabel("x₂")
    ax.tick_params(labelsize=8)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax.figure
