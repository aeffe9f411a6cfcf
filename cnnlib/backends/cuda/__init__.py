"""Kernels for CuPy arrays: csrc/*.cu, compiled at first use (source.py), one file per family."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from cnnlib.backends.cuda import health

FAMILIES = ("activation", "conv", "dropout", "embedding", "linear", "loss", "norm", "optim", "pool", "recurrent")


def why_not() -> str | None:
    """None when a kernel really compiled and ran on the GPU, else the original error and what mends it."""
    found = health.problem()
    return None if found is None else str(found)


def pool_bytes() -> int:
    """What CuPy's pool holds of the GPU's memory, in use or kept for later."""
    import cupy

    return cupy.get_default_memory_pool().total_bytes()


def kernels() -> dict[str, Callable]:
    """Every kernel of the contract, by name."""
    from cnnlib.backends import interface

    contract = {name for name, f in vars(interface).items() if callable(f) and f.__module__ == interface.__name__}
    modules = [importlib.import_module(f"{__name__}.{family}") for family in FAMILIES]
    return {name: f for module in modules for name, f in vars(module).items() if name in contract}
