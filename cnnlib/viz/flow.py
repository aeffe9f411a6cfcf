"""How much of the gradient arrives at each layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib.errors import GraphError
from cnnlib.trace import trace
from cnnlib.viz.figure import CLASSES, new_figure, to_array


def gradient_norms(t: trace) -> list[tuple[str, float, float]]:
    """(layer, ‖∂J/∂w‖, ‖∂J/∂y‖) of each operation with a weight matrix or kernel w and output y, in forward order.

    ‖·‖ is the Euclidean norm of all elements, 0 where no gradient arrived. Biases, and the scales of normalisations, are
    left out: they have one axis.

    >>> import cnnlib as cl
    >>> net = cl.nn.Sequential(cl.nn.Linear(2, 3), cl.nn.ReLU(), cl.nn.Linear(3, 1, bias=False))
    >>> with cl.trace() as t:
    ...     net(cl.Tensor([[1.0, 2.0]])).sum().backward()
    >>> [(layer, adjoint) for layer, _, adjoint in gradient_norms(t)][-1]
    ('2', 1.0)

    Raises GraphError when the trace holds no backward pass through a layer with weights.
    """
    rows = []
    for entry in t:
        weights = [n for n in entry.parameters if entry.inputs[n].ndim > 1]
        if weights and entry.backward_ms is not None:
            dw = np.sqrt(sum(_norm(entry.grads[n]) ** 2 for n in weights if n in entry.grads))
            rows.append((entry.name.rpartition(".")[0] or entry.name, float(dw), _norm(entry.dys[0])))
    if not rows:
        raise GraphError(
            "gradient_flow: the trace holds no backward pass through a layer with weights. "
            "Write: with cl.trace() as t: loss(net(x), y).backward()"
        )
    return rows


def gradient_flow(t: trace, title: str = "", figure: Any = None) -> Any:
    """Bars of :func:`gradient_norms`, the first layer on top: left what moves the weights, right the signal that came back.

    ``t``: a ``cl.trace()`` around forward and ``loss.backward()``. The axis is logarithmic: bars that shrink evenly from the
    last layer to the first are a gradient that vanishes exponentially. A norm of 0 is written, it has no bar.

    Source: lecture: backpropagation, vanishing gradients; Hochreiter, Bengio, Frasconi & Schmidhuber, "Gradient flow in
    recurrent nets", 2001; Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.

    >>> import cnnlib as cl
    >>> net = cl.models.LeNet5()
    >>> with cl.trace() as t:
    ...     cl.ops.cross_entropy(net(np.ones((2, 1, 32, 32), np.float32)), np.array([3, 7])).backward()
    >>> figure = gradient_flow(t)

    Raises GraphError when the trace holds no backward pass through a layer with weights.
    """
    rows = gradient_norms(t)
    names, dws, dys = zip(*rows, strict=True)
    figure = figure or new_figure(5.8, 0.28 * len(rows) + 1.3)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, norms, label, colour in zip(axes, (dws, dys), ("‖∂J/∂w‖, weights", "‖∂J/∂y‖, adjoint of the output"), CLASSES):
        positive = [n for n in norms if n > 0] or [1.0]
        left = 10.0 ** np.floor(np.log10(min(positive)) - 0.3)
        ax.barh(range(len(rows)), [max(n - left, 0.0) for n in norms], left=left, color=colour, height=0.7)
        ax.set_xscale("log")
        ax.set_xlim(left, max(positive) * 2)
        for i, n in enumerate(norms):
            if n == 0:
                ax.text(left, i, " 0", va="center", fontsize=9)
        ax.set_title(label, fontsize=11)
        ax.grid(axis="x", alpha=0.25)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].set_ylabel("layer")
    axes[0].invert_yaxis()
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _norm(a: Any) -> float:
    return 0.0 if a is None else float(np.sqrt((to_array(a).astype(np.float64) ** 2).sum()))
