"""The figures of one JSON file as one picture: PyTorch's time divided by ours, a line per row.

python -m benchmarks.chart benchmarks/results/FILE.json     # writes docs/performance.svg
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

from benchmarks import report
from cnnlib.cli.pipe import reader_may_leave

TARGET = Path(__file__).parent.parent / "docs" / "performance.svg"
WIDTH, LINE, HEAD = 9.0, 0.145, 1.15  # inches: the picture's width, the height of a row, of title and legend
LEFT, RIGHT = 0.37, 0.98  # of the width: where the axis lies
SERIES = (("#1b4f8c", "#1b4f8c"), ("white", "#c2571a"))  # fill and edge of the dots: first and second number of threads
NO_METADATA = ("Creator", "Date", "Format", "Type")
INK, GREY, GOAL = "#222222", "#b5b5b5", "#2b8a4b"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    draw(json.loads(options.file.read_text()), options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


def draw(figures: dict, out: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "cnnlib", "font.family": "DejaVu Sans", "font.size": 7.5}
    with matplotlib.rc_context(settings):
        threads = report.all_threads(figures)[:2]
        rows = [row for row in figures["rows"] if any(report.ratio(row, t, "best") for t in threads)]
        lines = list(numbered(rows))
        height = LINE * (lines[-1][0] + 1.5) + HEAD + 0.3
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((LEFT, 0.3 / height, RIGHT - LEFT, 1 - (HEAD + 0.3) / height))
        frame(axes, rows, threads, lines[-1][0] + 1.5)
        label(axes, lines)
        plot(axes, lines, threads)
        title(figure, axes, figures, height)
        figure.savefig(out, metadata=dict.fromkeys(NO_METADATA) if out.suffix == ".svg" else None, dpi=110)
    if out.suffix == ".svg":
        out.write_text(shorter(out.read_text("utf-8")), "utf-8")


def numbered(rows: list[dict]):
    """(line, row) from the top; a family starts with a line for its name, (line, name)."""
    line = 0.0
    for family, members in report.by_family(rows).items():
        yield line, family
        for row in members:
            line += 1
            yield line, row
        line += 1.6


def frame(axes: Any, rows: list[dict], threads: list[str], bottom: float) -> None:
    found = [r for row in rows for t in threads for other in (plain(row, t), "best") if (r := report.ratio(row, t, other))]
    low = math.floor(math.log2(min(*found, 0.9)))
    high = math.ceil(math.log2(max(*found, *(row["target"] for row in rows))))
    axes.set(xscale="log", xlim=(2.0**low, 2.0**high * 1.05), ylim=(bottom, -1))
    ticks = [2.0**i for i in range(low, high + 1)]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks([])
    axes.tick_params(axis="x", top=True, labeltop=True, length=0)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.axvspan(2.0**low, 1, color="#fbeeee", zorder=0)
    axes.axvline(1, color=INK, linewidth=0.9)
    axes.spines[:].set_visible(False)


def label(axes: Any, lines: list) -> None:
    place = axes.get_yaxis_transform()  # x in parts of the axis, y in lines
    for line, row in lines:
        if isinstance(row, str):
            axes.text(-0.575, line, row, transform=place, va="center", weight="bold", color=INK)
        else:
            axes.text(-0.01, line, row["name"], transform=place, va="center", ha="right", color=INK, size=6.8)


def plain(row: dict, threads: str) -> str:
    return "torch tuned" if report.ratio(row, threads, "torch tuned") else "torch"


def plot(axes: Any, lines: list, threads: list[str]) -> None:
    """Dots one by one; all lines of a kind as one path with gaps, which keeps the file small."""
    rows = [(line, row) for line, row in lines if isinstance(row, dict)]
    gap = math.nan
    low, high = axes.get_xlim()
    axes.plot(*zip(*((x, line) for line, _ in rows for x in (low, high, gap))), color="#eeeeee", linewidth=0.6, zorder=0.5)
    targets = [(row["target"], line + side) for line, row in rows for side in (-0.42, 0.42, gap)]
    axes.plot(*zip(*targets), color=GOAL, linewidth=2.0, zorder=2)
    for t, (fill, edge), side in zip(threads, SERIES, (-0.14, 0.14)):
        found = [(line + side, report.ratio(row, t, plain(row, t)), report.ratio(row, t, "best")) for line, row in rows]
        found = [(line, usual, best) for line, usual, best in found if usual]
        spans = [(x, line) for line, usual, best in found for x in (best, usual, gap)]
        ends = [(best, line + d) for line, _, best in found for d in (-0.25, 0.25, gap)]
        axes.plot(*zip(*spans), color=GREY, linewidth=0.8, zorder=1)
        axes.plot(*zip(*ends), color=edge, linewidth=1.0, zorder=3)
        dots = {"markersize": 3.6, "markerfacecolor": fill, "markeredgecolor": edge, "markeredgewidth": 0.8}
        axes.plot([usual for _, usual, _ in found], [line for line, *_ in found], "o", zorder=4, **dots)


def title(figure: Any, axes: Any, figures: dict, height: float) -> None:
    from matplotlib.lines import Line2D

    machine, versions = figures["machine"], figures["versions"]
    figure.text(
        0.02, 1 - 0.22 / height, "PyTorch's time divided by cnnlib's (right of 1: cnnlib is faster)", size=11, weight="bold"
    )
    known = f"{machine['cpu']}, {versions.get('instruction set', '')}; PyTorch {versions.get('torch', '–')}; {figures['date']}"
    figure.text(0.02, 1 - 0.42 / height, known, color="#555555")
    marks = []
    for t, (fill, edge) in zip(report.all_threads(figures), SERIES):
        name = f"{t} thread{'s' * (t != '1')}"
        dot = {"marker": "o", "markersize": 4.5, "markerfacecolor": fill, "markeredgecolor": edge, "linewidth": 0}
        marks.append(Line2D([], [], **dot, label=f"{name}: PyTorch in NCHW, tuned malloc"))
        bar = {"marker": "|", "markersize": 7, "markeredgecolor": edge, "markeredgewidth": 1.2, "color": GREY, "linewidth": 0.8}
        marks.append(Line2D([], [], **bar, label=f"{name}: PyTorch's fastest way"))
    marks.append(Line2D([], [], marker="|", markersize=7, markeredgecolor=GOAL, markeredgewidth=2, linewidth=0, label="target"))
    where = {"loc": "upper left", "bbox_to_anchor": (0.015, 1 - 0.46 / height), "ncols": 3}
    figure.legend(handles=marks, frameon=False, handletextpad=0.4, columnspacing=1.5, **where)


def shorter(svg: str) -> str:
    """The font named once, no rotations by nothing, coordinates to a tenth of a pixel: a third of the file."""
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg).replace(" font-family: 'DejaVu Sans';", "")
    svg = svg.replace("<svg ", '<svg font-family="DejaVu Sans, Verdana, sans-serif" ', 1)
    coordinate = r'(?<=["ML ])\d+\.\d{2,}(?=["\s])'  # not the numbers in texts
    return re.sub(coordinate, lambda number: f"{float(number[0]):.1f}", svg)


if __name__ == "__main__":
    with reader_may_leave():
        main()
