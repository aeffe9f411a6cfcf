"""Trainings for exercises whose function is no kernel of a network: a rule of learning, a whole gradient, a loss, a clip.

A loop gets the learner's functions, or the library's, and yields what is measured at every step, for ever. Everything else in
it is the same for both: data, initial weights, random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlib import data, nn, ops, optim
from cnnlib.learn.networks import network
from cnnlib.op import Op
from cnnlib.tensor import Parameter, Tensor

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


def digits() -> tuple[np.ndarray, np.ndarray]:
    """x (N, 64) in 0 … 1, y (N,)."""
    train, _ = data.digits()
    return train.x.reshape(len(train), 64).astype(np.float64), train.y


def batches(rng: np.random.Generator, *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    while True:
        chosen = rng.integers(0, len(arrays[0]), BATCH)
        yield [a[chosen] for a in arrays]


class Descent:
    """v ← 0.9 v + g, w ← w − lr v, for a list of arrays."""

    def __init__(self, *weights: np.ndarray, lr: float):
        self.weights, self.lr = list(weights), lr
        self.velocities = [np.zeros_like(w) for w in weights]

    def step(self, *gradients: Any) -> None:
        self.velocities = [0.9 * v + g for v, g in zip(self.velocities, gradients, strict=True)]
        self.weights = [w - self.lr * v for w, v in zip(self.weights, self.velocities, strict=True)]


def perceptron(perceptron_epoch: Callable) -> Iterator[float]:
    x, y = digits()
    x, t = x[(y == 3) | (y == 8)], np.where(y[(y == 3) | (y == 8)] == 3, 1, -1)
    w, b = np.zeros(64), 0.0
    while True:
        w, b, mistakes = perceptron_epoch(x, t, w, b)
        yield float(mistakes)


def regression(regression_gradient: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    x, y = digits()
    sgd = Descent(rng.normal(0, 0.1, (64, 16)), rng.normal(0, 0.1, 16), lr=0.01)
    for xs, ys in batches(rng, x - x.mean(axis=0), np.where(y % 2, 1.0, -1.0)):
        loss, dw, dv = regression_gradient(xs, ys, *sgd.weights)
        sgd.step(dw / BATCH, dv / BATCH)
        yield loss / BATCH


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


def initialised(initial_weights: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    layers = [layer for _ in range(5) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    for p in model.parameters():
        p.set(initial_weights("he", "normal", rng.normal(size=p.shape)) if len(p.shape) == 2 else 0.0)
    sgd = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = digits()
    for xs, ys in batches(rng, x.astype(np.float32), y):
        model.zero_grad()
        loss = ops.cross_entropy(model(Tensor(xs)), ys)
        loss.backward()
        sgd.step()
        yield float(loss.item())


def both_ways(bidirectional: Callable, bidirectional_bptt: Callable) -> Iterator[float]:
    class Reader(Op):
        @staticmethod
        def forward(ctx: Any, x: Any, *weights: Any) -> Any:
            ctx.save(arguments=(x, *weights))
            return np.asarray(bidirectional(x, *weights), x.dtype)

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return tuple(np.asarray(d, dy.dtype) for d in bidirectional_bptt(dy, *ctx.arguments))

    rng = np.random.default_rng(0)
    weights = [Parameter(nn.init.uniform_(shape, 0.25)) for shape in ((16, 8), (16, 16), (16,)) * 2]
    out = nn.Linear(16, 10)
    adam = optim.Adam([*weights, *out.parameters()], lr=0.01)
    x, y = digits()
    for xs, ys in batches(rng, x.astype(np.float32).reshape(-1, 8, 8), y):
        adam.zero_grad()
        states = Reader.apply(Tensor(xs.swapaxes(0, 1)), *weights)  # a row of pixels a step: (T, B, H)
        loss = ops.cross_entropy(out(ops.mean(states, axis=0)), ys)
        loss.backward()
        adam.step()
        yield float(loss.item())


def tied(tied_autoencoder: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    x, _ = digits()
    sgd = Descent(rng.normal(0, 0.1, (24, 64)), np.zeros(24), x.mean(axis=0), lr=1.0)
    for (xs,) in batches(rng, x):
        loss, *gradients = tied_autoencoder(xs, *sgd.weights)
        sgd.step(*gradients)
        yield loss


def denoised(denoising_gradient: Callable, pretrain: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    x, _ = digits()
    w1, b1, c1 = rng.normal(0, 0.1, (48, 64)), np.zeros(48), np.zeros(64)
    w2, b2, c2 = rng.normal(0, 0.1, (24, 48)), np.zeros(24), np.zeros(48)
    for (xs,) in batches(rng, x):
        keep1, keep2 = (rng.random((BATCH, size)) > 0.3 for size in (64, 48))
        loss, _, _, dc1 = denoising_gradient(xs, keep1 * 1.0, w1, b1, c1)
        w1, b1, w2, b2, _ = pretrain(xs, keep1 * 1.0, w1, b1, c1, keep2 * 1.0, w2, b2, c2, 5.0)
        c1 = c1 - 5.0 * np.asarray(dc1)
        yield loss


def variational(vae_code: Callable) -> Iterator[float]:
    class Code(Op):
        @staticmethod
        def forward(ctx: Any, mean: Any, log_var: Any, *, noise: Any) -> Any:
            ctx.save(mean=mean, log_var=log_var, noise=noise)
            z, kl, _, _ = vae_code(np.zeros_like(mean), np.zeros(len(mean), mean.dtype), mean, log_var, noise)
            return np.asarray(z, mean.dtype), np.asarray(kl, mean.dtype)

        @staticmethod
        def backward(ctx: Any, dz: Any, dkl: Any) -> Any:
            _, _, dmean, dlog_var = vae_code(dz, dkl, ctx.mean, ctx.log_var, ctx.noise)
            return np.asarray(dmean, dz.dtype), np.asarray(dlog_var, dz.dtype)

    rng = np.random.default_rng(0)
    encoder, mean, log_var = nn.Sequential(nn.Linear(64, 48), nn.Tanh()), nn.Linear(48, 4), nn.Linear(48, 4)
    decoder = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 64))
    adam = optim.Adam(nn.ModuleList([encoder, mean, log_var, decoder]).parameters(), lr=0.01)
    for (xs,) in batches(rng, digits()[0].astype(np.float32)):
        adam.zero_grad()
        h = encoder(Tensor(xs))
        z, kl = Code.apply(mean(h), log_var(h), noise=rng.normal(size=(BATCH, 4)).astype(np.float32))
        loss = (ops.binary_cross_entropy_with_logits(decoder(z), xs, reduction="sum") + kl.sum()) * (1.0 / BATCH)
        loss.backward()
        adam.step()
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
            loss_d, _, d_real, d_fake, g_fake = gan_losses(s[:BATCH], s[BATCH:])
            dy = np.concatenate([d_real, d_fake] if player is judge else [np.zeros(BATCH), g_fake])
            both.backward(dy[:, None].astype(np.float32))
            adam.step()
            if player is judge:
                yield float(loss_d)


def spelling(teacher_forcing: Callable, beam_search: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    words = sorted(w for w in set(data.sonnets().lower().split()) if set(w) <= set(LETTERS) and len(w) < 12)
    y = np.zeros((len(words), 12), int)
    for row, word in zip(y, words, strict=True):
        row[: len(word) + 1] = [*(LETTERS.index(letter) + FIRST_LETTER for letter in word), END]
    sgd = Descent(np.zeros((29, 29)), lr=5.0)
    for (ys,) in batches(rng, y):
        (table,) = sgd.weights
        log_p = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
        _, loss, dlog_p = teacher_forcing(log_p, ys)
        sgd.step(dlog_p - np.exp(log_p) * np.sum(dlog_p, axis=1, keepdims=True))
        yield loss


def dreaming(contrastive_divergence: Callable) -> Iterator[float]:
    rng = np.random.default_rng(0)
    x, _ = digits()
    w, b, c = rng.normal(0, 0.01, (32, 64)), np.zeros(64), np.zeros(32)
    for (v,) in batches(rng, x):
        v_k, dw, db, dc = contrastive_divergence(v, w, b, c, rng.random((1, BATCH, 32)), rng.random((1, BATCH, 64)))
        w, b, c = w + 0.2 * dw, b + 0.2 * db, c + 0.2 * dc
        yield float(np.mean((v - v_k) ** 2))


LOOPS: Mapping[str, Loop] = {
    "perceptron_epoch": Loop("a perceptron learns to tell the digits 3 and 8 apart", "mistakes in an epoch", 15, perceptron),
    "regression_gradient": Loop("a network with 16 hidden units learns which digits are odd", "loss", 200, regression),
    "gradient_clipping": Loop("a recurrent network reads sonnets, far too fast to go well unclipped", "loss", 200, clipped),
    "bidirectional": Loop("a network reads digits row by row, from above and from below", "loss", 200, both_ways),
    "initial_weights": Loop("a network of six layers starts from your weights and learns the digits", "loss", 200, initialised),
    "tied_autoencoder": Loop("an autoencoder 64-24-64 squeezes digits", "loss", 200, tied),
    "denoising": Loop("two layers learn to clean digits, one after the other", "loss of the first", 200, denoised),
    "vae": Loop("a variational autoencoder with 4 code units learns to draw digits", "loss", 200, variational),
    "gan_losses": Loop("two players learn a ring of eight Gaussians", "D's loss", 200, adversaries),
    "sequence_to_sequence": Loop("a table learns to spell the sonnets' words", "loss", 200, spelling),
    "contrastive_divergence": Loop("a restricted Boltzmann machine dreams of digits", "error of the dream", 200, dreaming),
}
