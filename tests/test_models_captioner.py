"""The captioner: its loss and what it writes against a plain loop, padding, learning, refusals."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.data.words import END, START
from cnnlib.errors import ShapeError, ValueRangeError

CAPTIONS = np.array([[5, 4, END, 0], [6, 7, 5, END], [4, END, 0, 0]])


def small(**options):
    cl.manual_seed(0)
    return models.Captioner(vocabulary_size=9, in_channels=1, input_size=8, width=4, embedding=6, hidden=7, **options).eval()


def pictures(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 1, 8, 8)).astype(np.float32)


def log_probabilities(net, code, words):
    """ln p of every word that may follow ``words``, one step at a time."""
    cell = nn.LSTMCell(6, 7)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).set(getattr(net.lstm, f"{name}_l0").numpy())
    state = (code, code)
    for word in [START, *words]:
        state = cell(net.embedding(cl.Tensor([word])), state)
    scores = net.output(state[0]).numpy()[0].astype(np.float64)
    return scores - np.log(np.exp(scores).sum())


def test_the_loss_is_the_mean_over_all_words_and_their_ends():
    net, x = small(), pictures(3)
    code = net(cl.Tensor(x))
    terms = []
    for i, row in enumerate(CAPTIONS):
        words = row[: list(row).index(END) + 1]
        own = net(cl.Tensor(x[i : i + 1]))
        terms += [-log_probabilities(net, own, words[:t])[word] for t, word in enumerate(words)]
    assert net.loss(code, CAPTIONS).item() == pytest.approx(np.mean(terms), rel=1e-5)
    longer = np.pad(CAPTIONS, ((0, 0), (0, 5)))
    assert net.loss(code, longer).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_describe_goes_on_from_its_own_likeliest_words():
    net, x = small(), pictures(4, seed=3)
    net.output.weight.set(5 * net.output.weight.numpy())  # so that sentences differ
    written = net.describe(x, length=6)
    assert written.shape == (4, 6) and written.dtype == np.int64
    for i in range(4):
        words = []
        while len(words) < 6 and END not in words:
            words.append(int(log_probabilities(net, net(cl.Tensor(x[i : i + 1])), words).argmax()))
        assert written[i].tolist() == words + [0] * (6 - len(words))


def test_describe_is_as_in_evaluation_and_leaves_the_mode_and_the_statistics_alone():
    net, x = small(), pictures(4, seed=3)
    written = net.describe(x, length=6)
    net.train()
    net.encoder[1].eval()  # one layer that is frozen stays so
    before = {name: array.copy() for name, array in net.state_dict().items()}
    assert (net.describe(x, length=6) == written).all()
    assert net.training and not net.encoder[1].training and net.encoder[5].training
    assert all(np.array_equal(before[name], array) for name, array in net.state_dict().items())


def test_it_learns_to_describe_pictures():
    """A bright left half is 4, a bright right half 5, both 4 5, none 6; then the end."""
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, (96, 2))
    x = rng.normal(scale=0.2, size=(96, 1, 8, 8)).astype(np.float32)
    x[:, 0, :, :4] += bright[:, :1, None]
    x[:, 0, :, 4:] += bright[:, 1:, None]
    rows = {(1, 0): [4, END, 0], (0, 1): [5, END, 0], (1, 1): [4, 5, END], (0, 0): [6, END, 0]}
    y = np.array([rows[tuple(b)] for b in bright.tolist()])
    net = small(dropout=0.0)
    trainer = cl.Trainer(net, net.loss, optim.Adam(net.parameters(), lr=0.02), metrics=(), batch_size=16, progress=False)
    trainer.fit((x[:64], y[:64]), epochs=15)
    assert (net.describe(x[64:], length=3) == y[64:]).all(axis=1).mean() > 0.9


def test_bad_input_is_refused_in_a_sentence():
    net = small()
    with pytest.raises(ShapeError, match=r"Captioner: pictures must have the shape \(N, 1, 8, 8\), got \(2, 1, 9, 8\)"):
        net(cl.Tensor(np.zeros((2, 1, 9, 8), np.float32)))
    code = net(cl.Tensor(pictures(2)))
    with pytest.raises(ShapeError, match=r"Captioner\.loss: captions must have the shape \(N, T\) with N = 2.*got \(3, 4\)"):
        net.loss(code, CAPTIONS)
    with pytest.raises(ValueRangeError, match=r"Captioner\.describe: length must be a whole number >= 1, got 0"):
        net.describe(pictures(2), length=0)
    with pytest.raises(ValueRangeError, match="must be a multiple of 8, got 20"):
        models.Captioner(10, input_size=20)
