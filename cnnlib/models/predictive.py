"""What a probabilistic regression says about y at x: a mean, and how sure it is, in two parts.

With S networks f_s that are all likely given the data, each with its own noise σ_s²,

    mean m = 1/S Σ_s f_s(x)        epistemic 1/S Σ_s (f_s(x) − m)²        aleatoric 1/S Σ_s σ_s²(x)

Both are variances, in the unit of y squared, and their sum is the variance of y (law of total variance). Epistemic: the
networks disagree, which more data would settle. Aleatoric: the noise that every one of them expects, which nothing settles.

Intervals, coverage and log-likelihood take y as normal with that mean and variance.

Source: lecture: Bayesian deep learning; Kendall & Gal, "What uncertainties do we need in Bayesian deep learning for computer
vision?", 2017 (the two parts); Kuleshov, Fenner & Ermon, "Accurate uncertainties for deep learning using calibrated
regression", 2018 (the calibration curve).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from cnnlib.errors import ShapeError, ValueRangeError


class Predictive(NamedTuple):
    """Arrays (N, K), float: the mean of y, and the two parts of its variance.

    >>> import numpy as np
    >>> p = Predictive(np.zeros((2, 1)), epistemic=np.full((2, 1), 3.0), aleatoric=np.ones((2, 1)))
    >>> p.std[0], p.coverage(np.array([[1.0], [5.0]]), level=0.95)
    (array([2.]), 0.5)
    """

    mean: Any
    epistemic: Any
    aleatoric: Any

    @classmethod
    def of(cls, draws: Iterable[tuple[Any, Any]]) -> Predictive:
        """Of (mean (N, K), log_var that broadcasts with it), one pair per network."""
        means, variances = zip(*[(mean, np.broadcast_to(np.exp(log_var), mean.shape)) for mean, log_var in draws], strict=True)
        return cls(np.mean(means, axis=0), np.var(means, axis=0), np.mean(variances, axis=0))

    def restored(self, scale: Any) -> Predictive:
        """In the unit of the targets that ``scale``, a `cnnlib.data.scale.Scale`, brought to deviation 1.

        >>> from cnnlib.data.scale import Scale
        >>> p = Predictive(np.array([[2.0]]), np.array([[0.5]]), np.array([[0.5]])).restored(Scale(mean=320.0, std=10.0))
        >>> p.mean.item(), p.std.item()
        (340.0, 10.0)
        """
        return Predictive(scale.restore(self.mean), scale.std**2 * self.epistemic, scale.std**2 * self.aleatoric)

    @property
    def std(self) -> Any:
        """√(epistemic + aleatoric)."""
        return np.sqrt(self.epistemic + self.aleatoric)

    def interval(self, level: float = 0.9) -> tuple[Any, Any]:
        """(low, high) between which y lies with probability ``level``, as much of the rest below as above."""
        if not 0.0 < level < 1.0:
            raise ValueRangeError(f"interval: level must be between 0 and 1, as 0.9 for 90 %, got {level}.")
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.std
        return self.mean - half, self.mean + half

    def coverage(self, y: Any, level: float = 0.9) -> float:
        """The share of y (N, K) inside its interval: ``level`` for who is calibrated, less for who is too sure."""
        low, high = self.interval(level)
        return float(((self._checked("coverage", y) >= low) & (y <= high)).mean())

    def calibration(self, y: Any, levels: Sequence[float]) -> list[float]:
        """The coverage at each level: against the levels, a diagonal for who is calibrated."""
        return [self.coverage(y, level) for level in levels]

    def log_likelihood(self, y: Any) -> float:
        """The mean over samples and outputs of ln N(y; mean, std²); larger is better."""
        variance = self.epistemic + self.aleatoric
        squares = (self._checked("log_likelihood", y) - self.mean) ** 2 / variance
        return float(-0.5 * (squares + np.log(variance) + math.log(2.0 * math.pi)).mean())

    def rmse(self, y: Any) -> float:
        """The root of the mean squared error of the mean."""
        return float(np.sqrt(((self._checked("rmse", y) - self.mean) ** 2).mean()))

    def _checked(self, what: str, y: Any) -> Any:
        if np.shape(y) != np.shape(self.mean):
            raise ShapeError(f"{what}: y must have the shape of the mean, {np.shape(self.mean)}, got {np.shape(y)}.")
        return y
