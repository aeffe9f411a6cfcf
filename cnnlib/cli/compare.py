"""cnnlib compare"""

from __future__ import annotations

import json

import click

from cnnlib.cli.options import COUNT, SEED, Counts, data_options, examples, model_options


@click.command(
    epilog=examples(
        "cnnlib compare lenet5",
        "cnnlib compare lenet5 --data mnist --batch-size 256 --backends reference,cpu,cuda",
        "cnnlib compare mlp --batches 1,4,16,64,256 --chart mlp.png",
        "cnnlib compare mlp --json",
    )
)
@click.argument("model")
@click.option("--data", "spec", default="digits", show_default=True, metavar="NAME|FOLDER|FILE.csv")
@model_options
@data_options
@click.option("--batch-size", type=COUNT, metavar="N", default=64, show_default=True)
@click.option("--backends", metavar="NAME,NAME,...", help="reference, cpu, cuda; without it all that run here.")
@click.option("--batches", type=Counts(), metavar="N,N,...", help="Also time whole steps of these batch sizes.")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True)
@click.option("--threads", type=COUNT, metavar="N", help="Threads of the compiled kernels.")
@click.option("--tf32", is_flag=True, help="Let the GPU round the factors of products to 10 bits.")
@click.option("--inject-error", metavar="KERNEL", help="Make this kernel 1 % wrong, to see that it is found.")
@click.option("--chart", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the times, such as chart.png.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(model, spec, size, width, label, channels, skip_unreadable, batch_size, backends, batches, seed, threads, tf32,
            inject_error, chart, as_json) -> int:  # fmt: skip
    """Run one training step of MODEL on every backend: same seed, same weights, same batch.

    Shows each operation's time and its largest relative difference to the reference, forward and backward; and the time
    and memory of the whole step. Leaves with exit code 1 when backends disagree.
    """
    import os

    import cnnlib as cl
    from cnnlib.cli.building import build, load_split, scaling, trainable, underscored
    from cnnlib.compare import compare

    model = underscored(model)
    kind = trainable(model)
    train, _ = load_split(spec, size or kind.picture_size, label=label, channels=channels, skip_unreadable=skip_unreadable)
    if threads:
        cl.set_num_threads(threads)
    batch = train[:batch_size]
    resize = scaling(spec, train, size)
    x = batch.x if resize is None else resize(batch.x)
    if tf32:
        os.environ["CUPY_TF32"] = "1"  # read by CuPy when it is imported
    result = compare(
        lambda: build(model, x.shape[1:], len(batch.classes), width), x, batch.y, kind.criterion(), seed,
        backends=backends and backends.split(","), batch_sizes=batches or (), inject=inject_error,
    )  # fmt: skip
    if chart:
        from cnnlib.viz import comparison

        comparison(result, f"{model}, batch {batch_size}").savefig(chart)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        from rich.console import Console

        click.echo("milliseconds, forward + backward; Δ: largest difference to the reference, relative to its largest value")
        Console().print(result)
        for line in result.lines():
            click.echo(line)
    return int(not result.agree)
