"""More code than picture: what keeps an autoencoder with K > D from copying?

784 pixels, codes of ReLUs, 5 epochs on the first 20,000 pictures of Fashion-MNIST, squared error. K = 1,000 but for the
bottleneck's 32. Sparsity adds 0.1 mean |code|; the denoising ones see masking noise (half of the pixels 0), salt and pepper
(half of them, too) or Gaussian noise (deviation 0.5) in training.

On test pictures that are corrupted in all three ways: how far is the answer from the clean picture, and, in the last
column, from what the network was given under Gaussian noise? One that copies is near to that, and gives the noise back.

Source: lecture: unsupervised learning, over-complete autoencoders; Vincent et al., "Stacked denoising autoencoders", 2010.
"""

import numpy as np

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.models.denoising_autoencoder import NOISES
from cnnlib.train import ObjectiveTrainer
from examples.labs import lab, setting

CLAIM = "With K > D a plain autoencoder copies its input, a denoising one cannot (lecture: autoencoders)."
MINUTES = 3
LEVEL = 0.5
KINDS = ["bottleneck", "plain", "sparse", "masking", "salt_and_pepper", "gaussian"]


def plan(quick):
    if quick:
        return lab.grid(seed=0, kind=KINDS, units=50, epochs=1, data="fashion_subset", pictures=300)
    return lab.grid(seed=range(3), kind=KINDS, units=1000, epochs=5, data="fashion", pictures=20_000)


def network(kind, units):
    if kind in NOISES:
        return models.DenoisingAutoencoder((1, 28, 28), (units,), kind, LEVEL, code="relu", error="squared", tied=False)
    sizes = (32,) if kind == "bottleneck" else (units,)
    return models.Autoencoder((1, 28, 28), sizes, code="relu", sparsity=0.1 if kind == "sparse" else 0.0)


def measure(seed, kind, units, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = network(kind, units)
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-3), seed=seed, progress=False)
    trainer.fit(train, epochs=epochs)
    cl.manual_seed(0)  # all get the same corrupted pictures
    seen = {noise: kind(LEVEL)(test.x).numpy() for noise, kind in NOISES.items()}
    answers = {noise: trainer.predict(x) for noise, x in seen.items()}
    squared = lambda a, b: float(np.square(a - b).mean())  # noqa: E731
    return {
        "clean": squared(trainer.predict(test.x), test.x),
        **{noise: squared(answer, test.x) for noise, answer in answers.items()},
        "copied": squared(answers["gaussian"], np.clip(seen["gaussian"], 0, 1)),
    }


COLUMNS = {
    "clean": "of clean pictures",
    "masking": "under masking",
    "salt_and_pepper": "under salt and pepper",
    "gaussian": "under Gaussian noise",
    "copied": "from the noisy picture itself",
}


def title(kind):
    return f"denoising: {kind.replace('_', ' ')}" if kind in NOISES else f"{kind}, K = 32" if kind == "bottleneck" else kind


def finding(runs):
    rows = [
        {"squared error": title(kind), **{what: lab.spread(runs.get(name, kind=kind), _four) for name, what in COLUMNS.items()}}
        for kind in KINDS
    ]
    plain = {name: runs.get(name, kind="plain") for name in COLUMNS}

    def against(what, name, kind, other):
        words = f"makes the error {COLUMNS[name]} larger", f"makes the error {COLUMNS[name]} smaller"
        return lab.compared(what, runs.get(name, kind=kind), other, *words, _signed, "")

    readings = [
        against("K > D, against the bottleneck,", "clean", "plain", runs.get("clean", kind="bottleneck")),
        *(against(f"Training under {title(noise).removeprefix('denoising: ')} noise", noise, noise, plain[noise])
          for noise in NOISES),
        against("Sparsity", "gaussian", "sparse", plain["gaussian"]),
    ]  # fmt: skip
    nearer = np.mean(plain["copied"]) < np.mean(plain["gaussian"])
    readings.append(f"Under Gaussian noise the plain one's answer is nearer to the {'noisy' if nearer else 'clean'} picture.")
    return rows, " ".join(readings)


def _four(value):
    return f"{value:.4f}"


def _signed(value):
    return f"{value:+.4f}".replace("-", "−")


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.4)
    ax = sheet.subplots()
    for i, kind in enumerate(KINDS):
        for k, name in enumerate(list(COLUMNS)[:4]):
            values = runs.get(name, kind=kind)
            at = k + (i - 2.5) * 0.14
            ax.bar(at, np.mean(values), 0.13, color=CLASSES[i], label=title(kind) if k == 0 else None)
            ax.plot([at] * len(values), values, ".", color="black", markersize=3)
    ax.set_xticks(range(4), [COLUMNS[name] for name in list(COLUMNS)[:4]])
    lab.tidy(ax, ylabel="squared error against the clean picture")
    return sheet
