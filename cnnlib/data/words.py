"""Words as numbers: a text's words, a vocabulary with its special symbols, and sentences of unequal length as one matrix.

>>> texts = [words("The cat sat."), words("The dog sat down.")]
>>> vocabulary = Vocabulary.build(texts)
>>> tokens = pad([vocabulary.encode(text) for text in texts])
>>> tokens
array([[6, 7, 5, 4, 0],
       [6, 8, 5, 9, 4]])
>>> lengths(tokens)
array([4, 5])
>>> vocabulary.decode(vocabulary.encode(["the", "bird"]))
['the', '<unk>']
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError

PAD, UNKNOWN, START, END = range(4)
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in small letters. An apostrophe inside a word belongs to it.

    >>> words("Don't panic, friend!")
    ["don't", 'panic', ',', 'friend', '!']
    """
    return _WORD.findall(text.lower())


class Vocabulary:
    """Words and their numbers. 0 ``<pad>``, 1 ``<unk>`` (any unknown word), 2 ``<s>`` and 3 ``</s>`` (start, end) come first.

    For the characters of one long text: `cnnlib.data.Alphabet`, which has no special symbols.

    >>> v = Vocabulary(["cat", "dog"])
    >>> len(v), v["dog"], v["fish"], v.words[:4]
    (6, 5, 1, ('<pad>', '<unk>', '<s>', '</s>'))

    Raises DataError for a word that comes twice, as the special symbols do.
    """

    def __init__(self, words: Sequence[str]):
        if isinstance(words, str):
            raise DataError(
                "Vocabulary: expected a list of words, got one text; Vocabulary.build(texts) counts those of texts, "
                "Alphabet(text) numbers its characters."
            )
        self.words = (*SPECIAL, *words)
        self._numbers = {word: i for i, word in enumerate(self.words)}
        if len(self._numbers) < len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise DataError(f"Vocabulary: {twice!r} comes twice among the words ({', '.join(SPECIAL)} are always there).")

    @classmethod
    def build(cls, texts: Iterable[Sequence[str]], size: int | None = None, min_count: int = 1) -> Vocabulary:
        """The words of ``texts`` (lists of words), the most frequent first, equally frequent ones in alphabetical order.

        size       at most so many, the special symbols included: the rest become ``<unk>``.
        min_count  only words that come at least so often.

        Build it from training texts only. Raises DataError (a text where a list of words is expected, no word at all),
        ValueRangeError (size or min_count too small).
        """
        if min_count < 1 or (size is not None and size <= len(SPECIAL)):
            raise ValueRangeError(
                f"Vocabulary.build: expected min_count >= 1 and size > {len(SPECIAL)}, the number of special symbols; "
                f"got min_count = {min_count}, size = {size}."
            )
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_list_of_words("build", text))
        common = sorted((w for w, n in counts.items() if n >= min_count and w not in SPECIAL), key=lambda w: (-counts[w], w))
        if not common:
            raise DataError(
                f"Vocabulary.build: no word comes {min_count} times or more in the texts: there is nothing to number."
            )
        return cls(common if size is None else common[: size - len(SPECIAL)])

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, word: str) -> int:
        """The number of a word, that of ``<unk>`` if it is not in the vocabulary."""
        return self._numbers.get(word, UNKNOWN)

    def __contains__(self, word: object) -> bool:
        return word in self._numbers

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words: {', '.join(self.words[:8])}{', …' if len(self) > 8 else ''})"

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """The numbers of the words, (T,) int64; unknown words become 1, ``<unk>``."""
        return np.array([self[word] for word in _list_of_words("encode", words)], dtype=np.int64)

    def decode(self, ids) -> list[str]:
        """The words of a row of numbers, up to the first ``</s>`` or ``<pad>``, without ``<s>``."""
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise DtypeError(f"Vocabulary.decode: expected one row of integers, got shape {ids.shape} of {ids.dtype}.")
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueRangeError(
                f"Vocabulary.decode: numbers from {ids.min()} to {ids.max()}, but the vocabulary has 0 to {len(self) - 1}."
            )
        ends = np.flatnonzero((ids == END) | (ids == PAD))
        return [self.words[i] for i in ids[: ends[0] if len(ends) else None].tolist() if i != START]


def _list_of_words(method: str, words: Sequence[str]) -> Sequence[str]:
    if isinstance(words, str):
        raise DataError(
            f"Vocabulary.{method}: expected a list of words, got the text {words[:40]!r}: cut it into words first, for "
            f"instance with words(text), or into characters with list(text)."
        )
    return words


def pad(sequences: Sequence, length: int | None = None) -> np.ndarray:
    """Rows of numbers as one matrix (B, T) int64, 0 (``<pad>``) behind the shorter ones.

    sequences  B rows of positive integers, none of them empty.
    length     T; the length of the longest unless given.

    Raises DataError (no rows, an empty row), ShapeError (a row longer than ``length``), DtypeError, ValueRangeError (numbers
    below 1, which would be taken for padding).
    """
    rows = [np.asarray(row) for row in sequences]
    if not rows:
        raise DataError("pad: got no sequences at all.")
    for i, row in enumerate(rows):
        if row.size == 0:
            raise DataError(f"pad: sequence {i} is empty: a sequence has at least one token. Leave it out.")
        if row.ndim != 1 or row.dtype.kind not in "iu":
            raise DtypeError(f"pad: sequence {i} must be one row of integers, got shape {row.shape} of {row.dtype}.")
        if row.min() < 1:
            raise ValueRangeError(f"pad: sequence {i} holds {row.min()}, but tokens are >= 1: 0 is the padding.")
    longest = max(range(len(rows)), key=lambda i: len(rows[i]))
    T = len(rows[longest]) if length is None else length
    if len(rows[longest]) > T:
        raise ShapeError(f"pad: sequence {longest} has {len(rows[longest])} tokens, more than length = {T}.")
    padded = np.full((len(rows), T), PAD, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def lengths(tokens: np.ndarray) -> np.ndarray:
    """How many tokens each row of a padded matrix (B, T) has before its padding, (B,) int64: Σ_t [tokens_bt ≠ 0]."""
    return (tokens != PAD).sum(axis=1)
