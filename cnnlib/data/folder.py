"""Your own data: a folder of pictures with one folder per class, or a table in a CSV file."""

from __future__ import annotations

import csv as csv_reader
import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnlib.data.dataset import Dataset
from cnnlib.data.pictures import PictureProblem, check_settings, pillow, read_picture
from cnnlib.errors import DataError, ValueRangeError

LISTED = 50  # problems that a message spells out; the rest are counted
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


class ImageFolder(Dataset):
    """Pictures out of ``root/CLASS/*.png`` and so on, read into memory at once: x (N, channels, H, W) float32 in [0, 1].

    size      the side in pixels, or (height, width): each picture is scaled to cover it and its middle cut out
              (`image` says how unusual pictures are treated).
    channels  1 (grey) or 3 (colour).
    classes   the class names in order; by default the folders' names, sorted. For a test folder pass the training
              set's, so that the numbers agree: ``ImageFolder("test", 32, classes=train.classes)``.
    on_error  "raise": one error that names every file that cannot be read; "skip": leave them out, warn, and list them
              in ``skipped`` as (path, reason).

    Folders within a class folder are searched too. Hidden files are ignored, links that lead out of ``root`` and links
    to folders are not followed. ``paths`` holds the files in the order of the samples, relative to ``root``.
    """

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int],
        channels: int = 3,
        classes: Sequence[str] | None = None,
        on_error: str = "raise",
    ):
        shape = check_settings("ImageFolder", size, channels)
        if shape is None:
            raise ValueRangeError("ImageFolder: size must be given: all pictures of a data set have one size.")
        if on_error not in ("raise", "skip"):
            raise ValueRangeError(f'ImageFolder: on_error must be "raise" or "skip", got {on_error!r}.')
        pillow()  # a missing Pillow is one error, not one per picture
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"ImageFolder: {root} is not a folder.")
        names, folders = _class_folders(root, classes)
        files, problems = _find(root.resolve(), folders)
        total = len(files) + len(problems)
        x = np.empty((len(files), channels, *shape), dtype=np.float32)
        good: list[int] = []
        for k, (file, _) in enumerate(files):
            try:
                np.divide(read_picture(root / file, shape, channels), np.float32(255), out=x[len(good)])
                good.append(k)
            except PictureProblem as problem:
                problems.append((file, str(problem)))
        problems.sort()
        labels = np.array([files[k][1] for k in good], dtype=np.int64)
        _report(root, problems, total, on_error)
        counts = np.bincount(labels, minlength=len(names))
        empty = [name for name, n in zip(names, counts, strict=True) if n == 0]
        if not good or (empty and classes is None):
            raise DataError(
                f"ImageFolder: {root} has no usable pictures"
                + (f" for {', '.join(empty)}" if good else "")
                + ": each class folder needs at least one; remove empty ones."
            )
        super().__init__(x[: len(good)], labels, names, root.resolve().name)
        self.paths = [files[k][0] for k in good]
        self.skipped = problems


def _class_folders(root: Path, classes: Sequence[str] | None) -> tuple[list[str], dict[str, int]]:
    """The names of the classes, and which of them have a folder: {folder: label}."""
    entries = [e for e in sorted(os.scandir(root), key=lambda e: e.name) if not e.name.startswith(".")]
    folders = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    if linked := [e.name for e in entries if e.is_symlink() and e.is_dir()]:
        raise DataError(
            f"ImageFolder: {', '.join(linked)} in {root}: links to folders are not followed; copy the pictures into a folder."
        )
    if not folders:
        raise DataError(
            f"ImageFolder: {root} has no class folders: the pictures are expected in {root}/CLASS/, one folder per class."
        )
    if loose := [e.name for e in entries if e.name.lower().endswith(PICTURE_SUFFIXES) and not e.is_dir()]:
        raise DataError(
            f"ImageFolder: {len(loose)} pictures in {root} are in no class folder ({', '.join(loose[:5])}"
            f"{', ...' if len(loose) > 5 else ''}): move them into one."
        )
    names = folders if classes is None else [str(c) for c in classes]
    if len(set(names)) < len(names):
        raise ValueRangeError(f"ImageFolder: the class names are not distinct: {', '.join(names)}.")
    if extra := sorted(set(folders) - set(names)):
        raise DataError(
            f"ImageFolder: {root} has folders for {', '.join(extra)}, which are not among the classes ({', '.join(names)})."
        )
    return names, {name: label for label, name in enumerate(names) if name in folders}


