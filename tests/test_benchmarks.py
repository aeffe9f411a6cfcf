"""The benchmarks compare equal work, count it rightly and report what they measured. No test depends on a time."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import chart, limits, report, table
from benchmarks.pin import one_per_core
from benchmarks.rows import primitives, steps
from benchmarks.rows.row import POOL, Draw, aligned
from benchmarks.turns import environment
from cnnlib.backends import cpu, kernel_set

ROOT = Path(__file__).parent.parent
ROWS = {row.name: row for row in primitives()}
QUICK = [row for row in primitives(batch=1) if row.flops < 6e8 and row.elements < 8e6]
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # of the largest value: unequal work differs by far more


def outputs(row, result):
    result = result if isinstance(result, (tuple, list)) else (result,)
    return [np.asarray(a.detach() if hasattr(a, "detach") else a) for a in result][: row.compared]


def assert_same(row, found, expected):
    found, expected = outputs(row, found), outputs(row, expected)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert ours.dtype == theirs.dtype == row.dtype
        assert ours.size == theirs.size
        np.testing.assert_allclose(ours.ravel(), theirs.ravel(), rtol=0, atol=TOLERANCE[row.dtype] * np.abs(theirs).max())


def test_of_two_measured_limits_the_larger_holds():
    first, second = {"float32": 250.0, "bandwidth": {"262144": 90.0}}, {"float32": 240.0, "bandwidth": {"262144": 95.0}}
    assert limits.better(first, second) == {"float32": 250.0, "bandwidth": {"262144": 95.0}}
    assert limits.better(None, second) == second
    assert limits.better(first, "no C compiler found") == first
    assert limits.better(None, "no C compiler found") == "no C compiler found"


def test_names_are_unique():
    assert len(ROWS) == len(primitives())
    assert {row.name for row in QUICK} != set()


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.name)
def test_both_sides_compute_the_same(row):
    expected = row.run(kernel_set("reference"))()
    if cpu.available():
        assert_same(row, row.run(kernel_set("cpu"))(), expected)
    if importlib.util.find_spec("torch") and row.family != "dropout":  # PyTorch draws other random numbers
        import torch

        for way in row.ways:
            assert_same(row, row.run_torch(torch, way)(), expected)


@pytest.mark.parametrize("name", ["dropout 64×4096 forward", "dropout 64×4096 backward"])
def test_dropout_keeps_as_much_on_both_sides(name):
    torch = pytest.importorskip("torch")
    row = ROWS[name]
    (x,) = row.inputs(Draw(row.dtype))
    for y in (row.run(kernel_set("reference"))(), row.run_torch(torch)().numpy()):
        kept = y != 0
        assert abs(kept.mean() - 0.5) < 0.01
        np.testing.assert_allclose(y[kept], 2 * x[kept])


def test_all_families_and_passes_are_compared():
    quick = {row.name for row in QUICK}
    families = {row.family for row in primitives()}
    assert {row.family for row in QUICK} == families
    for end in ("forward", "dx", "dw", "dw db", "backward"):
        assert any(name.endswith(end) for name in quick)


@pytest.mark.parametrize(
    "name, flops, moved",
    [
        ("GEMM 512³", 268_435_456, 3_145_728),  # 2 · 512³; 3 · 512² · 4
        ("GEMM 512³ f64", 268_435_456, 6_291_456),
        ("GEMV 1×1024×1024", 2_097_152, 4_202_496),  # the matrix, x and y
        ("linear 784→256, batch 64 forward", 25_690_112, 1_070_080),  # (64 · 784 + 784 · 256 + 256 + 64 · 256) · 4
        ("conv 3×3 64→64, 16×32² forward", 1_207_959_552, 8_536_320),  # 2 · 16·64·32² · 64·9; x, y, w and b
        ("conv 3×3 64→64, 16×32² dx", 1_207_959_552, 8_536_064),  # no bias
        ("conv 11×11 s4 3→96, 8×227² dw", 1_686_643_200, 14_378_976),  # 8·96·55² · 3·121 · 2
        ("conv 5×5 groups 2 96→256, 8×27² forward", 3_583_180_800, 9_441_280),  # 8·256·27² · 48·25 · 2
        ("conv 3×3 depthwise 128→128, 16×28² forward", 28_901_376, 12_850_176),
        ("max pool 2×2 s2, 8×128×56² forward", 2_408_448, 16_859_136),  # x and y in 4 bytes, the argmax in one
        ("batch norm 16×64×56² backward", 28_901_376, 38_536_448),  # dy, x, dx; 5 numbers per channel
        ("relu 16×64×56² backward", 3_211_264, 38_535_168),
        ("Adam step, 1 × 1000k", 12_000_000, 28_000_000),  # reads w, g, m, v, writes w, m, v
        ("embedding 4096 of 10000×256 forward", 0, 8_421_376),
    ],
)
def test_work_counted_by_hand(name, flops, moved):
    assert (ROWS[name].flops, ROWS[name].bytes) == (flops, moved)


def test_every_row_knows_its_work():
    assert all(row.bytes > 0 for row in ROWS.values())
    assert all(row.flops > 0 for row in ROWS.values() if "embedding" not in row.name)


def test_drawn_arrays_are_equal_in_every_process_and_differ_from_each_other():
    one, other = Draw("float32"), Draw("float32")
    a, b = one.normal(3, 5), one.normal(3, 5)
    assert np.array_equal(other.normal(3, 5), a)
    assert not np.array_equal(a, b)
    assert a.dtype == np.float32
    long = Draw("float64").normal(len(POOL) + 2)
    assert np.array_equal(long[-2:], POOL[:2])


def test_our_side_gets_aligned_copies():
    a = np.arange(7, dtype=np.float32)[1:]
    b = aligned(a)
    assert b.ctypes.data % 64 == 0 and b.dtype == a.dtype
    np.testing.assert_array_equal(b, a)


def test_training_steps_have_both_sides():
    rows = steps.rows()
    assert rows
    assert all(row.family == report.STEP and "" in row.ways for row in rows)


# ---- the report, from stored figures


@pytest.fixture
def figures():
    return json.loads((ROOT / "tests" / "benchmark.json").read_text("utf-8"))


def test_ratios(figures):
    conv = figures["rows"][1]
    assert report.ratio(conv, "1", "torch") == pytest.approx(8.0 / 4.0)
    assert report.ratio(conv, "1", "torch tuned") == pytest.approx(7.0 / 4.0)
    assert report.ratio(conv, "1", "best") == pytest.approx(3.0 / 4.0)  # channels_last
    assert report.ratio(conv, "1", "reference") is None
    assert report.ratio(conv, "3", "best") is None


def test_bound_is_the_nearer_limit(figures):
    gemm, _, relu, _ = figures["rows"]
    found = report.bound(gemm, "1", figures["limits"])
    assert found.unit == "GFLOP/s"
    assert found.part == pytest.approx(gemm["flops"] / gemm["seconds"]["1"]["cnnlib"] / 250e9)
    found = report.bound(relu, "1", figures["limits"])
    assert found.unit == "GB/s"
    assert found.rate == pytest.approx(relu["bytes"] / relu["seconds"]["1"]["cnnlib"] / 1e9)
    assert report.bound(relu, "2", {"2": "no C compiler found"}) is None


def test_bandwidth_between_the_measured_sizes():
    measured = {"1024": 100.0, "4096": 50.0}
    assert report.bandwidth(measured, 1) == 100.0
    assert report.bandwidth(measured, 2048) == pytest.approx(75.0)
    assert report.bandwidth(measured, 1e9) == 50.0


def test_means_and_rows_below_the_floor(figures):
    rows = report.primitives(figures)
    ratios = [report.ratio(row, "1", "best") for row in rows]
    assert report.geometric_mean(rows, "1", "best") == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))
    assert report.below_floor(rows, "1") == [("conv 3×3 64→64, 16×32² forward", 0.75)]
    assert report.geometric_mean(report.steps(figures), "1", "torch") == pytest.approx(1.5)


def test_of_three_runs_the_middle_ratio_counts(figures):
    runs = [{"cnnlib": 2.0, "torch": 2.0, "torch tuned": 1.8}, {"cnnlib": 1.0, "torch": 2.0}, {"cnnlib": 8.0, "torch": 4.0}]
    assert report.middle(figures["rows"][0], "1", runs) is runs[0]


def test_table_goes_between_its_marks(figures, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", "utf-8")
    file = str(ROOT / "tests" / "benchmark.json")
    monkeypatch.setattr(sys, "argv", ["table", file, file, "--page", str(page)])
    table.main()
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n{table.BEGIN}\n") and text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert all(row["name"] in text for row in figures["rows"])
    assert text.count("| relu") == 1 and text.count("1 thread: conv 3×3 64→64, 16×32² forward 0.75") == 2  # all rows but once
    assert "| 1.75 | 0.75 |" in text  # tuned, fastest
    assert "1 thread: conv 3×3 64→64, 16×32² forward 0.75" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("| relu") or line.startswith("| GEMM")]
    assert len(set(widths)) == 1


def test_chart_shows_every_row_and_stays_small(figures, tmp_path):
    pytest.importorskip("matplotlib")
    chart.draw(figures, tmp_path / "chart.svg")
    text = (tmp_path / "chart.svg").read_text("utf-8")
    assert all(row["name"] in text for row in figures["rows"])
    assert len(text) < 40_000
    chart.draw(figures, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size


# ---- the command


def test_the_command_measures_and_writes_all_figures(tmp_path):
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.cpu", "--against", "reference", "--threads", "1", "--seconds", "0.01"]
    command += ["--only", "GEMV 1×|LCN", "--dtype", "float32", "--json", str(file)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text("utf-8"))
    assert [row["name"] for row in found["rows"]] == ["GEMV 1×1024×1024", "LCN 8×32×32² forward", "LCN 8×32×32² backward"]
    assert all(row["seconds"]["1"].keys() == {"cnnlib", "reference"} for row in found["rows"])
    assert found["versions"]["numpy"] == np.__version__
    assert found["command"].endswith(f"--json {file.name}")  # and not where it lies
    assert "geometric mean over primitives: reference" in done.stdout


def test_an_unset_environment_and_tuned_malloc(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    plain, tuned = environment("torch", 2), environment("torch tuned", 2)
    assert plain["OMP_NUM_THREADS"] == "2"
    assert not {"OMP_WAIT_POLICY", "MALLOC_ARENA_MAX"} & plain.keys()
    assert {name for name in tuned if name not in plain} == {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"}


def test_both_sides_are_held_to_avx2(monkeypatch):
    monkeypatch.delenv("CNNLIB_ISA", raising=False)
    assert "ONEDNN_MAX_CPU_ISA" not in environment("torch", 1)
    monkeypatch.setenv("CNNLIB_ISA", "avx2")
    assert environment("torch", 1)["ONEDNN_MAX_CPU_ISA"] == environment("torch", 1)["MKL_ENABLE_INSTRUCTIONS"] == "AVX2"


def test_pinned_to_one_hardware_thread_per_core():
    cpus = one_per_core([0, 1, 2, 3])
    assert sorted(cpus) == [0, 1, 2, 3]
