"""Options that several commands share, and the values they take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


class Group(click.Group):
    """Alone it shows its help; there each command has its first sentence, uncut."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(1000)) for name in self.list_commands(ctx)])


class PositiveNumber(click.ParamType):
    """A finite number above 0: click's own FloatRange lets NaN and infinity pass."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            self.fail(f"{value!r} is not a finite number above 0.", param, ctx)
        return number


class Counts(click.ParamType):
    """Whole numbers of at least 1, with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = value.split(",")
        if not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
            self.fail(f"{value!r}: expected whole numbers of at least 1 with commas between them, such as 1,8,64.", param, ctx)
        return tuple(sorted({int(part) for part in parts}))


COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**64 - 1)


def hardware_options(command: Callable) -> Callable:
    """--backend, --device and --threads: where the arithmetic happens."""
    options = (
        click.option(
            "--backend", type=click.Choice(["cpu", "reference"]), help="CPU kernels: compiled, or the NumPy textbook."
        ),
        click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
        click.option("--threads", type=COUNT, metavar="N", help="Threads of the compiled kernels."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def data_options(command: Callable) -> Callable:
    """--label, --channels and --skip-unreadable: how a folder or a table becomes a data set."""
    options = (
        click.option("--label", metavar="COLUMN", help="Of a CSV file: the column of classes.  [default: the last]"),
        click.option(
            "--channels", type=click.Choice([1, 3]), default=3, show_default=True, help="Of a picture folder: 1 grey, 3 colour."
        ),
        click.option("--skip-unreadable", is_flag=True, help="Of a picture folder: leave out files that are no pictures."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def model_options(command: Callable) -> Callable:
    """--size and --width: the model's pictures and its numbers of maps."""
    options = (
        click.option("--size", type=COUNT, metavar="N", help="Scale pictures to N×N.  [default: as they are]"),
        click.option(
            "--width", type=PositiveNumber(), metavar="W",
            help="W times the model's numbers of maps; of resnet20 the number itself.  [default: the model's]",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def examples(*lines: str) -> str:
    """The epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
