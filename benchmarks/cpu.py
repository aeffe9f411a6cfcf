"""The compiled kernels against PyTorch, or against the textbook, and against the machine's own limits.

    python -m benchmarks.cpu                                            # PyTorch where it is installed, 1 and 2 threads
    python -m benchmarks.cpu --against torch --threads 1 --only conv    # the rows whose name contains "conv"
    python -m benchmarks.cpu --against reference --json here.json

A ratio is their time divided by ours: above 1, ours is faster. "torch" is PyTorch as users run it, "tuned" the same with a
malloc that keeps its memory, "best" the fastest of all of PyTorch's ways (either malloc, channels_last, foreach, fused).
A row that "best" beats is measured in three runs, of which the middle one counts. CNNLIB_ISA=avx2 holds both sides to AVX2.
Nothing else should run meanwhile. How it is measured: docs/performance.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import limits, report
from benchmarks.rows import Row, all_rows
from benchmarks.turns import Contender, memory, take_turns
from cnnlib.cli.pipe import reader_may_leave

TORCH = ("torch", "torch tuned")


def main() -> None:
    options = arguments()
    kinds = contenders(options.against)
    wanted, dtypes = options.only.split("|"), options.dtype.split(",")
    rows = [row for row in all_rows() if any(text in row.name for text in wanted) and row.dtype in dtypes]
    if not rows:
        sys.exit(f"benchmarks: no row of {options.dtype} has a name with {options.only!r} in it.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.touch()  # a place that cannot be written to is known before anything is measured
    figures = start(options)
    for threads in options.threads:
        found = limits.in_process_of_its_own(threads, options.seconds)
        figures["limits"][str(threads)] = limits.better(figures["limits"].get(str(threads)), found)
        measure(figures, rows, kinds, threads, options.seconds)
        settle(figures, rows, kinds, threads, options.seconds)
        show(figures, str(threads), [row.name for row in rows])
        if options.json:
            options.json.write_text(json.dumps(rounded(figures), indent=1, ensure_ascii=False) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=("torch", "reference"), help="default: torch where it is installed")
    parser.add_argument("--threads", type=numbers_of_threads, default="1,2", help="numbers of threads, such as 1,2")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this text, or this|that")
    parser.add_argument("--dtype", default="float32,float64", help="float32, float64 or both")
    parser.add_argument("--seconds", type=duration, default=0.15, help="for each row and way of computing it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--add", action="store_true", help="keep what FILE has of the same machine and add to it")
    return parser.parse_args()


def numbers_of_threads(text: str) -> list[int]:
    counts = [int(n) for n in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of at least 1, got {text}")
    return counts


def duration(text: str) -> float:
    if not float(text) >= 0.001:
        raise argparse.ArgumentTypeError(f"a row needs 0.001 seconds or more, got {text}")
    return float(text)


def contenders(against: str | None) -> list[str]:
    installed = importlib.util.find_spec("torch") is not None
    if against == "torch" and not installed:
        sys.exit("benchmarks: PyTorch is not installed: pip install torch, or --against reference.")
    if against is None and not installed:
        print("PyTorch is not installed: against the reference backend only.")
    return ["cnnlib", "reference"] if against == "reference" or not installed else ["cnnlib", *TORCH]


def start(options: argparse.Namespace) -> dict:
    """Figures without rows, or with those of the file that is to be added to."""
    new = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {},
        "command": command(),
        "limits": {},
    }
    if options.add and options.json and options.json.stat().st_size:
        old = json.loads(options.json.read_text())
        if old["machine"] == new["machine"]:
            return {**new, **old, "date": new["date"], "command": f"{old['command']}; {new['command']}"}
        print(f"{options.json} is of another machine: starting anew.", file=sys.stderr)
    return new | {"rows": []}


def command() -> str:
    """As it was typed, but of files only the name: their folder is somebody's own."""
    return " ".join(["python -m benchmarks.cpu", *(Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])])


def machine() -> dict:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = (line.partition(":")[::2] for line in info.read_text().partition("\n\n")[0].splitlines())
        first = {key.strip(): value.strip() for key, value in pairs}
        name = first.get("model name", name)
        if "cpu family" in first:  # in a virtual machine the name may be all generations' name
            name += f" (family {first['cpu family']}, model {first['model']})"
    instructions = {"instructions": os.environ["CNNLIB_ISA"]} if "CNNLIB_ISA" in os.environ else {}
    system = {"system": platform.system(), "libc": " ".join(platform.libc_ver())}
    return {"cpu": name, "cores": os.cpu_count(), **system, **instructions}


def measure(figures: dict, rows: list[Row], kinds: list[str], threads: int, seconds: float) -> None:
    before = busy_elsewhere()
    race(figures, rows, kinds, threads, seconds)
    for row in rows:
        if row.family == report.STEP:
            found = {kind: memory(kind, threads, row.name) for kind in kinds if kind != "torch tuned"}
            entry(figures, row)["memory"][str(threads)] = found
    if before is not None:
        used, passed = (after - start for after, start in zip(busy_elsewhere(), before))
        for row in rows:
            entry(figures, row)["elsewhere"][str(threads)] = used / passed
        if used > report.ALONE * passed:
            print(f"Not alone: other processes kept {used / passed:.2f} cores busy meanwhile. Measure again.")
    places = {row.name: i for i, row in enumerate(all_rows())}
    figures["rows"].sort(key=lambda row: places.get(row["name"], len(places)))


