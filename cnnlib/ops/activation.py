"""Activations: what a unit makes of its input. All act element by element, but softmax and maxout, which compare several.

Formulas, and the derivative that backward multiplies dy by (y is kept where it gives the derivative cheaper than x)::

    ReLU          y = max(x, 0)                      1 where x > 0, else 0: at 0 it counts as 0
    leaky ReLU    y = x where x > 0, else a x        1 where x > 0, else a (0.01 as a rule)
    noisy ReLU    y = max(x + ε, 0)                  1 where x + ε > 0, else 0; ε ~ N(0, σ²) in training, 0 in evaluation
    ELU           y = x where x > 0, else a (eˣ − 1) 1 where x > 0, else a eˣ
    softplus      y = ln(1 + eˣ)                     σ(x)
    sigmoid       y = σ(x) = 1 / (1 + e⁻ˣ)           y (1 − y), at most ¼: through many layers the gradient vanishes
    tanh          y = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)        1 − y²

    softmax       y_i = e^(x_i) / Σ_j e^(x_j)        ∂y_i/∂x_j = y_i ([i = j] − y_j), so dx = y ⊙ (dy − Σ_j dy_j y_j)
    log softmax   y_i = x_i − ln Σ_j e^(x_j)         ∂y_i/∂x_j = [i = j] − e^(y_j),   so dx = dy − e^y Σ_j dy_j
    maxout        y = max_p x_p over P pieces        dy goes to the piece that won, the first at a tie

No exponential overflows: e^−|x| is at most 1, and softmax subtracts the largest x, which cancels in the fraction.

Source: lecture: activations; Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010 (noisy
ReLU); Maas, Hannun & Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013 (leaky ReLU); Clevert,
Unterthiner & Hochreiter, "Fast and accurate deep network learning by exponential linear units", 2016; Goodfellow,
Warde-Farley, Mirza, Courville & Bengio, "Maxout networks", 2013.
"""

from __future__ import annotations

import math

from cnnlib.backends import kernel, xp_of
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_not_empty
from cnnlib.random import next_key, normal

# ---- the textbook: element by element, x of any shape


@kernel
def relu_forward(x):
    return xp_of(x).maximum(x, 0.0)


@kernel
def relu_backward(dy, y):
    return xp_of(dy).where(y > 0.0, dy, 0.0)


@kernel
def leaky_relu_forward(x, slope):
    return xp_of(x).where(x > 0.0, x, slope * x)


@kernel
def leaky_relu_backward(dy, x, slope):
    return xp_of(dy).where(x > 0.0, dy, slope * dy)


@kernel
def elu_forward(x, alpha):
    xp = xp_of(x)
    return xp.where(x > 0.0, x, alpha * xp.expm1(xp.minimum(x, 0.0)))


@kernel
def elu_backward(dy, x, alpha):
    xp = xp_of(dy)
    return xp.where(x > 0.0, dy, dy * (alpha * xp.exp(xp.minimum(x, 0.0))))


@kernel
def softplus_forward(x):
    xp = xp_of(x)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


@kernel
def softplus_backward(dy, x):
    return dy * sigmoid_forward(x)


@kernel
def sigmoid_forward(x):
    xp = xp_of(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0.0, e, 1.0) / (1.0 + e)


@kernel
def sigmoid_backward(dy, y):
    return dy * (y * (1.0 - y))


@kernel
def tanh_forward(x):
    return xp_of(x).tanh(x)


@kernel
def tanh_backward(dy, y):
    return dy * (1.0 - y * y)


# ---- the textbook: rows (R, C), and pieces (R, P, S)


@kernel
def softmax_forward(x):
    e = xp_of(x).exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@kernel
def softmax_backward(dy, y):
    return y * (dy - (dy * y).sum(axis=1, keepdims=True))


@kernel
def log_softmax_forward(x):
    xp = xp_of(x)
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))


@kernel
def log_softmax_backward(dy, y):
    return dy - xp_of(dy).exp(y) * dy.sum(axis=1, keepdims=True)


@kernel
def maxout_forward(x):
    argmax = x.argmax(axis=1)  # (R, P, S) -> (R, S)
    y = xp_of(x).take_along_axis(x, argmax[:, None], axis=1)[:, 0]
    return y, argmax.astype("uint8")


@kernel
def maxout_backward(dy, argmax, pieces):
    xp = xp_of(dy)
    won = argmax[:, None] == xp.arange(pieces, dtype="uint8")[:, None]  # (R, 1, S) == (P, 1) -> (R, P, S)
    return xp.where(won, dy[:, None], 0.0)


# ---- the operations


class ReLU(Op):
    """Saves y: y > 0 where x > 0."""

    formula = "y = max(x, 0)"

    @staticmethod
    def forward(ctx, x):
        check_float("relu", "x", x)
        y = ctx.kernels.relu_forward(x)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.relu_backward(dy, ctx.y)


