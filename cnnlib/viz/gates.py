"""What the gates of a recurrent layer do while it reads a text, and how often they stand open or closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError
from cnnlib.nn.module import Module
from cnnlib.viz.figure import CLASSES, MAPS, SIGNED, new_figure
from cnnlib.viz.sequence import NAMES, SQUASHED, chosen, labels_of, read, units_of, values_of, visible

LEFT, RIGHT = 0.1, 0.9  # below and above, a gate counts as saturated
MOST_STEPS = 160


def gates(model: Module, x: Any, text: Sequence[str] | None = None, layer: str | None = None,
          which: Sequence[str] | None = None, units: Any = None, figure: Any = None) -> Any:  # fmt: skip
    """A heat map per gate and state of one recurrent layer: a row per unit, a column per step.

    ``x``: one sequence as the model takes it (a tuple for several arguments), or a text for a model with an ``alphabet``;
    ``text``: the T labels below, by default the characters of x. ``layer``: as in the error message that lists them, by default
    the first; ``which``: of i, f, g, o, c, h (LSTM), r, z, n, h (GRU), h (RNN), by default all; ``units``: their numbers.

    Gates are 0 … 1, dark is closed; candidates and states are −1 … 1, blue is negative; the cell is shown as tanh(c). The
    model is evaluated and left as it was.

    Source: lecture: recurrent networks, LSTM; Karpathy, Johnson & Fei-Fei, "Visualizing and understanding recurrent networks",
    2015.

    >>> from cnnlib import nn
    >>> figure = gates(nn.LSTM(3, 8), np.ones((5, 1, 3), np.float32), text=list("hello"), which=["f", "c"])

    Raises ShapeError (several sequences, no recurrent layer, too many steps, labels that do not fit), DtypeError (a text for a
    model without alphabet), ValueRangeError (a unit that does not exist, an empty text), UnknownNameError (layer, which),
    NonFiniteError (NaN or infinity in the model or in what its layers compute; it says at which step it began).
    """
    found = chosen(read("gates", model, x), layer)
    labels = labels_of("gates", x, text, found.steps, MOST_STEPS)
    names = [values_of(found, name) for name in (which or found.values)]
    rows = units_of("gates", found, range(found.units) if units is None else units)
    height = min(max(0.11 * len(rows), 0.5), 2.6)
    figure = figure or new_figure(max(0.115 * len(labels) + 1.6, 4.5), (height + 0.42) * len(names) + 0.5)
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for ax, name in zip(axes, names, strict=True):
        limits = {"cmap": MAPS, "vmin": 0, "vmax": 1} if name in SQUASHED else {"cmap": SIGNED, "vmin": -1, "vmax": 1}
        image = ax.imshow(found.shown(name)[:, rows].T, aspect="auto", interpolation="nearest", **limits)
        ax.set_title(NAMES[name], fontsize=10, loc="left", pad=3)
        ax.set_yticks(*_sparse(rows))
        ax.tick_params(axis="y", labelsize=8)
        ax.tick_params(axis="x", length=0)
        figure.colorbar(image, ax=ax, pad=0.01, fraction=0.03, aspect=max(6, 12 * height)).ax.tick_params(labelsize=8)
    figure.supylabel(f"unit of {found.name}", fontsize=10)
    axes[-1].set_xticks(range(len(labels)), [visible(label) for label in labels], fontsize=8, family="monospace",
                        rotation=90 if any(len(label) > 2 for label in labels) else 0)  # fmt: skip
    return figure


def saturation_shares(model: Module, x: Any) -> dict[str, dict[str, np.ndarray]]:
    """For each recurrent layer and each of its gates, (2, H): the share of steps at which a unit's gate is below 0.1
    (left-saturated, closed), and above 0.9 (right-saturated, open).

    ``x``: as in :func:`gates`, the longer the better. Candidates g and n, and the RNN, have no gates that open and close.

    >>> from cnnlib import nn
    >>> shares = saturation_shares(nn.GRU(3, 8), np.ones((5, 1, 3), np.float32))
    >>> {layer: {gate: s.shape for gate, s in of.items()} for layer, of in shares.items()}
    {'l0': {'r': (2, 8), 'z': (2, 8)}}

    Raises what :func:`gates` raises for x, and ShapeError where no layer has gates.
    """
    layers = read("saturation", model, x)
    shares = {
        layer.name: {
            g: np.stack([(v < LEFT).mean(axis=0), (v > RIGHT).mean(axis=0)]) for g, v in layer.values.items() if g in SQUASHED
        }
        for layer in layers
        if layer.kind != "rnn"
    }
    if not shares:
        raise ShapeError("saturation: this model's recurrent layers are plain RNNs: they have no gates.")
    return shares


def saturation(model: Module, x: Any, figure: Any = None) -> Any:
    """:func:`saturation_shares` as scatter plots, one per gate, a point per unit and a colour per layer.

    Right below: units whose gate is hardly ever open; left above: hardly ever closed. A forget gate at (0, 1) keeps its cell
    for ever, an input gate at (1, 0) ignores the text. Both shares add up to 1 at most, the dotted line: a unit on it switches
    and is never in between. Near (0, 0) gates only weigh.

    Source: lecture: recurrent networks, LSTM; Karpathy, Johnson & Fei-Fei, "Visualizing and understanding recurrent networks",
    2015, figure 3.

    >>> from cnnlib import nn
    >>> figure = saturation(nn.LSTM(3, 8, num_layers=2), np.ones((5, 1, 3), np.float32))

    Raises what :func:`saturation_shares` raises.
    """
    shares = saturation_shares(model, x)
    names = list(dict.fromkeys(gate for of in shares.values() for gate in of))
    figure = figure or new_figure(2.9 * len(names) + 0.4, 3.6)
    axes = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for ax, gate in zip(axes, names, strict=True):
        ax.plot((0, 1), (1, 0), ":", color="#888888", linewidth=1)
        for k, (layer, of) in enumerate(shares.items()):
            if gate in of:
                ax.scatter(*of[gate], s=22, alpha=0.6, color=CLASSES[k % len(CLASSES)], label=layer, linewidths=0)
        ax.set_title(NAMES[gate], fontsize=11)
        ax.set_xlabel(f"share of steps below {LEFT}", fontsize=10)
        ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"share of steps above {RIGHT}", fontsize=10)
    if len(shares) > 1:
        axes[-1].legend(fontsize=9, frameon=False)
    return figure


def _sparse(rows: list[int]) -> tuple[list[int], list[int]]:
    """Places and numbers of at most 8 ticks."""
    places = list(range(0, len(rows), max(1, -(-len(rows) // 8))))
    return places, [rows[k] for k in places]
