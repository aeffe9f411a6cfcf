"""Digits in the plane: the deep autoencoder of Hinton and Salakhutdinov beside PCA, pre-trained and from random weights.

The first 20,000 digits of MNIST; 784-500-250-2 sigmoids with a linear code, and back; cross-entropy, Adam with learning
rate 10⁻³, batches of 128. Pre-trained: RBMs by CD-1, 4 epochs each, then 12 epochs of fine-tuning of the unrolled stack.
Random: the same autoencoder, 24 epochs. PCA: two components. How well the classes are apart in the plane: the accuracy of
the 15 nearest of 10,000 training points, on the test pictures.

Source: lecture: unsupervised learning, deep autoencoder; Hinton & Salakhutdinov, "Reducing the dimensionality of data with
neural networks", Science 2006 (784-1000-500-250-2).
"""

import numpy as np

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.train import ObjectiveTrainer
from examples.labs import lab, setting
from examples.labs.bottleneck import nearest, principal_components

CLAIM = "A deep autoencoder's two numbers tell more of a digit than two principal components (lecture: deep autoencoder)."
MINUTES = 3
METHODS = {"PCA": "PCA", "random": "autoencoder, random start", "pre-trained": "autoencoder, RBMs first"}


def plan(quick):
    if quick:
        return lab.grid(seed=0, method=list(METHODS), sizes=[[20, 10]], epochs=1, data="digits", pictures=500)
    runs = lab.grid(seed=range(3), method=list(METHODS), sizes=[[500, 250]], epochs=4, data="mnist", pictures=20_000)
    return [run for run in runs if run["method"] != "PCA" or run["seed"] == 0]  # PCA draws nothing


def measure(seed, method, sizes, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    if method == "PCA":
        flat = [part.x.reshape(len(part), -1) for part in (train, test)]
        mean, directions = principal_components(flat[0])
        points, queries = ((x - mean) @ directions for x in flat)
        answer, curve = (queries @ directions.T + mean).reshape(test.x.shape), []
    else:
        codes = (*sizes, 2)
        net = (models.DeepAutoencoder((1, 28, 28), codes, epochs_per_layer=epochs) if method == "pre-trained" else
               models.Autoencoder((1, 28, 28), codes, "sigmoid", error="cross_entropy"))  # fmt: skip
        trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-3), batch_size=128, seed=seed, progress=False)
        curve = [float(v) for v in trainer.fit(train, test, epochs=6 * epochs)["validation_mse"]]
        if method == "pre-trained":  # before that it is the error of a layer, not of pictures
            curve = [None] * (len(codes) * epochs) + curve[len(codes) * epochs :]
        answer = trainer.predict(test.x)
        points, queries = (_codes(net, part.x) for part in (train[:10_000], test))
    shown = 600 if seed == 0 else 0  # points that the figure shows
    return {
        "mse": np.square(answer - test.x).mean(),
        "apart": (nearest(points[:10_000], train.y[:10_000], queries) == test.y).mean(),
        "curve": curve,
        "points": queries[:shown].round(2),
        "classes": test.y[:shown],
    }


def _codes(net, x):
    with cl.no_grad():
        return np.concatenate([net.encode(x[i : i + 1000]).numpy() for i in range(0, len(x), 1000)])


def finding(runs):
    four = "{:.4f}".format
    rows = [
        {"": what, "squared error per pixel": lab.spread(runs.get("mse", method=m), four),
         "15 nearest neighbours": lab.spread(runs.get("apart", method=m))}
        for m, what in METHODS.items()
    ]  # fmt: skip
    n = len(runs.where(method="random"))
    pca = {name: runs.get(name, method="PCA") * n for name in ("mse", "apart")}
    signed = lambda v: f"{v:+.4f}".replace("-", "−")  # noqa: E731
    readings = [
        lab.compared(f"The {METHODS[m]}, against PCA,", runs.get("mse", method=m), pca["mse"], "makes the error larger",
                     "makes the error smaller", signed, "")
        for m in ("pre-trained", "random")
    ] + [
        lab.compared("Starting from RBMs, against random weights and as many epochs in all,",
                     runs.get("mse", method="pre-trained"), runs.get("mse", method="random"), "makes the error larger",
                     "makes the error smaller", signed, ""),
        lab.compared("In the plane the codes of the pre-trained one, against PCA's,", runs.get("apart", method="pre-trained"),
                     pca["apart"], "keep the classes further apart", "keep the classes less apart"),
    ]  # fmt: skip
    return rows, " ".join(readings)


def figure(runs):
    from matplotlib import colormaps

    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(13, 3.8)
    palette, axes = colormaps["tab10"], sheet.subplots(1, 4)
    for ax, (method, what) in zip(axes, METHODS.items(), strict=False):
        one = runs.where(method=method)[0]["measured"]
        points, classes = np.array(one["points"]), np.array(one["classes"])
        for c in np.unique(classes):
            ax.plot(*points[classes == c].T, ".", color=palette(int(c)), markersize=3, label=str(c))
        lab.tidy(ax, title=f"{what}\nerror {one['mse']:.4f}, neighbours {lab.percent(one['apart'], 1)}", legend=False)
    axes[2].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    for i, method in enumerate(("random", "pre-trained")):
        curves = runs.get("curve", method=method)
        axes[3].plot(range(1, len(curves[0]) + 1), np.mean(curves, axis=0), color=CLASSES[i], label=METHODS[method])
    axes[3].axhline(runs.get("mse", method="PCA")[0], color="grey", linestyle="--", label="PCA")
    lab.tidy(axes[3], "epoch", "squared error, test")
    return sheet
