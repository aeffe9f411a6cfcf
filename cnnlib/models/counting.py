"""What weight sharing saves: one hidden layer on a picture, connected in three ways.

    fully connected      every unit sees every pixel                             hidden · C·H·W weights
    locally connected    every unit sees a field of F×F pixels of its own        hidden · C·F·F
    convolutional        the units of a map share one field's weights            maps · C·F·F

Source: lecture: convolutional networks, from fully connected to convolutional.
"""

from __future__ import annotations

import dataclasses
import math

from cnnlib.errors import ShapeError
from cnnlib.ops.arguments import check_whole, pair


@dataclasses.dataclass(frozen=True)
class ParameterTable:
    """Weights of a hidden layer of ``hidden`` units on pictures of ``input_shape``, biases left out as in the lecture."""

    input_shape: tuple[int, int, int]
    hidden: int
    field: tuple[int, int]
    maps: int

    @property
    def per_unit(self) -> int:
        """Weights of one unit that sees a field: C·FH·FW."""
        return self.input_shape[0] * math.prod(self.field)

    @property
    def fully_connected(self) -> int:
        return self.hidden * math.prod(self.input_shape)

    @property
    def locally_connected(self) -> int:
        return self.hidden * self.per_unit

    @property
    def convolutional(self) -> int:
        return self.maps * self.per_unit

    def as_dict(self) -> dict[str, int]:
        """``{"fully connected": …, "locally connected": …, "convolutional": …}``"""
        counts = (self.fully_connected, self.locally_connected, self.convolutional)
        return dict(zip(("fully connected", "locally connected", "convolutional"), counts, strict=True))

    def __rich__(self):
        from rich.box import SIMPLE
        from rich.table import Table

        C, H, W = self.input_shape
        each = " × ".join(map(str, (C, *self.field)))
        formulas = (f"{self.hidden:,} × {C} × {H} × {W}", f"{self.hidden:,} × {each}", f"{self.maps:,} × {each}")
        table = Table(title=f"a hidden layer on {C}×{H}×{W} pictures", box=SIMPLE, pad_edge=False)
        for name in ("connected", "weights", "", "share"):
            table.add_column(name, justify="right" if name in ("weights", "share") else "left", no_wrap=True)
        for (kind, count), formula in zip(self.as_dict().items(), formulas, strict=True):
            table.add_row(kind.removesuffix(" connected"), f"{count:,}", f"= {formula}", f"{count / self.fully_connected:.2g}")
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120)
        with console.capture() as text:
            console.print(self)
        return text.get().rstrip()

    __repr__ = __str__


def parameter_table(input_shape: tuple[int, int, int], hidden: int, field: int | tuple[int, int], maps: int) -> ParameterTable:
    """Fully, locally connected and convolutional: how many weights has a hidden layer?

    ``input_shape`` (C, H, W); ``hidden`` units where each has weights of its own; ``field`` in pixels, a number or (height,
    width), through all channels; ``maps`` of the convolution. Raises ShapeError, ValueRangeError.

    >>> table = parameter_table((3, 200, 200), hidden=120_000, field=3, maps=64)
    >>> table.fully_connected, table.locally_connected, table.convolutional
    (14400000000, 3240000, 1728)
    """
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise ShapeError(f"parameter_table: input_shape must be (channels, height, width), got {input_shape!r}.")
    sizes = {"channels": input_shape[0], "height": input_shape[1], "width": input_shape[2], "hidden": hidden, "maps": maps}
    for name, value in sizes.items():
        check_whole("parameter_table", name, value)
    field = pair("parameter_table", "field", field)
    if field[0] > input_shape[1] or field[1] > input_shape[2]:
        raise ShapeError(f"parameter_table: a field of {field} pixels does not fit into pictures of {tuple(input_shape[1:])}.")
    return ParameterTable((input_shape[0], input_shape[1], input_shape[2]), hidden, field, maps)
