"""ResNet: layers that learn what to add to their input, so that depth does no harm.

A block computes y = relu(F(x) + x): where F is 0 it passes x on, and the adjoint of x is that of the sum plus what comes
through F, so that depth alone does not make it vanish. Where the shape changes, x goes through a projection: a 1×1
convolution of stride 2 with batch normalisation (section 3.3, option B).

| layer          | output (224×224×3 input) | resnet18                      | resnet50                                 |
|----------------|--------------------------|-------------------------------|------------------------------------------|
| conv1          | 112×112×64               | conv 64 @ 7×7, stride 2       | the same                                 |
| maxpool        | 56×56×64                 | 3×3, stride 2                 | the same                                 |
| layer1 conv2_x | 56×56×64; ×256           | 2 blocks: 3×3 64, 3×3 64      | 3 blocks: 1×1 64, 3×3 64, 1×1 256        |
| layer2 conv3_x | 28×28×128; ×512          | 2 blocks: 3×3 128, 3×3 128    | 4 blocks: 1×1 128, 3×3 128, 1×1 512      |
| layer3 conv4_x | 14×14×256; ×1024         | 2 blocks: 3×3 256, 3×3 256    | 6 blocks: 1×1 256, 3×3 256, 1×1 1024     |
| layer4 conv5_x | 7×7×512; ×2048           | 2 blocks: 3×3 512, 3×3 512    | 3 blocks: 1×1 512, 3×3 512, 1×1 2048     |
| avgpool        | 512; 2048                | the mean of each map          | the same                                 |
| fc             | num_classes = 1000       | fully connected               | the same                                 |

| network   | blocks in layer1 … layer4 | of            | parameters |
|-----------|---------------------------|---------------|------------|
| resnet18  | 2, 2, 2, 2                | 3×3, 3×3      | 11,689,512 |
| resnet34  | 3, 4, 6, 3                | 3×3, 3×3      | 21,797,672 |
| resnet50  | 3, 4, 6, 3                | 1×1, 3×3, 1×1 | 25,557,032 |
| resnet101 | 3, 4, 23, 3               | 1×1, 3×3, 1×1 | 44,549,160 |
| resnet152 | 3, 8, 36, 3               | 1×1, 3×3, 1×1 | 60,192,808 |

Each convolution is followed by batch normalisation and has no bias. The names are torchvision's. Its ResNet-50, 101 and 152
halve the maps in the 3×3 convolution of a block, as here; the paper did in the first 1×1 (``stride_on=1``), which skips three
quarters of its input and needs 6 % fewer multiply–adds.

``version=2`` is the second paper's pre-activation: y = x + F(x), normalisation and ReLU come before each convolution, and
nothing stands on the way from block to block (its figure 4e). The first ReLU comes before the first block splits, a last one
after the last block (its appendix).

``resnet20`` is the first paper's network for pictures of 32×32 (section 4.2):

| layer  | output (32×32×3 input) | depth 6n + 2, n = 3            | parameters |
|--------|------------------------|--------------------------------|------------|
| conv1  | 32×32×16               | conv 16 @ 3×3                  | 464        |
| layer1 | 32×32×16               | n × [3×3 16, 3×3 16]           | 14,016     |
| layer2 | 16×16×32               | n × [3×3 32, 3×3 32], stride 2 | 51,072     |
| layer3 | 8×8×64                 | n × [3×3 64, 3×3 64], stride 2 | 203,520    |
| fc     | 10                     | mean of each map, linear       | 650        |
|        |                        |                                | 269,722    |

Source: lecture: convolutional networks, ResNet; He, Zhang, Ren & Sun, "Deep residual learning for image recognition", 2016,
table 1; He, Zhang, Ren & Sun, "Identity mappings in deep residual networks", 2016. Weights: He et al. 2015.
"""

from __future__ import annotations

from numbers import Integral

from cnnlib import nn, ops
from cnnlib.errors import ValueRangeError
from cnnlib.models.pictures import PictureNet, scaled
from cnnlib.ops.arguments import check_whole


def conv3x3(channels: int, maps: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, maps, 3, stride=stride, padding=1, bias=False)


def conv1x1(channels: int, maps: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, maps, 1, stride=stride, bias=False)


# ---- shortcuts: from (N, channels, H, W) to (N, maps, H/stride, W/stride)


def projection(channels: int, maps: int, stride: int) -> nn.Module:
    """x itself, or where the shape changes its 1×1 convolution, normalised: option B."""
    if channels == maps and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv1x1(channels, maps, stride), nn.BatchNorm2d(maps))


