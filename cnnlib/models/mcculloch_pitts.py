"""The McCulloch–Pitts neuron: a threshold on a weighted sum. Nothing is learnt: the weights are set by hand.

    y = 1 if Σ_i w_i x_i ≥ θ, else 0          x (N, D) of zeros and ones -> y (N,)

| gate | weights | threshold |
|------|---------|-----------|
| and  | 1, 1    | 2         |
| or   | 1, 1    | 1         |
| not  | −1      | 0         |

No choice of weights gives XOR (lecture: Minsky & Papert), but a second layer does: XOR = AND(OR(a, b), NOT(AND(a, b))).

Source: lecture: neurons, McCulloch–Pitts; McCulloch & Pitts, "A logical calculus of the ideas immanent in nervous
activity", 1943.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnlib import ops
from cnnlib.errors import unknown_name
from cnnlib.nn.module import Module
from cnnlib.tensor import Parameter, Tensor

GATES: dict[str, tuple[tuple[float, ...], float]] = {
    "and": ((1.0, 1.0), 2.0),
    "or": ((1.0, 1.0), 1.0),
    "not": ((-1.0,), 0.0),
}


class McCullochPitts(Module):
    """A gate by name, or a neuron with ``weights`` and ``threshold`` of your own.

    >>> import cnnlib as cl
    >>> cl.models.McCullochPitts("and")(cl.Tensor([[0.0, 1.0], [1.0, 1.0]])).numpy()
    array([0, 1])
    """

    def __init__(self, gate: str = "and", weights: Sequence[float] | None = None, threshold: float | None = None):
        super().__init__()
        if gate not in GATES:
            raise unknown_name("gate", gate, GATES)
        gate_weights, gate_threshold = GATES[gate]
        chosen = gate_weights if weights is None else weights
        self.weight = Parameter(np.array([chosen], np.float32), requires_grad=False)  # (1, D)
        self.threshold = float(gate_threshold if threshold is None else threshold)

    def forward(self, x):
        total = ops.linear(x, self.weight, None)  # (N, D) @ (D, 1) -> (N, 1)
        return Tensor((total.data[:, 0] >= self.threshold).astype("int64"))

    def extra_repr(self) -> str:
        return f"weights={self.weight.numpy()[0].tolist()}, threshold={self.threshold:g}"
