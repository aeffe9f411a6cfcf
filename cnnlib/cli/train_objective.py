"""cnnlib train NAME, of systems with an objective of their own: the options are those of the model's constructor."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from cnnlib.cli.options import COUNT, SEED, PositiveNumber, data_options, examples, hardware_options
from cnnlib.cli.train import OPTIMIZERS, folder_of, optimizer_of, refuse_changes, resumable, stopped

EXAMPLES = {"numbers": ("co2", "table.csv"), "two classes": ("table.csv", "./two_folders")}
NUMBERS = "A series, whose next value is foretold, or a table, of which one column is."


class Sizes(click.ParamType):
    """Whole numbers above 0, such as ``400,200``."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of sizes such as 400,200.", param, ctx)
        return [int(part) for part in parts]


def command_of(name: str) -> click.Command | None:
    """The command that trains the model of this name; None where it is no model with an objective of its own."""
    from cnnlib import models
    from cnnlib.models.objective import ObjectiveModel

    if name not in models.list() or not issubclass(kind := models.get(name), ObjectiveModel):
        return None
    usual, numbers = kind.recipe, kind.targets == "numbers"

    @click.option("--data", "spec", required=True, metavar=("co2|sunspots" if numbers else "NAME|FOLDER") + "|FILE.csv",
                  help=NUMBERS if numbers else "`cnnlib data list` shows the names.")  # fmt: skip
    @_settings_of(kind)
    @data_options
    @click.option("--epochs", type=COUNT, metavar="N", default=usual["epochs"], show_default=True,
                  help="In all, those before a --resume included.")  # fmt: skip
    @click.option("--batch-size", type=COUNT, metavar="N", help=_default(usual["batch_size"]))
    @click.option(
        "--optimizer",
        type=click.Choice(list(OPTIMIZERS) if usual["optimizer"] in OPTIMIZERS else [usual["optimizer"]]),
        help=_default(usual["optimizer"]),
    )
    @click.option("--lr", type=PositiveNumber(), help=f"Learning rate.  [default: {usual['lr']} for {usual['optimizer']}]")
    @click.option("--seed", type=SEED, metavar="N", help="The same seed, the same run.  " + _default(0))
    @click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                  help="Where checkpoints go.  [default: runs/MODEL-DATA]")  # fmt: skip
    @click.option("--save-every", type=COUNT, metavar="N", help="Save after every N steps, too; always after each epoch.")
    @click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
    @hardware_options
    def run(**given: Any) -> None:
        _train(name, kind, given)

    what = (inspect.getmodule(kind).__doc__ or "").splitlines()[0]  # type: ignore[union-attr]
    written, sets = name.replace("_", "-"), EXAMPLES.get(kind.targets or "", ("fashion", "mnist"))
    return click.command(help=what, epilog=examples(
        f"cnnlib train {written} --data {sets[0]}", f"cnnlib train {written} --data {sets[1]} --out runs/first --epochs 20",
        f"cnnlib train {written} --data {sets[1]} --out runs/first --epochs 40 --resume",
    ))(run)  # fmt: skip


def _default(value: Any) -> str:
    shown = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else value
    return f"[default: {shown}, or the resumed run's]"


