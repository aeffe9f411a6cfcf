"""How long an input lives: the gradient of a recurrent layer's state at a step with respect to its inputs before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib.backends import xp_of
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.nn.module import Module
from cnnlib.nn.recurrent import LSTM
from cnnlib.viz.figure import CLASSES, MAPS, new_figure, to_array
from cnnlib.viz.sequence import OPERATIONS, Layer, chosen, labels_of, length_of, read, visible

MOST_STEPS = 120
OPEN, CLOSED = "O", "—"


def sensitivity_map(model: Module, x: Any, layer: str | None = None, of: str = "h") -> np.ndarray:
    """S (T, T), S[t, s] = ‖∂h_t / ∂x_s‖: how strongly the state after step t answers to the layer's input of step s::

        ‖J‖ = √(Σ_ij J_ij²),  J (H, D) the Jacobian matrix;  h_t sees x_s through W_ih and then through t − s steps of the state

    ``of="c"``: the LSTM's cell in place of h. ``x`` and ``layer`` as in :func:`cnnlib.viz.gates`; x_s is the input of that
    layer, an embedding or the layer below. H sequences, one per unit, run through the layer's own forward and backward.

    Source: lecture: recurrent networks, vanishing gradients; Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen",
    1991; Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013.

    >>> from cnnlib import nn
    >>> S = sensitivity_map(nn.LSTM(3, 4), np.ones((6, 1, 3), np.float32))
    >>> S.shape, bool(S[2, 3] == 0)         # nothing depends on what comes later
    ((6, 6), True)

    Raises what :func:`cnnlib.viz.gates` raises, ShapeError for a cell called step by step and for more than 120 steps.
    """
    found = chosen(read("sensitivity", model, x), layer)
    if len(found.entries) > 1:
        raise ShapeError(
            f"sensitivity: layer {found.name!r} ran {len(found.entries)} times, as a cell does: the picture needs one run over "
            "all steps. Use RNN, LSTM or GRU in place of a cell."
        )
    if of not in ("h", "c") or of not in found.values:
        raise unknown_name(f"state of the {found.kind} layer {found.name!r}", of, [s for s in "hc" if s in found.values])
    if found.steps > MOST_STEPS:
        raise ShapeError(f"sensitivity: at most {MOST_STEPS} steps, got {found.steps}: take a part of the text.")
    S = np.zeros((found.steps, found.steps))
    for t in range(found.steps):
        seen = slice(t, None) if found.reverse else slice(t + 1)
        S[t, seen] = _norms(found, seen, of)
    return S


def _norms(layer: Layer, seen: slice, of: str) -> np.ndarray:
    """‖∂(last state)/∂x_s‖ for the steps s of a sequence of those steps only: sequence j of a batch of H asks for unit j."""
    entry, H = layer.entries[0], layer.units
    x = entry.inputs["x"][: length_of(entry)][seen]
    xp = xp_of(x)
    inputs = {
        name: xp.repeat(a, H, axis=0) if name in ("h0", "c0") and a is not None else a for name, a in entry.inputs.items()
    }
    inputs["x"] = xp.repeat(x, H, axis=1)
    op = OPERATIONS[layer.kind]
    outputs, ctx = op.run(*inputs.values(), **{**entry.settings, "lengths": None})
    dys = [None] * len(outputs)
    dys[2 if of == "c" else 1] = xp.eye(H, dtype=x.dtype)
    dx = to_array(op.backward(ctx, *dys)[0]).astype(np.float64)
    return np.sqrt((dx**2).sum(axis=(1, 2)))


def sensitivity(model: Module, x: Any, text: Sequence[str] | None = None, layer: str | None = None, of: str = "h",
                title: str = "", figure: Any = None) -> Any:  # fmt: skip
    """Left :func:`sensitivity_map`, a row per state and a column per input, on a logarithmic scale; right the same over the
    lag k = t − s: the median over all t, in a band from the smallest to the largest.

    A straight line that falls is a gradient that vanishes exponentially; level, the layer remembers; rising, it explodes.
    ``text``: as in :func:`cnnlib.viz.gates`. Values below 1e-12 of the largest are not drawn.

    >>> from cnnlib import nn
    >>> figure = sensitivity(nn.RNN(3, 4), np.ones((6, 1, 3), np.float32), text=list("abcdef"))

    Raises what :func:`sensitivity_map` raises.
    """
    from matplotlib.colors import LogNorm

    S = sensitivity_map(model, x, layer, of)
    labels = labels_of("sensitivity", x, text, len(S))
    largest = float(S.max()) or 1.0
    S = np.where(S < 1e-12 * largest, np.nan, S)
    figure = figure or new_figure(10.4, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    smallest = float(np.nanmin(S)) if np.isfinite(S).any() else largest / 10
    image = left.imshow(S, cmap=MAPS, norm=LogNorm(min(smallest, largest / 10), largest), interpolation="nearest")
    _ticks(left, [visible(label) for label in labels])
    left.set_xlabel("input $x_s$")
    left.set_ylabel(f"state ${of}_t$")
    figure.colorbar(image, ax=left, pad=0.02, label=f"‖∂{of}$_t$ / ∂x$_s$‖")
    lags = _by_lag(S)
    ks = range(len(lags))
    right.fill_between(ks, [v.min() for v in lags], [v.max() for v in lags], color=CLASSES[0], alpha=0.2, linewidth=0)
    right.plot(ks, [np.median(v) for v in lags], color=CLASSES[0])
    right.set_yscale("log")
    right.set_xlabel("lag k = |t − s|, steps")
    right.set_ylabel(f"‖∂{of}$_t$ / ∂x$_{{t−k}}$‖: median, smallest, largest", fontsize=10)
    right.grid(alpha=0.25)
    right.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _ticks(ax: Any, labels: list[str]) -> None:
    """The labels at both axes, or the steps' numbers where labels would be too small to read."""
    ax.tick_params(length=0)
    if len(labels) <= 48:
        font = {"fontsize": min(8.0, 280 / len(labels)), "family": "monospace"}
        ax.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 2 else 0, **font)
        ax.set_yticks(range(len(labels)), labels, **font)


