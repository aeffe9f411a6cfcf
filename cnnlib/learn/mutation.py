"""Wrong versions of a right solution, made by machine: one small change to its syntax tree each.

>>> [m.change for m in mutants("def f(a, b):\\n    return a - b\\n")][:3]
['f: a - b -> a + b', 'f: a - b -> a', 'f: a - b -> -b']

The operators are the mistakes that people make in gradients: a sign, an axis, a transpose, an index one off, a dropped term or
factor, a saved value in place of another, a flipped comparison, a changed constant, a forgotten statement.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SWAPPED_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
SWAPPED_COMPARISONS = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
SWAPPED_CALLS = {
    "sum": "mean",
    "mean": "sum",
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "minimum": "maximum",
    "argmax": "argmin",
    "argmin": "argmax",
    "zeros": "ones",
    "zeros_like": "ones_like",
}


@dataclass(frozen=True)
class Place:
    """A node of a syntax tree and where it hangs; ``statement`` is the place of the statement that it is part of."""

    tree: ast.Module
    node: ast.AST
    parent: ast.AST
    attribute: str
    position: int | None
    statement: Place | None

    def text_with(self, new: ast.AST) -> str:
        """The tree's text with another node here."""
        old = getattr(self.parent, self.attribute)
        try:
            if self.position is None:
                setattr(self.parent, self.attribute, new)
            else:
                setattr(self.parent, self.attribute, [*old[: self.position], new, *old[self.position + 1 :]])
            return ast.unparse(self.tree)
        finally:
            setattr(self.parent, self.attribute, old)


@dataclass(frozen=True)
class Generated:
    """A mutant: what was changed (unique within a text), where, and to what."""

    change: str
    place: Place
    new: ast.AST

    @property
    def text(self) -> str:
        return self.place.text_with(self.new)

    def probes(self) -> Iterator[str]:
        """Texts with something impossible in the mutant's place: an unknown name, NaN, NaN for the whole statement.

        Where one of them changes nothing, no output depends on this place: no case gets there, or its value is not used.
        """
        node = self.place.node
        unknown = ast.Name("no_case_gets_here", ast.Load())
        if isinstance(node, ast.keyword):
            yield self.place.text_with(ast.keyword(node.arg, unknown))
        elif isinstance(node, ast.stmt):
            yield self.place.text_with(ast.Expr(unknown))
        else:
            yield self.place.text_with(unknown)
            if not isinstance(node, ast.Slice):
                yield POISONED + self.place.text_with(_poisoned(node))
        statement = self.place if isinstance(node, ast.stmt) else self.place.statement
        if statement is not None and isinstance(statement.node, ast.Assign | ast.AugAssign):
            yield POISONED + statement.text_with(_with(statement.node, value=_poisoned(statement.node.value)))


POISONED = """\
def poisoned(value):
    return tuple(map(poisoned, value)) if isinstance(value, tuple) else value * float("nan")


"""


def _poisoned(value: Any) -> ast.expr:
    return ast.Call(ast.Name("poisoned", ast.Load()), [value], [])


def mutants(text: str) -> list[Generated]:
    """All mutants of a text, in the order of its functions."""
    tree = ast.parse(text)
    found: dict[str, Generated] = {}
    for function in ast.walk(tree):
        for place in _places(tree, function) if isinstance(function, ast.FunctionDef) else ():
            for new in _changes(place.node, function):  # type: ignore[arg-type]
                change = f"{function.name}: {_short(place.node)} -> {_short(new)}"  # type: ignore[attr-defined]
                name, count = change, 1
                while name in found:
                    count += 1
                    name = f"{change} #{count}"
                if _short(place.node) != _short(new):
                    found[name] = Generated(name, place, new)
    return list(found.values())


