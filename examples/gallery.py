"""Every picture that cnnlib draws: a small network learns Fashion-MNIST in under a minute, then it is looked at.

    python examples/gallery.py --out gallery

docs/gallery.md shows the pictures and says how to read them. Needs matplotlib: pip install "cnnlib[viz]".
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

import cnnlib as cl
from cnnlib import nn, ops, optim, viz
from cnnlib.cli.pipe import reader_may_leave


def convnet() -> nn.Module:
    """Two convolutions and a linear layer: 28×28 in, 10 classes out."""
    net = nn.Sequential()
    net.conv1, net.relu1, net.pool1 = nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
    net.conv2, net.relu2, net.pool2 = nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
    net.flatten, net.drop, net.output = nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 7 * 7, 10)
    return net


def trained(train, test, epochs: int):
    """The network, its history, and its predictions for the test set."""
    net = convnet()
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=2e-3), batch_size=64)
    history = trainer.fit(train, test, epochs=epochs)
    return net, history, trainer.predict(test.x).argmax(axis=1)


class Residual(nn.Module):
    """y = max(F(x) + x, 0); where shapes change, a 1×1 convolution takes the place of x."""

    def __init__(self, C: int, F: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(C, F, 3, stride=stride, padding=1), nn.BatchNorm2d(F), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(F, F, 3, padding=1), nn.BatchNorm2d(F)
        self.shortcut = nn.Identity() if (C, stride) == (F, 1) else nn.Conv2d(C, F, 1, stride=stride)

    def forward(self, x):
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return ops.relu(h + self.shortcut(x))


class Inception(nn.Module):
    """Convolutions of three sizes and a pooling beside each other."""

    def __init__(self, C: int, F: int):
        super().__init__()
        self.a = nn.Conv2d(C, F, 1)
        self.b = nn.Sequential(nn.Conv2d(C, F // 2, 1), nn.ReLU(), nn.Conv2d(F // 2, F, 3, padding=1))
        self.c = nn.Sequential(nn.Conv2d(C, F // 4, 1), nn.ReLU(), nn.Conv2d(F // 4, F, 5, padding=2))
        self.d = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(C, F, 1))

    def forward(self, x):
        return ops.relu(ops.concat([self.a(x), self.b(x), self.c(x), self.d(x)], axis=1))


def sigmoid_net(batch_norm: bool) -> nn.Sequential:
    """784-100-100-100-10, sigmoids with or without batch norm before them, as in the batch-norm paper's experiment."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (784, 100, 100):
        layers += [nn.Linear(inputs, 100), *([nn.BatchNorm1d(100)] if batch_norm else []), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def input_percentiles(train, batch_norm: bool, epochs: int) -> list[np.ndarray]:
    """{15, 50, 85}th percentiles of what one unit of the last sigmoid gets, at every training step."""
    cl.manual_seed(0)
    net, rows = sigmoid_net(batch_norm), []
    optimizer = optim.SGD(net.parameters(), lr=0.5)
    net[-2].register_forward_hook(lambda _, inputs, y: rows.append(np.percentile(inputs[0].numpy()[:, 0], (15, 50, 85))))
    for epoch in range(epochs):
        for x, y in cl.data.DataLoader(train, batch_size=60, shuffle=True, seed=epoch):
            optimizer.zero_grad()
            ops.cross_entropy(net(x), y).backward()
            optimizer.step()
    return rows


def first_step(train, activation: str) -> cl.trace:
    """Forward and backward of one batch through eight hidden layers, traced."""
    cl.manual_seed(0)
    net = cl.models.MLP(784, hidden=(64,) * 8, activation=activation)
    with cl.trace() as t:
        ops.cross_entropy(net(train.x[:128]), train.y[:128]).backward()
    return t


def spirals(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Two arms around each other: points (2n, 2), classes (2n,)."""
    rng = np.random.default_rng(0)
    angle = np.sqrt(rng.uniform(size=(2, n))) * 3 * np.pi + np.array([[0.0], [np.pi]])
    radius = (angle - np.array([[0.0], [np.pi]])) / (3 * np.pi)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1) + rng.normal(size=(2, n, 2)) * 0.02
    return x.reshape(-1, 2).astype(np.float32), np.repeat([0, 1], n)


def spiral_boundary():
    """An MLP that has learnt the spirals, and the plane as it divides it."""
    cl.manual_seed(0)
    x, y = spirals()
    net = cl.models.MLP(2, hidden=(32, 32), num_classes=2, activation="tanh")
    optimizer = optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(1500):
        optimizer.zero_grad()
        ops.cross_entropy(net(x), y).backward()
        optimizer.step()
    with cl.no_grad():
        return viz.decision_boundary(lambda p: net(p).numpy().argmax(axis=1), x, y, title="two spirals, MLP 2-32-32-2")


def dropout_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(8, 10), nn.ReLU(), nn.Dropout(0.5), nn.Linear(10, 10), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(10, 3),
    )  # fmt: skip


def pictures(train, test, epochs: int):
    """(name, figure or SVG text), one after the other."""
    cl.manual_seed(0)
    net, history, predictions = trained(train, test, epochs)
    net.eval()
    sure = ops.softmax(net(test.x)).numpy()[np.arange(len(test)), test.y]
    # A boot, a bag, a dress, a T-shirt of which the network is nearly sure: where it is quite sure, nothing can shake it.
    some = [int((abs(sure - 0.9) + (test.y != c)).argmin()) for c in (9, 8, 3, 0)]
    x, labels = test.x[some], test.y[some]

    yield "learning-curve", viz.learning_curve(history)
    yield "confusion-matrix", viz.confusion_matrix(test.y, predictions, test.classes)
    yield "filters", viz.filters(net)
    yield "feature-maps", viz.feature_maps(net, x[0], layers=["relu1", "pool1", "relu2", "pool2"], most=10)
    yield "saliency", viz.saliency(net, x, labels, classes=test.classes)
    yield "occlusion", viz.occlusion(net, x, labels, size=8, stride=1, classes=test.classes)
    yield "deconvnet", viz.deconvnet(net, test.x, "relu2", most=6)

    yield "gradient-flow", viz.gradient_flow(first_step(train, "sigmoid"), title="8 hidden layers of sigmoids, first step")
    runs = {"without batch norm": False, "with batch norm": True}
    rows = {name: input_percentiles(train, batch_norm, epochs) for name, batch_norm in runs.items()}
    yield "percentiles", viz.percentiles(rows, label="input of a sigmoid")
    cl.manual_seed(1)
    yield "thinned-network", viz.thinned_network(dropout_net(), (8,))
    yield "decision-boundary", spiral_boundary()

    residual = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), Residual(16, 16), Residual(16, 32, stride=2))
    yield "architecture-residual", viz.architecture(residual, (1, 28, 28))
    branched = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.MaxPool2d(2), Inception(16, 16), nn.MaxPool2d(2))
    yield "architecture-inception", viz.architecture(branched, (1, 28, 28))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gallery"), metavar="DIR")
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(*cl.data.fashion_subset(), args.epochs):
        path = args.out / f"{name}{'.svg' if isinstance(picture, str) else '.png'}"
        if isinstance(picture, str):
            path.write_text(picture, "utf-8")
        else:
            picture.savefig(png := io.BytesIO())
            Image.open(png).convert("RGB").quantize(256).save(path, optimize=True)  # a third of the size, and looks the same
        print(path)


if __name__ == "__main__":
    with reader_may_leave():
        main()
