"""Grade many submissions: every file in a process of its own, several at a time, and no file stops the others.

>>> from cnnlib.learn.grade import collect, grade
>>> found = collect(Path("submissions"))                                                           # doctest: +SKIP
>>> [(g.student, g.exercise, g.passed) for g in grade(found.submissions, seed="2026")]             # doctest: +SKIP
[('ada', 'softmax_cross_entropy', True), ('grace', 'softmax_cross_entropy', False)]

What is expected in the folder: a folder per student, with exercise files in it or anywhere below it (a whole workspace, as
`cnnlib learn start` makes it), or files called STUDENT_NN_NAME.py or STUDENT_NAME.py. A file's name says which exercise it is:
``08_softmax_cross_entropy.py``, ``softmax_cross_entropy.py``, ``softmax_cross_entropy (1).py``.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import multiprocessing
import os
import re
import signal
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from cnnlib.errors import DataError
from cnnlib.learn.checker import check_source, prepare
from cnnlib.learn.exercise import exercises, find
from cnnlib.learn.judge import LARGEST_FILE, SECONDS
from cnnlib.learn.trouble import SENTENCES
from cnnlib.learn.verdict import Verdict
from cnnlib.learn.workspace import starter_text

SKIPPED = ("__pycache__", "__MACOSX", "node_modules", "site-packages")
HONEST = ("raised", "syntax", "missing", "empty", "encoding")  # troubles of files that mean no harm and do none


@dataclass(frozen=True)
class Submission:
    """A file, whose it is, and which exercise it answers; ``file`` is the path below the folder that is graded."""

    student: str
    exercise: str
    path: Path
    file: str


@dataclass(frozen=True)
class Grade:
    """What came out for one file.

    ``key`` and ``sentence`` are the verdict's. ``trouble`` is what the judge had to stop, if anything: "write" (outside the
    file's scratch folder), "read", "network", "process", "import", "exit", "timeout", "memory", "output", "ended"; "link" and
    "unreadable" where the file itself could not be taken. ``seed`` gives the same cases again: `cnnlib learn check --seed`.
    """

    student: str
    exercise: str
    passed: bool
    sentence: str
    seconds: float
    sha256: str
    trouble: str
    key: str
    seed: str
    file: str


@dataclass
class Found:
    """The submissions in a folder in their order, and what is none, with the reason."""

    submissions: list[Submission] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def collect(folder: Path) -> Found:
    """The submissions in ``folder``, by student, exercise and path. Raises DataError where there is none at all."""
    found = Found()
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            before = len(found.submissions)
            for path in _files(Path(entry.path)):
                _add(found, folder, path, entry.name)
            if len(found.submissions) == before:
                found.left_out.append((_readable(entry.name), "no file of an exercise in this folder"))
        else:
            _add(found, folder, Path(entry.path), "")
    if not found.submissions:
        raise DataError(
            f"{folder}: no submissions here. Expected a folder per student with files such as 08_softmax_cross_entropy.py in "
            "it, or files such as ada_08_softmax_cross_entropy.py."
        )
    order = {e.name: e.number for e in exercises()}
    found.submissions.sort(key=lambda s: (s.student, order[s.exercise], s.file))
    return found


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not _hidden(e.name)), key=lambda e: e.name)
    except OSError as reason:
        raise DataError(
            f"{folder}: could not be read: {reason.strerror or reason}. Expected a folder of submissions."
        ) from reason


def _files(folder: Path) -> Iterator[Path]:
    """All files below ``folder``; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if not _hidden(n))
        yield from (Path(place, n) for n in sorted(names) if not _hidden(n))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED


def _add(found: Found, folder: Path, path: Path, student: str) -> None:
    file = _readable(str(path.relative_to(folder)))
    if path.suffix.lower() != ".py":
        if not student:
            found.left_out.append((file, "no Python file"))
        return
    named = _file_name(tuple(e.name for e in exercises())).fullmatch(path.stem)
    if named is None or (student and named["student"] and not named["number"]):  # my_lstm.py may be anything
        found.left_out.append((file, "no exercise has this name"))
        return
    whose = student or named["student"] or folder.resolve().name
    found.submissions.append(Submission(_readable(whose), find(named["name"].lower()).name, path, file))


