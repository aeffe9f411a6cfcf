"""How values cross the border to the judge's child process: JSON for the tree, npy bytes for the arrays, and never a pickle.

A frame is a 4-byte length and a JSON header ``{"message": ..., "blobs": [lengths]}``, then the blobs. This file is run by the
child, too, which does not import cnnlib: it needs NumPy only.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

LARGEST = 1 << 26  # bytes in the blobs of one frame
LARGEST_HEADER = 1 << 24
DEEPEST = 16


@dataclass(frozen=True)
class Given:
    """An argument that is a function: the one of this name among the exercise's ``given``."""

    name: str


@dataclass(frozen=True)
class Other:
    """Something that cannot cross the border: a generator, a class, an array of objects; ``kind`` says what."""

    kind: str


class BadFrame(Exception):
    """Bytes that are no frame."""


def encode(value: Any, blobs: list[bytes], layout: str = "", depth: int = 0) -> Any:
    """A JSON tree for ``value``; arrays are appended to ``blobs``. ``layout="strided"``: with gaps, read-only."""
    if type(value) is int and value.bit_length() > 1000:
        return {"other": "int of more than 1000 bits"}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Given):
        return {"given": value.name}
    if depth > DEEPEST:
        return {"other": "nested too deeply"}
    if type(value) in (list, tuple):
        return {type(value).__name__: [encode(v, blobs, layout, depth + 1) for v in value]}
    if isinstance(value, tuple | list):
        return {"tuple": [encode(v, blobs, layout, depth + 1) for v in value]}
    if isinstance(value, dict) and all(type(k) is str for k in value):
        return {"dict": {k: encode(v, blobs, layout, depth + 1) for k, v in value.items()}}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biufc" or value.dtype.itemsize > 16:
            return {"other": f"array of {value.dtype.name}"}
        out = io.BytesIO()
        np.lib.format.write_array(out, np.array(value, order="C", subok=False), allow_pickle=False)
        blobs.append(out.getvalue())
        return {"npy": len(blobs) - 1, "layout": layout}
    return {"other": type(value).__name__}


def decode(tree: Any, blobs: list[bytes], given: dict[str, Any] | None = None) -> Any:
    """What ``encode`` wrote, with new, writeable arrays; ``given`` are the functions for ``Given``."""
    if not isinstance(tree, dict):
        return tree
    ((kind, inside), *_) = tree.items()
    if kind == "given":
        return Given(inside) if given is None else given[inside]
    if kind in ("list", "tuple"):
        values = [decode(v, blobs, given) for v in inside]
        return values if kind == "list" else tuple(values)
    if kind == "dict":
        return {k: decode(v, blobs, given) for k, v in inside.items()}
    if kind == "npy":
        array = np.lib.format.read_array(io.BytesIO(blobs[inside]), allow_pickle=False)
        return with_gaps(array) if tree["layout"] == "strided" else array
    return Other(str(inside))


def with_gaps(array: np.ndarray) -> np.ndarray:
    """A read-only array of the same values that is not contiguous: every second element of the last axis, NaN between them."""
    if not array.ndim:
        return array
    between = np.nan if array.dtype.kind == "f" else 1
    spaced = np.full((*array.shape[:-1], 2 * array.shape[-1]), between, dtype=array.dtype)[..., ::2]
    spaced[...] = array
    spaced.flags.writeable = False
    return spaced


def send(stream: BinaryIO, message: Any, blobs: list[bytes]) -> None:
    header = json.dumps({"message": message, "blobs": [len(b) for b in blobs]}).encode()
    stream.write(struct.pack(">I", len(header)) + header + b"".join(blobs))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[Any, list[bytes]] | None:
    """The next message with its blobs; None at the end of the stream. Raises BadFrame."""
    length = stream.read(4)
    if not length:
        return None
    try:
        header = json.loads(_exactly(stream, struct.unpack(">I", length)[0], LARGEST_HEADER))
        sizes = [int(n) for n in header["blobs"]]
        if min(sizes, default=0) < 0 or sum(sizes) > LARGEST:
            raise BadFrame(f"{sum(sizes)} bytes")
        return header["message"], [_exactly(stream, n) for n in sizes]
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as e:
        raise BadFrame(str(e)) from e


def _exactly(stream: BinaryIO, count: int, most: int = LARGEST) -> bytes:
    if count > most:
        raise BadFrame(f"{count} bytes")
    data = stream.read(count)
    if len(data) != count:
        raise BadFrame(f"ended after {len(data)} of {count} bytes")
    return data
