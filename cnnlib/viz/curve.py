"""How loss and accuracy went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnlib.errors import ValueRangeError
from cnnlib.viz.figure import CLASSES, new_figure

LABEL_WORDS = {"val": "validation", "acc": "accuracy"}


def learning_curve(history: Any, title: str = "", figure: Any = None) -> Any:
    """Left the losses, right the accuracies, against the epoch.

    ``history``: what ``Trainer.fit`` returns, a list with a mapping per epoch, or a mapping of lists, such as
    ``{"loss": [...], "test_accuracy": [...]}``. Names that contain "loss" or "acc" are drawn, others are left out.

    >>> figure = learning_curve({"loss": [2.0, 1.0], "validation_loss": [2.1, 1.4], "validation_accuracy": [0.5, 0.8]})

    Raises ValueRangeError when there is nothing to draw.
    """
    series = _series(history)
    panels = [(kind, {n: v for n, v in series.items() if key in n}) for kind, key in (("loss", "loss"), ("accuracy", "acc"))]
    panels = [(kind, lines) for kind, lines in panels if lines]
    if not panels:
        raise ValueRangeError(
            f"learning_curve: the history holds no loss and no accuracy, but {', '.join(series) or 'nothing'}."
        )
    labels = dict.fromkeys(_label(name, kind) for kind, lines in panels for name in lines)
    colours = {label: CLASSES[i % len(CLASSES)] for i, label in enumerate(labels)}  # one colour for "validation" in both panels
    figure = figure or new_figure(3.4 * len(panels), 2.8)
    for ax, (kind, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, values in lines.items():
            epochs = range(1, len(values) + 1)
            ax.plot(epochs, values, color=colours[_label(name, kind)], marker="o", markersize=3, label=_label(name, kind))
        ax.set_xlabel("epoch")
        ax.set_title(kind, fontsize=10)
        ax.xaxis.get_major_locator().set_params(integer=True)
        if kind == "accuracy":
            ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.4g}%")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _series(history: Any) -> dict[str, list[float]]:
    """name -> values per epoch, of numbers only."""
    if not isinstance(history, Mapping):
        rows = [dict(row) for row in history]
        history = {name: [row[name] for row in rows if name in row] for name in dict.fromkeys(n for row in rows for n in row)}
    return {
        str(n): [float(v) for v in vs] for n, vs in history.items() if len(vs) and all(isinstance(v, (int, float)) for v in vs)
    }


def _label(name: str, kind: str) -> str:
    """``test_accuracy`` in the panel of accuracies -> ``test``."""
    words = [LABEL_WORDS.get(w, w) for w in name.split("_")]
    return " ".join(w for w in words if w != kind) or "train"
