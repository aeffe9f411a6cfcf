"""Optimisers: how parameters w follow their gradients g = ∂J/∂w downhill. Learning-rate schedules and gradient clipping.

Formulas of one step, with learning rate η; weight decay λ adds λ w to g first (the derivative of λ/2 ‖w‖²)::

    SGD        w ← w − η g
    momentum   v ← μ v + (1 − dampening) g (the first v is g itself);  w ← w − η v;  Nesterov: w ← w − η (g + μ v)
    Adagrad    G ← G + g²;                        w ← w − η / (1 + (t − 1) lr_decay) · g / (√G + ε)
    RMSprop    G ← α G + (1 − α) g²;              w ← w − η g / (√G + ε);  centered: √(G − ḡ²), ḡ the same mean of g
    Adam       m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← w − η m̂ / (√v̂ + ε)
               m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ) undo the bias of starting at 0
    AdamW      the same, but with w ← (1 − η λ) w in place of λ w in g
    SGLD       w ← w − η g + √(2 η / N) ε, ε ~ N(0, 1): draws from exp(−N J(w)) instead of a minimum

ε stands outside the root, as in PyTorch; the lecture's Adagrad has √(G + ε). All updates equal PyTorch's.

Source: lecture: optimisation; Polyak 1964 (momentum); Nesterov 1983 and Sutskever et al. 2013; Duchi, Hazan & Singer,
"Adaptive subgradient methods", 2011 (Adagrad); Tieleman & Hinton, lecture 6.5, 2012 (RMSprop); Kingma & Ba, "Adam", 2015;
Loshchilov & Hutter, "Decoupled weight decay regularization", 2019 (AdamW) and "SGDR", 2017 (cosine); Pascanu, Mikolov &
Bengio, "On the difficulty of training recurrent neural networks", 2013 (clipping); Welling & Teh, "Bayesian learning via
stochastic gradient Langevin dynamics", 2011 (SGLD).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

from cnnlib.backends import kernel, kernels_for, readable, xp_of
from cnnlib.backends.state import current
from cnnlib.errors import CheckpointError, DtypeError, NonFiniteError, ShapeError, ValueRangeError
from cnnlib.random import next_key, normal
from cnnlib.tensor import Parameter, Tensor, to_device

# ---- the textbook. These kernels write to w and to their state, in place.


@kernel
def sgd_step(w, dw, velocity, lr, momentum, dampening, weight_decay, nesterov):
    g = dw + weight_decay * w if weight_decay else dw
    if velocity is not None:
        velocity *= momentum
        velocity += (1.0 - dampening) * g
        g = g + momentum * velocity if nesterov else velocity
    w -= lr * g


@kernel
def adagrad_step(w, dw, square_sum, lr, eps, weight_decay):
    g = dw + weight_decay * w if weight_decay else dw
    square_sum += g * g
    w -= lr * g / (xp_of(w).sqrt(square_sum) + eps)


@kernel
def rmsprop_step(w, dw, square_avg, grad_avg, velocity, lr, alpha, eps, weight_decay, momentum):
    xp = xp_of(w)
    g = dw + weight_decay * w if weight_decay else dw
    square_avg *= alpha
    square_avg += (1.0 - alpha) * (g * g)
    variance = square_avg
    if grad_avg is not None:
        grad_avg *= alpha
        grad_avg += (1.0 - alpha) * g
        variance = xp.maximum(square_avg - grad_avg * grad_avg, 0.0)  # rounding may leave a negative rest
    g = g / (xp.sqrt(variance) + eps)
    if velocity is not None:
        velocity *= momentum
        velocity += g
        g = velocity
    w -= lr * g


@kernel
def adam_step(w, dw, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    if weight_decay and decoupled:
        w *= 1.0 - lr * weight_decay
    g = dw + weight_decay * w if weight_decay and not decoupled else dw
    m *= beta1
    m += (1.0 - beta1) * g
    v *= beta2
    v += (1.0 - beta2) * (g * g)
    m_hat = m / (1.0 - beta1**step)
    v_hat = v / (1.0 - beta2**step)
    w -= lr * m_hat / (xp_of(w).sqrt(v_hat) + eps)


# ---- the optimisers


class Optimizer:
    """Base: holds the parameters, their state arrays and the settings. Subclasses name both and call their kernel.

    ``state[i]`` holds the arrays of parameter i by name, and the number of its steps; they appear at its first step.
    """

    settings: tuple[str, ...] = ()  # attributes that state_dict keeps
    recordable = True  # update() only calls its kernel: then a CUDA graph can replay it
    lr: float

    def __init__(self, params: Iterable[Parameter], lr: float, weight_decay: float = 0.0):
        name = type(self).__name__
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise DtypeError(
                f"{name}: params must be an iterable of Parameters, got {type(params).__name__}. Use model.parameters()."
            )
        self.params: list[Parameter] = []
        seen: set[int] = set()
        for i, p in enumerate(params):
            if not isinstance(p, Parameter):
                raise DtypeError(f"{name}: params[{i}] must be a Parameter, got {type(p).__name__}. Use model.parameters().")
            if id(p) not in seen:
                seen.add(id(p))
                self.params.append(p)
        if not self.params:
            raise ValueRangeError(f"{name}: params is empty: nothing to optimise. Was an iterator used up before?")
        self.lr, self.weight_decay = float(lr), float(weight_decay)
        self.state: list[dict[str, Any]] = [{} for _ in self.params]
        self._check("lr", self.lr >= 0.0, "be >= 0")
        self._check("weight_decay", self.weight_decay >= 0.0, "be >= 0")

    def _check(self, setting: str, fits: bool, rule: str) -> None:
        value = getattr(self, setting)
        if not fits or not math.isfinite(value):
            raise ValueRangeError(f"{type(self).__name__}: {setting} must {rule} and finite, got {value}.")

    def new_state(self, p: Parameter) -> dict[str, Any]:
        """The arrays that a parameter's first step starts from."""
        return {}

    def update(self, kernels: Any, w: Any, dw: Any, state: dict[str, Any]) -> None:
        """One step of one parameter, by the kernel."""
        raise NotImplementedError

    def step(self) -> None:
        """Update every parameter that has a gradient, in place, and raise its version. Parameters without are left alone."""
        scene = current()
        kernels, place = None, None
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            if type(p.data) is not place:
                kernels, place = kernels_for(p.data, scene), type(p.data)
            dw = self._gradient(i, p)
            state = self.state[i]
            if not state:
                state.update(step=0, **self.new_state(p))
            elif self._moved(p, state):
                state.update({name: to_device(a, p.device).astype(p.dtype) for name, a in state.items() if name != "step"})
            state["step"] += 1
            self.update(kernels, p.data, dw, state)
            p.version += 1

    @staticmethod
    def _moved(p: Parameter, state: dict[str, Any]) -> bool:
        """Whether ``Module.to`` gave the parameter another dtype or device after its state was made."""
        w = p.data
        for name, a in state.items():
            if name != "step" and (type(a) is not type(w) or a.dtype != w.dtype):
                return True
        return False

    def _gradient(self, i: int, p: Parameter) -> Any:
        dw = p.grad
        if dw.shape != p.data.shape or dw.dtype != p.data.dtype:
            raise ShapeError(
                f"{type(self).__name__}.step: the gradient of parameter {p.name or i!r} must have its shape {p.data.shape} and "
                f"dtype {p.data.dtype}, got {dw.shape} {dw.dtype}."
            )
        return readable(dw)

    def zero_grad(self) -> None:
        """Forget all gradients: backward adds to what is there."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Settings as numbers (``"lr"``) and copies of the state on the CPU (``"0.velocity"``, ``"0.step"``), in one flat dict.

        The number is the parameter's place in the optimiser. A run that loads this goes on bit for bit as it would have.
        """
        flat: dict[str, Any] = {name: getattr(self, name) for name in ("lr", "weight_decay", *self.settings)}
        for i, state in enumerate(self.state):
            for name, value in state.items():
                flat[f"{i}.{name}"] = to_device(value, "cpu").copy() if hasattr(value, "dtype") else value
        return flat

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave. All or nothing; numbers may come as arrays of one element.

        Raises CheckpointError when a key or a shape does not fit this optimiser and its parameters.
        """
        names = ("lr", "weight_decay", *self.settings)
        before = {name: getattr(self, name) for name in names}
        problems = [f"{name} is missing" for name in names if name not in state]
        for name in names:  # first: momentum and the like decide which arrays there are
            if name in state:
                setattr(self, name, type(before[name])(state[name]))
        loaded: list[dict[str, Any]] = [{} for _ in self.params]
        for key in state.keys() - set(names):
            index, _, slot = key.partition(".")
            if index.isdigit() and int(index) < len(self.params):
                loaded[int(index)][slot] = state[key]
            else:
                problems.append(f"{key} belongs to no parameter: there are {len(self.params)}")
        for i, slots in enumerate(loaded):
            problems += self._take_over(i, slots) if slots else []
        if problems:
            for name, value in before.items():
                setattr(self, name, value)
            what = f"{type(self).__name__}.load_state_dict: the state does not fit."
            raise CheckpointError("\n  ".join([what, *sorted(problems)]))
        self.state = loaded

    def _take_over(self, i: int, slots: dict[str, Any]) -> list[str]:
        """Bring the loaded state of parameter i to its device and dtype; returns what does not fit."""
        p = self.params[i]
        expected = self.new_state(p)
        if slots.keys() != {"step", *expected}:
            return [f"parameter {i} has {', '.join(sorted(slots))}, expected {', '.join(sorted({'step', *expected}))}"]
        problems = []
        for slot, start in expected.items():
            if slots[slot].shape == start.shape:
                slots[slot] = xp_of(p.data).array(slots[slot], dtype=p.data.dtype)
            else:
                problems.append(f"{i}.{slot} has shape {slots[slot].shape}, parameter {p.name or i!r} has {start.shape}")
        slots["step"] = int(slots["step"])
        return problems

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name):g}" for name in ("lr", "weight_decay", *self.settings))
        return f"{type(self).__name__}({len(self.params)} parameters, {settings})"


def _zeros(p: Parameter) -> Any:
    return xp_of(p.data).zeros_like(p.data)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum or Nesterov's look-ahead.

    >>> import cnnlib as cl
    >>> w = cl.Parameter([1.0])
    >>> (w * w).sum().backward()
    >>> cl.optim.SGD([w], lr=0.1).step()
    >>> w.data
    array([0.8], dtype=float32)
    """

    settings = ("momentum", "dampening", "nesterov")

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(params, lr, weight_decay)
        self.momentum, self.dampening, self.nesterov = float(momentum), float(dampening), bool(nesterov)
        self._check("momentum", self.momentum >= 0.0, "be >= 0")
        self._check("dampening", 0.0 <= self.dampening <= 1.0, "be in 0 … 1")
        if nesterov and (not momentum or dampening):
            raise ValueRangeError(
                f"SGD: nesterov needs momentum > 0 and dampening 0, got momentum {momentum}, dampening {dampening}."
            )

    def new_state(self, p):
        return {"velocity": _zeros(p)} if self.momentum else {}

    def update(self, kernels, w, dw, state):
        dampening = self.dampening if state["step"] > 1 else 0.0  # the first velocity is the gradient
        velocity = state.get("velocity")
        kernels.sgd_step(w, dw, velocity, self.lr, self.momentum, dampening, self.weight_decay, self.nesterov)


