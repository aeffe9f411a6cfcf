"""The character-level language model: a recurrent network that has read a text up to here says which character comes next.

    e_t = E[x_t],  h_t, s_t = cell(e_t, s_(t−1)),  p(x_(t+1) = v | x_1 … x_t) = softmax(W h_t + b)_v

| layer     | output    | parameters (LSTM, D = 64, H = 128, V characters) |
|-----------|-----------|--------------------------------------------------|
| x         | (T, B)    |                                                  |
| embedding | (T, B, D) | V · D                                            |
| LSTM      | (T, B, H) | 4 H (D + H + 2) = 99,328                         |
| linear    | (T, B, V) | V (H + 1)                                        |

With one-hot vectors in place of the embedding, one layer and the plain RNN it is min-char-RNN (examples/min_char_rnn.py).
It is measured in bits per character, −log₂ p on average: log₂ V for one that knows nothing.

**Temperature.** `sample` draws from softmax(scores / temperature): 1 is what the network has learnt, below it the likely
becomes likelier, down to always the likeliest near 0; above it everything comes closer to a throw of dice.

Source: lecture: recurrent networks, character-level language model; Karpathy, "The unreasonable effectiveness of recurrent
neural networks", 2015; Graves, "Generating sequences with recurrent neural networks", 2013.
"""

from __future__ import annotations

import math

import numpy as np

from cnnlib import nn, random
from cnnlib.data.streams import check_seed
from cnnlib.data.text import Alphabet
from cnnlib.errors import ValueRangeError, unknown_name
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_whole
from cnnlib.ops.nonfinite import blew_up
from cnnlib.tensor import Parameter, Tensor

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))


class CharRNN(nn.Module):
    """x (T, B) int64 -> scores (T, B, V), state; given ``state``, it reads on from there. Initial values as in PyTorch.

    ``characters``: those that it knows, in code-point order whatever the order given; ``alphabet`` turns text into x.
    ``embedding``: the width D of the characters' vectors; 0 for one-hot vectors, which are not learnt.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.CharRNN("abc", cell="gru", hidden=8, layers=2)
    >>> scores, state = net(cl.Tensor(net.alphabet.encode("abcab")[:, None]))
    >>> scores.shape, state.shape
    ((5, 1, 3), (2, 1, 8))

    Raises UnknownNameError (cell), ValueRangeError (sizes below 1), DataError (no characters).
    """

    token_shape = (1,)  # one step of one stream
    train_command = "cnnlib train char-rnn --text FILE"

    def __init__(
        self, characters: str = PRINTABLE, cell: str = "lstm", hidden: int = 128, layers: int = 1, embedding: int = 64
    ):
        super().__init__()
        if cell not in CELLS:
            raise unknown_name("cell", cell, CELLS)
        check_whole("CharRNN", "embedding", embedding, smallest=0)
        self.alphabet = Alphabet(characters)
        V = len(self.alphabet)
        self.embedding = nn.Embedding(V, embedding) if embedding else _one_hot(V)
        self.rnn = CELLS[cell](embedding or V, hidden, layers)
        self.linear = nn.Linear(hidden, V)

    def forward(self, x, state=None):
        y, state = self.rnn(self.embedding(x), state)
        return self.linear(y), state


def sample(model: CharRNN, prime: str = "", length: int = 200, temperature: float = 1.0, seed: int = 0) -> str:
    """``length`` characters that the model draws one after the other, having read ``prime``; without it, a line break.

    What is drawn depends on the arguments alone and touches no other random numbers: the same seed, the same text.

    Raises DataError (characters in ``prime`` that the model does not know), ValueRangeError (temperature not above 0),
    NonFiniteError (a model whose training blew up).
    """
    if not (isinstance(temperature, (int, float)) and 0 < temperature < math.inf):
        raise ValueRangeError(f"sample: temperature must be a finite number above 0, got {temperature!r}; near 0 the likeliest "
                              "character is always taken, 1 draws as the network has learnt.")  # fmt: skip
    check_whole("sample", "length", length)
    alphabet = model.alphabet
    prime = prime or ("\n" if "\n" in alphabet.characters else alphabet.characters[0])
    chance = random.uniform(random.Key(check_seed(seed, "sample"), random.STREAMS.index("sampling"), 0), (length,))
    drawn: list[int] = []
    read, state = alphabet.encode(prime), None
    with no_grad():
        for u in chance:
            scores, state = model(Tensor(read[:, None]).to(model.linear.weight.device), state)
            drawn.append(_draw(scores.numpy()[-1, 0], temperature, u))
            read = np.array(drawn[-1:])
    return alphabet.decode(drawn)


def _draw(scores: np.ndarray, temperature: float, u: float) -> int:
    """The v in whose part of (0, 1) u lies; the parts are as long as softmax(scores / temperature) is large."""
    if not np.isfinite(scores).all():
        raise blew_up("sample")
    scores = scores.astype(np.float64)
    upto = np.exp((scores - scores.max()) / temperature).cumsum()
    return int(np.searchsorted(upto, u * upto[-1]))


def _one_hot(V: int) -> nn.Embedding:
    table = nn.Embedding(V, V)
    table.weight = Parameter(np.eye(V, dtype=np.float32), requires_grad=False)
    return table
