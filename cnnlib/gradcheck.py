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
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cnnlib import random as streams
from cnnlib.errors import CnnlibError
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
    **settings: Any,
) -> GradcheckReport:
    """Compare backward of ``function(*tensors, **settings)`` with numerical derivatives.

    ``function`` takes Tensors and returns a Tensor or a tuple of them, such as ``ops.conv2d``. Float arrays are cast to
    float64 and differentiated; integer arrays and None are passed on. Arguments of at most ``elements`` elements are
    checked element by element, larger ones along ``directions`` random directions. ``tolerance`` is relative to the largest
    derivative of that argument.

    >>> import cnnlib as cl, numpy as np
    >>> print(cl.gradcheck(cl.ops.tanh, np.array([0.1, -0.5])))  # doctest: +ELLIPSIS
    x: 2 derivatives agree, largest relative error ...

    Raises GradientError naming the argument, the index and both values, and when every derivative was skipped.
    """
    rng = np.random.default_rng(seed)
    inputs = [a.data if isinstance(a, Tensor) else None if a is None else np.asarray(a) for a in arrays]
    inputs = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in inputs]
    state = streams.get_state()

    def run(values: list, needs: bool) -> tuple[list[Tensor], list[Any]]:
        streams.set_state(state)  # operations that draw random numbers draw the same ones each time
        tensors = [Tensor(v, requires_grad=needs and v.dtype.kind == "f") if v is not None else None for v in values]
        outputs = function(*tensors, **settings)
        return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs], tensors

    outputs, tensors = run(inputs, needs=True)
    dys = [rng.standard_normal(y.shape) + 0.5 if y.requires_grad else None for y in outputs]
    for y, dy in zip(outputs, dys, strict=True):
        if dy is not None:
            y.backward(dy, retain=True)

    def loss(values: list) -> float:
        ys, _ = run(values, needs=False)
        return float(sum((dy * y.data).sum() for y, dy in zip(ys, dys, strict=True) if dy is not None))

    report = GradcheckReport({}, {}, {})
    names = _argument_names(function, len(inputs))
    for i, (name, x, t) in enumerate(zip(names, inputs, tensors, strict=True)):
        if x is None or x.dtype.kind != "f":
            continue
        grad = t.grad if t.grad is not None else np.zeros_like(x)
        along = lambda d, h, i=i: loss([v + h * d if j == i else v for j, v in enumerate(inputs)])  # noqa: E731
        _check_argument(name, x, grad, along, report, tolerance, step, elements, directions, rng)
    if not sum(report.checked.values()):
        raise GradientError("gradcheck: no derivative was checked: no float argument, or every element lies at a kink.")
    return report


def _check_argument(name, x, grad, along, report, tolerance, step, elements, directions, rng) -> None:
    found = []
    skipped = 0
    for where, d in _directions(x, elements, directions, rng):
        numeric, kink = _derivative(lambda h, d=d: along(d, h), step)
        if kink:
            skipped += 1
            continue
        found.append((where, float((grad * d).sum()), numeric))
    scale = max([1e-3, *(abs(n) for _, _, n in found)])
    worst = max(found, key=lambda f: abs(f[1] - f[2]), default=None)
    error = abs(worst[1] - worst[2]) / scale if worst else 0.0
    if worst and not error <= tolerance:
        wrong = sum(not abs(a - n) <= tolerance * scale for _, a, n in found)
        raise GradientError(
            f"gradcheck: d{name} is wrong {worst[0]}: backward gives {worst[1]:.9g}, the numerical derivative is "
            f"{worst[2]:.9g} (relative error {error:.1e}, allowed {tolerance:.0e}; {wrong} of {len(found)} disagree)."
        )
    report.checked[name], report.skipped[name], report.error[name] = len(found), skipped, error


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


def _derivative(f: Callable[[float], float], h: float) -> tuple[float, bool]:
    """Richardson's central difference of f at 0, and whether there is a kink within ±h."""
    wide = (f(h) - f(-h)) / (2 * h)
    near = (f(h / 2) - f(-h / 2)) / h
    value = (4 * near - wide) / 3
    here = f(0.0)
    bend_wide, bend_near = (f(h) - 2 * here + f(-h)) / h, (f(h / 2) - 2 * here + f(-h / 2)) / (h / 2)
    scale = max(abs(wide), abs(near), 1e-3)
    # Where f is smooth, halving h leaves the slope (to h²) and halves the bend; at a kink one of the two fails.
    kink = abs(wide - near) > 1e-4 * scale or (abs(bend_near) > 1e-5 * scale and abs(bend_near) > 0.75 * abs(bend_wide))
    return value, kink


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

    def function(*tensors, **kw):
        return op.apply(*tensors, **kw)

    arrays = tuple(None if a is None else np.asarray(a) for a in arrays)
    report = _renamed(gradcheck(function, *arrays, **settings), op)
    for dtype in (np.float64, np.float32):
        inputs = [a.astype(dtype) if a is not None and a.dtype.kind == "f" else a for a in arrays]
        plain = _run(op, inputs, settings)
        _same(op, plain, _run(op, inputs, settings), "two runs on equal inputs differ")
        _same(op, plain, _run(op, [_strided(a) for a in inputs], settings), "non-contiguous inputs give another result")
    return report


def _renamed(report: GradcheckReport, op: type[Op]) -> GradcheckReport:
    names = {f"argument {i}": op.argument(i) for i in range(len(report.checked) + 8)}
    rename = lambda part: {names.get(k, k): v for k, v in part.items()}  # noqa: E731
    return GradcheckReport(rename(report.checked), rename(report.skipped), rename(report.error))


def _run(op: type[Op], inputs: list, settings: dict) -> list[np.ndarray]:
    """Outputs and adjoints of one run on read-only copies; refuses a write to an input or to an adjoint."""
    state = streams.get_state()
    frozen = [_read_only(a) for a in inputs]
    before = [None if a is None else a.copy() for a in frozen]
    tensors = [None if a is None else Tensor(a, requires_grad=a.dtype.kind == "f") for a in frozen]
    try:
        outputs = op.apply(*tensors, **settings)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        rng = np.random.default_rng(1)
        for y in outputs:
            if y.requires_grad:
                y.backward(_read_only(rng.standard_normal(y.shape).astype(y.dtype)), retain=True)
    except ValueError as error:
        if "read-only" in str(error):
            raise CnnlibError(
                f"{op.name()}: forward writes to its inputs or backward to its adjoint ({error}): work on a copy."
            ) from error
        raise
    for i, (a, b) in enumerate(zip(frozen, before, strict=True)):
        if a is not None and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise CnnlibError(f"{op.name()}: forward or backward changed its input {op.argument(i)}: work on a copy.")
    streams.set_state(state)
    return [y.data for y in outputs] + [t.grad for t in tensors if t is not None and t.grad is not None]


def _read_only(a: np.ndarray | None) -> np.ndarray | None:
    if a is None:
        return None
    view = a.view()
    view.flags.writeable = False
    return view


def _strided(a: np.ndarray | None) -> np.ndarray | None:
    """Equal values with strides of two elements along the last axis."""
    if a is None or a.ndim == 0:
        return a
    wide = np.zeros((*a.shape[:-1], a.shape[-1] * 2), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _same(op: type[Op], expected: list, got: list, what: str) -> None:
    for a, b in zip(expected, got, strict=True):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise CnnlibError(f"{op.name()}: {what}.")
