"""Pooling backward: max, average and L2

Pooling makes one number of each window, so that a digit shifted by a pixel looks nearly the same to the next layer. There
is nothing to learn in it, and still the gradient must pass. How it passes says what kind of pooling it is:

    max       y = max of the window         the winner takes all: dy goes to the one largest pixel, 0 to the others
    average   y = Σ window / (KH·KW)        everybody gets the same: dy / (KH·KW), padding counted as pixels
    L2        y = (Σ window²)^½             by merit: dy · x / y to each pixel, and 0 where y = 0

    dy (N, C, OH, OW)    x, dx (N, C, H, W)    OH = (H + top + bottom − KH) // SH + 1, OW likewise

The window of (oh, ow) begins at row oh·SH − top and column ow·SW − left. For max, the padding never wins; if two pixels are
equally large, the first one in reading order takes all. For average and L2 the padding holds zeros. Windows may overlap,
3×3 with stride 2 as in AlexNet, and then a pixel may win more than once: its shares add up.

The lecture's two examples, 2×2 with stride 2:

    2 8 9 4                        12  20  30   0
    3 6 5 7    max:  8 9            8  12   2   0    max:   20  30     average:  13   8
    3 1 6 4          5 7           34  70  37   4          112  37               79  19.5 (the slide rounds to 20)
    2 5 7 3                       112 100  25  12

In the first one only 8, 9, 5 and 7 hear from dy; twelve of the sixteen pixels get a zero. Which ones do, forward knew. A
good implementation notes it down there; yours gets x and may look again.

Write pool2d_backward for the three kinds. One pair of loops over the windows, and three short answers inside.

Source: lecture: convolutional networks (pooling); Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep
convolutional neural networks", 2012; Sermanet, Chintala & LeCun, "Convolutional neural networks applied to house numbers
digit classification", 2012 (L2).
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant, Numerical, Train
from cnnlib.ops.conv import output_size
from cnnlib.ops.pool import (
    _counts,
    _inside,
    _offsets,
    _output_size,
    _padded,
    _padded_zeros,
    avg_pool2d_backward,
    avg_pool2d_forward,
    lp_pool2d_backward,
    lp_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)


def pool2d_backward(dy, x, kind, kernel_size, stride, pads):
    if kind == "max":
        y, argmax = max_pool2d_forward(x, kernel_size, stride, pads)
        return max_pool2d_backward(dy, argmax, x.shape, kernel_size, stride, pads)
    if kind == "average":
        return avg_pool2d_backward(dy, x.shape, kernel_size, stride, pads, True)
    y = lp_pool2d_forward(x, 2, kernel_size, stride, pads)
    return lp_pool2d_backward(dy, x, y, 2, kernel_size, stride, pads)


def forward(dy, x, kind, kernel_size, stride, pads):
    if kind == "max":
        return max_pool2d_forward(x, kernel_size, stride, pads)[0]
    if kind == "average":
        return avg_pool2d_forward(x, kernel_size, stride, pads, True)
    return lp_pool2d_forward(x, 2, kernel_size, stride, pads)


LECTURE_1 = np.array([[2, 8, 9, 4], [3, 6, 5, 7], [3, 1, 6, 4], [2, 5, 7, 3]], dtype=float)
LECTURE_2 = np.array([[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]], dtype=float)


def cases(rng):
    def case(x, kind, kernel_size, stride, pads, *features, kink=False):
        OH, OW = output_size(x.shape[2:], kernel_size, stride, pads, (1, 1))
        return Case(
            (rng.standard_normal((*x.shape[:2], OH, OW)), x, kind, kernel_size, stride, pads), (kind, *features), kink=kink
        )

    def distinct(*shape):
        """No two values nearer than 0.1, none nearer to 0 than 0.05."""
        n = np.prod(shape)
        return rng.permutation(np.arange(n) - n // 2 + 0.5).reshape(shape) / 10

    none = (0, 0, 0, 0)
    tied = np.array([[1.0, 2.0, 2.0, 0.0], [2.0, 1.0, 2.0, 0.0], [3.0, 3.0, 3.0, 0.0], [3.0, 3.0, 0.0, 1.0]])
    return [
        case(LECTURE_1[None, None], "max", (2, 2), (2, 2), none, "the lecture's example", "N = 1"),
        case(distinct(2, 3, 7, 5), "max", (3, 3), (2, 1), none, "overlap", "stride"),
        case(distinct(2, 2, 4, 5) - 5, "max", (2, 3), (2, 2), (1, 0, 1, 1), "padding", "stride"),
        case(tied[None, None], "max", (2, 2), (2, 2), none, "ties", "N = 1"),
        case(LECTURE_2[None, None], "average", (2, 2), (2, 2), none, "the lecture's example", "N = 1"),
        case(distinct(2, 2, 6, 5), "average", (3, 2), (2, 1), (1, 2, 0, 1), "padding", "overlap", "stride"),
        case(distinct(2, 2, 5, 7), "L2", (3, 3), (1, 2), (2, 1, 2, 0), "padding", "overlap", "stride"),
        case(
            np.pad(distinct(1, 2, 2, 3), ((0, 0), (0, 0), (2, 0), (0, 3))),
            "L2",
            (2, 3),
            (2, 3),
            none,
            "zeros",
            "N = 1",
            kink=True,
        ),
    ]


def lenet_s2(rng):
    """The first pooling of LeNet-5 on a batch of 8 pictures."""
    dy, x = (rng.standard_normal(shape, dtype=np.float32) for shape in ((8, 6, 14, 14), (8, 6, 28, 28)))
    return dy, x, "max", (2, 2), (2, 2), (0, 0, 0, 0)


def with_winners(dy, x, kind, *geometry):
    return dy, max_pool2d_forward(x, *geometry)[1], x.shape, *geometry


def kernels(f):
    def backward(dy, argmax, x_shape, *geometry):
        winners = max_pool2d_backward(
            np.ones_like(dy), argmax, x_shape, *geometry
        )  # 1 at each maximum, else 0: no overlap here
        return np.asarray(f(dy, winners, "max", *geometry), dy.dtype)

    return {"max_pool2d_backward": backward}


LOOPS = """\
import numpy as np


