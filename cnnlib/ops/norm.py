"""Normalisations: values brought to a common scale, over the batch, over one sample, or within a neighbourhood.

**Batch normalisation.** For each channel c, over the m = N·S values x_i that it has in the batch, ε inside the root::

    μ = Σ x_i / m      σ² = Σ (x_i − μ)² / m      r = 1 / sqrt(σ² + ε)      x̂_i = (x_i − μ) r      y_i = γ x̂_i + β

Adjoint, with dy_i = ∂J/∂y_i. μ and σ² depend on every x_i, so dx_i collects along three paths. Let g_i = γ dy_i = ∂J/∂x̂_i::

    dγ = Σ dy_i x̂_i      dβ = Σ dy_i
    directly     ∂J/∂x_i ∋ g_i r
    through σ²   ∂J/∂σ² = Σ_j g_j (x_j − μ) · (−r³/2), and ∂σ²/∂x_i = 2 (x_i − μ) / m
                 product: −r³ (x_i − μ) Σ_j g_j (x_j − μ) / m = −r x̂_i Σ_j g_j x̂_j / m
    through μ    ∂J/∂μ = −r Σ_j g_j (∂σ²/∂μ = −2 Σ (x_j − μ) / m = 0), and ∂μ/∂x_i = 1/m
                 product: −r Σ_j g_j / m
    together     dx_i = γ r (dy_i − mean(dy) − x̂_i mean(dy x̂)) = γ r (dy_i − dβ/m − x̂_i dγ/m)

At inference μ and σ² are given constants, and only the direct path is left: dx = γ r dy.

**Layer normalisation.** The same over the D values of one sample (row), with γ_d and β_d for each position d::

    dx_d = r (g_d − mean(g) − x̂_d mean(g x̂)),  g_d = γ_d dy_d;   dγ_d = Σ_rows dy x̂_d;   dβ_d = Σ_rows dy_d

**Local response normalisation.** "Lateral inhibition" between neighbouring channels, n = size of them::

    s_c = k + α/n Σ_{j = c − ⌊n/2⌋ … c + ⌊(n−1)/2⌋} x_j²      y_c = x_c s_c^−β
    ∂y_j/∂x_c = s_c^−β [j = c] − β x_j s_j^(−β−1) · 2 α/n x_c   for each j whose neighbourhood holds c, so
    dx_c = dy_c s_c^−β − 2 αβ/n x_c Σ_{j = c − ⌊(n−1)/2⌋ … c + ⌊n/2⌋} dy_j x_j s_j^(−β−1)

α is divided by n as in PyTorch; Krizhevsky's α = 1e-4 without the division is ours times n.

**Local contrast normalisation.** B = mean over the channels, then over the size × size neighbourhood with Gaussian weights::

    v = x − B x      σ = sqrt(B v²)  (H, W)      y = v / D,  D = max(σ, mean of σ over the image, ε)
    dv = dy / D + v/C Bᵀ(dσ/σ),  dD = −Σ_c dy v / D²,  dσ = dD where D = σ, plus its share of dD where D = mean of σ
    dx = dv − 1/C Bᵀ(Σ_c dv)

Source: lecture: convolutional networks; Ioffe & Szegedy, "Batch normalization", 2015 (Algorithm 1); Ba, Kiros & Hinton, "Layer
normalization", 2016; Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012;
Jarrett, Kavukcuoglu, Ranzato & LeCun, "What is the best multi-stage architecture for object recognition?", 2009.
"""

from __future__ import annotations

import math

from cnnlib.backends import kernel, xp_of
from cnnlib.errors import ShapeError, ValueRangeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_ndim, check_not_empty, check_shape

# ---- the textbook. Of x (N, C, S) a channel is [:, c, :]; `column` makes (C,) broadcast against it.


@kernel
def batch_norm_forward(x, gamma, beta, eps):
    d, mean = _centred(x, (0, 2))
    var = (d * d).mean(axis=(0, 2))
    y = d / xp_of(x).sqrt(_column(var) + eps)
    return _scaled(y, _column(gamma), _column(beta)), mean, var


