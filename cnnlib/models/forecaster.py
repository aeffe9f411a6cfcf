"""The next value of a time series: an LSTM reads a window, and says by how much the next value leaves the last.

    h = LSTM(x₁ … x_T)        y = x_T + W h + b          x (N, T, D) -> y (N, D)

With W h + b = 0 that is the naive forecast, "as it is, it stays": what is learnt is what is better. With ``relative=True``
the LSTM reads x_t − x_T, and a window that lies higher is foretold the same, higher: for series that grow beyond what was
seen in training.

Source: lecture: recurrent networks (many to one).
"""

from __future__ import annotations

from cnnlib import nn, ops
from cnnlib.errors import ShapeError


class Forecaster(nn.Module):
    """x (N, T, features) float -> (N, features). T may change from call to call.

    >>> import cnnlib as cl, numpy as np
    >>> cl.models.Forecaster(hidden=8)(cl.Tensor(np.zeros((5, 24, 1), np.float32))).shape
    (5, 1)

    Raises ShapeError when x has another shape.
    """

    criterion = nn.MSELoss

    def __init__(self, features: int = 1, hidden: int = 32, relative: bool = False):
        super().__init__()
        self.features, self.relative = features, relative
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.output = nn.Linear(hidden, features)
        for p in self.output.parameters():
            p.set(0.0)  # it begins as the naive forecast

    def forward(self, x):
        if len(x.shape) != 3 or x.shape[2] != self.features:
            raise ShapeError(f"Forecaster: x must have the shape (N, T, D) with D = features = {self.features}, got {x.shape}.")
        last = x[:, -1:, :]
        _, (h, _) = self.lstm(x - last if self.relative else x)
        return ops.reshape(last, (len(x), self.features)) + self.output(h[0])
