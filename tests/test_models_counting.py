"""parameter_table: fully and locally connected against convolutional."""

import pytest

from cnnlib import models, nn
from cnnlib.errors import ShapeError, ValueRangeError


def test_the_lectures_example():
    """200×200×3 pictures, 120,000 hidden units: 14.4 billion, 3.2 million, 27 × maps."""
    for maps in (1, 64):
        table = models.parameter_table((3, 200, 200), hidden=120_000, field=3, maps=maps)
        assert table.fully_connected == 14_400_000_000
        assert table.locally_connected == 3_240_000 and table.per_unit == 27
        assert table.convolutional == 27 * maps


def test_the_counts_are_those_of_layers():
    table = models.parameter_table((2, 6, 5), hidden=7 * 4 * 4, field=(3, 2), maps=7)
    assert nn.Conv2d(2, 7, (3, 2)).weight.size == table.convolutional  # 7 maps of 4×4 units
    assert nn.Linear(60, 7 * 4 * 4).weight.size == table.fully_connected
    assert table.locally_connected == 4 * 4 * table.convolutional  # every place has weights of its own


def test_as_text_and_as_numbers():
    table = models.parameter_table((3, 200, 200), hidden=120_000, field=3, maps=64)
    assert table.as_dict() == {
        "fully connected": 14_400_000_000,
        "locally connected": 3_240_000,
        "convolutional": 1_728,
    }
    text = str(table)
    assert "14,400,000,000" in text and "120,000 × 3 × 3 × 3" in text and "64 × 3 × 3 × 3" in text


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ShapeError, match=r"input_shape must be \(channels, height, width\), got \(200, 200\)"):
        models.parameter_table((200, 200), 10, 3, 1)
    with pytest.raises(ShapeError, match=r"input_shape must be \(channels, height, width\), got 200"):
        models.parameter_table(200, 10, 3, 1)
    with pytest.raises(ShapeError, match=r"a field of \(3, 7\) pixels does not fit into pictures of \(5, 6\)"):
        models.parameter_table((1, 5, 6), 10, (3, 7), 1)
    with pytest.raises(ValueRangeError, match="hidden must be a whole number >= 1, got 0"):
        models.parameter_table((1, 5, 6), 0, 3, 1)
    with pytest.raises(ValueRangeError, match=r"maps must be a whole number >= 1, got 2\.5"):
        models.parameter_table((1, 5, 6), 10, 3, 2.5)
    with pytest.raises(ValueRangeError, match="field must be a whole number"):
        models.parameter_table((1, 5, 6), 10, 0, 1)
