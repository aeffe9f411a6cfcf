"""im2col and col2im: a convolution is a matrix product

Your loops are right and slow. The fast way, in every library for years, was a trick: copy each window that the kernel
sees into a column of its own. Then all stops of the kernel are one product of two matrices, and matrix products are what
computers do best. Numbers are copied KH·KW times over, and it still pays.

    cols[n, c, kh, kw, oh, ow] = x[n, c, oh·SH + kh·DH − top, ow·SW + kw·DW − left], and 0 on the padding

    x (N, C, H, W)    cols (N, C, KH, KW, OH, OW)    OH = (H + top + bottom − DH·(KH − 1) − 1) // SH + 1, OW likewise

With K = C·KH·KW the convolution is  W (F, K) @ cols (N, K, OH·OW) = y (N, F, OH·OW), and by the recipe for matrix
products its gradients are  dW = Σ_n dy[n] @ cols[n]ᵀ  and  dcols = Wᵀ @ dy. What is left is the way from dcols to dx, and
that is col2im: the adjoint of copying is adding. Each entry of dcols goes back to the pixel it was copied from:

    dx[n, c, h, v] = Σ dcols[n, c, kh, kw, oh, ow] over all entries that were copied from pixel (h, v)

Adjoint, not inverse: a pixel that was copied four times gets the sum of four numbers, and not their mean. On a 3×3 image
with a 2×2 kernel and stride 1, col2im of nothing but ones says how often each pixel is seen:

    1 2 1
    2 4 2
    1 2 1

Write both functions. Loops over the kernel's taps (kh, kw) are enough: each tap sees a whole grid of pixels at once, and
a grid is a slice with a step. Two loops, whatever the size of the image.

Source: lecture: convolutional networks; Chellapilla, Puri & Simard, "High performance convolutional neural networks for
document processing", 2006.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant, Numerical, Train
from cnnlib.ops.conv import col2im, im2col, output_size


def cases(rng):
    found = []
    for x_shape, kernel_size, stride, pads, dilation, *features in (
        ((2, 3, 5, 6), (3, 2), (1, 1), (0, 0, 0, 0), (1, 1)),
        ((1, 2, 6, 8), (2, 3), (3, 2), (0, 0, 0, 0), (1, 1), "stride", "N = 1"),
        ((2, 2, 4, 5), (3, 3), (1, 1), (1, 2, 0, 3), (1, 1), "padding"),
        ((2, 1, 9, 7), (2, 3), (2, 1), (2, 1, 3, 1), (2, 3), "stride", "padding", "dilation"),
    ):
        OH, OW = output_size(x_shape[2:], kernel_size, stride, pads, dilation)
        dcols = rng.standard_normal((*x_shape[:2], *kernel_size, OH, OW))
        found.append(Case((rng.standard_normal(x_shape), kernel_size, stride, pads, dilation), tuple(features), "im2col"))
        found.append(Case((dcols, x_shape, stride, pads, dilation), tuple(features), "col2im"))
    return found


def forward(dcols, x_shape, stride, pads, dilation, x=None):
    return im2col(x, dcols.shape[2:4], stride, pads, dilation)


def lenet_c3(rng):
    """The second convolution of LeNet-5 on a batch of 32 pictures."""
    return rng.standard_normal((32, 6, 14, 14), dtype=np.float32), (5, 5), (1, 1), (0, 0, 0, 0), (1, 1)


def whole_convolution(x, kernel_size, *geometry):
    return x, np.full((16, 6, *kernel_size), 0.1, np.float32), None, *geometry, 1


def kernels(functions):
    """The three kernels of a convolution (without groups), as matrix products around the learner's two functions."""
    gather, add_back = functions

    def rows(dy):
        return dy.reshape(*dy.shape[:2], -1)  # (N, F, OH·OW)

    def columns(x, w_shape, geometry):
        cols = np.asarray(gather(x, w_shape[2:], *geometry), x.dtype)
        return cols.reshape(x.shape[0], -1, cols.shape[4] * cols.shape[5]), cols.shape  # (N, K, OH·OW)

    def forward(x, w, b, stride, pads, dilation, groups):
        cols, shape = columns(x, w.shape, (stride, pads, dilation))
        y = (w.reshape(len(w), -1) @ cols).reshape(len(x), len(w), *shape[4:])
        return y if b is None else y + b[:, None, None]

    def backward_weight(dy, x, w_shape, stride, pads, dilation, groups):
        cols, _ = columns(x, w_shape, (stride, pads, dilation))
        return (rows(dy) @ cols.swapaxes(1, 2)).sum(axis=0).reshape(w_shape)

    def backward_input(dy, w, x_shape, stride, pads, dilation, groups):
        dcols = w.reshape(len(w), -1).T @ rows(dy)
        dcols = dcols.reshape(len(dy), *w.shape[1:], *dy.shape[2:])
        return np.asarray(add_back(dcols, x_shape, stride, pads, dilation), dy.dtype)

    return {"conv2d_forward": forward, "conv2d_backward_weight": backward_weight, "conv2d_backward_input": backward_input}


