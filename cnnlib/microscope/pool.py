"""Pooling: the largest element of a window, or its mean; backwards, to the winner alone, or an equal share to each."""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import Anatomy, Ran, explains
from cnnlib.microscope.rules import LARGEST, arrays, equal, places, rule, total

x, dy, argmax, share = arrays("x dy argmax share")
n, c, h, w, oh, ow, kh, kw = places("n c h w oh ow kh kw")
AXES = {"x": "n c h w", "y": "n c oh ow", "argmax": "n c oh ow", "share": "oh ow"}


@explains(ops.MaxPool2d)
def max_pool2d(ran: Ran) -> Anatomy:
    (KH, KW), here, window = _windows(ran)
    there = (n, c, *window)
    wins = equal(argmax[there], KW * kh + kw)
    return Anatomy(
        {
            "y": rule(total(x[n, c, *here], kh=KH, kw=KW)).by(LARGEST),
            "dx": rule(total(wins * dy[there], kh=KH, kw=KW)),
        },
        axes=AXES,
        inner={"argmax": ran.saved["argmax"].astype(np.int64)},
        says={"argmax": f"who won: kh · {KW} + kw"},
    )


@explains(ops.AvgPool2d)
def avg_pool2d(ran: Ran) -> Anatomy:
    (KH, KW), here, window = _windows(ran)
    return Anatomy(
        {
            "y": rule(total(x[n, c, *here] * share[oh, ow], kh=KH, kw=KW)),
            "dx": rule(total(dy[n, c, *window] * share[window], kh=KH, kw=KW)),
        },
        axes=AXES,
        inner={"share": _share(ran)},
        says={"share": "1/m, m elements in the window"},
    )


def _windows(ran: Ran):
    """The window's size; the pixel that its element (kh, kw) is; the output that sees pixel (h, w) there."""
    size, (SH, SW), (top, _, left, _) = ran.saved["geometry"]
    here = SH * oh + kh - top, SW * ow + kw - left
    return size, here, ((h + top - kh) // SH, (w + left - kw) // SW)


def _share(ran: Ran) -> np.ndarray:
    (KH, KW), stride, pads = ran.saved["geometry"]
    outputs = ran.y[0].shape[2:]
    if ran.saved["count_include_pad"]:
        return np.full(outputs, 1 / (KH * KW))
    counts = []
    for size, reach, step, before, number in zip(ran.a["x"].shape[2:], (KH, KW), stride, pads[::2], outputs, strict=True):
        begin = np.arange(number) * step - before
        counts.append(np.minimum(begin + reach, size) - np.maximum(begin, 0))
    return 1 / (counts[0][:, None] * counts[1])
