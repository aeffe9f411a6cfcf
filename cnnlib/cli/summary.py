"""cnnlib summary"""

from __future__ import annotations

import json
import math

import click

from cnnlib.cli.options import COUNT, PositiveNumber, examples


@click.command(
    epilog=examples(
        "cnnlib summary lenet5", "cnnlib summary lenet5 --input 3,64,64 --classes 5", "cnnlib summary mlp --input 784 --json"
    )
)
@click.argument("model")
@click.option("--input", "shape", metavar="C,H,W", help="Shape of one sample.  [default: the model's]")
@click.option("--classes", type=COUNT, metavar="N", help="[default: the model's]")
@click.option("--width", type=PositiveNumber(), metavar="W", help="As of `cnnlib train`.  [default: the model's]")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(model: str, shape: str | None, classes: int | None, width: float | None, as_json: bool) -> None:
    """Show MODEL layer by layer: output shape, weights, biases, neurons, multiply-adds and their share."""
    import cnnlib as cl
    from cnnlib.cli.building import build, default_shape, underscored, usual
    from cnnlib.nn.summary import UNCUT, summary

    model = underscored(model)
    if hasattr(cl.models.get(model), "options_for"):
        sample = _parse(shape) if shape else default_shape(model)
        net = build(model, sample, classes or usual(model, "num_classes", 10), width)
    elif hasattr(cl.models.get(model), "token_shape"):
        if shape or classes or width:
            raise click.UsageError(
                f"{model} reads one token at a time: it has no --input, --classes or --width.", click.get_current_context()
            )
        net = cl.models.create(model)
        sample = net.token_shape
    elif hasattr(cl.models.get(model), "objective"):
        if classes or width:
            raise click.UsageError(f"{model} has no --classes and no --width.", click.get_current_context())
        net = cl.models.create(model, **({"input_shape": _parse(shape)} if shape else {}))
        sample = net.input_shape
    else:  # neurons that learn by rules of their own
        given = {"in_features": shape and math.prod(_parse(shape)), "num_classes": classes, "width": width}
        net = cl.models.create(model, **{name: value for name, value in given.items() if value})
        sample = (net.weight.shape[1],)
    table = summary(net, sample, "int64" if hasattr(net, "token_shape") else None)
    if as_json:
        click.echo(json.dumps(table.as_dict(), indent=2))
        return
    from rich.console import Console

    Console(width=UNCUT).print(table)


def _parse(text: str) -> tuple[int, ...]:
    sizes = text.replace("x", ",").split(",")
    if not all(s.strip().isdecimal() and int(s) > 0 for s in sizes):
        raise click.BadParameter(f"{text!r} is not a shape such as 1,32,32.", param_hint="--input")
    return tuple(int(s) for s in sizes)
