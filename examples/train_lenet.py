"""LeNet-5 on MNIST, Fashion-MNIST or the bundled digits: the whole training in Python, as short as it gets.

    python examples/train_lenet.py --data mnist --epochs 5

`cnnlib train lenet5 --data mnist` does the same from the command line. Run it twice: the second goes on where the first
ended, or was interrupted.
"""

import argparse

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.train import Checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["digits", "fashion", "fashion_subset", "mnist"], default="digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=None, metavar="DIR", help="where checkpoints go; default runs/lenet-DATA")
    args = parser.parse_args()

    cl.manual_seed(args.seed)
    train, test = cl.data.load(args.data, size=32)
    options = {"num_classes": len(train.classes), "in_channels": 1, "input_size": 32}
    net = models.LeNet5(**options)
    trainer = cl.Trainer(
        net,
        nn.CrossEntropyLoss(),
        optim.Adam(net.parameters(), lr=args.lr),
        callbacks=[Checkpoint(args.out or f"runs/lenet-{args.data}")],
        batch_size=args.batch_size,
        transform=cl.data.Normalize.fit(train),
        seed=args.seed,
        model_name="lenet5",
        model_options=options,
    )
    trainer.fit(train, test, epochs=args.epochs, resume=True)
    print(f"{trainer.evaluate(test)['accuracy']:.2%} of {len(test):,} test pictures are right")


if __name__ == "__main__":
    main()
