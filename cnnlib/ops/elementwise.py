"""Arithmetic, element by element, with broadcasting. The engine sums an adjoint over the axes that were broadcast.

Source: lecture: backpropagation (automatic differentiation).
"""

from __future__ import annotations

from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.op import Op


class _Binary(Op):
    broadcasts = True


def _check_broadcast(ctx, *arrays):
    try:
        ctx.xp.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = " and ".join(str(a.shape) for a in arrays)
        raise ShapeError(f"{ctx.op.name()}: shapes {shapes} do not broadcast: equal, or 1, from the last axis on.") from None


class Add(_Binary):
    formula = "y = a + b"

    @staticmethod
    def forward(ctx, a, b):
        if a.shape != b.shape:
            _check_broadcast(ctx, a, b)
        return a + b

    @staticmethod
    def backward(ctx, dy):
        return dy, dy


class Subtract(_Binary):
    formula = "y = a − b"

    @staticmethod
    def forward(ctx, a, b):
        _check_broadcast(ctx, a, b)
        return a - b

    @staticmethod
    def backward(ctx, dy):
        return dy, -dy


class Multiply(_Binary):
    """Saves a and b."""

    formula = "y = a b"

    @staticmethod
    def forward(ctx, a, b):
        _check_broadcast(ctx, a, b)
        ctx.save(a=a, b=b)
        return a * b

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.b if ctx.needs[0] else None, dy * ctx.a if ctx.needs[1] else None


class Divide(_Binary):
    """Saves a and b. ∂(a/b)/∂b = −a/b²."""

    formula = "y = a / b"

    @staticmethod
    def forward(ctx, a, b):
        _check_broadcast(ctx, a, b)
        ctx.save(a=a, b=b)
        return a / b

    @staticmethod
    def backward(ctx, dy):
        da = dy / ctx.b
        return da, -da * (ctx.a / ctx.b) if ctx.needs[1] else None


class Maximum(_Binary):
    """Saves a and b. At a tie both get half."""

    formula = "y = max(a, b)"

    @staticmethod
    def forward(ctx, a, b):
        _check_broadcast(ctx, a, b)
        ctx.save(a=a, b=b)
        return ctx.xp.maximum(a, b)

    @staticmethod
    def backward(ctx, dy):
        share = ctx.xp.where(ctx.a > ctx.b, 1.0, ctx.xp.where(ctx.a == ctx.b, 0.5, 0.0)).astype(dy.dtype)
        return dy * share, dy * (1.0 - share)


class Power(Op):
    """The exponent is a Python number. Saves x."""

    formula = "y = xⁿ"

    @staticmethod
    def forward(ctx, x, *, exponent):
        ctx.save(x=x, exponent=float(exponent))
        return x ** float(exponent)

    @staticmethod
    def backward(ctx, dy):
        n = ctx.exponent
        return dy * (n * ctx.x ** (n - 1.0)) if n != 0.0 else ctx.xp.zeros_like(dy)


class Negative(Op):
    formula = "y = −x"

    @staticmethod
    def forward(ctx, x):
        return -x

    @staticmethod
    def backward(ctx, dy):
        return -dy


class Absolute(Op):
    """Saves x. The derivative at 0 counts as 0."""

    formula = "y = |x|"

    @staticmethod
    def forward(ctx, x):
        ctx.save(x=x)
        return ctx.xp.abs(x)

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.xp.sign(ctx.x)


class Exp(Op):
    """Saves y: the exponential is its own derivative."""

    formula = "y = eˣ"

    @staticmethod
    def forward(ctx, x):
        y = ctx.xp.exp(x)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.y


class Log(Op):
    """Saves x."""

    formula = "y = ln x"

    @staticmethod
    def forward(ctx, x):
        ctx.save(x=x)
        return ctx.xp.log(x)

    @staticmethod
    def backward(ctx, dy):
        return dy / ctx.x


