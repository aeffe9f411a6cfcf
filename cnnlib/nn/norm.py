"""Normalisation layers. The maths is in cnnlib/ops/norm.py. Arguments, names and initial values are PyTorch's."""

from __future__ import annotations

import numpy as np

from cnnlib import ops
from cnnlib.backends import xp_of
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.nn.module import Module
from cnnlib.ops.arguments import check_whole
from cnnlib.tensor import Parameter


class _BatchNorm(Module):
    """In training the batch's statistics normalise, and move the running ones; in evaluation the running ones normalise.

    ``momentum`` is the weight of the new batch: running = (1 − momentum) running + momentum batch; None averages over all
    batches. The running variance is the unbiased one (1/(m−1)), as in PyTorch. Without ``track_running_stats`` evaluation
    uses the batch's statistics, too.
    """

    layouts: dict[int, str]

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        check_whole(type(self).__name__, "num_features", num_features)
        if momentum is not None and not 0.0 <= momentum <= 1.0:
            raise ValueRangeError(
                f"{type(self).__name__}: momentum, the weight of the new batch, must be in 0 <= momentum <= 1, got {momentum}."
            )
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.track_running_stats = track_running_stats
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        if track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features, np.float32))
            self.register_buffer("running_var", np.ones(num_features, np.float32))
            self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x):
        name = type(self).__name__
        if x.ndim not in self.layouts:
            raise ShapeError(f"{name}: x must have axes {' or '.join(self.layouts.values())}, got shape {x.shape}.")
        if x.shape[1] != self.num_features:
            raise ShapeError(
                f"{name}({self.num_features}): x has {x.shape[1]} channels (x.shape = {x.shape}): "
                "x.shape[1] must equal num_features."
            )
        if self.track_running_stats and not self.training:
            return ops.batch_norm_inference(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        y, mean, var = ops.batch_norm(x, self.weight, self.bias, eps=self.eps)
        if self.track_running_stats:
            self._track(mean.data, var.data, x.size // x.shape[1])
        return y

    def _track(self, mean, var, m):
        batches = self.num_batches_tracked + 1  # an array, whose value stays where it is
        new = (1.0 / batches).astype(mean.dtype) if self.momentum is None else float(self.momentum)
        self.set_buffer("num_batches_tracked", xp_of(mean).asarray(batches, dtype=np.int64))
        self.set_buffer("running_mean", (1 - new) * self.running_mean + new * mean)
        self.set_buffer("running_var", (1 - new) * self.running_var + new * m / (m - 1) * var)

    def extra_repr(self) -> str:
        usual = {"eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True}
        values = {name: getattr(self, name, self.weight is not None) for name in usual}
        return f"{self.num_features}" + "".join(f", {k}={v!r}" for k, v in values.items() if v != usual[k])


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L), over all axes but C."""

    layouts = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W), over all axes but C.

    >>> import cnnlib as cl
    >>> bn = cl.nn.BatchNorm2d(2)
    >>> y = bn(cl.Tensor([[[[1.0, 3.0]], [[0.0, 4.0]]]]))
    >>> bn.running_mean, bn.running_var
    (array([0.2, 0.2], dtype=float32), array([1.1, 1.7], dtype=float32))
    """

    layouts = {4: "(N, C, H, W)"}


class LayerNorm(Module):
    """Layer normalisation over the last axes, whose sizes are ``normalized_shape`` (a number or several)."""

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(np.ones(self.normalized_shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x):
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        return f"{self.normalized_shape}{affine}" + (f", eps={self.eps}" if self.eps != 1e-5 else "")


class LocalResponseNorm(Module):
    """Local response normalisation over ``size`` neighbouring channels of (N, C, ...); alpha is divided by size.

    AlexNet's: ``LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)``.
    """

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        return ops.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class LocalContrastNorm(Module):
    """Local contrast normalisation of (N, C, H, W): subtract the neighbourhood's mean, divide by its deviation."""

    def __init__(self, size=9, sigma=None, eps=1e-4):
        super().__init__()
        self.size, self.sigma, self.eps = size, sigma, eps

    def forward(self, x):
        return ops.local_contrast_norm(x, self.size, self.sigma, self.eps)

    def extra_repr(self) -> str:
        return f"{self.size}" + (f", sigma={self.sigma}" if self.sigma is not None else "")
