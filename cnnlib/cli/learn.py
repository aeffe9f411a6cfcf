"""cnnlib learn: a group of small commands around a workspace; what they print is made in cnnlib/cli/learn_show.py.

Exit codes: 0 passed (or done), 1 not passed, 2 wrong usage, such as an unknown exercise or no workspace.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnlib.cli import learn_teaching
from cnnlib.cli.options import Group, examples

if TYPE_CHECKING:
    from cnnlib.learn.exercise import Exercise
    from cnnlib.learn.workspace import Workspace

PICTURES = (".png", ".svg", ".pdf")
POLLED = 0.25  # seconds between two looks at the files


class ExerciseName(click.ParamType):
    """A number, a name, or the file of an exercise."""

    name = "exercise"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Exercise:
        from cnnlib.errors import UnknownNameError
        from cnnlib.learn.exercise import find

        try:
            return find(value)
        except UnknownNameError as error:
            if str(value).endswith(".py") and Path(value).is_file():
                return _own_exercise(Path(value), error, self, param, ctx)
            self.fail(f"{error}. `cnnlib learn list` shows them all.", param, ctx)


def _own_exercise(path: Path, unknown: Exception, kind: click.ParamType, *where: Any) -> Exercise:
    """The exercise that somebody has written into ``path``."""
    from cnnlib.learn.exercise import add_own, find

    if "EXERCISE" not in path.read_text(encoding="utf-8", errors="replace"):
        kind.fail(f"{unknown}. `cnnlib learn list` shows them all.", *where)
    add_own(path)
    return find(path.stem)


def in_workspace(function: Callable) -> Callable:
    """The option --dir, as the argument ``workspace``."""

    def opened(ctx: click.Context, param: click.Parameter, folder: Path | None) -> Workspace:
        from cnnlib.errors import DataError
        from cnnlib.learn.workspace import Workspace

        try:
            return Workspace.find(folder or Path())
        except DataError as error:
            raise click.UsageError(str(error), ctx) from error

    return click.option(
        "--dir", "workspace", type=click.Path(path_type=Path), metavar="DIR", callback=opened,
        help="The workspace.  [default: this folder, one above it, or cnnlib-learn in it]",
    )(function)  # fmt: skip


@click.group(
    cls=Group, epilog=examples(
        "cnnlib learn start", "cd cnnlib-learn", "cnnlib learn check", "cnnlib learn watch", "cnnlib learn hint 8",
    )
)  # fmt: skip
@click.option(
    "--exercises", "folder", type=click.Path(exists=True, path_type=Path), metavar="DIR",
    help="Your own exercises as well (`cnnlib learn template`).  [default: those in $CNNLIB_EXERCISES]",
)  # fmt: skip
def command(folder: Path | None) -> None:
    """Write backpropagation yourself: exercises with a checker that says what is wrong.

    Leaves with exit code 0 when an exercise is passed, 1 when it is not.
    """
    if folder:
        from cnnlib.learn.exercise import add_own

        add_own(folder)


@command.command(epilog=examples("cnnlib learn start", "cnnlib learn start my-exercises"))
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
def start(folder: Path | None) -> None:
    """Make a workspace in DIR, or add to it the exercises that it lacks.

    Without DIR: in the workspace that this folder is, else in a folder cnnlib-learn. Files that are there are never written
    over.
    """
    from cnnlib.cli import learn_show
    from cnnlib.learn.workspace import Workspace

    workspace = Workspace(folder) if folder else Workspace.here_or_new(Path())
    learn_show.started(workspace, workspace.start())


@command.command("list")
@in_workspace
def list_(workspace: Workspace) -> None:
    """Show all exercises, what you have solved, and which one is next."""
    from cnnlib.cli import learn_show

    learn_show.listing(workspace)


@command.command(
    epilog=examples("cnnlib learn check", "cnnlib learn check 8", "cnnlib learn check 08_softmax_cross_entropy.py")
)
@click.argument("exercise", metavar="[NAME]", type=ExerciseName(), required=False)
@click.option("--all", "everything", is_flag=True, help="Check every exercise that you have begun, a line each.")
@click.option("--seed", default="", metavar="TEXT", help="Other cases: those of a grade's seed.")
@in_workspace
def check(exercise: Exercise | None, everything: bool, seed: str, workspace: Workspace) -> int:
    """Run an exercise (number, name or file) and say whether it is right, and if not, what is wrong.

    Without NAME: the unsolved one that you edited last, else the next one.
    """
    from cnnlib.cli import learn_show

    if everything:
        return _check_all(workspace, seed)
    exercise = exercise or workspace.current(workspace.progress.read())
    if exercise is None:
        learn_show.solved(workspace)
        return 0
    return int(not _check(workspace, exercise, seed=seed))


@command.command()
@in_workspace
def watch(workspace: Workspace) -> None:
    """Check an exercise whenever you save it. Ctrl-C ends."""
    from cnnlib.cli import learn_show

    learn_show.watching(workspace)
    with contextlib.suppress(KeyboardInterrupt):
        if exercise := workspace.current(workspace.progress.read()):
            _check(workspace, exercise)
        for saved in workspace.saves(lambda: time.sleep(POLLED)):
            learn_show.saved(workspace, saved)
            _check(workspace, saved)
    learn_show.watched(workspace)


@command.command()
@click.argument("exercise", metavar="[NAME]", type=ExerciseName(), required=False)
@in_workspace
def hint(exercise: Exercise | None, workspace: Workspace) -> None:
    """Show a hint; the next call shows the next one, and the third is almost the line.

    Without NAME: for the unsolved exercise that you edited last, else the next one.
    """
    from cnnlib.cli import learn_show
    from cnnlib.learn.progress import Record

    exercise = exercise or workspace.current(workspace.progress.read())
    if exercise is None:
        learn_show.solved(workspace)
        return
    level = min(workspace.progress.read().get(exercise.name, Record()).hints + 1, len(exercise.hints))
    learn_show.hints(exercise, level)
    with workspace.progress.change(exercise.name) as record:
        record.hints = max(record.hints, level)


@command.command()
@click.argument("exercise", metavar="NAME", type=ExerciseName())
@click.option("--give-up", is_flag=True, help="Show it although you have not passed.")
@in_workspace
def solution(exercise: Exercise, give_up: bool, workspace: Workspace) -> int:
    """Show the library's own code for an exercise, after you have passed it."""
    from cnnlib.cli import learn_show
    from cnnlib.learn.progress import Record

    passed = workspace.progress.read().get(exercise.name, Record()).passed
    if not (passed or give_up):
        learn_show.not_yet(exercise)
        return 1
    learn_show.solution(exercise, bool(passed))
    if not passed:
        with workspace.progress.change(exercise.name) as record:
            record.gave_up = True
    return 0


