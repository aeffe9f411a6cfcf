"""`cnnlib train` of what learns in stages, and what can be done with it afterwards."""

# ruff: noqa: F811  `run` is a fixture of tests/test_cli.py

import re
from pathlib import Path

import numpy as np
import pytest

from cnnlib.train import load
from tests.test_cli import one_line, run  # noqa: F401

STAGES = ("--sizes", "20,10", "--epochs-per-layer", 1)


@pytest.mark.parametrize("name", ["stacked-autoencoder", "deep-autoencoder", "deep-belief-net"])
def test_a_run_stopped_between_stages_goes_on_with_the_next(run, name):
    command = ("train", name, "--data", "digits")
    assert run(*command, *STAGES, "--epochs", 3, "--out", "whole")[0] == 0
    assert run(*command, *STAGES, "--epochs", 1, "--out", "parts")[0] == 0
    code, out, err = run(*command, "--epochs", 3, "--out", "parts", "--resume")
    assert code == 0 and "resumed from parts" in out, err
    whole, parts = load("whole"), load("parts")
    assert whole.options["sizes"] == [20, 10] and whole.model.keys() == parts.model.keys()
    assert all(np.array_equal(array, parts.model[key]) for key, array in whole.model.items())


def test_a_fine_tuned_stack_is_a_classifier(run):
    command = ("train", "stacked-autoencoder", "--data", "digits", *STAGES, "--lr", 0.01, "--epochs", 12, "--out", "run")
    code, out, err = run(*command)
    assert code == 0, err
    told = float(re.search(r"accuracy ([\d.]+) after epoch 12", out)[1])
    assert told > 0.7
    code, out, err = run("evaluate", "run", "--data", "digits")
    assert code == 0 and f"{told:.2%}"[:3] in out, out + err


@pytest.mark.parametrize(("name", "sizes"), [("rbm", ("--hidden", 20)), ("deep-belief-net", STAGES)])
def test_machines_draw_what_they_dream_of(run, name, sizes):
    pytest.importorskip("matplotlib")
    assert run("train", name, "--data", "digits", *sizes, "--chains", 5, "--epochs", 2, "--out", "run")[0] == 0
    assert load("run").model["layers.1.particles" if name == "deep-belief-net" else "particles"].shape[0] == 5
    code, out, err = run("sample", "run", "--count", 4, "--picture", "dreams.png")
    assert code == 0 and "picture: dreams.png" in out, err
    assert Path("dreams.png").read_bytes().startswith(b"\x89PNG")


def test_summary_shows_the_layers(run):
    code, out, err = run("summary", "autoencoder")
    assert code == 0 and "209,968" in out, err


def test_binary_units_refuse_grey_pictures_in_one_line(run):
    code, _, err = run("train", "rbm", "--data", "digits", "--visible", "binary", "--epochs", 1)
    assert code == 1 and "visible='grey' takes values between them as probabilities" in err and one_line(err)
