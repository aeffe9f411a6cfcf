"""summary(): what a model costs, layer by layer.

- parameters: weights and biases in separate columns (biases: what a layer calls ``bias``, and arrays of one axis
  named ``bias…`` or ``beta…``);
- neurons: the elements of the layer's output for one sample. Layers that evaluation does not call, such as GoogLeNet's
  heads, have none: their parameters stand in the row of the module that holds them;
- multiply–adds, for one sample: Linear O·I, convolution OH·OW·F·(C/groups)·KH·KW, locally connected the same (each weight
  once), transposed convolution H·W·C·(F/groups)·KH·KW, other layers 0; additions of biases are not counted. A layer of your
  own says how many by a method ``multiply_adds(x_shape, y_shape)``: the batch axis of x is 1, y has none. Likewise
  ``neurons(y_shape)``, where they are not the elements of what the layer returns.

Source: lecture: convolutional networks, AlexNet's table.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from cnnlib import random
from cnnlib.errors import ShapeError
from cnnlib.nn.conv import Conv1d, Conv2d, ConvTranspose2d
from cnnlib.nn.linear import DropConnect, Linear, LocallyConnected2d
from cnnlib.nn.module import Module
from cnnlib.op import no_grad
from cnnlib.tensor import Parameter, Tensor, to_device

UNCUT = 1000  # columns: a table takes what its numbers need, and none is cut off


@dataclasses.dataclass
class Row:
    """One layer; shapes without the batch axis."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    biases: int
    neurons: int
    multiply_adds: int
    share: float = 0.0  # of the model's multiply–adds, 0 … 1