class Adagrad(Optimizer):
    """Divides by the root of the sum of all squared gradients: rare features keep a large step."""

    settings = ("lr_decay", "initial_accumulator_value", "eps")

    def __init__(self, params, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
        super().__init__(params, lr, weight_decay)
        self.lr_decay, self.eps = float(lr_decay), float(eps)
        self.initial_accumulator_value = float(initial_accumulator_value)
        for setting in self.settings:
            self._check(setting, getattr(self, setting) >= 0.0, "be >= 0")

    def new_state(self, p):
        return {"square_sum": xp_of(p.data).full_like(p.data, self.initial_accumulator_value)}

    def update(self, kernels, w, dw, state):
        lr = self.lr / (1.0 + (state["step"] - 1) * self.lr_decay)
        kernels.adagrad_step(w, dw, state["square_sum"], lr, self.eps, self.weight_decay)


class RMSprop(Optimizer):
    """Divides by the root of a running mean of squared gradients, so that the step does not die away as in Adagrad."""

    settings = ("alpha", "eps", "momentum", "centered")

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
        super().__init__(params, lr, weight_decay)
        self.alpha, self.eps, self.momentum, self.centered = float(alpha), float(eps), float(momentum), bool(centered)
        self._check("alpha", 0.0 <= self.alpha < 1.0, "be in 0 <= alpha < 1")
        self._check("eps", self.eps >= 0.0, "be >= 0")
        self._check("momentum", self.momentum >= 0.0, "be >= 0")

    def new_state(self, p):
        state = {"square_avg": _zeros(p)}
        if self.centered:
            state["grad_avg"] = _zeros(p)
        if self.momentum:
            state["velocity"] = _zeros(p)
        return state

    def update(self, kernels, w, dw, state):
        arrays = state["square_avg"], state.get("grad_avg"), state.get("velocity")
        kernels.rmsprop_step(w, dw, *arrays, self.lr, self.alpha, self.eps, self.weight_decay, self.momentum)


class Adam(Optimizer):
    """Running means of the gradient and of its square, both freed from the bias of their start.

    >>> import cnnlib as cl
    >>> w = cl.Parameter([1.0])
    >>> (w * w).sum().backward()
    >>> cl.optim.Adam([w], lr=0.1).step()  # the first step has length lr, whatever the gradient's
    >>> w.data
    array([0.9], dtype=float32)
    """

    settings = ("beta1", "beta2", "eps")
    decoupled = False

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, weight_decay)
        self.beta1, self.beta2, self.eps = float(betas[0]), float(betas[1]), float(eps)
        self._check("beta1", 0.0 <= self.beta1 < 1.0, "be in 0 <= beta < 1")
        self._check("beta2", 0.0 <= self.beta2 < 1.0, "be in 0 <= beta < 1")
        self._check("eps", self.eps >= 0.0, "be >= 0")

    def new_state(self, p):
        return {"m": _zeros(p), "v": _zeros(p)}

    def update(self, kernels, w, dw, state):
        m, v, t = state["m"], state["v"], state["step"]
        kernels.adam_step(w, dw, m, v, t, self.lr, self.beta1, self.beta2, self.eps, self.weight_decay, self.decoupled)


