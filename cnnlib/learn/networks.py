"""The small networks in which a learner's function is put to work: each trains in seconds, on bundled data.

``Train.model`` of an exercise is a key of `NETWORKS`:

==================================  ================================================================================
lenet5                              digits; LeNet-5 with tanh and average pooling: conv2d, avg_pool2d, tanh, linear
max_pool  lp_pool                   digits; two convolutions with ReLU and such pooling: max_pool2d, lp_pool2d, relu
batch_norm  lrn  layer_norm         digits; two convolutions, each normalised so: batch_norm, local_response_norm
mlp  sigmoid  relu  elu             digits; one hidden layer, of tanh (sigmoid, ReLU, ELU): linear, cross_entropy
recipe                              digits; three sigmoid layers without biases and the squared loss: linear, sigmoid
regression                          digits; a tanh layer and a linear one without biases, the squared loss: linear, tanh
deep                                digits; eight ReLU layers with He's weights, which this depth needs: linear, relu
dropout  drop_connect  maxout       digits; an MLP with such a layer
momentum  nesterov  adagrad         digits; the MLP with this optimiser: sgd_step, adagrad_step,
rmsprop  adam                       rmsprop_step, adam_step
rnn  lstm  peepholes                sonnets; reads letters one by one and guesses the next one: rnn, lstm, linear
gru  gru_before                     the same; the reset gate after or before the product with the state: gru
tied  denoiser  rbm  vae            digits; a code without labels, by such a rule (cnnlib/learn/rules.py)
rows                                digits; two readers of their rows, from above and from below (there, too)
==================================  ================================================================================

All but recipe, regression and the codes end in the cross-entropy (cross_entropy_forward, cross_entropy_backward); those without
an optimiser in their name follow SGD with momentum, or Adam where they read letters, in lenet5, recipe and regression, and in
those of rules.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnlib import data, nn, ops, optim
from cnnlib.errors import unknown_name

LETTERS = 24  # of a piece of the sonnets


@dataclass
class Network:
    """A model, how it is optimised, and data: x, y to learn from and x_test, y_test to be judged on."""

    model: nn.Module
    optimizer: Any
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    functions: dict[str, Callable] = field(default_factory=dict)  # by name: what it does without kernels, see rules.py

    def loss(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Mean cross-entropy of the batch: a Tensor of one number."""
        return ops.cross_entropy(self.model(x), y.reshape(-1))

    def accuracy(self) -> float:
        """Share of the test labels that are guessed right."""
        from cnnlib import no_grad
        from cnnlib.nn.module import in_mode

        with in_mode(self.model, False), no_grad():
            return float((self.model(self.x_test).numpy().argmax(axis=1) == self.y_test.reshape(-1)).mean())


class SquaredNetwork(Network):
    """One that is trained on ½ ‖f − one-hot label‖², averaged over the samples, as the lecture's first networks were."""

    def loss(self, x: np.ndarray, y: np.ndarray) -> Any:
        target = np.eye(10, dtype=np.float32)[y]
        return ops.mse_loss(self.model(x), target, "sum") * (0.5 / len(y))


def network(name: str) -> Network:
    """A fresh one, with weights drawn by ``cnnlib.manual_seed``. Raises UnknownNameError."""
    if name not in NETWORKS:
        raise unknown_name("network of cnnlib learn", name, NETWORKS)
    return NETWORKS[name]()


def _on_digits(*layers: nn.Module, optimizer: Callable | None = None) -> Network:
    train, test = data.digits()
    model = nn.Sequential(*layers)
    return Network(model, (optimizer or _momentum)(model.parameters()), train.x, train.y, test.x, test.y)


def _momentum(parameters: Any) -> Any:
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def _convolutions(after: Callable[[int], list[nn.Module]], pool: Callable[[], nn.Module]) -> Network:
    return _on_digits(
        nn.Conv2d(1, 6, 3, padding=1), *after(6), nn.ReLU(), pool(),
        nn.Conv2d(6, 16, 3, padding=1), *after(16), nn.ReLU(), pool(),
        nn.Flatten(), nn.Linear(16 * 2 * 2, 10),
    )  # fmt: skip


def _lenet5() -> Network:
    return _on_digits(
        nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16 * 2 * 2, 32), nn.Tanh(), nn.Linear(32, 10),
        optimizer=lambda p: optim.Adam(p, lr=0.02),
    )  # fmt: skip


def _mlp(activation: nn.Module, *, hidden: nn.Module | None = None, optimizer: Callable | None = None) -> Network:
    return _on_digits(nn.Flatten(), hidden or nn.Linear(64, 32), activation, nn.Linear(32, 10), optimizer=optimizer)


def _recipe() -> Network:
    train, test = data.digits()
    sizes = ((64, 48), (48, 32), (32, 10))
    model = nn.Sequential(nn.Flatten(), *(layer for a, b in sizes for layer in (nn.Linear(a, b, bias=False), nn.Sigmoid())))
    for w in model.parameters():
        w.set(nn.init.xavier_uniform(w.shape, gain=4.0))  # a sigmoid's slope is ¼: without it three of them never get going
    return SquaredNetwork(model, optim.Adam(model.parameters(), lr=0.02), train.x, train.y, test.x, test.y)


