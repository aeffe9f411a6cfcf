"""Normalisations on CuPy arrays: csrc/norm.cu and csrc/norm_local.cu."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.backends.cuda.linear import linear_backward_bias
from cnnlib.backends.cuda.source import THREADS, elements, launch, rows

PART = 4096  # numbers of a part of a channel: 16 for each thread, so that reading them outweighs adding up
MOST_PARTS = 32  # a warp adds them up, as in csrc/norm.cu
ROWS_OF_PART = 64  # of a sum over rows: eight for each warp


def _cut(N, S):
    """How csrc/norm.cu cuts a channel of N runs of S numbers: runs and numbers of a part, threads along S; number of parts."""
    length = min(S, max(PART, -(-S // MOST_PARTS)))
    across = -(-S // length)
    runs = max(1, PART // length, -(-N // max(1, MOST_PARTS // across)))
    lanes = max(1, min(THREADS, (1 << (length - 1).bit_length()) // 4))  # each reads four numbers of a run
    return (runs, length, lanes), -(-N // runs) * across


def _mean_of_nothing(x, n, results):
    return [xp_of(x).full(n, float("nan"), x.dtype) for _ in range(results)]


def batch_norm_forward(x, gamma, beta, eps):
    xp, (N, C, S) = xp_of(x), x.shape
    if not N * S:
        return xp.empty_like(x), *_mean_of_nothing(x, C, 2)
    cut, parts = _cut(N, S)
    moments = xp.empty((C, parts, 3), "d")
    y, mean, var = xp.empty_like(x), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    launch("norm", "batch_norm_moments", x.dtype.char, (C * parts,), (THREADS,), N, C, S, *cut, parts, x, moments)
    arrays = x, gamma, beta, moments, y, mean, var
    launch("norm", "batch_norm", x.dtype.char, (C * parts,), (THREADS,), N, C, S, *cut, parts, eps, *arrays)
    return y, mean, var


def batch_norm_backward(dy, x, gamma, mean, var, eps):
    return _batch_norm_backward(dy, x, gamma, mean, var, eps, given=0)


def _batch_norm_backward(dy, x, gamma, mean, var, eps, given):
    """``given``: 1 where the statistics are constants."""
    xp, (N, C, S) = xp_of(x), x.shape
    if not N * S:
        return xp.empty_like(x), xp.zeros(C, x.dtype), xp.zeros(C, x.dtype)
    cut, parts = _cut(N, S)
    sums = xp.empty((C, parts, 3), "d")
    dx, dgamma, dbeta = xp.empty_like(x), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    launch("norm", "batch_norm_sums", x.dtype.char, (C * parts,), (THREADS,), N, C, S, *cut, parts, dy, x, mean, sums)
    arrays = dy, x, gamma, mean, var, sums, dx, dgamma, dbeta
    launch("norm", "batch_norm_backward", x.dtype.char, (C * parts,), (THREADS,), N, C, S, *cut, parts, given, eps, *arrays)
    return dx, dgamma, dbeta


def batch_norm_inference_forward(x, gamma, beta, mean, var, eps):
    N, C, S = x.shape
    y = xp_of(x).empty_like(x)
    if not N * S:
        return y
    cut, parts = _cut(N, S)
    arrays = x, gamma, beta, mean, var, y
    launch("norm", "batch_norm_inference", x.dtype.char, (C * parts,), (THREADS,), N, C, S, *cut, parts, eps, *arrays)
    return y


def batch_norm_inference_backward(dy, x, gamma, mean, var, eps):
    return _batch_norm_backward(dy, x, gamma, mean, var, eps, given=1)


def layer_norm_forward(x, gamma, beta, eps):
    xp, (R, D) = xp_of(x), x.shape
    if not D:
        return xp.empty_like(x), *_mean_of_nothing(x, R, 2)
    y, mean, rstd = xp.empty_like(x), xp.empty(R, x.dtype), xp.empty(R, x.dtype)
    launch("norm", "layer_norm", x.dtype.char, *rows(R, D), R, D, eps, x, gamma, beta, y, mean, rstd)
    return y, mean, rstd


def layer_norm_backward(dy, x, gamma, mean, rstd):
    xp, (R, D) = xp_of(x), x.shape
    dx, rest = xp.empty_like(x), xp.empty(R, x.dtype)
    launch("norm", "layer_norm_backward", x.dtype.char, *rows(R, D), R, D, dy, x, gamma, mean, rstd, dx, rest)
    rows_of_part = max(ROWS_OF_PART, -(-R // ROWS_OF_PART))
    parts = -(-R // rows_of_part)
    sums, arrays = xp.empty((parts, 2 * D), x.dtype), (dy, x, mean, rstd, rest)
    grid = (-(-D // 32) * parts,)
    launch("norm", "layer_norm_parameters", x.dtype.char, grid, (32, 8), R, D, rows_of_part, *arrays, sums)
    sums = sums[0] if parts == 1 else linear_backward_bias(sums)
    return dx, sums[:D], sums[D:]


# ---- within a neighbourhood


def _local(name, like, n, *arguments):
    launch("norm_local", name, like.dtype.char, *elements(n), n, *arguments)


def local_response_norm_forward(x, size, alpha, beta, k):
    y, s = xp_of(x).empty_like(x), xp_of(x).empty_like(x)
    _local("local_response_norm", x, x.size, *x.shape[1:], size, alpha / size, beta, k, x, y, s)
    return y, s


def local_response_norm_backward(dy, x, s, size, alpha, beta):
    dx, inhibition = xp_of(x).empty_like(x), xp_of(x).empty_like(x)
    _local("local_response_norm_inhibition", x, x.size, beta, dy, x, s, inhibition)
    _local("local_response_norm_backward", x, x.size, *x.shape[1:], size, alpha / size, beta, dy, x, s, inhibition, dx)
    return dx


class _Images:
    """Launches of the local contrast norm's kernels: pixel by pixel, number by number, image by image."""

    def __init__(self, x, size, sigma):
        self.xp, self.char, self.dtype = xp_of(x), x.dtype.char, x.dtype
        self.N, self.C, self.H, self.W = x.shape
        self.M, self.radius = self.H * self.W, min(size // 2, max(self.H, self.W))
        weights = self.radius + 1 + self.H + self.W
        self.weights = self.xp.empty(weights, x.dtype)
        self._launch("gaussian", elements(weights), self.H, self.W, self.radius, sigma, self.weights)

    def _launch(self, name, shape, *arguments):
        launch("norm_local", name, self.char, *shape, *arguments)

    def maps(self):
        return self.xp.empty((self.N, self.H, self.W), self.dtype)

    def pixels(self, name, *arguments):
        self._launch(name, elements(self.N * self.M), self.N, *arguments)

    def numbers(self, name, *arguments):
        n = self.N * self.C * self.M
        self._launch(name, elements(n), n, self.C, self.M, *arguments)

    def means(self, a, roots=None):
        mean = self.xp.empty(self.N, self.dtype)
        self._launch("lcn_image_mean", ((self.N,), (THREADS,)), self.M, a, roots, mean)
        return mean

    def blurred(self, a, adjoint=0):
        for along_rows in (0, 1):
            out = self.maps()
            self.pixels("blur", self.H, self.W, self.radius, along_rows, adjoint, self.weights, a, out)
            a = out
        return a


def local_contrast_norm_forward(x, size, sigma, eps):
    images, xp = _Images(x, size, sigma), xp_of(x)
    C, M = images.C, images.M
    v, y, mean, squares, deviation = xp.empty_like(x), xp.empty_like(x), images.maps(), images.maps(), images.maps()
    images.pixels("lcn_channel_mean", C, M, x, mean)
    images.pixels("lcn_centred", C, M, x, images.blurred(mean), v, squares)
    images.numbers("lcn_divide", eps, v, deviation, images.means(images.blurred(squares), deviation), y)
    return y, v, deviation


def local_contrast_norm_backward(dy, v, deviation, size, sigma, eps):
    images, dx = _Images(v, size, sigma), xp_of(v).empty_like(v)
    C, M = images.C, images.M
    local, whole, total, mean = images.maps(), images.maps(), images.maps(), images.means(deviation)
    images.pixels("lcn_divisor_backward", C, M, eps, dy, v, deviation, mean, local, whole)
    images.pixels("lcn_ratio", M, deviation, images.means(whole), local)
    images.pixels("lcn_centred_backward", C, M, eps, dy, v, deviation, mean, images.blurred(local, 1), dx, total)
    images.numbers("lcn_subtract", images.blurred(total, 1), dx)
    return dx
