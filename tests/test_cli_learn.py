"""`cnnlib learn` as a learner meets it: what it prints, what it leaves in the folder, with which exit code."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnnlib.cli import learn_training, main
from cnnlib.cli.learn_training import curve
from cnnlib.learn.exercise import exercises, find, solution_text
from cnnlib.learn.training import trainable
from cnnlib.learn.workspace import Workspace, file_name, starter_text

ROOT = Path(__file__).parent.parent
EIGHT = find(8)
RIGHT = solution_text(EIGHT)
WRONG = RIGHT.replace("dlog_p[rows, t] = -dl", "dlog_p[rows, t] = dl")


@pytest.fixture
def learn(capsys, tmp_path, monkeypatch):
    """learn("check", 8) -> (exit code, stdout, stderr) in a folder with a space and an umlaut in its name."""
    folder = tmp_path / "my größe"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args):
        with pytest.raises(SystemExit) as leaving:
            main(["learn", *map(str, args)])
        out, err = capsys.readouterr()
        return leaving.value.code, out, err

    return call


@pytest.fixture
def workspace(learn):
    assert learn("start")[0] == 0
    return Workspace(Path("cnnlib-learn"))


def write(workspace, text, exercise=EIGHT):
    workspace.path(exercise).write_text(text, encoding="utf-8")


def test_start_says_where_what_and_how_to_go_on(learn):
    code, out, _ = learn("start")
    assert code == 0
    first = exercises()[0]
    for words in (f"{len(exercises())} exercises in cnnlib-learn", "cd cnnlib-learn", "cnnlib learn watch", file_name(first)):
        assert words in out
    assert Path("cnnlib-learn", file_name(EIGHT)).read_text(encoding="utf-8") == starter_text(EIGHT)


def test_start_again_changes_nothing_and_shows_the_list(learn, workspace):
    write(workspace, RIGHT)
    code, out, _ = learn("start")
    assert code == 0 and "nothing was changed" in out and "← next" in out
    assert workspace.content(EIGHT) == RIGHT.encode()


def test_start_inside_a_workspace_adds_to_that_one(learn, workspace, monkeypatch):
    monkeypatch.chdir("cnnlib-learn")
    Path(file_name(EIGHT)).unlink()
    code, out, _ = learn("start")
    assert code == 0 and f"1 new in this folder: {file_name(EIGHT)}" in out
    assert not Path("cnnlib-learn").exists()


@pytest.mark.parametrize("args", [("list",), ("check",), ("hint", 8), ("watch",), ("reset", 8), ("solution", 8), ("train", 8)])
def test_without_a_workspace_the_usage_is_wrong(learn, args):
    code, _, err = learn(*args)
    assert code == 2 and "no workspace here" in err and "cnnlib learn start" in err


def test_dir_names_the_workspace(learn, workspace, monkeypatch):
    folder = workspace.folder.absolute()
    monkeypatch.chdir(ROOT)
    assert learn("list")[0] == 2
    assert learn("list", "--dir", folder)[0] == 0
    assert learn("list", "--dir", folder.parent)[0] == 0  # cnnlib-learn in it


@pytest.mark.parametrize("name", ["99", "attention", "conv3d"])
def test_an_unknown_exercise_is_wrong_usage(learn, workspace, name):
    code, _, err = learn("check", name)
    assert code == 2 and f"unknown exercise '{name}'" in err and "cnnlib learn list" in err


@pytest.mark.parametrize(
    "name", ["8", "08", "softmax_cross_entropy", "08_softmax_cross_entropy.py", "./08_softmax_cross_entropy.py"]
)
def test_an_exercise_goes_by_number_name_or_file(learn, workspace, name):
    code, out, _ = learn("check", name)
    assert code == 1 and EIGHT.title in out and "Nothing is written yet" in out


def test_a_wrong_file_gets_its_diagnosis_and_is_noted(learn, workspace):
    write(workspace, WRONG)
    code, out, _ = learn("check")  # the one edited last
    assert code == 1 and "✗ softmax_cross_entropy" in out and "cnnlib learn hint 8" in out
    record = workspace.progress.read()[EIGHT.name]
    assert (record.attempts, record.passed) == (1, None)


def test_a_verdict_shows_the_line_it_is_about(learn, workspace):
    write(workspace, "def softmax_cross_entropy(dl, x, t):\n    # first\n    return 1 / 0  # here\n")
    code, out, _ = learn("check", 8)
    assert code == 1 and "→    3 │     return 1 / 0  # here" in out and "     2 │     # first" in out


def test_a_right_file_passes_and_what_comes_next_is_said(learn, workspace):
    write(workspace, RIGHT)
    code, out, _ = learn("check", 8)
    assert code == 0 and "✓ softmax_cross_entropy" in out and "To think about" in out and "cnnlib learn solution 8" in out
    assert f"1 of {len(exercises())} solved" in out and "─ Next ─" in out
    assert workspace.progress.read()[EIGHT.name].passed


def test_a_verdict_stands_when_progress_cannot_be_saved(learn, workspace, monkeypatch):
    write(workspace, RIGHT)

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cnnlib.learn.progress.write_atomically", refused)
    code, out, err = learn("check", 8)
    assert code == 0 and "✓ softmax_cross_entropy" in out
    assert "progress could not be saved: Permission denied" in err and "Traceback" not in err


def test_a_hint_and_a_solution_are_shown_even_when_that_cannot_be_noted(learn, workspace, monkeypatch):
    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cnnlib.learn.progress.write_atomically", refused)
    for args, words in ((("hint", 8), EIGHT.hints[0].split()[0]), (("solution", 8, "--give-up"), RIGHT)):
        code, out, err = learn(*args)
        assert code == 1 and words in out and "could not be saved: Permission denied" in err


def test_a_broken_progress_file_is_reported_on_one_line_and_found_again(learn, workspace):
    write(workspace, RIGHT)
    learn("check", 8)
    workspace.progress.path.write_text("{")
    code, out, err = learn("list")
    assert code == 0 and "0 of" in out
    assert len(err.splitlines()) == 1 and "progress.json.bak" in err and "cnnlib learn check --all" in err
    code, out, _ = learn("check", "--all")
    assert code == 0 and "✓  8 softmax_cross_entropy" in out and "1 of" in out


def test_check_all_counts_what_is_begun_only(learn, workspace):
    assert learn("check", "--all")[0] == 0
    write(workspace, WRONG)
    code, out, _ = learn("check", "--all")
    assert code == 1 and "✗  8 softmax_cross_entropy:" in out and " 1 " not in out.splitlines()[0]


def test_a_deleted_file_comes_back_by_reset(learn, workspace):
    workspace.path(EIGHT).unlink()
    code, out, _ = learn("check", 8)
    assert code == 1 and "There is no file" in out and "cnnlib learn reset 8" in out
    assert learn("reset", 8)[0] == 0 and workspace.content(EIGHT) == starter_text(EIGHT).encode()


def test_a_folder_where_a_file_should_be_is_said_and_spoils_no_list(learn, workspace):
    workspace.path(EIGHT).unlink()
    workspace.path(EIGHT).mkdir()
    code, _, err = learn("check", 8)
    assert code == 1 and "could not be read" in err and "cnnlib learn reset 8" in err
    assert learn("list")[0] == 0 and learn("check", "--all")[0] == 1
    assert learn("reset", 8)[0] == 0 and workspace.path(EIGHT).is_file()


def test_hints_come_one_by_one_and_stay(learn, workspace):
    for level in (1, 2, 3, 3):
        code, out, _ = learn("hint", 8)
        assert code == 0
        words = " ".join(out.split())
        assert [hint in words for hint in map(" ".join, (h.split() for h in EIGHT.hints))] == [i < level for i in range(3)]
    assert "That was the last one" in out
    write(workspace, WRONG)
    assert "All hints are used" in learn("check", 8)[1]


def test_the_solution_is_shown_after_passing_or_giving_up(learn, workspace):
    code, out, _ = learn("solution", 8)
    assert code == 1 and "not passed yet" in out and RIGHT not in out
    code, out, _ = learn("solution", "8", "--give-up")
    assert code == 0 and RIGHT in out and "write it yourself" in out
    assert workspace.progress.read()[EIGHT.name].gave_up and "solution seen first" in learn("list")[1]


def test_the_solution_after_passing_is_no_giving_up(learn, workspace):
    write(workspace, RIGHT)
    learn("check", 8)
    code, out, _ = learn("solution", 8)
    assert code == 0 and RIGHT in out and EIGHT.answer[:30] in out and EIGHT.link in out
    assert not workspace.progress.read()[EIGHT.name].gave_up


def test_reset_says_where_the_old_file_is(learn, workspace):
    write(workspace, "mine")
    code, out, _ = learn("reset", 8)
    assert code == 0 and "kept as 08_softmax_cross_entropy.py.bak" in " ".join(out.split())


def test_list_marks_what_is_passed_begun_and_next(learn, workspace):
    write(workspace, RIGHT)
    learn("check", 8)
    edited = exercises()[-1]
    workspace.path(edited).write_text("begun")
    _, out, _ = learn("list")
    lines = {line.split()[1]: line for line in out.splitlines() if line and line[0] in "✓◐·"}
    assert lines["8"].startswith("✓") and "1 check" in lines["8"]
    assert lines[str(edited.number)].startswith("◐") and lines[str(edited.number)].rstrip().endswith("← next")
    assert sum("← next" in line for line in lines.values()) == 1


def test_when_all_is_solved_check_says_so(learn, workspace):
    for exercise in exercises():
        with workspace.progress.change(exercise.name) as record:
            record.checked(True, "aa")
    code, out, _ = learn("check")
    assert code == 0 and "All exercises are solved" in out


def test_watch_checks_what_is_saved_and_ends_with_ctrl_c(workspace):
    log = Path("log").absolute()
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
             "from cnnlib.cli import main; main(['learn', 'watch'])"],
            stdout=file, stderr=subprocess.STDOUT, cwd=workspace.folder.absolute(),
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
        )  # fmt: skip

    def until(words):
        for _ in range(400):
            if words in log.read_text(encoding="utf-8"):
                return
            time.sleep(0.05)
        raise AssertionError(log.read_text(encoding="utf-8"))

    try:
        until("Nothing is written yet")
        write(workspace, WRONG)
        until("✗ softmax_cross_entropy")
        write(workspace, RIGHT)
        until("✓ softmax_cross_entropy")
        until("1 of")
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    assert code == 0 and "Traceback" not in log.read_text(encoding="utf-8")


def test_train_and_fast_need_an_exercise_that_has_them_and_is_passed(learn, workspace):
    for exercise in [e for e in exercises() if e not in trainable()][:1]:
        code, _, err = learn("train", exercise.number)
        assert code == 2 and "has nothing to train; those for which it works" in err
    code, _, err = learn("fast", 8)
    assert code == 2 and "is not timed" in err
    able = [e for e in exercises() if e.train]
    for exercise in able[:1]:
        workspace.path(exercise).write_text("def wrong(): pass")
        code, out, _ = learn("train", exercise.number)
        assert code == 1 and "✗" in out and "steps" not in out


@pytest.mark.parametrize("out, words", [("curve.gif", "must end in .png, .svg or .pdf"), ("gone/curve.png", "no folder gone")])
def test_a_picture_that_cannot_be_written_is_told_before_the_training(learn, workspace, out, words):
    pytest.importorskip("matplotlib")
    for exercise in trainable()[:1]:
        code, _, err = learn("train", exercise.number, "--out", out)
        assert code == 2 and words in err


def happening(who_and_values):
    yield {"event": "plan", "what": "somebody learns", "measured": "loss", "steps": 2}
    for who, values in who_and_values:
        for step, value in enumerate(values):
            yield {"event": "step", "who": who, "step": step, "value": value}
    yield {
        "event": "result",
        "accuracy": {"yours": 0.5, "library": 0.75},
        "milliseconds": {"cpu": 0.5, "yours": 5.0, "reference": 5.0},
    }


def test_a_training_is_told_with_both_curves_and_how_slow_it_was(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    learn_training.training(EIGHT, happening([("yours", [2.0, 1.0]), ("library", [2.0, 0.75])]), None)
    out = capsys.readouterr().out
    for words in ("somebody learns, 2 steps", "loss 2 → 1", "loss 2 → 0.75", "50.0 %", "75.0 %", "further apart than 0.25"):
        assert words in out
    lines = [line.split() for line in out.splitlines() if "times faster" in line or "the same" in line or "yours  " in line]
    assert [line[0] for line in lines[-3:]] == ["yours", "the", "backend"]  # in this order
    assert "the same" in " ".join(lines[-2]) and "10 times faster than yours" in " ".join(lines[-1])


def test_the_curves_become_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "[b]a folder whose name is longer than a terminal of eighty columns is wide[b]" / "curve.png"
    picture.parent.mkdir()
    learn_training.training(EIGHT, happening([("yours", [2.0, 1.0]), ("library", [2.0, 1.0])]), picture)
    assert picture.read_bytes().startswith(b"\x89PNG") and f"The curves are drawn in {picture}.\n" in capsys.readouterr().out


def test_a_curve_is_made_of_eighths():
    assert curve([8.0, 4.0, 1.0], steps=4, ceiling=8.0, width=4, height=1) == ["█▄▁ "]
    assert curve([8.0, 6.0], steps=2, ceiling=8.0, width=2, height=2) == ["█▄", "██"]
    assert curve([4.0] * 100, steps=100, ceiling=8.0, width=3, height=2) == ["   ", "███"]
    assert curve([float("nan"), 16.0], steps=2, ceiling=8.0, width=2, height=1) == [" █"]


def test_json_of_progress_is_readable(workspace):
    assert json.loads(workspace.progress.path.read_text())["format"] == "cnnlib learn"


def test_verify_needs_no_workspace_and_prints_scores(learn):
    code, out, err = learn("verify", "--quick", EIGHT.name)
    assert code == 0 and EIGHT.name in out and not err
    assert learn("verify", "nothing")[0] == 2


def test_the_transcript_on_the_page_is_what_is_printed(learn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = (ROOT / "docs" / "learn.md").read_text(encoding="utf-8")

    def shown(*args):
        lines = "\n".join(line.rstrip() for line in learn(*args)[1].splitlines())
        assert f"$ cnnlib learn {args[0]}\n{lines.strip()}\n" in page, lines

    def edit(exercise, *changes):
        path = Path(file_name(exercise))
        text = path.read_text(encoding="utf-8")
        for pattern, new in changes:
            text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
            assert count == 1, pattern
        path.write_text(text, encoding="utf-8")

    shown("start")
    monkeypatch.chdir("cnnlib-learn")
    first, second = exercises()[:2]
    edit(
        first,
        (r"^    \.\.\.$", "    return (x @ w > threshold).astype(float)"),
        (r"nand = \.\.\..*", "nand = neuron(x, np.array([-1, -1]), -1)"),
        (r"xor = \.\.\..*", "xor = neuron(np.stack([y, nand], axis=1), np.ones(2), 2)"),
    )
    shown("check")
    edit(first, (r"@ w > threshold", "@ w >= threshold"))
    shown("check")
    edit(first, (r"stack\(\[y, nand\]", "stack([neuron(x, np.ones(2), 1), nand]"))
    shown("check")
    right = "if t_n * (w @ x_n + b) <= 0:\n            w += t_n * x_n\n            b += t_n\n            mistakes += 1"
    edit(second, (r"^        \.\.\..*", f"        {right}"))
    shown("check")


def test_a_hint_without_a_name_is_for_the_exercise_at_hand(learn, workspace):
    write(workspace, WRONG)
    code, out, _ = learn("hint")
    assert code == 0 and EIGHT.title in " ".join(out.split()) and workspace.progress.read()[EIGHT.name].hints == 1
