"""The exercises as Jupyter notebooks, made from the same files: nothing of them is kept anywhere else.

>>> from cnnlib.learn.exercise import find
>>> from cnnlib.learn.notebooks import notebook
>>> [cell["cell_type"] for cell in notebook(find("softmax_cross_entropy"))["cells"]]
['markdown', 'code', 'code', 'markdown']

A notebook is JSON (https://nbformat.readthedocs.io, version 4.5); Jupyter is needed to use one, not to write it.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from cnnlib.errors import DataError
from cnnlib.learn.exercise import Exercise, exercises, given_text


def write_notebooks(folder: Path) -> tuple[list[str], list[str]]:
    """Write one notebook per exercise; the names of those written, and of those that were there and are as they were."""
    written: list[str] = []
    kept: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for exercise in exercises():
            path = folder / f"{exercise.number:02d}_{exercise.name}.ipynb"
            try:
                with open(path, "x", encoding="utf-8") as file:
                    file.write(json.dumps(notebook(exercise), indent=1, ensure_ascii=False) + "\n")
                written.append(path.name)
            except FileExistsError:
                kept.append(path.name)
    except OSError as reason:
        raise DataError(f"{folder}: the notebooks could not be written: {reason.strerror or reason}.") from reason
    return written, kept


def notebook(exercise: Exercise) -> dict[str, Any]:
    """The notebook of an exercise as plain values: story, what is given, a cell to write in, a cell that checks, hints."""
    cells = [
        _markdown("story", f"# {exercise.number} · {exercise.title}\n\n{as_markdown(exercise.story)}"),
        *([_code("given", _given(exercise))] if exercise.given else []),
        _code("answer", _starter(exercise)),
        _code("check", f"from cnnlib.learn import check\n\ncheck({exercise.name!r}, {', '.join(exercise.function_names)})"),
        _markdown("hints", _hints(exercise)),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def as_markdown(story: str) -> str:
    """A story's plain text for Jupyter: indented formulas and tables as they stand, everything else literally."""
    blocks: list[tuple[bool, list[str]]] = []
    for line in story.splitlines():
        formula = line.startswith("    ") or (not line.strip() and bool(blocks) and blocks[-1][0])
        if not blocks or blocks[-1][0] != formula:
            blocks.append((formula, []))
        blocks[-1][1].append(line)
    return "\n\n".join(_fenced(lines) if formula else _escaped("\n".join(lines).strip("\n")) for formula, lines in blocks)


def _fenced(lines: list[str]) -> str:
    inside = "\n".join(line[4:] for line in lines).rstrip()
    return f"```text\n{inside}\n```"


def _escaped(text: str) -> str:
    """Without what Markdown, HTML or MathJax would read into it; `code` stays code, and **words** stay bold."""
    pieces = re.split(r"(`[^`\n]+`|(?<!\w)\*\*[^*\n]+\*\*(?!\w))", text)  # every second one is such
    return "".join(p if i % 2 else re.sub(r"([\\*_<>$#\[\]|~])", r"\\\1", p) for i, p in enumerate(pieces))


def _given(exercise: Exercise) -> str:
    return f"# Ready for you to call; run this cell, there is nothing to do in it.\n{given_text(exercise).strip()}"


def _starter(exercise: Exercise) -> str:
    imports = "" if "import numpy" in exercise.starter else "import numpy as np\n\n\n"
    return f"{imports}{exercise.starter.strip()}"


def _hints(exercise: Exercise) -> str:
    hints = [_folded(f"Hint {number}", hint) for number, hint in enumerate(exercise.hints, start=1)]
    question = f"**To think about, once it is right:** {_escaped(exercise.question)}"
    where = f"The library's own: `{exercise.link}`"
    return "\n\n".join([*hints, question, _folded("Answer", exercise.answer), where])


def _folded(title: str, text: str) -> str:
    return f'<details><summary>{title}</summary><pre style="white-space:pre-wrap">{html.escape(text)}</pre></details>'


def _markdown(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text.splitlines(True)}


def _code(name: str, text: str) -> dict[str, Any]:
    source = text.splitlines(True)
    return {"cell_type": "code", "id": name, "metadata": {}, "source": source, "execution_count": None, "outputs": []}
