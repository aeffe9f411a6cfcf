"""cnnlib predict"""

from __future__ import annotations

import click

from cnnlib.cli.options import COUNT, examples, hardware_options


@click.command(epilog=examples("cnnlib predict runs/first photo.png", "cnnlib predict runs/first *.jpg --top 1"))
@click.argument("checkpoint")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", type=COUNT, metavar="N", default=5, show_default=True, help="How many classes to name.")
@hardware_options
def command(checkpoint: str, images: tuple[str, ...], top: int, backend: str | None, device: str, threads: int | None) -> int:
    """Name the class of each IMAGE with the model in CHECKPOINT (a file, or the folder of a run).

    A picture is scaled to the size of the training pictures, and then goes through what they went through, --size included,
    as when the model is evaluated. One that cannot be read is reported, the others are
    still named, and the exit code is 1.
    """
    from cnnlib import data
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.cli.saved import Trained
    from cnnlib.errors import CheckpointError, DataError

    choose_hardware(backend, device, threads)
    trained = Trained(checkpoint, device)
    if not trained.takes_pictures:
        raise CheckpointError(f"{checkpoint}: its model was trained on rows of {trained.shape[0]} numbers, not on pictures.")
    channels, height, width = trained.shape
    failed = False
    for image in images:
        try:
            scores = trained.scores(data.image(image, (height, width), channels))[0]
        except DataError as error:
            click.echo(f"cnnlib: {error}", err=True)
            failed = True
            continue
        click.echo(f"{image}: {_ranking(trained, scores, top)}")
    return int(failed)


def _ranking(trained, scores, top: int) -> str:
    """``cat 97.1 %, dog 2.5 %``; scores that are no logits of probabilities are shown as they are."""
    import numpy as np

    from cnnlib import nn

    best = np.argsort(-scores, kind="stable")[:top]
    if not issubclass(getattr(trained.model, "criterion", nn.CrossEntropyLoss), nn.CrossEntropyLoss):  # its own: of logits
        return ", ".join(f"{trained.classes[c]} (score {scores[c]:.2f})" for c in best)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    return ", ".join(f"{trained.classes[c]} {100 * p[c]:.1f} %" for c in best)
