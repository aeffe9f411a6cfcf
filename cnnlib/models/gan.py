"""Generative adversarial networks: one network draws, another says what is drawn and what is real, and they learn in turns.

    z ~ N(0, I),   G(z) a sample,   D(x) = σ(s(x)) the chance that x is real

    the discriminator wants D(x) -> 1, D(G(z)) -> 0:      −ln D(x) − ln(1 − D(G(z)))
    the generator wants D(G(z)) -> 1:

| loss             | of the generator             | of the discriminator                                            |
|------------------|------------------------------|-----------------------------------------------------------------|
| "non-saturating" | −ln D(G(z))                  | as above                                                        |
| "minimax"        | ln(1 − D(G(z))), the game's  | as above; whose gradient dies where D is sure: −D ∂s            |
| "wasserstein"    | −s(G(z))                     | s(G(z)) − s(x), its weights cut to ±clip after every step       |

**Equilibrium.** Where G draws from the distribution of the data, the best D says ½ everywhere, and its loss is 2 ln 2 = 1.386.
So ``d_real`` = D(x) and ``d_fake`` = D(G(z)), means over the samples, are kept in the history; with "wasserstein" they are the
scores s, and −loss estimates the distance of the two distributions, up to a factor.

**Against collapse**, when G draws a few things that D finds hard and leaves out the others: ``smoothing`` s gives D the target
1 − s for what is real, so that it is never quite sure; ``noise`` adds N(0, noise²) to all that D sees, which makes
distributions overlap that otherwise would not; ``pack`` m shows D m samples of one kind at a time, and among m drawn ones
repetition is seen. ``noise`` may be changed during training, and faded out.

**Wasserstein.** s must be Lipschitz for its difference to estimate a distance. Cutting the weights is the first and simplest
way. The better known penalty on ∂s/∂x would need the derivative of a derivative, and a tape of cnnlib records one only.

Source: lecture: generative adversarial networks; Goodfellow et al., "Generative adversarial nets", 2014; Radford, Metz &
Chintala, "Unsupervised representation learning with deep convolutional GANs", 2016; Salimans et al., "Improved techniques for
training GANs", 2016 (smoothing); Arjovsky & Bottou, "Towards principled methods for training GANs", 2017 (noise); Lin, Khetan,
Fanti & Oh, "PacGAN", 2018; Arjovsky, Chintala & Bottou, "Wasserstein GAN", 2017.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib import nn, ops, random
from cnnlib.backends import xp_of
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.models.objective import ObjectiveModel
from cnnlib.models.vae import Unflatten, seeded_latents
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_sizes, check_whole, sample_shape
from cnnlib.tensor import Tensor

LOSSES = ("non-saturating", "minimax", "wasserstein")
SURE = 0.98  # on average: the discriminator is never wrong


class GAN(ObjectiveModel):
    """Generator and discriminator of linear layers, the hidden ones ``hidden``, the other way round in the discriminator.

    Pictures (C, H, W) must be in 0 … 1, and are drawn there; vectors are any numbers. `cnnlib.train.AdversarialTrainer` trains
    it: ``discriminator_steps`` of the discriminator for one of the generator.

    >>> import cnnlib as cl
    >>> net = cl.models.GAN(input_shape=(2,), latents=3, hidden=(16,))
    >>> net.sample(5, seed=1).shape
    (5, 2)

    Raises UnknownNameError (loss), ValueRangeError (sizes below 1, smoothing, noise, clip; pixels outside 0 … 1), ShapeError.
    """

    measures = ("generator_loss", "d_real", "d_fake")
    settings = {
        "latents": "Size of z.",
        "hidden": "Hidden layers of the generator; the discriminator has them in reverse.",
        "loss": f"One of {', '.join(LOSSES)}.",
        "smoothing": "The discriminator's target for what is real is 1 - smoothing.",
        "noise": "Deviation of what is added to all that the discriminator sees.",
        "pack": "Samples that the discriminator judges together.",
        "clip": "Of wasserstein: limit of the discriminator's weights.",
        "discriminator_steps": "Steps of the discriminator for one of the generator.",
    }
    recipe = {"epochs": 20, "batch_size": 128, "optimizer": "adam", "lr": 2e-4, "settings": {"betas": (0.5, 0.999)}}

    def __init__(self, input_shape: int | Sequence[int] = (1, 28, 28), latents: int = 64, hidden: Sequence[int] = (256, 512),
                 loss: str = "non-saturating", smoothing: float = 0.0, noise: float = 0.0, pack: int = 1, clip: float = 0.01,
                 discriminator_steps: int = 1):  # fmt: skip
        super().__init__()
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        check_sizes(type(self).__name__, "hidden", hidden)
        for name, count in (("latents", latents), ("pack", pack), ("discriminator_steps", discriminator_steps)):
            check_whole("GAN", name, count)
        for name, value, high in (("smoothing", smoothing, 0.5), ("noise", noise, math.inf), ("clip", clip, math.inf)):
            if not 0.0 <= value < high:
                raise ValueRangeError(f"GAN: {name} must be in 0 <= {name} < {high:g}, got {value!r}.")
        self.input_shape = sample_shape(type(self).__name__, "input_shape", input_shape)
        self.latents, self.loss, self.pack = latents, loss, pack
        self.smoothing, self.noise, self.clip = float(smoothing), float(noise), float(clip)
        self.discriminator_steps = discriminator_steps
        self.generator, self.discriminator = self._networks(tuple(hidden))

    def _networks(self, hidden: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        """z (N, latents) -> (N, \\*input_shape), and a stack of ``pack`` samples along the first axis of each -> (N, 1)."""
        size, sizes = math.prod(self.input_shape), (self.latents, *hidden)
        draw = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        last = [nn.Sigmoid()] if self._pictures else []
        generator = nn.Sequential(*draw, nn.Linear(sizes[-1], size), *last, Unflatten(self.input_shape))
        sizes = (self.pack * size, *reversed(hidden))
        judge = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        return generator, nn.Sequential(nn.Flatten(), *judge, nn.Linear(sizes[-1], 1))

    @property
    def _pictures(self) -> bool:
        return len(self.input_shape) == 3

    def forward(self, x):
        """The scores s of x and of as many drawn samples behind them, (2N / pack, 1)."""
        return ops.concat((self.scores(x), self.scores(self.draw(len(x)))), axis=0)  # batch norm sees each kind by itself

    def draw(self, count: int) -> Tensor:
        """G(z) of ``count`` draws z, in the stream "sampling"."""
        return self.generator(self._normal((count, self.latents)))

    def scores(self, x: Tensor) -> Tensor:
        """s(x), the logit of D, (N / pack, 1)."""
        self._check_shape(x, self.pack)
        if self._pictures:
            x = 2.0 * x - 1.0
        if self.noise and self.training:
            x = x + self.noise * self._normal(x.shape)
        if self.pack > 1:
            first, *rest = self.input_shape
            x = ops.reshape(x, (-1, self.pack * first, *rest))
        return self.discriminator(x)

    # ---- training

    def turns(self, step: int) -> tuple[str, ...]:
        generator = (step + 1) % self.discriminator_steps == 0
        return ("discriminator", "generator") if generator else ("discriminator",)

    def objective(self, x, y=None, player="discriminator"):
        """Of the player. What the last batch of an epoch has beyond whole packs is left out."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        self._check_shape(x, 1)
        if len(x) % self.pack and len(x) > self.pack:
            x = x[: len(x) - len(x) % self.pack]
        if player == "generator":
            return self._generator_loss(self.scores(self.draw(len(x)))), {}
        self._check_pixels(x.data)
        with no_grad():
            drawn = self.draw(len(x))
        real, fake = self.scores(x), self.scores(drawn)
        if self.loss == "wasserstein":
            loss, shown = ops.mean(fake) - ops.mean(real), (real, fake)
        else:
            loss = _bce(real, 1.0 - self.smoothing) + _bce(fake, 0.0)
            shown = (ops.sigmoid(real), ops.sigmoid(fake))
        d_real, d_fake = (ops.mean(s) for s in shown)
        return loss, {"generator_loss": self._generator_loss(fake), "d_real": d_real, "d_fake": d_fake}

    def _generator_loss(self, fake: Tensor) -> Tensor:
        if self.loss == "wasserstein":
            return -ops.mean(fake)
        return _bce(fake, 1.0) if self.loss == "non-saturating" else -_bce(fake, 0.0)

    def after_turn(self, player: str) -> None:
        if player == "discriminator" and self.loss == "wasserstein":
            for p in self.discriminator.parameters():
                p.set(xp_of(p.data).clip(p.data, -self.clip, self.clip))

    def concern(self, row):
        if self.loss != "wasserstein" and row["d_real"] > SURE * (1.0 - self.smoothing) and row["d_fake"] < 1.0 - SURE:
            return (f"the discriminator is right always: D(x) is {row['d_real']:.3f}, D(G(z)) {row['d_fake']:.3f}, so the "
                    "generator learns little. What helps: smoothing=0.1, noise=0.1, a smaller discriminator, or "
                    "loss='wasserstein'.")  # fmt: skip
        return None

    # ---- use

    def sample(self, count: int = 1, seed: int = 0) -> np.ndarray:
        """G(z) at ``count`` draws, (count, \\*input_shape), in evaluation mode; the same seed, the same samples."""
        z = seeded_latents(seed, (count, self.latents), next(self.parameters()))
        training = self.training
        self.eval()
        try:
            with no_grad():
                return self.generator(z).numpy()
        finally:
            self.train(training)

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        like = next(self.parameters()).data
        return Tensor.wrap(random.normal(random.next_key("sampling"), shape, xp_of(like)).astype(like.dtype))

    def _check_shape(self, x: Tensor, pack: int) -> None:
        if x.shape[1:] != self.input_shape or not len(x) or len(x) % pack:
            smaller = x.shape[1:] == self.input_shape and 0 < len(x) < pack
            advice = " Take a batch size that leaves no last batch smaller than a pack, or a smaller pack." if smaller else ""
            count = f"a multiple of pack = {pack}" if pack > 1 else "at least 1"
            raise ShapeError(f"{type(self).__name__}: x must have shape (N, {', '.join(map(str, self.input_shape))}), "
                             f"N {count}, got {x.shape}.{advice}")  # fmt: skip

    def _check_pixels(self, x: Any) -> None:
        if self._pictures and not (float(x.min()) >= 0.0 and float(x.max()) <= 1.0):
            raise ValueRangeError(f"{type(self).__name__}: pictures must be in 0 … 1, where the generator draws, got "
                                  f"{float(x.min()):.4g} … {float(x.max()):.4g}: divide by 255, do not normalise.")  # fmt: skip


