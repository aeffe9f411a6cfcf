"""Where is a network unsure? Predictive intervals of four methods around a gap in the data, and beyond the end of a series.

gap: y = sin 2x + noise of deviation 0.1 at 120 places of −2 … −0.8 and 0.8 … 2; asked for from −4 to 4. co2: as in `posterior`,
all of the first four fifths learnt, all 526 months asked for. Networks and trainings are those of `posterior`. "At the data",
"in the gap" (−0.4 … 0.4) and "beyond" (|x| > 3; the last fifth): the mean deviation of what 100 draws of the weights expect.

Source: lecture: Bayesian deep learning; Foong et al., "'In-between' uncertainty in Bayesian neural networks", 2019.
"""

import numpy as np

from examples.labs import lab, posterior

CLAIM = "A posterior of the weights is wide where there were no data (lecture: Bayesian deep learning)."
MINUTES = 2
PLACES = ("at the data", "in the gap", "beyond")


def plan(quick):
    if quick:
        return lab.grid(data=["gap", "co2"], method=posterior.METHODS, seed=0, hidden=5, epochs=2, steps=40)
    return lab.grid(data=["gap", "co2"], method=posterior.METHODS, seed=range(3), hidden=50, epochs=300, steps=3000)


def problem(data, seed):
    """x and y to learn from; x that are asked for, and, of each of them, where on the axis it is and what y was there."""
    if data == "gap":
        chance = np.random.default_rng(seed)
        x = (chance.uniform(0.8, 2.0, (120, 1)) * np.repeat([[-1.0], [1.0]], 60, axis=0)).astype(np.float32)
        y = (np.sin(2 * x) + 0.1 * chance.standard_normal(x.shape)).astype(np.float32)
        grid = np.linspace(-4, 4, 161, dtype=np.float32)[:, None]
        return x, y, grid, grid[:, 0], np.sin(2 * grid[:, 0])
    x, y = posterior.load("co2")
    known = round(0.8 * len(x))
    x, y = (((a - a[:known].mean(axis=0)) / a[:known].std(axis=0)).astype(np.float32) for a in (x, y))
    years = 1958 + (2 + np.arange(len(x))) / 12
    return x[:known], y[:known], x, years, y[:, 0]


def places(data, axis):
    """{place: which of the asked are there}."""
    if data == "gap":
        distance = abs(axis)
        return {"at the data": (distance >= 0.8) & (distance <= 2), "in the gap": distance <= 0.4, "beyond": distance > 3}
    known = np.arange(len(axis)) < round(0.8 * len(axis))
    return {"at the data": known, "beyond": ~known}


def measure(data, method, seed, hidden, epochs, steps):
    x, y, asked, axis, truth = problem(data, seed)
    net = posterior.learn(method, (x, y), seed, hidden, epochs, steps)
    p = net.predictive(asked, samples=100)
    measured = {name: float(np.sqrt(p.epistemic[there]).mean()) for name, there in places(data, axis).items()}
    if seed == 0:
        few = slice(None, None, 1 if data == "gap" else 3)
        drawn = {"x": axis, "truth": truth, "mean": p.mean[:, 0], "std": p.std[:, 0], "epistemic": np.sqrt(p.epistemic[:, 0])}
        measured["drawn"] = {name: values[few] for name, values in drawn.items()}
    return measured


def finding(runs):
    rows, readings = [], []
    for data in runs.all("data"):
        wider = []
        for method in posterior.METHODS:
            chosen = {"data": data, "method": method}
            known = [name for name in PLACES if name in places(data, np.zeros(1))]
            found = {name: runs.get(name, **chosen) for name in known}
            shown = {name: lab.spread(found[name], lab.number) if name in found else "–" for name in PLACES}
            rows.append({"data": data, "method": method, **shown})
            if method != "MAP":
                wider.append(f"{method} {_ratios(found)}")
        gap = "in the gap and beyond" if data == "gap" else "beyond"
        readings.append(f"On {data} the deviation {gap}, in units of that at the data: {', '.join(wider)}.")
    return rows, " ".join(readings)


def _ratios(found):
    """``2.1 and 3.0``: the means elsewhere over the mean at the data."""
    here = np.mean(found["at the data"])
    return " and ".join(f"{np.mean(found[name]) / here:.1f}" for name in PLACES[1:] if name in found)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    datas = runs.all("data")
    sheet = new_figure(13, 3.2 * len(datas))
    for row, data in zip(sheet.subplots(len(datas), 4, sharey="row"), datas, strict=True):
        for ax, method in zip(row, posterior.METHODS, strict=True):
            found = {name: np.array(v) for name, v in runs.get("drawn", data=data, method=method, seed=0)[0].items()}
            x, mean = found["x"], found["mean"]
            for name, opacity, label in (("std", 0.2, "90 %"), ("epistemic", 0.4, "the weights' part")):
                band = 1.645 * found[name]
                ax.fill_between(x, mean - band, mean + band, color=CLASSES[0], alpha=opacity, linewidth=0, label=label)
            ax.plot(x, mean, color=CLASSES[0], linewidth=1)
            ax.plot(x, found["truth"], "k--", linewidth=0.7)
            where = [(-2, -0.8), (0.8, 2)] if data == "gap" else [(x[0], x[round(0.8 * len(x))])]
            for low, high in where:
                ax.axvspan(low, high, color="#999999", alpha=0.12, linewidth=0)
            lab.tidy(ax, "x" if data == "gap" else "year", "", f"{data}, {method}", legend=method == "backprop")
        row[0].set_ylim(*((-3, 3) if data == "gap" else (-2.2, 3.5)))
    return sheet
