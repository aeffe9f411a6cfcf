"""A convolution as a page on which the window steps from output to output and every product is shown.

In the manner of the demo in CS231n's notes on convolutional networks (A. Karpathy and J. Johnson, Stanford). What the page
looks like and does is in convolution_demo.html beside this file; here its numbers are made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib import ops
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.viz.figure import to_array

PAGE = Path(__file__).with_suffix(".html")
MOST = {"channels": 8, "filters": 8, "rows": 24, "columns": 24, "rows of a kernel": 7, "columns of a kernel": 7}


def convolution_demo(x: Any, w: Any, b: Any = None, stride: Any = 1, padding: Any = 0) -> str:
    """One HTML page that shows y = w ∗ x + b step by step; it needs a browser, no network and nothing beside it.

    x (C, H, W) or (1, C, H, W), w (F, C, KH, KW), b (F,) or None; ``stride`` and ``padding`` as in :func:`cnnlib.ops.conv2d`,
    which computes what is shown, here in float64. Play, step, or point at an output: its window lights up in all channels,
    and its C·KH·KW products stand beside it with their sum.

    What fits on a page: at most 8 channels, 8 filters, 24×24 pixels with the padding, kernels of 7×7.

    >>> from cnnlib import viz
    >>> page = viz.convolution_demo([[[1, 3, 5], [6, 0, 2], [6, 3, 1]]], [[[[0.2, 0.7], [-0.5, 0.7]]]])
    >>> page[:15], "5.5" in page
    ('<!DOCTYPE html>', True)

    ``Path("demo.html").write_text(page, encoding="utf-8")`` makes a file of it; a notebook shows it in an iframe.

    Raises ShapeError (shapes that conv2d refuses, several images, more than fits), ValueRangeError (NaN or infinity).

    Source: lecture: convolutional networks, the 7×7×3 example.
    """
    x, w = (to_array(a).astype(np.float64) for a in (x, w))
    b = None if b is None else to_array(b).astype(np.float64)
    if x.ndim == 3:
        x = x[None]
    if x.ndim != 4 or len(x) != 1:
        raise ShapeError(f"convolution_demo: x must be one image, (C, H, W) or (1, C, H, W), got shape {x.shape}.")
    for name, a in (("x", x), ("w", w), ("b", b)):
        if a is not None and not np.isfinite(a).all():
            raise ValueRangeError(f"convolution_demo: {name} has NaN or infinity: there is no sum to show.")
    y, ctx = ops.Conv2d.run(x, w, b, stride=stride, padding=padding)
    stride, pads = ctx.geometry[:2]
    padded = np.pad(x[0], ((0, 0), pads[:2], pads[2:]))
    _check_size(padded, w)
    numbers = {
        "x": padded.tolist(),
        "w": w.tolist(),
        "b": [] if b is None else b.tolist(),
        "y": y[0].tolist(),
        "stride": stride,
        "pads": pads,
        "image": x.shape[2:],
    }
    return PAGE.read_text(encoding="utf-8").replace("@DATA@", json.dumps(numbers))


def _check_size(padded: np.ndarray, w: np.ndarray) -> None:
    came = (len(padded), len(w), *padded.shape[1:], *w.shape[2:])
    for (what, most), n in zip(MOST.items(), came, strict=True):
        if n > most:
            raise ShapeError(
                f"convolution_demo: {n} {what} do not fit on a page, at most {most} do (x with its padding {padded.shape}, "
                f"w {w.shape}): take a part of x or of w."
            )
