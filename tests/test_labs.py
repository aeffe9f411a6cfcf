"""The labs: no run is lost or computed twice, sentences follow the figures, each runs from its plan to its picture."""

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cnnlib.errors import DataError
from examples.labs import lab, setting, table
from examples.labs.__main__ import LABS, load

PLAN = lab.grid(seed=range(2), norm=["none", "lrn"])


def measured(**settings):
    return {"accuracy": 0.5 + 0.1 * settings["seed"] + (settings["norm"] == "lrn") * 0.01}


def silent(*text, **_):
    pass


def test_grid_is_the_product_in_order_with_single_values_repeated():
    assert lab.grid(seed=range(2), epochs=3, norm=["a", "b"])[:3] == [
        {"seed": 0, "epochs": 3, "norm": "a"}, {"seed": 0, "epochs": 3, "norm": "b"}, {"seed": 1, "epochs": 3, "norm": "a"},
    ]  # fmt: skip


def test_an_interrupted_lab_goes_on_with_the_next_run(tmp_path):
    asked = []

    def until_killed(**settings):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(settings)
        return measured(**settings)

    with pytest.raises(KeyboardInterrupt):
        lab.complete(lab.Store(tmp_path / "some.json"), PLAN, until_killed, silent)
    assert asked == PLAN[:2]

    def rest(**settings):
        asked.append(settings)
        return measured(**settings)

    runs = lab.complete(lab.Store(tmp_path / "some.json"), PLAN, rest, silent)
    assert asked == PLAN
    assert [run["settings"] for run in runs] == PLAN
    assert runs.get("accuracy", norm="lrn") == [0.51, 0.61]


def test_runs_survive_a_process_that_is_killed(tmp_path):
    """Not even a handler runs: the process ends itself inside the third run."""
    code = (
        "import os, pathlib\nfrom examples.labs import lab\n"
        "def measure(seed):\n    if seed == 2: os._exit(9)\n    return {'x': seed}\n"
        f"lab.complete(lab.Store(pathlib.Path({str(tmp_path / 'some.json')!r})), lab.grid(seed=range(5)), measure)"
    )
    root = lab.ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=_seen(root), capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert [run["measured"]["x"] for run in lab.Store(tmp_path / "some.json").runs] == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["some.json"]


def _seen(root):
    import os
    from pathlib import Path

    import cnnlib

    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(Path(cnnlib.__file__).parent.parent)])}


def test_a_complete_lab_measures_nothing(tmp_path):
    store = lab.Store(tmp_path / "some.json")
    before = lab.complete(store, PLAN, measured, silent)

    def never(**settings):
        raise AssertionError("measured twice")

    assert lab.complete(lab.Store(tmp_path / "some.json"), PLAN, never, silent) == before


def test_other_settings_are_measured_anew_and_old_runs_kept_but_not_used(tmp_path):
    store = lab.Store(tmp_path / "some.json")
    lab.complete(store, lab.grid(seed=0, norm="none", epochs=1), lambda **s: {"x": 1.0}, silent)
    runs = lab.complete(store, lab.grid(seed=0, norm="none", epochs=2), lambda **s: {"x": 2.0}, silent)
    assert runs.get("x") == [2.0]
    assert [run["measured"]["x"] for run in lab.Store(tmp_path / "some.json").runs] == [1.0, 2.0]


def test_stored_numbers_are_plain_and_what_is_not_finite_is_null(tmp_path):
    store = lab.Store(tmp_path / "some.json")
    store.add({"seed": 0}, {"loss": float("nan"), "curve": np.array([1 / 3, np.inf]), "n": np.int64(3)}, 1.0)
    run = json.loads((tmp_path / "some.json").read_text("utf-8"))["runs"][0]
    assert run["measured"] == {"loss": None, "curve": [0.333333, None], "n": 3}
    runs = lab.Store(tmp_path / "some.json").select([{"seed": 0}])
    assert np.isnan(runs.get("loss")[0]) and np.isnan(runs.get("curve")[0][1])


def test_a_change_is_one_only_when_every_seed_agrees():
    said = lab.compared("LRN", [0.91, 0.93], [0.90, 0.91], "raises accuracy", "lowers accuracy")
    assert said == "LRN raises accuracy with every seed: +1.50 points (+1.00 … +2.00)."
    said = lab.compared("LRN", [0.89, 0.90], [0.90, 0.91], "raises accuracy", "lowers accuracy")
    assert said == "LRN lowers accuracy with every seed: −1.00 points (−1.00 … −1.00)."
    said = lab.compared("LRN", [0.91, 0.90], [0.90, 0.91], "raises accuracy", "lowers accuracy")
    assert said == "LRN changes nothing that every seed agrees on: +0.00 points (−1.00 … +1.00)."
    assert lab.compared("LRN", [0.91], [0.90]) == "LRN raises: +1.00 points."


