"""A deep convolutional GAN learns to draw garments, and the game between its two players is watched.

    python examples/dcgan.py                            # Fashion-MNIST, 10 epochs; pictures in runs/dcgan
    python examples/dcgan.py --epochs 20                # goes on from there

The same draws z are shown after every epoch, as a strip and as an animation; the curves are D(x) and D(G(z)), which both are ½
where the game is over. The run goes on from its last checkpoint when it is called again.

Source: lecture: generative adversarial networks; Radford, Metz & Chintala, "Unsupervised representation learning with deep
convolutional generative adversarial networks", 2016.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import optim, viz
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.train import AdversarialTrainer, Callback, Checkpoint, NaNStop
from cnnlib.viz.figure import CLASSES, new_figure

SHOWN = 100


class Snapshots(Callback):
    """What the model draws of the same z after each epoch: (epochs, N, C, H, W), in bytes. Part of checkpoints."""

    def __init__(self):
        self.drawn = []

    def on_epoch_end(self, trainer, row):
        self.drawn.append(np.rint(255 * trainer.model.sample(SHOWN, seed=0)).astype(np.uint8))

    def state_dict(self):
        return {"drawn": list(self.drawn)}

    def load_state_dict(self, state):
        self.drawn = list(state["drawn"])


def strip(drawn, out, columns=12):
    """A row for each epoch, below each other."""
    rows = np.concatenate([pictures[:columns] for pictures in drawn]) / np.float32(255)
    viz.sample_grid(rows, columns, f"the same {columns} draws after 1 … {len(drawn)} epochs").savefig(out / "dcgan-epochs.png")


def animation(drawn, out):
    from PIL import Image

    frames = [np.rint(255 * viz.mosaic(pictures / np.float32(255))).astype(np.uint8) for pictures in drawn]
    frames = [Image.fromarray(frame[0] if len(frame) == 1 else frame.transpose(1, 2, 0)) for frame in frames]
    frames[0].save(
        out / "dcgan.gif", save_all=True, append_images=frames[1:], duration=[500] * (len(frames) - 1) + [2000], loop=0
    )


def equilibrium(history, out):
    figure = new_figure(6, 3)
    ax = figure.subplots()
    for column, colour, label in (("d_real", CLASSES[0], "D(x)"), ("d_fake", CLASSES[1], "D(G(z))")):
        ax.plot(history["epoch"], history[column], color=colour, marker="o", label=label)
    ax.axhline(0.5, color="0.6", linestyle="--", linewidth=1)
    ax.set(ylim=(0, 1), xlabel="epoch", title="mean over the training of each epoch")
    ax.legend(frameon=False)
    figure.savefig(out / "dcgan-equilibrium.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion", help="fashion (default), mnist or digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--maps", type=int, default=32, help="of the layers at half size; default 32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/dcgan"))
    args = parser.parse_args()

    train, _ = cl.data.load(args.data)
    cl.manual_seed(args.seed)
    options = {"hidden": [args.maps]} | cl.models.DCGAN.options_from(train)
    net = cl.models.DCGAN(**options)
    snapshots = Snapshots()
    trainer = AdversarialTrainer(
        net, optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)),
        [snapshots, Checkpoint(args.out, save_every=200), NaNStop()], 64, seed=args.seed,
        model_name="dcgan", model_options=options,
    )  # fmt: skip
    started = time.perf_counter()
    history = trainer.fit(train, epochs=args.epochs, resume=True)
    strip(snapshots.drawn, args.out)
    animation(snapshots.drawn, args.out)
    equilibrium(history, args.out)
    last = history[-1]
    print(f"D(x) {last['d_real']:.2f}, D(G(z)) {last['d_fake']:.2f} after epoch {last['epoch']}; "
          f"{sum(history['seconds']) / 60:.1f} minutes of training, {time.perf_counter() - started:.0f} s now; "
          f"pictures in {args.out}")  # fmt: skip


if __name__ == "__main__":
    with reader_may_leave():
        main()
