"""cnnlib train"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cnnlib.cli.options import COUNT, SEED, PositiveNumber, data_options, examples, hardware_options, model_options

OPTIMIZERS: dict[str, tuple[str, dict[str, Any], float]] = {  # class in cnnlib.optim, settings, usual learning rate
    "sgd": ("SGD", {}, 0.05),
    "momentum": ("SGD", {"momentum": 0.9}, 0.01),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, 0.01),
    "adagrad": ("Adagrad", {}, 0.01),
    "rmsprop": ("RMSprop", {}, 1e-3),
    "adam": ("Adam", {}, 1e-3),
    "adamw": ("AdamW", {}, 1e-3),
}

NEW: dict[str, Any] = {
    "batch_size": 64, "optimizer": "adam", "schedule": "constant", "seed": 0, "size": None, "width": None
}  # fmt: skip


class Stopped(click.ClickException):
    """Ctrl-C in the middle of a run."""

    exit_code = 130


class OfModel(click.Command):
    """Models that learn from something else than classified samples have a command of their own, with other options."""

    own = {"char-rnn": "cnnlib.cli.train_char_rnn"}

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any):
        name = args[0].replace("_", "-") if args else ""
        if name in self.own:
            return self._command(name).make_context(f"{info_name} {name}", args[1:], parent, **extra)
        if name and not name.startswith("-"):
            from cnnlib.cli.train_objective import command_of

            if command := command_of(name.replace("-", "_")):
                return command.make_context(f"{info_name} {name}", args[1:], parent, **extra)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.NoSuchOption as error:
            from cnnlib import models

            if name in models.list():  # which has no such option
                raise
            having = [name for name in self.own if any(error.option_name in p.opts for p in self._command(name).params)]
            if having:
                raise click.UsageError(f"{error.option_name} is an option of {having[0]}, which must come first: "
                                       f"cnnlib train {having[0]} {error.option_name} …", error.ctx) from None  # fmt: skip
            raise

    def _command(self, name: str) -> click.Command:
        return importlib.import_module(self.own[name]).command


@click.command(
    cls=OfModel,
    epilog=examples(
        "cnnlib train lenet5 --data digits --epochs 15",
        "cnnlib train lenet5 --data ./my_pictures        (one folder per class)",
        "cnnlib train mlp --data table.csv --label species --optimizer sgd --lr 0.1",
        "cnnlib train resnet20 --data fashion --width 8 --schedule cosine",
        "cnnlib train vgg11 --data fashion --size 32 --width 0.125",
        "cnnlib train lenet5 --data mnist --out runs/mnist --save-every 200",
        "cnnlib train lenet5 --data mnist --out runs/mnist --epochs 10 --resume",
        "cnnlib train char-rnn --text sonnets            (has options of its own: cnnlib train char-rnn --help)",
        "cnnlib train vae --data fashion                 (so has this: cnnlib train vae --help)",
    ),
)
@click.argument("model")
@click.option("--data", "spec", required=True, metavar="NAME|FOLDER|FILE.csv", help="`cnnlib data list` shows the names.")
@model_options
@data_options
@click.option(
    "--epochs", type=COUNT, metavar="N", default=5, show_default=True, help="In all, those before a --resume included."
)
@click.option("--batch-size", type=COUNT, metavar="N", help="[default: 64, or the resumed run's]")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), help="[default: adam, or the resumed run's]")
@click.option("--lr", type=PositiveNumber(), help="Learning rate.  [default: usual for the optimizer]")
@click.option(
    "--schedule",
    type=click.Choice(["constant", "cosine"]),
    help="cosine: the learning rate falls to 0 over --epochs.  [default: constant, or the resumed run's]",
)
@click.option("--seed", type=SEED, metavar="N", help="The same seed, the same run.  [default: 0, or the resumed run's]")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where checkpoints go.  [default: runs/MODEL-DATA]",
)
@click.option("--save-every", type=COUNT, metavar="N", help="Save after every N steps, too; always after each epoch.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@hardware_options
def command(
    model, spec, size, width, label, channels, skip_unreadable, epochs, batch_size, optimizer, lr, schedule, seed, out,
    save_every, resume, backend, device, threads,
) -> None:  # fmt: skip
    """Train MODEL on a data set, a folder of pictures (one folder per class) or a CSV file.

    Pictures of a folder are scaled to the model's size, or to --size, which scales those of a data set, too. Folders `train`
    and `test` inside it are taken as such; otherwise a fifth of each class is held out to test on. Inputs are normalised by
    the training set's mean and deviation; the checkpoint keeps them, the size, and the names of the classes.
    """
    import cnnlib as cl
    from cnnlib.cli.building import load_split, options_for, scaling, trainable
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.train import Checkpoint, LRSchedule, NaNStop

    kind = trainable(model)
    choose_hardware(backend, device, threads)
    if resume and lr is not None:
        raise click.UsageError(
            "--resume goes on with the run's own learning rate: leave --lr away.", click.get_current_context()
        )
    out = folder_of(out, resume, model, spec)
    usual = _settings_of(out) if resume else NEW
    batch_size = usual["batch_size"] if batch_size is None else batch_size
    optimizer, schedule = optimizer or usual["optimizer"], schedule or usual["schedule"]
    if resume:
        refuse_changes(usual, {"optimizer": optimizer})
    seed = usual["seed"] if seed is None else seed
    size, width = size or usual["size"], width or usual["width"]
    train, test = load_split(spec, size or kind.picture_size, label=label, channels=channels, skip_unreadable=skip_unreadable)
    cl.manual_seed(seed)
    resize = scaling(spec, train, size)
    shape = train.x.shape[1:] if resize is None else (train.x.shape[1], size, size)
    options = options_for(model, shape, len(train.classes), width)
    net = cl.models.create(model, **options)
    opt = optimizer_of(optimizer, net, lr)
    callbacks = [Checkpoint(out, save_every=save_every), NaNStop()]
    if schedule == "cosine":
        callbacks.append(LRSchedule(cl.optim.CosineAnnealingLR(opt, epochs * math.ceil(len(train) / batch_size)), per="step"))
    trainer = cl.Trainer(
        net, kind.criterion(), opt, callbacks=callbacks, batch_size=batch_size,
        transform=_transform(cl.data.Normalize.fit(train), resize), seed=seed, device=device,
        model_name=model, model_options=options,
    )  # fmt: skip
    click.echo(f"{model}, {sum(p.size for p in net.parameters()):,} parameters, on {spec}: {len(train):,} samples to learn "
               f"from, {len(test):,} to test on, {len(train.classes)} classes")  # fmt: skip
    try:
        history = trainer.fit(train, test, epochs=epochs, resume=out if resume else None)
    except KeyboardInterrupt:
        raise stopped(trainer, out, lr) from None
    history.to_csv(out / "history.csv")
    click.echo(f"test accuracy {history[-1]['validation_accuracy']:.2%} after epoch {len(history)}; saved in {out}")


def stopped(trainer: Any, out: Path, lr: float | None) -> Stopped:
    """What to do next after Ctrl-C."""
    again = f"the same command with --out {out} --resume{'' if lr is None else ', without --lr,'} goes on"
    return Stopped(f"stopped; {again if trainer.last_saved else 'nothing was saved'}")


def folder_of(out: Path | None, resume: bool, model: str, spec: str) -> Path:
    """Where the run lives. A run that is there already is never overwritten."""
    from cnnlib.errors import CheckpointError
    from cnnlib.train.checkpoint import LAST

    if resume:
        if out is None:
            raise click.UsageError("--resume needs --out: the folder of the run to go on with.", click.get_current_context())
        if not (out / LAST).is_file():
            raise CheckpointError(f"{out}: no checkpoint to resume from ({LAST}); leave --resume away to start there.")
        return out
    if out is None:
        base = Path("runs") / f"{model}-{Path(spec).stem or 'data'}"
        return next(p for p in (base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 10_000))) if not p.exists())
    if (out / LAST).exists():
        raise CheckpointError(f"{out}: holds a run already: --resume goes on with it, another --out starts a new one.")
    return out


def _settings_of(out: Path) -> dict[str, Any]:
    """What the run in ``out`` was started with."""
    saved, optimizer = resumable(out)
    data = saved.training["data"]
    return {
        "batch_size": data["batch_size"],
        "seed": data["seed"],
        "optimizer": optimizer,
        "schedule": "cosine" if "LRSchedule" in saved.training["callbacks"] else "constant",
        "size": _side(saved.options),
        "width": saved.options.get("width"),
    }


def resumable(out: Path) -> tuple[Any, str]:
    """The checkpoint in ``out``, which holds a training, and the name of its optimiser."""
    from cnnlib.errors import CheckpointError
    from cnnlib.train import load

    saved = load(out)
    if saved.training is None:
        raise CheckpointError(f"{saved.path}: holds a model but no training to resume.")
    return saved, _optimizer_in(saved)


def _optimizer_in(saved: Any) -> str:
    """The name of the checkpoint's optimiser in the table; of several with its class, the last whose settings it has."""
    from cnnlib import models
    from cnnlib.errors import CheckpointError

    kind, state = saved.training["optimizer"], saved.optimizer
    found = [
        name
        for name, (its_kind, settings, _) in OPTIMIZERS.items()
        if its_kind == kind and all(state.get(setting) == value for setting, value in settings.items())
    ]
    if not found and saved.name in models.list() and hasattr(models.get(saved.name), "optimizer"):
        return kind.lower()  # one of the model's own
    if not found:
        raise CheckpointError(f"{saved.path}: was trained with {kind}, which no --optimizer stands for: go on with it in "
                              "Python, with Trainer.fit(resume=...).")  # fmt: skip
    return found[-1]


def refuse_changes(usual: Mapping[str, Any], chosen: Mapping[str, Any], spelt: Mapping[str, str] | None = None) -> None:
    """A resumed run keeps its settings. ``spelt``: options that are not called as what they set."""
    for name, value in chosen.items():
        if value != usual[name]:
            option = (spelt or {}).get(name, f"--{name.replace('_', '-')}")
            raise click.UsageError(
                f"--resume goes on with the run's own {option} {usual[name]}, not {value}: leave {option} away, or start a new "
                "run in another --out.", click.get_current_context(),
            )  # fmt: skip


def _side(options: dict[str, Any]) -> int | None:
    """The side of the pictures that a model was created for; None where its samples are no pictures."""
    shape = options.get("in_features", ())
    return options.get("input_size", shape[-1] if len(shape) == 3 else None)


def _transform(normalize: Any, resize: Any) -> Any:
    from cnnlib.data import Compose

    return normalize if resize is None else Compose([resize, normalize])


def optimizer_of(name: str, net: Any, lr: float | None, **more: Any) -> Any:
    from cnnlib import optim

    kind, settings, usual = OPTIMIZERS[name]
    return getattr(optim, kind)(net.parameters(), lr=lr or usual, **settings, **more)
