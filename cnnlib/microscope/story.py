"""explain(): one training step as a story, from the input to the loss and back, every number with the products that made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cnnlib import nn, ops
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.microscope.nodes import Node, Operation, graph
from cnnlib.microscope.rules import Term
from cnnlib.microscope.written import as_json
from cnnlib.nn.module import Module, in_mode
from cnnlib.random import get_state, set_state
from cnnlib.tensor import Tensor, to_device
from cnnlib.trace import Entry, trace
from cnnlib.viz.figure import to_array

REPEATS = 3  # of which the shortest time of each operation counts


def explain(model: Module, x: Any, y: Any, loss: Any = None) -> Story:
    """Run one training step of ``model`` on the batch x, y, and tell it operation by operation.

    ``x``: what the model takes, an array or Tensor; integers for a model that begins with an embedding. ``y``: the targets.
    ``loss``: a function of (what the model returns, y), by default cross-entropy for integer y and the squared error else;
    of a model that returns several things, a language model its state for one, the first. Scores (T, B, V) against
    labels (T, B) are taken as T·B rows.

    The result prints as a story; ``story.terms("c1.conv2d", "y", (0, 2, 5, 5))`` are the products of one element,
    ``story.html()`` is a page on which one clicks through them, ``story.as_dict()`` the numbers. The model is in training
    mode during the step, and afterwards as before: parameters, gradients, running statistics, random streams.

    >>> import cnnlib as cl
    >>> cl.manual_seed(0)
    >>> net = cl.nn.Linear(2, 3)
    >>> story = cl.explain(net, np.array([[1.0, 2.0]], np.float32), np.array([0]))
    >>> [step.name for step in story]
    ['linear', 'cross_entropy']
    >>> for term in story.terms("linear", "dw", (0, 1)):
    ...     print(term.factors[1][:2])
    ('x', (0, 1))

    Raises ShapeError where the loss is not one number, and what the model and the loss raise.

    Source: lecture: backpropagation; Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", 1986.
    """
    like: Any = next(model.parameters(), None)
    device = "cpu" if like is None else like.device
    given, target = (Tensor(to_device(to_array(a), device)) for a in (x, y))
    with _as_before(model), in_mode(model, training=True):
        streams = get_state()
        entries, value = _traced(model, given, target, loss)
        for _ in range(REPEATS - 1):
            set_state(streams)  # the same dropout masks each time
            for entry, again in zip(entries, _traced(model, given, target, loss)[0], strict=True):
                entry.forward_ms = min(entry.forward_ms, again.forward_ms)
                if entry.backward_ms is not None and again.backward_ms is not None:
                    entry.backward_ms = min(entry.backward_ms, again.backward_ms)
    return Story(graph(entries), value, type(model).__name__)


def _traced(model: Module, x: Tensor, y: Tensor, loss: Any) -> tuple[list[Entry], float]:
    with trace() as t:
        value = _step(model, x, y, loss)
    return list(t), value


def _step(model: Module, x: Tensor, y: Tensor, loss: Any) -> float:
    result = model(x)
    scores = result[0] if isinstance(result, (tuple, list)) else result
    value = (loss or _usual_loss)(scores, y)
    if value.size != 1:
        raise ShapeError(f"explain: the loss must be one number, got shape {value.shape}: average or sum it.")
    for p in model.parameters():
        p.grad = None
    value.backward()
    return float(value.item())


def _usual_loss(scores: Tensor, y: Tensor) -> Tensor:
    if y.dtype.kind == "f":
        return nn.MSELoss()(scores, y)
    if scores.ndim > 2 and scores.shape[:-1] == y.shape:
        scores, y = ops.reshape(scores, (-1, scores.shape[-1])), Tensor(y.data.reshape(-1))
    return nn.CrossEntropyLoss()(scores, y)


@contextmanager
def _as_before(model: Module) -> Iterator[None]:
    grads = [(p, p.grad) for p in model.parameters()]
    modules, buffers = dict(model.named_modules()), [(path.rpartition("."), a.copy()) for path, a in model.named_buffers()]
    streams = get_state()
    try:
        yield
    finally:
        set_state(streams)
        for p, grad in grads:
            p.grad = grad
        for (path, _, name), a in buffers:
            modules[path].set_buffer(name, a)


class Step:
    """One operation of the story: its numbers, as it ran, and its share of the whole."""

    def __init__(self, operation: Operation, time: float, memory: float):
        entry = operation.entry
        self.operation, self.name, self.formula = operation, entry.name, entry.formula
        self.forward_ms, self.backward_ms = entry.forward_ms, entry.backward_ms
        self.time_share, self.memory_share = time, memory

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of inputs and outputs, by name."""
        return {name: self.operation.nodes[name].array.shape for name in (*self._inputs, *self.operation.anatomy.outputs)}

    @property
    def _inputs(self) -> list[str]:
        return [name for name, a in self.operation.entry.inputs.items() if a is not None]

    @property
    def saved(self) -> dict[str, str]:
        """What forward kept for backward: name -> shape, or the value."""
        return {name: _described(v) for name, v in self.operation.entry.saved.items() if v is not None}

    @property
    def saved_bytes(self) -> int:
        return saved_bytes(self.operation)

    @property
    def norms(self) -> dict[str, float]:
        """Root mean squares of inputs, outputs and adjoints, by name."""
        made = {*self._inputs, *self.operation.anatomy.outputs}
        made |= {f"d{name}" for name in made}
        return {
            name: rms(node.array)
            for name, node in self.operation.nodes.items()
            if name in made and node.array.dtype.kind == "f"
        }

    @property
    def parameter_gradients(self) -> dict[str, float]:
        """Path of each parameter -> root mean square of its gradient."""
        nodes = self.operation.nodes
        return {nodes[n].label: rms(nodes[f"d{n}"].array) for n in self.operation.entry.parameters if f"d{n}" in nodes}

    @property
    def rules(self) -> dict[str, str]:
        """How each array is made, where that is known: ``y`` -> ``Σ_i x[n, i] · w[o, i] + b[o]``."""
        found = {}
        for name, node in self.operation.nodes.items():
            if name in self.operation.anatomy.rules and node.rule is not None:
                found[name] = (
                    f"{name}[{', '.join(node.rule.axes)}] = {node.rule}" if node.rule.axes else f"{name} = {node.rule}"
                )
        return found

    @property
    def note(self) -> str:
        return self.operation.anatomy.note

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "formula": self.formula, "shapes": {n: list(s) for n, s in self.shapes.items()},
            "settings": {n: str(v) for n, v in self.operation.entry.settings.items()},
            "sources": dict(self.operation.entry.sources), "saved": self.saved, "saved_bytes": self.saved_bytes,
            "norms": self.norms, "parameter_gradients": self.parameter_gradients, "forward_ms": self.forward_ms,
            "backward_ms": self.backward_ms, "time_share": self.time_share, "memory_share": self.memory_share,
            "rules": self.rules, "note": self.note,
        }  # fmt: skip


