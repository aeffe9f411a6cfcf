"""The same training step on every backend: do they agree, where does the time go, and from which batch size does which one win?

    python examples/compare_backends.py --model lenet5 --out compare
    python examples/compare_backends.py --model lenet5 --backends reference,cpu,cuda --inject-error conv2d_backward_weight

Writes compare/lenet5.json and compare/lenet5.png. The digits are the real ones that come with the library.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

import cnnlib as cl
from cnnlib import models, viz
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.compare import compare

BATCHES = (1, 4, 16, 64, 256)
NETWORKS = {
    "lenet5": (models.LeNet5, 32),  # and the size of its pictures
    "mlp": (lambda: cl.nn.Sequential(cl.nn.Flatten(), models.MLP(64, (128, 64), 10)), 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=NETWORKS, default="lenet5")
    parser.add_argument(
        "--backends", default="reference,cpu,cuda", help="those that cannot run here are listed with the reason"
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--inject-error", metavar="KERNEL", help="make this kernel 1 %% wrong and see it found")
    parser.add_argument("--out", type=Path, default=Path("compare"), metavar="DIR")
    args = parser.parse_args()

    make, size = NETWORKS[args.model]
    batch = cl.data.digits(size=size)[0][: args.batch_size]
    result = compare(
        make, batch.x, batch.y, backends=args.backends.split(","), batch_sizes=BATCHES, inject=args.inject_error
    )  # fmt: skip
    Console().print(result)
    print("\n".join(result.lines()))

    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.model}.json"
    path.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    viz.comparison(result, f"{args.model}, batch {args.batch_size}").savefig(path.with_suffix(".png"))
    print(f"{path} and {path.with_suffix('.png')} written")


if __name__ == "__main__":
    with reader_may_leave():
        main()
