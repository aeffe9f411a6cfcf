"""The restricted Boltzmann machine: visible units v and hidden units h, connections only between the two kinds.

    p(v, h) ∝ e^(−E(v, h))          E(v, h) = −bᵀv − cᵀh − hᵀW v      (+ ½‖v‖² or ½‖h‖² for Gaussian units)
    p(h_j = 1 | v) = σ(c + W v)_j                                     Gaussian: N(c + W v, I)
    p(v_i = 1 | h) = σ(b + Wᵀh)_i                                     Gaussian: N(b + Wᵀh, I)
    F(v) = −ln Σ_h e^(−E(v, h)) = −bᵀv − Σ_j ln(1 + e^((c + Wv)_j))   Gaussian hidden units: −bᵀv − ½‖c + W v‖²

**Contrastive divergence.** The gradient of −ln p(v) is ∂F(v) minus its mean over all that the machine itself would produce.
That mean is taken at the end of k steps of Gibbs sampling, v -> h -> v, begun at the data (CD-k) or at the particles that the
batch before left (persistent CD). So ``objective`` is mean F(v₀) − mean F(v_k) with v_k held fixed, and backpropagation gives

    Δb ∝ v₀ − v_k,    Δc ∝ p(h | v₀) − p(h | v_k),    ΔW ∝ p(h | v₀) v₀ᵀ − p(h | v_k) v_kᵀ

The number itself says little (its sign may change); watch ``free_energy`` of training against held-out data: a gap that grows
is overfitting.

Source: lecture: unsupervised learning, restricted Boltzmann machine; Smolensky 1986; Hinton, "Training products of experts
by minimizing contrastive divergence", 2002; Tieleman, "Training restricted Boltzmann machines using approximations to the
likelihood gradient", 2008 (persistent CD); Welling, Rosen-Zvi & Hinton, "Exponential family harmoniums", 2005 (Gaussian
units); Hinton, "A practical guide to training restricted Boltzmann machines", 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlib import ops, random
from cnnlib.backends import kernels_for, xp_of
from cnnlib.backends.state import current
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.models.objective import ObjectiveModel
from cnnlib.nn import init
from cnnlib.op import no_grad
from cnnlib.ops.arguments import check_whole, sample_shape
from cnnlib.tensor import Parameter, Tensor

VISIBLE = {
    "binary": "0 or 1: visible='grey' takes values between them as probabilities, (x > 0.5) cuts them, and "
              "visible='gaussian' is for all other values",
    "grey": "in 0 … 1: divide 8-bit pixels by 255; visible='gaussian' is for all other values",
    "gaussian": "finite",
}  # fmt: skip
HIDDEN = ("binary", "gaussian")
MOST_HIDDEN = 16  # whose 2^H states are summed up


class RBM(ObjectiveModel):
    """x (N, …) of ``input_shape`` -> ``hidden`` units.

    input_shape  a number, or the shape of a sample, which is flattened.
    visible      "binary": 0 and 1. "grey": the same units, but the data are in 0 … 1 and stand for the probability of a 1.
                 "gaussian": any numbers, of mean 0 and deviation 1 at best.
    units        of the hidden layer, "binary" or "gaussian".
    k            steps of Gibbs sampling.
    chains       0: they begin at the data (CD-k). Above 0: persistent CD with that many particles.

    >>> import cnnlib as cl
    >>> machine = cl.models.RBM(input_shape=6, hidden=4)
    >>> loss, measured = machine.objective(cl.Tensor([[0.0, 1, 1, 0, 1, 0]]))
    >>> loss.shape, sorted(measured), machine.encode(cl.Tensor([[0.0, 1, 1, 0, 1, 0]])).shape
    ((), ['free_energy', 'mse'], (1, 4))

    Raises UnknownNameError, ValueRangeError (settings, visible data of another kind), ShapeError (samples of another size).
    """

    measures = ("mse", "free_energy")
    settings = {
        "hidden": "Number of hidden units.",
        "visible": f"One of {', '.join(VISIBLE)}: 0 and 1; probabilities of a 1; any number.",
        "units": f"Of the hidden layer: {', '.join(HIDDEN)}.",
        "k": "Steps of Gibbs sampling.",
        "chains": "Particles of persistent contrastive divergence; 0: chains begin at the data.",
    }

    def __init__(
        self,
        input_shape: int | Sequence[int] = (1, 28, 28),
        hidden: int = 256,
        visible: str = "grey",
        units: str = "binary",
        k: int = 1,
        chains: int = 0,
    ):
        super().__init__()
        for kind, name, known in (("visible units", visible, VISIBLE), ("hidden units", units, HIDDEN)):
            if name not in known:
                raise unknown_name(kind, name, known)
        if visible == units == "gaussian":
            raise ValueRangeError("RBM: visible and hidden units cannot both be Gaussian: with large weights E(v, h) has "
                                  "no minimum. Make one of them binary.")  # fmt: skip
        for setting, value, smallest in (("hidden", hidden, 1), ("k", k, 1), ("chains", chains, 0)):
            check_whole("RBM", setting, value, smallest=smallest)
        self.input_shape = sample_shape("RBM", "input_shape", input_shape)
        D = math.prod(self.input_shape)
        self.visible, self.units, self.k = visible, units, k
        self.weight = Parameter(init.normal_((hidden, D), 0.01))
        self.visible_bias = Parameter(np.zeros(D, np.float32))
        self.hidden_bias = Parameter(np.zeros(hidden, np.float32))
        self.particles: Any
        self.register_buffer("particles", (init.uniform_((chains, D), 1.0) > 0).astype(np.float32))

    # ---- the two conditional distributions: their means

    def encode(self, x: Any) -> Tensor:
        """Mean of p(h | v): (N, …) -> (N, hidden)."""
        a = ops.linear(ops.reshape(x, (len(x), -1)), self.weight, self.hidden_bias)
        return ops.sigmoid(a) if self.units == "binary" else a

    def decode(self, h: Any) -> Tensor:
        """Mean of p(v | h): (N, hidden) -> (N, D)."""
        a = ops.linear(h, ops.transpose(self.weight), self.visible_bias)
        return a if self.visible == "gaussian" else ops.sigmoid(a)

    def forward(self, x):
        """Up and down again, by means: (N, D)."""
        return self.decode(self.encode(x))

    # ---- learning

    def free_energy(self, x: Any) -> Tensor:
        """F: (N, …) -> (N,)."""
        v = ops.reshape(x, (len(x), -1))
        a = ops.linear(v, self.weight, self.hidden_bias)
        energy = -ops.sum(v * self.visible_bias, axis=1)
        energy = energy - ops.sum(ops.softplus(a) if self.units == "binary" else 0.5 * a * a, axis=1)
        return energy + ops.sum(0.5 * v * v, axis=1) if self.visible == "gaussian" else energy

    def objective(self, x: Any, y: Any = None) -> tuple[Tensor, dict[str, Any]]:
        """mean F(v₀) − mean F(v_k), whose gradient is that of (persistent) CD-k; y is not looked at.

        Measured besides: the squared error of ``forward``, and mean F(v₀). In evaluation v_k is what ``forward`` gives; nothing
        is drawn.
        """
        x = x if isinstance(x, Tensor) else Tensor(x)
        self.check(x)
        v = x.reshape(len(x), -1)
        with no_grad():
            back = self(v)
            end = Tensor(self._end_of_chains(v.data)) if self.training else back
            mse = ops.mse_loss(back, v)
        energy = ops.mean(self.free_energy(v))
        return energy - ops.mean(self.free_energy(end)), {"mse": mse, "free_energy": energy.data}

    def _end_of_chains(self, v: Any) -> Any:
        if not len(self.particles):
            return self.gibbs(v, self.k)
        self.particles = self.gibbs(self.particles, self.k)
        return self.particles

    def gibbs(self, v: Any, steps: int) -> Any:
        """v after so many steps v -> h -> v: arrays (N, D), drawn: of grey units, too, v is then 0 and 1."""
        with no_grad():
            for _ in range(steps):
                h = _draw(self.encode(v).data, self.units)
                v = _draw(self.decode(h).data, self.visible)
        return v

    def sample(self, count: int = 1, seed: int = 0, steps: int = 1000, start: Any = None) -> np.ndarray:
        """What the machine believes in, (count, *input_shape): means of p(v | h) at the end of chains of so many steps.

        They begin at ``start`` (N, …), such as data, taken in turn; else at the particles of persistent CD; else at random. The
        same seed, the same samples; other random numbers are not touched.
        """
        for name, value in (("count", count), ("steps", steps)):
            check_whole("RBM.sample", name, value)
        state = random.get_state()
        random.manual_seed(seed)
        try:
            v = self.gibbs(self._beginning(count, start), steps - 1)
            with no_grad():
                mean = self.decode(_draw(self.encode(v).data, self.units)).data
        finally:
            random.set_state(state)
        return Tensor.wrap(mean).numpy().reshape(count, *self.input_shape)

    def _beginning(self, count: int, start: Any) -> Any:
        """The v from which the chains set out, (count, D)."""
        xp, D = xp_of(self.weight.data), len(self.visible_bias)
        if start is None and not len(self.particles):
            return _draw(xp.full((count, D), 0.5, dtype=self.weight.dtype), self.visible)
        v = self.particles if start is None else xp.asarray(start, dtype=self.weight.dtype).reshape(-1, D)
        v = v[xp.arange(count) % len(v)]
        return v if self.visible == "gaussian" else _draw(v, self.visible)  # values between 0 and 1 are probabilities

    def log_likelihood(self, x: Any) -> np.ndarray:
        """ln p(v) in nats, exactly: (N, …) -> (N,) float64, by a sum over all 2^H hidden states.

        Grey v, not 0 or 1, have no probability; what comes for them is −F(v) − ln Z.

        Raises ValueRangeError for more than 16 hidden units, or Gaussian ones.
        """
        H = len(self.hidden_bias)
        if self.units != "binary" or H > MOST_HIDDEN:
            raise ValueRangeError(f"RBM.log_likelihood: sums over 2^H states of binary hidden units, H at most {MOST_HIDDEN}; "
                                  f"here are {H} {self.units} ones. Compare free energies instead.")  # fmt: skip
        W, b, c = (p.numpy().astype(np.float64) for p in (self.weight, self.visible_bias, self.hidden_bias))
        h = (np.arange(2**H)[:, None] >> np.arange(H) & 1).astype(np.float64)
        a = b + h @ W
        sums = 0.5 * (a * a + math.log(2 * math.pi)) if self.visible == "gaussian" else np.logaddexp(0, a)
        log_z = np.logaddexp.reduce(h @ c + sums.sum(axis=1))
        with no_grad():
            return -self.free_energy(x).numpy().astype(np.float64) - log_z

    def check(self, x: Tensor) -> None:
        """Refuse samples of another size, and values that the visible units do not take."""
        D = len(self.visible_bias)
        if x.ndim < 2 or math.prod(x.shape[1:]) != D:
            raise ShapeError(f"RBM: x must be (N, {', '.join(map(str, self.input_shape))}), got {x.shape}: "
                             "create it for the shape of your samples.")  # fmt: skip
        v = x.data
        xp = xp_of(v)
        fits = {"binary": lambda: (v == 0) | (v == 1), "grey": lambda: (v >= 0) & (v <= 1), "gaussian": lambda: xp.isfinite(v)}
        wrong = ~fits[self.visible]()
        if bool(wrong.any()):
            where = tuple(int(i[0]) for i in xp.nonzero(wrong))
            raise ValueRangeError(f"RBM: x has {float(v[where]):g} at {where}, but {self.visible} visible units are "
                                  f"{VISIBLE[self.visible]}.")  # fmt: skip


def _draw(mean: Any, units: str) -> Any:
    """A sample of units with this mean: 0 or 1, or N(mean, 1)."""
    key, xp = random.next_key("sampling"), xp_of(mean)
    if units == "gaussian":
        return mean + random.normal(key, mean.shape, xp).astype(mean.dtype)
    bits = xp.asarray(kernels_for(mean, current()).random_bits(key, mean.size)).reshape(mean.shape)
    return (bits < mean * 2.0**32).astype(mean.dtype)
