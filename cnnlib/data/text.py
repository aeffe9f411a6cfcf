"""Text as data: characters as numbers, streams of batches for recurrent networks, windows for all others, the sonnets.

>>> train, test = sonnets_sets(length=64)
>>> alphabet = Alphabet(sonnets())
>>> alphabet.decode(alphabet.encode("Shall I compare thee"))
'Shall I compare thee'

Texts of any size, by name or path: cnnlib/data/texts.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from cnnlib.data.builtin import sonnets_text
from cnnlib.data.dataset import Dataset
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError

HELD_OUT = 100_000  # characters that a text keeps back at most


def sonnets() -> str:
    """Shakespeare's 154 sonnets: 95,650 characters, 62 different ones."""
    return sonnets_text()


class Alphabet:
    """The distinct characters of a text, in code-point order, and their numbers 0 ... len − 1.

    Words, with symbols for padding, start and end: `cnnlib.data.Vocabulary`.

    >>> Alphabet("a cat")
    Alphabet(' act')
    """

    def __init__(self, text: str):
        if not isinstance(text, str) or not text:
            raise DataError(
                f"Alphabet: expected a text with at least one character, got "
                f"{'an empty text' if text == '' else type(text).__name__}. Words are numbered by a Vocabulary."
            )
        self.characters = "".join(sorted(set(text)))
        self._numbers = {c: i for i, c in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def __repr__(self) -> str:
        return f"Alphabet({self.characters!r})"

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the characters, (T,) int64. Characters that are not in the alphabet are an error."""
        try:
            return np.fromiter((self._numbers[c] for c in text), np.int64, len(text))
        except KeyError:
            unknown = sorted(set(text) - set(self.characters))
            first = min(text.index(c) for c in unknown)
            raise DataError(
                f"Alphabet.encode: {', '.join(map(repr, unknown))} "
                f"{'is' if len(unknown) == 1 else 'are'} not among the {len(self)} characters of the "
                f"alphabet; the first is at position {first} of the text. Leave out what it does not have; it has "
                f"{_shortened(self.characters)!r}."
            ) from None

    def decode(self, numbers) -> str:
        """The text of a row of numbers, for instance the ones that a network has drawn."""
        numbers = np.asarray(numbers)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise DtypeError(f"Alphabet.decode: expected one row of integers, got shape {numbers.shape} of {numbers.dtype}.")
        if numbers.size and not (0 <= numbers.min() and numbers.max() < len(self)):
            raise ValueRangeError(
                f"Alphabet.decode: numbers from {numbers.min()} to {numbers.max()}, but the alphabet has 0 to {len(self) - 1}."
            )
        return "".join(self.characters[i] for i in numbers.tolist())


class Text:
    """A text as numbers: ``alphabet``, ``numbers`` (T,), ``name``. Made by `numbered`, or by `cnnlib.data.read_text`.

    Each character takes one byte; two bytes if there are more than 256 different ones.
    """

    def __init__(self, alphabet: Alphabet, numbers: np.ndarray, name: str):
        self.alphabet, self.numbers, self.name = alphabet, numbers, name

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"Text({self.name!r}, {len(self):,} characters, {len(self.alphabet)} different ones)"

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """(train, held out): views of the numbers. Held out are the last tenth, at most 100,000 characters."""
        cut = len(self) - min(max(len(self) // 10, 2), HELD_OUT)
        if cut < 2:
            raise DataError(
                f"{self.name}: a text of {len(self)} character{'s' if len(self) > 1 else ''} is too short: "
                f"2 to learn from and 2 to measure on are the least."
            )
        return self.numbers[:cut], self.numbers[cut:]


def numbered(pieces: Iterable[str], name: str = "text") -> Text:
    """A text out of its pieces, of which no more than one is held as characters at a time.

    Memory: a byte per character while pieces come in, two when the numbers are put together, one in the end (twice that with
    more than 256 different characters), and 4.5 MB beside it.

    Raises DataError for a text without characters.
    """
    numbers_of = np.zeros(0x110000, np.uint32)  # code point -> 1 + its number in order of appearance; 0: not met yet
    met = ""
    parts = []
    for piece in pieces:
        for character in sorted(c for c in set(piece) if not numbers_of[ord(c)]):
            met += character
            numbers_of[ord(character)] = len(met)
        codes = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
        parts.append((numbers_of[codes] - 1).astype(np.min_scalar_type(max(len(met) - 1, 0))))
    if not met:
        raise DataError(f"{name}: the text is empty: there is nothing to learn from.")
    alphabet = Alphabet(met)
    order = alphabet.encode(met).astype(np.min_scalar_type(len(met) - 1))  # by appearance -> by code point
    numbers = np.empty(sum(map(len, parts)), order.dtype)
    done = 0
    for part in parts:
        numbers[done : done + len(part)] = order[part]
        done += len(part)
    return Text(alphabet, numbers, name)


class Streams:
    """Batches for truncated backpropagation through time: a text cut into ``batch_size`` streams that are read side by side.

    x (T, B) int64, y (T, B) the same one place on, T = ``length``: x[t, b] of batch k is character k·T + t of stream b, so
    each batch goes on where the one before it ended, and the state of a recurrent network after it is the state before the
    next. ``iterate`` and ``len`` are those of `DataLoader`; an epoch is one pass over the text, always in the same order. What
    fills no whole batch at the end of a stream is left out.

    >>> streams = Streams(np.arange(9), batch_size=2, length=2)
    >>> [x.T.tolist() for x, y in streams.iterate(0)]
    [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    """

    def __init__(self, numbers: np.ndarray, batch_size: int = 32, length: int = 64, name: str = "text"):
        if isinstance(numbers, Text):
            raise DtypeError(f"{name}: expected its characters as numbers, got {numbers}: pass one part of text.split(), or "
                             "text.numbers.")  # fmt: skip
        check_tokens(numbers, name)
        check_positive(name, batch_size=batch_size, length=length)
        if len(numbers) < batch_size * length + 1:
            raise DataError(
                f"{name}: {len(numbers):,} characters are too few for {batch_size} streams of {length} steps, which need "
                f"batch_size · length + 1 = {batch_size * length + 1:,}: take fewer streams, fewer steps or a longer text."
            )
        self.dataset, self.batch_size, self.length = numbers, batch_size, length  # what a resumed run compares
        self.checksum = f"{zlib.crc32(np.ascontiguousarray(numbers).data):08x}"  # this, too: texts may differ in nothing else
        per_stream = (len(numbers) - 1) // batch_size
        used = per_stream * batch_size
        self._x, self._y = (numbers[k : used + k].reshape(batch_size, per_stream) for k in (0, 1))  # views

    @classmethod
    def fitting(cls, numbers: np.ndarray, batch_size: int = 32, length: int = 64, name: str = "text") -> Streams:
        """For measuring: with fewer streams, and shorter batches, where the text fills no more."""
        length = max(min(length, len(numbers) - 1), 1)
        return cls(numbers, max(min(batch_size, (len(numbers) - 1) // length), 1), length, name)

    def __len__(self) -> int:
        """Batches in a pass."""
        return self._x.shape[1] // self.length

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of a pass, from ``start_batch`` on."""
        for k in range(start_batch, len(self)):
            steps = slice(k * self.length, (k + 1) * self.length)
            yield self._x[:, steps].T.astype(np.int64, order="C"), self._y[:, steps].T.astype(np.int64, order="C")


def sequences(numbers, length: int, step: int | None = None, classes=(), name: str = "sequences") -> Dataset:
    """Windows of a long row of tokens and, one place on, what should be predicted at each place.

    numbers  (T,) integers. x[k] = numbers[k·step : k·step + length], y[k] = the same shifted by one; both (N, length).
    step     from one window to the next; ``length`` unless given. A rest that fills no window is left out.
    """
    numbers = np.asarray(numbers)
    check_tokens(numbers, name)
    step = length if step is None else step
    check_positive(name, length=length, step=step)
    if len(numbers) < length + 1:
        raise ShapeError(f"{name}: {len(numbers)} tokens are too few for one window of {length} and its next token.")
    windows = np.lib.stride_tricks.sliding_window_view(numbers.astype(np.int64), length + 1)[::step]
    return Dataset(windows[:, :-1].copy(), windows[:, 1:].copy(), classes, name)


def sonnets_sets(length: int = 64, step: int | None = None) -> tuple[Dataset, Dataset]:
    """(train, test): the sonnets as windows of characters, the last tenth of the text held out.

    x and y are (N, length) int64, y one character ahead of x; ``classes`` are the characters.
    """
    text = sonnets()
    alphabet = Alphabet(text)
    numbers = alphabet.encode(text)
    cut = len(numbers) * 9 // 10
    train = sequences(numbers[:cut], length, step, alphabet.characters, "sonnets train")
    return train, sequences(numbers[cut:], length, step, alphabet.characters, "sonnets test")


def check_tokens(numbers: np.ndarray, name: str) -> None:
    array = isinstance(numbers, np.ndarray)
    if not array or numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        came = f"shape {numbers.shape} of {numbers.dtype}" if array else type(numbers).__name__
        raise DtypeError(f"{name}: expected one row of integers, got {came}; text is encoded with Alphabet(text).encode(text).")


def check_positive(name: str, **settings: int) -> None:
    for what, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueRangeError(f"{name}: {what} must be a whole number of at least 1, got {value!r}.")


def _shortened(characters: str, most: int = 120) -> str:
    return characters if len(characters) <= most else characters[:most] + "…"
