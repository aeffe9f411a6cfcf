"""`cnnlib train char-rnn` and `cnnlib sample`: from a file of text to text, also for those who misuse them."""

# ruff: noqa: F811  `run` is a fixture of tests/test_cli.py

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.train import load
from tests.test_cli import SEEN, one_line, run  # noqa: F401

RHYME = "one two three four five, once I caught a fish alive. six seven eight nine ten, then I let it go again.\n" * 12
SMALL = ("--hidden", 12, "--embedding", 8, "--batch", 4, "--seq", 20)


@pytest.fixture
def rhyme(tmp_path):
    (tmp_path / "rhyme.txt").write_text(RHYME)
    return "rhyme.txt"


def trained(run, rhyme, *more, iterations=6):
    code, out, err = run("train", "char-rnn", "--text", rhyme, "--iterations", iterations, *SMALL, *more)
    assert code == 0 and err == "", err
    return out


def test_train_and_sample(run, rhyme):
    out = trained(run, rhyme, "--every", 50, "--prime", "one", "--length", 40, "--out", "run", iterations=150)
    assert "lstm, " in out and "on rhyme.txt: 1,113 characters to learn from in 13 batches, 123 held out, " in out
    assert "---- sample after iteration 100\none" in out and "---- sample after iteration 150\none" in out
    last = float(out.splitlines()[-1].split()[0])
    assert "bits per character on the held-out text after 150 iterations" in out and "saved in run" in out
    with open("run/history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["50", "100", "150"]
    assert float(rows[-1]["validation_bits"]) == pytest.approx(last, abs=1e-3) and last < float(rows[0]["validation_bits"])
    command = ("sample", "run", "--prime", "one two", "--length", 30, "--temperature", 0.5)
    code, text, err = run(*command)
    assert code == 0 and err == "" and text.startswith("one two") and len(text) == 7 + 30 + 1
    assert run(*command)[1] == text and run(*command, "--seed", 1)[1] != text


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_cells_layers_and_one_hot_vectors(run, rhyme, cell):
    trained(run, rhyme, "--cell", cell, "--layers", 2, "--embedding", 0, "--out", "run")
    options = load("run").options
    assert (options["cell"], options["layers"], options["embedding"]) == (cell, 2, 0)
    assert run("sample", "run", "--length", 5)[0] == 0


def test_resume_ends_as_if_nothing_had_happened(run, rhyme):
    trained(run, rhyme, "--out", "whole", iterations=12)
    trained(run, rhyme, "--out", "parts", "--every", 5, "--optimizer", "momentum", "--lr", "0.1", iterations=5)
    code, _, err = run("train", "char-rnn", "--text", rhyme, "--iterations", 12, "--out", "parts", "--resume")
    assert code == 0 and err == "" and load("parts").training["optimizer"] == "SGD"
    trained(run, rhyme, "--out", "stopped", "--every", 5, iterations=5)
    code, out, err = run("train", "char-rnn", "--text", rhyme, "--iterations", 12, "--out", "stopped", "--resume")
    assert code == 0 and err == "" and "resumed from stopped" in out
    whole, resumed = load("whole"), load("stopped")
    assert all(np.array_equal(array, resumed.model[name]) for name, array in whole.model.items())
    assert resumed.training["position"]["step"] == 12


def test_resuming_what_is_done_already_only_measures(run, rhyme):
    trained(run, rhyme, "--out", "run", "--every", 4, iterations=7)
    code, out, err = run("train", "char-rnn", "--text", rhyme, "--iterations", 5, "--out", "run", "--resume")
    assert code == 0 and err == "" and "after 7 iterations" in out
    assert load("run").training["position"]["step"] == 7


@pytest.mark.parametrize(
    "option, value, was",
    [("--cell", "gru", "lstm"), ("--hidden", 13, 12), ("--seq", 10, 20), ("--batch", 2, 4), ("--optimizer", "sgd", "adam")],
)
def test_resume_keeps_to_the_settings_of_the_run(run, rhyme, option, value, was):
    trained(run, rhyme, "--out", "run")
    code, _, err = run("train", "char-rnn", "--text", rhyme, "--out", "run", "--resume", option, value)
    assert code == 2 and f"own {option} {was}, not {value}: leave {option} away" in err and one_line(err)


def test_a_network_too_large_for_the_memory_names_the_options_of_character_models(run, rhyme):
    code, _, err = run("train", "char-rnn", "--text", rhyme, *SMALL, "--hidden", 10**12)
    assert code == 1 and "the memory is not enough" in err and "--hidden" in err and one_line(err)


def test_a_checkpoint_with_default_settings_resumes(run, rhyme):
    """Written in Python by somebody who named only what was not the default."""
    text = cl.data.read_text(rhyme)
    options = {"characters": text.alphabet.characters, "hidden": 12}
    net = cl.models.CharRNN(**options)
    trainer = cl.train.SequenceTrainer(
        net, cl.optim.Adam(net.parameters()), [cl.train.Checkpoint("run")], progress=False,
        model_name="char_rnn", model_options=options,
    )  # fmt: skip
    trainer.fit(cl.data.Streams(text.split()[0], 4, 20), iterations=2)
    code, _, err = run("train", "char-rnn", "--text", rhyme, "--out", "run", "--resume", "--iterations", 3)
    assert code == 0 and err == "" and load("run").training["position"]["step"] == 3


def test_a_killed_run_goes_on(tmp_path, rhyme):
    """Killed for good, by its process, after the checkpoint of iteration 8."""
    script = """if True:
        import os, sys
        from cnnlib.train import SequenceTrainer, Checkpoint
        def save(self, trainer, step):
            original(self, trainer, step)
            if trainer.step == 9: os._exit(9)
        original, Checkpoint.on_step = Checkpoint.on_step, save
        from cnnlib.cli import main
        main(sys.argv[1:])"""
    command = [
        "train",
        "char-rnn",
        "--text",
        rhyme,
        "--iterations",
        "12",
        *map(str, SMALL),
        "--save-every",
        "4",
        "--every",
        "6",
    ]

    def process(*args):
        return subprocess.run([sys.executable, *args], cwd=tmp_path, env=SEEN, capture_output=True, text=True)

    assert process("-c", script, *command, "--out", "killed").returncode == 9
    assert load(tmp_path / "killed").training["position"]["step"] == 8
    for folder, more in (("killed", ["--resume"]), ("whole", [])):
        done = process("-m", "cnnlib", *command, "--out", folder, *more)
        assert done.returncode == 0, done.stderr
    killed, whole = (load(tmp_path / name) for name in ("killed", "whole"))
    assert all(np.array_equal(array, killed.model[name]) for name, array in whole.model.items())
    assert [row["iteration"] for row in killed.training["history"]] == [6, 12]


def test_a_terminal_that_cannot_show_a_character_does_not_end_the_training(tmp_path):
    (tmp_path / "text.txt").write_text("αβγ水 " * 100, "utf-8")
    command = [
        "train",
        "char-rnn",
        "--text",
        "text.txt",
        "--iterations",
        "2",
        *map(str, SMALL),
        "--prime",
        "水",
        "--out",
        "run",
    ]
    env, seen = SEEN | {"PYTHONIOENCODING": "latin1"}, {"capture_output": True, "encoding": "latin1"}
    for args, begins in ((command, "lstm, "), (["sample", "run", "--prime", "αβ"], "??"), (["summary", "char_rnn"], "")):
        done = subprocess.run([sys.executable, "-m", "cnnlib", *args], cwd=tmp_path, env=env, **seen)
        assert done.returncode == 0 and done.stdout.startswith(begins), done.stderr


@pytest.mark.parametrize("lr", [[], ["--lr", "0.01"]])
def test_ctrl_c_says_which_command_goes_on(run, rhyme, monkeypatch, lr):
    command = ("train", "char-rnn", "--text", rhyme, *SMALL, "--iterations", 6, "--save-every", 2, "--out", "run")

    def press(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr(cl.train.Samples, "on_epoch_end", press)
        code, _, err = run(*command, *lr)
    without = ", without --lr," if lr else ""
    assert code == 130 and err == f"cnnlib: stopped; the same command with --out run --resume{without} goes on\n"
    assert run(*command, "--resume")[0] == 0


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["--text", "none.txt"], 1, "none.txt: there is no such file of text"),
        (["--text", "sonets"], 1, "unknown text 'sonets': did you mean 'sonnets'?"),
        (["--text", "austen"], 1, "austen: not on this machine. Put the unpacked Debian package r-cran-janeaustenr"),
        (["--text", "empty.txt"], 1, "empty.txt: the text is empty"),
        (["--text", "short.txt"], 1, "short.txt, without what is held out: 36 characters are too few for 32 streams"),
        (["--text", "latin1.txt"], 1, "latin1.txt: not a text in UTF-8: byte 0xfc at offset 4"),
        (["--text", "rhyme.txt", "--prime", "öne"], 1, "'ö' is not among the 22 characters of the alphabet"),
        (["--text", "rhyme.txt", "--cell", "lsmt"], 2, "'lsmt' is not one of 'rnn', 'lstm', 'gru'"),
        (["--text", "rhyme.txt", "--temperature", "0"], 2, "'0' is not a finite number above 0"),
        (["--text", "rhyme.txt", "--resume"], 2, "--resume needs --out"),
        (["--text", "rhyme.txt", "--out", "run", "--resume"], 1, "run: no checkpoint to resume from"),
        (["--text", "rhyme.txt", "--out", "run", "--resume", "--lr", "1"], 2, "leave --lr away"),
        ([], 2, "Missing option '--text'"),
    ],
)
def test_training_mistakes(run, rhyme, tmp_path, monkeypatch, args, code, message):
    monkeypatch.delenv("CNNLIB_DATA", raising=False)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("x" * 40)
    (tmp_path / "latin1.txt").write_bytes(b"tsch\xfc\xdf")
    done = run("train", "char-rnn", *args)
    assert done[0] == code and message in done[2] and one_line(done[2])


