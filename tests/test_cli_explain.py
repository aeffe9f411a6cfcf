"""cnnlib explain: the story in the terminal, as JSON, as a page; new models, trained ones, a text."""

import json
import re

import pytest

from cnnlib.cli import main


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """run("explain", ...) -> (exit code, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*args):
        with pytest.raises(SystemExit) as leaving:
            main([str(a) for a in args])
        out, err = capsys.readouterr()
        return leaving.value.code, out, err

    return call


def test_the_story_of_a_new_model(run):
    code, out, err = run("explain", "lenet5")
    assert code == 0 and err == ""
    assert re.match(r"LeNet5: one training step, loss 2\.\d+, 13 operations", out)
    assert "c1.conv2d  y = w ∗ x + b" in out and "|∂J/∂ c1.weight|" in out and "(2, 1, 32, 32)" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 100


def test_json_is_all_of_stdout_also_with_a_page(run, tmp_path):
    code, out, err = run("explain", "mlp", "--batch-size", 3, "--json", "--html", "page.html")
    story = json.loads(out)
    assert code == 0 and story["model"] == "MLP" and err.startswith("page.html: 0.")
    assert story["steps"][0]["shapes"]["x"] == [3, 1, 8, 8]
    assert sum(step["time_share"] for step in story["steps"]) == pytest.approx(1)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_of_lenet_is_well_under_5_megabytes_and_takes_no_more_than_it_may(run, tmp_path):
    code, out, _ = run("explain", "lenet5", "--html", "page.html")
    assert code == 0 and out == f"page.html: {(tmp_path / 'page.html').stat().st_size / 1e6:.1f} MB, open it in a browser\n"
    assert (tmp_path / "page.html").stat().st_size < 2e6
    run("explain", "lenet5", "--html", "small.html", "--megabytes", "0.1")
    assert (tmp_path / "small.html").stat().st_size < 3e5


def test_the_same_seed_tells_the_same_story(run):
    first, again, other = (json.loads(run("explain", "mlp", "--json", "--seed", seed)[1])["loss"] for seed in (1, 1, 2))
    assert first == again != other


def test_a_text_is_read_by_a_character_model(run):
    code, out, _ = run("explain", "char-rnn", "--cell", "gru", "--hidden", 8, "--steps", 5, "--batch-size", 1, "--json")
    steps = {step["name"]: step for step in json.loads(out)["steps"]}
    assert code == 0 and steps["rnn.gru"]["shapes"]["y"] == [5, 1, 8]
    assert steps["rnn.gru"]["rules"]["r"].startswith("r[t, b, u] = σ(Σ_d x[t, b, d] · w_ih[u, d]")


def test_a_trained_model_is_told_from_its_checkpoint(run):
    assert run("train", "mlp", "--data", "digits", "--epochs", 2, "--out", "run")[0] == 0
    code, out, _ = run("explain", "run", "--json")
    story = json.loads(out)
    assert code == 0 and story["model"] == "MLP"
    assert story["loss"] < json.loads(run("explain", "mlp", "--json")[1])["loss"]
    text = "abcab" * 60
    with open("text.txt", "w") as file:
        file.write(text)
    trained = run(
        "train", "char-rnn", "--text", "text.txt", "--hidden", 6, "--seq", 8, "--batch", 4, "--iterations", 3, "--out", "chars"
    )
    assert trained[0] == 0
    code, out, _ = run("explain", "chars", "--data", "text.txt", "--steps", 4, "--json")
    assert code == 0 and json.loads(out)["steps"][1]["shapes"]["y"] == [4, 2, 6]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["explain", "lenet"], 1, "unknown model 'lenet': did you mean 'lenet5'"),
        (["explain", "perceptron"], 1, "learns by a rule of its own"),
        (["explain", "lenet5", "--data", "nowhere/at/all"], 1, "there is no such folder or file"),
        (["explain", "lenet5", "--megabytes", "0"], 2, "'0' is not a finite number above 0"),
        (["explain", "char-rnn", "--steps", "90000"], 1, "characters are too few for 2 streams of 90000 steps"),
        (["explain", "lenet5", "--html", "no/folder/page.html"], 1, "no/folder/page.html: No such file or directory"),
    ],
)
def test_misuse_is_told_in_a_line(run, arguments, code, message):
    left, out, err = run(*arguments)
    assert left == code and out == "" and message in err and err.count("\n") == 1
