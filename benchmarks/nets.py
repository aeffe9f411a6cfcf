"""Whole training steps of small networks: forward, loss, backward, optimiser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import cnnlib as cl
from cnnlib import nn, optim

rng = np.random.default_rng(0)


def mlp():
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)), (64, 784)


def lenet5():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ), (64, 1, 32, 32)  # fmt: skip


def small_resnet_stage():
    """Two 3×3 convolutions with batch norm, dropout before the classifier: what most networks are made of."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 16 * 16, 10),
    ), (32, 3, 32, 32)  # fmt: skip


NETS: dict[str, Callable] = {"MLP 784-256-128-10": mlp, "LeNet-5, batch 64": lenet5, "conv-BN ×2, batch 32": small_resnet_stage}


def ours(make: Callable, backend: str) -> Callable[[], object]:
    net, shape = make()
    optimizer = optim.Adam(net.parameters(), lr=1e-3)
    loss = nn.CrossEntropyLoss()
    x, y = cl.Tensor(rng.standard_normal(shape).astype(np.float32)), rng.integers(0, 10, shape[0])

    def step():
        with cl.use(backend):
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()

    return step


def theirs(make: Callable, torch) -> Callable[[], object]:
    net, shape = make()
    layers = [_translate(layer, torch) for layer in net]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(*shape), torch.randint(0, 10, (shape[0],))

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def _translate(layer, torch):
    """The same layer in PyTorch: the names are the same."""
    kind = getattr(torch.nn, type(layer).__name__)
    if isinstance(layer, nn.Linear):
        return kind(layer.in_features, layer.out_features)
    if isinstance(layer, nn.Conv2d):
        return kind(layer.in_channels, layer.out_channels, layer.weight.shape[2:], padding=layer.settings["padding"])
    if isinstance(layer, nn.BatchNorm2d):
        return kind(layer.num_features)
    if isinstance(layer, nn.MaxPool2d):
        return kind(2)
    return kind()
