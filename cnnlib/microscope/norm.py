"""Batch normalisation: y = γ r (x − μ) + β. Backwards along three paths, and their sum over the channel is already taken:

dx = γ r dy − γ r dβ/m − γ r x̂ dγ/m        dγ = Σ dy x̂        dβ = Σ dy        r = 1 / sqrt(σ² + ε)
"""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import LETTERS, Anatomy, Ran, explains
from cnnlib.microscope.rules import arrays, number, places, rule, total

x, y, dy, xhat, r, mean, gamma, beta, sum_dy, sum_dyx = arrays("x y dy xhat r mean gamma beta mean_dy mean_dy_xhat")


@explains(ops.BatchNorm, ops.BatchNormInference)
def batch_norm(ran: Ran) -> Anatomy:
    training = ran.op is ops.BatchNorm
    values = ran.a["x"].astype(np.float64)
    names = ["n", "c", "h", "w"] if values.ndim == 4 else ["n", "c", *LETTERS[: values.ndim - 2]]
    here = tuple(places(" ".join(names)))
    c = here[1]
    mu, sigma2 = (ran.saved[k].astype(np.float64) for k in ("mean", "var"))
    column = (slice(None), *(None,) * (values.ndim - 2))
    scale = 1 / np.sqrt(sigma2 + ran.saved["eps"])
    inner = {"r": scale, "xhat": (values - mu[column]) * scale[column]}
    says = {"r": "1 / sqrt(σ² + ε)", "xhat": "(x − μ) r", "mean": "μ", "var": "σ²"}
    by = gamma[c] * r[c] if ran.a["gamma"] is not None else r[c] * 1.0
    dx = rule(dy[here] * by)
    running = {n: k for n, k in zip(names, values.shape, strict=True) if n != "c"}
    rules = {
        "y": rule(by * x[here]) - by * mean[c] + beta[c],
        "xhat": x[here] * r[c] - mean[c] * r[c],
        "dgamma": rule(total(dy[here] * xhat[here], **running)),
        "dbeta": rule(total(dy[here], **running)),
    }
    m = values.size // values.shape[1]
    if training:
        rules["mean"] = rule(total(x[here] * (1 / m) if m > 1 else x[here], **running))
    if training and ran.dy and ran.dy[0] is not None:
        axes = tuple(i for i in range(values.ndim) if i != 1)
        inner["mean_dy"] = ran.dy[0].astype(np.float64).mean(axis=axes)
        inner["mean_dy_xhat"] = (ran.dy[0] * inner["xhat"]).mean(axis=axes)
        says |= {"mean_dy": "dβ/m: the path through μ", "mean_dy_xhat": "dγ/m: the path through σ²"}
        dx = dx - by * sum_dy[c] - by * xhat[here] * sum_dyx[c]
        rules["mean_dy"] = rule(total(dy[here] * (1 / m), **running))
        rules["mean_dy_xhat"] = rule(total(dy[here] * xhat[here] * (1 / m), **running))
    letters = " ".join(names)
    channel = dict.fromkeys(("gamma", "beta", "mean", "var", "r", "mean_dy", "mean_dy_xhat"), "c")
    return Anatomy(
        {**rules, "dx": dx},
        axes={"x": letters, "y": letters, "xhat": letters, **channel},
        inner=inner,
        says=says,
        outputs=("y", "mean", "var") if training else ("y",),
    )


@explains(ops.LayerNorm)
def layer_norm(ran: Ran) -> Anatomy:
    """The same over the last axes of each sample, with g = γ dy: dx = r (g − mean(g) − x̂ mean(g x̂))."""
    values, shape = ran.a["x"].astype(np.float64), ran.saved["normalized_shape"]
    k = values.ndim - len(shape)
    names = LETTERS[: values.ndim]
    here = tuple(places(" ".join(names)))
    row, inside = here[:k], here[k:]
    axes = tuple(range(k, values.ndim))
    rows = values.shape[:k]
    mu, scale = (ran.saved[n].astype(np.float64).reshape(rows) for n in ("mean", "rstd"))
    column = (..., *(None,) * len(shape))
    inner = {"mean": mu, "r": scale, "xhat": (values - mu[column]) * scale[column]}
    has_gamma = ran.a["gamma"] is not None
    g = gamma[inside] if has_gamma else None
    times = lambda product: product * g if has_gamma else product  # noqa: E731
    over_rows = dict(zip(names[:k], rows, strict=True))
    rules = {
        "y": rule(times(r[row] * x[here])) - times(r[row] * mean[row]) + beta[inside],
        "xhat": x[here] * r[row] - mean[row] * r[row],
        "dgamma": rule(total(dy[here] * xhat[here], **over_rows)),
        "dbeta": rule(total(dy[here], **over_rows)),
    }
    if ran.dy and ran.dy[0] is not None:
        d = ran.dy[0] * (ran.a["gamma"] if has_gamma else 1.0)
        inner |= {"mean_dy": d.mean(axis=axes), "mean_dy_xhat": (d * inner["xhat"]).mean(axis=axes)}
        rules["dx"] = rule(times(dy[here] * r[row])) - r[row] * sum_dy[row] - r[row] * xhat[here] * sum_dyx[row]
    rowwise = dict.fromkeys(("mean", "r", "mean_dy", "mean_dy_xhat"), " ".join(names[:k]))
    within = dict.fromkeys(("gamma", "beta"), " ".join(names[k:]))
    whole = dict.fromkeys(("x", "y", "xhat"), " ".join(names))
    says = {
        "r": "1 / sqrt(σ² + ε)",
        "xhat": "(x − μ) r",
        "mean": "μ",
        "mean_dy": "mean of γ dy",
        "mean_dy_xhat": "mean of γ dy x̂",
    }
    return Anatomy(rules, axes={**rowwise, **within, **whole}, inner=inner, says=says)


@explains(ops.LocalResponseNorm)
def local_response_norm(ran: Ran) -> Anatomy:
    """y_c = x_c s_c^−β; dx_c = dy_c s_c^−β − 2 αβ/n x_c Σ_j dy_j x_j s_j^(−β−1), j the channels that have c for a neighbour."""
    size, alpha, beta_ = (ran.saved[name] for name in ("size", "alpha", "beta"))
    values = ran.a["x"]
    names = ["n", "c", "h", "w"] if values.ndim == 4 else ["n", "c", *LETTERS[: values.ndim - 2]]
    here = tuple(places(" ".join(names)))
    (o,) = places("o")
    inhibits, lets = arrays("inhibits scale")
    near = (here[0], here[1] + o - size // 2, *here[2:])
    seen = (here[0], here[1] + o - (size - 1) // 2, *here[2:])
    sums = ran.saved["s"].astype(np.float64).reshape(values.shape)
    share = total(x[here] * dy[seen] * x[seen] * inhibits[seen], o=size) * (2 * alpha * beta_ / size)
    letters = " ".join(names)
    return Anatomy(
        {
            "y": rule(x[here] * lets[here]),
            "dx": rule(dy[here] * lets[here]) - share,
            "s": number(ran.settings.get("k", 1.0)) + total(x[near] * x[near], o=size) * (alpha / size),
        },
        axes=dict.fromkeys(("x", "y", "s", "scale", "inhibits"), letters),
        inner={"s": sums, "scale": sums**-beta_, "inhibits": sums ** (-beta_ - 1)},
        says={"s": "k + α/n Σ x² of the neighbours", "scale": "s^−β", "inhibits": "s^(−β−1)"},
    )
