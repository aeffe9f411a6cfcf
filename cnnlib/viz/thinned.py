"""Dropout's picture: the network, and what is left of it in one training step."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib import ops, random
from cnnlib.backends import override, xp_of
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.nn.module import Module
from cnnlib.op import no_grad
from cnnlib.trace import trace
from cnnlib.viz.asking import on_device_of
from cnnlib.viz.figure import CLASSES, new_figure, to_array


def kept_units(model: Module, input_shape: tuple[int, ...]) -> list[np.ndarray]:
    """Which units the next training step keeps: a row of booleans for the input and for each linear layer.

    ``model``: a multi-layer perceptron with dropout; ``input_shape``: of one sample, without the batch axis. Dropout is linear
    once its mask is drawn, and its backward uses the same mask, so the backward of ones is 0 exactly where a unit is dropped.
    The random streams stay where they are: the next forward pass of one sample in training mode draws these very masks.

    >>> from cnnlib import nn
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
    >>> [len(kept) for kept in kept_units(net, (4,))]
    [4, 6, 2]

    Raises ShapeError for a network that is more than linear layers in a row, ValueRangeError for one without dropout.
    """
    masks: list[np.ndarray] = []

    def watched(ctx: Any, x: Any, *, p: float = 0.5) -> Any:
        y = ops.Dropout.forward(ctx, x, p=p)
        masks.append(to_array(ops.Dropout.backward(ctx, xp_of(x).ones_like(x))[0] != 0).ravel())
        return y

    like: Any = next(model.parameters(), None)
    sample = np.zeros((1, *input_shape), np.float32 if like is None else like.dtype)
    modes, streams = [(m, m.training) for m in model.modules()], random.get_state()
    try:
        model.train()
        with no_grad(), trace() as t, override(ops.Dropout, forward=watched):
            model(on_device_of(model, sample))
    finally:
        random.set_state(streams)
        for module, mode in modes:
            object.__setattr__(module, "training", mode)
    if not masks:
        raise ValueRangeError("thinned_network: the model has no active Dropout layer: nothing is dropped.")
    return _per_layer([e for e in t], masks)


def thinned_network(model: Module, input_shape: tuple[int, ...], most: int = 10, figure: Any = None) -> Any:
    """Left the network, right what :func:`kept_units` says one training step uses: dropped units crossed out.

    At most ``most`` units of a layer are drawn; their number stands below. Every step draws another of the 2ⁿ thinned
    networks, n the number of units that may drop; evaluation takes them all, which averages approximately.

    Source: lecture: regularisation, dropout; Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout: a simple way
    to prevent neural networks from overfitting", 2014, figure 1.

    >>> from cnnlib import nn
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
    >>> figure = thinned_network(net, (4,))

    Raises what :func:`kept_units` raises.
    """
    kept = kept_units(model, input_shape)
    figure = figure or new_figure(1.5 * len(kept) + 2.2, 3.6)
    whole, thinned = figure.subplots(1, 2)
    _draw(whole, [np.ones_like(row) for row in kept], most)
    whole.set_title("the network", fontsize=11)
    _draw(thinned, kept, most)
    thinned.set_title("in one training step", fontsize=11)
    return figure


def _per_layer(entries: list[Any], masks: list[np.ndarray]) -> list[np.ndarray]:
    """The masks at the layers after which they came; all ones elsewhere."""
    linear = [e for e in entries if e.name.split(".")[-1].startswith("linear")]
    other = [e.name for e in entries if any(a is not None and a.ndim > 2 for n, a in e.inputs.items() if n in ("w", "b"))]
    other += [f"{e.name}, which drops weights" for e in entries if e.parameters and "dropout" in e.name.split(".")[-1]]
    sizes = [linear[0].inputs["w"].shape[1], *(e.inputs["w"].shape[0] for e in linear)] if linear else []
    if other or not linear or any(a != b.inputs["w"].shape[1] for a, b in zip(sizes, linear)):
        what = other[0] if other else "no such row"
        raise ShapeError(f"thinned_network: the model must be linear layers in a row, as an MLP is, but has {what}.")
    kept = [np.ones(n, bool) for n in sizes]
    left, layer = iter(masks), 0
    for e in entries:
        operation = e.name.split(".")[-1]
        layer += operation.startswith("linear")
        if operation.startswith("dropout"):
            kept[layer] &= next(left)
    return kept


def _draw(ax: Any, kept: list[np.ndarray], most: int) -> None:
    """Units as circles in columns, a line for each weight between units that are kept."""
    places = [np.arange(n) - (n - 1) / 2 for n in (min(len(row), most) for row in kept)]
    height = max(len(ys) for ys in places)
    for column, (ys, row) in enumerate(zip(places, kept, strict=True)):
        if column:
            for y0, k0 in zip(places[column - 1], kept[column - 1], strict=False):
                for y1, k1 in zip(ys, row, strict=False):
                    if k0 and k1:
                        ax.plot((column - 1, column), (y0, y1), color="#999999", linewidth=0.5, zorder=1)
        for y, k in zip(ys, row, strict=False):
            ax.plot(column, y, "o", color=CLASSES[0] if k else "white", markeredgecolor=CLASSES[0] if k else "#aaaaaa",
                    markersize=11, zorder=2)  # fmt: skip
            if not k:
                ax.plot(column, y, "x", color=CLASSES[1], markersize=8, markeredgewidth=1.6, zorder=3)
        note = f"{row.sum()} of {len(row)}" if not row.all() else f"{len(row)}"
        ax.text(column, -height / 2 - 0.45, note, ha="center", va="top", fontsize=10)
        if len(row) > len(ys):
            ax.text(column, height / 2 - 0.1, "⋮", ha="center", va="bottom", fontsize=12)
    ax.set_xlim(-0.4, len(kept) - 0.6)
    ax.set_ylim(-height / 2 - 1.3, height / 2 + 0.6)
    ax.set_axis_off()
