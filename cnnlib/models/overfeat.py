"""OverFeat, the fast model: a classifier that slides over larger pictures without starting anew at each place.

| layer | what (table 1 of the paper)                | output (231×231×3 input) | parameters  |
|-------|--------------------------------------------|--------------------------|-------------|
| conv1 | 96 @ 11×11, S 4; ReLU                      | 56×56×96                 | 34,944      |
| pool1 | max 2×2                                    | 28×28×96                 |             |
| conv2 | 256 @ 5×5; ReLU                            | 24×24×256                | 614,656     |
| pool2 | max 2×2                                    | 12×12×256                |             |
| conv3 | 512 @ 3×3, P 1; ReLU                       | 12×12×512                | 1,180,160   |
| conv4 | 1024 @ 3×3, P 1; ReLU                      | 12×12×1024               | 4,719,616   |
| conv5 | 1024 @ 3×3, P 1; ReLU                      | 12×12×1024               | 9,438,208   |
| pool5 | max 2×2                                    | 6×6×1024                 |             |
| fc6   | fully connected: 3072 @ 6×6; ReLU, dropout | 1×1×3072                 | 113,249,280 |
| fc7   | fully connected: 4096 @ 1×1; ReLU, dropout | 1×1×4096                 | 12,587,008  |
| fc8   | fully connected: 1000 @ 1×1                | 1×1×num_classes          | 4,097,000   |
|       |                                            |                          | 145,920,872 |

Unlike AlexNet it neither normalises nor lets pools overlap. The paper's table gives conv2's input as 24×24; that is its output.

**Dense evaluation** (section 3.5). A fully connected layer on 6×6 maps is a convolution with 6×6 kernels, and on a larger
picture that convolution has more places to go: :meth:`OverFeat.dense` gives the scores of a window of ``input_size`` at each
of them, one per 32 pixels (the product of all strides, 4·2·2·2), and neighbouring windows share nearly all of the work.

**Offset pooling** (section 3.3, figure 3). The last pool is run from each of its offsets, here 2×2, the classifier on each of
the results, and the scores are interleaved: a window per 16 pixels. Pooling from every offset is pooling with stride 1; from
its output the classifier takes every second pixel, which is a convolution with dilation 2: ``dense(x, fine=True)``.

Are those the scores of the windows, cut out and classified one by one? Exactly, where no layer pads: ``padding=0``. With the
table's P 1 a cut-out window has zeros around its maps where the larger picture has neighbours, and the scores differ.

The paper drew weights from N(0, 0.01²). Here they start as He's, with biases of 0.

Source: lecture: convolutional networks, OverFeat; Sermanet, Eigen, Zhang, Mathieu, Fergus & LeCun, "OverFeat: integrated
recognition, localization and detection using convolutional networks", 2013: section 3, table 1.
"""

from __future__ import annotations

from cnnlib import nn, ops
from cnnlib.errors import ShapeError
from cnnlib.models.pictures import PictureNet, scaled, side_after


class OverFeat(PictureNet):
    """x (N, in_channels, input_size, input_size) -> logits (N, num_classes). For larger pictures see :meth:`dense`.

    ``padding``: of conv3, conv4 and conv5. ``width`` multiplies the numbers of maps and of hidden units.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.OverFeat(num_classes=10, input_size=71, width=0.1)
    >>> net(np.zeros((1, 3, 71, 71), np.float32)).shape
    (1, 10)
    >>> net.dense(np.zeros((1, 3, 71 + 32, 71 + 64), np.float32)).shape
    (1, 10, 2, 3)
    """

    picture_size = 231
    smallest = 71

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, input_size: int = 231, width: float = 1.0, padding: int = 1
    ):
        super().__init__(in_channels, input_size)
        c1, c2, c3, c4, c5 = (scaled(maps, width) for maps in (96, 256, 512, 1024, 1024))
        h6, h7 = scaled(3072, width), scaled(4096, width)
        side = side_after(input_size, (11, 4, 0), (2, 2, 0), (5, 1, 0), (2, 2, 0), *[(3, 1, padding)] * 3, (2, 2, 0))
        if side < 1:
            raise ShapeError(f"OverFeat: pictures of {input_size}×{input_size} are too small for conv3, conv4 and conv5 "
                             "without padding: at least 167×167 is needed.")  # fmt: skip
        self.conv1 = nn.Conv2d(in_channels, c1, 11, stride=4)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(c1, c2, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=padding)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=padding)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=padding)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(2)
        self.fc6 = nn.Conv2d(c5, h6, side)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(h6, h7, 1)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = nn.Conv2d(h7, num_classes, 1)
        self.flatten = nn.Flatten()
        self.start_for_relu()

    def dense(self, x, fine: bool = False):
        """Class scores of every window: x (N, in_channels, H, W) -> (N, num_classes, GH, GW), H and W at least input_size.

        The window at (i, j) has its upper left corner at pixel (32 i, 32 j); with ``fine`` at (16 i, 16 j). For evaluation:
        call eval() first, or dropout thins the scores.
        """
        C, size, _ = self.input_shape
        if x.ndim != 4 or x.shape[1] != C or min(x.shape[2:]) < size:
            raise ShapeError(f"OverFeat.dense: x must be (N, {C}, H, W) with H and W at least {size}, the window's size; "
                             f"got {x.shape}.")  # fmt: skip
        layers = list(self)
        pool = layers.index(self.pool5)
        for layer in layers[:pool]:
            x = layer(x)
        if fine:
            x = ops.max_pool2d(x, 2, stride=1)
            x = ops.conv2d(x, self.fc6.weight, self.fc6.bias, dilation=2)
        else:
            x = self.fc6(self.pool5(x))
        for layer in layers[pool + 2 : -1]:  # what follows fc6, without flatten
            x = layer(x)
        return x
