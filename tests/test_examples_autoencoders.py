"""The examples and labs on autoencoders and Boltzmann machines: they go on where they ended, and say what came out."""

import re

import numpy as np
import pytest

from examples.labs.__main__ import load
from tests.test_examples import EXAMPLES, module, run
from tests.test_labs import stored

PAGE = EXAMPLES.parent / "docs" / "autoencoders.md"


def png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_autoencoders_tell_pictures_and_noise(tmp_path):
    pytest.importorskip("matplotlib")
    command = ("autoencoders.py", "--data", "digits", "--epochs", "2", "--out", "out")
    text = run(*command, cwd=tmp_path)
    assert float(re.search(r"PCA, 32 components +([\d.]+)", text)[1]) == pytest.approx(0.0027, abs=1e-4)
    for noise in ("masking", "salt_and_pepper", "gaussian"):
        given, _, answer = map(float, re.search(rf"  {noise} +([\d.]+) +([\d.]+) +([\d.]+)", text).groups())
        assert answer < 0.5 * given
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    assert drawn == {"reconstructions.png", "denoising.png", "features.png"} and all(png(tmp_path / "out" / n) for n in drawn)
    files = sorted((tmp_path / "runs" / "autoencoders").rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in files]
    assert run(*command, cwd=tmp_path) == text  # nothing is trained twice
    assert [path.stat().st_mtime_ns for path in files] == times and len(files) == 7


def test_boltzmann_machines_dream(tmp_path):
    pytest.importorskip("matplotlib")
    text = run("boltzmann.py", "--data", "digits", "--epochs", "1", "--steps", "5", "--out", "out", cwd=tmp_path)
    assert len(re.findall(r"^(?:CD-1|persistent CD-1|deep belief net, top) +-", text, re.MULTILINE)) == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rbm.png", "dreams.png"}


def test_the_page_shows_what_the_examples_draw():
    shown = set(re.findall(r"\(autoencoders/([^)]+)\)", PAGE.read_text("utf-8")))
    assert shown == {"reconstructions.png", "denoising.png", "features.png", "rbm.png", "dreams.png"}
    assert shown == {path.name for path in (PAGE.parent / "autoencoders").iterdir()}


def test_pca_of_the_example_is_the_best_plane():
    x = np.random.default_rng(0).normal(size=(200, 6)) * [5, 3, 1, 0.1, 0.1, 0.1]
    error = np.square(module("autoencoders").pca(x, x, 2) - x).mean()
    s = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    assert error == pytest.approx((s[2:] ** 2).sum() / x.size)


@pytest.mark.parametrize(("gain", "words"), [(0.1, "raises"), (-0.1, "lowers")])
def test_pretraining_is_judged_seed_by_seed_for_each_number_of_labels(gain, words):
    lab = load("pretraining")
    told = {str(n): lambda s: 0.5 + (gain if s["start"] == "pre-trained" else 0.001 * s["seed"]) for n in lab.LABELS}
    runs = stored(lab.plan(quick=False), **told)
    rows, reading = lab.finding(runs)
    assert [row["labels"] for row in rows] == ["100", "300", "1,000"]
    assert reading.count(f"{words} test accuracy with every seed") == 6


def test_deep_autoencoder_is_compared_with_one_pca_for_all_seeds():
    lab = load("deep_autoencoder")
    errors = {"PCA": 0.05, "random": 0.04, "pre-trained": 0.03}
    runs = stored(lab.plan(quick=False), mse=lambda s: errors[s["method"]], apart=lambda s: 0.5)
    rows, reading = lab.finding(runs)
    assert [row["squared error per pixel"].split()[0] for row in rows] == ["0.0500", "0.0400", "0.0300"]
    assert "RBMs first, against PCA, makes the error smaller with every seed: −0.0200" in reading
    assert "against random weights and as many epochs in all, makes the error smaller with every seed: −0.0100" in reading
    assert "changes nothing that every seed agrees on" in reading


def test_overcomplete_says_which_picture_the_plain_answer_is_nearer_to():
    lab = load("overcomplete")
    for copied, word in ((0.01, "noisy"), (0.2, "clean")):
        columns = {name: lambda s: 0.1 for name in lab.COLUMNS} | {"copied": lambda s, value=copied: value}
        assert lab.finding(stored(lab.plan(quick=False), **columns))[1].endswith(f"nearer to the {word} picture.")
