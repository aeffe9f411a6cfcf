"""GoogLeNet: blocks that look at several sizes at once, and 1×1 convolutions that keep them cheap.

An inception block runs four branches beside each other and joins their maps: 1×1; 3×3; 5×5; 3×3 max pooling. The large
kernels see few maps only: a 1×1 convolution ("reduce") comes before them, and one behind the pooling ("proj"). So 22 layers
need a ninth of AlexNet's parameters (section 4, figure 2b). A ReLU follows every convolution.

| layer       | output (224×224×3) | what, or maps of: 1×1, 3×3 reduce → 3×3, 5×5 reduce → 5×5, proj | parameters |
|-------------|--------------------|-----------------------------------------------------------------|------------|
| conv1       | 112×112×64         | conv 7×7, stride 2                                              | 9,472      |
| maxpool1    | 56×56×64           | 3×3, stride 2; local response normalisation                     |            |
| conv2       | 56×56×64           | conv 1×1                                                        | 4,160      |
| conv3       | 56×56×192          | conv 3×3; local response normalisation                          | 110,784    |
| maxpool2    | 28×28×192          | 3×3, stride 2                                                   |            |
| inception3a | 28×28×256          | 64, 96 → 128, 16 → 32, 32                                       | 163,696    |
| inception3b | 28×28×480          | 128, 128 → 192, 32 → 96, 64                                     | 388,736    |
| maxpool3    | 14×14×480          | 3×3, stride 2                                                   |            |
| inception4a | 14×14×512          | 192, 96 → 208, 16 → 48, 64                                      | 376,176    |
| inception4b | 14×14×512          | 160, 112 → 224, 24 → 64, 64                                     | 449,160    |
| inception4c | 14×14×512          | 128, 128 → 256, 24 → 64, 64                                     | 510,104    |
| inception4d | 14×14×528          | 112, 144 → 288, 32 → 64, 64                                     | 605,376    |
| inception4e | 14×14×832          | 256, 160 → 320, 32 → 128, 128                                   | 868,352    |
| maxpool4    | 7×7×832            | 3×3, stride 2                                                   |            |
| inception5a | 7×7×832            | 256, 160 → 320, 32 → 128, 128                                   | 1,043,456  |
| inception5b | 7×7×1024           | 384, 192 → 384, 48 → 128, 128                                   | 1,444,080  |
| avgpool     | 1024               | mean of each map; dropout 40 %                                  |            |
| fc          | num_classes = 1000 | fully connected                                                 | 1,025,000  |
|             |                    |                                                                 | 6,998,552  |
| aux1        | num_classes        | from 4a: 5×5 average pool, stride 3; conv 1×1 128; fc 1024; fc  | 3,188,840  |
| aux2        | num_classes        | the same from 4d                                                | 3,190,888  |
|             |                    |                                                                 | 13,378,280 |

aux1 and aux2 classify from the middle, in training only: their losses, weighted 0.3, send adjoints into layers that are far
from the end (section 5).

``googlenet`` is the paper's. ``googlenet_bn`` is torchvision's, whose weights load into it: batch normalisation behind each
convolution, which then has no bias, for local response normalisation; 3×3 kernels in the branch of the 5×5; 2×2 windows in
maxpool4. 6,624,904 parameters, 13,004,888 with the auxiliary heads.

Weights start as He et al. (2015) say; the paper tells nothing of its own.

Source: lecture: convolutional networks, GoogLeNet; Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke &
Rabinovich, "Going deeper with convolutions", 2015, table 1 and section 5.
"""

from __future__ import annotations

from cnnlib import nn, ops
from cnnlib.models.pictures import PictureNet, scaled, side_after


class CrossEntropyWithAuxiliaries(nn.CrossEntropyLoss):
    """J = cross-entropy(main) + 0.3 Σ cross-entropy(auxiliary): of the tuple that the network gives in training.

    One tensor of logits, as in evaluation, has the plain cross-entropy.
    """

    share = 0.3

    def forward(self, x, target):
        if not isinstance(x, tuple):
            return super().forward(x, target)
        main, *auxiliaries = x
        loss = super().forward(main, target)
        for logits in auxiliaries:
            loss = loss + self.share * super().forward(logits, target)
        return loss


