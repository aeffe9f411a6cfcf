"""Deep probabilistic models: a network gives the parameters of a distribution of y, and learns by maximum likelihood.

| model                                     | y given x                    | loss per sample, −ln p(y|x)                     |
|-------------------------------------------|------------------------------|-------------------------------------------------|
| `GaussianRegression(noise="fixed")`       | N(NN(x), 1/β), β given       | β/2 ‖y − NN(x)‖² + const: least squares         |
| `GaussianRegression(noise="learnt")`      | N(NN(x), 1/β), β learnt      | the same, with −½ ln β                          |
| `GaussianRegression(noise="input")`       | N(NN_μ(x), NN_σ²(x))         | ½ (ln σ² + (y − μ)²/σ²) + const                 |
| `BernoulliClassifier`                     | Bernoulli(σ(NN(x)))          | binary cross-entropy                            |
| `CategoricalClassifier`                   | Categorical(softmax(NN(x)))  | cross-entropy                                   |

So the usual losses are likelihoods. With learnt β the likelihood is largest where 1/β is the mean squared error. With noise
that depends on x ("heteroscedastic") the network may say where it cannot know better, and errors there weigh less. All give
ln σ², which may be any number.

**MAP is weight decay.** With the prior w ~ N(0, τ²) on every parameter, the most probable ones given N samples minimise

    −1/N ln p(w | data) = 1/N Σ −ln p(y_n | x_n, w) + 1/(2 N τ²) ‖w‖² + const

which is the loss with weight decay λ = 1/(N τ²), `weight_decay_of`. What it leaves out is how many other w are nearly as
probable: cnnlib.models.bayes_by_backprop, mc_dropout and sgld.

Source: lecture: deep probabilistic models; Nix & Weigend, "Estimating the mean and variance of the target probability
distribution", 1994; Bishop, "Pattern Recognition and Machine Learning", 2006, sections 3.1 and 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cnnlib import nn, ops
from cnnlib.distributions import Bernoulli, Categorical, Distribution, Normal
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.models.mlp import MLP
from cnnlib.models.objective import ObjectiveModel
from cnnlib.models.predictive import Predictive
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_sizes, check_whole, sample_shape
from cnnlib.tensor import Parameter, Tensor, to_device

if TYPE_CHECKING:
    from cnnlib.data import Dataset

NOISE = ("fixed", "learnt", "input")
HIDDEN = "Units of each hidden layer."


class Regression(ObjectiveModel):
    """What regressions with a distribution of y have in common: x (N, ...), y (N, K) of about unit deviation.

    Subclasses say ``loss(outputs, y)``, of what ``forward`` returned, and ``predictive(x, samples)``.
    """

    targets = "numbers"
    measures: ClassVar[tuple[str, ...]] = ("squared_error",)
    recipe: ClassVar[dict[str, Any]] = {"epochs": 200, "batch_size": 32, "optimizer": "adam", "lr": 1e-2}

    def loss(self, outputs: Any, y: Any) -> Tensor:
        """−ln p(y | x), the sum over the outputs, the mean over the samples."""
        raise NotImplementedError(f"{type(self).__name__} needs a method loss(self, outputs, y).")

    def predictive(self, x: Any, samples: int = 100) -> Predictive:
        """What y is at x: ``mean, epistemic, aleatoric``, arrays (N, K)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method predictive(self, x, samples).")

    def objective(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Any]]:
        """The loss, and the squared error of the mean."""
        outputs = self(x)
        return self.loss(outputs, y), {"squared_error": ((self.mean(outputs) - as_array(y)) ** 2).mean()}

    def mean(self, outputs: Any) -> Any:
        """E[y | x], an array (N, K)."""
        return outputs[0].data

    @staticmethod
    def options_from(train: Dataset) -> dict[str, Any]:
        return {"input_shape": list(train.x.shape[1:]), "out_features": train.y.shape[1]}


