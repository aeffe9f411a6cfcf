"""Pictures of one size made pictures of another."""

from __future__ import annotations

import numpy as np

from cnnlib.errors import DtypeError, ShapeError, ValueRangeError


class Resize:
    """Pictures (N, C, H, W) scaled to ``size`` × ``size``: (N, C, size, size).

    A new pixel is the mean of the old ones around its place, weighted by a triangle (bilinear interpolation). The triangle
    reaches over one old pixel to each side or, where the picture shrinks, over one new one, so that no pixel is skipped::

        y = A x Bᵀ     A (size, H), B (size, W):  A[i, h] ∝ max(0, 1 − |h − c_i| / s),  Σ_h A[i, h] = 1
                       c_i = (i + ½) H/size − ½ the place of row i in the old picture,  s = max(H/size, 1)

    >>> import numpy as np
    >>> Resize(4)(np.array([[[[0.0, 1.0]]]]))[0, 0, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """

    def __init__(self, size: int):
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueRangeError(f"Resize: size must be a whole number of pixels, at least 1; got {size!r}.")
        self.size = int(size)

    def __call__(self, x: np.ndarray, indices=None, seed: int = 0, epoch: int = 0) -> np.ndarray:
        if x.ndim != 4:
            raise ShapeError(f"Resize: expected pictures (N, C, H, W), got x.shape = {x.shape}.")
        if x.dtype.kind != "f":
            raise DtypeError(f"Resize: expected floats, got {x.dtype}: scale pixels first, x.astype(np.float32) / 255.")
        rows, columns = (_triangles(n, self.size).astype(x.dtype) for n in x.shape[2:])
        return rows @ (x @ columns.T)  # (size, H) @ (N, C, H, size)

    def __repr__(self) -> str:
        return f"Resize({self.size})"


def _triangles(old: int, new: int) -> np.ndarray:
    """(new, old): the weights of the old pixels in each new one."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.maximum(0.0, 1 - abs(np.arange(old) - places[:, None]) / max(old / new, 1))
    return weights / weights.sum(axis=1, keepdims=True)
