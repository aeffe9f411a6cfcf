"""`cnnlib train` of models that foretell numbers, and of the one that tells two classes apart."""

# ruff: noqa: F811  `run` is a fixture of tests/test_cli.py

import json
import re

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.train import load
from tests.test_cli import one_line, run  # noqa: F401

REGRESSIONS = [name for name in cl.models.list() if getattr(cl.models.get(name), "targets", None) == "numbers"]


@pytest.fixture
def table():
    x = np.random.default_rng(0).standard_normal((200, 2))
    y = 1000 + 50 * (x @ [1.0, 2.0] + 0.5 * np.random.default_rng(1).standard_normal(200))
    np.savetxt("table.csv", np.column_stack([x, y]), delimiter=",", header="a,b,price", comments="")


@pytest.mark.parametrize("name", REGRESSIONS)
def test_every_regression_learns_a_table_and_says_how_sure_it_is(run, table, name):
    more = ("--batch-size", 160, "--every", 2, "--keep", 20, "--lr", 0.05) if name == "sgld" else ()
    code, out, err = run(
        "train", name, "--data", "table.csv", "--label", "price", "--epochs", 200 if more else 60, "--out", "run", *more
    )
    assert code == 0, err
    error = float(out.split("held-out")[-1].split("squared_error ")[1].split(",")[0])
    assert error < 0.5  # of a variance of 1: the noise is 0.05
    assert "inside their 90 % interval" in out


def test_a_series_is_foretold_and_a_resumed_run_goes_on(run):
    command = ("train", "sgld", "--data", "sunspots", "--hidden", "5", "--keep", 4, "--every", 2, "--out", "run")
    code, _, err = run(*command, "--epochs", 3)
    assert code == 0, err
    code, out, err = run("train", "sgld", "--data", "sunspots", "--out", "run", "--epochs", 5, "--resume")
    assert code == 0 and "resumed from run" in out, err
    assert load("run").options["data_size"] == 225


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("mc-dropout", "digits", "digits: expected a CSV file of numbers or a series: co2, sunspots."),
        ("bernoulli-classifier", "digits", "digits: has 10 classes; a Bernoulli distribution tells two apart"),
    ],
)
def test_data_of_the_wrong_kind_are_refused(run, name, data, message):
    code, _, err = run("train", name, "--data", data, "--out", "run")
    assert code == 1 and message in err and one_line(err)


def test_two_classes_are_told_apart(run):
    x = np.random.default_rng(0).standard_normal((200, 2))
    rows = [f"{a},{b},{'yes' if a + b > 0 else 'no'}" for a, b in x]
    with open("classes.csv", "w") as file:
        file.write("\n".join(["a,b,is", *rows]))
    code, out, err = run("train", "bernoulli-classifier", "--data", "classes.csv", "--epochs", 40, "--lr", 0.02, "--out", "run")
    assert code == 0, err
    assert float(out.split("accuracy ")[-1].split()[0]) > 0.9


def test_co2_is_foretold_in_ppm_from_a_checkpoint(run):
    code, out, err = run("train", "gaussian-regression", "--data", "co2", "--epochs", 20, "--out", "run")
    assert code == 0, err
    code, evaluated, err = run("evaluate", "run", "--data", "co2")
    assert code == 0, err
    said = evaluated.removeprefix("co2, test: 105 foretold, ").strip()
    assert f", {said} after epoch 20" in out  # what the training measured

    saved = load("run")
    net = cl.models.create(saved.name, **saved.options)
    saved.load_into(net)
    ppm = cl.data.series.co2()[1]
    before = np.lib.stride_tricks.sliding_window_view(ppm[:-1], 24)[-105:, :, None].astype(np.float32)
    foretold = net.predictive(saved.transform()(before)).restored(saved.scale)
    error = float(np.sqrt(np.mean((foretold.mean[:, 0] - ppm[-105:]) ** 2)))
    assert said.startswith(f"off by {error:.4g} (root mean square)")
    assert error < 0.5 * np.sqrt(np.mean((saved.scale.mean - ppm[-105:]) ** 2))
    low, high = foretold.interval(0.9)
    assert f"{np.mean((low[:, 0] <= ppm[-105:]) & (ppm[-105:] <= high[:, 0])):.1%} inside" in said


def test_a_table_in_other_units_is_foretold_in_those(run, table):
    rows = np.loadtxt("table.csv", delimiter=",", skiprows=1)
    np.savetxt("other.csv", rows * [1, 1000, 0.01] + [0, 5, 3], delimiter=",", header="a,b,price", comments="")
    found = []
    for data in ("table.csv", "other.csv"):
        assert run("train", "gaussian-regression", "--data", data, "--epochs", 10, "--out", f"run-{data}")[0] == 0
        found.append(json.loads(run("evaluate", f"run-{data}", "--data", data, "--json")[1]))
    assert found[1]["rmse"] == pytest.approx(0.01 * found[0]["rmse"], rel=1e-3)
    assert found[1]["inside_90"] == found[0]["inside_90"] and found[0]["samples"] == 40


