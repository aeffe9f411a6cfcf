"""cnnlib models"""

from __future__ import annotations

import click

from cnnlib.cli.options import examples


@click.command(epilog=examples("cnnlib models", "cnnlib summary lenet5"))
def command() -> None:
    """List the models. Those marked * can be trained with `cnnlib train`; the others learn by rules of their own."""
    import sys

    from cnnlib import models

    families: dict[str, list[str]] = {}
    for name in models.list():
        model = models.get(name)
        what = (sys.modules[model.__module__].__doc__ or "").splitlines()[0]
        mark = "*" if any(hasattr(model, known) for known in ("options_for", "objective", "train_command")) else " "
        families.setdefault(f"{mark} {what}", []).append(name)
    formatter = click.HelpFormatter()
    formatter.write_dl([(f"{what[:2]}{', '.join(names)}", what[2:]) for what, names in families.items()], col_max=20)
    click.echo(formatter.getvalue(), nl=False)
