"""What the labs share: runs that are kept one by one, the texts and pictures made of them.

A lab is a module of this package with

    CLAIM                 what is claimed, and the lecture that claims it
    MINUTES               expected for all runs, on two cores
    plan(quick)           the runs: a list of settings, made by `grid`; with ``quick`` a few small ones
    measure(**settings)   one run; returns what it measured, by name: numbers, lists and dicts of them
    finding(runs)         (rows, reading): a table as dicts, figures with their spread, and what they say; both computed
    figure(runs)          a matplotlib figure
    appendix(runs)        where there is one: what else belongs on the page, as Markdown
    SPREAD                where it is not "mean, smallest and largest" what the table shows of the seeds

Each finished run is written to ``results/NAME.json`` at once, so that a lab that was ended at any moment goes on with the next
run. A run is known by its settings: who changes them measures anew, and the old run stays in the file without being used.
Figures and findings are made of the file alone.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cnnlib as cl
from cnnlib.errors import DataError
from cnnlib.train.checkpoint import write_atomically

ROOT = Path(__file__).parent.parent.parent
RESULTS = Path(__file__).parent / "results"
FIGURES = ROOT / "docs" / "labs"
QUICK = ROOT / "runs" / "labs-quick"  # both, of a quick run


def grid(**axes: Any) -> list[dict[str, Any]]:
    """All combinations of the settings that are lists or ranges; the last one changes fastest.

    >>> grid(seed=range(2), norm=["none", "lrn"], epochs=5)[1]
    {'seed': 0, 'norm': 'lrn', 'epochs': 5}
    """
    several = [list(v) if isinstance(v, (list, tuple, range)) else [v] for v in axes.values()]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*several)]


class Runs(list):
    """Finished runs: ``{"settings": {...}, "measured": {...}, "seconds": ...}``, in the order of the plan."""

    def where(self, **settings: Any) -> Runs:
        """Those with the settings given."""
        return Runs(run for run in self if all(run["settings"].get(k) == v for k, v in settings.items()))

    def get(self, name: str, **settings: Any) -> list[Any]:
        """A measured value of each of the runs with these settings; in the order of the plan, so of the seeds.

        What was not finite, which JSON does not have, is NaN again.
        """
        return [_with_nan(run["measured"][name]) for run in self.where(**settings)]

    def all(self, setting: str) -> list[Any]:
        """The different values of a setting."""
        return list(dict.fromkeys(run["settings"][setting] for run in self))

    @property
    def seeds(self) -> str:
        n = len(self.all("seed"))
        return f"{n} seed{'s' if n != 1 else ''}"


# ---- the store


class Store:
    """The runs of one lab in a JSON file, which is complete at any moment."""

    def __init__(self, path: Path):
        self.path = path
        self.runs: list[dict[str, Any]] = _read(path) if path.exists() else []

    def find(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        settings = _plain(settings)
        return next((run for run in self.runs if run["settings"] == settings), None)

    def add(self, settings: dict[str, Any], measured: dict[str, Any], seconds: float) -> None:
        """Keep a run: when this returns, it is on the disk."""
        run = {"settings": settings, "measured": measured, "seconds": seconds, "computed": _environment()}
        self.runs.append(_plain(run))
        lines = ",\n".join("  " + json.dumps(run, ensure_ascii=False, allow_nan=False) for run in self.runs)
        write_atomically(self.path, f'{{"lab": "{self.path.stem}", "runs": [\n{lines}\n]}}\n'.encode())

    def select(self, plan: Iterable[dict[str, Any]]) -> Runs:
        """The finished runs of a plan."""
        return Runs(run for settings in plan if (run := self.find(settings)))


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text("utf-8"))["runs"]
    except (ValueError, TypeError, KeyError) as reason:
        raise DataError(f"{path}: is not a file of runs ({reason}): remove it, and they are measured anew.") from None


def complete(
    store: Store, plan: Sequence[dict[str, Any]], measure: Callable[..., dict[str, Any]], say: Callable = print
) -> Runs:
    """Measure what the store lacks of the plan, keeping each run at once; returns all runs of the plan."""
    missing = [settings for settings in plan if store.find(settings) is None]
    for i, settings in enumerate(missing, 1):
        say(f"  run {i} of {len(missing)}: {', '.join(f'{k} {v}' for k, v in settings.items())}", flush=True)
        started = time.perf_counter()
        measured = measure(**settings)
        store.add(settings, measured, time.perf_counter() - started)
    return store.select(plan)


def _plain(value: Any) -> Any:
    """For JSON: six significant digits; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(v) for v in value]
    return math.nan if value is None else value


