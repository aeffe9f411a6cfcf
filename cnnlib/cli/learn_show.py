"""What `cnnlib learn` prints."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from cnnlib.learn.exercise import Exercise, exercises, solution_text
from cnnlib.learn.progress import Record
from cnnlib.learn.training import trainable
from cnnlib.learn.workspace import Started, Workspace

MARKS = {"passed": ("✓", "green"), "begun": ("◐", "yellow"), "new": ("·", "dim")}


def console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def command(name: str, exercise: Exercise | None = None, option: str = "") -> str:
    """``cnnlib learn hint 8``, in colour."""
    words = ["cnnlib learn", name, *([str(exercise.number)] if exercise else []), *([option] if option else [])]
    return f"[cyan]{' '.join(words)}[/]"


def name_of(exercise: Exercise) -> str:
    return f"[bold]{exercise.number} · {escape(exercise.title)}[/]"


# ---- start, list


def started(workspace: Workspace, done: Started) -> None:
    out, folder = console(), place(workspace)
    if not done.written:
        out.print(f"All {len(done.kept)} exercises are in {escape(folder)} already; nothing was changed.")
        return listing(workspace)
    if done.kept:
        out.print(f"[green]✓[/] {len(done.written)} new in {escape(folder)}: {escape(', '.join(done.written))}")
        out.print(f"  {len(done.kept)} files were there before and are as they were.")
    else:
        out.print(f"[green]✓[/] {len(done.written)} exercises in [bold]{escape(folder)}[/]")
    exercise = workspace.current(workspace.progress.read())
    if exercise is None:
        return solved(workspace)
    steps = Table.grid(padding=(0, 2))
    for number, (what, how) in enumerate(
        (
            ("go there", f"[cyan]cd {escape(quoted(workspace.folder))}[/]"),
            (
                "open in your editor",
                f"[cyan]{escape(workspace.path(exercise).name)}[/]: read the story, replace the [bold]...[/]",
            ),
            ("let it be checked", f"{command('check')}, or {command('watch')} to have it checked whenever you save"),
            ("if you are stuck", command("hint", exercise)),
        ),
        start=1,
    ):
        steps.add_row(f"{number}", what, how)
    out.print(Padding(steps, (1, 2)))
    out.print(announcement("Exercise", exercise))
    return None


def announcement(what: str, exercise: Exercise) -> Panel:
    """An exercise as an invitation: its title and how its story begins."""
    beginning = re.sub("[,:]$", " …", " ".join(exercise.story.split("\n\n")[0].split()))
    text = f"{name_of(exercise)}\n{escape(beginning)}"  # the title may be longer than a frame's first line
    return Panel(text, title=what, title_align="left", border_style="cyan", padding=(0, 2))


def listing(workspace: Workspace) -> None:
    records, out = workspace.progress.read(), console()
    following = workspace.current(records)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading, justify in (("", "left"), ("", "right"), ("exercise", "left"), ("", "left"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for exercise in exercises():
        record = records.get(exercise.name, Record())
        state = "passed" if record.passed else "begun" if workspace.touched(exercise) else "new"
        mark, style = MARKS[state]
        arrow = "[cyan]← next[/]" if exercise is following else ""
        table.add_row(
            f"[{style}]{mark}[/]", str(exercise.number), escape(exercise.title), f"[dim]{_story_of(record)}[/]", arrow
        )
    out.print(table)
    out.print()
    out.print(standing(records))
    if following:
        out.print(f"next: [bold]{escape(shown(workspace.path(following)))}[/], then {command('check', following)}")


def _story_of(record: Record) -> str:
    """``3 checks, 1 hint``"""
    parts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((record.attempts, "check"), (record.hints, "hint"))
        if count
    ]
    return ", ".join([*parts, *(["solution seen first"] if record.gave_up else [])])


def standing(records: dict[str, Record]) -> str:
    """A bar and how many are solved."""
    total = len(exercises())
    done = sum(bool(records.get(e.name, Record()).passed) for e in exercises())
    filled = round(30 * done / max(total, 1))
    return f"[green]{'━' * filled}[/][dim]{'━' * (30 - filled)}[/] {done} of {total} solved"


def solved(workspace: Workspace) -> None:
    out, records = console(), workspace.progress.read()
    out.print(standing(records))
    if workspace.current(records) is None:
        out.print("[bold green]All exercises are solved.[/] What the library does, you can do by hand.")


# ---- check


def judged(exercise: Exercise, content: bytes, path: Path, seed: str = "") -> Any:
    """The verdict; on a terminal with a sign of life meanwhile."""
    from cnnlib.learn.checker import check_source

    out = console()
    waiting = out.status(f"checking {path.name} …") if out.is_terminal else contextlib.nullcontext()
    with waiting:
        return check_source(exercise, content, filename=path.name, seed=seed)


def untouched(workspace: Workspace, exercise: Exercise, there: bool) -> None:
    out, path = console(), shown(workspace.path(exercise))
    if not there:
        out.print(f"[yellow]There is no file {escape(path)}.[/] {command('reset', exercise)} brings the exercise back.")
        return
    out.print(announcement("Exercise", exercise))
    out.print(f"Nothing is written yet: open [bold]{escape(path)}[/], replace the [bold]...[/], save, and check again.")


def verdict(verdict: Any, content: bytes) -> None:
    """The verdict, and the line of the learner's file that it is about."""
    out = console()
    out.print(verdict)
    if verdict.line is None:
        return
    lines = content.decode("utf-8", errors="replace").splitlines()
    for number in range(max(verdict.line - 1, 1), min(verdict.line + 1, len(lines)) + 1):
        arrow, style = ("→", "bold") if number == verdict.line else (" ", "dim")
        out.print(Text(f"  {arrow} {number:4} │ {lines[number - 1]}", style), no_wrap=True, overflow="ellipsis")