@kernel
def batch_norm_backward(dy, x, gamma, mean, var, eps):
    r = 1 / xp_of(x).sqrt(_column(var) + eps)
    xhat = _recentred(x - _column(mean), (0, 2)) * r
    dgamma, dbeta = (dy * xhat).sum(axis=(0, 2)), dy.sum(axis=(0, 2))
    m = x.shape[0] * x.shape[2]
    dx = _scaled(dy - _column(dbeta / m) - xhat * _column(dgamma / m), _column(gamma), None) * r
    return dx, dgamma, dbeta


@kernel
def batch_norm_inference_forward(x, gamma, beta, mean, var, eps):
    y = (x - _column(mean)) / xp_of(x).sqrt(_column(var) + eps)
    return _scaled(y, _column(gamma), _column(beta))


@kernel
def batch_norm_inference_backward(dy, x, gamma, mean, var, eps):
    r = 1 / xp_of(x).sqrt(_column(var) + eps)
    xhat = (x - _column(mean)) * r
    return _scaled(dy, _column(gamma), None) * r, (dy * xhat).sum(axis=(0, 2)), dy.sum(axis=(0, 2))


@kernel
def layer_norm_forward(x, gamma, beta, eps):
    d, mean = _centred(x, (1,))
    rstd = 1 / xp_of(x).sqrt((d * d).mean(axis=1) + eps)
    return _scaled(d * rstd[:, None], gamma, beta), mean, rstd


@kernel
def layer_norm_backward(dy, x, gamma, mean, rstd):
    xhat = _recentred(x - mean[:, None], (1,)) * rstd[:, None]
    g = _scaled(dy, gamma, None)
    dx = (g - g.mean(axis=1, keepdims=True) - xhat * (g * xhat).mean(axis=1, keepdims=True)) * rstd[:, None]
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def _centred(x, axes):
    """x − μ, and μ. The second mean takes out what rounding μ leaves: at μ = 10⁴ up to 5·10⁻⁴ in float32."""
    mean = x.mean(axis=axes, keepdims=True)
    d = x - mean
    rest = d.mean(axis=axes, keepdims=True)
    return d - rest, (mean + rest).squeeze(axes)


def _recentred(d, axes):
    return d - d.mean(axis=axes, keepdims=True)


def _column(a):
    return None if a is None else a[:, None]


def _scaled(y, gamma, beta):
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta


@kernel
def local_response_norm_forward(x, size, alpha, beta, k):
    s = k + alpha / size * _sum_of_neighbours(x * x, size // 2, (size - 1) // 2)
    return x * s**-beta, s


@kernel
def local_response_norm_backward(dy, x, s, size, alpha, beta):
    inhibition = _sum_of_neighbours(dy * x * s ** (-beta - 1), (size - 1) // 2, size // 2)
    return dy * s**-beta - (2 * alpha * beta / size) * x * inhibition


def _sum_of_neighbours(a, before, after):
    """Over channels c − before … c + after of a (N, C, S)."""
    C = a.shape[1]
    total = a.copy()
    for o in range(1, min(before, C - 1) + 1):
        total[:, o:] += a[:, : C - o]
    for o in range(1, min(after, C - 1) + 1):
        total[:, : C - o] += a[:, o:]
    return total


@kernel
def local_contrast_norm_forward(x, size, sigma, eps):
    xp = xp_of(x)
    d = x - x[:, :1, :1, :1]  # B 1 = 1, so a shift changes nothing, and of a constant image it leaves an exact 0
    v = d - _blur(d.mean(axis=1), size, sigma)[:, None]
    deviation = xp.sqrt(_blur((v * v).mean(axis=1), size, sigma))
    divisor = xp.maximum(xp.maximum(deviation.mean(axis=(1, 2), keepdims=True), deviation), eps)
    return v / divisor[:, None], v, deviation


@kernel
def local_contrast_norm_backward(dy, v, deviation, size, sigma, eps):
    xp = xp_of(dy)
    C = v.shape[1]
    average = deviation.mean(axis=(1, 2), keepdims=True)
    divisor = xp.maximum(xp.maximum(average, deviation), eps)
    ddivisor = -(dy * v).sum(axis=1) / divisor**2
    local = (deviation >= average) & (deviation >= eps)
    whole = ~local & (average >= eps)
    share = xp.where(whole, ddivisor, 0).mean(axis=(1, 2), keepdims=True)
    ddeviation = xp.where(local, ddivisor, 0) + share
    ratio = xp.where(deviation > 0, ddeviation / xp.where(deviation > 0, deviation, 1), 0)  # σ = 0: v is 0 there, too
    dv = dy / divisor[:, None] + v * (_blur_adjoint(ratio, size, sigma) / C)[:, None]
    return dv - (_blur_adjoint(dv.sum(axis=1), size, sigma) / C)[:, None]


def _blur(a, size, sigma):
    """Gaussian-weighted mean of each pixel's neighbourhood in a (N, H, W); at the border the weights inside sum to 1."""
    for axis in (1, 2):
        a = _gaussian_sum(a, axis, size, sigma) / _weight_inside(a, axis, size, sigma)
    return a


def _blur_adjoint(a, size, sigma):
    """Bᵀ a: B is division by the weights inside after a symmetric sum, so Bᵀ is the sum after the division."""
    for axis in (1, 2):
        a = _gaussian_sum(a / _weight_inside(a, axis, size, sigma), axis, size, sigma)
    return a


def _gaussian_sum(a, axis, size, sigma):
    a = a.swapaxes(axis, 2)
    total, n = a.copy(), a.shape[2]
    for o in range(1, min(size // 2, n - 1) + 1):
        weight = math.exp(-0.5 * (o / sigma) ** 2)
        total[:, :, o:] += weight * a[:, :, : n - o]
        total[:, :, : n - o] += weight * a[:, :, o:]
    return total.swapaxes(axis, 2)


def _weight_inside(a, axis, size, sigma):
    shape = [n if i == axis else 1 for i, n in enumerate(a.shape)]
    return _gaussian_sum(xp_of(a).ones(shape, dtype=a.dtype), axis, size, sigma)


# ---- the operations


class BatchNorm(Op):
    """Three outputs: y, and the batch's mean and var (C,), which carry no gradient. Saves x, gamma, mean, var and eps."""

    formula = "y = γ (x − μ) / sqrt(σ² + ε) + β, over the batch"

    @staticmethod
    def forward(ctx, x, gamma=None, beta=None, *, eps=1e-5):
        eps = _check_channels("batch_norm", x, gamma, beta, eps)
        if x.size == x.shape[1]:
            raise ShapeError(
                f"batch_norm: x has one value per channel (x.shape = {x.shape}), so y would be β whatever x is: training needs "
                "N·S > 1. Use a larger batch, or eval() for inference."
            )
        y, mean, var = ctx.kernels.batch_norm_forward(_channels(x), gamma, beta, eps)
        ctx.save(x=x, gamma=gamma, mean=mean, var=var, eps=eps)
        ctx.mark_non_differentiable(1, 2)
        return y.reshape(x.shape), mean, var

    @staticmethod
    def backward(ctx, dy, dmean=None, dvar=None):
        x = _channels(ctx.x)
        dx, dgamma, dbeta = ctx.kernels.batch_norm_backward(dy.reshape(x.shape), x, ctx.gamma, ctx.mean, ctx.var, ctx.eps)
        return dx.reshape(ctx.x.shape), dgamma, dbeta


class BatchNormInference(Op):
    """mean and var are constants: they get no gradient. Saves x, mean, var, gamma and eps."""

    formula = "y = γ (x − μ) / sqrt(σ² + ε) + β, μ and σ² given"

    @staticmethod
    def forward(ctx, x, mean, var, gamma=None, beta=None, *, eps=1e-5):
        eps = _check_channels("batch_norm_inference", x, gamma, beta, eps, mean=mean, var=var)
        ctx.save(x=x, mean=mean, var=var, gamma=gamma, eps=eps)
        return ctx.kernels.batch_norm_inference_forward(_channels(x), gamma, beta, mean, var, eps).reshape(x.shape)

    @staticmethod
    def backward(ctx, dy):
        x = _channels(ctx.x)
        dx, dgamma, dbeta = ctx.kernels.batch_norm_inference_backward(
            dy.reshape(x.shape), x, ctx.gamma, ctx.mean, ctx.var, ctx.eps
        )
        return dx.reshape(ctx.x.shape), None, None, dgamma, dbeta


class LayerNorm(Op):
    """Saves x, gamma, mean and rstd (one each per row), and rows = (R, D)."""

    formula = "y = γ (x − μ) / sqrt(σ² + ε) + β, over each sample"

    @staticmethod
    def forward(ctx, x, gamma=None, beta=None, *, normalized_shape, eps=1e-5):
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        check_float("layer_norm", "x", x)
        check_not_empty("layer_norm", "x", x)
        if not shape or x.shape[-len(shape) :] != shape:
            raise ShapeError(f"layer_norm: normalized_shape {shape} must be the last axes of x, got x.shape = {x.shape}.")
        for name, a in (("gamma", gamma), ("beta", beta)):
            if a is not None:
                check_shape("layer_norm", name, a, shape, "that of normalized_shape")
        rows = (-1, math.prod(shape))
        gamma, beta = (a if a is None else a.reshape(-1) for a in (gamma, beta))
        y, mean, rstd = ctx.kernels.layer_norm_forward(x.reshape(rows), gamma, beta, _check_eps("layer_norm", eps))
        ctx.save(x=x, gamma=gamma, mean=mean, rstd=rstd, rows=rows, normalized_shape=shape)
        return y.reshape(x.shape)

    @staticmethod
    def backward(ctx, dy):
        x = ctx.x.reshape(ctx.rows)
        dx, dgamma, dbeta = ctx.kernels.layer_norm_backward(dy.reshape(x.shape), x, ctx.gamma, ctx.mean, ctx.rstd)
        return dx.reshape(ctx.x.shape), dgamma.reshape(ctx.normalized_shape), dbeta.reshape(ctx.normalized_shape)


class LocalResponseNorm(Op):
    """Saves x, s, the sum in the formula, and size, alpha, beta."""

    formula = "y_c = x_c / (k + α/n Σ_j x_j²)^β, over n neighbouring channels"

    @staticmethod
    def forward(ctx, x, *, size, alpha=1e-4, beta=0.75, k=1.0):
        op = "local_response_norm"
        _check_images(op, x)
        if not isinstance(size, int) or size < 1:
            raise ValueRangeError(f"{op}: size must be a whole number of channels >= 1, got {size!r}.")
        if not (k > 0 and alpha >= 0):
            raise ValueRangeError(
                f"{op}: k must be > 0 and alpha >= 0, so that k + alpha/size Σ x² is positive; got k = {k}, alpha = {alpha}."
            )
        alpha, beta = float(alpha), float(beta)
        y, s = ctx.kernels.local_response_norm_forward(_channels(x), size, alpha, beta, float(k))
        ctx.save(x=x, s=s, size=size, alpha=alpha, beta=beta)
        return y.reshape(x.shape)

    @staticmethod
    def backward(ctx, dy):
        x = _channels(ctx.x)
        dx = ctx.kernels.local_response_norm_backward(dy.reshape(x.shape), x, ctx.s, ctx.size, ctx.alpha, ctx.beta)
        return dx.reshape(ctx.x.shape)


class LocalContrastNorm(Op):
    """Saves v, x less its local mean; deviation, the local σ (N, H, W); size, sigma, eps."""

    formula = "v = x − B x;  y = v / max(σ, mean σ, ε),  σ² = B v²"

    @staticmethod
    def forward(ctx, x, *, size=9, sigma=None, eps=1e-4):
        op = "local_contrast_norm"
        check_float(op, "x", x)
        check_ndim(op, "x", x, 4, "(N, C, H, W)")
        check_not_empty(op, "x", x)
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueRangeError(f"{op}: size must be an odd whole number, so that the window has a middle; got {size!r}.")
        sigma = size / 4 if sigma is None else float(sigma)
        if not sigma > 0:
            raise ValueRangeError(f"{op}: sigma, the width of the Gaussian in pixels, must be > 0, got {sigma}.")
        eps = _check_eps(op, eps)
        y, v, deviation = ctx.kernels.local_contrast_norm_forward(x, size, sigma, eps)
        ctx.save(v=v, deviation=deviation, size=size, sigma=sigma, eps=eps)
        return y

    @staticmethod
    def backward(ctx, dy):
        return ctx.kernels.local_contrast_norm_backward(dy, ctx.v, ctx.deviation, ctx.size, ctx.sigma, ctx.eps)


def _channels(x):
    """x (N, C) or (N, C, *) as (N, C, S)."""
    return x.reshape(*x.shape[:2], -1)


def _check_images(op, x):
    check_float(op, "x", x)
    if x.ndim < 2:
        raise ShapeError(f"{op}: x must have at least 2 axes (N, C, ...), got shape {x.shape}.")
    check_not_empty(op, "x", x)


def _check_eps(op, eps):
    if not eps > 0:
        raise ValueRangeError(f"{op}: eps must be > 0, it keeps the division finite where nothing varies; got {eps}.")
    return float(eps)


def _check_channels(op, x, gamma, beta, eps, **statistics):
    _check_images(op, x)
    for name, a in {"gamma": gamma, "beta": beta, **statistics}.items():
        if a is not None or name in statistics:
            check_shape(op, name, a, x.shape[1:2], "one value per channel of x")
    return _check_eps(op, eps)


# ---- the public functions


def batch_norm(x, gamma=None, beta=None, eps=1e-5):
    """Batch normalisation with the batch's own statistics, as in training.

    x (N, C) or (N, C, ...), gamma and beta (C,) or None -> y of x's shape, mean (C,), var (C,): the last two are the batch's
    (var with 1/m), carry no gradient, and are what :class:`cnnlib.nn.BatchNorm2d` averages.

    >>> import cnnlib as cl
    >>> y, mean, var = cl.ops.batch_norm(cl.Tensor([[1.0, 5.0], [3.0, 5.0]]), eps=1e-12)
    >>> y.numpy(), mean.numpy(), var.numpy()  # doctest: +NORMALIZE_WHITESPACE
    (array([[-1.,  0.], [ 1.,  0.]], dtype=float32), array([2., 5.], dtype=float32), array([1., 0.], dtype=float32))

    Raises ShapeError (axes, empty batch, one value per channel, gamma or beta), ValueRangeError (eps), DtypeError.
    """
    return BatchNorm.apply(x, gamma, beta, eps=eps)


def batch_norm_inference(x, mean, var, gamma=None, beta=None, eps=1e-5):
    """Batch normalisation with given statistics, as in evaluation: x (N, C) or (N, C, ...), the others (C,).
    Raises as :func:`batch_norm`.

    >>> import cnnlib as cl
    >>> cl.ops.batch_norm_inference(cl.Tensor([[1.0], [3.0]]), cl.Tensor([1.0]), cl.Tensor([4.0]), eps=1e-12).numpy()
    array([[0.],
           [1.]], dtype=float32)
    """
    return BatchNormInference.apply(x, mean, var, gamma, beta, eps=eps)


def layer_norm(x, normalized_shape, gamma=None, beta=None, eps=1e-5):
    """Layer normalisation over the last axes of x, whose sizes are ``normalized_shape`` (a number or several).

    x (..., *normalized_shape), gamma and beta of normalized_shape or None -> y of x's shape.

    >>> import cnnlib as cl
    >>> cl.ops.layer_norm(cl.Tensor([[1.0, 3.0], [50.0, 30.0]]), 2, eps=1e-12).numpy()
    array([[-1.,  1.],
           [ 1., -1.]], dtype=float32)

    Raises ShapeError, ValueRangeError (eps), DtypeError.
    """
    return LayerNorm.apply(x, gamma, beta, normalized_shape=normalized_shape, eps=eps)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """Local response normalisation over ``size`` neighbouring channels: x (N, C, ...) -> y of x's shape.

    >>> import cnnlib as cl
    >>> cl.ops.local_response_norm(cl.Tensor([[1.0, 2.0, 0.0]]), 3, alpha=3.0, beta=1.0).numpy()  # x / (1 + Σ x²)
    array([[0.16666667, 0.33333334, 0.        ]], dtype=float32)

    Raises ShapeError, ValueRangeError (settings), DtypeError.
    """
    return LocalResponseNorm.apply(x, size=size, alpha=alpha, beta=beta, k=k)


def local_contrast_norm(x, size=9, sigma=None, eps=1e-4):
    """Local contrast normalisation (subtractive, then divisive) of x (N, C, H, W), Jarrett's with ``size`` 9.

    ``sigma``: width of the Gaussian in pixels, default size / 4. A constant image becomes 0.

    >>> import cnnlib as cl, numpy as np
    >>> float(abs(cl.ops.local_contrast_norm(cl.Tensor(np.full((1, 3, 8, 8), 0.7, np.float32))).numpy()).max())
    0.0

    Raises ShapeError, ValueRangeError (size, sigma, eps), DtypeError.
    """
    return LocalContrastNorm.apply(x, size=size, sigma=sigma, eps=eps)
