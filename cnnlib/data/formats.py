"""Readers of the two binary formats that classical data sets come in: IDX (MNIST) and CIFAR records.

Both check everything they can: a truncated, overlong or wrong file is an error with its name and the byte offset
(counted in the uncompressed data where the file is gzipped). Nothing is unpickled.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnnlib.errors import DataError

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
LARGEST_IDX = 2**31  # bytes; a header with nonsense in it asks for far more

CIFAR_RECORD = 1 + 3 * 32 * 32  # a label byte, then the red, green and blue planes
CIFAR_CLASSES = 10


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an IDX file, gzipped or not: its own shape, and its own type in native byte order.

    An IDX file is: two zero bytes, a type code (0x08 = unsigned byte), the number of dimensions, each dimension as a
    big-endian uint32, then the values in C order.
    """
    path = Path(path)
    with open_unzipped(path) as file:
        magic = _read(file, path, 0, 4, "the magic number")
        if magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES or not 1 <= magic[3] <= 32:
            raise DataError(
                f"{path}: not an IDX file: byte 0 should begin a magic number such as 00 00 08 03 (images) or "
                f"00 00 08 01 (labels), found {magic.hex(' ')}."
            )
        dtype, ndim = np.dtype(IDX_TYPES[magic[2]]), magic[3]
        shape = struct.unpack(f">{ndim}I", _read(file, path, 4, 4 * ndim, f"{ndim} dimensions"))
        start, length = 4 + 4 * ndim, math.prod(shape) * dtype.itemsize
        if length > LARGEST_IDX:
            raise DataError(
                f"{path}: the dimensions at byte 4, {shape}, would need {length:,} bytes; "
                f"more than {LARGEST_IDX:,} are not accepted: the header is damaged."
            )
        data = _read(file, path, start, length, f"values of shape {shape}")
        _expect_end(file, path, start + length)
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def read_images_and_labels(images: str | Path, labels: str | Path, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """A pair of IDX files as pixels (N, H, W) uint8 and labels (N,) int64 in [0, ``classes``)."""
    x, y = read_idx(images), read_idx(labels)
    for path, array, ndim, what in ((images, x, 3, "images (N, H, W)"), (labels, y, 1, "labels (N,)")):
        if array.dtype != np.uint8 or array.ndim != ndim:
            raise DataError(
                f"{path}: expected {what} of unsigned bytes, magic number 00 00 08 {ndim:02x} at byte 0; "
                f"found an array of shape {array.shape} and type {array.dtype}."
            )
    if len(x) != len(y):
        raise DataError(
            f"{images} holds {len(x):,} images but {labels} holds {len(y):,} labels (the count is at byte 4 "
            f"of each file): they do not belong together."
        )
    wrong = np.flatnonzero(y >= classes)
    if len(wrong):
        raise DataError(
            f"{labels}: label {y[wrong[0]]} at byte {8 + wrong[0]} is out of range: there are {classes} "
            f"classes, numbered from 0."
        )
    return x, y.astype(np.int64)


def parse_cifar(data: bytes, name: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 binary records as pixels (N, 3, 32, 32) uint8 and labels (N,) int64. ``name`` is for the messages."""
    records, rest = divmod(len(data), CIFAR_RECORD)
    if rest or not records:
        raise DataError(
            f"{name}: {len(data):,} bytes are not a whole number of CIFAR-10 records of {CIFAR_RECORD} bytes: "
            f"record {records} begins at byte {records * CIFAR_RECORD:,} and has only {rest}."
        )
    table = np.frombuffer(data, np.uint8).reshape(records, CIFAR_RECORD)
    labels = table[:, 0].astype(np.int64)
    wrong = np.flatnonzero(labels >= CIFAR_CLASSES)
    if len(wrong):
        raise DataError(
            f"{name}: label {labels[wrong[0]]} at byte {wrong[0] * CIFAR_RECORD:,} (record {wrong[0]}) is out "
            f"of range: CIFAR-10 has {CIFAR_CLASSES} classes, numbered from 0."
        )
    return table[:, 1:].reshape(records, 3, 32, 32), labels


def read_cifar(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """`parse_cifar` of a file."""
    return parse_cifar(Path(path).read_bytes(), path)


def open_unzipped(path: Path) -> BinaryIO:
    """The file for reading, through gzip if it is gzipped."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"  # by content: an unpacked file may have kept its .gz name, and the reverse
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def _read(file: BinaryIO, path: Path, start: int, length: int, what: str) -> bytes:
    """Exactly ``length`` bytes. In pieces: a damaged header must not make us reserve memory for what is not there."""
    data = io.BytesIO()
    while (missing := length - data.tell()) > 0:
        piece = _read_some(file, path, start + data.tell(), min(missing, 1 << 16))
        if not piece:
            raise DataError(
                f"{path}: truncated: the file ends at byte {start + data.tell():,}, but {what} take "
                f"{length:,} bytes from byte {start:,} on. Fetch the file again."
            )
        data.write(piece)
    return data.getvalue()


def _expect_end(file: BinaryIO, path: Path, end: int) -> None:
    if _read_some(file, path, end, 1):
        raise DataError(
            f"{path}: the data should end at byte {end:,}, but more bytes follow: not the file that its header describes."
        )


def _read_some(file: BinaryIO, path: Path, offset: int, length: int) -> bytes:
    try:
        return file.read(length)
    except EOFError:
        raise DataError(
            f"{path}: truncated: the gzip stream breaks off, at about byte {offset:,} of the "
            f"uncompressed data. Fetch the file again."
        ) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the gzip stream is damaged, at about byte {offset:,} of the uncompressed data "
            f"({error}). Fetch the file again."
        ) from None
