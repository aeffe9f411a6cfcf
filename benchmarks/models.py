"""The full-size networks of cnnlib.models against the same layers in PyTorch: time and memory on pictures of 224×224.

    python -m benchmarks.models                                     # batches of 4, two threads
    python -m benchmarks.models --only resnet50 --batch 1 --json here.json

For each network a training step (forward, loss, backward, SGD with momentum) and an evaluation without gradients. Time: the
median; a ratio is PyTorch's divided by ours. Memory: the peak of the process above what it held after its imports, so with
parameters, gradients and momentum. Each contender is a process, and they take turns (benchmarks/turns.py). Nothing else should
run meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rows.row import Row, channels_last
from benchmarks.turns import Contender, memory, take_turns
from cnnlib.cli.pipe import reader_may_leave

NETWORKS = ("alexnet_single", "vgg16", "googlenet_bn", "resnet50")
BATCHES = (1, 4)
FAMILY = "full-size networks"
LIMIT = 6 * 2**30  # bytes that a training step may take


# ---- rows, as the contenders' processes ask for them


def all_rows() -> list[Row]:
    rows = []
    for name in NETWORKS:
        for batch in BATCHES:
            rows += [row(f"{name} step, batch {batch}", name, batch, our_step, their_step),
                     row(f"{name} evaluation, batch {batch}", name, batch, our_evaluation, their_evaluation)]  # fmt: skip
    return rows


def row(title: str, name: str, batch: int, ours: Callable, theirs: Callable) -> Row:
    return Row(
        name=title,
        family=FAMILY,
        inputs=lambda draw: (),
        ours=lambda kernels: ours(name, batch, kernels.name),
        theirs={
            "": partial(theirs, name=name, batch=batch),
            "channels_last": partial(theirs, name=name, batch=batch, last=True),
        },
    )


def our_step(name: str, batch: int, backend: str) -> Callable[[], Any]:
    from benchmarks.nets import ours

    return ours(partial(full_size, name, batch), backend)


def our_evaluation(name: str, batch: int, backend: str) -> Callable[[], Any]:
    import numpy as np

    import cnnlib as cl

    net, shape = full_size(name, batch)
    net.eval()
    x = cl.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))

    def evaluate():
        with cl.use(backend), cl.no_grad():
            return net(x)

    return evaluate


def full_size(name: str, batch: int) -> tuple[Any, tuple[int, ...]]:
    """The network and the shape of its batch."""
    from cnnlib import models

    net = models.create(name)
    return net, (batch, *net.input_shape)  # type: ignore[misc]


def their_step(torch: Any, name: str, batch: int, last: bool = False) -> Callable[[], Any]:
    model, x = twin(torch, name, batch, last)
    y, cross_entropy = torch.randint(0, 1000, (batch,)), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step():
        optimizer.zero_grad()
        outputs = model(x)
        main, *heads = outputs if isinstance(outputs, tuple) else (outputs,)
        J = cross_entropy(main, y) + 0.3 * sum(cross_entropy(head, y) for head in heads)
        J.backward()
        optimizer.step()
        return J

    return step


def their_evaluation(torch: Any, name: str, batch: int, last: bool = False) -> Callable[[], Any]:
    model, x = twin(torch, name, batch, last)
    model.eval()

    def evaluate():
        with torch.no_grad():
            return model(x)

    return evaluate


def twin(torch: Any, name: str, batch: int, last: bool) -> tuple[Any, Any]:
    from benchmarks.twins import TWINS

    model, x = TWINS[name](torch), torch.randn(batch, 3, 224, 224)
    if last:
        model, x = model.to(memory_format=torch.channels_last), channels_last(torch, x)
    return model, x


# ---- the command


def main() -> None:
    options = arguments()
    kinds = ["cnnlib", "torch"] if importlib.util.find_spec("torch") else ["cnnlib"]
    wanted = [r.name for r in all_rows() if options.only in r.name and r.name.endswith(f"batch {options.batch}")]
    figures = []
    for name in wanted:
        with ExitStack() as stack:  # new processes for each row: what one row left in a heap is not the next one's
            turns = [stack.enter_context(Contender(kind, options.threads, __spec__.name)) for kind in kinds]
            seconds = take_turns(turns, name, options.seconds)
        peaks = {kind: memory(kind, options.threads, name, __spec__.name) for kind in kinds}
        figures.append({"name": name, "threads": options.threads, "seconds": seconds, "memory": peaks})
        print(line(figures[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this text")
    parser.add_argument("--batch", type=int, choices=BATCHES, default=4, help="pictures in a batch, default 4")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row and contender; at least five calls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser.parse_args()


def line(found: dict) -> str:
    """``resnet50 step, batch 4: ours 1.20 s, torch 1.30 s (1.08) …; memory ours 900 MiB, torch 1,000 MiB``."""
    ours = found["seconds"]["cnnlib"]
    times = [f"ours {ours:.3f} s"]
    times += [f"{kind} {t:.3f} s ({t / ours:.2f})" for kind, t in found["seconds"].items() if kind != "cnnlib"]
    held = {"ours" if kind == "cnnlib" else kind: n for kind, n in found["memory"].items()}
    peaks = [f"{who} {n / 2**20:,.0f} MiB" if n else f"{who} not known" for who, n in held.items()]
    over = " ABOVE 6 GiB" if (held["ours"] or 0) > LIMIT else ""
    return f"{found['name']}: {', '.join(times)}; memory {', '.join(peaks)}{over}"


if __name__ == "__main__":
    with reader_may_leave():
        main()
