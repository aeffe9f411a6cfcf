"""Pooling: the lecture's examples, an independent slow reference, NaN, padding and the argmax."""

import itertools

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.backends import available, kernel_set
from cnnlib.errors import ShapeError

BACKENDS = [
    name for name in ("reference", "cpu") if available()[name] is None and hasattr(kernel_set(name), "max_pool2d_forward")
]


@pytest.fixture(params=BACKENDS)
def backend(request):
    with cl.use(request.param):
        yield request.param


def image(rows):
    return cl.Tensor(np.array(rows, np.float32)[None, None])


def windows(x, kernel_size, stride, pads, output_size):
    """((n, c, oh, ow), [((h, w), k), ...]) of each window: its pixels inside the image with their offsets."""
    N, C, H, W = x.shape
    for n, c, oh, ow in itertools.product(range(N), range(C), *map(range, output_size)):
        pixels = []
        for kh, kw in itertools.product(*map(range, kernel_size)):
            h, w = oh * stride[0] - pads[0] + kh, ow * stride[1] - pads[2] + kw
            if 0 <= h < H and 0 <= w < W:
                pixels.append(((n, c, h, w), kh * kernel_size[1] + kw))
        yield (n, c, oh, ow), pixels


def slow_max(x, kernel_size, stride, pads, output_size, dy):
    y, argmax, dx = np.empty(dy.shape, x.dtype), np.empty(dy.shape, int), np.zeros_like(x)
    for out, pixels in windows(x, kernel_size, stride, pads, output_size):
        best = max(range(len(pixels)), key=lambda i: (x[pixels[i][0]], -i))
        y[out], argmax[out] = x[pixels[best][0]], pixels[best][1]
        dx[pixels[best][0]] += dy[out]
    return y, argmax, dx


def slow_average(x, kernel_size, stride, pads, output_size, dy, count_include_pad):
    y, dx = np.empty(dy.shape, x.dtype), np.zeros_like(x)
    for out, pixels in windows(x, kernel_size, stride, pads, output_size):
        m = kernel_size[0] * kernel_size[1] if count_include_pad else len(pixels)
        y[out] = sum(x[p] for p, _ in pixels) / m
        for p, _ in pixels:
            dx[p] += dy[out] / m
    return y, dx


def slow_lp(x, kernel_size, stride, pads, output_size, dy, p):
    y, dx = np.empty(dy.shape, x.dtype), np.zeros_like(x)
    for out, pixels in windows(x, kernel_size, stride, pads, output_size):
        y[out] = sum(abs(x[i]) ** p for i, _ in pixels) ** (1 / p)
        for i, _ in pixels:
            dx[i] += dy[out] * np.sign(x[i]) * (abs(x[i]) / y[out]) ** (p - 1) if y[out] else 0
    return y, dx


