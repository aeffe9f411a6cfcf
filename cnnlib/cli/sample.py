"""cnnlib sample"""

from __future__ import annotations

import click

from cnnlib.cli.options import COUNT, SEED, PositiveNumber, examples, hardware_options


@click.command(
    epilog=examples(
        "cnnlib sample runs/char-rnn-sonnets",
        'cnnlib sample runs/char-rnn-sonnets --prime "Let me not to the marriage of true minds" --temperature 0.8 --length 600',
    )
)
@click.argument("checkpoint")
@click.option("--prime", default="", help="What the network reads first.  [default: a line break]")
@click.option(
    "--temperature",
    type=PositiveNumber(),
    default=1.0,
    show_default=True,
    help="Below 1 the likely becomes likelier, down to always the likeliest near 0; above 1 it is nearer to chance.",
)
@click.option("--length", type=COUNT, metavar="N", default=600, show_default=True, help="Characters to draw.")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="The same seed, the same text.")
@hardware_options
def command(checkpoint, prime, temperature, length, seed, backend, device, threads) -> None:
    """Write with the character model in CHECKPOINT (a file, or the folder of a run of `cnnlib train char-rnn`)."""
    from cnnlib import models
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.errors import CheckpointError
    from cnnlib.models.char_rnn import sample
    from cnnlib.train import load

    choose_hardware(backend, device, threads)
    saved = load(checkpoint)
    if saved.name != "char_rnn":
        raise CheckpointError(f"{saved.path}: holds {saved.name or 'a model without a name'}, not a character model: "
                              "`cnnlib train char-rnn` makes one.")  # fmt: skip
    net = models.CharRNN(**saved.options)
    saved.load_into(net)
    click.echo(prime + sample(net.to(device), prime, length, temperature, seed))