def test_options_of_character_models_before_or_without_their_name(run):
    for args in (["--text", "rhyme.txt", "char-rnn"], ["charrnn", "--text", "rhyme.txt"]):
        code, _, err = run("train", *args)
        assert code == 2 and one_line(err)
        assert "--text is an option of char-rnn, which must come first: cnnlib train char-rnn --text …" in err
    assert run("train", "mlp", "--hidden", "10")[2] == "cnnlib: No such option '--hidden'. See `cnnlib train --help`.\n"
    assert "No such option '--txt'" in run("train", "lenet5", "--txt", "rhyme.txt")[2]


def test_sampling_mistakes(run, rhyme):
    trained(run, rhyme, "--out", "run")
    for args, code, message in (
        (["none"], 1, "there is no such checkpoint"),
        (["run", "--prime", "né"], 1, "'é' is not among the 22 characters of the alphabet; the first is at position 1"),
        (["run", "--temperature", "-1"], 2, "'-1' is not a finite number above 0"),
        (["run", "--length", "0"], 2, "0 is not in the range"),
        (["run", "--picture", "samples.png"], 2, "char_rnn writes text: --picture is for models that draw."),
    ):
        done = run("sample", *args)
        assert done[0] == code and message in done[2] and one_line(done[2]), done


def test_checkpoints_and_commands_of_other_kinds(run, rhyme, tmp_path):
    trained(run, rhyme, "--out", "run")
    cl.train.save(tmp_path / "mlp.safetensors", cl.models.MLP(4, (3,), 2), name="mlp", options={"in_features": 4})
    for args, message in (
        (
            ("sample", "mlp.safetensors"),
            "mlp.safetensors: holds mlp, which neither writes nor draws: `cnnlib train char-rnn` makes",
        ),
        (
            ("evaluate", "run", "--data", "digits"),
            "holds char_rnn, which does not name classes: `cnnlib sample` writes with it",
        ),
        (("compare", "char_rnn"), "char_rnn does not learn to tell classes apart: `cnnlib train char-rnn --text FILE`"),
    ):
        code, _, err = run(*args)
        assert code == 1 and message in err and one_line(err)
    run("train", "mlp", "--data", "digits", "--epochs", 1, "--out", "classes")
    code, _, err = run("train", "char-rnn", "--text", rhyme, "--out", "classes", "--resume")
    assert code == 1 and "classes/last.safetensors: holds mlp, not a char_rnn" in err.replace(os.sep, "/")
    (tmp_path / "other.txt").write_text(RHYME.upper())
    code, _, err = run("train", "char-rnn", "--text", "other.txt", "--out", "run", "--resume")
    assert code == 1 and "was trained on a text of 22 different characters" in err and one_line(err)
    (tmp_path / "other.txt").write_text(RHYME[::-1])
    code, _, err = run("train", "char-rnn", "--text", "other.txt", "--out", "run", "--resume")
    assert code == 1 and "run: was trained on another text than other.txt" in err and one_line(err)


def test_a_run_that_blows_up_says_where_and_keeps_its_checkpoint(run, rhyme):
    code, _, err = run(
        "train", "char-rnn", "--text", rhyme, *SMALL, "--optimizer", "sgd", "--lr", "1e38", "--out", "run", "--save-every", 1
    )
    assert code == 1 and "(step " in err and "Where it began" in err and one_line(err)
    assert load("run").training["position"]["step"] >= 1


def test_help_of_its_own_and_lists(run):
    code, out, _ = run("train", "char-rnn", "--help")
    assert code == 0 and "Usage: cnnlib train char-rnn" in out and "--temperature" in out and "Examples:" in out
    assert run("train", "char_rnn", "--help")[1].count("--text") >= 1
    assert "* char_rnn" in run("models")[1]
    out = run("data", "list")[1]
    assert all(name in out for name in cl.data.text_names())
    assert "embedding" in run("summary", "char_rnn")[1]
    code, _, err = run("summary", "char_rnn", "--width", 2)
    assert code == 2 and "char_rnn reads one token at a time: it has no --input, --classes or --width" in err
