"""Time series: the next value of a measured series, by an LSTM, by a linear autoregression and by naive forecasts.

Real data, both part of the library: CO2 in the air of Mauna Loa by month, 1958 to 2001 (ppm), from the 24 months before; the
number of sunspots by year, 1700 to 2008, from the 22 years before. The last fifth of each series is held out, and mean and
deviation are those of the rest. Tiny: a generated wave of 12 steps with noise of deviation 0.1, which cannot be foretold.

"As it is" says the last value again; "as a season ago" says the value of one season (12 months; 11 years) before it, moved by
what has changed in a season since. The autoregression is linear least squares on the same windows.

Source: lecture: recurrent networks (many to one); Yule, "On a method of investigating periodicities in disturbed series, with
special reference to Wolfer's sunspot numbers", 1927 (the autoregression).
"""

import numpy as np

import cnnlib as cl
from cnnlib import models, nn
from cnnlib.data import series
from examples.applications import app
from examples.labs import lab

SHAPE = "many to one: the last values of a series -> the next"
MINUTES = 1
SERIES = {  # length of a window, season, whether it grows, unit
    "co2": (24, 12, True, "ppm"),
    "sunspots": (22, 11, False, "spots"),
    "wave": (24, 12, False, ""),
}
METHODS = ["as it is", "as a season ago", "autoregression", "LSTM"]


def plan(tiny):
    return lab.grid(data="wave" if tiny else ["co2", "sunspots"], seed=range(3), epochs=60)


def values_of(data):
    if data == "wave":
        steps = np.arange(600)
        return np.sin(2 * np.pi * steps / 12) + np.random.default_rng(0).normal(scale=0.1, size=len(steps))
    return getattr(series, data)()[1]


def measure(data, seed, epochs):
    """Root mean squared errors on the held-out part, in the series' unit."""
    length, season, grows, _ = SERIES[data]
    train, test, scale = series.windows(values_of(data), length, name=data)
    cl.manual_seed(seed)
    net = models.Forecaster(hidden=32, relative=grows)
    trainer = app.fit(f"series-{data}-{epochs}-{seed}", net, train, test, epochs, lr=5e-3, batch_size=16,
                      loss=nn.MSELoss(), seed=seed)  # fmt: skip
    x = test.x[:, :, 0]
    answers = {
        "as it is": x[:, -1],
        "as a season ago": x[:, -season] + x[:, -1] - x[:, -1 - season],
        "autoregression": _with_one(test.x) @ np.linalg.lstsq(_with_one(train.x), train.y[:, 0], rcond=None)[0],
        "LSTM": trainer.predict(test.x)[:, 0],
    }
    return {"test": len(test), "rmse": {name: scale.std * rmse(answer, test.y[:, 0]) for name, answer in answers.items()}}


def rmse(answers, values):
    return float(np.sqrt(np.mean((answers - values) ** 2)))


def _with_one(x):
    return np.concatenate([x[:, :, 0], np.ones((len(x), 1), x.dtype)], axis=1)


def finding(runs):
    rows, readings = [], []
    for data in runs.all("data"):
        unit = SERIES[data][3]
        errors = {m: [run[m] for run in runs.get("rmse", data=data)] for m in METHODS}
        rows += [{"series": data, "forecast": method, "held-out error (root mean square)": _spread(errors[method], unit)}
                 for method in METHODS]  # fmt: skip
        best = min(METHODS, key=lambda m: np.mean(errors[m]))
        less = 1 - np.mean(errors["LSTM"]) / np.mean(errors["as it is"])
        readings.append(f"{data}, {runs.get('test', data=data)[0]} values foretold: the LSTM's error is {100 * less:.0f} % "
                        f"below that of \"as it is\"; smallest is that of \"{best}\".")  # fmt: skip
    return rows, " ".join(readings)


def _spread(errors, unit):
    shown = errors if len(set(errors)) > 1 else errors[:1]
    return f"{lab.spread(shown, lab.number)} {unit}".strip()
