"""The CUDA kernels on this machine's GPU: are they right, how fast against PyTorch, how near to what the GPU can do?

    python -m benchmarks.gpu                              # everything, a few minutes; needs no network
    python -m benchmarks.gpu --only conv --json here.json

First every case of the operation table runs on the GPU in both dtypes and is held against the textbook on the CPU; where one is
wrong, nothing is timed. Then each row of benchmarks/rows and each training step runs in turns with PyTorch (eager, TF32 off on
both sides, then once more with it on), the steps also as CUDA graphs. A ratio is PyTorch's time divided by ours: above 1, ours
is faster. Times are the device's own, between events around as many calls as fill a few milliseconds: the median of the bursts.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cpu import progress, rounded
from benchmarks.rows import primitives
from benchmarks.rows.row import Row

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BURSTS = 5
TF32_MATTERS = ("GEMM", "GEMV", "linear", "conv", "LSTM", "GRU", "RNN")  # rows that hold matrix products


def main() -> None:
    options = arguments()
    if options.tf32 is not None:  # the inner process: CuPy reads its setting once, at import
        print(json.dumps(timed(options)))
        return
    from cnnlib.backends import available

    if reason := available()["cuda"]:
        sys.exit(f"benchmarks.gpu: no usable GPU: {reason}")
    figures: dict[str, Any] = {"date": datetime.date.today().isoformat(), **machine(), "command": " ".join(sys.argv[1:])}
    figures["correctness"] = correctness() if not options.only else "not asked"
    path = options.json or RESULTS / f"{figures['date']}-gpu.json"
    if isinstance(figures["correctness"], dict) and figures["correctness"]["failed"]:
        write(path, figures)
        sys.exit(f"benchmarks.gpu: {figures['correctness']['failed']} cases are wrong, see {path}: nothing was timed.")
    for setting in ("0", "1"):
        figures[f"tf32 {'on' if setting == '1' else 'off'}"] = in_process_of_its_own(options, setting)
        write(path, figures)
    show(figures)
    print(f"{path} written")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this text; no correctness")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each row and side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/DATE-gpu.json")
    parser.add_argument("--tf32", choices=("0", "1"), help=argparse.SUPPRESS)
    return parser.parse_args()


def write(path: Path, figures: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(figures), indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    import cupy

    from cnnlib.backends.cuda import health

    device = cupy.cuda.runtime.getDeviceProperties(0)
    versions = {"cupy": cupy.__version__, "driver": health.dotted(health.driver_cuda())}
    if importlib.util.find_spec("torch"):
        import torch

        versions["torch"] = str(torch.__version__)
    return {
        "machine": {"gpu": device["name"].decode(), "processors": device["multiProcessorCount"]},
        "versions": versions,
    }


def correctness() -> dict[str, Any]:
    """The GPU tests: every case, both dtypes, against the textbook on the CPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_cuda.py", "-rf"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    counted = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    wrong = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return {
        "passed": counted.get("passed", 0),
        "failed": counted.get("failed", 0) + (done.returncode not in (0, 1)),
        "wrong": wrong,
    }


