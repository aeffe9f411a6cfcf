"""Grading: no submission, whatever is in it, costs itself or another one its grade."""

import collections
import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest

import cnnlib
from cnnlib.cli import main
from cnnlib.errors import DataError
from cnnlib.learn import grade as module
from cnnlib.learn.exercise import exercises, find, solution_text
from cnnlib.learn.grade import Grade, as_csv, as_json, collect, grade, grade_one, personal_seed
from cnnlib.learn.workspace import Workspace
from tests.submissions import RIGHT, submissions, write

EIGHT = "08_softmax_cross_entropy.py"
WRONG = RIGHT.replace("dlog_p[rows, t] = -dl", "dlog_p[rows, t] = dl")
posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and killed processes as POSIX has them")


@pytest.fixture
def folder(tmp_path):
    """Three students: right, wrong, and broken."""
    made = tmp_path / "submissions"
    for student, text in (("ada", RIGHT), ("grace", WRONG), ("kurt", "def f(:")):
        (made / student).mkdir(parents=True)
        (made / student / EIGHT).write_text(text)
    return made


@pytest.fixture
def learn(capsys, tmp_path, monkeypatch):
    """learn("grade", ...) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        with pytest.raises(SystemExit) as leaving:
            main(["learn", *map(str, args)])
        out, err = capsys.readouterr()
        return leaving.value.code, out, err

    return call


def put(path, text=RIGHT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---- the proof


def prove(chosen, tmp_path, start_method):
    """Every submission of ``chosen`` gets the grade it must get, and nothing outside was touched."""
    victim = tmp_path / "victims" / "file"
    put(victim, "mine")
    chosen = [s for s in submissions(tmp_path / "outside", victim, Path(cnnlib.__file__).parent) if chosen(s)]
    write(tmp_path / "submissions", chosen)
    found = collect(tmp_path / "submissions")
    grades = list(grade(found.submissions, seed="proof", seconds=3, start_method=start_method))
    assert [(g.student, g.exercise, g.file) for g in grades] == [(s.student, s.exercise, s.file) for s in found.submissions]
    assert [(g.student, g.exercise) for g in grades] == sorted((s.student, s.exercise) for s in chosen)
    by_file = {g.file: g for g in grades}
    mistaken = [
        (by_file[s.file], s.keys)
        for s in chosen
        if by_file[s.file].passed != s.passed or (s.keys and by_file[s.file].key not in s.keys)
    ]
    assert mistaken == []
    assert os.listdir(victim.parent) == ["file"] and victim.read_text() == "mine" and not (tmp_path / "outside").exists()


def test_there_are_220_submissions_of_every_kind():
    every = list(submissions())
    counts = collections.Counter(s.kind for s in every)
    assert len(every) >= 220 and counts["cheating"] >= 20 and counts["hostile"] >= 20
    assert {s.exercise for s in every if s.kind == "right"} == {e.name for e in exercises()}
    assert len({s.content for s in every}) >= 220


@pytest.mark.parametrize("start_method", ["spawn", pytest.param("fork", marks=posix)])
def test_some_of_them_get_the_right_grade(start_method, tmp_path):
    first = {"spawn": 0, "fork": 3}[start_method]
    some = {s.student for s in list(submissions())[first::7]}
    prove(lambda s: s.student in some, tmp_path, start_method)


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", pytest.param("fork", marks=posix), pytest.param("forkserver", marks=posix)])
def test_all_of_them_get_the_right_grade(start_method, tmp_path):
    prove(lambda s: True, tmp_path, start_method)


# ---- which files are submissions


def test_a_file_says_by_its_name_which_exercise_it_is_and_whose(tmp_path):
    for name in (
        "ada/08_softmax_cross_entropy.py",
        "ada/cnnlib-learn/14_conv2d_backward.py",
        "bo/softmax_cross_entropy (1).py",
        "bo/week 2/Softmax_Cross_Entropy.py",
        "cy/cy_08_softmax_cross_entropy.py",
        "dan_21_rnn.py",
        "eve gruber_lstm.py",
    ):
        put(tmp_path / "all" / name)
    found = [(s.student, s.exercise, s.file) for s in collect(tmp_path / "all").submissions]
    assert found == [
        ("ada", "softmax_cross_entropy", "ada/08_softmax_cross_entropy.py"),
        ("ada", "conv2d_backward", "ada/cnnlib-learn/14_conv2d_backward.py"),
        ("bo", "softmax_cross_entropy", "bo/softmax_cross_entropy (1).py"),
        ("bo", "softmax_cross_entropy", "bo/week 2/Softmax_Cross_Entropy.py"),
        ("cy", "softmax_cross_entropy", "cy/cy_08_softmax_cross_entropy.py"),
        ("dan", "rnn", "dan_21_rnn.py"),
        ("eve gruber", "lstm", "eve gruber_lstm.py"),
    ]


def test_a_workspace_is_a_submission(tmp_path):
    Workspace(tmp_path / "ada").start()
    found = collect(tmp_path / "ada")
    assert [s.exercise for s in found.submissions] == [e.name for e in exercises()]
    assert {s.student for s in found.submissions} == {"ada"}


def test_what_is_no_submission_is_listed_with_its_reason(tmp_path):
    for name in ("ada/" + EIGHT, "ada/my_lstm.py", "ada/.git/rnn.py", "ada/notes.txt", "bo/readme.md", "list.csv"):
        put(tmp_path / "all" / name)
    found = collect(tmp_path / "all")
    assert [s.file for s in found.submissions] == ["ada/" + EIGHT]
    assert found.left_out == [
        ("ada/my_lstm.py", "no exercise has this name"),
        ("bo", "no file of an exercise in this folder"),
        ("list.csv", "no Python file"),
    ]


def test_a_folder_without_submissions_and_no_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no submissions here\. Expected a folder per student"):
        collect(tmp_path)
    with pytest.raises(DataError, match="could not be read"):
        collect(tmp_path / "nowhere")


@posix
def test_links_and_pipes_are_graded_without_being_read(tmp_path, folder):
    put(tmp_path / "solution.py")
    (folder / "link").mkdir()
    (folder / "link" / EIGHT).symlink_to(tmp_path / "solution.py")
    (folder / "loop").symlink_to(folder)
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / EIGHT)
    found = {s.student: s for s in collect(folder).submissions}
    assert set(found) == {"ada", "grace", "kurt", "link", "pipe"}
    assert (grade_one(found["link"]).passed, grade_one(found["link"]).trouble) == (False, "link")
    assert (grade_one(found["pipe"]).passed, grade_one(found["pipe"]).trouble) == (False, "unreadable")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of arbitrary bytes")
def test_a_name_that_is_no_text_can_be_written(folder):
    strange = os.fsencode(folder) + b"/\xff\nx"
    os.mkdir(strange)
    Path(os.fsdecode(strange), EIGHT).write_text(RIGHT)
    found = [s for s in collect(folder).submissions if "xff" in s.student]
    assert found[0].student == r"\xff\nx" and grade_one(found[0]).passed
    as_csv([grade_one(found[0])]).encode()


# ---- seeds


def test_every_student_has_cases_of_their_own():
    assert personal_seed("ada", "1") != personal_seed("bo", "1") != personal_seed("bo", "2")


def test_a_right_answer_is_right_for_everybody_and_the_seed_gives_the_cases_again(folder, learn, tmp_path):
    learn("start", tmp_path / "ws")
    put(tmp_path / "ws" / EIGHT, WRONG)
    (graded,) = (grade_one(s, "2026") for s in collect(folder).submissions if s.student == "grace")
    again = learn("check", 8, "--seed", graded.seed, "--dir", tmp_path / "ws")
    assert again[0] == 1 and graded.sentence.split(",")[0] in " ".join(again[1].split())
    assert grade_one(collect(folder).submissions[0], "other").passed


# ---- robustness


def test_the_starter_is_called_so(tmp_path):
    Workspace(tmp_path / "ada").start()
    graded = grade_one(collect(tmp_path / "ada").submissions[7])
    assert not graded.passed and graded.sentence == "the starter, unchanged." and graded.trouble == ""


def test_a_mistake_of_the_checker_costs_one_grade_only(folder, monkeypatch):
    def check(exercise, content, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "check_source", check)
    graded = grade_one(collect(folder).submissions[0])
    assert not graded.passed and graded.trouble == "checker" and "RuntimeError: a bug" in graded.sentence


def kill_the_grader(submission, seed, seconds):
    if submission.student == "grace":
        os._exit(1)
    return grade_one(submission, seed, seconds)


@posix
@pytest.mark.parametrize("processes", [1, 2])
def test_who_brings_the_grader_down_costs_the_others_nothing(folder, monkeypatch, processes):
    monkeypatch.setattr(module, "grade_one", kill_the_grader)
    found = collect(folder).submissions
    grades = list(grade(found, processes=processes, start_method="fork"))
    assert [(g.student, g.passed, g.trouble) for g in grades] == [
        ("ada", True, ""), ("grace", False, "ended"), ("kurt", False, ""),
    ]  # fmt: skip


# ---- results


GRADE = Grade("=1+1", "rnn", True, 'says "right",\nin two lines', 0.5, "ab", "", "passed", "/=1+1", "-x/21_rnn.py")


def test_csv_can_be_read_again_and_holds_no_formula():
    (row,) = csv.DictReader(io.StringIO(as_csv([GRADE])))
    assert row["student"] == "'=1+1" and row["file"] == "'-x/21_rnn.py"
    assert row["sentence"] == 'says "right",\nin two lines' and row["passed"] == "True"


def test_json_holds_everything():
    read = json.loads(as_json([GRADE], [("a.txt", "no Python file")], "2026"))
    assert read["seed"] == "2026" and Grade(**read["grades"][0]) == GRADE
    assert read["left_out"] == [{"file": "a.txt", "reason": "no Python file"}]


def test_the_command_grades_and_writes(folder, learn, tmp_path):
    code, out, err = learn("grade", folder, "--out", tmp_path / "grades.json", "--processes", 2)
    read = json.loads((tmp_path / "grades.json").read_text())
    assert code == 0 and out == "" and "3 files of 3 students graded, 1 passed." in err
    assert [(g["student"], g["passed"], g["key"]) for g in read["grades"]] == [
        ("ada", True, "passed"), ("grace", False, read["grades"][1]["key"]), ("kurt", False, "syntax"),
    ]  # fmt: skip
    assert all(len(g["sha256"]) == 64 for g in read["grades"])


def test_troubles_are_named_on_standard_error(folder, learn):
    put(folder / "mal" / EIGHT, "import socket\nsocket.socket()\n" + RIGHT)
    code, out, err = learn("grade", folder, "--format", "csv", "--processes", 2)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [r["trouble"] for r in rows] == ["", "", "", "network"]
    assert f"mal/{EIGHT}: network: line 2 uses the network" in err


def test_grades_that_cannot_be_written_are_printed(folder, learn, tmp_path):
    put(tmp_path / "file", "")
    code, out, err = learn("grade", folder, "--out", tmp_path / "file" / "grades.json")
    assert code != 0 and "could not be written" in err and len(json.loads(out)["grades"]) == 3


def test_a_folder_that_is_none_is_wrong_usage(learn, tmp_path):
    assert learn("grade", tmp_path / "nowhere")[0] == 2
    assert "no submissions here" in learn("grade", tmp_path)[2]


# ---- exercises of one's own


@pytest.fixture
def own(learn, tmp_path, monkeypatch):
    """The template, written as scaled_tanh_backward.py; what it adds to the exercises goes away again."""
    from cnnlib.learn import exercise, own

    monkeypatch.setenv(own.VARIABLE, "")
    code, out, _ = learn("template", "scaled_tanh_backward", "--dir", tmp_path / "own")
    assert code == 0 and "cnnlib learn verify" in out
    yield tmp_path / "own" / "scaled_tanh_backward.py"
    monkeypatch.setenv(own.VARIABLE, "")
    exercise._registry.cache_clear()


def test_verify_accepts_the_template_as_it_is(own, learn):
    code, out, err = learn("verify", own)
    assert (code, err) == (0, "") and "5 written mutants: 100.0% rejected, 100.0% with the right sentence" in out


def test_verify_finds_what_is_wrong_with_an_exercise_of_ones_own(own, learn):
    own.write_text(own.read_text().replace("return dy * a * b * (1 - t**2)", "return dy * a * (1 - t**2)"))
    code, _, err = learn("verify", own)
    assert code == 1 and "the reference and differences are" in err


def test_learners_get_it_and_it_is_graded(own, learn, tmp_path):
    assert learn("--exercises", own.parent, "start", tmp_path / "ws")[0] == 0
    path = tmp_path / "ws" / "101_scaled_tanh_backward.py"
    assert "LeCun's networks of 1998" in path.read_text()
    put(tmp_path / "all" / "ada" / path.name, solution_text(find("scaled_tanh_backward")))
    put(tmp_path / "all" / "bo" / path.name, solution_text(find("scaled_tanh_backward")).replace("a * b", "a"))
    code, out, _ = learn("grade", tmp_path / "all")
    ada, bo = json.loads(out)["grades"]
    assert code == 0 and ada["passed"] and bo["key"] == "inner"


def test_exercises_of_ones_own_that_do_not_run_are_named(own, learn, tmp_path):
    own.write_text("EXERCISE = 1 / 0\n")
    assert "scaled_tanh_backward.py: this exercise of your own does not run: ZeroDivisionError" in learn("verify", own)[2]


def test_two_exercises_of_one_number_or_name_are_refused(own, learn, tmp_path):
    put(own.with_name("second.py"), own.read_text().replace("number=101", "number=102"))
    assert "two exercises have the same name scaled_tanh_backward" in learn("--exercises", own.parent, "list")[2]


def test_a_folder_of_exercises_that_is_not_there_is_named(own, learn, monkeypatch, tmp_path):
    from cnnlib.learn import exercise
    from cnnlib.learn.own import VARIABLE

    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    exercise._registry.cache_clear()
    with pytest.raises(DataError, match=r"there is no .*gone"):
        exercises()


def test_a_template_writes_over_nothing_and_needs_a_name(own, learn, tmp_path):
    assert "could not be written" in learn("template", own.stem, "--dir", own.parent)[2]
    for name in ("Not-a-name", "class", "1st"):
        assert "must be a name for a file and a function" in learn("template", name)[2]


def test_a_file_that_is_no_exercise_is_not_verified(learn, tmp_path):
    put(tmp_path / "x.py", "print(1)")
    code, _, err = learn("verify", tmp_path / "x.py")
    assert code == 2 and "cnnlib learn list" in err
