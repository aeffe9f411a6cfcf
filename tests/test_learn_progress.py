"""Progress of a learner: never lost, whoever writes at the same time, whatever is killed, whatever the file holds.

As a program: ``python -m tests.test_learn_progress FOLDER EVENT COUNT`` makes changes and dies at the COUNT-th EVENT;
``… FOLDER add NAME N`` adds N attempts.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnlib import files
from cnnlib.errors import DataError
from cnnlib.learn.progress import FILE, Progress, Record

ROOT = Path(__file__).parent.parent


def attempt(folder, name="neuron"):
    with Progress(folder).change(name) as record:
        record.attempts += 1


def die_while_writing(folder, event, count):
    counter, real = itertools.count(1), getattr(os, event)

    def dying(*args):
        if next(counter) == count:
            if event == "write":
                real(args[0], bytes(args[1][: len(args[1]) // 2]))
            os._exit(9)
        return real(*args)

    setattr(files.os, event, dying)
    for i in range(5):
        attempt(folder, f"exercise{i}")


def program(*args):
    return [sys.executable, "-m", "tests.test_learn_progress", *map(str, args)]


def test_what_is_noted_is_read_again(tmp_path):
    with Progress(tmp_path).change("neuron") as record:
        record.hints = 2
        record.checked(False, "aa")
        record.checked(True, "bb")
        record.checked(True, "cc")
    record = Progress(tmp_path).read()["neuron"]
    assert (record.attempts, record.hints, record.sha256) == (3, 2, "bb")  # the file that passed first
    assert record.passed.endswith("+00:00")


def test_a_failed_check_does_not_take_a_pass_away(tmp_path):
    with Progress(tmp_path).change("neuron") as record:
        record.checked(True, "aa")
    with Progress(tmp_path).change("neuron") as record:
        record.checked(False, "bb")
    assert Progress(tmp_path).read()["neuron"].passed


def test_without_a_file_there_is_no_progress(tmp_path):
    assert Progress(tmp_path).read() == {}
    Progress(tmp_path).create()
    assert json.loads((tmp_path / FILE).read_text())["exercises"] == {}


def test_create_leaves_what_is_there(tmp_path):
    attempt(tmp_path)
    Progress(tmp_path).create()
    assert Progress(tmp_path).read() == {"neuron": Record(attempts=1)}


def test_records_of_exercises_that_this_version_lacks_stay(tmp_path):
    attempt(tmp_path, "of another version")
    attempt(tmp_path)
    assert set(Progress(tmp_path).read()) == {"of another version", "neuron"}


BROKEN = {
    "empty": b"",
    "cut off": b'{"format": "cnnlib learn", "version": 1, "exer',
    "binary": b"\x00\xff\xfe",
    "foreign": b'{"progress": 0.5}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "no exercises": b'{"format": "cnnlib learn", "version": 1}',
    "wrong type": b'{"format": "cnnlib learn", "version": 1, "exercises": {"neuron": {"attempts": "many"}}}',
    "unknown field": b'{"format": "cnnlib learn", "version": 1, "exercises": {"neuron": {"stars": 3}}}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    "use", [lambda p: p.read(), lambda p: p.create(), lambda p: attempt(p.folder)], ids=["read", "create", "change"]
)
def test_a_broken_or_foreign_file_is_reported_and_kept(tmp_path, content, use):
    (tmp_path / FILE).write_bytes(content)
    with pytest.warns(UserWarning, match=r"is no progress file \(.*\); it is kept as progress\.json\.bak and a new one"):
        use(Progress(tmp_path))
    assert (tmp_path / f"{FILE}.bak").read_bytes() == content
    attempt(tmp_path)
    assert Progress(tmp_path).read()["neuron"].attempts >= 1


def test_no_broken_file_takes_the_place_of_another(tmp_path):
    for i in range(3):
        (tmp_path / FILE).write_bytes(b"broken %d" % i)
        with pytest.warns(UserWarning, match="no progress file"):
            Progress(tmp_path).read()
    assert [(tmp_path / f"{FILE}{end}").read_bytes()[-1:] for end in (".bak", ".bak1", ".bak2")] == [b"0", b"1", b"2"]


def test_the_file_of_a_later_version_is_left_alone(tmp_path):
    content = '{"format": "cnnlib learn", "version": 2, "new": true}'
    (tmp_path / FILE).write_text(content)
    for use in (lambda: Progress(tmp_path).read(), lambda: attempt(tmp_path)):
        with pytest.raises(DataError, match=r"written by a later cnnlib .*pip install --upgrade cnnlib"):
            use()
    assert (tmp_path / FILE).read_text() == content


@pytest.mark.parametrize("event", ["write", "fsync", "replace"])
def test_a_full_disk_or_a_read_only_folder_is_said_and_harms_nothing(tmp_path, monkeypatch, event):
    attempt(tmp_path)

    def failing(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, event, failing)
    with pytest.raises(DataError, match=r"progress could not be saved: No space left on device\. Your files .* unharmed"):
        attempt(tmp_path)
    monkeypatch.undo()
    assert Progress(tmp_path).read() == {"neuron": Record(attempts=1)}


def test_a_folder_that_is_gone_is_said(tmp_path):
    with pytest.raises(DataError, match="progress could not be saved: No such file"):
        attempt(tmp_path / "gone")


@pytest.mark.parametrize("event", ["write", "fsync", "replace"])
def test_a_process_killed_while_it_writes_loses_at_most_that_change(tmp_path, event):
    for count in range(1, 5):
        folder = tmp_path / str(count)
        folder.mkdir()
        assert subprocess.run(program(folder, event, count), cwd=ROOT, timeout=60).returncode == 9
        writes = (count + 1) // 2 if event == "fsync" else count  # the file's and the folder's
        done = len(Progress(folder).read())
        assert done in (writes - 1, writes)
        attempt(folder, "after")  # the dead process holds no lock
        assert len(Progress(folder).read()) == done + 1


def test_two_writers_at_once_lose_nothing(tmp_path):
    writers = [subprocess.Popen(program(tmp_path, "add", name, 25), cwd=ROOT) for name in ("mine", "ours", "ours")]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    records = Progress(tmp_path).read()
    assert {name: r.attempts for name, r in records.items()} == {"mine": 25, "ours": 50}


if __name__ == "__main__":
    folder, event, *rest = sys.argv[1:]
    if event == "add":
        for _ in range(int(rest[1])):
            attempt(Path(folder), rest[0])
    else:
        die_while_writing(Path(folder), event, int(rest[0]))