class AdamW(Adam):
    """Adam whose weight decay shrinks w directly, instead of passing through the running means."""

    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)


class SGLD(Optimizer):
    """Langevin dynamics: the weights wander, and are at w as often as exp(−N · loss(w)) is large (cnnlib/models/sgld.py).

    ``data_size``: N, the number of samples that the loss is a mean of, and the divisor of the prior in it.

    >>> import cnnlib as cl
    >>> w = cl.Parameter([0.0] * 10_000)
    >>> sgld = cl.optim.SGLD([w], lr=0.1, data_size=4)
    >>> for _ in range(100):
    ...     w.grad = w.data.copy()  # of w²/2: the weights become draws from exp(−4 w²/2), of deviation ½
    ...     sgld.step()
    >>> round(float(w.data.std()), 1)
    0.5
    """

    settings = ("data_size",)
    recordable = False

    def __init__(self, params, lr=1e-4, data_size=1, weight_decay=0.0):
        super().__init__(params, lr, weight_decay)
        self.data_size = int(data_size)
        self._check("data_size", self.data_size >= 1, "be >= 1")

    def update(self, kernels, w, dw, state):
        kernels.sgd_step(w, dw, None, self.lr, 0.0, 0.0, self.weight_decay, False)
        noise = normal(next_key("sampling"), w.shape, xp_of(w)).astype(w.dtype)
        w += math.sqrt(2.0 * self.lr / self.data_size) * noise


