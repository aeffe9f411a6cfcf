"""Mixture of experts: several networks, each good for a part of the inputs, and a gate that knows which.

    p(y | x) = Σ_e π_e(x) N(y; μ_e(x), σ_e²(x)),   π(x) = softmax(gate(x)),   μ_e, ln σ_e² = expert_e(x)

Its loss is −ln p(y | x) by log-sum-exp. The gradient reaches expert e with weight r_e = π_e N_e / Σ_k π_k N_k, its
responsibility for (x, y): who explains a sample best learns most from it, and so experts specialise. The distribution may
have several peaks, so it can answer where a question has two right answers and their mean is wrong (an inverse problem).

| network  | output                | default                                              |
|----------|-----------------------|------------------------------------------------------|
| gate     | logits (N, E)         | one hidden layer of 20 tanh                          |
| expert e | μ_e, ln σ_e² (N, K)   | linear, so that what is curved has to be shared out  |

Experts that begin alike stay alike, for then they get the same gradients. Here expert e begins near the constant that is the
(e + ½)/E quantile of N(0, 1), with σ = ½.

Source: lecture: deep probabilistic models; Jacobs, Jordan, Nowlan & Hinton, "Adaptive mixtures of local experts", 1991; Bishop,
"Mixture density networks", 1994 (the inverse problem).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from cnnlib import nn, ops
from cnnlib.distributions import Categorical, Normal
from cnnlib.models.deep_probabilistic import HIDDEN, GaussianRegression, Regression, check_targets
from cnnlib.models.mlp import MLP
from cnnlib.models.predictive import Predictive
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_sizes, check_whole
from cnnlib.tensor import Tensor, to_device


class MixtureOfExperts(Regression):
    """x (N, ...) -> gate logits (N, E), means (N, E, K), log_vars (N, E, K).

    ``hidden``: of each expert; ``gate_hidden``: of the gate.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.MixtureOfExperts(1, experts=3)
    >>> [tuple(y.shape) for y in net(cl.Tensor(np.zeros((5, 1), np.float32)))]
    [(5, 3), (5, 3, 1), (5, 3, 1)]

    Raises ValueRangeError (no experts; in ``loss``: ln σ² beyond ±80), ShapeError (y).
    """

    settings: ClassVar[dict[str, str]] = {
        "experts": "Number of experts.",
        "hidden": HIDDEN + " Of each expert; without, they are linear.",
        "gate_hidden": "The same, of the gate.",
    }

    def __init__(
        self,
        input_shape: int | Sequence[int] = 1,
        experts: int = 3,
        hidden: Sequence[int] = (),
        gate_hidden: Sequence[int] = (20,),
        out_features: int = 1,
    ):
        super().__init__()
        check_whole("MixtureOfExperts", "experts", experts)
        check_sizes("MixtureOfExperts", "gate_hidden", gate_hidden)
        self.gate = MLP(input_shape, gate_hidden, experts, "tanh")
        self.input_shape = self.gate.input_shape
        self.experts = nn.ModuleList(
            GaussianRegression(input_shape, hidden, out_features, noise="input", beta=4.0) for _ in range(experts)
        )
        for e, expert in enumerate(self.experts):
            self._begin_at(expert, NormalDist().inv_cdf((e + 0.5) / experts))

    def _begin_at(self, expert: Any, constant: float) -> None:
        last = list(expert.network)[-1]
        last.weight.set(0.1 * last.weight.data)
        last.bias.set(np.repeat(np.array([constant, 0.0], np.float32), len(last.bias.data) // 2))

    def forward(self, x):
        means, log_vars = zip(*[expert(x) for expert in self.experts], strict=True)
        return self.gate(x), ops.stack(means, axis=1), ops.stack(log_vars, axis=1)

    def log_joint(self, outputs: tuple[Tensor, Tensor, Tensor], y: Any) -> Tensor:
        """ln π_e(x) + ln N(y; μ_e(x), σ_e²(x)), (N, E)."""
        logits, means, log_vars = outputs
        check_targets("MixtureOfExperts", means[:, 0], y)
        each = Normal(means, log_var=log_vars).log_prob(ops.reshape(y, (len(y), 1, -1)))  # (N, E, K)
        return ops.log_softmax(logits, axis=1) + each.sum(axis=2)

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], y: Any) -> Tensor:
        """−ln p(y | x), the mean over the samples."""
        joint = self.log_joint(outputs, y)
        largest = ops.max(joint, axis=1, keepdims=True).detach()  # the shift cancels
        return -(ops.log(ops.exp(joint - largest).sum(axis=1)) + largest[:, 0]).mean()

    def mean(self, outputs: tuple[Tensor, Tensor, Tensor]) -> Any:
        return (Categorical(outputs[0]).probabilities.data[:, :, None] * outputs[1].data).sum(axis=1)

    def responsibilities(self, x: Any, y: Any) -> Any:
        """p(expert | x, y), an array (N, E)."""
        x, y = (t if isinstance(t, Tensor) else Tensor(t) for t in (x, y))
        with no_grad():
            return to_device(ops.softmax(self.log_joint(self(x), y), axis=1).data, "cpu")

    def predictive(self, x: Any, samples: int = 1) -> Predictive:
        """Mean and variance of y at x, arrays (N, K): Σ π μ, and Σ π (σ² + μ²) − (Σ π μ)², which is all aleatoric.

        ``samples`` changes nothing: the weights have no distribution.
        """
        with no_grad():
            outputs = logits, means, log_vars = self(x if isinstance(x, Tensor) else Tensor(x))
            share, mean = Categorical(logits).probabilities.data[:, :, None], self.mean(outputs)
            variances = Normal(means, log_var=log_vars).variance.data
            variance = (share * (variances + (means.data - mean[:, None]) ** 2)).sum(axis=1)
        mean, variance = to_device(mean, "cpu"), to_device(variance, "cpu")
        return Predictive(mean, 0.0 * variance, variance)
