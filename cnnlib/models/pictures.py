"""What the convolutional systems share: square pictures in, scores of classes out, and checks that say what fits."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from cnnlib import nn
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.ops.arguments import check_whole


class PictureNet(nn.Sequential):
    """Layers one after the other: x (N, in_channels, input_size, input_size) -> scores (N, num_classes).

    A system states ``picture_size``, the usual side of its pictures, and ``smallest``, the side that its convolutions and
    pools need at least. Raises ShapeError for smaller pictures and, when called, for others than it was created for;
    ValueRangeError for settings that are no whole numbers.
    """

    criterion: type[nn.Module] = nn.CrossEntropyLoss
    picture_size: int
    smallest: int

    def __init__(self, in_channels: int, input_size: int):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("input_size", input_size)):
            check_whole(type(self).__name__, name, value)
        if input_size < self.smallest:
            raise ShapeError(f"{type(self).__name__}: pictures of {input_size}×{input_size} are too small for its convolutions "
                             f"and pools: at least {self.smallest}×{self.smallest} is needed, {self.picture_size}×"
                             f"{self.picture_size} is usual; cnnlib.data.Resize(size) scales pictures.")  # fmt: skip
        self.input_shape = (in_channels, input_size, input_size)

    def forward(self, x):
        self.check(x)
        return super().forward(x)

    def check(self, x: Any) -> None:
        """Refuse pictures of another shape than the network was made for."""
        came = getattr(x, "shape", None)
        if came is None or came[1:] != self.input_shape:
            raise ShapeError(f"{type(self).__name__}: x must be (N, {', '.join(map(str, self.input_shape))}), got "
                             f"{type(x).__name__ if came is None else came}: "
                             "create it with in_channels and input_size of your pictures "
                             f"(at least {self.smallest}×{self.smallest}), or scale them.")  # fmt: skip

    def start_for_relu(self) -> None:
        """He's initial weights, uniform in ±√(6/fan_in), which keep the variance through ReLUs; biases 0. To be called at the
        end of __init__: the layers' own weights are uniform in ±1/√fan_in, so that a factor is enough.

        Source: He, Zhang, Ren & Sun, "Delving deep into rectifiers", 2015.
        """
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight.set(math.sqrt(6.0) * layer.weight.data)
                if layer.bias is not None:
                    layer.bias.set(0.0)

    @classmethod
    def options_for(cls, shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
        """The options that fit samples of ``shape``."""
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ShapeError(
                f"{cls.__name__} needs square pictures, (channels, size, size), but the samples have shape {shape}; "
                "cnnlib.data.Resize(size) scales pictures."
            )
        return {"num_classes": num_classes, "in_channels": shape[0], "input_size": shape[1]}


def scaled(units: int, width: float, multiple: int = 1) -> int:
    """``units`` · ``width``, rounded to a multiple of ``multiple`` (the groups of the layers around), at least that.

    >>> scaled(96, 1.0), scaled(96, 0.25), scaled(10, 0.25, multiple=2), scaled(6, 0.01)
    (96, 24, 2, 1)
    """
    if not isinstance(width, Real) or not 0 < width < math.inf:
        raise ValueRangeError(f"width, by which the numbers of maps and units are multiplied, must be > 0, got {width!r}.")
    return max(1, round(units * width / multiple)) * multiple


def side_after(side: int, *windows: tuple[int, int, int], ceil: bool = False) -> int:
    """The side of the maps behind convolutions and pools (F, S, P): each makes (side − F + 2P)/S + 1 of it, rounded down.

    ``ceil``: rounded up, as pools with ``ceil_mode`` do.

    >>> side_after(227, (11, 4, 0), (3, 2, 0))
    27
    """
    for kernel, stride, padding in windows:
        room = side - kernel + 2 * padding
        side = (-(-room // stride) if ceil else room // stride) + 1
    return side
