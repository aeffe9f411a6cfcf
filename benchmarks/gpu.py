"""The CUDA kernels on this machine's GPU: are they right, how fast against PyTorch, how near to what the GPU can do?

    python -m benchmarks.gpu                              # everything, less than eight minutes; needs no network
    python -m benchmarks.gpu --only conv --json here.json

First tests/test_cuda.py runs: every case of the operation table and the kernels at larger sizes against the textbook on the
CPU; what is wrong there is listed, and the exit code tells. Then each training step and each row of benchmarks/rows runs in
turns with PyTorch (eager, TF32 off on both sides, then once more with it on), the steps also as CUDA graphs. A ratio is
PyTorch's time divided by ours: above 1, ours is faster. Times are the device's own, between events around as many calls as fill
a few milliseconds: the median of the bursts.

Each section is a process of its own, with its share of the time: what fails in it, or takes too long, costs the others nothing.
Figures are written as they come, after each section into the JSON, and before that into a file beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cpu import progress, rounded
from benchmarks.rows import primitives
from benchmarks.rows.row import Row
from cnnlib.cli.pipe import reader_may_leave

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BURSTS = 5
TF32_MATTERS = ("GEMM", "GEMV", "linear", "conv", "LSTM", "GRU", "RNN")  # rows that hold matrix products
SECTIONS = {"steps": 70, "rows": 100, "rows, TF32": 50, "steps, TF32": 40}  # seconds that each is sure to get


def main(words: list[str] | None = None) -> int:
    options = arguments(words)
    if options.section:
        return measured(options)
    from cnnlib.backends import available

    if reason := available()["cuda"]:
        sys.exit(f"benchmarks.gpu: no usable GPU: {reason}")
    end = time.monotonic() + 60 * options.minutes
    figures: dict[str, Any] = {"date": datetime.date.today().isoformat(), **machine(), "command": " ".join(sys.argv[1:])}
    path = (options.json or RESULTS / f"{figures['date']}-gpu.json").resolve()
    if not options.only:
        figures["correctness"] = correctness(end - sum(SECTIONS.values()) - time.monotonic())
    for i, name in enumerate(SECTIONS):
        write(path, figures)
        print(f"{name}, {end - time.monotonic():.0f} s are left", flush=True)
        later = sum(list(SECTIONS.values())[i + 1 :])
        figures[name] = in_its_own_process(name, options, path.with_suffix(".part.json"), end - later)
    write(path, figures)
    print(f"{path} written", flush=True)
    show(figures)
    return int(not right(figures))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this text; no correctness")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each row and side")
    parser.add_argument("--minutes", type=float, default=7.5, help="for everything")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/DATE-gpu.json")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)  # of the inner process
    return parser.parse_args(words)


def write(path: Path, figures: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(rounded(figures), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(whole, path)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def machine() -> dict[str, Any]:
    import cupy

    from cnnlib.backends.cuda import health

    device = cupy.cuda.runtime.getDeviceProperties(0)
    versions = {"cupy": cupy.__version__, "driver": health.dotted(health.driver_cuda())}
    if importlib.util.find_spec("torch"):
        versions["torch"] = importlib.metadata.version("torch")
    return {
        "machine": {"gpu": device["name"].decode(), "processors": device["multiProcessorCount"]},
        "versions": versions,
    }


def correctness(seconds: float) -> dict[str, Any]:
    """The GPU's tests, in several processes and with a limit for each test where pytest has the plugins for it."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/test_cuda.py", "-rfE", "--tb=short"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", "6"]
    if importlib.util.find_spec("pytest_timeout"):
        command += ["--timeout=90", "--timeout-method=thread"]
    with tempfile.TemporaryFile() as file:
        code = run(command, seconds, output=file)
        file.seek(0)
        output = file.read().decode(errors="replace").rstrip().splitlines() or [""]
    summary = next((line for line in reversed(output) if re.search(r"\d (passed|failed|skipped|error).* in [\d.]+s", line)), "")
    counted = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", summary)}
    found: dict[str, Any] = {"exit code": code} | {
        word: counted.get(word, 0) for word in ("passed", "failed", "skipped", "error")
    }
    if code != 0:
        print(*output[-60:], sep="\n", flush=True)
        wrong = [line for line in output if re.search(r"\b(FAILED|ERROR)\b", line)]  # as they came, and summed up at the end
        found["wrong"] = [line for line in wrong if line.startswith(("FAILED", "ERROR"))] or wrong
        found["output"] = output[-400:]
    return found if code is not None else found | {"cut off": f"after {seconds:.0f} s"}


