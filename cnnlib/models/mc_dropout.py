"""MC dropout: a network trained with dropout keeps dropping units when it answers, and its answers scatter.

    f_w(x), w = m ⊙ mask / (1 − p)     one draw for every mask; the mean and the scatter of many are the prediction
    loss = 1/N (Σ −ln p(y_n | x_n, w) + ‖m‖² / 2τ²) + const

It costs nothing in training, and in use as many passes as draws. Read as Bayes by backprop, q(w) is a mixture of 0 and a value,
and the weight decay stands for the divergence from the prior (which, worked out, is about 1/(1 − p) times as large). The
scatter is p/(1 − p) of the squares of what goes into a unit, however many data there were: p has to be chosen for it to be
right, by held-out likelihood.

In front of each linear layer but the first; of a linear model, in front of the only one.

Source: lecture: Bayesian deep learning; Gal & Ghahramani, "Dropout as a Bayesian approximation", 2016; Srivastava et al.,
"Dropout", 2014.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import ClassVar

from cnnlib import nn
from cnnlib.errors import ValueRangeError
from cnnlib.models.bayes_by_backprop import training_draws
from cnnlib.models.bayesian import BayesianRegression
from cnnlib.models.mlp import activation_of
from cnnlib.tensor import Tensor


class MCDropout(BayesianRegression):
    """x (N, ...) -> mean (N, K), log_var: as `GaussianRegression`, with dropout of probability ``p`` that stays on.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.MCDropout(3, hidden=(8,), p=0.2)
    >>> mean, epistemic, aleatoric = net.predictive(np.ones((5, 3), np.float32), samples=20)
    >>> mean.shape, bool((epistemic > 0).all())
    ((5, 1), True)

    Raises ValueRangeError unless 0 <= p < 1, and as `BayesianRegression`.
    """

    settings: ClassVar[dict[str, str]] = {**BayesianRegression.settings, "p": "Probability that a unit is dropped."}

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
        p: float = 0.1,
    ):
        if not 0.0 <= p < 1.0:
            raise ValueRangeError(f"MCDropout: p, the probability that a unit is dropped, must be in 0 <= p < 1, got {p}.")
        super().__init__(input_shape, hidden, out_features, noise, beta, activation, prior_std, data_size)
        self.p = p
        for layer in self.network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = p

    def build_network(self, sizes: Sequence[int], activation: str) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (before, after) in enumerate(itertools.pairwise(sizes)):
            layers += [nn.Dropout()] if i > 0 or len(sizes) == 2 else []
            layers += [nn.Linear(before, after), activation_of(activation)()]
        return nn.Sequential(*layers[:-1])

    def draws(self, x: Tensor, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from training_draws(self, x, samples)
