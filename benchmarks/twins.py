"""The full-size networks written in PyTorch, with torchvision's names and layers: to compare with, and to load from.

Each function takes the module torch, which need not be installed where this is imported. ``side``: of the last maps, 7 or 6
for pictures of 224×224.
"""

from __future__ import annotations

from typing import Any


def alexnet_single(torch: Any, num_classes: int = 1000, side: int = 6) -> Any:
    nn = torch.nn
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(256 * side * side, 4096), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, num_classes),
    )  # fmt: skip
    return _chain(torch, features=features, flatten=nn.Flatten(), classifier=classifier)


def vgg(torch: Any, convolutions: tuple[int, ...], batch_norm: bool = False, num_classes: int = 1000, side: int = 7) -> Any:
    nn = torch.nn
    layers, channels = [], 3
    for count, maps in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, maps, 3, padding=1), *([nn.BatchNorm2d(maps)] if batch_norm else []), nn.ReLU()]
            channels = maps
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(512 * side * side, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )  # fmt: skip
    return _chain(torch, features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=classifier)


def resnet(torch: Any, blocks: tuple[int, ...], bottleneck: bool, num_classes: int = 1000) -> Any:
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, channels, maps, stride):
            super().__init__()
            out = 4 * maps if bottleneck else maps
            plan = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]  # kernel size, stride
            sizes = [channels, *[maps] * (len(plan) - 1), out]
            for i, (kernel, step) in enumerate(plan):
                conv = nn.Conv2d(sizes[i], sizes[i + 1], kernel, step, kernel // 2, bias=False)
                setattr(self, f"conv{i + 1}", conv)
                setattr(self, f"bn{i + 1}", nn.BatchNorm2d(sizes[i + 1]))
            self.downsample = None
            if stride > 1 or channels != out:
                self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            if bottleneck:
                y = self.bn3(self.conv3(torch.relu(y)))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    layers, channels = {}, 64
    for i, count in enumerate(blocks):
        stage = []
        for j in range(count):
            stage.append(Block(channels, 64 * 2**i, 2 if i and not j else 1))
            channels = 64 * 2**i * (4 if bottleneck else 1)
        layers[f"layer{i + 1}"] = nn.Sequential(*stage)
    stem = {"conv1": nn.Conv2d(3, 64, 7, 2, 3, bias=False), "bn1": nn.BatchNorm2d(64), "relu": nn.ReLU()}
    end = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(channels, num_classes)}
    return _chain(torch, **stem, maxpool=nn.MaxPool2d(3, 2, 1), **layers, **end)


def googlenet_bn(torch: Any, num_classes: int = 1000) -> Any:
    """In training without what torchvision calls aux: (main, aux1, aux2) of 14×14 maps pooled 5×5, as in the paper."""
    nn = torch.nn

    def unit(channels, maps, kernel, stride=1):
        conv = nn.Conv2d(channels, maps, kernel, stride, kernel // 2, bias=False)
        return _chain(torch, conv=conv, bn=nn.BatchNorm2d(maps, eps=0.001), relu=nn.ReLU())

    class Inception(nn.Module):
        def __init__(self, channels, one, reduce3, three, reduce5, five, proj):
            super().__init__()
            self.branch1 = unit(channels, one, 1)
            self.branch2 = nn.Sequential(unit(channels, reduce3, 1), unit(reduce3, three, 3))
            self.branch3 = nn.Sequential(unit(channels, reduce5, 1), unit(reduce5, five, 3))
            self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(channels, proj, 1))

        def forward(self, x):
            return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)

    def head(channels):
        first = {"pool": nn.AvgPool2d(5, 3), "conv": unit(channels, 128, 1), "flatten": nn.Flatten()}
        hidden = {"fc1": nn.Linear(2048, 1024), "relu": nn.ReLU(), "drop": nn.Dropout(0.7)}
        return _chain(torch, **first, **hidden, fc2=nn.Linear(1024, num_classes))

    def pool(size=3):
        return nn.MaxPool2d(size, 2, ceil_mode=True)

    class GoogLeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2, self.conv3 = unit(3, 64, 7, 2), unit(64, 64, 1), unit(64, 192, 3)
            self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
            self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
            self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
            self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
            self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
            self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
            self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
            self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
            self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
            self.aux1, self.aux2 = head(512), head(528)
            self.pool3, self.pool2, self.drop, self.fc = pool(), pool(2), nn.Dropout(0.4), nn.Linear(1024, num_classes)

        def forward(self, x):
            x = self.pool3(self.conv3(self.conv2(self.pool3(self.conv1(x)))))
            x4a = self.inception4a(self.pool3(self.inception3b(self.inception3a(x))))
            x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))
            x = self.inception5b(self.inception5a(self.pool2(self.inception4e(x4d))))
            main = self.fc(self.drop(x.mean((2, 3))))
            return (main, self.aux1(x4a), self.aux2(x4d)) if self.training else main

    return GoogLeNet()


def _chain(torch: Any, **layers: Any) -> Any:
    """Named layers, one after the other."""
    chain = torch.nn.Sequential()
    for name, layer in layers.items():
        chain.add_module(name, layer)
    return chain


TWINS = {
    "alexnet_single": alexnet_single,
    "vgg11_bn": lambda torch, **options: vgg(torch, (1, 1, 2, 2, 2), batch_norm=True, **options),
    "vgg16": lambda torch, **options: vgg(torch, (2, 2, 3, 3, 3), **options),
    "googlenet_bn": googlenet_bn,
    "resnet18": lambda torch, **options: resnet(torch, (2, 2, 2, 2), False, **options),
    "resnet50": lambda torch, **options: resnet(torch, (3, 4, 6, 3), True, **options),
}
