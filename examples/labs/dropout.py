"""Dropout and DropConnect: accuracy on what was trained on, and on what was not.

MLP 784-512-512-10 with ReLU on the first 10,000 pictures of Fashion-MNIST, 30 epochs. Dropout: half of the hidden units.
DropConnect: half of the weights of both hidden layers.

Source: lecture: regularisation; Srivastava et al., "Dropout", 2014; Wan et al., "DropConnect", 2013.
"""

import cnnlib as cl
from cnnlib import nn
from examples.labs import lab, setting

CLAIM = "Dropout and DropConnect narrow the gap between training and test (lecture: regularisation)."
MINUTES = 2
KINDS = ["none", "dropout", "DropConnect"]


def plan(quick):
    if quick:
        return lab.grid(seed=0, kind=KINDS, units=64, epochs=2, data="fashion_subset", pictures=500)
    return lab.grid(seed=range(3), kind=KINDS, units=512, epochs=30, data="fashion", pictures=10_000)


def network(kind, units):
    linear = nn.DropConnect if kind == "DropConnect" else nn.Linear
    layers = [nn.Flatten()]
    for inputs in (784, units):
        layers += [linear(inputs, units), nn.ReLU(), *([nn.Dropout(0.5)] if kind == "dropout" else [])]
    return nn.Sequential(*layers, nn.Linear(units, 10))


def measure(seed, kind, units, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    trainer = setting.fit(network(kind, units), train, test, seed, epochs)
    history = trainer.history
    return {
        "test": setting.curve(history, "validation_accuracy"),
        "test_loss": setting.curve(history, "validation_loss"),
        "train": trainer.evaluate(train)["accuracy"],  # without dropout, after the last epoch
    }


def last(runs, kind):
    return [curve[-1] for curve in runs.get("test", kind=kind)]


def finding(runs):
    rows, readings, gaps = [], [], {}
    for kind in KINDS:
        train, test = runs.get("train", kind=kind), last(runs, kind)
        gaps[kind] = [a - b for a, b in zip(train, test, strict=True)]
        rows.append({"": kind, "training": lab.spread(train), "test": lab.spread(test), "gap": lab.spread(gaps[kind])})
    for kind in KINDS[1:]:
        name = kind[0].upper() + kind[1:]
        readings.append(lab.compared(f"{name}", gaps[kind], gaps["none"], "widens the gap", "narrows the gap"))
        readings.append(
            lab.compared(f"{name}", last(runs, kind), last(runs, "none"), "raises test accuracy", "lowers test accuracy")
        )
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.6)
    left, right = sheet.subplots(1, 2)
    for kind, colour in zip(KINDS, CLASSES, strict=False):
        curves = runs.get("test", kind=kind)
        epochs = range(1, len(curves[0]) + 1)
        lab.lines(left, epochs, curves, colour, kind)
        lab.lines(right, epochs, runs.get("test_loss", kind=kind), colour, kind)
    lab.tidy(left, "epoch", "", "test accuracy", as_percent=True)
    lab.tidy(right, "epoch", "", "test loss")
    return sheet
