"""The systems of the field, one file each, in the order of their invention.

>>> from cnnlib import models
>>> models.list()
['adaline', 'lenet5', 'linear_svm', 'mcculloch_pitts', 'mlp', 'perceptron']
>>> net = models.create("lenet5", num_classes=3)
"""

from __future__ import annotations

import builtins
import inspect
from typing import Any

from cnnlib.errors import unknown_name
from cnnlib.models.adaline import Adaline
from cnnlib.models.lenet import LeNet5
from cnnlib.models.linear_svm import LinearSVM
from cnnlib.models.mcculloch_pitts import McCullochPitts
from cnnlib.models.mlp import MLP
from cnnlib.models.perceptron import Perceptron
from cnnlib.nn.module import Module

__all__ = ["MLP", "Adaline", "LeNet5", "LinearSVM", "McCullochPitts", "Perceptron", "create", "get", "list"]

_MODELS: dict[str, type[Module]] = {
    "mcculloch_pitts": McCullochPitts,
    "perceptron": Perceptron,
    "adaline": Adaline,
    "linear_svm": LinearSVM,
    "mlp": MLP,
    "lenet5": LeNet5,
}


def list() -> builtins.list[str]:
    """The names that :func:`create` knows."""
    return sorted(_MODELS)


def get(name: str) -> type[Module]:
    """The class behind a name. Raises UnknownNameError that names the nearest match."""
    if name not in _MODELS:
        raise unknown_name("model", str(name), _MODELS)
    return _MODELS[name]


def create(name: str, **options: Any) -> Module:
    """A new model by name; the options are those of its class, such as ``create("lenet5", num_classes=3)``.

    Raises UnknownNameError for a name or an option that does not exist.
    """
    model = get(name)
    known = inspect.signature(model).parameters
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    return model(**options)
