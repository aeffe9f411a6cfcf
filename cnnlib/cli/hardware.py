"""--backend, --device and --threads put into effect."""

from __future__ import annotations

import numpy as np

import cnnlib as cl
from cnnlib.tensor import to_device


def choose_hardware(backend: str | None, device: str, threads: int | None) -> None:
    """Raises DeviceError with the reason when that cannot be had here."""
    if backend:
        cl.use(backend)
    if threads:
        cl.set_num_threads(threads)
    to_device(np.zeros(1, np.float32), device)
