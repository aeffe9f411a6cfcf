"""Make a kernel fast: max pooling in typed loops

In Python a loop is slow because nobody knows what i is. At each turn the interpreter asks: is this a number? which kind of
addition do you mean? Tell it once and for all, and the same loop becomes C, a hundred times faster. Cython does that. You
write Python, say which variables are whole numbers and which array holds what, and Cython translates it to C:

    def total(x: cython.floating[:, ::1]):              a matrix of floats or doubles, rows one after the other in memory
        n: cython.Py_ssize_t                            a C integer
        s: cython.floating = 0                          a C number of x's type
        for n in range(x.shape[0]):
            s += x[n, 0]                                one load and one addition: no Python object anywhere

The work: max pooling forward, as it stands in cnnlib (csrc/pool.c). It returns the maximum of each window, and for backward
the winner's place in it, counted row by row:

    y[n, c, oh, ow] = max of x[n, c, oh·SH − top + kh, ow·SW − left + kw] over those (kh, kw) that lie inside the image
    argmax          = kh·KW + kw of the first maximum      x (N, C, H, W) -> y and argmax (N, C, OH, OW), argmax uint8

The textbook (NumPy) goes over the image KH·KW times and makes arrays all the way. You can do it in one pass: six loops, and
the largest value in a variable. This is the code that you were told never to write in Python. Write it: element by element,
no slices, no np.max.

The checker runs it as plain Python and needs no compiler; the name cython is there already, import nothing but NumPy. Then
`cnnlib learn fast` compiles it, if Cython and a C compiler are here, and times it as Python, compiled, and against the
library's own kernel. Two warnings: compiled loops check no index, and x[-1] is not the last element but somebody else's memory.

Source: lecture: GPU computing and tools; Behnel et al., "Cython: the best of both worlds", 2011.
"""

# mypy: ignore-errors
import numpy as np

from cnnlib.errors import DeviceError
from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant, Train
from cnnlib.learn.typed import TypeName, compiled, cython, whether
from cnnlib.ops.pool import max_pool2d_forward


def max_pool(x: cython.floating[:, :, :, ::1], kernel_size, stride, pads):
    N: cython.Py_ssize_t = x.shape[0]
    C: cython.Py_ssize_t = x.shape[1]
    H: cython.Py_ssize_t = x.shape[2]
    W: cython.Py_ssize_t = x.shape[3]
    KH: cython.Py_ssize_t = kernel_size[0]
    KW: cython.Py_ssize_t = kernel_size[1]
    SH: cython.Py_ssize_t = stride[0]
    SW: cython.Py_ssize_t = stride[1]
    top: cython.Py_ssize_t = pads[0]
    left: cython.Py_ssize_t = pads[2]
    OH: cython.Py_ssize_t = (H + top + pads[1] - KH) // SH + 1
    OW: cython.Py_ssize_t = (W + left + pads[3] - KW) // SW + 1
    best_array = np.empty((N, C, OH, OW), np.asarray(x).dtype)
    place_array = np.empty((N, C, OH, OW), np.uint8)
    best: cython.floating[:, :, :, ::1] = best_array
    place: cython.uchar[:, :, :, ::1] = place_array
    n: cython.Py_ssize_t
    c: cython.Py_ssize_t
    oh: cython.Py_ssize_t
    ow: cython.Py_ssize_t
    kh: cython.Py_ssize_t
    kw: cython.Py_ssize_t
    h: cython.Py_ssize_t
    w: cython.Py_ssize_t
    winner: cython.Py_ssize_t
    largest: cython.floating
    for n in range(N):
        for c in range(C):
            for oh in range(OH):
                for ow in range(OW):
                    largest = -np.inf
                    winner = 0
                    for kh in range(KH):
                        h = oh * SH - top + kh
                        if h < 0 or h >= H:
                            continue
                        for kw in range(KW):
                            w = ow * SW - left + kw
                            if w < 0 or w >= W:
                                continue
                            if x[n, c, h, w] > largest:
                                largest = x[n, c, h, w]
                                winner = kh * KW + kw
                    best[n, c, oh, ow] = largest
                    place[n, c, oh, ow] = winner
    return best_array, place_array


