"""The findings as a part of docs/labs.md, made of the stored runs and of what each lab says of itself."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from examples.labs import lab

PAGE = lab.ROOT / "docs" / "labs.md"
BEGIN = "<!-- findings: written by python -m examples.labs --table -->"
END = "<!-- end of findings -->"


def findings(labs: Sequence[ModuleType]) -> str:
    """Markdown: a table of claims and readings, then a section for each lab. Labs with runs missing are named at the end."""
    rows, sections, waiting = [], [], []
    for module in labs:
        plan = module.plan(quick=False)
        runs = lab.store_of(module).select(plan)
        if runs and len(runs) == len(plan):
            figures, reading = module.finding(runs)
            name = lab.name_of(module)
            rows.append({"lab": f"[{name}](#{name})", "claim": module.CLAIM, "reading": reading})
            sections.append(section(module, runs, figures))
        else:
            waiting.append(f"`{lab.name_of(module)}`")
    missing = [f"Not measured yet: {', '.join(waiting)}."] if waiting else []
    return "\n\n".join([*([lab.as_markdown(rows)] if rows else []), *missing, *sections])


def section(module: ModuleType, runs: lab.Runs, figures: list[dict[str, str]]) -> str:
    """What was done, the command, the figures, the picture."""
    name = lab.name_of(module)
    title, about = inspect.cleandoc(module.__doc__ or "").split("\n\n", 1)
    minutes = sum(run["seconds"] for run in runs) / 60
    spread = getattr(module, "SPREAD", "mean, smallest and largest")
    seeds = f", {runs.seeds}: {spread}" if "seed" in runs[0]["settings"] else ""
    computed = " and ".join(dict.fromkeys(run["computed"] for run in runs))
    parts = [
        f"### {name}",
        title,
        about,
        f"**Command.** `python -m examples.labs {name}`: {len(runs)} runs{seeds}; {minutes:.1f} minutes ({computed}).",
        lab.as_markdown(figures),
    ]
    if (lab.FIGURES / f"{name}.svg").exists():
        parts.append(f"![{title}](labs/{name}.svg)")
    if hasattr(module, "appendix"):
        parts.append(module.appendix(runs))
    return "\n\n".join(parts)


def write(labs: Sequence[ModuleType], page: Path = PAGE) -> None:
    """Put the findings between the two marks on the page."""
    before, rest = page.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    temporary = page.with_suffix(".tmp")
    temporary.write_text(f"{before}{BEGIN}\n\n{findings(labs)}\n\n{END}{after}", "utf-8")
    os.replace(temporary, page)
