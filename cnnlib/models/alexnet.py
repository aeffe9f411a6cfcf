"""AlexNet, which won ImageNet's competition of 2012 by ten points and ended the age of hand-made features.

In two towers, as trained on two GPUs of 3 GB; S: stride, P: padding, G: groups:

| layer | what (section 3.5 of the paper)                   | output (227×227×3 input) | parameters |
|-------|---------------------------------------------------|--------------------------|------------|
| conv1 | 96 @ 11×11, S 4; ReLU, normalisation              | 55×55×96                 | 34,944     |
| pool1 | max 3×3, S 2                                      | 27×27×96                 |            |
| conv2 | 256 @ 5×5, P 2, G 2; ReLU, normalisation          | 27×27×256                | 307,456    |
| pool2 | max 3×3, S 2                                      | 13×13×256                |            |
| conv3 | 384 @ 3×3, P 1; ReLU                              | 13×13×384                | 885,120    |
| conv4 | 384 @ 3×3, P 1, G 2; ReLU                         | 13×13×384                | 663,936    |
| conv5 | 256 @ 3×3, P 1, G 2; ReLU                         | 13×13×256                | 442,624    |
| pool5 | max 3×3, S 2                                      | 6×6×256                  |            |
| fc6   | fully connected; ReLU, dropout                    | 4096                     | 37,752,832 |
| fc7   | fully connected; ReLU, dropout                    | 4096                     | 16,781,312 |
| fc8   | fully connected                                   | num_classes = 1000       | 4,097,000  |
|       |                                                   |                          | 60,965,224 |

- **Towers**: conv2, conv4 and conv5 see the maps of their own GPU only, which is a convolution in two groups; conv3 and the
  fully connected layers see all.
- **Local response normalisation** (section 3.3): k = 2, n = 5, β = 0.75, and α = 10⁻⁴ which the paper does not divide by n:
  5·10⁻⁴ in cnnlib's convention.
- **Overlapping pooling** (section 3.4): windows of 3 in steps of 2.
- **Dropout** (section 4.2): half of the outputs of fc6 and fc7. Here the kept ones are doubled in training; the paper halves
  them all in tests instead.
- The paper says pictures of 224×224, but 55×55 maps come out of 227×227; other sizes make other maps, and another fc6.

The form in one tower, of 2014, as torchvision has it: neither groups nor normalisation, and a few maps less.

| layer        | what                          | output (224×224×3 input) | parameters |
|--------------|-------------------------------|--------------------------|------------|
| features.0   | 64 @ 11×11, S 4, P 2; ReLU    | 55×55×64                 | 23,296     |
| features.2   | max 3×3, S 2                  | 27×27×64                 |            |
| features.3   | 192 @ 5×5, P 2; ReLU          | 27×27×192                | 307,392    |
| features.5   | max 3×3, S 2                  | 13×13×192                |            |
| features.6   | 384 @ 3×3, P 1; ReLU          | 13×13×384                | 663,936    |
| features.8   | 256 @ 3×3, P 1; ReLU          | 13×13×256                | 884,992    |
| features.10  | 256 @ 3×3, P 1; ReLU          | 13×13×256                | 590,080    |
| features.12  | max 3×3, S 2                  | 6×6×256                  |            |
| classifier.1 | dropout, fully connected, ReLU | 4096                    | 37,752,832 |
| classifier.4 | dropout, fully connected, ReLU | 4096                    | 16,781,312 |
| classifier.6 | fully connected               | num_classes = 1000       | 4,097,000  |
|              |                               |                          | 61,100,840 |

Its layers have torchvision's names, so that weights from there load. torchvision averages maps of other sizes down to 6×6;
here the first fully connected layer takes them as they are, which is the same for 224×224.

Weights start as He's, biases at 0, so that narrow networks learn, too. The paper drew weights from N(0, 0.01²) and set the
biases of conv2, 4, 5, fc6 and fc7 to 1, so that ReLUs are alive at the start.

Source: lecture: convolutional networks, AlexNet; Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep
convolutional neural networks", 2012; Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
"""

from __future__ import annotations

from cnnlib import nn
from cnnlib.models.pictures import PictureNet, scaled, side_after


def response_norm() -> nn.Module:
    """Section 3.3's constants; alpha times 5, for here it is divided by the number of neighbours."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class AlexNet(PictureNet):
    """The two towers of 2012: x (N, in_channels, input_size, input_size) -> logits (N, num_classes).

    ``width`` multiplies the numbers of maps and of hidden units.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.AlexNet(num_classes=10, width=0.1)
    >>> net(np.zeros((1, 3, 227, 227), np.float32)).shape
    (1, 10)
    """

    picture_size = 227
    smallest = 67

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, input_size: int = 227, width: float = 1.0):
        super().__init__(in_channels, input_size)
        c1, c2, c3, c4, c5 = (scaled(maps, width, multiple=2) for maps in (96, 256, 384, 384, 256))
        hidden = scaled(4096, width)
        side = side_after(input_size, (11, 4, 0), (3, 2, 0), (3, 2, 0), (3, 2, 0))  # of the maps of pool5
        self.conv1 = nn.Conv2d(in_channels, c1, 11, stride=4)
        self.relu1 = nn.ReLU()
        self.norm1 = response_norm()
        self.pool1 = nn.MaxPool2d(3, stride=2)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.norm2 = response_norm()
        self.pool2 = nn.MaxPool2d(3, stride=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, stride=2)
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(c5 * side * side, hidden)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Linear(hidden, hidden)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.start_for_relu()


class AlexNetSingle(PictureNet):
    """The single tower of 2014: x (N, in_channels, input_size, input_size) -> logits (N, num_classes).

    >>> import cnnlib as cl
    >>> list(cl.models.AlexNetSingle(width=0.1).state_dict())[:3]
    ['features.0.weight', 'features.0.bias', 'features.3.weight']
    """

    picture_size = 224
    smallest = 63

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, input_size: int = 224, width: float = 1.0):
        super().__init__(in_channels, input_size)
        c1, c2, c3, c4, c5 = (scaled(maps, width) for maps in (64, 192, 384, 256, 256))
        hidden = scaled(4096, width)
        side = side_after(input_size, (11, 4, 2), (3, 2, 0), (3, 2, 0), (3, 2, 0))
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(c5 * side * side, hidden), nn.ReLU(),
            nn.Dropout(0.5), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        self.start_for_relu()