class Story:
    """The steps of one training step, in the order in which they ran: iterate over them, or take one by its name."""

    def __init__(self, operations: list[Operation], loss: float, model: str):
        times = [o.entry.forward_ms + (o.entry.backward_ms or 0.0) for o in operations]
        kept = [saved_bytes(o) for o in operations]
        self.loss, self.model, self.milliseconds, self.saved_bytes = loss, model, sum(times), sum(kept)
        self.steps = [
            Step(o, ms / (self.milliseconds or 1.0), size / (self.saved_bytes or 1))
            for o, ms, size in zip(operations, times, kept, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise unknown_name("operation in this story", name, [s.name for s in self.steps])

    def node(self, name: str, array: str) -> Node:
        """The array called ``array`` of the operation ``name``."""
        nodes = self[name].operation.nodes
        if array not in nodes:
            raise unknown_name(f"array of {name}", array, nodes)
        return nodes[array]

    def terms(self, name: str, array: str, index: tuple[int, ...]) -> list[Term]:
        """The products that make element ``index`` of an array: "y" by its inputs, "dx" by the adjoints that flow back.

        Raises UnknownNameError, ShapeError (an index that the array does not have), ValueRangeError (an array that no rule
        makes: data, a parameter, an operation of which only the numbers are known).
        """
        node = self.node(name, array)
        index = tuple(index) if isinstance(index, (tuple, list)) else (index,)
        if len(index) != node.array.ndim or not all(0 <= i < n for i, n in zip(index, node.array.shape, strict=True)):
            raise ShapeError(f"terms: {array} of {name} has shape {node.array.shape}, there is no element {index}.")
        if node.rule is None:
            why = (
                "it is a parameter or came from outside"
                if node.step is None
                else self[name].note or "its numbers are all there is"
            )
            raise ValueRangeError(f"terms: no rule makes {array} of {name}: {why}.")
        return node.terms(index)

    def as_dict(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        whole = {"model": self.model, "loss": self.loss, "milliseconds": self.milliseconds, "saved_bytes": self.saved_bytes}
        return {**whole, "steps": [step.as_dict() for step in self.steps]}

    def json(self) -> str:
        """``as_dict`` as text; NaN and infinity, which JSON does not know, as "nan" and "inf"."""
        return as_json(self.as_dict(), indent=2)

    def html(self, megabytes: float = 4.0) -> str:
        """The page, as text: one file for a browser, that needs no network. Arrays that do not fit into ``megabytes`` are
        left out, the largest first, and the page says so where they would stand."""
        from cnnlib.microscope.page import page

        return page(self, megabytes)

    def __rich__(self) -> Any:
        from cnnlib.microscope.terminal import told

        return told(self)

    def __str__(self) -> str:
        from cnnlib.microscope.terminal import as_text

        return as_text(self)

    def __repr__(self) -> str:
        return f"<story of {len(self.steps)} operations, loss {self.loss:.4g}: print it, or write story.html() into a file>"


def rms(a: np.ndarray) -> float:
    return float((a.astype(np.float64) ** 2).mean() ** 0.5) if a.size else 0.0


def saved_bytes(operation: Operation) -> int:
    """Bytes of the arrays that forward kept for backward, without parameters, which are there anyway."""
    entry = operation.entry
    kept = [v for name, v in entry.saved.items() if hasattr(v, "nbytes") and name not in entry.parameters]
    return sum(int(v.nbytes) for v in kept)


def _described(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}" if value.shape else f"{value:.6g}"
    return str(value)
