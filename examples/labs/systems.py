"""Each system from LeNet-5 to ResNet, scaled down, on Fashion-MNIST and on colour pictures.

Width multiplies the maps and hidden units of every layer; the pictures, 32×32 after padding, are enlarged for the networks
that need larger ones. Fashion-MNIST: first 20,000 pictures, 3 epochs. Colour: CIFAR-10's first 5,000 where it is there,
else 3,058 emoji in 10 categories, 20 epochs. Adam, its rate falling from 10⁻³ to 0 along half a cosine, batches of 64.

Source: lecture: convolutional networks, the systems; the papers are named in cnnlib/models/.
"""

import cnnlib as cl
from cnnlib import models, nn
from cnnlib.data import Compose, Normalize, Pad
from examples.labs import lab, setting

CLAIM = "From LeNet-5 to ResNet the networks read pictures better and better (lecture: convolutional networks, the systems)."
MINUTES = 30
SYSTEMS = {  # name: (year, options that scale it down, how many times the pictures are enlarged)
    "lenet5": (1998, {}, 1),
    "alexnet": (2012, {"width": 0.25}, 4),
    "zfnet": (2013, {"width": 0.25}, 4),
    "overfeat": (2013, {"width": 0.25}, 4),
    "vgg11": (2014, {"width": 0.25}, 1),
    "googlenet": (2014, {"width": 0.25}, 2),
    "resnet18": (2015, {"width": 0.25}, 2),
    "resnet20": (2015, {"width": 8}, 1),
}
EPOCHS = {"fashion": 3, "colour": 20, "fashion_subset": 1}
PICTURES = {"fashion": 20_000, "colour": 5_000}


def plan(quick):
    if quick:
        return runs_on("fashion_subset", seeds=[0], pictures=128)
    return [run for data in ("fashion", "colour") for run in runs_on(data, range(3), PICTURES.get(data))]


def runs_on(data, seeds, pictures):
    return lab.grid(seed=seeds, data=data, system=list(SYSTEMS), epochs=EPOCHS[data], pictures=pictures)


class Enlarge(nn.Module):
    """Each pixel as a square of ``times`` by ``times``; for pictures, through which no gradient goes."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def forward(self, x):
        return cl.Tensor(x.data.repeat(self.times, axis=2).repeat(self.times, axis=3))


def measure(seed, data, system, epochs, pictures):
    cl.manual_seed(seed)
    train, test = setting.load(data, pictures)
    channels, side = train.x.shape[1:3]
    _, options, times = SYSTEMS[system]
    model = models.create(system, num_classes=len(train.classes), in_channels=channels, input_size=32 * times, **options)
    transform = Compose([Normalize.fit(train), Pad((32 - side) // 2)])
    net = nn.Sequential(Enlarge(times), model)
    trainer = setting.fit(net, train, test, seed, epochs, loss=model.criterion(), transform=transform, cosine=True)
    return {
        "pictures": train.name.removesuffix(" train"),
        "test": setting.curve(trainer.history, "validation_accuracy"),
        "parameters": sum(p.size for p in model.parameters()),
        "seconds": trainer.history["seconds"],
    }


def last(runs, data, system):
    return [curve[-1] for curve in runs.get("test", data=data, system=system)]


def shown(runs, data):
    """The name of the pictures: which colour pictures they were."""
    return runs.get("pictures", data=data)[0]


def mean(values):
    return sum(values) / len(values)


def finding(runs):
    rows, readings, sets = [], [], runs.all("data")
    for system, (year, options, times) in SYSTEMS.items():
        parameters = runs.get("parameters", system=system, data=sets[0])[0]
        rows.append({
            "system": f"{system}, {year}", "width": f"{options.get('width', 1):g}", "input": f"{32 * times}×{32 * times}",
            "parameters": f"{parameters:,}",
            **{f"{shown(runs, d)}, {EPOCHS[d]} epochs": lab.spread(last(runs, d, system)) for d in sets},
        })  # fmt: skip
    for data in sets:
        order = sorted(SYSTEMS, key=lambda s: mean(last(runs, data, s)), reverse=True)
        newest = set(order[:3]) == {"googlenet", "resnet18", "resnet20"}
        readings.append(
            f"On {shown(runs, data)} {', '.join(order[:3])} are ahead, in this order, and {order[-1]} is last: "
            f"the three newest are {'' if newest else 'not '}the three best at this size."
        )
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sets = runs.all("data")
    sheet = new_figure(4.6 * len(sets), 3.6)
    for ax, data in zip(sheet.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        for i, system in enumerate(SYSTEMS):
            values = last(runs, data, system)
            ax.plot(mean(values), i, "|", color=CLASSES[0], markersize=16)
            ax.plot(values, [i] * len(values), "o", color=CLASSES[0], markersize=4)
        ax.set_yticks(range(len(SYSTEMS)), [f"{s}, {year}" for s, (year, _, _) in SYSTEMS.items()], fontsize=8)
        ax.invert_yaxis()
        lab.tidy(ax, title=f"test accuracy, {shown(runs, data)}: mean and seeds", legend=False)
        ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g} %")
    return sheet