def spread(generated: list[Generated], count: int) -> list[Generated]:
    """At most ``count`` of them, spread evenly over the text."""
    if len(generated) <= count:
        return generated
    return [generated[i * len(generated) // count] for i in range(count)]


def _short(node: ast.AST) -> str:
    return "nothing" if isinstance(node, ast.Pass) else ast.unparse(node)


def _places(tree: ast.Module, function: ast.FunctionDef) -> Iterator[Place]:
    """Every place below the function; inner functions have their own turn."""
    queue: list[tuple[ast.AST, Place | None]] = [(function, None)]
    while queue:
        parent, statement = queue.pop(0)
        for attribute, value in ast.iter_fields(parent):
            if parent is function and attribute != "body":
                continue
            for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or isinstance(child, ast.FunctionDef | ast.Lambda) or _is_docstring(child):
                    continue
                place = Place(tree, child, parent, attribute, position, statement)
                yield place
                queue.append((child, place if isinstance(child, ast.stmt) else statement))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST, function: ast.FunctionDef) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp):
        yield from _of_binary(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in SWAPPED_OPERATORS:
            yield _with(node, op=SWAPPED_OPERATORS[type(node.op)]())
        yield ast.Assign([node.target], node.value, lineno=0)
        yield ast.Pass()
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        yield ast.Pass()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED_COMPARISONS:
        yield _with(node, ops=[SWAPPED_COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.keyword) and node.arg in ("axis", "axes"):
        yield from (ast.keyword(node.arg, axes) for axes in _other_axes(node.value))
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.Slice):
        yield from _of_slice(node)
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) > 1:
        first, second, *rest = node.value.elts
        yield ast.Return(_with(node.value, elts=[second, first, *rest]))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(2.0 * node.value or 1.0)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from _other_names(node, function)


def _of_binary(node: ast.BinOp) -> Iterator[ast.AST]:
    if type(node.op) in SWAPPED_OPERATORS:
        yield _with(node, op=SWAPPED_OPERATORS[type(node.op)]())
        yield node.left
    if isinstance(node.op, ast.Add | ast.Mult):
        yield node.right
    elif isinstance(node.op, ast.Sub):
        yield ast.UnaryOp(ast.USub(), node.right)
    elif isinstance(node.op, ast.MatMult):
        yield _with(node, right=_transposed(node.right))
        yield _with(node, left=_transposed(node.left))


def _transposed(matrix: ast.expr) -> ast.expr:
    """Its last two axes swapped: an error for a vector, which would not change."""
    return ast.parse(f"np.swapaxes({ast.unparse(matrix)}, -1, -2)", mode="eval").body


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    if isinstance(node.func, ast.Attribute):
        name = node.func.attr
        if name in SWAPPED_CALLS:
            yield _with(node, func=_with(node.func, attr=SWAPPED_CALLS[name]))
        if name in ("swapaxes", "transpose") and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "np"):
            yield node.func.value
        if name == "flip" and node.args:
            yield node.args[0]
    elif isinstance(node.func, ast.Name):
        if node.func.id == "range":
            yield _with(node, args=[*node.args[:-1], ast.BinOp(node.args[-1], ast.Sub(), ast.Constant(1))])
            if len(node.args) == 1:
                yield _with(node, args=[ast.Constant(1), *node.args])
        elif node.func.id == "reversed":
            yield node.args[0]


def _other_axes(value: ast.AST) -> Iterator[ast.expr]:
    if isinstance(value, ast.Tuple) and len(value.elts) > 1:
        for i in range(len(value.elts)):
            yield _with(value, elts=[*value.elts[:i], *value.elts[i + 1 :]])
    elif isinstance(value, ast.Constant) and isinstance(value.value, int):
        yield from (ast.Constant(axis) for axis in (0, 1, 2) if axis != value.value)
    elif isinstance(value, ast.UnaryOp):  # axis=-1
        yield ast.Constant(0)


def _of_slice(node: ast.Slice) -> Iterator[ast.AST]:
    for end in ("lower", "upper"):
        if (bound := getattr(node, end)) is not None:
            for op in (ast.Add(), ast.Sub()):
                yield _with(node, **{end: ast.BinOp(bound, op, ast.Constant(1))})
    if node.step is not None:
        yield _with(node, step=None)


def _other_names(node: ast.Name, function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The parameter or variable that comes next in the function: a saved value in place of another."""
    names = [a.arg for a in function.args.args]
    for inner in ast.walk(function):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and inner.id not in names:
            names.append(inner.id)
    if node.id in names and len(names) > 1:
        yield ast.Name(names[(names.index(node.id) + 1) % len(names)], ast.Load())


def _with(node, **fields):
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new
