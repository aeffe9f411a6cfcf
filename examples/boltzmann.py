"""What Boltzmann machines dream of: features and samples of an RBM and of a deep belief net.

    python examples/boltzmann.py --out docs/autoencoders         # MNIST, 2 minutes on one core
    python examples/boltzmann.py --data digits --epochs 30       # the bundled 8×8 digits: a few seconds

Prints free energy and reconstruction error on training and held-out pictures, and draws (needs matplotlib)

    rbm.png        weights of hidden units; samples after chains of 1,000 steps: CD-1 from held-out pictures, persistent CD
                   from its particles
    dreams.png     samples of the deep belief net: Gibbs sampling in the top RBM, from its particles, carried down

The free energies of training and held-out pictures stay together as long as the machine does not learn single pictures by
heart. Checkpoints are kept in runs/boltzmann: ended at any moment, the same command goes on.

Source: lecture: unsupervised learning, restricted Boltzmann machine, deep belief net; Hinton, "A practical guide to training
restricted Boltzmann machines", 2010; Hinton, Osindero & Teh 2006.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.train import Checkpoint, LRSchedule, ObjectiveTrainer

SAMPLES, BATCH = 64, 64


def binary(data):
    """Black and white: what p(v) is a distribution of."""
    return cl.data.Dataset((data.x > 0.5).astype(np.float32), data.y, data.classes, data.name)


def train_or_load(name, net, train, test, epochs):
    folder = Path("runs/boltzmann") / f"{train.name}-{name}-{epochs}"
    optimizer = optim.Adam(net.parameters(), lr=1e-3)
    steps = epochs * -(-len(train) // BATCH)  # the rate falls to 0, so that the particles can follow the machine
    callbacks = [LRSchedule(optim.CosineAnnealingLR(optimizer, steps), per="step"), Checkpoint(folder, best=None)]
    trainer = ObjectiveTrainer(net, optimizer, callbacks, BATCH, progress=False)
    return trainer.fit(train, test, epochs=epochs, resume=True)


def draw(parts, path):
    """Grids of grey pictures (N, H, W) side by side."""
    from cnnlib.viz.figure import new_figure, tiles

    figure = new_figure(5.2 * len(parts), 5.4)
    for part, (title, pictures) in zip(np.atleast_1d(figure.subfigures(1, len(parts))), parts.items(), strict=True):
        for ax, picture in zip(tiles(part, 8, 8).flat, pictures, strict=False):
            limit = np.abs(picture).max()
            ax.imshow(picture, cmap="gray", vmin=-limit if picture.min() < 0 else 0, vmax=limit if picture.min() < 0 else 1)
        part.suptitle(title, fontsize=10)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="mnist, fashion or digits")
    parser.add_argument("--epochs", type=int, default=5, help="of the RBM, and of each layer of the deep belief net")
    parser.add_argument("--steps", type=int, default=1000, help="of Gibbs sampling")
    parser.add_argument("--out", default=None, metavar="DIR", help="draw the pictures into this folder")
    args = parser.parse_args()

    train, test = (binary(part) for part in cl.data.load(args.data))
    shape = train.x.shape[1:]
    machines = {
        "CD-1": lambda: models.RBM(shape, 500, "binary"),
        "persistent CD-1": lambda: models.RBM(shape, 500, "binary", chains=64),
        "deep belief net": lambda: models.DeepBeliefNet(shape, (500, 250), "binary", chains=64, epochs_per_layer=args.epochs),
    }
    print("                     free energy          squared error\n                   training  held out   training  held out")
    nets = {}
    for name, make in machines.items():
        cl.manual_seed(0)
        nets[name] = make()
        epochs = args.epochs * (2 if name == "deep belief net" else 1)
        row = train_or_load(name.replace(" ", "-"), nets[name], train, test, epochs)[-1]
        measured = (row[f"{part}{what}"] for what in ("free_energy", "mse") for part in ("", "validation_"))
        print("{:18} {:9.2f} {:9.2f}   {:8.4f}  {:8.4f}".format(name + (", top" if epochs > args.epochs else ""), *measured))

    if args.out:
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        side = shape[1:]
        start = {"CD-1": test.x[:SAMPLES]}
        samples = {name: net.sample(SAMPLES, 0, args.steps, start.get(name))[:, 0] for name, net in nets.items()}
        draw({"weights of hidden units": nets["CD-1"].weight.numpy().reshape(-1, *side), "samples, CD-1": samples["CD-1"],
              "samples, persistent CD": samples["persistent CD-1"]}, out / "rbm.png")  # fmt: skip
        draw({"samples of the deep belief net": samples["deep belief net"]}, out / "dreams.png")


if __name__ == "__main__":
    with reader_may_leave():
        main()
