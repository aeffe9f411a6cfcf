"""Trainings for exercises whose function is no kernel of a network: a rule of learning, a pair of losses, a clip.

A loop gets the learner's functions, or the library's, and yields what is measured at every step, for ever. Everything else in
it is the same for both: data, initial weights, random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlib import data, nn, ops, optim
from cnnlib.data.ring import RADIUS
from cnnlib.learn.networks import network
from cnnlib.tensor import Tensor

BATCH = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz"
END, FIRST_LETTER = 2, 3


@dataclass(frozen=True)
class Loop:
    """``what`` learns with the function; ``measured``: what it yields; ``steps``: how many show that it learns."""

    what: str
    measured: str
    steps: int
    run: Callable[..., Iterator[float]]


def batches(rng: np.random.Generator, *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    while True:
        chosen = rng.integers(0, len(arrays[0]), BATCH)
        yield [a[chosen] for a in arrays]


def perceptron(perceptron_epoch: Callable) -> Iterator[float]:
    train, _ = data.digits()
    either = (train.y == 3) | (train.y == 8)
    x, t = train.x[either].reshape(-1, 64).astype(np.float64), np.where(train.y[either] == 3, 1, -1)
    w, b = np.zeros(64), 0.0
    while True:
        w, b, mistakes = perceptron_epoch(x, t, w, b)
        yield float(mistakes)


def clipped(clip_gradients: Callable) -> Iterator[float]:
    net = network("rnn")
    layer: Any = net.model.layer  # type: ignore[attr-defined]
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    sgd = optim.SGD(net.model.parameters(), lr=0.5, momentum=0.9)  # so fast that it falls off the cliffs without a clip
    for x, y in batches(np.random.default_rng(0), net.x, net.y):
        net.model.zero_grad()
        loss = net.loss(x, y)
        loss.backward()
        *shorter, _ = clip_gradients(*(getattr(layer, name).grad for name in names), 0.1)
        for name, gradient in zip((*names, "bias_hh_l0"), (*shorter, shorter[2]), strict=True):
            getattr(layer, name).grad = np.asarray(gradient, np.float32)
        sgd.step()
        yield float(loss.item())


def adversaries(gan_losses: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    judge = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    players = [(player, optim.Adam(player.parameters(), lr=0.005, betas=(0.5, 0.999))) for player in (judge, generator)]
    for (xs,) in batches(rng, data.ring(2000).x):
        drawn = generator(Tensor(rng.normal(size=(BATCH, 4)).astype(np.float32)))
        for player, adam in players:
            judge.zero_grad()
            generator.zero_grad()
            both = judge(ops.concat((Tensor(xs), drawn if player is generator else drawn.detach())))
            s = both.numpy()[:, 0]
            _, _, d_real, d_fake, g_fake = gan_losses(s[:BATCH], s[BATCH:])
            dy = np.concatenate([d_real, d_fake] if player is judge else [np.zeros(BATCH), g_fake])
            both.backward(dy[:, None].astype(np.float32))
            adam.step()
        yield float(np.abs(np.linalg.norm(drawn.numpy(), axis=1) - RADIUS).mean())


def spelling(teacher_forcing: Callable, beam_search: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    words = sorted(w for w in set(data.sonnets().lower().split()) if set(w) <= set(LETTERS) and len(w) < 12)
    y = np.zeros((len(words), 12), int)
    for row, word in zip(y, words, strict=True):
        row[: len(word) + 1] = [*(LETTERS.index(letter) + FIRST_LETTER for letter in word), END]
    table = np.zeros((29, 29))
    for (ys,) in batches(rng, y):
        log_p = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
        _, loss, dlog_p = teacher_forcing(log_p, ys)
        table = table - 40.0 * (dlog_p - np.exp(log_p) * np.sum(dlog_p, axis=1, keepdims=True))
        yield loss


LOOPS: Mapping[str, Loop] = {
    "perceptron_epoch": Loop("a perceptron learns to tell the digits 3 and 8 apart", "mistakes in an epoch", 15, perceptron),
    "gradient_clipping": Loop("a recurrent network reads sonnets, far too fast to go well unclipped", "loss", 200, clipped),
    "gan_losses": Loop("two players learn to draw points on a ring", "distance", 400, adversaries),
    "sequence_to_sequence": Loop("a table learns to spell the sonnets' words", "loss", 200, spelling),
}
