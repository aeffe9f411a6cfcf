"""What the applications share: stored runs, as in the labs, and a training that goes on where it was ended.

An application is a module of this package with

    SHAPE                 what goes in and what comes out
    MINUTES               expected for all runs on the real data, on two cores
    plan(tiny)            the runs: a list of settings, made by `lab.grid`
    measure(**settings)   one run; returns what it measured, by name
    finding(runs)         (rows, reading): a table as dicts, and what it says; both computed
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.data import Dataset
from cnnlib.train import Checkpoint, LRSchedule, NaNStop
from examples.labs import lab

RESULTS = Path(__file__).parent / "results"  # of which the page is made
RUNS = lab.ROOT / "runs" / "applications"  # your own, and the trained networks


def store_of(app: ModuleType, tiny: bool, keep: bool) -> lab.Store:
    return lab.Store((RESULTS if keep else RUNS) / f"{lab.name_of(app)}{'-tiny' if tiny else ''}.json")


def run(app: ModuleType, tiny: bool, keep: bool = False) -> None:
    """Measure what is missing and print what was found."""
    print(f"\n{lab.name_of(app)}: {app.SHAPE}", flush=True)
    runs = lab.complete(store_of(app, tiny, keep), app.plan(tiny), app.measure)
    rows, reading = app.finding(runs)
    print(f"\n{lab.as_text(rows)}\n\n{reading}\n{len(runs)} runs, {minutes(runs):.1f} minutes of computing.")


def minutes(runs: lab.Runs) -> float:
    """Of computing; of a training that was ended and went on, the whole of it."""
    return sum(run["measured"].get("training", run["seconds"]) for run in runs) / 60


def fit(name: str, net: nn.Module, train: Dataset, test: Dataset, epochs: int, lr: float = 1e-3, batch_size: int = 64,
        loss: Any = None, seed: int = 0, metrics: Any = None) -> cl.Trainer:  # fmt: skip
    """Train with Adam, its rate falling to 0 along half a cosine; gradients longer than 1 are cut.

    ``name``: the folder of the checkpoints, from which a run that was ended goes on.
    """
    optimizer = optim.Adam(net.parameters(), lr=lr)
    steps = epochs * -(-len(train) // batch_size)
    callbacks = [
        LRSchedule(optim.CosineAnnealingLR(optimizer, T_max=steps), per="step"),
        Checkpoint(RUNS / name, best=None),
        NaNStop(),
    ]
    trainer = cl.Trainer(net, loss or nn.CrossEntropyLoss(), optimizer, metrics, callbacks, batch_size, seed=seed,
                         clip_grad_norm=1.0)  # fmt: skip
    trainer.fit(train, test, epochs=epochs, resume=True)
    return trainer
