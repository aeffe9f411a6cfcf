"""Errors that cnnlib raises. Each message says what operation, what was expected, what came, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CnnlibError(Exception):
    """Base of all errors of cnnlib, so that a caller (and the command line) can catch them in one place."""


class ShapeError(CnnlibError, ValueError):
    """Arrays or settings whose shapes do not fit the operation."""


class DtypeError(CnnlibError, TypeError):
    """Arrays of the wrong or of mixed types."""


class DeviceError(CnnlibError, RuntimeError):
    """Arrays on different devices, or a device or backend that is not available."""


class DeviceMemoryError(CnnlibError, MemoryError):
    """The GPU's memory is used up."""


class ValueRangeError(CnnlibError, ValueError):
    """A value outside its range: a label, a probability, a setting."""


class GraphError(CnnlibError, RuntimeError):
    """A backward pass that cannot be: no graph, freed graph, stale parameter."""


class NonFiniteError(CnnlibError, ArithmeticError):
    """NaN or infinity where the caller asked for a check."""


class DataError(CnnlibError, ValueError):
    """A data file that is missing, truncated, tampered with or not of the expected format."""


class CheckpointError(CnnlibError, ValueError):
    """A checkpoint that cannot be read, or does not fit the model."""


class LearnerError(CnnlibError, RuntimeError):
    """A learner's function that failed, or took too long, where it was put to work."""


class UnknownNameError(CnnlibError, KeyError):
    """A name (model, data set, optimiser, kernel ...) that does not exist."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """An error that names the nearest match: ``unknown model 'lenet': did you mean 'lenet5'? (lenet5, mlp)``."""
    name, known = str(name), sorted(known)
    near = [k for k in known if k.lower() == name.lower()] or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}{hint} (known: {', '.join(known)})")
