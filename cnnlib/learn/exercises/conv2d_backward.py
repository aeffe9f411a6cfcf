"""Convolution backward: dx, dw and db

The network was wrong; dy says, for every output pixel, how the loss changes with it. A convolution must pass this on to
three places: to its kernel, to its bias, and to the layer below. You need no new idea, only honest book-keeping. Forward
is nothing but a long list of products

    y[n, f, oh, ow]  +=  w[f, c, kh, kw] · x[n, c, h, v]        h = oh·SH + kh·DH − top,  v = ow·SW + kw·DW − left

and each product sends dy to both of its factors, the other factor as the weight:

    dw[f, c, kh, kw]  +=  dy[n, f, oh, ow] · x[n, c, h, v]          db[f]  +=  dy[n, f, oh, ow]
    dx[n, c, h, v]    +=  dy[n, f, oh, ow] · w[f, c, kh, kw]

    dy (N, F, OH, OW)    x, dx (N, C, H, W)    w, dw (F, C/G, KH, KW)    db (F,)

Look at the "+=": it is the whole difficulty. A weight is used at every stop and in every image, so dw collects from all of
them. A pixel lies under several windows, so dx collects from all windows that cover it. What fell on the padding is
lost: the frame of zeros is no input.

So: take your loops of the forward pass and put these three lines in the innermost one. Then look at what you have: dw is
a convolution of x with dy; and dx, for stride 1, is a convolution of dy with the kernel turned by 180°, "full", with the
kernel hanging over all edges. The flip that forward did not have is here.

If a number is off, return after the three outputs a dict with any of these, and you are told which goes wrong first:
{"cols": the windows of x, "dcols": w · dy before it is added back, both (N, C, KH, KW, OH, OW), "dx_padded": dx with a frame}.

Source: lecture: convolutional networks, backpropagation; LeCun et al., "Backpropagation applied to handwritten zip code
recognition", 1989.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Intermediates, Mutant, Numerical, Train
from cnnlib.ops.conv import (
    col2im,
    conv2d_backward_bias,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
    im2col,
    output_size,
)


def conv2d_backward(dy, x, w, stride, pads, dilation, groups):
    geometry = stride, pads, dilation, groups
    dx = conv2d_backward_input(dy, w, x.shape, *geometry)
    dw = conv2d_backward_weight(dy, x, w.shape, *geometry)
    return dx, dw, conv2d_backward_bias(dy)


def cases(rng):
    def case(x_shape, w_shape, stride, pads, dilation, groups, *features):
        OH, OW = output_size(x_shape[2:], w_shape[2:], stride, pads, dilation)
        dy, x, w = (rng.standard_normal(shape) for shape in ((x_shape[0], w_shape[0], OH, OW), x_shape, w_shape))
        return Case((dy, x, w, stride, pads, dilation, groups), features)

    return [
        case((3, 2, 5, 6), (4, 2, 3, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        case((1, 2, 4, 5), (3, 2, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1, "N = 1"),
        case((2, 2, 6, 6), (3, 2, 2, 3), (3, 2), (0, 0, 0, 0), (1, 1), 1, "stride"),
        case((2, 2, 4, 5), (3, 2, 3, 3), (1, 1), (1, 2, 0, 3), (1, 1), 1, "padding"),
        case((2, 2, 6, 8), (3, 2, 3, 3), (1, 1), (0, 0, 0, 0), (2, 3), 1, "dilation"),
        case((2, 6, 4, 3), (4, 3, 2, 2), (1, 1), (0, 0, 0, 0), (1, 1), 2, "groups"),
        case((2, 4, 8, 7), (4, 2, 2, 3), (2, 1), (2, 1, 3, 1), (2, 1), 2, "stride", "padding", "dilation", "groups"),
    ]


def forward(dy, x, w, stride, pads, dilation, groups, b=None):
    return conv2d_forward(x, w, b, stride, pads, dilation, groups)


def intermediates(dy, x, w, stride, pads, dilation, groups):
    N, F, OH, OW = dy.shape
    C, (top, bottom, left, right) = x.shape[1], pads
    dcols = w.reshape(groups, F // groups, -1).swapaxes(1, 2) @ dy.reshape(N, groups, F // groups, OH * OW)
    dcols = dcols.reshape(N, C, *w.shape[2:], OH, OW)
    padded = (N, C, x.shape[2] + top + bottom, x.shape[3] + left + right)
    return {
        "cols": im2col(x, w.shape[2:], stride, pads, dilation),
        "dcols": dcols,
        "dx_padded": col2im(dcols, padded, stride, (0, 0, 0, 0), dilation),
    }


def lenet_c3(rng):
    """The second convolution of LeNet-5 on a batch of 2 pictures."""
    dy, x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 16, 10, 10), (2, 6, 14, 14), (16, 6, 5, 5)))
    return dy, x, w, (1, 1), (0, 0, 0, 0), (1, 1), 1


def kernels(f):
    def backward_input(dy, w, x_shape, *geometry):
        return np.asarray(f(dy, np.zeros(x_shape, dy.dtype), w, *geometry)[0], dy.dtype)

    def backward_weight(dy, x, w_shape, *geometry):
        return np.asarray(f(dy, x, np.zeros(w_shape, dy.dtype), *geometry)[1], dy.dtype)

    return {"conv2d_backward_input": backward_input, "conv2d_backward_weight": backward_weight}


LOOPS = """\
import numpy as np


