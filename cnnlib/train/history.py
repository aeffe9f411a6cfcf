"""What a training run measured: one row per epoch."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from cnnlib.errors import unknown_name


class History(list):
    """A list of rows, dicts such as ``{"epoch": 1, "loss": 0.53, "accuracy": 0.84, "validation_loss": 0.41, ...}``.

    >>> history = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> history["loss"]
    [0.5, 0.25]
    >>> history.as_dict()                          # pandas.DataFrame(history.as_dict())
    {'epoch': [1, 2], 'loss': [0.5, 0.25]}
    """

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self.columns():
            raise unknown_name("column", key, self.columns())
        return self.as_dict()[key]

    def columns(self) -> list[str]:
        """The names in any row, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self for name in row))

    def as_dict(self) -> dict[str, list]:
        """Column -> values, one per row; None where a row lacks it."""
        return {name: [row.get(name) for row in self] for name in self.columns()}

    def to_csv(self, path: str | os.PathLike) -> None:
        """A table with a header line; floats in full, so that reading gives back the same numbers."""
        import csv

        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns())
            writer.writeheader()
            writer.writerows(self)

    def to_json(self, path: str | os.PathLike) -> None:
        """A list of objects. NaN and infinity, which JSON does not have, become null."""
        rows = [{name: _finite(value) for name, value in row.items()} for row in self]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1, allow_nan=False)
            file.write("\n")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
