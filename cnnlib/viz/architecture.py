"""The architecture of a model as a drawing: boxes from top to bottom, branches beside each other, skips around."""

from __future__ import annotations

import collections
import dataclasses
import html
import math
import re
from typing import Any

from cnnlib.nn.module import Module
from cnnlib.viz.layers import Layer, layers_of

LINE, PAD, GAP, LANE, ICON, MARGIN = 16, 8, 24, 20, 66, 8  # pixels
CHARACTER, BOLD = 6.7, 7.5  # width of a character at font size 12, on average, in a wide font
SYMBOLS = {"add": "+", "multiply": "×", "subtract": "−"}
LEARNT, FIXED = ("#e3edfa", "#3b6fb6"), ("#f1f1f1", "#8a8a8a")  # fill and frame of boxes with parameters, and without


def architecture(model: Module, input_shape: tuple[int, ...], depth: int | None = None, dtype: Any = None) -> str:
    """SVG text: each layer with its settings, the shape of its output and its number of parameters.

    The graph is that of the operations that ran on one sample, so skip connections and branches are where forward has them.
    What keeps the shape and has no kernel (norm, activation, dropout) is written into the box that it follows. Beside the text
    stands the output, as a stack of maps: its side is log₂ of their height and width, its depth log₂ of their number. Blue
    boxes have parameters. ``depth``: how many names of a path to show, as in :func:`cnnlib.viz.layers.layers_of`; 1 draws
    the model's own children.

    Each layer is a ``<g data-layer="path">``, each line a ``<path data-from="…" data-to="…">`` between the first layers of
    two boxes.

    Source: lecture: convolutional networks, the systems; He, Zhang, Ren & Sun, "Deep residual learning for image
    recognition", 2016, figure 3 (the form of the drawing).

    >>> from cnnlib import models
    >>> svg = architecture(models.LeNet5(), (1, 32, 32))
    >>> svg.count("data-layer"), "6×28×28" in svg
    (13, True)

    Raises ShapeError where the model refuses ``input_shape``, ValueRangeError for a depth below 1.
    """
    boxes = _boxes(layers_of(model, input_shape, depth, dtype))
    lanes = _place(boxes)
    sides = [b.x - b.width / 2 for b in boxes] + [b.x + b.width / 2 for b in boxes] + [lane.x for lane in lanes.values()]
    left, width = min(sides) - MARGIN, max(sides) - min(sides) + 2 * MARGIN
    height = max(b.y + b.height for b in boxes) + MARGIN
    lines = [_line(s, b, lanes[s, b].x) for b in boxes for s in b.sources]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{left:.0f} 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="12">'
        f"{''.join(lines)}{''.join(map(_draw, boxes))}</svg>"
    )


# ---- boxes: layers that keep the shape join the layer before them


@dataclasses.dataclass(eq=False)
class _Box:
    """Layers in a chain that share one output shape. x is the middle, y the top; pixels."""

    layers: list[Layer]
    sources: list[_Box] = dataclasses.field(default_factory=list)
    users: list[_Box] = dataclasses.field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layers[0].shape

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def width(self) -> float:
        lines = self.lines()
        return ICON + 3 * PAD + max(BOLD * len(lines[0]), BOLD * len(lines[-1]), CHARACTER * max(map(len, lines)))

    @property
    def height(self) -> float:
        return 2 * PAD + max(LINE * len(self.lines()) - 2, sum(_sizes(self.shape)[1:]))

    def lines(self) -> list[str]:
        """What is written: the name, what it is, what follows it in the box, the shape of the output, the parameters."""
        first, *rest = self.layers
        parent, _, _ = first.name.rpartition(".")
        if first.kind in SYMBOLS:
            names = [f"{parent} {SYMBOLS[first.kind]}".strip()]
        else:
            names = [first.name, *([_what(first)] if first.module else [])]
        names += [layer.name.removeprefix(f"{parent}.") + (f" {_what(layer)}" if layer.module else "") for layer in rest]
        count = f" · {self.parameters:,} parameters" if self.parameters else ""
        return [*names, ("→ " if self.sources else "") + ("×".join(map(str, self.shape)) or "1") + count]


