"""The loss after one epoch against the learning rate, for six optimisers.

MLP 784-128-10 with ReLU, MNIST, one epoch in batches of 64; the loss is that on the whole training set afterwards.

Source: lecture: optimisation, "sensitive to learning rate".
"""

import math

import cnnlib as cl
from cnnlib import models
from examples.labs import lab, setting
from examples.labs.optimiser_paths import OPTIMISERS

CLAIM = "How far an optimiser gets depends on the learning rate, for some more than for others (lecture: optimisation)."
MINUTES = 4
RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0]


def plan(quick):
    if quick:
        return lab.grid(seed=0, optimiser=list(OPTIMISERS), rate=[1e-3, 1e-1], data="digits", pictures=500)
    return lab.grid(seed=range(3), optimiser=list(OPTIMISERS), rate=RATES, data="mnist", pictures=60_000)


def measure(seed, optimiser, rate, data, pictures):
    cl.manual_seed(seed)
    train, _ = setting.load(data, pictures)
    net = models.MLP(hidden=(128,))
    trainer = setting.fit(net, train, None, seed, epochs=1, optimizer=OPTIMISERS[optimiser](net.parameters(), lr=rate))
    return {"loss": trainer.evaluate(train)["loss"]}


def mean_loss(runs, optimiser, rate):
    """Infinite where a seed ended without a finite loss."""
    losses = runs.get("loss", optimiser=optimiser, rate=rate)
    return sum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.inf


def finding(runs):
    rows, widths = [], {}
    for optimiser in runs.all("optimiser"):
        losses = {rate: mean_loss(runs, optimiser, rate) for rate in runs.all("rate")}
        best = min(losses, key=losses.get)
        good = [rate for rate, loss in losses.items() if loss <= 2 * losses[best]]
        widths[optimiser] = max(good) / min(good)
        loss = lab.spread(runs.get("loss", optimiser=optimiser, rate=best), lab.number)
        rows.append({"optimiser": optimiser, "best rate": f"{best:g}", "loss": loss,
                     "within twice that loss": f"{min(good):g} … {max(good):g}"})  # fmt: skip
    order = sorted(widths, key=widths.get, reverse=True)
    shown = ", ".join(f"{o} {widths[o]:,.0f}" for o in order)
    return rows, f"Largest over smallest rate that ends within twice the optimiser's best loss: {shown}."


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(6.5, 4)
    ax = sheet.subplots()
    for optimiser, colour in zip(runs.all("optimiser"), CLASSES, strict=True):
        rates = [r for r in runs.all("rate") if mean_loss(runs, optimiser, r) < math.inf]
        by_seed = zip(*(runs.get("loss", optimiser=optimiser, rate=r) for r in rates), strict=True)
        lab.lines(ax, rates, list(by_seed), colour, optimiser, marker="o", markersize=3)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(top=10)
    lab.tidy(ax, "learning rate", "training loss after one epoch", "MLP on MNIST; what left the picture diverged")
    return sheet
