"""Bayesian deep learning: not the most probable weights, but all that are probable, each as much as it is.

    p(w | data) ∝ p(w) Π_n p(y_n | x_n, w)             prior w ~ N(0, τ²), likelihood N(y; f_w(x), σ²)
    p(y | x, data) = ∫ p(y | x, w) p(w | data) dw       estimated by draws of w: `predictive`

The posterior of a network has no closed form. Three ways to draw from something near it, behind one interface:

| model             | weights are drawn from                                | complexity C(w)      |
|-------------------|-------------------------------------------------------|----------------------|
| `BayesByBackprop` | N(m, s²), each weight for itself; m and s are learnt  | KL(q ‖ prior)        |
| `MCDropout`       | m times a dropout mask; m is learnt                   | −ln p(m)             |
| `SGLDNetwork`     | where noisy gradient descent passes by                | −ln p(w)             |

Each minimises 1/N (Σ −ln p(y_n | x_n, w) + C), the mean over the N samples of the training set, ``data_size``. The noise σ²
is learnt with them unless it is fixed.

    mean, epistemic, aleatoric = net.predictive(x, samples=100)

**A linear model's posterior is known**: N(A⁻¹ β Φᵀy, A⁻¹), A = β ΦᵀΦ + I/τ², `linear_posterior`. By backprop one finds its
mean, and variances 1/A_ii, too small where weights are correlated. Langevin dynamics finds all of it, if its steps are small.
Dropout finds variances p/(1 − p) m_i², which do not depend on N: more data do not make it surer.

Source: lecture: Bayesian deep learning; MacKay, "A practical Bayesian framework for backpropagation networks", 1992; Neal,
"Bayesian learning for neural networks", 1996; Osband, "Risk versus uncertainty in deep learning", 2016 (on dropout); Bishop,
"Pattern Recognition and Machine Learning", 2006, sections 3.3 and 10.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cnnlib.errors import ValueRangeError
from cnnlib.models.deep_probabilistic import GaussianRegression, as_array, log_prior
from cnnlib.ops.arguments import check_whole
from cnnlib.tensor import Tensor

if TYPE_CHECKING:
    from cnnlib.data import Dataset


class BayesianRegression(GaussianRegression):
    """A `GaussianRegression` whose weights have a prior N(0, ``prior_std``²) and learn from ``data_size`` samples in all.

    Raises ValueRangeError (prior_std, data_size; a batch of training that is larger than it), and as `GaussianRegression`.
    """

    measures: ClassVar[tuple[str, ...]] = ("nll", "complexity", "squared_error")
    settings: ClassVar[dict[str, str]] = {**GaussianRegression.settings, "prior_std": "τ: the prior of a weight is N(0, τ²)."}

    def __init__(
        self,
        input_shape: int | Sequence[int] = 1,
        hidden: Sequence[int] = (50,),
        out_features: int = 1,
        noise: str = "learnt",
        beta: float = 1.0,
        activation: str = "tanh",
        prior_std: float = 1.0,
        data_size: int = 1,
    ):
        name = type(self).__name__
        if not 0.0 < prior_std < math.inf:
            raise ValueRangeError(f"{name}: prior_std must be a finite number above 0, got {prior_std}.")
        check_whole(name, "data_size", data_size)
        super().__init__(input_shape, hidden, out_features, noise, beta, activation)
        self.prior_std, self.data_size = prior_std, data_size

    def complexity(self) -> Tensor:
        """What the weights cost, in nats, for all samples together: −ln p(w)."""
        return -log_prior(self.network, self.prior_std)

    def objective(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Any]]:
        """−1/N of the logarithm of likelihood times prior, or of its bound; and its parts."""
        if self.training and len(x) > self.data_size:
            raise ValueRangeError(f"{type(self).__name__}: data_size, the number of training samples, is {self.data_size}, but "
                                  f"a batch has {len(x)}: the prior would count too much. Set it to len(train).")  # fmt: skip
        outputs = self(x)
        nll, complexity = self.loss(outputs, y), self.complexity()
        squared_error = ((self.mean(outputs) - as_array(y)) ** 2).mean()
        measured = {"nll": nll, "complexity": complexity, "squared_error": squared_error}
        return nll + complexity / self.data_size, measured

    @staticmethod
    def options_from(train: Dataset) -> dict[str, Any]:
        return {**GaussianRegression.options_from(train), "data_size": len(train)}


def linear_posterior(x: Any, y: Any, beta: float, prior_std: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D + 1,) and covariance (D + 1, D + 1) of weights and bias of y ~ N(wᵀx + b, 1/β), given x (N, D) and y (N,).

    >>> mean, covariance = linear_posterior(np.array([[1.0], [-1.0]]), np.array([2.0, -2.0]), beta=1.0, prior_std=1.0)
    >>> mean.round(3).tolist(), covariance.round(3).tolist()
    ([1.333, 0.0], [[0.333, 0.0], [0.0, 0.333]])
    """
    phi = np.hstack([x, np.ones((len(x), 1))]).astype(np.float64)
    covariance = np.linalg.inv(beta * phi.T @ phi + np.eye(phi.shape[1]) / prior_std**2)
    return covariance @ (beta * phi.T @ np.ravel(y)), covariance
