"""What the labs train on, and how: data sets by name, one training loop, one small convolutional network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.data import Dataset
from cnnlib.data.emoji import VENDORS, drawn, listed
from cnnlib.train import History, LRSchedule

TEST = 0.2  # share of the emoji that are held out


@functools.cache
def load(name: str, pictures: int | None = None) -> tuple[Dataset, Dataset]:
    """(train, test); of the training set the first ``pictures``.

    "mnist", "fashion", "fashion_subset": 28×28. "digits": the bundled digits, 28×28 like MNIST, for quick runs.
    "cifar10", "emoji": 32×32, in colour; "colour" is the one that `colour` finds. The name of a set is ``train.name``.
    """
    name = colour() if name == "colour" else name
    if name == "digits":
        sets = cl.data.digits(size=32)
        train, test = (Dataset(np.ascontiguousarray(s.x[:, :, 2:30, 2:30]), s.y, s.classes, s.name) for s in sets)
    elif name == "emoji":
        train, test = emoji()
    else:
        train, test = cl.data.load(name)
    return (train if pictures is None else train[:pictures]), test


def colour() -> str:
    """Which colour pictures there are: "cifar10" where it lies on this machine, else "emoji"."""
    found = next(row.where for row in cl.data.info() if row.name == "cifar10")
    return "emoji" if found.startswith(("would download", "unusable")) else "cifar10"


def emoji() -> tuple[Dataset, Dataset]:
    """(train, test): 1,911 emoji as two designers drew them, 32×32 in colour, in 10 categories from Activities to Travel.

    An emoji is held out in both drawings or in none; skin tones, nearly copies of each other, are left out. Where the pictures
    come from: `cnnlib.data.emoji`.
    """
    yellow = [e for e in listed("google") if e.tone is None]
    classes = sorted({e.category for e in yellow})
    labels = np.array([classes.index(e.category) for e in yellow])
    pictures = [drawn(vendor, yellow) for vendor in VENDORS]
    keep, held_out = Dataset(np.arange(len(yellow)), labels, classes, "emoji").split(TEST)
    train, test = (
        Dataset(np.concatenate([x[part.x] for x in pictures]), np.concatenate([part.y] * 2), classes, f"emoji {what}")
        for part, what in ((keep, "train"), (held_out, "test"))
    )
    order = np.random.default_rng(0).permutation(len(train))  # the file lists them by category
    return train.subset(order), test


def fit(net: nn.Module, train: Dataset, test: Dataset | None, seed: int, epochs: int, optimizer: Any = None,
        lr: float = 1e-3, batch_size: int = 64, loss: Callable | None = None, transform: Callable | None = None,
        cosine: bool = False, callbacks: Sequence[Any] = ()) -> cl.Trainer:  # fmt: skip
    """Train with cross-entropy and Adam, unless told otherwise, on normalised pictures; ``trainer.history`` has the figures.

    ``cosine``: the learning rate falls to 0 along half a cosine, after each step.
    """
    optimizer = optimizer or optim.Adam(net.parameters(), lr=lr)
    transform = transform or cl.data.Normalize.fit(train)
    if cosine:
        steps = epochs * -(-len(train) // batch_size)
        callbacks = [*callbacks, LRSchedule(optim.CosineAnnealingLR(optimizer, T_max=steps), per="step")]
    trainer = cl.Trainer(net, loss or nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, batch_size=batch_size,
                         transform=transform, seed=seed, progress=False)  # fmt: skip
    trainer.fit(train, test, epochs=epochs)
    return trainer


def curve(history: History, column: str) -> list[float]:
    return [float(v) for v in history[column]]


def small_convnet(num_classes: int = 10, in_channels: int = 1, size: int = 28, activation: type[nn.Module] = nn.ReLU,
                  norm: Callable[[], nn.Module] = nn.Identity,
                  pool: Callable[[], nn.Module] = lambda: nn.MaxPool2d(2)) -> nn.Sequential:  # fmt: skip
    """Two 5×5 convolutions with 16 and 32 maps, each followed by activation, norm and a pooling that halves; one linear layer.

    The order of activation, normalisation and pooling is AlexNet's.
    """
    quarter = -(-size // 2) // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 5, padding=2), activation(), norm(), pool(),
        nn.Conv2d(16, 32, 5, padding=2), activation(), norm(), pool(),
        nn.Flatten(), nn.Linear(32 * quarter * quarter, num_classes),
    )  # fmt: skip
