"""Cross-entropy on CuPy arrays: csrc/loss.cu."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.backends.cuda import errors
from cnnlib.backends.cuda.source import launch, rows


def cross_entropy_forward(x, labels, weight, label_smoothing, ignore_index):
    R, C = x.shape
    xp = xp_of(x)
    loss, lse = xp.empty(R, x.dtype), xp.empty(R, x.dtype)
    arguments = R, C, float(label_smoothing), int(ignore_index), x, labels, weight, loss, lse
    launch("loss", "cross_entropy", x.dtype.char, *rows(R, C), *arguments)
    return loss, lse


def cross_entropy_backward(dloss, x, labels, lse, weight, label_smoothing, ignore_index):
    R, C = x.shape
    dx = xp_of(x).empty_like(x)
    arguments = R, C, float(label_smoothing), int(ignore_index), dloss, x, labels, lse, weight, dx
    launch("loss", "cross_entropy_backward", x.dtype.char, *rows(R, C), *arguments)
    return dx


def check_labels(op, x, labels, weight, ignore_index, reduction):
    """(labels, count) for x (N, C, ...), on the device: labels (R,) int64 with 0 in place of those outside of 0 … C − 1; what a
    mean over them divides by, their number or weights without those ignored, as an array (). Errors go to the error word."""
    xp = xp_of(x)
    clean, count = xp.empty_like(labels), xp.empty((), x.dtype)
    ignored = (0, 0) if ignore_index is None else (1, int(ignore_index))
    bits = errors.bit(op), errors.bit(f"{op} mean") if reduction == "mean" else 0
    arguments = labels.size, x.shape[1], *ignored, labels, weight, *bits, errors.word(), clean, count
    launch("loss", "check_labels", x.dtype.char, (1,), (1024,), *arguments)
    return clean, count
