"""Distributions whose parameters a network can give: Normal, Bernoulli, Categorical, and the divergence between two.

    Normal       log p(x) = −½ (ln 2π + ln σ² + (x − μ)² e^(−ln σ²))        rsample: x = μ + σ ε, ε ~ N(0, 1)
    Bernoulli    log p(x) = x ln p + (1 − x) ln(1 − p) = x l − ln(1 + eˡ),   l = ln(p / (1 − p)) the logit
    Categorical  log p(c) = ln softmax(l)[c]

    KL(q ‖ p) = E_q[ln q(x) − ln p(x)]
    Normal       ½ (ln σ_p² − ln σ_q² + (σ_q² + (μ_q − μ_p)²) / σ_p² − 1)
    Bernoulli    σ(l_q) (l_q − l_p) − ln(1 + e^(l_q)) + ln(1 + e^(l_p))
    Categorical  Σ_c softmax(l_q)[c] (ln softmax(l_q)[c] − ln softmax(l_p)[c])

All are sums and products of operations, so gradients flow to the parameters. Networks give ln σ² and logits, which may be any
number, and the formulas stay with them: no logarithm of a rounded 0 is taken.

**Reparameterisation.** A draw x = μ + σ ε is a function of μ and σ, its randomness ε a constant: ∂x/∂μ = 1, ∂x/∂σ = ε. So
∇E[f(x)] = E[∇f(μ + σ ε)] can be estimated by drawing and going back through the draw. A draw of 0 or 1, or of a class, jumps
where its parameter moves it at all, and has no such derivative.

Random numbers come from the stream "sampling" (cnnlib/random.py).

Source: lecture: variational autoencoder; Kingma & Welling, "Auto-encoding variational Bayes", 2014 (reparameterisation; the
divergence in its appendix B); Bishop, "Pattern Recognition and Machine Learning", 2006, chapter 2 and section 1.6.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cnnlib import ops, random
from cnnlib.backends import xp_of
from cnnlib.errors import DtypeError, GraphError, NonFiniteError, ShapeError, ValueRangeError
from cnnlib.ops.arguments import check_integers, check_whole
from cnnlib.tensor import Tensor

LOG_2PI = math.log(2.0 * math.pi)
LARGEST_LOG_VAR = 80.0  # e^88.7 is the largest float32, e^−87.3 the smallest with all its digits


class Distribution:
    """What the three have in common. ``shape``: of one draw; ``log_prob`` broadcasts x against it."""

    shape: tuple[int, ...]

    def log_prob(self, x: Any) -> Tensor:
        """ln p(x), one number per element (per row of logits for Categorical): sum over what belongs to one sample."""
        raise NotImplementedError

    def sample(self, n: int | None = None) -> Tensor:
        """A draw, of ``shape``; ``n`` draws along a new first axis. No gradient flows through it."""
        raise NotImplementedError

    def rsample(self, n: int | None = None) -> Tensor:
        """As ``sample``, but a function of the parameters, so that gradients flow: Normal only.

        Raises GraphError for a discrete distribution.
        """
        raise GraphError(
            f"{type(self).__name__}.rsample: a draw of a discrete value has no derivative by the parameters. Use sample() "
            "where no gradient is needed; else sum over all values, weighted by their probability."
        )

    def _size(self, n: int | None) -> tuple[int, ...]:
        if n is None:
            return self.shape
        check_whole(f"{type(self).__name__}.sample", "n", n)
        return (n, *self.shape)


class Normal(Distribution):
    """N(mean, σ²), independent elements. Give ``std`` = σ > 0 or ``log_var`` = ln σ², within ±80; they broadcast with ``mean``.

    ``log_prob(x)``: x of a shape that broadcasts with ``shape``. Fields: ``mean``, ``log_var``, ``std``, ``variance``.

    >>> import cnnlib as cl
    >>> round(cl.distributions.Normal(0.0, std=1.0).log_prob(0.0).item(), 4)
    -0.9189

    Raises ValueRangeError (not one of std and log_var, std <= 0, log_var beyond ±80), NonFiniteError (NaN), ShapeError.
    """

    def __init__(self, mean: Any, *, std: Any = None, log_var: Any = None):
        if (std is None) == (log_var is None):
            raise ValueRangeError("Normal: give either std = σ or log_var = ln σ², by name.")
        self._numbers = None if any(hasattr(v, "dtype") for v in (mean, std, log_var)) else (mean, std, log_var)
        which = "std" if log_var is None else "log_var"
        mean, spread = _alike("Normal", **{"mean": mean, which: std if log_var is None else log_var})
        _check_numbers("Normal", "mean", mean)
        _check_numbers("Normal", which, spread)
        if log_var is None:
            where = _first(~(spread.data > 0.0))
            if where is not None:
                raise ValueRangeError(f"Normal: std must be above 0, but {float(spread.data[where]):g} is at position {where}. "
                                      "A network's output may be any number: give it as log_var.")  # fmt: skip
            spread = 2.0 * ops.log(spread)
        _check_log_var(spread)
        self.mean, self.log_var = mean, spread
        self.shape = _broadcast("Normal", mean=mean.shape, spread=spread.shape)

    @property
    def variance(self) -> Tensor:
        return ops.exp(self.log_var)

    @property
    def std(self) -> Tensor:
        return ops.exp(0.5 * self.log_var)

    def beside(self, x: Any) -> Normal:
        """Itself; made of plain numbers, with the dtype and on the device of x."""
        if self._numbers is None or getattr(x, "dtype", np.dtype(int)).kind != "f":
            return self
        xp = xp_of(x.data if isinstance(x, Tensor) else x)
        mean, std, log_var = (None if v is None else xp.asarray(v, dtype=x.dtype) for v in self._numbers)
        return Normal(mean, std=std, log_var=log_var)

    def log_prob(self, x: Any) -> Tensor:
        own = self.beside(x)
        x = _beside("Normal.log_prob", x, own.mean)
        _broadcast("Normal.log_prob", x=x.shape, distribution=self.shape)
        distance = (x - own.mean) ** 2 * ops.exp(-own.log_var)
        return -0.5 * (distance + own.log_var + LOG_2PI)

    def rsample(self, n: int | None = None) -> Tensor:
        xp = xp_of(self.mean.data)
        noise = random.normal(random.next_key("sampling"), self._size(n), xp).astype(self.mean.dtype)
        return self.mean + self.std * Tensor.wrap(noise)

    def sample(self, n: int | None = None) -> Tensor:
        return self.rsample(n).detach()


class Bernoulli(Distribution):
    """1 with probability σ(logits), else 0; independent elements.

    ``log_prob(x)``: x in 0 … 1, of a shape that broadcasts with ``shape``; between 0 and 1, as a grey pixel, it weighs the two
    (then Σ p(x) is not 1: the negative binary cross-entropy, not a density). Fields: ``logits``, ``mean``.

    >>> import cnnlib as cl
    >>> cl.distributions.Bernoulli(cl.Tensor([0.0, 100.0])).log_prob(cl.Tensor([1.0, 1.0])).numpy().round(4)
    array([-0.6931,  0.    ], dtype=float32)

    Raises NonFiniteError (NaN logits), ValueRangeError (x outside 0 … 1), ShapeError.
    """

    def __init__(self, logits: Any):
        (self.logits,) = _alike("Bernoulli", logits=logits)
        _check_numbers("Bernoulli", "logits", self.logits)
        self.shape = self.logits.shape

    @property
    def mean(self) -> Tensor:
        return ops.sigmoid(self.logits)

    def log_prob(self, x: Any) -> Tensor:
        x = _beside("Bernoulli.log_prob", x, self.logits)
        where = _first(~((x.data >= 0.0) & (x.data <= 1.0)))
        if where is not None:
            raise ValueRangeError(
                f"Bernoulli.log_prob: x must be in 0 … 1, but {float(x.data[where]):g} is at position {where}. Pixels: divide "
                "by 255, and do not normalise them; real values belong to Normal."
            )
        _broadcast("Bernoulli.log_prob", x=x.shape, distribution=self.shape)
        return x * self.logits - ops.softplus(self.logits)

    def sample(self, n: int | None = None) -> Tensor:
        u = random.uniform(random.next_key("sampling"), self._size(n), xp_of(self.logits.data))
        return Tensor.wrap((u < self.mean.data).astype(self.logits.dtype))


class Categorical(Distribution):
    """One of C classes, with probabilities softmax(logits) over the last axis: logits (..., C), draws and labels (...).

    ``log_prob(labels)``: integers 0 … C − 1 of exactly ``shape``. Fields: ``logits``, ``probabilities`` (..., C).

    >>> import cnnlib as cl
    >>> cl.distributions.Categorical(cl.Tensor([[0.0, 0.0]])).log_prob(cl.Tensor([1])).numpy().round(4)
    array([-0.6931], dtype=float32)

    Raises NonFiniteError (NaN logits), ShapeError, DtypeError (labels that are no integers), ValueRangeError.
    """

    def __init__(self, logits: Any):
        (self.logits,) = _alike("Categorical", logits=logits)
        if self.logits.ndim == 0 or self.logits.size == 0:
            raise ShapeError(f"Categorical: logits must have shape (..., C) with at least one class, got {self.logits.shape}.")
        _check_numbers("Categorical", "logits", self.logits)
        self.shape = self.logits.shape[:-1]

    @property
    def probabilities(self) -> Tensor:
        return ops.softmax(self.logits, axis=-1)

    def log_prob(self, labels: Any) -> Tensor:
        labels = labels.data if isinstance(labels, Tensor) else _numbers("Categorical.log_prob", "labels", labels)
        C = self.logits.shape[-1]
        check_integers("Categorical.log_prob", "labels", labels)
        if labels.shape != self.shape:
            raise ShapeError(f"Categorical.log_prob: logits have shape {self.logits.shape}, (..., C), so labels must have "
                             f"shape {self.shape}; got {labels.shape}.")  # fmt: skip
        where = _first((labels < 0) | (labels >= C))
        if where is not None:
            raise ValueRangeError(
                f"Categorical.log_prob: label {int(labels[where])} at position {where} is outside 0 … {C - 1}."
            )
        rows = ops.reshape(self.logits, (-1, C))
        return ops.reshape(-ops.cross_entropy(rows, labels.reshape(-1), reduction="none"), self.shape)

    def sample(self, n: int | None = None) -> Tensor:
        """Class numbers, int64. The class in whose part of (0, 1) a uniform number lies, the parts as long as probable."""
        xp, upto = xp_of(self.logits.data), self.probabilities.data.astype("float64").cumsum(axis=-1)
        u = random.uniform(random.next_key("sampling"), self._size(n), xp)[..., None] * upto[..., -1:]
        return Tensor.wrap((u >= upto[..., :-1]).sum(axis=-1).astype("int64"))


def kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q ‖ p) ≥ 0, 0 where they are equal, in closed form: per element, for Categorical per row. The shapes broadcast.

    >>> import cnnlib as cl
    >>> N = cl.distributions.Normal
    >>> cl.distributions.kl(N(1.0, std=1.0), N(0.0, std=1.0)).item()
    0.5

    Raises DtypeError unless both are of one kind, ShapeError.
    """
    formula = _KL.get(type(q))
    if formula is None or type(p) is not type(q):
        raise DtypeError(f"kl: q and p must be of one kind (Normal, Bernoulli or Categorical), got {type(q).__name__} and "
                         f"{type(p).__name__}. Otherwise estimate it: the mean of q.log_prob(x) - p.log_prob(x) over x from "
                         "q.sample(n).")  # fmt: skip
    _broadcast("kl", q=q.shape, p=p.shape)
    return formula(q, p)


