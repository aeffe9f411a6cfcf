"""Full, local and convolutional connections on centred and on shifted digits, by the number of training pictures.

Each network has one hidden layer of 1,152 ReLUs, then a linear one. Full: each sees the whole picture. Local: 12×12×8 units
that each see 5×5 pixels, with weights of their own. Convolutional: the same units with shared weights. Pooled: 72 such maps, of
which 3×3 max pooling leaves 4×4, so that the linear layer sees 1,152 numbers again. MNIST, whose digits are centred; shifted:
each digit, in training and test, at a random place up to 4 pixels off. 1,500 steps in batches of 64, whatever the number; the
training pictures are others for each seed.

Source: lecture: convolutional networks, "locally connected layers pay when images are registered".
"""

import numpy as np

import cnnlib as cl
from cnnlib import nn
from cnnlib.data import Dataset
from examples.labs import lab, setting

CLAIM = "Locally connected layers pay when pictures are registered, shared weights else (lecture: convolutional networks)."
MINUTES = 12
NETWORKS = ["full", "local", "convolutional", "pooled"]
MOST = 4  # pixels of a shift; MNIST's digits are 20×20 in the middle of 28×28


def plan(quick):
    if quick:
        return lab.grid(seed=0, shifted=[False, True], pictures=[100, 300], network=NETWORKS, steps=30, data="digits")
    sizes = [300, 1000, 3000, 10_000, 30_000]
    return lab.grid(seed=range(3), shifted=[False, True], pictures=sizes, network=NETWORKS, steps=1500, data="mnist")


def build(name):
    first = {
        "full": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 8 * 12 * 12)),
        "local": lambda: nn.LocallyConnected2d(1, 8, input_size=28, kernel_size=5, stride=2),
        "convolutional": lambda: nn.Conv2d(1, 8, 5, stride=2),
        "pooled": lambda: nn.Sequential(nn.Conv2d(1, 72, 5, stride=2), nn.MaxPool2d(3)),
    }[name]()
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10))


def moved(data, seed):
    """Each picture at a random place, up to MOST pixels off."""
    padded = cl.data.Pad(MOST)(data.x)
    top, left = np.random.default_rng(seed).integers(0, 2 * MOST + 1, size=(2, len(data)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, data.x.shape[2:], axis=(2, 3))
    return Dataset(windows[np.arange(len(data)), :, top, left], data.y, data.classes, f"{data.name}, moved")


def measure(seed, shifted, pictures, network, steps, data):
    cl.manual_seed(seed)
    train, test = setting.load(data)
    train = train.subset(np.random.default_rng(seed).permutation(len(train))[:pictures])
    if shifted:
        train, test = moved(train, seed), moved(test, 1000 + seed)
    net = build(network)
    epochs = max(1, round(steps * 64 / len(train)))
    trainer = setting.fit(net, train, None, seed, epochs)
    return {"test": trainer.evaluate(test)["accuracy"], "parameters": sum(p.size for p in net.parameters())}


def finding(runs):
    rows = [
        {
            "digits": "shifted" if shifted else "centred",
            "training pictures": f"{pictures:,}",
            **{n: lab.spread(runs.get("test", shifted=shifted, pictures=pictures, network=n)) for n in NETWORKS},
        }
        for shifted in (False, True)
        for pictures in runs.all("pictures")
    ]
    parameters = ", ".join(f"{n} {runs.get('parameters', network=n)[0]:,}" for n in NETWORKS)
    readings = [f"On {'shifted' if s else 'centred'} digits the best is {best(runs, s)}." for s in (False, True)]
    return rows, f"{' '.join(readings)} Parameters: {parameters}."


def best(runs, shifted):
    """The best network for each number of pictures, in words, with its lead over the second."""
    said = []
    for pictures in runs.all("pictures"):
        means = {n: np.mean(runs.get("test", shifted=shifted, pictures=pictures, network=n)) for n in NETWORKS}
        first, second, *_ = sorted(means, key=means.get, reverse=True)
        said.append(f"{first} with {pictures:,} ({lab.points(means[first] - means[second])} points over {second})")
    return ", ".join(said)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.8)
    for ax, shifted in zip(sheet.subplots(1, 2, sharey=True), (False, True), strict=True):
        for name, colour in zip(NETWORKS, CLASSES, strict=False):
            sizes = runs.all("pictures")
            errors = [[1 - v for v in runs.get("test", shifted=shifted, pictures=p, network=name)] for p in sizes]
            lab.lines(ax, sizes, list(zip(*errors, strict=True)), colour, name, marker="o", markersize=3)
        ax.set_xscale("log")
        ax.set_yscale("log")
        lab.tidy(ax, "training pictures", "", f"test error, {'shifted' if shifted else 'centred'} digits", as_percent=True)
        ax.yaxis.set_minor_formatter(lambda v, _: f"{100 * v:.3g} %" if f"{v:.0e}"[0] in "25" else "")
    return sheet
