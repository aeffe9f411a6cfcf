"""cnnlib explain"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cnnlib.cli.options import COUNT, SEED, PositiveNumber, data_options, examples, model_options

TEXT_MODEL = "char_rnn"


@click.command(
    epilog=examples(
        "cnnlib explain lenet5",
        "cnnlib explain lenet5 --html lenet5.html",
        "cnnlib explain resnet20 --width 4 --data cifar10 --html resnet.html",
        "cnnlib explain char-rnn --data sonnets --html reading.html",
        "cnnlib explain runs/first --batch-size 1 --html trained.html",
        "cnnlib explain mlp --json",
    )
)
@click.argument("model", metavar="MODEL|CHECKPOINT")
@click.option("--data", "spec", metavar="NAME|FOLDER|FILE", help="[default: digits; of char-rnn, a text: sonnets]")
@model_options
@data_options
@click.option("--batch-size", type=COUNT, metavar="N", default=2, show_default=True, help="Samples of the step.")
@click.option("--steps", type=COUNT, metavar="N", default=24, show_default=True, help="Of char-rnn: characters that it reads.")
@click.option("--hidden", type=COUNT, metavar="N", default=32, show_default=True, help="Of char-rnn: units.")
@click.option("--cell", type=click.Choice(["rnn", "lstm", "gru"]), default="lstm", show_default=True, help="Of char-rnn.")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True)
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write a page for a browser, to click from a number to what made it.",
)  # fmt: skip
@click.option("--megabytes", type=PositiveNumber(), default=4.0, show_default=True, help="Of arrays that the page may hold.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(
    model, spec, size, width, label, channels, skip_unreadable, batch_size, steps, hidden, cell, seed, page, megabytes, as_json
) -> None:
    """Tell one training step of MODEL, new or out of a CHECKPOINT: what each operation computes, keeps and sends back.

    Each operation with its formula, shapes, saved values, the size of its activations and adjoints, the gradients of its
    parameters, and its share of time and memory. With --html as a page on which every number shows the products that
    made it, forward and backward.
    """
    import cnnlib as cl
    from cnnlib import data, models
    from cnnlib.cli.building import underscored
    from cnnlib.train import checkpoint

    name = underscored(model)
    saved = checkpoint.load(model) if name not in models.list() and Path(model).exists() else None
    cl.manual_seed(seed)
    loss = None
    if TEXT_MODEL in (name, saved and saved.name):
        letters = data.read_text(spec or "sonnets").alphabet.characters
        fresh = {"characters": letters, "cell": cell, "hidden": hidden, "embedding": hidden // 2 or 1}
        net = models.create(TEXT_MODEL, **(saved.options if saved else fresh))
        if saved:
            saved.load_into(net)
        x, y = _reading(net, spec or "sonnets", steps, batch_size)
    else:
        options = {"label": label, "channels": channels, "skip_unreadable": skip_unreadable}
        if saved:
            net, x, y, loss = _seeing_trained(model, spec or "digits", batch_size, options)
        else:
            net, x, y, loss = _seeing(name, spec or "digits", size, width, batch_size, options)
    story = cl.explain(net, x, y, loss)
    if page is not None:
        text = story.html(megabytes)
        page.write_text(text, encoding="utf-8")
        click.echo(f"{page}: {len(text.encode()) / 1e6:.1f} MB, open it in a browser", err=as_json)
    if as_json:
        click.echo(story.json())
    elif page is None:
        from rich.console import Console

        Console().print(story)
        click.echo("\n--html FILE writes a page on which every number shows the products that made it.")


def _seeing(name: str, spec: str, size: int | None, width: float | None, batch_size: int, options: dict[str, Any]) -> Any:
    from cnnlib.cli.building import build, load_split, scaling, trainable

    kind = trainable(name)
    train, _ = load_split(spec, size or kind.picture_size, **options)
    batch = train[:batch_size]
    resize = scaling(spec, train, size)
    x = batch.x if resize is None else resize(batch.x)
    return build(name, x.shape[1:], len(batch.classes), width), x, batch.y, kind.criterion()


def _reading(net: Any, spec: str, steps: int, batch_size: int) -> Any:
    """The beginning of each stream of the text: what the model reads, and the characters that follow."""
    from cnnlib import data

    text = data.read_text(spec)
    train, _ = text.split()
    streams = data.Streams(train, batch_size, steps, text.name)
    if net.alphabet.characters != text.alphabet.characters:
        recoded = net.alphabet.encode(text.alphabet.decode(train[: batch_size * steps + 1]))
        streams = data.Streams(recoded, batch_size, steps, text.name)
    return next(streams.iterate(0))


def _seeing_trained(path: str, spec: str, batch_size: int, options: dict[str, Any]) -> Any:
    """A model from a checkpoint, and samples as it learnt to see them."""
    from cnnlib import models
    from cnnlib.cli.building import check_shape, load_split
    from cnnlib.cli.saved import Trained

    trained = Trained(path)
    train, _ = load_split(spec, trained.shape[-1], classes=trained.classes, **options)
    check_shape(spec, train, trained)
    batch = train[:batch_size]
    kind: Any = models.get(trained.name)
    return trained.model, trained.prepare(batch.x), batch.y, kind.criterion()
