"""Arrays in another shape: every element of y is an element of x (or several of x, backwards, where it was repeated)."""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import LETTERS, Anatomy, Ran, explains, letters_of
from cnnlib.microscope.rules import FLAT, Place, Rule, arrays, equal, number, places, rule, total

x, dy, source, picked = arrays("x dy source picked")
(at,) = places(FLAT)


@explains(ops.Reshape)
def reshape(ran: Ran) -> Anatomy:
    return Anatomy({"y": rule(x.flat(at)), "dx": rule(dy.flat(at))})


@explains(ops.Transpose)
def transpose(ran: Ran) -> Anatomy:
    names = LETTERS[: ran.y[0].ndim]
    inverse = ran.saved["inverse"]  # axis i of x is axis inverse[i] of y
    of_x = [names[j] for j in inverse]
    return Anatomy(
        {"y": rule(x[tuple(places(" ".join(of_x)))]), "dx": rule(dy[tuple(places(" ".join(names)))])},
        axes={"y": " ".join(names), "x": " ".join(of_x)},
    )


@explains(ops.Getitem, ops.BroadcastTo)
def getitem(ran: Ran) -> Anatomy:
    """``source``: for each element of y, the flat position in x that it was read from."""
    where = np.arange(ran.a["x"].size).reshape(ran.a["x"].shape)
    where = where[ran.saved["index"]] if ran.op is ops.Getitem else np.broadcast_to(where, ran.y[0].shape)
    read = source.flat(at)
    forward = rule(x.flat(read))
    flat = np.asarray(where).reshape(-1)
    inner = {"source": np.asarray(where)}
    says = {"source": "the flat position in x"}
    if np.unique(flat).size != flat.size:  # read several times: their adjoints add up
        (k,) = places("k")
        wanted = total(equal(source.flat(k), at) * dy.flat(k), k=flat.size)
        return Anatomy({"y": forward, "dx": rule(wanted)}, inner=inner, says=says)
    taken = np.full(ran.a["x"].size, -1)
    taken[flat] = np.arange(flat.size)
    return Anatomy(
        {"y": forward, "dx": rule(dy.flat(picked.flat(at)))},
        inner={**inner, "picked": taken.reshape(ran.a["x"].shape)},
        says={**says, "picked": "the flat position in y, −1 where it was not read"},
    )


@explains(ops.Concat)
def concat(ran: Ran) -> Anatomy:
    """The part of an input begins at ``start`` of the axis; elsewhere the input has no such element."""
    y, inputs = ran.y[0], list(ran.a)
    axis = ran.saved["axis"] % y.ndim
    names = LETTERS[: y.ndim]
    here = places(" ".join(names))
    rules, start, forward = {}, 0, Rule(())
    for name in inputs:
        forward = forward + arrays(name)[0][_moved(here, axis, -start)]
        rules[f"d{name}"] = rule(dy[_moved(here, axis, start)])
        start += ran.a[name].shape[axis]
    letters = " ".join(names)
    return Anatomy({"y": forward, **rules}, axes={"y": letters, **dict.fromkeys(inputs, letters)})


@explains(ops.Split)
def split(ran: Ran) -> Anatomy:
    axis = ran.saved["axis"] % ran.a["x"].ndim
    names = LETTERS[: ran.a["x"].ndim]
    here = places(" ".join(names))
    outputs = tuple(f"y{i}" for i in range(len(ran.y)))
    rules, dx, start = {}, Rule(()), 0
    for name, part in zip(outputs, ran.y, strict=True):
        rules[name] = rule(x[_moved(here, axis, start)])
        dx = dx + arrays(f"d{name}")[0][_moved(here, axis, -start)]
        start += part.shape[axis]
    letters = " ".join(names)
    return Anatomy({**rules, "dx": dx}, axes={"x": letters, **dict.fromkeys(outputs, letters)}, outputs=outputs)


def _moved(here: list[Place], axis: int, by: int) -> tuple[Place, ...]:
    return tuple(p + by if i == axis else p for i, p in enumerate(here))


@explains(ops.Stack)
def stack(ran: Ran) -> Anatomy:
    y = ran.y[0]
    axis = ran.saved["axis"] % y.ndim
    names = LETTERS[: y.ndim]
    here = places(" ".join(names))
    rest = tuple(p for i, p in enumerate(here) if i != axis)
    own = " ".join(n for i, n in enumerate(names) if i != axis)
    forward, rules = Rule(()), {}
    for i, name in enumerate(ran.a):
        forward = forward + equal(here[axis], i) * arrays(name)[0][rest]
        rules[f"d{name}"] = rule(dy[tuple(i if k == axis else p for k, p in enumerate(here))])
    return Anatomy({"y": forward, **rules}, axes={"y": " ".join(names), **dict.fromkeys(ran.a, own)})


@explains(ops.Pad)
def pad(ran: Ran) -> Anatomy:
    letters = letters_of(ran.y[0])
    here = places(letters)
    before = [int(s.start) for s in ran.saved["window"]]
    value = ran.settings.get("value", 0.0)
    forward = rule(x[tuple(p - k for p, k in zip(here, before, strict=True))])
    if value:
        inside = np.zeros(ran.y[0].shape)
        inside[ran.saved["window"]] = 1
        forward = forward + number(value) * arrays("border")[0].flat(at)
    return Anatomy(
        {"y": forward, "dx": rule(dy[tuple(p + k for p, k in zip(here, before, strict=True))])},
        axes={"x": letters, "y": letters},
        inner={"border": 1 - inside} if value else {},
        says={"border": f"1 where y is the border, {value:g}"},
    )
