"""Losses. Cross-entropy: each row brings (ln Σ eˣ − x[t]) / N; backwards, softmax(x) less the one-hot target, over N."""

from __future__ import annotations

import dataclasses

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import Anatomy, Ran, explains
from cnnlib.microscope.rules import FLAT, Rule, arrays, equal, places, rule, total

x, dy, target, lse, p, share, difference = arrays("x dy target lse p share difference")
n, c = places("n c")
(at,) = places(FLAT)


@explains(ops.CrossEntropy)
def cross_entropy(ran: Ran) -> Anatomy:
    """``share``: what a row counts in the mean or sum: its label's weight over their sum, 0 where it is ignored."""
    saved, values = ran.saved, ran.a["x"]
    if saved["label_smoothing"] or values.ndim != 2 or saved["reduction"] == "none":
        return Anatomy({}, note="cross_entropy: with smoothed labels, more axes or no reduction it has its numbers only.")
    rows, classes = values.shape
    counts = saved["labels"] != saved["ignore_index"]
    weight = np.ones(classes) if saved["weight"] is None else saved["weight"].astype(np.float64)
    of_row = np.where(counts, weight[np.where(counts, saved["labels"], 0)], 0.0) / (saved["count"] or 1)
    log_sum = saved["lse"].astype(np.float64)
    return Anatomy(
        {
            "y": rule(total(lse[n] * share[n], n=rows)) - total(x[n, target[n]] * share[n], n=rows),
            "dx": dy[()] * share[n] * p[n, c] - dy[()] * share[n] * equal(target[n], c),
            "p": (x[n, c] - lse[n]).by("e^v"),
            "lse": rule(total(x[n, c].by("e^v"), c=classes)).by("ln v"),
        },
        axes={"x": "n c", "p": "n c", "target": "n", "lse": "n", "share": "n", "weight": "c"},
        inner={"lse": log_sum, "p": np.exp(values - log_sum[:, None]), "share": of_row},
        says={"lse": "ln Σ eˣ of the row", "p": "softmax(x)", "share": "what a row counts: 1/N", "target": "the labels t"},
    )


@explains(ops.MSELoss, ops.L1Loss)
def of_differences(ran: Ran) -> Anatomy:
    d, squared = difference.flat(at), ran.op is ops.MSELoss
    loss = d * d if squared else d.by("|v|") * 1.0
    slope = d * 2.0 if squared else d.by("sign v") * 1.0
    rules = _reduced(ran, loss, slope)
    rules["dtarget"] = Rule(tuple(-term for term in rules["dx"].sums))
    rules["difference"] = x.flat(at) - target.flat(at)
    return Anatomy(rules, inner={"difference": ran.saved["difference"]}, says={"difference": "x − t"})


@explains(ops.BinaryCrossEntropyWithLogits)
def binary_cross_entropy(ran: Ran) -> Anatomy:
    """l = ln(1 + eˣ) − t x, which is (1 − t) x + ln(1 + e⁻ˣ)."""
    if ran.saved["pos_weight"] is not None:
        return Anatomy({}, note="binary_cross_entropy_with_logits: with pos_weight it has its numbers only.")
    xs, t = x.flat(at), target.flat(at)
    first = _reduced(ran, xs.by("ln(1 + e^v)") * 1.0, xs.by("σ(v)") * 1.0)
    second = _reduced(ran, xs * t, t * 1.0)
    rules = {name: first[name] - second[name] for name in ("y", "dx")}
    return Anatomy({**rules, "dtarget": _reduced(ran, xs * 1.0, -xs)["dx"]})


def _reduced(ran: Ran, loss, slope) -> dict[str, Rule]:
    """Rules of y and dx, by the loss and its derivative at a flat position."""
    reduction, size = ran.saved["reduction"], ran.a["x"].size
    if reduction == "none":
        return {"y": rule(loss), "dx": rule(dy.flat(at) * slope)}
    over = 1 / ran.saved["count"] if reduction == "mean" else 1.0
    return {"y": rule(total(_at_k(loss) * over, k=size)), "dx": rule(dy[()] * slope * over)}


def _at_k(product):
    """The same product at the flat position k, over which a sum runs."""
    (k,) = places("k")
    return dataclasses.replace(product, factors=tuple(dataclasses.replace(f, index=(k,)) for f in product.factors))
