"""A ring of Gaussians: the plane's simplest data that a generator can leave parts of out, and how much of it one has found.

>>> train = ring(1000)
>>> train.x.shape, train.classes
((1000, 2), ('0', '1', '2', '3', '4', '5', '6', '7'))
>>> coverage(train.x).modes
8
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cnnlib import random
from cnnlib.data.dataset import Dataset
from cnnlib.data.streams import check_seed
from cnnlib.errors import ShapeError, ValueRangeError

MODES, RADIUS, STD = 8, 2.0, 0.02
NEAR = 3.0  # deviations: 98.9 % of a two-dimensional Gaussian
FOUND = 0.01  # share of all samples


def centres(modes: int = MODES, radius: float = RADIUS) -> np.ndarray:
    """(modes, 2), anticlockwise from (radius, 0)."""
    angle = 2.0 * math.pi * np.arange(modes) / modes
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ring(count: int = 50_000, modes: int = MODES, radius: float = RADIUS, std: float = STD, seed: int = 0) -> Dataset:
    """``count`` points of the plane, equally often around each of the `centres`, N(0, std² I) from it; y is which one.

    Raises ValueRangeError for counts below 1, or a radius or deviation that is not above 0.
    """
    for name, value in {"count": count, "modes": modes, "radius": radius, "std": std}.items():
        if not value > 0:
            raise ValueRangeError(f"ring: {name} must be above 0, got {value!r}.")
    key = random.Key(check_seed(seed, "ring"), random.STREAMS.index("data"), 0)
    y = np.arange(count) % modes
    x = centres(modes, radius)[y] + std * random.normal(key, (count, 2))
    return Dataset(x.astype(np.float32), y, tuple(map(str, range(modes))), "ring")


class Coverage(NamedTuple):
    """What samples have found of a ring."""

    modes: int  # those that at least 1 % of the samples are near, 3 deviations at most
    quality: float  # share of samples that are near a mode
    shares: tuple[float, ...]  # of the samples near each mode, in all samples


def coverage(samples: np.ndarray, modes: int = MODES, radius: float = RADIUS, std: float = STD) -> Coverage:
    """How many modes of a `ring` the samples (N, 2) have found, and how many samples are where the data are.

    >>> coverage(np.float32([[2, 0], [2, 0.01], [0, 2], [0, 0]]))[:2]
    (2, 0.75)

    Raises ShapeError.
    """
    if samples.ndim != 2 or samples.shape[1] != 2 or len(samples) == 0:
        raise ShapeError(f"coverage: samples must be points of the plane, (N, 2) with N >= 1, got {samples.shape}.")
    distance = np.linalg.norm(samples[:, None] - centres(modes, radius), axis=2)  # (N, modes)
    near = distance.min(axis=1) <= NEAR * std
    shares = np.bincount(distance.argmin(axis=1)[near], minlength=modes) / len(samples)
    return Coverage(int((shares >= FOUND).sum()), float(near.mean()), tuple(shares.tolist()))
