"""The multi-layer perceptron: linear layers with a non-linearity between them, learnt by backpropagation.

    h₁ = s(W₁ x + b₁),  h_i = s(W_i h_{i−1} + b_i),  f = W_m h_{m−1} + b_m          x (N, …) -> logits (N, num_classes)

| layer  | output      | parameters              |
|--------|-------------|-------------------------|
| x      | D           |                         |
| hidden | 128         | (D + 1) · 128           |
| output | num_classes | 129 · num_classes       |

With ``bias=False``, two hidden sigmoids and one output it is the lecture's p(y|x) = σ(w₂₁ᵀ[σ(w₁₁ᵀx), σ(w₁₂ᵀx)]ᵀ): it can
solve XOR on {0, 1}², not on {−1, 1}². There each hidden unit is ½ + an odd function of x, so the output is σ(c + odd(x)),
and x and −x are in one class: the class of (1, 1) would need c < 0, that of (1, −1) c > 0.

Source: lecture: neurons, multi-layer perceptron; Rumelhart, Hinton & Williams, "Learning representations by
back-propagating errors", 1986.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from cnnlib import nn
from cnnlib.errors import unknown_name
from cnnlib.ops.arguments import check_sizes, sample_shape

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def activation_of(name: str) -> type[nn.Module]:
    """The layer behind a name. Raises UnknownNameError that names the nearest match."""
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


class MLP(nn.Sequential):
    """``in_features``: a number, or the shape of a sample, which is flattened.

    >>> import cnnlib as cl
    >>> cl.models.MLP(in_features=64, hidden=(32, 16), num_classes=10)(cl.Tensor([[0.5] * 64])).shape
    (1, 10)
    """

    criterion = nn.CrossEntropyLoss
    picture_size = 28

    def __init__(
        self,
        in_features: int | Sequence[int] = 784,
        hidden: Sequence[int] = (128,),
        num_classes: int = 10,
        activation: str = "relu",
        bias: bool = True,
    ):
        kind = activation_of(activation)
        input_shape = sample_shape("MLP", "in_features", in_features)
        check_sizes("MLP", "hidden", hidden)
        sizes = (math.prod(input_shape), *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after, bias), kind()]
        super().__init__(*layers, nn.Linear(sizes[-1], num_classes, bias))
        self.input_shape = input_shape

    @staticmethod
    def options_for(shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
        """The options that fit samples of ``shape``."""
        return {"in_features": list(shape), "num_classes": num_classes}
