"""Networks in which a learner's function is no kernel but the learning rule itself, or a layer of its own.

The library has no kernel of that form, so its counterpart is written here, with its operations on the tape: `Network.functions`
holds it by the name under which `Train.kernels` gives the learner's. Codes are judged by neighbours: the share of test digits
whose nearest training digit, by the distance of codes, is the same digit. Random numbers are drawn from a generator of the
network's own, so that both curves see the same noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib import data, nn, no_grad, ops, optim
from cnnlib.distributions import Normal, kl
from cnnlib.learn.networks import Network
from cnnlib.op import Op
from cnnlib.tensor import Parameter, Tensor

PIXELS, UNITS, LATENTS = 64, 32, 8
KEPT = 0.7  # of the pixels that the denoiser sees


class Loss(Op):
    """A loss whose gradients come with it: ``function(*parameters)`` -> loss, gradients."""

    @staticmethod
    def forward(ctx, *parameters, function):
        loss, *gradients = function(*parameters)
        ctx.save(gradients=gradients)
        return np.asarray(loss, dtype=parameters[0].dtype)

    @staticmethod
    def backward(ctx, dy):
        return tuple(dy * g for g in ctx.gradients)


class Draw(Op):
    """``function(dz, dkl, mean, log_var, noise)`` -> z, kl, dmean, dlog_var, forward and backward."""

    @staticmethod
    def forward(ctx, mean, log_var, *, noise, function):
        ctx.save(given=(mean, log_var, noise), function=function)
        z, divergence, _, _ = function(np.zeros_like(mean), np.zeros_like(mean[:, 0]), mean, log_var, noise)
        return z, divergence

    @staticmethod
    def backward(ctx, dz, dkl):
        return tuple(ctx.function(dz, dkl, *ctx.given)[2:])


class Both(Op):
    """A layer of two functions: ``forward(x, *weights)`` -> y, ``backward(dy, x, *weights)`` -> the adjoints."""

    @staticmethod
    def forward(ctx, x, *weights, functions):
        ctx.save(given=(x, *weights), back=functions[1])
        return functions[0](x, *weights)

    @staticmethod
    def backward(ctx, dy):
        return tuple(ctx.back(dy, *ctx.given))


# ---- the library's counterparts


def taped(objective: Callable[..., Tensor], *arrays: Any) -> tuple:
    """The value of ``objective`` and its gradients by all arrays."""
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    loss = objective(*tensors)
    loss.backward()
    return (loss.item(), *(t.grad for t in tensors))


def tied_autoencoder(x, w, b, c):
    def objective(w, b, c):
        return ops.mse_loss(ops.linear(ops.sigmoid(ops.linear(x, w, b)), ops.transpose(w), c), x)

    return taped(objective, w, b, c)


def denoising_gradient(x, keep, w, b, c):
    def objective(w, b, c):
        code = ops.sigmoid(ops.linear(x * keep, w, b))
        return ops.binary_cross_entropy_with_logits(ops.linear(code, ops.transpose(w), c), x)

    return taped(objective, w, b, c)


def contrastive_divergence(v, w, b, c, u_h, u_v):
    def free_energy(v, w, b, c):
        return -ops.mean(ops.sum(v * b, axis=1) + ops.sum(ops.softplus(ops.linear(v, w, c)), axis=1))

    v_k = v
    with no_grad():
        for chance_h, chance_v in zip(u_h, u_v, strict=True):
            h = (chance_h < ops.sigmoid(ops.linear(v_k, w, c)).data).astype(v.dtype)
            v_k = (chance_v < ops.sigmoid(ops.linear(h, w.T, b)).data).astype(v.dtype)
    _, *changes = taped(lambda w, b, c: free_energy(v_k, w, b, c) - free_energy(v, w, b, c), w, b, c)
    return v_k, *changes


def vae_code(dz, dkl, mean, log_var, noise):
    m, v = Tensor(mean, requires_grad=True), Tensor(log_var, requires_grad=True)
    q = Normal(m, log_var=v)
    z = q.mean + q.std * noise
    divergence = ops.sum(kl(q, Normal(Tensor(np.zeros_like(mean)), std=1.0)), axis=1)
    (ops.sum(z * dz) + ops.sum(divergence * dkl)).backward()
    return z.data, divergence.data, m.grad, v.grad


def bidirectional(x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back):
    with no_grad():
        return _two_readers(x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back).data


def bidirectional_bptt(dy, *given):
    return taped(lambda *given: ops.sum(_two_readers(*given) * dy), *given)[1:]


def _two_readers(x, w_ih, w_hh, b, w_ih_back, w_hh_back, b_back):
    return ops.rnn(x, None, w_ih, w_hh, b)[0] + ops.rnn(x, None, w_ih_back, w_hh_back, b_back, reverse=True)[0]


# ---- the networks


class Coder(nn.Module):
    """W (K, D), b (K,) of the code σ(W x + b), and c (D,) for the way back."""

    def __init__(self, spread: float):
        super().__init__()
        self.w = Parameter(nn.init.normal_((UNITS, PIXELS), spread))
        self.b, self.c = (Parameter(np.zeros(n, np.float32)) for n in (UNITS, PIXELS))

    def forward(self, x):
        return ops.sigmoid(ops.linear(ops.reshape(x, (len(x), -1)), self.w, self.b))


class Codes(Network):
    """One that learns a code, without labels, from what ``self.rule`` makes of the pixels and of the coder's w, b, c."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rng = np.random.default_rng(0)

    def uniform(self, *shape: int) -> np.ndarray:
        return self.rng.uniform(size=shape).astype(np.float32)

    def loss(self, x, y):
        pixels = x.reshape(len(x), -1)
        return Loss.apply(self.model.w, self.model.b, self.model.c, function=self.rule(pixels))

    def rule(self, x: np.ndarray) -> Callable[..., Any]:
        """x (N, D) -> a function of w, b, c that returns the loss and three gradients."""
        raise NotImplementedError

    def accuracy(self) -> float:
        with no_grad():
            known, asked = (self.model(x).numpy() for x in (self.x, self.x_test))
        distance = (known**2).sum(axis=1) - 2 * asked @ known.T
        return float((self.y[distance.argmin(axis=1)] == self.y_test).mean())