def _find(root: Path, folders: dict[str, int]) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
    """The files as (path relative to root, label), in sorted order, and what cannot be used as (path, reason)."""
    files, problems = [], []
    for name, label in folders.items():
        for folder, subfolders, entries in os.walk(root / name, onerror=_unreadable):
            for sub in [s for s in subfolders if (Path(folder) / s).is_symlink() and not s.startswith(".")]:
                problems.append(((Path(folder) / sub).relative_to(root).as_posix(), "a link to a folder is not followed"))
            subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
            for entry in sorted(e for e in entries if not e.startswith(".") and e.lower() not in SYSTEM_FILES):
                path = Path(folder) / entry
                relative = path.relative_to(root).as_posix()
                if path.is_symlink() and not path.resolve().is_relative_to(root):
                    problems.append((relative, "a link that leads out of the folder is not followed"))
                elif not path.is_file():
                    problems.append((relative, "not a regular file"))
                else:
                    files.append((relative, label))
    return files, problems


def _unreadable(error: OSError) -> None:
    raise DataError(f"ImageFolder: the folder {error.filename} cannot be read: {error.strerror}.")


def _report(root: Path, problems: list[tuple[str, str]], total: int, on_error: str) -> None:
    if not problems:
        return
    lines = [f"  {path}: {reason}" for path, reason in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"  ... and {len(problems) - LISTED} more")
    listing = "\n".join(lines)
    if on_error == "skip":
        warnings.warn(
            f"ImageFolder: skipped {len(problems)} of {total} files in {root} (all are in .skipped):\n{listing}", stacklevel=3
        )
        return
    raise DataError(
        f"ImageFolder: {len(problems)} of {total} files in {root} cannot be used:\n{listing}\n"
        f'Repair or remove them, or leave them out with on_error="skip".'
    )


def csv(
    path: str | Path,
    label: str | int,
    *,
    header: bool | None = None,
    delimiter: str = ",",
    classes: Sequence[str] | None = None,
    regression: bool = False,
) -> Dataset:
    """A table of numbers: x (N, F) float32, all columns but ``label``; y (N,) the classes, or numbers to predict.

    label       the column of the targets: its name (then the first row holds the names), or its place from 0, −1 = last.
    header      whether the first row holds names; None: yes if ``label`` is a name or if no feature cell of the
                first row is a number.
    classes     the class names in order; by default the distinct values of the column, sorted (as numbers, if all are).
                For a test file pass the training set's, so that the numbers agree.
    regression  y is the column's numbers, float32, instead of classes.

    UTF-8; empty lines are skipped. A row of the wrong length, or a cell that is not a finite number, is an error with
    its line.
    """
    path = Path(path)
    if header is False and isinstance(label, str):
        raise ValueRangeError(f"csv: label={label!r} is a column name, but header=False says that there are no names.")
    table = _read(path, label, header, delimiter)
    targets = list(zip(table.lines, table.targets, strict=True))
    if regression:
        y = np.concatenate([_numbers(path, line, [target], [table.target]) for line, target in targets])
        return Dataset(table.x, y, (), path.stem)
    return Dataset(table.x, *_class_numbers(path, table.target, targets, classes), path.stem)


def rows(path: str | Path, width: int, label: str | int | None = None) -> tuple[np.ndarray, list[int]]:
    """Samples without targets for ``predict``: x (N, width) float32, and the line of each in the file.

    The columns stand as in the table that the model was trained on; ``label`` is one to leave out, as in :func:`csv`.
    """
    table = _read(Path(path), label, None, ",", width)
    return table.x, table.lines


