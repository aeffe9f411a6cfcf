"""The weights of a layer, or of all convolutions of a model, as small pictures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError
from cnnlib.nn.module import Module
from cnnlib.viz.figure import SIGNED, new_figure, tiles, to_array


def filters(weight: Any, title: str = "filters", most: int = 64, figure: Any = None) -> Any:
    """Convolution weights (F, C, KH, KW) as pictures, at most ``most`` filters; of a model: 16 filters per convolution.

    With C = 1 one picture per filter, with C = 3 one in colour; otherwise a column per filter and a row per channel
    (at most 16 of each). Signed weights share one scale: blue negative, grey 0, red positive.
    Of a model, each convolution has a row and a scale of its own, and of each filter the channel with the largest weights.
    ``figure``: a figure or sub-figure to draw into.

    Source: lecture: convolutional networks, AlexNet; Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep
    convolutional neural networks", 2012, figure 3.

    >>> from cnnlib import models
    >>> figure = filters(models.LeNet5().c1.weight)
    >>> figure = filters(models.LeNet5())

    Raises ShapeError when the weight does not have four axes, or the model no convolution.
    """
    if isinstance(weight, Module):
        return _of_model(weight, figure)
    w = to_array(weight)
    if w.ndim != 4:
        raise ShapeError(f"filters: the weight must be (F, C, KH, KW), got shape {w.shape}.")
    F, C = w.shape[:2]
    if C in (1, 3):
        pictures = list(w[:most])
        columns = min(len(pictures), 8 if len(pictures) <= 32 else 16)
    else:
        pictures, columns = [kernel[c][None] for c in range(min(C, 16)) for kernel in w[:16]], min(F, 16)
    rows = math.ceil(len(pictures) / columns)
    figure = figure or new_figure(0.7 * columns + 0.9, 0.7 * rows + 0.5)
    limit = float(np.abs(w).max()) or 1.0
    image = None
    axes = tiles(figure, rows, columns)
    for ax, picture in zip(axes.flat, pictures, strict=False):
        if len(picture) == 3:
            ax.imshow(_stretch(picture.transpose(1, 2, 0)))
        else:
            image = ax.imshow(picture[0], cmap=SIGNED, vmin=-limit, vmax=limit)
    if image is not None:
        bar = figure.colorbar(image, ax=list(axes.flat), shrink=0.9, pad=0.02, aspect=8 * rows, label="weight")
        bar.outline.set_visible(False)
    shown = "" if len(pictures) >= F * (1 if C in (1, 3) else C) else ", the first ones"
    axes_mean = "" if C in (1, 3) else "; row: channel, column: filter"
    figure.suptitle(f"{title}: {F} of {C}×{w.shape[2]}×{w.shape[3]}{shown}{axes_mean}", fontsize=11)
    return figure


def _of_model(model: Module, figure: Any) -> Any:
    """A row of filters for each convolution."""
    weights = [(p.name or name, to_array(p)) for name, p in model.named_parameters() if p.ndim == 4]
    if not weights:
        raise ShapeError("filters: this model has no convolution: none of its parameters is (F, C, KH, KW).")
    columns = min(16, max(len(w) for _, w in weights))
    figure = figure or new_figure(0.42 * columns + 0.3, 0.75 * len(weights) + 0.1)
    for part, (name, w) in zip(np.atleast_1d(figure.subfigures(len(weights), 1)), weights, strict=True):
        F, C, KH, KW = w.shape
        part.suptitle(f"{name.removesuffix('.weight')}: {F} of {C}×{KH}×{KW}", x=0.01, ha="left", fontsize=10)
        limit = float(np.abs(w).max()) or 1.0
        for ax, kernel in zip(tiles(part, 1, columns).flat, w, strict=False):
            if C == 3:
                ax.imshow(_stretch(kernel.transpose(1, 2, 0)))
            else:
                ax.imshow(kernel[np.abs(kernel).max(axis=(1, 2)).argmax()], cmap=SIGNED, vmin=-limit, vmax=limit)
    return figure


def _stretch(picture: np.ndarray) -> np.ndarray:
    """To 0 … 1, with the same scale for the three colours, so that grey stays grey."""
    low, high = picture.min(), picture.max()
    return (picture - low) / ((high - low) or 1.0)
