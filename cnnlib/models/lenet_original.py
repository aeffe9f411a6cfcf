"""LeNet-5 as it was in 1998: a connection table, subsampling that learns, squashing, and distances to drawn digits.

| layer  | what (section II.B of the paper)                    | output (32×32×1 input) | parameters | connections |
|--------|-----------------------------------------------------|------------------------|------------|-------------|
| c1     | conv 6 @ 5×5                                        | 28×28×6                | 156        | 122,304     |
| s2     | sum of 2×2, a coefficient and a bias per map        | 14×14×6                | 12         | 5,880       |
| c3     | conv 16 @ 5×5, each of 3, 4 or 6 maps of s2         | 10×10×16               | 1,516      | 151,600     |
| s4     | sum of 2×2, a coefficient and a bias per map        | 5×5×16                 | 32         | 2,000       |
| c5     | conv 120 @ 5×5                                      | 1×1×120                | 48,120     | 48,120      |
| f6     | fully connected                                     | 84                     | 10,164     | 10,164      |
| output | Euclidean RBF units, one per class, with fixed code | 10                     |            | 840         |
|        |                                                     |                        | 60,000     | 340,908     |

Every layer up to f6 squashes its sums by f(a) = A tanh(S a), A = 1.7159, S = 2/3: f(±1) = ±1, where it bends most.
An output unit measures how far f6 is from the code of its class, a picture of the digit in 7×12 pixels of ±1::

    y_i = Σ_j (x_j − w_ij)²                                               x (N, 84), w (num_classes, 84) -> y (N, num_classes)
    J = mean over the batch of  y_t + ln(e^−j + Σ_i e^−y_i)               t: the right class (equation 9)

The first term pulls f6 to the right code. The second pushes it away from the others, but no further than j: e^−j is a
class "rubbish" at that distance from everything. So J is the cross-entropy of the scores −y_i with one more score, −j.
The network returns −y: the largest score is the nearest code.

Weights start uniform in ±2.4/F, F the inputs of a unit. The paper wants pictures with −0.1 for paper and 1.175 for ink, of
mean 0 and variance 1 as Normalize makes them, and trains by stochastic diagonal Levenberg–Marquardt; any optimiser does.
It does not give j.

Source: lecture: convolutional networks, LeNet; LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to
document recognition", 1998: section II.B, table I, figures 2 and 3, equations 7 to 9, appendix A.
"""

from __future__ import annotations

import math

import numpy as np

from cnnlib import nn, ops
from cnnlib.backends import xp_of
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.models.pictures import PictureNet, side_after
from cnnlib.nn import init
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_whole
from cnnlib.random import next_key, uniform
from cnnlib.tensor import Parameter, Tensor

# Table I: the maps of s2 that each map of c3 sees. Three or four neighbours, four in two pairs, and all six.
TABLE = "012 123 234 345 045 015 0123 1234 2345 0345 0145 0125 0134 1245 0235 012345".split()

# The codes of the digits 0 … 9, # for +1 and . for −1. Similar digits have similar codes. Drawn after the idea of figure 3.
DIGITS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...#... .#####. .#####. .....#. ####### ..####. ####### .#####. .#####.
.#...#. ..##... #.....# #.....# ....##. #...... .#..... ......# #.....# #.....#
#.....# .#.#... ......# ......# ...#.#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. ..####. .#...#. ######. ######. ....#.. .#####. #.....#
#.....# ...#... ....#.. ......# #....#. ......# #.....# ....#.. #.....# .######
#.....# ...#... ...#... ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#
.#...#. ...#... .#..... #.....# .....#. #.....# #.....# ..#.... #.....# .....#.
..###.. .#####. ####### .#####. .....#. .#####. .#####. ..#.... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""
HEIGHT, WIDTH = 12, 7

A, S = 1.7159, 2 / 3  # of the squashing function (appendix A)


