"""cnnlib data"""

from __future__ import annotations

import click

from cnnlib.cli.options import Group, examples


@click.group(cls=Group, epilog=examples("cnnlib data list", "cnnlib data prefetch mnist"))
def command() -> None:
    """List the data sets, or fetch one so that later runs need no network."""


@command.command("list", epilog=examples("cnnlib data list"))
def list_() -> None:
    """Names, sizes, licences, and where each is or would come from; texts, for character models, last."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from cnnlib import data
    from cnnlib.data import texts

    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("name", "what", "samples", "licence", "where"):
        table.add_column(column, overflow="fold")
    for row in [*data.info(), *texts.info()]:
        table.add_row(row.name, row.what, row.count, row.licence, row.where)
    Console().print(table)


@command.command(epilog=examples("cnnlib data prefetch mnist", "cnnlib data prefetch fashion cifar10"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def prefetch(names: tuple[str, ...]) -> None:
    """Download data sets into the cache, if they are not there."""
    from cnnlib import data

    for name in names:
        files = data.prefetch(name)
        click.echo(f"{name}: {len(files)} file{'s' if len(files) > 1 else ''} in {files[0].parent}")
