"""Activations: a function of the element at the same place; backwards, dy times its derivative. Softmax compares a row."""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import LETTERS, Anatomy, Ran, explains
from cnnlib.microscope.rules import FLAT, LARGEST, arrays, equal, places, rule, total

(at,) = places(FLAT)
x, y, dy = (a.flat(at) for a in arrays("x y dy"))

# operation -> y as a function of x, and what dy is multiplied by
SIMPLE = {
    ops.ReLU: ("max(v, 0)", y.by("[v > 0]")),
    ops.Sigmoid: ("σ(v)", y.by("v (1 − v)")),
    ops.Tanh: ("tanh v", y.by("1 − v²")),
    ops.Softplus: ("ln(1 + e^v)", x.by("σ(v)")),
}


@explains(*SIMPLE)
def simple(ran: Ran) -> Anatomy:
    function, slope = SIMPLE[ran.op]
    return Anatomy({"y": rule(x.by(function)), "dx": rule(dy * slope)})


@explains(ops.LeakyReLU)
def leaky_relu(ran: Ran) -> Anatomy:
    a = ran.saved["slope"]
    return Anatomy(
        {
            "y": x.by("max(v, 0)") + x.by("min(v, 0)") * a,
            "dx": dy * x.by("[v > 0]") + dy * x.by("[v ≤ 0]") * a,
        }
    )


@explains(ops.ELU)
def elu(ran: Ran) -> Anatomy:
    a = ran.saved["alpha"]
    return Anatomy(
        {
            "y": x.by("max(v, 0)") + x.by("e^min(v, 0) − 1") * a,
            "dx": dy * x.by("[v > 0]") + dy * x.by("[v ≤ 0]") * x.by("e^v") * a,
        }
    )


@explains(ops.Softmax, ops.LogSoftmax)
def softmax(ran: Ran) -> Anatomy:
    """With lse = ln Σ eˣ of the row: softmax is y_c = e^(x_c − lse), dx_c = dy_c y_c − Σ_k dy_k y_k y_c; its logarithm
    y_c = x_c − lse, dx_c = dy_c − Σ_k dy_k e^(y_c)."""
    axis, values = ran.saved["axis"], ran.a["x"].astype(np.float64)
    x, y, dy, lse = arrays("x y dy lse")
    names = [*LETTERS[:axis], "c", *LETTERS[axis : values.ndim - 1]]
    here = tuple(places(" ".join(names)))
    there = [*here]
    (there[axis],) = places("c'")
    over = {"c'": values.shape[axis]}
    largest = values.max(axis=axis, keepdims=True)
    log_sum = (largest + np.log(np.exp(values - largest).sum(axis=axis, keepdims=True))).squeeze(axis)
    shifted = x[here] - lse[tuple(p for i, p in enumerate(here) if i != axis)]
    if ran.op is ops.Softmax:
        y_rule = shifted.by("e^v")
        dx_rule = dy[here] * y[here] - total(dy[tuple(there)] * y[tuple(there)] * y[here], **over)
    else:
        y_rule = shifted
        dx_rule = rule(dy[here]) - total(dy[tuple(there)] * y[here].by("e^v"), **over)
    return Anatomy(
        {"y": y_rule, "dx": dx_rule},
        axes={"x": " ".join(names), "y": " ".join(names), "lse": " ".join(n for n in names if n != "c")},
        inner={"lse": log_sum},
        says={"lse": "ln Σ eˣ of the row"},
    )


@explains(ops.Maxout)
def maxout(ran: Ran) -> Anatomy:
    """y_u is the largest of x_(P u + p), p = 0 … P − 1; x_i gets dy_u if i = P u + argmax_u."""
    pieces, shape = ran.saved["pieces"], ran.a["x"].shape
    axis = next((i for i, (a, b) in enumerate(zip(shape, ran.y[0].shape, strict=True)) if a != b), 1)
    x, dy, argmax = arrays("x dy argmax")
    names = LETTERS[: len(shape)]
    here = places(" ".join(names))
    p, u = places("p u")
    pick = lambda place: tuple(place if i == axis else q for i, q in enumerate(here))  # noqa: E731
    units = ran.y[0].shape[axis]
    wins = equal(here[axis], u * pieces + argmax[pick(u)])
    return Anatomy(
        {
            "y": rule(total(x[pick(here[axis] * pieces + p)], p=pieces)).by(LARGEST),
            "dx": rule(total(wins * dy[pick(u)], u=units)),
        },
        axes={"x": " ".join(names), "y": " ".join(names), "argmax": " ".join(names)},
        inner={"argmax": ran.saved["argmax"].reshape(ran.y[0].shape).astype(np.int64)},
        says={"argmax": "the piece that won"},
    )
