"""Two hidden units beside two principal components: digits in the plane, with and without knowing their classes.

MLP 784-256-2-256-10, ReLU but for the two linear units, MNIST, 10 epochs. PCA: the first two components of the same pictures.
How well the classes are apart in the plane: the accuracy of the 15 nearest of 10,000 training points, on the test pictures.

Source: lecture: neurons, "hidden units < D give supervised dimensionality reduction".
"""

import numpy as np

import cnnlib as cl
from cnnlib import nn
from examples.labs import lab, setting

CLAIM = "Fewer hidden units than inputs give a supervised reduction of dimension, unlike PCA (lecture: neurons)."
MINUTES = 2


def plan(quick):
    if quick:
        return lab.grid(seed=0, epochs=2, data="digits")
    return lab.grid(seed=range(3), epochs=10, data="mnist")


def network():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 2),
        nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip


def principal_components(x, n=2):
    """(mean, directions (D, n)) of x (N, D): the eigenvectors of its covariance with the largest eigenvalues."""
    mean = x.mean(axis=0)
    _, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
    return mean, vectors[:, ::-1][:, :n]


def nearest(points, labels, queries, k=15):
    """The most frequent class among the k nearest points, for each query."""
    answers = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), 500):
        distances = ((queries[start : start + 500, None] - points) ** 2).sum(axis=2)
        votes = labels[np.argpartition(distances, k, axis=1)[:, :k]]
        answers[start : start + 500] = [np.bincount(v).argmax() for v in votes]
    return answers


def measure(seed, epochs, data):
    cl.manual_seed(seed)
    train, test = setting.load(data)
    net = network()
    trainer = setting.fit(net, train, test, seed, epochs)
    encoder = cl.Trainer(net[:4], nn.CrossEntropyLoss(), trainer.optimizer, eval_transform=trainer.eval_transform)
    mean, directions = principal_components(train.x.reshape(len(train), -1))
    codes = {
        "network": [encoder.predict(s.x) for s in (train[:10_000], test)],
        "PCA": [(s.x.reshape(len(s), -1) - mean) @ directions for s in (train[:10_000], test)],
    }
    shown = 600 if seed == 0 else 0  # points that the figure shows
    measured = {"whole network": trainer.history["validation_accuracy"][-1], "classes": test.y[:shown]}
    for name, (points, queries) in codes.items():
        measured[name] = (nearest(points, train.y[:10_000], queries) == test.y).mean()
        measured[f"{name} points"] = queries[:shown].round(2)
    return measured


def finding(runs):
    names = {"PCA": "PCA", "network": "two hidden units", "whole network": "the whole network"}
    rows = [{"": what, "accuracy": lab.spread(runs.get(name))} for name, what in names.items()]
    reading = lab.compared(
        "The plane of the hidden units, against that of PCA,", runs.get("network"), runs.get("PCA"),
        "keeps the classes further apart", "keeps the classes less apart",
    )  # fmt: skip
    return rows, reading


def figure(runs):
    from matplotlib import colormaps

    from cnnlib.viz.figure import new_figure

    sheet = new_figure(9, 4.2)
    one = runs[0]["measured"]
    classes, palette = np.array(one["classes"]), colormaps["tab10"]
    for ax, name in zip(sheet.subplots(1, 2), ("PCA", "network"), strict=True):
        points = np.array(one[f"{name} points"])
        for c in np.unique(classes):
            ax.plot(*points[classes == c].T, ".", color=palette(int(c)), markersize=4, label=str(c))
        title = "first two principal components" if name == "PCA" else "two hidden units"
        lab.tidy(ax, title=f"{title}: {lab.percent(one[name], 1)}", legend=False)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    return sheet
