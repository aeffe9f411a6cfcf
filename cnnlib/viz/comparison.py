"""Backends beside each other: where the time of a step goes, and from which batch size on which one wins."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib.viz.figure import CLASSES, new_figure

MOST_LAYERS = 24  # the slowest; a deep network's hundreds of bars could not be read


def comparison(result: Any, title: str = "", figure: Any = None) -> Any:
    """``result`` of `cnnlib.compare.compare`: milliseconds of each operation, forward + backward, a bar per backend.

    Where batch sizes were timed, beside it the whole step's milliseconds against the batch size.

    >>> from cnnlib import compare, models
    >>> result = compare.compare(lambda: models.MLP(4, (3,), 2), np.ones((5, 4), "float32"), np.zeros(5, "int64"), repeats=1)
    >>> figure = comparison(result, "MLP")
    """
    colours = {b.name: CLASSES[i] for i, b in enumerate(result.backends)}
    layers = sorted(result.layers, key=lambda row: -max(sum(ms) for ms in row.ms.values()))[:MOST_LAYERS]
    layers = [row for row in result.layers if any(row is kept for kept in layers)]
    figure = figure or new_figure(9.0 if result.batches else 5.5, max(2.4, 0.9 + 0.24 * len(layers)))
    axes = figure.subplots(1, 2 if result.batches else 1, squeeze=False)[0]
    _bars(axes[0], layers, colours, len(result.layers))
    if result.batches:
        _batches(axes[1], result.batches, colours)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _bars(ax: Any, layers: list, colours: dict[str, str], of: int) -> None:
    names = list(layers[0].ms)
    places, height = np.arange(len(layers)), 0.8 / len(names)
    for i, name in enumerate(names):
        ax.barh(places + i * height, [sum(row.ms[name]) for row in layers], height, color=colours[name], label=name)
    ax.set_yticks(places + 0.4 - height / 2, [row.name for row in layers], fontsize=8)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("ms, forward + backward")
    ax.set_title("operations" + (f", the slowest {len(layers)} of {of}" if len(layers) < of else ""), fontsize=10)
    _plain(ax)


def _batches(ax: Any, batches: dict[int, dict[str, float]], colours: dict[str, str]) -> None:
    sizes = sorted(batches)
    for name in batches[sizes[0]]:
        ax.plot(sizes, [batches[n][name] for n in sizes], color=colours[name], marker="o", markersize=3, label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.set_xlabel("batch size")
    ax.set_title("whole step, ms", fontsize=10)
    _plain(ax)


def _plain(ax: Any) -> None:
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