class Summary:
    """The rows of a model and their totals. ``print`` shows a table, :meth:`as_dict` gives plain numbers."""

    def __init__(self, model: str, input_shape: tuple[int, ...], rows: list[Row]):
        self.model, self.input_shape, self.rows = model, input_shape, rows
        for row in rows:
            row.share = row.multiply_adds / self.multiply_adds if self.multiply_adds else 0.0

    @property
    def weights(self) -> int:
        return sum(row.weights for row in self.rows)

    @property
    def biases(self) -> int:
        return sum(row.biases for row in self.rows)

    @property
    def parameters(self) -> int:
        return self.weights + self.biases

    @property
    def neurons(self) -> int:
        """Outputs of the layers that have parameters, as in the lecture's count; pooling and activations add none."""
        return sum(row.neurons for row in self.rows if row.weights + row.biases)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dicts: ready for ``json.dumps``."""
        totals = ("parameters", "weights", "biases", "neurons", "multiply_adds")
        return {
            "model": self.model,
            "input_shape": list(self.input_shape),
            "layers": [dataclasses.asdict(row) | {"output_shape": list(row.output_shape)} for row in self.rows],
            **{name: getattr(self, name) for name in totals},
        }

    def __rich__(self) -> Any:
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(
            title=f"{self.model}, input {_shape(self.input_shape)}",
            show_footer=True,
            box=SIMPLE,
            pad_edge=False,
            collapse_padding=True,
        )
        totals = [f"{n:,}" for n in (self.weights, self.biases, self.neurons, self.multiply_adds)]
        names = ("layer", "kind", "output", "weights", "biases", "neurons", "mult–adds", "share")
        columns = zip(names, ("total", "", "", *totals, ""), strict=True)
        for i, (name, total) in enumerate(columns):
            table.add_column(name, total, justify="left" if i < 3 else "right", no_wrap=True)
        for r in self.rows:
            numbers = [_number(n) for n in (r.weights, r.biases, r.neurons, r.multiply_adds)]
            table.add_row(r.name, r.kind, _shape(r.output_shape), *numbers, f"{r.share:.1%}" if r.multiply_adds else "")
        table.caption = f"{self.parameters:,} parameters. Neurons in total: of the layers with parameters."
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=UNCUT)
        with console.capture() as text:
            console.print(self)
        return text.get().rstrip()

    __repr__ = __str__


def summary(model: Module, input_shape: tuple[int, ...], dtype: Any = None) -> Summary:
    """Run a batch of one zero sample of ``input_shape`` (without the batch axis) through the model and count.

    ``dtype``: of the sample, by default that of the parameters; ``"int64"`` for token numbers. The model is evaluated
    without a tape and is afterwards as it was: mode, parameters, buffers and random streams.

    >>> from cnnlib import nn
    >>> summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,)).parameters
    15

    Raises ShapeError where input_shape is no shape, and what the model raises for such a sample.
    """
    if not isinstance(input_shape, (tuple, list)):
        raise ShapeError(
            f"summary: input_shape must be the sizes of one sample without the batch axis, such as (1, 28, 28), "
            f"got {input_shape!r}."
        )
    calls = _calls(model, tuple(input_shape), dtype)
    names = {id(module): path for path, module in reversed(list(model.named_modules()))}
    called = {id(module) for module, _, _ in calls}
    counted: set[int] = set()
    rows = []
    for module, inputs, outputs in calls:
        inner = [m for m in module.modules() if m is not module and id(m) in called]
        weights, biases = _count(module, called, counted)
        if inner and not weights + biases:
            continue  # a container: its layers have rows of their own
        shapes = [y.shape[1:] for y in outputs]
        rows.append(Row(
            name=names[id(module)] or type(module).__name__,
            kind=type(module).__name__,
            output_shape=shapes[0],
            weights=weights,
            biases=biases,
            neurons=0 if inner and not module._parameters else _neurons(module, shapes),  # counted in its layers
            multiply_adds=_multiply_adds(module, inputs[0].shape, shapes[0]),
        ))  # fmt: skip
    return Summary(type(model).__name__, tuple(input_shape), rows)


def _calls(model: Module, input_shape: tuple[int, ...], dtype: Any) -> list[tuple[Module, list, list]]:
    """(module, its input tensors, its output tensors) of every call in one forward pass, in order of their ends."""
    calls: list[tuple[Module, list, list]] = []
    modules = list(model.modules())
    modes = [module.training for module in modules]
    like: Any = next(model.parameters(), None)
    dtype = dtype or (like.dtype if like is not None else np.float32)
    zeros = to_device(np.zeros((1, *input_shape), dtype), like.device if like is not None else "cpu")
    streams = random.get_state()
    remove = [m.register_forward_hook(lambda m, xs, y: calls.append((m, _tensors(xs), _tensors(y)))) for m in modules]
    try:
        model.eval()
        with no_grad():
            model(Tensor(zeros))
    finally:
        random.set_state(streams)
        for undo in remove:
            undo()
        for module, mode in zip(modules, modes, strict=True):
            object.__setattr__(module, "training", mode)
    return calls


def _tensors(value: Any) -> list:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return [
        v for item in values for v in (_tensors(item) if isinstance(item, (tuple, list)) else [item]) if hasattr(v, "shape")
    ]


def _count(module: Module, called: set[int], counted: set[int]) -> tuple[int, int]:
    """(weights, biases) of the module and of sub-modules that it uses without calling them; each parameter once."""
    weights = biases = 0
    stack = [module]
    while stack:
        m = stack.pop()
        for name, p in m._parameters.items():
            if id(p) in counted:
                continue
            counted.add(id(p))
            if _is_bias(name, p):
                biases += p.size
            else:
                weights += p.size
        stack += [child for child in m.children() if id(child) not in called]
    return weights, biases


def _is_bias(name: str, p: Parameter) -> bool:
    return name == "bias" or (p.ndim == 1 and name.startswith(("bias", "beta")))


def _neurons(module: Module, outputs: list[tuple[int, ...]]) -> int:
    return module.neurons(outputs[0]) if hasattr(module, "neurons") else sum(math.prod(y) for y in outputs)


def _multiply_adds(module: Module, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    """x: shape of the input with its batch axis of 1, y: shape of the output without."""
    if hasattr(module, "multiply_adds"):
        return module.multiply_adds(x, y)
    if isinstance(module, DropConnect):
        module = module.linear
    if isinstance(module, Linear):
        return math.prod(y) * module.in_features
    if isinstance(module, LocallyConnected2d):
        return module.weight.size
    if isinstance(module, (Conv1d, Conv2d)):
        return math.prod(y) * math.prod(module.weight.shape[1:])
    if isinstance(module, ConvTranspose2d):
        return math.prod(x) * math.prod(module.weight.shape[1:])
    return 0


def _number(n: int) -> str:
    return f"{n:,}" if n else ""


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "1"
