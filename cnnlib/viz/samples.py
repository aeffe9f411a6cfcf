"""Pictures that a model draws: many of them in a grid, a walk between two, the whole plane of a two-dimensional code.

>>> from cnnlib import models, viz
>>> net = models.VAE(input_shape=(1, 8, 8), latents=2)
>>> viz.sample_grid(net.sample(100)).savefig("samples.png")                 # doctest: +SKIP
>>> viz.latent_grid(net.decode, side=15).savefig("plane.png")               # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.op import no_grad
from cnnlib.viz.figure import new_figure, to_array

GAP = 1  # pixels between two pictures


def mosaic(pictures: Any, columns: int | None = None) -> np.ndarray:
    """(N, C, H, W) side by side, row after row, with white between: one picture (C, rows (H + 1) − 1, columns (W + 1) − 1).

    Values are cut to 0 … 1. ``columns``: √N, rounded up, unless given; places without a picture stay white.

    >>> mosaic(np.zeros((3, 1, 2, 2), np.float32)).shape
    (1, 5, 5)

    Raises ShapeError for what are not pictures, ValueRangeError for columns below 1.
    """
    pictures = to_array(pictures)
    if pictures.ndim != 4 or len(pictures) == 0:
        raise ShapeError(f"mosaic: expected pictures of shape (N, C, H, W), N >= 1, got {pictures.shape}.")
    N, C, H, W = pictures.shape
    columns = math.ceil(math.sqrt(N)) if columns is None else columns
    if columns < 1:
        raise ValueRangeError(f"mosaic: columns must be at least 1, got {columns}.")
    rows = -(-N // columns)
    sheet = np.ones((rows * columns, C, H + GAP, W + GAP), np.float32)
    sheet[:N, :, :H, :W] = pictures.clip(0.0, 1.0)
    sheet = sheet.reshape(rows, columns, C, H + GAP, W + GAP).transpose(2, 0, 3, 1, 4)  # (C, rows, H, columns, W)
    return sheet.reshape(C, rows * (H + GAP), columns * (W + GAP))[:, :-GAP, :-GAP]


def sample_grid(pictures: Any, columns: int | None = None, title: str = "") -> Any:
    """A figure of pictures (N, C, H, W) in 0 … 1, as `mosaic` lays them out."""
    sheet = mosaic(pictures, columns)
    C, H, W = sheet.shape
    figure = new_figure(6.0, 6.0 * H / W + (0.3 if title else 0.0))
    ax = figure.subplots()
    ax.set_axis_off()
    ax.imshow(sheet.transpose(1, 2, 0) if C == 3 else sheet.mean(axis=0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if title:
        ax.set_title(title, fontsize=10)
    return figure


def latent_plane(side: int = 15) -> np.ndarray:
    """(side², 2) float32: points z at which N(0, I) has equal shares between neighbours; the first row has the largest z₂.

    Along each axis the quantiles (i + ½) / side of the normal distribution, so that the plane shows as much of everything as
    is drawn of it.

    >>> latent_plane(3).round(2)[:3].tolist()
    [[-0.9700000286102295, 0.9700000286102295], [0.0, 0.9700000286102295], [0.9700000286102295, 0.9700000286102295]]
    """
    from statistics import NormalDist

    at = [NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)]
    return np.array([(a, b) for b in reversed(at) for a in at], np.float32)


def latent_grid(decode: Callable[[Any], Any], side: int = 15, title: str = "") -> Any:
    """What a model of two latents makes of `latent_plane`: ``decode(z)`` gives pictures, or a distribution with their mean."""
    return sample_grid(_decoded(decode, latent_plane(side)), side, title)


def interpolation(decode: Callable[[Any], Any], start: Any, end: Any, steps: int = 10, title: str = "") -> Any:
    """Rows of pictures on the straight way from each code of ``start`` (N, K) to that of ``end``, both included."""
    start, end = to_array(start), to_array(end)
    if start.shape != end.shape or start.ndim != 2:
        raise ShapeError(f"interpolation: start and end must be codes of one shape (N, K), got {start.shape} and {end.shape}.")
    if steps < 2:
        raise ValueRangeError(f"interpolation: steps must be at least 2, start and end, got {steps}.")
    share = np.linspace(0.0, 1.0, steps, dtype=start.dtype)[:, None]
    ways = np.concatenate([(1 - share) * a + share * b for a, b in zip(start, end, strict=True)])
    return sample_grid(_decoded(decode, ways), steps, title)


def _decoded(decode: Callable[[Any], Any], z: np.ndarray) -> np.ndarray:
    with no_grad():
        x = decode(z)
    return to_array(x if callable(x.mean) else x.mean)  # the mean of a distribution is no method
