"""LeNet-5 learns to read handwritten digits, in under a minute: progress, accuracy, backends compared, one picture.

    python examples/demo.py --out demo

The digits are the real ones that come with the library (UCI, 1,437 to learn from, 360 held out), scaled to 32×32.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.compare import compare
from cnnlib.data import Compose, Normalize, RandomCrop
from cnnlib.train import LRSchedule


def picture(net, sample, test, predictions, history, path: Path) -> None:
    """Filters, feature maps, confusion matrix and learning curve on one sheet."""
    from cnnlib import viz
    from cnnlib.viz.figure import new_figure

    sheet = new_figure(14, 10)
    top, bottom = sheet.subfigures(2, 1, height_ratios=[1, 1])
    left, right = top.subfigures(1, 2, width_ratios=[1, 1.15])
    upper, lower = left.subfigures(2, 1, height_ratios=[1, 1.6])
    viz.filters(net.c1.weight, title="c1, what the first layer looks for", figure=upper)
    viz.learning_curve(history, figure=lower)
    viz.confusion_matrix(test.y, predictions, test.classes, figure=right)
    viz.feature_maps(net, sample, layers=["act1", "s2", "act3", "s4"], figure=bottom)
    sheet.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    cl.manual_seed(args.seed)
    train, test = cl.data.digits(size=32)
    net = models.LeNet5()
    print(cl.summary(net, train.x.shape[1:]))
    optimizer = optim.Adam(net.parameters(), lr=3e-3)
    schedule = LRSchedule(optim.CosineAnnealingLR(optimizer, T_max=args.epochs))
    shifted = Compose([RandomCrop(32, padding=2), Normalize.fit(train)])  # a digit is the same a little to the left
    trainer = cl.Trainer(
        net, nn.CrossEntropyLoss(), optimizer, callbacks=[schedule], batch_size=32, transform=shifted, seed=args.seed
    )
    history = trainer.fit(train, test, epochs=args.epochs)

    sample = trainer.eval_transform(test.x[:1], np.arange(1), 0, 0)  # as the network sees it: normalised
    predictions = trainer.predict(test.x).argmax(axis=1)
    print(f"\n{(predictions == test.y).mean():.1%} of {len(test)} digits it has never seen are read correctly\n")

    result = compare(models.LeNet5, train.x[:64], train.y[:64])
    print("\n".join(result.lines()))

    args.out.mkdir(parents=True, exist_ok=True)
    try:
        picture(net, sample, test, predictions, history, args.out / "lenet5.png")
        print(f"\npicture: {args.out / 'lenet5.png'}")
    except cl.errors.CnnlibError as error:  # matplotlib is an extra
        print(f"\nno picture: {error}")


if __name__ == "__main__":
    with reader_may_leave():
        main()
