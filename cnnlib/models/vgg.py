"""VGG: nothing but 3×3 convolutions, and many of them.

Two 3×3 convolutions see 5×5 pixels, three see 7×7, with fewer weights than one large kernel (3·9 C² = 27 C² against 49 C²)
and a non-linearity after each (section 2.3). The configurations of the paper's table 1 differ in the number of layers only;
each convolution keeps the size of its maps (padding 1) and is followed by a ReLU, each stage ends in 2×2 max pooling.

| stage          | maps | A: vgg11    | B: vgg13    | D: vgg16    | E: vgg19    | output (224×224×3 input) | parameters of D |
|----------------|------|-------------|-------------|-------------|-------------|--------------------------|-----------------|
| 1              | 64   | 1 conv 3×3  | 2           | 2           | 2           | 112×112×64               | 38,720          |
| 2              | 128  | 1           | 2           | 2           | 2           | 56×56×128                | 221,440         |
| 3              | 256  | 2           | 2           | 3           | 4           | 28×28×256                | 1,475,328       |
| 4              | 512  | 2           | 2           | 3           | 4           | 14×14×512                | 5,899,776       |
| 5              | 512  | 2           | 2           | 3           | 4           | 7×7×512                  | 7,079,424       |
| fc, ReLU, drop |      |             |             |             |             | 4096                     | 102,764,544     |
| fc, ReLU, drop |      |             |             |             |             | 4096                     | 16,781,312      |
| fc             |      |             |             |             |             | num_classes = 1000       | 4,097,000       |
| parameters     |      | 132,863,336 | 133,047,848 | 138,357,544 | 143,667,240 |                          |                 |

The forms ``vgg11_bn`` … normalise each convolution's output over the batch, which the paper of 2015 did not know yet.
``vgg_small`` keeps the first three stages of B, normalised, and one linear layer behind them, for pictures of 32×32: with
the paper's two layers of dropout small networks learn slowly.

The names of the layers are torchvision's: ``features`` and ``classifier``, numbered. Weights start as He et al. (2015)
say; the authors trained A first and began the deeper ones with its layers, or took Glorot's (section 3.1).

Source: lecture: convolutional networks, VGG; Simonyan & Zisserman, "Very deep convolutional networks for large-scale image
recognition", 2015, table 1 and section 2.
"""

from __future__ import annotations

from cnnlib import nn
from cnnlib.models.pictures import PictureNet, scaled


class VGG(PictureNet):
    """x (N, in_channels, input_size, input_size) -> logits (N, num_classes). ``width`` multiplies maps and hidden units.

    A subclass says how many convolutions each stage has (``stages``).

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.VGG11(num_classes=10, input_size=32, width=0.125)
    >>> net(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    stages: tuple[int, ...]
    maps: tuple[int, ...] = (64, 128, 256, 512, 512)
    batch_norm = False
    picture_size = 224
    smallest = 32

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, input_size: int = 224, width: float = 1.0):
        super().__init__(in_channels, input_size)
        layers: list[nn.Module] = []
        channels = in_channels
        for convolutions, maps in zip(self.stages, self.maps, strict=True):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, scaled(maps, width), 3, padding=1))
                channels = scaled(maps, width)
                if self.batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU())
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        side = input_size // 2 ** len(self.stages)
        self.classifier = self.head(channels * side * side, num_classes, width)
        self.start_for_relu()

    def head(self, features: int, num_classes: int, width: float) -> nn.Module:
        """What classifies: the paper's three fully connected layers."""
        hidden = scaled(4096, width)
        return nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip


class VGG11(VGG):
    """Configuration A."""

    stages = (1, 1, 2, 2, 2)


class VGG13(VGG):
    """Configuration B."""

    stages = (2, 2, 2, 2, 2)


class VGG16(VGG):
    """Configuration D."""

    stages = (2, 2, 3, 3, 3)


class VGG19(VGG):
    """Configuration E."""

    stages = (2, 2, 4, 4, 4)


class VGG11BN(VGG11):
    """Configuration A with batch normalisation."""

    batch_norm = True


class VGG13BN(VGG13):
    """Configuration B with batch normalisation."""

    batch_norm = True


class VGG16BN(VGG16):
    """Configuration D with batch normalisation."""

    batch_norm = True


class VGG19BN(VGG19):
    """Configuration E with batch normalisation."""

    batch_norm = True


class VGGSmall(VGG):
    """The first three stages of B with batch normalisation, and one linear layer: for pictures of 32×32."""

    stages = (2, 2, 2)
    maps = (64, 128, 256)
    batch_norm = True
    picture_size = 32
    smallest = 8

    def __init__(self, num_classes: int = 10, in_channels: int = 3, input_size: int = 32, width: float = 1.0):
        super().__init__(num_classes, in_channels, input_size, width)

    def head(self, features: int, num_classes: int, width: float) -> nn.Module:
        return nn.Linear(features, num_classes)