def run(command: list[str], seconds: float, environment: dict[str, str] | None = None, output: Any = None) -> int | None:
    """The exit code; None when its time was over: then it is ended, with all that it started."""
    error = None if output is None else subprocess.STDOUT
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=error, process_group=0)
    try:
        return process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        return None


def right(figures: dict[str, Any]) -> bool:
    tests = figures.get("correctness", {"exit code": 0, "passed": 1})
    return tests["exit code"] == 0 and tests["passed"] > 0


def in_its_own_process(name: str, options: argparse.Namespace, part: Path, until: float) -> dict[str, Any]:
    """Where it ends in an error, another goes on behind the row that it ended in."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--json", str(part)]
    command += ["--seconds", str(options.seconds), "--only", options.only]
    environment = os.environ | {"CUPY_TF32": str(int("TF32" in name))}  # CuPy reads it once, at import
    part.unlink(missing_ok=True)
    before = None
    while True:
        code = run(command, until - time.monotonic(), environment)
        found = read(part)
        if not code or found == before:
            break
        before = found
    part.unlink(missing_ok=True)
    return found | ({} if code == 0 else {"cut off": "its time was over"} if code is None else {"error": f"exit code {code}"})


# ---- in the inner process


def measured(options: argparse.Namespace) -> int:
    """One section, into the file. What is there already was measured by an earlier process, which ended in ``running``."""
    part, kind, tf32 = options.json, options.section.partition(",")[0], "TF32" in options.section
    torch, found = with_tf32(tf32), read(part)
    if not found:
        found = {"ceilings": ceilings(), "running": None, kind: []}
    done = {entry["name"] for entry in found[kind]}
    todo = rows(options, tf32, torch, found["ceilings"]) if kind == "rows" else steps(options, torch)
    for i, (name, measure_it) in enumerate(todo):
        if name in done:
            continue
        if found["running"] == name:
            found[kind].append({"name": name, "error": "the process ended"})
            continue
        progress(f"{i + 1} of {len(todo)}: {name}")
        write(part, found | {"running": name})
        try:
            found[kind].append(measure_it())
        except Exception as error:
            found[kind].append({"name": name, "error": one_line(error)})
        if not works():
            write(part, found | {"running": None})
            return 1  # after some errors nothing runs any more in the same process
    write(part, found | {"running": None})
    progress("")
    return 0


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]


def works() -> bool:
    import cupy

    try:
        return float(cupy.ones(1, "float32").sum()) == 1.0
    except Exception:
        return False


Todo = list[tuple[str, Callable[[], dict[str, Any]]]]


def rows(options: argparse.Namespace, tf32: bool, torch: Any, limits: dict[str, float]) -> Todo:
    """float64 last, should the time be over before."""
    wanted = [row for row in primitives() if options.only in row.name]
    if tf32:
        wanted = [row for row in wanted if row.dtype == "float32" and any(word in row.name for word in TF32_MATTERS)]
    wanted.sort(key=lambda row: row.dtype != "float32")
    return [(row.name, lambda row=row: measure(row, torch, limits, options.seconds)) for row in wanted]


def steps(options: argparse.Namespace, torch: Any) -> Todo:
    from benchmarks.nets import NETS

    wanted = [(name, make) for name, make in NETS.items() if options.only in name]
    return [(name, lambda name=name, make=make: measure_step(name, make, torch, options.seconds)) for name, make in wanted]


def with_tf32(on: bool) -> Any:
    """PyTorch with the same setting, or None."""
    if not importlib.util.find_spec("torch"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    torch.backends.cudnn.benchmark = True  # it measures which of its algorithms is the fastest, as we do
    return torch


def measure(row: Row, torch: Any, limits: dict[str, float], seconds: float) -> dict[str, Any]:
    from cnnlib.backends import kernel_set

    found: dict[str, Any] = {"name": row.name, "family": row.family, "dtype": row.dtype}
    sides: dict[str, Callable] = {"ours": row.run_cuda(kernel_set("cuda"))}
    with choices() as chosen:
        sides["ours"]()
    if chosen:
        found["methods"] = chosen
    for way in row.ways if torch is not None else []:
        with noted(found, f"torch {way}".strip()) as side:
            run = row.run_torch(torch, way, "cuda")
            run()
            sides[side] = run
    found["ms"] = in_turns(sides, seconds)
    theirs = [ms for side, ms in found["ms"].items() if side != "ours"]
    found["ratio"] = min(theirs) / found["ms"]["ours"] if theirs else None
    s = found["ms"]["ours"] / 1e3
    found["TFLOP/s"], found["GB/s"] = row.flops / s / 1e12, row.bytes / s / 1e9
    found["of ceiling"] = max(found["TFLOP/s"] / limits[row.dtype], found["GB/s"] / limits["GB/s"])
    return found


@contextlib.contextmanager
def noted(found: dict[str, Any], side: str) -> Iterator[str]:
    """A side that cannot be measured, such as an operator that PyTorch has for the CPU only, is not."""
    try:
        yield side
    except Exception as error:
        found[side] = one_line(error)


@contextlib.contextmanager
def choices() -> Iterator[dict[str, Any]]:
    """The methods of the convolutions that run inside, with the milliseconds of each that might have."""
    from cnnlib.backends.cuda import tuning

    chosen: dict[str, Any] = {}
    fastest = tuning.fastest

    def noting(problem: str, ways: dict[str, Callable], otherwise: str) -> str:
        method = fastest(problem, ways, otherwise)
        chosen[problem.partition(" ")[0]] = {"method": method, "ms": tuning.measured().get(problem)}
        return method

    tuning.fastest = noting
    try:
        yield chosen
    finally:
        tuning.fastest = fastest


def measure_step(name: str, make: Callable, torch: Any, seconds: float) -> dict[str, Any]:
    from benchmarks import nets

    makers: dict[str, Callable] = {"ours": lambda: nets.ours(make, "cuda"), "ours, graph": lambda: nets.recorded(make)}
    if torch is not None:
        makers["torch"] = lambda: nets.theirs(make, torch, device="cuda")
        makers["torch channels_last"] = lambda: nets.theirs(make, torch, channels_last=True, device="cuda")
    found: dict[str, Any] = {"name": name}
    sides: dict[str, Callable] = {}
    for side in makers:
        with noted(found, side):
            run = makers[side]()
            for _ in range(4):  # kernels are compiled, convolutions measured, a graph is recorded
                run()
            sides[side] = run
    found["ms"] = ms = in_turns(sides, 4 * seconds)
    theirs = [t for side, t in ms.items() if side.startswith("torch")]
    found["ratios"] = {side: min(theirs) / t for side, t in ms.items() if side.startswith("ours")} if theirs else {}
    return found


def in_turns(sides: dict[str, Callable], seconds: float) -> dict[str, float]:
    """Median milliseconds of a call, the sides in bursts after each other, so that all meet the same clock of the GPU."""
    calls = {}
    for side, run in sides.items():
        once = min(burst(run, 1) for _ in range(3))
        calls[side] = max(1, min(1000, int(seconds / BURSTS / (max(once, 1e-3) / 1e3))))
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(BURSTS):
        for side, run in sides.items():
            times[side].append(burst(run, calls[side]))
    return {side: statistics.median(found) for side, found in times.items()}


def burst(run: Callable, calls: int) -> float:
    """Milliseconds of a call, between events before the first and after the last."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / calls


