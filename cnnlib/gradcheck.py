"""gradcheck: is a hand-written backward right? check_op: is an operation fit for the engine?

The derivative of L = Σ_k ⟨dy_k, y_k⟩, with random upstream adjoints dy_k, is taken twice: by backward, and by central
differences in float64, (L(x + h e) − L(x − h e)) / 2h, with one step of Richardson extrapolation (the error falls from
O(h²) to O(h⁴)). Small inputs are checked element by element, large ones along random directions.

Near a kink (ReLU at 0, a tie in max pooling) differences mean nothing: where those with h and h/2 disagree, the element
is skipped and counted.

Source: lecture: backpropagation; CS231n's notes on gradient checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from cnnlib import random as streams
from cnnlib.errors import CnnlibError, DtypeError
from cnnlib.op import Op
from cnnlib.tensor import Tensor


class GradientError(CnnlibError, ArithmeticError):
    """A backward that disagrees with the numerical derivative."""


@dataclasses.dataclass
class GradcheckReport:
    """What was checked: per argument the number of derivatives, of skipped kinks, and the largest relative error."""

    checked: dict[str, int]
    skipped: dict[str, int]
    error: dict[str, float]

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: {n} derivatives agree, largest relative error {self.error[name]:.1e}"
            + (f", {self.skipped[name]} skipped at kinks" if self.skipped[name] else "")
            for name, n in self.checked.items()
        )


def gradcheck(
    function: Callable[..., Any],
    *arrays: Any,
    tolerance: float = 1e-6,
    step: float = 1e-4,
    elements: int = 300,
    directions: int = 20,
    seed: int = 0,
    only: Sequence[int] | None = None,
    **settings: Any,
) -> GradcheckReport:
    """Compare backward of ``function(*tensors, **settings)`` with numerical derivatives.

    ``function`` takes Tensors and returns a Tensor or a tuple of them, such as ``ops.conv2d``. Float arrays are cast to
    float64 and differentiated; integer arrays and None are passed on. Arguments of at most ``elements`` elements are
    checked element by element, larger ones along ``directions`` random directions. ``only``: positions of the arguments to
    differentiate, where others are constants (targets, class weights). ``tolerance`` is relative to the largest
    derivative of that argument.

    >>> import cnnlib as cl, numpy as np
    >>> print(cl.gradcheck(cl.ops.tanh, np.array([0.1, -0.5])))  # doctest: +ELLIPSIS
    x: 2 derivatives agree, largest relative error ...

    Raises GradientError naming the argument, the index and both values, and when every derivative was skipped.
    """
    return _check(
        function, _argument_names(function, len(arrays)), arrays, settings, tolerance, step, elements, directions, seed, only
    )


class _Pairing(Op):
    """L = Σ_k ⟨dy_k, y_k⟩: sends dy_k, read-only, to each output at once."""

    formula = "L = Σ ⟨dy, y⟩"
    contiguous = False

    @staticmethod
    def forward(ctx, *ys, dys):
        ctx.save(dys=dys)
        return np.asarray(sum((dy * y).sum() for dy, y in zip(dys, ys, strict=True)))

    @staticmethod
    def backward(ctx, dL):
        return tuple(_read_only(np.asarray(dL * dy)) for dy in ctx.dys)


def _check(function, names, arrays, settings, tolerance, step, elements, directions, seed, only) -> GradcheckReport:
    inputs: list[Any] = [a.data if isinstance(a, Tensor) else None if a is None else np.asarray(a) for a in arrays]
    inputs = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in inputs]
    learnt = {i for i, a in enumerate(inputs) if a is not None and a.dtype.kind == "f" and (only is None or i in only)}
    if not learnt:
        raise GradientError("gradcheck: no derivative was checked: there is no float argument.")
    rng = np.random.default_rng([seed, 0x6772_6164])  # not the sequence that the caller drew the inputs from
    state = streams.get_state()

    def run(values: list, needs: bool) -> tuple[list[Tensor], list[Any]]:
        streams.set_state(state)  # operations that draw random numbers draw the same ones each time
        tensors = [v if v is None else Tensor(v, requires_grad=needs and i in learnt) for i, v in enumerate(values)]
        outputs = function(*tensors, **settings)
        return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs], tensors

    outputs, _ = run(inputs, needs=True)
    for y in outputs:
        if not isinstance(y, Tensor):
            raise DtypeError(f"gradcheck: the function must return a Tensor, or a tuple of them, got {type(y).__name__}: "
                             "compute with cnnlib.ops, or write an Op, and leave .numpy() away.")  # fmt: skip
    chosen = [k for k, y in enumerate(outputs) if y.requires_grad]
    if not chosen:
        raise GradientError("gradcheck: no output requires a gradient: the function leaves the tape, or marks all its outputs.")
    report = GradcheckReport({}, {}, {})
    for part in [chosen] if len(chosen) == 1 else [chosen, *([k] for k in chosen)]:  # all outputs, and each alone
        outputs, tensors = run(inputs, needs=True)
        dys = [np.asarray(rng.standard_normal(outputs[k].shape) + 0.5) for k in part]
        _Pairing.apply(*[outputs[k] for k in part], dys=dys).backward()

        def loss(values: list, part=part, dys=dys) -> float:
            ys, _ = run(values, needs=False)
            return float(sum((dy * ys[k].data).sum() for dy, k in zip(dys, part, strict=True)))

        size = float(sum(abs(dy * outputs[k].data).sum() for dy, k in zip(dys, part, strict=True)))  # for rounding errors of L
        for i in sorted(learnt):
            x, grad = inputs[i], tensors[i].grad
            grad = np.zeros_like(x) if grad is None else grad

            def along(d: Any, h: float, i: int = i, loss: Callable = loss) -> float:
                return loss([np.asarray(v + h * d) if j == i else v for j, v in enumerate(inputs)])

            h = step * (float(abs(x).max(initial=0.0)) or 1.0)
            noise = 100 * float(np.finfo(np.float64).eps) * size / h
            _check_argument(names[i], x, grad, along, report, tolerance, h, noise, elements, directions, rng)
    return report


def _check_argument(name, x, grad, along, report, tolerance, h, noise, elements, directions, rng) -> None:
    found, skipped = [], 0
    for where, d in _directions(x, elements, directions, rng):
        numeric, kink = _derivative(partial(along, d), h, noise)
        if kink:
            skipped += 1
        else:
            found.append((where, float((grad * d).sum()), numeric))
    if not found and x.size:
        raise GradientError(f"gradcheck: d{name} could not be checked: every element lies at a kink. Draw other inputs.")
    largest = max((abs(n) for _, _, n in found), default=0.0)
    allowed = tolerance * largest + noise
    wrong = [f for f in found if not abs(f[1] - f[2]) <= allowed]
    if wrong:
        where, analytic, numeric = max(wrong, key=lambda f: abs(f[1] - f[2]) if f[1] == f[1] else float("inf"))
        raise GradientError(
            f"gradcheck: d{name} is wrong {where}: backward gives {analytic:.9g}, the numerical derivative is {numeric:.9g} "
            f"(largest derivative {largest:.3g}, allowed difference {allowed:.1e}; {len(wrong)} of {len(found)} disagree)."
        )
    error = max((abs(a - n) for _, a, n in found), default=0.0) / (largest or 1.0)
    for counts, value in ((report.checked, len(found)), (report.skipped, skipped), (report.error, error)):
        counts[name] = max(value, counts.get(name, 0))  # of several outputs: the most, and the worst


def _directions(x: np.ndarray, elements: int, directions: int, rng) -> Iterator[tuple[str, np.ndarray]]:
    if x.size <= elements:
        for index in np.ndindex(x.shape):
            d = np.zeros_like(x)
            d[index] = 1.0
            yield f"at {index}", d
    else:
        for k in range(directions):
            d = rng.standard_normal(x.shape)
            yield f"along random direction {k}", d / np.sqrt(x.size)


def _derivative(f: Callable[[float], float], h: float, noise: float) -> tuple[float, bool]:
    """Richardson's central difference of f at 0, and whether there is a kink within ±h."""
    wide = (f(h) - f(-h)) / (2 * h)
    near = (f(h / 2) - f(-h / 2)) / h
    value = (4 * near - wide) / 3
    here = f(0.0)
    bend_wide, bend_near = (f(h) - 2 * here + f(-h)) / h, (f(h / 2) - 2 * here + f(-h / 2)) / (h / 2)
    scale = max(abs(wide), abs(near))
    # Where f is smooth, halving h leaves the slope (to h²) and halves the bend; at a kink one of the two fails.
    torn = abs(wide - near) > 1e-4 * scale + noise
    bent = abs(bend_near) > 1e-5 * scale + 4 * noise and abs(bend_near) > 0.75 * abs(bend_wide)
    return value, torn or bent


