"""What 32 numbers keep of a picture, and what is left of noise: autoencoders beside PCA.

    python examples/autoencoders.py --out docs/autoencoders      # 2 minutes on one core
    python examples/autoencoders.py --data digits --epochs 20    # the bundled 8×8 digits: a few seconds

Prints the squared error per pixel on test pictures, and draws (needs matplotlib: pip install "cnnlib[viz]")

    reconstructions.png   pictures, and what PCA, the fully connected and the convolutional autoencoder make of 32 numbers
    denoising.png         pictures under three kinds of noise, and the answers of three denoising autoencoders
    features.png          weights of the units that a plain and a denoising autoencoder have learnt, 1,000 units each

Checkpoints are kept in runs/autoencoders: ended at any moment, the same command goes on.

Source: lecture: unsupervised learning, autoencoders; Vincent et al., "Stacked denoising autoencoders", 2010.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.models.denoising_autoencoder import NOISES
from cnnlib.train import Checkpoint, ObjectiveTrainer

CODE, SHOWN = 32, 8
LEVELS = {"masking": 0.5, "salt_and_pepper": 0.3, "gaussian": 0.5}


def train_or_load(name, net, train, test, epochs, seed=0):
    """The trained network; ``history`` has the held-out errors."""
    folder = Path("runs/autoencoders") / f"{train.name}-{name}-{epochs}"
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-3), [Checkpoint(folder, best=None)], seed=seed,
                               progress=False)  # fmt: skip
    return trainer.fit(train, test, epochs=epochs, resume=True)


def networks(shape):
    """Name -> how to make it, in the order of the table."""
    dae = lambda noise: models.DenoisingAutoencoder(  # noqa: E731
        shape, (1000,), noise, LEVELS[noise], code="relu", error="squared", tied=False
    )
    return {
        "autoencoder": lambda: models.Autoencoder(shape, (128, CODE)),
        "tied": lambda: models.Autoencoder(shape, (128, CODE), tied=True),
        "convolutional": lambda: models.ConvAutoencoder(shape, code=CODE),
        "plain": lambda: models.Autoencoder(shape, (1000,), code="relu"),
        **{noise: (lambda noise=noise: dae(noise)) for noise in NOISES},
    }


def answers(net, x):
    net.eval()
    with cl.no_grad():
        return np.concatenate([net(x[i : i + 1000]).numpy() for i in range(0, len(x), 1000)])


def pca(train, x, K):
    """The projections of x onto the first K principal components of the training pictures."""
    flat = train.reshape(len(train), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    V = np.linalg.eigh((flat - mean).T @ (flat - mean))[1][:, ::-1][:, :K]
    return ((x.reshape(len(x), -1) - mean) @ V @ V.T + mean).reshape(x.shape)


def draw_rows(rows, path):
    """Pictures (N, C, H, W) by label, a row each."""
    from cnnlib.viz.figure import new_figure, tiles

    figure = new_figure(1.0 * SHOWN + 2.2, 1.0 * len(rows))
    axes = tiles(figure, len(rows), SHOWN)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=False):
            ax.imshow(np.clip(picture[0], 0, 1), cmap="gray", vmin=0, vmax=1)
        line[0].text(-0.1, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    figure.savefig(path)


def draw_features(features, path):
    """The weights (units, pixels) of each network, side by side; every unit in its own scale."""
    from cnnlib.viz.figure import new_figure, tiles

    side = 8
    figure = new_figure(5.2 * len(features), 5.4)
    for part, (title, weight) in zip(np.atleast_1d(figure.subfigures(1, len(features))), features.items(), strict=True):
        strongest = np.argsort(-np.square(weight).sum(axis=(1, 2)))[: side * side]
        for ax, unit in zip(tiles(part, side, side).flat, weight[strongest], strict=False):
            limit = np.abs(unit).max()
            ax.imshow(unit, cmap="gray", vmin=-limit, vmax=limit)
        part.suptitle(title, fontsize=10)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion", help="fashion, mnist or digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", default=None, metavar="DIR", help="draw the pictures into this folder")
    args = parser.parse_args()

    train, test = cl.data.load(args.data)
    nets = {}
    print(f"{args.data}: squared error per pixel on {len(test):,} test pictures, after {args.epochs} epochs")
    projected = pca(train.x, test.x, CODE)
    print(f"  {'PCA, 32 components':34} {np.square(projected - test.x).mean():.5f}")
    for name, make in networks(train.x.shape[1:]).items():
        cl.manual_seed(0)
        nets[name] = make()
        history = train_or_load(name, nets[name], train, test, args.epochs)
        trained_on = f" (trained under {LEVELS[name]} {name.replace('_', ' ')} noise)" if name in NOISES else ""
        print(f"  {name:34} {history['validation_mse'][-1]:.5f}{trained_on}")

    print("\nunder noise            given      the plain one   the one trained for it")
    cl.manual_seed(0)
    noisy = {noise: kind(LEVELS[noise])(test.x).numpy() for noise, kind in NOISES.items()}
    for noise, x in noisy.items():
        errors = [np.square(z - test.x).mean() for z in (x, answers(nets["plain"], x), answers(nets[noise], x))]
        print("  {:20} {:.5f}    {:.5f}         {:.5f}".format(noise, *errors))

    if args.out:
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        x = test.x[:SHOWN]
        draw_rows({"picture": x, "PCA, 32": projected[:SHOWN], "784-128-32-128-784": answers(nets["autoencoder"], x),
                   "convolutional, 32": answers(nets["convolutional"], x)}, out / "reconstructions.png")  # fmt: skip
        rows = {}
        for noise in NOISES:
            label = noise.replace("_", " ")
            rows |= {label: noisy[noise][:SHOWN], f"{label}: answer": answers(nets[noise], noisy[noise][:SHOWN])}
        draw_rows(rows, out / "denoising.png")
        side = test.x.shape[2:]
        draw_features({title: nets[name].encoder[0].weight.numpy().reshape(-1, *side) for title, name in
                       (("plain, K = 1,000", "plain"), ("denoising (masking), K = 1,000", "masking"))},
                      out / "features.png")  # fmt: skip


if __name__ == "__main__":
    with reader_may_leave():
        main()
