"""Neurons from 1943 to 1998, each at work on the data of its time: what it learns, and where it fails.

    python examples/history.py --out history

Writes history.png with the decision boundaries into the folder (needs matplotlib: pip install "cnnlib[viz]").
Source: lecture: neurons, from 1943 to 2012.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.cli.pipe import reader_may_leave

SQUARE = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {"AND": np.array([0, 0, 0, 1]), "OR": np.array([0, 1, 1, 1]), "XOR": np.array([0, 1, 1, 0])}


def heading(year: int, text: str) -> None:
    print(f"\n{year}  {text}\n{'-' * (6 + len(text))}")


def two_clouds(n: int = 60, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """n points (n, 2) in two clouds that a line separates, and their classes (n,)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 2)) * 0.5 + np.where(y[:, None] == 1, 1.0, -1.0) * np.array([0.8, 0.6])
    return x.astype(np.float32), y


def mcculloch_pitts() -> None:
    heading(1943, "McCulloch and Pitts: weights set by hand")
    for name in ("AND", "OR"):
        gate = models.McCullochPitts(name.lower())
        print(f"{name:4} {gate.extra_repr():40} {SQUARE.astype(int).tolist()} -> {gate(SQUARE).numpy().tolist()}")
    gate = models.McCullochPitts("not")
    print(f"NOT  {gate.extra_repr():40} [[0], [1]] -> {gate(np.array([[0], [1]], np.float32)).numpy().tolist()}")


def perceptron(x, y):
    heading(1958, "Rosenblatt's perceptron: it learns from its mistakes")
    for name in ("AND", "OR"):
        run = models.Perceptron(2).fit(SQUARE, GATES[name])
        print(f"{name:10} solved after {run.updates} updates in {run.epochs} epochs")
    neuron = models.Perceptron(2)
    run = neuron.fit(x, y)
    print(f"two clouds solved after {run.updates} updates in {run.epochs} epochs")
    return neuron


def adaline(x, y):
    heading(1960, "Widrow and Hoff's ADALINE: least mean squares goes downhill")
    neuron = models.Adaline(2)
    errors = neuron.fit(x, y, lr=0.01, epochs=20)
    for epoch in (0, 1, 2, 4, 9, 19):
        print(f"epoch {epoch + 1:2}  mean squared error {errors[epoch]:.3f}  {'█' * round(40 * errors[epoch] / errors[0])}")
    print(f"{(neuron.predict(x).numpy() == y).mean():.0%} of the two clouds are right")
    return neuron


def minsky_papert():
    heading(1969, "Minsky and Papert: no line separates XOR")
    neuron = models.Perceptron(2)
    run = neuron.fit(SQUARE, GATES["XOR"], max_epochs=1000)
    print(
        f"the perceptron after {run.epochs:,} epochs and {run.updates:,} updates: still {run.mistakes[-1]} mistakes in an epoch"
    )
    return neuron


def train_xor(seed: int, steps: int = 1000):
    """An MLP with two hidden sigmoids, and whether it got all four points right."""
    cl.manual_seed(seed)
    net, loss = models.MLP(2, hidden=(2,), num_classes=2, activation="sigmoid"), nn.CrossEntropyLoss()
    optimizer = optim.Adam(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net(SQUARE), GATES["XOR"]).backward()
        optimizer.step()
    return net, bool((classes_of(net, SQUARE) == GATES["XOR"]).all())


def classes_of(net, x) -> np.ndarray:
    with cl.no_grad():
        return net(x).numpy().argmax(axis=1)


def backpropagation(seeds: int):
    heading(1986, "Rumelhart, Hinton and Williams: a hidden layer, learnt by backpropagation")
    runs = [train_xor(seed) for seed in range(seeds)]
    solved = [net for net, right in runs if right]
    stuck = seeds - len(solved)
    print(
        f"XOR: {len(solved)} of {seeds} networks with 2 hidden units solve it, {stuck / seeds:.0%} are stuck in a local optimum"
    )
    train, test = cl.data.digits()
    net, loss = models.MLP(64, hidden=(32,)), nn.CrossEntropyLoss()
    optimizer = optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(30):
        for x, y in cl.data.DataLoader(train, batch_size=64):
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()
    shares = [(classes_of(net, part.x) == part.y).mean() for part in (train, test)]
    print("handwritten digits, 64-32-10: {:.1%} of the training set, {:.1%} of new ones".format(*shares))
    return solved[0] if solved else runs[0][0]


def support_vectors(x, y):
    heading(1995, "Cortes and Vapnik's SVM: of all lines, the one with the widest street")
    net = models.LinearSVM(in_features=2, num_classes=2)
    loss, optimizer = net.criterion(), optim.SGD(net.parameters(), lr=0.2, weight_decay=0.02)
    for _ in range(1000):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
    with cl.no_grad():
        signed = net(x).numpy()[np.arange(len(x)), y]  # t s: how far on the right side, in half streets
    print(f"{(signed > 0).mean():.0%} right; half the street is {net.margins()[0]:.2f} wide; "
          f"{(signed < 1.01).sum()} of {len(x)} points are support vectors")  # fmt: skip
    return net


def draw(neurons: dict, x, y, path: Path) -> None:
    """One panel per neuron: the plane as it divides it."""
    from cnnlib import viz
    from cnnlib.viz.figure import new_figure

    figure = new_figure(3.2 * len(neurons), 3.5)
    for ax, (title, (predict, on_xor)) in zip(figure.subplots(1, len(neurons)), neurons.items(), strict=True):
        viz.decision_boundary(predict, *((SQUARE, GATES["XOR"]) if on_xor else (x, y)), title=title, ax=ax)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write the picture; without it none is drawn")
    parser.add_argument("--seeds", type=int, default=30, help="how many networks try XOR")
    args = parser.parse_args()
    x, y = two_clouds()

    mcculloch_pitts()
    rosenblatt, widrow = perceptron(x, y), adaline(x, y)
    minsky, mlp, svm = minsky_papert(), backpropagation(args.seeds), support_vectors(x, y)
    heading(1998, "LeCun's LeNet-5 learns its own features: python examples/demo.py")
    if args.out:
        draw({
            "perceptron": (rosenblatt, False),
            "ADALINE": (widrow.predict, False),
            "linear SVM": (lambda p: classes_of(svm, p), False),
            "perceptron on XOR": (minsky, True),
            "MLP on XOR": (lambda p: classes_of(mlp, p), True),
        }, x, y, args.out / "history.png")  # fmt: skip


if __name__ == "__main__":
    with reader_may_leave():
        main()
