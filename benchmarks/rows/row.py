"""What a row is: the same work as kernels of cnnlib and as PyTorch calls, and how much work it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

Run = Callable[[], Any]
POOL = np.random.default_rng(0).standard_normal(1_000_003)


class Draw:
    """Random arrays, cheap to make and equal in every process: stretches of one pool of normal numbers."""

    def __init__(self, dtype: str):
        self.dtype, self.at = dtype, 0

    def normal(self, *shape: int) -> np.ndarray:
        n, at = prod(shape), self.at % len(POOL)
        self.at += n
        stretch = POOL[at : at + n] if at + n <= len(POOL) else np.resize(np.roll(POOL, -at), n)
        return stretch.astype(self.dtype).reshape(shape)

    def below(self, high: int, n: int) -> np.ndarray:
        return np.random.default_rng(self.at).integers(0, high, n)


@dataclass(frozen=True)
class Row:
    """``inputs(draw)`` makes the arrays, ``ours(kernels, *arrays)`` and ``theirs[way](torch, *tensors)`` return what is timed.

    PyTorch may have several ways; "" is the one that users get. With ``images``, "channels_last" is added: the same calls, the
    four-dimensional tensors laid out N H W C.
    """

    name: str
    family: str
    inputs: Callable[[Draw], tuple]
    ours: Callable[..., Run]
    theirs: Callable[..., Run] | dict[str, Callable[..., Run]] | None
    flops: float = 0  # of the plain method: 2 per multiply-add, 1 per element of an element-wise operation
    elements: float = 0  # each input read once, each output written once
    target: float = 1.0  # PyTorch's time / ours
    dtype: str = "float32"
    images: bool = False
    compared: int | None = None  # so many outputs are the same on both sides; None: all
    other_bytes: float = 0  # of inputs and outputs that are not of the row's dtype

    @property
    def bytes(self) -> float:
        return self.elements * np.dtype(self.dtype).itemsize + self.other_bytes

    def run(self, kernels: Any) -> Run:
        """Arrays are copies: in memory aligned as the kernels' own results are."""
        return self.ours(kernels, *map(aligned, self.inputs(Draw(self.dtype))))

    @property
    def ways(self) -> list[str]:
        """The names of PyTorch's ways; none where PyTorch has no such operation."""
        return [*self._theirs, *(["channels_last"] if self.images and self._theirs else [])]

    def run_cuda(self, kernels: Any) -> Run:
        import cupy

        return self.ours(kernels, *map(cupy.asarray, self.inputs(Draw(self.dtype))))

    def run_torch(self, torch: Any, way: str = "", device: str = "cpu") -> Run:
        """Tensors are copies: in memory aligned as PyTorch aligns it."""
        tensors = [torch.tensor(a, device=device) for a in self.inputs(Draw(self.dtype))]
        if way in self._theirs:
            return self._theirs[way](torch, *tensors)
        return self._theirs[""](torch, *(channels_last(torch, t) for t in tensors))

    @property
    def _theirs(self) -> dict[str, Callable[..., Run]]:
        return self.theirs if isinstance(self.theirs, dict) else {"": self.theirs} if self.theirs else {}

    def in_float64(self, target: float = 1.0) -> Row:
        return replace(self, name=f"{self.name} f64", dtype="float64", target=target)


def aligned(a: Any) -> Any:
    """A copy that begins at a multiple of 64 bytes, a cache line."""
    if not isinstance(a, np.ndarray):
        return a
    room = np.empty(a.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def running(kernels: Any) -> Any:
    """``with running(kernels):`` chooses these kernels for NumPy arrays; on a GPU the arrays themselves do."""
    import cnnlib as cl

    return contextlib.nullcontext() if kernels.name == "cuda" else cl.use(kernels.name)


def channels_last(torch: Any, tensor: Any) -> Any:
    return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def size(*shapes: tuple[int, ...]) -> int:
    """Elements of arrays of these shapes, in all."""
    return sum(map(prod, shapes))