def codes(num_classes: int) -> np.ndarray:
    """(num_classes, 84) of ±1: the digits' pictures, row by row. Classes after the tenth get random codes, as far from each
    other as from the digits: the paper names them as the alternative to pictures.
    """
    check_whole("LeNet5Original", "num_classes", num_classes)
    rows = [line.split() for line in DIGITS.split("\n") if line]  # 12 rows of 10 pieces of 7 pixels
    pictures = [[1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[digit]] for digit in range(10)]
    more = max(num_classes - len(pictures), 0)
    chance = np.where(uniform(next_key("init"), (more, HEIGHT * WIDTH)) < 0.5, -1.0, 1.0)
    return np.concatenate([pictures, chance])[:num_classes].astype(np.float32)


class Squash(Op):
    """y = A tanh(S x), so that dx = dy · A S (1 − (y/A)²). Saves y. One operation, not three: each passes over all maps."""

    formula = "y = 1.7159 tanh(2x/3)"

    @staticmethod
    def forward(ctx, x):
        check_float("Squash", "x", x)
        y = ctx.kernels.tanh_forward(S * x)
        y *= A
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx, dy):
        dx = ctx.kernels.tanh_backward(dy, ctx.y / A)
        dx *= A * S
        return dx


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3): keeps ±1, the values of the codes, well away from its flat ends."""

    def forward(self, x):
        return Squash.apply(x)


class Subsample(nn.Module):
    """(N, C, H, W) -> (N, C, H/2, W/2): the sum of each 2×2 window, times the coefficient of its map, plus its bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.coefficient = Parameter(init.uniform_((channels,), 2.4 / 4))
        self.bias = Parameter(init.uniform_((channels,), 2.4 / 4))

    def forward(self, x):
        four = 4.0 * self.coefficient  # of the mean: of the sum it is the coefficient
        return ops.avg_pool2d(x, 2) * four.reshape(-1, 1, 1) + self.bias.reshape(-1, 1, 1)

    def multiply_adds(self, x: tuple[int, ...], y: tuple[int, ...]) -> int:
        """As of a convolution with four equal weights."""
        return 4 * math.prod(y)


class TableConv2d(nn.Module):
    """A convolution whose maps see only some of the input maps: ``table[f]`` lists those of map f, as digits.

    (N, C, H, W) -> (N, F, OH, OW). Weight (connections, KH, KW): one kernel for each entry of the table; bias (F,).
    """

    def __init__(self, in_channels: int, table: list[str], kernel_size: int):
        super().__init__()
        self.kernel_of = np.full((len(table), in_channels), -1)  # (F, C), −1: not connected
        maps, inputs = zip(*[(f, int(c)) for f, row in enumerate(table) for c in row], strict=True)
        self.kernel_of[maps, inputs] = np.arange(len(maps))
        bounds = np.array([2.4 / (len(row) * kernel_size**2) for row in table], np.float32)  # F: other maps, other fan-in
        self.weight = Parameter(init.uniform_((len(maps), kernel_size, kernel_size), 1.0) * bounds[maps, None, None])
        self.bias = Parameter(init.uniform_((len(table),), 1.0) * bounds)

    def forward(self, x):
        kernels = ops.pad(self.weight, ((0, 1), (0, 0), (0, 0)))  # the last one, number −1, is 0
        dense = kernels[xp_of(x.data).asarray(self.kernel_of)]  # (F, C, KH, KW)
        return ops.conv2d(x, dense, self.bias)

    def multiply_adds(self, x: tuple[int, ...], y: tuple[int, ...]) -> int:
        """Those of the connections in the table: the zeros in between are no part of the model."""
        return self.weight.size * math.prod(y[1:])

    def extra_repr(self) -> str:
        F, C = self.kernel_of.shape
        return f"{C}, {F}, kernel_size={self.weight.shape[1:]}, connections={len(self.weight.data)} of {F * C}"


class EuclideanRBF(nn.Module):
    """−y_i = −Σ_j (x_j − w_ij)²: (N, D) -> (N, num_classes). The codes w (num_classes, D) are fixed: a buffer.

    Computed as 2 x·w_i − ‖x‖² − ‖w_i‖², without the (N, num_classes, D) differences. With ‖x‖² and ‖w_i‖² of some hundred at
    most, rounding moves a score by some 10⁻⁵.
    """

    def __init__(self, codes: np.ndarray):
        super().__init__()
        self.register_buffer("codes", codes)

    def forward(self, x):
        lengths = (self.codes**2).sum(axis=1)  # (num_classes,)
        return ops.linear(x, 2.0 * self.codes, -lengths) - (x * x).sum(axis=1, keepdims=True)

    def multiply_adds(self, x: tuple[int, ...], y: tuple[int, ...]) -> int:
        return self.codes.size

    def extra_repr(self) -> str:
        return f"{self.codes.shape[1]}, {self.codes.shape[0]}"