def _argument_names(function: Callable, n: int) -> list[str]:
    import inspect

    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        return [f"argument {i}" for i in range(n)]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"argument {i}" for i in range(n)]


def check_op(op: type[Op], *arrays: Any, **settings: Any) -> GradcheckReport:
    """Everything the engine asks of an operation, checked on the given arrays (float64) and settings.

    Right gradients (:func:`gradcheck`); float32 in gives float32 out and back; non-contiguous and read-only inputs work;
    forward does not write to its inputs, nor backward to its adjoints; two runs are equal bit for bit.

    >>> import cnnlib as cl, numpy as np
    >>> print(cl.check_op(cl.ops.Multiply, np.array([1.0, 2.0]), np.array([3.0, 4.0])))  # doctest: +ELLIPSIS
    a: 2 derivatives agree, ...
    b: 2 derivatives agree, ...

    Raises GradientError, or CnnlibError that says which of the rules is broken.
    """
    if not (isinstance(op, type) and issubclass(op, Op)):
        raise DtypeError(
            f"check_op: the first argument is an Op class such as ops.ReLU, got {op!r}; gradcheck takes functions."
        )
    arrays = tuple(None if a is None else np.asarray(a) for a in arrays)
    for dtype in (np.float64, np.float32):
        inputs = [a.astype(dtype) if a is not None and a.dtype.kind == "f" else a for a in arrays]
        plain = _run(op, inputs, settings)
        _same(op, plain, _run(op, inputs, settings), "two runs on equal inputs differ")
        for other in (_strided, _other_order):
            _same(op, plain, _run(op, inputs, settings, other), "non-contiguous inputs give another result")
    names = [op.argument(i) for i in range(len(arrays))]
    return _check(op.apply, names, arrays, settings, 1e-6, 1e-4, 300, 20, 0, None)


