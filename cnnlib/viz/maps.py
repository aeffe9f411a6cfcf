"""What the layers of a network make of one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnlib.errors import ShapeError
from cnnlib.nn.module import Module
from cnnlib.op import no_grad
from cnnlib.viz.asking import layer_of, looked_at, on_device_of
from cnnlib.viz.figure import MAPS, new_figure, show, tiles, to_array


def feature_maps(model: Module, x: Any, layers: Sequence[str] | None = None, most: int = 16, figure: Any = None) -> Any:
    """The picture ``x``, (C, H, W) or (1, C, H, W), and below it each layer's maps, at most ``most`` in a row.

    ``layers``: paths as in ``model.named_modules()``; by default all layers whose output is a stack of maps. Each map has a
    scale of its own: dark is its smallest value. The model is evaluated and left in the mode that it was in.

    Source: lecture: convolutional networks; LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
    recognition", 1998, figure 2.

    >>> from cnnlib import models
    >>> figure = feature_maps(models.LeNet5(), np.zeros((1, 32, 32), np.float32), layers=["c1", "s2"])

    Raises ShapeError when x is not one picture or a layer makes no maps, UnknownNameError for a path that does not exist.
    """
    x = to_array(x)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) != 1:
        raise ShapeError(f"feature_maps: x must be one picture, (C, H, W) or (1, C, H, W), got shape {x.shape}.")
    stacks = _outputs(model, x, layers)
    if not stacks:
        raise ShapeError("feature_maps: no layer of this model makes maps, (N, C, H, W): it has no convolution or pooling.")
    columns = min(most, max(len(maps) for _, maps in stacks))
    figure = figure or new_figure(0.62 * max(columns, 8) + 0.4, 0.95 * (len(stacks) + 1) + 0.5)
    parts = figure.subfigures(len(stacks) + 1, 1)
    parts[0].suptitle("input", x=0.01, ha="left", fontsize=10)
    show(tiles(parts[0], 1, columns)[0, 0], x[0])
    for part, (name, maps) in zip(parts[1:], stacks, strict=True):
        _draw_row(part, f"{name}: {' × '.join(map(str, maps.shape))}", maps, columns)
    return figure


def _outputs(model: Module, x: np.ndarray, layers: Sequence[str] | None) -> list[tuple[str, np.ndarray]]:
    """(path, (C, H, W)) of the layers' outputs for the one picture, in the order in which they ran."""
    for name in layers or ():
        layer_of(model, name)
    paths = dict(model.named_modules())
    chosen = {n: m for n, m in paths.items() if (n in layers if layers is not None else not m._modules)}
    stacks: list[tuple[str, np.ndarray]] = []
    remove = [module.register_forward_hook(_keeper(stacks, name)) for name, module in chosen.items()]
    try:
        with looked_at(model), no_grad():
            model(on_device_of(model, x))
    finally:
        for undo in remove:
            undo()
    if layers is not None and (flat := [n for n, y in stacks if y.ndim != 4]):
        raise ShapeError(f"feature_maps: the output of {flat[0]!r} is not a stack of maps, (N, C, H, W).")
    return [(n, y[0]) for n, y in stacks if y.ndim == 4]


def _keeper(stacks: list[tuple[str, np.ndarray]], name: str) -> Callable[[Module, tuple, Any], None]:
    """A hook that keeps the layer's output under its name."""
    return lambda _module, _inputs, y: stacks.append((name, to_array(y)))


def _draw_row(part: Any, title: str, maps: np.ndarray, columns: int) -> None:
    part.suptitle(title, x=0.01, ha="left", fontsize=10)
    for ax, picture in zip(tiles(part, 1, columns).flat, maps, strict=False):
        ax.imshow(picture, cmap=MAPS)
