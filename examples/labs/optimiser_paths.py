"""The paths of six optimisers over two surfaces: a long valley, and a saddle between two minima.

Each optimiser takes the learning rate, out of eight from 0.001 to 3, with which it arrives first, to stay there. Both
surfaces lie along the axes, which suits the optimisers that scale each coordinate by itself.

    valley   f(x, y) = ½ (x² + 50 y²)              from (−4, 1);      arrived: f < 10⁻³
    saddle   f(x, y) = 5 x² − ½ y² + ¼ y⁴          from (−1.5, 0.01); arrived: f < −¼ + 10⁻³, at (0, ±1)

Source: lecture: optimisation, the optimisers' paths over two surfaces.
"""

import cnnlib as cl
from cnnlib import optim
from examples.labs import lab

CLAIM = (
    "Momentum and adaptive step lengths leave long valleys and saddles sooner than gradient descent (lecture: optimisation)."
)
MINUTES = 0.2
STEPS = 300
RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
OPTIMISERS = {
    "SGD": optim.SGD,
    "momentum": lambda w, lr: optim.SGD(w, lr, momentum=0.9),
    "Nesterov": lambda w, lr: optim.SGD(w, lr, momentum=0.9, nesterov=True),
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
    "Adam": optim.Adam,
}


def valley(x, y):
    return 0.5 * (x * x + 50.0 * y * y)


def saddle(x, y):
    return 5.0 * x * x - 0.5 * y * y + 0.25 * y * y * y * y


SURFACES = {"valley": (valley, (-4.0, 1.0), 1e-3), "saddle": (saddle, (-1.5, 0.01), -0.25 + 1e-3)}


def plan(quick):
    return lab.grid(surface=list(SURFACES), optimiser=list(OPTIMISERS), steps=20 if quick else STEPS)


def walk(surface, optimiser, rate, steps):
    """The points passed, and after how many steps f is below the goal for good: None when it is not."""
    f, start, goal = SURFACES[surface]
    w = cl.Parameter(list(start))
    optimizer = OPTIMISERS[optimiser]([w], lr=rate)
    path, needed = [list(start)], 0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        f(w[0], w[1]).backward()
        optimizer.step()
        path.append(w.data.tolist())
        if max(abs(v) for v in path[-1]) > 1e3:
            return path, None
        if f(*path[-1]) >= goal:
            needed = step
    return (path, None) if needed == steps else (path[: needed + 2], needed + 1)


def measure(surface, optimiser, steps):
    """The fastest rate; where none arrives, the one that gets lowest."""
    f = SURFACES[surface][0]
    walks = [(rate, *walk(surface, optimiser, rate, steps)) for rate in RATES]
    rate, path, needed = min(walks, key=lambda w: (w[2] or steps + 1, f(*w[1][-1])))
    return {"rate": rate, "steps": needed, "path": path}


def finding(runs):
    rows, readings = [], []
    for surface in runs.all("surface"):
        steps = {run["settings"]["optimiser"]: run["measured"]["steps"] for run in runs.where(surface=surface)}
        for o, n in steps.items():
            rate = runs.get("rate", surface=surface, optimiser=o)[0]
            rows.append(
                {"surface": surface, "optimiser": o, "learning rate": f"{rate:g}", "steps": str(n or "does not arrive")}
            )
        arrived = {o: n for o, n in steps.items() if n}
        first = min(arrived, key=arrived.get, default=None)
        sooner = [o for o, n in arrived.items() if not steps["SGD"] or n < steps["SGD"]]
        readings.append(
            f"On the {surface} {first} arrives first, after {arrived[first]} steps; "
            f"sooner than SGD: {', '.join(sooner) or 'none'}."
            if arrived
            else f"On the {surface} none arrives."
        )
    return rows, " ".join(readings)


def figure(runs):
    import numpy as np

    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(10, 4.2)
    windows = {"valley": ((-4.5, 2), (-2.8, 1.5)), "saddle": ((-1.8, 1.2), (-1.5, 1.5))}
    for ax, surface in zip(sheet.subplots(1, 2), SURFACES, strict=True):
        f = SURFACES[surface][0]
        (left, right), (low, high) = windows[surface]
        x, y = np.meshgrid(np.linspace(left, right, 60), np.linspace(low, high, 60))
        ax.contour(x, y, f(x, y), levels=12, colors="#c8c8c8", linewidths=0.7)
        for optimiser, colour in zip(OPTIMISERS, CLASSES, strict=True):
            one = runs.where(surface=surface, optimiser=optimiser)[0]["measured"]
            steps = f"{one['steps']} steps" if one["steps"] else "does not arrive"
            ax.plot(*zip(*one["path"], strict=True), color=colour, linewidth=1.3, marker=".", markersize=3,
                    label=f"{optimiser}, η {one['rate']:g}: {steps}")  # fmt: skip
        ax.set_xlim(left, right)
        ax.set_ylim(low, high)
        lab.tidy(ax, "x", "y", surface)
        ax.legend(fontsize=7, loc="lower left", framealpha=0.85)
    return sheet
