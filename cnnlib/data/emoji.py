"""Emoji, 32×32 in colour, with their names: 396 people that come with the library, and all of two designers.

>>> pictures, names = emoji_people()
>>> pictures.shape, names[0], names[-1]
((396, 3, 32, 32), ['man', 'artist'], ['woman', 'with', 'veil', 'dark'])

The last word of a name is the tone of the skin where it is not the yellow one: light, medium-light, medium, medium-dark, dark.

Source: Noto Emoji, Google (Apache License 2.0); Twemoji, Twitter and others (CC BY 4.0); names and files as in the packages
emoji-datasource-google and emoji-datasource-twitter 16.0.0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnlib.data.builtin import FOLDER
from cnnlib.data.dataset import Dataset
from cnnlib.data.pictures import image
from cnnlib.data.words import END, Vocabulary, pad, words
from cnnlib.errors import DataError, ShapeError, unknown_name

VENDORS = ("google", "twitter")
TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
SIDE = 32

Named = tuple[np.ndarray, list[list[str]]]


def emoji_people() -> Named:
    """(pictures (396, 3, 32, 32) float32 in [0, 1], names): 33 occupations, men and women, in six tones, drawn by Google."""
    sheet = image(FOLDER / "emoji" / "people.png")[0]
    names = [line.split() for line in (FOLDER / "emoji" / "people.txt").read_text("ascii").splitlines()]
    columns = sheet.shape[2] // SIDE
    tiles = sheet.reshape(3, -1, SIDE, columns, SIDE).transpose(1, 3, 0, 2, 4)  # rows, columns, C, H, W
    return np.ascontiguousarray(tiles.reshape(-1, 3, SIDE, SIDE)[: len(names)]), names


class Emoji(NamedTuple):
    """One that both vendors have drawn. ``name``: its words; ``tone``: of its skin, None for the yellow one."""

    file: str
    name: list[str]
    category: str
    tone: str | None


def emoji(vendor: str = "google") -> Named:
    """(pictures (N, 3, 32, 32) float32 in [0, 1], names) of all emoji of a vendor, in the same order for both.

    Looked for in ``CNNLIB_DATA/emoji``: the npm packages emoji-datasource-google and emoji-datasource-twitter (16.0.0),
    unpacked as ``google`` and ``twitter``. Pairs in two tones of skin are left out. Raises UnknownNameError, DataError.
    """
    some = listed(vendor)
    return drawn(vendor, some), [e.name if e.tone is None else [*e.name, e.tone] for e in some]


def listed(vendor: str) -> list[Emoji]:
    """The emoji in a vendor's list, those in a tone of skin last. Raises as `emoji`."""
    folder = _folder(vendor)
    if not (folder / "emoji.json").is_file():
        raise DataError(f"emoji: {folder} has no pictures: unpack the npm package emoji-datasource-{vendor}, version "
                        f"16.0.0, there (CNNLIB_DATA names the folder above emoji).")  # fmt: skip
    try:
        found = _entries(json.loads((folder / "emoji.json").read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as reason:
        raise DataError(f"emoji: {folder / 'emoji.json'} is not the package's list ({reason!r}): unpack it again.") from None
    if not found:
        raise DataError(f"emoji: {folder / 'emoji.json'} lists no emoji that both {' and '.join(VENDORS)} have drawn.")
    return found


def _entries(entries: list[dict[str, Any]]) -> list[Emoji]:
    yellow = [Emoji(entry["image"], words(entry["name"]), entry["category"], None) for entry in entries if _in_both(entry)]
    return yellow + [
        Emoji(variation["image"], words(entry["name"]), entry["category"], TONES[tone])
        for entry in entries
        for tone, variation in entry.get("skin_variations", {}).items()
        if tone in TONES and _in_both(variation)
    ]


def drawn(vendor: str, some: Sequence[Emoji]) -> np.ndarray:
    """(N, 3, 32, 32) float32 in [0, 1]: how a vendor drew them."""
    folder = _folder(vendor) / "img" / vendor / "64"
    return np.concatenate([image(folder / e.file, SIDE) for e in some])


def _folder(vendor: str) -> Path:
    if vendor not in VENDORS:
        raise unknown_name("vendor of emoji", vendor, VENDORS)
    return Path(os.environ.get("CNNLIB_DATA", "data")).expanduser() / "emoji" / vendor


def _in_both(entry: dict[str, Any]) -> bool:
    return all(entry[f"has_img_{vendor}"] for vendor in VENDORS)


def captions(pictures: np.ndarray, names: Sequence[Sequence[str]], vocabulary: Vocabulary, name: str = "captions") -> Dataset:
    """Pictures, and as targets their names with ``</s>`` behind, as one padded matrix (N, T) int64."""
    if len(pictures) != len(names):
        raise ShapeError(f"{name}: {len(pictures)} pictures need as many names, got {len(names)}.")
    return Dataset(pictures, pad([[*vocabulary.encode(words), END] for words in names]), (), name)
