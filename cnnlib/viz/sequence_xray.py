"""The X-ray of a sequence model as one page: gates, cells, saturation, sensitivities and influences under the pointer.

What the page looks like and does is in sequence_xray.html beside this file; here its numbers are made. They travel as bytes:
255 steps from 0 to 1, 254 from −1 to 1, which is finer than colours can show.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError
from cnnlib.nn.module import Module
from cnnlib.viz.gates import LEFT, RIGHT
from cnnlib.viz.influence import influence_map, softmax
from cnnlib.viz.sensitivity import sensitivity_map
from cnnlib.viz.sequence import NAMES, SQUASHED, Layer, labels_of, read, visible

PAGE = Path(__file__).with_suffix(".html")
MOST_STEPS, MOST_VALUES = 120, 400_000
DECADES = 8  # sensitivities from the largest down to 1e-8 of it


def sequence_xray(model: Module, x: Any, text: Sequence[str] | None = None, classes: Sequence[str] | None = None,
                  title: str = "X-ray of a sequence model") -> str:  # fmt: skip
    """One HTML page to look into a recurrent model while it reads x; it needs a browser, no network and nothing beside it.

    Choose layer, gate and unit, and the text takes their colours; point at a character, and the text below shows which
    characters its prediction listens to, the model's next guesses stand beside it, and the values of all gates. A heat map
    shows all units at once, a scatter plot how often the gates are open and closed; both choose the unit, too.

    ``x``, ``text`` and ``classes``: as in :func:`cnnlib.viz.gates` and :func:`cnnlib.viz.influence`, at most 120 steps. Shown
    are the layers with as many steps as the first. Without scores at each step, or one at the end, there are no influences.

    >>> from cnnlib import nn, viz
    >>> page = viz.sequence_xray(nn.LSTM(3, 4), np.ones((6, 1, 3), np.float32), text=list("abcdef"))
    >>> page[:15], "forget gate f" in page
    ('<!DOCTYPE html>', True)

    ``Path("xray.html").write_text(page, encoding="utf-8")`` makes a file of it; a notebook shows it in an iframe.

    Raises what :func:`cnnlib.viz.gates` raises for x and text, ShapeError for more than fits on a page.

    Source: lecture: recurrent networks; Karpathy, Johnson & Fei-Fei, "Visualizing and understanding recurrent networks", 2015.
    """
    layers = read("sequence_xray", model, x)
    T = layers[0].steps
    layers = [layer for layer in layers if layer.steps == T]
    labels = labels_of("sequence_xray", x, text, T, MOST_STEPS)
    if (values := sum(v.size for layer in layers for v in layer.values.values())) > MOST_VALUES:
        raise ShapeError(
            f"sequence_xray: {values:,} values of gates and states do not fit on a page, at most {MOST_VALUES:,} do: "
            "take a part of the text."
        )
    numbers = {
        "title": title,
        "labels": labels,
        "shown": [visible(label) for label in labels],
        "names": NAMES,
        "squashed": SQUASHED,
        "limits": [LEFT, RIGHT],
        "decades": DECADES,
        "layers": [_layer(model, x, layer) for layer in layers],
        **_influences(model, x, classes),
    }
    return PAGE.read_text(encoding="utf-8").replace("@DATA@", json.dumps(numbers, ensure_ascii=False).replace("</", "<\\/"))


def _layer(model: Module, x: Any, layer: Layer) -> dict[str, Any]:
    values = {name: _bytes(layer.shown(name), signed=name not in SQUASHED) for name in layer.values}
    numbers = {"name": layer.name, "kind": layer.kind, "units": layer.units, "values": values}
    if len(layer.entries) > 1:
        return numbers  # a cell: no run over all steps to differentiate
    S = sensitivity_map(model, x, layer.name)
    relative = np.log10(np.maximum(S / (S.max() or 1.0), 10.0**-DECADES)) / DECADES + 1
    return {**numbers, "sensitivity": _bytes(relative)}


def _influences(model: Module, x: Any, classes: Sequence[str] | None) -> dict[str, Any]:
    """The rows of both influence maps, each scaled to its largest value, and the three likeliest classes of each prediction."""
    none: dict[str, Any] = {"gradient": None, "product": None, "guesses": []}
    try:
        gradient, scores = influence_map(model, x)
    except ShapeError:  # no scores
        return none
    if len(gradient) not in (1, gradient.shape[1]):
        return none
    product, _ = influence_map(model, x, how="gradient x input")
    names = classes if classes is not None else getattr(getattr(model, "alphabet", None), "characters", None)
    chance = softmax(scores)
    best = np.argsort(-chance, axis=1, kind="stable")[:, :3]
    named = lambda k: f"class {k}" if names is None else visible(str(names[k]))  # noqa: E731
    return {
        "gradient": _bytes(_by_row(gradient)),
        "product": _bytes(_by_row(product), signed=True),
        "guesses": [[[named(k), round(float(p[k]), 3)] for k in ks] for ks, p in zip(best, chance, strict=True)],
    }


def _by_row(I: np.ndarray) -> np.ndarray:
    largest = np.abs(I).max(axis=1, keepdims=True)
    return I / np.where(largest > 0, largest, 1.0)


def _bytes(values: np.ndarray, signed: bool = False) -> str:
    """Numbers of 0 … 1, or of −1 … 1, as bytes in base64, row by row."""
    steps = np.rint((values + 1) * 127 if signed else values * 255)
    return base64.b64encode(np.clip(steps, 0, 255).astype(np.uint8).tobytes()).decode("ascii")
