"""Sequence to sequence: one recurrent network reads a sentence, another writes its translation, of any other length.

    reads    s_j, state = LSTM(E x_j)                      embedded words x₁ … x_S of the source, one state after each
    writes   h_t = LSTM(E' y_(t−1); its first state is the last one of the reader), y₀ = <s>
             p(y_t | y₁ … y_(t−1), x) = softmax(W h̃_t)     up to y_n = </s>

The state in between, a vector of fixed size whatever the length of the sentence, is all that the writer knows of it:
:meth:`Seq2Seq.encode` returns it. With attention (cnnlib/nn/attention.py) the writer also looks back at the reader's states,
at each step at others::

    h̃_t = h_t   or, with attention,   h̃_t = tanh(W_c [h_t; c_t]),  c_t = Σ_j α_tj s_j

The score is Bahdanau's, its place Luong's: c_t goes to the output, not into the next step, so the whole sequence of the writer
stays one operation, as that of the reader.

Training maximises ln p(y|x) = Σ_t ln p(y_t | …) with the right words y_(t−1) as the writer's input (**teacher forcing**). All
its inputs are known beforehand then, and a batch is one matrix (B, S + T): the source, padded to S columns, beside the writer's
input ``<s> y₁ … y_n``, padded to T; the targets are ``y₁ … y_n </s>``, padded to T. Padding changes nothing: the reader stops
before it, attention leaves it out, the loss (``criterion``) does not count it.

Source: lecture: recurrent networks (sequence to sequence); Sutskever, Vinyals & Le, "Sequence to sequence learning with neural
networks", 2014; Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014; Bahdanau, Cho & Bengio, "Neural
machine translation by jointly learning to align and translate", 2015; Luong, Pham & Manning, "Effective approaches to
attention-based neural machine translation", 2015.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib import nn, ops
from cnnlib.backends import xp_of
from cnnlib.data.words import PAD, lengths
from cnnlib.errors import DataError, ShapeError, unknown_name
from cnnlib.models.beam_search import beam_search
from cnnlib.nn.module import in_mode
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_whole
from cnnlib.tensor import Tensor, to_device

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Seq2Seq(nn.Module):
    """(B, S + T) int64, source and writer's input -> logits (B, T, target_words), as defined at the top of this file.

    source_words, target_words    sizes of the vocabularies (`cnnlib.data.Vocabulary`).
    source_length, target_length  S and T: how many tokens a sentence may have, ``</s>`` included in T.
    cell, layers                  "lstm", "gru" or "rnn", and how many on top of each other, on each side.
    embedding, hidden             sizes of the word vectors and of the states.
    attention                     whether the writer looks back at the words of the source.
    dropout                       in training, of word vectors, between layers and before the output.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.Seq2Seq(source_words=20, target_words=15, source_length=6, target_length=5)
    >>> net(cl.Tensor(np.ones((3, 11), np.int64))).shape
    (3, 5, 15)
    >>> net.encode(np.array([[7, 9, 4, 0, 0, 0], [8, 0, 0, 0, 0, 0]])).shape        # h and c, 128 each
    (2, 256)

    Raises ShapeError (another number of columns), DataError (an empty sentence, padding inside one), UnknownNameError,
    ValueRangeError (a length below 1).
    """

    def __init__(
        self,
        source_words: int,
        target_words: int,
        source_length: int,
        target_length: int,
        cell: str = "lstm",
        embedding: int = 64,
        hidden: int = 128,
        layers: int = 1,
        attention: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        if cell not in CELLS:
            raise unknown_name("cell of Seq2Seq", cell, CELLS)
        check_whole("Seq2Seq", "source_length", source_length)
        check_whole("Seq2Seq", "target_length", target_length)
        self.source_length, self.target_length = source_length, target_length
        self.source_embedding = nn.Embedding(source_words, embedding)
        self.target_embedding = nn.Embedding(target_words, embedding)
        between = dropout if layers > 1 else 0.0
        self.reader = CELLS[cell](embedding, hidden, layers, batch_first=True, dropout=between)
        self.writer = CELLS[cell](embedding, hidden, layers, batch_first=True, dropout=between)
        self.attention = nn.AdditiveAttention(hidden, hidden, hidden) if attention else None
        self.combine = nn.Linear(2 * hidden, hidden) if attention else None
        self.drop = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, target_words)

    def forward(self, x):
        x, S, T = _array(x), self.source_length, self.target_length
        if len(x.shape) != 2 or x.shape[1] != S + T:
            raise ShapeError(
                f"Seq2Seq: x must have the shape (B, source_length + target_length) = (B, {S} + {T}): the source, then the "
                f"writer's input <s> y₁ … y_n, each padded with 0; got {x.shape}."
            )
        memory, state, real = self._read(x[:, :S])
        return self._write(x[:, S:], state, memory, real)[0]

    @staticmethod
    def criterion():
        """The loss: mean of −ln p(y_t | …) over all words of the batch, ``</s>`` included, padding not."""
        return _loss

    # ---- use

    def encode(self, tokens):
        """Sentences (B, S or fewer) int64, padded with 0 -> (B, D), the reader's last state: what the writer begins with.

        D = layers · hidden, twice that for an LSTM (h of all layers, then c of all layers). Without dropout.
        """
        with in_mode(self, training=False):
            _, states, _ = self._read(_array(tokens))
        return ops.concat([ops.reshape(part, part.shape[1:]) for s in states for part in ops.split(s, 1)], axis=1)

    def translate(self, tokens, beam: int = 1) -> np.ndarray:
        """Sentences (B, S or fewer) int64, padded with 0 -> their translations (B, T), padded with 0 behind ``</s>``.

        ``beam = 1``: the likeliest word each time (greedy search); more: the best sentence of a beam search.
        """
        return self.search(tokens, beam)[0][:, 0]

    def search(self, tokens, beam: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``beam`` best translations of each sentence and their scores (cnnlib/models/beam_search.py)."""
        check_whole("Seq2Seq", "beam", beam)
        with in_mode(self, training=False), no_grad():
            memory, states, real = self._read(_array(tokens))
            first = tuple(np.moveaxis(to_device(s.data, "cpu"), 1, 0) for s in states)
            return beam_search(self._steps(memory, real, beam), first, len(real), beam, self.target_length)

    def _steps(self, memory, real, beam):
        """The writer one step at a time, for `beam_search`: its states as arrays (R, layers, hidden)."""
        xp = xp_of(real)
        memory, real = Tensor(xp.repeat(memory.data, beam, axis=0)), xp.repeat(real, beam, axis=0)

        def step(last, states):
            states = tuple(Tensor(xp.ascontiguousarray(xp.moveaxis(xp.asarray(s), 0, 1))) for s in states)
            logits, states = self._write(xp.asarray(last[:, None]), states, memory, real)
            log_p = to_device(ops.log_softmax(logits).data, "cpu")[:, 0]
            return log_p, tuple(np.moveaxis(to_device(s.data, "cpu"), 1, 0) for s in states)

        return step

    # ---- the two halves

    def _read(self, source):
        """tokens (B, S) -> states after each word (B, S, H), the last ones as a tuple, each (layers, B, H), and real (B, S)."""
        _check_source(source, self.source_length)
        x = self.drop(self.source_embedding(Tensor(source)))
        memory, state = self.reader(x, lengths=lengths(source))
        return memory, state if isinstance(state, tuple) else (state,), source != PAD

    def _write(self, words, state, memory, real):
        """The writer's input (B, T) -> logits (B, T, target_words) and its last states."""
        x = self.drop(self.target_embedding(Tensor(words)))
        h, state = self.writer(x, state if len(state) > 1 else state[0])
        if self.attention is not None:
            context, _ = self.attention(h, memory, real)
            h = ops.tanh(self.combine(ops.concat([h, context], axis=2)))
        return self.output(self.drop(h)), state if isinstance(state, tuple) else (state,)


