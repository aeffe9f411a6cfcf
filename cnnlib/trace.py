"""trace(): a look at every operation while it runs, forward and backward.

>>> import cnnlib as cl
>>> w = cl.Tensor([3.0], requires_grad=True)
>>> with cl.trace() as t:
...     (w * w).sum().backward()
>>> t["multiply"].grads["a"]
array([3.], dtype=float32)
"""

from __future__ import annotations

import dataclasses
import html
import time
from typing import Any

import numpy as np

from cnnlib.backends import synchronize
from cnnlib.backends.state import Changed, scope
from cnnlib.errors import UnknownNameError, unknown_name
from cnnlib.tensor import Parameter, Tensor


@dataclasses.dataclass
class Entry:
    """One operation that ran. Arrays that may change later (parameters) are copies; the others are the arrays themselves."""

    op: Any  # its class, such as ops.Conv2d
    name: str  # module path and operation, such as "0.conv2d"
    formula: str
    settings: dict[str, Any]
    inputs: dict[str, Any]  # argument name -> array or None
    sources: dict[str, str]  # argument name -> name of the entry or parameter that it came from
    which: dict[str, int]  # argument name -> which output of that entry
    parameters: tuple[str, ...]  # names of the arguments that are parameters
    outputs: tuple[Any, ...]
    saved: dict[str, Any]  # what forward kept for backward
    forward_ms: float
    backward_ms: float | None = None
    dys: tuple[Any, ...] = ()  # adjoints that arrived, one per output
    grads: dict[str, Any] = dataclasses.field(default_factory=dict)  # argument name -> adjoint that backward returned

    @property
    def activation(self) -> float:
        """Root mean square of the first output."""
        return _rms(self.outputs[0])

    @property
    def adjoint(self) -> float | None:
        """Root mean square of the adjoint that arrived at the first output, None before backward."""
        return _rms(self.dys[0]) if self.dys and self.dys[0] is not None else None