def check_parameters(model: Any, optimizer: Optimizer) -> list[str]:
    """Warn when ``optimizer`` misses trainable parameters of ``model``; returns their names."""
    held = {id(p) for p in optimizer.params}
    missed = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if missed:
        who, what = type(optimizer).__name__, type(model).__name__
        warnings.warn(
            f"{who} misses {len(missed)} trainable parameters of {what}: {', '.join(missed)}. They will not learn. "
            "Build it with model.parameters(), after the model is complete, or set requires_grad = False.",
            stacklevel=2,
        )
    return missed


# ---- clipping: gradients are replaced, not written to


def clip_grad_norm_(params: Iterable[Parameter], max_norm: float, error_if_nonfinite: bool = False) -> Any:
    """Scale all gradients by max_norm / ‖g‖ where the norm of all of them together is larger. Returns ‖g‖ from before.

    On a GPU nothing waits for it: ‖g‖ is an array of no dimension there, read with ``float()``.

    Raises ValueRangeError unless max_norm > 0, and with ``error_if_nonfinite`` NonFiniteError when ‖g‖ is NaN or infinite.
    """
    if not max_norm > 0.0:
        raise ValueRangeError(f"clip_grad_norm_: max_norm must be > 0, got {max_norm}.")
    params = _with_gradient("clip_grad_norm_", params)
    if params and params[0].device == "cuda" and not error_if_nonfinite:
        return _clip_on_device(params, float(max_norm))
    squares = [float((p.grad.astype("float64") ** 2).sum()) for p in params]
    norm = math.sqrt(sum(squares))
    if error_if_nonfinite and not math.isfinite(norm):
        first = next((p.name or i for i, (p, s) in enumerate(zip(params, squares, strict=True)) if not math.isfinite(s)), "?")
        raise NonFiniteError(f"clip_grad_norm_: the norm of the gradients is {norm}, the first such is parameter {first!r}.")
    scale = float(max_norm) / (norm + 1e-6)
    if not scale >= 1.0:
        for p in params:
            p.grad = p.grad * scale
    return norm


