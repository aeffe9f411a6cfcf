"""shadow: every kernel runs twice, once as bound and once as the float64 textbook, and must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnnlib.backends import KernelSet
from cnnlib.backends.tolerance import bound, first_difference, in_float64
from cnnlib.errors import CnnlibError


class ShadowError(CnnlibError, ArithmeticError):
    """Two backends disagree about a kernel."""


def shadowed(kernels: KernelSet, reference: KernelSet) -> dict[str, Callable]:
    """The functions of ``kernels``, each compared at every call with the one of ``reference``."""
    return {
        name: _compared(name, function, getattr(reference, name), kernels.name, reference.name)
        for name, function in vars(kernels).items()
        if name != "name"
    }


def _compared(name: str, function: Callable, reference: Callable, backend: str, other: str) -> Callable:
    in_place = name.endswith("_step")

    def run(*arguments: Any) -> Any:
        widened = tuple(in_float64(a) for a in arguments)  # before the call: a step writes to its arguments
        result = function(*arguments)
        expected = reference(*widened)
        if in_place:
            pairs = [(a, b) for a, b in zip(arguments, widened, strict=True) if hasattr(a, "dtype")]
        elif isinstance(result, tuple):
            pairs = list(zip(result, expected, strict=True))
        else:
            pairs = [(result, expected)]
        dtype = next((a.dtype for a in arguments if hasattr(a, "dtype") and a.dtype.kind == "f"), "float32")
        for i, (y, y64) in enumerate(pairs):
            worst = first_difference(y, y64, bound(name, reference, arguments, y64, dtype))
            if worst is not None:
                index, size = worst
                raise ShadowError(
                    f"shadow: kernel {name} of backend {backend!r} disagrees with {other!r}: output {i} at index "
                    f"{index} is {y[index]!r}, expected {y64[index]!r}, off by {size:.1e} of the largest value."
                )
        return result

    return run