def cases(rng):
    def case(x, kernel_size, stride, pads, *features):
        return Case((x, kernel_size, stride, pads), features)

    n, none = rng.standard_normal, (0, 0, 0, 0)
    lecture = np.array([[2, 8, 9, 4], [3, 6, 5, 7], [3, 1, 6, 4], [2, 5, 7, 3]], dtype=float)
    tied = np.array([[1.0, 2.0, 2.0, 0.0], [2.0, 1.0, 2.0, 0.0], [3.0, 3.0, 3.0, 0.0], [3.0, 3.0, 0.0, 1.0]])
    return [
        case(lecture[None, None], (2, 2), (2, 2), none, "the lecture's example", "N = 1"),
        case(n((2, 3, 5, 4)), (2, 3), (1, 1), none, "overlap"),
        case(n((2, 1, 7, 6)), (2, 2), (3, 2), none, "stride"),
        case(n((2, 2, 4, 6)), (3, 3), (2, 2), (1, 2, 0, 1), "padding"),
        case(-abs(n((1, 2, 4, 4))) - 0.1, (3, 2), (2, 1), (2, 0, 1, 0), "padding", "negative values", "N = 1"),
        case(tied[None, None], (2, 2), (2, 2), none, "ties", "N = 1"),
    ]


def lenet_s2(rng):
    """The first pooling of LeNet-5 on a batch of 16 pictures."""
    return rng.standard_normal((16, 6, 28, 28), dtype=np.float32), (2, 2), (2, 2), (0, 0, 0, 0)


def build(text):
    """The learner's function, compiled, after a look at what it returns now."""
    function = compiled(text, ("max_pool",))[0]
    x, *geometry = lenet_s2(np.random.default_rng(1))
    for padding in ((0, 0, 0, 0), (1, 0, 1, 1)):
        geometry[2] = padding
        for got, right in zip(function(x, *geometry), max_pool2d_forward(x, *geometry), strict=True):
            if not np.array_equal(got, right):
                raise DeviceError("it returns other numbers compiled than in Python: does an index reach outside of x?")
    return "yours, compiled by Cython", function


def kernels(f):
    def forward(x, *geometry):
        y, argmax = f(x, *geometry)
        return np.asarray(y, x.dtype), np.asarray(argmax, np.uint8)

    return {"max_pool2d_forward": forward}


UNTYPED = """\
import numpy as np


def max_pool(x, kernel_size, stride, pads):
    N, C, H, W = x.shape
    OH = (H + pads[0] + pads[1] - kernel_size[0]) // stride[0] + 1
    OW = (W + pads[2] + pads[3] - kernel_size[1]) // stride[1] + 1
    y, argmax = np.full((N, C, OH, OW), -np.inf), np.zeros((N, C, OH, OW), np.uint8)
    for n, c, oh, ow in np.ndindex(N, C, OH, OW):
        top, left = oh * stride[0] - pads[0], ow * stride[1] - pads[2]
        for h in range(max(top, 0), min(top + kernel_size[0], H)):
            for w in range(max(left, 0), min(left + kernel_size[1], W)):
                if x[n, c, h, w] > y[n, c, oh, ow]:
                    y[n, c, oh, ow] = x[n, c, h, w]
                    argmax[n, c, oh, ow] = (h - top) * kernel_size[1] + w - left
    return y, argmax
"""