def ceilings() -> dict[str, float]:
    """What this GPU reaches: GB/s of a copy larger than its caches, TFLOP/s of cuBLAS' products in each type."""
    import cupy

    a, n = cupy.zeros(1 << 28, dtype="uint8"), 4096
    normal = np.random.default_rng(0).standard_normal((n, n), dtype="float32")  # with equal numbers the GPU's clock is higher
    b = cupy.empty_like(a)
    found = {"GB/s": 2 * a.nbytes / min(burst(lambda: cupy.copyto(b, a), 20) for _ in range(3)) / 1e6}
    for dtype in ("float32", "float64"):
        m = cupy.asarray(normal, dtype)
        found[dtype] = 2 * n**3 / min(burst(lambda m=m: m @ m, 3) for _ in range(3)) / 1e9
    return found


# ---- the table


def show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=max(Console().width, 160))
    for name, found in figures.items():
        if name not in SECTIONS:
            continue
        limits = ", ".join(f"{what} {value:,.1f}" for what, value in found.get("ceilings", {}).items())
        notes = "".join(f"; {what}: {found[what]}" for what in ("cut off", "error") if what in found)
        console.print(f"\n{name}; ceilings: {limits} (TFLOP/s of cuBLAS){notes}", markup=False)
        if "rows" in found:
            table = Table()
            for column in ("row", "ours ms", "PyTorch / ours", "TFLOP/s", "GB/s", "of ceiling", "methods, ms"):
                table.add_column(column, justify="left" if column in ("row", "methods, ms") else "right", no_wrap=True)
            for row in found["rows"]:
                table.add_row(*map(escape, cells(row)))
            console.print(table)
        ratios = [row["ratio"] for row in found.get("rows", []) if row.get("ratio")]
        if ratios:
            console.print(f"geometric mean over {len(ratios)} rows: {statistics.geometric_mean(ratios):.2f}")
        for step in found.get("steps", []):
            console.print(of_step(step), markup=False)
    if not right(figures):
        console.print("\ncorrectness:", *figures["correctness"].get("wrong", [])[:40], sep="\n", markup=False)
        console.print({k: v for k, v in figures["correctness"].items() if k not in ("wrong", "output")})