def _by_lag(S: np.ndarray) -> list[np.ndarray]:
    """The values at each distance between state and input, until there are none."""
    t, s = np.indices(S.shape)
    lags = []
    for k in range(len(S)):
        values = S[(abs(t - s) == k) & np.isfinite(S)]
        if not len(values):
            break
        lags.append(values)
    return lags


# ---- the network unrolled


def hand_gated(i: str, f: str, o: str) -> tuple[LSTM, np.ndarray]:
    """An LSTM of one unit whose gates are opened and closed by hand, and an x (T, 1, 4) that does it.

    A character per step: ``O`` is open, ``-`` or ``—`` closed. The first column of x is the signal, 1 at every step; the others
    push the gates to σ(±20), so the network is a usual LSTM, and what is computed with it is computed, not drawn.

    >>> net, x = hand_gated(i="O---", f="-OOO", o="--O-")
    >>> y, (h_n, c_n) = net(x)
    >>> [f"{abs(v):.2f}" for v in y.numpy().ravel()], f"{c_n.item():.2f}"
    (['0.00', '0.00', '0.43', '0.00'], '0.46')

    Raises ShapeError (words of different lengths), ValueRangeError (another character).
    """
    words = {"i": i, "f": f, "o": o}
    if len({len(word) for word in words.values()}) != 1 or not i:
        raise ShapeError(f"hand_gated: i, f and o must have a character for each step, got {len(i)}, {len(f)} and {len(o)}.")
    for name, word in words.items():
        if wrong := set(word) - set("O-" + CLOSED):
            raise ValueRangeError(f"hand_gated: {name} = {word!r} must be of O (open) and - (closed), got {min(wrong)!r}.")
    x = np.ones((len(i), 1, 4), np.float32)
    for column, word in enumerate(words.values(), start=1):
        x[:, 0, column] = [20.0 if gate == OPEN else -20.0 for gate in word]
    net = LSTM(4, 1, bias=False)
    net.weight_ih_l0.set(np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0.5, 0, 0, 0], [0, 0, 0, 1]]))  # rows i, f, g, o
    net.weight_hh_l0.set(np.zeros((4, 1)))
    return net, x