def pool2d_backward(dy, x, kind, kernel_size, stride, pads):
    N, C, H, W = x.shape
    (KH, KW), (SH, SW), (top, bottom, left, right) = kernel_size, stride, pads
    value = -np.inf if kind == "max" else 0
    xp = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)
    dxp = np.zeros(xp.shape)
    for n in range(N):
        for c in range(C):
            for oh in range(dy.shape[2]):
                for ow in range(dy.shape[3]):
                    place = n, c, slice(oh * SH, oh * SH + KH), slice(ow * SW, ow * SW + KW)
                    window, d = xp[place], dy[n, c, oh, ow]
                    if kind == "max":
                        kh, kw = np.unravel_index(window.argmax(), window.shape)
                        dxp[n, c, oh * SH + kh, ow * SW + kw] += d
                    elif kind == "average":
                        dxp[place] += d / window.size
                    elif window.any():
                        dxp[place] += d * window / np.sqrt((window**2).sum())
    return dxp[:, :, top : top + H, left : left + W]
"""

WINDOWS = """\
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def pool2d_backward(dy, x, kind, kernel_size, stride, pads):
    around = ((0, 0), (0, 0), pads[:2], pads[2:])
    xp = np.pad(x, around, constant_values=-np.inf if kind == "max" else 0)
    windows = sliding_window_view(xp, kernel_size, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    flat = windows.reshape(*windows.shape[:4], -1)  # (N, C, OH, OW, KH·KW)
    if kind == "max":
        share = np.eye(flat.shape[-1])[flat.argmax(axis=-1)]
    elif kind == "average":
        share = np.full(flat.shape, 1 / flat.shape[-1])
    else:
        length = np.linalg.norm(flat, axis=-1, keepdims=True)
        share = np.divide(flat, length, out=np.zeros(flat.shape), where=length > 0)
    places = np.arange(xp.size).reshape(xp.shape)
    places = sliding_window_view(places, kernel_size, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    dx = np.bincount(places.ravel(), (dy[..., None] * share).ravel(), minlength=xp.size).reshape(xp.shape)
    return dx[:, :, pads[0] : pads[0] + x.shape[2], pads[2] : pads[2] + x.shape[3]]
"""

TIES_SHARED = """\
x_padded = _padded(x, pads, -np.inf)
        dx = _padded_zeros(dy, x.shape, pads)
        for (_, dwindow), (_, window) in zip(
            _offsets(dx, kernel_size, stride, dy.shape[2:]), _offsets(x_padded, kernel_size, stride, dy.shape[2:])
        ):
            dwindow += np.where(window == y, dy, 0)
        return _inside(dx, x.shape, pads)"""
WINNER_BY_SIZE = "max_pool2d_forward(abs(x), kernel_size, stride, pads)"
ASSIGNED = "for k, window in _offsets(dx, kernel_size, stride, dy.shape[2:]):\n        window[argmax == k] = dy[argmax == k]"

EXERCISE = Exercise(
    number=16,
    name="pooling_backward",
    topic="lecture: convolutional networks (pooling)",
    function=pool2d_backward,
    uses=(
        output_size,
        _output_size,
        _padded,
        _padded_zeros,
        _inside,
        _offsets,
        _counts,
        max_pool2d_forward,
        max_pool2d_backward,
        avg_pool2d_backward,
        lp_pool2d_forward,
        lp_pool2d_backward,
    ),
    outputs=("dx",),
    starter='''\
import numpy as np


def pool2d_backward(dy, x, kind, kernel_size, stride, pads):
    """dy (N, C, OH, OW), x (N, C, H, W), kind "max", "average" or "L2" -> dx of x's shape."""
    (KH, KW), (SH, SW), (top, bottom, left, right) = kernel_size, stride, pads
    OH, OW = dy.shape[2:]

    # 1. pad x: with which value, for which kind?
    # 2. zeros of the padded size for dx
    # 3. for every window: which pixels get how much of dy?
    # 4. cut the frame off dx
    ...
''',
    cases=cases,
    numerical=Numerical(forward, wrt={"dx": 1}, upstream=0),
    hints=(
        "Average first: every pixel of a window gets dy / (KH·KW), added. Once that is right, the other kinds change one "
        "line: how the one number dy[n, c, oh, ow] is dealt out inside its window.",
        "max: np.argmax of the window gives its first maximum, counted through the flattened window; pad with −inf, so that "
        "no padding wins. L2: the chain rule on the root gives dy · (1 / 2y) · 2x.",
        "max      k = window.argmax();  dxp[n, c, oh*SH + k // KW, ow*SW + k % KW] += d\n"
        "average  dxp[n, c, oh*SH : oh*SH + KH, ow*SW : ow*SW + KW] += d / (KH * KW)\n"
        "L2       y = np.sqrt((window**2).sum());  … += d * window / y   if y > 0",
    ),
    question="At a tie, PyTorch and cnnlib send dy to the first maximum. Would it not be fairer to share it? And what about "
    "L2 at y = 0?",
    answer="At a tie max has no derivative, only subgradients: all to the first, all to the last, or any sharing with parts "
    "that add up to 1. All to the first is cheapest. Sending the whole dy to every tied pixel is none of them: it counts dy "
    "twice. At y = 0 the L2 norm is the tip of a cone; 0 is one of its subgradients, and the only one that prefers no "
    "direction.",
    link="cnnlib/ops/pool.py",
    explanations=(
        Explanation(
            "ties get all",
            "at a tie you send dy to every pixel that equals the maximum, which counts it twice: the first one in reading "
            "order takes all.",
        ),
        Explanation("last tie", "at a tie you send dy to the last maximum: the first one in reading order takes all."),
        Explanation("zeros win", "your max lets the padding win where all pixels are negative: pad with −inf, not with 0."),
        Explanation("largest in size", "your max looks for the largest absolute value: −3 is smaller than 2."),
        Explanation(
            "overwritten",
            "where windows overlap you overwrite: a pixel that won several windows collects dy from all of them, so add "
            "(+=) instead of assigning.",
        ),
        Explanation(
            "not divided", "your average gives the whole dy to every pixel: y = Σ window / (KH·KW), so each gets dy / (KH·KW)."
        ),
        Explanation(
            "padding not counted",
            "your average divides by the number of pixels inside the image: here the padding counts, divide by KH·KW "
            "everywhere.",
        ),
        Explanation(
            "2 too many", "your L2 gradient has a 2 too many: the ½ of the root's derivative takes away the 2 of the square."
        ),
        Explanation("root forgotten", "your L2 gradient forgets the derivative of the root: ∂y/∂x = x / y, not x."),
        Explanation("square of y", "your L2 gradient divides by y²: the derivative of the root leaves one y, ∂y/∂x = x / y."),
        Explanation("sign forgotten", "your L2 gradient forgets the sign of x: ∂y/∂x = x / y, and x may be negative."),
        Explanation(
            "frame not cut",
            "you cut dx out of its frame at the wrong place: the image begins at row top and column left of the padded dx.",
        ),
        Explanation(
            "dealt equally",
            "your max deals dy out to the whole window as the average does: only the winner changes y, so it takes all.",
        ),
    ),
    mutants=(
        Mutant("return max_pool2d_backward(dy, argmax, x.shape, kernel_size, stride, pads)", TIES_SHARED, "ties get all"),
        Mutant("(window > y)", "(window >= y)", "last tie"),
        Mutant("_offsets(_padded(x, pads, -np.inf), kernel_size", "_offsets(_padded(x, pads, 0), kernel_size", "zeros win"),
        Mutant(
            "y, argmax = max_pool2d_forward(x, kernel_size, stride, pads)", f"y, argmax = {WINNER_BY_SIZE}", "largest in size"
        ),
        Mutant(
            "for k, window in _offsets(dx, kernel_size, stride, dy.shape[2:]):\n        window += np.where(argmax == k, dy, 0)",
            ASSIGNED,
            "overwritten",
        ),
        Mutant(
            "share = dy / _counts(dy, dy.shape, x_shape, kernel_size, stride, pads, count_include_pad)",
            "share = dy",
            "not divided",
        ),
        Mutant("kernel_size, stride, pads, True)", "kernel_size, stride, pads, False)", "padding not counted"),
        Mutant("dwindow += dy * np.sign(window)", "dwindow += 2 * dy * np.sign(window)", "2 too many"),
        Mutant("(abs(window) / divisor) ** (p - 1)", "abs(window)", "root forgotten"),
        Mutant("(abs(window) / divisor) ** (p - 1)", "abs(window) / divisor**2", "square of y"),
        Mutant("dwindow += dy * np.sign(window)", "dwindow += dy", "sign forgotten"),
        Mutant(
            "padded[:, :, pads[0] : pads[0] + x_shape[2], pads[2] : pads[2] + x_shape[3]]",
            "padded[:, :, : x_shape[2], : x_shape[3]]",
            "frame not cut",
        ),
        Mutant('if kind == "max":', 'kind = kind.replace("max", "average")\n    if kind == "max":', "dealt equally"),
        Mutant("np.where(y == 0, 1, y)", "y", "nan"),
        Mutant("np.where(argmax == k, dy, 0)", "np.where(argmax == k, 1.0, 0)", "upstream"),
        Mutant(
            "return np.ascontiguousarray(padded[:, :, pads[0] : pads[0] + x_shape[2], pads[2] : pads[2] + x_shape[3]])",
            "return padded",
            "shape",
        ),
    ),
    equivalent={"output_size: d * (k - 1) -> k - 1": "pooling has no dilation: d is 1"},
    alternatives=(LOOPS, WINDOWS),
    fast=Fast(lenet_s2, "max_pool2d_backward", with_winners),
    train=Train(kernels, "max_pool"),
)
