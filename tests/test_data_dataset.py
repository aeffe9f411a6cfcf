"""Data sets in memory: building, checking, indexing, splitting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlib.data import Dataset, arrays
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError


def numbered(n=10, classes=2):
    """Sample i is a picture full of i."""
    x = np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32)
    return arrays(x, np.arange(n) % classes)


def test_indexing_gives_samples_or_smaller_sets():
    data = numbered()
    x, y = data[3]
    assert x.shape == (1, 2, 2) and x[0, 0, 0] == 3 and y == 1
    assert data[-1][0][0, 0, 0] == 9
    assert isinstance(data[2:5], Dataset) and len(data[2:5]) == 3
    assert data.subset([7, 1]).x[:, 0, 0, 0].tolist() == [7, 1]
    assert len(data[data.y == 0]) == 5
    assert len(list(data)) == 10
    assert len(data.subset([])) == 0


@pytest.mark.parametrize("index", [10, -11])
def test_index_out_of_range(index):
    with pytest.raises(IndexError, match=f"sample {index} is out of range: there are 10 samples"):
        numbered()[index]


def test_subset_refuses_what_are_no_indices():
    with pytest.raises(IndexError, match="from 3 to 10, but there are 10 samples"):
        numbered().subset([3, 10])
    with pytest.raises(DtypeError, match="integers"):
        numbered().subset([0.5])
    with pytest.raises(ShapeError, match=r"one entry per sample \(10\), got 2"):
        numbered().subset([True, False])


def test_arrays_converts_floats_and_keeps_tokens():
    assert arrays(np.zeros((3, 2)), [0, 1, 2]).x.dtype == np.float32
    assert arrays(np.zeros((3, 2)), [0, 1, 2], dtype=np.float64).x.dtype == np.float64
    assert arrays(np.zeros((3, 2), np.int32), [0, 1, 2]).x.dtype == np.int64
    assert arrays(np.zeros((3, 2)), np.zeros(3)).y.dtype == np.float32
    data = arrays(np.zeros((3, 2)), np.array([0, 2, 0], np.uint8))
    assert data.y.dtype == np.int64 and data.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "x, y, options, error, words",
    [
        (np.zeros((3, 2)), [0, 1], {}, ShapeError, r"x has 3 samples .* but y has 2 targets"),
        (np.zeros((0, 2)), np.zeros(0, int), {}, DataError, r"no samples \(x.shape = \(0, 2\)\)"),
        (np.zeros((2, 2)), [0, -1], {}, ValueRangeError, r"label -1 \(entry 1\) is negative"),
        (np.zeros((2, 2)), [0, 2], {"classes": ["a", "b"]}, ValueRangeError, r"label 2 \(entry 1\) needs at least 3 classes"),
        (np.zeros((2, 2)), [[0], [1]], {}, ShapeError, r"pass y\[:, 0\]"),
        (np.zeros((2, 2), np.uint8), [0, 1], {}, DtypeError, r"astype\(np.float32\) / 255"),
        (np.zeros((2, 2), complex), [0, 1], {}, DtypeError, "x must hold floats"),
        (np.array(["a", "b"]), [0, 1], {}, DtypeError, "text must be encoded"),
        (np.zeros((2, 2)), ["cat", "dog"], {}, DtypeError, "np.unique"),
        (np.zeros((2, 2)), [0.0, 1.0], {"classes": ["a", "b"]}, DtypeError, r"y.astype\(np.int64\)"),
        (np.array([[0.0], [np.nan]]), [0, 1], {}, DataError, r"x has 1 values that are not finite .* first at \(1, 0\)"),
        (np.array([[0.0], [1e300]]), [0, 1], {}, DataError, "1e\\+300"),
        (np.zeros((2, 1)), [0.0, np.inf], {}, DataError, "y has 1 values that are not finite"),
        (np.float32(1), [0], {}, ShapeError, "one entry per sample"),
        (np.zeros((2, 2)), [0, 1], {"dtype": np.int32}, DtypeError, "float32 or float64"),
    ],
)
def test_arrays_refuses_what_would_train_the_wrong_thing(x, y, options, error, words):
    with pytest.raises(error, match=words):
        arrays(x, y, **options)


def test_dataset_checks_labels_too():
    with pytest.raises(ValueRangeError, match="label 5"):
        Dataset(np.zeros((1, 2), np.float32), np.array([5]), ["a", "b"])


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.data(), st.integers(0, 2**64 - 1))
def test_split_is_a_stratified_partition(labels, draw, seed):
    count = draw.draw(st.integers(1, len(labels) - 1))
    y = np.array(labels)
    data = arrays(np.arange(len(y), dtype=np.float32)[:, None], y, classes="abcde")
    rest, held = data.split(count, seed)
    assert len(held) == count
    assert sorted([*rest.x[:, 0], *held.x[:, 0]]) == list(range(len(y)))
    assert (np.diff(held.x[:, 0]) > 0).all()
    for label in range(5):
        assert abs((held.y == label).sum() - (y == label).sum() * count / len(y)) < 1
    again = data.split(count, seed)[1]
    assert np.array_equal(again.x, held.x)


def test_split_depends_on_the_seed_and_takes_fractions():
    data = numbered(100)
    assert len(data.split(0.25)[1]) == 25
    assert not np.array_equal(data.split(0.5, seed=1)[1].x, data.split(0.5, seed=2)[1].x)
    regression = arrays(np.zeros((10, 1)), np.linspace(0, 1, 10))
    assert [len(part) for part in regression.split(3)] == [7, 3]


@pytest.mark.parametrize("held_out", [0, 10, -1, 0.0, 1.0, 1.5, 0.01, True, "half"])
def test_split_refuses_empty_parts(held_out):
    with pytest.raises(ValueRangeError, match="split"):
        numbered().split(held_out)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, None])
def test_split_refuses_bad_seeds(seed):
    with pytest.raises(ValueRangeError, match="seed must be an integer"):
        numbered().split(2, seed)


def test_describe_counts_the_classes():
    text = arrays(np.zeros((3, 2)), [0, 2, 2], classes=["ash", "elm", "oak"], name="trees").describe()
    assert "trees: 3 samples" in text and "float32, from 0 to 0" in text
    assert [line.split() for line in text.splitlines()[-3:]] == [["0", "ash", "1"], ["1", "elm", "0"], ["2", "oak", "2"]]
    assert "mean 0.5" in arrays(np.zeros((2, 2)), [0.0, 1.0]).describe()
    assert numbered()[:0].describe() == "arrays: empty"
