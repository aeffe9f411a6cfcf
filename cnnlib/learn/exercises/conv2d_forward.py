"""Convolution, slowly: every output pixel by hand

A fully connected layer that looks at a 200×200×3 picture has 120,000 weights for each hidden unit, and learns nothing
about a cat in the left corner from a cat in the right one. A convolution makes one bet about pictures: what is worth
seeing in one place is worth seeing in every place. So it keeps one small kernel and slides it over the image. At each
stop it lays the kernel on the window below, multiplies, and adds up.

    y[n, f, oh, ow] = b[f] + Σ_c Σ_kh Σ_kw  w[f, c, kh, kw] · x[n, c, oh·SH + kh·DH − top, ow·SW + kw·DW − left]

    x (N, C, H, W)    w (F, C/G, KH, KW)    b (F,) or None    y (N, F, OH, OW)
    OH = (H + top + bottom − DH·(KH − 1) − 1) // SH + 1, and OW likewise with left, right, DW, KW, SW

Outside the image, x counts as zero: padding is what lets the kernel hang over the edge. The stride is how far the
kernel jumps between stops. Dilation spreads the kernel's taps apart: with 2 it skips every second pixel. With G groups
the channels are cut into G stacks, and each output channel sees only the stack of its own group: AlexNet's two
towers. Output channels 0 … F/G−1 belong to the first group and see the input channels 0 … C/G−1, and so on.

Despite the name nothing is flipped: the kernel's top left weight meets the window's top left pixel. Mathematicians call
that cross-correlation. The lecture writes h_ij = g((W ∗ X)_ij + b); here is its example, in numbers:

    1 3 5 2 4
    6 0 2 1 3        0.2  0.7        first window: 0.2·1 + 0.7·3 − 0.5·6 + 0.7·0 = −0.7
    6 3 1 3 6       −0.5  0.7        next one:     0.2·3 + 0.7·5 − 0.5·0 + 0.7·2 =  5.5
    7 3 2 1 3
    5 3 0 0 2

The checker tries that one, and the convolution demo of CS231n (7×7×3, two filters, stride 2), digit by digit.

Write it as naively as you like; seven nested loops are a fine answer. You will be able to make it fast afterwards. If
something is off and you do not see where, return y and a dict with any of {"x_padded": …, "windows": …}, where windows
(N, C, KH, KW, OH, OW) holds what the kernel sees at each stop. You are told which of them goes wrong first.

Source: lecture: convolutional networks; LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
recognition", 1998.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Intermediates, Mutant, Train
from cnnlib.ops.conv import _grouped, conv2d_forward, im2col, output_size

# fmt: off
DEMO_X = np.array([  # CS231n's demo, its padding of 1 taken off
    [[1, 1, 1, 0, 0], [0, 2, 0, 1, 0], [2, 1, 0, 1, 2], [0, 2, 1, 0, 1], [1, 1, 1, 2, 1]],
    [[2, 1, 1, 1, 0], [0, 1, 2, 1, 1], [0, 0, 2, 0, 2], [0, 2, 2, 2, 2], [1, 2, 1, 0, 1]],
    [[2, 0, 0, 1, 2], [2, 0, 1, 0, 2], [0, 1, 2, 2, 0], [1, 2, 0, 0, 2], [0, 1, 1, 1, 2]],
], dtype=float)
DEMO_W = np.array([
    [[[0, -1, 1], [1, 0, -1], [1, 0, 0]], [[0, -1, 1], [1, 0, -1], [0, 0, 1]], [[1, 0, 0], [1, 0, 0], [1, -1, -1]]],
    [[[0, 0, 1], [1, 1, 1], [0, 0, -1]], [[-1, -1, 1], [0, 1, -1], [-1, -1, -1]], [[0, 1, 0], [1, 0, 0], [-1, -1, 0]]],
], dtype=float)
LECTURE_X = np.array([[1, 3, 5, 2, 4], [6, 0, 2, 1, 3], [6, 3, 1, 3, 6], [7, 3, 2, 1, 3], [5, 3, 0, 0, 2]], dtype=float)
LECTURE_W = np.array([[0.2, 0.7], [-0.5, 0.7]])
# fmt: on


def cases(rng):
    n = rng.standard_normal
    one, none = (1, 1), (0, 0, 0, 0)
    return [
        Case((LECTURE_X[None, None], LECTURE_W[None, None], None, one, none, one, 1), ("the lecture's 5×5 image", "no bias")),
        Case(
            (DEMO_X[None], DEMO_W, np.array([1.0, 0.0]), (2, 2), (1, 1, 1, 1), one, 1), ("CS231n's demo", "stride", "padding")
        ),
        Case((n((3, 2, 5, 6)), n((4, 2, 3, 2)), n(4), one, none, one, 1)),
        Case((n((2, 2, 7, 8)), n((3, 2, 3, 2)), n(3), (3, 2), none, one, 1), ("stride",)),
        Case((n((1, 2, 4, 5)), n((3, 2, 3, 3)), n(3), one, (1, 2, 0, 3), one, 1), ("padding", "N = 1")),
        Case((n((2, 2, 7, 9)), n((3, 2, 3, 3)), n(3), one, (1, 1, 2, 2), (2, 3), 1), ("dilation", "padding")),
        Case((n((2, 6, 5, 4)), n((4, 3, 2, 3)), n(4), one, (0, 0, 1, 1), one, 2), ("groups", "padding")),
        Case(
            (n((2, 4, 8, 7)), n((4, 2, 2, 3)), n(4), (2, 1), (0, 1, 2, 1), (2, 1), 2),
            ("stride", "padding", "dilation", "groups"),
        ),
    ]


def intermediates(x, w, b, stride, pads, dilation, groups):
    return {
        "x_padded": np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:])),
        "windows": im2col(x, w.shape[2:], stride, pads, dilation),
    }


def lenet_c1(rng):
    """The first layer of LeNet-5 on a batch of 8 pictures of 32×32 pixels."""
    x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((8, 1, 32, 32), (6, 1, 5, 5), (6,)))
    return x, w, b, (1, 1), (0, 0, 0, 0), (1, 1), 1


def kernels(f):
    def forward(x, *rest):
        y = f(x, *rest)
        return np.asarray(y[0] if isinstance(y, tuple) else y, x.dtype)  # without the intermediates

    return {"conv2d_forward": forward}


NAIVE = """\
import numpy as np


