"""Losses as modules: ``loss(x, target)``. The maths is in cnnlib/ops/loss.py. reduction: "mean", "sum" or "none"."""

from __future__ import annotations

from typing import Any

from cnnlib import ops
from cnnlib.errors import DtypeError
from cnnlib.nn.module import Module
from cnnlib.tensor import Tensor


class _Loss(Module):
    def __init__(self, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _constant(module: Module, name: str, value: Any) -> None:
    """A buffer that moves and casts with the module, or None. Numbers and lists become float32."""
    if value is None:
        setattr(module, name, None)
    else:
        module.register_buffer(name, value.data if isinstance(value, Tensor) else Tensor(value).data)


class CrossEntropyLoss(_Loss):
    """−ln softmax(x)[target]: x (N, C) or (N, C, d1, ...) holds logits; labels (N,) or (N, d1, ...), or probabilities.

    >>> import cnnlib as cl
    >>> round(cl.nn.CrossEntropyLoss()(cl.Tensor([[0.0, 0.0]]), cl.Tensor([1])).item(), 4)
    0.6931
    """

    def __init__(self, weight=None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0):
        super().__init__(reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        _constant(self, "weight", weight)

    def forward(self, x, target):
        if isinstance(x, tuple):
            raise DtypeError(f"CrossEntropyLoss: x must be logits, got a tuple of {len(x)} outputs: a network with "
                             "auxiliary heads, such as GoogLeNet in training, has a loss that weights them: "
                             "model.criterion().")  # fmt: skip
        return ops.cross_entropy(x, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)

    def extra_repr(self) -> str:
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return super().extra_repr() + smoothing


class NLLLoss(_Loss):
    """−x[target], x log-probabilities, as LogSoftmax gives them."""

    def __init__(self, weight=None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction)
        self.ignore_index = ignore_index
        _constant(self, "weight", weight)

    def forward(self, x, target):
        return ops.nll_loss(x, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(_Loss):
    """(x − target)², averaged over all elements, without ½."""

    def forward(self, x, target):
        return ops.mse_loss(x, target, self.reduction)


class L1Loss(_Loss):
    """|x − target|, averaged over all elements."""

    def forward(self, x, target):
        return ops.l1_loss(x, target, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of σ(x) against targets in 0 … 1."""

    def __init__(self, reduction: str = "mean", pos_weight=None):
        super().__init__(reduction)
        _constant(self, "pos_weight", pos_weight)

    def forward(self, x, target):
        return ops.binary_cross_entropy_with_logits(x, target, self.pos_weight, self.reduction)


class HingeLoss(_Loss):
    """max(0, 1 − target · x), target ±1."""

    def forward(self, x, target):
        return ops.hinge_loss(x, target, self.reduction)