def cells(row: dict[str, Any]) -> list[str]:
    if "ms" not in row:
        return [row["name"], "–", *[""] * 4, row["error"]]
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
    numbers = f"{row['ms']['ours']:.4f}", ratio, f"{row['TFLOP/s']:.2f}", f"{row['GB/s']:,.0f}", f"{row['of ceiling']:.0%}"
    methods = []
    for chosen in row.get("methods", {}).values():
        times = ", ".join(f"{way} {ms:.4f}" for way, ms in (chosen["ms"] or {}).items())
        methods.append(chosen["method"] + (f" ({times})" if times else ""))
    return [row["name"], *numbers, "; ".join(methods)]


def of_step(step: dict[str, Any]) -> str:
    if "ms" not in step:
        return f"{step['name']}: {step['error']}"
    times = ", ".join(f"{side} {ms:.3f} ms" for side, ms in step["ms"].items())
    errors = "".join(f"; {side}: {what}" for side, what in step.items() if side.startswith(("ours", "torch")))
    ratios = ", ".join(f"{side} {ratio:.2f}" for side, ratio in step["ratios"].items())
    return f"{step['name']}: {times}" + (f"; PyTorch / {ratios}" if ratios else "") + errors


if __name__ == "__main__":
    with reader_may_leave():
        sys.exit(main())
