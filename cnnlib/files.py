"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file beside ``path``, force it to the disk, then put it in place of the old one in one move.

    Raises OSError; what was there before is then unharmed.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # one name per target: what a killed run left is overwritten
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, data)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _write(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders; it keeps the order of renames itself
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def keep_aside(path: Path) -> Path:
    """Rename ``path`` to the first free of ``path.bak``, ``path.bak1``, ``path.bak2`` …, and say which. Raises OSError."""
    kept = path.with_name(f"{path.name}.bak")
    for number in itertools.count(1):
        if not os.path.lexists(kept):
            break
        kept = path.with_name(f"{path.name}.bak{number}")
    os.rename(path, kept)
    return kept


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside the block this process alone holds the lock file ``path``; the system frees it when a process dies."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(file)
        yield
    finally:
        os.close(file)  # and with it the lock


if os.name == "nt":

    def _lock(file: int) -> None:
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]

else:

    def _lock(file: int) -> None:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
