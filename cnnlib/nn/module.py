"""Module: a tree of parameters, buffers and sub-modules with a forward. Modules hold no maths: that is in cnnlib.ops."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np

from cnnlib.backends import xp_of
from cnnlib.backends.state import scope
from cnnlib.errors import CheckpointError, DtypeError
from cnnlib.tensor import Parameter, to_device

_running: ContextVar[Module | None] = ContextVar("cnnlib_running", default=None)  # the module whose forward this is


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
    _parameters: dict[str, Parameter]
    _buffers: dict[str, None]
    _modules: dict[str, Module]
    _forward_hooks: list[tuple[Callable[[Module, tuple, Any], None]]]
    _named: bool

    def __init__(self) -> None:
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_buffers", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "_forward_hooks", [])
        object.__setattr__(self, "_named", False)
        object.__setattr__(self, "training", True)

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(self, ...).")

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        caller, outer = _running.get(), scope.get()
        if caller is None and not self._named:
            self._name_parameters()
        name = "" if caller is None else caller._path_of(self)
        running = _running.set(self)
        path = scope.set(f"{outer}.{name}" if outer and name else outer or name)
        try:
            y = self.forward(*inputs, **settings)
            for (hook,) in tuple(self._forward_hooks):
                hook(self, inputs, y)
        finally:
            scope.reset(path)
            _running.reset(running)
        return y

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What runs in here counts as part of this module's forward: paths in traces and messages start at it.

        For another method than ``forward`` that runs parts of the module.
        """
        if not self._named:
            self._name_parameters()
        running, path = _running.set(self), scope.set("")
        try:
            yield
        finally:
            scope.reset(path)
            _running.reset(running)

    def _name_parameters(self) -> None:
        """Tell every parameter its path, for messages: when the model is called for the first time, and after a change."""
        list(self.named_parameters())
        object.__setattr__(self, "_named", True)

    def _path_of(self, module: Module) -> str:
        """The path from this module to one below it, "" when it is not below."""
        for name, child in self._modules.items():
            if child is module:
                return name
        return next((path for path, below in self.named_modules() if below is module), "")

    # ---- the tree

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() before it assigns {name!r}.")
        if name in self._buffers and not isinstance(value, (Parameter, Module)):
            self.set_buffer(name, value)
            return
        object.__setattr__(self, "_named", False)
        for registry in (self._parameters, self._buffers, self._modules):
            registry.pop(name, None)
        if isinstance(value, Parameter):
            self._parameters[name] = value
            value.name = value.name or name
        elif isinstance(value, Module):
            self._modules[name] = value
        elif isinstance(value, (list, tuple)) and any(isinstance(v, (Module, Parameter)) for v in value):
            warnings.warn(
                f"{type(self).__name__}.{name} is a plain list: what is in it does not belong to the model and will not learn. "
                "Use nn.ModuleList or nn.Sequential.",
                stacklevel=2,
            )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # only called for what is not there
        if name in ("_parameters", "_modules", "_forward_hooks", "_named"):
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__().")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")

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
                    full = f"{path}.{name}" if path else name
                    if len(full) > len(p.name):
                        p.name = full  # the longest path: seen from the whole model, not from a part of it
                    yield full, p

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
        entry = (hook,)  # an object of its own, so that one of two equal hooks can be removed
        self._forward_hooks.append(entry)

        def remove() -> None:
            self._forward_hooks[:] = [e for e in self._forward_hooks if e is not entry]

        return remove

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
        if not isinstance(state, Mapping):
            raise DtypeError("load_state_dict: state must be a dict of arrays, as state_dict() gives, got "
                             f"{type(state).__name__}; cnnlib.train.load(path).load_into(model) reads a file.")  # fmt: skip
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
        values = {name: _like(own[name], state[name], name) for name in own if name in state}
        for name, p in self.named_parameters():
            if name in values:
                p.set(values[name])
        for path, module in self.named_modules():
            for name in module._buffers:
                key = f"{path}.{name}" if path else name
                if key in values:
                    module.set_buffer(name, values[key])

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


@contextlib.contextmanager
def in_mode(model: Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside the block; afterwards each module has its own back."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            object.__setattr__(module, "training", mode)


def _like(own: Any, value: Any, name: str) -> Any:
    """A copy of ``value`` with dtype and device of ``own``."""
    if np.asarray(value).dtype.kind not in "fiub":
        raise CheckpointError(f"load_state_dict: {name} must hold real numbers, got {np.asarray(value).dtype}.")
    return xp_of(own).array(value, dtype=own.dtype)


def _cast(array: Any, dtype: Any) -> Any:
    if str(getattr(dtype, "__name__", dtype)) not in ("float32", "float64"):
        raise DtypeError(f"Module.to: expected 'cpu', 'cuda', float32 or float64, got {dtype!r}.")
    return array.astype(dtype) if array.dtype.kind == "f" else array
