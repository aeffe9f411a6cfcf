"""The data that is part of the package (sources and licences: ``bundled/README.md``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnnlib.data.dataset import Dataset
from cnnlib.data.formats import read_images_and_labels
from cnnlib.errors import DataError, ValueRangeError

FOLDER = Path(__file__).parent / "bundled"

FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def digits(size: int = 8) -> tuple[Dataset, Dataset]:
    """(train, test): the 1,797 handwritten digits of UCI, 1,437 to train on and 360 held out.

    x is (N, 1, 8, 8) float32 in [0, 1] (ink counts 0 ... 16, divided by 16); with ``size=32`` each pixel is repeated 4×4,
    which gives the 32×32 that LeNet-5 takes. The test set is stratified by class, drawn once with seed 0 and always the
    same; the same writers appear in both parts, so it is easier than digits of new writers.
    """
    if size not in (8, 32):
        raise ValueRangeError(f"digits: size must be 8 or 32, got {size!r}.")
    images, labels = _files("digits", "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
    pixels, y = read_images_and_labels(images, labels)
    x = (pixels / np.float32(16))[:, None]
    if size == 32:
        x = x.repeat(4, axis=2).repeat(4, axis=3)
    train, test = Dataset(x, y, [str(d) for d in range(10)], "digits").split(360, seed=0)
    train.name, test.name = "digits train", "digits test"
    return train, test


def fashion_subset(size: int = 28) -> tuple[Dataset, Dataset]:
    """(train, test): 3,000 + 1,000 pictures of Fashion-MNIST, equally many of each of the 10 classes.

    x is (N, 1, 28, 28) float32 in [0, 1]; ``size=32`` puts 2 pixels of zeros around them.
    """
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return idx_sets("fashion_subset", _files("fashion", *names), FASHION_CLASSES, size)


def sonnets_text() -> str:
    """Shakespeare's 154 sonnets, 95,650 ASCII characters."""
    return _files("sonnets", "sonnets.txt")[0].read_text("ascii")


def idx_sets(name: str, files: list[Path], classes: tuple[str, ...], size: int) -> tuple[Dataset, Dataset]:
    """(train, test) of 28×28 pictures out of four IDX files: train images, labels, test images, labels."""
    if size not in (28, 32):
        raise ValueRangeError(f"{name}: size must be 28, or 32 for a margin of 2 pixels; got {size!r}.")
    sets = []
    for part, images, labels in (("train", files[0], files[1]), ("test", files[2], files[3])):
        pixels, y = read_images_and_labels(images, labels, len(classes))
        if pixels.shape[1:] != (28, 28):
            raise DataError(f"{images}: expected pictures of 28 × 28 pixels (bytes 8 and 12), found {pixels.shape[1:]}.")
        margin = (size - 28) // 2
        x = np.zeros((len(pixels), 1, size, size), dtype=np.float32)
        np.divide(pixels, np.float32(255), out=x[:, 0, margin : margin + 28, margin : margin + 28])
        sets.append(Dataset(x, y, classes, f"{name} {part}"))
    return sets[0], sets[1]


def _files(folder: str, *names: str) -> list[Path]:
    paths = [FOLDER / folder / name for name in names]
    missing = [str(p) for p in paths if not p.is_file()]
    if missing:
        raise DataError(f"the installed package lacks its own data ({', '.join(missing)}): install cnnlib again.")
    return paths
