"""cnnlib sample"""

from __future__ import annotations

from typing import Any

import click

from cnnlib.cli.options import COUNT, SEED, PositiveNumber, examples, hardware_options


@click.command(
    epilog=examples(
        "cnnlib sample runs/char-rnn-sonnets",
        'cnnlib sample runs/char-rnn-sonnets --prime "Let me not to the marriage of true minds" --temperature 0.8 --length 600',
        "cnnlib sample runs/vae-fashion --count 100 --picture samples.png",
    )
)
@click.argument("checkpoint")
@click.option("--prime", default="", help="Of texts: what the network reads first.  [default: a line break]")
@click.option(
    "--temperature",
    type=PositiveNumber(),
    default=1.0,
    show_default=True,
    help="Of texts: below 1 the likely becomes likelier, down to always the likeliest near 0; above 1 it is nearer to chance.",
)
@click.option("--length", type=COUNT, metavar="N", default=600, show_default=True, help="Of texts: characters to draw.")
@click.option(
    "--count", type=click.IntRange(1, 10_000), metavar="N", default=100, show_default=True, help="Of pictures: how many."
)
@click.option("--picture", type=click.Path(dir_okay=False), help="Of pictures: the file.  [default: samples.png]")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="The same seed, the same samples.")
@hardware_options
def command(checkpoint, prime, temperature, length, count, picture, seed, backend, device, threads) -> None:
    """Let the model in CHECKPOINT (a file, or the folder of a run) write or draw: a character model, or a generative one."""
    from cnnlib import models
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.errors import CheckpointError
    from cnnlib.models.char_rnn import sample
    from cnnlib.train import load

    choose_hardware(backend, device, threads)
    saved = load(checkpoint)
    draws = saved.name in models.list() and hasattr(models.get(saved.name), "sample")
    if saved.name is None or not (draws or saved.name == "char_rnn"):
        raise CheckpointError(f"{saved.path}: holds {saved.name or 'a model without a name'}, which neither writes nor draws: "
                              "`cnnlib train char-rnn` makes one that writes, `cnnlib train vae` one that draws.")  # fmt: skip
    net: Any = models.create(saved.name, **saved.options)
    saved.load_into(net)
    net.to(device).eval()
    if draws:
        if prime:
            raise click.UsageError(f"{saved.name} draws pictures: --prime is for texts.", click.get_current_context())
        _draw(net, saved.path, count, seed, picture or "samples.png")
    elif picture:
        raise click.UsageError(f"{saved.name} writes text: --picture is for models that draw.", click.get_current_context())
    else:
        click.echo(prime + sample(net, prime, length, temperature, seed))


def _draw(net: Any, path: Any, count: int, seed: int, picture: str) -> None:
    from cnnlib import viz
    from cnnlib.errors import CheckpointError

    if len(net.input_shape) != 3:
        raise CheckpointError(f"{path}: its samples have the shape {net.input_shape}: only pictures (C, H, W) can be shown.")
    if not picture.lower().endswith((".png", ".pdf", ".svg")):
        raise click.BadParameter(f"{picture!r} should end in .png, .pdf or .svg.", param_hint="--picture")
    viz.sample_grid(net.sample(count, seed)).savefig(picture)
    click.echo(f"picture: {picture}")
