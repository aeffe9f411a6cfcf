"""Text as data: the sonnets, characters as numbers, and sequences that ask for the next character.

>>> train, test = sonnets_sets(length=64)
>>> vocabulary = Vocabulary(sonnets())
>>> vocabulary.decode(vocabulary.encode("Shall I compare thee"))
'Shall I compare thee'
"""

from __future__ import annotations

import numpy as np

from cnnlib.data.builtin import sonnets_text
from cnnlib.data.dataset import Dataset
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError


def sonnets() -> str:
    """Shakespeare's 154 sonnets: 95,650 characters, 62 different ones."""
    return sonnets_text()


class Vocabulary:
    """The distinct characters of a text, in code-point order, and their numbers 0 ... len − 1."""

    def __init__(self, text: str):
        if not isinstance(text, str) or not text:
            raise DataError(
                f"Vocabulary: expected a text with at least one character, got "
                f"{'an empty text' if text == '' else type(text).__name__}."
            )
        self.characters = "".join(sorted(set(text)))
        self._numbers = {c: i for i, c in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the characters, (T,) int64. Characters that are not in the vocabulary are an error."""
        try:
            return np.fromiter((self._numbers[c] for c in text), np.int64, len(text))
        except KeyError:
            unknown = sorted(set(text) - set(self.characters))
            first = min(text.index(c) for c in unknown)
            raise DataError(
                f"Vocabulary.encode: {', '.join(map(repr, unknown))} "
                f"{'is' if len(unknown) == 1 else 'are'} not among the {len(self)} characters of the "
                f"vocabulary; the first is at position {first} of the text."
            ) from None

    def decode(self, numbers) -> str:
        """The text of a row of numbers, for instance the ones that a network has drawn."""
        numbers = np.asarray(numbers)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise DtypeError(f"Vocabulary.decode: expected one row of integers, got shape {numbers.shape} of {numbers.dtype}.")
        if numbers.size and not (0 <= numbers.min() and numbers.max() < len(self)):
            raise ValueRangeError(
                f"Vocabulary.decode: numbers from {numbers.min()} to {numbers.max()}, but the "
                f"vocabulary has 0 to {len(self) - 1}."
            )
        return "".join(self.characters[i] for i in numbers.tolist())


def sequences(numbers, length: int, step: int | None = None, classes=(), name: str = "sequences") -> Dataset:
    """Windows of a long row of tokens and, one place on, what should be predicted at each place.

    numbers  (T,) integers. x[k] = numbers[k·step : k·step + length], y[k] = the same shifted by one; both (N, length).
    step     from one window to the next; ``length`` unless given. A rest that fills no window is left out.
    """
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DtypeError(
            f"{name}: expected one row of integers, got shape {numbers.shape} of {numbers.dtype}; "
            f"text is encoded with Vocabulary(text).encode(text)."
        )
    step = length if step is None else step
    for what, value in (("length", length), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueRangeError(f"{name}: {what} must be a whole number of at least 1, got {value!r}.")
    if len(numbers) < length + 1:
        raise ShapeError(f"{name}: {len(numbers)} tokens are too few for one window of {length} and its next token.")
    windows = np.lib.stride_tricks.sliding_window_view(numbers.astype(np.int64), length + 1)[::step]
    return Dataset(windows[:, :-1].copy(), windows[:, 1:].copy(), classes, name)


def sonnets_sets(length: int = 64, step: int | None = None) -> tuple[Dataset, Dataset]:
    """(train, test): the sonnets as windows of characters, the last tenth of the text held out.

    x and y are (N, length) int64, y one character ahead of x; ``classes`` are the characters.
    """
    text = sonnets()
    vocabulary = Vocabulary(text)
    numbers = vocabulary.encode(text)
    cut = len(numbers) * 9 // 10
    train = sequences(numbers[:cut], length, step, vocabulary.characters, "sonnets train")
    return train, sequences(numbers[cut:], length, step, vocabulary.characters, "sonnets test")
