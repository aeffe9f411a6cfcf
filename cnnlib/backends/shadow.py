"""shadow: every kernel runs twice, once as bound and once as the float64 textbook, and must agree."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from cnnlib.backends import KernelSet, on_gpu
from cnnlib.backends.tolerance import bound, first_difference, in_float64
from cnnlib.errors import CnnlibError


class ShadowError(CnnlibError, ArithmeticError):
    """Two backends disagree about a kernel."""


def shadowed(kernels: KernelSet, reference: KernelSet) -> KernelSet:
    """``kernels``, each compared at every call with the one of ``reference``."""
    functions = vars(kernels).items()
    compared = {
        name: _compared(name, function, getattr(reference, name), kernels.name, reference.name)
        for name, function in functions
        if name != "name" and function is not getattr(reference, name)
    }
    return KernelSet(**{**vars(kernels), **compared})


def _compared(name: str, function: Callable, reference: Callable, backend: str, other: str) -> Callable:
    signature = inspect.signature(reference)

    def run(*positional: Any, **named: Any) -> Any:
        bound_arguments = signature.bind(*positional, **named)
        bound_arguments.apply_defaults()
        arguments = tuple(bound_arguments.arguments.values())
        widened = tuple(in_float64(_on_host(a)) for a in arguments)  # before the call: a step writes to its arguments
        result = function(*arguments)
        expected = reference(*widened)
        found = tuple(map(_on_host, result)) if isinstance(result, tuple) else _on_host(result)
        arguments = tuple(map(_on_host, arguments))
        dtype = next((a.dtype for a in arguments if hasattr(a, "dtype") and a.dtype.kind == "f"), "float32")
        for i, (y, y64) in enumerate(_pairs(name, arguments, widened, found, expected)):
            worst = first_difference(y, y64, bound(name, reference, arguments, y64, dtype))
            if worst is not None:
                where = f"shadow: kernel {name} of backend {backend!r} disagrees with {other!r}: output {i}"
                index, size = worst
                if y.shape != y64.shape:
                    raise ShadowError(f"{where} has shape {y.shape}, expected {y64.shape}.")
                raise ShadowError(
                    f"{where} at index {index} is {y[index]!r}, expected {y64[index]!r}, off by {size:.1e} of the largest."
                )
        return result

    return run


def _on_host(a: Any) -> Any:
    """Results are compared on the CPU: CuPy's arrays lack some of what that takes, and the other backend is the CPU's."""
    return a.get() if on_gpu(a) else a


def _pairs(name: str, arguments: tuple, widened: tuple, result: Any, expected: Any) -> list[tuple[Any, Any]]:
    """What to compare: the results, or for a step, which writes in place, its array arguments."""
    if name.endswith("_step"):
        return [(a, b) for a, b in zip(arguments, widened, strict=True) if hasattr(a, "dtype")]
    pairs = list(zip(result, expected, strict=True)) if isinstance(result, tuple) else [(result, expected)]
    return [(y, y64) for y, y64 in pairs if y64 is not None]  # dpeephole of an LSTM without peepholes
