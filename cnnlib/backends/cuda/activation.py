"""Activations on CuPy arrays: csrc/activation.cu."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.backends.cuda.source import elements, launch, rows


def _elementwise(name, a, b=None, setting=0.0):
    y = xp_of(a).empty_like(a)
    launch("activation", name, a.dtype.char, *elements(a.size, 4), a.size, float(setting), a, a if b is None else b, y)
    return y


def relu_forward(x):
    return _elementwise("relu", x)


def relu_backward(dy, y):
    return _elementwise("relu_backward", dy, y)


def leaky_relu_forward(x, slope):
    return _elementwise("leaky_relu", x, setting=slope)


def leaky_relu_backward(dy, x, slope):
    return _elementwise("leaky_relu_backward", dy, x, slope)


def elu_forward(x, alpha):
    return _elementwise("elu", x, setting=alpha)


def elu_backward(dy, x, alpha):
    return _elementwise("elu_backward", dy, x, alpha)


def softplus_forward(x):
    return _elementwise("softplus", x)


def softplus_backward(dy, x):
    return _elementwise("softplus_backward", dy, x)


def sigmoid_forward(x):
    return _elementwise("sigmoid", x)


def sigmoid_backward(dy, y):
    return _elementwise("sigmoid_backward", dy, y)


def tanh_forward(x):
    return _elementwise("tanh_activation", x)


def tanh_backward(dy, y):
    return _elementwise("tanh_activation_backward", dy, y)


def _by_rows(name, *arrays):
    y = xp_of(arrays[0]).empty_like(arrays[0])
    R, C = y.shape
    launch("activation", name, y.dtype.char, *rows(R, C), R, C, *arrays, y)
    return y


def softmax_forward(x):
    return _by_rows("softmax", x)


def softmax_backward(dy, y):
    return _by_rows("softmax_backward", dy, y)


def log_softmax_forward(x):
    return _by_rows("log_softmax", x)


def log_softmax_backward(dy, y):
    return _by_rows("log_softmax_backward", dy, y)


def maxout_forward(x):
    R, P, S = x.shape
    xp = xp_of(x)
    y, argmax = xp.empty((R, S), x.dtype), xp.empty((R, S), "uint8")
    launch("activation", "maxout", x.dtype.char, *elements(R * S), R, P, S, x, y, argmax)
    return y, argmax


def maxout_backward(dy, argmax, pieces):
    R, S = dy.shape
    dx = xp_of(dy).empty((R, pieces, S), dy.dtype)
    launch("activation", "maxout_backward", dy.dtype.char, *elements(R * S), R, pieces, S, dy, argmax, dx)
    return dx