def test_spread_is_mean_smallest_and_largest():
    assert lab.spread([0.5, 0.6, 0.7]) == "60.00 % (50.00 % … 70.00 %)"
    assert lab.spread([12345.0], lab.number) == "12,345"


def stored(plan, **columns):
    """Runs as a store gives them; a column is a function of the settings."""
    return lab.Runs(
        {"settings": s, "measured": {name: f(s) for name, f in columns.items()}, "seconds": 1.0, "computed": "cpu"}
        for s in plan
    )


@pytest.mark.parametrize(("worse", "words"), [(0.4, "raises"), (-0.4, "lowers")])
def test_residual_says_what_depth_does_whichever_way_it_goes(worse, words):
    module = load("residual")
    runs = stored(
        module.plan(quick=False),
        loss=lambda s: [1.0, 0.5 + (0 if s["skip"] else worse) * s["depth"] / 44 + 0.01 * s["seed"]],
        test=lambda s: [0.5, 0.8],
    )
    rows, reading = module.finding(runs)
    assert [row["layers"] for row in rows] == ["8", "20", "44"] * 2
    assert f"In plain networks depth, 44 layers for 8, {words} the training loss with every seed" in reading
    assert "In residual networks depth, 44 layers for 8, changes nothing" in reading


def test_relu_tanh_counts_epochs_to_a_quarter_and_names_who_never_gets_there():
    module = load("relu_tanh")
    assert module.epochs_needed([0.6, 0.3, 0.2]) == pytest.approx(2.5)
    assert module.epochs_needed([0.6, 0.3]) is None
    errors = {"ReLU": [0.6, 0.25], "tanh": [0.8, 0.6, 0.4, 0.25]}
    plan = module.plan(quick=False)
    both = stored(plan, error=lambda s: errors[s["activation"]], data=lambda s: "emoji")
    assert "tanh takes 2.0 times as many epochs as ReLU" in module.finding(both)[1]
    one = stored(plan, error=lambda s: [0.6, 0.25] if s["activation"] == "tanh" else [0.6, 0.5], data=lambda s: "emoji")
    assert "tanh gets there" in module.finding(one)[1] and "ReLU" not in module.finding(one)[1]


def test_learning_rate_counts_a_diverged_seed_as_no_loss():
    module = load("learning_rate")
    runs = stored(module.plan(quick=False), loss=lambda s: None if s["rate"] > 0.2 and s["seed"] == 1 else s["rate"])
    rows, _ = module.finding(runs)
    assert rows[0]["best rate"] == "0.0001" and rows[0]["within twice that loss"] == "0.0001 … 0.0001"
    assert module.mean_loss(runs, "SGD", 0.3) == float("inf")


def test_optimiser_paths_arrive_where_newton_says():
    """On ½(x² + 50 y²) SGD with η multiplies x by 1 − η and y by 1 − 50 η in every step."""
    module = load("optimiser_paths")
    path, needed = module.walk("valley", "SGD", 0.03, 300)
    x, y, steps = -4.0, 1.0, 0
    while 0.5 * (x * x + 50 * y * y) >= 1e-3:
        x, y, steps = 0.97 * x, -0.5 * y, steps + 1
    assert needed == steps
    np.testing.assert_allclose(path[3], [-4 * 0.97**3, -(0.5**3)], rtol=1e-5)
    assert module.walk("valley", "SGD", 0.1, 300)[1] is None  # 1 − 50 η = −4: diverges


def test_corruptions_shift_moves_the_picture_and_brings_zeros_in():
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    shifted = load("corruptions").shifted(x, 1, -1)
    np.testing.assert_array_equal(shifted[0, 0], [[0, 0, 0], [2, 3, 0], [5, 6, 0]])


def test_principal_components_span_the_plane_of_largest_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5)) * [5, 0.1, 3, 0.1, 0.1] + 7
    mean, directions = load("bottleneck").principal_components(x)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    assert np.abs(directions[[0, 2], [0, 1]]).min() > 0.99


