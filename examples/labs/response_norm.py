"""Local response normalisation on and off, in a small network with AlexNet's order: convolution, ReLU, LRN, pooling.

Two 5×5 convolutions with 16 and 32 maps on the first 20,000 pictures of Fashion-MNIST, 15 epochs of Adam with a rate that falls
to 0. LRN with AlexNet's constants: 5 channels, k = 2, α = 10⁻⁴ per channel, β = ¾.

Source: lecture: normalisation; Krizhevsky, Sutskever & Hinton, 2012, section 3.3: 1.4 points of top-1 error on ImageNet.
"""

import cnnlib as cl
from cnnlib import nn
from examples.labs import lab, setting

CLAIM = "Local response normalisation improves generalisation (lecture: normalisation; AlexNet: 1.4 points on ImageNet)."
MINUTES = 6


def plan(quick):
    if quick:
        return lab.grid(seed=range(2), lrn=[False, True], epochs=1, data="fashion_subset", pictures=300)
    return lab.grid(seed=range(5), lrn=[False, True], epochs=15, data="fashion", pictures=20_000)


def alexnet_norm():
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def measure(seed, lrn, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = setting.small_convnet(norm=alexnet_norm if lrn else nn.Identity)
    history = setting.fit(net, train, test, seed, epochs, cosine=True).history
    return {"test": setting.curve(history, "validation_accuracy"), "loss": setting.curve(history, "loss")}


def last(runs, lrn):
    return [curve[-1] for curve in runs.get("test", lrn=lrn)]


def losses(runs, lrn):
    return [curve[-1] for curve in runs.get("loss", lrn=lrn)]


def finding(runs):
    on, off = last(runs, True), last(runs, False)
    rows = [
        {"": name, "test accuracy": lab.spread(last(runs, lrn)), "training loss": lab.spread(losses(runs, lrn), lab.number)}
        for lrn, name in ((False, "without LRN"), (True, "with LRN"))
    ]
    return rows, lab.compared("LRN", on, off, "raises test accuracy", "lowers test accuracy")


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.4)
    left, right = sheet.subplots(1, 2)
    for lrn, colour in ((False, CLASSES[1]), (True, CLASSES[0])):
        name = "with LRN" if lrn else "without"
        epochs = range(1, len(runs[0]["measured"]["test"]) + 1)
        lab.lines(left, epochs, runs.get("test", lrn=lrn), colour, name)
        lab.lines(right, epochs, runs.get("loss", lrn=lrn), colour, name)
    lab.tidy(left, "epoch", "", "test accuracy", as_percent=True)
    lab.tidy(right, "epoch", "", "training loss")
    return sheet