def in_process_of_its_own(options: argparse.Namespace, tf32: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--tf32",
        tf32,
        "--seconds",
        str(options.seconds),
        "--only",
        options.only,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CUPY_TF32": tf32}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


# ---- in the inner process


def timed(options: argparse.Namespace) -> dict[str, Any]:
    torch = with_tf32(options.tf32 == "1")
    rows = [row for row in primitives() if options.only in row.name]
    if options.tf32 == "1":
        rows = [row for row in rows if row.dtype == "float32" and any(word in row.name for word in TF32_MATTERS)]
    found: dict[str, Any] = {"ceilings": ceilings(), "rows": [], "steps": []}
    for i, row in enumerate(rows):
        progress(f"{i + 1} of {len(rows)}: {row.name}")
        found["rows"].append(measure(row, torch, found["ceilings"], options.seconds))
    for name, make in steps(options.only):
        progress(name)
        found["steps"].append(measure_step(name, make, torch, options.seconds))
    progress("")
    return found


def with_tf32(on: bool) -> Any:
    """PyTorch with the same setting, or None."""
    if not importlib.util.find_spec("torch"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    return torch


def measure(row: Row, torch: Any, limits: dict[str, float], seconds: float) -> dict[str, Any]:
    from cnnlib.backends import kernel_set

    sides: dict[str, Callable] = {"ours": row.run_cuda(kernel_set("cuda"))}
    found: dict[str, Any] = {"name": row.name, "family": row.family, "dtype": row.dtype}
    for way in row.ways if torch is not None else []:
        try:
            run = row.run_torch(torch, way, "cuda")
            run()
            sides[f"torch {way}".strip()] = run
        except (RuntimeError, NotImplementedError) as error:  # such as an operator that PyTorch has for the CPU only
            found["torch"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    found["ms"] = in_turns(sides, seconds)
    theirs = [ms for side, ms in found["ms"].items() if side != "ours"]
    found["ratio"] = min(theirs) / found["ms"]["ours"] if theirs else None
    s = found["ms"]["ours"] / 1e3
    found["TFLOP/s"], found["GB/s"] = row.flops / s / 1e12, row.bytes / s / 1e9
    found["of ceiling"] = max(found["TFLOP/s"] / limits[row.dtype], found["GB/s"] / limits["GB/s"])
    return found


def steps(only: str) -> list[tuple[str, Callable]]:
    from benchmarks.nets import NETS

    return [(name, make) for name, make in NETS.items() if only in name]


def measure_step(name: str, make: Callable, torch: Any, seconds: float) -> dict[str, Any]:
    from benchmarks import nets

    sides = {"ours": nets.ours(make, "cuda"), "ours, graph": nets.recorded(make)}
    if torch is not None:
        sides["torch"] = nets.theirs(make, torch, device="cuda")
    ms = in_turns(sides, 4 * seconds)
    ratios = {side: ms["torch"] / t for side, t in ms.items() if side != "torch"} if torch is not None else {}
    return {"name": name, "ms": ms, "ratios": ratios}


def in_turns(sides: dict[str, Callable], seconds: float) -> dict[str, float]:
    """Median milliseconds of a call, the sides in bursts after each other, so that all meet the same clock of the GPU."""
    calls = {}
    for side, run in sides.items():
        once = min(burst(run, 1) for _ in range(3))
        calls[side] = max(1, min(1000, int(seconds / BURSTS / (once / 1e3))))
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
    b = cupy.empty_like(a)
    found = {"GB/s": 2 * a.nbytes / min(burst(lambda: cupy.copyto(b, a), 20) for _ in range(3)) / 1e6}
    for dtype in ("float32", "float64"):
        m = cupy.ones((n, n), dtype)
        found[dtype] = 2 * n**3 / min(burst(lambda m=m: m @ m, 3) for _ in range(3)) / 1e9
    return found


# ---- the table


def show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=max(Console().width, 120))
    for setting in ("tf32 off", "tf32 on"):
        found = figures[setting]
        limits = ", ".join(f"{name} {value:,.1f}" for name, value in found["ceilings"].items())
        table = Table(title=f"{setting}; ceilings: {limits} (TFLOP/s of cuBLAS)")
        for column in ("row", "ours ms", "PyTorch / ours", "TFLOP/s", "GB/s", "of ceiling"):
            table.add_column(column, justify="left" if column == "row" else "right", no_wrap=True)
        for row in found["rows"]:
            ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
            numbers = (f"{row['TFLOP/s']:.2f}", f"{row['GB/s']:,.0f}", f"{row['of ceiling']:.0%}")
            table.add_row(escape(row["name"]), f"{row['ms']['ours']:.4f}", ratio, *numbers)
        console.print(table)
        ratios = [row["ratio"] for row in found["rows"] if row["ratio"]]
        if ratios:
            console.print(f"geometric mean over {len(ratios)} rows: {statistics.geometric_mean(ratios):.2f}")
        for step in found["steps"]:
            times = ", ".join(f"{side} {ms:.3f} ms" for side, ms in step["ms"].items())
            against = (
                "; PyTorch / " + ", ".join(f"{side} {r:.2f}" for side, r in step["ratios"].items()) if step["ratios"] else ""
            )
            console.print(f"{step['name']}: {times}{against}")


if __name__ == "__main__":
    main()