def unrolled(model: Module, x: Any, text: Sequence[str] | None = None, source: int = 0, layer: str | None = None,
             title: str = "", figure: Any = None) -> Any:  # fmt: skip
    """The layer unrolled in time, each node as dark as it is sensitive to the input of step ``source``; in it the number.

    RNN and GRU have a row of inputs and a row of states. The LSTM has cells above its inputs, and outputs above the cells; the
    gates stand where they act, input gate below the cell, forget gate left of it, output gate above: O for open (over 0.9 on
    average over the units), — for closed (under 0.1), else their mean. What the cell keeps, the output gate shows or hides.

    ``source``: the step, by default the first. Black is the largest value of a row's kind, c and h; white is 0. The other
    arguments: as in :func:`cnnlib.viz.gates`; :func:`hand_gated` makes an LSTM and an x for the textbook's picture.

    Source: lecture: recurrent networks, vanishing gradients and LSTM; Graves, "Supervised sequence labelling with recurrent
    neural networks", 2012, figures 4.1 (RNN) and 4.4 (LSTM).

    >>> figure = unrolled(*hand_gated(i="O------", f="-OOOOO-", o="---O-O-"))

    Raises what :func:`sensitivity_map` raises, and ValueRangeError for a source that is no step.
    """
    found = chosen(read("unrolled", model, x), layer)
    T = found.steps
    labels, named = labels_of("unrolled", x, text, T, 24), text is not None or isinstance(x, str)
    if not 0 <= source < T:
        raise ValueRangeError(f"unrolled: source must be one of the steps 0 … {T - 1}, got {source}.")
    states = "ch" if found.kind == "lstm" else "h"
    rows = {of: sensitivity_map(model, x, layer, of)[:, source] for of in states}
    figure = figure or new_figure(max(0.92 * T + 1.4, 4), 1.0 * len(states) + 1.3)
    ax = figure.subplots()
    for t in range(T):
        _node(ax, t, 0, 1.0 if t == source else 0.0, visible(labels[t]) if named else f"$x_{{{t}}}$")
        _arrow(ax, (t, 0), (t, 1))
        for level, of in enumerate(states, start=1):
            largest = float(rows[of].max()) or 1.0
            _node(ax, t, level, rows[of][t] / largest, _short(rows[of][t]))
        if found.kind == "lstm":
            _arrow(ax, (t, 1), (t, 2))
            for gate, (dx, dy) in {"i": (-0.13, -0.47), "f": (-0.42, 0.15), "o": (-0.13, 0.42)}.items():
                ax.text(t + dx, 1 + dy, _gate(found.values[gate][t].mean()), ha="center", va="center", fontsize=11)
        if t:
            _arrow(ax, *(((t, 1), (t - 1, 1)) if found.reverse else ((t - 1, 1), (t, 1))))
    ax.set_yticks(
        range(len(states) + 1),
        ["input x", *({"c": "cell c", "h": "output h"}[s] if len(states) > 1 else "state h" for s in states)],
    )
    ax.set_xticks(range(T), [f"t = {t}" if t == 0 else str(t) for t in range(T)])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(-0.75, T - 0.5), ylim=(-0.5, len(states) + 0.4), aspect="equal")
    ax.set_title(title or f"how sensitive each node of {found.name} is to $x_{{{source}}}$", fontsize=11)
    return figure


def _node(ax: Any, t: float, level: float, shade: float, text: str) -> None:
    from matplotlib.patches import Circle

    ax.add_patch(Circle((t, level), 0.25, facecolor=str(1.0 - shade), edgecolor="#444444", linewidth=1.1, zorder=2))
    ax.text(t, level, text, ha="center", va="center", fontsize=8, color="white" if shade > 0.5 else "black", zorder=3)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {"arrowstyle": "->", "color": "#888888", "shrinkA": 15, "shrinkB": 15, "linewidth": 1}
    ax.annotate("", end, start, arrowprops=arrow, zorder=1)


def _gate(mean: float) -> str:
    return OPEN if mean > 0.9 else CLOSED if mean < 0.1 else f"{mean:.1f}"[1:]


def _short(v: float) -> str:
    return f"{v:.2f}" if v >= 0.01 else "0" if v < 1e-7 else f"1e{int(np.floor(np.log10(v)))}"
