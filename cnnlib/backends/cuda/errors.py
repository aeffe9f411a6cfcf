"""The error word: what kernels found wrong in the values of device arrays, a bit for each problem.

Looking at a value would make the host wait for the device. So a kernel that meets a label or an index that cannot be reads
another in its place and sets a bit; whoever waits for the device anyway calls :func:`check`.
"""

from __future__ import annotations

from typing import Any

from cnnlib.errors import ValueRangeError

_LOSSES = ("cross_entropy", "nll_loss", "multi_margin_loss")
PROBLEMS = {  # in the order of their bits
    "embedding": "embedding: an index is outside 0 … num_embeddings − 1 (the rows of w); row 0 was read in its place.",
    **{op: f"{op}: a label is outside 0 … C − 1, C being x.shape[1], and is not ignore_index." for op in _LOSSES},
    **{
        f"{op} mean": f"{op}: the labels' weights add up to 0, or every label is ignore_index, so there is nothing to average. "
        'Skip this batch, or use reduction="sum".'
        for op in _LOSSES
    },
    "cross_entropy probability": "cross_entropy: target holds probabilities, which are >= 0, but one is not.",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits: a target is outside 0 … 1. "
    "Labels -1 and 1 belong to hinge_loss.",
    "hinge_loss": "hinge_loss: a target is neither -1 nor 1. From labels 0 and 1: 2 * target - 1.",
    "lengths": "a recurrent layer: one of lengths is outside 1 … T, T being the number of steps.",
}
_BITS = {problem: 1 << i for i, problem in enumerate(PROBLEMS)}

_word: Any = None


def word() -> Any:
    """The error word, an array of one uint32 on the device."""
    global _word
    if _word is None:
        import cupy

        _word = cupy.zeros(1, "uint32")
    return _word


def bit(problem: str) -> int:
    """The bit of a key of PROBLEMS."""
    return _BITS[problem]


def note_any(problem: str, wrong: Any) -> None:
    """Set the problem's bit if any element of ``wrong``, a boolean array on the device, is true. Does not wait."""
    flags = word()
    flags |= wrong.any().astype("uint32") * flags.dtype.type(bit(problem))


def check() -> None:
    """Wait for the device; raise ValueRangeError with all that was found since the last call, and forget it."""
    if _word is None:
        return
    found = int(_word[0])
    if not found:
        return
    _word.fill(0)
    problems = [text for problem, text in PROBLEMS.items() if found & bit(problem)]
    where = "Found by the GPU, which does not say where: the same call on arrays of the CPU names the position."
    raise ValueRangeError("\n".join([*problems, where]))