def _settings_of(kind: Any) -> Any:
    """Options for the settings of a model's constructor; None where one is not given."""
    known = inspect.signature(kind).parameters
    options = []
    for name, text in kind.settings.items():
        default, spelt = known[name].default, name.replace("_", "-")
        if isinstance(default, bool):
            options.append(click.option(f"--{spelt}/--no-{spelt}", name, default=None, help=text))
        else:
            kinds = {int: click.INT, float: click.FLOAT, str: click.STRING, tuple: Sizes()}
            options.append(click.option(f"--{spelt}", name, type=kinds[type(default)], help=f"{text}  {_default(default)}"))

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _train(name: str, kind: Any, given: dict[str, Any]) -> None:
    import cnnlib as cl
    from cnnlib.cli.building import load_for
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.train import AdversarialTrainer, Checkpoint, NaNStop, ObjectiveTrainer

    choose_hardware(given["backend"], given["device"], given["threads"])
    resume, spec = given["resume"], given["spec"]
    if resume and given["lr"] is not None:
        raise click.UsageError(
            "--resume goes on with the run's own learning rate: leave --lr away.", click.get_current_context()
        )
    out = folder_of(given["out"], resume, name.replace("_", "-"), spec)
    read = {option: given[option] for option in ("label", "channels", "skip_unreadable")}
    train, test = load_for(kind, spec, **read)
    asked = {
        option: given[option] for option in (*kind.settings, "batch_size", "optimizer", "seed") if given[option] is not None
    }
    usual = _settings_in(out, name) if resume else {**_defaults(kind), **kind.recipe, "seed": 0}
    if resume:
        refuse_changes(usual, asked)
    chosen = usual | asked
    cl.manual_seed(chosen["seed"])
    options = {option: chosen[option] for option in kind.settings} | kind.options_from(train)
    net = cl.models.create(name, **options)
    loop = AdversarialTrainer if hasattr(kind, "turns") else ObjectiveTrainer
    trainer = loop(
        net, _optimizer(net, chosen["optimizer"], given["lr"]), [Checkpoint(out, save_every=given["save_every"]), NaNStop()],
        chosen["batch_size"], cl.data.Normalize.fit(train) if kind.targets == "numbers" else None, chosen["seed"],
        given["device"], model_name=name, model_options=options,
    )  # fmt: skip
    click.echo(f"{name}, {sum(p.size for p in net.parameters()):,} parameters, on {spec}: {len(train):,} samples to learn "
               f"from, {len(test):,} held out")  # fmt: skip
    try:
        history = trainer.fit(train, test, epochs=given["epochs"], resume=out if resume else None)
    except KeyboardInterrupt:
        raise stopped(trainer, out, given["lr"]) from None
    history.to_csv(out / "history.csv")
    measured = ", ".join(f"{m} {history[-1][f'validation_{m}']:.4g}" for m in ("loss", *net.measures))
    if kind.targets == "numbers":
        measured += f", {_certainty(trainer, test)}"
    click.echo(f"held-out {measured} after epoch {len(history)}; saved in {out}")


def _certainty(trainer: Any, test: Any) -> str:
    net = trainer.model
    if not getattr(net, "remembered", True):
        return f"no draws of the weights yet: one is kept every {net.every} steps (--epochs, --every)"
    return in_words(net.predictive(trainer.eval_transform(test.x)).restored(test.scale), test.scale.restore(test.y))


def in_words(predicted: Any, y: Any) -> str:
    """How good a regression is, in the unit of y (N, K)."""
    return f"off by {predicted.rmse(y):.4g} (root mean square), {predicted.coverage(y, 0.9):.1%} inside their 90 % interval"


def _optimizer(net: Any, name: str, lr: float | None) -> Any:
    """The recipe's settings are no use to another one than its own. One that no other model has, the model makes."""
    recipe = net.recipe
    if name != recipe["optimizer"]:
        return optimizer_of(name, net, lr)
    lr = lr or recipe["lr"]
    return optimizer_of(name, net, lr, **recipe.get("settings", {})) if name in OPTIMIZERS else net.optimizer(lr)


def _defaults(kind: Any) -> dict[str, Any]:
    """The settings of the constructor, as JSON keeps them."""
    defaults = {name: inspect.signature(kind).parameters[name].default for name in kind.settings}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


def _settings_in(out: Path, name: str) -> dict[str, Any]:
    """What the run in ``out`` was started with."""
    from cnnlib.errors import CheckpointError

    saved, optimizer = resumable(out)
    if saved.name != name:
        raise CheckpointError(f"{saved.path}: holds {saved.name or 'a model without a name'}, not {name}.")
    return saved.options | saved.training["data"] | {"optimizer": optimizer}