@functools.cache
def _file_name(names: tuple[str, ...]) -> re.Pattern:
    """[STUDENT_][NN_]NAME[ (1)]"""
    one_of = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))
    return re.compile(
        r"(?:(?P<student>.+?)[ _-]+)??"
        r"(?:(?P<number>\d+)[ _-]+)?"
        rf"(?P<name>{one_of})"
        r"(?:[ _-]*\(\d+\)|[ _-]copy)?",
        re.IGNORECASE | re.DOTALL,
    )


def _readable(name: str) -> str:
    """A file's name as text that can be written in UTF-8 and shown, whatever bytes it has."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


# ---- grading


def personal_seed(student: str, seed: str = "") -> str:
    """The seed of a student's cases: others get other numbers, and with another ``seed`` so does everybody."""
    return f"{seed}/{student}"


def grade(
    submissions: Sequence[Submission],
    *,
    seed: str = "",
    seconds: float = SECONDS,
    processes: int = 0,
    start_method: str = "spawn",
) -> Iterator[Grade]:
    """Grades in the order of ``submissions``, ``processes`` at a time (all cores by default).

    Each file runs in the judge's child process. The processes that compare are ours; should a file bring one of them down all
    the same, those that it took along are graded again, one by one.
    """
    context = multiprocessing.get_context(start_method)
    count = min(processes or os.cpu_count() or 1, len(submissions)) or 1
    waiting = list(submissions)
    while waiting:
        with ProcessPoolExecutor(count, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:  # Ctrl-C is for us
            futures = [pool.submit(grade_one, s, seed, seconds) for s in waiting]
            try:
                while futures:
                    done = futures[0].result()
                    futures.pop(0)
                    yield done
            except BrokenProcessPool:
                if count == 1:  # nobody else ran
                    futures.pop(0)
                    yield _refused(waiting[-len(futures) - 1], "ended", "it ended the process that grades it", seed)
                count = 1
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        waiting = waiting[len(waiting) - len(futures) :]


def grade_one(submission: Submission, seed: str = "", seconds: float = SECONDS) -> Grade:
    """The grade of one file, whatever is in it."""
    personal = personal_seed(submission.student, seed)
    try:
        content = _content(submission.path)
    except OSError as reason:
        kind = "link" if submission.path.is_symlink() else "unreadable"
        return _refused(submission, kind, f"the file could not be read ({reason.strerror or reason})", seed)
    try:
        exercise = find(submission.exercise)
        verdict = check_source(exercise, content, filename=f"{exercise.name}.py", seed=personal, seconds=seconds)
    except Exception as error:  # a mistake of ours must not cost the others their grades
        return _refused(submission, "checker", f"the checker failed: {type(error).__name__}: {error}", seed)
    finally:
        prepare.cache_clear()  # cases are personal: nobody else will need them
    if not verdict.passed and content.split() == starter_text(exercise).encode().split():
        return _of_verdict(submission, verdict, "the starter, unchanged.")
    return _of_verdict(submission, verdict, verdict.sentence)


def _content(path: Path) -> bytes:
    """What is in a regular file, and not behind a link or a pipe that never ends; of a large one the beginning."""
    opened = os.open(
        path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with open(opened, "rb") as file:
        if path.is_symlink() or not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError("no regular file")
        return file.read(LARGEST_FILE + 1)


def _of_verdict(submission: Submission, verdict: Verdict, sentence: str) -> Grade:
    trouble = verdict.key if verdict.key in SENTENCES and verdict.key not in HONEST else ""
    return Grade(
        submission.student, submission.exercise, verdict.passed, sentence, verdict.seconds, verdict.file_hash, trouble,
        verdict.key, verdict.seed, submission.file,
    )  # fmt: skip


def _refused(submission: Submission, kind: str, sentence: str, seed: str) -> Grade:
    return Grade(
        submission.student, submission.exercise, False, f"{sentence}.", 0.0, "", kind, kind,
        personal_seed(submission.student, seed), submission.file,
    )  # fmt: skip


# ---- results


def as_json(grades: Sequence[Grade], left_out: Sequence[tuple[str, str]] = (), seed: str = "") -> str:
    results = {
        "seed": seed,
        "grades": [asdict(g) for g in grades],
        "left_out": [{"file": file, "reason": reason} for file, reason in left_out],
    }
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def as_csv(grades: Sequence[Grade]) -> str:
    """A line per grade. What a spreadsheet would take for a formula gets a ' in front of it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([f.name for f in fields(Grade)])
    for g in grades:
        writer.writerow([_no_formula(v) if isinstance(v, str) else v for v in asdict(g).values()])
    return out.getvalue()


def _no_formula(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t") else text