def conv2d_forward(x, w, b, stride, pads, dilation, groups):
    N, C, H, W = x.shape
    F, CG, KH, KW = w.shape
    (SH, SW), (top, bottom, left, right), (DH, DW) = stride, pads, dilation
    OH = (H + top + bottom - DH * (KH - 1) - 1) // SH + 1
    OW = (W + left + right - DW * (KW - 1) - 1) // SW + 1
    y = np.zeros((N, F, OH, OW))
    for n in range(N):
        for f in range(F):
            first = f // (F // groups) * CG
            for oh in range(OH):
                for ow in range(OW):
                    total = 0.0 if b is None else b[f]
                    for c in range(CG):
                        for kh in range(KH):
                            for kw in range(KW):
                                h, v = oh * SH + kh * DH - top, ow * SW + kw * DW - left
                                if 0 <= h < H and 0 <= v < W:
                                    total += w[f, c, kh, kw] * x[n, first + c, h, v]
                    y[n, f, oh, ow] = total
    return y
"""

WINDOWS = """\
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv2d_forward(x, w, b, stride, pads, dilation, groups):
    (SH, SW), (DH, DW) = stride, dilation
    KH, KW = w.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
    windows = sliding_window_view(x, (DH * (KH - 1) + 1, DW * (KW - 1) + 1), axis=(2, 3))
    windows = windows[:, :, ::SH, ::SW, ::DH, ::DW]  # (N, C, OH, OW, KH, KW)
    y = []
    for xg, wg in zip(np.split(windows, groups, axis=1), np.split(w, groups)):
        y.append(np.einsum("nchwij,fcij->nfhw", xg, wg))
    y = np.concatenate(y, axis=1)
    return y if b is None else y + b.reshape(1, -1, 1, 1)