def _what(layer: Layer) -> str:
    """``Conv2d(3, 8, 5×5)``: its kind and settings, shorter than its repr."""
    detail = re.sub(r"kernel_size=\((\d+), (\d+)\)", r"\1×\2", layer.detail).replace(", bias=False", "")
    return f"{layer.kind}({detail})" if detail else layer.kind


def _boxes(layers: list[Layer]) -> list[_Box]:
    users = collections.Counter(source for layer in layers for source in layer.sources)
    boxes: dict[Layer, _Box] = {}
    for layer in layers:
        before = layer.sources[0] if len(layer.sources) == 1 else None
        if before and before.sources and users[before] == 1 and before.shape == layer.shape and not layer.kernel:
            boxes[layer] = boxes[before]
            boxes[layer].layers.append(layer)
            continue
        boxes[layer] = box = _Box([layer])
        for source in dict.fromkeys(boxes[s] for s in layer.sources):
            box.sources.append(source)
            source.users.append(box)
    return list(dict.fromkeys(boxes.values()))


# ---- places: a split opens columns beside each other, which end where all paths meet again


@dataclasses.dataclass(eq=False)
class _Lane:
    """The x at which a line runs down."""

    x: float


@dataclasses.dataclass
class _Column:
    """What stands below each other around x = 0, with how far it reaches to both sides."""

    members: list[_Box | _Lane]
    left: float = 0.0
    right: float = 0.0

    def take(self, other: _Column, x: float) -> None:
        for member in other.members:
            member.x += x
        self.members += other.members
        self.left, self.right = max(self.left, other.left - x), max(self.right, other.right + x)


_Lanes = dict[tuple[_Box, _Box], _Lane]


def _place(boxes: list[_Box]) -> _Lanes:
    """Give every box its place, and return the lane of each line, by (source, target)."""
    meeting, placed, lanes = _meetings(boxes), set[_Box](), dict[tuple[_Box, _Box], _Lane]()
    whole = _Column([])
    for box in boxes:  # the first reaches all others, but what is computed from parameters alone
        if box not in placed:
            column = _column(box, None, meeting, placed, lanes)
            whole.take(column, 0.0 if box is boxes[0] else whole.right + LANE + column.left)
        box.y = max((s.y + s.height + GAP for s in box.sources), default=MARGIN)
    for source, target in ((s, b) for b in boxes for s in b.sources):
        if (source, target) not in lanes:
            sides = (source.x, target.x) if len(source.users) == 1 else (target.x, source.x)
            clear = [x for x in sides if not _in_the_way(x, source, target, boxes)]
            if not clear:
                whole.right += LANE
            lanes[source, target] = _Lane(clear[0] if clear else whole.right)
    return lanes


def _meetings(boxes: list[_Box]) -> dict[_Box, _Box | None]:
    """Where all paths that leave a box meet first; None when they never do."""
    number = {box: i for i, box in enumerate(boxes)}
    never = len(boxes)
    meeting = [never] * (never + 1)
    for i in reversed(range(never)):
        ends = {number[u] for u in boxes[i].users} or {never}
        while len(ends) > 1:  # the earliest cannot be it: go on to where its own paths meet
            ends = {meeting[e] if e == min(ends) else e for e in ends}
        meeting[i] = ends.pop()
    return {box: boxes[meeting[i]] if meeting[i] < never else None for i, box in enumerate(boxes)}


def _column(box: _Box | None, end: _Box | None, meeting: dict, placed: set, lanes: _Lanes) -> _Column:
    """The boxes from ``box`` on until ``end``, one below the other; between a split and its meeting, columns of their own."""
    column = _Column([])
    while box is not None and box is not end and box not in placed:
        placed.add(box)
        column.take(_Column([box], box.width / 2, box.width / 2), 0.0)
        if len(box.users) > 1:
            inner = _Column([])
            branches = [_column(user, meeting[box], meeting, placed, lanes) for user in box.users if user is not meeting[box]]
            branches = [b for b in branches if b.members]
            if len(branches) == 2:
                branches.sort(key=lambda b: -len(b.members))  # the longer one goes straight on, the short cut beside it
            for i, branch in enumerate(branches):
                inner.take(branch, inner.right + LANE + branch.left if i else 0.0)
            if meeting[box] in box.users:
                lanes[box, meeting[box]] = lane = _Lane(inner.right + LANE)
                inner.take(_Column([lane]), 0.0)
                inner.right += LANE
            column.take(inner, (inner.left - inner.right) / 2 if len(branches) > 2 else 0.0)
        box = meeting[box]
    return column


