"""ZFNet: AlexNet corrected by looking into it.

Projected back to pixels, conv1 had filters of high and of low frequencies and few in between, and conv2 showed aliasing: the
window was too large and the stride, too (section 4.1).

| layer | what (figure 3 of the paper)                              | output (224×224×3 input) | parameters |
|-------|-----------------------------------------------------------|--------------------------|------------|
| conv1 | 96 @ 7×7, S 2, P 1; ReLU                                  | 110×110×96               | 14,208     |
| pool1 | max 3×3, S 2, rounded up; normalisation across maps       | 55×55×96                 |            |
| conv2 | 256 @ 5×5, S 2; ReLU                                      | 26×26×256                | 614,656    |
| pool2 | max 3×3, S 2, rounded up; normalisation across maps       | 13×13×256                |            |
| conv3 | 384 @ 3×3, P 1; ReLU                                      | 13×13×384                | 885,120    |
| conv4 | 384 @ 3×3, P 1; ReLU                                      | 13×13×384                | 1,327,488  |
| conv5 | 256 @ 3×3, P 1; ReLU                                      | 13×13×256                | 884,992    |
| pool5 | max 3×3, S 2                                              | 6×6×256                  |            |
| fc6   | fully connected; ReLU, dropout                            | 4096                     | 37,752,832 |
| fc7   | fully connected; ReLU, dropout                            | 4096                     | 16,781,312 |
| fc8   | fully connected                                           | num_classes = 1000       | 4,097,000  |
|       |                                                           |                          | 62,357,608 |

What differs from AlexNet: 7×7 filters with stride 2 in place of 11×11 with stride 4, a stride in conv2, no groups, and the
normalisation behind the pool. The figure gives the sizes of the maps; padding and rounding here are those that yield
them. "Contrast normalised across feature maps" is AlexNet's local response normalisation, with AlexNet's constants.

The paper drew weights from N(0, 0.01²) with biases of 0, and scaled back each filter whose root mean square passed 0.1. Here
they start as He's.

Source: lecture: convolutional networks, ZFNet; Zeiler & Fergus, "Visualizing and understanding convolutional networks",
2013: sections 3 and 4.1, figure 3.
"""

from __future__ import annotations

from cnnlib import nn
from cnnlib.models.alexnet import response_norm
from cnnlib.models.pictures import PictureNet, scaled, side_after


class ZFNet(PictureNet):
    """x (N, in_channels, input_size, input_size) -> logits (N, num_classes).

    ``width`` multiplies the numbers of maps and of hidden units.

    >>> import cnnlib as cl, numpy as np
    >>> cl.models.ZFNet(num_classes=10, input_size=63, width=0.1)(np.zeros((2, 3, 63, 63), np.float32)).shape
    (2, 10)
    """

    picture_size = 224
    smallest = 63

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, input_size: int = 224, width: float = 1.0):
        super().__init__(in_channels, input_size)
        c1, c2, c3, c4, c5 = (scaled(maps, width) for maps in (96, 256, 384, 384, 256))
        hidden = scaled(4096, width)
        side = side_after(input_size, (7, 2, 1))
        side = side_after(side, (3, 2, 0), ceil=True)
        side = side_after(side, (5, 2, 0))
        side = side_after(side, (3, 2, 0), (3, 2, 0), ceil=True)  # of the maps of pool5
        self.conv1 = nn.Conv2d(in_channels, c1, 7, stride=2, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = response_norm()
        self.conv2 = nn.Conv2d(c1, c2, 5, stride=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm2 = response_norm()
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(c5 * side * side, hidden)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Linear(hidden, hidden)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.start_for_relu()