def _environment() -> str:
    if cl.backend() != "cpu":
        return cl.backend()
    threads = cl.get_num_threads()
    return f"cpu, {cl.backends.cpu.isa()}, {threads} thread{'s' if threads != 1 else ''}"


# ---- texts


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def spread(values: Sequence[float], show: Callable[[float], str] = percent) -> str:
    """The mean, and the smallest and largest in brackets: ``89.40 % (89.33 % … 89.48 %)``."""
    mean = show(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({show(min(values))} … {show(max(values))})"


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def points(share: float) -> str:
    """A difference of two shares, in percentage points, with its sign."""
    return f"{100 * share:+.2f}".replace("-", "−")


def compared(what: str, new: Sequence[float], old: Sequence[float], more: str = "raises", less: str = "lowers",
             show: Callable[[float], str] = points, unit: str = " points") -> str:  # fmt: skip
    """A sentence on paired differences: a change counts as one when it has the same sign with every seed.

    >>> compared("LRN", [0.91, 0.93], [0.90, 0.91], "raises accuracy", "lowers accuracy")
    'LRN raises accuracy with every seed: +1.50 points (+1.00 … +2.00).'
    """
    differences = [a - b for a, b in zip(new, old, strict=True)]
    mean, low, high = sum(differences) / len(differences), min(differences), max(differences)
    change = f"{show(mean)}{unit}" + (f" ({show(low)} … {show(high)})" if len(differences) > 1 else "")
    if low > 0 or high < 0:
        return f"{what} {more if low > 0 else less}{' with every seed' if len(differences) > 1 else ''}: {change}."
    return f"{what} changes nothing that every seed agrees on: {change}."


def signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def as_text(rows: Sequence[dict[str, str]]) -> str:
    """A table for the terminal."""
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in rows[0]}
    table = [dict(zip(widths, widths, strict=True)), *rows]
    return "\n".join("  " + "  ".join(f"{row[c]:{w}}" for c, w in widths.items()).rstrip() for row in table)


def as_markdown(rows: Sequence[dict[str, str]]) -> str:
    table = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


# ---- pictures


def lines(ax: Any, x: Sequence[float], series: Sequence[Sequence[float]], colour: str, label: str, **style: Any) -> None:
    """The mean over the seeds as a line, from the smallest to the largest as a band."""
    columns = list(zip(*series, strict=True))
    ax.plot(x, [sum(c) / len(c) for c in columns], color=colour, label=label, **style)
    ax.fill_between(x, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.18, linewidth=0)


def tidy(ax: Any, xlabel: str = "", ylabel: str = "", title: str = "", as_percent: bool = False, legend: bool = True) -> None:
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title, fontsize=10)
    if as_percent:
        ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.4g} %")
    if xlabel == "epoch":
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=False, fontsize=8)


def save_figure(figure: Any, path: Path) -> None:
    """As SVG; the same figures give the same bytes."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})


# ---- running


def name_of(lab: ModuleType) -> str:
    return Path(str(lab.__file__)).stem


def store_of(lab: ModuleType, quick: bool = False) -> Store:
    return Store((QUICK if quick else RESULTS) / f"{name_of(lab)}.json")


def run(lab: ModuleType, quick: bool = False) -> None:
    """Measure what is missing, print the finding, draw the figure."""
    name = name_of(lab)
    print(f"\n{name}: {lab.CLAIM}", flush=True)
    runs = complete(store_of(lab, quick), lab.plan(quick), lab.measure)
    rows, reading = lab.finding(runs)
    path = (QUICK if quick else FIGURES) / f"{name}.svg"
    save_figure(lab.figure(runs), path)
    minutes = sum(run["seconds"] for run in runs) / 60
    print(f"\n{as_text(rows)}\n\n{reading}\n{len(runs)} runs, {minutes:.1f} minutes of computing; figure: {path}")
