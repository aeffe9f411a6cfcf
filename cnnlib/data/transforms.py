"""Changes to batches of pictures on their way to the network: normalising, padding, augmentation.

A transform is called as ``transform(x, indices, seed, epoch)`` with x (B, C, H, W) and the positions of the samples in
their data set, and returns a new array; it never writes to x. What happens to a sample is a function of
(seed, epoch, its index) alone: not of the batch it is in, its size or the order. So a run can be repeated and resumed.

>>> augment = Compose([RandomCrop(32, padding=4), RandomFlip(), Normalize.fit(train)])
>>> DataLoader(train, batch_size=64, transform=augment)

AlexNet's augmentation is ``Compose([RandomCrop(224), RandomFlip(), PCAColour.fit(train)])`` of pictures of 256×256, and
:func:`ten_crops` in evaluation. Source: lecture: AlexNet; Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep
convolutional neural networks", 2012, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cnnlib.data.dataset import Dataset
from cnnlib.data.streams import COLOUR, CROP, FLIP, NOISE, philox
from cnnlib.errors import DataError, ShapeError, ValueRangeError

SEED_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: seeds of the places in a Compose lie far apart


def sample_generators(indices, seed: int, epoch: int, stream: int) -> Iterator[np.random.Generator]:
    """One random generator per sample, a function of (seed, epoch, index, stream) alone.

    The same generator object is moved from sample to sample; draw from it before taking the next.
    """
    bits = philox(seed, stream)
    generator, state = np.random.Generator(bits), bits.state
    for index in np.asarray(indices).tolist():
        state["state"]["counter"][:] = 0, index, epoch, 0
        bits.state = state
        yield generator


def _draws(indices, seed: int, epoch: int, stream: int, n: int) -> np.ndarray:
    """(B, n) floats, uniform in [0, 1), n for each sample."""
    raw = np.empty((len(indices), n), dtype=np.uint64)
    for row, generator in zip(raw, sample_generators(indices, seed, epoch, stream), strict=True):
        row[:] = generator.bit_generator.random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53


class Compose:
    """Several transforms, one after the other. Two equal random ones in one Compose draw different numbers."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = tuple(transforms)

    def __call__(self, x: np.ndarray, indices, seed: int, epoch: int) -> np.ndarray:
        x = x.copy() if not self.transforms else x
        for place, transform in enumerate(self.transforms):
            x = transform(x, indices, (int(seed) + place * SEED_STEP) % 2**64, epoch)
        return x

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class Normalize:
    """(x − mean) / std, per channel: axis 1 of x, which is (N, C, H, W) or (N, F).

    ``mean`` and ``std`` are numbers or one number per channel. ``Normalize.fit(train)`` measures them.
    """

    def __init__(self, mean, std):
        self.mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        self.std = np.atleast_1d(np.asarray(std, dtype=np.float64))
        if self.mean.ndim != 1 or self.std.ndim != 1:
            raise ShapeError(
                f"Normalize: mean and std must be numbers or one number per channel, "
                f"got shapes {self.mean.shape} and {self.std.shape}."
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise ValueRangeError(f"Normalize: mean must be finite and std above 0, got mean={mean} and std={std}.")

    @classmethod
    def fit(cls, dataset: Dataset) -> Normalize:
        """Mean and standard deviation per channel of ``dataset.x``, summed in float64.

        Fit on the training set and use the same for the test set. A channel that is constant keeps std = 1.
        """
        x = dataset.x
        if x.ndim < 2 or x.dtype.kind != "f" or len(x) == 0:
            raise DataError(f"Normalize.fit: expected at least one float sample (N, C, ...), got {x.shape} {x.dtype}.")
        axes = (0, *range(2, x.ndim))
        std = x.std(axis=axes, dtype=np.float64)
        return cls(x.mean(axis=axes, dtype=np.float64), np.where(std > 0, std, 1.0))

    def __call__(self, x: np.ndarray, indices=None, seed: int = 0, epoch: int = 0) -> np.ndarray:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, x.shape[1]):
                raise ShapeError(
                    f"Normalize: {what} has {len(values)} values but x has {x.shape[1]} channels "
                    f"(x.shape = {x.shape}): one value per channel, or one for all."
                )
        return (x - self.mean.astype(x.dtype).reshape(shape)) / self.std.astype(x.dtype).reshape(shape)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.round(4).tolist()}, std={self.std.round(4).tolist()})"


