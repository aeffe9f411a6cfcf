"""The linear support vector machine: hinge loss, which asks for a margin, and short weights, which make it wide.

    s_c = w_cᵀx + b_c            x (N, …) -> scores (N, num_classes); the largest wins
    J = λ/2 Σ_c ‖w_c‖² + mean over n, c of max(0, 1 − t_nc s_nc),      t_nc = +1 where c is the class of n, else −1

One classifier per class against the rest; λ is the optimiser's ``weight_decay``. A sample with t s ≥ 1 has no gradient:
only those on or inside the margin, the support vectors, hold the line. The margin's half width is 1/‖w‖.
J is convex, so weights start at zero: there is no other optimum to fall into and no symmetry to break.

Source: lecture: neurons, SVM; Cortes & Vapnik, "Support-vector networks", 1995. A kernel machine is not built here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib import nn, ops
from cnnlib.backends import xp_of


class OneVersusRestHinge(nn.Module):
    """(scores (N, C), class numbers (N,)) -> mean hinge loss with targets ±1."""

    def forward(self, scores, labels):
        xp = xp_of(scores.data)
        labels = xp.asarray(getattr(labels, "data", labels))
        mine = labels[:, None] == xp.arange(scores.shape[1])  # (N, C)
        return ops.hinge_loss(scores, xp.where(mine, 1.0, -1.0).astype(scores.dtype))


class LinearSVM(nn.Sequential):
    """``in_features``: a number, or the shape of a sample, which is flattened.

    >>> import cnnlib as cl
    >>> cl.models.LinearSVM(in_features=2, num_classes=3)(cl.Tensor([[0.5, 1.0]])).shape
    (1, 3)
    """

    criterion = OneVersusRestHinge
    picture_size = 28

    def __init__(self, in_features: int | Sequence[int] = 784, num_classes: int = 10):
        input_shape = (in_features,) if isinstance(in_features, int) else tuple(in_features)
        linear = nn.Linear(math.prod(input_shape), num_classes)
        for p in linear.parameters():
            p.set(np.zeros(p.shape, np.float32))
        super().__init__(nn.Flatten(), linear)
        self.input_shape = input_shape

    def margins(self) -> np.ndarray:
        """1/‖w_c‖ of each class: half the width of the street between it and the rest."""
        norms = np.linalg.norm(self[1].weight.numpy(), axis=1)
        return 1 / np.maximum(norms, np.finfo(np.float32).tiny)

    @staticmethod
    def options_for(shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
        """The options that fit samples of ``shape``."""
        return {"in_features": list(shape), "num_classes": num_classes}
