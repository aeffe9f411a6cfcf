"""Random numbers that are equal on every backend, instruction set and number of threads: counter-based Philox4x32-10.

A key ``(seed, stream, call)`` names an endless sequence of 32-bit words; word ``i`` is a pure function of the key and of
``i``, so nothing has to be drawn in order, and what is needed again can be drawn again. Each
consumer draws from its own stream, and each draw takes the next call number of its stream. All state there is, is the
seed and one call counter per stream; a checkpoint stores them.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cnnlib.errors import ValueRangeError

STREAMS = ("init", "dropout", "data", "sampling")


class Key(NamedTuple):
    """Names one sequence of random words."""

    seed: int  # 64 bits
    stream: int  # index into STREAMS
    call: Any  # number of the draw within its stream; in a CUDA graph an array of no dimension that holds it


_seed = 0
_calls = dict.fromkeys(STREAMS, 0)
_recorder: Callable[[str, int], Any] | None = None


def manual_seed(seed: int) -> None:
    """Start every stream anew from ``seed`` (0 … 2⁶⁴ − 1). The same seed gives the same run, bit for bit."""
    global _seed
    if not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**64:
        raise ValueRangeError(f"manual_seed: seed must be a whole number in 0 … 2**64 - 1, got {seed!r}.")
    _seed = int(seed)
    _calls.update(dict.fromkeys(STREAMS, 0))


def next_key(stream: str) -> Key:
    """The key of the next draw from ``stream``."""
    call: Any = _calls[stream]
    _calls[stream] = call + 1
    if _recorder is not None:
        call = _recorder(stream, call)
    return Key(_seed, STREAMS.index(stream), call)


@contextlib.contextmanager
def recording(recorder: Callable[[str, int], Any]) -> Iterator[None]:
    """Inside, the call in each key is ``recorder(stream, call)``: for a CUDA graph, where the GPU's memory holds it."""
    global _recorder
    _recorder, before = recorder, _recorder
    try:
        yield
    finally:
        _recorder = before


def get_state() -> dict[str, int]:
    """Seed and call counters: what a checkpoint keeps."""
    return {"seed": _seed, **_calls}


def set_state(state: dict[str, int]) -> None:
    """Go back to what :func:`get_state` returned."""
    global _seed
    _seed = int(state["seed"])
    _calls.update({stream: int(state[stream]) for stream in STREAMS})


def philox4x32_10(counter: tuple[Any, Any, Any, Any], key: tuple[int, int], xp: Any = np):
    """Ten rounds on blocks of four words: ``counter`` holds four uint64 arrays of 32-bit words, as does the result."""
    low = xp.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = c0 * xp.uint64(0xD2511F53)
        p1 = c2 * xp.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ xp.uint64(k0), p1 & low, (p0 >> 32) ^ c3 ^ xp.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def philox_words(key: Key, n: int, xp: Any = np, start: int = 0):
    """Words (uint32) ``start`` … ``start + n − 1`` of the sequence ``key``; ``start`` is a multiple of 4.

    Philox4x32-10 on the counters (block, 0, call, stream): any part of the sequence can be had without what is before it.
    """
    block = xp.arange(start // 4, -(-(start + n) // 4), dtype=xp.uint64)
    counter = (block, xp.zeros_like(block), xp.full_like(block, key.call), xp.full_like(block, key.stream))
    words = philox4x32_10(counter, (key.seed & 0xFFFFFFFF, key.seed >> 32), xp)
    return xp.stack(words, axis=1).reshape(-1)[:n].astype(xp.uint32)


def uniform(key: Key, shape: tuple[int, ...], xp: Any = np, start: int = 0):
    """Float64 numbers uniform in the open interval (0, 1): (word + ½) / 2³², from word ``start`` on."""
    return ((philox_words(key, math.prod(shape), xp, start) + 0.5) * 2.0**-32).reshape(shape)


def normal(key: Key, shape: tuple[int, ...], xp: Any = np):
    """Float64 standard normal numbers, by Box and Muller: √(−2 ln u₁) cos 2πu₂ and √(−2 ln u₁) sin 2πu₂."""
    n = math.prod(shape)
    half = -(-n // 2)
    u = uniform(key, (2, half), xp)
    radius, angle = xp.sqrt(-2.0 * xp.log(u[0])), 2.0 * math.pi * u[1]
    return xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])[:n].reshape(shape)