class MAPLoss(nn.Module):
    """Equation 9: (scores −y (N, C), class numbers (N,)) -> mean of y_t + ln(e^−j + Σ_i e^−y_i).

    Raises ValueRangeError unless j > 0, and for labels outside 0 … C − 1; ShapeError for other scores.

    >>> import cnnlib as cl
    >>> loss = MAPLoss(j=1.0)(cl.Tensor([[-4.0, -9.0]]), cl.Tensor([0]))      # 4 + ln(e^−1 + e^−4 + e^−9)
    >>> round(loss.item(), 3)
    3.049
    """

    def __init__(self, j: float = 1.0):
        super().__init__()
        if not 0 < j < math.inf:
            raise ValueRangeError(f"MAPLoss: j, the distance from which on classes are rubbish, must be > 0, got {j!r}.")
        self.j = float(j)

    def forward(self, scores, labels):
        if getattr(scores, "ndim", None) != 2:
            came = getattr(scores, "shape", type(scores).__name__)
            raise ShapeError(f"MAPLoss: scores must be (N, C), one row per sample as LeNet5Original gives them, got {came}.")
        xp, C = xp_of(scores.data), scores.shape[1]
        numbers = xp.asarray(getattr(labels, "data", labels))
        if (numbers >= C).any():
            raise ValueRangeError(f"MAPLoss: label {int(numbers.max())} is outside 0 … {C - 1}: there are C = {C} classes "
                                  "(the next one would be the rubbish).")  # fmt: skip
        rubbish = xp.full((len(scores.data), 1), -self.j, dtype=scores.dtype)
        return ops.cross_entropy(ops.concat([scores, Tensor(rubbish)], axis=1), labels)

    def extra_repr(self) -> str:
        return f"j={self.j}"


class LeNet5Original(PictureNet):
    """x (N, in_channels, input_size, input_size) -> scores −y (N, num_classes), y the squared distances to the codes.

    ``input_size``: below 32 the first convolution pads by 2; c5 covers the whole maps of s4, 5×5 for 28 and 32. The table of
    c3 and the 84 pixels of a code fix the numbers of maps and units.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.LeNet5Original()
    >>> sum(p.size for p in net.parameters())
    60000
    >>> net(np.zeros((1, 1, 32, 32), np.float32)).shape
    (1, 10)
    """

    criterion = MAPLoss
    picture_size = 32
    smallest = 12

    def __init__(self, num_classes: int = 10, in_channels: int = 1, input_size: int = 32):
        super().__init__(in_channels, input_size)
        padding = 2 if input_size < 32 else 0
        side = side_after(input_size, (5, 1, padding), (2, 2, 0), (5, 1, 0), (2, 2, 0))  # of the maps of s4
        self.c1 = nn.Conv2d(in_channels, 6, 5, padding=padding)
        self.act1 = ScaledTanh()
        self.s2 = Subsample(6)
        self.act2 = ScaledTanh()
        self.c3 = TableConv2d(6, TABLE, 5)
        self.act3 = ScaledTanh()
        self.s4 = Subsample(16)
        self.act4 = ScaledTanh()
        self.c5 = nn.Conv2d(16, 120, side)
        self.act5 = ScaledTanh()
        self.flatten = nn.Flatten()
        self.f6 = nn.Linear(120, HEIGHT * WIDTH)
        self.act6 = ScaledTanh()
        self.output = EuclideanRBF(codes(num_classes))
        for layer in (self.c1, self.c5, self.f6):
            bound = 2.4 / init.fans(layer.weight.shape)[0]
            for p in layer.parameters():
                p.set(init.uniform_(p.shape, bound))
