"""cnnlib predict"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cnnlib.cli.options import COUNT, examples, hardware_options

if TYPE_CHECKING:
    import numpy as np

    from cnnlib.cli.saved import Trained


@click.command(
    epilog=examples(
        "cnnlib predict runs/first photo.png",
        "cnnlib predict runs/first *.jpg --top 1",
        "cnnlib predict runs/mlp-table new.csv",
        "cnnlib predict runs/mlp-table table.csv --label species      (a table with the column of classes, which is left out)",
    )
)
@click.argument("checkpoint")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--top", type=COUNT, metavar="N", default=5, show_default=True, help="How many classes to name.")
@click.option("--label", metavar="COLUMN", help="Of a CSV file: a column to leave out, such as that of the classes.")
@hardware_options
def command(
    checkpoint: str, files: tuple[str, ...], top: int, label: str | None, backend: str | None, device: str, threads: int | None
) -> int:
    """Name the class of each picture, or of each row of a CSV file, with the model in CHECKPOINT (a file, or the folder of a
    run). Of a row, a regression foretells the number.

    A picture is scaled to the size of the training pictures, and then goes through what they went through, --size included,
    as when the model is evaluated. The columns of a CSV file stand as in the table that the model was trained on. A file that
    cannot be read is reported, the others are still used, and the exit code is 1.
    """
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.cli.saved import Trained
    from cnnlib.errors import CheckpointError, DataError

    choose_hardware(backend, device, threads)
    trained = Trained(checkpoint, device, numbers=True)
    if len(trained.shape) == 2:
        raise CheckpointError(f"{checkpoint}: its model was trained on sequences of shape {trained.shape}: `cnnlib evaluate` "
                              "measures it, in Python net.predictive(x) foretells what follows.")  # fmt: skip
    if label is not None and trained.takes_pictures:
        raise click.UsageError(f"--label is of CSV files; {checkpoint} was trained on pictures.", click.get_current_context())
    failed = False
    for file in files:
        try:
            said = [_of_picture(trained, file, top)] if trained.takes_pictures else _of_table(trained, file, label, top)
        except DataError as error:
            click.echo(f"cnnlib: {error}", err=True)
            failed = True
            continue
        click.echo("\n".join(said))
    return int(failed)


def _of_picture(trained: Trained, file: str, top: int) -> str:
    from cnnlib import data

    channels, height, width = trained.shape
    return f"{file}: {_ranking(trained, trained.scores(data.image(file, (height, width), channels))[0], top)}"


def _of_table(trained: Trained, file: str, label: str | None, top: int) -> list[str]:
    """One line per row."""
    from cnnlib.cli.building import column
    from cnnlib.data.folder import rows

    x, lines = rows(file, trained.shape[0], None if label is None else column(label))
    said = _foretold(trained, x) if trained.numbers else [_ranking(trained, scores, top) for scores in trained.scores(x)]
    return [f"{file}, line {line}: {text}" for line, text in zip(lines, said, strict=True)]


def _foretold(trained: Trained, x: np.ndarray) -> list[str]:
    """``320.5, with 90 % between 318.1 and 322.9``, one for each row of x, in the unit of the targets."""
    found = trained.predictive(x)
    return [
        f"{mean:.6g}, with 90 % between {low:.6g} and {high:.6g}"
        for mean, low, high in zip(found.mean[:, 0], *(end[:, 0] for end in found.interval(0.9)), strict=True)
    ]


def _ranking(trained: Trained, scores: np.ndarray, top: int) -> str:
    """``cat 97.1 %, dog 2.5 %``; scores that are no logits of probabilities are shown as they are."""
    import numpy as np

    from cnnlib import nn

    best = np.argsort(-scores, kind="stable")[:top]
    if not issubclass(getattr(trained.model, "criterion", nn.CrossEntropyLoss), nn.CrossEntropyLoss):  # its own: of logits
        return ", ".join(f"{trained.classes[c]} (score {scores[c]:.2f})" for c in best)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    return ", ".join(f"{trained.classes[c]} {100 * p[c]:.1f} %" for c in best)
