"""cnnlib train char-rnn"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cnnlib.cli.options import COUNT, SEED, PositiveNumber, examples, hardware_options
from cnnlib.cli.train import OPTIMIZERS, folder_of, optimizer_of, refuse_changes, resumable, stopped

NEW: dict[str, Any] = {
    "cell": "lstm", "layers": 1, "hidden": 128, "embedding": 64, "length": 64, "batch_size": 32, "optimizer": "adam"
}  # fmt: skip
LEARNING_RATE = 2e-3  # of Adam
SHORT = {"length": "--seq", "batch_size": "--batch"}  # options that are not called as what they set


@click.command(
    epilog=examples(
        "cnnlib train char-rnn --text sonnets",
        "cnnlib train char-rnn --text novel.txt --cell gru --layers 2 --hidden 256 --iterations 5000",
        "cnnlib train char-rnn --text novel.txt --out runs/novel --save-every 200",
        "cnnlib train char-rnn --text novel.txt --out runs/novel --iterations 9000 --resume",
        'cnnlib sample runs/novel --prime "It was" --temperature 0.8',
    )
)
@click.option("--text", "spec", required=True, metavar="FILE|NAME", help="In UTF-8; `cnnlib data list` shows the names.")
@click.option("--cell", type=click.Choice(["rnn", "lstm", "gru"]), help="[default: lstm, or the resumed run's]")
@click.option("--layers", type=COUNT, metavar="N", help="[default: 1, or the resumed run's]")
@click.option("--hidden", type=COUNT, metavar="N", help="Units of each layer.  [default: 128, or the resumed run's]")
@click.option(
    "--embedding",
    type=click.IntRange(min=0),
    metavar="N",
    help="Width of the characters' vectors; 0: one-hot.  [default: 64, or the resumed run's]",
)
@click.option("--seq", "length", type=COUNT, metavar="N", help="Steps of a batch.  [default: 64, or the resumed run's]")
@click.option(
    "--batch",
    "batch_size",
    type=COUNT,
    metavar="N",
    help="Streams that are read side by side.  [default: 32, or the resumed run's]",
)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), help="[default: adam, or the resumed run's]")
@click.option("--lr", type=PositiveNumber(), help="Learning rate.  [default: 0.002 for adam, usual for the others]")
@click.option(
    "--iterations", type=COUNT, metavar="N", default=2000, show_default=True, help="In all, those before a --resume included."
)
@click.option("--every", type=COUNT, metavar="N", default=100, show_default=True, help="Measure after every N iterations.")
@click.option("--temperature", type=PositiveNumber(), default=0.8, show_default=True, help="Of the samples.")
@click.option("--prime", default="", help="What the samples begin with.")
@click.option("--length", "shown", type=COUNT, metavar="N", default=300, show_default=True, help="Of the samples.")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="The same seed, the same run.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where checkpoints go.  [default: runs/char-rnn-TEXT]",
)
@click.option("--save-every", type=COUNT, metavar="N", help="Save after every N iterations, too; always when measuring.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@hardware_options
def command(
    spec, cell, layers, hidden, embedding, length, batch_size, optimizer, lr, iterations, every, temperature, prime, shown,
    seed, out, save_every, resume, backend, device, threads,
) -> None:  # fmt: skip
    """Train a recurrent network to say which character of a text comes next.

    The last tenth of the text, at most 100,000 characters, is held out. Bits per character are reported on what was learnt
    from since the last report, and on what is held out. Samples are shown after 100, 300, 700 and 2,000 iterations, and at
    the end; `cnnlib sample` draws more. Gradients are clipped to a norm of 5.
    """
    import cnnlib as cl
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.data import Streams
    from cnnlib.errors import CheckpointError
    from cnnlib.train import Checkpoint, NaNStop, Samples, SequenceTrainer

    choose_hardware(backend, device, threads)
    if resume and lr is not None:
        raise click.UsageError(
            "--resume goes on with the run's own learning rate: leave --lr away.", click.get_current_context()
        )
    out = folder_of(out, resume, "char-rnn", spec)
    text = cl.data.read_text(spec)
    text.alphabet.encode(prime)  # now, rather than fail at the first sample
    usual = _settings_of(out, text) if resume else NEW
    given = {"cell": cell, "layers": layers, "hidden": hidden, "embedding": embedding, "length": length,
             "batch_size": batch_size, "optimizer": optimizer}  # fmt: skip
    chosen = {name: usual[name] if value is None else value for name, value in given.items()}
    if resume:
        refuse_changes(usual, chosen, SHORT)
    train, held_out = text.split()
    streams = Streams(train, chosen["batch_size"], chosen["length"], f"{text.name}, without what is held out")
    if usual.get("checksum", streams.checksum) != streams.checksum:
        raise CheckpointError(f"{out}: was trained on another text than {text.name}, of the same characters: resume with the "
                              "same text.")  # fmt: skip
    cl.manual_seed(seed)
    options = {"characters": text.alphabet.characters} | {n: chosen[n] for n in ("cell", "layers", "hidden", "embedding")}
    net = cl.models.create("char_rnn", **options)
    usual_lr = LEARNING_RATE if chosen["optimizer"] == "adam" else None
    trainer = SequenceTrainer(
        net, optimizer_of(chosen["optimizer"], net, lr or usual_lr),
        device=device, model_name="char_rnn", model_options=options,
        callbacks=[Samples(prime=prime, length=shown, temperature=temperature, seed=seed),
                   Checkpoint(out, save_every=save_every), NaNStop()],
    )  # fmt: skip
    click.echo(f"{chosen['cell']}, {sum(p.size for p in net.parameters() if p.requires_grad):,} parameters, on {text.name}: "
               f"{len(train):,} characters to learn from in {len(streams):,} batches, {len(held_out):,} held out, "
               f"{len(text.alphabet)} different ones")  # fmt: skip
    measured = Streams.fitting(held_out, chosen["batch_size"], chosen["length"], text.name)
    try:
        history = trainer.fit(streams, measured, iterations, every, resume=out if resume else None)
    except KeyboardInterrupt:
        raise stopped(trainer, out, lr) from None
    history.to_csv(out / "history.csv")
    last = history[-1]
    click.echo(f"{last['validation_bits']:.3f} bits per character on the held-out text after {last['iteration']:,} iterations "
               f"({last['bits']:.3f} on what was learnt from); saved in {out}")  # fmt: skip


def _settings_of(out: Path, text: Any) -> dict[str, Any]:
    """What the run in ``out`` was started with. It must have been on a text of the same characters."""
    from cnnlib.errors import CheckpointError

    saved, optimizer = resumable(out)
    if saved.name != "char_rnn":
        raise CheckpointError(f"{saved.path}: holds {saved.name or 'a model without a name'}, not a char_rnn.")
    if saved.options["characters"] != text.alphabet.characters:
        raise CheckpointError(
            f"{saved.path}: was trained on a text of {len(saved.options['characters'])} different characters; those of "
            f"{text.name}, {len(text.alphabet)}, are not the same: resume with the same text."
        )
    return NEW | saved.options | saved.training["data"] | {"optimizer": optimizer}
