"""The two measured series, and windows of them: what is foretold from what, and that nothing of the end is seen before."""

import numpy as np
import pytest

from cnnlib.data.series import co2, sunspots, windows
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError


def test_co2_by_month():
    months, ppm = co2()
    assert (len(months), months[0], months[-1]) == (526, "1958-03", "2001-12") and np.isfinite(ppm).all()
    assert ppm[0] == 316.1  # its only week
    assert ppm[1] == pytest.approx((317.3 + 317.6 + 317.5 + 316.4) / 4)
    assert months[3] == "1958-06" and ppm[3] == pytest.approx((ppm[2] + ppm[4]) / 2)  # a month without any
    assert 300 < ppm.min() < ppm.max() < 380


def test_sunspots_by_year():
    years, numbers = sunspots()
    assert years == list(range(1700, 2009)) and numbers[:3].tolist() == [5, 11, 16] and numbers.argmax() == 257  # 1957


def test_windows_ask_for_the_value_that_follows():
    train, test, scale = windows(np.arange(20.0), length=3, held_out=0.25)
    assert train.x.shape == (12, 3, 1) and test.x.shape == (5, 3, 1) and test.y.shape == (5, 1)
    assert train.x.dtype == train.y.dtype == np.float32
    np.testing.assert_allclose(scale.restore(train.x[0, :, 0]), [0, 1, 2], atol=1e-6)
    np.testing.assert_allclose(scale.restore(train.y[:, 0]), np.arange(3, 15), atol=1e-5)
    np.testing.assert_allclose(scale.restore(test.y[:, 0]), np.arange(15, 20), atol=1e-5)
    np.testing.assert_allclose(scale.restore(test.x[0, :, 0]), [12, 13, 14], atol=1e-5)


def test_nothing_of_the_held_out_part_is_in_training():
    values = np.random.default_rng(0).normal(size=100)
    changed = values.copy()
    changed[80:] += 50
    a, b = windows(values, 5), windows(changed, 5)
    assert a[2] == b[2]
    np.testing.assert_array_equal(a[0].x, b[0].x)
    np.testing.assert_array_equal(a[0].y, b[0].y)


def test_bad_series_are_refused():
    with pytest.raises(DtypeError, match=r"series: expected one row of numbers, got shape \(2, 3\)"):
        windows(np.zeros((2, 3)), 1)
    with pytest.raises(ValueRangeError, match="length >= 1 and 0 < held_out < 1, got 3 and 1"):
        windows(np.arange(9.0), 3, 1)
    with pytest.raises(
        ShapeError, match="10 values are too few for windows of 8 and the value after, with 20% of them held out"
    ):
        windows(np.arange(10.0), 8)
    with pytest.raises(DataError, match="value 2 is not finite: fill the gap"):
        windows([1.0, 2.0, np.nan, 4.0, 5.0, 6.0], 2)
    with pytest.raises(DataError, match="all values before the held-out part are 7"):
        windows(np.full(20, 7.0), 2)
