"""What a learner has done so far: one file ``progress.json`` in the workspace, which survives crashes and second windows.

::

    {"format": "cnnlib learn", "version": 1,
     "exercises": {"neuron": {"attempts": 3, "hints": 1, "gave_up": false, "passed": "2026-01-31T18:05:09+00:00",
                              "sha256": "of the file that passed"}}}

Every change reads the file anew under a lock and replaces it in one move: a killed process leaves the old file or the new
one, and two processes do not undo each other's changes. A file that cannot be understood is renamed, never written over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cnnlib.errors import DataError
from cnnlib.files import keep_aside, locked, write_atomically

FILE, LOCK = "progress.json", ".progress.lock"
FORMAT, VERSION = "cnnlib learn", 1


@dataclasses.dataclass
class Record:
    """One exercise: checks made, hints shown, whether the solution was shown before it was passed, and when and with which
    file it was passed first."""

    attempts: int = 0
    hints: int = 0
    gave_up: bool = False
    passed: str | None = None  # UTC, ISO 8601
    sha256: str | None = None

    def checked(self, passed: bool, sha256: str) -> None:
        """Note a check; passing counts once and stays."""
        self.attempts += 1
        if passed and self.passed is None:
            self.passed, self.sha256 = datetime.now(UTC).isoformat(timespec="seconds"), sha256


class Progress:
    """The progress kept in ``folder``.

    >>> progress = Progress(Path())
    >>> with progress.change("neuron") as record:
    ...     record.hints += 1
    >>> progress.read()["neuron"].hints
    1

    ``change`` raises DataError when the file cannot be written (the one before is then unharmed), and both raise it for the
    file of a later cnnlib.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / FILE

    def read(self) -> dict[str, Record]:
        """All records by name; none when there is no file. A broken one is put aside, with a warning that says where."""
        try:
            return _decode(self.path.read_bytes(), self.path)
        except FileNotFoundError:
            return {}
        except OSError as reason:
            raise DataError(f"{self.path}: your progress could not be read: {reason.strerror or reason}.") from reason
        except _Broken as broken:
            with self._writing(), locked(self.folder / LOCK):
                self._put_aside(str(broken))
            return {}

    @contextlib.contextmanager
    def change(self, name: str) -> Iterator[Record]:
        """The record of exercise ``name``, to be changed inside the block; written at its end."""
        with self._writing(), locked(self.folder / LOCK):
            records = self._read_locked()
            yield records.setdefault(name, Record())
            write_atomically(self.path, _encode(records))

    def create(self) -> None:
        """An empty file where there is none."""
        with self._writing(), locked(self.folder / LOCK):
            records = self._read_locked()
            if not self.path.exists():
                write_atomically(self.path, _encode(records))

    def _read_locked(self) -> dict[str, Record]:
        try:
            return _decode(self.path.read_bytes(), self.path)
        except FileNotFoundError:
            return {}
        except _Broken as broken:
            self._put_aside(str(broken))
            return {}

    def _put_aside(self, reason: str) -> None:
        with contextlib.suppress(FileNotFoundError, _Repaired):
            _still_broken(self.path)
            kept = keep_aside(self.path)
            warnings.warn(
                f"{self.path} is no progress file ({reason}); it is kept as {kept.name} and a new one is begun. "
                "`cnnlib learn check --all` finds out again what you have solved.",
                stacklevel=4,
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as reason:
            raise DataError(
                f"{self.path}: your progress could not be saved: {reason.strerror or reason}. Your files and the progress "
                "so far are unharmed; make the folder writable, or free space, and check again."
            ) from reason


class _Broken(Exception):
    pass


class _Repaired(Exception):
    """Another process was faster."""


def _still_broken(path: Path) -> None:
    try:
        _decode(path.read_bytes(), path)
    except _Broken:
        return
    raise _Repaired


def _encode(records: dict[str, Record]) -> bytes:
    exercises = {name: dataclasses.asdict(record) for name, record in records.items()}
    return (json.dumps({"format": FORMAT, "version": VERSION, "exercises": exercises}, indent=1) + "\n").encode()


def _decode(content: bytes, path: Path) -> dict[str, Record]:
    try:
        saved = json.loads(content)
    except (ValueError, RecursionError) as reason:
        raise _Broken("it is empty" if not content.strip() else "it is not JSON") from reason
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise _Broken(f'it does not say "format": "{FORMAT}"')
    if isinstance(saved.get("version"), int) and saved["version"] > VERSION:
        raise DataError(f"{path}: was written by a later cnnlib (version {saved['version']} of the file, this one knows "
                        f"{VERSION}): upgrade with pip install --upgrade cnnlib.")  # fmt: skip
    try:
        return {str(name): _record(values) for name, values in saved["exercises"].items()}
    except (KeyError, TypeError, AttributeError) as reason:
        raise _Broken("its exercises are not as they are written") from reason


def _record(values: dict) -> Record:
    record = Record(**values)
    for field, kinds in (("attempts", int), ("hints", int), ("gave_up", bool), ("passed", (str, type(None))),
                         ("sha256", (str, type(None)))):  # fmt: skip
        if not isinstance(getattr(record, field), kinds) or (kinds is int and isinstance(getattr(record, field), bool)):
            raise TypeError(field)
    return record
