"""The graph of a model's layers, read off one forward pass: what each layer gets its input from, and what it makes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cnnlib import nn, ops
from cnnlib.backends.state import scope
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.nn.module import Module
from cnnlib.op import no_grad
from cnnlib.tensor import Tensor
from cnnlib.trace import trace
from cnnlib.viz.asking import looked_at, on_device_of


@dataclasses.dataclass(eq=False)
class Layer:
    """One call of a layer, or one operation of a forward that is no layer, such as the sum of a skip connection."""

    name: str  # path of the module, or path and operation
    kind: str  # class of the module, or the operation
    module: bool = False
    detail: str = ""  # its settings
    shape: tuple[int, ...] = ()  # of the output, without the batch axis
    parameters: int = 0
    kernel: bool = False  # whether it has weights of two axes or more
    sources: list[Layer] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class _Ran:
    """One operation that ran: inside which module, on whose outputs."""

    path: str
    operation: str
    sources: list[_Ran]
    shape: tuple[int, ...]
    layer: Layer | None = None


class _Recorder(trace):
    """A trace that keeps, instead of arrays, who made what out of what. The outputs stay alive: an id means one array."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[_Ran] = []
        self.made: dict[int, tuple[Any, _Ran]] = {}

    def forward(self, ctx: Any, inputs: tuple, arrays: list, outputs: tuple, started: float) -> None:
        found = [self.maker(t) for t in inputs]
        op = _Ran(ctx.scope, ctx.op.name(), list(dict.fromkeys(m for m in found if m)), outputs[0].shape[1:])
        self.add(op, *outputs)

    def add(self, op: _Ran, *outputs: Any) -> None:
        self.ran.append(op)
        for y in outputs:
            self.made[id(y)] = (y, op)

    def maker(self, x: Any) -> _Ran | None:
        """The operation that made a tensor; None for parameters, constants and whatever came from elsewhere."""
        return self.made.get(id(getattr(x, "data", x)), (None, None))[1]


def layers_of(model: Module, input_shape: tuple[int, ...], depth: int | None = None, dtype: Any = None) -> list[Layer]:
    """The layers in the order in which they ran, the input first; edges are their ``sources``.

    A layer is a module that called no other module; with ``depth``, everything below that many names in a path is one layer:
    ``layer1.0.conv2`` belongs to ``layer1.0`` at depth 2. The model is evaluated on one sample of zeros, without a tape, and
    is afterwards as it was. ``dtype``: of the sample, by default that of the parameters.

    Raises ShapeError or DtypeError where the model refuses the sample, ValueRangeError for a depth below 1.
    """
    if depth is not None and (not isinstance(depth, int) or depth < 1):
        raise ValueRangeError(f"architecture: depth must be a whole number of at least 1, got {depth!r}.")
    if not isinstance(input_shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise ShapeError(
            f"architecture: input_shape must be the sizes of one sample, such as (1, 28, 28), got {input_shape!r}."
        )
    like: Any = next(model.parameters(), None)
    zeros = np.zeros((1, *input_shape), dtype or (np.float32 if like is None else like.dtype))
    recorder = _Recorder()
    close = _closer(recorder, depth)
    remove = [m.register_forward_hook(close) for m in model.modules()]
    try:
        with looked_at(model), no_grad(), recorder:
            x = ops.reshape(on_device_of(model, zeros), zeros.shape)  # so that the input has a maker, unlike constants
            model(Tensor.wrap(x.data))
    finally:
        for undo in remove:
            undo()
    recorder.ran[0].layer = Layer("input", "", shape=tuple(input_shape))
    return _condensed(recorder.ran)


def _closer(recorder: _Recorder, depth: int | None) -> Any:
    """A hook that, when a module has run, makes a layer of the operations that ran inside it."""
    called: set[str] = set()
    counted: set[int] = set()

    def close(module: Module, inputs: tuple, y: Any) -> None:
        path = scope.get()  # where it was called from: a module that two others share has two
        names = path.split(".") if path else []
        inner = any(c != path and _inside(c, path) for c in called)
        called.add(path)
        if (depth is not None and len(names) > depth) or (inner and len(names) != depth):
            return
        mine = [op for op in recorder.ran[1:] if op.layer is None and _inside(op.path, path)]
        if not mine:  # dropout in evaluation: nothing ran, and what comes out is what went in
            source = recorder.maker(y)
            if source is None or isinstance(module, nn.Identity):
                return
            mine = [_Ran(path, "", [source], source.shape)]
            recorder.add(mine[0], y.data)
        new = [p for p in module.parameters() if id(p) not in counted]
        counted.update(map(id, new))
        layer = Layer(
            name=path or type(module).__name__,
            kind=type(module).__name__,
            module=True,
            detail=module.extra_repr(),
            shape=mine[-1].shape,
            parameters=sum(p.size for p in new),
            kernel=any(p.ndim > 1 for p in module.parameters()),
        )
        for op in mine:
            op.layer = layer

    return close


def _inside(path: str, module: str) -> bool:
    return not module or path == module or path.startswith(module + ".")


def _condensed(ran: list[_Ran]) -> list[Layer]:
    """Layers with their sources; a second call of a layer is called ``name (2)``."""
    layers: dict[Layer, None] = {}
    calls: dict[str, int] = {}
    for op in ran:
        if op.layer is None:
            name = f"{op.path}.{op.operation}" if op.path else op.operation
            op.layer = Layer(name, op.operation, shape=op.shape)
        layer = op.layer
        if layer not in layers:
            calls[layer.name] = calls.get(layer.name, 0) + 1
            layer.name += f" ({calls[layer.name]})" if calls[layer.name] > 1 else ""
        layers[layer] = None
        for source in op.sources:
            if source.layer is not layer and source.layer is not None and source.layer not in layer.sources:
                layer.sources.append(source.layer)
    return list(layers)
