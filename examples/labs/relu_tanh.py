"""ReLU against tanh: epochs until a quarter of the training pictures is still wrong.

Three 5×5 convolutions with 16, 32 and 32 maps and overlapping pooling, one linear layer, on 32×32 colour pictures: CIFAR-10's
first 10,000 where it is there, else emoji in 10 categories. SGD with momentum 0.9, no regularisation; each activation takes,
out of four from 0.001 to 0.03, the learning rate with which it gets there first, as in the paper.

Source: lecture: AlexNet; Krizhevsky, Sutskever & Hinton, 2012, figure 1: ReLU six times as fast, four layers on CIFAR-10.
"""

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.train import Callback
from examples.labs import lab, setting

CLAIM = "ReLUs reach 25 % training error several times sooner than tanh (lecture: AlexNet, figure 1: six times)."
MINUTES = 6
ERROR = 0.25
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}
RATES = [0.001, 0.003, 0.01, 0.03]


def plan(quick):
    if quick:
        return lab.grid(seed=0, activation=list(ACTIVATIONS), rate=0.01, most=2, data="fashion_subset", pictures=300)
    return lab.grid(seed=range(3), activation=list(ACTIVATIONS), rate=RATES, most=25, data="colour", pictures=10_000)


def network(activation, channels, side, classes):
    layers, before = [], channels
    for maps in (16, 32, 32):
        layers += [nn.Conv2d(before, maps, 5, padding=2), ACTIVATIONS[activation](), nn.MaxPool2d(3, 2, padding=1)]
        before, side = maps, -(-side // 2)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side * side, classes))
    for p in net.parameters():  # a start that suits each: He's for ReLU, Glorot's for tanh
        start = nn.init.he_normal if activation == "ReLU" else nn.init.xavier_normal
        p.set(start(p.shape) if p.ndim > 1 else 0.0)
    return net


class UntilError(Callback):
    """Ends the training when few enough of the training pictures are wrong, counted as they come."""

    def on_epoch_end(self, trainer, row):
        if 1 - row["accuracy"] <= ERROR:
            trainer.stop("the error is low enough")
        elif not row["loss"] < 20:
            trainer.stop("the loss diverges")


def measure(seed, activation, rate, most, data, pictures):
    cl.manual_seed(seed)
    train, _ = setting.load(data, pictures)
    net = network(activation, *train.x.shape[1:3], len(train.classes))
    optimizer = optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    trainer = setting.fit(net, train, None, seed, most, optimizer, callbacks=[UntilError()])
    return {"data": train.name.removesuffix(" train"), "error": [1 - a for a in setting.curve(trainer.history, "accuracy")]}


def epochs_needed(errors):
    """Where the line through the error after each epoch crosses ERROR; None when it does not."""
    for i, error in enumerate(errors):
        if error <= ERROR:
            before = errors[i - 1] if i else 0.9
            return i + (before - ERROR) / (before - error)
    return None


def best(runs, activation):
    """(rate, epochs by seed) of the fastest rate at which every seed arrives; (None, []) when there is none."""
    arrived = {}
    for rate in runs.all("rate"):
        needed = [epochs_needed(e) for e in runs.get("error", activation=activation, rate=rate)]
        if None not in needed:
            arrived[rate] = needed
    rate = min(arrived, key=lambda r: sum(arrived[r]), default=None)
    return rate, arrived.get(rate, [])


def finding(runs):
    chosen = {a: best(runs, a) for a in ACTIVATIONS}
    most = runs.all("most")[0]
    rows = [
        {"": a, "learning rate": f"{rate:g}" if needed else "", "pictures": runs.get("data")[0],
         f"epochs to {ERROR:.0%} error": lab.spread(needed, lab.number) if needed else f"more than {most} in some seed"}
        for a, (rate, needed) in chosen.items()
    ]  # fmt: skip
    relu, tanh = chosen["ReLU"][1], chosen["tanh"][1]
    if not relu or not tanh:
        arrived = [a for a, (_, needed) in chosen.items() if needed]
        return rows, f"Within {most} epochs {' and '.join(arrived) or 'neither'} gets there with every seed."
    ratio = sum(tanh) / sum(relu)
    return rows, f"tanh takes {ratio:.1f} times as many epochs as ReLU; in the paper it was six times."


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(6, 3.6)
    ax = sheet.subplots()
    for activation, colour in zip(ACTIVATIONS, CLASSES, strict=False):
        rate, _ = best(runs, activation)
        rate = rate or runs.all("rate")[0]
        for i, errors in enumerate(runs.get("error", activation=activation, rate=rate)):
            ax.plot(range(1, len(errors) + 1), errors, color=colour, marker="o", markersize=3,
                    label=f"{activation}, η {rate:g}" if i == 0 else None)  # fmt: skip
    ax.axhline(ERROR, color="#888888", linestyle="--", linewidth=1)
    lab.tidy(ax, "epoch", "", "training error, a line per seed", as_percent=True)
    return sheet