class Sqrt(Op):
    """Saves y. ∂√x/∂x = 1 / (2√x)."""

    formula = "y = √x"

    @staticmethod
    def forward(ctx, x):
        y = ctx.xp.sqrt(x)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx, dy):
        return dy / (2.0 * ctx.y)


class Clip(Op):
    """Saves inside, the mask of elements that were not clipped."""

    formula = "y = min(max(x, low), high)"

    @staticmethod
    def forward(ctx, x, *, low, high):
        ctx.save(inside=(x >= low) & (x <= high))
        return ctx.xp.clip(x, low, high)

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.inside


class Where(_Binary):
    """Saves condition, a boolean array."""

    formula = "y = a where condition, else b"

    @staticmethod
    def forward(ctx, condition, a, b):
        _check_broadcast(ctx, condition, a, b)
        ctx.save(condition=condition)
        return ctx.xp.where(condition, a, b)

    @staticmethod
    def backward(ctx, dy):
        return None, dy * ctx.condition, dy * ~ctx.condition


class Cast(Op):
    """To another float dtype and, for adjoints, back. Saves dtype."""

    formula = "y = x as dtype"
    keeps_dtype = False
    contiguous = False

    @staticmethod
    def forward(ctx, x, *, dtype):
        ctx.save(dtype=x.dtype)
        return x.astype(dtype)

    @staticmethod
    def backward(ctx, dy):
        return dy.astype(ctx.dtype)


class Move(Op):
    """To another device and, for adjoints, back. Saves device."""

    formula = "y = x on device"
    contiguous = False

    @staticmethod
    def forward(ctx, x, *, device):
        from cnnlib.tensor import to_device

        ctx.save(device="cpu" if device == "cuda" else "cuda")
        return to_device(x, device)

    @staticmethod
    def backward(ctx, dy):
        from cnnlib.tensor import to_device

        return to_device(dy, ctx.device)


def add(a, b):
    """a + b, broadcasting.

    >>> import cnnlib as cl
    >>> (cl.Tensor([1.0, 2.0]) + 1).numpy()
    array([2., 3.], dtype=float32)
    """
    return Add.apply(a, b)


def subtract(a, b):
    """a − b, broadcasting."""
    return Subtract.apply(a, b)


def multiply(a, b):
    """a b, element by element, broadcasting."""
    return Multiply.apply(a, b)


def divide(a, b):
    """a / b, broadcasting."""
    return Divide.apply(a, b)


def maximum(a, b):
    """The larger of a and b, element by element, broadcasting; at a tie the adjoint is shared."""
    return Maximum.apply(a, b)


def power(x, exponent):
    """x to the power of a Python number."""
    if not isinstance(exponent, (int, float)):
        raise TypeError(
            f"power: the exponent must be a Python number, got {type(exponent).__name__}; for a tensor use exp(b * log(a))."
        )
    return Power.apply(x, exponent=exponent)


def negative(x):
    """−x."""
    return Negative.apply(x)


def absolute(x):
    """|x|."""
    return Absolute.apply(x)


def exp(x):
    """eˣ."""
    return Exp.apply(x)


def log(x):
    """Natural logarithm."""
    return Log.apply(x)


def sqrt(x):
    """√x."""
    return Sqrt.apply(x)


def clip(x, low, high):
    """x limited to low … high; the adjoint passes where x was inside."""
    if not low <= high:
        raise ValueRangeError(f"clip: low must not be above high, got low = {low}, high = {high}.")
    return Clip.apply(x, low=float(low), high=float(high))


def where(condition, a, b):
    """a where condition (a boolean array) holds, else b."""
    return Where.apply(condition, a, b)


def cast(x, dtype):
    """x as another float dtype."""
    return Cast.apply(x, dtype=dtype)


def move(x, device):
    """x on ``"cpu"`` or ``"cuda"``."""
    return Move.apply(x, device=device)
