"""cnnlib compare and the benchmark with the stand-in for a GPU: the same code as with one."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.rows import primitives
from cnnlib import models
from cnnlib.backends import kernel_set
from cnnlib.backends.cuda import tuning
from cnnlib.compare import compare
from cnnlib.tensor import to_device
from tests import test_cuda

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((2, 1, 32, 32)).astype(np.float32), np.array([0, 3])
QUICK = [row for row in primitives(batch=1) if row.flops < 3e6 and row.elements < 3e5]


def test_the_device_agrees_with_the_reference(device):
    result = compare(models.LeNet5, X, Y, repeats=1, backends=["reference", "cuda"], batch_sizes=(1, 2))
    assert [b.name for b in result.backends if not b.skipped] == ["reference", "cuda"]
    assert result.agree and result.worst < 1e-4 and result.culprit is None
    assert set(result.batches[2]) == {"reference", "cuda"}


@pytest.mark.parametrize(
    ("kernel", "culprit"),
    [("max_pool2d_backward", "backward of s4.max_pool2d on cuda"), ("relu_forward", "forward of act1.relu on cuda")],
)
def test_an_injected_error_is_named_at_its_layer(device, kernel, culprit):
    result = compare(models.LeNet5, X, Y, repeats=1, backends=["cuda"], inject=kernel)
    assert not result.agree and result.culprit.startswith(culprit)


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.name)
def test_rows_of_the_benchmark_compute_the_same_on_the_device(device, row):
    found, expected = row.run_cuda(kernel_set("cuda"))(), row.run(kernel_set("reference"))()
    several = isinstance(expected, tuple)
    for ours, theirs in zip(found if several else [found], expected if several else [expected], strict=True):
        np.testing.assert_allclose(to_device(ours, "cpu"), theirs, rtol=1e-3, atol=1e-4 * abs(theirs).max())


def test_a_row_is_measured_against_the_ceilings(device):
    row = next(row for row in QUICK if row.dtype == "float32")
    found = gpu.measure(row, None, {"GB/s": 100.0, "float32": 1.0}, seconds=0.001)
    assert found["ms"].keys() == {"ours"} and found["ratio"] is None
    assert found["of ceiling"] == pytest.approx(max(found["GB/s"] / 100.0, found["TFLOP/s"]))


def test_steps_are_measured_with_and_without_a_graph(device):
    from benchmarks.nets import NETS

    name = next(name for name in NETS if name.startswith("MLP"))
    found = gpu.measure_step(name, NETS[name], None, seconds=0.001)
    assert found["ms"].keys() == {"ours", "ours, graph"} and found["ratios"] == {}


# ---- the benchmark's sections


def options(tmp_path, *words):
    return gpu.arguments(["--json", str(tmp_path / "figures.json"), "--seconds", "0.001", *words])


@pytest.fixture
def few(monkeypatch):
    """Three rows, of which the second is wrong."""
    three = [row for row in QUICK if row.dtype == "float32"][:3]

    def fails(*_):
        raise RuntimeError("the second\nat length")

    monkeypatch.setattr(gpu, "primitives", lambda: [three[0], replace(three[1], ours=fails), three[2]])
    monkeypatch.setattr(gpu, "with_tf32", lambda on: None)
    monkeypatch.setattr(gpu, "ceilings", lambda: {"GB/s": 100.0, "float32": 1.0, "float64": 1.0})
    return [row.name for row in three]


def test_a_row_that_fails_does_not_end_its_section(device, few, tmp_path):
    assert gpu.measured(options(tmp_path, "--section", "rows")) == 0
    found = gpu.read(tmp_path / "figures.json")
    assert [row["name"] for row in found["rows"]] == few and found["running"] is None
    assert found["rows"][1] == {"name": few[1], "error": "RuntimeError: the second"}
    assert found["rows"][2]["ms"]["ours"] > 0


def test_a_section_goes_on_behind_the_row_that_ended_its_process(device, few, tmp_path):
    gpu.write(
        tmp_path / "figures.json", {"ceilings": gpu.ceilings(), "rows": [{"name": few[0], "ratio": 2.0}], "running": few[2]}
    )
    assert gpu.measured(options(tmp_path, "--section", "rows")) == 0
    rows = {row["name"]: row for row in gpu.read(tmp_path / "figures.json")["rows"]}
    assert rows[few[0]]["ratio"] == 2.0 and rows[few[2]]["error"] == "the process ended" and len(rows) == 3


def test_a_gpu_that_works_no_more_ends_the_process(device, few, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "works", lambda: False)
    assert gpu.measured(options(tmp_path, "--section", "rows")) == 1
    assert len(gpu.read(tmp_path / "figures.json")["rows"]) == 1


def test_a_test_after_which_nothing_works_ends_its_process(monkeypatch):
    """What follows would fail for nothing: in a process of pytest-xdist, which is started anew, and without."""
    ended = []
    monkeypatch.setattr(test_cuda.os, "_exit", ended.append)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with pytest.raises(pytest.exit.Exception, match="after test_x nothing runs on the GPU any more"):
        test_cuda.end_the_process("test_x")
    assert not ended
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    with pytest.raises(pytest.exit.Exception):
        test_cuda.end_the_process("test_x")
    assert ended == [1]


def test_the_method_of_a_convolution_is_told_with_its_times(device, monkeypatch):
    row = next(row for row in QUICK if row.family == "other convolutions" and row.name.endswith("forward"))
    times = {"windows": 1.0, "tiles": 2.0}
    monkeypatch.setattr(tuning, "fastest", lambda problem, ways, otherwise: min(times, key=times.get))
    monkeypatch.setattr(tuning, "measured", lambda: SimpleNamespace(get=lambda problem: times))
    found = gpu.measure(row, None, {"GB/s": 1.0, row.dtype: 1.0}, 0.001)
    assert found["methods"] == {"forward": {"method": "windows", "ms": times}}
    assert gpu.cells(found)[-1] == "windows (windows 1.0000, tiles 2.0000)"
    assert gpu.cells({"name": "a", "error": "TypeError: b"}) == ["a", "–", "", "", "", "", "TypeError: b"]


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    inner = f"import time, pathlib; time.sleep(3); pathlib.Path({str(tmp_path / 'late')!r}).touch()"
    command = script(tmp_path, f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}])")
    assert gpu.run(command, 1.0) is None
    assert gpu.run(script(tmp_path, "raise SystemExit(3)"), 30.0) == 3
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(
    ("code", "line", "right"), [(0, "8 passed, 1 skipped in 7s", True), (0, "9 skipped in 1s", False), (None, "..", False)]
)
def test_tests_that_did_not_run_are_not_right(monkeypatch, code, line, right):
    monkeypatch.setattr(gpu, "run", lambda *_, output: output.write(f"..\n{line}\n".encode()) and code)
    found = gpu.correctness(1.0)
    assert gpu.right({"correctness": found}) == right and ("cut off" in found) == (code is None)


def test_of_tests_that_were_cut_off_it_is_told_which_had_failed(monkeypatch):
    lines = b"tests/test_cuda.py::test_a PASSED [ 1%]\ntests/test_cuda.py::test_b FAILED [ 2%]\ntests/test_cuda.py::test_c "
    monkeypatch.setattr(gpu, "run", lambda *_, output: output.write(lines) and None)
    assert gpu.correctness(1.0)["wrong"] == ["tests/test_cuda.py::test_b FAILED [ 2%]"]


def test_every_section_is_written_whatever_happens_to_the_others(device, tmp_path, monkeypatch, capsys):
    """The first ends in errors, one without a new row, one is too late; the tests find something."""
    codes = {"steps": [1, 1, 0], "rows": [1, 1], "rows, TF32": [None], "steps, TF32": [0]}

    def run(command, seconds, environment=None, output=None):
        if output is not None:
            output.write(
                b"....F\nFAILED tests/test_cuda.py::test_x - AssertionError: 3 failed\n1 failed, 4 passed in 0.1s\nat exit\n"
            )
            return 1
        section, part = command[command.index("--section") + 1], Path(command[command.index("--json") + 1])
        assert environment["CUPY_TF32"] == str(int("TF32" in section))
        found, kind = gpu.read(part), section.partition(",")[0]
        if section != "rows":
            found[kind] = [*found.get(kind, ()), {"name": f"{len(found.get(kind, ()))}", "error": "none"}]
            gpu.write(part, found)
        return codes[section].pop(0)

    monkeypatch.setattr(gpu, "run", run)
    assert gpu.main(["--json", str(tmp_path / "figures.json")]) == 1
    figures = gpu.read(tmp_path / "figures.json")
    assert figures["correctness"] | {"output": 0} == {
        "exit code": 1, "passed": 4, "failed": 1, "skipped": 0, "error": 0, "output": 0,
        "wrong": ["FAILED tests/test_cuda.py::test_x - AssertionError: 3 failed"],
    }  # fmt: skip
    assert len(figures["steps"]["steps"]) == 3 and figures["rows"] == {"error": "exit code 1"}
    assert figures["rows, TF32"]["cut off"] and len(figures["steps, TF32"]["steps"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json"] and "test_x" in capsys.readouterr().out