class LeakyReLU(Op):
    """Saves x and slope."""

    formula = "y = x where x > 0, else a x"

    @staticmethod
    def forward(ctx, x, *, slope=0.01):
        check_float("leaky_relu", "x", x)
        ctx.save(x=x, slope=slope)
        return ctx.kernels.leaky_relu_forward(x, slope)

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.leaky_relu_backward(dy, ctx.x, ctx.slope)


class NoisyReLU(Op):
    """Draws ε from the stream "dropout". Saves y and noise, the ε that were drawn (None in evaluation)."""

    formula = "y = max(x + ε, 0)"

    @staticmethod
    def forward(ctx, x, *, std=1.0, training=True):
        check_float("noisy_relu", "x", x)
        noise = None
        if training:
            noise = (std * normal(next_key("dropout"), x.shape, ctx.xp)).astype(x.dtype)
        y = ctx.kernels.relu_forward(x if noise is None else x + noise)
        ctx.save(y=y, noise=noise)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.relu_backward(dy, ctx.y)


class ELU(Op):
    """Saves x and alpha."""

    formula = "y = x where x > 0, else a (eˣ − 1)"

    @staticmethod
    def forward(ctx, x, *, alpha=1.0):
        check_float("elu", "x", x)
        ctx.save(x=x, alpha=alpha)
        return ctx.kernels.elu_forward(x, alpha)

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.elu_backward(dy, ctx.x, ctx.alpha)


class Softplus(Op):
    """Saves x."""

    formula = "y = ln(1 + eˣ)"

    @staticmethod
    def forward(ctx, x):
        check_float("softplus", "x", x)
        ctx.save(x=x)
        return ctx.kernels.softplus_forward(x)

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.softplus_backward(dy, ctx.x)


class Sigmoid(Op):
    """Saves y: the derivative is y (1 − y)."""

    formula = "y = 1 / (1 + e⁻ˣ)"

    @staticmethod
    def forward(ctx, x):
        check_float("sigmoid", "x", x)
        y = ctx.kernels.sigmoid_forward(x)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.sigmoid_backward(dy, ctx.y)


class Tanh(Op):
    """Saves y: the derivative is 1 − y²."""

    formula = "y = tanh x"

    @staticmethod
    def forward(ctx, x):
        check_float("tanh", "x", x)
        y = ctx.kernels.tanh_forward(x)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.tanh_backward(dy, ctx.y)


class Softmax(Op):
    """Saves y, as rows (R, C), and axis."""

    formula = "y = eˣ / Σ eˣ"

    @staticmethod
    def forward(ctx, x, *, axis=-1):
        axis = _axis("softmax", x, axis)
        y = ctx.kernels.softmax_forward(_rows(ctx.xp, x, axis))
        ctx.save(y=y, axis=axis)
        return _from_rows(ctx.xp, y, x.shape, axis)

    @staticmethod
    def backward(ctx, dy):
        dx = ctx.kernels.softmax_backward(_rows(ctx.xp, dy, ctx.axis), ctx.y)
        return _from_rows(ctx.xp, dx, dy.shape, ctx.axis)


class LogSoftmax(Op):
    """Saves y, as rows (R, C), and axis."""

    formula = "y = x − ln Σ eˣ"

    @staticmethod
    def forward(ctx, x, *, axis=-1):
        axis = _axis("log_softmax", x, axis)
        y = ctx.kernels.log_softmax_forward(_rows(ctx.xp, x, axis))
        ctx.save(y=y, axis=axis)
        return _from_rows(ctx.xp, y, x.shape, axis)

    @staticmethod
    def backward(ctx, dy):
        dx = ctx.kernels.log_softmax_backward(_rows(ctx.xp, dy, ctx.axis), ctx.y)
        return _from_rows(ctx.xp, dx, dy.shape, ctx.axis)


class Maxout(Op):
    """Saves argmax (R, S), the piece that won, shape (x's) and pieces."""

    formula = "y = max over pieces of x"

    @staticmethod
    def forward(ctx, x, *, pieces, axis=1):
        axis = _axis("maxout", x, axis)
        if not isinstance(pieces, int) or not 1 <= pieces <= 256:
            raise ValueRangeError(f"maxout: pieces must be a whole number in 1 … 256, got {pieces!r}.")
        if x.shape[axis] % pieces:
            raise ShapeError(
                f"maxout: pieces = {pieces} must divide x.shape[{axis}] = {x.shape[axis]} (x.shape = {x.shape}): "
                "the pieces of one output lie next to each other."
            )
        outer, units, inner = math.prod(x.shape[:axis]), x.shape[axis] // pieces, math.prod(x.shape[axis + 1 :])
        y, argmax = ctx.kernels.maxout_forward(x.reshape(outer * units, pieces, inner))
        ctx.save(argmax=argmax, shape=x.shape, pieces=pieces)
        return y.reshape(*x.shape[:axis], units, *x.shape[axis + 1 :])

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.maxout_backward(dy.reshape(ctx.argmax.shape), ctx.argmax, ctx.pieces).reshape(ctx.shape)


