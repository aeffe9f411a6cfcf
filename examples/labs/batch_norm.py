"""Batch normalisation in a sigmoid network: accuracy by step, and what reaches a sigmoid during training.

The network of Ioffe and Szegedy's section 4.1: three hidden layers of 100 sigmoids, MNIST, batches of 60, SGD. With batch
normalisation it stands before each sigmoid. Every 200 steps: accuracy on the test set, and the 15th, 50th and 85th
percentile, over the test set, of the input of the first sigmoid in the last hidden layer. Wander: between the lowest and the
highest median after the first tenth of the training, in widths (85th − 15th percentile at the end).

Source: lecture: batch normalisation; Ioffe & Szegedy, "Batch normalization", 2015, figure 1.
"""

import numpy as np

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.train import Callback
from examples.labs import lab, setting

CLAIM = "Batch normalisation speeds up training and keeps the inputs of a sigmoid steady (lecture: batch normalisation)."
MINUTES = 4
TARGET = 0.95  # accuracy; the steps to it are counted


def plan(quick):
    if quick:
        return lab.grid(seed=0, norm=[False, True], rate=0.1, epochs=2, every=10, data="digits")
    return lab.grid(seed=range(3), norm=[False, True], rate=0.1, epochs=20, every=200, data="mnist")


def network(norm, units=100):
    layers = [nn.Flatten()]
    for inputs in (784, units, units):
        layers += [nn.Linear(inputs, units), *([nn.BatchNorm1d(units)] if norm else []), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(units, 10))


class Watch(Callback):
    """Looks at the network every so many steps, in evaluation, on all test pictures."""

    def __init__(self, test, every):
        self.test, self.every = test, every
        self.steps, self.accuracy, self.percentiles = [], [], []

    def on_step(self, trainer, step):
        if trainer.step % self.every and trainer.step > 1:
            return
        inputs = []
        last = [m for m in trainer.model if isinstance(m, nn.Sigmoid)][-1]
        remove = last.register_forward_hook(lambda module, x, y: inputs.append(x[0].numpy()[:, 0]))
        answers = trainer.predict(self.test.x).argmax(axis=1)
        remove()
        self.steps.append(trainer.step)
        self.accuracy.append(float((answers == self.test.y).mean()))
        self.percentiles.append(np.percentile(np.concatenate(inputs), [15, 50, 85]))


def measure(seed, norm, rate, epochs, every, data):
    cl.manual_seed(seed)
    train, test = setting.load(data)
    net, watch = network(norm), Watch(test, every)
    optimizer = optim.SGD(net.parameters(), lr=rate)
    # evaluation in large batches; training in batches of 60 through a loader of its own
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optimizer, callbacks=[watch], batch_size=1000, progress=False)
    trainer.fit(cl.data.DataLoader(train, 60, seed=seed, transform=cl.data.Normalize.fit(train)), epochs=epochs)
    return {"steps": watch.steps, "accuracy": watch.accuracy, "percentiles": watch.percentiles}


def steps_to_target(measured):
    return next((s for s, a in zip(measured["steps"], measured["accuracy"], strict=True) if a >= TARGET), None)


def drift(measured):
    """How far the median wanders, as the text above defines it."""
    percentiles = measured["percentiles"]
    medians = [p[1] for p in percentiles[len(percentiles) // 10 :]]
    return (max(medians) - min(medians)) / (percentiles[-1][2] - percentiles[-1][0])


def finding(runs):
    rows, first, last, wander = [], {}, {}, {}
    for norm in (False, True):
        some = runs.where(norm=norm)
        first[norm] = [steps_to_target(run["measured"]) for run in some]
        last[norm] = [curve[-1] for curve in some.get("accuracy")]
        wander[norm] = [drift(run["measured"]) for run in some]
        rows.append({
            "batch normalisation": "with" if norm else "without",
            f"steps to {TARGET:.0%}": lab.spread(first[norm], lab.number) if None not in first[norm] else "not with every seed",
            "test accuracy at the end": lab.spread(last[norm]),
            "wander of the median": lab.spread(wander[norm], lab.number),
        })  # fmt: skip
    faster = ""
    if None not in first[False] + first[True]:
        faster = f"Without it {TARGET:.0%} take {sum(first[False]) / sum(first[True]):.1f} times as many steps. "
    ahead = lab.compared("At the end batch normalisation", last[True], last[False], "is ahead", "is behind")
    steadier = lab.compared("Batch normalisation", wander[True], wander[False], "lets the median wander further",
                            "keeps the median steadier", lab.signed, " widths")  # fmt: skip
    return rows, f"{faster}{ahead} {steadier}"


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(11, 3.6)
    accuracy, *inputs = sheet.subplots(1, 3)
    inputs[1].sharey(inputs[0])
    for norm, colour, ax in zip((False, True), (CLASSES[1], CLASSES[0]), inputs, strict=True):
        some, name = runs.where(norm=norm), "with batch normalisation" if norm else "without"
        steps = some[0]["measured"]["steps"]
        lab.lines(accuracy, steps, some.get("accuracy"), colour, name)
        low, middle, high = zip(*some[0]["measured"]["percentiles"], strict=True)
        ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0, label="15 … 85 %")
        ax.plot(steps, middle, color=colour, linewidth=1.2, label="median")
        lab.tidy(ax, "step", "" if norm else "input of a sigmoid", name)
    lab.tidy(accuracy, "step", "", "test accuracy", as_percent=True)
    accuracy.set_ylim(0.7, 1.0)
    return sheet
