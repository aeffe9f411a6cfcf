"""Every step of the kernel ladders is right, at odd sizes too: the page that explains them rests on that."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "kernels" / "run.py"
spec = importlib.util.spec_from_file_location("kernel_ladders", SCRIPT)
ladders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ladders)

STEPS = [step for name in ladders.LADDERS for step in ladders.steps_of(name)]
compiled = pytest.mark.skipif(ladders.compiler() is None or sys.platform == "win32", reason="no C compiler")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")

    def build(step, threads=2):
        own = folder / f"{threads}"
        own.mkdir(exist_ok=True)
        return step.compile(ladders.compiler(), own, threads)

    return build


@compiled
@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.ladder}/{s.source.stem}")
def test_step_agrees_with_float64_at_odd_sizes(step, build):
    build(step)
    for dims in ladders.LADDERS[step.ladder].odd:
        ladders.check(step, dims)


@compiled
def test_results_do_not_depend_on_the_number_of_threads(build):
    step = next(s for s in STEPS if s.source.stem == "09_threads")
    one, three = (ladders.check(build(step, threads), (45, 300, 77)) for threads in (1, 3))
    np.testing.assert_array_equal(one, three)


@compiled
def test_a_wrong_step_is_found(tmp_path):
    (tmp_path / "gemm").mkdir()
    wrong = tmp_path / "gemm" / "01_wrong.c"
    text = (SCRIPT.parent / "gemm" / "01_three_loops.c").read_text(encoding="utf-8")
    wrong.write_text(text.replace("k < K", "k < K - 1"), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"01_wrong\.c is wrong at"):
        ladders.check(ladders.Step(wrong).compile(ladders.compiler(), tmp_path), (3, 4, 5))
    wrong.write_text(text.replace("c[i * N + j] = sum;", "c[i * N + j] = sum; c[M * N] = 0;"), encoding="utf-8")
    with pytest.raises(AssertionError, match="writes outside of its array"):
        ladders.check(ladders.Step(wrong).compile(ladders.compiler(), tmp_path / "gemm"), (3, 4, 5))


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.ladder}/{s.source.stem}")
def test_a_step_is_short(step):
    assert len(step.idea) <= 70
    assert len(step.source.read_text(encoding="utf-8").splitlines()) <= 120


@compiled
def test_the_table(tmp_path):
    command = [sys.executable, SCRIPT, "--size", "40", "--steps", "1,3-4", "--rounds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if line[:4].strip().isdigit()]
    assert rows == ["1", "3", "4"] and "One core: at most" in done.stdout


@compiled
def test_the_table_of_memory(tmp_path):
    command = [sys.executable, SCRIPT.with_name("memory.py"), "--size", "1", "--rounds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list("1234567")


def test_without_a_compiler_it_says_what_to_do(tmp_path):
    command = [sys.executable, SCRIPT, "--size", "8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PATH": str(tmp_path), "SYSTEMROOT": ""})
    assert done.returncode == 1 and "install one, or set CC" in done.stderr
