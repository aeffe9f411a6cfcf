"""Time series: two measured ones that come with the library, and windows that ask for the next value.

>>> months, ppm = co2()
>>> train, test, scale = windows(ppm, length=24)
>>> train
Dataset('series train', 397 samples of (24, 1) float32)

Source: Keeling & Whorf, "Atmospheric CO2 concentrations derived from flask air samples at sites in the SIO network", 2004;
the National Geophysical Data Center (sunspots).
"""

from __future__ import annotations

import numpy as np

from cnnlib.data.builtin import FOLDER
from cnnlib.data.dataset import Dataset
from cnnlib.data.scale import Scale
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError


def co2() -> tuple[list[str], np.ndarray]:
    """(months, ppm): CO2 in the air of Mauna Loa from March 1958 to December 2001, means of each month, (526,) float64.

    Means of the weeks that were measured; the 5 months without any lie on the line between their neighbours.
    """
    weeks: dict[str, list[float]] = {}
    for date, value in _rows("co2.csv"):
        weeks.setdefault(f"{date[:4]}-{date[4:6]}", [])
        if value:
            weeks[f"{date[:4]}-{date[4:6]}"].append(float(value))
    months = [f"{year}-{month:02d}" for year in range(1958, 2002) for month in range(1, 13)]
    months = [month for month in months if min(weeks) <= month <= max(weeks)]
    ppm = np.array([np.mean(weeks[month]) if weeks.get(month) else np.nan for month in months])
    known = np.flatnonzero(~np.isnan(ppm))
    return months, np.interp(np.arange(len(ppm)), known, ppm[known])


def sunspots() -> tuple[list[int], np.ndarray]:
    """(years, numbers): mean number of sunspots in each year from 1700 to 2008, (309,) float64."""
    rows = _rows("sunspots.csv")
    return [int(float(year)) for year, _ in rows], np.array([float(number) for _, number in rows])


def windows(values, length: int, held_out: float = 0.2, name: str = "series") -> tuple[Dataset, Dataset, Scale]:
    """(train, test, scale): x (N, length, 1) and the value that follows, y (N, 1), float32.

    held_out  share of the series, at its end, that is to be foretold in the test set; its windows may begin before, as what
              is past is known. Mean and deviation are those of the part before it: nothing of the end is seen in training.

    Raises DtypeError, ShapeError (no row of numbers, too short), ValueRangeError, DataError (a value that is not finite).
    """
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise DtypeError(f"{name}: expected one row of numbers, got shape {values.shape} of {values.dtype}.")
    if length < 1 or not 0 < held_out < 1:
        raise ValueRangeError(f"{name}: expected length >= 1 and 0 < held_out < 1, got {length} and {held_out}.")
    first = len(values) - round(held_out * len(values))  # value of the test set
    if not length < first < len(values):
        raise ShapeError(f"{name}: {len(values)} values are too few for windows of {length} and the value after, with "
                         f"{held_out:.0%} of them held out.")  # fmt: skip
    if not np.isfinite(values).all():
        raise DataError(f"{name}: value {int(np.argmin(np.isfinite(values)))} is not finite: fill the gap first (np.interp).")
    scale = Scale(float(values[:first].mean()), float(values[:first].std()))
    if scale.std == 0:
        raise DataError(f"{name}: all values before the held-out part are {scale.mean:g}: there is nothing to learn.")
    numbers = scale.apply(values)
    x = np.lib.stride_tricks.sliding_window_view(numbers[:-1], length)[:, :, None].copy()
    y, cut = numbers[length:, None].copy(), first - length
    train = Dataset(x[:cut], y[:cut], (), f"{name} train", scale)
    return train, Dataset(x[cut:], y[cut:], (), f"{name} test", scale), scale


def _rows(file: str) -> list[list[str]]:
    return [line.split(",") for line in (FOLDER / "series" / file).read_text("ascii").splitlines()[1:]]
