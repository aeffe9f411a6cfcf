"""The compiled kernels against the textbook and, where it is installed, against PyTorch.

    python -m benchmarks.cpu                              # 1 and 2 threads, all rows
    python -m benchmarks.cpu --threads 1 --only conv      # the rows whose name contains "conv"
    python -m benchmarks.cpu --json benchmarks/results/here.json

Contenders take turns in one process; medians. A ratio is their time divided by ours: above 1, ours is faster.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2", help="numbers of threads, such as 1,2")
    parser.add_argument("--only", default="", help="only rows whose name contains this text")
    parser.add_argument("--seconds", type=float, default=0.5, help="per row")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.only, options.seconds)))
        return
    results = {}
    for threads in (int(t) for t in options.threads.split(",")):
        results[threads] = in_process_of_its_own(threads, options.only, options.seconds)
        show(threads, results[threads])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine(), "seconds": results}, indent=1, ensure_ascii=False) + "\n")


def in_process_of_its_own(threads: int, only: str, seconds: float) -> dict[str, dict[str, float]]:
    """NumPy's BLAS takes its number of threads from the environment, once."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "benchmarks.cpu", "--worker", str(threads), "--only", only, "--seconds", str(seconds)]
    run = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        sys.exit(f"benchmarks: the run with {threads} threads failed.")
    return json.loads(run.stdout.splitlines()[-1])


def worker(threads: int, only: str, seconds: float) -> dict[str, dict[str, float]]:
    import cnnlib as cl
    from benchmarks.measure import medians
    from benchmarks.nets import NETS, ours, theirs
    from benchmarks.rows import rows
    from cnnlib.backends import kernel_set

    torch = None
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
    cl.set_num_threads(threads)
    figures = {}
    for name, make in rows().items():
        if only in name:
            contenders = {backend: make(kernel_set(backend), None) for backend in ("cpu", "reference")}
            if torch:
                contenders["torch"] = make(None, torch)
            figures[name] = medians(contenders, seconds)
            print(name, file=sys.stderr)
    for name, make in NETS.items():
        if only in name:
            contenders = {backend: ours(make, backend) for backend in ("cpu", "reference")}
            if torch:
                contenders["torch"] = theirs(make, torch)
            figures[f"training step {name}"] = medians(contenders, 2 * seconds)
    return figures


def show(threads: int, figures: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{threads} thread{'s' * (threads > 1)}: their time / ours", title_justify="left")
    for column in ("row", "ours ms", "reference", "torch"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name, seconds in figures.items():
        ratios = [f"{seconds[k] / seconds['cpu']:.2f}" if k in seconds else "–" for k in ("reference", "torch")]
        table.add_row(name, f"{seconds['cpu'] * 1e3:.3f}", *ratios)
    Console(width=110).print(table)


def machine() -> dict[str, str]:
    import numpy as np

    from cnnlib.backends import cpu

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), name
        )
    versions = {"numpy": np.__version__, "python": platform.python_version(), "isa": cpu.isa()}
    if importlib.util.find_spec("torch"):
        import torch

        versions["torch"] = str(torch.__version__)
    return {"date": datetime.date.today().isoformat(), "cpu": name, "cores": str(os.cpu_count()), **versions}


if __name__ == "__main__":
    main()
