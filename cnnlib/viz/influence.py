"""Which characters before it a prediction listens to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from cnnlib.backends import xp_of
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.nn.module import Module
from cnnlib.tensor import Tensor
from cnnlib.trace import Entry
from cnnlib.viz.asking import looked_at
from cnnlib.viz.cell_text import texts
from cnnlib.viz.figure import SIGNED, to_array
from cnnlib.viz.sequence import OPERATIONS, Layer, labels_of, length_of, run, visible

SHADES = "Oranges"
HOW = ("gradient", "gradient x input")


def influence_map(
    model: Module, x: Any, targets: Any = None, how: str = "gradient", at: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """I (R, T) and the scores (R, K) of the R predictions: what the input of step s does to the score of prediction r::

        gradient:           I[r, s] = ‖∂score_rk / ∂x_s‖
        gradient x input:   I[r, s] = Σ_d x_sd ∂score_rk / ∂x_sd      above 0 it spoke for class k, below 0 against it

    x_s is what the first recurrent layer is given at step s, such as the character's embedding; k is ``targets``, R class
    numbers, by default the class of the highest score, before softmax. A model that labels each step has R = T predictions,
    one that labels the sequence R = 1, one that writes another sequence as many as that has steps. ``at``: only these,
    the other rows stay 0.
    The model is evaluated; its mode and gradients stay as they were.

    Source: lecture: recurrent networks; Li, Chen, Hovy & Jurafsky, "Visualizing and understanding neural models in NLP", 2016.

    >>> from cnnlib import nn
    >>> net = nn.LSTM(3, 4)                  # its four outputs as scores
    >>> I, scores = influence_map(net, np.ones((6, 1, 3), np.float32))
    >>> I.shape, scores.shape, bool(I[2, 3] == 0)
    ((6, 6), (6, 4), True)

    Raises what :func:`cnnlib.viz.gates` raises for x; ShapeError for outputs that are no scores, ValueRangeError for targets
    or ``at`` out of range, UnknownNameError for ``how``.
    """
    if how not in HOW:
        raise unknown_name("how of influence", how, HOW)
    with _differentiable(model):
        output, layers = run("influence", model, x)
        first = [layer for layer in layers if _same_input(layer, layers[0])]
        T = first[0].steps
        tensor, rows = _scores(output, T)
        scores = rows(tensor.numpy())
        numbers = _targets(targets, scores)
        I = np.zeros((len(scores), T))
        runs = [(entry, _again(layer, entry)) for layer in first for entry in layer.entries]
        for r in _predictions(at, len(scores)):
            for entry, _ in runs:
                entry.dys = ()
            dy = np.zeros(tensor.shape, scores.dtype)
            rows(dy)[r, numbers[r]] = 1.0
            tensor.backward(xp_of(tensor.data).asarray(dy), retain=True)
            I[r] = _per_step(runs, len(first), how)
    return I, scores


def influence(model: Module, x: Any, at: Any = -1, text: Sequence[str] | None = None, targets: Any = None,
              how: str = "gradient", classes: Sequence[str] | None = None, figure: Any = None) -> Any:  # fmt: skip
    """The text once per prediction, each character as dark as its :func:`influence_map`.

    ``at``: one prediction or several, by default the last; each text is scaled to its own largest value. Where the model
    predicts at each step, the step is framed.
    ``how="gradient x input"``: red spoke for the class, blue against it. ``classes``: the names of the classes, by default
    the characters of the model's ``alphabet``. ``text``: as in :func:`cnnlib.viz.gates`.

    >>> from cnnlib import nn
    >>> figure = influence(nn.LSTM(3, 4), np.ones((6, 1, 3), np.float32), at=[2, 5], text=list("abcdef"), classes="wxyz")

    Raises what :func:`influence_map` raises.
    """
    steps = [int(step) for step in np.atleast_1d(at)]
    I, scores = influence_map(model, x, targets, how, steps)
    labels = labels_of("influence", x, text, I.shape[1])
    names = classes if classes is not None else getattr(getattr(model, "alphabet", None), "characters", None)
    chance, numbers = softmax(scores), _targets(targets, scores)
    blocks = []
    for r in (step % len(scores) for step in steps):
        k = int(numbers[r])
        class_ = f"class {k}" if names is None else repr(visible(str(names[k])))
        aligned, at_end = len(scores) == len(labels), len(scores) == 1
        place = f"after step {r}" if aligned else "at the end" if at_end else f"prediction {r}"
        title = f"{place}: {class_}, p = {chance[r, k]:.2f}"
        blocks.append((title, I[r] / (np.abs(I[r]).max() or 1.0), [r] if aligned else []))
    signed = how != "gradient"
    return texts(labels, blocks, SIGNED if signed else SHADES, -1 if signed else 0, figure)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@contextmanager
def _differentiable(model: Module) -> Iterator[None]:
    """The model evaluated, with gradients from its outputs to its layers whatever is frozen; afterwards all is as it was."""
    with looked_at(model):
        gradients = [(p, p.grad) for p in model.parameters()]
        try:
            for p, _ in gradients:
                p.requires_grad, p.grad = True, None
            yield
        finally:
            for p, grad in gradients:
                p.grad = grad


def _same_input(layer: Layer, other: Layer) -> bool:
    """Two directions of one layer read the same."""
    a, b = layer.entries[0], other.entries[0]
    same = a.sources["x"] == b.sources["x"] and a.inputs["x"].shape == b.inputs["x"].shape
    return same and bool((a.inputs["x"] == b.inputs["x"]).all())


def _scores(output: Any, T: int) -> tuple[Tensor, Any]:
    """The scores, and how an array of their shape is seen as (R, K)."""
    while isinstance(output, (tuple, list)):
        output = output[0]
    shape: tuple[int, ...] = tuple(getattr(output, "shape", ()))
    if len(shape) < 2:
        raise ShapeError(
            f"influence: the model must give scores (R, K) for R predictions, such as (T, 1, K) or (1, T, K), or (1, K, T), "
            f"got {shape or type(output).__name__}."
        )
    if len(shape) == 3 and shape[0] == 1 and shape[2] == T != shape[1]:
        return output, lambda a: a[0].T
    return output, lambda a: a.reshape(-1, shape[-1])


def _targets(targets: Any, scores: np.ndarray) -> np.ndarray:
    R, K = scores.shape
    if targets is None:
        return scores.argmax(axis=1)
    targets = to_array(targets)
    if targets.dtype.kind not in "iu" or targets.shape not in ((), (R,)):
        raise ShapeError(
            f"influence: targets must be a class number or {R} of them, got {targets.dtype} of shape {targets.shape}."
        )
    if targets.min() < 0 or targets.max() >= K:
        raise ValueRangeError(f"influence: targets must be 0 … {K - 1}, got {targets.min()} … {targets.max()}.")
    return np.broadcast_to(targets, (R,))


def _predictions(at: Sequence[int] | None, R: int) -> list[int]:
    if at is not None and (wrong := [r for r in at if not -R <= r < R]):
        raise ValueRangeError(f"influence: at must be one of the predictions 0 … {R - 1}, got {wrong[0]}.")
    return list(range(R)) if at is None else [r % R for r in at]


def _again(layer: Layer, entry: Entry) -> Any:
    """The layer's operation once more on the same arrays, now with an adjoint of x."""
    return OPERATIONS[layer.kind], OPERATIONS[layer.kind].run(*entry.inputs.values(), **entry.settings)[1]


def _per_step(runs: list[tuple[Entry, Any]], directions: int, how: str) -> np.ndarray:
    """(T,): the gradient that arrived at the steps' inputs, summed over the directions, as one number each."""
    parts, xs = [], []
    for entry, (op, ctx) in runs:
        x, n = entry.inputs["x"], length_of(entry)
        dx = op.backward(ctx, *entry.dys)[0] if any(dy is not None for dy in entry.dys) else xp_of(x).zeros_like(x)
        parts.append(to_array(dx)[:n, 0].astype(np.float64))
        xs.append(to_array(x)[:n, 0])
    dx = np.concatenate(parts).reshape(directions, -1, parts[0].shape[1]).sum(axis=0)
    if how == "gradient":
        return np.sqrt((dx**2).sum(axis=1))
    return (dx * np.concatenate(xs)[: len(dx)]).sum(axis=1)
