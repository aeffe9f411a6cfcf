"""A learner's folder: what `start` writes, and that nothing of the learner's is ever written over."""

import ast
import os

import pytest

from cnnlib.errors import DataError
from cnnlib.learn import workspace as module
from cnnlib.learn.exercise import exercises, find
from cnnlib.learn.progress import FILE
from cnnlib.learn.workspace import FOLDER, Workspace, file_name, starter_text


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path / "mine")
    made.start()
    return made


def files(workspace):
    return {p.name: p.read_bytes() for p in workspace.folder.iterdir()}


@pytest.mark.parametrize("exercise", exercises(), ids=lambda e: e.name)
def test_the_file_of_an_exercise_is_python_with_its_story_and_a_gap(exercise):
    text = starter_text(exercise)
    tree = ast.parse(text)
    assert exercise.story in ast.get_docstring(tree, clean=False)
    assert f"cnnlib learn check {exercise.number}" in ast.get_docstring(tree)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert set(exercise.function_names) <= defined
    assert any(isinstance(n, ast.Constant) and n.value is ... for n in ast.walk(tree))
    assert text.count("import numpy as np") == 1


def test_start_writes_every_exercise_and_an_empty_progress(workspace):
    assert {file_name(e) for e in exercises()} | {FILE} <= set(files(workspace))
    assert workspace.progress.read() == {}


@pytest.mark.parametrize("name", ["with space", "größe 中文", "a'quote"])
def test_any_name_of_a_folder_will_do(tmp_path, name):
    workspace = Workspace(tmp_path / name / "deep")
    assert len(workspace.start().written) == len(exercises())
    assert Workspace.find(tmp_path / name / "deep").folder == tmp_path / name / "deep"


def test_start_never_writes_over_a_file(tmp_path):
    first, second = exercises()[0], exercises()[-1]
    (tmp_path / file_name(first)).write_text("mine")
    (tmp_path / "notes.txt").write_text("also mine")
    (tmp_path / file_name(second)).symlink_to(tmp_path / "nowhere")
    done = Workspace(tmp_path).start()
    assert (tmp_path / file_name(first)).read_text() == "mine" and (tmp_path / "notes.txt").read_text() == "also mine"
    assert not (tmp_path / "nowhere").exists()
    assert set(done.kept) == {file_name(first), file_name(second)}


def test_start_again_adds_what_is_new_and_nothing_else(workspace, monkeypatch):
    old, new = exercises()[:-1], exercises()[-1]
    workspace.path(new).unlink()
    workspace.path(old[0]).write_text("mine")
    with workspace.progress.change(old[0].name) as record:
        record.checked(True, "aa")
    before = files(workspace)
    done = workspace.start()
    assert done.written == [file_name(new)] and len(done.kept) == len(old)
    after = files(workspace)
    assert after.pop(file_name(new)) == starter_text(new).encode()
    assert after == before


def test_a_workspace_is_found_from_inside_from_below_and_from_beside(tmp_path):
    Workspace(tmp_path / FOLDER).start()
    below = tmp_path / FOLDER / "notes" / "deep"
    below.mkdir(parents=True)
    for place in (tmp_path, tmp_path / FOLDER, below):
        assert Workspace.find(place).folder.resolve() == (tmp_path / FOLDER).resolve()


def test_the_folder_of_somebody_elses_progress_is_no_workspace(tmp_path):
    Workspace(tmp_path / FOLDER).start()
    (tmp_path / FILE).write_text('{"percent": 50}')
    assert Workspace.find(tmp_path).folder == tmp_path / FOLDER
    assert (tmp_path / FILE).read_text() == '{"percent": 50}'


def test_a_workspace_without_its_progress_is_one_still(workspace):
    workspace.progress.path.unlink()
    assert Workspace.find(workspace.folder).progress.read() == {}


def test_no_workspace_is_said_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no workspace here .*`cnnlib learn start` makes one"):
        Workspace.find(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"could not be written .*Not a directory.* cnnlib learn start FOLDER"):
        Workspace(tmp_path / "file" / "below").start()

    def refused(*args):
        raise PermissionError(13, "Permission denied", str(tmp_path / "x.py"))

    monkeypatch.setattr(module, "_write_new", refused)
    with pytest.raises(DataError, match=r"could not be written \(.*x\.py: Permission denied\)"):
        Workspace(tmp_path).start()


def test_reset_keeps_the_learners_file_beside_the_starter(workspace):
    exercise = find(8)
    for i, kept in enumerate((".bak", ".bak1", ".bak2")):
        workspace.path(exercise).write_text(f"try {i}")
        assert workspace.reset(exercise).name == file_name(exercise) + kept
        assert workspace.content(exercise) == starter_text(exercise).encode()
    assert (workspace.folder / (file_name(exercise) + ".bak1")).read_text() == "try 1"


def test_reset_of_an_untouched_or_missing_file_leaves_nothing_beside_it(workspace):
    exercise = find(8)
    before = files(workspace)
    assert workspace.reset(exercise) is None
    workspace.path(exercise).unlink()
    assert workspace.reset(exercise) is None
    assert files(workspace) == before


def test_a_file_counts_as_begun_when_its_words_change(workspace):
    exercise = find(8)
    path = workspace.path(exercise)
    assert not workspace.touched(exercise)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # an editor on another system
    assert not workspace.touched(exercise)
    path.write_text(path.read_text() + "x = 1\n")
    assert workspace.touched(exercise)
    path.unlink()
    assert not workspace.touched(exercise) and workspace.content(exercise) is None


def edit(workspace, exercise, when):
    path = workspace.path(exercise)
    path.write_text(path.read_text() + f"# {when}\n")
    os.utime(path, (when, when))


def test_the_exercise_at_hand_is_the_unsolved_one_edited_last_else_the_first(workspace):
    first, second, third = exercises()[:3]
    assert workspace.current({}) is first
    edit(workspace, third, 1000)
    edit(workspace, second, 2000)
    assert workspace.current({}) is second
    with workspace.progress.change(second.name) as record:
        record.checked(True, "aa")
    assert workspace.current(workspace.progress.read()) is third


def test_after_the_last_exercise_come_those_left_out(workspace):
    first, second, *_, last = exercises()
    with workspace.progress.change(first.name) as record:
        record.checked(True, "aa")
    records = workspace.progress.read()
    assert workspace.after(first, records) is second
    assert workspace.after(last, records) is second
    for exercise in exercises():
        with workspace.progress.change(exercise.name) as record:
            record.checked(True, "aa")
    assert workspace.after(first, workspace.progress.read()) is None is workspace.current(workspace.progress.read())


def test_saves_yields_a_new_content_once_it_has_settled(workspace):
    first, second = exercises()[:2]
    script = iter(
        [
            lambda: None,
            lambda: edit(workspace, first, 1),  # seen, not settled
            lambda: edit(workspace, first, 2),  # still being written
            lambda: None,  # settled
            lambda: os.utime(workspace.path(first)),  # touched, not changed
            lambda: workspace.path(second).write_bytes(b""),  # an editor that empties the file first
            lambda: (workspace.path(second).unlink(), workspace.path(second).mkdir()),  # cannot be read for a while
            lambda: (workspace.path(second).rmdir(), workspace.path(second).write_text("x = 1")),
            lambda: None,
        ]
    )
    seen = []

    def wait():
        step = next(script, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    with pytest.raises(KeyboardInterrupt):
        for exercise in workspace.saves(wait):
            seen.append(exercise)
    assert seen == [first, second]
