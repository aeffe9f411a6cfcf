"""The denoising autoencoder: it gets a corrupted input and is to give back the clean one.

    x̃ = corrupted x,   y = s(W x̃ + b),   z = σ(Wᵀ y + b′),   J = cross-entropy or squared error between x and z

| noise             | x̃_i                                                              |
|-------------------|------------------------------------------------------------------|
| `masking`         | 0 with probability ν, else x_i                                   |
| `salt_and_pepper` | 0 or 1, at the toss of a coin, with probability ν, else x_i      |
| `gaussian`        | x_i + ν ε, ε ~ N(0, 1)                                           |

Copying is of no use any more: what is missing must be told from what is left, so that even a code of more units than inputs has
to know how the inputs hang together. In evaluation nothing is corrupted.

Source: lecture: unsupervised learning, denoising autoencoders; Vincent, Larochelle, Bengio & Manzagol, "Extracting and
composing robust features with denoising autoencoders", 2008; Vincent et al., "Stacked denoising autoencoders", 2010.
"""

from __future__ import annotations

from collections.abc import Sequence

from cnnlib import nn
from cnnlib.errors import unknown_name
from cnnlib.models.autoencoder import Autoencoder
from cnnlib.tensor import Tensor

NOISES = {"masking": nn.MaskingNoise, "salt_and_pepper": nn.SaltAndPepperNoise, "gaussian": nn.GaussianNoise}


class DenoisingAutoencoder(Autoencoder):
    """An `Autoencoder` whose encoder sees noise in training; by default a layer of a stack, as Vincent et al. have it.

    noise, level  what corrupts x, and how much: ν.

    >>> import cnnlib as cl
    >>> net = cl.models.DenoisingAutoencoder(input_shape=4, sizes=(6,), noise="gaussian", level=0.1)
    >>> net.corrupted(cl.Tensor([[0.5] * 4])).shape, net.eval().corrupted(cl.Tensor([[0.5] * 4])).numpy().tolist()
    ((1, 4), [[0.5, 0.5, 0.5, 0.5]])

    Raises as `Autoencoder`, and for a level that the noise does not have.
    """

    settings = Autoencoder.settings | {"noise": f"One of {', '.join(NOISES)}.", "level": "How much noise."}

    def __init__(
        self,
        input_shape: int | Sequence[int] = (1, 28, 28),
        sizes: Sequence[int] = (500,),
        noise: str = "masking",
        level: float = 0.3,
        activation: str = "sigmoid",
        code: str = "sigmoid",
        output: str = "sigmoid",
        error: str = "cross_entropy",
        tied: bool = True,
        sparsity: float = 0.0,
    ):
        super().__init__(input_shape, sizes, activation, code, output, error, tied, sparsity)
        if noise not in NOISES:
            raise unknown_name("noise", noise, NOISES)
        self.noise = NOISES[noise](level)
        self.noise.eval()(Tensor([0.0]))  # refuses a level that it does not have, and draws nothing
        self.noise.train()

    def corrupted(self, x):
        return self.noise(x)
