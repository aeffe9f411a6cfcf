"""Which pixels a score listens to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib.nn.module import Module
from cnnlib.viz.asking import class_name, labels_of, looked_at, on_device_of, pictures_of, scores_of
from cnnlib.viz.figure import MAPS, new_figure, row_label, show, tiles, to_array


def saliency_map(model: Module, x: Any, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """M (N, H, W) and the labels (N,) it is for: how strongly the score of the class answers to each pixel::

        M[h, w] = max_c |∂s_k / ∂x[c, h, w]|

    s_k is the score before softmax: the probability would also listen to what speaks for the other classes.
    ``x``: (C, H, W) or (N, C, H, W); ``labels``: class numbers, by default what the model says. The model is evaluated, its
    gradients and its mode stay as they are.

    Source: lecture: convolutional networks, visualisation; Simonyan, Vedaldi & Zisserman, "Deep inside convolutional
    networks", 2014, section 3.

    >>> from cnnlib import models
    >>> M, labels = saliency_map(models.LeNet5(), np.zeros((2, 1, 32, 32), np.float32), labels=7)
    >>> M.shape, labels.tolist()
    ((2, 32, 32), [7, 7])

    Raises ShapeError (x is no picture, the model gives no class scores), ValueRangeError (a label out of range).
    """
    x = pictures_of("saliency", x, most=None)
    with looked_at(model):
        pixels = on_device_of(model, x, requires_grad=True)
        scores = scores_of("saliency", model, pixels)
        labels = labels_of("saliency", labels, scores.numpy())
        dy = np.zeros(scores.shape, x.dtype)
        dy[np.arange(len(x)), labels] = 1.0  # a picture's score depends on no other picture: one backward does all
        scores.backward(on_device_of(model, dy).data)
    return np.abs(to_array(pixels.grad)).max(axis=1), labels


def saliency(model: Module, x: Any, labels: Any = None, classes: Sequence[str] | None = None, figure: Any = None) -> Any:
    """Above the pictures, below :func:`saliency_map`, each scaled to its own maximum: bright pixels move the score most.

    The sign is lost: a bright pixel may speak for or against the class. ``classes``: their names.

    >>> from cnnlib import models
    >>> figure = saliency(models.LeNet5(), np.zeros((3, 1, 32, 32), np.float32))

    Raises what :func:`saliency_map` raises, and ShapeError for more than 8 pictures.
    """
    x = pictures_of("saliency", x)
    maps, labels = saliency_map(model, x, labels)
    figure = figure or new_figure(1.5 * len(x) + 0.3, 3.6)
    axes = tiles(figure, 2, len(x))
    for (above, below), picture, M, label in zip(axes.T, x, maps, labels, strict=True):
        show(above, picture)
        above.set_title(class_name(classes, label), fontsize=11)
        below.imshow(M, cmap=MAPS, vmin=0)
    row_label(axes[0, 0], "picture")
    row_label(axes[1, 0], "|∂score/∂pixel|")
    return figure
