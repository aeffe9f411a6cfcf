"""A model that looks ten times: AlexNet's evaluation."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.data.transforms import ten_crops
from cnnlib.nn.module import Module


class TenCrops(Module):
    """``model``, asked about ten crops of ``size`` of each picture: (N, C, H, W) -> ln of the mean probabilities (N, classes).

        y = ln (1/10) Σ_v softmax(model(crop_v(x)))

    The logarithm makes it a drop-in for the model's logits: its softmax is the mean, so that cross-entropy, accuracy and top-k
    need no change. Ten times the work: for evaluation only.

    >>> small = cl.nn.Sequential(cl.nn.Flatten(), cl.nn.Linear(36, 10))                        # a model for 6×6 pixels
    >>> TenCrops(small, size=6)(test.x).shape                                                  # pictures of 8×8
    (360, 10)

    Source: lecture: AlexNet; Krizhevsky, Sutskever & Hinton 2012, section 4.1.
    """

    def __init__(self, model: Module, size: int | tuple[int, int]):
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x):
        logs = ops.stack([ops.log_softmax(self.model(crop), axis=1) for crop in ten_crops(x, self.size)])  # (10, N, classes)
        largest = ops.max(logs, axis=0)  # taken out before the exponential, so that no probability becomes 0
        return largest + ops.log(ops.mean(ops.exp(logs - largest), axis=0))

    def extra_repr(self) -> str:
        return f"size={self.size}"
