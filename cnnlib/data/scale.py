"""From the unit of what is measured to numbers about 0 of deviation 1, in which a network learns it, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scale:
    """value = mean + std · number.

    >>> scale = Scale.fit([310.0, 330.0])
    >>> scale.apply([340.0]), scale.restore([2.0])
    (array([2.], dtype=float32), array([340.]))
    """

    mean: float
    std: float

    @classmethod
    def fit(cls, values) -> Scale:
        """Mean and deviation of ``values``; of what is constant, std = 1."""
        values = np.asarray(values, np.float64)
        return cls(float(values.mean()), float(values.std()) or 1.0)

    def apply(self, values) -> np.ndarray:
        """The numbers, float32."""
        return ((np.asarray(values, np.float64) - self.mean) / self.std).astype(np.float32)

    def restore(self, numbers) -> np.ndarray:
        """The values, float64."""
        return self.mean + self.std * np.asarray(numbers, np.float64)
