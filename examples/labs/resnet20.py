"""ResNet-20, width 16, on all of Fashion-MNIST: at least 91.5 % of the test pictures within 10 epochs.

SGD with Nesterov's look-ahead (η = 0.1 falling to 0 along half a cosine, momentum 0.9, weight decay 5·10⁻⁴), batches of 128,
pictures mirrored at random. A run that is ended goes on at the last whole epoch, from runs/labs/resnet20.

Source: lecture: ResNet; He, Zhang, Ren & Sun, 2016, section 4.2; Huang et al., "Densely connected networks", 2017 (Nesterov).
"""

import shutil

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.data import Compose, Normalize, RandomFlip
from cnnlib.train import Checkpoint, LRSchedule
from examples.labs import lab, setting

CLAIM = "A residual network of 270,000 parameters reads Fashion-MNIST at 91.5 % or better within 10 epochs (lecture: ResNet)."
MINUTES = 25
GOAL = 0.915
BATCH = 128


def plan(quick):
    if quick:
        return lab.grid(seed=0, width=4, epochs=1, data="fashion_subset", pictures=512)
    return lab.grid(seed=range(2), width=16, epochs=10, data="fashion", pictures=60_000)


def measure(seed, width, epochs, data, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    net = models.create("resnet20", in_channels=1, input_size=28, width=width)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = optim.CosineAnnealingLR(optimizer, T_max=epochs * -(-len(train) // BATCH))
    folder = lab.ROOT / "runs" / "labs" / f"resnet20-{width}-{epochs}-{data}-{pictures}-{seed}"
    trainer = cl.Trainer(
        net, nn.CrossEntropyLoss(), optimizer, callbacks=[LRSchedule(schedule, per="step"), Checkpoint(folder, best=None)],
        batch_size=BATCH, transform=Compose([RandomFlip(), Normalize.fit(train)]), seed=seed, progress=False,
    )  # fmt: skip
    history = trainer.fit(train, test, epochs=epochs, resume=True)
    shutil.rmtree(folder)
    return {
        "test": setting.curve(history, "validation_accuracy"),
        "train": setting.curve(history, "accuracy"),
        "seconds": setting.curve(history, "seconds"),  # of each epoch, its evaluation included
        "parameters": sum(p.size for p in net.parameters()),
    }


def finding(runs):
    test = runs.get("test")
    first = [next((i for i, a in enumerate(curve, 1) if a >= GOAL), None) for curve in test]
    row = {
        "test accuracy": lab.spread([curve[-1] for curve in test]),
        "epochs": str(runs.all("epochs")[0]),
        "minutes": lab.spread([sum(s) / 60 for s in runs.get("seconds")], lab.number),
        "parameters": f"{runs.get('parameters')[0]:,}",
    }
    reached = "not reached" if None in first else f"reached after {' and '.join(map(str, first))} epochs"
    return [row], f"{GOAL:.1%} is {reached}."


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(5.5, 3.4)
    ax = sheet.subplots()
    for name, colour in (("train", CLASSES[1]), ("test", CLASSES[0])):
        curves = runs.get(name)
        lab.lines(ax, range(1, len(curves[0]) + 1), curves, colour, name, marker="o", markersize=3)
    ax.axhline(GOAL, color="#888888", linestyle="--", linewidth=1)
    lab.tidy(ax, "epoch", "", "accuracy, ResNet-20 on Fashion-MNIST", as_percent=True)
    return sheet
