"""cnnlib evaluate"""

from __future__ import annotations

import json

import click

from cnnlib.cli.options import COUNT, examples, hardware_options


@click.command(
    epilog=examples(
        "cnnlib evaluate runs/first --data digits", "cnnlib evaluate runs/first --data ./other_pictures --picture confusion.png"
    )
)
@click.argument("checkpoint")
@click.option("--data", "spec", required=True, metavar="NAME|FOLDER|FILE.csv")
@click.option("--label", metavar="COLUMN", help="Of a CSV file: the column of classes or numbers.  [default: the last]")
@click.option(
    "--part",
    type=click.Choice(["test", "train", "all"]),
    default="test",
    show_default=True,
    help="Data without a test part: test is the fifth that training holds out; choose all for data it never saw.",
)
@click.option("--batch-size", type=COUNT, metavar="N", default=256, show_default=True)
@click.option("--picture", type=click.Path(dir_okay=False), help="Write the confusion matrix to this file.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@hardware_options
def command(checkpoint, spec, label, part, batch_size, picture, as_json, backend, device, threads) -> None:
    """Measure the model in CHECKPOINT (a file, or the folder of a run) on data.

    Of classes: the accuracy, and that of each. Of numbers, in their own unit: how far off the model is, and how many lie inside
    their 90 % interval.
    """
    from cnnlib.cli.hardware import choose_hardware
    from cnnlib.cli.saved import Trained

    if picture and not picture.lower().endswith((".png", ".pdf", ".svg")):
        raise click.BadParameter(f"{picture!r} should end in .png, .pdf or .svg.", param_hint="--picture")
    choose_hardware(backend, device, threads)
    trained = Trained(checkpoint, device, numbers=True)
    if trained.numbers and picture:
        raise click.UsageError(f"{trained.name} foretells numbers: --picture is of classes.", click.get_current_context())
    samples = _samples(spec, part, trained, label)
    about = {"data": spec, "part": part, "samples": len(samples)}
    if trained.numbers:
        _measure_numbers(trained, samples, about, as_json)
    else:
        _measure_classes(trained, samples, about, as_json, batch_size, picture)


def _measure_classes(trained, samples, about, as_json, batch_size, picture):
    predictions = trained.scores(samples.x, batch_size).argmax(axis=1)
    right = predictions == samples.y
    shares = {name: float(right[samples.y == c].mean()) for c, name in enumerate(trained.classes) if (samples.y == c).any()}
    if as_json:
        click.echo(json.dumps({**about, "accuracy": float(right.mean()), "classes": shares}, indent=2))
    else:
        click.echo(f"{about['data']}, {about['part']}: {right.mean():.2%} of {len(samples):,} right")
        for name, share in shares.items():
            click.echo(f"  {name:20} {share:.1%}")
    if picture:
        from cnnlib import viz

        viz.confusion_matrix(samples.y, predictions, trained.classes).savefig(picture)
        click.echo(f"picture: {picture}", err=as_json)


def _measure_numbers(trained, samples, about, as_json):
    from cnnlib.cli.train_objective import in_words

    predicted = trained.predictive(samples.x)
    if as_json:
        found = {"rmse": predicted.rmse(samples.y), "inside_90": predicted.coverage(samples.y, 0.9)}
        click.echo(json.dumps({**about, **found}, indent=2))
    else:
        click.echo(f"{about['data']}, {about['part']}: {len(samples):,} foretold, {in_words(predicted, samples.y)}")


def _samples(spec, part, trained, label):
    from cnnlib.cli.building import check_shape, load, load_numbers, load_split

    if trained.numbers:
        parts = load_numbers(spec, label)
        samples = _joined(*parts) if part == "all" else parts[part == "test"]
        check_shape(spec, samples, trained)
        return samples
    options = {"label": label, "channels": trained.shape[0] if trained.takes_pictures else 3, "classes": trained.classes}
    if part == "all":
        train, test = load(spec, trained.shape[-1], **options)
        samples = train if test is None else _joined(train, test)
    else:
        samples = load_split(spec, trained.shape[-1], **options)[part == "test"]
    check_shape(spec, samples, trained)
    return samples


def _joined(a, b):
    import numpy as np

    from cnnlib.data import Dataset

    return Dataset(np.concatenate([a.x, b.x]), np.concatenate([a.y, b.y]), a.classes, a.name)