class DCGAN(GAN):
    """A `GAN` of pictures whose layers are convolutions and transposed ones of stride 2, with batch normalisation.

    ``hidden`` = (F,): z -> transposed conv -> 2F maps H/4×W/4 -> F maps H/2×W/2 -> C×H×W, and back in the discriminator; sides
    are multiples of 4. ReLU in the generator, leaky ReLU of slope 0.2 in the discriminator; weights start from N(0, 0.02²).

    >>> import cnnlib as cl
    >>> cl.models.DCGAN(latents=8, hidden=(4,)).sample(3).shape
    (3, 1, 28, 28)
    """

    settings = GAN.settings | {"hidden": "Maps at half size; twice as many at a quarter."}
    recipe = GAN.recipe | {"epochs": 10, "batch_size": 64}

    def __init__(self, input_shape: int | Sequence[int] = (1, 28, 28), latents: int = 64, hidden: Sequence[int] = (32,),
                 loss: str = "non-saturating", smoothing: float = 0.0, noise: float = 0.0, pack: int = 1, clip: float = 0.01,
                 discriminator_steps: int = 1):  # fmt: skip
        input_shape = sample_shape("DCGAN", "input_shape", input_shape)
        if len(input_shape) != 3 or input_shape[1] % 4 or input_shape[2] % 4:
            raise ShapeError(f"DCGAN: samples must be pictures (C, H, W) whose sides are multiples of 4, got "
                             f"{input_shape}: GAN takes any.")  # fmt: skip
        check_sizes("DCGAN", "hidden", hidden, fewest=1)
        if len(hidden) != 1:
            raise ShapeError(f"DCGAN: hidden must be one number, the maps at half size, got {tuple(hidden)}.")
        super().__init__(input_shape, latents, hidden, loss, smoothing, noise, pack, clip, discriminator_steps)

    def _networks(self, hidden):
        (F,), (C, H, W) = hidden, self.input_shape
        generator = nn.Sequential(
            Unflatten((self.latents, 1, 1)),
            nn.ConvTranspose2d(self.latents, 2 * F, (H // 4, W // 4), bias=False), nn.BatchNorm2d(2 * F), nn.ReLU(),
            nn.ConvTranspose2d(2 * F, F, 4, 2, 1, bias=False), nn.BatchNorm2d(F), nn.ReLU(),
            nn.ConvTranspose2d(F, C, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip
        discriminator = nn.Sequential(
            nn.Conv2d(self.pack * C, F, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(F, 2 * F, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * F), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * F, 1, (H // 4, W // 4)), nn.Flatten(),
        )  # fmt: skip
        for network in (generator, discriminator):
            for layer in network.modules():
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                    layer.weight.set(nn.init.normal_(layer.weight.shape, 0.02))
        return generator, discriminator


def _bce(scores: Tensor, target: float) -> Tensor:
    targets = xp_of(scores.data).full_like(scores.data, target)
    return ops.binary_cross_entropy_with_logits(scores, targets)
