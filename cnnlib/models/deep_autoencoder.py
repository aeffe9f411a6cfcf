"""Hinton and Salakhutdinov's deep autoencoder: a stack of RBMs, unrolled into encoder and decoder, and then fine-tuned.

    stages 0 … m−1:  RBM i learns by contrastive divergence from the means of the RBM below            (deep_belief_net.py)
    stage m:         z = down(up(x)) with W_i in the encoder, W_iᵀ in the decoder, from here on two parameters each;
                     cross-entropy between x and z by backpropagation through all layers

Backpropagation begins where each layer already keeps what it needs to give back the layer below. In 2006 that was what made
deep autoencoders trainable; what it buys with today's optimisers is measured by the lab `deep_autoencoder` (docs/labs.md).

| layer   | the paper's for 2-D pictures of digits | here, so that it trains in minutes |
|---------|-----------------------------------------|------------------------------------|
| sigmoid | 1000                                    | 500                                |
| sigmoid | 500                                     | 250                                |
| sigmoid | 250                                     | –                                  |
| linear  | 2: Gaussian hidden units of the top RBM | 2                                  |

Source: lecture: unsupervised learning, deep autoencoder; Hinton & Salakhutdinov, "Reducing the dimensionality of data with
neural networks", Science 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnlib.models.deep_belief_net import DeepBeliefNet, copy_unrolled


class DeepAutoencoder(DeepBeliefNet):
    """A `DeepBeliefNet` that goes on as the autoencoder ``unrolled`` after len(sizes) · epochs_per_layer epochs.

    ``mse`` in the history is that of the layer that learns, on its own input; of pictures from the fine-tuning on.

    >>> import cnnlib as cl
    >>> net = cl.models.DeepAutoencoder(input_shape=(1, 4, 4), sizes=(8, 2))
    >>> net.encode(cl.Tensor([[0.5] * 16])).shape, net(cl.Tensor([[0.5] * 16])).shape
    ((1, 2), (1, 1, 4, 4))

    Raises as `DeepBeliefNet`.
    """

    tuned = True
    measures = ("mse",)
    settings = DeepBeliefNet.settings | {"epochs_per_layer": "The epochs that are left of --epochs then fine-tune."}
    recipe = {"epochs": 25, "batch_size": 64, "optimizer": "adam", "lr": 1e-3}

    def __init__(
        self,
        input_shape: int | Sequence[int] = (1, 28, 28),
        sizes: Sequence[int] = (500, 250, 2),
        visible: str = "grey",
        code: str = "gaussian",
        chains: int = 0,
        epochs_per_layer: int = 5,
    ):
        super().__init__(input_shape, sizes, visible, code, chains, epochs_per_layer)
        self.unrolled = self.unroll()

    @property
    def _is_unrolled(self) -> bool:
        return int(self.stage) == len(self.layers)

    def begin_epoch(self, epoch: int) -> None:
        before = self._is_unrolled
        super().begin_epoch(epoch)
        if self._is_unrolled and not before:
            copy_unrolled(list(self.layers), self.unrolled)

    def encode(self, x: Any, layers: int | None = None) -> Any:
        return self.unrolled.encode(x) if self._is_unrolled and layers is None else super().encode(x, layers)

    def decode(self, y: Any) -> Any:
        return self.unrolled.decode(y) if self._is_unrolled else super().decode(y)

    def objective(self, x, y=None):
        loss, measured = self.unrolled.objective(x) if self._is_unrolled else self.objective_of_layer(x)
        return loss, {"mse": measured["mse"]}
