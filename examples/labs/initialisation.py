"""Initial weights of a deep network: what is left of the signal after eight layers, and how training goes.

MLP with eight hidden layers of 100 units, tanh or ReLU, MNIST, two epochs of SGD (η = 0.01, momentum 0.9). Before training:
the size of the eighth layer's activations over that of the first's, and of the first layer's adjoints over the eighth's, as
root mean squares. Biases start at 0.

Source: lecture: initialisation heuristics; LeCun 1998, Glorot & Bengio 2010, He et al. 2015, Saxe et al. 2014.
"""

import cnnlib as cl
from cnnlib import nn, ops, optim
from examples.labs import lab, setting

CLAIM = "The initial weights decide whether signals and gradients survive a deep network (lecture: initialisation)."
MINUTES = 2
DEPTH, UNITS = 8, 100
STARTS = {
    "N(0, 0.01²)": lambda shape: nn.init.normal_(shape, 0.01),
    "±1/√in": nn.init.default_weight,
    "LeCun": nn.init.lecun_normal,
    "Glorot": nn.init.xavier_normal,
    "He": nn.init.he_normal,
    "orthogonal": nn.init.orthogonal,
}
ACTIVATIONS = {"tanh": nn.Tanh, "ReLU": nn.ReLU}


def plan(quick):
    if quick:
        return lab.grid(seed=0, activation=list(ACTIVATIONS), start=list(STARTS), epochs=1, data="digits")
    return lab.grid(seed=range(3), activation=list(ACTIVATIONS), start=list(STARTS), epochs=2, data="mnist")


def network(start, activation):
    layers = [nn.Flatten()]
    for inputs in (784, *[UNITS] * (DEPTH - 1)):
        layers += [nn.Linear(inputs, UNITS), ACTIVATIONS[activation]()]
    net = nn.Sequential(*layers, nn.Linear(UNITS, 10))
    for p in net.parameters():
        p.set(STARTS[start](p.shape) if p.ndim == 2 else 0.0)
    return net


def survival(net, x, y):
    """Last over first hidden layer: of the activations, and first over last: of the adjoints. Root mean squares."""
    with cl.trace() as trace:
        ops.cross_entropy(net(x), y).backward()
    hidden = [op for op in trace if op.name.endswith((".relu", ".tanh"))]
    return hidden[-1].activation / hidden[0].activation, hidden[0].adjoint / hidden[-1].adjoint


def measure(seed, activation, start, epochs, data):
    cl.manual_seed(seed)
    train, test = setting.load(data)
    net = network(start, activation)
    forward, backward = survival(net, cl.data.Normalize.fit(train)(train.x[:1000]), train.y[:1000])
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    trainer = setting.fit(net, train, test, seed, epochs, optimizer)
    return {
        "forward": forward,
        "backward": backward,
        "loss": setting.curve(trainer.history, "loss"),
        "test": trainer.history["validation_accuracy"][-1],
    }


def finding(runs):
    rows, readings = [], []
    for activation in runs.all("activation"):
        losses = {}
        for start in runs.all("start"):
            some = runs.where(activation=activation, start=start)
            losses[start] = [curve[-1] for curve in some.get("loss")]
            rows.append({
                "activation": activation, "start": start, "forward": lab.spread(some.get("forward"), lab.number),
                "backward": lab.spread(some.get("backward"), lab.number), "loss": lab.spread(losses[start], lab.number),
                "test": lab.spread(some.get("test")),
            })  # fmt: skip
        order = sorted(losses, key=lambda start: sum(losses[start]))
        readings.append(f"With {activation} the loss falls lowest from {order[0]}, then {order[1]}, least from {order[-1]}.")
    return rows, " ".join(readings)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.8)
    for ax, activation in zip(sheet.subplots(1, 2, sharey=True), ACTIVATIONS, strict=True):
        for start, colour in zip(STARTS, CLASSES, strict=True):
            some = runs.where(activation=activation, start=start)
            curves = some.get("loss")
            lab.lines(ax, range(1, len(curves[0]) + 1), curves, colour, start, marker="o", markersize=3)
        lab.tidy(ax, "epoch", "training loss" if activation == "tanh" else "", f"{DEPTH} hidden layers, {activation}")
        ax.set_yscale("log")
    return sheet
