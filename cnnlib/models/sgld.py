"""Stochastic gradient Langevin dynamics: gradient descent with just so much noise that it wanders where the posterior says.

    w ← w − η ∇L(w) + √(2η/N) ε,   ε ~ N(0, 1),   L(w) = −1/N ln p(w | data) + const         (`optim.SGLD`)

The gradient pulls to the most probable weights, the noise drives away; in the long run the time spent at w is in proportion to
p(w | data), the better the smaller η. So the weights that it passes are draws, neighbours nearly the same: one is kept every
``every`` steps, and the last ``keep`` of them make the prediction. What came before them is forgotten, and of a run so short
that it would fill fewer, the first third ("burn-in"): that was the way there.

A direction of curvature λ (of L) is forgotten in about 1/(ηλ) steps, and its variance comes out 1/(1 − ηλ/2) times too large.
Noise of small batches adds to the variance, too: η has to be small, or the batches large.

Source: lecture: Bayesian deep learning; Welling & Teh, "Bayesian learning via stochastic gradient Langevin dynamics", 2011;
Neal, "Bayesian learning for neural networks", 1996.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from cnnlib import optim
from cnnlib.backends import xp_of
from cnnlib.errors import ValueRangeError
from cnnlib.models.bayesian import BayesianRegression
from cnnlib.ops.arguments import check_whole
from cnnlib.tensor import Tensor, to_device


class SGLDNetwork(BayesianRegression):
    """x (N, ...) -> mean (N, K), log_var: as `GaussianRegression`; ``objective`` keeps the weights of every so many calls.

    Train it with ``net.optimizer(lr)``. ``remembered``: how many draws make the prediction.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.SGLDNetwork(1, hidden=(8,), data_size=50, keep=10, every=2)
    >>> trainer = cl.train.ObjectiveTrainer(net, net.optimizer(lr=1e-3), batch_size=50, progress=False)
    >>> x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    >>> _ = trainer.fit((x, x), epochs=40)
    >>> mean, epistemic, aleatoric = net.predictive(x[:5])
    >>> net.remembered, mean.shape, bool((epistemic > 0).all())
    (10, (5, 1), True)

    Raises ValueRangeError (keep, every; a prediction before the first draw), and as `BayesianRegression`.
    """

    settings: ClassVar[dict[str, str]] = {
        **BayesianRegression.settings, "keep": "Draws that are kept, the last ones.", "every": "Steps from draw to draw."
    }  # fmt: skip
    recipe: ClassVar[dict[str, Any]] = {"epochs": 2000, "batch_size": 64, "optimizer": "sgld", "lr": 1e-3}

    kept: Any
    calls: Any

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
        keep: int = 100,
        every: int = 50,
    ):
        super().__init__(input_shape, hidden, out_features, noise, beta, activation, prior_std, data_size)
        check_whole("SGLDNetwork", "keep", keep)
        check_whole("SGLDNetwork", "every", every)
        self.keep, self.every = keep, every
        self.register_buffer("kept", np.zeros((keep, len(self._flat())), np.float32))
        self.register_buffer("calls", np.zeros((), np.int64))

    def optimizer(self, lr: float) -> optim.SGLD:
        return optim.SGLD(self.parameters(), lr, data_size=self.data_size)

    @property
    def remembered(self) -> int:
        return len(self._places())

    def _places(self) -> np.ndarray:
        """Where the draws that count stand in ``kept``, the oldest first."""
        made = int(self.calls) // self.every
        return np.arange(max(made // 3, made - self.keep), made) % self.keep

    def objective(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Any]]:
        result = super().objective(x, y)
        if self.training:
            self.calls = self.calls + 1
            if int(self.calls) % self.every == 0:
                place = (int(self.calls) // self.every - 1) % self.keep
                self.kept[place] = xp_of(self.kept).asarray(self._flat())
        return result

    def draws(self, x: Tensor, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of ``samples`` of the kept draws, evenly chosen, or of all where there are fewer."""
        places = self._places()
        if not len(places):
            raise ValueRangeError(f"SGLDNetwork.predictive: no draws yet: one is kept every {self.every} steps of training, of "
                                  f"which there were {int(self.calls)}: train longer, or with a smaller every.")  # fmt: skip
        now = self._flat()
        try:
            for i in np.linspace(0, len(places) - 1, min(samples, len(places))).round().astype(int):
                self._set(self.kept[places[i]])
                yield self(x)
        finally:
            self._set(now)

    def _flat(self) -> Any:
        """All learnt parameters in one row."""
        return np.concatenate([to_device(p.data, "cpu").ravel() for p in self.parameters() if p.requires_grad])

    def _set(self, flat: Any) -> None:
        at = 0
        for p in self.parameters():
            if p.requires_grad:
                p.set(to_device(flat[at : at + p.size], p.device).reshape(p.shape))
                at += p.size
