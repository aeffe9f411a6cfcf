"""Variational autoencoders on pictures of digits or garments: the bound, what they draw, and the plane of two latents.

    python examples/vae.py                              # MNIST, 5 epochs each; pictures in runs/vae
    python examples/vae.py --data fashion --epochs 20

Three models are trained: one with 20 latents, one with 2 whose whole code can be seen, and a conditional one. Runs that are
complete are not repeated: the checkpoints lie beside the pictures.

Source: lecture: variational autoencoder; Kingma & Welling, "Auto-encoding variational Bayes", 2014.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import optim, viz
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.train import Checkpoint, NaNStop, ObjectiveTrainer

BATCH = 128


def trained(name, train, test, epochs, folder, seed=0, **options):
    """A `VAE` after ``epochs`` epochs, and its history; goes on with what is in the folder."""
    cl.manual_seed(seed)
    options |= cl.models.VAE.options_from(train)
    net = cl.models.VAE(**options)
    trainer = ObjectiveTrainer(
        net, optim.Adam(net.parameters(), lr=1e-3), [Checkpoint(folder / name), NaNStop()], BATCH, seed=seed,
        model_name="vae", model_options=options,
    )  # fmt: skip
    print(f"{name}: {options}")
    return net.train(False), trainer.fit(train, test, epochs=epochs, resume=True)


def report(name, row, net=None, test=None, samples=100):
    """One line: the bound of the test data, its two terms, and nearer to ln p(x) by many draws."""
    elbo = row["validation_reconstruction"] + row["validation_kl"]
    text = f"{name}: -ELBO {elbo:.1f} = {row['validation_reconstruction']:.1f} + {row['validation_kl']:.1f} (KL)"
    if net is not None:
        x = test.x[:1000]
        text += (
            f"; -ln p(x) about {-net.log_likelihood(x, samples).mean():.1f} with {samples} draws, the first {len(x)} samples"
        )
    print(text + ", nats")


def draw(code, plane, conditional, test, out):
    viz.sample_grid(code.sample(100), title="20 latents: z from N(0, I)").savefig(out / "vae-samples.png")
    viz.latent_grid(plane.decode, side=20, title="two latents: the whole code").savefig(out / "vae-plane.png")
    first = [int(np.flatnonzero(test.y == c)[0]) for c in range(8)]
    with cl.no_grad():
        z = code.encode(test.x[first]).mean.numpy()
    ways = viz.interpolation(code.decode, z, np.roll(z, -1, axis=0), steps=10, title="from one test picture to another")
    ways.savefig(out / "vae-interpolation.png")
    classes = conditional.classes
    z = np.repeat(cl.random.normal(cl.random.Key(0, 3, 0), (8, conditional.latents)), classes, axis=0).astype(np.float32)
    with cl.no_grad():
        rows = conditional.decode(z, np.tile(np.arange(classes), 8)).mean.numpy()
    viz.sample_grid(rows, classes, "conditional: a row has one z, a column one class").savefig(out / "vae-conditional.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="mnist (default), fashion or digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/vae"))
    args = parser.parse_args()

    train, test = cl.data.load(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    fit = {"train": train, "test": test, "epochs": args.epochs, "folder": args.out, "seed": args.seed}
    code, history = trained("code", latents=20, **fit)
    report("20 latents", history[-1], code, test)
    plane, history = trained("plane", latents=2, hidden=(400, 200), **fit)
    report(" 2 latents", history[-1])
    conditional, history = trained("conditional", latents=10, conditional=True, **fit)
    report("conditional", history[-1])
    draw(code, plane, conditional, test, args.out)
    print(f"pictures in {args.out}")


if __name__ == "__main__":
    with reader_may_leave():
        main()
