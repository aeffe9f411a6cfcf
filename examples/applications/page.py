"""The figures of the applications as a part of docs/applications.md, made of the stored runs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from cnnlib.train.checkpoint import write_atomically
from examples.applications import app
from examples.labs import lab

PAGE = lab.ROOT / "docs" / "applications.md"
BEGIN = "<!-- figures: written by python -m examples.applications --table -->"
END = "<!-- end of figures -->"


def section(module: ModuleType) -> str:
    """What it is, then for the real and the tiny data the command and the figures of those runs that are finished."""
    name = lab.name_of(module)
    title, about = inspect.cleandoc(module.__doc__ or "").split("\n\n", 1)
    parts = [f"## {name}", title, about]
    for tiny, label in ((False, "Real data"), (True, "Tiny set")):
        plan = module.plan(tiny)
        runs = app.store_of(module, tiny, keep=True).select(plan)
        if runs:
            rows, reading = module.finding(runs)
            command = f"python -m examples.applications {name}{' --tiny' if tiny else ''}"
            computed = " and ".join(dict.fromkeys(run["computed"] for run in runs))
            parts += [
                f"**{label}.** `{command}`: {app.minutes(runs):.1f} minutes ({computed}). {reading}",
                lab.as_markdown(rows),
            ]
    return "\n\n".join(parts)


def write(modules: Sequence[ModuleType], page: Path = PAGE) -> None:
    """Put the sections between the two marks on the page."""
    before, rest = page.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    sections = "\n\n".join(section(module) for module in modules)
    write_atomically(page, f"{before}{BEGIN}\n\n{sections}\n\n{END}{after}".encode())
