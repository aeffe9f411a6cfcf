"""Real sentence pairs out of message catalogues, the ``.mo`` files in which programs keep their translated messages.

A catalogue (GNU gettext manual, "The format of GNU MO files") begins with 7 words of 32 bits: a magic number, which also tells
the byte order, a revision, the number n of messages, and the places of two tables of n rows (length, place): the original
messages, sorted, and their translations. A message may begin with its context and a byte 4; plural forms follow after a byte 0.
The translation of the empty message is the header, which names the encoding.

>>> import struct
>>> texts = [b"", b"Open file", b"Content-Type: text/plain; charset=UTF-8", b"Ouvrir un fichier"]
>>> places = [60 + sum(len(t) + 1 for t in texts[:i]) for i in range(4)]
>>> rows = [n for text, place in zip(texts, places) for n in (len(text), place)]
>>> messages(struct.pack("<7I8I", 0x950412DE, 0, 2, 28, 44, 0, 0, *rows) + b"\\0".join(texts), "small.mo")
[('Open file', 'Ouvrir un fichier')]
"""

from __future__ import annotations

import os
import re
import struct
import unicodedata
from pathlib import Path

import numpy as np

from cnnlib.data.pairs import Cut, Pair, Pairs, hold_out
from cnnlib.data.streams import SPLIT, philox
from cnnlib.errors import DataError, unknown_name

LANGUAGES = {"fr": "French", "de": "German", "es": "Spanish"}
HELD_OUT = 0.07  # of all pairs to test with, and as many to validate

MAGIC = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}
MARKUP = re.compile(r"[%~<>{}$|\\=@#*\[\]\n\t]|\.\.\.|…|https?:")  # of messages that are more than a sentence
TOKEN = re.compile(r"\w+'?|[^\w\s]")  # an apostrophe ends a word: l' été, don' t


def messages(content: bytes, name: str) -> list[Pair]:
    """(original, translation) of every message of a catalogue, contexts taken off, the first form of plurals.

    Raises DataError for what is no catalogue, breaks off, or is not in UTF-8, with the place.
    """
    order = MAGIC.get(content[:4])
    if order is None:
        raise DataError(
            f"{name}: no message catalogue: it begins with {content[:4]!r}, not with the magic number of .mo files."
        )
    try:
        _, count, originals, translations = struct.unpack_from(f"{order}4I", content, 4)
        rows = [struct.unpack_from(f"{order}{2 * count}I", content, start) for start in (originals, translations)]
    except struct.error:
        raise DataError(f"{name}: the catalogue breaks off at byte {len(content):,}, in its tables. Fetch it again.") from None
    sides = [[_text(content, row[2 * i], row[2 * i + 1], name) for i in range(count)] for row in rows]
    return [(a.split("\4")[-1], b) for a, b in zip(*sides, strict=True) if a and b]


def _text(content: bytes, length: int, place: int, name: str) -> str:
    if place + length > len(content):
        raise DataError(f"{name}: the catalogue breaks off at byte {len(content):,}: a text reaches to {place + length:,}.")
    try:
        return content[place : place + length].split(b"\0")[0].decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: the text at byte {place + error.start:,} is not UTF-8: {error.reason}.") from None


def parallel(language: str = "fr", max_words: int = 10) -> Pairs:
    """English sentences of at most ``max_words`` words and their translations into ``fr``, ``de`` or ``es``; real ones.

    They are the messages of all catalogues ``…/LANGUAGE/LC_MESSAGES/*.mo`` below ``CNNLIB_DATA/parallel``: put the language
    packages of programs there. There is no download. What is not a sentence is left out: markup, places for values, names that
    are the same in both languages. All in small letters; punctuation marks count as words; words that come once in training are
    ``<unk>``.

    Of equal English sentences the first is kept, and no sentence of either language, whatever its punctuation and digits, is in
    two of the parts.

    Raises DataError (no folder, no catalogues, too few sentences), UnknownNameError (another language).
    """
    if language not in LANGUAGES:
        raise unknown_name("language of parallel", language, LANGUAGES)
    found: dict[str, Pair] = {}
    for file in catalogues(language):
        for original, translation in messages(file.read_bytes(), str(file)):
            pair = clean(original), clean(translation)
            if pair[0] and pair[1] and pair[0] != pair[1] and max(len(side.split()) for side in pair) <= max_words:
                found.setdefault(letters(pair[0]), pair)
    if len(found) < 100:
        raise DataError(
            f"parallel: only {len(found)} sentences of at most {max_words} words in the catalogues: 100 are needed at least."
        )
    pairs = [found[key] for key in sorted(found)]
    order = np.argsort(philox(0, SPLIT).random_raw(len(pairs)), kind="stable")
    return Pairs(f"parallel-{language}", hold_out([pairs[i] for i in order], HELD_OUT, letters), WORDS, WORDS, min_count=2)


def catalogues(language: str) -> list[Path]:
    """The catalogues of a language below ``CNNLIB_DATA/parallel``."""
    root = os.environ.get("CNNLIB_DATA")
    if not root:
        raise DataError(
            "parallel: CNNLIB_DATA is not set: it names the folder that has a folder 'parallel' with message catalogues (.mo) "
            "of programs. The generated tasks, dates() and number_words(), need no files."
        )
    folder = Path(root).expanduser() / "parallel"
    files = sorted(folder.rglob(f"{language}/LC_MESSAGES/*.mo"))
    if not files:
        raise DataError(
            f"parallel: no catalogue {language}/LC_MESSAGES/*.mo below {folder}: put the language packages of programs there."
        )
    return files


def clean(message: str) -> str:
    """The sentence of a message in small letters, its tokens apart; empty where it has markup or no letters.

    >>> clean("terrain^Deep _Water"), clean("l’eau\\xa0!"), clean("%d files"), clean("1.0")
    ('deep water', "l' eau !", '', '')
    """
    message = unicodedata.normalize("NFC", message).split("^")[-1].replace("_", "").replace("’", "'")
    if MARKUP.search(message) or not any(c.isalpha() for c in message):
        return ""
    return " ".join(TOKEN.findall(message.lower()))


def letters(sentence: str) -> str:
    """A sentence without punctuation and digits, to find out which are nearly the same."""
    return " ".join(word for word in sentence.split() if word[0].isalpha())


def readable(tokens: list[str]) -> str:
    """Tokens as a sentence: no space after an apostrophe or an opening mark, none before a closing one.

    >>> readable(["l'", "eau", "est", "froide", "!"])
    "l'eau est froide!"
    """
    return re.sub(r"(?<=['¿¡(«]) | (?=[.,;:!?)»])", "", " ".join(tokens))


WORDS = Cut(lambda text: clean(text).split(), readable)
