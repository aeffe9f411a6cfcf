"""The arrays of a step as a graph: which operation made each, by which rule, of which other arrays, and which is its adjoint.

An array that one operation makes and another reads is one node. The adjoint of a node is what its readers send back: the
``dx`` of one reader is that node's adjoint, several are summed in a node of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from cnnlib.microscope.anatomy import LETTERS, Anatomy, anatomy, to_numpy
from cnnlib.microscope.rules import Array, Product, Rule, Term, made_of, places, terms
from cnnlib.trace import Entry


@dataclasses.dataclass(eq=False)
class Node:
    """``rule`` speaks of arrays by the names of its operation, which ``names`` turns into nodes. ``step``: which operation
    made it, None for data and parameters. ``adjoint`` belongs to it; ``of``: the node whose adjoint it is."""

    label: str  # such as "c1.conv2d y", "c1.weight", "input"
    array: np.ndarray
    axes: tuple[str, ...]
    step: int | None = None
    kind: str = "made"  # "data", "parameter", "made", "inside", "adjoint"
    rule: Rule | None = None
    names: dict[str, Node] = dataclasses.field(default_factory=dict)
    adjoint: Node | None = None
    of: Node | None = None
    says: str = ""

    def terms(self, index: tuple[int, ...]) -> list[Term]:
        """The products that make one element."""
        assert self.rule is not None
        return terms(self.rule, self._arrays, index, self.array.shape)

    def made_of(self, index: tuple[int, ...]) -> float:
        """The element as its terms give it, which is what is stored up to rounding."""
        assert self.rule is not None
        return made_of(self.rule, self._arrays, index, self.array.shape)

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: node.array for name, node in self.names.items()}


@dataclasses.dataclass
class Operation:
    """One entry of the trace with its nodes by name."""

    entry: Entry
    anatomy: Anatomy
    nodes: dict[str, Node]

    @property
    def columns(self) -> list[tuple[str, Node, Node | None]]:
        """(name, array, its adjoint) from inputs to outputs, as they are shown beside each other."""
        partner = {name: self.nodes.get(f"d{name}", self.nodes.get(f"da_{name}")) for name in self.nodes}  # of a gate: da_i
        shown = {id(node) for node in partner.values()}
        rows = [(name, node, partner[name]) for name, node in self.nodes.items() if id(node) not in shown]
        inner = set(self.anatomy.inner)
        order = {**dict.fromkeys(self.entry.inputs, 0), **dict.fromkeys(inner, 1), **dict.fromkeys(self.anatomy.outputs, 2)}
        return sorted(rows, key=lambda row: order.get(row[0], 1))


def graph(entries: list[Entry]) -> list[Operation]:
    """The operations in the order in which they ran, their arrays linked."""
    return _Graph(entries).operations


class _Graph:
    def __init__(self, entries: list[Entry]):
        self.operations: list[Operation] = []
        self.by_name = {e.name: k for k, e in enumerate(entries)}
        self.leaves: dict[tuple, Node] = {}
        self.sent_back: dict[int, list[Node]] = {}  # id of a node -> adjoints that its readers sent
        for k, entry in enumerate(entries):
            self.operations.append(self._operation(k, entry))
        for operation in self.operations:
            self._adjoints_of_outputs(operation)
        for node in self.leaves.values():
            node.adjoint = self._total(node, None)
        for k, operation in enumerate(self.operations):
            self._rules(k, operation)

    def _operation(self, k: int, entry: Entry) -> Operation:
        about = anatomy(entry)
        nodes: dict[str, Node] = {}
        for name, a in entry.inputs.items():
            if a is not None:
                nodes[name] = self._input(entry, name, to_numpy(a), about)
        for name, a in about.inner.items():
            adjoint = name.startswith("da_") or (name.startswith("d") and name[1:] in about.inner)
            nodes[name] = Node(f"{entry.name} {name}", a, self._axes(about, name, a), k, "adjoint" if adjoint else "inside")
        for name, a in zip(about.outputs, entry.outputs, strict=True):
            a = to_numpy(a)
            like = next((n.axes for n in nodes.values() if n.array.shape == a.shape), ())
            nodes[name] = Node(f"{entry.name} {name}", a, self._axes(about, name, a) or like, k)
        for name, a in entry.grads.items():
            of, a = nodes[name], to_numpy(a)
            nodes[f"d{name}"] = node = Node(f"{entry.name} d{name}", a, of.axes, k, "adjoint", of=of)
            self.sent_back.setdefault(id(of), []).append(node)
        for name, node in nodes.items():
            node.says = node.says or about.says.get(name, "")
        return Operation(entry, about, nodes)

    def _axes(self, about: Anatomy, name: str, a: np.ndarray) -> tuple[str, ...]:
        named = tuple(about.axes_of(name).split())
        return named if len(named) == a.ndim and not set(named) <= set(LETTERS) else ()

    def _input(self, entry: Entry, name: str, a: np.ndarray, about: Anatomy) -> Node:
        source, axes = entry.sources[name], self._axes(about, name, a)
        if source in self.by_name and name in entry.which:
            operation = self.operations[self.by_name[source]]
            found = operation.nodes[operation.anatomy.outputs[entry.which[name]]]
            found.axes = found.axes or axes
            return found
        key = (source, a.shape, hashlib.sha1(np.ascontiguousarray(a).data).digest())
        if key not in self.leaves:
            kind = "parameter" if name in entry.parameters else "data"
            label = source if kind == "parameter" else "input" if name == "x" and source == "input" else name
            self.leaves[key] = Node(label, a, axes, kind=kind)
        return self.leaves[key]

    def _adjoints_of_outputs(self, operation: Operation) -> None:
        dys = operation.entry.dys or (None,) * len(operation.anatomy.outputs)
        for name, dy in zip(operation.anatomy.outputs, dys, strict=True):
            node = operation.nodes[name]
            if dy is not None:
                operation.nodes[f"d{name}"] = node.adjoint = self._total(node, to_numpy(dy))

    def _total(self, node: Node, arrived: Any) -> Any:
        """The adjoint of a node: the one that its reader sent, or the sum over several readers."""
        parts = self.sent_back.get(id(node), [])
        if len(parts) == 1 and (arrived is None or np.array_equal(parts[0].array, arrived, equal_nan=True)):
            return parts[0]
        if not parts and arrived is None:
            return None
        array = np.sum([p.array for p in parts], axis=0) if arrived is None else arrived
        total = Node(f"∂J/∂({node.label})", array, node.axes, node.step, "adjoint", of=node)
        if not parts:
            total.says = "where backward begins: ∂J/∂J = 1"
            return total
        names = {f"from reader {i}": part for i, part in enumerate(parts)}
        (at,) = places("#")
        total.names = names
        total.rule = Rule(tuple(Product((Array(name).flat(at),)) for name in names))
        total.says = f"the sum of what its {len(parts)} readers send back"
        return total

    def _rules(self, k: int, operation: Operation) -> None:
        for name, how in operation.anatomy.rules.items():
            node = operation.nodes.get(name)
            if node is not None and node.step == k and node.rule is None and how.sums:
                node.rule, node.names = how, operation.nodes
