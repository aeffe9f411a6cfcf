"""Batches: coverage, order, resuming, freshness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlib.data import DataLoader, arrays
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError


def numbered(n):
    return arrays(np.arange(n, dtype=np.float32)[:, None], np.arange(n) % 3)


def seen(batches):
    return [int(v) for x, _ in batches for v in x[:, 0]]


@settings(deadline=None)
@given(st.integers(1, 70), st.integers(1, 20), st.booleans(), st.booleans(), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_each_epoch_covers_the_data_once_and_resumes_anywhere(n, batch_size, shuffle, drop_last, seed, epoch):
    if drop_last and n < batch_size:
        return
    loader = DataLoader(numbered(n), batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
    batches = list(loader.iterate(epoch))
    assert len(batches) == len(loader)
    assert all(len(x) == len(y) == batch_size for x, y in batches[: n // batch_size])
    assert all((x[:, 0] % 3 == y).all() for x, y in batches)
    order = seen(batches)
    assert len(set(order)) == len(order) == (n // batch_size * batch_size if drop_last else n)
    assert order == loader.order(epoch)[: len(order)].tolist()
    for start in range(len(loader) + 1):
        rest = list(loader.iterate(epoch, start_batch=start))
        assert len(rest) == len(batches) - start
        for got, wanted in zip(rest, batches[start:], strict=True):
            assert np.array_equal(got[0], wanted[0]) and np.array_equal(got[1], wanted[1])


def test_order_is_a_function_of_seed_and_epoch_only():
    small, large = DataLoader(numbered(50), 7, seed=3), DataLoader(numbered(50), 20, seed=3)
    for epoch in (4, 0, 4):
        assert seen(small.iterate(epoch)) == seen(large.iterate(epoch))
    orders = {tuple(DataLoader(numbered(50), 7, seed=s).order(e)) for s in range(5) for e in range(5)}
    assert len(orders) == 25
    orders = {tuple(DataLoader(numbered(50), 7, seed=2**64 - s).order(0)) for s in range(1, 6)}
    assert len(orders) == 5  # large seeds must not be rounded together


def test_the_order_is_the_same_in_every_version():
    assert DataLoader(numbered(8), seed=1).order(0).tolist() == [0, 2, 1, 7, 4, 5, 3, 6]
    assert DataLoader(numbered(8), seed=1).order(1).tolist() == [6, 2, 4, 3, 7, 5, 0, 1]


def test_passes_count_epochs():
    loader = DataLoader(numbered(30), 8, seed=5)
    first, second = seen(loader), seen(loader)
    assert first != second and sorted(first) == sorted(second) == list(range(30))
    assert [first, second] == [seen(loader.iterate(0)), seen(loader.iterate(1))]
    loader.set_epoch(0)
    assert seen(loader) == first and loader.epoch == 1
    for _ in loader:  # a pass that is broken off counts too
        break
    assert loader.epoch == 2


def test_without_shuffling_the_order_is_that_of_the_data():
    loader = DataLoader(numbered(10), 4, shuffle=False)
    assert seen(loader) == seen(loader) == list(range(10))


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_yours(shuffle):
    data = numbered(10)
    before = data.x.copy(), data.y.copy()
    loader = DataLoader(data, 4, shuffle=shuffle)
    kept = list(loader.iterate(0))
    copies = [(x.copy(), y.copy()) for x, y in kept]
    for x, y in loader.iterate(0):
        x[:] = -1
        y[:] = -1
    assert all((x == cx).all() and (y == cy).all() for (x, y), (cx, cy) in zip(kept, copies, strict=True))
    assert (data.x == before[0]).all() and (data.y == before[1]).all()
    assert not any(np.shares_memory(a, b) for a, _ in kept for b, _ in kept if a is not b)


def test_transforms_get_the_positions_seed_and_epoch():
    calls = []

    def transform(x, indices, seed, epoch):
        calls.append((x[:, 0].tolist(), indices.tolist(), seed, epoch))
        return x + 100

    loader = DataLoader(numbered(5), 2, seed=9, transform=transform)
    assert sorted(seen(loader.iterate(3))) == [100, 101, 102, 103, 104]
    assert all(values == indices and seed == 9 and epoch == 3 for values, indices, seed, epoch in calls)


def test_transforms_must_return_the_batch():
    with pytest.raises(ShapeError, match="array of 2 samples"):
        next(iter(DataLoader(numbered(5), 2, transform=lambda x, *_: x[:1])))
    with pytest.raises(ShapeError, match="NoneType"):
        next(iter(DataLoader(numbered(5), 2, transform=lambda x, *_: None)))
    with pytest.raises(DtypeError, match="from float32 to float64"):
        next(iter(DataLoader(numbered(5), 2, transform=lambda x, *_: x.astype(float))))


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"batch_size": 0}, ValueRangeError, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.0}, ValueRangeError, "batch_size"),
        ({"batch_size": True}, ValueRangeError, "batch_size"),
        ({"batch_size": 11, "drop_last": True}, ValueRangeError, "drop the only batch"),
        ({"seed": -1}, ValueRangeError, "seed must be an integer"),
        ({"transform": "flip"}, DtypeError, "transform must be callable"),
    ],
)
def test_settings_are_checked(options, error, words):
    with pytest.raises(error, match=words):
        DataLoader(numbered(10), **options)


def test_data_sets_are_checked():
    with pytest.raises(DataError, match="is empty"):
        DataLoader(numbered(10)[:0])
    with pytest.raises(DtypeError, match="got ndarray"):
        DataLoader(np.zeros(3))
    with pytest.raises(DtypeError, match=r"of length 3.*returns two data sets"):
        DataLoader((1, 2, 3))
    x, _ = next(iter(DataLoader((np.zeros((4, 2)), [0, 1, 0, 1]), 3)))
    assert x.shape == (3, 2) and x.dtype == np.float32


@pytest.mark.parametrize("epoch, start", [(-1, 0), (0, -1), (0, 6), (1.0, 0), (0, 1.0)])
def test_iterate_checks_before_the_first_batch(epoch, start):
    with pytest.raises(ValueRangeError, match="must be a whole number from 0"):
        DataLoader(numbered(10), 2).iterate(epoch, start)
