"""Greedy layer-wise training: each layer learns from the codes of the layer below it, which stays as it is from then on.

    h_0 = x;   stage i, for so many epochs:   minimise layer i's own objective on h_i;   h_(i+1) = layer_i.encode(h_i)

No labels are needed, and no gradient has to find its way through many layers. Deep belief nets and stacked autoencoders both
learn like this; what a layer is, an RBM or a denoising autoencoder, is all that differs.

Source: lecture: unsupervised learning, greedy layer-wise pre-training; Hinton, Osindero & Teh, "A fast learning algorithm for
deep belief nets", 2006; Bengio, Lamblin, Popovici & Larochelle, "Greedy layer-wise training of deep networks", 2007.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cnnlib import nn, ops
from cnnlib.models.objective import ObjectiveModel
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_whole
from cnnlib.tensor import Tensor


class Layerwise(ObjectiveModel):
    """``layers`` have ``objective`` and ``encode``; ``stage`` is the number of the one that learns, a part of checkpoints.

    After ``epochs_per_layer`` epochs with each layer the stage is len(layers) where there is something to be tuned after that
    (``tuned``), else the last layer goes on. Epochs are the trainer's: a new trainer begins with the first layer again.
    """

    tuned = False
    stage: Any

    def __init__(self, input_shape: tuple[int, ...], layers: Iterable[nn.Module], epochs_per_layer: int):
        super().__init__()
        check_whole(type(self).__name__, "epochs_per_layer", epochs_per_layer)
        self.input_shape, self.epochs_per_layer = input_shape, epochs_per_layer
        self.layers = nn.ModuleList(layers)
        self.register_buffer("stage", np.zeros((), np.int64))

    def begin_epoch(self, epoch: int) -> None:
        last = len(self.layers) - (not self.tuned)
        self.stage = np.array(min(epoch // self.epochs_per_layer, last))

    def encode(self, x: Any, layers: int | None = None) -> Any:
        """h after so many layers, all of them unless told otherwise: (N, …) -> (N, sizes[layers - 1])."""
        h = ops.reshape(x, (len(x), -1))
        for layer in list(self.layers)[:layers]:
            h = layer.encode(h)
        return h

    def objective_of_layer(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The objective of the layer whose turn it is, on the codes of those below, which get no gradient."""
        stage = int(self.stage)
        with no_grad():
            h = self.encode(x, stage)
        return self.layers[stage].objective(h)  # type: ignore[attr-defined]