def test_other_rows_are_measured_by_what_the_training_saw(run, table):
    assert run("train", "gaussian-regression", "--data", "table.csv", "--epochs", 30, "--out", "run")[0] == 0
    before = json.loads(run("evaluate", "run", "--data", "table.csv", "--part", "all", "--json")[1])
    rows = np.loadtxt("table.csv", delimiter=",", skiprows=1)
    np.savetxt("dearer.csv", rows + [0, 0, 1000], delimiter=",", header="a,b,price", comments="")
    after = json.loads(run("evaluate", "run", "--data", "dearer.csv", "--part", "all", "--json")[1])
    assert before["samples"] == after["samples"] == 200
    assert before["rmse"] < 100 and after["rmse"] == pytest.approx(1000, abs=30) and after["inside_90"] == 0


def test_a_run_does_not_go_on_unsaid_in_other_units(run, table):
    assert run("train", "gaussian-regression", "--data", "table.csv", "--epochs", 1, "--out", "run")[0] == 0
    rows = np.loadtxt("table.csv", delimiter=",", skiprows=1)
    np.savetxt("table.csv", rows * [1, 1, 10], delimiter=",", header="a,b,price", comments="")
    code, _, err = run("train", "gaussian-regression", "--data", "table.csv", "--epochs", 2, "--out", "run", "--resume")
    assert code == 0 and "scale was Scale(mean=" in err and "the run will differ from an uninterrupted one" in err


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_is_no_classifier(run, table, name):
    assert run("train", name, "--data", "table.csv", "--epochs", 1, "--out", "run")[0] == 0
    code, _, err = run("evaluate", "run", "--data", "table.csv", "--picture", "confusion.png")
    assert code == 2 and f"{name} foretells numbers: --picture is of classes." in err and one_line(err)


def test_predict_foretells_the_number_of_each_row(run, table):
    assert run("train", "gaussian-regression", "--data", "table.csv", "--epochs", 30, "--out", "run")[0] == 0
    code, out, err = run("predict", "run", "table.csv", "--label", "price")
    assert code == 0, err
    found = np.array([[float(number) for number in re.findall(r"-?[\d.]+", line.split(": ")[1])] for line in out.splitlines()])
    mean, ninety, low, high = found.T
    price = np.loadtxt("table.csv", delimiter=",", skiprows=1)[:, 2]
    evaluated = json.loads(run("evaluate", "run", "--data", "table.csv", "--part", "all", "--json")[1])
    assert np.sqrt(np.mean((mean - price) ** 2)) == pytest.approx(evaluated["rmse"], rel=1e-3) and (ninety == 90).all()
    assert np.mean((low <= price) & (price <= high)) == evaluated["inside_90"]


def test_predict_takes_no_rows_for_a_series(run):
    assert run("train", "gaussian-regression", "--data", "co2", "--epochs", 1, "--out", "run")[0] == 0
    code, _, err = run("predict", "run", "table.csv")
    assert code == 1 and one_line(err) and "was trained on sequences of shape (24, 1): `cnnlib evaluate` measures it" in err


def test_a_run_that_kept_no_draw_yet_says_so_and_goes_on(run, table):
    command = ("train", "sgld", "--data", "table.csv", "--out", "run", "--batch-size", 160)
    code, out, err = run(*command, "--epochs", 1, "--every", 2)
    assert code == 0 and "no draws of the weights yet: one is kept every 2 steps (--epochs, --every)" in out, err
    code, out, err = run("train", "sgld", "--data", "table.csv", "--out", "run", "--epochs", 2, "--resume")
    assert code == 0 and "inside their 90 % interval" in out, err


@pytest.mark.parametrize(("rows", "message"), [(1, "one sample is too few to train on one part and test on another"), (2, "")])
def test_very_small_tables(run, rows, message):
    with open("small.csv", "w") as file:
        file.write("a,b\n" + "1,2\n3,4\n"[: 4 * rows])
    code, _, err = run("train", "gaussian-regression", "--data", "small.csv", "--epochs", 1, "--out", "run")
    assert message in err and code == bool(message), err


def test_a_file_that_is_not_there(run):
    code, _, err = run("train", "mc-dropout", "--data", "prices.csv", "--out", "run")
    assert code == 1 and "prices.csv: there is no such file." in err and one_line(err)


@pytest.mark.parametrize("name", ["bernoulli-classifier", "categorical-classifier"])
def test_what_a_classifier_has_learnt_is_evaluated(run, name):
    x = np.random.default_rng(0).standard_normal((200, 2))
    with open("classes.csv", "w") as file:
        file.write("\n".join(["a,b,is", *(f"{a},{b},{'yes' if a + b > 0 else 'no'}" for a, b in x)]))
    code, out, err = run("train", name, "--data", "classes.csv", "--epochs", 40, "--lr", 0.02, "--out", "run")
    assert code == 0, err
    held_out = float(out.split("accuracy ")[-1].split()[0])
    code, out, err = run("evaluate", "run", "--data", "classes.csv", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["accuracy"] == pytest.approx(held_out, abs=1e-3) and found["samples"] == 40
    assert min(found["classes"].values()) > 0.8