def _in_the_way(x: float, source: _Box, target: _Box, boxes: list[_Box]) -> bool:
    """Whether a line down at x meets a box."""
    top, bottom = source.y + source.height, target.y
    others = (b for b in boxes if b is not source and b is not target)
    return any(abs(b.x - x) < b.width / 2 + 4 and b.y < bottom and b.y + b.height > top for b in others)


# ---- drawing


def _line(source: _Box, target: _Box, x: float) -> str:
    """Down from the source into the lane at x, along it, and into the target."""
    y0, y1 = source.y + source.height, target.y
    ends = f'data-from="{html.escape(source.layers[0].name)}" data-to="{html.escape(target.layers[0].name)}"'
    a, b, bend = source.x, target.x, GAP / 2
    path = f"M{a:.0f} {y0:.0f}"
    if a != x or x != b:
        path += f"C{a:.0f} {y0 + bend:.0f} {x:.0f} {y0 + bend:.0f} {x:.0f} {min(y0 + GAP, y1 - 4):.0f}" if a != x else ""
        path += f"V{y1 - GAP:.0f}C{x:.0f} {y1 - bend:.0f} {b:.0f} {y1 - bend:.0f} {b:.0f} {y1 - 4:.0f}" if x != b else ""
    tip = f"M{b - 4:.0f} {y1 - 6:.0f}l4 6 4 -6z"
    return f'<path {ends} d="{path}V{y1 - 4:.0f}" fill="none" stroke="#888" stroke-width="1.5"/><path d="{tip}" fill="#888"/>'


def _draw(box: _Box) -> str:
    fill, frame = LEARNT if box.parameters else FIXED
    left, text = box.x - box.width / 2, box.x - box.width / 2 + ICON + PAD
    lines = box.lines()
    y = box.y + (box.height - LINE * len(lines)) / 2
    rows = [
        f'<text x="{text:.0f}" y="{y + LINE * (i + 0.75):.0f}"{_style(i, len(lines))}>{html.escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
    marks = [f'<g data-layer="{html.escape(layer.name)}">' for layer in box.layers]
    return (
        f"{''.join(marks)}"
        f'<rect x="{left:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="6" fill="{fill}" '
        f'stroke="{frame}"/>{_maps(box.shape, left + PAD + ICON / 2 - 4, box.y + box.height / 2, frame)}{"".join(rows)}'
        f"{'</g>' * len(marks)}"
    )


def _style(i: int, n: int) -> str:
    return ' font-weight="bold" fill="#111"' if i == 0 else ' fill="#111"' if i == n - 1 else ' fill="#555"'


def _sizes(shape: tuple[int, ...]) -> tuple[float, float, float]:
    """(width, height, depth) in pixels of the drawn output, logarithmic: (C, H, W), (H, W), or one column of H numbers."""
    C, H, W = (1, *shape)[-3:] if len(shape) > 1 else (1, math.prod(shape), 1)
    return 4 + 4.5 * math.log2(W), 4 + 4.5 * math.log2(H), 1.6 * math.log2(C)


def _maps(shape: tuple[int, ...], x: float, y: float, frame: str) -> str:
    """The output as a block around (x, y)."""
    w, h, d = _sizes(shape)
    left, top = x - (w + d) / 2, y - (h - d) / 2
    block = f"M{left:.1f} {top:.1f}l{d:.1f} {-d:.1f}h{w:.1f}v{h:.1f}l{-d:.1f} {d:.1f}h{-w:.1f}z"
    edges = f"M{left:.1f} {top:.1f}h{w:.1f}v{h:.1f}m0 {-h:.1f}l{d:.1f} {-d:.1f}"
    return f'<path d="{block}{edges}" fill="white" stroke="{frame}" stroke-width="1" stroke-linejoin="round"/>'
