"""Local response normalisation backward: neighbours that keep each other quiet

A neuron that fires loudly makes its neighbours quieter: lateral inhibition, seen in the eyes of horseshoe crabs and put
into AlexNet in 2012. There the neighbours of a unit are the units at the same pixel in the n channels around its own:

    s_c = k + α/n Σ_j x_j²      over j = c − ⌊n/2⌋ … c + ⌊(n−1)/2⌋, as far as there are such channels
    y_c = x_c s_c^(−β)

    dy, x, dx (N, C, H, W)    size = n    α, β, k numbers (AlexNet: n = 5, β = 0.75, k = 2)

Mind the convention: α is divided by n here, as in PyTorch. Krizhevsky's paper does not divide; the lecture writes
b = a / (k + α Σ a²)^β, likewise.

Backward, x_c appears in two roles. It is the excited one in its own y_c: dy_c s_c^(−β). And it is a neighbour in the s_j of
every channel j whose neighbourhood holds c, and there it inhibits y_j:

    ∂y_j / ∂s_j = −β x_j s_j^(−β−1)      ∂s_j / ∂x_c = 2 α/n x_c
    dx_c = dy_c s_c^(−β)  −  2 α β / n · x_c · Σ_j dy_j x_j s_j^(−β−1)      over those j

Which j are those? For odd n the neighbourhoods are symmetric: if j is my neighbour, I am j's. For even n they reach one
further down than up, so those that hold me are c − ⌊(n−1)/2⌋ … c + ⌊n/2⌋, the other way round. The checker has even sizes, too.

Source: lecture: convolutional networks (local response normalisation); Krizhevsky, Sutskever & Hinton, "ImageNet classification
with deep convolutional neural networks", 2012, section 3.3.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant, Numerical, Train
from cnnlib.ops.norm import _sum_of_neighbours, local_response_norm_backward, local_response_norm_forward


def lrn_backward(dy, x, size, alpha, beta, k):
    N, C, H, W = x.shape
    dy, values = dy.reshape(N, C, H * W), x.reshape(N, C, H * W)
    s = local_response_norm_forward(values, size, alpha, beta, k)[1]
    return local_response_norm_backward(dy, values, s, size, alpha, beta).reshape(x.shape)


def forward(dy, x, size, alpha, beta, k):
    return local_response_norm_forward(x.reshape(*x.shape[:2], -1), size, alpha, beta, k)[0].reshape(x.shape)


def cases(rng):
    def case(shape, size, alpha, beta, k, *features):
        return Case((rng.standard_normal(shape), rng.standard_normal(shape), size, alpha, beta, k), features)

    return [
        case((2, 7, 2, 3), 5, 1.5, 0.75, 2.0, "AlexNet's size"),
        case((1, 6, 3, 2), 3, 2.0, 0.5, 1.0, "N = 1"),
        case((2, 6, 2, 2), 4, 3.0, 0.75, 1.5, "even size"),
        case((2, 3, 1, 4), 2, 1.0, 1.25, 0.5, "even size"),
        case((3, 5, 2, 1), 1, 2.0, 0.75, 1.0, "size 1"),
        case((2, 3, 2, 2), 9, 4.0, 0.75, 2.0, "size larger than C"),
    ]


def alexnet_1(rng):
    """Half of AlexNet's first normalisation, one picture."""
    dy, x = (rng.standard_normal((1, 48, 55, 55), dtype=np.float32) for _ in range(2))
    return dy, x, 5, 1e-4, 0.75, 2.0


def with_s(dy, x, size, alpha, beta, k):
    dy, x = (a.reshape(*a.shape[:2], -1) for a in (dy, x))
    return dy, x, local_response_norm_forward(x, size, alpha, beta, k)[1], size, alpha, beta


