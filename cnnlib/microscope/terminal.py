"""The story in a terminal: a few lines for each operation, whatever the width; forward first, then what backward did."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnlib.microscope.story import Step, Story

BAR = 10  # characters of a share of 100 %
MOST_SUMS = 3  # of a formula that is shown


def told(story: Story) -> Any:
    """The story for a rich console."""
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble(
        (story.model, "bold"), ": one training step, loss ", (f"{story.loss:.4g}", "bold"),
        f", {len(story)} operations, {story.milliseconds:.2f} ms, {size(story.saved_bytes)} kept for backward. "
        "|x| is the root mean square of x, |dx| that of its adjoint ∂J/∂x.",
    )  # fmt: skip
    return Group(head, *(_lines(k, step) for k, step in enumerate(story, 1)))


def as_text(story: Story, width: int = 100) -> str:
    """The story without colours."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(told(story))
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _lines(k: int, step: Step) -> Any:
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((f"\n{k:>2} {step.name}", "bold cyan"), "  ", (step.formula, "italic"))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(ratio=1)
    norms = step.norms
    table.add_row("shapes", _shapes(step))
    forward = "  ".join(f"|{name}| {norms[name]:.3g}" for name in step.shapes if name in norms)
    table.add_row("forward", Text.assemble(f"{step.forward_ms:.3f} ms   ", (forward, "blue")))
    table.add_row("saves", ", ".join(step.saved) or "nothing")
    if step.backward_ms is not None:
        table.add_row("backward", Text.assemble(f"{step.backward_ms:.3f} ms   ", (_flowing(step), "magenta")))
    gradients = "  ".join(f"|∂J/∂ {path}| {norm:.3g}" for path, norm in step.parameter_gradients.items())
    if gradients:
        table.add_row("learns", Text(gradients, style="magenta"))
    table.add_row("costs", f"time {share(step.time_share)}   memory {share(step.memory_share)}, {size(step.saved_bytes)}")
    for i, how in enumerate(_short_rules(step)):
        table.add_row("" if i else "terms", Text(how, style="dim"))
    if step.note:
        table.add_row("note", step.note)
    return Group(title, Padding(table, (0, 0, 0, 3)))


def _short_rules(step: Step) -> list[str]:
    """What happens inside, gates for example, and the rules of at most three sums; longer ones are on the page and in JSON."""
    inside = [how for name, how in step.rules.items() if name in step.operation.anatomy.inner]
    outside = [how for name, how in step.rules.items() if name not in step.operation.anatomy.inner]
    return [how for how in outside if how.count("Σ") <= MOST_SUMS] + inside


def _flowing(step: Step) -> str:
    """|dy| of the outputs, then |dx| of the inputs that are no parameters."""
    outputs, learnt = step.operation.anatomy.outputs, step.operation.entry.parameters
    names = [f"d{name}" for name in (*outputs, *(n for n in step.shapes if n not in outputs and n not in learnt))]
    return "  ".join(f"|{name}| {step.norms[name]:.3g}" for name in names if name in step.norms)


def _shapes(step: Step) -> str:
    outputs = step.operation.anatomy.outputs
    text = lambda names: ", ".join(f"{n} {_shape(step.shapes[n])}" for n in names)  # noqa: E731
    return f"{text(n for n in step.shapes if n not in outputs)} → {text(outputs)}"


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")" if shape else "()"


def share(part: float) -> str:
    """A share as a bar and a number."""
    return f"{'█' * round(part * BAR):░<{BAR}} {part:.0%}"


def size(number: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000  # type: ignore[assignment]
    return f"{number:.3g} GB"
