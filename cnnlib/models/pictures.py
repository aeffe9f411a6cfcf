"""What the deep networks for pictures share: their input, their first weights, their scaled-down forms."""

from __future__ import annotations

import math
from typing import Any

from cnnlib import nn
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.nn import init


class PictureNet(nn.Module):
    """Base of networks that take (N, in_channels, input_size, input_size) and give logits (N, num_classes).

    ``picture_size``: the usual side of a picture; ``smallest``: the least that leaves something of the last maps.
    """

    criterion: type[nn.Module] = nn.CrossEntropyLoss
    picture_size = 224
    smallest = 32

    def __init__(self, in_channels: int, input_size: int):
        super().__init__()
        if input_size < self.smallest:
            raise ShapeError(
                f"{type(self).__name__}: pictures of {input_size}×{input_size} are too small, its maps would shrink to "
                f"nothing: at least {self.smallest}×{self.smallest} is needed; cnnlib.data.Resize({self.smallest}) scales them."
            )
        self.input_shape = (in_channels, input_size, input_size)

    def check(self, x: Any) -> None:
        """Refuse pictures of another shape than the network was made for."""
        if x.shape[1:] != self.input_shape:
            raise ShapeError(f"{type(self).__name__}: x must be (N, {', '.join(map(str, self.input_shape))}), got {x.shape}: "
                             "create it with in_channels and input_size of your pictures, or scale them.")  # fmt: skip

    @classmethod
    def options_for(cls, shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
        """The options that fit samples of ``shape``."""
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ShapeError(
                f"{cls.__name__} needs square pictures, (channels, size, size), but the samples have shape {shape}."
            )
        return {"num_classes": num_classes, "in_channels": shape[0], "input_size": shape[1]}


def scaled(maps: int, width: float) -> int:
    """``maps`` times ``width``, rounded, at least 1.

    >>> scaled(64, 0.25), scaled(64, 1.0), scaled(3, 0.1)
    (16, 64, 1)
    """
    if not (width > 0 and math.isfinite(width)):
        raise ValueRangeError(f"width must be a finite number above 0, got {width!r}: it multiplies the numbers of maps.")
    return max(1, round(maps * width))


def he_weights(model: nn.Module) -> None:
    """Weights with variance 2/fan_in, biases 0: the signal keeps its variance through any number of ReLU layers.

    Convolutions get normal numbers, as in the paper, linear layers uniform ones, which take a tenth of the time to draw.

    Source: lecture: initialisation heuristics; He, Zhang, Ren & Sun, "Delving deep into rectifiers", 2015.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.weight.set((init.he_normal if isinstance(layer, nn.Conv2d) else init.he_uniform)(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.set(0.0)