class GaussianRegression(Regression):
    """x (N, ...) -> mean (N, K), log_var (N, K) or (K,): y ~ N(mean, e^log_var).

    ``noise``: "fixed" or "learnt": one β for each output, ``beta`` at the start; "input": a second output of the network.
    ``hidden``: () for a linear model.

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.GaussianRegression(3, hidden=(8,), noise="input")
    >>> mean, log_var = outputs = net(cl.Tensor(np.zeros((5, 3), np.float32)))
    >>> mean.shape, log_var.shape, net.loss(outputs, cl.Tensor(np.zeros((5, 1), np.float32))).shape
    ((5, 1), (5, 1), ())

    Raises UnknownNameError (noise), ValueRangeError (beta; in ``loss``: ln σ² beyond ±80), ShapeError (y).
    """

    settings: ClassVar[dict[str, str]] = {
        "hidden": HIDDEN,
        "noise": "fixed, learnt, or input: it depends on x.",
        "beta": "1/σ², at the start.",
        "activation": "tanh, relu or sigmoid.",
    }

    def __init__(
        self,
        input_shape: int | Sequence[int] = 1,
        hidden: Sequence[int] = (50,),
        out_features: int = 1,
        noise: str = "learnt",
        beta: float = 1.0,
        activation: str = "tanh",
    ):
        super().__init__()
        self.input_shape = sample_shape(type(self).__name__, "input_shape", input_shape)
        check_sizes(type(self).__name__, "hidden", hidden)
        if noise not in NOISE:
            raise unknown_name(f"noise of {type(self).__name__}", noise, NOISE)
        if not 0.0 < beta < math.inf:
            raise ValueRangeError(f"{type(self).__name__}: beta = 1/σ² must be a finite number above 0, got {beta}.")
        self.out_features, self.noise = out_features, noise
        self.start = -math.log(beta)
        outputs = 2 * out_features if noise == "input" else out_features
        self.network = self.build_network((math.prod(self.input_shape), *hidden, outputs), activation)
        if noise != "input":
            self.log_var = Parameter([self.start] * out_features, requires_grad=noise == "learnt")

    def build_network(self, sizes: tuple[int, ...], activation: str) -> nn.Module:
        """The network from x to the outputs; the Bayesian ones have another."""
        return MLP(self.input_shape, sizes[1:-1], sizes[-1], activation)

    def forward(self, x):
        y = self.network(x)
        if self.noise != "input":
            return y, self.log_var
        mean, log_var = ops.split(y, [self.out_features, self.out_features], axis=1)
        return mean, log_var + self.start

    def distribution(self, outputs: tuple[Tensor, Tensor]) -> Normal:
        """Of y, given what ``forward`` returned."""
        return Normal(outputs[0], log_var=outputs[1])

    def loss(self, outputs: tuple[Tensor, Tensor], y: Any) -> Tensor:
        return negative_log_likelihood(self, outputs[0], self.distribution(outputs), y)

    def draws(self, x: Tensor, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs of networks that are likely, given the data: here of the only one that it knows."""
        yield self(x)

    def predictive(self, x: Any, samples: int = 100) -> Predictive:
        """What y is at x (N, D): ``mean, epistemic, aleatoric``, arrays (N, K), from ``samples`` draws of the weights.

        Without a distribution of the weights, as here, epistemic is 0.
        """
        x = x if isinstance(x, Tensor) else Tensor(x)
        check_whole("predictive", "samples", samples)
        with no_grad():
            return Predictive.of((to_device(m.data, "cpu"), to_device(s.data, "cpu")) for m, s in self.draws(x, samples))


class BernoulliClassifier(ObjectiveModel):
    """x (N, ...) -> logits (N, K): each of the K outputs is 1 with probability σ(logit), independent of the others.

    y (N, K) in 0 … 1; for one output (N,), such as the labels of two classes, will do.

    >>> import cnnlib as cl
    >>> net = cl.models.BernoulliClassifier(2, hidden=(4,))
    >>> net.distribution(net(cl.Tensor([[0.0, 1.0]]))).mean.shape
    (1, 1)

    Raises ValueRangeError (in ``loss``: y outside 0 … 1), ShapeError (y).
    """

    targets = "two classes"
    measures: ClassVar[tuple[str, ...]] = ("accuracy",)
    settings: ClassVar[dict[str, str]] = {"hidden": HIDDEN, "activation": "tanh, relu or sigmoid."}

    def __init__(self, input_shape: int | Sequence[int] = 1, hidden: Sequence[int] = (50,), out_features: int = 1,
                 activation: str = "tanh"):  # fmt: skip
        super().__init__()
        self.network = MLP(input_shape, hidden, out_features, activation)
        self.input_shape = self.network.input_shape

    def forward(self, x):
        return self.network(x)

    def distribution(self, outputs: Tensor) -> Bernoulli:
        return Bernoulli(outputs)

    def loss(self, outputs: Tensor, y: Any) -> Tensor:
        """−ln p(y | x), the sum over the outputs, the mean over the samples."""
        y = y.reshape(-1, 1) if outputs.shape[1] == 1 and getattr(y, "ndim", 0) == 1 else y
        return negative_log_likelihood(self, outputs, self.distribution(outputs), y)

    def objective(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Any]]:
        outputs = self(x)
        loss, y = self.loss(outputs, y), as_array(y).reshape(outputs.shape)
        return loss, {"accuracy": ((outputs.data > 0.0) == (y > 0.5)).mean()}


class CategoricalClassifier(ObjectiveModel):
    """x (N, ...) -> logits (N, C): y is class c with probability softmax(logits)[c]. The MLP, as a probabilistic model.

    >>> import cnnlib as cl
    >>> net = cl.models.CategoricalClassifier(2, hidden=(4,), num_classes=3)
    >>> net.distribution(net(cl.Tensor([[0.0, 1.0]]))).probabilities.shape
    (1, 3)
    """

    targets = "classes"
    measures: ClassVar[tuple[str, ...]] = ("accuracy",)
    settings: ClassVar[dict[str, str]] = {"hidden": HIDDEN, "activation": "tanh, relu or sigmoid."}

    def __init__(self, input_shape: int | Sequence[int] = 1, hidden: Sequence[int] = (50,), num_classes: int = 2,
                 activation: str = "tanh"):  # fmt: skip
        super().__init__()
        self.network = MLP(input_shape, hidden, num_classes, activation)
        self.input_shape = self.network.input_shape

    def forward(self, x):
        return self.network(x)

    def distribution(self, outputs: Tensor) -> Categorical:
        return Categorical(outputs)

    def loss(self, outputs: Tensor, y: Any) -> Tensor:
        """−ln p(y | x), the mean over the samples; y (N,) int64."""
        return -self.distribution(outputs).log_prob(y).mean()

    def objective(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Any]]:
        outputs = self(x)
        return self.loss(outputs, y), {"accuracy": (outputs.data.argmax(axis=1) == as_array(y)).mean()}

    @staticmethod
    def options_from(train: Dataset) -> dict[str, Any]:
        return {"input_shape": list(train.x.shape[1:]), "num_classes": len(train.classes)}


def log_prior(model: nn.Module, std: float) -> Tensor:
    """Σ ln N(w; 0, std²) over all trainable parameters of ``model``.

    ``loss − log_prior(model, std) / N`` is what MAP minimises; its gradient is the loss's with weight decay 1 / (N std²).
    """
    total: Any = 0.0
    for p in model.parameters():
        if p.requires_grad:
            total = total + Normal(0.0, std=std).log_prob(p).sum()
    return total


def weight_decay_of(std: float, n: int) -> float:
    """λ = 1 / (n std²): the weight decay of an optimiser that is the prior N(0, std²), for a loss that is a mean of n.

    >>> weight_decay_of(std=0.5, n=100)
    0.04
    """
    if not 0.0 < std < math.inf:
        raise ValueRangeError(f"weight_decay_of: std, of the prior N(0, std²), must be a finite number above 0, got {std}.")
    check_whole("weight_decay_of", "n", n)
    return 1.0 / (n * std * std)


def negative_log_likelihood(model: nn.Module, outputs: Tensor, distribution: Distribution, y: Any) -> Tensor:
    """The sum over the outputs, the mean over the samples."""
    check_targets(type(model).__name__, outputs, y)
    return -distribution.log_prob(y).sum() / len(y)


def as_array(y: Any) -> Any:
    return y.data if isinstance(y, Tensor) else y


def check_targets(name: str, mean: Tensor, y: Any) -> None:
    """(N,) against (N, 1) would broadcast to (N, N)."""
    came = tuple(y.shape) if hasattr(y, "shape") else type(y).__name__
    if came != mean.shape:
        raise ShapeError(f"{name}.loss: y must be an array of the shape of the network's output, {mean.shape}, got {came}. "
                         "One number per sample: y.reshape(-1, 1).")  # fmt: skip
