"""examples/translation.py: trains, tests and translates as a reader runs it."""

import importlib
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.data.generated import dates, number_words
from cnnlib.data.pairs import WORDS, Pairs
from examples import translation

ROOTS = [Path(cl.__file__).parent.parent, Path(__file__).parent.parent]  # of the package and of the examples


@pytest.fixture(scope="module")
def learnt():
    """A network that knows a part of a small task, with which the rest is tried."""
    cl.manual_seed(0)
    task = number_words(count=2000)
    net = translation.network(task, embedding=16, hidden=48)
    translation.trainer_for(task, net, 12, 0, lr=1e-2, progress=False).fit(task.train, epochs=12)
    return task, net


def test_exact_match_of_greedy_search_is_that_of_teacher_forcing(learnt):
    task, net = learnt
    result = translation.measured(task, net, beam=1)
    trainer = translation.trainer_for(task, net, 1, 0, progress=False)
    assert 0.2 < result["exact match"] < 1
    assert result["exact match"] == pytest.approx(trainer.evaluate(task.test)["exact_match"])
    assert len(result["said"]) == len(task.test)


def test_a_beam_finds_sentences_at_least_as_probable_on_average(learnt):
    task, net = learnt
    scores = [net.search(task.encode([s for s, _ in task.texts["test"]]), beam)[1][:, 0].mean() for beam in (1, 4)]
    assert scores[1] >= scores[0]


def test_embeddings_are_the_first_two_principal_components(learnt):
    task, net = learnt
    texts = [source for source, _ in task.texts["test"]]
    points = translation.embeddings(task, net, texts)
    with cl.no_grad():
        codes = net.encode(task.encode(texts)).numpy()
    variances = np.linalg.eigvalsh(np.cov(codes.T, bias=True))[::-1][:2]
    np.testing.assert_allclose(points.var(axis=0), variances, rtol=1e-3)
    assert abs(np.corrcoef(points.T)[0, 1]) < 1e-3


def test_the_figure_shows_every_group(learnt):
    pytest.importorskip("matplotlib")
    ax = translation.figure(*learnt).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [f"{n} digits" for n in (2, 3, 4, 5, 6)]


def test_bleu_is_of_the_whole_corpus_and_none_without_sacrebleu(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert translation.bleu(["a"], ["a"]) is None
    monkeypatch.undo()
    pytest.importorskip("sacrebleu")
    assert translation.bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(100)
    assert translation.bleu(["the the the the"], ["a cat sat down"]) == pytest.approx(0, abs=1)


@pytest.fixture
def output(tmp_path, monkeypatch):
    """What the example prints for some arguments, on a few dates."""
    monkeypatch.setattr(translation, "TASKS", {"dates": lambda: dates(count=200)})
    monkeypatch.chdir(tmp_path)

    def printed(*args):
        text = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["translation", "dates", "--out", "run", *args])
        with redirect_stdout(text):
            translation.main()
        return text.getvalue()

    return printed


def test_it_goes_on_and_translates(output):
    first = output("--epochs", "1", "--beam", "2")
    assert "epoch 1/1" in first and re.search(r"beam 2: \d+\.\d\d% of 20 test sentences are right as a whole", first)
    assert first.count("    said  ") == 12
    again = output("--epochs", "1", "--translate", "3 May 2024", "1 January 1950")
    assert "resumed from" in again and "epoch 1/1" not in again
    assert re.search(r"3 May 2024  ->  .*\n1 January 1950  ->  ", again)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--beam", "0"], "argument --beam: '0' is no whole number of at least 1"),
        (["--epochs", "-1"], "argument --epochs: '-1' is no whole number of at least 1"),
        (["--translate", ""], "the sentence '' has 0 tokens"),
        (["--translate", "May 1, 2000", "a" * 40], "has 40 tokens, but the model is made for 1 to"),
    ],
)
def test_mistakes_are_a_sentence_before_any_training(output, args, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        output(*args)
    assert stopped.value.code != 0 and message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_bleu_needs_is_said_where_targets_are_words_and_it_is_not_installed(output, monkeypatch):
    needs = 'BLEU needs sacrebleu: pip install "cnnlib[translation]"'
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert needs not in output("--epochs", "1", "--beam", "1")  # dates are spelt by character
    texts = {part: [(f"say {word}", f"{word} said") for word in words.split()]
             for part, words in (("train", "a b c d e f"), ("validation", "g h"), ("test", "i j"))}  # fmt: skip
    monkeypatch.setattr(translation, "TASKS", {"dates": lambda: Pairs("sentences", texts, WORDS, WORDS)})
    assert needs in output("--epochs", "1", "--beam", "1", "--out", "words")


def test_another_network_has_another_folder():
    def folder(*args):
        return translation.folder_of(translation.parser().parse_args(["dates", *args])).as_posix()

    assert folder() == folder("--epochs", "9") == "runs/translation-dates"
    assert folder("--no-attention", "--cell", "gru", "--seed", "3") == "runs/translation-dates-gru-plain-seed3"


def test_ctrl_c_leaves_a_line_and_130(output, monkeypatch, capsys):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cl.Trainer, "_run_epoch", pressed)
    with pytest.raises(SystemExit) as stopped:
        output("--epochs", "1")
    assert stopped.value.code == 130 and capsys.readouterr().err == "\nstopped; the same command goes on\n"


def test_missing_data_are_a_sentence_and_no_traceback(tmp_path):
    seen = {name: value for name, value in os.environ.items() if name != "CNNLIB_DATA"}
    seen["PYTHONPATH"] = os.pathsep.join(map(str, ROOTS))
    command = [sys.executable, "-m", "examples.translation", "parallel-fr"]
    done = subprocess.run(command, cwd=tmp_path, env=seen, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("parallel: CNNLIB_DATA is not set") and not done.stdout


def test_the_lab_says_what_attention_does_whichever_way_it_goes():
    lab, translate = (importlib.import_module(f"examples.labs.{name}") for name in ("lab", "translation"))

    def runs(better):
        right = {True: 0.9 + better, False: 0.9}
        return lab.Runs(
            {"settings": s, "seconds": 1.0, "measured": {f"{what}, beam {beam}": value for beam in (1, 5) for what, value in
             (("right", right[s["attention"]]), ("BLEU", 12.34 if s["task"] == "parallel-fr" else None))}}
            for s in translate.plan(quick=False)
        )  # fmt: skip

    rows, reading = translate.finding(runs(0.05))
    assert len(rows) == 6 and {row["BLEU, beam 5"] for row in rows} == {"–", "12.3 (12.3 … 12.3)"}
    assert "On dates, attention gets more sentences right with every seed: +5.00 points" in reading
    assert "On parallel-fr, attention gets fewer sentences right with every seed: −5.00" in translate.finding(runs(-0.05))[1]
