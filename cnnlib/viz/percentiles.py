"""How the inputs of a layer drift while the network learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.viz.figure import CLASSES, new_figure, to_array

LEVELS = (15, 50, 85)


def percentiles(
    runs: Mapping[str, Any], steps: Sequence[int] | None = None, label: str = "input of the layer", figure: Any = None
) -> Any:
    """A panel per run: the {15, 50, 85}th percentiles of what a layer gets, against the training step.

    ``runs``: name -> (T, 3), a row per step: ``np.percentile(h, (15, 50, 85))``. ``steps`` (T,): their numbers, by default
    1 … T. The panels share both axes, so that drift and spread compare. A hook gathers the rows while any loop trains:

    >>> import cnnlib as cl
    >>> net, rows = cl.models.MLP(4, hidden=(3, 3), activation="sigmoid"), []
    >>> def keep(module, inputs, output):
    ...     if module.training:
    ...         rows.append(np.percentile(inputs[0].numpy(), (15, 50, 85)))
    >>> remove = net[4].register_forward_hook(keep)                  # the second sigmoid
    >>> for x in np.ones((5, 8, 4), np.float32):
    ...     _ = net(x)                                               # here would be a training step
    >>> remove()
    >>> figure = percentiles({"without batch norm": rows})

    Source: lecture: batch normalisation; Ioffe & Szegedy, "Batch normalization: accelerating deep network training by
    reducing internal covariate shift", 2015, figure 1 (b, c).

    Raises ShapeError (rows of other than three), ValueRangeError (nothing to draw, percentiles that fall).
    """
    arrays = {str(name): to_array(rows) for name, rows in runs.items()}
    if not arrays:
        raise ValueRangeError("percentiles: there is no run to draw.")
    for name, rows in arrays.items():
        if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows):
            raise ShapeError(
                f"percentiles: run {name!r} must be (T, 3), a row np.percentile(h, (15, 50, 85)) per step, got {rows.shape}."
            )
        if steps is not None and len(steps) != len(rows):
            raise ShapeError(f"percentiles: run {name!r} has {len(rows)} rows, but there are {len(steps)} steps.")
        if (np.diff(rows, axis=1) < 0).any():
            raise ValueRangeError(f"percentiles: run {name!r}: the 15th, 50th and 85th percentile must not fall along a row.")
    figure = figure or new_figure(3.3 * len(arrays) + 0.3, 2.9)
    axes = figure.subplots(1, len(arrays), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (name, rows) in zip(axes, arrays.items(), strict=True):
        at = np.arange(1, len(rows) + 1) if steps is None else np.asarray(steps)
        ax.fill_between(at, rows[:, 0], rows[:, 2], color=CLASSES[0], alpha=0.2, linewidth=0)
        for level, values in zip(LEVELS, rows.T, strict=True):
            ax.plot(at, values, color=CLASSES[0], linewidth=1.8 if level == 50 else 0.9)
            ax.annotate(f"{level}%", (at[-1], values[-1]), xytext=(3, 0), textcoords="offset points", va="center", fontsize=9)
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("training step")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(label)
    return figure
