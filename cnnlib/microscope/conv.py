"""Convolutions: y[n, f, oh, ow] = Σ_{c, kh, kw} x[n, c, S·oh + D·kh − P, S·ow + D·kw − P] w[f, c, kh, kw] + b[f].

Read backwards, as the adjoint and the transposed convolution do, a pixel h meets the output (h + P − D·kh) / S where that is
a whole number.
"""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import Anatomy, Ran, explains
from cnnlib.microscope.rules import arrays, places, rule, total

x, w, b, dy, of_group, of_channel, inside = arrays("x w b dy first_channel first_map within_group")
n, f, c, h, u, oh, ow, kh, kw = places("n f c h w oh ow kh kw")
AXES = {"x": "n c h w", "w": "f c kh kw", "b": "f", "y": "n f oh ow"}


@explains(ops.Conv2d)
def conv2d(ran: Ran) -> Anatomy:
    (SH, SW), (top, _, left, _), (DH, DW), groups = ran.saved["geometry"]
    F, channels, KH, KW = ran.a["w"].shape
    N, _, OH, OW = ran.y[0].shape
    maps = F // groups
    # Without groups every filter sees all channels; with them, filter f those from first_channel[f] on.
    inner = {} if groups == 1 else _groups(F, ran.a["x"].shape[1], groups)
    start, first, within = (0, 0, c) if groups == 1 else (of_group[f], of_channel[c], inside[c])
    row, column = SH * oh + DH * kh - top, SW * ow + DW * kw - left
    back_row, back_column = (h + top - DH * kh) // SH, (u + left - DW * kw) // SW
    of_map = f + first
    return Anatomy(
        {
            "y": total(x[n, c + start, row, column] * w[f, c, kh, kw], c=channels, kh=KH, kw=KW) + b[f],
            "dx": rule(total(dy[n, of_map, back_row, back_column] * w[of_map, within, kh, kw], f=maps, kh=KH, kw=KW)),
            "dw": rule(total(dy[n, f, oh, ow] * x[n, c + start, row, column], n=N, oh=OH, ow=OW)),
            "db": rule(total(dy[n, f, oh, ow], n=N, oh=OH, ow=OW)),
        },
        axes={**AXES, "first_channel": "f", "first_map": "c", "within_group": "c"},
        inner=inner,
    )


def _groups(F: int, C: int, groups: int) -> dict[str, np.ndarray]:
    maps, channels = F // groups, C // groups
    filters, inputs = np.arange(F), np.arange(C)
    return {
        "first_channel": filters // maps * channels,
        "first_map": inputs // channels * maps,
        "within_group": inputs % channels,
    }


@explains(ops.ConvTranspose2d)
def conv_transpose2d(ran: Ran) -> Anatomy:
    """Conv2d read backwards: x (oh, ow) writes its products with the kernel into y (h, w)."""
    (SH, SW), (top, _, left, _), (DH, DW), groups = ran.saved["geometry"]
    C, maps, KH, KW = ran.a["w"].shape
    N, _, OH, OW = ran.a["x"].shape
    H, W = ran.y[0].shape[2:]
    inner = {} if groups == 1 else _groups_of_outputs(C, maps, groups)
    start, first, within = (0, 0, f) if groups == 1 else (of_group[f], of_channel[c], inside[f])
    row, column = SH * oh + DH * kh - top, SW * ow + DW * kw - left
    back_row, back_column = (h + top - DH * kh) // SH, (u + left - DW * kw) // SW
    written = x[n, c + start, back_row, back_column] * w[c + start, within, kh, kw]
    return Anatomy(
        {
            "y": total(written, c=C // groups, kh=KH, kw=KW) + b[f],
            "dx": rule(total(dy[n, f + first, row, column] * w[c, f, kh, kw], f=maps, kh=KH, kw=KW)),
            "dw": rule(total(x[n, c, oh, ow] * dy[n, f + first, row, column], n=N, oh=OH, ow=OW)),
            "db": rule(total(dy[n, f, h, u], n=N, h=H, w=W)),
        },
        axes={"x": "n c oh ow", "w": "c f kh kw", "b": "f", "y": "n f h w", "first_channel": "f", "first_map": "c",
              "within_group": "f"},
        inner=inner,
    )  # fmt: skip


def _groups_of_outputs(C: int, maps: int, groups: int) -> dict[str, np.ndarray]:
    channels = C // groups
    outputs, inputs = np.arange(maps * groups), np.arange(C)
    return {
        "first_channel": outputs // maps * channels,
        "first_map": inputs // channels * maps,
        "within_group": outputs % maps,
    }