@command.command()
@click.argument("exercise", metavar="NAME", type=ExerciseName())
@in_workspace
def reset(exercise: Exercise, workspace: Workspace) -> None:
    """Begin an exercise anew; your file is kept beside it."""
    from cnnlib.cli import learn_show

    learn_show.reset(workspace.path(exercise), workspace.reset(exercise))


@command.command("train", epilog=examples("cnnlib learn train 14", "cnnlib learn train 14 --out curve.png"))
@click.argument("exercise", metavar="NAME", type=ExerciseName())
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw the curves into FILE as well."
)
@in_workspace
def train_(exercise: Exercise, out: Path | None, workspace: Workspace) -> int:
    """Train a real network with your function in place of ours, once it is right."""
    from cnnlib.cli import learn_training
    from cnnlib.learn.training import train, trainable

    _one_of(exercise, trainable(), "has nothing to train")
    if out:
        _check_picture(out)
    if not _check(workspace, exercise, quiet_when_passed=True):
        return 1
    learn_training.training(exercise, train(exercise, workspace.path(exercise)), out)
    return 0


@command.command("fast")
@click.argument("exercise", metavar="NAME", type=ExerciseName())
@in_workspace
def fast_(exercise: Exercise, workspace: Workspace) -> int:
    """Time your function beside the textbook and every backend, once it is right; and what to try next."""
    from cnnlib.cli import learn_training
    from cnnlib.learn.exercise import exercises
    from cnnlib.learn.fast import fast

    _one_of(exercise, [e for e in exercises() if e.fast], "is not timed")
    if not _check(workspace, exercise, quiet_when_passed=True):
        return 1
    learn_training.timings(exercise, fast(exercise, workspace.path(exercise)))
    return 0