def _regression() -> Network:
    train, test = data.digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32, bias=False), nn.Tanh(), nn.Linear(32, 10, bias=False))
    return SquaredNetwork(model, optim.Adam(model.parameters(), lr=0.005), train.x, train.y, test.x, test.y)


def _deep() -> Network:
    hidden = [layer for inputs in (64, *[32] * 7) for layer in (nn.Linear(inputs, 32), nn.ReLU())]
    net = _on_digits(nn.Flatten(), *hidden, nn.Linear(32, 10), optimizer=lambda p: optim.SGD(p, lr=0.01, momentum=0.9))
    for p in net.model.parameters():
        p.set(nn.init.he_uniform(p.shape) if p.ndim == 2 else np.zeros(p.shape, np.float32))
    return net


class Reader(nn.Module):
    """Letters (N, T), one-hot, through a recurrent layer to the logits (N·T, letters) of the next one."""

    def __init__(self, letters: int, layer: nn.Module):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(int(layer.output_size), letters)
        self.register_buffer("one_hot", np.eye(letters, dtype=np.float32))

    def forward(self, x):
        h, _ = self.layer(self.one_hot[x])
        return self.out(ops.reshape(h, (-1, h.shape[2])))


def _on_sonnets(layer: Callable[[int], nn.Module]) -> Network:
    text = data.sonnets().lower()
    alphabet = data.Alphabet(text)
    pieces = alphabet.encode(text)[: len(text) // (LETTERS + 1) * (LETTERS + 1)].reshape(-1, LETTERS + 1)
    held_out = len(pieces) // 10
    model = Reader(len(alphabet), layer(len(alphabet)))
    x, y = pieces[:, :-1], pieces[:, 1:]
    return Network(model, optim.Adam(model.parameters(), lr=0.01), x[:-held_out], y[:-held_out], x[-held_out:], y[-held_out:])


def _plain(channels: int) -> list[nn.Module]:
    return []


def _maximum() -> nn.Module:
    return nn.MaxPool2d(2)


UNITS = 32


def _rule(name: str) -> Network:
    from cnnlib.learn import rules

    made = {
        "tied": lambda: rules.codes(rules.Tied, rules.tied_autoencoder),
        "denoiser": lambda: rules.codes(rules.Denoiser, rules.denoising_gradient),
        "rbm": lambda: rules.codes(rules.Boltzmann, rules.contrastive_divergence, spread=0.01),
        "vae": lambda: rules.codes(rules.Variational, rules.vae_code),
        "rows": rules.rows,
    }
    return made[name]()


NETWORKS: dict[str, Callable[[], Network]] = {
    "lenet5": _lenet5,
    "max_pool": lambda: _convolutions(_plain, _maximum),
    "lp_pool": lambda: _convolutions(_plain, lambda: nn.LPPool2d(2, 2)),
    "batch_norm": lambda: _convolutions(lambda c: [nn.BatchNorm2d(c)], _maximum),
    "lrn": lambda: _convolutions(lambda c: [nn.LocalResponseNorm(5, alpha=0.5)], _maximum),
    "layer_norm": lambda: _mlp(nn.Sequential(nn.LayerNorm(32), nn.Tanh())),
    "mlp": lambda: _mlp(nn.Tanh()),
    "sigmoid": lambda: _mlp(nn.Sigmoid()),
    "relu": lambda: _mlp(nn.ReLU()),
    "elu": lambda: _mlp(nn.ELU()),
    "recipe": _recipe,
    "regression": _regression,
    "deep": _deep,
    "dropout": lambda: _mlp(nn.Sequential(nn.Tanh(), nn.Dropout(0.3))),
    "drop_connect": lambda: _mlp(nn.Tanh(), hidden=nn.DropConnect(64, 32, 0.3)),
    "maxout": lambda: _mlp(nn.Identity(), hidden=nn.Maxout(64, 32, 3)),
    "momentum": lambda: _mlp(nn.Tanh()),
    "nesterov": lambda: _mlp(nn.Tanh(), optimizer=lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True)),
    "adagrad": lambda: _mlp(nn.Tanh(), optimizer=lambda p: optim.Adagrad(p, lr=0.05)),
    "rmsprop": lambda: _mlp(nn.Tanh(), optimizer=lambda p: optim.RMSprop(p, lr=0.005)),
    "adam": lambda: _mlp(nn.Tanh(), optimizer=lambda p: optim.Adam(p, lr=0.005)),
    "rnn": lambda: _on_sonnets(lambda n: nn.RNN(n, UNITS, batch_first=True)),
    "lstm": lambda: _on_sonnets(lambda n: nn.LSTM(n, UNITS, batch_first=True)),
    "peepholes": lambda: _on_sonnets(lambda n: nn.LSTM(n, UNITS, batch_first=True, peepholes="diagonal")),
    "gru": lambda: _on_sonnets(lambda n: nn.GRU(n, UNITS, batch_first=True)),
    "gru_before": lambda: _on_sonnets(lambda n: nn.GRU(n, UNITS, batch_first=True, reset_after=False)),
    **{name: functools.partial(_rule, name) for name in ("tied", "denoiser", "rbm", "vae", "rows")},
}