def race(figures: dict, rows: list[Row], kinds: list[str], threads: int, seconds: float) -> None:
    """One run: each contender in a new process, each row in turns."""
    with ExitStack() as stack:
        turns = [stack.enter_context(Contender(kind, threads)) for kind in kinds]
        for one in turns:
            figures["versions"] |= one.ask("versions")
        for i, row in enumerate(rows):
            progress(f"{threads} threads, {i + 1} of {len(rows)}: {row.name}")
            entry(figures, row)["seconds"][str(threads)] = take_turns(turns, row.name, seconds)
    progress("")


def settle(figures: dict, rows: list[Row], kinds: list[str], threads: int, seconds: float) -> None:
    """Two more runs of the rows that "best" beat; of the three the one with the middle ratio stays."""
    t = str(threads)
    again = [row for row in rows if (report.ratio(entry(figures, row), t, "best") or 1.0) < 1.0]
    if not again:
        return
    runs = [{row.name: entry(figures, row)["seconds"][t] for row in again}]
    for _ in range(2):
        race(figures, again, kinds, threads, seconds)
        runs.append({row.name: entry(figures, row)["seconds"][t] for row in again})
    for row in again:
        found = entry(figures, row)
        found["seconds"][t] = report.middle(found, t, [run[row.name] for run in runs])


def busy_elsewhere() -> tuple[float, float] | None:
    """(processor seconds that processes other than this one and its ended children have used, the time); Linux only."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, interrupts, soft, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
    all_of_them = (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
    return all_of_them - sum(os.times()[:4]), time.monotonic()


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<100}" + "\r" * (not text), end="", file=sys.stderr, flush=True)


def entry(figures: dict, row: Row) -> dict:
    """The row's place in the figures."""
    for found in figures["rows"]:
        if found["name"] == row.name:
            return found
    figures["rows"].append(
        {"name": row.name, "family": row.family, "dtype": row.dtype, "target": row.target}
        | {"flops": int(row.flops), "bytes": int(row.bytes), "seconds": {}, "elsewhere": {}}
        | ({"memory": {}} if row.family == report.STEP else {})
    )
    return figures["rows"][-1]


def rounded(value):
    """Four digits are more than a timing is good for."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def show(figures: dict, threads: str, names: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=max(Console().width, 132))
    others = {"torch": "torch", "torch tuned": "tuned", "best": "best", "reference": "reference"}
    rows = [row for row in figures["rows"] if row["name"] in names]
    others = {k: name for k, name in others.items() if any(report.ratio(row, threads, k) for row in rows)}
    console.print(f"\n{threads} thread{'s' * (threads != '1')}; {limit_text(figures['limits'][threads])}")
    table = Table()
    for column in ("row", "ours ms", "rate", "of limit", *others.values(), "target"):
        table.add_column(column, justify="left" if column == "row" else "right", no_wrap=True)
    for row in rows:
        bound = report.bound(row, threads, figures["limits"])
        rate = [f"{bound.rate:.1f} {bound.unit}", f"{bound.part:.0%}"] if bound else ["–", "–"]
        ratios = [f"{r:.2f}" if (r := report.ratio(row, threads, k)) else "–" for k in others]
        ours = f"{row['seconds'][threads]['cnnlib'] * 1e3:.3f}"
        table.add_row(escape(row["name"]), ours, *rate, *ratios, f"{row['target']:g}")
    console.print(table)
    for title, part in (("primitives", report.primitives({"rows": rows})), ("training steps", report.steps({"rows": rows}))):
        means = [f"{name} {m:.2f}" for k, name in others.items() if (m := report.geometric_mean(part, threads, k))]
        if means:
            console.print(f"geometric mean over {title}: {', '.join(means)}")
    for row in report.steps({"rows": rows}):
        needed = row.get("memory", {}).get(threads, {})
        each = [f"{kind} {n / 1e6:.0f} MB" if n else f"{kind} not known" for kind, n in needed.items()]
        console.print(f"{row['name']}, peak memory above import: {', '.join(each)}")
    if "best" in others:
        below = report.below_floor(rows, threads)
        console.print(f"{len(below)} rows below {report.FLOOR} against the best of PyTorch" + ":" * bool(below))
        for name, r in below:
            console.print(f"  {r:.2f}  {escape(name)}")


def limit_text(limit: dict | str) -> str:
    if isinstance(limit, str):
        return f"the machine's limits are not known: {limit}"
    slowest = limit["bandwidth"][max(limit["bandwidth"], key=int)]
    peak = f"peak {limit['float32']:.0f} GFLOP/s in float32, {limit['float64']:.0f} in float64"
    return f"{peak}; {slowest:.0f} GB/s from memory, up to {max(limit['bandwidth'].values()):.0f} from the caches"


if __name__ == "__main__":
    with reader_may_leave():
        main()
