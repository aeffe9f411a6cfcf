"""Six ways to play the adversaries' game for a ring of eight Gaussians, and how many of them the generator finds.

Data: `cl.data.ring()`, 50,000 points around eight centres on a circle of radius 2, deviation 0.02. Generator and discriminator
have two hidden layers of 128 units, z has 16 numbers; batches of 256, 6,000 steps of the discriminator, Adam with learning rate
0.001 and β₁ = 0.5. A sample is good when a centre is at most 3 deviations away, which holds for 98.9 % of the data; a mode
counts as found when it has at least 1 % of 2,500 samples. Both numbers are those at the end of the training.

- minimax: the generator makes ln(1 − D(G(z))) small, as the game says; non-saturating: −ln D(G(z)). One step each in turn.
- minimax, D ahead: the same with three steps of the discriminator for one of the generator.
- Wasserstein: five steps of the discriminator for one, its weights cut to ±0.1, RMSprop with learning rate 0.0005.
- faded noise: non-saturating; noise of deviation 1 on all that the discriminator sees, which falls to 0 over the first 70 % of
  the steps, while the learning rate falls from 0.003 to 0 along half a cosine. These values were chosen on seeds 0 and 1.
- D ahead, faded noise: the same noise and learning rate with the second way, minimax with three steps for one.
"""

import numpy as np

import cnnlib as cl
from cnnlib import optim
from cnnlib.train import AdversarialTrainer, Callback, LRSchedule
from examples.labs import lab

CLAIM = "A generator may leave out parts of the data, and fool the discriminator with what is left (lecture: GANs)."
MINUTES = 8
STEPS, QUICK_STEPS, BATCH = 6000, 200, 256
SAMPLES, KEPT = 2500, 400  # kept for the figure, of seed 0
WAYS = {
    "minimax": {"loss": "minimax"},
    "minimax, D ahead": {"loss": "minimax", "discriminator_steps": 3},
    "non-saturating": {},
    "Wasserstein": {"loss": "wasserstein", "discriminator_steps": 5, "clip": 0.1},
    "faded noise": {},
    "D ahead, faded noise": {"loss": "minimax", "discriminator_steps": 3},
}
COLLAPSES, STABLE, RESCUED = "minimax, D ahead", "faded noise", "D ahead, faded noise"


class FadeNoise(Callback):
    """Noise of the discriminator's inputs: from ``start`` down to 0 in ``steps`` steps."""

    def __init__(self, start, steps):
        self.start, self.steps = start, steps

    def on_step(self, trainer, step):
        trainer.model.noise = self.start * max(0.0, 1.0 - trainer.step / self.steps)


def plan(quick):
    return lab.grid(seed=range(1 if quick else 5), way=list(WAYS), steps=QUICK_STEPS if quick else STEPS)


def measure(seed, way, steps):
    cl.manual_seed(seed)
    data = cl.data.ring(seed=seed)
    data = data[: len(data) // BATCH * BATCH]
    net = cl.models.GAN(input_shape=(2,), latents=16, hidden=(128, 128), **WAYS[way])
    optimizer, callbacks = optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999)), []
    if way == "Wasserstein":
        optimizer = optim.RMSprop(net.parameters(), lr=5e-4)
    if way in (STABLE, RESCUED):
        optimizer.lr, net.noise = 3e-3, 1.0
        callbacks = [LRSchedule(optim.CosineAnnealingLR(optimizer, steps), per="step"), FadeNoise(1.0, 0.7 * steps)]
    epochs = max(1, round(steps * BATCH / len(data)))
    trainer = AdversarialTrainer(net, optimizer, callbacks, BATCH, seed=seed, progress=False)
    history = trainer.fit(data, epochs=epochs)
    drawn = net.sample(SAMPLES, seed=seed)
    found = cl.data.coverage(drawn)
    points = drawn[:KEPT].round(3) if seed == 0 else []
    return {"modes": found.modes, "quality": found.quality, "shares": found.shares, "points": points,
            "d_real": history["d_real"], "d_fake": history["d_fake"]}  # fmt: skip


def finding(runs):
    rows = []
    for way in WAYS:
        modes, quality = runs.get("modes", way=way), runs.get("quality", way=way)
        rows.append(
            {"way": way, "modes found, by seed": ", ".join(map(str, modes)), "good samples": lab.spread(quality, one_digit)}
        )
    modes, quality = runs.get("modes", way=STABLE), runs.get("quality", way=STABLE)
    reached = sum(m == 8 and q > 0.8 for m, q in zip(modes, quality, strict=True))
    plain, ahead, rescued = (lab.spread(runs.get("modes", way=way), lab.number) for way in ("minimax", COLLAPSES, RESCUED))
    return rows, (
        f"The game as it is written finds {plain} of the 8 modes; with a discriminator that is ahead {ahead}, and with noise "
        f"that fades {rescued} again. With {STABLE} and even turns {reached} of {len(modes)} seeds have all 8 modes and more "
        "than 80 % good samples."
    )


def one_digit(share):
    return lab.percent(share, 1)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(11, 5.6)
    above, below = sheet.subfigures(2, 1, height_ratios=(1.1, 1.0))
    for ax, way in zip(above.subplots(1, len(WAYS)), WAYS, strict=True):
        x, y = np.array(runs.get("points", way=way)[0]).T
        ax.scatter(*cl.data.ring(400).x.T, s=14, color="0.85", rasterized=True)
        ax.scatter(x, y, s=2, color=CLASSES[0], rasterized=True)
        ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
        ax.set_title(f"{way}\nmodes found: {runs.get('modes', way=way)[0]}", fontsize=9)
    shown = [way for way in WAYS if way != "Wasserstein"]  # whose scores are no probabilities
    for i, (ax, way) in enumerate(zip(below.subplots(1, len(shown), sharey=True), shown, strict=True)):
        for name, colour, label in (("d_real", CLASSES[0], "D(x)"), ("d_fake", CLASSES[1], "D(G(z))")):
            series = runs.get(name, way=way)
            lab.lines(ax, range(1, len(series[0]) + 1), series, colour, label)
        ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle="--")
        ax.set_ylim(0, 1)
        lab.tidy(ax, "epoch", "", way, legend=i == 0)
    return sheet
