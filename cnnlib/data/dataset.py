"""A data set in memory: samples ``x``, targets ``y``, the names of the classes, and how to cut it up.

>>> train, test = digits()
>>> train, validation = train.split(0.1)
>>> x, y = train[0]                     # one sample; train[:100] is a smaller data set
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cnnlib.data.scale import Scale
from cnnlib.data.streams import SPLIT, check_seed, philox
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError


class Dataset:
    """``N`` samples and their targets.

    x        (N, ...) float32; pictures are (N, C, H, W) in [0, 1]. Token sequences are (N, T) int64.
    y        (N,) int64 class numbers; or float32 targets (N,) or (N, K); or int64 target sequences (N, T).
    classes  the names of the classes, ``classes[y[i]]``; empty where the targets are not classes.
    scale    what brings y back into its unit, ``scale.restore(y)``; None where y is in it. Checkpoints keep both.

    The arrays are shared, not copied: take copies before changing them. `arrays` is the checked way to build one
    from your own data.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: Sequence[str] = (), name: str = "data",
                 scale: Scale | None = None):  # fmt: skip
        if len(x) != len(y):
            raise ShapeError(
                f"{name}: x has {len(x)} samples (x.shape = {x.shape}) but y has {len(y)} targets "
                f"(y.shape = {y.shape}): one target per sample is needed."
            )
        self.x, self.y = x, y
        self.classes = tuple(str(c) for c in classes)
        self.name, self.scale = name, scale
        if y.dtype.kind in "iu" and y.size:
            _check_labels(y, len(self.classes), name)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index):
        """``data[i]`` is the pair (x, y) of one sample; ``data[slice or indices]`` is a smaller `Dataset`."""
        if isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"{self.name}: sample {index} is out of range: there are {len(self)} samples.")
            return self.x[index], self.y[index]
        if isinstance(index, slice):
            return self.subset(np.arange(len(self))[index])
        return self.subset(index)

    def __iter__(self) -> Iterator[tuple]:
        return zip(self.x, self.y, strict=True)

    def __repr__(self) -> str:
        kinds = f", {len(self.classes)} classes" if self.classes else ""
        return f"Dataset({self.name!r}, {len(self):,} samples of {tuple(self.x.shape[1:])} {self.x.dtype}{kinds})"

    def subset(self, indices) -> Dataset:
        """The samples at ``indices`` (integers, or one boolean per sample), in that order, as a data set of its own."""
        indices = np.asarray(indices)
        if indices.size == 0:
            indices = indices.astype(np.int64)
        if indices.ndim != 1 or indices.dtype.kind not in "iub":
            raise DtypeError(
                f"{self.name}.subset: indices must be one row of integers (or of booleans), "
                f"got shape {indices.shape} of {indices.dtype}."
            )
        if indices.dtype == bool:
            if len(indices) != len(self):
                raise ShapeError(
                    f"{self.name}.subset: a boolean mask needs one entry per sample ({len(self)}), got {len(indices)}."
                )
        elif indices.size and not (-len(self) <= indices.min() and indices.max() < len(self)):
            raise IndexError(
                f"{self.name}.subset: indices reach from {indices.min()} to {indices.max()}, but there are {len(self)} samples."
            )
        return Dataset(self.x[indices], self.y[indices], self.classes, self.name, self.scale)

    def split(self, held_out: float | int, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Two data sets, (the rest, the held-out part): for instance ``train, validation = train.split(0.1)``.

        ``held_out`` is a fraction between 0 and 1, or a number of samples. Class labels are stratified: every class
        gives its share, to within one sample. The choice depends on ``seed`` only; the order of the samples is kept.
        """
        count = self._held_out_count(held_out)
        keys = philox(check_seed(seed, "split"), SPLIT).random_raw(len(self))
        held = np.zeros(len(self), dtype=bool)
        if self.y.ndim == 1 and self.y.dtype.kind in "iu":
            groups = [np.flatnonzero(self.y == label) for label in np.unique(self.y)]
        else:
            groups = [np.arange(len(self))]
        for group, share in zip(groups, _shares([len(g) for g in groups], count), strict=True):
            held[group[np.argsort(keys[group], kind="stable")[:share]]] = True
        return self.subset(~held), self.subset(held)

    def _held_out_count(self, held_out: float | int) -> int:
        whole = isinstance(held_out, (int, np.integer)) and not isinstance(held_out, bool)
        if not whole and not (isinstance(held_out, (float, np.floating)) and 0 < held_out < 1):
            raise ValueRangeError(
                f"{self.name}.split: held_out must be a fraction between 0 and 1 or a whole number "
                f"of samples, got {held_out!r}."
            )
        count = int(held_out) if whole else round(float(held_out) * len(self))
        if not 0 < count < len(self):
            raise ValueRangeError(
                f"{self.name}.split: holding out {held_out} of {len(self)} samples leaves one part "
                f"empty: choose between 1 and {len(self) - 1} samples."
            )
        return count

    def describe(self) -> str:
        """A few lines on what is inside: shapes, types, range, mean and deviation, how many samples per class."""
        if not len(self):
            return f"{self.name}: empty"
        lines = [f"{self.name}: {len(self):,} samples", f"  x  {self.x.shape} {self.x.dtype}, {_spread(self.x)}"]
        if self.y.dtype.kind in "iu" and self.y.ndim == 1:
            lines.append(f"  y  {self.y.shape} {self.y.dtype}, {len(self.classes)} classes:")
            counts = np.bincount(self.y, minlength=len(self.classes))
            lines += [
                f"     {label:3d} {name:<20.20} {n:,}"
                for label, (name, n) in enumerate(zip(self.classes or range(len(counts)), counts, strict=True))
            ]
        else:
            lines.append(f"  y  {self.y.shape} {self.y.dtype}, {_spread(self.y)}")
        return "\n".join(lines)


def arrays(x, y, classes: Sequence[str] | None = None, *, dtype=np.float32, name: str = "arrays") -> Dataset:
    """Your own arrays as a `Dataset`, after checks that would otherwise surface late or never.

    x        (N, ...) numbers. Floats are converted to ``dtype`` (float32, what the networks compute in; float64 for
             gradient checks). Integers are kept as int64, for embeddings. 8-bit pixels are refused: divide by 255.
    y        (N,) integers are class numbers from 0; (N, T) integers are target sequences;
             floats, (N,) or (N, K), are regression targets, converted to ``dtype``.
    classes  the names of the classes; without them the names are "0", "1", ... up to the largest label.

    >>> data = arrays(np.random.rand(100, 4), np.arange(100) % 3, classes=["ash", "elm", "oak"])
    """
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise DtypeError(f"{name}: dtype must be float32 or float64, got {np.dtype(dtype)}.")
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(f"{name}: x and y must be arrays with one entry per sample, got shapes {x.shape} and {y.shape}.")
    if len(x) != len(y):
        raise ShapeError(
            f"{name}: x has {len(x)} samples (x.shape = {x.shape}) but y has {len(y)} targets "
            f"(y.shape = {y.shape}): one target per sample is needed."
        )
    if len(x) == 0:
        raise DataError(f"{name}: there are no samples (x.shape = {x.shape}).")
    x = _samples(x, dtype, name)
    if y.dtype.kind in "iu":
        if y.ndim == 2 and y.shape[1] == 1:
            raise ShapeError(
                f"{name}: integer labels of shape {y.shape} would be read as sequences of length 1: "
                f"pass y[:, 0] for one class per sample."
            )
        if classes is None:
            classes = [str(c) for c in range(int(y.max()) + 1)] if y.ndim == 1 else []
        return Dataset(x, y.astype(np.int64, copy=False), classes, name)
    if y.dtype.kind != "f":
        raise DtypeError(
            f"{name}: y must hold integers (classes) or floats (regression targets), got {y.dtype}; class "
            f"names become numbers with names, y = np.unique(y, return_inverse=True)."
        )
    if classes is not None:
        raise DtypeError(f"{name}: classes were given, but y is {y.dtype}: class labels must be integers, y.astype(np.int64).")
    return Dataset(x, _finite(y, dtype, f"{name}: y"), (), name)


def _samples(x: np.ndarray, dtype, name: str) -> np.ndarray:
    if x.dtype == np.uint8:
        raise DtypeError(
            f"{name}: x is uint8, which looks like pixels from 0 to 255: scale them first, x.astype(np.float32) / 255."
        )
    if x.dtype.kind in "iu":
        return x.astype(np.int64, copy=False)
    if x.dtype.kind != "f":
        raise DtypeError(
            f"{name}: x must hold floats (or integer tokens), got {x.dtype}; x.astype(np.float32) converts "
            f"numbers, and text must be encoded first (cnnlib.data.Alphabet for characters, Vocabulary for words)."
        )
    return _finite(x, dtype, f"{name}: x")


def _finite(values: np.ndarray, dtype, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow becomes inf, and is reported below with its place
        converted = values.astype(dtype, copy=False)
    good = np.isfinite(converted)
    if not good.all():
        place = np.unravel_index(int(np.argmin(good)), good.shape)
        raise DataError(
            f"{what} has {good.size - np.count_nonzero(good)} values that are not finite in "
            f"{np.dtype(dtype)}, the first at {tuple(int(i) for i in place)} ({values[place]}): "
            f"remove or replace them."
        )
    return converted


def _check_labels(y: np.ndarray, n_classes: int, name: str) -> None:
    if y.min() < 0:
        at = int(np.argmin(y.reshape(-1)))
        raise ValueRangeError(f"{name}: label {y.min()} (entry {at}) is negative: classes are numbered from 0.")
    if n_classes and y.max() >= n_classes:
        at = int(np.argmax(y.reshape(-1)))
        raise ValueRangeError(
            f"{name}: label {y.max()} (entry {at}) needs at least {int(y.max()) + 1} classes, but "
            f"{n_classes} class names were given: labels run from 0 to {n_classes - 1}."
        )


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many of each group to take so that they are ``count`` together (largest remainders get the odd ones)."""
    exact = [size * count / sum(sizes) for size in sizes]
    shares = [math.floor(e) for e in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: count - sum(shares)]:
        shares[i] += 1
    return shares


def _spread(values: np.ndarray) -> str:
    if values.dtype.kind != "f":
        return f"from {values.min()} to {values.max()}"
    return (
        f"from {values.min():.4g} to {values.max():.4g}, mean {values.mean(dtype=np.float64):.4g}, "
        f"deviation {values.std(dtype=np.float64):.4g}"
    )