class Tied(Codes):
    def rule(self, x):
        return lambda w, b, c: self.functions["tied_autoencoder"](x, w, b, c)


class Denoiser(Codes):
    def rule(self, x):
        keep = (self.uniform(*x.shape) < KEPT).astype(np.float32)
        return lambda w, b, c: self.functions["denoising_gradient"](x, keep, w, b, c)


class Boltzmann(Codes):
    """The loss that is shown is the squared difference of data and dream; what is followed are the changes of CD-1."""

    def rule(self, x):
        u_h, u_v = self.uniform(1, len(x), UNITS), self.uniform(1, *x.shape)

        def changes(w, hidden, visible):
            v_k, dw, dvisible, dhidden = self.functions["contrastive_divergence"](x, w, visible, hidden, u_h, u_v)
            return ((x - v_k) ** 2).mean(), -dw, -dhidden, -dvisible

        return changes


class Encoder(nn.Module):
    """Pixels -> mean and log variance of the code, and a code -> logits of pixels."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, UNITS), nn.ReLU(), nn.Linear(UNITS, 2 * LATENTS))
        self.decoder = nn.Sequential(nn.Linear(LATENTS, UNITS), nn.ReLU(), nn.Linear(UNITS, PIXELS))

    def forward(self, x):
        return self.encoder(x)[:, :LATENTS]


class Variational(Codes):
    def loss(self, x, y):
        mean, log_var = ops.split(self.model.encoder(x), (LATENTS, LATENTS), axis=1)
        noise = self.rng.normal(size=mean.shape).astype(np.float32)
        z, divergence = Draw.apply(mean, log_var, noise=noise, function=self.functions["vae_code"])
        logits, pixels = self.model.decoder(z), x.reshape(len(x), -1)
        return ops.binary_cross_entropy_with_logits(logits, pixels, reduction="sum") / len(x) + ops.mean(divergence)


class Rows(nn.Module):
    """A digit read row by row, from above and from below, and its states averaged."""

    def __init__(self, functions: dict[str, Callable]):
        super().__init__()
        self._functions = functions
        self.readers = nn.RNN(8, UNITS, bidirectional=True)
        self.out = nn.Linear(UNITS, 10)

    def forward(self, x):
        names = (f"{weight}_l0{way}" for way in ("", "_reverse") for weight in ("weight_ih", "weight_hh", "bias_ih"))
        functions = (self._functions["bidirectional"], self._functions["bidirectional_bptt"])
        rows = ops.transpose(ops.reshape(x, (-1, 8, 8)), (1, 0, 2))
        y = Both.apply(rows, *(getattr(self.readers, name) for name in names), functions=functions)
        return self.out(ops.mean(y, axis=0))


def codes(kind: type[Codes], rule: Callable, spread: float = 0.1, lr: float = 0.01) -> Network:
    model = Encoder() if kind is Variational else Coder(spread)
    return _on_digits(kind, model, lr, {rule.__name__: rule})


def rows() -> Network:
    functions = {f.__name__: f for f in (bidirectional, bidirectional_bptt)}
    model = Rows(functions)
    return _on_digits(Network, model, 0.01, functions)


def _on_digits(kind: type[Network], model: nn.Module, lr: float, functions: dict[str, Callable]) -> Network:
    train, test = data.digits()
    return kind(model, optim.Adam(model.parameters(), lr=lr), train.x, train.y, test.x, test.y, functions)