"""


def without_last(axis):
    def wrong(x, w, b, *geometry):
        w = w.copy()
        w.swapaxes(0, axis)[-1] = 0.0
        return conv2d_forward(x, w, b, *geometry)

    return wrong


def flipped(axis):
    return lambda x, w, b, *geometry: conv2d_forward(x, np.flip(w, axis), b, *geometry)


def bias_in_the_loop(x, w, b, *geometry):
    return conv2d_forward(x, w, None if b is None else b * w[0].size, *geometry)


def bias_for_every_channel(x, w, b, *geometry):
    return conv2d_forward(x, w, None if b is None else b * w.shape[1], *geometry)


def groups_in_turn(x, w, b, *geometry):
    """Output channel f looks at group f % G."""
    *geometry, groups = geometry
    stacks = np.split(x, groups, axis=1)
    channels = [conv2d_forward(stacks[f % groups], w[f : f + 1], None, *geometry, 1) for f in range(len(w))]
    return np.concatenate(channels, axis=1) + (0 if b is None else b[:, None, None])


EXERCISE = Exercise(
    number=13,
    name="conv2d_forward",
    topic="lecture: convolutional networks",
    function=conv2d_forward,
    uses=(output_size, im2col, _grouped),
    outputs=("y",),
    starter='''\
import numpy as np


def conv2d_forward(x, w, b, stride, pads, dilation, groups):
    """x (N, C, H, W), w (F, C/groups, KH, KW), b (F,) or None -> y (N, F, OH, OW)."""
    N, C, H, W = x.shape
    F, CG, KH, KW = w.shape
    (SH, SW), (top, bottom, left, right), (DH, DW) = stride, pads, dilation

    # 1. How many stops does the kernel make? OH, OW
    # 2. Put a frame of zeros around the images: np.pad
    # 3. For each image n, output channel f and stop (oh, ow): multiply the kernel with its window, sum, add the bias.
    #    Which input channels does f see, with groups?
    ...
''',
    cases=cases,
    hints=(
        "Forget batch, channels, groups and dilation at first: one image, one kernel, two loops over the stops. Print the "
        "first number for the lecture's example: it must be −0.7. Then put one loop around it at a time.",
        "On the padded image, stop (oh, ow) begins at row oh·SH and column ow·SW; its taps lie DH rows and DW columns "
        "apart. A slice with a step takes exactly these pixels. Output channel f is in group f // (F // groups).",
        "g = f // (F // groups)\n"
        "window = xp[n, g*CG:(g+1)*CG, oh*SH : oh*SH + DH*(KH-1) + 1 : DH, ow*SW : ow*SW + DW*(KW-1) + 1 : DW]\n"
        "y[n, f, oh, ow] = (window * w[f]).sum() + (0 if b is None else b[f])",
    ),
    question="What would change if you did flip the kernel, as mathematicians do? Could a network trained one way be used "
    "the other way?",
    answer="Nothing that matters: the weights are learnt, so the network would learn the flipped ones. Trained weights can "
    "be moved over by flipping each kernel in both directions: w[:, :, ::-1, ::-1]. Flipping gives the operation nicer "
    "algebra (it commutes), which no network uses; libraries save themselves the trouble.",
    link="cnnlib/ops/conv.py",
    explanations=(
        Explanation("last row left out", "your windows leave out their last row: kh runs over all KH.", without_last(2)),
        Explanation("last column left out", "your windows leave out their last column: kw runs over all KW.", without_last(3)),
        Explanation(
            "flipped rows", "the rows of your kernel are upside down: w[0, 0] meets the window's top left pixel.", flipped(2)
        ),
        Explanation(
            "flipped columns",
            "the columns of your kernel are the wrong way round: w[0, 0] meets the window's top left pixel.",
            flipped(3),
        ),
        Explanation(
            "bias in the loop", "you add the bias for every product: it is added once to each output pixel.", bias_in_the_loop
        ),
        Explanation(
            "bias for every channel",
            "you add the bias once for each input channel: it is added once to each output pixel.",
            bias_for_every_channel,
        ),
        Explanation(
            "flipped kernel",
            "your kernel is flipped in both directions: that is a convolution in the mathematician's sense, but networks "
            "use cross-correlation, where w[0, 0] meets the window's top left pixel.",
        ),
        Explanation(
            "transposed kernel",
            "your kernel is transposed: kh counts rows of the image and kw columns, and you have them exchanged.",
        ),
        Explanation(
            "dilation forgotten",
            "you forgot the dilation when you read the pixels: tap (kh, kw) lies kh·DH rows and kw·DW columns from the "
            "window's corner, not kh and kw.",
        ),
        Explanation(
            "stride forgotten",
            "your windows move by one pixel from stop to stop: stop (oh, ow) begins at row oh·SH and column ow·SW.",
        ),
        Explanation(
            "pads exchanged",
            "your frame of zeros is the wrong way round: pads are (top, bottom, left, right), and the first of each pair "
            "goes before the image.",
        ),
        Explanation("edge repeated", "your padding repeats the pixels of the edge: outside the image, x counts as zero."),
        Explanation("bias forgotten", "you forgot the bias: b[f] is added to every pixel of output channel f."),
        Explanation(
            "interleaved groups",
            "your groups take every G-th channel: the channels of a group stand side by side, group 0 has 0 … C/G−1.",
        ),
        Explanation(
            "interleaved outputs",
            "your output channels are dealt out to the groups in turn: the first F/G of them belong to group 0, the next "
            "F/G to group 1.",
            groups_in_turn,
        ),
        Explanation(
            "first group only",
            "every output channel of yours looks at the first C/G input channels: with groups, channel f looks at those of "
            "its own group, f // (F/G).",
        ),
        Explanation(
            "average",
            "you take the mean over the window: a convolution is a plain sum of products.",
            lambda x, w, b, *g: conv2d_forward(x, w, None, *g) / w[0].size + (0 if b is None else b[:, None, None]),
        ),
    ),
    mutants=(
        Mutant("cols[:, :, kh, kw] =", "cols[:, :, KH - 1 - kh, KW - 1 - kw] =", "flipped kernel"),
        Mutant("h, w = kh * DH, kw * DW", "h, w = kh, kw", "dilation forgotten"),
        Mutant("x[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW]", "x[:, :, h : h + OH, w : w + OW]", "stride forgotten"),
        Mutant("pads[:2], pads[2:]))", "pads[1::-1], pads[:1:-1]))", "pads exchanged"),
        Mutant("pads[:2], pads[2:]))", 'pads[:2], pads[2:]), mode="edge")', "edge repeated"),
        Mutant("return y if b is None else y + b[:, None, None]", "return y", "bias forgotten"),
        Mutant(
            "cols.reshape(N, groups, -1, OH * OW)",
            "cols.reshape(N, cols.shape[1] // groups, groups, -1, OH * OW).swapaxes(1, 2).reshape(N, groups, -1, OH * OW)",
            "interleaved groups",
        ),
        Mutant(
            "(wg @ colsg).reshape(N, F, OH, OW)", "(wg @ colsg).swapaxes(1, 2).reshape(N, F, OH, OW)", "interleaved outputs"
        ),
        Mutant("(wg @ colsg)", "(wg @ colsg[:, :1])", "first group only"),
        Mutant("(wg @ colsg)", "(wg @ colsg / wg.shape[2])", "average"),
        Mutant("F = w.shape[0]\n", "F = w.shape[0]\n    w = w.swapaxes(2, 3)\n", "transposed kernel"),
        Mutant("(size + pad - d * (k - 1) - 1) // s + 1", "(size + pad - d * (k - 1)) // s", "shape"),
        Mutant("(size + pad - d * (k - 1) - 1) // s + 1", "(size + pad - d * (k - 1) - 1) // s", "shape"),
    ),
    equivalent={
        "_grouped: 1 -> 2": "reshape takes -2 for -1",
        "_grouped: 1 -> 2 #2": "reshape takes -2 for -1",
    },
    alternatives=(NAIVE, WINDOWS),
    intermediates=Intermediates(
        intermediates,
        {
            "x_padded": "x_padded = x with a frame of zeros, (N, C, H + top + bottom, W + left + right)",
            "windows": "windows[n, c, kh, kw, oh, ow] = x_padded[n, c, oh·SH + kh·DH, ow·SW + kw·DW]",
        },
    ),
    fast=Fast(lenet_c1, "conv2d_forward"),
    train=Train(kernels, "lenet5"),
)