def kernels(f):
    def backward(dy, x, s, size, alpha, beta):
        k = float(s.flat[0] - alpha / size * _sum_of_neighbours(x * x, size // 2, (size - 1) // 2).flat[0])
        return np.asarray(f(dy[..., None], x[..., None], size, alpha, beta, k), x.dtype).reshape(x.shape)

    return {"local_response_norm_backward": backward}


LOOPS = """\
import numpy as np


def lrn_backward(dy, x, size, alpha, beta, k):
    C = x.shape[1]
    dx = np.zeros_like(x)
    for j in range(C):
        near = range(max(0, j - size // 2), min(C, j + (size - 1) // 2 + 1))
        s = k + alpha / size * sum(x[:, c] ** 2 for c in near)
        dx[:, j] += dy[:, j] * s**-beta
        ds = dy[:, j] * x[:, j] * -beta * s ** (-beta - 1)
        for c in near:
            dx[:, c] += ds * 2 * alpha / size * x[:, c]
    return dx
"""

MATRIX = """\
import numpy as np


def lrn_backward(dy, x, size, alpha, beta, k):
    c = np.arange(x.shape[1])
    offset = c[None, :] - c[:, None]  # column − row
    near = (offset >= -(size // 2)) & (offset <= (size - 1) // 2)  # near[j, c]: does j's neighbourhood hold c?
    s = k + alpha / size * np.einsum("jc,nchw->njhw", near, x**2)
    inhibition = np.einsum("jc,njhw->nchw", near, dy * x / s ** (beta + 1))
    return dy / s**beta - 2 * alpha * beta / size * x * inhibition
"""


def symmetric(dy, x, size, alpha, beta, k):
    odd = size // 2 * 2 + 1
    return lrn_backward(dy, x, odd, alpha * odd / size, beta, k)


def negative_start(dy, x, size, alpha, beta, k):
    """A slice that begins below 0 in NumPy's sense, from the end."""
    below, above = size // 2, (size - 1) // 2
    channels = range(x.shape[1])
    s = np.stack([k + alpha / size * (x[:, c - below : c + above + 1] ** 2).sum(axis=1) for c in channels], axis=1)
    sent = dy * x * s ** (-beta - 1)
    inhibition = np.stack([sent[:, c - above : c + below + 1].sum(axis=1) for c in channels], axis=1)
    return dy * s**-beta - 2 * alpha * beta / size * x * inhibition


EXERCISE = Exercise(
    number=18,
    name="lrn_backward",
    topic="lecture: convolutional networks (local response normalisation)",
    function=lrn_backward,
    uses=(_sum_of_neighbours, local_response_norm_forward, local_response_norm_backward),
    outputs=("dx",),
    starter='''\
import numpy as np


def lrn_backward(dy, x, size, alpha, beta, k):
    """dy, x (N, C, H, W) -> dx (N, C, H, W)."""
    # 1. s of every channel: which channels are near, and what happens at the first and the last one?
    # 2. the direct part: each x_c in its own y_c
    # 3. the inhibition: each x_c in the s_j of those that have it as a neighbour
    ...
''',
    cases=cases,
    numerical=Numerical(forward, wrt={"dx": 1}, upstream=0),
    hints=(
        "Loop over the channels j and send from there: j knows its neighbours c, and each of them gets j's share. So you "
        "never have to ask whose neighbour you are.",
        "y_j = x_j s_j^(−β) is a product: one term goes to x_j as if s were constant, the other through s_j, with ds_j = −β "
        "dy_j x_j s_j^(−β−1), to all x_c in j's neighbourhood.",
        "for j in range(C):\n"
        "    dx[:, j] += dy[:, j] * s[:, j]**-beta\n"
        "    for c in near(j):  dx[:, c] += -beta * dy[:, j] * x[:, j] * s[:, j]**(-beta-1) * 2 * alpha / size * x[:, c]",
    ),
    question="AlexNet normalises after the ReLU with α = 10⁻⁴ (not divided by n), n = 5, k = 2. How large must activations "
    "be before the neighbours make a difference of 10 %? Why did later networks drop LRN?",
    answer="The factor is (1 + α Σ x² / k)^(−0.75); for 10 % less, α Σ x² / k ≈ 0.15, so Σ x² ≈ 3,000: five neighbours of "
    "about 25 each. AlexNet's inputs are pixels up to 255, so it happens. VGG found that LRN cost memory and time and "
    "brought no accuracy; batch normalisation then did the job of keeping activations in range, with statistics instead of "
    "a fixed formula.",
    link="cnnlib/ops/norm.py",
    explanations=(
        Explanation(
            "one neighbour too many",
            "for even sizes you take a neighbour too many: the neighbourhood has size channels, ⌊n/2⌋ below and ⌊(n−1)/2⌋ "
            "above.",
            symmetric,
        ),
        Explanation(
            "inhibition forgotten",
            "your dx forgets the inhibition: x_c also stands in the s_j of its neighbours, and lowers their y_j.",
        ),
        Explanation(
            "only its own s",
            "your dx follows only x_c's own s_c: it also stands in the s_j of every channel j that has c as a neighbour.",
        ),
        Explanation("2 forgotten", "your inhibition lacks the 2: ∂s_j/∂x_c = 2 α/n x_c."),
        Explanation(
            "size forgotten",
            "your inhibition is not divided by the size: s = k + α/n Σ x², with α/n in its derivative as well.",
        ),
        Explanation("alpha not divided", "you use Krizhevsky's α, which is not divided by the size: here s = k + α/n Σ x²."),
        Explanation("beta forgotten", "your inhibition lacks the factor β: ∂s^(−β)/∂s = −β s^(−β−1)."),
        Explanation("alpha forgotten", "your inhibition lacks the factor α: ∂s_j/∂x_c = 2 α/n x_c."),
        Explanation(
            "exponent",
            "your inhibition has s^(−β) where it should have s^(−β−1): taking the derivative lowers the exponent by one.",
        ),
        Explanation(
            "wrong x",
            "your inhibition has x_c² where it should have x_c x_j: one x comes from y_j = x_j s_j^(−β), the other from "
            "∂s_j/∂x_c.",
        ),
        Explanation(
            "neighbours not turned round",
            "for even sizes, your inhibition comes from the channels in c's neighbourhood: it comes from those that have c "
            "in theirs, one further up than down.",
        ),
        Explanation(
            "neighbourhood of s",
            "for even sizes, the neighbourhood in your s is the wrong way round: it reaches ⌊n/2⌋ channels down and "
            "⌊(n−1)/2⌋ up.",
        ),
        Explanation("inhibition's sign", "your inhibition has the wrong sign: a louder neighbour makes y smaller."),
        Explanation("dy of the neighbours", "your inhibition forgets dy: what a neighbour's y_j loses counts dy_j times."),
        Explanation("s for its power", "your direct part divides by s: it is dy_c s_c^(−β)."),
        Explanation(
            "negative start",
            "your slice begins below 0 at the first channels, and Python counts that from the end: begin at max(0, c − ⌊n/2⌋).",
            negative_start,
        ),
        Explanation("k forgotten", "your s forgets k: s = k + α/n Σ x²."),
    ),
    mutants=(
        Mutant(" - (2 * alpha * beta / size) * x * inhibition", "", "inhibition forgotten"),
        Mutant(
            "inhibition = _sum_of_neighbours(dy * x * s ** (-beta - 1), (size - 1) // 2, size // 2)",
            "inhibition = dy * x * s ** (-beta - 1)",
            "only its own s",
        ),
        Mutant("(2 * alpha * beta / size)", "(alpha * beta / size)", "2 forgotten"),
        Mutant("(2 * alpha * beta / size)", "(2 * alpha * beta)", "size forgotten"),
        Mutant("(2 * alpha * beta / size)", "(2 * alpha / size)", "beta forgotten"),
        Mutant("(2 * alpha * beta / size)", "(2 * beta / size)", "alpha forgotten"),
        Mutant(
            "return local_response_norm_backward(dy, values, s, size, alpha, beta)",
            "s = local_response_norm_forward(values, size, size * alpha, beta, k)[1]\n"
            "    return local_response_norm_backward(dy, values, s, size, size * alpha, beta)",
            "alpha not divided",
        ),
        Mutant("s ** (-beta - 1)", "s ** (-beta)", "exponent"),
        Mutant("_sum_of_neighbours(dy * x * s", "x * _sum_of_neighbours(dy * s", "wrong x"),
        Mutant(
            "(-beta - 1), (size - 1) // 2, size // 2)",
            "(-beta - 1), size // 2, (size - 1) // 2)",
            "neighbours not turned round",
        ),
        Mutant(
            "_sum_of_neighbours(x * x, size // 2, (size - 1) // 2)",
            "_sum_of_neighbours(x * x, (size - 1) // 2, size // 2)",
            "neighbourhood of s",
        ),
        Mutant("dy * s**-beta - (2", "dy * s**-beta + (2", "inhibition's sign"),
        Mutant("dy * s**-beta - (2", "dy / s - (2", "s for its power"),
        Mutant("s = k + alpha", "s = alpha", "k forgotten"),
        Mutant("_sum_of_neighbours(dy * x * s", "_sum_of_neighbours(x * s", "dy of the neighbours"),
    ),
    equivalent={
        "_sum_of_neighbours: C - 1 -> C": "an offset of C adds an empty slice",
        "_sum_of_neighbours: C - 1 -> C #2": "an offset of C adds an empty slice",
        "_sum_of_neighbours: C - o -> -o": "counted from the end",
        "_sum_of_neighbours: C - o -> -o #2": "counted from the end",
    },
    alternatives=(LOOPS, MATRIX),
    fast=Fast(alexnet_1, "local_response_norm_backward", with_s),
    train=Train(kernels, "lrn"),
)
