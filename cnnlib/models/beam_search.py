"""Beam search: the most probable sentences of a model that gives the probabilities of the next word.

A sentence y₁ … y_n has ln p(y) = Σ_t ln p(y_t | y₁ … y_(t−1)). There are too many to try all, and taking the likeliest word
each time (greedy search, beam = 1) can lead into a corner: a good first word may have only poor continuations. Beam search
keeps the ``beam`` best beginnings, extends each by every word, and keeps the best again. A sum over more words is lower, so
what is compared is the mean::

    score(y) = 1/n · ln p(y),  n words, ``</s>`` included

A beginning that has ended with ``</s>`` stays as it is and keeps its place as long as it is among the best.

Source: lecture: recurrent networks (sequence to sequence); Sutskever, Vinyals & Le, "Sequence to sequence learning with neural
networks", 2014; Wu et al., "Google's neural machine translation system", 2016 (normalisation by length).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib.data.words import END, PAD, START, UNKNOWN
from cnnlib.errors import ShapeError
from cnnlib.ops.arguments import check_whole
from cnnlib.ops.nonfinite import blew_up

State = tuple[Any, ...]


def beam_search(
    step: Callable[[np.ndarray, State], tuple[np.ndarray, State]], state: State, sentences: int, beam: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best sentences that a model says, best first: tokens (B, beam, length) int64 and their scores (B, beam) float64.

    step       ``step(last, state) -> (ln p, new state)``: last (R,) int64, the words said last; ln p (R, V) of the next ones.
               The R = B · beam rows of a sentence are next to each other. −∞ forbids a word.
    state      arrays of B rows each, what the model carries along; () for none. ``step`` gets R rows.
    sentences  B, how many are searched for side by side.
    length     of the longest sentence; its last word can only be ``</s>``. Shorter ones are padded with 0.

    ``<pad>``, ``<s>`` and ``<unk>``, which is no word, are never said. Where there are fewer than ``beam`` sentences, the score
    of the missing is −∞.

    Raises ValueRangeError for a beam or a length below 1, ShapeError for scores of another shape, NonFiniteError for scores
    that are NaN or +∞, or all −∞ after a beginning that can be said.
    """
    check_whole("beam_search", "beam", beam)
    check_whole("beam_search", "length", length)
    B, K = sentences, beam
    state = _pick(state, np.repeat(np.arange(B), K))
    tokens, last = np.full((B, K, length), PAD), np.full((B, K), START)
    total, sizes, ended = np.full((B, K), -np.inf), np.zeros((B, K), int), np.zeros((B, K), bool)
    total[:, 0] = 0.0  # K equal beginnings would stay equal: the others are out of the race
    for t in range(length):
        log_p, state = step(last.reshape(-1), state)
        if log_p.ndim != 2 or len(log_p) != B * K:
            raise ShapeError(
                f"beam_search: step must return ln p of the shape (R, V), R = sentences · beam = {B} · {K} = {B * K} rows of a "
                f"score for each word, got {log_p.shape}."
            )
        V = log_p.shape[1]
        log_p = log_p.reshape(B, K, V)
        _check_finite(log_p, going_on=~ended & (total > -np.inf))
        sizes = sizes + ~ended
        totals = total[:, :, None] + _sayable(log_p, ended, last_place=t == length - 1)
        best = _largest((totals / sizes[:, :, None]).reshape(B, K * V), K)
        parent, last = best // V, best % V
        total = np.take_along_axis(totals.reshape(B, K * V), best, 1)
        tokens, sizes, ended = (
            np.take_along_axis(a, parent.reshape(B, K, *[1] * (a.ndim - 2)), 1) for a in (tokens, sizes, ended)
        )
        tokens[:, :, t] = last
        ended |= last == END
        if ended.all():
            break
        state = _pick(state, (np.arange(B)[:, None] * K + parent).reshape(-1))
    return tokens, total / sizes


def _check_finite(log_p, going_on):
    largest = log_p.max(axis=2)  # NaN where one of them is
    if ((largest != -np.inf) & ~np.isfinite(largest)).any() or (largest[going_on] == -np.inf).any():
        raise blew_up("beam_search")


def _sayable(log_p, ended, last_place):
    """ln p of the next word where it may be said, else −∞; an ended sentence goes on with padding, which costs nothing."""
    log_p = log_p.astype(np.float64)
    forbidden = [PAD, UNKNOWN, START] if not last_place else [v for v in range(log_p.shape[2]) if v != END]
    log_p[:, :, forbidden] = -np.inf
    log_p[ended] = -np.inf
    log_p[ended, PAD] = 0.0
    return log_p


def _largest(scores, k):
    """The places of the k largest of each row, the largest first."""
    found = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)


def _pick(state, rows):
    return tuple(array[rows] for array in state)
