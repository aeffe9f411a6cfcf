"""cnnlib learn grade, template, notebook: for instructors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnlib.cli.options import COUNT, PositiveNumber, examples

if TYPE_CHECKING:
    from cnnlib.learn.grade import Found, Grade


@click.command(
    epilog=examples(
        "cnnlib learn grade submissions --out grades.csv --format csv", "cnnlib learn grade submissions --seed 2026"
    )
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(["json", "csv"]), default="json", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write to FILE, in one move.")
@click.option(
    "--seed", default="", metavar="TEXT", help="Other cases for everybody; each student has cases of their own anyway."
)
@click.option("--seconds", type=PositiveNumber(), default=10.0, show_default=True, help="For each file.")
@click.option("--processes", type=COUNT, metavar="N", help="Files at a time.  [default: one per core]")
def grade(folder: Path, form: str, out: Path | None, seed: str, seconds: float, processes: int | None) -> int:
    """Grade the submissions in DIR: a folder per student, or files such as ada_08_softmax_cross_entropy.py.

    Every file runs in a process of its own, with limits, and gets a grade whatever it does. That is no security sandbox:
    docs/learn.md says how to grade in a container. Leaves with exit code 0 when everything was graded.
    """
    from cnnlib.learn.grade import as_csv, as_json, collect
    from cnnlib.learn.grade import grade as grade_all

    found = collect(folder)
    grades = list(_with_progress(grade_all(found.submissions, seed=seed, seconds=seconds, processes=processes or 0), found))
    text = as_csv(grades) if form == "csv" else as_json(grades, found.left_out, seed)
    try:
        _write(text, out)
    finally:
        _summary(grades, found)
    return int(any(g.trouble == "checker" for g in grades))


def _with_progress(grades, found: Found):
    """On a terminal with a bar, on standard error."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        return grades
    return track(grades, "grading", total=len(found.submissions), console=console, transient=True)


def _write(text: str, out: Path | None) -> None:
    """To ``out``; grades that cannot be written there are printed rather than lost."""
    from cnnlib.errors import DataError
    from cnnlib.files import write_atomically

    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_atomically(out, text.encode())
    except OSError as reason:
        sys.stdout.write(text)
        raise DataError(
            f"{out}: could not be written: {reason.strerror or reason}. The grades are printed instead."
        ) from reason


def _summary(grades: list[Grade], found: Found) -> None:
    students = len({g.student for g in grades})
    click.echo(f"{len(grades)} files of {students} students graded, {sum(g.passed for g in grades)} passed.", err=True)
    for g in grades:
        if g.trouble:
            click.echo(f"{g.file}: {g.trouble}: {g.sentence}", err=True)
    for file, reason in found.left_out:
        click.echo(f"{file}: left out: {reason}", err=True)


@click.command(epilog=examples("cnnlib learn template swish_backward", "cnnlib learn verify swish_backward.py"))
@click.argument("name", metavar="NAME")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where to write it.")
def template(name: str, folder: Path) -> None:
    """Write NAME.py, an exercise of your own to start from.

    It works as it is: `cnnlib learn verify NAME.py` accepts it. Learners get the exercises of a folder with
    `cnnlib learn --exercises FOLDER start`, or where CNNLIB_EXERCISES names the folder.
    """
    from cnnlib.learn.exercise import exercises
    from cnnlib.learn.template import NUMBER, write_template

    taken = [e.number for e in exercises()]
    path = write_template(name, folder, max(NUMBER, max(taken) + 1))
    click.echo(f"{path}: change it, then: cnnlib learn verify {path}")


@click.command(epilog=examples("cnnlib learn notebook", "cnnlib learn notebook notebooks"))
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path("cnnlib-notebooks"))
def notebook(folder: Path) -> None:
    """Write the exercises as Jupyter notebooks into DIR (default: cnnlib-notebooks).

    Notebooks that are there are never written over.
    """
    from cnnlib.learn.notebooks import write_notebooks

    written, kept = write_notebooks(folder)
    click.echo(f"{len(written)} notebooks written to {folder}." + (f" {len(kept)} were there before." if kept else ""))
