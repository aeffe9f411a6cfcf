"""The compiled CPU kernels, where the extension was built; csrc/README.md says how they are made."""

import importlib.util
import operator
from collections.abc import Callable
from typing import Any

from cnnlib.backends import interface
from cnnlib.errors import unknown_name

PRECISIONS = ("fast", "exact")

_why_not: str | None = None
try:
    from cnnlib.backends.cpu import _kernels  # type: ignore[attr-defined]
except ImportError as error:
    built = importlib.util.find_spec("cnnlib.backends.cpu._kernels") is not None
    _kernels = None
    _why_not = f"{type(error).__name__}: {error}." if built else "the compiled kernels were not built."


def available() -> bool:
    """Whether the extension was built and could be imported."""
    return _kernels is not None


def why_not() -> str | None:
    """The text of the import error, or None."""
    return _why_not


def kernels() -> dict[str, Callable[..., Any]]:
    """Every kernel of the contract that the extension has, by name."""
    contract = [name for name, f in vars(interface).items() if callable(f) and f.__module__ == interface.__name__]
    return {name: _kernels.gate(getattr(_kernels, name)) for name in contract if hasattr(_kernels, name)}


def isa() -> str:
    """The instruction set in use: baseline, avx2 or avx512 (or "none"); CNNLIB_ISA forces one."""
    return _kernels.isa() if _kernels else "none"


def available_isas() -> list[str]:
    """The instruction sets that this machine can run, best first."""
    return _kernels.available_isas() if _kernels else []


def set_isa(name: str | None) -> None:
    """Use this instruction set; None takes the best."""
    if _kernels:
        _kernels.set_isa(name)


def set_num_threads(n: int) -> None:
    """How many threads a kernel may use, 256 at most. Results do not depend on it."""
    if _kernels:
        _kernels.set_num_threads(operator.index(n))


def get_num_threads() -> int:
    return _kernels.get_num_threads() if _kernels else 1


def set_buffer_limit(n_bytes: int) -> None:
    """How large the heap may grow from which compiled kernels take the arrays that they return; 0: none. At first 1 GiB.

    Fresh memory costs a kernel that only copies about as much again as its work, because the system clears every page at its
    first use. So arrays of 8,192 numbers and more come from a heap whose pages stay when an array goes; beyond the limit they
    are allocated as NumPy does. Arrays in use are not touched.
    """
    if not isinstance(n_bytes, int) or n_bytes < 0:
        raise ValueError(f"set_buffer_limit: n_bytes must be a whole number >= 0, got {n_bytes!r}")
    if _kernels:
        _kernels.set_buffer_limit(n_bytes)


def get_buffer_limit() -> int:
    """Bytes; 0 without compiled kernels."""
    return _kernels.get_buffer_limit() if _kernels else 0


def release_buffers() -> None:
    """Give the memory of arrays that are gone back to the system, now."""
    if _kernels:
        _kernels.release_buffers()


def set_precision(precision: str) -> None:
    """How the compiled kernels compute convolutions of stride 1 or 2 in float32: ``"fast"`` (the default) or ``"exact"``.

    ``"fast"`` lets convolutions with many channels use Winograd's minimal filtering F(4×4, 3×3), a quarter of the
    multiplications, in all three passes; larger kernels, up to 12×12, in parts of 3×3. With stride 2, kernels of 3×3 to 4×4
    take F(4×4, 2×2) on even and odd pixels, forward and backward-input. It rounds more: relative to the root mean square of the
    result, the error measured with 64 to 512 channels is up to 1.2e-6 in the mean square and 1.4e-5 at most, that of direct
    sums, cut into chains of 512 products, 4e-7 and 5e-6 (``python -m benchmarks.error``). And an output takes part in what its
    tile of 4×4 meets: a NaN or infinity may reach all 16 outputs of a tile, and all nine taps of a part of a weight's gradient.
    ``"exact"`` sums directly, always. float64, so gradient checks too, and the reference backend always do.

    A setting of the process; the choice is taken when a kernel runs. Raises UnknownNameError for another word.

    Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.

    >>> import cnnlib as cl
    >>> cl.set_precision("exact")
    >>> cl.get_precision()
    'exact'
    >>> cl.set_precision("fast")
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if _kernels:
        _kernels.set_exact(precision == "exact")


def get_precision() -> str:
    """What :func:`set_precision` chose; "exact" where the compiled kernels were not built."""
    return "exact" if _kernels is None or _kernels.get_exact() else "fast"
