"""What pictures of sequence models share: the recurrent layers of a model while it reads one sequence, step by step.

They are found in a trace: operations with the same W_hh are one layer, whether it ran once over all steps or was a cell called
in a loop. So any model will do that has an RNN, LSTM or GRU inside.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from cnnlib import ops
from cnnlib.errors import DtypeError, NonFiniteError, ShapeError, ValueRangeError, unknown_name
from cnnlib.nn.module import Module
from cnnlib.op import no_grad
from cnnlib.ops.nonfinite import blew_up, first_in_sequence
from cnnlib.trace import Entry, trace
from cnnlib.viz.asking import looked_at, on_device_of
from cnnlib.viz.figure import to_array

OPERATIONS: dict[str, Any] = {"rnn": ops.RNN, "lstm": ops.LSTM, "gru": ops.GRU}
GATES = {"rnn": "", "lstm": "ifgo", "gru": "rzn"}
NAMES = {"i": "input gate i", "f": "forget gate f", "g": "candidate g", "o": "output gate o", "r": "reset gate r",
         "z": "update gate z", "n": "candidate n", "c": "cell, tanh(c)", "h": "state h"}  # fmt: skip
SQUASHED = "iforz"  # the gates that open and close, 0 … 1; the others have both signs


@dataclasses.dataclass
class Layer:
    """One recurrent layer in one direction, and what it computed at the T steps of one sequence."""

    name: str
    kind: str
    entries: list[Entry]
    values: dict[str, np.ndarray]  # (T, H) by name: gates i, f, g, o or r, z, n; states c, h

    @property
    def steps(self) -> int:
        return len(self.values["h"])

    @property
    def units(self) -> int:
        return self.values["h"].shape[1]

    @property
    def reverse(self) -> bool:
        return bool(self.entries[0].settings.get("reverse"))

    def shown(self, name: str) -> np.ndarray:
        """(T, H) between −1 and 1: the cell as tanh(c), which is what the output gate lets through."""
        values = np.tanh(self.values[name]) if name == "c" else self.values[name]
        return values / max(1.0, float(np.abs(values).max()))  # a ReLU has no bound


def read(name: str, model: Module, x: Any) -> list[Layer]:
    """The recurrent layers while the model, as in evaluation, reads x, in the order in which they began.

    x: one sequence as the model takes it, a tuple for several arguments, or a text for a model with an ``alphabet``.
    Raises ShapeError for more than one sequence or a model without recurrent layers, DtypeError for a text it cannot read,
    NonFiniteError for NaN or infinity in the model or in what its layers compute.
    """
    with looked_at(model), no_grad():
        return run(name, model, x)[1]


def run(name: str, model: Module, x: Any) -> tuple[Any, list[Layer]]:
    """What the model gives for x, and the layers as `read` returns them."""
    with trace() as t, np.errstate(invalid="ignore", over="ignore"):  # what is not finite is an error below
        output = model(*arguments_of(name, model, x))
    layers = layers_of(name, t)
    _check_finite(name, model, layers)
    return output, layers


def arguments_of(name: str, model: Module, x: Any) -> list[Any]:
    if isinstance(x, str):
        if not hasattr(model, "alphabet"):
            raise DtypeError(
                f"{name}: {type(model).__name__} has no alphabet to read a text with. Give it x as it takes it, and the "
                "labels of the steps as text=list(...)."
            )
        if not x:
            raise ValueRangeError(f"{name}: the text is empty: there is no step to look at.")
        x = model.alphabet.encode(x)[:, None]  # (T, 1)
    return [on_device_of(model, to_array(a)) for a in (x if isinstance(x, tuple) else (x,))]


def layers_of(name: str, t: trace) -> list[Layer]:
    groups: dict[str, list[Entry]] = {}
    for entry in t:
        if re.search(r"(^|\.)(rnn|lstm|gru)(_\d+)?$", entry.name):
            groups.setdefault(entry.sources["w_hh"], []).append(entry)
    if not groups:
        raise ShapeError(f"{name}: no RNN, LSTM or GRU ran in this model: there are no steps to look at.")
    return [_layer(name, weight, entries) for weight, entries in groups.items()]


def _layer(name: str, weight: str, entries: list[Entry]) -> Layer:
    B = entries[0].saved["h"].shape[1]
    if B != 1:
        raise ShapeError(f"{name}: x must be one sequence, but the recurrent layers got a batch of {B}: take one of them.")
    kind = re.sub(r"_\d+$", "", entries[0].name.rpartition(".")[2])
    values = {"h": _over_time(entries, "h")}
    if kind == "lstm":
        values = {"c": _over_time(entries, "c"), **values}
    if kind != "rnn":
        gates = _over_time(entries, "gates")
        H = values["h"].shape[1]
        values = {**{gate: gates[:, k * H : (k + 1) * H] for k, gate in enumerate(GATES[kind])}, **values}
    return Layer(re.sub(r"\.?weight_hh(_?)", r"\1", weight).replace("_l", ".l", 1).strip("._") or kind, kind, entries, values)


def _over_time(entries: list[Entry], saved: str) -> np.ndarray:
    """(T, ·) of the one sequence, without its padding."""
    return np.concatenate([to_array(e.saved[saved])[: length_of(e), 0] for e in entries])


def length_of(entry: Entry) -> int:
    mask = entry.saved["mask"]
    return len(entry.saved["h"]) if mask is None else int(mask.sum())


def _check_finite(name: str, model: Module, layers: list[Layer]) -> None:
    spoilt = [path for path, p in model.named_parameters() if not np.isfinite(to_array(p)).all()]
    began = next((f" It began in layer {layer.name!r}{where}." for layer in layers if (where := _began(layer))), "")
    if spoilt:
        raise NonFiniteError(f"{blew_up(name, 'numbers')}{began or f' Parameter {spoilt[0]!r} has NaN or infinity.'}")
    if began:
        raise NonFiniteError(
            f"{name}: the network's states are not finite, though all its parameters are: x must be without NaN and infinity, "
            f"and not too large.{began}"
        )


def _began(layer: Layer) -> str:
    """At which step, and in which gate or state, NaN or infinity began; empty where all is finite."""
    if all(np.isfinite(values).all() for values in layer.values.values()):
        return ""
    runs = [(entry.op.computed(SimpleNamespace(**entry.saved)), length_of(entry)) for entry in layer.entries]
    levels = [
        {gate: np.concatenate([to_array(run[k][gate])[:n] for run, n in runs]) for gate in level}
        for k, level in enumerate(runs[0][0])
    ]
    return first_in_sequence(levels, range(layer.steps)[:: -1 if layer.reverse else 1])


def chosen(layers: list[Layer], layer: str | None) -> Layer:
    """The layer of that name, by default the first. Raises UnknownNameError that names the nearest match."""
    for found in layers:
        if layer is None or found.name == layer:
            return found
    raise unknown_name("recurrent layer", layer, [found.name for found in layers])


def values_of(layer: Layer, which: str) -> str:
    if which not in layer.values:
        raise unknown_name(f"gate or state of the {layer.kind} layer {layer.name!r}", which, list(layer.values))
    return which


def units_of(name: str, layer: Layer, units: Any) -> list[int]:
    """``units``, a number or several, as a list. Raises ValueRangeError for one that does not exist."""
    numbers = [int(u) for u in np.atleast_1d(np.asarray(units))]
    if wrong := [u for u in numbers if not 0 <= u < layer.units]:
        raise ValueRangeError(f"{name}: layer {layer.name!r} has the units 0 … {layer.units - 1}, got {wrong[0]}.")
    return numbers


def labels_of(name: str, x: Any, text: Sequence[str] | None, T: int, most: int | None = None) -> list[str]:
    """A label for each of the T steps: ``text``, by default the characters of x, else the steps' numbers."""
    labels = [str(label) for label in (text if text is not None else x if isinstance(x, str) else range(T))]
    if len(labels) != T:
        raise ShapeError(f"{name}: text must have a label for each of the T = {T} steps of the layer, got {len(labels)}.")
    if most is not None and most < T:
        raise ShapeError(f"{name}: at most {most} steps fit beside each other, got {T}: take a part of the text.")
    return labels


def visible(label: str) -> str:
    """A label in which blanks and line ends can be seen."""
    return {" ": "␣", "\n": "↵", "\t": "⇥"}.get(label, label)
