"""Dropout: every element times its mask, forward and backward: 0, or 1 / (1 − p)."""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import Anatomy, Ran, explains
from cnnlib.microscope.rules import FLAT, arrays, places, rule
from cnnlib.ops.dropout import threshold
from cnnlib.random import philox_words

(at,) = places(FLAT)
x, dy, mask = (a.flat(at) for a in arrays("x dy mask"))


@explains(ops.Dropout, ops.MaskingNoise)
def dropout(ran: Ran) -> Anatomy:
    p, values = ran.saved["p"], ran.a["x"]
    if ran.op is ops.Dropout:
        kept = np.unpackbits(ran.saved["keep"], bitorder="little")[: values.size] / (1 - p)
    else:
        kept = (philox_words(ran.saved["key"], values.size) >= threshold(p)).astype(np.float64)
    return Anatomy(
        {"y": rule(x * mask), "dx": rule(dy * mask)},
        inner={"mask": kept.reshape(values.shape)},
        says={"mask": f"0 with probability {p:g}"},
    )
