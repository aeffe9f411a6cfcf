"""What a network needs to see: the score while a grey square hides one part of the picture after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib import ops
from cnnlib.errors import ValueRangeError
from cnnlib.nn.module import Module
from cnnlib.op import no_grad
from cnnlib.viz.asking import class_name, labels_of, looked_at, on_device_of, pictures_of, scores_of
from cnnlib.viz.figure import MAPS, new_figure, row_label, show, tiles

BATCH = 64  # occluded pictures at a time


def occlusion_map(
    model: Module, x: Any, labels: Any = None, size: int = 8, stride: int = 2, grey: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The probability of the class, with a ``size`` × ``size`` square of ``grey`` around each place of a grid::

        M[i, j] = softmax(f(x, grey around (i·stride, j·stride)))[k]

    Returns M (N, OH, OW), OH = ⌈H / stride⌉, the probabilities (N,) of the whole pictures, and the labels k (N,), by
    default what the model says. Squares that reach over the border are cut off there. ``grey``: by default the mean of all
    the pictures' pixels. That is N · OH · OW forward passes.

    Source: lecture: convolutional networks, ZFNet; Zeiler & Fergus, "Visualizing and understanding convolutional networks",
    2014, section 4.2 and figure 7.

    >>> from cnnlib import models
    >>> M, whole, labels = occlusion_map(models.LeNet5(), np.zeros((1, 32, 32), np.float32), stride=8)
    >>> M.shape
    (1, 4, 4)

    Raises ShapeError (x is no picture, the model gives no class scores), ValueRangeError (a label or setting out of range).
    """
    x = pictures_of("occlusion", x, most=None)
    H, W = x.shape[2:]
    whole = isinstance(size, int) and isinstance(stride, int)
    if not (whole and 1 <= size < max(H, W) and 1 <= stride <= min(H, W)):
        raise ValueRangeError(
            f"occlusion: the square's size must be 1 … {max(H, W) - 1} and its stride 1 … {min(H, W)} in pictures of "
            f"{H} × {W}, got size {size!r} and stride {stride!r}."
        )
    value = x.mean(dtype=np.float64) if grey is None else grey
    unhidden = _probabilities(model, x)
    labels = labels_of("occlusion", labels, unhidden)
    corners = [(i - size // 2, j - size // 2) for i in range(0, H, stride) for j in range(0, W, stride)]
    maps = []
    for picture, k in zip(x, labels, strict=True):
        hidden = np.repeat(picture[None], len(corners), axis=0)
        for one, (top, left) in zip(hidden, corners, strict=True):
            one[:, max(top, 0) : top + size, max(left, 0) : left + size] = value
        maps.append(_probabilities(model, hidden)[:, k].reshape(-(-H // stride), -(-W // stride)))
    return np.stack(maps), unhidden[np.arange(len(x)), labels], labels


def occlusion(
    model: Module,
    x: Any,
    labels: Any = None,
    size: int = 8,
    stride: int = 2,
    grey: float | None = None,
    classes: Sequence[str] | None = None,
    figure: Any = None,
) -> Any:
    """Above the pictures, each with one square; below :func:`occlusion_map`: the place is the centre of the square.

    Dark: with that part hidden the network no longer believes in the class, so the part matters. One scale, 0 to 1, for all.
    ``classes``: their names. The number is the probability with nothing hidden.

    >>> from cnnlib import models
    >>> figure = occlusion(models.LeNet5(), np.zeros((2, 1, 32, 32), np.float32), stride=8)

    Raises what :func:`occlusion_map` raises, and ShapeError for more than 8 pictures.
    """
    x = pictures_of("occlusion", x)
    maps, whole, labels = occlusion_map(model, x, labels, size, stride, grey)
    H, W = x.shape[2:]
    figure = figure or new_figure(1.5 * len(x) + 0.9, 3.6)
    axes = tiles(figure, 2, len(x))
    image = None
    for (above, below), picture, M, p, label in zip(axes.T, x, maps, whole, labels, strict=True):
        example = picture.copy()
        top, left = H // 2 - size // 2, W // 2 - size // 2
        example[:, top : top + size, left : left + size] = x.mean() if grey is None else grey
        show(above, example)
        above.set_title(f"{class_name(classes, label)}\n{p:.0%}", fontsize=11)
        edges = (-stride / 2, (M.shape[1] - 0.5) * stride, (M.shape[0] - 0.5) * stride, -stride / 2)
        image = below.imshow(M, cmap=MAPS, vmin=0, vmax=1, extent=edges)
        below.set(xlim=(-0.5, W - 0.5), ylim=(H - 0.5, -0.5))
    row_label(axes[0, 0], "picture")
    row_label(axes[1, 0], "with a part hidden")
    bar = figure.colorbar(image, ax=list(axes[1]), shrink=0.9, label="probability")
    bar.outline.set_visible(False)
    return figure


def _probabilities(model: Module, x: np.ndarray) -> np.ndarray:
    """softmax of the model's scores, (N, K)."""
    with looked_at(model), no_grad():
        parts = [ops.softmax(scores_of("occlusion", model, on_device_of(model, x[i : i + BATCH])))
                 for i in range(0, len(x), BATCH)]  # fmt: skip
    return np.concatenate([p.numpy() for p in parts])
