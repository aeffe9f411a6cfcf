"""Max pooling over windows that overlap, 3×3 with stride 2, and that do not, 2×2 with stride 2.

Two 5×5 convolutions with 16 and 32 maps, each pooled to half its side, on the first 20,000 pictures of Fashion-MNIST, 6
epochs of Adam with a rate that falls to 0. The number of parameters is the same.

Source: lecture: AlexNet; Krizhevsky, Sutskever & Hinton, 2012, section 3.4: 0.4 points of top-1 error, and less overfitting.
"""

import cnnlib as cl
from cnnlib import nn
from examples.labs import lab, setting

CLAIM = "Overlapping pooling lowers the error a little and overfits less (lecture: AlexNet, 0.4 points on ImageNet)."
MINUTES = 6


def plan(quick):
    if quick:
        return lab.grid(seed=range(2), overlap=[False, True], epochs=1, data="fashion_subset", pictures=300)
    return lab.grid(seed=range(5), overlap=[False, True], epochs=15, data="fashion", pictures=20_000)


def measure(seed, overlap, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = setting.small_convnet(pool=lambda: nn.MaxPool2d(3, 2, padding=1) if overlap else nn.MaxPool2d(2))
    trainer = setting.fit(net, train, test, seed, epochs, cosine=True)
    test_accuracy = setting.curve(trainer.history, "validation_accuracy")
    return {"test": test_accuracy, "train": trainer.evaluate(train)["accuracy"]}


def last(runs, overlap):
    return [curve[-1] for curve in runs.get("test", overlap=overlap)]


def gap(runs, overlap):
    return [a - b for a, b in zip(runs.get("train", overlap=overlap), last(runs, overlap), strict=True)]


def finding(runs):
    rows = [
        {"pooling": name, "test": lab.spread(last(runs, overlap)), "training": lab.spread(runs.get("train", overlap=overlap)),
         "gap": lab.spread(gap(runs, overlap))}
        for overlap, name in ((False, "2×2, stride 2"), (True, "3×3, stride 2"))
    ]  # fmt: skip
    test = lab.compared("Overlap", last(runs, True), last(runs, False), "raises test accuracy", "lowers test accuracy")
    return rows, f"{test} {lab.compared('Overlap', gap(runs, True), gap(runs, False), 'widens the gap', 'narrows the gap')}"


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.4)
    left, right = sheet.subplots(1, 2)
    for overlap, colour in ((False, CLASSES[1]), (True, CLASSES[0])):
        name = "3×3, stride 2" if overlap else "2×2, stride 2"
        epochs = range(1, len(runs[0]["measured"]["test"]) + 1)
        lab.lines(left, epochs, runs.get("test", overlap=overlap), colour, name)
        right.plot(gap(runs, overlap), last(runs, overlap), "o", color=colour, label=name)
    lab.tidy(left, "epoch", "", "test accuracy", as_percent=True)
    lab.tidy(right, "training − test accuracy", "test accuracy", "at the end, a point per seed", as_percent=True)
    right.xaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g} %")
    return sheet
