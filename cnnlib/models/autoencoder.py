"""Autoencoders: networks that give back their input through a code, and so have to find out what is worth keeping.

    y = s(W x + b),   z = s(W′ y + b′)              x (N, D) -> code y (N, K) -> reconstruction z (N, D)

    squared error    J = mean (x − z)²
    cross-entropy    J = mean −x ln z − (1 − x) ln(1 − z),  x in 0 … 1, z = σ(…)
    sparsity λ       J + λ mean |y|

**Tied weights**, W′ = Wᵀ: one parameter used twice; its gradient is the sum of both, ∂J/∂W + (∂J/∂W′)ᵀ. Without s, that is
with a linear code and output, the best z is the projection of x onto the plane of its first K principal components: encoder and
decoder span PCA's subspace, though by other vectors than the components. With **K ≥ D** a plain autoencoder may learn to copy;
sparsity or noise (`DenoisingAutoencoder`) keeps it from that.

| layer        | output | parameters of 784-128-32-128-784 | of `ConvAutoencoder` (1×28×28, K = 32)            |
|--------------|--------|----------------------------------|---------------------------------------------------|
| encoder      | 128    | 100,480                          | 16 maps, 3×3, stride 2; 32 maps: 160 + 4,640      |
| code         | K = 32 | 4,128                            | 1,568 -> 32: 50,208                               |
| decoder      | 128    | 4,224                            | 32 -> 1,568: 51,744                               |
| output       | 784    | 101,136                          | transposed 4×4, stride 2: 8,208 + 257             |

Source: lecture: unsupervised learning, autoencoders; Bourlard & Kamp, "Auto-association by multilayer perceptrons and singular
value decomposition", 1988; Baldi & Hornik, "Neural networks and principal component analysis", 1989; Masci et al., "Stacked
convolutional auto-encoders", 2011.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from cnnlib import nn, ops
from cnnlib.backends import xp_of
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.models.objective import ObjectiveModel
from cnnlib.nn import init
from cnnlib.ops.arguments import check_sizes, check_whole, sample_shape
from cnnlib.tensor import Parameter, Tensor

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}
OUTPUTS = {"sigmoid": nn.Sigmoid, "identity": nn.Identity}
ERRORS = ("squared", "cross_entropy")


class Reconstruction(ObjectiveModel):
    """What all autoencoders share: reconstruction and loss. Subclasses give `encode`, and `scores`: z before ``output``.

    ``model(x)`` has the shape of a sample; ``objective`` needs no targets (`cnnlib.train.ObjectiveTrainer`).
    """

    measures = ("mse",)

    def __init__(self, input_shape: int | Sequence[int], output: str, error: str, sparsity: float = 0.0):
        super().__init__()
        if output not in OUTPUTS:
            raise unknown_name("output of an autoencoder", output, OUTPUTS)
        if error not in ERRORS:
            raise unknown_name("error of an autoencoder", error, ERRORS)
        name = type(self).__name__
        if error == "cross_entropy" and output != "sigmoid":
            raise ValueRangeError(f"{name}: error='cross_entropy' needs output='sigmoid', as z is a probability; got "
                                  f"{output!r}: for inputs that are not in 0 … 1: error='squared'.")  # fmt: skip
        if not 0 <= sparsity < math.inf:
            raise ValueRangeError(f"{name}: sparsity, the weight of mean |y|, must be a finite number >= 0, got {sparsity!r}.")
        self.input_shape = sample_shape(name, "input_shape", input_shape)
        self.error, self.sparsity = error, float(sparsity)
        self.output = OUTPUTS[output]()

    def encode(self, x: Any) -> Tensor:
        """The code of x: (N, …) -> (N, K)."""
        raise NotImplementedError

    def scores(self, y: Any) -> Tensor:
        """What ``output`` makes a reconstruction of: (N, K) -> (N, *input_shape)."""
        raise NotImplementedError

    def decode(self, y: Any) -> Tensor:
        """The reconstruction from a code: (N, K) -> (N, *input_shape)."""
        return self.output(self.scores(y))

    def corrupted(self, x: Any) -> Any:
        """What the encoder gets to see in place of x; denoising autoencoders add noise."""
        return x

    def forward(self, x):
        return self.decode(self.encode(self.corrupted(x)))

    def objective(self, x: Any, y: Any = None) -> tuple[Tensor, dict[str, Any]]:
        """J, the mean over all elements of the batch, and the squared error whatever J is. y is not looked at.

        Raises ShapeError, and ValueRangeError for x outside 0 … 1 (or NaN) where the output is a sigmoid.
        """
        x = x if isinstance(x, Tensor) else Tensor(x)
        self.check(x)
        code = self.encode(self.corrupted(x))
        scores, x = self.scores(code), x.reshape(len(x), *self.input_shape)
        mse = ops.mse_loss(self.output(scores), x)
        loss = ops.binary_cross_entropy_with_logits(scores, x) if self.error == "cross_entropy" else mse
        return (loss + self.sparsity * ops.mean(ops.absolute(code)) if self.sparsity else loss), {"mse": mse}

    def check(self, x: Tensor) -> None:
        """Refuse samples of another size, and targets that the output cannot reach."""
        name = type(self).__name__
        if x.ndim < 2 or math.prod(x.shape[1:]) != math.prod(self.input_shape):
            raise ShapeError(f"{name}: x must be (N, {', '.join(map(str, self.input_shape))}), got {x.shape}: "
                             "create it for the shape of your samples.")  # fmt: skip
        if isinstance(self.output, nn.Sigmoid):
            outside = ~((x.data >= 0) & (x.data <= 1))
            if bool(outside.any()):
                where = tuple(int(i[0]) for i in xp_of(x.data).nonzero(outside))
                raise ValueRangeError(f"{name}: x has {float(x.data[where]):g} at {where}, but its output, a sigmoid, is "
                                      "in 0 … 1: divide 8-bit pixels by 255, or use output='identity', "
                                      "error='squared'.")  # fmt: skip


class Transposed(nn.Module):
    """y = x W + b with the W (out, in) of a `Linear` layer, used the other way round: (..., out) -> (..., in)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = linear.weight
        self.bias = Parameter(init.default_bias((linear.in_features, linear.out_features), linear.in_features))

    def forward(self, x):
        return ops.linear(x, ops.transpose(self.weight), self.bias)

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        return math.prod(x_shape[1:]) * y_shape[-1]