def _clip_on_device(params: list[Parameter], max_norm: float) -> Any:
    xp = xp_of(params[0].grad)
    norm = xp.sqrt(sum((p.grad.astype("float64") ** 2).sum() for p in params))
    scale = xp.minimum(max_norm / (norm + 1e-6), 1.0)
    for p in params:
        p.grad = p.grad * scale.astype(p.grad.dtype)
    return norm


def clip_grad_value_(params: Iterable[Parameter], clip_value: float) -> None:
    """Limit every element of every gradient to −clip_value … clip_value. Raises ValueRangeError unless clip_value > 0."""
    if not clip_value > 0.0:
        raise ValueRangeError(f"clip_grad_value_: clip_value must be > 0, got {clip_value}.")
    for p in _with_gradient("clip_grad_value_", params):
        p.grad = xp_of(p.grad).clip(p.grad, -float(clip_value), float(clip_value))


def _with_gradient(function: str, params: Iterable[Parameter]) -> list[Parameter]:
    given: list[Any] = [params] if isinstance(params, Tensor) or not isinstance(params, Iterable) else list(params)
    for p in given:
        if not isinstance(p, Tensor):
            raise DtypeError(f"{function}: params must be Parameters, got {type(p).__name__}. Use model.parameters().")
    return [p for p in dict.fromkeys(given) if p.grad is not None]