def _kl_normal(q: Normal, p: Normal) -> Tensor:
    p, q = p.beside(q.mean), q.beside(p.mean)
    difference = q.log_var - p.log_var
    return 0.5 * (ops.exp(difference) + (q.mean - p.mean) ** 2 * ops.exp(-p.log_var) - 1.0 - difference)


def _kl_bernoulli(q: Bernoulli, p: Bernoulli) -> Tensor:
    return q.mean * (q.logits - p.logits) - ops.softplus(q.logits) + ops.softplus(p.logits)


def _kl_categorical(q: Categorical, p: Categorical) -> Tensor:
    log_q, log_p = (ops.log_softmax(d.logits, axis=-1) for d in (q, p))
    return ops.sum(ops.exp(log_q) * (log_q - log_p), axis=-1)


_KL: dict[type, Any] = {Normal: _kl_normal, Bernoulli: _kl_bernoulli, Categorical: _kl_categorical}


# ---- arguments


def _alike(op: str, **values: Any) -> tuple[Tensor, ...]:
    """Tensors of the values; numbers and lists become float, of the dtype and on the device of what else is given."""
    like = next((v.data if isinstance(v, Tensor) else v for v in values.values() if hasattr(v, "dtype")), np.float32(0))
    dtype, xp = like.dtype if like.dtype.kind == "f" else np.float32, xp_of(like)

    def tensor(name: str, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        array = _numbers(op, name, value)
        return Tensor(array if hasattr(value, "dtype") else xp.asarray(array, dtype=dtype))

    return tuple(tensor(name, value) for name, value in values.items())


def _beside(op: str, x: Any, parameter: Tensor) -> Tensor:
    """x as floats; whole numbers and lists have the parameter's dtype."""
    x, _ = _alike(op, x=x, parameter=parameter)
    return x if x.dtype.kind == "f" else Tensor.wrap(x.data.astype(parameter.dtype))


def _numbers(op: str, name: str, value: Any) -> Any:
    """An array as it is, or that of a number or of lists of numbers."""
    try:
        array = value if hasattr(value, "dtype") else np.asarray(value)
    except ValueError:  # lists that are not equally long
        array = None
    if array is None or array.dtype.kind not in "fiub":
        raise DtypeError(f"{op}: {name} must be a Tensor, an array, a number or equally long lists of numbers, got {value!r}.")
    return array


def _broadcast(op: str, **shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        came = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ShapeError(f"{op}: shapes do not broadcast: {came}. Equal, or 1, from the last axis on.") from None


def _first(wrong: Any) -> tuple[int, ...] | None:
    """The first position where ``wrong`` holds, or None."""
    if not bool(wrong.any()):
        return None
    xp = xp_of(wrong)
    return tuple(int(i[0]) for i in xp.nonzero(xp.atleast_1d(wrong)))[: wrong.ndim]


def _check_numbers(op: str, name: str, t: Tensor) -> None:
    if t.dtype.kind != "f":
        raise DtypeError(f"{op}: {name} must be float32 or float64, got {t.dtype}. Use {name}.astype('float32').")
    where = _first(~xp_of(t.data).isfinite(t.data))
    if where is not None:
        raise NonFiniteError(f"{op}: {name} is {float(t.data[where])} at position {where} of shape {t.shape}: what computed it "
                             "blew up. A smaller learning rate or clipped gradients help; cl.check_finite() finds where it "
                             "began.")  # fmt: skip


def _check_log_var(log_var: Tensor) -> None:
    where = _first(abs(log_var.data) > LARGEST_LOG_VAR)
    if where is not None:
        value = float(log_var.data[where])
        raise ValueRangeError(
            f"Normal: ln σ² is {value:.4g} at position {where}, beyond ±{LARGEST_LOG_VAR:g}: σ² = e^({value:.4g}) "
            f"{'overflows' if value > 0 else 'underflows'} float32. Limit what gives it, such as ops.clip(log_var, -10, 10), "
            "scale the data to deviation 1, or train with a smaller learning rate."
        )
