"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cnnlib.nn.module import Module
from cnnlib.ops import flatten


class Sequential(Module):
    """The modules one after the other. Index it, slice it, iterate over it.

    >>> from cnnlib import nn
    >>> nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    Sequential(
      (0): Linear(4, 3)
      (1): Tanh()
    )
    """

    def __init__(self, *modules: Module):
        super().__init__()
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: argument {i} must be a Module, got {module!r}.")
            setattr(self, str(i), module)

    def forward(self, x: Any) -> Any:
        for module in self._modules.values():
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Any:
        modules = list(self._modules.values())
        return modules[index] if isinstance(index, int) else Sequential(*modules[index])


class ModuleList(Module):
    """A list of modules that belong to the model; the model's forward calls them."""

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"ModuleList: expected a Module, got {module!r}.")
        setattr(self, str(len(self)), module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int) -> Module:
        return list(self._modules.values())[index]


class Flatten(Module):
    """Axes start_dim … end_dim made one: (N, C, H, W) -> (N, C·H·W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return flatten(x, self.start_dim, self.end_dim)


class Identity(Module):
    """y = x."""

    def forward(self, x):
        return x
