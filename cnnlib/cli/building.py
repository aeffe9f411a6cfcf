"""From the words on the command line to data sets and models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnlib import data, models
from cnnlib.data import Dataset, Resize, series
from cnnlib.data.scale import Scale
from cnnlib.errors import DataError, ValueRangeError, unknown_name

SERIES = {"co2": 24, "sunspots": 22}  # how many values are known when the next is foretold
HELD_OUT = 0.2  # of a folder or table that does not say which part is for testing


def underscored(name: str) -> str:
    """The name of a model, as `cnnlib train` takes it too: ``conv-vae`` is ``conv_vae``."""
    return name if name in models.list() else name.replace("-", "_")


def trainable(name: str) -> type[Any]:
    """The class of a model that learns by gradient descent, or an error that says which do."""
    model = models.get(name)
    if hasattr(model, "objective"):
        raise ValueRangeError(
            f"{name} learns by an objective of its own: `cnnlib train {name}` trains it. This is for classifiers."
        )
    if hasattr(model, "train_command"):
        raise ValueRangeError(f"{name} does not learn to tell classes apart: `{model.train_command}` trains it.")
    if not hasattr(model, "options_for"):
        able = [n for n in models.list() if hasattr(models.get(n), "options_for")]
        raise ValueRangeError(f"{name} learns by a rule of its own, not with `cnnlib train` (see examples/history.py); "
                              f"these do: {', '.join(able)}.")  # fmt: skip
    return model


def options_for(name: str, shape: tuple[int, ...], classes: int, width: float | None = None) -> dict[str, Any]:
    """What ``models.create`` needs for samples of ``shape``; ``width`` where another than the model's is wanted."""
    options = trainable(name).options_for(shape, classes)
    if width is not None:
        options["width"] = int(width) if width == int(width) else width
    return options


def build(name: str, shape: tuple[int, ...], classes: int, width: float | None = None) -> Any:
    """A new model for samples of ``shape``."""
    return models.create(name, **options_for(name, shape, classes, width))


def default_shape(name: str) -> tuple[int, ...]:
    """One sample of the usual input of a model that learns by gradient descent."""
    side = trainable(name).picture_size
    return usual(name, "in_channels", 1), side, side


def usual(name: str, option: str, otherwise: int) -> int:
    """The default of an option of the model's class, where it has that option."""
    known = inspect.signature(models.get(name)).parameters
    return known[option].default if option in known else otherwise


def scaling(spec: str, samples: Dataset, size: int | None) -> Resize | None:
    """What makes pictures of another size size × size; None where nothing is to be done."""
    if size is None or samples.x.shape[2:] == (size, size):
        return None
    if samples.x.ndim != 4:
        raise DataError(f"{spec}: its samples have shape {samples.x.shape[1:]}: --size is for pictures.")
    return Resize(size)


def load(
    spec: str,
    side: int,
    label: str | None = None,
    channels: int = 3,
    skip_unreadable: bool = False,
    classes: Sequence[str] | None = None,
    fewest: int = 2,
) -> tuple[Dataset, Dataset | None]:
    """(train, test) of a known name, a folder of pictures or a CSV file; (all, None) where no part is set aside for tests.

    ``side``: pictures of a folder are scaled to side × side. ``classes``: as in a checkpoint, so that labels mean the same.
    ``fewest``: classes that there have to be.
    """
    path = Path(spec)
    parts: tuple[Dataset, Dataset | None]
    if spec in data.names():
        parts = data.load(spec, size=32) if spec == "digits" and side == 32 else data.load(spec)
    elif path.is_dir():
        parts = _folder(path, classes, size=side, channels=channels, on_error="skip" if skip_unreadable else "raise")
    elif path.is_file():
        parts = data.csv(path, column(label), classes=classes), None
        if classes is None and fewest > 1:
            _check_column(spec, parts[0])
    elif "/" in spec or "\\" in spec or path.suffix:
        raise DataError(f"{spec}: there is no such folder or file.")
    else:
        raise DataError(f"{unknown_name('data set', spec, data.names())}; nor is there a folder or file of that name.")
    for part in parts:
        if part is not None:
            _check_classes(spec, part, fewest)
    return parts


def load_split(spec: str, side: int, **options: Any) -> tuple[Dataset, Dataset]:
    """(train, test); a part is held out, always the same, where the data have no test part of their own."""
    train, test = load(spec, side, **options)
    if test is not None:
        return train, test
    return _two_parts(spec, train)


