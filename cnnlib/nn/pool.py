"""Pooling layers. The maths is in cnnlib/ops/pool.py. Arguments and names are PyTorch's."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.nn.module import Module


class _Pool(Module):
    """``settings``: those of the function in cnnlib.ops, in its order; the first ``shown`` appear in the repr without name."""

    def __init__(self, function, shown=1, **settings):
        super().__init__()
        self.function, self.shown, self.settings = function, shown, settings

    def extra_repr(self) -> str:
        usual = {"stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}
        unusual = [(k, v) for k, v in self.settings.items() if k not in usual or v != usual[k]]
        return ", ".join(f"{v!r}" if i < self.shown else f"{k}={v!r}" for i, (k, v) in enumerate(unusual))

    def forward(self, x):
        return self.function(x, **self.settings)


class MaxPool2d(_Pool):
    """(N, C, H, W) -> (N, C, OH, OW): the maximum of each window; stride defaults to kernel_size.

    >>> from cnnlib import nn
    >>> nn.MaxPool2d(3, stride=2)
    MaxPool2d(3, stride=2)
    """

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False):
        super().__init__(ops.max_pool2d, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)


class MaxPool1d(_Pool):
    """(N, C, L) -> (N, C, OL): the maximum of each window."""

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False):
        super().__init__(ops.max_pool1d, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)


class AvgPool2d(_Pool):
    """(N, C, H, W) -> (N, C, OH, OW): the mean of each window; stride defaults to kernel_size."""

    def __init__(self, kernel_size, stride=None, padding=0, count_include_pad=True):
        super().__init__(
            ops.avg_pool2d, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad
        )


class AvgPool1d(_Pool):
    """(N, C, L) -> (N, C, OL): the mean of each window."""

    def __init__(self, kernel_size, stride=None, padding=0, count_include_pad=True):
        super().__init__(
            ops.avg_pool1d, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad
        )


class LPPool2d(_Pool):
    """(N, C, H, W) -> (N, C, OH, OW): (Σ |x|^p)^(1/p) of each window, p = norm_type.

    >>> from cnnlib import nn
    >>> nn.LPPool2d(2, 3, stride=2)
    LPPool2d(2, 3, stride=2)
    """

    def __init__(self, norm_type, kernel_size, stride=None, padding=0):
        super().__init__(ops.lp_pool2d, shown=2, norm_type=norm_type, kernel_size=kernel_size, stride=stride, padding=padding)


class LPPool1d(_Pool):
    """(N, C, L) -> (N, C, OL): (Σ |x|^p)^(1/p) of each window, p = norm_type."""

    def __init__(self, norm_type, kernel_size, stride=None, padding=0):
        super().__init__(ops.lp_pool1d, shown=2, norm_type=norm_type, kernel_size=kernel_size, stride=stride, padding=padding)


class GlobalMaxPool2d(Module):
    """(N, C, H, W) -> (N, C): the maximum of each feature map."""

    def forward(self, x):
        return ops.global_max_pool2d(x)


class GlobalAvgPool2d(Module):
    """(N, C, H, W) -> (N, C): the mean of each feature map."""

    def forward(self, x):
        return ops.global_avg_pool2d(x)
