"""Few labels, many pictures: what does greedy pre-training buy?

Two hidden layers of 500 sigmoids. Pre-trained: each a denoising autoencoder (30 % of its inputs masked) for 5 epochs on all
60,000 training pictures of Fashion-MNIST without their labels, then the whole network on the few labelled ones. Random: the
same network from its random initial values, and the same with ReLUs in place of sigmoids, on the labelled ones alone. Adam
with learning rate 10⁻³, batches of 20, 2,000 steps in all three; every seed draws other labelled pictures, as many of each
class.

Source: lecture: unsupervised learning, stacked denoising autoencoders; Erhan et al., "Why does unsupervised pre-training
help deep learning?", 2010.
"""

import numpy as np

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.train import ObjectiveTrainer
from examples.labs import lab, setting

CLAIM = "With few labels, greedy pre-training on unlabelled pictures beats random initialisation (lecture: autoencoders)."
MINUTES = 4
STARTS = ["random", "random, ReLU", "pre-trained"]
LABELS = [100, 300, 1000]


def plan(quick):
    if quick:
        return lab.grid(seed=0, start=STARTS, units=30, epochs=1, steps=20, data="fashion_subset", pictures=2000)
    return lab.grid(seed=range(5), start=STARTS, units=500, epochs=5, steps=2000, data="fashion", pictures=60_000)


def network(start, units, unlabelled, epochs, seed):
    """A new network; for "pre-trained", layer by layer on pictures whose labels play no part before the fine-tuning."""
    if start == "random, ReLU":
        return models.MLP(784, (units, units))
    net = models.StackedAutoencoder((1, 28, 28), (units, units), epochs_per_layer=epochs)
    if start == "pre-trained":
        trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-3), seed=seed, progress=False)
        trainer.fit(unlabelled, epochs=2 * epochs)
    return net


def measure(seed, start, units, epochs, steps, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = network(start, units, train, epochs, seed)
    before = net.state_dict()
    accuracy = {}
    for labels in LABELS:
        net.load_state_dict(before)
        labelled = train.split(labels, seed=seed)[1]
        trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=1e-3), batch_size=20, seed=seed,
                             progress=False)  # fmt: skip
        trainer.fit(labelled, epochs=max(1, steps * 20 // labels))
        accuracy[labels] = trainer.evaluate(test)["accuracy"]
    return {str(labels): value for labels, value in accuracy.items()}


def finding(runs):
    rows = [
        {"labels": f"{labels:,}", **{start: lab.spread(runs.get(str(labels), start=start)) for start in STARTS}}
        for labels in LABELS
    ]
    readings = [
        lab.compared(f"With {labels:,} labels pre-training, against random {what},", runs.get(str(labels), start="pre-trained"),
                     runs.get(str(labels), start=other), "raises test accuracy", "lowers test accuracy")
        for labels in LABELS
        for other, what in (("random", "sigmoids"), ("random, ReLU", "ReLUs"))
    ]  # fmt: skip
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(6, 3.6)
    ax = sheet.subplots()
    for i, start in enumerate(STARTS):
        values = np.array([runs.get(str(labels), start=start) for labels in LABELS])
        ax.errorbar(LABELS, values.mean(axis=1), values.std(axis=1), marker="o", capsize=4, color=CLASSES[i], label=start)
    ax.set_xscale("log")
    ax.set_xticks(LABELS, [f"{labels:,}" for labels in LABELS], minor=False)
    ax.minorticks_off()
    lab.tidy(ax, "labels", "test accuracy", f"mean and deviation over {runs.seeds}", as_percent=True)
    return sheet
