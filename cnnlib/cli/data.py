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
    from cnnlib import data
    from cnnlib.data import texts

    formatter = click.HelpFormatter()
    formatter.write_dl(
        [(r.name, f"{r.what}: {r.count}; licence: {r.licence}; {r.where}") for r in [*data.info(), *texts.info()]]
    )
    click.echo(formatter.getvalue(), nl=False)


@command.command(epilog=examples("cnnlib data prefetch mnist", "cnnlib data prefetch fashion cifar10"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def prefetch(names: tuple[str, ...]) -> None:
    """Download data sets into the cache, if they are not there."""
    from cnnlib import data

    for name in names:
        files = data.prefetch(name)
        click.echo(f"{name}: {len(files)} file{'s' if len(files) > 1 else ''} in {files[0].parent}")