def exact_match(logits: Any, target: Any) -> Any:
    """Share of sentences with every word right, ``</s>`` included; a metric for `cnnlib.Trainer`.

    By teacher forcing, and yet the share that greedy search gets right: as long as its words are right, its inputs are the
    right ones too. Only that here ``<unk>`` is right where the target has a rare word, and search never says it.
    """
    return ((logits.argmax(axis=2) == target) | (target == PAD)).all(axis=1).mean()


def _loss(logits, target):
    return ops.cross_entropy(ops.reshape(logits, (-1, logits.shape[2])), target.reshape(-1), ignore_index=PAD)


def _array(tokens):
    return tokens.data if isinstance(tokens, Tensor) else np.asarray(tokens)


def _check_source(source, longest):
    if source.ndim != 2 or source.shape[1] > longest:
        raise ShapeError(
            f"Seq2Seq: the source must have the shape (B, source_length or fewer), got {source.shape}: the model was made for "
            f"sentences of at most {longest} tokens."
        )
    n = lengths(source)
    if not (n > 0).all():
        raise DataError(f"Seq2Seq: sentence {int(n.argmin())} of the batch is empty: only <pad> (0). Leave it out.")
    inside = ((source[:, 1:] != PAD) & (source[:, :-1] == PAD)).any(axis=1)
    if inside.any():
        raise DataError(
            f"Seq2Seq: sentence {int(inside.argmax())} of the batch has <pad> (0) before its end: padding comes last."
        )