GEOMETRIES = [  # shape, kernel, stride, pads
    ((2, 3, 6, 8), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((1, 2, 7, 37), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((1, 2, 9, 75), (3, 3), (2, 2), (0, 0, 0, 0)),
    ((2, 1, 8, 66), (3, 3), (2, 2), (1, 1, 1, 1)),
    ((1, 2, 8, 36), (3, 3), (2, 2), (0, 1, 0, 1)),
    ((1, 2, 7, 35), (2, 2), (2, 2), (1, 1, 1, 1)),
    ((1, 2, 5, 70), (3, 3), (1, 1), (1, 1, 1, 1)),
    ((2, 2, 9, 8), (3, 2), (1, 3), (1, 0, 1, 1)),
    ((1, 1, 6, 40), (2, 5), (3, 2), (0, 1, 2, 2)),
    ((1, 2, 19, 20), (17, 18), (1, 1), (0, 0, 0, 0)),
    ((2, 3, 7, 7), (7, 7), (7, 7), (0, 0, 0, 0)),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
]


@pytest.mark.parametrize("shape, kernel_size, stride, pads", GEOMETRIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_slow_loops(backend, shape, kernel_size, stride, pads, dtype):
    rng = np.random.default_rng(0)
    kernels = kernel_set(backend)
    geometry = kernel_size, stride, pads
    x = rng.integers(-3, 4, shape).astype(dtype)  # many ties
    output_size = ops.conv.output_size(shape[2:], *geometry, (1, 1))
    dy = rng.integers(-8, 9, (*shape[:2], *output_size)).astype(dtype)  # sums are exact

    y, argmax = kernels.max_pool2d_forward(x, *geometry)
    expected_y, expected_argmax, expected_dx = slow_max(x, *geometry, output_size, dy)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(argmax, expected_argmax)
    assert argmax.dtype == (np.uint8 if kernel_size[0] * kernel_size[1] <= 256 else np.int32)
    np.testing.assert_array_equal(kernels.max_pool2d_backward(dy, argmax, shape, *geometry), expected_dx)

    tolerance = {"rtol": 2e-6, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-13, "atol": 1e-13}
    for include in (True, False):
        expected_y, expected_dx = slow_average(x, *geometry, output_size, dy, include)
        np.testing.assert_allclose(kernels.avg_pool2d_forward(x, *geometry, include), expected_y, **tolerance)
        np.testing.assert_allclose(kernels.avg_pool2d_backward(dy, shape, *geometry, include), expected_dx, **tolerance)
    for p in (1.0, 2.0, 2.7):
        expected_y, expected_dx = slow_lp(x.astype("float64"), *geometry, output_size, dy, p)
        y = kernels.lp_pool2d_forward(x, p, *geometry)
        np.testing.assert_allclose(y, expected_y, rtol=20 * tolerance["rtol"])
        dx = kernels.lp_pool2d_backward(dy, x, y, p, *geometry)
        np.testing.assert_allclose(dx, expected_dx, rtol=20 * tolerance["rtol"], atol=50 * tolerance["atol"])


class TestLectureExamples:
    def test_max(self, backend):
        x = image([[2, 8, 9, 4], [3, 6, 5, 7], [3, 1, 6, 4], [2, 5, 7, 3]])
        np.testing.assert_array_equal(ops.max_pool2d(x, 2).numpy()[0, 0], [[8, 9], [5, 7]])

    def test_max_and_average(self, backend):
        x = image([[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]])
        np.testing.assert_array_equal(ops.max_pool2d(x, 2).numpy()[0, 0], [[20, 30], [112, 37]])
        np.testing.assert_array_equal(ops.avg_pool2d(x, 2).numpy()[0, 0], [[13, 8], [79, 19.5]])

    def test_backward_goes_to_the_winner(self, backend):
        x = cl.Tensor(image([[2, 8, 9, 4], [3, 6, 5, 7]]).data, requires_grad=True)
        ops.max_pool2d(x, 2).backward(np.array([[[[10, 20]]]], np.float32))
        np.testing.assert_array_equal(x.grad[0, 0], [[0, 10, 20, 0], [0, 0, 0, 0]])

    def test_overlapping_windows_add_up(self, backend):
        x = cl.Tensor(image([[0, 0, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 0, 0, 0]]).data, requires_grad=True)
        ops.max_pool2d(x, 3, stride=2).backward(np.array([[[[10, 20]]]], np.float32))
        assert x.grad[0, 0, 1, 2] == 30 and x.grad.sum() == 30


class TestArgmax:
    def test_one_byte_up_to_256_pixels(self, backend):
        x = np.zeros((1, 1, 17, 17), np.float32)
        assert ops.MaxPool2d.run(x, kernel_size=16)[1].argmax.dtype == np.uint8
        assert ops.MaxPool2d.run(x, kernel_size=(16, 17))[1].argmax.dtype == np.int32

    def test_last_offset_of_a_byte(self, backend):
        x = np.zeros((1, 1, 16, 16), np.float32)
        x[..., 15, 15] = 1
        assert ops.MaxPool2d.run(x, kernel_size=16)[1].argmax.item() == 255

    def test_first_of_several_maxima(self, backend):
        _, ctx = ops.MaxPool2d.run(np.ones((1, 1, 6, 70), np.float32), kernel_size=2)
        assert not ctx.argmax.any()

    @pytest.mark.parametrize("kernel_size, stride, padding", [(2, 2, 0), (2, 2, 1), (3, 2, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2)])
    def test_padding_never_wins(self, backend, kernel_size, stride, padding):
        for value in (-1.0, -np.inf):
            x = np.full((1, 2, 40, 41), value, np.float32)
            y, ctx = ops.MaxPool2d.run(x, kernel_size=kernel_size, stride=stride, padding=padding)
            assert (y == value).all()
            assert ops.MaxPool2d.backward(ctx, np.ones_like(y)).sum() == y.size

    @pytest.mark.parametrize("kernel_size, stride, padding", [(2, 2, 0), (2, 2, 1), (3, 2, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2)])
    def test_first_nan_wins(self, backend, kernel_size, stride, padding):
        rng = np.random.default_rng(1)
        x = rng.standard_normal((1, 1, 40, 43)).astype(np.float32)
        x[rng.random(x.shape) < 0.1] = np.nan
        x[rng.random(x.shape) < 0.05] = np.inf
        y, ctx = ops.MaxPool2d.run(x, kernel_size=kernel_size, stride=stride, padding=padding)
        for out, pixels in windows(x, *ctx.geometry, y.shape[2:]):
            values = [x[p] for p, _ in pixels]
            best = int(np.argmax(values))  # NumPy's argmax, too, returns the first NaN
            assert np.array_equal(y[out], values[best], equal_nan=True) and ctx.argmax[out] == pixels[best][1]


def test_ceil_mode_reaches_beyond_the_image(backend):
    x = image([[1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(ops.max_pool2d(x, (1, 2)).numpy()[0, 0], [[2, 4]])
    np.testing.assert_array_equal(ops.max_pool2d(x, (1, 2), ceil_mode=True).numpy()[0, 0], [[2, 4, 5]])
    assert ops.max_pool2d(x, (1, 1), (1, 3), ceil_mode=True).shape == (1, 1, 1, 2)  # a third window would begin outside


def test_average_of_padding(backend):
    x = image(np.ones((2, 2)))
    np.testing.assert_array_equal(ops.avg_pool2d(x, 2, padding=1).numpy()[0, 0], np.full((2, 2), 0.25))
    np.testing.assert_array_equal(ops.avg_pool2d(x, 2, padding=1, count_include_pad=False).numpy()[0, 0], np.ones((2, 2)))


def test_lp_of_zeros_has_zero_gradient(backend):
    for p in (1, 2, 3.5):
        x = cl.Tensor(np.zeros((1, 1, 4, 4), np.float32), requires_grad=True)
        ops.lp_pool2d(x, p, 2).sum().backward()
        assert not x.grad.any()


def test_lp_tends_to_the_maximum(backend):
    x = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 8, 8))
    np.testing.assert_allclose(ops.lp_pool2d(x, 200, 2).numpy(), ops.max_pool2d(x, 2).numpy(), rtol=1e-2)


def test_one_dimension_is_two_with_one_row(backend):
    x = np.random.default_rng(0).standard_normal((2, 3, 19)).astype(np.float32)
    for one, two in [
        (ops.max_pool1d(x, 3, 2, 1), ops.max_pool2d(x[:, :, None], (1, 3), (1, 2), (0, 1))),
        (ops.avg_pool1d(x, 4), ops.avg_pool2d(x[:, :, None], (1, 4))),
        (ops.lp_pool1d(x, 2, 3), ops.lp_pool2d(x[:, :, None], 2, (1, 3))),
    ]:
        np.testing.assert_array_equal(one.numpy(), two.numpy()[:, :, 0])


def test_global_pools(backend):
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 20))
    np.testing.assert_allclose(ops.global_avg_pool2d(x).numpy(), x.mean(axis=(2, 3)), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(ops.global_max_pool2d(x).numpy(), x.max(axis=(2, 3)))


def test_modules_call_the_functions(backend):
    x = cl.Tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 9)).astype(np.float32))
    signal = x.reshape(2, 3, 72)
    for module, y in [
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), ops.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), ops.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
        (nn.LPPool2d(2, 3, stride=1), ops.lp_pool2d(x, 2, 3, 1)),
        (nn.GlobalAvgPool2d(), ops.global_avg_pool2d(x)),
        (nn.GlobalMaxPool2d(), ops.global_max_pool2d(x)),
    ]:
        np.testing.assert_array_equal(module(x).numpy(), y.numpy())
    for module, y in [
        (nn.MaxPool1d(3, 2), ops.max_pool1d(signal, 3, 2)),
        (nn.AvgPool1d(4), ops.avg_pool1d(signal, 4)),
        (nn.LPPool1d(3, 2), ops.lp_pool1d(signal, 3, 2)),
    ]:
        np.testing.assert_array_equal(module(signal).numpy(), y.numpy())
    assert repr(nn.MaxPool2d(3, 2, ceil_mode=True)) == "MaxPool2d(3, stride=2, ceil_mode=True)"
    assert repr(nn.AvgPool1d(4)) == "AvgPool1d(4)"


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="reaches over"):
        nn.MaxPool2d(5)(image([[1, 2], [3, 4]]))
