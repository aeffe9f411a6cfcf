"""A text with what a network computed as the background of its characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib.nn.module import Module
from cnnlib.viz.figure import SIGNED, new_figure
from cnnlib.viz.sequence import NAMES, chosen, labels_of, read, units_of, values_of, visible

COLUMNS = 72  # characters in a line
LINE, CHARACTER = 0.2, 0.098  # inches


def cell_text(model: Module, x: Any, units: Any = None, text: Sequence[str] | None = None, layer: str | None = None,
              which: str | None = None, figure: Any = None) -> Any:  # fmt: skip
    """The text once per unit, each character on the colour of what the unit holds after it has been read.

    ``which``: ``"c"``, the cell as tanh(c), by default of an LSTM, ``"h"`` of the others, or a gate's letter; blue is
    negative, red is positive. ``units``: one number or several, by default the four that vary most. ``x``, ``text`` and
    ``layer``: as in :func:`gates`. Look for a unit that is red inside quotes, or counts down to the end of a line.

    Source: lecture: recurrent networks, LSTM; Karpathy, Johnson & Fei-Fei, "Visualizing and understanding recurrent networks",
    2015, figure 2.

    >>> from cnnlib import nn
    >>> figure = cell_text(nn.LSTM(3, 8), np.ones((5, 1, 3), np.float32), units=[0, 7], text=list("hello"))

    Raises what :func:`gates` raises.
    """
    found = chosen(read("cell_text", model, x), layer)
    labels = labels_of("cell_text", x, text, found.steps)
    which = values_of(found, which or ("c" if found.kind == "lstm" else "h"))
    values = found.shown(which)
    if units is None:
        units = np.argsort(-values.var(axis=0), kind="stable")[:4]
    numbers = units_of("cell_text", found, units)
    titles = [f"unit {unit} of {found.name}: {NAMES[which]}" for unit in numbers]
    return texts(
        labels, [(title, values[:, unit], []) for title, unit in zip(titles, numbers, strict=True)], SIGNED, -1, figure
    )


def texts(labels: list[str], blocks: list[tuple[str, np.ndarray, list[int]]], colours: str, low: float, figure: Any) -> Any:
    """The text under each title, label t on the colour of values[t] between ``low`` and 1; some labels framed."""
    places, lines = layout(labels)
    wide = max(column + len(shown) for (_, column), shown in zip(places, map(visible, labels), strict=True))
    tall = lines * LINE + 0.34
    figure = figure or new_figure(max(wide * CHARACTER + 1.1, 4.5), tall * len(blocks) + 0.1)
    axes = figure.subplots(len(blocks), 1, squeeze=False)[:, 0]
    for ax, (title, values, framed) in zip(axes, blocks, strict=True):
        ax.set_title(title, fontsize=10, loc="left", pad=3)
        image = _draw(ax, labels, places, values, framed, colours, low)
        ax.set(xlim=(0, max(wide, 1)), ylim=(lines, 0))
        ax.set_axis_off()
    bar = figure.colorbar(image, ax=list(axes), fraction=0.02, pad=0.01, aspect=max(8, 10 * len(blocks)))
    bar.ax.tick_params(labelsize=8)
    return figure


def layout(labels: list[str]) -> tuple[list[tuple[int, int]], int]:
    """(line, column) of each label, and the number of lines; words have a blank between them, a line end ends the line."""
    gap = 1 if any(len(label) > 1 for label in labels) else 0
    places, line, column = [], 0, 0
    for label in labels:
        if column and column + len(label) > COLUMNS:
            line, column = line + 1, 0
        places.append((line, column))
        line, column = (line + 1, 0) if label == "\n" else (line, column + len(label) + gap)
    return places, places[-1][0] + 1


def _draw(
    ax: Any, labels: list[str], places: list[tuple[int, int]], values: np.ndarray, framed: list[int], colours: str, low: float
) -> Any:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes = [
        Rectangle((column, line + 0.04), len(visible(label)), 0.92)
        for label, (line, column) in zip(labels, places, strict=True)
    ]
    image = PatchCollection(boxes, cmap=colours, linewidths=0)
    image.set_array(np.asarray(values, float))
    image.set_clim(low, 1)
    ax.add_collection(image)
    for t, (label, (line, column)) in enumerate(zip(labels, places, strict=True)):
        red, green, blue, _ = image.cmap(image.norm(values[t]))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        ax.text(column + len(label) / 2, line + 0.5, "" if label == " " else visible(label), ha="center", va="center_baseline",
                fontsize=9.5, family="monospace", color="white" if dark else "black")  # fmt: skip
    for t in framed:
        line, column = places[t]
        ax.add_patch(
            Rectangle((column, line + 0.04), len(visible(labels[t])), 0.92, fill=False, edgecolor="black", linewidth=1.6)
        )
    return image
