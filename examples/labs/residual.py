"""Depth with and without skip connections: training loss of plain and of residual networks with 8, 20 and 44 layers.

The networks of the first ResNet paper for small pictures, 8 maps in the first stage, on the first 20,000 pictures of Fashion-
MNIST, 3 epochs of SGD (η = 0.1 falling to 0, momentum 0.9) in batches of 128. Plain and residual networks have the same
layers and parameters.

Source: lecture: ResNet; He, Zhang, Ren & Sun, 2016, figure 6.
"""

import cnnlib as cl
from cnnlib import models, optim
from examples.labs import lab, setting

CLAIM = "Plain networks get worse with depth, in training already; residual ones do not (lecture: ResNet)."
MINUTES = 10
DEPTHS = [8, 20, 44]


def plan(quick):
    if quick:
        return lab.grid(seed=0, depth=[8, 14], skip=[False, True], width=4, epochs=1, data="fashion_subset", pictures=256)
    return lab.grid(seed=range(3), depth=DEPTHS, skip=[False, True], width=8, epochs=3, data="fashion", pictures=20_000)


def measure(seed, depth, skip, width, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = models.create("resnet20", in_channels=1, input_size=28, width=width, depth=depth, skip=skip)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    trainer = setting.fit(net, train, test, seed, epochs, optimizer, batch_size=128, cosine=True)
    return {
        "loss": setting.curve(trainer.history, "loss"),
        "test": setting.curve(trainer.history, "validation_accuracy"),
    }


def last(runs, name, depth, skip):
    return [curve[-1] for curve in runs.get(name, depth=depth, skip=skip)]


def finding(runs):
    rows, readings, depths = [], [], runs.all("depth")
    for skip, name in ((False, "plain"), (True, "residual")):
        rows += [
            {"network": name, "layers": str(depth), "training loss": lab.spread(last(runs, "loss", depth, skip), lab.number),
             "test accuracy": lab.spread(last(runs, "test", depth, skip))}
            for depth in depths
        ]  # fmt: skip
        deep, shallow = (last(runs, "loss", depth, skip) for depth in (depths[-1], depths[0]))
        readings.append(difference(f"In {name} networks depth, {depths[-1]} layers for {depths[0]},", deep, shallow))
    for depth in depths:
        with_skip, without = (last(runs, "loss", depth, skip) for skip in (True, False))
        readings.append(difference(f"With {depth} layers skipping", with_skip, without))
    return rows, " ".join(readings)


def difference(what, new, old):
    return lab.compared(what, new, old, "raises the training loss", "lowers the training loss", lab.signed, "")


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.6)
    for ax, skip in zip(sheet.subplots(1, 2, sharey=True), (False, True), strict=True):
        for depth, colour in zip(runs.all("depth"), CLASSES, strict=False):
            curves = runs.get("loss", depth=depth, skip=skip)
            lab.lines(ax, range(1, len(curves[0]) + 1), curves, colour, f"{depth} layers", marker="o", markersize=3)
        lab.tidy(ax, "epoch", "" if skip else "training loss", "residual" if skip else "plain")
    return sheet