class trace(Changed):
    """Record every operation inside the block: ``print(t)``, ``t["conv1.conv2d"]``, ``t.to_svg()``, a table in notebooks.

    Backward of a graph recorded inside the block is recorded too, even after the block. Traces nest; the innermost records.
    """

    def __init__(self) -> None:
        super().__init__(recorder=self)
        self.entries: list[Entry] = []
        self._by_context: dict[int, tuple[Any, Entry]] = {}
        self._by_array: dict[int, tuple[Any, str, int]] = {}
        self._names: dict[str, int] = {}

    # ---- called by the engine

    def forward(self, ctx: Any, inputs: tuple, arrays: list, outputs: tuple, started: float) -> None:
        synchronize(outputs[0])  # so that the time is the operation's, not only that of asking for it
        milliseconds = (time.perf_counter() - started) * 1e3
        arguments = [ctx.op.argument(i) for i in range(len(inputs))]
        made = [self._by_array.get(id(a)) for a in arrays]
        entry = Entry(
            op=ctx.op,
            name=self._unique(ctx),
            formula=ctx.op.formula,
            settings=dict(ctx.settings),
            inputs={n: _kept(a, leaf=m is None) for n, a, m in zip(arguments, arrays, made, strict=True)},
            sources={n: self._source(t, a) for n, t, a in zip(arguments, inputs, arrays, strict=True) if a is not None},
            which={n: known[2] for n, t, a in zip(arguments, inputs, arrays, strict=True) if (known := self._known(t, a))},
            parameters=tuple(n for n, t in zip(arguments, inputs, strict=True) if isinstance(t, Parameter)),
            outputs=tuple(_kept(y) for y in outputs),
            saved={n: _kept(v, leaf=any(v is a for a in arrays)) for n, v in (ctx.saved or {}).items()},
            forward_ms=milliseconds,
        )
        self.entries.append(entry)
        self._by_context[id(ctx)] = (ctx, entry)
        for i, y in enumerate(outputs):
            self._by_array.setdefault(id(y), (y, entry.name, i))

    def backward(self, ctx: Any, dys: list, dxs: list, started: float) -> None:
        entry = self._by_context[id(ctx)][1]
        for dx in dxs:
            if dx is not None:
                synchronize(dx)
        entry.backward_ms = (time.perf_counter() - started) * 1e3
        entry.dys = tuple(dys)
        entry.grads = {n: dx for n, dx in zip(entry.inputs, dxs, strict=True) if dx is not None}

    def _unique(self, ctx: Any) -> str:
        path = scope.get()
        name = f"{path}.{ctx.op.name()}" if path else ctx.op.name()
        self._names[name] = count = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"

    def _source(self, t: Any, a: Any) -> str:
        if isinstance(t, Parameter):
            return t.name or "parameter"
        known = self._known(t, a)
        return known[1] if known else "input"

    def _known(self, t: Any, a: Any) -> tuple[Any, str, int] | None:
        return self._by_array.get(id(t.data) if isinstance(t, Tensor) else id(a))

    # ---- looking at it

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self):
        return iter(self.entries)

    def __getitem__(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        if not self.entries:
            raise UnknownNameError(
                "this trace recorded no operation: only what runs inside `with cl.trace() as t:` is recorded."
            )
        raise unknown_name("operation in this trace", name, [e.name for e in self.entries])

    def rows(self) -> list[dict[str, str]]:
        """The trace as text, one row per operation in the order in which they ran."""
        return [
            {
                "operation": e.name,
                "formula": e.formula,
                "shapes": _shapes(e),
                "|activation|": f"{e.activation:.3g}",
                "|adjoint|": "" if e.adjoint is None else f"{e.adjoint:.3g}",
                "saved": ", ".join([*e.saved][:3]) + (", …" if len(e.saved) > 3 else ""),
                "ms": f"{e.forward_ms:.2f}" + ("" if e.backward_ms is None else f" + {e.backward_ms:.2f}"),
            }
            for e in self.entries
        ]

    def __str__(self) -> str:
        rows = self.rows()
        if not rows:
            return "trace: no operation ran"
        widths = {column: max(len(column), *(len(r[column]) for r in rows)) for column in rows[0]}
        line = lambda r: "  ".join(f"{r[c]:{w}}" for c, w in widths.items()).rstrip()  # noqa: E731
        return "\n".join([line({c: c for c in widths}), *map(line, rows)])

    def __repr__(self) -> str:
        return f"<trace of {len(self.entries)} operations: print it, or index it by name>"

    def _repr_html_(self) -> str:
        rows = self.rows()
        if not rows:
            return "<p>trace: no operation ran</p>"
        cells = lambda r, tag: "".join(f"<{tag} style='text-align:left'>{html.escape(v)}</{tag}>" for v in r)  # noqa: E731
        body = "".join(f"<tr>{cells(r.values(), 'td')}</tr>" for r in rows)
        return f"<table><tr>{cells(rows[0], 'th')}</tr>{body}</table>"

    def to_svg(self) -> str:
        """A picture of the graph as SVG text: operations as boxes, from top to bottom in the order of data flow."""
        from cnnlib.viz.graph import graph_svg

        return graph_svg(self.entries)


def _kept(value: Any, leaf: bool = False) -> Any:
    """What may change later, as a copy: arrays that came from outside the trace, and views, perhaps of parameters."""
    if isinstance(value, (list, tuple)):
        parts = [_kept(v, leaf=True) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    is_array = not isinstance(value, type) and any(hasattr(value, f"__{kind}_interface__") for kind in ("array", "cuda_array"))
    return value.copy() if is_array and (leaf or value.base is not None) else value


def _rms(a: Any) -> float:
    return float((a.astype(np.float64) ** 2).mean() ** 0.5) if a.size else 0.0


def _shapes(e: Entry) -> str:
    shape = lambda a: "(" + "·".join(map(str, a.shape)) + ")"  # noqa: E731
    inputs = ", ".join(f"{n} {shape(a)}" for n, a in e.inputs.items() if a is not None)
    return f"{inputs} → {', '.join(map(shape, e.outputs))}"