EXERCISE = Exercise(
    number=37,
    name="cython_kernel",
    topic="lecture: GPU computing and tools",
    function=max_pool,
    given=(TypeName, cython),
    outputs=("y", "argmax"),
    starter='''\
import numpy as np


def max_pool(x: cython.floating[:, :, :, ::1], kernel_size, stride, pads):
    """x (N, C, H, W), pads = (top, bottom, left, right) -> y (N, C, OH, OW), argmax (N, C, OH, OW) of uint8."""
    H: cython.Py_ssize_t = x.shape[2]
    # 1. all sizes as C integers, like H
    # 2. y and argmax as NumPy arrays, and typed views of them: best: cython.floating[:, :, :, ::1] = y
    # 3. every loop variable declared; six loops; the largest value and its place in variables
    ...
''',
    cases=cases,
    hints=(
        "Write it in plain Python first, without any type: two loops over the window inside four over the outputs. Declare "
        "types only when the checker is content.",
        "Pixels outside the image: compute h = oh·SH − top + kh and skip it where it is negative or at least H. Start with "
        "−np.inf, and let only a larger value win (>), then the first maximum stays.",
        "if x[n, c, h, w] > largest:\n"
        "    largest = x[n, c, h, w]\n"
        "    winner = kh * KW + kw      with  largest: cython.floating  and  winner: cython.Py_ssize_t  declared above the "
        "loops",
    ),
    question="Compiled, your loops are likely a hundred times faster than in Python, and yet slower than cnnlib's kernel. "
    "What does that one do that yours does not?",
    answer="It works on many numbers at once: vector instructions compare 8 or 16 pixels of a row in one step, without a "
    "branch, while yours asks one `if` per pixel that the processor must guess. It has a version of its own for the usual "
    "2×2 windows, whose loops are written out; and it splits the images among threads. See csrc/pool.c.",
    link="csrc/pool.c",
    explanations=(
        Explanation(
            "zeros win",
            "your maximum starts at 0 (or your padding counts as 0): where all pixels are negative nobody wins; start at −inf.",
        ),
        Explanation(
            "last maximum", "at a tie the last maximum wins in yours: the first one stays, so compare with > and not with >=."
        ),
        Explanation("place counted by KH", "your argmax counts kh·KH + kw: a window's row has KW pixels, so it is kh·KW + kw."),
        Explanation("window too small", "your windows leave out their last column: kw runs over all KW."),
        Explanation(
            "stride forgotten", "your windows begin at (oh, ow): they begin at row oh·SH − top and column ow·SW − left."
        ),
        Explanation(
            "padding forgotten", "your windows forget the padding: they begin at row oh·SH − top and column ow·SW − left."
        ),
        Explanation(
            "wrapped round",
            "your windows reach the other end of the image: a negative index counts from the end in Python (and reads "
            "foreign memory once compiled); skip what lies outside.",
        ),
        Explanation("minimum", "you look for the minimum."),
        Explanation("exchanged strides", "you use the vertical stride for the columns: stride = (height, width)."),
    ),
    mutants=(
        Mutant("largest = -np.inf", "largest = 0.0", "zeros win"),
        Mutant("if x[n, c, h, w] > largest", "if x[n, c, h, w] >= largest", "last maximum"),
        Mutant("winner = kh * KW + kw", "winner = kh * KH + kw", "place counted by KH"),
        Mutant("for kw in range(KW)", "for kw in range(KW - 1)", "window too small"),
        Mutant("h = oh * SH - top + kh", "h = oh - top + kh", "stride forgotten"),
        Mutant("h = oh * SH - top + kh", "h = oh * SH + kh", "padding forgotten"),
        Mutant("if h < 0 or h >= H:", "if h >= H:", "wrapped round"),
        Mutant("x[n, c, h, w] > largest", "x[n, c, h, w] < abs(largest)", "minimum"),
        Mutant("w = ow * SW - left + kw", "w = ow * SH - left + kw", "exchanged strides"),
        Mutant("return best_array, place_array", "return place_array, best_array", "swapped"),
        Mutant("- KH) // SH + 1", "- KH) // SH", "shape"),
    ),
    alternatives=(UNTYPED,),
    fast=Fast(lenet_s2, "max_pool2d_forward", build=build),
    train=Train(kernels, "max_pool"),
    afterwards=lambda text: whether(),
)
