"""Kernels on a device, emulated or not, against the textbook in float64, and against themselves in another order."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np

from cnnlib.backends import REFERENCE
from cnnlib.backends.tolerance import bound
from tests.cuda import emulator, fake_cupy


@contextlib.contextmanager
def nothing_waits():
    """Inside, the host must not wait for the device: the stand-in counts, CuPy raises where it copies to the host."""
    import cupy
    import cupyx

    if cupy is fake_cupy:
        fake_cupy.synchronisations.clear()
        yield
        assert not fake_cupy.synchronisations
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="cupyx.allow_synchronize")  # a later CuPy will not have it
            warnings.filterwarnings("error", message="The grid size will be reduced")  # of a cooperative launch
            with cupyx.allow_synchronize(False):
                yield


def on_device(value):
    import cupy

    return cupy.asarray(value) if isinstance(value, np.ndarray) else value


def results(function, arguments, seed=0):
    """What the kernel returns for arguments on the device; emulated blocks and threads run in the order of ``seed``."""
    import cupy

    emulator.seed = seed
    arguments = list(map(on_device, arguments))
    with nothing_waits():
        found = function(*arguments)
    found = found if isinstance(found, tuple) else (found,)
    assert all(a is None or (isinstance(a, cupy.ndarray) and a.flags.c_contiguous) for a in found)
    return [None if a is None else cupy.asnumpy(a) for a in found]


def assert_agrees(name, function, arguments):
    """``function``, called with ``arguments``, is kernel ``name``: within the tolerance of backends (integers: equal), of the
    same dtype and shape, with equal bits in another order, and it waits for nothing."""
    dtype = next((a.dtype for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"), None)
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    reference = getattr(REFERENCE, name)
    wanted = reference(*(a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    got = results(function, arguments)
    for i, (y, y64) in enumerate(zip(got, wanted, strict=True)):
        if y64 is None:
            assert y is None
            continue
        expected = dtype if y64.dtype.kind == "f" else y64.dtype
        assert y.shape == y64.shape and y.dtype == expected, f"{name}, result {i}: {y.shape} {y.dtype}"
        # float64 is compared with itself added in another order
        allowed = bound(name, reference, arguments, y64, dtype, "direct") if expected == dtype else 0
        far = ~((abs(y - y64) <= allowed) | (y == y64) | (np.isnan(y) & np.isnan(y64)))
        assert not far.any(), f"{name}, result {i}, at {np.argwhere(far)[0]}: {y[far][0]!r} is not {y64[far][0]!r}"
    for a, b in zip(got, results(function, arguments, seed=7), strict=True):
        assert a is b is None or a.tobytes() == b.tobytes(), f"{name}: other bits in another order of blocks and threads"
    for a, b in zip(arguments, before, strict=True):
        assert not isinstance(a, np.ndarray) or a.tobytes() == b.tobytes(), f"{name} wrote to an argument"