class _Table(NamedTuple):
    x: np.ndarray  # (N, F): all columns but that of the targets
    lines: list[int]  # of the file
    targets: list[str]  # the cells of the other column
    target: str  # its name; "" where there is none


def _read(path: Path, label: str | int | None, header: bool | None, delimiter: str, width: int | None = None) -> _Table:
    following = _rows(path, delimiter, fewest=1 if label is None else 2)
    start, first = next(following)
    column = None if label is None else _label_column(path, first, label)
    features = [i for i in range(len(first)) if i != column]
    if width is not None and len(features) != width:
        found = ", ".join(first[i].strip() for i in features)
        raise DataError(f"{path}: expected rows of {width} numbers, its first row has {len(features)} ({found}): "
                        "label names one to leave out.")  # fmt: skip
    if header is None:
        header = isinstance(label, str) or all(_number(first[i]) is None for i in features)
    names = [c.strip() for c in first] if header else [str(i) for i in range(len(first))]
    x, lines, targets = [], [], []
    for line, row in following if header else chain([(start, first)], following):
        x.append(_numbers(path, line, [row[i] for i in features], [names[i] for i in features]))
        lines.append(line)
        targets.append("" if column is None else row[column].strip())
    if not x:
        raise DataError(f"{path}: there are no rows of data, only the line of names.")
    return _Table(np.stack(x), lines, targets, "" if column is None else names[column])


def _rows(path: Path, delimiter: str, fewest: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of the rows, all equally long, of ``fewest`` columns or more; at least one."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    width = start = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_reader.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if not width:
                    width, start = len(row), reader.line_num
                if len(row) != width:
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} cells, but the first row (line {start}) has {width}."
                    )
                if width < fewest:
                    raise DataError(
                        f"{path}: only one column; expected features and a label, separated by {delimiter!r} "
                        f"(other separators: delimiter=...)."
                    )
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, after line {reader.line_num}: not UTF-8 text ({error.reason}): save it as UTF-8.") from None
    except csv_reader.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None
    if not width:
        raise DataError(f"{path}: the file is empty.")


def _label_column(path: Path, first: list[str], label: str | int) -> int:
    if isinstance(label, str):
        names = [c.strip() for c in first]
        if names.count(label) != 1:
            found = f"{names.count(label)} columns are" if label in names else "no column is"
            raise DataError(f"{path}: {found} called {label!r}; the columns are {', '.join(names)}.")
        return names.index(label)
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or not -len(first) <= label < len(first):
        raise ValueRangeError(
            f"{path}: label must be a column's name or its place from 0 to {len(first) - 1} "
            f"(or −1 for the last), got {label!r}."
        )
    return int(label) % len(first)


def _number(cell: str) -> float | None:
    """The cell as a number that float32 can hold, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if "_" not in cell and abs(value) <= LARGEST_FLOAT32 else None


def _numbers(path: Path, line: int, cells: list[str], names: list[str]) -> np.ndarray:
    """A row of cells as float32, or an error that says which cell is none."""
    values = [_number(cell) for cell in cells]
    if None in values:
        cell, name = next((c, n) for c, n, v in zip(cells, names, values, strict=True) if v is None)
        what = f"{cell!r} is not a finite number" if cell.strip() else "the cell is empty"
        raise DataError(f"{path}, line {line}, column {name!r}: {what}.")
    return np.array(values, dtype=np.float32)


def _class_numbers(
    path: Path, column: str, targets: list[tuple[int, str]], classes: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    if missing := [line for line, name in targets if not name]:
        raise DataError(f"{path}, line {missing[0]}, column {column!r}: the label is empty.")
    found = {name for _, name in targets}
    if classes is None:
        numeric = all(_number(name) is not None for name in found)
        names = sorted(found, key=lambda n: (float(n), n) if numeric else n)
    else:
        names = [str(c) for c in classes]
        unknown = [(line, name) for line, name in targets if name not in names]
        if unknown:
            raise DataError(
                f"{path}, line {unknown[0][0]}: the label {unknown[0][1]!r} is not among the classes ({', '.join(names)})."
            )
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[name] for _, name in targets], dtype=np.int64), names
