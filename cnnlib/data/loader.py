"""Batches out of a data set, in an order that depends on the seed and the epoch only.

>>> loader = DataLoader(train, batch_size=64, seed=1)
>>> for epoch in range(5):
...     for x, y in loader:             # each pass is the next epoch, in a new order
...         ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from cnnlib.data.dataset import Dataset, arrays
from cnnlib.data.streams import SHUFFLE, check_seed, philox
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError

Batch = tuple[np.ndarray, np.ndarray]


class DataLoader:
    """Iterates over (x, y) batches: x (B, ...) and y (B, ...) as in the data set, B ≤ ``batch_size``.

    dataset     a `Dataset`, or a pair of arrays (x, y), checked by `arrays`.
    shuffle     a new order in every epoch, a function of (seed, epoch); otherwise the order of the data set.
    drop_last   leave out the last batch if it is smaller than ``batch_size``.
    transform   ``transform(x, indices, seed, epoch) -> new x``, applied to each batch (see `cnnlib.data.transforms`);
                ``indices`` are the positions of the samples in the data set.

    Every batch is a fresh array: keep it or change it as you like. Training can go on in the middle of an epoch:
    ``loader.iterate(epoch, start_batch=k)`` gives exactly the batches that were left.
    """

    def __init__(
        self,
        dataset,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transform: Callable | None = None,
    ):
        self.dataset = dataset if isinstance(dataset, Dataset) else _from_pair(dataset)
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueRangeError(f"DataLoader: batch_size must be a whole number of at least 1, got {batch_size!r}.")
        if len(self.dataset) == 0:
            raise DataError(f"DataLoader: the data set {self.dataset.name!r} is empty: there is nothing to iterate over.")
        if drop_last and len(self.dataset) < batch_size:
            raise ValueRangeError(
                f"DataLoader: drop_last would drop the only batch, {len(self.dataset)} samples of a "
                f"batch_size of {batch_size}: make batch_size smaller or drop_last=False."
            )
        if transform is not None and not callable(transform):
            raise DtypeError(
                f"DataLoader: transform must be callable as transform(x, indices, seed, epoch), got {type(transform).__name__}."
            )
        self.batch_size = int(batch_size)
        self.shuffle, self.drop_last, self.transform = bool(shuffle), bool(drop_last), transform
        self.seed = check_seed(seed, "DataLoader")
        self.epoch = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __repr__(self) -> str:
        return (
            f"DataLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, seed={self.seed}, "
            f"drop_last={self.drop_last}, transform={self.transform!r})"
        )

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch: 0 in the first pass, or what `set_epoch` said, then one more each time."""
        epoch = self.epoch
        self.epoch += 1
        return self.iterate(epoch)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next pass."""
        self.epoch = _whole(epoch, "set_epoch: epoch", 2**63)

    def order(self, epoch: int) -> np.ndarray:
        """The positions of the samples in this epoch, (N,) int64, before they are cut into batches."""
        epoch = _whole(epoch, "order: epoch", 2**63)
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        # Sorting raw Philox words, not Generator.permutation: its result may change between versions of NumPy.
        words = philox(self.seed, SHUFFLE, epoch).random_raw(n)
        return np.argsort(words, kind="stable")

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from ``start_batch`` on, the same as a full pass would give from there."""
        order = self.order(epoch)
        start_batch = _whole(start_batch, "iterate: start_batch", len(self))
        return (
            self._batch(order[k * self.batch_size : (k + 1) * self.batch_size], int(epoch))
            for k in range(start_batch, len(self))
        )

    def _batch(self, indices: np.ndarray, epoch: int) -> Batch:
        x, y = self.dataset.x[indices], self.dataset.y[indices]
        if self.transform is None:
            return x, y
        new = self.transform(x, indices, self.seed, epoch)
        if not isinstance(new, np.ndarray) or len(new) != len(x):
            raise ShapeError(
                f"DataLoader: the transform must return an array of {len(x)} samples, got "
                f"{getattr(new, 'shape', type(new).__name__)} from {self.transform!r}."
            )
        if new.dtype != x.dtype:
            raise DtypeError(
                f"DataLoader: the transform changed the type from {x.dtype} to {new.dtype} "
                f"({self.transform!r}): return x.astype({x.dtype})."
            )
        return new, y


def _from_pair(pair) -> Dataset:
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        return arrays(*pair)
    raise DtypeError(
        f"DataLoader: expected a Dataset or a pair of arrays (x, y), got {type(pair).__name__}"
        + (f" of length {len(pair)}" if isinstance(pair, (tuple, list)) else "")
        + "; cnnlib.data.digits() returns two data sets, (train, test): pass one of them."
    )


def _whole(value: int, what: str, largest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= largest:
        raise ValueRangeError(f"{what} must be a whole number from 0 to {largest}, got {value!r}.")
    return int(value)
