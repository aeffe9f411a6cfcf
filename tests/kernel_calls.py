"""Calls of every kernel of the contract, with arguments of any size: what the tests of threads, of the floating-point state, of
memory layouts and of memory bounds go through."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from cnnlib.backends import REFERENCE
from cnnlib.random import Key


class Call(NamedTuple):
    kernel: str
    arguments: tuple

    def __str__(self):
        shown = [f"{a.dtype}{list(a.shape)}" if isinstance(a, np.ndarray) else repr(a) for a in self.arguments]
        return f"{self.kernel}({', '.join(shown)})"

    def with_arrays(self, change) -> Call:
        """The same call with ``change`` applied to its arrays."""
        return Call(self.kernel, tuple(change(a) if isinstance(a, np.ndarray) else a for a in self.arguments))

    def on(self, kernels) -> list[np.ndarray]:
        """The results; of an optimiser's step, which writes in place, the arrays after it. The arguments stay as they are."""
        arguments = self.arguments
        if self.kernel.endswith("_step"):
            arguments = tuple(a.copy() if isinstance(a, np.ndarray) else a for a in arguments)
        result = getattr(kernels, self.kernel)(*arguments)
        if result is None:
            return [a for a in arguments if isinstance(a, np.ndarray)]
        return [y for y in (result if isinstance(result, tuple) else (result,)) if y is not None]

    def bits_on(self, kernels) -> list[tuple]:
        return [(y.shape, y.dtype, y.tobytes()) for y in self.on(kernels)]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One size of everything: the kernels take from it what they need."""

    M: int = 5  # a product
    N: int = 7
    K: int = 9
    batch: int = 2
    images: int = 2
    groups: int = 1
    C: int = 3  # channels per group
    F: int = 4
    H: int = 9
    W: int = 11
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilation: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (2, 2)  # of a pool
    step: tuple[int, int] = (2, 2)
    margin: tuple[int, int, int, int] = (0, 0, 0, 0)
    p: float = 3.0
    n: int = 37  # values of a channel, of a row
    elements: int = 43  # of an array
    size: int = 3  # of a normalisation's neighbourhood
    steps: int = 3  # of a recurrent layer
    sequences: int = 5
    units: int = 9

    def output(self) -> tuple[int, int]:
        sides = zip((self.H, self.W), self.kernel, self.stride, (self.pads[:2], self.pads[2:]), self.dilation, strict=True)
        return tuple((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)  # type: ignore[return-value]

    def pooled(self) -> tuple[int, int]:
        sides = zip((self.H, self.W), self.window, self.step, (self.margin[:2], self.margin[2:]), strict=True)
        return tuple((n + sum(p) - k) // s + 1 for n, k, s, p in sides)  # type: ignore[return-value]


FAMILIES = ("linear", "conv", "pool", "norm", "activation", "dropout", "loss", "recurrent", "embedding", "optim")
KEY = Key(2**64 - 3, 3, 2**32 - 1)


class Calls:
    """All calls of one size: ``for call in Calls(seed, "float32", sizes)``; ``scale`` multiplies what is drawn."""

    def __init__(self, seed: int, dtype: str, sizes: Sizes, scale: float = 1.0):
        self.rng, self.dtype, self.sizes, self.scale = np.random.default_rng(seed), dtype, sizes, scale

    def __iter__(self) -> Iterator[Call]:
        for name in FAMILIES:
            yield from self.of(name)

    def of(self, family: str) -> Iterator[Call]:
        with np.errstate(all="ignore"):
            for kernel, *arguments in getattr(self, family)(self.sizes):
                yield Call(kernel, tuple(arguments))

    def floats(self, *shape: int) -> np.ndarray:
        return (self.rng.standard_normal(shape) * self.scale).astype(self.dtype)

    def positive(self, *shape: int) -> np.ndarray:
        return (self.rng.uniform(0.1, 2.0, shape) * self.scale).astype(self.dtype)

    def linear(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        for ta in (False, True):
            for tb in (False, True):
                a, b = (s.K, s.M) if ta else (s.M, s.K), (s.N, s.K) if tb else (s.K, s.N)
                yield "gemm", self.floats(*a), self.floats(*b), ta, tb
                yield "gemm", self.floats(s.batch, *a), self.floats(s.batch, *b), ta, tb
        for bias in (None, self.floats(s.N)):
            yield "linear_forward", self.floats(s.M, s.K), self.floats(s.N, s.K), bias
        yield "linear_backward_input", self.floats(s.M, s.N), self.floats(s.N, s.K)
        yield "linear_backward_weight", self.floats(s.M, s.N), self.floats(s.M, s.K)
        yield "linear_backward_bias", self.floats(s.M, s.N)

    def conv(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        x, w = self.floats(s.images, s.groups * s.C, s.H, s.W), self.floats(s.groups * s.F, s.C, *s.kernel)
        dy, settings = self.floats(s.images, s.groups * s.F, *s.output()), (s.stride, s.pads, s.dilation, s.groups)
        for bias in (None, self.floats(s.groups * s.F)):
            yield "conv2d_forward", x, w, bias, *settings
        yield "conv2d_backward_input", dy, w, x.shape, *settings
        yield "conv2d_backward_weight", dy, x, w.shape, *settings
        yield "conv2d_backward_bias", dy

    def pool(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        x, dy = self.floats(s.images, s.C, s.H, s.W), self.floats(s.images, s.C, *s.pooled())
        window = s.window, s.step, s.margin
        yield "max_pool2d_forward", x, *window
        yield "max_pool2d_backward", dy, REFERENCE.max_pool2d_forward(x, *window)[1], x.shape, *window
        for all_of_it in (True, False):
            yield "avg_pool2d_forward", x, *window, all_of_it
            yield "avg_pool2d_backward", dy, x.shape, *window, all_of_it
        for p in (1.0, 2.0, s.p):
            yield "lp_pool2d_forward", x, p, *window
            yield "lp_pool2d_backward", dy, x, REFERENCE.lp_pool2d_forward(x, p, *window), p, *window

    def norm(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        C = s.groups * s.C
        for shape in ((s.images, C, s.n), (s.n, C, 1)):
            x, dy = self.floats(*shape), self.floats(*shape)
            _, mean, var = REFERENCE.batch_norm_forward(x, None, None, 1e-5)
            for gamma, beta in ((None, None), (self.positive(C), self.floats(C))):
                yield "batch_norm_forward", x, gamma, beta, 1e-5
                yield "batch_norm_backward", dy, x, gamma, mean, var, 1e-5
                yield "batch_norm_inference_forward", x, gamma, beta, mean, var, 1e-5
                yield "batch_norm_inference_backward", dy, x, gamma, mean, var, 1e-5
        x, dy = self.floats(s.M, s.n), self.floats(s.M, s.n)
        _, mean, rstd = REFERENCE.layer_norm_forward(x, None, None, 1e-5)
        for gamma, beta in ((None, None), (self.positive(s.n), self.floats(s.n))):
            yield "layer_norm_forward", x, gamma, beta, 1e-5
            yield "layer_norm_backward", dy, x, gamma, mean, rstd
        x, dy = self.floats(s.images, C, s.n), self.floats(s.images, C, s.n)
        for beta in (0.75, 0.5, 1.0, 0.6):
            total = REFERENCE.local_response_norm_forward(x, s.size, 1e-2, beta, 2.0)[1]
            yield "local_response_norm_forward", x, s.size, 1e-2, beta, 2.0
            yield "local_response_norm_backward", dy, x, total, s.size, 1e-2, beta
        x, dy = self.floats(s.images, C, s.H, s.W), self.floats(s.images, C, s.H, s.W)
        _, v, deviation = REFERENCE.local_contrast_norm_forward(x, s.size, 1.3, 1e-3)
        yield "local_contrast_norm_forward", x, s.size, 1.3, 1e-3
        yield "local_contrast_norm_backward", dy, v, deviation, s.size, 1.3, 1e-3

    def activation(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        for shape in ((s.elements,), (s.M, s.N)):
            x, dy = self.floats(*shape), self.floats(*shape)
            for name in ("relu", "softplus", "sigmoid", "tanh"):
                yield f"{name}_forward", x
                yield f"{name}_backward", dy, x
            for name in ("leaky_relu", "elu"):
                yield f"{name}_forward", x, 0.3
                yield f"{name}_backward", dy, x, 0.3
        for shape in ((s.M, s.n), (s.n, s.M)):
            x, dy = self.floats(*shape), self.floats(*shape)
            for name in ("softmax", "log_softmax"):
                yield f"{name}_forward", x
                yield f"{name}_backward", dy, getattr(REFERENCE, f"{name}_forward")(x)
        x = self.floats(s.M, s.size, s.n)
        yield "maxout_forward", x
        yield "maxout_backward", self.floats(s.M, s.n), REFERENCE.maxout_forward(x)[1], s.size

    def dropout(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        yield "random_bits", KEY, s.elements
        for shape in ((s.elements,), (s.M, s.N)):
            x, dy = self.floats(*shape), self.floats(*shape)
            yield "dropout_forward", x, 0.3, KEY
            yield "dropout_backward", dy, REFERENCE.dropout_forward(x, 0.3, KEY)[1], 0.3

    def loss(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        x, labels = self.floats(s.M, s.n), self.rng.integers(0, s.n, s.M)
        labels[:: max(2, s.M // 2)] = -100
        for weight, smoothing in ((None, 0.0), (self.positive(s.n), 0.1), (None, 0.1)):
            lse = REFERENCE.cross_entropy_forward(x, labels, weight, smoothing, -100)[1]
            yield "cross_entropy_forward", x, labels, weight, smoothing, -100
            yield "cross_entropy_backward", self.floats(s.M), x, labels, lse, weight, smoothing, -100

    def recurrent(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        T, B, D, H = s.steps, s.sequences, s.units // 2 + 3, s.units
        x, h0, c0, dh, dc = self.floats(T, B, D), self.floats(B, H), self.floats(B, H), self.floats(T, B, H), self.floats(B, H)
        lengths = self.rng.integers(1, max(T, 1) + 1, B)
        for nonlinearity, when in (("tanh", (None, False)), ("relu", (lengths, True)), ("sigmoid", (lengths, False))):
            w_ih, w, b = self.weights(H, D), self.weights(H, H), None if nonlinearity == "relu" else self.floats(H)
            forward = x, h0, w_ih, w, b, nonlinearity, *when
            yield "rnn_forward", *forward
            yield "rnn_backward", dh, REFERENCE.rnn_forward(*forward), h0, w, nonlinearity, *when
        for peephole, when in ((None, (None, True)), ((3, H), (lengths, False)), ((3, H, H), (lengths, True))):
            w_ih, w, b = self.weights(4 * H, D), self.weights(4 * H, H), None if peephole == (3, H) else self.floats(4 * H)
            p = None if peephole is None else self.weights(*peephole)
            how = p, "identity" if peephole == (3, H) else "tanh", *when
            forward = x, h0, c0, w_ih, w, b, *how
            yield "lstm_forward", *forward
            yield "lstm_backward", dh, dc, *REFERENCE.lstm_forward(*forward), h0, c0, w, *how
        for bias, *how in ((None, True, lengths, True), (self.floats(3 * H), True, None, False),
                           (self.floats(3 * H), False, lengths, False)):  # fmt: skip
            w_ih, w, b_ih = self.weights(3 * H, D), self.weights(3 * H, H), None if bias is None else self.floats(3 * H)
            forward = x, h0, w_ih, w, b_ih, bias, *how
            yield "gru_forward", *forward
            yield "gru_backward", dh, *REFERENCE.gru_forward(*forward), h0, w, *how

    def weights(self, *shape: int) -> np.ndarray:
        """Of a size that lets a state neither explode nor vanish."""
        return self.floats(*shape) / np.sqrt(np.asarray(shape[-1], self.dtype))

    def embedding(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        indices = self.rng.integers(0, s.N, s.M)
        yield "embedding_forward", indices, self.floats(s.N, s.n)
        yield "embedding_backward", self.floats(s.M, s.n), indices, s.N

    def optim(self, s: Sizes) -> Iterator[tuple[Any, ...]]:
        w, dw, a, c = (self.floats(s.elements) for _ in range(4))
        b = self.positive(s.elements)
        for velocity, nesterov in ((None, False), (a, False), (a, True)):
            yield "sgd_step", w, dw, velocity, 0.1, 0.9, 0.1, 0.01, nesterov
        yield "adagrad_step", w, dw, b, 0.1, 1e-8, 0.01
        for average, velocity in ((None, None), (a, None), (None, c), (a, c)):
            yield "rmsprop_step", w, dw, b, average, velocity, 0.1, 0.9, 1e-8, 0.01, 0.9
        for decoupled in (False, True):
            yield "adam_step", w, dw, a, b, 7, 0.1, 0.9, 0.999, 1e-8, 0.01, decoupled


def random_sizes(rng: np.random.Generator, largest: int = 1 << 16) -> Sizes:
    """Small odd sizes of everything; a convolution or product of at most ``largest`` multiply-adds."""
    edges = (1, 2, 3, 5, 7, 8, 9, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 47, 64, 65)
    while True:

        def pick(*values):
            return int(rng.choice(values))

        s = Sizes(
            M=pick(*edges), N=pick(*edges), K=pick(*edges, 129, 255, 257, 513), batch=pick(1, 2, 3),
            images=pick(1, 1, 2, 3), groups=pick(1, 1, 1, 2, 5), C=pick(1, 1, 2, 3, 4, 8, 16, 17), F=pick(1, 2, 3, 6, 15, 17),
            H=pick(*range(1, 20)), W=pick(*range(1, 20), 33, 35),
            kernel=(pick(1, 2, 3, 3, 3, 5), pick(1, 2, 3, 3, 3, 5)), stride=(pick(1, 1, 2, 3), pick(1, 1, 2, 3)),
            pads=tuple(pick(0, 0, 1, 2, 3) for _ in range(4)), dilation=(pick(1, 1, 1, 2, 3), pick(1, 1, 1, 2, 3)),
            window=(pick(1, 2, 2, 3, 3, 5, 17), pick(1, 2, 2, 3, 3, 5, 17)), step=(pick(1, 1, 2, 2, 3), pick(1, 2, 2, 3)),
            p=float(rng.choice([1.5, 3.0])), n=pick(*edges, 127, 1000, 1025), elements=pick(*edges, 1023, 1024, 1025, 2100),
            size=pick(1, 2, 3, 4, 5, 9), steps=pick(1, 2, 5, 6), sequences=pick(1, 1, 2, 4, 5, 15, 29), units=pick(*edges),
        )  # fmt: skip
        kh, kw = s.window
        s = dataclasses.replace(s, margin=tuple(pick(0, 0, 0, 1, k - 1) if k > 1 else 0 for k in (kh, kh, kw, kw)))
        if min(*s.output(), *s.pooled()) > 0 and every_window_sees_the_image(s):
            products = s.images * s.groups * s.C * s.F * np.prod(s.output()) * np.prod(s.kernel)
            if products <= largest and s.batch * s.M * s.N * s.K <= largest:
                return s


def every_window_sees_the_image(s: Sizes) -> bool:
    """Of a pool: the operations refuse other padding."""
    sides = zip((s.H, s.W), s.window, s.step, (s.margin[:2], s.margin[2:]), s.pooled(), strict=True)
    return all(2 * p[0] <= k and (out - 1) * step - p[0] < n for n, k, step, p, out in sides)


LARGE = (  # enough work for four threads, in several shapes
    Sizes(
        M=300, N=410, K=290, batch=5, images=8, C=16, F=32, H=28, W=28, n=1500, elements=200_003, size=5,
        steps=4, sequences=65, units=170,
    ),
    Sizes(
        M=7, N=1500, K=700, batch=9, images=6, groups=24, C=1, F=2, H=57, W=59, stride=(2, 1),
        window=(3, 3), step=(2, 2), margin=(1, 0, 0, 1), n=1003, elements=65_536, size=2,
        steps=6, sequences=1, units=701,
    ),
    Sizes(
        M=2000, N=9, K=300, batch=3, images=5, C=40, F=24, H=31, W=29, kernel=(1, 1), pads=(0, 0, 0, 0),
        window=(3, 2), step=(1, 1), n=307, elements=100_007, size=4,
        steps=2, sequences=3, units=300,
    ),
)  # fmt: skip
