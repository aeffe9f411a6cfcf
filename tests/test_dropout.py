"""Dropout, masking, salt-and-pepper and Gaussian noise: fractions, masks, evaluation, equality of runs and backends."""

import math

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Tensor, nn, ops
from cnnlib import random as streams
from cnnlib.backends import available

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None]
each_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def same_random_numbers():
    cl.manual_seed(0)


def ones(*shape, **kw):
    return Tensor(np.ones(shape, np.float32), **kw)


@each_backend
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_fraction_of_zeros_is_p_and_the_mean_is_kept(backend, p):
    n = 100_000
    with cl.use(backend):
        y = ops.dropout(ones(n), p).numpy()
    assert abs((y == 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    np.testing.assert_array_equal(y[y != 0], np.float32(1) / np.float32(1 - p))


@each_backend
@pytest.mark.parametrize("operation", [ops.dropout, ops.masking_noise])
def test_backward_uses_the_mask_of_forward(backend, operation):
    x = ones(37, 5, requires_grad=True)
    with cl.use(backend):
        y = operation(x, 0.4)
        y.backward(np.ones((37, 5), np.float32))
    np.testing.assert_array_equal(x.grad, y.numpy())
    assert 0 < (x.grad == 0).sum() < x.size


def test_backward_twice_uses_the_same_mask_though_others_were_drawn_in_between():
    x = ones(64, requires_grad=True)
    y = ops.dropout(x)
    ops.dropout(x)
    y.backward(np.ones(64, np.float32), retain=True)
    first = x.grad.copy()
    ops.dropout(x)
    y.backward(np.ones(64, np.float32))
    np.testing.assert_array_equal(x.grad, 2 * first)


def test_what_is_saved_is_a_bit_per_element():
    y, ctx = ops.Dropout.run(np.ones(1000, np.float32), p=0.3)
    assert set(ctx.saved) == {"p", "keep"} and ctx.keep.shape == (125,) and ctx.keep.dtype == np.uint8
    np.testing.assert_array_equal(ops.Dropout.backward(ctx, np.ones(1000, np.float32)), y)


def test_every_call_draws_another_mask_and_a_seed_repeats_them():
    runs = []
    for _ in range(2):
        cl.manual_seed(5)
        runs.append([ops.dropout(ones(200)).numpy() for _ in range(3)])
    assert not np.array_equal(runs[0][0], runs[0][1]) and not np.array_equal(runs[0][1], runs[0][2])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the compiled kernels were not built")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 1023, 1024, 1025, 10_007])
def test_masks_are_equal_bit_for_bit_on_every_instruction_set(dtype, n):
    from cnnlib.backends import cpu

    x = np.random.default_rng(0).standard_normal(n).astype(dtype)
    with cl.use("reference"):
        expected = {p: _with_seed(ops.dropout, x, p) for p in (0.25, 0.5, 1 - 2.0**-33)}
    try:
        for isa in cpu.available_isas():
            cpu.set_isa(isa)
            with cl.use("cpu"):
                for p, y in expected.items():
                    np.testing.assert_array_equal(_with_seed(ops.dropout, x, p), y)
    finally:
        cpu.set_isa(None)


def _with_seed(operation, x, p):
    cl.manual_seed(9)
    return operation(x, p).numpy()


@each_backend
def test_dropped_nan_and_infinity_are_zero(backend):
    x = np.full(1000, np.nan, np.float32)
    x[::2] = np.inf
    with cl.use(backend):
        y = ops.dropout(x, 0.5).numpy()
        mask = _with_seed(ops.dropout, np.ones(1000, np.float32), 0.5)
        cl.manual_seed(9)
        y = ops.dropout(x, 0.5).numpy()
    np.testing.assert_array_equal(y == 0, mask == 0)


@pytest.mark.parametrize("operation", [ops.dropout, ops.masking_noise, ops.salt_and_pepper_noise, ops.gaussian_noise])
def test_evaluation_passes_x_on_and_draws_nothing(operation):
    x = ones(5)
    before = streams.get_state()
    assert operation(x, 0.5, training=False) is x
    assert operation(x, 0.0) is x
    np.testing.assert_array_equal(operation(np.ones(3), 0.5, training=False).numpy(), np.ones(3))
    assert streams.get_state() == before


@each_backend
def test_salt_and_pepper_are_as_many_and_stop_the_gradient(backend):
    n, p = 100_000, 0.3
    x = Tensor(np.full(n, 0.5, np.float32), requires_grad=True)
    with cl.use(backend):
        y = ops.salt_and_pepper_noise(x, p)
        y.backward(np.ones(n, np.float32))
    shares = [(y.numpy() == value).mean() for value in (0.0, 1.0)]
    assert all(abs(share - p / 2) < 5 * math.sqrt(p / 2 / n) for share in shares)
    np.testing.assert_array_equal(x.grad, y.numpy() == 0.5)


def test_gaussian_noise_has_its_standard_deviation():
    n = 50_000
    x = Tensor(np.zeros(n, np.float32), requires_grad=True)
    y = ops.gaussian_noise(x, 0.3)
    assert abs(y.numpy().std() - 0.3) < 5 * 0.3 / math.sqrt(2 * n) and abs(y.numpy().mean()) < 5 * 0.3 / math.sqrt(n)
    y.backward(np.full(n, 2, np.float32))
    np.testing.assert_array_equal(x.grad, np.full(n, 2, np.float32))


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.MaskingNoise(0.5), nn.SaltAndPepperNoise(0.5), nn.GaussianNoise(0.5)], ids=repr
)
def test_layers_follow_the_mode(layer):
    x = ones(100)
    assert not np.array_equal(layer.train()(x).numpy(), x.numpy())
    assert layer.eval()(x) is x


def test_repr_shows_the_settings():
    assert [repr(layer) for layer in (nn.Dropout(0.2), nn.MaskingNoise(), nn.GaussianNoise(0.3))] == [
        "Dropout(p=0.2)",
        "MaskingNoise(p=0.5)",
        "GaussianNoise(std=0.3)",
    ]
