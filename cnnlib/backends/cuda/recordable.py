"""Inside ``with recordable():`` no kernel calls cuBLAS, so that CuPy can record what runs there as a CUDA graph.

CuPy refuses cuBLAS while a stream is captured: NotImplementedError, "calling cuBLAS API during stream capture is currently
unsupported". Matrix products and convolutions then take the tiles of csrc/conv.cu. Steps that are not recorded, but are to
have the bits of those that are, run inside, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_depth = 0


def without_cublas() -> bool:
    """Whether kernels must do without cuBLAS here and now."""
    return _depth > 0


@contextlib.contextmanager
def recordable() -> Iterator[None]:
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