class Autoencoder(Reconstruction):
    """Fully connected: ``input_shape`` -> ``sizes``, the last of them the code, and back through the same sizes.

    input_shape  a number, or the shape of a sample, which is flattened; a reconstruction has it again.
    activation   of the layers between; ``code``: of the code. "relu", "sigmoid", "tanh" or "identity".
    output       "sigmoid" for x in 0 … 1, "identity" for any x.
    error        "squared" or "cross_entropy".
    tied         the decoder uses the encoder's weights, transposed.
    sparsity     λ.

    >>> import cnnlib as cl
    >>> net = cl.models.Autoencoder(input_shape=(1, 8, 8), sizes=(32, 2))
    >>> x = cl.Tensor([[0.5] * 64])
    >>> net.encode(x).shape, net(x).shape
    ((1, 2), (1, 1, 8, 8))

    Raises UnknownNameError, ValueRangeError (settings); `objective` ShapeError and ValueRangeError (data).
    """

    settings = {
        "sizes": "Hidden layers of the encoder, the last of them the code; the decoder has them in reverse.",
        "activation": f"Of the hidden layers: {', '.join(ACTIVATIONS)}.",
        "code": "Of the code: the same.",
        "output": "sigmoid, for samples in 0 … 1; identity for others.",
        "error": f"One of {', '.join(ERRORS)}.",
        "tied": "The decoder uses the encoder's weights, transposed.",
        "sparsity": "Weight of mean |code|.",
    }

    def __init__(
        self,
        input_shape: int | Sequence[int] = (1, 28, 28),
        sizes: Sequence[int] = (128, 32),
        activation: str = "relu",
        code: str = "identity",
        output: str = "sigmoid",
        error: str = "squared",
        tied: bool = False,
        sparsity: float = 0.0,
    ):
        super().__init__(input_shape, output, error, sparsity)
        for name in (activation, code):
            if name not in ACTIVATIONS:
                raise unknown_name("activation", name, ACTIVATIONS)
        check_sizes(type(self).__name__, "sizes", sizes)
        if not sizes:
            raise ValueRangeError(f"{type(self).__name__}: sizes must name at least the size of the code, got none.")
        pairs = list(itertools.pairwise((math.prod(self.input_shape), *sizes)))
        linear = [nn.Linear(before, after) for before, after in pairs]
        back = [Transposed(layer) if tied else nn.Linear(layer.out_features, layer.in_features) for layer in reversed(linear)]
        self.encoder = _between(linear, activation)
        self.decoder = _between(back, activation)
        self.code = ACTIVATIONS[code]()

    def encode(self, x):
        return self.code(self.encoder(ops.reshape(x, (len(x), -1))))

    def scores(self, y):
        return ops.reshape(self.decoder(y), (len(y), *self.input_shape))