class Unit(nn.Sequential):
    """Convolution, batch normalisation (where wanted, then without bias), ReLU."""

    def __init__(self, channels: int, maps: int, kernel_size: int, batch_norm: bool, stride: int = 1, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(channels, maps, kernel_size, stride=stride, padding=padding, bias=not batch_norm)
        if batch_norm:
            self.bn = nn.BatchNorm2d(maps, eps=0.001)
        self.relu = nn.ReLU()


class Inception(nn.Module):
    """Four branches over the same maps, joined; maps: (1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, proj)."""

    def __init__(self, channels: int, maps: list[int], batch_norm: bool):
        super().__init__()
        one, reduce3, three, reduce5, five, proj = maps
        self.maps = one + three + five + proj
        size = 3 if batch_norm else 5  # torchvision's "5×5"
        self.branch1 = Unit(channels, one, 1, batch_norm)
        self.branch2 = nn.Sequential(Unit(channels, reduce3, 1, batch_norm), Unit(reduce3, three, 3, batch_norm, padding=1))
        self.branch3 = nn.Sequential(
            Unit(channels, reduce5, 1, batch_norm), Unit(reduce5, five, size, batch_norm, padding=size // 2)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Unit(channels, proj, 1, batch_norm))

    def forward(self, x):
        return ops.concat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], axis=1)


class Auxiliary(nn.Sequential):
    """A classifier on maps of side × side; the pooling is left out where they are smaller than its window (small pictures)."""

    def __init__(self, channels: int, side: int, num_classes: int, width: float, batch_norm: bool):
        super().__init__()
        maps, hidden = scaled(128, width), scaled(1024, width)
        if side >= 5:
            self.avgpool = nn.AvgPool2d(5, stride=3)
            side = side_after(side, (5, 3, 0))
        self.conv = Unit(channels, maps, 1, batch_norm)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(maps * side * side, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(hidden, num_classes)


class GoogLeNet(PictureNet):
    """x (N, in_channels, input_size, input_size) -> logits (N, num_classes); in training (logits, of aux1, of aux2).

    ``width`` multiplies the numbers of maps and hidden units; ``auxiliary=False`` leaves the two heads out.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.GoogLeNet(num_classes=10, input_size=64, width=0.125)
    >>> x = np.zeros((2, 3, 64, 64), np.float32)
    >>> [y.shape for y in net(x)], net.eval()(x).shape
    ([(2, 10), (2, 10), (2, 10)], (2, 10))
    """

    criterion = CrossEntropyWithAuxiliaries
    picture_size = 224
    smallest = 48
    batch_norm = False

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, input_size: int = 224, width: float = 1.0,
                 auxiliary: bool = True):  # fmt: skip
        super().__init__(in_channels, input_size)
        bn = self.batch_norm
        first, third = scaled(64, width), scaled(192, width)
        self.conv1 = Unit(in_channels, first, 7, bn, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = nn.Identity() if bn else nn.LocalResponseNorm(5)
        self.conv2 = Unit(first, first, 1, bn)
        self.conv3 = Unit(first, third, 3, bn, padding=1)
        self.norm2 = nn.Identity() if bn else nn.LocalResponseNorm(5)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

        def inception(channels: int, *maps: int) -> Inception:
            return Inception(channels, [scaled(m, width) for m in maps], bn)

        self.inception3a = inception(third, 64, 96, 128, 16, 32, 32)
        self.inception3b = inception(self.inception3a.maps, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception(self.inception3b.maps, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(self.inception4a.maps, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(self.inception4b.maps, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(self.inception4c.maps, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(self.inception4d.maps, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True) if bn else nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception5a = inception(self.inception4e.maps, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(self.inception5a.maps, 384, 192, 384, 48, 128, 128)
        side = side_after(side_after(input_size, (7, 2, 3)), *[(3, 2, 0)] * 3, ceil=True)  # of the maps of stage 4
        self.aux1 = Auxiliary(self.inception4a.maps, side, num_classes, width, bn) if auxiliary else None
        self.aux2 = Auxiliary(self.inception4d.maps, side, num_classes, width, bn) if auxiliary else None
        self.avgpool = nn.GlobalAvgPool2d()
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(self.inception5b.maps, num_classes)
        self.start_for_relu()

    def forward(self, x):
        self.check(x)
        heads = self.training and self.aux1 is not None
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        first = self.aux1(x) if heads else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        second = self.aux2(x) if heads else None
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        x = self.fc(self.dropout(self.avgpool(x)))
        return (x, first, second) if heads else x


class GoogLeNetBN(GoogLeNet):
    """As torchvision has it: batch normalisation, and 3×3 kernels in the third branch."""

    batch_norm = True