@command.command(epilog=examples("cnnlib learn verify --quick", "cnnlib learn verify conv2d_backward"))
@click.argument("chosen", metavar="[NAME]...", type=ExerciseName(), nargs=-1)
@click.option("--quick", is_flag=True, help="Two seeds, and a sample of the generated mistakes.")
def verify(chosen: tuple[Exercise, ...], quick: bool) -> int:
    """Are the exercises and their checker right? For those who maintain them.

    Stubs must fail, solutions must pass in several styles, and every planted mistake must be found and named.
    """
    from cnnlib.cli import learn_show
    from cnnlib.learn.exercise import exercises
    from cnnlib.learn.verify import failures, print_reports, verify_all

    names = [e.name for e in chosen or exercises()]
    reports = list(learn_show.verifying(verify_all(names, quick), len(names)))
    print_reports(reports)
    for line in (why := failures(reports)):
        click.echo(f"cnnlib: {line}", err=True)
    return int(bool(why))


for teaching in (learn_teaching.grade, learn_teaching.template, learn_teaching.notebook):
    command.add_command(teaching)


# ---- shared


def _check(workspace: Workspace, exercise: Exercise, quiet_when_passed: bool = False, seed: str = "") -> bool:
    """Check the learner's file, show what came out, note it; whether it passed."""
    from cnnlib.cli import learn_show
    from cnnlib.errors import DataError
    from cnnlib.learn.workspace import sha256

    if (content := workspace.content(exercise)) is None or not workspace.touched(exercise):
        learn_show.untouched(workspace, exercise, there=content is not None)
        return False
    verdict = learn_show.judged(exercise, content, workspace.path(exercise), seed)
    if not (verdict.passed and quiet_when_passed):
        learn_show.verdict(verdict, content)
    try:
        with workspace.progress.change(exercise.name) as record:
            record.checked(verdict.passed, sha256(content))
    except DataError as error:  # the verdict stands all the same
        click.echo(f"cnnlib: {error}", err=True)
        return verdict.passed
    if not quiet_when_passed:
        learn_show.what_next(workspace, exercise, record, verdict.passed)
    return verdict.passed


def _check_all(workspace: Workspace, seed: str = "") -> int:
    from cnnlib.cli import learn_show
    from cnnlib.errors import DataError
    from cnnlib.learn.exercise import exercises
    from cnnlib.learn.workspace import sha256

    failed = 0
    for exercise in filter(workspace.touched, exercises()):
        try:
            content = workspace.content(exercise) or b""
        except DataError as error:
            click.echo(f"cnnlib: {error}", err=True)
            failed += 1
            continue
        verdict = learn_show.judged(exercise, content, workspace.path(exercise), seed)
        learn_show.verdict_line(exercise, verdict)
        failed += not verdict.passed
        with workspace.progress.change(exercise.name) as record:
            record.checked(verdict.passed, sha256(content))
    learn_show.solved(workspace)
    return int(failed > 0)


def _check_picture(out: Path) -> None:
    """Before the training, not after it."""
    from cnnlib.viz.figure import new_figure

    new_figure(1.0, 1.0)  # raises where matplotlib is missing
    if out.suffix.lower() not in PICTURES:
        raise click.UsageError(f"--out {out}: the name must end in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}.")
    if not out.parent.is_dir():
        raise click.UsageError(f"--out {out}: there is no folder {out.parent}.")


def _one_of(exercise: Exercise, able: list[Exercise], lacks: str) -> None:
    if exercise not in able:
        others = ", ".join(str(e.number) for e in able) or "none yet"
        raise click.UsageError(f"exercise {exercise.number}, {exercise.name}, {lacks}; those for which it works: {others}.")
