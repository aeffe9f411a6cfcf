"""The story as one HTML page. What the page looks like and does is in page.html beside this file; here its numbers are packed.

Arrays travel as float32 in base64, each once, whoever shares it. Rules travel as data; the page reads them as rules.py does.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlib.microscope.anatomy import letters_of
from cnnlib.microscope.nodes import Node
from cnnlib.microscope.written import as_json

if TYPE_CHECKING:
    from cnnlib.microscope.story import Step, Story

PAGE = Path(__file__).with_suffix(".html")


def page(story: Story, megabytes: float) -> str:
    """The page as text; at most ``megabytes`` of arrays."""
    nodes = _all_nodes(story)
    ids = {id(node): i for i, node in enumerate(nodes)}
    pool, places = _packed(nodes, megabytes)
    numbers = {
        "model": story.model,
        "loss": story.loss,
        "milliseconds": story.milliseconds,
        "saved": story.saved_bytes,
        "steps": [_step(step, ids) for step in story],
        "nodes": [{**_node(node, ids), "data": places[id(node)]} for node in nodes],
        "pool": pool,
    }
    return PAGE.read_text(encoding="utf-8").replace("@DATA@", as_json(numbers).replace("</", "<\\/"))


def _all_nodes(story: Story) -> list[Node]:
    found: dict[int, Node] = {}
    for step in story:
        for node in step.operation.nodes.values():
            for each in (node, node.adjoint):
                if each is not None:
                    found.setdefault(id(each), each)
    return list(found.values())


def _packed(nodes: list[Node], megabytes: float) -> tuple[list[str], dict[int, int | None]]:
    """Arrays in base64, the smallest first as long as they fit; and the place of each node's, None if it was left out."""
    pool: list[str] = []
    known: dict[bytes, int] = {}
    places: dict[int, int | None] = {}
    left = megabytes * 1e6
    for node in sorted(nodes, key=lambda n: n.array.size):
        characters = 4 * -(-4 * node.array.size // 3)
        values = node.array.astype("<f4").tobytes() if characters <= megabytes * 1e6 else b"too large"
        if values in known:
            places[id(node)] = known[values]
        elif characters <= left:
            left -= characters
            places[id(node)] = known[values] = len(pool)
            pool.append(base64.b64encode(values).decode("ascii"))
        else:
            places[id(node)] = None
    return pool, places


def _node(node: Node, ids: dict[int, int]) -> dict[str, Any]:
    axes = node.axes or (node.of.axes if node.of else ()) or tuple(letters_of(node.array).split())
    other = lambda n: None if n is None else ids[id(n)]  # noqa: E731
    rule = None if node.rule is None else node.rule.encode({name: ids[id(n)] for name, n in node.names.items()})
    return {
        "label": node.label, "shape": node.array.shape, "axes": axes, "step": node.step, "kind": node.kind,
        "says": node.says, "rule": rule, "adjoint": other(node.adjoint), "of": other(node.of),
    }  # fmt: skip


def _step(step: Step, ids: dict[int, int]) -> dict[str, Any]:
    names = {id(node): name for name, node in step.operation.nodes.items()}
    columns = [
        {"name": name, "value": ids[id(node)]}
        | ({"adjoint": None} if adjoint is None else {"adjoint": ids[id(adjoint)], "adjointName": names[id(adjoint)]})
        for name, node, adjoint in step.operation.columns
    ]
    about = step.as_dict()
    kept = ("name", "formula", "forward_ms", "backward_ms", "time_share", "memory_share", "saved", "saved_bytes", "norms",
            "parameter_gradients", "note")  # fmt: skip
    settings = ", ".join(f"{name} = {value}" for name, value in about["settings"].items())
    outputs = [ids[id(step.operation.nodes[name])] for name in step.operation.anatomy.outputs]
    return {**{name: about[name] for name in kept}, "settings": settings, "columns": columns, "outputs": outputs}
