"""Textbook code with what an exercise does not use taken out: the same code, with some arguments fixed.

The library's recurrent kernels take lengths, a direction, peepholes and other settings. A learner writes the plain case, and is
to read the plain case afterwards. So the solution's text is the library's, evaluated as far as the fixed arguments go::

    >>> print(specialised('''
    ... def g(x, name):
    ...     return {"tanh": np.tanh, "identity": lambda a: a}[name](x)
    ... def f(x, w, name, lengths):
    ...     return g(x @ w, name) if lengths is None else g(x, name) * lengths
    ... def learners(x, w):
    ...     return f(x, w, "tanh", None)
    ... ''', ["learners"]))
    def learners(x, w):
        return np.tanh(x @ w)

A function that is only called with the same constant for an argument loses that argument. A function of one expression that
constants have decided is put in place of its call. Functions that nobody calls any more go.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Sequence
from typing import Any

NOTHING = object()


def specialised(text: str, keep: Sequence[str]) -> str:
    """The functions of ``text`` without what constant arguments decide; ``keep``: those that stay, with all arguments."""
    functions = {f.name: f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)}
    while True:
        before = _text(functions)
        for f in functions.values():
            _Folded(functions).visit(f)
        for f in functions.values():
            if f.name not in keep:
                _without_fixed_arguments(f, functions)
        used = {n.id for f in functions.values() for n in ast.walk(f) if isinstance(n, ast.Name)}
        functions = {name: f for name, f in functions.items() if name in used or name in keep}
        if _text(functions) == before:
            return before


def _text(functions: dict[str, ast.FunctionDef]) -> str:
    text = "\n\n\n".join(ast.unparse(ast.fix_missing_locations(f)) for f in functions.values())
    return "\n".join(map(_without_outer_brackets, text.split("\n")))


def _without_outer_brackets(line: str) -> str:
    """``return (a, b)`` -> ``return a, b``, where that says the same."""
    found = re.fullmatch(r"( *)(return |[^()=]+ = )\((.*)\)", line)
    if not found:
        return line
    shorter = "".join(found.groups())
    try:
        return shorter if ast.dump(ast.parse(shorter.strip())) == ast.dump(ast.parse(line.strip())) else line
    except SyntaxError:
        return line


def _calls(name: str, functions: dict[str, ast.FunctionDef]) -> list[ast.Call]:
    nodes = [n for f in functions.values() for n in ast.walk(f) if isinstance(n, ast.Call)]
    return [n for n in nodes if isinstance(n.func, ast.Name) and n.func.id == name]


def _without_fixed_arguments(f: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> None:
    calls = _calls(f.name, functions)
    for i in reversed(range(len(f.args.args))):
        given = [c.args[i] for c in calls if len(c.args) > i and not c.keywords]
        if given and len(given) == len(calls) and all(isinstance(g, ast.Constant) for g in given):
            if len({repr(g.value) for g in given}) == 1:  # type: ignore[attr-defined]
                _Replaced({f.args.args[i].arg: given[0]}).visit(f)
                del f.args.args[i]
                for c in calls:
                    del c.args[i]


class _Replaced(ast.NodeTransformer):
    """Names by expressions."""

    def __init__(self, values: dict[str, ast.expr]):
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return copy.deepcopy(self.values[node.id]) if node.id in self.values else node


class _Folded(ast.NodeTransformer):
    """What constants decide: conditions, entries of a dict, sums with 0, and calls of functions of one such expression."""

    def __init__(self, functions: dict[str, ast.FunctionDef]):
        self.functions = functions

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        decided = _constant(node.test)
        return node if decided is NOTHING else node.body if decided else node.orelse

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        decided = _constant(node.test)
        return node if decided is NOTHING else node.body if decided else node.orelse

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        self.generic_visit(node)
        ends = [i for i, s in enumerate(node.body) if isinstance(s, ast.Return)]
        node.body = node.body[: ends[0] + 1] if ends else node.body
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        self.generic_visit(node)
        decided = _constant(node)
        return node if decided is NOTHING or not isinstance(node.op, ast.Not) else ast.Constant(decided)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        self.generic_visit(node)
        if isinstance(node.value, ast.Dict) and isinstance(node.slice, ast.Constant):
            keys = [k.value if isinstance(k, ast.Constant) else NOTHING for k in node.value.keys]
            return node.value.values[keys.index(node.slice.value)]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        if isinstance(node.op, ast.Add) and _constant(node.right) == 0:
            return node.left
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        f = self.functions.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if f is None or node.keywords or not any(isinstance(a, ast.Constant) for a in node.args):
            return node
        f = copy.deepcopy(f)
        _Replaced(dict(zip([a.arg for a in f.args.args], node.args))).visit(f)
        before = ast.unparse(f)
        _Folded(self.functions).visit(f)
        body = [s for s in f.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        decided = ast.unparse(f) != before and len(body) == 1 and isinstance(body[0], ast.Return)
        return body[0].value if decided else node  # type: ignore[attr-defined]


def _constant(node: ast.expr) -> Any:
    """The value of a constant condition, else NOTHING."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        value = _constant(node.operand)
        return value if value is NOTHING else not value
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.comparators[0], ast.Constant):
        left, right = _constant(node.left), node.comparators[0].value
        if left is not NOTHING and isinstance(node.ops[0], ast.Is | ast.Eq):
            return left is right if isinstance(node.ops[0], ast.Is) else left == right
    return NOTHING
