"""`cnnlib train` of models with an objective of their own: their options, what survives a stop, and misuse."""

# ruff: noqa: F811  `run` is a fixture of tests/test_cli.py

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.models.objective import ObjectiveModel
from cnnlib.train import load
from tests.test_cli import one_line, run  # noqa: F401

NAMES = [name for name in cl.models.list() if issubclass(cl.models.get(name), ObjectiveModel)]
SMALL = ("--data", "digits", "--hidden", "8", "--latents", 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_an_option_with_the_default_of_the_constructor(run, name):
    code, out, _ = run("train", name.replace("_", "-"), "--help")
    assert code == 0
    for setting in cl.models.get(name).settings:
        assert f"--{setting.replace('_', '-')}" in out


@pytest.mark.filterwarnings("ignore:after epoch")
@pytest.mark.parametrize("name", [name for name in NAMES if cl.models.get(name).targets in (None, "classes")])
def test_every_one_trains_on_pictures(run, name):
    code, out, err = run("train", name, "--data", "digits", "--epochs", 1, "--batch-size", 512, "--out", "run")
    assert code == 0 and "held-out loss" in out and "saved in run" in out, err
    assert load("run").name == name


def test_options_reach_the_model_and_a_resumed_run_goes_on_with_them(run):
    command = ("train", "vae", *SMALL, "--beta", "0.5", "--likelihood", "gaussian", "--batch-size", 100, "--seed", 3)
    assert run(*command, "--epochs", 4, "--out", "whole")[0] == 0
    assert run(*command, "--epochs", 2, "--out", "parts")[0] == 0
    code, out, err = run("train", "vae", "--data", "digits", "--epochs", 4, "--out", "parts", "--resume")
    assert code == 0 and "resumed from parts" in out, err
    whole, resumed = load("whole"), load("parts")
    assert whole.options["hidden"] == [8] and whole.options["beta"] == 0.5 and whole.options["likelihood"] == "gaussian"
    assert all(np.array_equal(array, resumed.model[name]) for name, array in whole.model.items())


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--hidden", "8,x"], 2, "'8,x' is not a list of sizes such as 400,200."),
        (["--likelihood", "bernouli"], 1, "unknown likelihood 'bernouli': did you mean 'bernoulli'"),
        (["--latents", "0"], 1, "latents must be a whole number"),
        (["--out", "run", "--resume", "--latents", "3"], 2, "the run's own --latents 2, not 3: leave --latents away"),
        (["--out", "run", "--resume", "--lr", "0.1"], 2, "leave --lr away"),
    ],
)
@pytest.mark.filterwarnings("ignore:after epoch")
def test_misuse(run, more, code, message):
    assert run("train", "vae", *SMALL, "--epochs", 1, "--out", "run")[0] == 0
    command = ("train", "vae", "--data", "digits", "--epochs", 1, "--out", "new")
    came, _, err = run(*command, *more)
    assert came == code and message in err and one_line(err)


def test_a_run_of_another_model_is_not_resumed(run):
    assert run("train", "mlp", "--data", "digits", "--epochs", 1, "--out", "run")[0] == 0
    code, _, err = run("train", "vae", "--data", "digits", "--out", "run", "--resume")
    assert code == 1 and "holds mlp, not vae" in err


@pytest.mark.filterwarnings("ignore:after epoch")
def test_what_names_no_classes_is_refused_where_classes_are_needed(run):
    assert run("train", "vae", *SMALL, "--epochs", 1, "--out", "run")[0] == 0
    code, _, err = run("evaluate", "run", "--data", "digits")
    assert code == 1 and "holds vae, which does not name classes: `cnnlib sample` draws from it" in err
    code, _, err = run("compare", "vae")
    assert code == 1 and "vae learns by an objective of its own: `cnnlib train vae` trains it." in err


@pytest.mark.filterwarnings("ignore:after epoch")
def test_sample_draws_a_picture(run):
    pytest.importorskip("matplotlib")
    assert run("train", "vae", *SMALL, "--epochs", 1, "--out", "run")[0] == 0
    code, out, err = run("sample", "run", "--count", 9, "--picture", "nine.png")
    assert code == 0 and out == "picture: nine.png\n" and open("nine.png", "rb").read(4) == b"\x89PNG", err
    code, _, err = run("sample", "run", "--picture", "nine.txt")
    assert code == 2 and "'nine.txt' should end in .png, .pdf or .svg." in err and one_line(err)


def test_what_cannot_be_drawn(run):
    rows = "\n".join(f"{i / 40},{i % 7 / 7},{'ab'[i % 2]}" for i in range(40))
    with open("table.csv", "w") as file:
        file.write(f"u,v,class\n{rows}\n")
    code, _, err = run("train", "gan", "--data", "table.csv", "--epochs", 1, "--out", "plane")
    assert code == 0, err
    code, _, err = run("sample", "plane")
    assert code == 1 and "its samples have the shape (2,): only pictures (C, H, W) can be shown." in err
    assert run("train", "mlp", "--data", "digits", "--epochs", 1, "--out", "mlp")[0] == 0
    code, _, err = run("sample", "mlp")
    assert code == 1 and "holds mlp, which neither writes nor draws" in err and one_line(err)


def test_summary_takes_both_spellings(run):
    assert run("summary", "conv-vae") == run("summary", "conv_vae")


@pytest.mark.filterwarnings("ignore:after epoch")
def test_what_needs_no_classes_learns_from_one(run):
    with open("one.csv", "w") as file:
        file.write("a,b,is\n" + "1.5,2,it\n3,4,it\n5,5,it\n" * 4)
    code, _, err = run("train", "vae", "--data", "one.csv", "--likelihood", "gaussian", "--epochs", 1, "--out", "run")
    assert code == 0, err
    for name in ("stacked-autoencoder", "categorical-classifier"):
        code, _, err = run("train", name, "--data", "one.csv", "--out", "other")
        assert code == 1 and "one.csv: only one class (it): a classifier needs at least two" in err and one_line(err)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_command_name_data_that_it_takes(run, name):
    out = run("train", name.replace("_", "-"), "--help")[1]
    assert ("--data co2" in out) == (cl.models.get(name).targets == "numbers")


@pytest.mark.filterwarnings("ignore:after epoch")
@pytest.mark.parametrize(
    ("more", "message"),
    [(["--prime", "hello"], "vae draws pictures: --prime is for texts."), (["--count", "1000000"], "1<=x<=10000")],
)
def test_samples_that_cannot_be_shown(run, more, message):
    assert run("train", "vae", *SMALL, "--epochs", 1, "--out", "run")[0] == 0
    code, _, err = run("sample", "run", *more)
    assert code == 2 and message in err and one_line(err)


def test_a_probabilistic_classifier_names_a_picture(run):
    from PIL import Image

    assert run("train", "categorical-classifier", "--data", "digits", "--epochs", 10, "--lr", 0.01, "--out", "run")[0] == 0
    picture, digit = (part[0] for part in (cl.data.digits()[1].x, cl.data.digits()[1].y))
    Image.fromarray((255 * picture[0]).astype(np.uint8)).save("digit.png")
    code, out, err = run("predict", "run", "digit.png", "--top", 1)
    assert code == 0 and out.startswith(f"digit.png: {digit} ") and out.rstrip().endswith("%"), err


def test_compare_takes_both_spellings(run):
    code, _, err = run("compare", "conv-vae")
    assert code == 1 and "conv_vae learns by an objective of its own" in err and one_line(err)