class Pad:
    """Zeros around each picture, ``pad`` pixels on every side: (N, C, H, W) → (N, C, H + 2·pad, W + 2·pad)."""

    def __init__(self, pad: int):
        self.pad = _pixels(pad, "Pad: pad", 0)

    def __call__(self, x: np.ndarray, indices=None, seed: int = 0, epoch: int = 0) -> np.ndarray:
        _check_pictures(x, "Pad")
        n, c, h, w = x.shape
        out = np.zeros((n, c, h + 2 * self.pad, w + 2 * self.pad), dtype=x.dtype)
        out[:, :, self.pad : self.pad + h, self.pad : self.pad + w] = x
        return out

    def __repr__(self) -> str:
        return f"Pad({self.pad})"


class RandomCrop:
    """Zero padding, then a window of ``size`` (a number, or height and width) at a random place of each picture."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0):
        self.size = _size(size, "RandomCrop: size")
        self.padding = _pixels(padding, "RandomCrop: padding", 0)

    def __call__(self, x: np.ndarray, indices, seed: int, epoch: int) -> np.ndarray:
        x = Pad(self.padding)(x)
        room = np.array(x.shape[2:]) - self.size + 1  # number of places, downwards and across
        if room.min() < 1:
            raise ShapeError(
                f"RandomCrop: a window of {self.size} does not fit into pictures of {x.shape[2:]} "
                f"(padding {self.padding} included): make size smaller or padding larger."
            )
        top, left = (_draws(indices, seed, epoch, CROP, 2) * room).astype(np.int64).T
        windows = np.lib.stride_tricks.sliding_window_view(x, self.size, axis=(2, 3))
        return windows[np.arange(len(x)), :, top, left]

    def __repr__(self) -> str:
        return f"RandomCrop({self.size}, padding={self.padding})"


class CentreCrop:
    """The middle of each picture, ``size`` (a number, or height and width); zeros around it where a picture is smaller.

    What evaluation does where training had `RandomCrop`. An odd pixel is left out, or added, below and on the right.
    """

    def __init__(self, size: int | tuple[int, int]):
        self.size = _size(size, "CentreCrop: size")

    def __call__(self, x: np.ndarray, indices=None, seed: int = 0, epoch: int = 0) -> np.ndarray:
        _check_pictures(x, "CentreCrop")
        out = np.zeros((*x.shape[:2], *self.size), dtype=x.dtype)
        (from_h, to_h), (from_w, to_w) = map(_middle, x.shape[2:], self.size)
        out[:, :, to_h, to_w] = x[:, :, from_h, from_w]
        return out

    def __repr__(self) -> str:
        return f"CentreCrop({self.size})"


def ten_crops(x: np.ndarray, size: int | tuple[int, int]) -> list[np.ndarray]:
    """AlexNet's ten views of pictures (N, C, H, W) in evaluation: the four corners and the centre, and their mirror images.

    Each of the ten is (N, C, *size), a view of x. The prediction is the mean of the ten softmax outputs; `TenCrops` in
    cnnlib.train wraps a model so that it does that.

    >>> [top_left, *others] = ten_crops(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    >>> len(others), top_left.ravel().tolist(), others[4].ravel().tolist()      # the sixth is the first, mirrored
    (9, [0.0, 1.0, 4.0, 5.0], [1.0, 0.0, 5.0, 4.0])

    Raises ShapeError when the window does not fit.
    """
    _check_pictures(x, "ten_crops")
    height, width = _size(size, "ten_crops: size")
    down, right = x.shape[2] - height, x.shape[3] - width
    if min(down, right) < 0:
        raise ShapeError(
            f"ten_crops: a window of {(height, width)} does not fit into pictures of {x.shape[2:]}: make it smaller."
        )
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = [x[:, :, top : top + height, left : left + width] for top, left in corners]
    return crops + [crop[..., ::-1] for crop in crops]


class RandomFlip:
    """Mirrors each picture left to right with probability ``p``. Not for digits or letters."""

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ValueRangeError(f"RandomFlip: p is a probability, from 0 to 1; got {p!r}.")
        self.p = float(p)

    def __call__(self, x: np.ndarray, indices, seed: int, epoch: int) -> np.ndarray:
        _check_pictures(x, "RandomFlip")
        flip = _draws(indices, seed, epoch, FLIP, 1)[:, 0] < self.p
        return np.where(flip[:, None, None, None], x[..., ::-1], x)

    def __repr__(self) -> str:
        return f"RandomFlip(p={self.p})"


class PCAColour:
    """AlexNet's change of colour ("fancy PCA"): adds one colour to all pixels of a picture, along the principal components.

    With the eigenvalues λ_i and eigenvectors p_i (columns of P) of the C×C covariance of the pixels' colours::

        x + Σ_i α_i λ_i p_i,   α_i ~ N(0, std²), drawn anew for each picture and epoch

    so that the added colour has the covariance std² P Λ² Pᵀ. λ is in squared units of x, as in the paper: fit on pictures in
    [0, 1], and put it before `Normalize`. Values may leave [0, 1]. ``PCAColour.fit(train)`` measures λ and P.
    """

    def __init__(self, eigenvalues, eigenvectors, std: float = 0.1):
        self.eigenvalues = np.asarray(eigenvalues, dtype=np.float64)
        self.eigenvectors = np.asarray(eigenvectors, dtype=np.float64)
        if self.eigenvalues.ndim != 1 or self.eigenvectors.shape != 2 * self.eigenvalues.shape:
            raise ShapeError(
                f"PCAColour: expected C eigenvalues and a C×C matrix with the eigenvectors as columns, got shapes "
                f"{self.eigenvalues.shape} and {self.eigenvectors.shape}."
            )
        if not (np.isfinite(self.eigenvectors).all() and (self.eigenvalues >= 0).all() and np.isfinite(self.eigenvalues).all()):
            raise ValueRangeError(f"PCAColour: eigenvalues of a covariance are finite and at least 0; got {eigenvalues}.")
        if not 0 <= std < np.inf:
            raise ValueRangeError(f"PCAColour: std must be at least 0 and finite; got {std!r}.")
        self.std = float(std)

    @classmethod
    def fit(cls, dataset: Dataset, std: float = 0.1) -> PCAColour:
        """Eigenvalues, the largest first, and eigenvectors of the covariance of all pixels of ``dataset.x`` (N, C, H, W)."""
        x = dataset.x
        if x.ndim != 4 or x.dtype.kind != "f" or len(x) == 0:
            raise DataError(f"PCAColour.fit: expected at least one float picture (N, C, H, W), got {x.shape} {x.dtype}.")
        mean, total = x.mean(axis=(0, 2, 3), dtype=np.float64), np.zeros((x.shape[1], x.shape[1]))
        for part in np.array_split(x, -(-len(x) // 256)):  # few at a time: they become float64
            pixels = part.transpose(1, 0, 2, 3).reshape(x.shape[1], -1) - mean[:, None]
            total += pixels @ pixels.T
        values, vectors = np.linalg.eigh(total / (x.size // x.shape[1]))
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        largest = vectors[abs(vectors).argmax(axis=0), np.arange(len(values))]
        return cls(values, vectors * np.sign(largest), std)  # an eigenvector's sign is free: fixed here, on every machine

    def __call__(self, x: np.ndarray, indices, seed: int, epoch: int) -> np.ndarray:
        _check_pictures(x, "PCAColour")
        if x.shape[1] != len(self.eigenvalues):
            raise ShapeError(
                f"PCAColour: it was made for {len(self.eigenvalues)} channels, but x has {x.shape[1]} (x.shape = {x.shape})."
            )
        draws = [g.standard_normal(x.shape[1]) for g in sample_generators(indices, seed, epoch, COLOUR)]
        colours = (self.std * np.array(draws) * self.eigenvalues) @ self.eigenvectors.T  # (B, C) @ (C, C)
        return x + colours.astype(x.dtype)[:, :, None, None]

    def __repr__(self) -> str:
        return f"PCAColour(eigenvalues={self.eigenvalues.round(4).tolist()}, std={self.std})"


class GaussianNoise:
    """Adds noise with mean 0 and standard deviation ``std``, in the units of x, independently to each value."""

    def __init__(self, std: float):
        if not 0 <= std < np.inf:
            raise ValueRangeError(f"GaussianNoise: std must be at least 0 and finite, got {std!r}.")
        self.std = float(std)

    def __call__(self, x: np.ndarray, indices, seed: int, epoch: int) -> np.ndarray:
        noise = np.empty(x.shape, dtype=np.float32)
        for row, generator in zip(noise, sample_generators(indices, seed, epoch, NOISE), strict=True):
            generator.standard_normal(out=row, dtype=np.float32)
        noise *= self.std
        return x + noise.astype(x.dtype, copy=False)

    def __repr__(self) -> str:
        return f"GaussianNoise(std={self.std})"


def _check_pictures(x: np.ndarray, who: str) -> None:
    if x.ndim != 4:
        raise ShapeError(f"{who}: expected pictures (N, C, H, W), got x.shape = {x.shape}.")


def _size(size: int | tuple[int, int], what: str) -> tuple[int, int]:
    height, width = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    return _pixels(height, what, 1), _pixels(width, what, 1)


def _middle(have: int, want: int) -> tuple[slice, slice]:
    """Where the middle ``want`` of ``have`` pixels comes from, and where it goes to."""
    count, before, margin = min(have, want), max(have - want, 0) // 2, max(want - have, 0) // 2
    return slice(before, before + count), slice(margin, margin + count)


def _pixels(value: int, what: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueRangeError(f"{what} must be a whole number of pixels, at least {least}; got {value!r}.")
    return int(value)
