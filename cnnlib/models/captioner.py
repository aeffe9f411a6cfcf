"""A picture's caption: a convolutional network looks, an LSTM that begins with what it saw writes word after word.

    code = BN(W CNN(picture) + b)                       three blocks: convolution 3×3, batch norm, ReLU, max pooling
    h_t = LSTM(E y_(t−1)); h₀ = c₀ = code               y₀ = <s>
    p(y_t | y₁ … y_(t−1), picture) = softmax(W h_t)     up to y_n = </s>

The code goes into the cell, too, as there it lasts; normalised over the batch (BN) it is not drowned by the words while the two
networks know nothing of each other. The model returns it, (N, hidden). Its loss is the mean of −ln p of the right words, each
given the code and the right words before it (teacher forcing); to describe a picture it goes on from the words that it has
written itself::

    trainer = Trainer(net, net.loss, optimizer, metrics=())

Source: lecture: recurrent networks (one to many, image captioning); Karpathy & Fei-Fei, "Deep visual-semantic alignments for
generating image descriptions", 2015; Vinyals, Toshev, Bengio & Erhan, "Show and tell: a neural image caption generator", 2015.
"""

from __future__ import annotations

import itertools

import numpy as np

from cnnlib import nn, ops
from cnnlib.backends import xp_of
from cnnlib.data.words import END, PAD, START
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.nn.module import in_mode
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_whole
from cnnlib.tensor import Tensor


class Captioner(nn.Module):
    """x (N, in_channels, input_size, input_size) -> code (N, hidden); ``loss`` and ``describe`` go on from there.

    ``width``: maps of the first block; the next have twice and four times as many. Sides are halved by each of the blocks.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.Captioner(vocabulary_size=30, hidden=16).eval()
    >>> pictures = np.zeros((2, 3, 32, 32), np.float32)
    >>> net(cl.Tensor(pictures)).shape, net.describe(pictures, length=7).shape
    ((2, 16), (2, 7))

    Raises ShapeError (pictures of another size, captions that are no matrix with a row per picture), ValueRangeError.
    """

    def __init__(
        self,
        vocabulary_size: int,
        in_channels: int = 3,
        input_size: int = 32,
        width: int = 32,
        embedding: int = 64,
        hidden: int = 256,
        dropout: float = 0.2,
    ):
        super().__init__()
        if input_size % 8 or input_size < 8:
            raise ValueRangeError(f"Captioner: input_size is halved three times: it must be a multiple of 8, got {input_size}.")
        self.picture_shape = (in_channels, input_size, input_size)
        maps = [in_channels, width, 2 * width, 4 * width]
        blocks = [
            layer
            for before, after in itertools.pairwise(maps)
            for layer in (nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
        ]
        self.encoder = nn.Sequential(
            *blocks,
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(maps[3] * (input_size // 8) ** 2, hidden),
            nn.BatchNorm1d(hidden),
        )
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.lstm = nn.LSTM(embedding, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, vocabulary_size)

    def forward(self, x):
        if x.shape[1:] != self.picture_shape:
            sides = ", ".join(map(str, self.picture_shape))
            raise ShapeError(f"Captioner: pictures must have the shape (N, {sides}), got {x.shape}.")
        return self.encoder(x)

    def loss(self, code, captions):
        """Mean over all words of −ln p(word), ``</s>`` included. captions (N, T) int64: words, ``</s>``, padding."""
        if captions.ndim != 2 or len(captions) != len(code):
            raise ShapeError(f"Captioner.loss: captions must have the shape (N, T) with N = {len(code)}, a row of word numbers "
                             f"for each picture; got {captions.shape}.")  # fmt: skip
        captions = captions.data if isinstance(captions, Tensor) else captions
        xp = xp_of(captions)
        before = xp.concatenate((xp.full_like(captions[:, :1], START), captions[:, :-1]), axis=1)
        scores, _ = self._write(before, self._first(code))
        return ops.cross_entropy(ops.transpose(scores, (1, 2, 0)), captions, ignore_index=PAD)  # (N, V, T), (N, T)

    def describe(self, pictures, length: int = 12) -> np.ndarray:
        """The likeliest word after each other, (N, length) int64: words, ``</s>``, padding. As in evaluation."""
        check_whole("Captioner.describe", "length", length)
        x = pictures if isinstance(pictures, Tensor) else Tensor(pictures)
        with in_mode(self, training=False), no_grad():
            code = self(x)
            xp, state = xp_of(code.data), self._first(code)
            word = xp.full((len(x), 1), START)
            written, ended = [], xp.zeros(len(x), bool)
            for _ in range(length):
                scores, state = self._write(word, state)
                word = scores.data[0].argmax(axis=1)[:, None]
                written.append(xp.where(ended, PAD, word[:, 0]))
                ended |= word[:, 0] == END
        return Tensor(xp.stack(written, axis=1)).numpy()

    def _first(self, code):
        return (ops.reshape(code, (1, *code.shape)),) * 2

    def _write(self, words, state):
        """Words (N, T) that were written, and the state before them -> scores of those that follow (T, N, V), and the state."""
        h, state = self.lstm(self.dropout(self.embedding(Tensor(words.T.copy()))), state)
        T, N, H = h.shape
        scores = self.output(self.dropout(ops.reshape(h, (T * N, H))))
        return ops.reshape(scores, (T, N, -1)), state