def verdict_line(exercise: Exercise, verdict: Any) -> None:
    mark = "[green]✓[/]" if verdict.passed else "[red]✗[/]"
    console().print(
        f"{mark} {exercise.number:2} {escape(exercise.name)}" + ("" if verdict.passed else f": {escape(verdict.sentence)}")
    )


def what_next(workspace: Workspace, exercise: Exercise, record: Record, passed: bool) -> None:
    out = console()
    if not passed:
        left = len(exercise.hints) - record.hints
        if left > 0:
            out.print(f"Stuck? {command('hint', exercise)} ({left} of {len(exercise.hints)} hints left)")
        else:
            give_up = command("solution", exercise, "--give-up")
            out.print(f"All hints are used: {command('hint', exercise)} shows them again, {give_up} the code.")
        return
    out.print(Padding(f"[bold]To think about:[/] {escape(exercise.question)}", (1, 2, 0, 2)))
    out.print(f"  [dim]The answer, and how the library does it:[/] {command('solution', exercise)}")
    for able, words, what in (
        (exercise in trainable(), "train", "Let a real network learn with your code"),
        (exercise.fast, "fast", "Make it fast, against every backend"),
    ):
        if able:
            out.print(f"  [dim]{what}:[/] {command(words, exercise)}")
    out.print()
    records = workspace.progress.read()
    out.print(standing(records))
    if following := workspace.after(exercise, records):
        out.print(announcement("Next", following))
        out.print(f"[dim]in[/] {escape(shown(workspace.path(following)))}")
    else:
        solved(workspace)


# ---- watch


def watching(workspace: Workspace) -> None:
    console().print(f"Watching {escape(place(workspace))}: save a file and it is checked. Ctrl-C ends.", style="dim")


def saved(workspace: Workspace, exercise: Exercise) -> None:
    console().print(Rule(escape(workspace.path(exercise).name), style="dim"))


def watched(workspace: Workspace) -> None:
    out = console()
    out.print()
    out.print(standing(workspace.progress.read()))


# ---- verify


def verifying(reports: Iterable[Any], count: int) -> Iterator[Any]:
    """The reports, with a bar while they are made."""
    out = console()
    if not out.is_terminal:
        yield from reports
        return
    with Progress(TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), console=out, transient=True) as bar:
        task = bar.add_task("verifying", total=count)
        for report in reports:
            bar.update(task, advance=1, description=report.name)
            yield report


# ---- hint, solution, reset


def hints(exercise: Exercise, shown_so_far: int) -> None:
    out = console()
    out.print(name_of(exercise))
    for level, hint in enumerate(exercise.hints[:shown_so_far], start=1):
        style = "" if level == shown_so_far else "dim"
        out.print(Padding(Text(f"{level}. {hint}", style=style), (0, 2)))
    left = len(exercise.hints) - shown_so_far
    more = (
        f"{left} more: {command('hint', exercise)}"
        if left
        else f"That was the last one. {command('solution', exercise, '--give-up')} shows the code."
    )
    out.print(f"[dim]{more}[/]")


def not_yet(exercise: Exercise) -> None:
    console().print(
        f"{name_of(exercise)} is not passed yet. {command('hint', exercise)} helps; "
        f"{command('solution', exercise, '--give-up')} shows the code all the same."
    )


def solution(exercise: Exercise, passed: bool) -> None:
    out = console()
    text = solution_text(exercise)
    out.print(f"{name_of(exercise)}, as the library does it ([dim]{escape(exercise.link)}[/])\n")
    if out.is_terminal:
        out.print(Syntax(text, "python", background_color="default"))
    else:
        print(text)
    out.print(f"[bold]Question:[/] {escape(exercise.question)}")
    out.print(f"[bold]Answer:[/] {escape(exercise.answer)}")
    if not passed:
        out.print(f"\nNow close it, and write it yourself: {command('check', exercise)}")


def reset(path: Path, kept: Path | None) -> None:
    """``kept``: where the learner's file is now, or None where there was nothing of theirs."""
    kept_as = f"; your file is kept as [bold]{escape(kept.name)}[/]" if kept else ""
    console().print(f"{escape(shown(path))} is as it was in the beginning{kept_as}.")


# ---- paths


def shown(path: Path) -> str:
    """As seen from here, where that is shorter."""
    with contextlib.suppress(ValueError):  # another drive
        relative = os.path.relpath(path)
        if not relative.startswith(".."):
            return relative
    return str(path)


def place(workspace: Workspace) -> str:
    folder = shown(workspace.folder)
    return "this folder" if folder == "." else folder


def quoted(folder: Path) -> str:
    return shlex.quote(shown(folder))
