"""The examples run as a reader would run them, and reach what they promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlib as cl

EXAMPLES = Path(__file__).parent.parent / "examples"
SEEN = {**os.environ, "PYTHONPATH": str(Path(cl.__file__).parent.parent)}


def run(name, *args, cwd):
    done = subprocess.run([sys.executable, EXAMPLES / name, *args], cwd=cwd, env=SEEN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_history_tells_what_each_neuron_can_and_cannot(tmp_path):
    pytest.importorskip("matplotlib")
    text = run("history.py", "--out", "pictures", "--seeds", "6", cwd=tmp_path)
    assert re.search(r"AND +solved after 18 updates in 9 epochs", text)
    assert "NOT " in text and "[[0], [1]] -> [1, 0]" in text
    assert re.search(r"perceptron after 1,000 epochs and [\d,]+ updates: still [1-4] mistakes", text)
    assert re.search(r"XOR: [1-6] of 6 networks with 2 hidden units solve it", text)
    assert "support vectors" in text
    assert (tmp_path / "pictures" / "history.png").read_bytes().startswith(b"\x89PNG")


def test_own_backward_trains_the_network(tmp_path):
    text = run("own_backward.py", "--epochs", "1", cwd=tmp_path)
    assert "your backward ran 90 times" in text  # 45 batches, two convolutions
    assert float(re.search(r"epoch 1: ([\d.]+)%", text)[1]) > 60


def module(name):
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_own_backward_is_the_same_as_ours():
    import numpy as np

    example = module("own_backward")
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s) for s in ((2, 3, 7, 8), (4, 3, 3, 2), (4,)))
    y, ctx = cl.ops.Conv2d.run(x, w, b, stride=2, padding=1)
    dy = rng.normal(size=y.shape)
    for mine, ours in zip(example.my_conv2d_backward(ctx, dy), cl.ops.Conv2d.backward(ctx, dy), strict=True):
        np.testing.assert_allclose(mine, ours, atol=1e-12)


def test_train_lenet_goes_on_where_it_ended(tmp_path):
    assert "epoch 1/1" in run("train_lenet.py", "--epochs", "1", "--out", "run", cwd=tmp_path)
    text = run("train_lenet.py", "--epochs", "2", "--out", "run", cwd=tmp_path)
    assert "resumed from" in text and "epoch 2/2" in text and "test pictures are right" in text


def test_gallery_draws_every_picture_that_its_page_shows(tmp_path):
    pytest.importorskip("matplotlib")
    run("gallery.py", "--epochs", "1", "--out", "gallery", cwd=tmp_path)
    drawn = {p.name for p in (tmp_path / "gallery").iterdir()}
    docs = EXAMPLES.parent / "docs"
    assert drawn == set(re.findall(r"\(gallery/([^)]+)\)", (docs / "gallery.md").read_text("utf-8")))
    assert drawn == {p.name for p in (docs / "gallery").iterdir()}
    assert all(p.read_bytes()[:4] in (b"\x89PNG", b"<svg") for p in (tmp_path / "gallery").iterdir())


@pytest.mark.slow
def test_demo_reads_at_least_98_percent(tmp_path):
    text = run("demo.py", "--out", "demo", cwd=tmp_path)
    assert float(re.search(r"([\d.]+)% of 360 digits", text)[1]) >= 98
    assert "61,706 parameters" in text and "ms a step" in text
    assert (tmp_path / "demo" / "lenet5.png").read_bytes().startswith(b"\x89PNG")


def test_convolution_demo_is_the_lectures(tmp_path):
    assert "open it in a browser" in run("convolution_demo.py", "--out", "demo.html", cwd=tmp_path)
    assert '"y": [[[-2.0, 4.0, 2.0], [2.0, 8.0, 1.0], [2.0, 4.0, 1.0]], [[-2.0, ' in (tmp_path / "demo.html").read_text("utf-8")


def test_min_char_rnn_has_our_gradients():
    import numpy as np

    example = module("min_char_rnn")
    rng = np.random.default_rng(0)
    net = {name: rng.normal(size=w.shape) for name, w in example.new_network(5, 4, rng).items()}
    x, y, h = rng.integers(0, 5, 7), rng.integers(0, 5, 7), rng.normal(size=4)
    states, p = example.forward(net, x, h)
    mine = example.backward(net, x, y, states, p)
    ours = {name: cl.Tensor(w, requires_grad=True) for name, w in net.items()}
    one_hot = cl.Tensor(np.eye(5)[x][:, None])
    state = cl.Tensor(h[None])
    hidden, last = cl.ops.rnn(one_hot, state, ours["Wx"].T, ours["Wh"].T, ours["bh"])
    scores = cl.ops.reshape(hidden, (7, 4)) @ ours["Wy"] + ours["by"]
    cl.ops.cross_entropy(scores, y, reduction="sum").backward()
    np.testing.assert_allclose(states[-1], last.numpy()[0], rtol=1e-12)
    for name, w in ours.items():
        np.testing.assert_allclose(mine[name], w.grad, rtol=1e-9, atol=1e-12, err_msg=name)


def test_min_char_rnn_learns_and_writes(capsys):
    example = module("min_char_rnn")
    text = cl.data.numbered(["to be, or not to be: " * 30])
    _, bits = example.train(text, hidden=30, iterations=2000, show_every=2000)
    assert bits < 0.5 and "to be, or not" in capsys.readouterr().out


@pytest.mark.parametrize(("iterations", "reports"), [(3, ["3"]), (8, ["4", "8"]), (9, ["4", "8", "9"])])
def test_min_char_rnn_reports_at_the_end_too_and_once(capsys, iterations, reports):
    module("min_char_rnn").train(cl.data.numbered(["to be, or not to be: " * 9]), 5, iterations=iterations, show_every=4)
    assert re.findall(r"^iteration (\d+): [\d.]+ bits per character$", capsys.readouterr().out, re.MULTILINE) == reports


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("min_char_rnn", ["--text", "none.txt"], "none.txt: there is no such file of text"),
        ("min_char_rnn", ["--text", "short.txt"], "short.txt: 5 characters are too few for 25 steps and the character after"),
        ("adding_problem", ["--length", "1"], "each half of a sequence has a mark, so T must be at least 2, got 1"),
        ("adding_problem", ["--hidden", "0"], "hidden_size must be a whole number >= 1, got 0"),
        ("adding_problem", ["--iterations", "0"], "iterations must be a whole number >= 1, got 0"),
        ("min_char_rnn", ["--iterations", "0"], "iterations must be a whole number >= 1, got 0"),
        ("min_char_rnn", ["--seed", "-1"], "seed must be a whole number >= 0, got -1"),
    ],
)
def test_mistakes_with_recurrent_examples_are_a_sentence(tmp_path, monkeypatch, capsys, name, args, message):
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("to be")
    monkeypatch.setattr(sys, "argv", [name, *args])
    with pytest.raises(SystemExit) as stopped:
        module(name).main()
    assert stopped.value.code == 1 and message in capsys.readouterr().err


@pytest.mark.slow
def test_xray_writes_its_pictures_and_its_page_in_a_moment(tmp_path):
    pytest.importorskip("matplotlib")
    text = run("xray.py", "--iterations", "3", "--out", "xray", cwd=tmp_path)
    assert re.search(r"‖∂h/∂x₀‖ of the first layer: [\d.e-]+ after 0 steps, [\d.e-]+ after 38", text)
    shown = {path.name for path in (EXAMPLES.parent / "docs" / "xray").iterdir()} - {"page.png"}
    assert {path.name for path in (tmp_path / "xray").iterdir()} == shown
    assert (tmp_path / "xray" / "xray.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_xray_looks_into_a_model_of_your_own_that_reads_your_own_text(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    example, letters = module("xray"), "αβγδ"
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text(letters * 40, "utf-8")
    Path("short.txt").write_text(letters, "utf-8")
    net, options = cl.models.CharRNN(letters, cell="gru", hidden=6), {"characters": letters, "cell": "gru", "hidden": 6}
    cl.train.save("net.safetensors", net, name="char_rnn", options=options)
    net.rnn.weight_hh_l0.data[:] = float("nan")
    cl.train.save("blown.safetensors", net, name="char_rnn", options=options)
    own = ("--checkpoint", "net.safetensors", "--out", "xray")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["xray.py", *args])
        example.main()

    call(*own, "--text", "own.txt")
    made = len(list(Path("xray").glob("*.png")))
    assert f"xray: {made} pictures" in capsys.readouterr().out
    assert all(f'"{letter}"' in Path("xray/xray.html").read_text("utf-8") for letter in letters)
    for args, message in (
        (own, "'S'"),
        ((*own, "--text", "short.txt"), "short.txt: the pictures show 113 characters, the text has 4."),
        (("--checkpoint", "nope"), "nope: there is no such checkpoint."),
        (
            ("--checkpoint", "blown.safetensors", "--text", "own.txt"),
            "gates: the network's numbers are not finite: its training",
        ),
        ((*own, "--text", "own.txt", "--out", "own.txt/xray"), "own.txt"),
        (("--iterations", "0"), "fit: iterations must be a whole number of at least 1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            call(*args)
        assert stopped.value.code == 1 and message in capsys.readouterr().err


def test_vae_example_trains_three_models_draws_four_pictures_and_does_not_repeat_itself(tmp_path):
    pytest.importorskip("matplotlib")
    text = run("vae.py", "--data", "digits", "--epochs", "2", "--out", "vae", cwd=tmp_path)
    bounds = [float(b) for b in re.findall(r"-ELBO ([\d.]+) =", text)]
    tighter = float(re.search(r"-ln p\(x\) about ([\d.]+) with 100 draws", text)[1])
    assert len(bounds) == 3 and max(bounds) < 44.4  # 64 ln 2: what one has that always says one half
    assert tighter < bounds[0] + 0.5
    names = {"vae-samples.png", "vae-plane.png", "vae-interpolation.png", "vae-conditional.png"}
    assert names == {p.name for p in (tmp_path / "vae").iterdir() if p.is_file()}
    again = run("vae.py", "--data", "digits", "--epochs", "2", "--out", "vae", cwd=tmp_path)
    assert "epoch 1/2" not in again and again.count("resumed from") == 3


def test_dcgan_example_keeps_what_it_drew_when_it_goes_on(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    small = ("dcgan.py", "--data", "digits", "--maps", "4", "--out", "gan")
    run(*small, "--epochs", "2", cwd=tmp_path)
    text = run(*small, "--epochs", "3", cwd=tmp_path)
    assert "resumed from" in text and "after epoch 3" in text
    with image.open(tmp_path / "gan" / "dcgan.gif") as film:
        assert film.n_frames == 3
    assert {"dcgan-epochs.png", "dcgan-equilibrium.png"} <= {p.name for p in (tmp_path / "gan").iterdir()}


def test_compare_backends_example_writes_what_it_shows_and_names_an_injected_error(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    text = run("compare_backends.py", "--model", "mlp", "--backends", "reference,cpu", "--out", "cmp", cwd=tmp_path)
    found = json.loads((tmp_path / "cmp" / "mlp.json").read_text())
    assert found["agree"] and [b["name"] for b in found["backends"]] == ["reference", "cpu"]
    assert f"the fastest: {found['wins'][0][1]} from batch 1 on" in text
    with image.open(tmp_path / "cmp" / "mlp.png") as picture:
        assert picture.width > 500
    wrong = ("--inject-error", "linear_backward_weight", "--backends", "cpu")
    assert "the first wrong numbers: backward of 1.5.linear on cpu" in run(
        "compare_backends.py", "--model", "mlp", *wrong, cwd=tmp_path
    )
