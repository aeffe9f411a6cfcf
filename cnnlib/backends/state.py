"""The engine's settings of the moment: one immutable record in one context variable.

``use``, ``override``, ``shadow``, ``trace``, ``no_grad`` and ``check_finite`` all replace this record for the length of a
``with`` block. A context variable is local to a thread and to an asyncio task; leaving the block, also by an exception,
brings the old record back, so that blocks nest and the innermost wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, NamedTuple


class State(NamedTuple):
    backend: str | None = None  # CPU kernels chosen by an enclosing `use`; None: those of the process
    grad: bool = True  # False inside no_grad
    check_finite: bool = False  # True: every output and adjoint is checked for NaN and infinity
    recorder: Any = None  # the innermost trace
    overrides: Mapping[type, tuple[Callable | None, Callable | None]] = MappingProxyType({})
    kernel_overrides: Mapping[str, Callable] = MappingProxyType({})
    shadow: str | None = None  # backend that every kernel is compared with


_state: ContextVar[State] = ContextVar("cnnlib_state", default=State())  # noqa: B039  (a State is immutable)
current = _state.get

# Path of the module whose forward is running, such as "features.0": apart from State, as it changes with every call.
scope: ContextVar[str] = ContextVar("cnnlib_scope", default="")


class Changed:
    """Context manager: the state with some fields replaced. Nests, also with itself, and may serve several threads."""

    def __init__(self, **changes: Any):
        self._changes = changes
        self._tokens: ContextVar[tuple[Token, ...]] = ContextVar("cnnlib_tokens", default=())

    def changes(self) -> dict[str, Any]:
        """The fields to replace, computed when the block is entered."""
        return self._changes

    def __enter__(self):
        self._tokens.set((*self._tokens.get(), _state.set(current()._replace(**self.changes()))))
        return self

    def __exit__(self, *exc):
        *rest, last = self._tokens.get()
        self._tokens.set(tuple(rest))
        _state.reset(last)
