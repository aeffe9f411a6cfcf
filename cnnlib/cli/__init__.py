"""The command ``cnnlib``: one small file per command, imported when it is used, so that ``--help`` is quick.

Exit codes: 0 fine, 1 an error, 2 wrong usage, 130 stopped with Ctrl-C. Errors are one line on stderr; ``--debug`` shows
where they came from.
"""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Sequence

import click

from cnnlib import __version__
from cnnlib.cli.options import Group
from cnnlib.cli.pipe import reader_may_leave

COMMANDS = {
    "compare": "Run one training step on every backend and show where they differ.",
    "data": "List the data sets, or fetch one.",
    "doctor": "Check the installation; each problem with the command that mends it.",
    "evaluate": "Measure a checkpoint on a data set.",
    "explain": "Tell one training step as a story, and let one click through its numbers.",
    "learn": "Write backpropagation yourself: exercises with a checker that says what is wrong.",
    "models": "List the models.",
    "predict": "Name the class of pictures, or of the rows of a CSV file.",
    "sample": "Write with a character model, or draw with a generative one.",
    "summary": "Show a model layer by layer: shapes, parameters, multiply-adds.",
    "train": "Train a model on a data set, a folder of pictures, a CSV file or a text.",
}


class Commands(Group):
    """A group whose commands live in modules of their own name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return importlib.import_module(f"cnnlib.cli.{name}").command if name in COMMANDS else None

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in COMMANDS:
            from cnnlib.errors import unknown_name

            raise click.UsageError(str(unknown_name("command", args[0], COMMANDS)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # from the table above: no command has to be imported
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  cnnlib train lenet5 --data digits --out runs/first
  cnnlib train lenet5 --data ./my_pictures
  cnnlib predict runs/first photo.png
  cnnlib train --help""",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="cnnlib")
def cnnlib(debug: bool) -> None:
    """Train, look into and compare neural networks."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]  # it may stand anywhere
    if not debug:
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's on overflow: NaNStop says where it began, and why
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal cannot show is a "?", not the end of a training
            stream.reconfigure(errors="replace")
    warnings.showwarning = lambda message, *_, **__: click.echo(f"cnnlib: warning: {_one_line(message)}", err=True)
    try:
        with reader_may_leave():
            code = cnnlib.main(arguments, prog_name="cnnlib", standalone_mode=False) or 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nstopped", err=True)
        code = 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(f"cnnlib: {_one_line(error)}", err=True)
        code = error.exit_code if isinstance(error, click.ClickException) else 1
    sys.exit(code)


def _one_line(error: Exception | Warning) -> str:
    from cnnlib.errors import CnnlibError

    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "cnnlib"
        text = error.format_message()
        return f"{text}{'' if text.endswith(('.', '?')) else '.'} See `{command} --help`."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, MemoryError) and not isinstance(error, CnnlibError):
        return (
            f"the memory is not enough ({error}): a smaller network (--width, --hidden), picture (--size), "
            "sequence (--seq) or batch needs less."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = _joined(str(error).splitlines()).replace('on_error="skip"', "--skip-unreadable")
    text = text.replace("cnnlib.data.Resize(size)", "--size N")
    return (
        text
        if isinstance(error, (CnnlibError, Warning))
        else f"unexpected {type(error).__name__}: {text} (--debug shows where)"
    )


def _joined(lines: list[str]) -> str:
    """Lines of an error as one: the listing after a colon, sentences after each other."""
    text = ""
    for line in (line.strip() for line in lines):
        text += ("" if not text else " " if text[-1] in ".:" else "; ") + line
    return text
