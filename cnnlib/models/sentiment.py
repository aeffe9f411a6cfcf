"""What a text says, as one class: a bidirectional LSTM over its words, and beside it a convolution over them.

Both take rows of word numbers x (N, T) int64, 0 where a text has ended, look each word up in a table of vectors and end in

    max over time  m_k = max over the text's words t of h_t[k]          scores = W m + b

so that texts of any length give the same number of features, and every feature can come from another word. What stands in
the padding changes nothing.

| network         | h_t                                                            | parameters at 20,000 words        |
|-----------------|----------------------------------------------------------------|-----------------------------------|
| `SentimentLSTM` | LSTMs forwards and backwards, 64 units each: all words count   | 1,280,000 + 66,560 + 258          |
| `TextCNN`       | ReLU of 64 filters of 3, 4 and 5 words each: a phrase counts   | 1,280,000 + 49,344 + 386          |

Source: lecture: recurrent networks (many to one); Graves & Schmidhuber, "Framewise phoneme classification with bidirectional
LSTM", 2005; Kim, "Convolutional neural networks for sentence classification", 2014; Conneau et al., "Supervised learning of
universal sentence representations", 2017 (the maximum over a bidirectional LSTM).
"""

from __future__ import annotations

from collections.abc import Sequence

from cnnlib import nn, ops
from cnnlib.backends import xp_of
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError, unknown_name
from cnnlib.tensor import Tensor

POOLING = ("max", "mean", "last")
FAR_BELOW = -1e4  # below every output, but still a number that any sum survives


class _TextClassifier(nn.Module):
    """Words -> vectors -> features of every word -> one vector -> scores."""

    criterion = nn.CrossEntropyLoss

    def __init__(self, vocabulary_size: int, embedding: int, features: int, num_classes: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.embedding.weight.set(0.1 * self.embedding.weight.numpy())
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(features, num_classes)

    def _look_up(self, tokens):
        """Vectors (N, T, E) and, as an array, which of them are words (N, T)."""
        name = type(self).__name__
        data = tokens.data if isinstance(tokens, Tensor) else tokens
        came = getattr(data, "dtype", type(data).__name__)
        if getattr(came, "kind", "") not in ("i", "u"):
            raise DtypeError(
                f"{name}: x must be an array of word numbers (integers), got {came}; Vocabulary.encode gives them."
            )
        if data.ndim != 2 or not data.shape[1]:
            raise ShapeError(f"{name}: x must have the shape (N, T), one row of word numbers per text, got {data.shape}.")
        is_word = data != 0
        xp = xp_of(data)
        if not bool(is_word[:, 0].all()) or bool((is_word[:, 1:] & ~is_word[:, :-1]).any()):
            row = int(xp.flatnonzero((~is_word[:, 0]) | (is_word[:, 1:] & ~is_word[:, :-1]).any(axis=1))[0])
            what = "is empty" if not bool(is_word[row].any()) else "has a word after padding, or begins with it"
            raise ValueRangeError(f"{name}: text {row} {what}: a row is at least one word, then zeros only (data.pad).")
        return self.embedding(tokens), is_word

    def _scores(self, features):
        return self.output(self.dropout(features))


class SentimentLSTM(_TextClassifier):
    """x (N, T) int64 -> scores (N, num_classes).

    ``pooling``: "max" or "mean" over the words, or "last": the states with which both directions end. ``dropout``: of the
    word vectors and of the features.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.SentimentLSTM(vocabulary_size=100, embedding=8, hidden=6)
    >>> net(cl.Tensor(np.array([[5, 7, 9, 0], [3, 4, 5, 6]]))).shape
    (2, 2)

    Raises DtypeError, ShapeError (x is no matrix of integers), ValueRangeError (an empty text, a word after padding, a
    word number outside the vocabulary), UnknownNameError (pooling).
    """

    def __init__(
        self,
        vocabulary_size: int = 20_000,
        embedding: int = 64,
        hidden: int = 64,
        num_classes: int = 2,
        pooling: str = "max",
        dropout: float = 0.5,
    ):
        if pooling not in POOLING:
            raise unknown_name("pooling of SentimentLSTM", pooling, POOLING)
        super().__init__(vocabulary_size, embedding, 2 * hidden, num_classes, dropout)
        self.lstm = nn.LSTM(embedding, hidden, bidirectional=True)
        self.pooling = pooling

    def forward(self, x):
        vectors, is_word = self._look_up(x)
        time_major = ops.transpose(self.dropout(vectors), (1, 0, 2))
        h, (last, _) = self.lstm(time_major, lengths=is_word.sum(axis=1))  # (T, N, 2H), 0 beyond the text
        return self._scores(self._pool(h, last, is_word))

    def _pool(self, h, last, is_word):
        if self.pooling == "last":
            return ops.concat([last[0], last[1]], axis=1)
        words = is_word.T[:, :, None]  # (T, N, 1)
        if self.pooling == "mean":
            return ops.sum(h, axis=0) / Tensor(words.sum(axis=0).astype(h.dtype))
        return ops.max(h + Tensor(FAR_BELOW * (~words).astype(h.dtype)), axis=0)


class TextCNN(_TextClassifier):
    """x (N, T) int64 -> scores (N, num_classes).

    ``widths``: of the filters, in words; ``filters``: their number, of each width.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.TextCNN(vocabulary_size=100, embedding=8, filters=6)
    >>> net(cl.Tensor(np.array([[5, 7, 9, 0], [3, 4, 5, 6]]))).shape
    (2, 2)

    Raises as :class:`SentimentLSTM`.
    """

    def __init__(
        self,
        vocabulary_size: int = 20_000,
        embedding: int = 64,
        filters: int = 64,
        widths: Sequence[int] = (3, 4, 5),
        num_classes: int = 2,
        dropout: float = 0.5,
    ):
        super().__init__(vocabulary_size, embedding, filters * len(widths), num_classes, dropout)
        self.convs = nn.ModuleList(nn.Conv1d(embedding, filters, width, padding="same") for width in widths)

    def forward(self, x):
        vectors, is_word = self._look_up(x)
        words = Tensor(is_word[:, None, :].astype(vectors.dtype))  # (N, 1, T)
        signal = ops.transpose(self.dropout(vectors), (0, 2, 1)) * words  # padding is 0, as beyond the ends
        return self._scores(ops.concat([ops.max(ops.relu(conv(signal)) * words, axis=2) for conv in self.convs], axis=1))