def _between(layers: Sequence[nn.Module], activation: str) -> nn.Sequential:
    """The layers, with the activation between each two."""
    parts: list[nn.Module] = [layers[0]]
    for layer in layers[1:]:
        parts += [ACTIVATIONS[activation](), layer]
    return nn.Sequential(*parts)


class ConvAutoencoder(Reconstruction):
    """Convolutions of stride 2 down to a quarter of the side, a linear code, and transposed convolutions back up.

    ``maps``: of both convolutions. ``code``: K. Sides of pictures are multiples of 4.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.ConvAutoencoder((1, 8, 8), maps=(4, 8), code=3)
    >>> x = np.zeros((2, 1, 8, 8), np.float32)
    >>> net.encode(x).shape, net(x).shape
    ((2, 3), (2, 1, 8, 8))

    Raises as :class:`Autoencoder`.
    """

    settings = {
        "maps": "Of the first and of the second convolution.",
        "code": "Size of the code.",
        "output": Autoencoder.settings["output"],
        "error": Autoencoder.settings["error"],
    }

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        maps: Sequence[int] = (16, 32),
        code: int = 32,
        output: str = "sigmoid",
        error: str = "squared",
    ):
        super().__init__(input_shape, output, error)
        check_whole("ConvAutoencoder", "code", code)
        if len(self.input_shape) != 3 or self.input_shape[1] % 4 or self.input_shape[2] % 4:
            raise ShapeError(f"ConvAutoencoder: samples must be pictures (C, H, W) whose sides, halved twice, are "
                             f"multiples of 4; got {self.input_shape}: Autoencoder takes any.")  # fmt: skip
        check_sizes("ConvAutoencoder", "maps", maps, fewest=2)
        if len(maps) > 2:
            raise ValueRangeError(f"ConvAutoencoder: maps must be two numbers, one for each convolution, got {tuple(maps)}.")
        C, H, W = self.input_shape
        (first, second), features = maps, maps[1] * (H // 4) * (W // 4)
        self.encoder = nn.Sequential(
            nn.Conv2d(C, first, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(features, code),
        )  # fmt: skip
        self.expand = nn.Linear(code, features)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(second, first, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(first, C, 4, stride=2, padding=1),
        )  # fmt: skip
        self.smallest_maps = (second, H // 4, W // 4)

    def encode(self, x):
        return self.encoder(ops.reshape(x, (len(x), *self.input_shape)))

    def scores(self, y):
        return self.decoder(ops.reshape(ops.relu(self.expand(y)), (len(y), *self.smallest_maps)))
