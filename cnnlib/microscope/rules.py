"""A rule says of one array which products make each of its elements, in the words of the op's formula.

    x, w, b = arrays("x w b")
    n, o, i = places("n o i")
    total(x[n, i] * w[o, i], i=3) + b[o]          # y[n, o] = Σ_i x[n, i] · w[o, i] + b[o]

is the rule of a linear layer's output, and its adjoints' rules are written the same way. An index that lies outside its array,
or that is no whole number, makes its product vanish: padding is 0, and with stride 2 only every other dy reaches a pixel. So
a rule is data: :func:`terms` reads it here, the page reads it in the browser, and both find the same products.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

FLAT = "#"  # the position of the element in its array, read row by row
HERE = ((1, FLAT),)


# ---- functions of one value: name -> what is computed; "v" stands for the value


def _sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v))


FUNCTIONS = {
    "tanh v": math.tanh,
    "σ(v)": _sigmoid,
    "max(v, 0)": lambda v: max(v, 0.0),
    "min(v, 0)": lambda v: min(v, 0.0),
    "e^min(v, 0) − 1": lambda v: math.expm1(min(v, 0.0)),
    "ln(1 + e^v)": lambda v: max(v, 0.0) + math.log1p(math.exp(-abs(v))),
    "e^v": lambda v: math.exp(v) if v < 700 else math.inf,
    "ln v": math.log,
    "√v": math.sqrt,
    "|v|": abs,
    "sign v": lambda v: float(np.sign(v)),
    "[v > 0]": lambda v: float(v > 0),
    "[v ≤ 0]": lambda v: float(v <= 0),
    "1 − v": lambda v: 1 - v,
    "1 − v²": lambda v: 1 - v * v,
    "v (1 − v)": lambda v: v * (1 - v),
    "1/v": lambda v: 1 / v,
}
LOOSE = {"1 − v", "1 − v²", "e^min(v, 0) − 1"}  # in brackets among other factors
LARGEST = "max"  # instead of the sum of the terms: the largest


# ---- what a rule is made of


class Place:
    """A position along an axis: whole multiples of variables and of table entries, plus a number, over a divisor."""

    def __init__(self, terms: tuple[tuple[int, Any], ...] = (), plus: int = 0, over: int = 1):
        self.terms, self.plus, self.over = terms, plus, over

    def __add__(self, other: Any) -> Place:
        other = _place(other)
        return Place(self.terms + other.terms, self.plus + other.plus)

    def __sub__(self, other: Any) -> Place:
        return self + _place(other) * -1

    def __mul__(self, k: int) -> Place:
        return Place(tuple((c * k, a) for c, a in self.terms if k), self.plus * k)

    def __floordiv__(self, k: int) -> Place:
        return Place(self.terms, self.plus, k)

    __radd__, __rmul__ = __add__, __mul__

    def at(self, find: Any, where: Mapping[str, int]) -> int | None:
        """The position, or None where it is no whole number or a table has no such entry."""
        position = self.plus
        for k, atom in self.terms:
            value = where[atom] if isinstance(atom, str) else find(atom.array, atom.positions(find, where))
            if value is None:
                return None
            position += k * int(value)
        return None if position % self.over else position // self.over

    def __str__(self) -> str:
        parts = []
        for k, atom in self.terms:
            sign = "− " if k < 0 else "+ "
            parts.append(sign + (f"{abs(k)} {atom}" if abs(k) != 1 else str(atom)))
        if self.plus or not parts:
            parts.append(("− " if self.plus < 0 else "+ ") + str(abs(self.plus)))
        text = " ".join(parts).removeprefix("+ ")
        text = "−" + text[2:] if text.startswith("− ") else text
        return text if self.over == 1 else f"({text})/{self.over}"

    def encode(self, ids: Mapping[str, int]) -> Any:
        atoms = [[k, a if isinstance(a, str) else a.encode(ids)] for k, a in self.terms]
        return {"t": atoms, "+": self.plus, "/": self.over}


def _place(value: Any) -> Place:
    if isinstance(value, Place):
        return value
    if isinstance(value, Factor):
        return Place(((1, value),))
    return Place((), int(value))


@dataclasses.dataclass(frozen=True)
class Factor:
    """One element of an array, or a function of it; as an index, the whole number that stands there."""

    array: str
    index: tuple[Place, ...]
    flat: bool = False
    function: str = ""

    def by(self, function: str) -> Factor:
        return dataclasses.replace(self, function=function)

    def positions(self, find: Any, where: Mapping[str, int]) -> Any:
        """Where it stands: a tuple of indices, or one number of a flat array; None where it is nowhere."""
        found = [p.at(find, where) for p in self.index]
        return None if None in found else found[0] if self.flat else tuple(found)

    def __mul__(self, other: Any) -> Product:
        return Product((self,)) * other

    def __neg__(self) -> Product:
        return Product((self,), -1.0)

    def __add__(self, other: Any) -> Rule:
        return Rule((Product((self,)),)) + other

    def __radd__(self, other: Any) -> Any:
        return self if other == 0 else Place(((1, self),)) + other

    def __sub__(self, other: Any) -> Rule:
        return self + (-other)

    def __str__(self) -> str:
        inside = (
            f"{self.array}[{', '.join(map(str, self.index))}]" if self.index and self.index[0].terms != HERE else self.array
        )
        return applied(self.function, inside)

    def encode(self, ids: Mapping[str, int]) -> dict[str, Any]:
        place = {"flat": self.index[0].encode(ids)} if self.flat else {"i": [p.encode(ids) for p in self.index]}
        return {"a": ids[self.array], "f": self.function, **place}


@dataclasses.dataclass(frozen=True)
class Equal:
    """1 where both positions are the same; a product elsewhere is none."""

    one: Place
    other: Place

    def __str__(self) -> str:
        return f"[{self.one} = {self.other}]"

    def encode(self, ids: Mapping[str, int]) -> dict[str, Any]:
        return {"eq": [self.one.encode(ids), self.other.encode(ids)]}


@dataclasses.dataclass(frozen=True)
class Product:
    """Factors, a number before them, and the variables that they are summed over."""

    factors: tuple[Factor | Equal, ...]
    times: float = 1.0
    over: tuple[tuple[str, int], ...] = ()

    def __mul__(self, other: Any) -> Product:
        if isinstance(other, Product):
            return Product(self.factors + other.factors, self.times * other.times, self.over + other.over)
        if isinstance(other, (Factor, Equal)):
            return dataclasses.replace(self, factors=(*self.factors, other))
        return dataclasses.replace(self, times=self.times * float(other))

    def __neg__(self) -> Product:
        return self * -1.0

    def __add__(self, other: Any) -> Rule:
        return Rule((self,)) + other

    def __sub__(self, other: Any) -> Rule:
        return self + (-other)

    def __str__(self) -> str:
        number = "" if abs(self.times) == 1 else f"{abs(self.times):.4g} "
        sign = "Σ_" + ",".join(n for n, _ in self.over) + " " if self.over else ""
        words = [
            f"({f})" if isinstance(f, Factor) and f.function in LOOSE and len(self.factors) > 1 else str(f)
            for f in self.factors
        ]
        return sign + number + (" · ".join(words) or "1")

    @property
    def arrays(self) -> set[str]:
        found: set[str] = set()
        stack: list[Any] = list(self.factors)
        while stack:
            item = stack.pop()
            if isinstance(item, Factor):
                found.add(item.array)
                stack.extend(item.index)
            elif isinstance(item, Equal):
                stack.extend((item.one, item.other))
            elif isinstance(item, Place):
                stack.extend(a for _, a in item.terms if isinstance(a, Factor))
        return found


@dataclasses.dataclass(frozen=True)
class Rule:
    """The products whose sum is an element, and the function of that sum, if any (``LARGEST``: of the terms).

    ``after``: a factor of the function's value. A gate of a padded step is 0, whatever stands inside.
    ``axes``: names of the element's indices, as the places use them; none where only its flat position is asked.
    """

    sums: tuple[Product, ...]
    function: str = ""
    axes: tuple[str, ...] = ()
    after: Factor | None = None

    def by(self, function: str, after: Factor | None = None) -> Rule:
        return dataclasses.replace(self, function=function, after=after)

    def __add__(self, other: Any) -> Rule:
        return dataclasses.replace(self, sums=self.sums + rule(other).sums)

    def __sub__(self, other: Any) -> Rule:
        return self + Rule(tuple(-p for p in rule(other).sums))

    def __str__(self) -> str:
        text = ""
        for p in self.sums:
            sign = "−" if p.times < 0 else "+"
            text += f" {sign} {p}" if text else ("−" if p.times < 0 else "") + str(p)
        if self.function == LARGEST:
            return text.replace("Σ_", "max_", 1)
        return applied(self.function, text or "0") + (f" · {self.after}" if self.after else "")

    def encode(self, ids: Mapping[str, int]) -> dict[str, Any]:
        sums = [{"over": p.over, "times": p.times, "of": [f.encode(ids) for f in p.factors]} for p in self.sums]
        after = None if self.after is None else self.after.encode(ids)
        return {"axes": self.axes, "f": self.function, "after": after, "sums": sums, "text": str(self)}


def applied(function: str, text: str) -> str:
    """``1 − v²`` of ``y[n]``: ``1 − y[n]²``."""
    if not function:
        return text
    outside = _without_indices(text)
    long = " + " in outside or " − " in outside or text.startswith("Σ")
    inner = f"({text})" if long and function != "σ(v)" else text
    return function.replace("v", inner) if function != "√v" else f"√({text})"


def _without_indices(text: str) -> str:
    """``x[n, t[n − 1]] + 1``: ``x + 1``."""
    shorter = re.sub(r"\[[^][]*\]", "", text)  # the innermost brackets
    return text if shorter == text else _without_indices(shorter)


# ---- words to write rules with


class Array:
    def __init__(self, name: str):
        self.name = name

    def __getitem__(self, index: Any) -> Factor:
        index = index if isinstance(index, tuple) else (index,)
        return Factor(self.name, tuple(_place(p) for p in index))

    def flat(self, place: Any) -> Factor:
        """The element at a position of the array read row by row."""
        return Factor(self.name, (_place(place),), flat=True)


def arrays(names: str) -> list[Array]:
    return [Array(name) for name in names.split()]


def places(names: str) -> list[Place]:
    return [Place(((1, name),)) for name in names.split()]


def equal(one: Any, other: Any) -> Product:
    return Product((Equal(_place(one), _place(other)),))


def rule(of: Any) -> Rule:
    """A factor or a product as a rule with this one term."""
    return of if isinstance(of, Rule) else Rule((of if isinstance(of, Product) else Product((of,)),))


def total(of: Factor | Product, **over: int) -> Product:
    """Σ over variables that run from 0 to each number."""
    product = of if isinstance(of, Product) else Product((of,))
    return dataclasses.replace(product, over=product.over + tuple(over.items()))


def number(value: float) -> Product:
    return Product((), float(value))


# ---- reading a rule


@dataclasses.dataclass(frozen=True)
class Term:
    """One product: its value, the number before it, and each factor as (array, index, function, value)."""

    value: float
    times: float
    factors: tuple[tuple[str, tuple[int, ...], str, float], ...]

    def __str__(self) -> str:
        words = [applied(f, f"{a}[{', '.join(map(str, i))}]") + f" ({v:.4g})" for a, i, f, v in self.factors]
        before = [] if self.times == 1 and words else [f"{self.times:.4g}"]
        return f"{' · '.join(before + words)} = {self.value:.4g}"


class _Places:
    """The arrays of a rule, and where its variables stand for one element."""

    def __init__(self, how: Rule, of: Mapping[str, np.ndarray], index: tuple[int, ...], shape: tuple[int, ...]):
        self.of = of
        self.where = dict(zip(how.axes, index, strict=True)) if how.axes else {}
        self.where[FLAT] = int(np.ravel_multi_index(index, shape)) if index else 0

    def find(self, name: str, position: Any) -> Any:
        """The element at a position, None where there is none."""
        a = self.of[name]
        if position is None:
            return None
        if not isinstance(position, tuple):
            return a.reshape(-1)[position] if 0 <= position < a.size else None
        return a[position] if all(0 <= p < n for p, n in zip(position, a.shape, strict=True)) else None


def terms(how: Rule, of: Mapping[str, np.ndarray], index: tuple[int, ...], shape: tuple[int, ...]) -> list[Term]:
    """The products of one element, with their values. :func:`made_of` makes the element of them."""
    at = _Places(how, of, index, shape)
    found = []
    for product in how.sums:
        names = [name for name, _ in product.over]
        for values in itertools.product(*(range(n) for _, n in product.over)):
            at.where.update(zip(names, values, strict=True))
            term = _term(product, of, at.find, at.where)
            if term is not None:
                found.append(term)
    return found


def made_of(how: Rule, of: Mapping[str, np.ndarray], index: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """The element that its terms make: their sum, a function of it, or the largest of them."""
    found = [t.value for t in terms(how, of, index, shape)]
    if how.function == LARGEST:
        return max(found)
    result = math.fsum(found) if np.isfinite(found).all() else sum(found)
    result = FUNCTIONS[how.function](result) if how.function else result
    if how.after is not None:
        at = _Places(how, of, index, shape)
        result *= float(at.find(how.after.array, how.after.positions(at.find, at.where)))
    return result


def _term(product: Product, of: Mapping[str, np.ndarray], find: Any, where: Mapping[str, int]) -> Term | None:
    value, factors = product.times, []
    for factor in product.factors:
        if isinstance(factor, Equal):
            one = factor.one.at(find, where)
            if one is None or one != factor.other.at(find, where):
                return None
            continue
        position = factor.positions(find, where)
        v = find(factor.array, position)
        if v is None:
            return None
        v = float(v)
        index = np.unravel_index(position, of[factor.array].shape) if factor.flat else position
        value *= FUNCTIONS[factor.function](v) if factor.function else v
        factors.append((factor.array, tuple(int(i) for i in index), factor.function, v))
    return Term(value, product.times, tuple(factors))