# ---- schedules: lr is a pure function of the number of steps


class Schedule:
    """Sets ``optimizer.lr`` to :meth:`lr_at` of a step counter: now, for step 0, and at every :meth:`step`.

    What a step is, an epoch or a batch, is up to whoever calls it.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.steps = 0

    def lr_at(self, step: int) -> float:
        """The learning rate after ``step`` steps."""
        raise NotImplementedError

    def step(self) -> None:
        self.steps += 1
        self.optimizer.lr = self.lr_at(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """The counter and the learning rate at the start, as numbers."""
        return {"steps": self.steps, "base_lr": self.base_lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.base_lr, self.steps = float(state["base_lr"]), int(state["steps"])
        self.optimizer.lr = self.lr_at(self.steps)


class StepLR(Schedule):
    """lr = base · gamma^⌊step / step_size⌋.

    >>> import cnnlib as cl
    >>> schedule = StepLR(SGD([cl.Parameter([0.0])], lr=1.0), step_size=2, gamma=0.5)
    >>> [schedule.lr_at(i) for i in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        if not isinstance(step_size, int) or step_size < 1:
            raise ValueRangeError(f"StepLR: step_size must be a whole number >= 1, got {step_size!r}.")
        super().__init__(optimizer)
        self.step_size, self.gamma = step_size, float(gamma)

    def lr_at(self, step: int) -> float:
        return self.base_lr * self.gamma ** (step // self.step_size)


class CosineAnnealingLR(Schedule):
    """lr = eta_min + ½ (base − eta_min) (1 + cos(π step / T_max)): down to eta_min in T_max steps (and up again after).

    >>> import cnnlib as cl
    >>> schedule = CosineAnnealingLR(SGD([cl.Parameter([0.0])], lr=1.0), T_max=4)
    >>> [round(schedule.lr_at(i), 3) for i in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        if not isinstance(T_max, int) or T_max < 1:
            raise ValueRangeError(f"CosineAnnealingLR: T_max must be a whole number >= 1, got {T_max!r}.")
        super().__init__(optimizer)
        self.T_max, self.eta_min = T_max, float(eta_min)

    def lr_at(self, step: int) -> float:
        return self.eta_min + 0.5 * (self.base_lr - self.eta_min) * (1.0 + math.cos(math.pi * step / self.T_max))


class WarmupLR(Schedule):
    """lr = base · (step + 1) / warmup_steps while step < warmup_steps; after that ``then`` from its step 0 on, or base.

    >>> import cnnlib as cl
    >>> sgd = SGD([cl.Parameter([0.0])], lr=1.0)
    >>> schedule = WarmupLR(sgd, warmup_steps=4, then=StepLR(sgd, step_size=1, gamma=0.5))
    >>> [schedule.lr_at(i) for i in range(7)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, then: Schedule | None = None):
        if not isinstance(warmup_steps, int) or warmup_steps < 1:
            raise ValueRangeError(f"WarmupLR: warmup_steps must be a whole number >= 1, got {warmup_steps!r}.")
        if then is not None and then.optimizer is not optimizer:
            raise ValueRangeError("WarmupLR: then must be a schedule of the same optimizer.")
        super().__init__(optimizer)
        self.warmup_steps, self.then = warmup_steps, then
        optimizer.lr = self.lr_at(0)

    def lr_at(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.base_lr * (step + 1) / self.warmup_steps
        return self.base_lr if self.then is None else self.then.lr_at(step - self.warmup_steps)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.then is not None:
            self.then.base_lr = float(state["base_lr"])
        super().load_state_dict(state)
