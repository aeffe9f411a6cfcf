"""Kernels for CuPy arrays: csrc/*.cu, compiled at first use (source.py), one file per family."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache

FAMILIES = ("activation", "conv", "dropout", "embedding", "linear", "loss", "norm", "optim", "pool", "recurrent")


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
    """Every kernel of the contract, by name."""
    from cnnlib.backends import interface

    contract = {name for name, f in vars(interface).items() if callable(f) and f.__module__ == interface.__name__}
    modules = [importlib.import_module(f"{__name__}.{family}") for family in FAMILIES]
    return {name: f for module in modules for name, f in vars(module).items() if name in contract}
