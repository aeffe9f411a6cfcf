"""Pooling on CuPy arrays: csrc/pool.cu."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.backends.cuda.source import THREADS, elements, launch

LARGE_WINDOW = 64  # from here on, a warp shares a window
PLANES = 4  # that a thread goes through


def max_pool2d_forward(x, kernel_size, stride, pads):
    xp, shape = xp_of(x), _y_shape(x.shape, kernel_size, stride, pads)
    bytes_suffice = kernel_size[0] * kernel_size[1] <= 256
    y, argmax = xp.empty(shape, x.dtype), xp.empty(shape, "uint8" if bytes_suffice else "int32")
    _forward("max_pool2d", x, y, kernel_size, stride, pads, int(bytes_suffice), x, y, argmax)
    return y, argmax


def max_pool2d_backward(dy, argmax, x_shape, kernel_size, stride, pads):
    bytes_suffice = int(kernel_size[0] * kernel_size[1] <= 256)
    return _backward("max_pool2d_backward", dy, x_shape, kernel_size, stride, pads, bytes_suffice, dy, argmax)


def avg_pool2d_forward(x, kernel_size, stride, pads, count_include_pad):
    y = xp_of(x).empty(_y_shape(x.shape, kernel_size, stride, pads), x.dtype)
    _forward("avg_pool2d", x, y, kernel_size, stride, pads, int(count_include_pad), x, y)
    return y


def avg_pool2d_backward(dy, x_shape, kernel_size, stride, pads, count_include_pad):
    return _backward("avg_pool2d_backward", dy, x_shape, kernel_size, stride, pads, int(count_include_pad), dy)


def lp_pool2d_forward(x, p, kernel_size, stride, pads):
    y = xp_of(x).empty(_y_shape(x.shape, kernel_size, stride, pads), x.dtype)
    _forward("lp_pool2d", x, y, kernel_size, stride, pads, float(p), x, y)
    return y


def lp_pool2d_backward(dy, x, y, p, kernel_size, stride, pads):
    return _backward("lp_pool2d_backward", dy, x.shape, kernel_size, stride, pads, float(p), dy, x, y)


def _y_shape(x_shape, kernel_size, stride, pads):
    N, C, H, W = x_shape
    OH = (H + pads[0] + pads[1] - kernel_size[0]) // stride[0] + 1
    OW = (W + pads[2] + pads[3] - kernel_size[1]) // stride[1] + 1
    return N, C, OH, OW


def _geometry(x_shape, y_shape, kernel_size, stride, pads):
    N, C, H, W = x_shape
    return N * C, H, W, *y_shape[2:], *kernel_size, *stride, pads[0], pads[2]


def window_lanes(kernel_size):
    """How many threads share a window."""
    return 32 if kernel_size[0] * kernel_size[1] >= LARGE_WINDOW else 1


def _forward(name, x, y, kernel_size, stride, pads, *arguments):
    lanes = window_lanes(kernel_size)
    outputs = THREADS // lanes  # in a block
    geometry = _geometry(x.shape, y.shape, kernel_size, stride, pads)
    places = _groups(y.shape) * y.shape[2] * y.shape[3]
    launch("pool", name, x.dtype.char, (-(-places // outputs),), (lanes, outputs), *geometry, *arguments)


def _backward(name, dy, x_shape, kernel_size, stride, pads, *arguments):
    dx = xp_of(dy).empty(x_shape, dy.dtype)
    geometry = _geometry(x_shape, dy.shape, kernel_size, stride, pads)
    places = _groups(x_shape) * x_shape[2] * x_shape[3]
    launch("pool", name, dy.dtype.char, *elements(places), *geometry, *arguments, dx)
    return dx


def _groups(shape):
    """of PLANES planes."""
    return -(-shape[0] * shape[1] // PLANES)