def conv2d_backward(dy, x, w, stride, pads, dilation, groups):
    N, C, H, W = x.shape
    F, CG, KH, KW = w.shape
    (SH, SW), (top, bottom, left, right), (DH, DW) = stride, pads, dilation
    xp = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), np.zeros(F)
    for f in range(F):
        c = slice(f // (F // groups) * CG, f // (F // groups) * CG + CG)
        for oh in range(dy.shape[2]):
            rows = slice(oh * SH, oh * SH + DH * (KH - 1) + 1, DH)
            for ow in range(dy.shape[3]):
                columns = slice(ow * SW, ow * SW + DW * (KW - 1) + 1, DW)
                for n in range(N):
                    d = dy[n, f, oh, ow]
                    dw[f] += d * xp[n, c, rows, columns]
                    dxp[n, c, rows, columns] += d * w[f]
                    db[f] += d
    return dxp[:, :, top : top + H, left : left + W], dw, db
"""

CONVOLUTIONS = '''\
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv2d_backward(dy, x, w, stride, pads, dilation, groups):
    """Both gradients as convolutions with stride 1: of a dy spread out by the stride, with a kernel spread by the dilation."""
    N, C, H, W = x.shape
    F, CG, KH, KW = w.shape
    OH, OW = dy.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
    spread = np.zeros((N, F, xp.shape[2] - dilation[0] * (KH - 1), xp.shape[3] - dilation[1] * (KW - 1)))
    spread[:, :, : stride[0] * OH : stride[0], : stride[1] * OW : stride[1]] = dy
    kernel = np.zeros((F, CG, dilation[0] * (KH - 1) + 1, dilation[1] * (KW - 1) + 1))
    kernel[:, :, :: dilation[0], :: dilation[1]] = w
    RH, RW = kernel.shape[2] - 1, kernel.shape[3] - 1

    around = np.pad(spread, ((0, 0), (0, 0), (RH, RH), (RW, RW)))
    views = sliding_window_view(around, kernel.shape[2:], axis=(2, 3))
    views = views.reshape(N, groups, F // groups, *xp.shape[2:], RH + 1, RW + 1)
    turned = kernel[:, :, ::-1, ::-1].reshape(groups, F // groups, CG, RH + 1, RW + 1)
    dxp = np.einsum("ngfhwij,gfcij->ngchw", views, turned).reshape(xp.shape)

    views = sliding_window_view(xp, spread.shape[2:], axis=(2, 3)).reshape(N, groups, CG, RH + 1, RW + 1, *spread.shape[2:])
    dw = np.einsum("ngcijhw,ngfhw->gfcij", views, spread.reshape(N, groups, F // groups, *spread.shape[2:]))
    dw = dw.reshape(kernel.shape)[:, :, :: dilation[0], :: dilation[1]]
    return dxp[:, :, pads[0] : pads[0] + H, pads[2] : pads[2] + W], dw, np.einsum("nfhw->f", dy)
'''

OFFSETS = """\
import numpy as np


def conv2d_backward(dy, x, w, stride, pads, dilation, groups):
    H, W = x.shape[2:]
    OH, OW = dy.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for g in range(groups):
        f = slice(g * w.shape[0] // groups, (g + 1) * w.shape[0] // groups)
        c = slice(g * w.shape[1], (g + 1) * w.shape[1])
        for kh in range(w.shape[2]):
            for kw in range(w.shape[3]):
                rows = np.arange(OH) * stride[0] + kh * dilation[0]
                columns = np.arange(OW) * stride[1] + kw * dilation[1]
                seen = xp[:, c][:, :, rows[:, None], columns]
                dw[f, :, kh, kw] = np.tensordot(dy[:, f], seen, axes=((0, 2, 3), (0, 2, 3)))
                back = np.tensordot(dy[:, f], w[f, :, kh, kw], axes=(1, 0))  # (N, OH, OW, C/G)
                dxp[:, c, rows[:, None], columns] += np.moveaxis(back, 3, 1)
    return dxp[:, :, pads[0] : pads[0] + H, pads[2] : pads[2] + W], dw, dy.sum((0, 2, 3))
"""


def overwriting(dy, x, w, stride, pads, dilation, groups):
    """dx = … in the loops instead of dx += …: what is left is the last channel's share, in the last window over a pixel."""
    last = np.arange(1, groups + 1) * (len(w) // groups) - 1
    dxp = np.pad(np.zeros_like(x), ((0, 0), (0, 0), pads[:2], pads[2:]))
    taps = [slice(0, d * (k - 1) + 1, d) for k, d in zip(w.shape[2:], dilation, strict=True)]
    for oh, ow in np.ndindex(dy.shape[2:]):
        window = dxp[:, :, oh * stride[0] :, ow * stride[1] :][:, :, taps[0], taps[1]]
        window[...] = (dy[:, last, oh, ow, None, None, None] * w[last]).reshape(window.shape)
    dx = dxp[:, :, pads[0] : pads[0] + x.shape[2], pads[2] : pads[2] + x.shape[3]]
    return (dx, *conv2d_backward(dy, x, w, stride, pads, dilation, groups)[1:])


def last_stop(output):
    def wrong(dy, x, w, *geometry):
        last = np.zeros_like(dy)
        last[-1, :, -1, -1] = dy[-1, :, -1, -1]
        outputs = list(conv2d_backward(dy, x, w, *geometry))
        outputs[output] = conv2d_backward(last, x, w, *geometry)[output]
        return tuple(outputs)

    return wrong


def first_group_only(dy, x, w, stride, pads, dilation, groups):
    first, dw, db = conv2d_backward(dy, x[:, : w.shape[1]], w, stride, pads, dilation, 1)
    dx = np.zeros_like(x)
    dx[:, : w.shape[1]] = first
    return dx, dw, db


EXERCISE = Exercise(
    number=14,
    name="conv2d_backward",
    topic="lecture: convolutional networks",
    function=conv2d_backward,
    uses=(output_size, im2col, col2im, conv2d_backward_input, conv2d_backward_weight, conv2d_backward_bias),
    outputs=("dx", "dw", "db"),
    starter='''\
import numpy as np


def conv2d_backward(dy, x, w, stride, pads, dilation, groups):
    """dy (N, F, OH, OW), x (N, C, H, W), w (F, C/groups, KH, KW) -> dx, dw, db of the shapes of x, w and (F,)."""
    N, C, H, W = x.shape
    F, CG, KH, KW = w.shape
    (SH, SW), (top, bottom, left, right), (DH, DW) = stride, pads, dilation
    OH, OW = dy.shape[2:]

    # 1. db: which axes of dy share one bias?
    # 2. a padded x, as in forward, and zeros of its shape for dx
    # 3. for every output pixel: its window's share of dw; its share of dx, added to the same window
    # 4. cut the frame off dx
    ...
''',
    cases=cases,
    numerical=Numerical(forward, wrt={"dx": 1, "dw": 2, "db": "b"}, upstream=0),
    hints=(
        "Begin with db: one bias serves all images and all stops. Then dw: which dy and which pixels does w[f, c, kh, kw] "
        "meet in forward? Only then dx, with the very same slices.",
        "Keep the loops and slices of forward. Where forward says y[n, f, oh, ow] = (window * w[f]).sum(), backward says "
        "two things: dw[f] gets dy[n, f, oh, ow] * window, and the window's place in dx gets dy[n, f, oh, ow] * w[f].",
        "dw[f] += dy[n, f, oh, ow] * xp[n, c, rows, columns]\n"
        "dxp[n, c, rows, columns] += dy[n, f, oh, ow] * w[f]\n"
        "with the slices c, rows, columns of forward; at the end dx = dxp[:, :, top : top + H, left : left + W].",
    ),
    question="Backward needs x and w, but not y. How much memory does that cost in training that inference does not need, "
    "and which of dx, dw can be skipped in the first layer?",
    answer="x must be kept from forward to backward: one copy of each layer's input, and in a deep network these "
    "activations are most of the memory of training. The first layer's dx is the gradient with respect to the picture: "
    "nobody needs it (unless you want to draw an adversarial picture), so libraries skip it. cnnlib asks ctx.needs[0].",
    link="cnnlib/ops/conv.py",
    explanations=(
        Explanation(
            "last stop in db", "your db holds the last dy only: every stop and every image adds its own (+=).", last_stop(2)
        ),
        Explanation(
            "last stop in dw",
            "your dw holds the share of the last stop only: every stop and every image adds its own (+=).",
            last_stop(1),
        ),
        Explanation(
            "first group only",
            "all your output channels send to and read from the first C/G input channels: with groups, channel f belongs to "
            "those of its group, f // (F/G).",
            first_group_only,
        ),
        Explanation(
            "overlap",
            "your windows overwrite each other in dx: a pixel under several windows collects from all of them, so add (+=) "
            "instead of assigning.",
            overwriting,
        ),
        Explanation(
            "frame not cut",
            "you cut dx out of its frame at the wrong place: the image begins at row top and column left of the padded dx, "
            "not at 0.",
        ),
        Explanation(
            "flipped kernel",
            "your dx uses the kernel turned by 180° in the wrong place: tap (kh, kw) of forward sends dy·w[f, c, kh, kw] "
            "back to the pixel it was laid on.",
        ),
        Explanation(
            "dilation forgotten in dx",
            "your dx forgets the dilation: tap (kh, kw) was laid kh·DH rows and kw·DW columns from the window's corner, and "
            "sends its share back there.",
        ),
        Explanation(
            "dilation forgotten in dw",
            "your dw forgets the dilation: w[f, c, kh, kw] met the pixels kh·DH rows and kw·DW columns from the windows' "
            "corners.",
        ),
        Explanation(
            "stride forgotten",
            "your dw reads the windows one pixel apart: the window of dy[n, f, oh, ow] begins at row oh·SH and column ow·SW.",
        ),
        Explanation(
            "one image in dw",
            "your dw comes from the first image only: the same kernel was used on every image, so sum over the batch.",
        ),
        Explanation(
            "one stop in db",
            "your db is the mean over images and stops: one bias was added everywhere, so db is the plain sum of dy.",
            lambda dy, x, w, *g: (*conv2d_backward(dy, x, w, *g)[:2], dy.mean(axis=(0, 2, 3))),
        ),
        Explanation(
            "mean over batch in dw", "your dw is averaged over the batch: sum it, whoever wants a mean has put 1/N into dy."
        ),
        Explanation(
            "interleaved groups in dw",
            "your dw takes every G-th input channel for a group: the channels of a group stand side by side, group 0 has 0 "
            "… C/G−1.",
        ),
        Explanation(
            "groups exchanged in dx",
            "your dx goes to the channels of the wrong group: output channels of group g send it to the input channels "
            "g·C/G … (g+1)·C/G − 1.",
        ),
        Explanation(
            "edge repeated in dw",
            "your dw reads the pixels of the edge where the kernel hung over it: there it lay on zeros, pad x with zeros.",
        ),
    ),
    mutants=(
        Mutant(
            "dx[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW] +=",
            "dx[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW] =",
            "overlap",
        ),
        Mutant("dx[:, :, top : top + H, left : left + W]", "dx[:, :, :H, :W]", "frame not cut"),
        Mutant("dx[:, :, top : top + H, left : left + W]", "dx", "shape"),
        Mutant("wg = w.reshape", "wg = w[:, :, ::-1, ::-1].reshape", "flipped kernel"),
        Mutant("h, w = kh * DH, kw * DW\n            dx[", "h, w = kh, kw\n            dx[", "dilation forgotten in dx"),
        Mutant("h, w = kh * DH, kw * DW\n            cols[", "h, w = kh, kw\n            cols[", "dilation forgotten in dw"),
        Mutant(
            "x[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW]\n", "x[:, :, h : h + OH, w : w + OW]\n", "stride forgotten"
        ),
        Mutant("swapaxes(2, 3)).sum(axis=0)", "swapaxes(2, 3))[0]", "one image in dw"),
        Mutant("swapaxes(2, 3)).sum(axis=0)", "swapaxes(2, 3)).mean(axis=0)", "mean over batch in dw"),
        Mutant("return dy.sum(axis=(0, 2, 3))", "return dy.mean(axis=(0, 2, 3))", "one stop in db"),
        Mutant("return dy.sum(axis=(0, 2, 3))", "return dy.sum(axis=0)", "shape"),
        Mutant("return dy.sum(axis=(0, 2, 3))", "return dy.sum(axis=(2, 3))", "shape"),
        Mutant(
            "colsg = cols.reshape(N, groups, -1, OH * OW)",
            "colsg = cols.reshape(N, -1, groups, cols.shape[2] * cols.shape[3], OH * OW)\n"
            "    colsg = colsg.swapaxes(1, 2).reshape(N, groups, -1, OH * OW)",
            "interleaved groups in dw",
        ),
        Mutant("dcols = wg.swapaxes(1, 2) @ dyg", "dcols = (wg.swapaxes(1, 2) @ dyg)[:, ::-1]", "groups exchanged in dx"),
        Mutant("return dx, dw, conv2d", "return dx, -dw, conv2d", "sign"),
        Mutant("return dx, dw, conv2d_backward_bias(dy)", "return dw, dx, conv2d_backward_bias(dy)", "swapped"),
        Mutant("dcols = wg.swapaxes(1, 2) @ dyg", "dcols = wg.swapaxes(1, 2) @ np.ones_like(dyg)", "upstream"),
        Mutant(
            "x = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))",
            'x = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]), mode="edge")',
            "edge repeated in dw",
        ),
    ),
    equivalent={
        "conv2d_backward_input: 1 -> 2": "reshape takes -2 for -1",
        "conv2d_backward_weight: 1 -> 2": "reshape takes -2 for -1",
    },
    alternatives=(LOOPS, CONVOLUTIONS, OFFSETS),
    intermediates=Intermediates(
        intermediates,
        {
            "cols": "cols[n, c, kh, kw, oh, ow] = the padded x at row oh·SH + kh·DH and column ow·SW + kw·DW",
            "dcols": "dcols[n, c, kh, kw, oh, ow] = Σ_f w[f, c, kh, kw] dy[n, f, oh, ow], over the f of c's group",
            "dx_padded": "dx_padded = every dcols[n, c, kh, kw, oh, ow] added at row oh·SH + kh·DH and column ow·SW + kw·DW",
        },
    ),
    fast=Fast(
        lenet_c3,
        {
            "conv2d_backward_input": lambda dy, x, w, *geometry: (dy, w, x.shape, *geometry),
            "conv2d_backward_weight": lambda dy, x, w, *geometry: (dy, x, w.shape, *geometry),
            "conv2d_backward_bias": lambda dy, *_: (dy,),
        },
    ),
    train=Train(kernels, "lenet5"),
)
