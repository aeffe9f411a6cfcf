"""LeNet-5, the convolutional network that read cheques, in the form used today.

| layer  | what                          | output (32×32×1 input) | parameters |
|--------|-------------------------------|------------------------|------------|
| c1     | conv 6 @ 5×5, ReLU            | 28×28×6                | 156        |
| s2     | max pool 2×2                  | 14×14×6                |            |
| c3     | conv 16 @ 5×5, ReLU           | 10×10×16               | 2,416      |
| s4     | max pool 2×2                  | 5×5×16                 |            |
| c5     | fully connected, ReLU         | 120                    | 48,120     |
| f6     | fully connected, ReLU         | 84                     | 10,164     |
| output | fully connected               | num_classes = 10       | 850        |
|        |                               |                        | 61,706     |

The paper's are the layers with their sizes, and the weights shared over the picture. Of today are: ReLU for a scaled tanh
(``activation="tanh"``), max pooling for an average with a weight and a bias per map (``pooling="avg"``, without those
two), full connections in c3 where the paper left some out (1,516 parameters), and softmax with cross-entropy where the
paper measured distances to drawn characters. c5 is a 5×5 convolution in the paper: on 5×5 maps that is a full connection.
The network as it was: cnnlib/models/lenet_original.py.

Weights start as those of every layer, biases at 0: the best of six starts on held-out training pictures (docs/labs.md).

Source: lecture: convolutional networks, LeNet; LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to
document recognition", 1998.
"""

from __future__ import annotations

from cnnlib import nn
from cnnlib.errors import unknown_name
from cnnlib.models.mlp import ACTIVATIONS
from cnnlib.models.pictures import PictureNet, scaled, side_after

POOLING = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class LeNet5(PictureNet):
    """x (N, in_channels, input_size, input_size) -> logits (N, num_classes).

    ``input_size``: the side of the picture. Below 32 the first convolution pads by 2, so that 28 gives the same maps as 32.
    ``width`` multiplies the numbers of maps and of hidden units.

    >>> import cnnlib as cl, numpy as np
    >>> cl.models.LeNet5()(np.zeros((1, 1, 32, 32), np.float32)).shape
    (1, 10)
    """

    picture_size = 32
    smallest = 12

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        input_size: int = 32,
        activation: str = "relu",
        pooling: str = "max",
        width: float = 1.0,
    ):
        super().__init__(in_channels, input_size)
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        if pooling not in POOLING:
            raise unknown_name("pooling", pooling, POOLING)
        nonlinear, pool = ACTIVATIONS[activation], POOLING[pooling]
        padding = 2 if input_size < 32 else 0
        side = side_after(input_size, (5, 1, padding), (2, 2, 0), (5, 1, 0), (2, 2, 0))  # of the maps of s4
        c1, c3, c5, f6 = (scaled(units, width) for units in (6, 16, 120, 84))
        self.c1 = nn.Conv2d(in_channels, c1, 5, padding=padding)
        self.act1 = nonlinear()
        self.s2 = pool(2)
        self.c3 = nn.Conv2d(c1, c3, 5)
        self.act3 = nonlinear()
        self.s4 = pool(2)
        self.flatten = nn.Flatten()
        self.c5 = nn.Linear(c3 * side * side, c5)
        self.act5 = nonlinear()
        self.f6 = nn.Linear(c5, f6)
        self.act6 = nonlinear()
        self.output = nn.Linear(f6, num_classes)
        for p in self.parameters():
            if p.ndim == 1:
                p.set(0.0)
