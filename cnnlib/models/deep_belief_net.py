"""The deep belief net: restricted Boltzmann machines on top of each other, trained from the lowest to the topmost.

    greedy:  RBM i learns p(h_i, h_(i+1)) from h_i, the means of the RBM below; h_0 = x
    up:      h_(i+1) = σ(c_i + W_i h_i)        down:  h_i = σ(b_i + W_iᵀ h_(i+1))

As a generative model the top RBM is sampled, and the layers below it carry what it says down to x. Up and then down again it is
an autoencoder, which `unroll` makes of it (deep_autoencoder.py).

Source: lecture: unsupervised learning, deep belief nets; Hinton, Osindero & Teh, "A fast learning algorithm for deep belief
nets", 2006.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from cnnlib import nn, ops
from cnnlib.errors import ValueRangeError
from cnnlib.models.autoencoder import Autoencoder
from cnnlib.models.layerwise import Layerwise
from cnnlib.models.rbm import RBM
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_sizes, sample_shape
from cnnlib.tensor import Tensor, to_device


class DeepBeliefNet(Layerwise):
    """``layers`` are RBMs input_shape -> sizes[0] -> sizes[1] …; `cnnlib.train.ObjectiveTrainer` trains one after the other.

    visible           of the lowest RBM: "grey", "binary" or "gaussian".
    code              hidden units of the topmost: "binary" or "gaussian".
    chains            particles of persistent CD in each RBM, from which `sample` then begins; 0: CD-1.
    epochs_per_layer  the topmost goes on after that.

    >>> import cnnlib as cl
    >>> net = cl.models.DeepBeliefNet(input_shape=(1, 4, 4), sizes=(8, 2), code="gaussian")
    >>> x = cl.Tensor([[0.5] * 16])
    >>> net.encode(x).shape, net(x).shape, net.unroll()(x).shape
    ((1, 2), (1, 1, 4, 4), (1, 1, 4, 4))

    Raises as `RBM`; ValueRangeError without sizes.
    """

    measures: ClassVar[tuple[str, ...]] = RBM.measures
    settings = {
        "sizes": "Hidden units of each layer.",
        "visible": RBM.settings["visible"],
        "code": "Units of the topmost layer, binary or gaussian.",
        "chains": RBM.settings["chains"],
        "epochs_per_layer": "The topmost goes on after that.",
    }
    recipe = {"epochs": 10, "batch_size": 64, "optimizer": "adam", "lr": 1e-3}

    def __init__(
        self,
        input_shape: int | Sequence[int] = (1, 28, 28),
        sizes: Sequence[int] = (500, 250),
        visible: str = "grey",
        code: str = "binary",
        chains: int = 0,
        epochs_per_layer: int = 5,
    ):
        shape = sample_shape(type(self).__name__, "input_shape", input_shape)
        check_sizes(type(self).__name__, "sizes", sizes)
        if not sizes:
            raise ValueRangeError("DeepBeliefNet: sizes must name at least one layer of hidden units, got none.")
        kinds = [visible, *["grey"] * (len(sizes) - 1)], [*["binary"] * (len(sizes) - 1), code]
        pairs = itertools.pairwise((math.prod(shape), *sizes))
        layers = [RBM(D, H, below, above, chains=chains) for (D, H), below, above in zip(pairs, *kinds, strict=True)]
        super().__init__(shape, layers, epochs_per_layer)

    def decode(self, y: Any) -> Any:
        """Down, by means: (N, sizes[-1]) -> (N, *input_shape)."""
        for layer in reversed(list(self.layers)):
            y = layer.decode(y)  # type: ignore[attr-defined]
        return ops.reshape(y, (len(y), *self.input_shape))

    def forward(self, x):
        return self.decode(self.encode(x))

    def objective(self, x, y=None):
        return self.objective_of_layer(x)

    def sample(self, count: int = 1, seed: int = 0, steps: int = 1000, start: Any = None) -> np.ndarray:
        """(count, *input_shape): so many steps of Gibbs sampling in the top RBM, then down, by means.

        The chains begin at the codes of ``start`` (N, …), such as data; else as in `RBM.sample`.
        """
        layers: list[Any] = list(self.layers)
        with no_grad():
            codes = None if start is None else self.encode(start, len(layers) - 1).data
        h = Tensor(to_device(layers[-1].sample(count, seed, steps, codes), layers[-1].weight.device))
        with no_grad():
            for layer in reversed(layers[:-1]):
                h = layer.decode(h)
        return h.numpy().reshape(count, *self.input_shape)

    def unroll(self) -> Autoencoder:
        """The autoencoder that computes `forward`: these weights, copied, free to part from each other in fine-tuning."""
        layers: list[Any] = list(self.layers)
        squashed = layers[0].visible != "gaussian"
        net = Autoencoder(
            self.input_shape, [len(layer.hidden_bias) for layer in layers], activation="sigmoid",
            code="sigmoid" if layers[-1].units == "binary" else "identity",
            output="sigmoid" if squashed else "identity", error="cross_entropy" if squashed else "squared",
        )  # fmt: skip
        copy_unrolled(layers, net)
        return net


def copy_unrolled(layers: Sequence[Any], net: Autoencoder) -> None:
    """W and c of each RBM into the encoder, Wᵀ and b into the decoder."""
    up, down = ([layer for layer in part if isinstance(layer, nn.Linear)] for part in (net.encoder, net.decoder))
    encoder: Any
    decoder: Any
    for rbm, encoder, decoder in zip(layers, up, reversed(down), strict=True):
        encoder.weight.set(rbm.weight.data)
        encoder.bias.set(rbm.hidden_bias.data)
        decoder.weight.set(rbm.weight.data.T)
        decoder.bias.set(rbm.visible_bias.data)
