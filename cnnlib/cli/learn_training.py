"""What `cnnlib learn train` and `cnnlib learn fast` print while networks learn and clocks tick."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from cnnlib.cli.learn_show import command, console, name_of
from cnnlib.learn.exercise import Exercise
from cnnlib.learn.fast import Timings, next_step

TITLES = {"yours": "with your function", "library": "with the library's"}
WIDTH, HEIGHT = 34, 8  # of a curve, in characters
BLOCKS = " ▁▂▃▄▅▆▇█"


def training(exercise: Exercise, happening: Iterable[Mapping[str, Any]], out: Path | None) -> None:
    """Follow a training to its result."""
    screen = console()
    losses: dict[str, list[float]] = {"yours": [], "library": []}
    plan: Mapping[str, Any] = {}
    with Live(console=screen, refresh_per_second=8, transient=True) if screen.is_terminal else screen as live:
        for event in happening:
            if event["event"] == "plan":
                plan = event
                screen.print(_announced(exercise, plan))
            elif event["event"] == "step":
                losses[event["who"]].append(event["value"])
                _show_step(live, event["who"], losses, plan)
            else:
                result = event
    screen.print(_curves(losses, plan))
    _report(screen, exercise, losses, result)
    if out:
        _draw(exercise, losses, plan, out)
        screen.print(f"The curves are drawn in {escape(str(out))}.", soft_wrap=True)


def _announced(exercise: Exercise, plan: Mapping[str, Any]) -> str:
    return f"{name_of(exercise)}: {plan['what']}, {plan['steps']} steps."


def _show_step(live: Any, who: str, losses: Mapping[str, list[float]], plan: Mapping[str, Any]) -> None:
    done, steps = len(losses[who]), plan["steps"]
    if isinstance(live, Live):
        live.update(_curves(losses, plan))
    elif done == 1 or done % max(steps // 5, 1) == 0:
        live.print(f"{TITLES[who]:20}step {done:3}/{steps}  {plan['measured']} {losses[who][-1]:.4g}")


def _curves(losses: Mapping[str, list[float]], plan: Mapping[str, Any]) -> RenderableType:
    steps = plan["steps"]
    ceiling = max((v for values in losses.values() for v in values if math.isfinite(v)), default=0.0) or 1.0
    return Columns(
        [Panel("\n".join(curve(values, steps, ceiling)), title=TITLES[who], width=WIDTH + 4,
               subtitle=f"{plan['measured']} {values[0]:.3g} → {values[-1]:.3g}" if values else "waiting",
               border_style="cyan" if who == "yours" else "dim")
         for who, values in losses.items()]
    )  # fmt: skip


def curve(values: Sequence[float], steps: int, ceiling: float, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Lines of text: the values as columns of eighths of a character, each column the mean of its share of the steps.

    >>> curve([8.0, 4.0], steps=2, ceiling=8.0, width=2, height=1)
    ['█▄']
    """
    heights = []
    for i in range(width):
        first, last = i * steps // width, (i + 1) * steps // width
        share = values[first : max(last, first + 1)]
        mean = sum(share) / max(len(share), 1)
        heights.append(round(8 * height * min(mean / ceiling, 1.0)) if math.isfinite(mean) else 0)
    return ["".join(BLOCKS[min(max(c - 8 * row, 0), 8)] for c in heights) for row in reversed(range(height))]


def _report(screen: Console, exercise: Exercise, losses: Mapping[str, list[float]], result: Mapping[str, Any]) -> None:
    apart = max(abs(a - b) for a, b in zip(losses["yours"], losses["library"], strict=True))
    if accuracy := result["accuracy"]:
        screen.print(
            f"Right on data that it never saw: [bold]{100 * accuracy['yours']:.1f} %[/], with the library's own function "
            f"{100 * accuracy['library']:.1f} %."
        )
    screen.print(f"The two curves are never further apart than {apart:.2g}.")
    taken = {name: result["milliseconds"][name] for name in sorted(result["milliseconds"], key=_rank)}
    screen.print(_times({_backend(name): ms for name, ms in taken.items()}, "milliseconds a step"))
    if exercise.fast:
        screen.print(f"Now make it fast: {command('fast', exercise)}")


def _rank(name: str) -> tuple[int, str]:
    return (["yours", "reference"].index(name) if name in ("yours", "reference") else 2), name


def _backend(name: str) -> str:
    return {"reference": "the textbook", "textbook": "the textbook", "cpu": "backend cpu", "cuda": "backend cuda"}.get(
        name, name
    )


def timings(exercise: Exercise, timed: Timings) -> None:
    """What `fast` measured, and what to try next."""
    screen = console()
    screen.print(f"{name_of(exercise)}, on arguments of benchmark size:")
    screen.print(_times({_backend(name): 1000 * s for name, s in timed.seconds.items()}, "milliseconds a call"))
    for note in timed.notes:
        screen.print(f"[dim]{escape(note)}[/]")
    screen.print(f"[bold]Next:[/] {next_step(exercise, timed.seconds)}")


def _times(milliseconds: Mapping[str, float], unit: str) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("")
    table.add_column(unit, justify="right")
    table.add_column("")
    yours = milliseconds["yours"]
    for name, ms in milliseconds.items():
        table.add_row(
            name, f"{ms:.3g}" if ms < 1000 else f"{ms:,.0f}", "" if name == "yours" else _compared(yours / max(ms, 1e-9))
        )
    return table


def _compared(ratio: float) -> str:
    if ratio >= 1.05:
        return f"{ratio:,.1f} times faster than yours" if ratio < 10 else f"{ratio:,.0f} times faster than yours"
    return f"{1 / ratio:,.1f} times slower than yours" if ratio < 0.95 else "the same"


def _draw(exercise: Exercise, losses: Mapping[str, list[float]], plan: Mapping[str, Any], out: Path) -> None:
    from cnnlib.viz.figure import new_figure

    figure = new_figure(5.0, 3.0)
    ax = figure.subplots()
    for (who, values), style in zip(losses.items(), ("-", "--"), strict=True):
        ax.plot(range(1, len(values) + 1), values, style, label=TITLES[who])
    ax.set(xlabel="step", ylabel=plan["measured"], title=f"{exercise.number} {exercise.name}")
    ax.legend(frameon=False)
    ax.grid(alpha=0.25)
    figure.savefig(out)
