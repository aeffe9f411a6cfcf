"""Stacked denoising autoencoders: layers that first learn one after the other, without labels, then all together, with them.

    greedy:       layer i is a denoising autoencoder of h_i;  h_(i+1) = σ(W_i h_i + b_i),  h_0 = x
    fine-tuning:  softmax(V h_m + c), and all W_i, b_i by backpropagation from the labels

The decoders are of no use any more once a layer has learnt. Where labels are few and pictures many, the first phase learns from
all of the pictures what the few labels could not say.

| layer  | output      | parameters of 784-500-500-10    |
|--------|-------------|---------------------------------|
| x      | 784         |                                 |
| 0      | 500         | 392,500, and 784 of its decoder |
| 1      | 500         | 250,500, and 500 of its decoder |
| output | num_classes | 5,010                           |

Source: lecture: unsupervised learning, stacked denoising autoencoders; Vincent et al., "Stacked denoising autoencoders", 2010;
Erhan et al., "Why does unsupervised pre-training help deep learning?", 2010.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from cnnlib import nn, ops
from cnnlib.models.denoising_autoencoder import DenoisingAutoencoder
from cnnlib.models.layerwise import Layerwise
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_sizes, sample_shape


class StackedAutoencoder(Layerwise):
    """x (N, …) in 0 … 1 -> scores (N, num_classes).

    `cnnlib.train.ObjectiveTrainer` pre-trains each layer for ``epochs_per_layer`` epochs, and fine-tunes with y from then on.
    Where only some samples have labels, let it stop after len(sizes) · epochs_per_layer epochs on all, and give those with
    labels to `cnnlib.Trainer`. ``accuracy`` says nothing before the fine-tuning.

    noise, level  as in `DenoisingAutoencoder`.

    >>> import cnnlib as cl
    >>> net = cl.models.StackedAutoencoder(input_shape=16, sizes=(8, 4), num_classes=3)
    >>> net(cl.Tensor([[0.5] * 16])).shape, len(net.layers)
    ((1, 3), 2)

    Raises ValueRangeError without sizes, and as `DenoisingAutoencoder`.
    """

    criterion = nn.CrossEntropyLoss
    targets = "classes"
    tuned = True
    measures = ("accuracy",)
    settings = {
        "sizes": "Units of the hidden layers.",
        "noise": DenoisingAutoencoder.settings["noise"],
        "level": DenoisingAutoencoder.settings["level"],
        "epochs_per_layer": "Of pre-training; the epochs that are left of --epochs then fine-tune.",
    }
    recipe = {"epochs": 15, "batch_size": 64, "optimizer": "adam", "lr": 1e-3}

    def __init__(
        self,
        input_shape: int | Sequence[int] = (1, 28, 28),
        sizes: Sequence[int] = (500, 500),
        num_classes: int = 10,
        noise: str = "masking",
        level: float = 0.3,
        epochs_per_layer: int = 5,
    ):
        shape = sample_shape("StackedAutoencoder", "input_shape", input_shape)
        check_sizes("StackedAutoencoder", "sizes", sizes, fewest=1)
        pairs = itertools.pairwise((math.prod(shape), *sizes))
        layers = [DenoisingAutoencoder(before, (after,), noise, level) for before, after in pairs]
        super().__init__(shape, layers, epochs_per_layer)
        self.output = nn.Linear(sizes[-1], num_classes)

    def forward(self, x):
        return self.output(self.encode(x))

    def objective(self, x, y=None):
        if int(self.stage) == len(self.layers):
            scores = self(x)
            return ops.cross_entropy(scores, y), {"accuracy": _accuracy(scores, y)}
        loss, _ = self.objective_of_layer(x)
        with no_grad():
            return loss, {"accuracy": _accuracy(self(x), y)}

    @staticmethod
    def options_from(train):
        return {"input_shape": list(train.x.shape[1:]), "num_classes": len(train.classes)}


def _accuracy(scores, y):
    return (scores.data.argmax(axis=1) == y).mean()
