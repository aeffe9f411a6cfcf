"""The figures of JSON files as Markdown: printed, or with --page written between two marks of a page.

python -m benchmarks.table benchmarks/results/FILE.json [MORE.json ...] [--page docs/performance.md]

The first file with all its rows; of the others what they come to: the limits, the means, the rows below the floor.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks import report
from cnnlib.cli.pipe import reader_may_leave

BEGIN, END = "<!-- figures: begin (python -m benchmarks.table) -->", "<!-- figures: end -->"
AGAINST = {"torch": "PyTorch as users run it", "torch tuned": "with tuned malloc", "best": "its fastest way"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--page", type=Path, help="replaces the figures there by these")
    options = parser.parse_args()
    found = []
    for file in options.files:
        figures = json.loads(file.read_text("utf-8"))
        source = os.path.relpath(file.resolve(), options.page.resolve().parent) if options.page else str(file)
        found.append(summary(figures, source) if found else page(figures, source))
    tables = "\n".join(found)
    if not options.page:
        print(tables)
        return
    before, rest = options.page.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    options.page.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", "utf-8")


def page(figures: dict, source: str) -> str:
    threads = report.all_threads(figures)
    return "\n".join(filter(None, [summary(figures, source), memory(figures, threads), rows(figures, threads)]))


def summary(figures: dict, source: str) -> str:
    threads = report.all_threads(figures)
    parts = [heading(figures, source), limits(figures), means(figures, threads), below(figures, threads)]
    return "\n".join(filter(None, parts))


def heading(figures: dict, source: str) -> str:
    machine, versions = figures["machine"], figures["versions"]
    what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{figures['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['system']}, {machine['libc']}; {what}. "
        f"All figures: [{Path(source).name}]({source}).\n"
    )


def markdown(columns: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["--:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *lines)) + "\n"


def number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)


def plural(threads: str) -> str:
    return f"{threads} thread{'s' * (threads != '1')}"


def limits(figures: dict) -> str:
    known = {t: limit for t, limit in figures["limits"].items() if isinstance(limit, dict)}
    if not known:
        return ""
    sizes = next(iter(known.values()))["bandwidth"]
    columns = ["the machine's limits", "float32 GFLOP/s", "float64 GFLOP/s", *(f"GB/s, {int(n) >> 10:,} KiB" for n in sizes)]
    lines = [
        [plural(t), number(limit["float32"], ".0f"), number(limit["float64"], ".0f")]
        + [number(rate, ".0f") for rate in limit["bandwidth"].values()]
        for t, limit in known.items()
    ]
    return markdown(columns, lines)


def means(figures: dict, threads: list[str]) -> str:
    lines = []
    for name, part in (("primitives", report.primitives(figures)), ("training steps", report.steps(figures))):
        for t in threads:
            found = [report.geometric_mean(part, t, other) for other in AGAINST]
            lines.append([f"{name} ({len(part)} rows), {plural(t)}", *map(number, found)])
    return markdown(["geometric mean of the ratios", *AGAINST.values()], lines)


def below(figures: dict, threads: list[str]) -> str:
    text = []
    for t in threads:
        found = report.below_floor(figures["rows"], t)
        names = "; ".join(f"{name} {r:.2f}" for name, r in found)
        text.append(f"Below {report.FLOOR} against PyTorch's fastest way, {plural(t)}: {names or 'no row'}.\n")
        if found := report.disturbed(figures, t):
            text.append(f"Measured while the machine had other work, {plural(t)}: {'; '.join(found)}.\n")
    return "\n".join(text)


def memory(figures: dict, threads: list[str]) -> str:
    lines = []
    for row in report.steps(figures):
        for t in threads:
            needed = row.get("memory", {}).get(t, {})
            found = [number(n / 1e6, ".0f") if (n := needed.get(kind)) else "–" for kind in ("cnnlib", "torch")]
            lines.append([f"{row['name']}, {plural(t)}", *found])
    return markdown(["peak memory of a training step above that after import, MB", "cnnlib", "PyTorch"], lines) if lines else ""


def rows(figures: dict, threads: list[str]) -> str:
    text = []
    for family, members in report.by_family(figures["rows"]).items():
        columns = [family]
        for t in threads:
            columns += [f"ms, {plural(t)}", "of the limit", "tuned", "fastest"]
        lines = [
            [row["name"], *(cell for t in threads for cell in cells(figures, row, t)), f"{row['target']:g}"] for row in members
        ]
        text.append(markdown([*columns, "target"], lines))
    return "\n".join(text)


def goal(row: dict) -> str:
    return f"{row['target']:g}"


def cells(figures: dict, row: dict, threads: str) -> list[str]:
    ours = row["seconds"].get(threads, {}).get(report.OURS)
    bound = report.bound(row, threads, figures["limits"])
    limit = f"{bound.part:.0%} ({bound.rate:.0f} {bound.unit})" if bound else "–"
    ratios = [number(report.ratio(row, threads, other)) for other in ("torch tuned", "best")]
    return [number(ours * 1e3, ".3g") if ours else "–", limit, *ratios]


if __name__ == "__main__":
    with reader_may_leave():
        main()
