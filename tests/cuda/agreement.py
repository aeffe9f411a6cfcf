"""Kernels on the emulated device against the textbook in float64, and against themselves in another order."""

from __future__ import annotations

import numpy as np

from cnnlib.backends import REFERENCE
from cnnlib.backends.tolerance import bound
from tests.cuda import emulator, fake_cupy


def on_device(value):
    return fake_cupy.asarray(value) if isinstance(value, np.ndarray) else value


def results(function, arguments, seed=0):
    """What the kernel returns for arguments on the device; blocks and threads run in the order of ``seed``."""
    emulator.seed = seed
    found = function(*map(on_device, arguments))
    found = found if isinstance(found, tuple) else (found,)
    assert all(a is None or isinstance(a, fake_cupy.ndarray) for a in found)
    return [None if a is None else a.view(np.ndarray) for a in found]


def assert_agrees(name, function, arguments):
    """``function``, called with ``arguments``, is kernel ``name``: within the tolerance of backends (integers: equal), of the
    same dtype and shape, with equal bits in another order, and it waits for nothing."""
    dtype = next((a.dtype for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"), None)
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    reference = getattr(REFERENCE, name)
    wanted = reference(*(a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    fake_cupy.synchronisations.clear()
    got = results(function, arguments)
    assert not fake_cupy.synchronisations
    for i, (y, y64) in enumerate(zip(got, wanted, strict=True)):
        if y64 is None:
            assert y is None
            continue
        expected = dtype if y64.dtype.kind == "f" else y64.dtype
        assert y.shape == y64.shape and y.dtype == expected and y.flags.c_contiguous, f"{name}, result {i}: {y.shape} {y.dtype}"
        # float64 is compared with itself added in another order
        allowed = bound(name, reference, arguments, y64, dtype, "direct") if expected == dtype else 0
        far = ~((abs(y - y64) <= allowed) | (y == y64) | (np.isnan(y) & np.isnan(y64)))
        assert not far.any(), f"{name}, result {i}, at {np.argwhere(far)[0]}: {y[far][0]!r} is not {y64[far][0]!r}"
    for a, b in zip(got, results(function, arguments, seed=7), strict=True):
        assert a is b is None or a.tobytes() == b.tobytes(), f"{name}: other bits in another order of blocks and threads"
    for a, b in zip(arguments, before, strict=True):
        assert not isinstance(a, np.ndarray) or a.tobytes() == b.tobytes(), f"{name} wrote to an argument"
