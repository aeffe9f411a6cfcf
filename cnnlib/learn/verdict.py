"""What a check found, as text, HTML and JSON."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    ``key`` says what kind of mistake it is ("passed" where there is none; cnnlib.learn.diagnosis lists the others), and
    ``sentence`` says it to the learner. Where numbers are wrong, ``output`` names the one that is, ``features`` the case, and
    ``index``, ``expected``, ``got`` and ``numerical`` (the derivative by differences) show the worst element.
    """

    exercise: str
    passed: bool
    key: str
    sentence: str
    function: str = ""
    output: str = ""
    features: tuple[str, ...] = ()
    index: tuple[int, ...] | None = None
    expected: float | None = None
    got: float | None = None
    numerical: float | None = None
    right: tuple[str, ...] = ()
    line: int | None = None
    step: str = ""
    printed: str = ""
    file_hash: str = ""
    seed: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN and infinity as strings."""
        values = asdict(self)
        for name in ("expected", "got", "numerical"):
            v = values[name]
            values[name] = str(v) if v is not None and not abs(v) < float("inf") else v
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def rows(self) -> list[tuple[str, str]]:
        """What is shown under the sentence, as (name, value)."""
        rows = []
        if self.line is not None:
            rows.append(("line", str(self.line)))
        if self.features:
            rows.append(("case", ", ".join(self.features)))
        if self.index is not None:
            where = f"{self.output}[{', '.join(map(str, self.index))}]" if self.index else self.output
            rows += [("element", where), ("yours", _number(self.got)), ("expected", _number(self.expected))]
            if self.numerical is not None:
                rows.append(("by differences", _number(self.numerical)))
        if self.step:
            rows.append(("first wrong step", self.step))
        if self.right:
            rows.append(("right already", ", ".join(self.right)))
        if self.printed:
            rows.append(("printed", self.printed.rstrip()[-600:]))
        return rows

    def __str__(self) -> str:
        mark = "✓" if self.passed else "✗"
        lines = [f"{mark} {self.exercise}: {self.sentence}"]
        rows = self.rows()
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            lines.append(f"  {name:<{width}}  {value}".replace("\n", "\n" + " " * (width + 4)))
        if self.file_hash:
            lines.append(f"  sha256 {self.file_hash[:16]}")
        return "\n".join(lines)

    def __rich__(self) -> Any:
        from rich.text import Text

        first, _, rest = str(self).partition("\n")
        text = Text(first, style="bold green" if self.passed else "bold red")
        return text.append("\n" + rest, style="not bold default") if rest else text

    def _repr_html_(self) -> str:
        colour, mark = ("#1a7f37", "✓") if self.passed else ("#cf222e", "✗")
        cells = "".join(
            f'<tr><td style="text-align:left">{html.escape(name)}</td>'
            f'<td style="text-align:left"><pre style="margin:0">{html.escape(value)}</pre></td></tr>'
            for name, value in self.rows()
        )
        table = f"<table>{cells}</table>" if cells else ""
        return (
            f'<div style="border-left:4px solid {colour};padding:4px 12px">'
            f'<b style="color:{colour}">{mark} {html.escape(self.exercise)}</b>: {html.escape(self.sentence)}{table}</div>'
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:.10g}"  # + 0.0: not -0
