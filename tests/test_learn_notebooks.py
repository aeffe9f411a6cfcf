"""The exercises as notebooks: valid, executable without Jupyter, and with the exercises' own text."""

import ast
import html
import json
import re

import pytest

from cnnlib.cli import main
from cnnlib.errors import DataError
from cnnlib.learn.exercise import exercises, solution_text
from cnnlib.learn.notebooks import as_markdown, notebook, write_notebooks

every = pytest.mark.parametrize("exercise", exercises(), ids=lambda e: e.name)


def source(cell):
    return "".join(cell["source"])


def cells(exercise):
    return {cell["id"]: cell for cell in notebook(exercise)["cells"]}


def run(exercise, answer):
    """What the check cell shows, after every code cell before it; ``answer`` in place of the starter."""
    space = {"__name__": "__main__"}
    for name, cell in cells(exercise).items():
        if cell["cell_type"] != "code":
            continue
        text = answer if name == "answer" else source(cell)
        *before, last = ast.parse(text).body
        exec(compile(ast.Module(before if name == "check" else [*before, last], []), "<cell>", "exec"), space)
        if name == "check":
            return eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
    raise AssertionError("no check cell")


@every
def test_with_the_solution_put_in_the_check_cell_shows_that_it_is_right(exercise):
    verdict = run(exercise, solution_text(exercise))
    assert verdict.passed, verdict
    assert exercise.name in verdict._repr_html_() and "✓" in verdict._repr_html_()


@every
def test_as_it_is_written_nothing_is_passed_and_nothing_fails_to_run(exercise):
    verdict = run(exercise, source(cells(exercise)["answer"]))
    assert not verdict.passed and html.escape(verdict.sentence) in verdict._repr_html_()


@every
def test_story_hints_question_and_answer_are_in_it(exercise):
    shown = cells(exercise)
    story = re.sub(r"\\([\\*_<>$#\[\]|~])", r"\1", source(shown["story"]))
    words = re.sub(r"```(text)?|[\\#]", " ", story).split()
    assert words == re.sub(r"```|[\\#]", " ", f"{exercise.number} · {exercise.title} {exercise.story}").split()
    hints = source(shown["hints"])
    assert all(html.escape(h) in hints for h in exercise.hints) and hints.count("<details>") == 4
    assert html.escape(exercise.answer) in hints and exercise.link in hints


def test_it_is_a_notebook_as_nbformat_4_5_says():
    for exercise in exercises():
        made = notebook(exercise)
        assert (made["nbformat"], made["nbformat_minor"]) == (4, 5) and "kernelspec" in made["metadata"]
        ids = [cell["id"] for cell in made["cells"]]
        assert len(set(ids)) == len(ids) and all(re.fullmatch("[a-zA-Z0-9-_]{1,64}", i) for i in ids)
        for cell in made["cells"]:
            code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
            assert set(cell) == {"cell_type", "id", "metadata", "source"} | code
            assert all(isinstance(line, str) for line in cell["source"])
            assert all(line.endswith("\n") for line in cell["source"][:-1])
    nbformat = pytest.importorskip("nbformat")
    for exercise in exercises():
        nbformat.validate(nbformat.from_dict(notebook(exercise)))


def test_formulas_stay_as_they_are_and_the_rest_is_literal():
    text = "**Now** use w_ij * x and `dy[n]`:\n\n    y  =  x_1 * w_1\n\n    z = <y>\n\nthen <b>."
    assert as_markdown(text) == (
        "**Now** use w\\_ij \\* x and `dy[n]`:\n\n```text\ny  =  x_1 * w_1\n\nz = <y>\n```\n\nthen \\<b\\>."
    )


def test_they_are_written_once_and_a_learners_are_left_alone(tmp_path):
    written, kept = write_notebooks(tmp_path / "notebooks")
    assert len(written) == len(exercises()) and kept == []
    mine = tmp_path / "notebooks" / written[7]
    assert json.loads(mine.read_text())["cells"][0]["source"][0].startswith("# 8 · ")
    mine.write_text("mine")
    (tmp_path / "notebooks" / written[0]).unlink()
    again, kept = write_notebooks(tmp_path / "notebooks")
    assert again == written[:1] and kept == written[1:] and mine.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="notebooks could not be written"):
        write_notebooks(tmp_path / "file" / "notebooks")


def test_the_command_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for expected in ("38 notebooks written to cnnlib-notebooks.\n", "0 notebooks written to cnnlib-notebooks. 38 were there"):
        with pytest.raises(SystemExit) as leaving:
            main(["learn", "notebook"])
        assert leaving.value.code == 0 and capsys.readouterr().out.startswith(expected)
    assert len(list((tmp_path / "cnnlib-notebooks").glob("*.ipynb"))) == len(exercises()) == 38