def bare_projection(channels: int, maps: int, stride: int) -> nn.Module:
    """The same without normalisation: with pre-activation that was done before."""
    if channels == maps and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv1x1(channels, maps, stride))


def zero_padding(channels: int, maps: int, stride: int) -> nn.Module:
    """x itself, or where the shape changes every other pixel of it, with maps of zeros added: option A, nothing to learn."""
    return nn.Identity() if channels == maps and stride == 1 else ZeroPadding(stride, maps - channels)


def no_shortcut(channels: int, maps: int, stride: int) -> None:
    """A plain network's: y = relu(F(x))."""


class ZeroPadding(nn.Module):
    """(N, C, H, W) -> (N, C + more, H/stride, W/stride)"""

    def __init__(self, stride: int, more: int):
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return ops.pad(x, [(0, 0), (0, self.more), (0, 0), (0, 0)])


def _add(y, shortcut, x):
    return y if shortcut is None else y + shortcut(x)


# ---- blocks: F and what is added to it


class Basic(nn.Module):
    """y = relu(F(x) + x), F: two 3×3 convolutions."""

    expansion = 1  # of the maps, from inside the block to its output

    def __init__(self, channels: int, maps: int, stride: int, shortcut: nn.Module | None):
        super().__init__()
        self.conv1 = conv3x3(channels, maps, stride)
        self.bn1 = nn.BatchNorm2d(maps)
        self.conv2 = conv3x3(maps, maps)
        self.bn2 = nn.BatchNorm2d(maps)
        self.relu = nn.ReLU()
        self.downsample = shortcut

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = _add(y, self.downsample, x)
        return self.relu(y)


class Bottleneck(nn.Module):
    """y = relu(F(x) + x), F: 1×1 convolution to fewer maps, 3×3, 1×1 to four times as many."""

    expansion = 4

    def __init__(self, channels: int, maps: int, stride: int, shortcut: nn.Module | None, stride_on: int = 3):
        super().__init__()
        self.conv1 = conv1x1(channels, maps, stride if stride_on == 1 else 1)
        self.bn1 = nn.BatchNorm2d(maps)
        self.conv2 = conv3x3(maps, maps, stride if stride_on == 3 else 1)
        self.bn2 = nn.BatchNorm2d(maps)
        self.conv3 = conv1x1(maps, 4 * maps)
        self.bn3 = nn.BatchNorm2d(4 * maps)
        self.relu = nn.ReLU()
        self.downsample = shortcut

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = _add(y, self.downsample, x)
        return self.relu(y)


class PreactivatedBasic(Basic):
    """y = x + F(x), F: normalise, ReLU, 3×3 convolution; twice. A projection sees the input normalised, too."""

    def __init__(self, channels: int, maps: int, stride: int, shortcut: nn.Module | None):
        super().__init__(channels, maps, stride, shortcut)
        self.bn1 = nn.BatchNorm2d(channels)

    def forward(self, x):
        a = self.relu(self.bn1(x))
        y = self.conv1(a)
        y = self.conv2(self.relu(self.bn2(y)))
        return _add(y, self.downsample, x if isinstance(self.downsample, nn.Identity) else a)


class PreactivatedBottleneck(Bottleneck):
    """y = x + F(x), F: normalise, ReLU, convolution; three times: 1×1, 3×3, 1×1."""

    def __init__(self, channels: int, maps: int, stride: int, shortcut: nn.Module | None, stride_on: int = 3):
        super().__init__(channels, maps, stride, shortcut, stride_on)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn3 = nn.BatchNorm2d(maps)

    def forward(self, x):
        a = self.relu(self.bn1(x))
        y = self.conv1(a)
        y = self.conv2(self.relu(self.bn2(y)))
        y = self.conv3(self.relu(self.bn3(y)))
        return _add(y, self.downsample, x if isinstance(self.downsample, nn.Identity) else a)


# ---- the networks


class Residual(PictureNet):
    """conv1, bn1, relu, maxpool, layer1 …, avgpool, fc, one after the other."""

    def _stages(self, make, blocks, maps, shortcut, version: int, **settings) -> int:
        """layer1 …: ``blocks[i]`` blocks of class ``make`` with ``maps[i]`` maps; from the second on at half the size."""
        channels = maps[0]
        for i in range(len(blocks)):
            layers = []
            for j in range(blocks[i]):
                stride, out = 2 if i > 0 and j == 0 else 1, maps[i] * make.expansion
                layers.append(make(channels, maps[i], stride, shortcut(channels, out, stride), **settings))
                channels = out
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        if version == 2:
            self.layer1[0].bn1 = nn.Identity()  # behind bn1 and relu its input is normalised and activated already
            self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        return channels


