"""Kernels for CuPy arrays. Until dedicated CUDA kernels stand in for them, these are the textbook functions on CuPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache


@cache
def why_not() -> str | None:
    """None when a kernel really compiled and ran on the GPU, else the original error."""
    try:
        import cupy

        (cupy.arange(4, dtype=cupy.float32) ** 2).sum().item()  # NVRTC loads late: only a run proves health
    except Exception as error:  # import cupy raises many kinds of errors on a broken installation
        return f"{type(error).__name__}: {error}."
    return None


def kernels() -> dict[str, Callable]:
    from cnnlib.backends import REFERENCE

    return {name: f for name, f in vars(REFERENCE).items() if name != "name"}