def _run(op: type[Op], inputs: list, settings: dict, layout: Callable = lambda a: a) -> list[np.ndarray]:
    """Outputs and adjoints of one run on read-only arrays; refuses a write to an input or to an adjoint."""
    state = streams.get_state()
    frozen = [None if a is None else _read_only(layout(a.copy())) for a in inputs]
    tensors = [None if a is None else Tensor(a, requires_grad=a.dtype.kind == "f") for a in frozen]
    rng = np.random.default_rng(1)
    try:
        outputs = op.apply(*tensors, **settings)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        learnt = [y for y in outputs if y.requires_grad]
        dys = [_read_only(layout(np.asarray(rng.standard_normal(y.shape), dtype=y.dtype))) for y in learnt]
        for y, dy in zip(learnt, dys, strict=True):
            y.backward(dy, retain=True)
    except ValueError as error:
        if "read-only" in str(error):
            raise CnnlibError(
                f"{op.name()}: forward writes to its inputs or backward to its adjoint ({error}): work on a copy."
            ) from error
        raise
    for i, (a, b) in enumerate(zip(frozen, inputs, strict=True)):
        if a is not None and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise CnnlibError(f"{op.name()}: forward or backward changed its input {op.argument(i)}: work on a copy.")
    streams.set_state(state)
    return [y.data for y in outputs] + [t.grad for t in tensors if t is not None and t.grad is not None]


def _read_only(a: np.ndarray) -> np.ndarray:
    view = a.view()
    view.flags.writeable = False
    return view


def _strided(a: np.ndarray) -> np.ndarray:
    """Equal values with strides of two elements along the last axis."""
    if a.ndim == 0:
        return a
    wide = np.zeros((*a.shape[:-1], a.shape[-1] * 2), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _other_order(a: np.ndarray) -> np.ndarray:
    """Equal values, the first axis contiguous."""
    return np.asfortranarray(a) if a.ndim > 1 else a


def _same(op: type[Op], expected: list, got: list, what: str) -> None:
    for a, b in zip(expected, got, strict=True):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise CnnlibError(f"{op.name()}: {what}.")
