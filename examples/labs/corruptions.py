"""Accuracy under shift, rotation and noise, of three networks: with max pooling, with average pooling, without pooling.

Two 5×5 convolutions with 16 and 32 maps, each followed by ReLU and by what halves the side: pooling 2×2; without pooling the
convolution itself has stride 2. All have the same parameters. First 20,000 pictures of MNIST as they are, 3 epochs; tested on
2,000 test pictures that are shifted (in all four directions), rotated (both ways), or have Gaussian noise added.

Source: lecture: convolutional networks, pooling "makes robust to small shifts, rotations, corruptions".
"""

import numpy as np

import cnnlib as cl
from cnnlib import nn
from examples.labs import lab, setting

CLAIM = "Pooling makes a network robust to small shifts, rotations and corruptions (lecture: convolutional networks)."
MINUTES = 2
NETWORKS = {"max pooling": nn.MaxPool2d, "average pooling": nn.AvgPool2d, "no pooling": None}
STRENGTHS = {"shift": [0, 1, 2, 3, 4, 5], "rotation": [0, 10, 20, 30, 40, 50], "noise": [0, 0.1, 0.2, 0.3, 0.4, 0.6]}
UNITS = {"shift": "pixels", "rotation": "degrees", "noise": "standard deviation"}


def plan(quick):
    if quick:
        return lab.grid(seed=0, network=list(NETWORKS), epochs=2, data="digits", pictures=800)
    return lab.grid(seed=range(3), network=list(NETWORKS), epochs=3, data="mnist", pictures=20_000)


def build(name):
    if NETWORKS[name]:
        return setting.small_convnet(pool=lambda: NETWORKS[name](2))
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip


def shifted(x, down, right):
    """x moved by whole pixels, zeros coming in."""
    H, W = x.shape[2:]
    y = np.zeros_like(x)
    y[:, :, max(down, 0) : H + min(down, 0), max(right, 0) : W + min(right, 0)] = (
        x[:, :, max(-down, 0) : H + min(-down, 0), max(-right, 0) : W + min(-right, 0)]
    )  # fmt: skip
    return y


def corrupted(x, kind, strength):
    """The corrupted versions of x; one when there is nothing to vary."""
    from scipy import ndimage

    if kind == "shift":
        return [shifted(x, strength * d, strength * r) for d, r in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    if kind == "rotation":
        return [ndimage.rotate(x, angle, axes=(2, 3), reshape=False, order=1) for angle in (strength, -strength)]
    noise = np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32)
    return [x + np.float32(strength) * noise]


def measure(seed, network, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = build(network)
    trainer = setting.fit(net, train, test, seed, epochs)
    x, y = test.x[:2000], test.y[:2000]

    def accuracy(kind, strength):
        return np.mean([(trainer.predict(c).argmax(axis=1) == y).mean() for c in corrupted(x, kind, strength)])

    return {kind: [accuracy(kind, s) for s in strengths] for kind, strengths in STRENGTHS.items()}


def averages(runs, kind, network):
    """Mean accuracy over the strengths, the untouched pictures left out; by seed."""
    return [sum(curve[1:]) / (len(curve) - 1) for curve in runs.get(kind, network=network)]


def finding(runs):
    kinds = {kind: f"{kind} of {s[1]} … {s[-1]} {UNITS[kind]}" for kind, s in STRENGTHS.items()}
    rows = [
        {
            "": name,
            "untouched": lab.spread([curve[0] for curve in runs.get("shift", network=name)]),
            **{title: lab.spread(averages(runs, kind, name)) for kind, title in kinds.items()},
        }
        for name in NETWORKS
    ]
    readings = [
        lab.compared(f"Under {kind} {name}, against none,", averages(runs, kind, name), averages(runs, kind, "no pooling"),
                     "is ahead", "is behind")
        for kind in STRENGTHS
        for name in ("max pooling", "average pooling")
    ]  # fmt: skip
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(10, 3.4)
    for ax, (kind, strengths) in zip(sheet.subplots(1, 3, sharey=True), STRENGTHS.items(), strict=True):
        for name, colour in zip(NETWORKS, CLASSES, strict=False):
            lab.lines(ax, strengths, runs.get(kind, network=name), colour, name)
        lab.tidy(ax, UNITS[kind], title=f"test accuracy under {kind}", as_percent=True, legend=kind == "shift")
    return sheet
