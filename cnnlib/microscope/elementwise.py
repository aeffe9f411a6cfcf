"""Arithmetic of elements at the same place; where an input was broadcast, its adjoint sums over what it was repeated for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnnlib import ops
from cnnlib.microscope.anatomy import LETTERS, Anatomy, Ran, explains
from cnnlib.microscope.rules import FLAT, Rule, arrays, number, places, rule, total

a, b, dy, x, y = arrays("a b dy x y")


class Broadcast:
    """Inputs a and b and the output y: where each is read, at an element of y and at an element of the input itself."""

    def __init__(self, ran: Ran):
        self.shape = ran.y[0].shape
        self.shapes = {name: ran.a[name].shape for name in ("a", "b")}
        self.letters = LETTERS[: len(self.shape)]
        self.here = places(" ".join(self.letters)) if self.letters else []

    def own(self, name: str) -> list[str]:
        return self.letters[len(self.shape) - len(self.shapes[name]) :]

    def at_output(self, name: str) -> tuple:
        """The place in the input that the element of y sees."""
        here = self.here[len(self.shape) - len(self.shapes[name]) :]
        return tuple(0 if n == 1 else p for n, p in zip(self.shapes[name], here, strict=True))

    def adjoint(self, name: str, product: Callable[[Any, tuple, tuple], Any]) -> Rule:
        """Σ over the elements of y that saw the element: the axes it was repeated along run."""
        missing = len(self.shape) - len(self.shapes[name])
        grown = [i for i, n in enumerate(self.shape) if i < missing or (self.shapes[name][i - missing] == 1 and n != 1)]
        running = {i: f"{self.letters[i]}'" for i in grown}
        there = [places(running[i])[0] if i in running else p for i, p in enumerate(self.here)]
        other = "b" if name == "a" else "a"
        skip = len(self.shape) - len(self.shapes[other])
        at_other = tuple(0 if n == 1 else p for n, p in zip(self.shapes[other], there[skip:], strict=True))
        at_own = tuple(0 if n == 1 else p for n, p in zip(self.shapes[name], there[missing:], strict=True))
        return rule(total(product(dy[tuple(there)], at_other, at_own), **{running[i]: self.shape[i] for i in grown}))

    def anatomy(self, forward: Rule, da: Callable, db: Callable) -> Anatomy:
        names = {"a": " ".join(self.own("a")), "b": " ".join(self.own("b")), "y": " ".join(self.letters)}
        return Anatomy({"y": forward, "da": self.adjoint("a", da), "db": self.adjoint("b", db)}, axes=names)


@explains(ops.Add, ops.Subtract)
def add(ran: Ran) -> Anatomy:
    sign = 1.0 if ran.op is ops.Add else -1.0
    of = Broadcast(ran)
    return of.anatomy(
        rule(a[of.at_output("a")]) + rule(b[of.at_output("b")] * sign),
        lambda dy, at_b, at_a: dy,
        lambda dy, at_a, at_b: dy * sign,
    )


@explains(ops.Multiply)
def multiply(ran: Ran) -> Anatomy:
    of = Broadcast(ran)
    return of.anatomy(
        rule(a[of.at_output("a")] * b[of.at_output("b")]),
        lambda dy, at_b, at_a: dy * b[at_b],
        lambda dy, at_a, at_b: dy * a[at_a],
    )


@explains(ops.Divide)
def divide(ran: Ran) -> Anatomy:
    of = Broadcast(ran)
    return of.anatomy(
        rule(a[of.at_output("a")] * b[of.at_output("b")].by("1/v")),
        lambda dy, at_b, at_a: dy * b[at_b].by("1/v"),
        lambda dy, at_a, at_b: -(dy * a[at_a] * b[at_b].by("1/v") * b[at_b].by("1/v")),
    )


(at,) = places(FLAT)
xs, ys, dys = x.flat(at), y.flat(at), dy.flat(at)
OF_ONE: dict[Any, tuple[Any, Any]] = {
    ops.Negative: (-xs, -dys),
    ops.Absolute: (xs.by("|v|"), dys * xs.by("sign v")),
    ops.Exp: (xs.by("e^v"), dys * ys),
    ops.Log: (xs.by("ln v"), dys * xs.by("1/v")),
    ops.Sqrt: (xs.by("√v"), dys * ys.by("1/v") * 0.5),
    ops.Cast: (xs, dys),
    ops.Move: (xs, dys),
}


@explains(*OF_ONE)
def of_one(ran: Ran) -> Anatomy:
    forward, backward = OF_ONE[ran.op]
    return Anatomy({"y": rule(forward), "dx": rule(backward)})


@explains(ops.Power)
def power(ran: Ran) -> Anatomy:
    n = ran.saved["exponent"]
    if n not in (1.0, 2.0, 3.0):
        return Anatomy({}, note=f"power: with the exponent {n:g} it has its numbers only; 1, 2 and 3 are products.")
    product, slope = number(1.0), dys * n
    for _ in range(int(n)):
        product = product * xs
    for _ in range(int(n) - 1):
        slope = slope * xs
    return Anatomy({"y": rule(product), "dx": rule(slope)})
