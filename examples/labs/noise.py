"""Networks that say how large the error will be: noise of one size, noise that depends on x, and several answers at once.

sunspots: the number of a year from the 22 years before, 1700 to 2008, the last fifth held out; linear models (a hidden layer
learns 225 years by heart, and then learns that there is no noise), 150 epochs of Adam, weight decay 1/N. The noise has
deviation 1 (that of the series), or a learnt one, or is an output of the model. "Quiet" is the half of the held-out years of
which the model expects less.

inverse: y is asked for x = y + 0.3 sin 2πy + noise, which has up to three answers (Bishop 1994); 400 samples, 500 epochs
of Adam, 1,000 held out. One Gaussian with noise of the input and 20 hidden units, against three linear experts.

Source: lecture: deep probabilistic models; Nix & Weigend 1994; Jacobs et al. 1991; Bishop, "Mixture density networks", 1994.
"""

import numpy as np

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.data import series
from cnnlib.models.deep_probabilistic import weight_decay_of
from cnnlib.train import ObjectiveTrainer
from examples.labs import lab

CLAIM = "A network can say how sure it is: σ²(x), or a mixture, beside the mean (lecture: deep probabilistic models)."
MINUTES = 1
MODELS = {"sunspots": ["fixed", "learnt", "input"], "inverse": ["one Gaussian", "mixture"]}
HALVES = ("quiet", "active")


def plan(quick):
    epochs = {"sunspots": 5 if quick else 150, "inverse": 5 if quick else 500}
    return [
        settings
        for data, kinds in MODELS.items()
        for settings in lab.grid(data=data, model=kinds, seed=range(1 if quick else 5), epochs=epochs[data])
    ]


def inverse_problem(n, seed):
    """(x, y), both (n, 1) about 0 with deviation 1."""
    chance = np.random.default_rng(seed)
    y = chance.uniform(size=(n, 1))
    x = y + 0.3 * np.sin(2 * np.pi * y) + 0.05 * chance.standard_normal((n, 1))
    return tuple(((a - 0.5) / 0.3).astype(np.float32) for a in (x, y))


def load(data, seed):
    if data == "inverse":
        return inverse_problem(400, seed), inverse_problem(1000, 1000 + seed)
    train, test, _ = series.windows(series.sunspots()[1], 22, name="sunspots")
    return (train.x, train.y), (test.x, test.y)


def build(data, model):
    if data == "sunspots":
        return models.GaussianRegression((22, 1), (), noise=model)
    return models.MixtureOfExperts(1, experts=3) if model == "mixture" else models.GaussianRegression(1, (20,), noise="input")


def measure(data, model, seed, epochs):
    train, (x, y) = load(data, seed)
    cl.manual_seed(seed)
    net = build(data, model)
    decay = weight_decay_of(1.0, len(train[0]))
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), 0.01, weight_decay=decay), batch_size=64, seed=seed,
                               progress=False)  # fmt: skip
    trainer.fit(train, epochs=epochs)
    p = net.predictive(x)
    measured = {
        "log_likelihood": -trainer.evaluate((x, y))["loss"],
        "rmse": p.rmse(y),
        "inside": coverage_of_halves(p, y),
    }
    if seed == 0:
        measured["drawn"] = drawn(data, net, p, y)
    return measured


def coverage_of_halves(p, y):
    """Shares inside the 90 % interval, where the network expects less, and more, than its median."""
    quiet = p.mean <= np.median(p.mean)
    low, high = p.interval(0.9)
    inside = (y >= low) & (y <= high)
    return {"quiet": float(inside[quiet].mean()), "active": float(inside[~quiet].mean())}


def drawn(data, net, p, y):
    """What the figure needs, of one seed."""
    if data == "sunspots":
        return {"mean": p.mean[:, 0], "std": p.std[:, 0], "y": y[:, 0]}
    grid = np.linspace(-1.7, 1.7, 60, dtype=np.float32)[:, None]
    if isinstance(net, models.GaussianRegression):
        single = net.predictive(grid)
        return {"x": grid[:, 0], "mean": single.mean[:, 0], "std": single.std[:, 0]}
    logits, means, log_vars = (t.numpy() for t in net(cl.Tensor(grid)))
    share = cl.distributions.Categorical(logits).probabilities.numpy()
    return {"x": grid[:, 0], "mean": means[..., 0].T, "std": np.exp(0.5 * log_vars[..., 0]).T, "share": share.T}


def finding(runs):
    rows, readings = [], []
    for data, kinds in MODELS.items():
        for kind in kinds:
            chosen = {"data": data, "model": kind}
            inside = runs.get("inside", **chosen)
            rows.append({
                "data": data, "model": kind,
                "log-likelihood": lab.spread(runs.get("log_likelihood", **chosen), lab.number),
                "error": lab.spread(runs.get("rmse", **chosen), lab.number),
                **{f"inside 90 %, {half}": lab.spread([i[half] for i in inside]) if data == "sunspots" else "–"
                   for half in HALVES},
            })  # fmt: skip
        for worse in kinds[:-1]:
            better = runs.get("log_likelihood", data=data, model=kinds[-1])
            readings.append(
                lab.compared(f"On {data} {kinds[-1]}, against {worse},", better,
                             runs.get("log_likelihood", data=data, model=worse), "raises the held-out log-likelihood",
                             "lowers the held-out log-likelihood", lab.signed, " nats")
            )  # fmt: skip
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(10, 7)
    years, input_noise, one, several = sheet.subplots(2, 2).ravel()
    for ax, kind in ((years, "learnt"), (input_noise, "input")):
        found = runs.get("drawn", data="sunspots", model=kind, seed=0)[0]
        mean, std, at = np.array(found["mean"]), np.array(found["std"]), np.arange(len(found["mean"]))
        ax.fill_between(at, mean - 1.645 * std, mean + 1.645 * std, color=CLASSES[0], alpha=0.25, linewidth=0, label="90 %")
        ax.plot(at, mean, color=CLASSES[0], linewidth=1, label="expected")
        ax.plot(at, found["y"], "k.", markersize=4, label="came")
        lab.tidy(ax, "held-out year", "sunspots, in deviations", f"sunspots, noise: {kind}")
    x, y = inverse_problem(400, 0)
    for ax, kind in ((one, "one Gaussian"), (several, "mixture")):
        found = runs.get("drawn", data="inverse", model=kind, seed=0)[0]
        ax.plot(x, y, ".", color="#bbbbbb", markersize=3)
        means, stds = np.atleast_2d(found["mean"]), np.atleast_2d(found["std"])
        shares = np.array(found.get("share", np.ones_like(means)))
        for mean, std, share, colour in zip(means, stds, shares, CLASSES, strict=False):
            mean, band = np.where(share > 0.05, mean, np.nan), 1.645 * std
            ax.plot(found["x"], mean, color=colour)
            ax.fill_between(found["x"], mean - band, mean + band, color=colour, alpha=0.25, linewidth=0)
        lab.tidy(ax, "x", "y", f"inverse problem, {kind}", legend=False)
        ax.set_ylim(-2.2, 2.2)
    return sheet
