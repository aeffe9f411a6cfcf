"""Three approximate posteriors beside the exact one, of a model where that is known: y = w₁ x₁ + w₂ x₂ + b + noise.

The inputs are correlated (0.8), so that the weights are, negatively, in the posterior; noise of deviation ½, prior N(0, 1), 40
and 640 samples. Bayes by backprop: Adam on all samples, 2,000 steps with a rate falling from 0.05 to 0.0005. MC dropout: the
same, p = 0.1. Langevin: 20,000 steps, a tenth of the length at which they would not converge, a draw every 5. "Nearest": of all
Gaussians without correlations the one of the smallest KL(q ‖ p), with variances 1 / (Σ⁻¹)_ii.

Source: lecture: Bayesian deep learning; Bishop, "Pattern Recognition and Machine Learning", 2006, sections 3.3 and 10.1.2;
Osband, "Risk versus uncertainty in deep learning", 2016.
"""

import numpy as np

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.models.bayesian import linear_posterior
from cnnlib.tensor import Tensor
from examples.labs import lab

CLAIM = "Approximate posteriors of a linear model can be held against the exact one (lecture: Bayesian deep learning)."
MINUTES = 1
METHODS = ["exact", "nearest", "backprop", "dropout", "Langevin"]
BETA, PRIOR, P = 4.0, 1.0, 0.1


def plan(quick):
    return lab.grid(n=[40, 640], method=METHODS, steps=40 if quick else 2000)


def problem(n):
    chance = np.random.default_rng(0)
    x = chance.standard_normal((n, 2)) @ np.linalg.cholesky([[1.0, 0.8], [0.8, 1.0]]).T
    y = x @ [1.0, 2.0] - 0.5 + BETA**-0.5 * chance.standard_normal(n)
    return x.astype(np.float32), y[:, None].astype(np.float32)


def train(net, optimizer, x, y, steps, fall=1.0):
    """Steps on all samples; the learning rate falls by the factor ``fall`` in all."""
    first = optimizer.lr
    for step in range(steps):
        optimizer.lr = first * fall ** (step / steps)
        net.zero_grad()
        net.objective(Tensor(x), Tensor(y))[0].backward()
        optimizer.step()


def measure(n, method, steps):
    """Mean (3,) and covariance (3, 3) of w₁, w₂ and b."""
    x, y = problem(n)
    mean, covariance = linear_posterior(x, y, BETA, PRIOR)
    precision = np.linalg.inv(covariance)
    if method == "nearest":
        covariance = np.diag(1 / np.diag(precision))
    if method not in ("exact", "nearest"):
        cl.manual_seed(0)
        mean, covariance = LEARN[method](x, y, steps, np.linalg.eigvalsh(precision).max() / n)
    return {"mean": mean, "covariance": covariance}


def of_backprop(x, y, steps, stiffest):
    net = models.BayesByBackprop(2, (), noise="fixed", beta=BETA, prior_std=PRIOR, data_size=len(x))
    train(net, optim.Adam(net.parameters(), 0.05), x, y, steps, fall=0.01)
    weight, bias = net.network[1].posterior()
    join = lambda w, b: np.append(w.numpy(), b.numpy())  # noqa: E731
    return join(weight.mean, bias.mean), np.diag(join(weight.variance, bias.variance))


def of_dropout(x, y, steps, stiffest):
    net = models.MCDropout(2, (), noise="fixed", beta=BETA, prior_std=PRIOR, data_size=len(x), p=P)
    train(net, optim.Adam(net.parameters(), 0.05), x, y, steps, fall=0.01)
    weight, bias = net.network[2].weight.numpy()[0], net.network[2].bias.numpy()
    return np.append(weight, bias), np.diag(np.append(P / (1 - P) * weight**2, 0.0))


def of_langevin(x, y, steps, stiffest):
    net = models.SGLDNetwork(2, (), noise="fixed", beta=BETA, prior_std=PRIOR, data_size=len(x), keep=9 * steps // 5, every=5)
    train(net, net.optimizer(0.2 / stiffest), x, y, 10 * steps)
    return net.kept.mean(axis=0), np.cov(net.kept.T)


LEARN = {"backprop": of_backprop, "dropout": of_dropout, "Langevin": of_langevin}


def finding(runs):
    rows, spread = [], {}
    for run in runs:
        n, method = run["settings"]["n"], run["settings"]["method"]
        mean, covariance = (np.array(run["measured"][name]) for name in ("mean", "covariance"))
        spread[n, method] = deviation = np.sqrt(np.diag(covariance))
        w1, w2, b = (f"{m:.3f} ± {s:.3f}".replace("-", "−") for m, s in zip(mean, deviation, strict=True))
        correlation = f"{covariance[0, 1] / (deviation[0] * deviation[1]):.2f}".replace("-", "−")
        rows.append({"samples": str(n), "posterior": method, "w₁": w1, "w₂": w2, "b": b, "correlation of w₁, w₂": correlation})
    few, many = runs.all("n")
    shrunk = {m: spread[few, m][0] / spread[many, m][0] for m in METHODS}
    share = {m: spread[few, m][0] / spread[few, "exact"][0] for m in METHODS}
    reading = ", ".join(f"{m} {share[m]:.2f}" for m in METHODS[1:])
    surer = ", ".join(f"{m} {shrunk[m]:.2g}" for m in METHODS)
    return rows, (f"The deviation of w₁ with {few} samples, in units of the exact one: {reading}. {many // few} times as many "
                  f"samples divide it by: {surer}.")  # fmt: skip


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(10, 4.6)
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for ax, n in zip(sheet.subplots(1, 2), runs.all("n"), strict=True):
        for method, colour in zip(METHODS, ("#000000", *CLASSES), strict=False):
            mean, covariance = (np.array(runs.get(name, n=n, method=method)[0]) for name in ("mean", "covariance"))
            ring = mean[:2, None] + 2 * np.linalg.cholesky(covariance[:2, :2]) @ circle
            ax.plot(*ring, color=colour, label=method, linewidth=2 if method == "exact" else 1.2)
        lab.tidy(ax, "w₁", "w₂", f"{n} samples: two deviations around the mean")
    return sheet
