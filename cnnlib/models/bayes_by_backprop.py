"""Bayes by backprop: every weight is a distribution N(m, s²), and its m and s are learnt by gradient descent.

    w = m + s ε, ε ~ N(0, 1)           drawn anew in every step, for every sample
    loss = 1/N (Σ −ln p(y_n | x_n, w) + KL(q ‖ prior)),   q(w) = Π N(w_i; m_i, s_i²)       up to a constant, −ELBO / N

The gradient goes through the draw to m and s (cnnlib/distributions.py). The likelihood wants s small, for noise in the weights
is noise in the answer; the divergence wants m = 0 and s = τ: a weight that the data say nothing about stays as the prior had
it. All weights are drawn for themselves ("mean field"): correlations are lost, and with them some of the variance.

**Local reparameterisation.** With independent weights what a layer gives, x Wᵀ + b, is normal itself, with mean x Mᵀ + m_b and
variance x² (S²)ᵀ + s_b². Drawing that, of D · K numbers per sample only K, is drawing other weights for each sample: the
estimates of the gradient scatter less than when the whole batch shares one draw.

In training each forward pass draws; in evaluation the means stand for the weights.

Source: lecture: Bayesian deep learning; Blundell, Cornebise, Kavukcuoglu & Wierstra, "Weight uncertainty in neural networks",
2015; Kingma, Salimans & Welling, "Variational dropout and the local reparameterization trick", 2015; Graves, "Practical
variational inference for neural networks", 2011.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from cnnlib import nn, ops
from cnnlib.distributions import Normal, kl
from cnnlib.models.bayesian import BayesianRegression
from cnnlib.models.mlp import activation_of
from cnnlib.nn import init
from cnnlib.ops.arguments import check_whole
from cnnlib.tensor import Parameter, Tensor

START_LOG_VAR = -8.0  # s = 0.02
COLLAPSED = 1.0  # nats


class BayesLinear(nn.Module):
    """y = x Wᵀ + b, W and b ~ N(mean, e^log_var), drawn in training for each sample: (N, in_features) -> (N, out_features)."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        check_whole("BayesLinear", "in_features", in_features)
        check_whole("BayesLinear", "out_features", out_features)
        shape = out_features, in_features
        self.weight_mean = Parameter(init.default_weight(shape))
        self.bias_mean = Parameter(init.default_bias(shape, out_features))
        self.weight_log_var = Parameter(0.0 * self.weight_mean.data + START_LOG_VAR)
        self.bias_log_var = Parameter(0.0 * self.bias_mean.data + START_LOG_VAR)

    def posterior(self) -> tuple[Normal, Normal]:
        """Of the weights and of the bias."""
        weight = Normal(self.weight_mean, log_var=self.weight_log_var)
        return weight, Normal(self.bias_mean, log_var=self.bias_log_var)

    def forward(self, x):
        weight, bias = self.posterior()
        mean = ops.linear(x, weight.mean, bias.mean)
        if not self.training:
            return mean
        variance = ops.linear(x * x, weight.variance, bias.variance)
        return Normal(mean, log_var=ops.log(variance)).rsample()


class BayesByBackprop(BayesianRegression):
    """x (N, ...) -> mean (N, K), log_var: as `GaussianRegression`, with a distribution for each weight.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.BayesByBackprop(3, hidden=(8,), data_size=100)
    >>> mean, epistemic, aleatoric = net.predictive(np.zeros((5, 3), np.float32), samples=20)
    >>> mean.shape, bool((epistemic > 0).all())
    ((5, 1), True)

    Raises as `BayesianRegression`; NonFiniteError when m or s is NaN.
    """

    def build_network(self, sizes: Sequence[int], activation: str) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(sizes):
            layers += [BayesLinear(before, after), activation_of(activation)()]
        return nn.Sequential(*layers[:-1])

    def complexity(self) -> Tensor:
        """KL(q ‖ prior), the sum over all weights, in nats."""
        prior = Normal(0.0, std=self.prior_std)
        total: Any = 0.0
        for layer in self.network.modules():
            if isinstance(layer, BayesLinear):
                for q in layer.posterior():
                    total = total + kl(q, prior).sum()
        return total

    def draws(self, x: Tensor, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from training_draws(self, x, samples)

    def concern(self, row: dict[str, Any]) -> str | None:
        if row["complexity"] >= COLLAPSED:
            return None
        return (
            f"the posterior has collapsed onto the prior (KL {row['complexity']:.2g} nats for all weights), so nothing was "
            f"learnt. Is data_size, {self.data_size}, the number of training samples? A larger beta, a smaller prior_std or "
            "fewer units let the data count for more."
        )


def training_draws(model: nn.Module, x: Tensor, samples: int) -> Iterator[Any]:
    """Outputs for x of ``model`` in training, where it draws; its mode is as before at the end."""
    mode = model.training
    model.train()
    try:
        for _ in range(samples):
            yield model(x)
    finally:
        model.train(mode)
