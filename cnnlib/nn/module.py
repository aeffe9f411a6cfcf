"""Module: a tree of parameters, buffers and sub-modules with a forward. Modules hold no maths: that is in cnnlib.ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cnnlib.backends import xp_of
from cnnlib.backends.state import scope
from cnnlib.errors import CheckpointError, ShapeError
from cnnlib.tensor import Parameter, to_device


class Module:
    """Base class of layers and models. Assign Parameters and Modules as attributes, and write ``forward``.

    >>> import cnnlib as cl
    >>> class Twice(cl.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = cl.nn.Linear(3, 3)
    ...     def forward(self, x):
    ...         return self.layer(self.layer(x))
    >>> sorted(Twice().state_dict())
    ['layer.bias', 'layer.weight']
    """

    training: bool
    _name: str
    _parameters: dict[str, Parameter]
    _buffers: dict[str, None]
    _modules: dict[str, Module]
    _forward_hooks: list[Callable[[Module, tuple, Any], None]]

    def __init__(self) -> None:
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_buffers", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "_forward_hooks", [])
        object.__setattr__(self, "_name", "")  # as a child: its name in the parent
        object.__setattr__(self, "training", True)

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(self, ...).")

    def __call__(self, *inputs: Any) -> Any:
        outer = scope.get()
        token = scope.set(f"{outer}.{self._name}" if outer else self._name)
        try:
            y = self.forward(*inputs)
            for hook in tuple(self._forward_hooks):
                hook(self, inputs, y)
        finally:
            scope.reset(token)
        return y

    # ---- the tree

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() before it assigns {name!r}.")
        for registry in (self._parameters, self._buffers, self._modules):
            registry.pop(name, None)
        if isinstance(value, Parameter):
            self._parameters[name] = value
            value.name = value.name or name
        elif isinstance(value, Module):
            self._modules[name] = value
            object.__setattr__(value, "_name", name)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._buffers, self._modules):
            registry.pop(name, None)
        object.__delattr__(self, name)

    def register_buffer(self, name: str, array: Any) -> None:
        """Keep an array that is part of the state but not learnt, such as running statistics."""
        object.__setattr__(self, name, array)
        self._buffers[name] = None

    def set_buffer(self, name: str, array: Any) -> None:
        """Replace a registered buffer."""
        if name not in self._buffers:
            raise AttributeError(f"{type(self).__name__} has no buffer {name!r}: register_buffer first.")
        object.__setattr__(self, name, array)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            stack += [(f"{path}.{name}" if path else name, child) for name, child in reversed(module._modules.items())]

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of all parameters, each once, even when two modules share it."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, p in module._parameters.items():
                if id(p) not in seen:
                    seen.add(id(p))
                    p.name = f"{path}.{name}" if path else name
                    yield p.name, p

    def parameters(self) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Any]]:
        for path, module in self.named_modules():
            for name in module._buffers:
                yield f"{path}.{name}" if path else name, getattr(module, name)

    # ---- modes

    def train(self, mode: bool = True):
        """Training behaviour: dropout drops, batch norm uses the batch. Returns self."""
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self):
        """Evaluation behaviour. Returns self."""
        return self.train(False)

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = None

    def to(self, target: Any):
        """Move to a device (``"cpu"``, ``"cuda"``) or cast to a float dtype, in place. Returns self. Gradients are dropped."""
        convert = (lambda a: to_device(a, target)) if target in ("cpu", "cuda") else (lambda a: _cast(a, target))
        for module in self.modules():
            for p in module._parameters.values():
                p.data, p.grad = convert(p.data), None
                p.version += 1
            for name in module._buffers:
                module.set_buffer(name, convert(getattr(module, name)))
        return self

    def register_forward_hook(self, hook: Callable[[Module, tuple, Any], None]) -> Callable[[], None]:
        """Call ``hook(module, inputs, output)`` after each forward. Returns a function that removes it."""
        self._forward_hooks.append(hook)
        return lambda: self._forward_hooks.remove(hook)

    # ---- the state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers, on the CPU, by path."""
        state = {name: to_device(p.data, "cpu").copy() for name, p in self.named_parameters()}
        for name, buffer in self.named_buffers():
            state[name] = np.array(to_device(buffer, "cpu"))
        return state

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Copy values in by path. All or nothing: on an error the model is as it was.

        Raises CheckpointError that lists missing, unexpected and mis-shaped keys; without ``strict`` only mis-shaped ones.
        """
        own: dict[str, Any] = {name: p.data for name, p in self.named_parameters()}
        own.update(self.named_buffers())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        shapes = [
            f"{name} has shape {tuple(np.shape(state[name]))}, the model expects {tuple(np.shape(own[name]))}"
            for name in own
            if name in state and tuple(np.shape(state[name])) != tuple(np.shape(own[name]))
        ]
        if shapes or (strict and (missing or unexpected)):
            lines = [f"load_state_dict: the state does not fit {type(self).__name__}."]
            lines += [f"  missing: {', '.join(missing)}"] if strict and missing else []
            lines += [f"  unexpected: {', '.join(unexpected)}"] if strict and unexpected else []
            lines += [f"  wrong shape: {line}" for line in shapes]
            raise CheckpointError("\n".join(lines))
        for name, p in self.named_parameters():
            if name in state:
                xp = xp_of(p.data)
                p.set(xp.asarray(state[name], dtype=p.dtype))
        for path, module in self.named_modules():
            for name in module._buffers:
                key = f"{path}.{name}" if path else name
                if key in state:
                    old = getattr(module, name)
                    module.set_buffer(name, xp_of(old).array(state[key], dtype=old.dtype))

    # ---- looking at it

    def extra_repr(self) -> str:
        """The settings of this layer, shown in its repr."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        body = "\n  ".join(lines)
        return f"{type(self).__name__}(\n  {body}\n)"


def _cast(array: Any, dtype: Any) -> Any:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ShapeError(f"Module.to: expected 'cpu', 'cuda', float32 or float64, got {dtype!r}.")
    return array.astype(dtype) if array.dtype.kind == "f" else array