def _axis(op, x, axis):
    """``axis`` counted from the front, after all checks."""
    check_float(op, "x", x)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"{op}: axis {axis} does not exist in shape {x.shape}.")
    check_not_empty(op, "x", x)
    return axis % x.ndim


def _rows(xp, x, axis):
    """x with ``axis`` last and all others made one: (R, C)."""
    if axis != x.ndim - 1:
        x = xp.ascontiguousarray(xp.moveaxis(x, axis, -1))
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _from_rows(xp, rows, shape, axis):
    """Rows back in ``shape``."""
    if axis == len(shape) - 1:
        return rows.reshape(shape)
    moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
    return xp.ascontiguousarray(xp.moveaxis(rows.reshape(moved), -1, axis))


# ---- the public functions


def relu(x):
    """max(x, 0), any shape. The derivative at 0 counts as 0; NaN stays NaN.

    >>> import cnnlib as cl
    >>> cl.ops.relu(cl.Tensor([-1.0, 0.0, 2.0])).numpy()
    array([0., 0., 2.], dtype=float32)

    Raises DtypeError when x is not float.
    """
    return ReLU.apply(x)


def leaky_relu(x, slope=0.01):
    """x where x > 0, else slope · x: a small derivative keeps a unit alive that ReLU would leave at 0.

    >>> import cnnlib as cl
    >>> cl.ops.leaky_relu(cl.Tensor([-1.0, 2.0]), 0.1).numpy()
    array([-0.1,  2. ], dtype=float32)
    """
    return LeakyReLU.apply(x, slope=float(slope))


def noisy_relu(x, std=1.0, training=True):
    """max(x + ε, 0) with ε ~ N(0, std²) in training, from the stream "dropout"; :func:`relu` in evaluation.

    Raises ValueRangeError for a negative std.
    """
    if not std >= 0.0:
        raise ValueRangeError(f"noisy_relu: std must be >= 0, got {std}.")
    return NoisyReLU.apply(x, std=float(std), training=bool(training))


def elu(x, alpha=1.0):
    """x where x > 0, else alpha (eˣ − 1).

    >>> import cnnlib as cl
    >>> cl.ops.elu(cl.Tensor([-1.0, 2.0])).numpy()
    array([-0.63212055,  2.        ], dtype=float32)
    """
    return ELU.apply(x, alpha=float(alpha))


def softplus(x):
    """ln(1 + eˣ), a smooth ReLU.

    >>> import cnnlib as cl
    >>> cl.ops.softplus(cl.Tensor([-1000.0, 1000.0])).numpy()
    array([   0., 1000.], dtype=float32)
    """
    return Softplus.apply(x)


def sigmoid(x):
    """σ(x) = 1 / (1 + e⁻ˣ).

    >>> import cnnlib as cl
    >>> cl.ops.sigmoid(cl.Tensor([-1000.0, 0.0, 1000.0])).numpy()
    array([0. , 0.5, 1. ], dtype=float32)
    """
    return Sigmoid.apply(x)


def tanh(x):
    """tanh x = 2 σ(2x) − 1.

    >>> import cnnlib as cl
    >>> cl.ops.tanh(cl.Tensor([0.0, 1000.0])).numpy()
    array([0., 1.], dtype=float32)
    """
    return Tanh.apply(x)


def softmax(x, axis=-1):
    """eˣ / Σ eˣ along ``axis``: positive numbers that add up to 1.

    >>> import cnnlib as cl
    >>> cl.ops.softmax(cl.Tensor([[1.0, 1.0, 1.0, 1.0]])).numpy()
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)

    Raises ShapeError when there is no such axis or x is empty.
    """
    return Softmax.apply(x, axis=axis)


def log_softmax(x, axis=-1):
    """ln softmax(x) = x − ln Σ eˣ along ``axis``, without the underflow of taking the logarithm afterwards.

    >>> import cnnlib as cl
    >>> cl.ops.log_softmax(cl.Tensor([[0.0, 1000.0]])).numpy()
    array([[-1000.,     0.]], dtype=float32)
    """
    return LogSoftmax.apply(x, axis=axis)


def maxout(x, pieces, axis=1):
    """The largest of each ``pieces`` neighbours along ``axis``: (N, O·P, ...) -> (N, O, ...).

    >>> import cnnlib as cl
    >>> cl.ops.maxout(cl.Tensor([[1.0, 5.0, 3.0, 2.0]]), pieces=2).numpy()
    array([[5., 3.]], dtype=float32)

    Raises ShapeError when ``pieces`` does not divide the axis, ValueRangeError for pieces outside 1 … 256.
    """
    return Maxout.apply(x, pieces=pieces, axis=axis)
