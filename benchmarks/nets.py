"""Whole training steps: forward, loss, backward, optimiser. Each network is a list of layers, the same for both contenders."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.tensor import to_device

rng = np.random.default_rng(0)


class Residual(nn.Module):
    """ReLU(body(x) + shortcut(x))"""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return ops.relu(self.body(x) + self.shortcut(x))


class CharLSTM(nn.Module):
    """Characters (T, B) -> scores of the next one (T·B, V): an embedding, layers of LSTM, a linear layer."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(vocabulary, embedding), nn.LSTM(embedding, hidden, layers)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, x):
        y, _ = self.lstm(self.embedding(x))
        return self.head(ops.reshape(y, (-1, y.shape[2])))


def mlp():
    return nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(),
        nn.Linear(256, 128), nn.ReLU(),
        nn.Linear(128, 10),
    ), (64, 784)  # fmt: skip


def lenet5():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    ), (64, 1, 32, 32)  # fmt: skip


def vgg11():
    """Configuration A of Simonyan & Zisserman 2015, for 32×32 pictures: one linear layer behind the convolutions."""
    layers: list[nn.Module] = []
    channels = 3
    for maps in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"):
        if maps == "pool":
            layers += [nn.MaxPool2d(2)]
        else:
            layers += [nn.Conv2d(channels, maps, 3, padding=1), nn.ReLU()]
            channels = maps
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)), (32, 3, 32, 32)


def alexnet():
    """Two groups where the paper had two GPUs, local response normalisation, overlapping pools (Krizhevsky et al. 2012)."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, 1000),
    ), (8, 3, 227, 227)  # fmt: skip


def resnet18():
    """He et al. 2016, with projections where the shape changes."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
    ]  # fmt: skip
    channels = 64
    for maps, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        body = nn.Sequential(
            nn.Conv2d(channels, maps, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(maps), nn.ReLU(),
            nn.Conv2d(maps, maps, 3, padding=1, bias=False), nn.BatchNorm2d(maps),
        )  # fmt: skip
        projection = nn.Sequential(nn.Conv2d(channels, maps, 1, stride=stride, bias=False), nn.BatchNorm2d(maps))
        layers.append(Residual(body, nn.Identity() if stride == 1 else projection))
        channels = maps
    return nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(512, 1000)), (4, 3, 224, 224)


def char_lstm():
    """Karpathy's character model, two layers deep, over the 65 characters of Shakespeare's plays."""
    return CharLSTM(65, 64, hidden=256, layers=2), (64, 32)


NETS: dict[str, Callable] = {
    "MLP 784-256-128-10, batch 64": mlp,
    "LeNet-5, batch 64": lenet5,
    "VGG-11 32², batch 32": vgg11,
    "AlexNet, batch 8": alexnet,
    "ResNet-18, batch 4": resnet18,
    "char-LSTM 2 × 256, 64 steps, batch 32": char_lstm,
}


def classes_of(net: nn.Module) -> int:
    return list(net.parameters())[-1].shape[0]


