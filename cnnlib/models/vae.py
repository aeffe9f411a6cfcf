"""The variational autoencoder: a network turns random numbers into data, another one finds those that a sample came from.

    z ~ N(0, I),   x ~ p(x | z) with parameters NN(z)           the decoder: probabilistic PCA, with a network for its matrix
    q(z | x) = N(NN_μ(x), NN_σ²(x))                             the encoder: nearly the posterior of z

    ln p(x) ≥ ELBO = E_q[ln p(x | z)] − KL(q(z | x) ‖ N(0, I))     loss = −(the first) + β (the second), mean over samples

One draw z = μ + σ ε for each sample estimates the expectation, and its gradient (cnnlib/distributions.py). The terms come as
``reconstruction`` = −ln p(x | z) and ``kl``, in nats per sample; with β = 1 the loss is −ELBO.

| likelihood  | p(x | z)                        | for                                                             |
|-------------|---------------------------------|-----------------------------------------------------------------|
| "bernoulli" | Bernoulli(σ(NN(z)))             | pixels in 0 … 1; grey ones weigh black and white                |
| "gaussian"  | N(NN_μ(z), NN_σ²(z))            | real numbers; σ² ≥ 10⁻³, or a pixel that never changes gives ∞  |
| "isotropic" | N(NN_μ(z), σ² I), σ² learnt     | the noise of PPCA                                               |

**Linear.** With no hidden layers and "isotropic" noise it is probabilistic PCA: its best ELBO is PPCA's log-likelihood, and the
decoder's columns span the plane of the first principal components (a test holds both).

**β.** Above 1 the code is pressed towards N(0, I): latents that say little are switched off, the others tend to mean one thing
each. Below 1 pictures get sharper, and samples worse.

**Conditional.** The label as a one-hot vector stands beside x (or the maps made of it) and beside z: the decoder draws what is
asked for, and z holds what the label does not say, such as the style.

**ln p(x)** itself: `log_likelihood` averages over S draws, ln 1/S Σ_s p(x | z_s) p(z_s) / q(z_s | x). On average that is at
least the ELBO, and nearer to ln p(x) with each draw.

Source: lecture: variational autoencoder; Kingma & Welling, "Auto-encoding variational Bayes", 2014; Rezende, Mohamed &
Wierstra, "Stochastic backpropagation", 2014; Higgins et al., "β-VAE", 2017; Sohn, Lee & Yan, "Learning structured output
representation", 2015 (conditional); Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016; Tipping &
Bishop, "Probabilistic principal component analysis", 1999; Lucas et al., "Don't blame the ELBO!", 2019 (the linear one).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib import nn, ops, random
from cnnlib.backends import xp_of
from cnnlib.data.streams import check_seed
from cnnlib.distributions import Bernoulli, Normal, kl
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError, unknown_name
from cnnlib.models.objective import ObjectiveModel
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_sizes, check_whole, sample_shape
from cnnlib.tensor import Parameter, Tensor, to_device

LIKELIHOODS = ("bernoulli", "gaussian", "isotropic")
SMALLEST_LOG_VAR = math.log(1e-3)
COLLAPSED = 0.1  # nats


class VAE(ObjectiveModel):
    """x (N, ...) of ``input_shape``; the encoder's hidden layers are ``hidden``, the decoder's the same in reverse, all ReLU.

    ``classes``: of a conditional one; `objective`, `decode` and the others then need labels y (N,).

    >>> import cnnlib as cl
    >>> net, x = cl.models.VAE(input_shape=(4,), latents=2, hidden=(8,)), cl.Tensor([[0.0, 1.0, 1.0, 0.0]])
    >>> net.encode(x).mean.shape, net.decode(np.zeros((3, 2), np.float32)).mean.shape
    ((1, 2), (3, 4))
    >>> net.sample(5, seed=1).shape
    (5, 4)

    Raises UnknownNameError (likelihood), ValueRangeError (sizes below 1, beta below 0, pixels outside 0 … 1 under "bernoulli"),
    ShapeError.
    """

    measures = ("reconstruction", "kl")
    settings = {
        "latents": "Size of z.",
        "hidden": "Hidden layers of the encoder; the decoder has them in reverse.",
        "likelihood": f"One of {', '.join(LIKELIHOODS)}.",
        "beta": "Weight of KL(q ‖ N(0, I)).",
        "conditional": "Give encoder and decoder the class.",
    }
    recipe = {"epochs": 5, "batch_size": 128, "optimizer": "adam", "lr": 1e-3}

    def __init__(self, input_shape: int | Sequence[int] = (1, 28, 28), latents: int = 20, hidden: Sequence[int] = (400,),
                 likelihood: str = "bernoulli", beta: float = 1.0, conditional: bool = False, classes: int = 10):  # fmt: skip
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise unknown_name("likelihood", likelihood, LIKELIHOODS)
        check_whole("VAE", "latents", latents)
        check_whole("VAE", "classes", classes)
        check_sizes("VAE", "hidden", hidden)
        if not (isinstance(beta, (int, float)) and 0 <= beta < math.inf):
            raise ValueRangeError(f"VAE: beta must be at least 0 and finite, got {beta!r}.")
        self.input_shape = sample_shape(type(self).__name__, "input_shape", input_shape)
        self.latents, self.likelihood, self.beta = latents, likelihood, float(beta)
        self.classes = classes if conditional else 0
        outputs = 2 if likelihood == "gaussian" else 1  # for each pixel
        self.encoder, features, hidden_after = self._encoder(hidden)
        sizes = (features + self.classes, *hidden_after)
        self.posterior = nn.Sequential(*_layers(sizes), nn.Linear(sizes[-1], 2 * latents))
        self.decoder = self._decoder(hidden, outputs)
        self.log_var = Parameter(np.zeros(1, np.float32)) if likelihood == "isotropic" else None

    def _encoder(self, hidden: Sequence[int]) -> tuple[nn.Module, int, Sequence[int]]:
        """x (N, ...) -> features (N, D), beside which the class stands; D; the hidden layers between them and q."""
        return nn.Flatten(), math.prod(self.input_shape), hidden

    def _decoder(self, hidden: Sequence[int], outputs: int) -> nn.Module:
        """z, with the class beside it (N, K) -> (N, outputs · C, H, W), in any shape."""
        sizes = (self.latents + self.classes, *reversed(hidden))
        return nn.Sequential(*_layers(sizes), nn.Linear(sizes[-1], outputs * math.prod(self.input_shape)))

    def encode(self, x: Any, y: Any = None) -> Normal:
        """q(z | x), of shape (N, latents)."""
        x = self._samples(x)
        mean, log_var = ops.split(self.posterior(self._beside(self.encoder(x), y)), (self.latents, self.latents), axis=1)
        return Normal(mean, log_var=log_var)

    def decode(self, z: Any, y: Any = None) -> Bernoulli | Normal:
        """p(x | z), of shape (N, \\*input_shape)."""
        outputs = self.decoder(self._beside(z if isinstance(z, Tensor) else Tensor(z), y))
        if self.likelihood == "bernoulli":
            return Bernoulli(ops.reshape(outputs, (-1, *self.input_shape)))
        if self.likelihood == "isotropic":
            return Normal(ops.reshape(outputs, (-1, *self.input_shape)), log_var=self.log_var)
        both = ops.reshape(outputs, (-1, 2, *self.input_shape))
        return Normal(both[:, 0], log_var=SMALLEST_LOG_VAR + ops.softplus(both[:, 1] - SMALLEST_LOG_VAR))

    def forward(self, x, y=None):
        """The mean of p(x | z) at the mean of q(z | x): the reconstruction."""
        return self.decode(self.encode(x, y).mean, y).mean

    def objective(self, x, y=None):
        reconstruction, divergence = self.terms(x, y)
        reconstruction, divergence = ops.mean(reconstruction), ops.mean(divergence)
        return reconstruction + self.beta * divergence, {"reconstruction": reconstruction, "kl": divergence}

    def terms(self, x: Any, y: Any = None) -> tuple[Tensor, Tensor]:
        """(−ln p(x | z) with one draw z, KL(q ‖ N(0, I))), each (N,): −ELBO is their sum."""
        x = self._samples(x)
        self._check_pixels(x.data)
        q = self.encode(x, y)
        return -_sum(self.decode(q.rsample(), y).log_prob(x)), _sum(kl(q, _standard_normal(q.mean)))

    def concern(self, row):
        if row["kl"] < COLLAPSED:
            return (f"the posterior has collapsed: KL(q(z | x) ‖ N(0, I)) is {row['kl']:.2g} nats, z says nothing of x. A "
                    "smaller beta, raised only after some epochs, a smaller decoder or learning rate help.")  # fmt: skip
        return None

    def log_likelihood(self, x: Any, samples: int = 100, y: Any = None) -> np.ndarray:
        """ln p(x) of each sample in nats, (N,) float64, estimated with so many draws: on average a little too low."""
        check_whole("log_likelihood", "samples", samples)
        x = self._samples(x)
        self._check_pixels(x.data)
        weights = []
        with no_grad():
            q = self.encode(x, y)
            prior = _standard_normal(q.mean)
            for _ in range(samples):
                z = q.sample()
                weights.append(_sum(self.decode(z, y).log_prob(x)) + _sum(prior.log_prob(z)) - _sum(q.log_prob(z)))
        w = np.stack([weight.numpy() for weight in weights]).astype(np.float64)  # (S, N)
        top = w.max(axis=0)
        return top + np.log(np.exp(w - top).mean(axis=0))

    def sample(self, count: int = 1, seed: int = 0, y: Any = None) -> np.ndarray:
        """The means of p(x | z) at ``count`` draws z ~ N(0, I), (count, \\*input_shape); the same seed, the same pictures.

        A conditional one draws of classes ``y`` (count,), or of all in turn.
        """
        z = seeded_latents(seed, (count, self.latents), next(self.parameters()))
        if self.classes and y is None:
            y = np.arange(count) % self.classes
        with no_grad():
            return self.decode(z, y).mean.numpy()

    @staticmethod
    def options_from(train):
        return {"input_shape": list(train.x.shape[1:]), "classes": len(train.classes)}

    def _beside(self, features: Tensor, y: Any) -> Tensor:
        """[features, one-hot y] where the model is conditional."""
        if not self.classes:
            return features
        if y is None:
            raise ValueRangeError(f"VAE: a conditional model of {self.classes} classes needs labels y, one for each sample.")
        y = y.data if isinstance(y, Tensor) else y
        xp = xp_of(features.data)
        y = xp.asarray(y)
        if y.dtype.kind not in "iu":
            raise DtypeError(f"VAE: labels y must be integers, got {y.dtype}.")
        if y.shape != (len(features),):
            raise ShapeError(f"VAE: y must have one label for each of {len(features)} samples, got shape {y.shape}.")
        if not bool(((y >= 0) & (y < self.classes)).all()):
            raise ValueRangeError(f"VAE: labels must be in 0 … {self.classes - 1}, got {int(y.min())} … {int(y.max())}.")
        return ops.concat((features, Tensor.wrap(xp.eye(self.classes, dtype=features.dtype)[y])), axis=1)

    def _samples(self, x: Any) -> Tensor:
        x = x if isinstance(x, Tensor) else Tensor(x)
        if x.shape[1:] != self.input_shape or not len(x):
            raise ShapeError(f"{type(self).__name__}: x must have shape (N, {', '.join(map(str, self.input_shape))}), "
                             f"N at least 1, got {x.shape}.")  # fmt: skip
        return x

    def _check_pixels(self, x: Any) -> None:
        if self.likelihood == "bernoulli" and not (float(x.min()) >= 0.0 and float(x.max()) <= 1.0):
            raise ValueRangeError(
                f"VAE: under likelihood 'bernoulli' x must be in 0 … 1, got {float(x.min()):.4g} … {float(x.max()):.4g}: "
                "divide pixels by 255 and do not normalise them, or take likelihood='gaussian'."
            )


class ConvVAE(VAE):
    """A `VAE` of pictures: convolutions of stride 2 halve them, transposed ones double them; sides are multiples of 4.

    ``hidden`` = (F, D, …): C×H×W -> conv 4×4 /2 -> F maps -> conv 4×4 /2 -> 2F maps -> linear D … -> z, and back the same way.

    >>> import cnnlib as cl
    >>> cl.models.ConvVAE(latents=2).sample(3).shape
    (3, 1, 28, 28)
    """

    settings = VAE.settings | {"hidden": "Maps of the first convolution (the second has twice as many), then linear layers."}

    def __init__(self, input_shape: int | Sequence[int] = (1, 28, 28), latents: int = 20, hidden: Sequence[int] = (32, 256),
                 likelihood: str = "bernoulli", beta: float = 1.0, conditional: bool = False, classes: int = 10):  # fmt: skip
        input_shape = sample_shape("ConvVAE", "input_shape", input_shape)
        if len(input_shape) != 3 or input_shape[1] % 4 or input_shape[2] % 4:
            raise ShapeError(f"ConvVAE: samples must be pictures (C, H, W) whose sides are multiples of 4, got "
                             f"{input_shape}: VAE takes any.")  # fmt: skip
        check_sizes("ConvVAE", "hidden", hidden, fewest=1)
        super().__init__(input_shape, latents, hidden, likelihood, beta, conditional, classes)

    def _maps(self, F: int) -> tuple[int, int, int]:
        """Between the convolutions and the linear layers."""
        return 2 * F, self.input_shape[1] // 4, self.input_shape[2] // 4

    def _encoder(self, hidden):
        F, *rest = hidden
        maps = (nn.Conv2d(self.input_shape[0], F, 4, 2, 1), nn.ReLU(), nn.Conv2d(F, 2 * F, 4, 2, 1), nn.ReLU())
        return nn.Sequential(*maps, nn.Flatten()), math.prod(self._maps(F)), rest

    def _decoder(self, hidden, outputs):
        F, *rest = hidden
        sizes = (self.latents + self.classes, *reversed(rest), math.prod(self._maps(F)))
        last = nn.ConvTranspose2d(F, outputs * self.input_shape[0], 4, 2, 1)
        maps = (nn.ConvTranspose2d(2 * F, F, 4, 2, 1), nn.ReLU(), last)
        return nn.Sequential(*_layers(sizes), Unflatten(self._maps(F)), *maps)


class Unflatten(nn.Module):
    """(N, C · H · W) -> (N, C, H, W)."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return ops.reshape(x, (-1, *self.shape))

    def extra_repr(self) -> str:
        return str(self.shape)


def seeded_latents(seed: int, shape: tuple[int, int], like: Tensor) -> Tensor:
    """z ~ N(0, I) of that ``shape``, decided by the seed alone, with the dtype and on the device of ``like``."""
    check_whole("sample", "count", shape[0])
    key = random.Key(check_seed(seed, "sample"), random.STREAMS.index("sampling"), 0)
    return Tensor(to_device(random.normal(key, shape).astype(like.dtype), like.device))


def _standard_normal(like: Tensor) -> Normal:
    return Normal(Tensor.wrap(xp_of(like.data).zeros_like(like.data)), std=1.0)


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    return [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]


def _sum(values: Tensor) -> Tensor:
    """Over all axes but the first."""
    return ops.sum(values, axis=tuple(range(1, values.ndim)))
