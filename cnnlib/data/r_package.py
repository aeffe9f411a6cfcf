"""The texts in the data of an R package: the package janeaustenr, of which Debian has a copy, holds her novels so.

``data/Rdata.rdb`` is objects one after the other, each of them its size (4 bytes) and a zlib stream. Unpacked, an object
begins with "X\\n", three integers (version of the format, version of R, oldest R that can read it) and from version 3 on the
name of an encoding. A vector of strings is then the type 16, how many there are, and for each the type 9, its length (−1 if
missing) and its bytes. Integers are of 4 bytes, the largest first; types are in the lowest byte.

Source: R Internals, "Serialization Formats".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from cnnlib.errors import DataError

STRINGS, STRING = 16, 9


def vectors_of_strings(path: Path) -> Iterator[list[str]]:
    """Those among the objects of an ``.rdb`` file, in order. Raises DataError for a damaged file or one of another kind."""
    try:
        for raw in _objects(path.read_bytes()):
            if (lines := _strings(raw)) is not None:
                yield lines
    except (zlib.error, struct.error, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: not the data of an R package, or damaged ({error}). Fetch it again.") from None


def _objects(data: bytes) -> Iterator[bytes]:
    while data:
        (size,) = struct.unpack_from(">i", data)
        stream = zlib.decompressobj()
        raw = stream.decompress(data[4:])
        if len(raw) != size or not stream.eof:
            raise ValueError(f"an object of {len(raw):,} bytes instead of {size:,}")
        yield raw
        data = stream.unused_data


def _strings(raw: bytes) -> list[str] | None:
    """The strings of an object that is a vector of them, else None."""
    if raw[:2] != b"X\n":
        raise ValueError("an object that is not in R's binary format")
    (version,) = struct.unpack_from(">i", raw, 2)
    at = 14
    if version >= 3:
        at += 4 + struct.unpack_from(">i", raw, at)[0]
    kind, count = struct.unpack_from(">ii", raw, at)
    if kind & 0xFF != STRINGS:
        return None
    at += 8
    lines = []
    for _ in range(count):
        kind, size = struct.unpack_from(">ii", raw, at)
        if kind & 0xFF != STRING:
            raise ValueError(f"an element of type {kind & 0xFF} among strings")
        lines.append(raw[at + 8 : at + 8 + max(size, 0)].decode())
        at += 8 + max(size, 0)
    return lines
