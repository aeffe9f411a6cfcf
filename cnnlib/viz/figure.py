"""What all pictures share: how a figure is made, colours, small helpers."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib.errors import CnnlibError

MAPS = "viridis"  # perceptually uniform: equal steps in value look equal
SIGNED = "coolwarm"  # its diverging counterpart: blue below 0, grey at 0, red above
CLASSES = ("#3b6fb6", "#d1603d", "#4f9d69", "#8d6cab", "#c79a2b", "#5b8c99")


class VizError(CnnlibError, ImportError):
    """matplotlib is missing."""


def new_figure(width: float, height: float) -> Any:
    """An empty figure of that many inches, apart from pyplot: no window, nothing to close."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise VizError('pictures need matplotlib: pip install "cnnlib[viz]"') from None
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def tiles(parent: Any, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) axes without ticks and frames, in a figure or a sub-figure."""
    axes = parent.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return axes


def row_label(ax: Any, text: str) -> None:
    """What a row of tiles shows, written upwards at the left of its first one."""
    ax.text(-0.06, 0.5, text, transform=ax.transAxes, rotation=90, ha="right", va="center", fontsize=11)


def to_array(x: Any) -> np.ndarray:
    """Tensors, Parameters, lists, NumPy and CuPy arrays as a NumPy array."""
    if hasattr(x, "numpy"):
        return x.numpy()
    return x.get() if hasattr(x, "get") else np.asarray(x)


def show(ax: Any, picture: np.ndarray, **options: Any) -> Any:
    """One picture (C, H, W) into the axes: grey for C = 1, colour for C = 3, else the mean of the channels.

    Values outside 0 … 1, as normalised pictures have them, are stretched to it.
    """
    low, high = float(picture.min()), float(picture.max())
    if low < 0.0 or high > 1.0:
        picture = (picture - low) / ((high - low) or 1.0)
    if len(picture) == 3:
        return ax.imshow(picture.transpose(1, 2, 0), **options)
    return ax.imshow(picture.mean(axis=0), cmap="gray", vmin=0, vmax=1, **options)