def batch_of(net: nn.Module, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and their classes, or characters and the ones that follow."""
    if isinstance(net, CharLSTM):
        x = rng.integers(0, classes_of(net), shape)
        return x, rng.integers(0, classes_of(net), x.size)
    return rng.standard_normal(shape).astype(np.float32), rng.integers(0, classes_of(net), shape[0])


def optimizer_of(net: nn.Module, library: Any, parameters: Any) -> Any:
    """Of the module optim of either side."""
    return library.Adam(parameters, lr=1e-3) if isinstance(net, CharLSTM) else library.SGD(parameters, lr=1e-3, momentum=0.9)


def ours(make: Callable, backend: str) -> Callable[[], Any]:
    """A function that takes one training step of the network on the backend and returns its loss."""
    net, shape = make()
    device = "cuda" if backend == "cuda" else "cpu"
    optimizer = optimizer_of(net.to(device), optim, net.parameters())
    loss = getattr(net, "criterion", nn.CrossEntropyLoss)()
    x, y = (to_device(a, device) for a in batch_of(net, shape))
    x = cl.Tensor(x)

    def step():
        with contextlib.nullcontext() if device == "cuda" else cl.use(backend):
            optimizer.zero_grad()
            J = loss(net(x), y)
            J.backward()
            optimizer.step()
        return J

    return step


def recorded(make: Callable) -> Callable[[], Any]:
    """The same step as a CUDA graph."""
    from cnnlib.train.cuda_graph import StepGraph

    net, shape = make()
    optimizer = optimizer_of(net.to("cuda"), optim, net.parameters())
    loss = getattr(net, "criterion", nn.CrossEntropyLoss)()
    x, y = (to_device(a, "cuda") for a in batch_of(net, shape))

    def compute(x, y):
        optimizer.zero_grad()
        J = loss(net(x), y)
        J.backward()
        optimizer.step()
        return J

    graph, x = StepGraph(compute, net, optimizer), cl.Tensor(x)
    return lambda: graph(x, y)


def theirs(make: Callable, torch, channels_last: bool = False, device: str = "cpu") -> Callable[[], Any]:
    """The same with PyTorch; ``channels_last`` asks for its other layout of pictures."""
    net, shape = make()
    model = translate(net, torch).to(device)
    x, y = (torch.from_numpy(a).to(device) for a in batch_of(net, shape))
    if channels_last and len(shape) == 4:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = optimizer_of(net, torch.optim, model.parameters())

    def step():
        optimizer.zero_grad()
        J = torch.nn.functional.cross_entropy(model(x), y)
        J.backward()
        optimizer.step()
        return J

    return step


def translate(layer: nn.Module, torch) -> Any:
    """The same layer in PyTorch, with the same parameters: most names and settings are the same."""
    if isinstance(layer, nn.Sequential):
        return torch.nn.Sequential(*[translate(inner, torch) for inner in layer])
    if isinstance(layer, Residual):
        return _residual(translate(layer.body, torch), translate(layer.shortcut, torch), torch)
    if isinstance(layer, CharLSTM):
        return _char_lstm(*(translate(inner, torch) for inner in (layer.embedding, layer.lstm, layer.head)), torch)
    if isinstance(layer, nn.GlobalAvgPool2d):
        return torch.nn.AdaptiveAvgPool2d(1)
    twin = getattr(torch.nn, type(layer).__name__)(*_settings(layer))
    with torch.no_grad():
        for name, p in layer.named_parameters():
            getattr(twin, name).copy_(torch.from_numpy(p.data))
    return twin


def _settings(layer: nn.Module) -> tuple:
    """Positional arguments of the layer in PyTorch."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Embedding):
        return layer.weight.shape
    if isinstance(layer, nn.LSTM):
        return layer.input_size, layer.hidden_size, layer.num_layers
    if isinstance(layer, nn.Conv2d):
        s = [layer.settings[name] for name in ("stride", "padding", "dilation", "groups")]
        return layer.in_channels, layer.out_channels, layer.weight.shape[2:], *s, layer.bias is not None
    if isinstance(layer, nn.BatchNorm2d):
        return (layer.num_features,)
    if isinstance(layer, nn.MaxPool2d):
        return layer.settings["kernel_size"], layer.settings["stride"], layer.settings["padding"]
    if isinstance(layer, nn.LocalResponseNorm):
        return layer.size, layer.alpha, layer.beta, layer.k
    return (layer.p,) if isinstance(layer, nn.Dropout) else ()


def _char_lstm(embedding, lstm, head, torch):
    class Characters(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.lstm, self.head = embedding, lstm, head

        def forward(self, x):
            return self.head(self.lstm(self.embedding(x))[0].flatten(0, 1))

    return Characters()


def _residual(body, shortcut, torch):
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    return Sum()