class ResNet(Residual):
    """x (N, in_channels, input_size, input_size) -> logits (N, num_classes). ``width`` multiplies the numbers of maps.

    version    1: relu(F(x) + x); 2: pre-activation.
    stride_on  3 or 1: which convolution of a bottleneck halves the maps, 3×3 (torchvision) or the first 1×1 (the paper).

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.ResNet18(num_classes=10, input_size=32, width=0.125)
    >>> net(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    picture_size = 224
    smallest = 32
    blocks: tuple[int, ...]
    bottleneck = False

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, input_size: int = 224, width: float = 1.0,
                 version: int = 1, stride_on: int = 3):  # fmt: skip
        super().__init__(in_channels, input_size)
        _check_version(version)
        if stride_on not in (1, 3):
            raise ValueRangeError(f"{type(self).__name__}: stride_on must be 1 or 3, the kernel size of the convolution that "
                                  f"halves the maps, got {stride_on!r}.")  # fmt: skip
        self.stride_on = stride_on
        maps = [scaled(64 * 2**i, width) for i in range(4)]
        self.conv1 = nn.Conv2d(in_channels, maps[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(maps[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        shortcut = projection if version == 1 else bare_projection
        if self.bottleneck:
            wide = Bottleneck if version == 1 else PreactivatedBottleneck
            channels = self._stages(wide, self.blocks, maps, shortcut, version, stride_on=stride_on)
        else:
            narrow = Basic if version == 1 else PreactivatedBasic
            channels = self._stages(narrow, self.blocks, maps, shortcut, version)
        self.avgpool = nn.GlobalAvgPool2d()
        self.fc = nn.Linear(channels, num_classes)
        self.start_for_relu()


class ResNet18(ResNet):
    """18 layers with weights, the projections not counted."""

    blocks = (2, 2, 2, 2)


class ResNet34(ResNet):
    """34 layers."""

    blocks = (3, 4, 6, 3)


class ResNet50(ResNet):
    """50 layers in bottlenecks."""

    blocks = (3, 4, 6, 3)
    bottleneck = True


class ResNet101(ResNet):
    """101 layers in bottlenecks."""

    blocks = (3, 4, 23, 3)
    bottleneck = True


class ResNet152(ResNet):
    """152 layers in bottlenecks."""

    blocks = (3, 8, 36, 3)
    bottleneck = True


class ResNet20(Residual):
    """The first paper's small network for pictures of 32×32: ``width`` maps in the first stage, then twice, four times as many.

    depth    6n + 2: 8, 20, 32, 44, 56, 110 ...
    skip     False leaves the shortcuts out: a plain network of the same layers and parameters, to see what they do.
    version  1 or 2: pre-activation.

    Shortcuts have no parameters (option A): where the shape changes, every other pixel, and zeros for the new maps.

    >>> import cnnlib as cl
    >>> [sum(p.size for p in cl.models.ResNet20(depth=d).parameters()) for d in (8, 20, 56)]
    [75290, 269722, 853018]
    """

    picture_size = 32
    smallest = 8

    def __init__(self, num_classes: int = 10, in_channels: int = 3, input_size: int = 32, width: int = 16, depth: int = 20,
                 skip: bool = True, version: int = 1):  # fmt: skip
        super().__init__(in_channels, input_size)
        _check_version(version)
        check_whole("ResNet20", "depth", depth)
        n, rest = divmod(depth - 2, 6)
        if n < 1 or rest:
            raise ValueRangeError(f"ResNet20: depth must be 6n + 2, such as 8, 20, 32, 44, 56 or 110, got {depth!r}.")
        if not isinstance(width, Integral) or width < 1:
            raise ValueRangeError(f"ResNet20: width is a number of maps, at least 1, 16 in the paper; got {width!r}.")
        maps = [width, 2 * width, 4 * width]
        self.conv1 = conv3x3(in_channels, maps[0])
        self.bn1 = nn.BatchNorm2d(maps[0])
        self.relu = nn.ReLU()
        make = Basic if version == 1 else PreactivatedBasic
        channels = self._stages(make, (n, n, n), maps, zero_padding if skip else no_shortcut, version)
        self.avgpool = nn.GlobalAvgPool2d()
        self.fc = nn.Linear(channels, num_classes)
        self.start_for_relu()


def _check_version(version: int) -> None:
    if version not in (1, 2):
        raise ValueRangeError(f"ResNet: version must be 1, or 2 for pre-activation, got {version!r}.")
