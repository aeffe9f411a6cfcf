"""Kernels for CuPy arrays: csrc/*.cu, compiled at first use (source.py), one file per family."""

from __future__ import annotations

import importlib
import importlib.util
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
    from cnnlib.backends import REFERENCE

    found = {name: f for name, f in vars(REFERENCE).items() if name != "name"}  # until every family is written
    for family in FAMILIES:
        name = f"{__name__}.{family}"
        if importlib.util.find_spec(name):
            found.update({k: f for k, f in vars(importlib.import_module(name)).items() if k in found})
    return found
