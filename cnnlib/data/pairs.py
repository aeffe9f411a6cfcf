"""Pairs of texts to learn a translation from: cut into tokens, numbered, padded, as data sets for a sequence-to-sequence model.

>>> from cnnlib.data.generated import number_words
>>> task = number_words(count=2000)
>>> task.train
Dataset('number words train', 1,600 samples of (18,) int64, 14 classes)
>>> task.encode(["four hundred and two"]).shape, task.source.length, task.target.length
((1, 11), 11, 6)
>>> task.decode(task.validation.y[:2])
['854', '74119']
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cnnlib.data.dataset import Dataset
from cnnlib.data.words import END, START, Vocabulary, pad
from cnnlib.errors import DataError

Pair = tuple[str, str]  # a text and its translation


@dataclass(frozen=True)
class Cut:
    """How a text becomes tokens, and how tokens become a text."""

    apart: Callable[[str], list[str]]
    together: Callable[[list[str]], str]


CHARACTERS = Cut(list, "".join)
WORDS = Cut(str.split, " ".join)


class Language:
    """One side of a translation task: its vocabulary, the length of its longest sentence in tokens, and its ``cut``.

    Built from training texts. Words that come fewer than ``min_count`` times there, and those met later, become ``<unk>``.
    """

    def __init__(self, texts: Sequence[str], cut: Cut, length: int, min_count: int = 1):
        self.cut, self.length = cut, length
        self.vocabulary = Vocabulary.build((cut.apart(text) for text in texts), min_count=min_count)

    def encode(self, texts: Sequence[str], what: str = "sentence") -> list[np.ndarray]:
        """The tokens of each text. Raises DataError that names a text without tokens or with more than ``length``."""
        if isinstance(texts, str):
            raise DataError(f"encode: expected a list of texts, got the text {texts[:40]!r}: write [text].")
        rows = [self.vocabulary.encode(self.cut.apart(text)) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if not 0 < len(row) <= self.length:
                raise DataError(
                    f"the {what} {text[:60]!r} has {len(row)} tokens, but the model is made for 1 to {self.length} of them."
                )
        return rows

    def decode(self, tokens) -> list[str]:
        """The texts of rows of tokens, each up to its ``</s>`` or padding."""
        return [self.cut.together(self.vocabulary.decode(row)) for row in tokens]


class Pairs:
    """A translation task: two languages, and pairs of texts to learn from, to choose by and to test with.

    train, validation, test  data sets as `cnnlib.models.Seq2Seq` takes them: x (N, S + T), the source beside ``<s>`` and the
                             target; y (N, T), the target and ``</s>``; each padded with 0; ``classes``: the target's words.
    texts                    the pairs of texts behind them: ``texts["test"][i]`` is (source, target).
    source, target           the languages. S = source.length, T = target.length + 1.

    The vocabularies know the training texts only. A pair whose source or target also is in a part held out is refused: a test
    would measure what was learnt by heart.
    """

    def __init__(self, name: str, texts: dict[str, list[Pair]], source: Cut, target: Cut, min_count: int = 1):
        if set(texts) != {"train", "validation", "test"} or not all(texts.values()):
            counts = {part: len(pairs) for part, pairs in texts.items()}
            raise DataError(f"{name}: expected pairs to train on, to validate and to test with, got {counts}.")
        self.name, self.texts = name, texts
        self.source, self.target = (
            Language([p[side] for p in texts["train"]], cut, _longest(texts, side, cut), min_count)
            for side, cut in enumerate((source, target))
        )
        self.train, self.validation, self.test = (self._dataset(part) for part in ("train", "validation", "test"))

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(pairs):,}" for part, pairs in self.texts.items())
        return f"Pairs({self.name!r}, {counts}; {len(self.source.vocabulary):,} and {len(self.target.vocabulary):,} words)"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Texts of the source language as tokens (N, S), for ``model.translate``; unknown words become ``<unk>``."""
        return pad(self.source.encode(texts), self.source.length)

    def decode(self, tokens) -> list[str]:
        """What ``model.translate`` returned, (N, T), as texts of the target language."""
        return self.target.decode(tokens)

    def _dataset(self, part: str) -> Dataset:
        sources, targets = zip(*self.texts[part], strict=True)
        T, written = self.target.length + 1, self.target.encode(targets, "translation")
        given, asked = ([np.array([START, *row]) for row in written], [np.array([*row, END]) for row in written])
        x = np.hstack([self.encode(sources), pad(given, T)])
        return Dataset(x, pad(asked, T), self.target.vocabulary.words, f"{self.name} {part}")


def _longest(texts: dict[str, list[Pair]], side: int, cut: Cut) -> int:
    return max(len(cut.apart(pair[side])) for pairs in texts.values() for pair in pairs)


def hold_out(pairs: Sequence[Pair], share: float, key: Callable[[str], str] = str.casefold) -> dict[str, list[Pair]]:
    """The last ``share`` of the pairs to test with, as many before them to validate, the rest to train on, without overlap.

    What is held out decides: a pair is left out of the training part if its source or its target has the same ``key`` as one
    held out, and likewise out of the validation part for the sake of the test part.
    """
    n = round(share * len(pairs))
    parts: dict[str, list[Pair]] = {}
    seen: tuple[set[str], set[str]] = set(), set()
    for part, some in (("test", pairs[-n:]), ("validation", pairs[-2 * n : -n]), ("train", pairs[: -2 * n])):
        parts[part] = [p for p in some if key(p[0]) not in seen[0] and key(p[1]) not in seen[1]]
        for p in some:
            seen[0].add(key(p[0]))
            seen[1].add(key(p[1]))
    return {part: parts[part] for part in ("train", "validation", "test")}
