"""What in a picture made a unit fire: its activation sent back to the pixels through the network run in reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib import ops
from cnnlib.backends import override, xp_of
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.nn.module import Module
from cnnlib.viz.asking import layer_of, looked_at, on_device_of, pictures_of
from cnnlib.viz.figure import new_figure, row_label, show, tiles, to_array


def rectify(ctx: Any, dy: Any) -> Any:
    """The deconvnet's way back through a ReLU: what is positive on the way back passes, whatever came on the way there."""
    return xp_of(dy).maximum(dy, 0.0)


def projection(model: Module, x: Any, layer: str, units: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each unit: the picture of x that excites it most, and that one activation's way back to the pixels.

    The network runs backwards, layer by layer, from the strongest activation a of the unit's map; all else is 0::

        convolution     its filters transposed: the backward pass with respect to the input
        max pooling     "switches": a value goes to the place where the maximum came from
        ReLU            max(·, 0) of the signal on its way back

    These are the backward passes that every layer has anyway, but for the ReLU's: hence ``cl.override(ops.ReLU, ...)``.
    Layers that the paper does not have (batch norm in evaluation, average pooling, tanh) run their own backward.

    ``x``: (N, C, H, W); ``layer``: a path as in ``model.named_modules()``, its output (N, F, OH, OW) or (N, F); ``units``:
    of its F. Returns the numbers of the pictures (U,) and the projections (U, C, H, W), U = len(units).

    Source: lecture: convolutional networks, ZFNet; Zeiler & Fergus, "Visualizing and understanding convolutional networks",
    2014, section 2.1.

    >>> from cnnlib import models
    >>> picked, p = projection(models.LeNet5(), np.ones((4, 1, 32, 32), np.float32), "act3", units=[0, 5])
    >>> p.shape
    (2, 1, 32, 32)

    Raises ShapeError (x is no picture, the layer makes no maps), UnknownNameError (layer), ValueRangeError (unit).
    """
    x = pictures_of("deconvnet", x, most=None)
    picked, places = _strongest(model, x, layer, units)
    with looked_at(model), override(ops.ReLU, backward=rectify):
        pixels = on_device_of(model, x[picked], requires_grad=True)
        y = _output(model, pixels, layer)
        a = y.numpy()
        dy = np.zeros_like(a)
        for i, place in enumerate(places):
            dy[(i, *place)] = a[(i, *place)]
        y.backward(on_device_of(model, dy).data)
    return picked, to_array(pixels.grad)


def deconvnet(
    model: Module, x: Any, layer: str, units: int | Sequence[int] | None = None, most: int = 8, figure: Any = None
) -> Any:
    """Above the picture of x that excites each unit most, below :func:`projection`: what in it the unit answered to.

    ``units``: one or several; by default the first ``most`` of the layer that fire at all. Grey is 0; each projection has its
    own scale.

    >>> from cnnlib import models
    >>> figure = deconvnet(models.LeNet5(), np.ones((4, 1, 32, 32), np.float32), "act3", units=[0, 5])

    Raises what :func:`projection` raises.
    """
    x = pictures_of("deconvnet", x, most=None)
    shown = _firing(model, x, layer)[:most] if units is None else np.atleast_1d(units).tolist()
    picked, projections = projection(model, x, layer, shown)
    figure = figure or new_figure(1.05 * len(shown) + 0.4, 2.8)
    axes = tiles(figure, 2, len(shown))
    for (above, below), i, p, unit in zip(axes.T, picked, projections, shown, strict=True):
        show(above, x[i])
        above.set_title(f"unit {unit}", fontsize=11)
        show(below, 0.5 + 0.5 * p / (np.abs(p).max() or 1.0))
    row_label(axes[0, 0], "picture")
    row_label(axes[1, 0], "projection")
    figure.suptitle(f"what excites {layer}", fontsize=11)
    return figure


def _firing(model: Module, x: np.ndarray, layer: str) -> list[int]:
    """The units of the layer that fire for some picture; at least one, or ValueRangeError."""
    a = _activations(model, x, layer)
    units = [int(u) for u in np.flatnonzero(a.reshape(*a.shape[:2], -1).max(axis=(0, 2)) > 0)]
    if not units:
        raise ValueRangeError(f"deconvnet: no unit of {layer!r} fires for these pictures: all activations are <= 0.")
    return units


def _strongest(model: Module, x: np.ndarray, layer: str, units: Sequence[int]) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """For each unit the number of the picture, and the place (unit, h, w) of the strongest activation in it."""
    a = _activations(model, x, layer)
    units = [int(u) for u in np.atleast_1d(units)]
    if not units or min(units) < 0 or max(units) >= a.shape[1]:
        raise ValueRangeError(f"deconvnet: {layer!r} has the units 0 … {a.shape[1] - 1}, got {units}.")
    found = [np.unravel_index(a[:, u].argmax(), a[:, u].shape) for u in units]
    return np.array([f[0] for f in found]), [(u, *map(int, f[1:])) for u, f in zip(units, found, strict=True)]


def _activations(model: Module, x: np.ndarray, layer: str) -> np.ndarray:
    with looked_at(model):
        return _output(model, on_device_of(model, x), layer).numpy()


def _output(model: Module, x: Any, layer: str) -> Any:
    """The tensor that the layer made out of x."""
    outputs: list[Any] = []
    remove = layer_of(model, layer).register_forward_hook(lambda _module, _inputs, y: outputs.append(y))
    try:
        model(x)
    finally:
        remove()
    if not outputs or getattr(outputs[0], "ndim", None) not in (2, 4) or len(outputs[0]) != len(x):
        came = getattr(outputs[0], "shape", type(outputs[0]).__name__) if outputs else "nothing: the model did not call it"
        raise ShapeError(f"deconvnet: {layer!r} must give maps, (N, F, OH, OW), or units, (N, F), got {came}.")
    return outputs[0]
