"""The data sets by name: what there is, where it is found, how it is loaded.

>>> names()
['cifar10', 'digits', 'fashion', 'fashion_subset', 'mnist', 'reviews', 'sonnets']
>>> train, test = load("digits", size=32)
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnlib.data import builtin, film_reviews
from cnnlib.data.builtin import FASHION_CLASSES, digits, fashion_subset, idx_sets
from cnnlib.data.dataset import Dataset
from cnnlib.data.download import Remote, cached, fetch, local_files
from cnnlib.data.formats import CIFAR_RECORD, open_unzipped, parse_cifar, read_cifar
from cnnlib.data.text import sonnets_sets
from cnnlib.errors import DataError, unknown_name

_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)

REMOTES = {
    "mnist": (
        Remote("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", _MNIST),
        Remote("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", _MNIST),
        Remote("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", _MNIST),
        Remote("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", _MNIST),
    ),
    "fashion": (
        Remote("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", _FASHION),
        Remote("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", _FASHION),
        Remote("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", _FASHION),
        Remote("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", _FASHION),
    ),
    "cifar10": (
        Remote(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ("https://www.cs.toronto.edu/~kriz/",),
        ),
    ),
    "reviews": (film_reviews.REMOTE,),
}

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_FILES = tuple(f"data_batch_{k}.bin" for k in range(1, 6)) + ("test_batch.bin",)
CIFAR_PER_FILE = 10_000


def mnist(size: int = 28) -> tuple[Dataset, Dataset]:
    """(train, test): MNIST, 60,000 + 10,000 handwritten digits.

    x is (N, 1, 28, 28) float32 in [0, 1]; ``size=32`` puts 2 pixels of zeros around, as LeNet-5 had it. The four IDX
    files are looked for in ``CNNLIB_DATA/mnist``, then in the cache, then downloaded (11 MB).
    """
    return idx_sets("mnist", _files("mnist"), tuple("0123456789"), size)


def fashion(subset: bool = False, size: int = 28) -> tuple[Dataset, Dataset]:
    """(train, test): Fashion-MNIST, 60,000 + 10,000 pictures of clothes in 10 classes, in the form of `mnist`.

    Looked for in ``CNNLIB_DATA/fashion``, the cache, then downloaded (30 MB). ``subset=True`` is the bundled part,
    3,000 + 1,000 pictures, which needs no download.
    """
    return fashion_subset(size) if subset else idx_sets("fashion", _files("fashion"), FASHION_CLASSES, size)


def cifar10() -> tuple[Dataset, Dataset]:
    """(train, test): CIFAR-10, 50,000 + 10,000 colour pictures in 10 classes.

    x is (N, 3, 32, 32) float32 in [0, 1], 737 MB together. Looked for in ``CNNLIB_DATA/cifar10`` (the binary version:
    data_batch_1.bin ... test_batch.bin, there or in cifar-10-batches-bin, or cifar-10-binary.tar.gz), the cache, then
    downloaded (170 MB).
    """
    batches = _cifar_batches()
    for file, (pixels, _) in zip(CIFAR_FILES, batches, strict=True):
        if len(pixels) != CIFAR_PER_FILE:
            raise DataError(
                f"{file} (cifar10) holds {len(pixels):,} records instead of {CIFAR_PER_FILE:,}: it breaks off "
                f"at byte {len(pixels) * CIFAR_RECORD:,}. Fetch it again."
            )
    parts = (("train", batches[:-1]), ("test", batches[-1:]))
    train, test = (
        Dataset(
            np.concatenate([p for p, _ in some]) / np.float32(255),
            np.concatenate([y for _, y in some]),
            CIFAR_CLASSES,
            f"cifar10 {part}",
        )
        for part, some in parts
    )
    return train, test


def _cifar_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    if files := _local_batches():
        return [read_cifar(f) for f in files]
    archive = _files("cifar10")[0]
    try:
        records = _members(archive)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: not a complete CIFAR-10 archive ({error}). Fetch it again.") from None
    return [parse_cifar(records[name], f"{archive}, {name}") for name in CIFAR_FILES]


def _members(archive: Path) -> dict[str, bytes]:
    """The contents of the six files in the archive. They go to memory: nothing is unpacked onto the disk."""
    found, size = {}, CIFAR_PER_FILE * CIFAR_RECORD
    with open_unzipped(archive) as file:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                name = member.name.removeprefix("cifar-10-batches-bin/")
                if name in CIFAR_FILES:
                    if not member.isfile() or member.size != size:
                        raise tarfile.TarError(f"{name} should be a file of {size:,} bytes, not of {member.size:,}")
                    found[name] = tar.extractfile(member).read()  # type: ignore[union-attr]
        while file.read(1 << 20):  # gzip compares its checksum at the very end
            pass
    if missing := [name for name in CIFAR_FILES if name not in found]:
        raise tarfile.TarError(f"it lacks {', '.join(missing)}")
    return found


def _local_batches() -> list[Path] | None:
    return local_files("cifar10/cifar-10-batches-bin", CIFAR_FILES) or local_files("cifar10", CIFAR_FILES)


def _files(name: str) -> list[Path]:
    """The files of a data set: in CNNLIB_DATA, else in the cache, else downloaded."""
    remotes = REMOTES[name]
    return local_files(name, [r.name for r in remotes]) or [fetch(name, r) for r in remotes]


@dataclass(frozen=True)
class Info:
    """A row of `info`: what a data set is, and where it would come from now."""

    name: str
    what: str
    count: str
    licence: str
    where: str


@dataclass(frozen=True)
class _Entry:
    load: Callable[..., tuple[Dataset, Dataset]]
    what: str
    count: str
    licence: str
    size: str = ""  # of the download; empty for what is bundled


_ENTRIES = {
    "digits": _Entry(digits, "UCI handwritten digits, 8×8 or 32×32", "1,437 + 360", "CC BY 4.0"),
    "fashion_subset": _Entry(fashion_subset, "a balanced part of Fashion-MNIST, 28×28", "3,000 + 1,000", "MIT"),
    "sonnets": _Entry(sonnets_sets, "Shakespeare's sonnets, next character", "95,650 characters", "public domain; CC BY 2.5"),
    "mnist": _Entry(mnist, "MNIST handwritten digits, 28×28", "60,000 + 10,000", "none stated", "11 MB"),
    "fashion": _Entry(fashion, "Fashion-MNIST clothes, 28×28", "60,000 + 10,000", "MIT", "30 MB"),
    "reviews": _Entry(
        lambda **options: film_reviews.reviews(**options)[:2],
        "reviews of films, liked or not",
        "19,924 + 4,980",
        "none stated",
        "13 MB",
    ),
    "cifar10": _Entry(cifar10, "CIFAR-10 colour pictures, 32×32", "50,000 + 10,000", "none stated", "170 MB"),
}


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(_ENTRIES)


def load(name: str, **options) -> tuple[Dataset, Dataset]:
    """(train, test) of a data set by name; options are those of its function, such as ``load("digits", size=32)``."""
    return _entry(name).load(**options)


def info() -> list[Info]:
    """One row per data set: name, what, count, licence, and where: "bundled", a folder, or "would download (11 MB)"."""
    return [Info(name, e.what, e.count, e.licence, _where(name)) for name, e in sorted(_ENTRIES.items())]


def prefetch(name: str) -> list[Path]:
    """Makes sure that the files of a data set are on this machine, and returns them; without them it downloads."""
    if not _entry(name).size:
        folder = builtin.FOLDER / name.removesuffix("_subset")
        return sorted(p for p in folder.iterdir() if p.is_file())
    return _local(name) or [fetch(name, r) for r in REMOTES[name]]


def _where(name: str) -> str:
    entry = _ENTRIES[name]
    if not entry.size:
        return "bundled"
    try:
        files = _local(name) or _in_cache(name)
    except DataError as error:
        return f"unusable: {error}"
    return str(files[0].parent) if files else f"would download ({entry.size})"


def _local(name: str) -> list[Path] | None:
    if name == "cifar10" and (files := _local_batches()):
        return files
    if name == "reviews" and (table := film_reviews.local_table()):
        return [table]
    return local_files(name, [r.name for r in REMOTES[name]])


def _in_cache(name: str) -> list[Path] | None:
    files = [cached(name, remote) for remote in REMOTES[name]]
    return None if None in files else [f for f in files if f is not None]


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise unknown_name("data set", str(name), names())
    return _ENTRIES[name]
