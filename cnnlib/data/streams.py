"""Random numbers for data as functions of (seed, stream, epoch, sample index): Philox, counter-based.

Philox turns a key and a counter into random words, so any sample's numbers can be had without drawing those before it.
Each purpose has a stream of its own, so that the same seed never serves two of them the same numbers.
"""

from __future__ import annotations

import numpy as np

from cnnlib.errors import ValueRangeError

SPLIT, SHUFFLE, CROP, FLIP, NOISE, COLOUR, GENERATE = 0x5711, 0x5F1E, 0xC809, 0xF119, 0x9015, 0xC010, 0x6E4E


def philox(seed: int, stream: int, epoch: int = 0, index: int = 0) -> np.random.Philox:
    """The bit generator at (seed, stream, epoch, index): 2^64 blocks of numbers before it runs into the next index."""
    # As uint64 arrays: from a list NumPy would make floats of numbers beyond 2^63, and different seeds would be equal.
    return np.random.Philox(key=np.array([seed, stream], np.uint64), counter=np.array([0, index, epoch, 0], np.uint64))


def check_seed(seed: int, who: str) -> int:
    """The seed as a Python integer in [0, 2^64), or an error that names who was asked."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueRangeError(f"{who}: seed must be an integer from 0 to 2^64 - 1, got {seed!r}.")
    return int(seed)
