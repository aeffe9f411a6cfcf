"""The learner's folder: one Python file per exercise, ``NN_name.py``, and ``progress.json``.

Each file begins with the story, the formula and the shapes, and ends in a function with ``...`` to fill in. Nothing here ever
writes over a file that is there; only `reset` replaces one, and keeps the old one beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cnnlib.errors import DataError
from cnnlib.files import keep_aside, write_atomically
from cnnlib.learn.exercise import Exercise, exercises
from cnnlib.learn.progress import Progress, Record

FOLDER = "cnnlib-learn"  # that `start` makes where it is given no name


@dataclass
class Started:
    """What `Workspace.start` did: names of files written, and of those that were there before and were left alone."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


class Workspace:
    """The workspace in ``folder``; `start` makes it, `find` looks for it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.progress = Progress(folder)

    @classmethod
    def find(cls, start: Path) -> Workspace:
        """The workspace that ``start`` or a folder above it is, or the one called cnnlib-learn in it. Raises DataError."""
        for folder in (start, *start.absolute().parents, start / FOLDER):
            if any((folder / file_name(exercise)).exists() for exercise in exercises()):
                return cls(folder)
        raise DataError(
            f"{start.absolute()}: no workspace here (a folder with files such as {file_name(exercises()[0])}): "
            "`cnnlib learn start` makes one; if you have one, change into it or name it with --dir."
        )

    @classmethod
    def here_or_new(cls, start: Path) -> Workspace:
        """The workspace that `find` finds, else one to be made in ``start``."""
        try:
            return cls.find(start)
        except DataError:
            return cls(start / FOLDER)

    def start(self) -> Started:
        """Write the files that are not there yet. Raises DataError when the folder cannot be written."""
        done = Started()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for exercise in exercises():
                path = self.path(exercise)
                (done.written if _write_new(path, starter_text(exercise)) else done.kept).append(path.name)
        except OSError as reason:
            raise _unwritable(self.folder, reason) from reason
        self.progress.create()
        return done

    def path(self, exercise: Exercise) -> Path:
        """Of the learner's file; it need not exist."""
        return self.folder / file_name(exercise)

    def reset(self, exercise: Exercise) -> Path | None:
        """Put the starter back; a file that holds something else is renamed, and its new path returned. Raises DataError."""
        path = self.path(exercise)
        try:
            kept = keep_aside(path) if os.path.lexists(path) and self.touched(exercise) else None
            write_atomically(path, starter_text(exercise).encode())
        except OSError as reason:
            raise _unwritable(self.folder, reason) from reason
        return kept

    def content(self, exercise: Exercise) -> bytes | None:
        """Of the learner's file; None where there is none."""
        try:
            return self.path(exercise).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as reason:
            raise DataError(
                f"{self.path(exercise)}: could not be read: {reason.strerror or reason}. "
                f"`cnnlib learn reset {exercise.number}` keeps it as it is under another name, and writes the starter again."
            ) from reason

    def touched(self, exercise: Exercise) -> bool:
        """Whether the learner has written something into the file."""
        try:
            content = self.content(exercise)
        except DataError:  # whatever stands there, it is not the starter
            return True
        return content is not None and content.split() != starter_text(exercise).encode().split()

    def saves(self, wait: Callable[[], None]) -> Iterator[Exercise]:
        """Each exercise whose file got a new content, as soon as it is the same before and after a ``wait()``: for ever."""
        known = {e.name: self._readable(e) for e in exercises()}
        before = dict(known)
        while True:
            wait()
            for exercise in exercises():
                content = self._readable(exercise)
                settled = content == before[exercise.name]  # an editor may be in the middle of writing
                before[exercise.name] = content
                if content and settled and content != known[exercise.name]:
                    known[exercise.name] = content
                    yield exercise

    def _readable(self, exercise: Exercise) -> bytes | None:
        """The content, or None while it cannot be read."""
        with contextlib.suppress(DataError):
            return self.content(exercise)
        return None

    def current(self, records: dict[str, Record]) -> Exercise | None:
        """The exercise at hand: of the unsolved ones the file edited last, else the first; None when all are solved."""
        unsolved = [e for e in exercises() if not records.get(e.name, Record()).passed]
        edited = [e for e in unsolved if self.touched(e)]
        return max(edited, key=lambda e: _modified(self.path(e)), default=unsolved[0] if unsolved else None)

    def after(self, exercise: Exercise, records: dict[str, Record]) -> Exercise | None:
        """The first unsolved one after ``exercise``, else the first unsolved one of all; None when all are solved."""
        unsolved = [e for e in exercises() if not records.get(e.name, Record()).passed]
        later = [e for e in unsolved if e.number > exercise.number]
        return next(iter(later or unsolved), None)


def file_name(exercise: Exercise) -> str:
    return f"{exercise.number:02d}_{exercise.name}.py"


def starter_text(exercise: Exercise) -> str:
    """The file as a learner first sees it."""
    number = exercise.number
    how = f"Replace the ... below, then: cnnlib learn check {number}    (stuck? cnnlib learn hint {number})"
    story = f"{exercise.title}\n\n{exercise.story}\n\n{how}"
    quoted = story.replace("\\", "\\\\").replace('"""', '\\"""')
    imports = "" if "import numpy" in exercise.starter else "import numpy as np\n\n\n"
    return f'"""{quoted}\n"""\n\n{imports}{exercise.starter.strip()}\n'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_new(path: Path, text: str) -> bool:
    """Write a file that must not exist yet; False where it does."""
    try:
        with open(path, "xb") as file:
            file.write(text.encode())
    except FileExistsError:
        return False
    return True


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _unwritable(folder: Path, reason: OSError) -> DataError:
    where = reason.filename or folder
    return DataError(
        f"{folder}: the workspace could not be written ({where}: {reason.strerror or reason}). Nothing of yours was changed; "
        "choose a folder that you may write to: cnnlib learn start FOLDER."
    )