STOPS = '''\
import numpy as np


def windows(image_size, kernel_size, stride, pads, dilation):
    """(oh, ow, rows, columns) of every stop of the kernel on the padded image."""
    (KH, KW), (SH, SW), (DH, DW) = kernel_size, stride, dilation
    for oh in range((image_size[0] + pads[0] + pads[1] - DH * (KH - 1) - 1) // SH + 1):
        for ow in range((image_size[1] + pads[2] + pads[3] - DW * (KW - 1) - 1) // SW + 1):
            yield oh, ow, slice(oh * SH, oh * SH + DH * KH - DH + 1, DH), slice(ow * SW, ow * SW + DW * KW - DW + 1, DW)


def im2col(x, kernel_size, stride, pads, dilation):
    x = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
    stops = list(windows(x.shape[2:], kernel_size, stride, (0, 0, 0, 0), dilation))
    columns = np.stack([x[:, :, r, c] for _, _, r, c in stops], axis=-1)
    return columns.reshape(*columns.shape[:4], stops[-1][0] + 1, stops[-1][1] + 1)


def col2im(dcols, x_shape, stride, pads, dilation):
    H, W = x_shape[2:]
    dx = np.zeros((*x_shape[:2], H + pads[0] + pads[1], W + pads[2] + pads[3]))
    for oh, ow, r, c in windows((H, W), dcols.shape[2:4], stride, pads, dilation):
        dx[:, :, r, c] += dcols[..., oh, ow]
    return dx[:, :, pads[0] : H + pads[0], pads[2] : W + pads[2]]
'''

INDICES = '''\
import numpy as np


def pixels(image_size, kernel_size, stride, pads, dilation):
    """Row and column of the padded image for every (kh, kw, oh, ow)."""
    found = []
    for size, k, s, pad, d in zip(image_size, kernel_size, stride, (pads[:2], pads[2:]), dilation):
        outputs = (size + sum(pad) - d * (k - 1) - 1) // s + 1
        found.append(np.arange(k)[:, None] * d + np.arange(outputs) * s)
    return found[0][:, None, :, None], found[1][None, :, None, :]


def im2col(x, kernel_size, stride, pads, dilation):
    rows, columns = pixels(x.shape[2:], kernel_size, stride, pads, dilation)
    return np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))[:, :, rows, columns]


def col2im(dcols, x_shape, stride, pads, dilation):
    N, C, H, W = x_shape
    rows, columns = pixels((H, W), dcols.shape[2:4], stride, pads, dilation)
    dx = np.zeros((N, C, H + sum(pads[:2]), W + sum(pads[2:])))
    np.add.at(dx, (slice(None), slice(None), rows, columns), dcols)
    return dx[:, :, pads[0] : pads[0] + H, pads[2] : pads[2] + W]
'''