def test_table_lists_what_is_measured_and_names_what_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    page = tmp_path / "labs.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", "utf-8")
    done, missing = load("response_norm"), load("dropout")
    store = lab.store_of(done)
    for settings in done.plan(quick=False):
        store.add(settings, {"test": [0.8, 0.9 - 0.1 * settings["lrn"]], "loss": [0.3]}, 6.0)
    table.write([done, missing], page)
    text = page.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "LRN lowers test accuracy with every seed: −10.00 points" in text
    assert "| with LRN | 80.00 % (80.00 % … 80.00 %) |" in text and "1.0 minutes" in text
    assert "Not measured yet: `dropout`." in text


def test_the_page_is_what_the_stored_figures_say():
    """Whoever measures anew also writes the page: python -m examples.labs --table."""
    page = table.PAGE.read_text("utf-8")
    assert page.count(table.BEGIN) == page.count(table.END) == 1
    between = page.split(table.BEGIN)[1].split(table.END)[0].strip()
    assert between in ("", table.findings([load(name) for name in LABS]))


def test_labs_come_from_short_to_long_and_fit_three_hours():
    minutes = [load(name).MINUTES for name in LABS]
    assert minutes == sorted(minutes) and sum(minutes) <= 180
    scripts = {p.stem for p in (lab.ROOT / "examples" / "labs").glob("*.py") if "plan(quick)" in p.read_text("utf-8")}
    assert scripts - {"lab"} == set(LABS)


def test_a_lab_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    main = importlib.import_module("examples.labs.__main__")
    ran = []

    def run(module, quick):
        ran.append(module)
        if len(ran) == 1:
            raise ValueError("broken")

    monkeypatch.setattr(lab, "run", run)
    monkeypatch.setattr(main, "load", lambda name: SimpleNamespace(name=name))
    assert main.run_all(["a", "b"], quick=True) == ["a"] and len(ran) == 2
    assert "ValueError: broken" in capsys.readouterr().err


def test_missing_data_are_one_sentence(monkeypatch, capsys):
    main = importlib.import_module("examples.labs.__main__")

    def run(module, quick):
        raise DataError("fashion: not here.")

    monkeypatch.setattr(lab, "run", run)
    monkeypatch.setattr(main, "load", lambda name: SimpleNamespace(name=name))
    assert main.run_all(["a"], quick=True) == ["a"]
    assert capsys.readouterr().err == "a: fashion: not here.\n"


@pytest.mark.parametrize("name", LABS)
def test_every_lab_runs_from_its_plan_to_its_picture(name, tmp_path, monkeypatch, capsys):
    for package in ("matplotlib", *(["sklearn"] if name == "classical" else []), *(["scipy"] if name == "corruptions" else [])):
        pytest.importorskip(package)
    monkeypatch.setattr(lab, "QUICK", tmp_path)
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    module = load(name)
    lab.run(module, quick=True)
    stored_runs = lab.store_of(module, quick=True).select(module.plan(quick=True))
    assert len(stored_runs) == len(module.plan(quick=True))
    text, svg = capsys.readouterr().out, (tmp_path / f"{name}.svg").read_text("utf-8")
    assert module.CLAIM in text and module.finding(stored_runs)[1] in text and "</svg>" in svg

    def never(**settings):
        raise AssertionError("measured twice")

    monkeypatch.setattr(module, "measure", never)
    lab.run(module, quick=True)
    assert (tmp_path / f"{name}.svg").read_text("utf-8") == svg  # the same figures, the same bytes


def test_emoji_hold_out_both_drawings_or_none(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    flags = {"has_img_google": True, "has_img_twitter": True}
    listed = [{"category": "ab"[i % 2], "image": f"{i}.png", "name": f"NUMBER {i}", **flags} for i in range(20)]
    listed[3]["skin_variations"] = {"1F3FB": {"image": "light.png", **flags}}  # left out
    for vendor, shade in (("google", 0), ("twitter", 100)):
        folder = tmp_path / "emoji" / vendor / "img" / vendor / "64"
        folder.mkdir(parents=True)
        (tmp_path / "emoji" / vendor / "emoji.json").write_text(json.dumps(listed), "utf-8")
        for i in range(20):
            image.new("RGB", (64, 64), (shade + i, 0, 0)).save(folder / f"{i}.png")
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    train, test = setting.emoji()
    number = lambda data: np.rint(data.x[:, 0, 0, 0] * 255).astype(int)  # noqa: E731
    drawn = [set(number(data) % 100) for data in (train, test)]
    assert len(train) == 32 and len(test) == 8 and not drawn[0] & drawn[1]
    assert (number(train) % 2 == train.y).all() and train.x.shape[1:] == (3, 32, 32)
