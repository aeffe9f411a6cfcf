"""Steps of the optimisers on CuPy arrays, in place: csrc/optim.cu.

``lr`` may be an array of one float64 on the device, ``step`` one of one int64: their values count when the kernel runs, so that
a recorded graph follows a schedule.
"""

from __future__ import annotations

from cnnlib.backends.cuda.source import elements, launch


def _step(name, w, *arguments):
    launch("optim", name, w.dtype.char, *elements(w.size, 4), w.size, *arguments)


def _rate(lr, w):
    """(number, where to find it), one of them void."""
    return (0.0, lr) if isinstance(lr, type(w)) else (float(lr), None)


def sgd_step(w, dw, velocity, lr, momentum, dampening, weight_decay, nesterov):
    settings = float(momentum), float(dampening), float(weight_decay), int(nesterov)
    _step("sgd_step", w, *_rate(lr, w), *settings, w, dw, velocity)


def adagrad_step(w, dw, square_sum, lr, eps, weight_decay):
    _step("adagrad_step", w, *_rate(lr, w), float(eps), float(weight_decay), w, dw, square_sum)


def rmsprop_step(w, dw, square_avg, grad_avg, velocity, lr, alpha, eps, weight_decay, momentum):
    settings = float(alpha), float(eps), float(weight_decay), float(momentum)
    _step("rmsprop_step", w, *_rate(lr, w), *settings, w, dw, square_avg, grad_avg, velocity)


def adam_step(w, dw, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    t = (0, step) if isinstance(step, type(w)) else (int(step), None)
    settings = float(beta1), float(beta2), float(eps), float(weight_decay), int(decoupled)
    _step("adam_step", w, *_rate(lr, w), *t, *settings, w, dw, m, v)
