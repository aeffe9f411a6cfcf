"""cnnlib doctor"""

from __future__ import annotations

import dataclasses
import json

import click

from cnnlib.cli.options import examples

MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "red")}


@click.command(epilog=examples("cnnlib doctor", "cnnlib doctor --json"))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(as_json: bool) -> int:
    """Check the installation; each problem is shown with the command that mends it.

    Leaves with exit code 1 when there is a problem.
    """
    from cnnlib.doctor import examine

    checks = examine()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(c) for c in checks], indent=2))
    else:
        for check in checks:
            mark, colour = MARKS[check.state]
            click.echo(f"{click.style(mark, fg=colour)} {check.name:17} {check.found}")
            if check.fix:
                click.echo(f"{'':19} → {check.fix}")
    return int(any(check.state == "problem" for check in checks))
