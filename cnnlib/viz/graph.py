"""The graph of a trace as a self-contained SVG: one box per operation, one line per array that flows."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 230, 46, 24, 34, 12


def graph_svg(entries: Sequence[Any]) -> str:
    """SVG text for the entries of a ``cl.trace()``."""
    place = _places(entries)
    columns = 1 + max((c for _, c in place.values()), default=0)
    rows = 1 + max((r for r, _ in place.values()), default=0)
    width = 2 * MARGIN + columns * (WIDTH + GAP_X)
    height = 2 * MARGIN + rows * (HEIGHT + GAP_Y)
    lines = [_edge(place[s], place[e.name]) for e in entries for s in e.sources.values() if s in place]
    boxes = [_box(e, *_corner(place[e.name])) for e in entries]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">{"".join(lines)}{"".join(boxes)}</svg>'
    )


def _places(entries: Sequence[Any]) -> dict[str, tuple[int, int]]:
    """(row, column) of each operation: the row below its latest source, the first free column there."""
    place: dict[str, tuple[int, int]] = {}
    used: dict[int, int] = {}
    for e in entries:
        row = max((place[s][0] + 1 for s in e.sources.values() if s in place), default=0)
        place[e.name] = (row, used.get(row, 0))
        used[row] = used.get(row, 0) + 1
    return place


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    row, column = place
    return MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)


def _edge(source: tuple[int, int], target: tuple[int, int]) -> str:
    (x0, y0), (x1, y1) = _corner(source), _corner(target)
    x0, y0, x1 = x0 + WIDTH // 2, y0 + HEIGHT, x1 + WIDTH // 2
    bend = (y0 + y1) // 2
    return f'<path d="M{x0} {y0} C{x0} {bend} {x1} {bend} {x1} {y1}" fill="none" stroke="#888"/>'


def _box(entry: Any, x: int, y: int) -> str:
    shapes = ", ".join("×".join(map(str, a.shape)) or "scalar" for a in entry.outputs)
    learnt = ", ".join(
        f"{n} {'×'.join(map(str, entry.inputs[n].shape))}" for n, s in entry.sources.items() if "." in s and n != "x"
    )
    title = html.escape(entry.name)
    detail = html.escape(f"→ {shapes}" + (f"   {learnt}" if learnt else ""))
    tip = html.escape(f"{entry.formula}  {entry.settings or ''}")
    return (
        f"<g><title>{tip}</title>"
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#eef3fb" stroke="#4a6fa5"/>'
        f'<text x="{x + 10}" y="{y + 19}" font-weight="bold">{title}</text>'
        f'<text x="{x + 10}" y="{y + 36}" fill="#444">{detail}</text></g>'
    )
