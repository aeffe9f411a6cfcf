"""The command line: what it prints, where, and with which exit code, also for those who misuse it."""

import csv
import importlib
import inspect
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.cli import COMMANDS, main
from tests.nets import without_weights

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """run("train", ...) -> (exit code, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args):
        with pytest.raises(SystemExit) as leaving:
            main([str(a) for a in args])
        out, err = capsys.readouterr()
        return leaving.value.code, out, err

    return call


@pytest.fixture
def pictures(tmp_path):
    """Two classes that differ in colour, 10 pictures each."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 60, (20, 30, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


@pytest.fixture
def table(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 2))
    rows = [f"{a:.3f},{b:.3f},{'up' if b > a else 'down'}" for a, b in x]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,direction", *rows]))
    return path


SEEN = {**os.environ, "PYTHONPATH": str(Path(cl.__file__).parent.parent)}  # child processes import this cnnlib


def one_line(err):
    return err.startswith("cnnlib: ") and err.endswith("\n") and err.count("\n") == 1


# ---- help and start


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_has_help_with_examples(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0 and f"Usage: cnnlib {command}" in out and f"cnnlib {command}" in out.split("Examples:")[1]


def test_help_lists_the_commands():
    text = subprocess.run(
        [sys.executable, "-m", "cnnlib", "--help"], capture_output=True, text=True, check=True, env=SEEN
    ).stdout
    assert all(f"\n  {command} " in text for command in COMMANDS) and "Examples:" in text


def test_importing_the_library_or_asking_for_help_stays_light():
    script = """if True:
        import sys, cnnlib
        heavy = {"click", "rich", "PIL", "matplotlib", "safetensors"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        from cnnlib.cli import main
        try: main(["--help"])
        except SystemExit: pass
        assert not {"cnnlib.nn", "cnnlib.data", "cnnlib.train", "rich", "PIL", "matplotlib"} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, env=SEEN)


def test_version(run):
    assert run("--version")[1] == f"cnnlib, version {cl.__version__}\n"


# ---- train, evaluate, predict


def test_train_evaluate_predict_on_a_folder_of_pictures(run, pictures):
    code, out, err = run(
        "train", "lenet5", "--data", pictures, "--epochs", 8, "--lr", "0.003", "--out", "run", "--batch-size", 4
    )
    assert code == 0 and err == "" and "16 samples to learn from, 4 to test on, 2 classes" in out
    assert "test accuracy 100.00% after epoch 8; saved in run" in out
    code, out, _ = run("evaluate", "run", "--data", pictures, "--part", "all")
    assert code == 0 and "100.00% of 20 right" in out and "green" in out
    code, out, err = run("predict", "run", pictures / "red" / "0.png", pictures / "green" / "3.png", "--top", 1)
    lines = out.splitlines()
    assert (
        code == 0 and lines[0].startswith(f"{pictures / 'red' / '0.png'}: red ") and ": green " in lines[1] and "%" in lines[1]
    )


def test_predict_names_the_good_pictures_and_reports_the_bad(run, pictures, tmp_path):
    run("train", "lenet5", "--data", pictures, "--epochs", 1, "--out", "run")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    code, out, err = run("predict", "run", "missing.png", "broken.jpg", pictures / "red" / "0.png")
    assert code == 1 and len(out.splitlines()) == 1 and "0.png: " in out
    assert err.splitlines()[0] == "cnnlib: missing.png: there is no such picture file."
    assert err.splitlines()[1].startswith("cnnlib: broken.jpg: not a picture")


def test_folders_train_and_test_are_used_as_such(run, pictures, tmp_path):
    for part, some in (("train", range(6)), ("test", range(6, 8))):
        for name in ("red", "green"):
            (tmp_path / "parts" / part / name).mkdir(parents=True)
            for i in some:
                (pictures / name / f"{i}.png").rename(tmp_path / "parts" / part / name / f"{i}.png")
    code, out, _ = run("train", "mlp", "--data", "parts", "--epochs", 1)
    assert code == 0 and "12 samples to learn from, 4 to test on" in out and "saved in runs/mlp-parts" in out


def test_csv(run, table):
    code, out, _ = run("train", "mlp", "--data", table, "--epochs", 30, "--lr", "0.01", "--out", "run")
    assert code == 0 and "2 classes" in out
    code, out, _ = run("evaluate", "run", "--data", table, "--label", "direction", "--json")
    result = json.loads(out)
    assert code == 0 and result["accuracy"] >= 0.8 and set(result["classes"]) == {"up", "down"} and result["samples"] == 12
    code, _, err = run("train", "lenet5", "--data", table)
    assert code == 1 and one_line(err) and "square pictures" in err
    code, _, err = run("train", "mlp", "--data", table, "--size", 8)
    assert code == 1 and one_line(err) and "--size is for pictures" in err


def test_a_column_of_numbers_is_no_column_of_classes(run, table):
    code, _, err = run("train", "mlp", "--data", table, "--label", 0)
    assert code == 1 and one_line(err) and "column 'direction'" in err
    table.write_text("".join(f"{i / 40},{(i % 7) / 7},{i * i}\n" for i in range(40)))
    code, _, err = run("train", "mlp", "--data", table)
    assert code == 1 and one_line(err) and "has 40 different values in 40 rows: --label names another;" in err
    assert run("train", "mlp", "--data", table, "--label", 1, "--epochs", 1)[0] == 0  # 7 values
    assert run("train", "autoencoder", "--data", table, "--epochs", 1)[0] == 0  # for which they are no classes


def test_predict_names_the_class_of_each_row(run, table, tmp_path):
    run("train", "mlp", "--data", table, "--epochs", 30, "--lr", "0.01", "--out", "run")
    (tmp_path / "new.csv").write_text("a,b\n-2,2\n\n2,-2\n")
    (tmp_path / "bare.csv").write_text("2,-2\n")
    code, out, err = run("predict", "run", "new.csv", "missing.csv", "bare.csv", "--top", 1)
    said = [line.rsplit(" ", 2)[0] for line in out.splitlines()]
    assert said == ["new.csv, line 2: up", "new.csv, line 4: down", "bare.csv, line 1: down"]
    assert code == 1 and err == "cnnlib: missing.csv: there is no such file.\n"

    with_classes = run("predict", "run", table, "--label", "direction", "--top", 1)[1]
    right = sum(line.split(": ")[1].split()[0] == row.split(",")[2] for line, row in
                zip(with_classes.splitlines(), table.read_text().splitlines()[1:], strict=True))  # fmt: skip
    assert f"{right / 60:.2%} of 60 right" in run("evaluate", "run", "--data", table, "--part", "all")[1]
    code, _, err = run("predict", "run", table)
    assert code == 1 and one_line(err) and "expected rows of 2 numbers, its first row has 3 (a, b, direction)" in err


def test_predict_leaves_out_no_column_of_a_picture(run, pictures):
    run("train", "lenet5", "--data", pictures, "--epochs", 1, "--out", "run")
    code, _, err = run("predict", "run", pictures / "red" / "0.png", "--label", "red")
    assert code == 2 and one_line(err) and "--label is of CSV files; run was trained on pictures." in err


def test_same_seed_same_run_and_resume_changes_nothing(run):
    for out in ("a", "b"):
        run("train", "mlp", "--data", "digits", "--epochs", 2, "--seed", 3, "--out", out)
    run("train", "mlp", "--data", "digits", "--epochs", 1, "--seed", 3, "--out", "c")
    code, text, _ = run("train", "mlp", "--data", "digits", "--epochs", 2, "--seed", 3, "--out", "c", "--resume")
    assert code == 0 and "resumed from" in text

    a, b, c = (cl.train.load(folder).model for folder in "abc")
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name])
        np.testing.assert_array_equal(value, c[name])
    saved = cl.train.load("a")
    assert saved.name == "mlp" and saved.classes == tuple("0123456789")


def test_a_resumed_run_keeps_its_own_settings(run):
    options = ("train", "mlp", "--data", "digits", "--out", "own")
    assert run(*options, "--epochs", 1, "--batch-size", 100, "--seed", 5, "--optimizer", "sgd")[0] == 0
    code, text, err = run(*options, "--epochs", 2, "--resume")
    assert code == 0 and "resumed from" in text and "batch_size" not in err and "seed" not in err


@pytest.mark.parametrize("was, other", [("sgd", "momentum"), ("momentum", "nesterov"), ("nesterov", "sgd"), ("adam", "adamw")])
def test_a_resumed_run_knows_which_of_the_optimizers_of_a_class_it_had(run, was, other):
    """The same command goes on, and one that names another is refused rather than obeyed in part."""
    command = ("train", "linear_svm", "--data", "digits", "--out", "own")
    assert run(*command, "--epochs", 1, "--optimizer", was)[0] == 0
    code, text, err = run(*command, "--epochs", 2, "--optimizer", was, "--resume")
    assert code == 0 and "resumed from" in text and err == ""
    code, _, err = run(*command, "--epochs", 3, "--optimizer", other, "--resume")
    assert code == 2 and f"own --optimizer {was}, not {other}: leave --optimizer away" in err and one_line(err)


def test_an_optimizer_that_only_python_knows_cannot_be_resumed_here(run, monkeypatch):
    assert run("train", "linear_svm", "--data", "digits", "--out", "own", "--epochs", 1, "--optimizer", "adagrad")[0] == 0
    monkeypatch.delitem(importlib.import_module("cnnlib.cli.train").OPTIMIZERS, "adagrad")
    code, _, err = run("train", "linear_svm", "--data", "digits", "--out", "own", "--resume")
    assert code == 1 and "was trained with Adagrad, which no --optimizer stands for" in err and one_line(err)


def test_a_cosine_schedule_ends_at_zero_and_goes_on_when_resumed(run):
    def rows(folder):
        return list(csv.DictReader(Path(folder, "history.csv").open()))

    options = ("train", "mlp", "--data", "digits", "--epochs", 3)
    assert run(*options, "--schedule", "cosine", "--out", "whole")[0] == 0
    rates = [float(row["lr"]) for row in rows("whole")]
    steps = 3 * 23  # 1,437 digits to learn from in batches of 64
    expected = [1e-3 * (1 + math.cos(math.pi * done / steps)) / 2 for done in (23, 46, 69)]
    np.testing.assert_allclose(rates, expected, atol=1e-12)

    assert run("train", "mlp", "--data", "digits", "--epochs", 1, "--schedule", "cosine", "--out", "part")[0] == 0
    code, _, err = run(*options, "--out", "part", "--resume")
    assert code == 0 and "LRSchedule" not in err
    assert float(rows("part")[-1]["lr"]) == pytest.approx(0, abs=1e-12)


def test_every_optimizer_trains(run):
    from cnnlib.cli.train import OPTIMIZERS

    for name in OPTIMIZERS:
        code, out, err = run("train", "linear_svm", "--data", "digits", "--epochs", 1, "--optimizer", name, "--out", name)
        assert code == 0 and "test accuracy" in out, err


def test_a_run_is_not_overwritten(run):
    for folder in ("mlp-digits", "mlp-digits-2"):
        assert f"saved in runs/{folder}\n" in run("train", "mlp", "--data", "digits", "--epochs", 1)[1]
    code, _, err = run("train", "mlp", "--data", "digits", "--out", "runs/mlp-digits")
    assert code == 1 and one_line(err) and "holds a run already" in err


def test_save_every(run):
    run("train", "mlp", "--data", "digits", "--epochs", 1, "--save-every", 5, "--out", "run")
    assert {"last.safetensors", "best.safetensors", "history.csv"} <= set(os.listdir("run"))


# ---- deep networks: --size and --width


def test_train_a_scaled_down_network_on_scaled_pictures(run, pictures):
    options = ("train", "googlenet", "--data", "digits", "--epochs", 1, "--size", 48, "--width", "0.05", "--out", "run")
    code, out, err = run(*options, "--batch-size", 512)
    assert code == 0 and err == "" and "test accuracy" in out
    saved = cl.train.load("run")
    assert saved.options == {"num_classes": 10, "in_channels": 1, "input_size": 48, "width": 0.05}
    assert saved.preprocessing[0] == {"name": "Resize", "size": 48}

    accuracy = float(out.split("test accuracy ")[1].split("%")[0])
    evaluated = json.loads(run("evaluate", "run", "--data", "digits", "--json")[1])
    assert 100 * evaluated["accuracy"] == pytest.approx(accuracy, abs=0.01)  # the same pictures as in training
    code, out, err = run("predict", "run", pictures / "red" / "0.png")
    assert code == 0 and out.count("%") == 5 and "score" not in out  # the five most likely, with probabilities

    resumed = ("train", "googlenet", "--data", "digits", "--epochs", 2, "--out", "run", "--resume")
    assert run(*resumed)[0] == 0 and cl.train.load("run").options["width"] == 0.05
    code, _, err = run("evaluate", "run", "--data", pictures)
    assert code == 1 and one_line(err)  # other classes


@pytest.mark.parametrize("change", [cl.data.Resize(16), cl.data.CentreCrop(16)], ids=repr)
def test_predict_sees_a_picture_as_evaluation_does(run, change):
    """Also where the model's pictures are not of the size of the data: first the data's size, then what training did."""
    from cnnlib.cli.saved import Trained

    train, test = cl.data.load("fashion_subset")
    options = {"num_classes": 10, "in_channels": 1, "input_size": 16}
    net = cl.models.LeNet5(**options)
    transform = cl.data.Compose([change, cl.data.Normalize.fit(train)])
    trainer = cl.Trainer(net, net.criterion(), cl.optim.Adam(net.parameters()), transform=transform, progress=False,
                         model_name="lenet5", model_options=options)  # fmt: skip
    trainer.fit(train[:64], epochs=5)
    trainer.save("net.safetensors")
    Image.fromarray(np.rint(255 * test.x[0, 0]).astype(np.uint8)).save("0.png")

    scores = trainer.predict(test.x[:1])[0]
    np.testing.assert_allclose(Trained("net.safetensors").scores(test.x[:1])[0], scores, rtol=1e-5)
    p = np.exp(scores) / np.exp(scores).sum()
    best = np.argsort(-p)[:5]
    expected = ", ".join(f"{test.classes[c]} {100 * p[c]:.1f} %" for c in best)
    assert run("predict", "net.safetensors", "0.png")[1] == f"0.png: {expected}\n"


LEARNERS = [name for name in cl.models.list() if hasattr(cl.models.get(name), "options_for")]


@pytest.mark.parametrize("name", LEARNERS)
def test_every_model_trains_from_the_command_line_and_predicts(run, pictures, name):
    kind = cl.models.get(name)
    size = ("--size", max(kind.smallest, 16)) if hasattr(kind, "smallest") else ()
    width = ("--width", 4 if name == "resnet20" else 0.03) if "width" in inspect.signature(kind).parameters else ()
    code, out, err = run("train", name, "--data", pictures, "--epochs", 1, *size, *width, "--channels", 1, "--out", "run")
    assert code == 0 and "test accuracy" in out, err
    code, out, err = run("predict", "run", pictures / "red" / "0.png")
    assert code == 0 and "red " in out and "green " in out, err


def test_size_scales_the_pictures_of_a_folder_and_is_remembered(run, pictures):
    options = ("train", "resnet20", "--data", pictures, "--width", 4, "--out", "run")
    assert run(*options, "--size", 16, "--epochs", 1)[0] == 0
    assert cl.train.load("run").options == {"num_classes": 2, "in_channels": 3, "input_size": 16, "width": 4}
    assert run(*options, "--epochs", 2, "--resume")[0] == 0
    assert run("evaluate", "run", "--data", pictures)[0] == 0


def test_pictures_that_are_too_small_are_refused_and_the_option_named(run):
    code, _, err = run("train", "vgg11", "--data", "digits")
    assert code == 1 and one_line(err) and "at least 32×32 is needed" in err and "--size N scales pictures" in err


def test_compare_takes_size_and_width(run):
    code, out, _ = run("compare", "resnet18", "--size", 32, "--width", "0.05", "--batch-size", 4, "--json")
    assert code == 0 and json.loads(out)


# ---- misuse: one line on stderr and the right exit code


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["trian"], 2, "unknown command 'trian': did you mean 'train'"),
        (["train"], 2, "Missing argument 'MODEL'"),
        (["train", "lenet5"], 2, "Missing option '--data'"),
        (["train", "lenet", "--data", "digits"], 1, "unknown model 'lenet': did you mean 'lenet5'"),
        (["train", "VAE", "--data", "digits"], 1, "unknown model 'VAE': did you mean 'vae'"),
        (["train", "perceptron", "--data", "digits"], 1, "perceptron learns by a rule of its own"),
        (["train", "lenet5", "--data", "digit"], 1, "unknown data set 'digit': did you mean 'digits'"),
        (["train", "lenet5", "--data", "./missing"], 1, "./missing: there is no such folder or file"),
        (["train", "lenet5", "--data", "missing.csv"], 1, "missing.csv: there is no such folder or file"),
        (["train", "lenet5", "--data", "sonnets"], 1, "its targets are not classes"),
        (["train", "mlp", "--data", "digits", "--epochs", "0"], 2, "Invalid value for '--epochs'"),
        (["train", "mlp", "--data", "digits", "--threads", "0"], 2, "Invalid value for '--threads'"),
        (["train", "mlp", "--data", "digits", "--lr", "nan"], 2, "'nan' is not a finite number above 0"),
        (["train", "mlp", "--data", "digits", "--lr", "inf"], 2, "'inf' is not a finite number above 0"),
        (["train", "mlp", "--data", "digits", "--lr", "-1"], 2, "'-1' is not a finite number above 0"),
        (["train", "mlp", "--data", "digits", "--seed", "-1"], 2, "Invalid value for '--seed'"),
        (["train", "mlp", "--data", "digits", "--optimizer", "adm"], 2, "Invalid value for '--optimizer'"),
        (["train", "mlp", "--data", "digits", "--backend", "gpu"], 2, "Invalid value for '--backend'"),
        (["train", "mlp", "--data", "digits", "--channels", "2"], 2, "Invalid value for '--channels'"),
        (["train", "mlp", "--data", "digits", "--resume"], 2, "--resume needs --out"),
        (["train", "mlp", "--data", "digits", "--resume", "--out", "new"], 1, "new: no checkpoint to resume from"),
        (["train", "mlp", "--data", "digits", "--resume", "--out", "new", "--lr", "1"], 2, "leave --lr away"),
        (["train", "mlp", "--data", "digits", "--lr", "1e30"], 1, "What helps: a smaller learning rate"),
        (["train", "mlp", "--data", "digits", "--size", "0"], 2, "Invalid value for '--size'"),
        (["train", "resnet20", "--data", "digits", "--width", "0.5"], 1, "width is a number of maps"),
        (["train", "resnet20", "--data", "digits", "--width", "-1"], 2, "'-1' is not a finite number above 0"),
        (["train", "mlp", "--data", "digits", "--width", "2"], 1, "unknown option of mlp 'width'"),
        (["evaluate", "missing", "--data", "digits"], 1, "there is no such checkpoint"),
        (["predict", "missing"], 2, "Missing argument 'FILE...'"),
        (["summary", "resnet"], 1, "unknown model 'resnet'"),
        (["summary", "perceptron", "--width", "2"], 1, "unknown option of perceptron 'width'"),
        (["summary", "mcculloch_pitts", "--classes", "2"], 1, "unknown option of mcculloch_pitts 'num_classes'"),
        (["summary", "resnet18", "--width", "1e12"], 1, "the memory is not enough (Unable to allocate"),
        (["summary", "lenet5", "--input", "1,a"], 2, "'1,a' is not a shape such as 1,32,32"),
        (["summary", "lenet5", "--input", "1,8,8"], 1, "at least 12×12"),
        (["data", "prefetch", "mnits"], 1, "unknown data set 'mnits': did you mean 'mnist'"),
        (["models", "lenet5"], 2, "Got unexpected extra argument (lenet5). See `cnnlib models --help`."),
        (["explain", "--nodata"], 2, "Did you mean '--data'? See `cnnlib explain --help`."),
        (["compare", "perceptron"], 1, "learns by a rule of its own"),
    ],
)
def test_misuse(run, args, code, message):
    got, _, err = run(*args)
    assert message in err and one_line(err) and got == code


@pytest.mark.skipif(cl.backends.available()["cuda"] is None, reason="this machine has a GPU")
def test_cuda_without_a_gpu(run):
    code, _, err = run("train", "mlp", "--data", "digits", "--device", "cuda")
    assert code == 1 and one_line(err) and "device 'cuda' is not available" in err and "To mend it" in err


def test_corrupt_checkpoint(run, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"garbage" * 50)
    code, _, err = run("evaluate", "bad.safetensors", "--data", "digits")
    assert code == 1 and one_line(err) and "bad.safetensors: cannot be read" in err


def test_bad_folders(run, pictures):
    (pictures / "red" / "broken.png").write_bytes(b"no picture")
    code, _, err = run("train", "lenet5", "--data", pictures)
    assert code == 1 and one_line(err) and "red/broken.png: not a picture" in err and "--skip-unreadable" in err
    code, out, err = run("train", "lenet5", "--data", pictures, "--skip-unreadable", "--epochs", 1)
    assert code == 0 and "16 samples" in out and "warning: ImageFolder: skipped 1 of 21 files" in err
    for picture in (pictures / "green").iterdir():
        picture.unlink()
    (pictures / "green").rmdir()
    code, _, err = run("train", "lenet5", "--data", pictures, "--skip-unreadable")
    assert code == 1 and "only one class (red): a classifier needs at least two" in err


def test_data_of_another_shape_or_with_other_classes(run, pictures):
    run("train", "lenet5", "--data", pictures, "--epochs", 1, "--out", "run")
    code, _, err = run("evaluate", "run", "--data", "digits")
    assert code == 1 and one_line(err) and "samples have shape (1, 32, 32)" in err
    (pictures / "red").rename(pictures / "blue")
    code, _, err = run("evaluate", "run", "--data", pictures)
    assert code == 1 and "folders for blue, which are not among the classes (green, red)" in err


def test_a_file_where_the_run_should_go(run, table):
    code, _, err = run("train", "mlp", "--data", table, "--out", table)
    assert code == 2 and one_line(err) and "is a file" in err


def test_debug_shows_the_traceback(run):
    code, _, err = run("train", "lenet", "--data", "digits", "--debug")
    assert code == 1 and err.startswith("Traceback") and err.splitlines()[-1].startswith("cnnlib: unknown model 'lenet'")


def test_an_unexpected_error_is_one_line_too(run, monkeypatch):
    monkeypatch.setattr("cnnlib.models.list", lambda: 1 / 0)
    code, _, err = run("models")
    assert code == 1 and err == "cnnlib: unexpected ZeroDivisionError: division by zero (--debug shows where)\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command",
    [
        "cnnlib models",
        "cnnlib data list",
        "examples.labs --list",
        "examples.labs --help",
        "examples.applications --list",
        "examples.vanishing_gradient",
        "examples.adding_problem --iterations 1",
        "examples.xray --iterations 1",
    ],
)
def test_a_reader_that_closes_early_ends_the_command_without_a_word(command, unbuffered):
    if "labs" in command or "xray" in command:
        pytest.importorskip("matplotlib")
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-m", *command.split()], stdout=write, stderr=subprocess.PIPE, text=True,
                              cwd=Path(__file__).parent.parent, env={**SEEN, "PYTHONUNBUFFERED": unbuffered})  # fmt: skip
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1 or command.endswith("--help")  # argparse itself overlooks what it cannot write


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a child process on Windows")
def test_ctrl_c_leaves_a_line_and_130_and_the_run_goes_on_later(tmp_path, run):
    command = [sys.executable, "-m", "cnnlib", "train", "mlp", "--data", "digits", "--epochs", "100000", "--out", "run"]
    restore = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731  (a shell's background jobs ignore it)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=restore, env=SEEN
    ) as process:
        while "epoch 2/" not in process.stdout.readline():  # the first checkpoint has been written
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130 and "Traceback" not in err
    assert err.strip() == "cnnlib: stopped; the same command with --out run --resume goes on"
    assert run("train", "mlp", "--data", "digits", "--epochs", 1, "--out", "run", "--resume")[0] == 0


# ---- the others


def test_summary(run, monkeypatch):
    code, out, _ = run("summary", "lenet5")
    assert code == 0 and "61,706 parameters" in out and "6×28×28" in out
    plain = json.loads(run("summary", "lenet5", "--input", "3,64,64", "--classes", 2, "--json")[1])
    assert plain["parameters"] == 337_806 and plain["layers"][-1]["output_shape"] == [2]
    neuron = json.loads(run("summary", "perceptron", "--input", "3", "--json")[1])
    assert neuron["parameters"] == 4 and neuron["neurons"] == 1
    narrow = json.loads(run("summary", "resnet20", "--width", 8, "--json")[1])
    assert narrow["input_shape"] == [3, 32, 32] and narrow["layers"][-1]["weights"] == 320
    without_weights(monkeypatch)  # the largest has 144 million parameters
    assert "11,689,512 parameters" in run("summary", "resnet18")[1]
    for model in cl.models.list():
        side = getattr(cl.models.get(model), "smallest", None)
        assert run("summary", model, "--json", *(["--input", f"3,{side},{side}"] if side else []))[0] == 0


def test_models_and_data(run):
    code, out, _ = run("models")
    assert code == 0 and set(cl.models.list()) <= set(out.replace(",", " ").split()) and "* lenet5 " in out
    code, out, _ = run("data", "list")
    assert code == 0 and all(name in out for name in cl.data.names())
    assert run("data", "prefetch", "digits")[0] == 0


def test_compare_draws_a_chart_times_batches_and_names_an_injected_error(run, tmp_path):
    pytest.importorskip("matplotlib")
    chart = tmp_path / "chart.png"
    code, out, _ = run("compare", "mlp", "--backends", "reference", "--batches", "2,1", "--chart", chart)
    assert code == 0 and chart.stat().st_size > 1000
    assert "batch     1: reference" in out and "the fastest: reference from batch 1 on" in out
    if cl.backend() == "cpu":
        code, out, _ = run("compare", "mlp", "--backends", "cpu", "--inject-error", "relu_backward")
        assert code == 1 and "the first wrong numbers: backward of" in out and "relu on cpu, off by 1.0e-02" in out
    for option, value, message in (
        ("--batches", "1,0", "whole numbers of at least 1 with commas between them"),
        ("--backends", "cuds", "unknown backend 'cuds': did you mean 'cuda'?"),
        ("--inject-error", "relu", "unknown kernel 'relu'"),
    ):
        code, _, err = run("compare", "mlp", option, value)
        assert code != 0 and one_line(err) and message in err


def test_compare(run):
    code, out, _ = run("compare", "lenet5", "--batch-size", 8)
    assert code == 0 and "c1.conv2d" in out and "ms a step" in out
    plain = json.loads(run("compare", "mlp", "--batch-size", 8, "--json")[1])
    assert plain["agree"] and plain["backends"][0]["name"] == "reference"


@pytest.mark.parametrize(
    ("noted", "last"),
    [('{"url": "file:///home/ada/cnnlib", "dir_info": {}}', "file:///home/ada/cnnlib"), (None, "--no-binary cnnlib cnnlib")],
)
def test_doctor_installs_anew_from_where_it_came(monkeypatch, noted, last):
    from cnnlib import doctor

    class Distribution:
        def read_text(self, name):
            return {"direct_url.json": noted}[name]

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution())
    monkeypatch.setattr(doctor, "__file__", "/site-packages/cnnlib/doctor.py")
    assert doctor._rebuild() == f"pip install --force-reinstall --no-deps --no-cache-dir {last}"


@pytest.mark.parametrize("group", [(), ("learn",), ("data",)], ids=str)
def test_a_group_alone_shows_its_help(run, group):
    code, out, err = run(*group)
    assert code == 2 and not out and err == run(*group, "--help")[1]


def test_doctor_names_each_problem_with_what_mends_it(run, monkeypatch):
    from cnnlib import doctor

    monkeypatch.setattr("cnnlib.compare.usable", lambda: {"reference": None, "cpu": "ImportError: no _kernels.", "cuda": "x"})
    monkeypatch.setattr(doctor, "_rebuild", lambda: "pip install again")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, _ = run("doctor")
    assert code == 1 and "ImportError: no _kernels." in out
    assert "pip install again" in out
    assert 'pip install "cnnlib[viz]"' in out and "NumPy" in out and np.__version__ in out
    monkeypatch.undo()
    checks = {c.name: c for c in doctor.examine()}
    assert {"Python", "NumPy", "compiled kernels", "C compiler", "instruction set", "threads", "CUDA", "data cache"} <= set(
        checks
    )
    assert all(c.fix for c in checks.values() if c.state == "problem")


def test_doctor_on_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    from cnnlib import doctor

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNNLIB_CACHE", str(tmp_path / "file" / "cache"))
    check = doctor._cache()
    assert check.state == "problem" and "CNNLIB_CACHE" in check.fix