def _two_parts(spec: str, samples: Dataset) -> tuple[Dataset, Dataset]:
    if len(samples) < 2:
        raise DataError(f"{spec}: one sample is too few to train on one part and test on another.")
    return samples.split(max(HELD_OUT, 1 / len(samples)))


def load_for(kind: type[Any], spec: str, **options: Any) -> tuple[Dataset, Dataset]:
    """(train, test) with what ``kind``, a model with an objective of its own, has to be told beside the samples."""
    if kind.targets == "numbers":
        train, test = load_numbers(spec, options.get("label"))
        scale = Scale.fit(train.y)
        return standardised(train, scale), standardised(test, scale)
    train, test = load_split(spec, kind.picture_size, fewest=2 if kind.targets else 1, **options)
    if kind.targets == "two classes" and len(train.classes) != 2:
        raise DataError(f"{spec}: has {len(train.classes)} classes; a Bernoulli distribution tells two apart. For more: "
                        "categorical-classifier.")  # fmt: skip
    return train, test


def load_numbers(spec: str, label: str | None = None) -> tuple[Dataset, Dataset]:
    """(train, test) of a series, to foretell its next value, or of a CSV file, to foretell the column ``label``; y (N, 1).

    In their own units. A fifth is for testing: the end of a series, rows of a file drawn once.
    """
    if spec in SERIES:
        values, length = getattr(series, spec)()[1], SERIES[spec]
        train, test, scale = series.windows(values, length, HELD_OUT, spec)
        return restored(train, scale), restored(test, scale)
    if Path(spec).suffix and not Path(spec).is_file():
        raise DataError(f"{spec}: there is no such file.")
    if not Path(spec).is_file():
        raise DataError(f"{spec}: expected a CSV file of numbers or a series: {', '.join(SERIES)}.")
    table = data.csv(spec, column(label), regression=True)
    return _two_parts(spec, Dataset(table.x, table.y[:, None], (), table.name))


def restored(part: Dataset, scale: Scale) -> Dataset:
    """Windows of a series in the unit that it was measured in."""
    x, y = (scale.restore(numbers).astype("float32") for numbers in (part.x, part.y))
    return Dataset(x, y, (), part.name)


def standardised(part: Dataset, scale: Scale) -> Dataset:
    """With y as the numbers that a network learns."""
    return Dataset(part.x, scale.apply(part.y), (), part.name, scale)


def _folder(root: Path, classes: Sequence[str] | None, **settings: Any) -> tuple[Dataset, Dataset | None]:
    """root/train/CLASS and root/test/CLASS where they are, else root/CLASS."""
    if (root / "train").is_dir() and (root / "test").is_dir():
        train = data.ImageFolder(root / "train", classes=classes, **settings)
        return train, data.ImageFolder(root / "test", classes=train.classes, **settings)
    return data.ImageFolder(root, classes=classes, **settings), None


def _check_classes(spec: str, part: Dataset, fewest: int) -> None:
    if not part.classes or part.y.ndim != 1:
        raise DataError(f"{spec}: its targets are not classes: `cnnlib train` trains classifiers.")
    if len(part.classes) < fewest:
        raise DataError(f"{spec}: only one class ({part.classes[0]}): a classifier needs at least two to tell apart.")


def _check_column(spec: str, table: Dataset) -> None:
    """Refuse a column of numbers or of names, each of which would be a class of one row."""
    if len(table.classes) > max(10, len(table) / 2):
        raise DataError(
            f"{spec}: the column of classes has {len(table.classes)} different values in {len(table)} rows: --label names "
            "another; numbers are foretold by a regression, such as `cnnlib train gaussian-regression`."
        )


def check_shape(spec: str, samples: Dataset, trained: Any) -> None:
    """Refuse data that a trained model does not take, or whose classes mean something else."""
    scaled = trained.scales and samples.x.ndim == 4  # pictures of any size will do
    if samples.x.shape[1:] != trained.shape and not (scaled and samples.x.shape[1] == trained.shape[0]):
        raise DataError(
            f"{spec}: its samples have shape {samples.x.shape[1:]}, but {trained.path} was trained on {trained.shape}."
        )
    if samples.classes != trained.classes:
        raise DataError(f"{spec}: its classes ({', '.join(samples.classes)}) are not those of {trained.path} "
                        f"({', '.join(trained.classes)}).")  # fmt: skip


def column(label: str | None) -> str | int:
    if label is None:
        return -1
    return int(label) if label.lstrip("-").isdecimal() else label
