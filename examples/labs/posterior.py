"""Is what a network calls 90 % sure, right nine times of ten? Four ways to say how sure one is.

y is foretold from x by one hidden layer of 50 tanh and normal noise of a learnt size. "MAP" knows the most probable weights
only (weight decay, prior N(0, 1)), the other three draw from a posterior: Bayes by backprop, MC dropout (p = 0.1), Langevin
dynamics (3,000 steps of the whole set from where 100 epochs of Adam lead, η = 0.06 σ²). 300 epochs of Adam with rate 0.01,
batches of 64.

diabetes: 442 patients of scikit-learn, 10 measurements, how the disease went on in a year. co2: 526 months of Mauna Loa, from
the date, its year's sine and cosine and those of half a year. Beyond the data: the fifth that lies furthest in a direction, of
diabetes a random one of each split, of co2 time. Between them: a tenth drawn at random from the range of what is learnt from.
20 splits; means and their standard errors.

Source: lecture: Bayesian deep learning; Blundell et al. 2015; Gal & Ghahramani 2016; Welling & Teh 2011; Foong et al.,
"'In-between' uncertainty in Bayesian neural networks", 2019 (between and beyond).
"""

import math

import numpy as np

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.data import series
from cnnlib.models.deep_probabilistic import weight_decay_of
from cnnlib.train import ObjectiveTrainer
from examples.labs import lab

CLAIM = "A posterior of the weights gives intervals that hold what they promise (lecture: Bayesian deep learning)."
MINUTES = 10
SPREAD = "mean and standard error"
METHODS = ["MAP", "backprop", "dropout", "Langevin"]
PLACES = {"between": "between the data", "beyond": "beyond them"}
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def plan(quick):
    if quick:
        return lab.grid(seed=0, data="co2", method=METHODS, hidden=5, epochs=2, steps=40)
    return lab.grid(seed=range(20), data=["diabetes", "co2"], method=METHODS, hidden=50, epochs=300, steps=3000)


def load(data):
    """x (N, D) and y (N, 1)."""
    if data == "co2":
        ppm = series.co2()[1]
        years = np.arange(len(ppm)) / 12
        waves = [f(2 * np.pi * k * years) for k in (1, 2) for f in (np.sin, np.cos)]
        return np.column_stack([years, *waves]), ppm[:, None]
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    return bunch.data, bunch.target[:, None]


def split(data, seed):
    """{part: (x, y)}, float32, in units of the training part's deviations about its means."""
    x, y = load(data)
    chance = np.random.default_rng(seed)
    order = np.argsort(x[:, 0] if data == "co2" else x @ chance.standard_normal(x.shape[1]))
    near, beyond = chance.permutation(order[: round(0.8 * len(x))]), order[round(0.8 * len(x)) :]
    train, between = near[len(x) // 10 :], near[: len(x) // 10]
    x, y = ((a - a[train].mean(axis=0)) / a[train].std(axis=0) for a in (x, y))
    parts = {"train": train, "between": between, "beyond": beyond}
    return {name: (x[rows].astype(np.float32), y[rows].astype(np.float32)) for name, rows in parts.items()}


def fit(net, data, epochs, optimizer, batch_size=64, seed=0):
    ObjectiveTrainer(net, optimizer, batch_size=batch_size, seed=seed, progress=False).fit(data, epochs=epochs)


def learn(method, train, seed, hidden, epochs, steps):
    """A trained model with ``predictive``."""
    features, N = train[0].shape[1], len(train[0])
    cl.manual_seed(seed)
    if method == "MAP":
        net = models.GaussianRegression(features, (hidden,))
        fit(net, train, epochs, optim.Adam(net.parameters(), 0.01, weight_decay=weight_decay_of(1.0, N)), seed=seed)
        return net
    if method == "Langevin":
        net = models.SGLDNetwork(features, (hidden,), data_size=N, keep=100, every=max(steps // 150, 1))
        fit(net, train, -(-epochs // 3), optim.Adam(net.parameters(), 0.01), seed=seed)
        fit(net, train, steps, net.optimizer(0.06 * math.exp(net.log_var.data[0])), batch_size=N, seed=seed)
        return net
    kind = models.BayesByBackprop if method == "backprop" else models.MCDropout
    net = kind(features, (hidden,), data_size=N)
    fit(net, train, epochs, optim.Adam(net.parameters(), 0.01), seed=seed)
    return net


def measure(seed, data, method, hidden, epochs, steps):
    parts = split(data, seed)
    net, measured = learn(method, parts["train"], seed, hidden, epochs, steps), {}
    for place in PLACES:
        x, y = parts[place]
        p = net.predictive(x, samples=100)
        measured[place] = {
            "coverage": p.calibration(y, LEVELS),
            "log_likelihood": p.log_likelihood(y),
            "rmse": p.rmse(y),
            "epistemic": float(np.sqrt(p.epistemic.mean())),
            "aleatoric": float(np.sqrt(p.aleatoric.mean())),
        }
    return measured


def with_error(values, show=lambda v: f"{v:.3f}"):
    """Mean ± standard error."""
    values = np.asarray(values)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{show(values.mean())} ± {show(error)}".replace("-", "−")


def of(runs, place, what, **settings):
    """One number for each split."""
    return [found[what] for found in runs.get(place, **settings)]


def coverage(runs, place, level=0.9, **settings):
    return [c[LEVELS.index(level)] for c in of(runs, place, "coverage", **settings)]


def finding(runs):
    rows, readings = [], []
    percent = lambda v: lab.percent(v, 1)  # noqa: E731
    for data in runs.all("data"):
        for method in METHODS:
            for place, name in PLACES.items():
                chosen = {"data": data, "method": method}
                numbers = {what: with_error(of(runs, place, what, **chosen)) for what in ("rmse", "log_likelihood")}
                rows.append({
                    "data": data, "method": method, "where": name,
                    "inside the 90 % interval": with_error(coverage(runs, place, **chosen), percent),
                    "log-likelihood": numbers["log_likelihood"], "error": numbers["rmse"],
                })  # fmt: skip
        for place, name in PLACES.items():
            mean = {m: np.mean(coverage(runs, place, data=data, method=m)) for m in METHODS}
            best = min(METHODS, key=lambda m: abs(mean[m] - 0.9))
            others = ", ".join(f"{m} {percent(mean[m])}" for m in METHODS if m != best)
            readings.append(f"On {data}, {name}, {best} comes nearest to 90 %, with {percent(mean[best])} ({others}).")
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    datas = runs.all("data")
    sheet = new_figure(9, 4.2 * len(datas))
    axes = np.atleast_2d(sheet.subplots(len(datas), 2))
    for row, data in zip(axes, datas, strict=True):
        for ax, (place, name) in zip(row, PLACES.items(), strict=True):
            ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, label="calibrated")
            for method, colour in zip(METHODS, CLASSES, strict=False):
                curves = np.array(of(runs, place, "coverage", data=data, method=method))
                error = curves.std(axis=0, ddof=min(1, len(curves) - 1)) / math.sqrt(len(curves))
                ax.errorbar(LEVELS, curves.mean(axis=0), error, color=colour, label=method, marker="o", markersize=3)
            lab.tidy(ax, "level of the interval", "share of y inside" if place == "between" else "", f"{data}, {name}")
    return sheet