EXERCISE = Exercise(
    number=15,
    name="im2col",
    topic="lecture: convolutional networks",
    function=(im2col, col2im),
    uses=(output_size,),
    outputs={"im2col": ("cols",), "col2im": ("dx",)},
    starter='''\
import numpy as np


def im2col(x, kernel_size, stride, pads, dilation):
    """x (N, C, H, W) -> cols (N, C, KH, KW, OH, OW). pads = (top, bottom, left, right), the others (height, width)."""
    # OH and OW, the padded x, empty cols; then for each tap (kh, kw): which grid of pixels does it see?
    ...


def col2im(dcols, x_shape, stride, pads, dilation):
    """dcols (N, C, KH, KW, OH, OW) -> dx of x_shape (N, C, H, W): every entry added back to the pixel it was copied from."""
    # zeros of the padded size; for each tap, add to the grid it saw; cut the frame off
    ...
''',
    cases=cases,
    numerical=Numerical(forward, wrt={"dx": "x"}, upstream=0, function="col2im"),
    hints=(
        "Take one tap, say (0, 0), and stride 2. Which pixels of the padded image does it see, over all stops? Rows 0, 2, 4 "
        "…: a slice.",
        "Tap (kh, kw) sees OH rows, beginning at kh·DH, SH apart. col2im is the same slice on the other side of the "
        "assignment, with += for =.",
        "grid = xp[:, :, kh*DH : kh*DH + SH*OH : SH, kw*DW : kw*DW + SW*OW : SW]\n"
        "cols[:, :, kh, kw] = grid        in im2col; in col2im, on a dx of zeros, the same slice:  grid += dcols[:, :, kh, "
        "kw]",
    ),
    question="VGG-16's second layer has 64 channels of 224×224 pixels and 3×3 kernels. How much memory do the columns of "
    "one image take in float32, and what can one do about it?",
    answer="64·9·224·224·4 bytes = 116 MB, nine times the image itself, for each image of the batch. One can make the "
    "columns of a few rows of outputs at a time, small enough to stay in the cache, and multiply at once: that is what "
    "cnnlib's compiled kernels do, or they read the windows in place and make no columns at all.",
    link="cnnlib/ops/conv.py",
    explanations=(
        Explanation(
            "overwritten",
            "your col2im overwrites where windows overlap: a pixel that was copied several times collects the sum, so add "
            "(+=) instead of assigning.",
        ),
        Explanation(
            "inverse",
            "your col2im takes the mean over the copies of a pixel, and so undoes im2col: it must be the adjoint, which is "
            "the sum.",
        ),
        Explanation(
            "frame not cut",
            "your col2im cuts the image out of its frame at the wrong place: it begins at row top and column left.",
        ),
        Explanation(
            "dilation forgotten in im2col", "your im2col forgets the dilation: the taps lie DH rows and DW columns apart."
        ),
        Explanation(
            "dilation forgotten in col2im",
            "your col2im forgets the dilation: add each tap back kh·DH rows and kw·DW columns from the window's corner, "
            "where im2col took it from.",
        ),
        Explanation(
            "stride forgotten",
            "your im2col moves the windows by one pixel from stop to stop: stop (oh, ow) begins at row oh·SH and column ow·SW.",
        ),
        Explanation("flipped taps", "your taps are numbered from the bottom right: (0, 0) is the window's top left pixel."),
        Explanation(
            "pads exchanged",
            "your frame of zeros is the wrong way round: pads are (top, bottom, left, right), and the first of each pair "
            "goes before the image.",
        ),
        Explanation("edge repeated", "your padding repeats the pixels of the edge: outside the image, x counts as zero."),
        Explanation(
            "stride forgotten in col2im",
            "your col2im forgets the stride: tap (kh, kw) of stop (oh, ow) goes back to row oh·SH + kh·DH and column ow·SW "
            "+ kw·DW.",
        ),
    ),
    mutants=(
        Mutant("w : w + SW * OW : SW] += dcols", "w : w + SW * OW : SW] = dcols", "overwritten"),
        Mutant(
            "            dx[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW] += dcols[:, :, kh, kw]\n",
            "            dx[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW] += dcols[:, :, kh, kw]\n"
            "    seen = np.zeros(dx.shape)\n"
            "    for kh in range(KH):\n"
            "        for kw in range(KW):\n"
            "            h, w = kh * DH, kw * DW \n"
            "            seen[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW] += 1\n"
            "    dx = dx / np.maximum(seen, 1)\n",
            "inverse",
        ),
        Mutant("dx[:, :, top : top + H, left : left + W]", "dx[:, :, :H, :W]", "frame not cut"),
        Mutant("dx[:, :, top : top + H, left : left + W]", "dx", "shape"),
        Mutant("h, w = kh * DH, kw * DW\n            cols", "h, w = kh, kw\n            cols", "dilation forgotten in im2col"),
        Mutant("h, w = kh * DH, kw * DW\n            dx", "h, w = kh, kw\n            dx", "dilation forgotten in col2im"),
        Mutant(
            "= x[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW]", "= x[:, :, h : h + OH, w : w + OW]", "stride forgotten"
        ),
        Mutant(
            "dx[:, :, h : h + SH * OH : SH, w : w + SW * OW : SW]",
            "dx[:, :, h : h + OH, w : w + OW]",
            "stride forgotten in col2im",
        ),
        Mutant("cols[:, :, kh, kw] =", "cols[:, :, KH - 1 - kh, KW - 1 - kw] =", "flipped taps"),
        Mutant("pads[:2], pads[2:]))", "pads[1::-1], pads[:1:-1]))", "pads exchanged"),
        Mutant("pads[:2], pads[2:]))", 'pads[:2], pads[2:]), mode="edge")', "edge repeated"),
        Mutant("return cols", "return cols.transpose(0, 4, 5, 1, 2, 3)", "permuted"),
    ),
    alternatives=(STOPS, INDICES),
    fast=Fast(lenet_c3, "conv2d_forward", whole_convolution),
    train=Train(kernels, "lenet5"),
)
