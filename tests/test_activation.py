"""Activations at their limits: no overflow, NaN and infinity, derivatives at the kink, noise, layers."""

import math
import warnings

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Tensor, nn, ops
from cnnlib.backends import available

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

ELEMENTWISE = [ops.relu, ops.leaky_relu, ops.elu, ops.softplus, ops.sigmoid, ops.tanh]


@pytest.fixture(autouse=True)
def same_random_numbers():
    cl.manual_seed(0)


def value_and_derivative(function, x, backend):
    t = Tensor(np.asarray(x), requires_grad=True)
    with cl.use(backend), warnings.catch_warnings():
        warnings.simplefilter("error")
        y = function(t)
        y.backward(np.ones_like(y.data))
    return y.numpy(), t.grad


LIMITS = {  # function: (y at -1e4, y at 1e4, y' at -1e4, y' at 1e4)
    ops.relu: (0, 1e4, 0, 1),
    ops.leaky_relu: (-100, 1e4, 0.01, 1),
    ops.elu: (-1, 1e4, 0, 1),
    ops.softplus: (0, 1e4, 0, 1),
    ops.sigmoid: (0, 1, 0, 0),
    ops.tanh: (-1, 1, 0, 0),
}


@each_backend
@each_dtype
@pytest.mark.parametrize("function", LIMITS, ids=lambda f: f.__name__)
def test_far_from_zero(function, dtype, backend):
    y, dx = value_and_derivative(function, np.array([-1e4, 1e4], dtype), backend)
    np.testing.assert_allclose([*y, *dx], LIMITS[function], rtol=1e-6)
    assert y.dtype == dx.dtype == dtype


@each_backend
@each_dtype
@pytest.mark.parametrize("function", LIMITS, ids=lambda f: f.__name__)
def test_infinity_and_nan_come_through(function, dtype, backend):
    with cl.use(backend), np.errstate(all="ignore"):
        y = function(np.array([-np.inf, np.inf, np.nan, *np.zeros(30)], dtype)).numpy()
    low, high = (LIMITS[function][0], LIMITS[function][1])
    assert y[0] == (-np.inf if low < -1 else low) and y[1] == (np.inf if high > 1 else high) and np.isnan(y[2])


@each_backend
@each_dtype
def test_small_x_keeps_its_digits(dtype, backend):
    x = np.array([-1e-6, 1e-6, -1e-20, 1e-20], dtype)
    with cl.use(backend):
        np.testing.assert_allclose(ops.elu(x).numpy(), np.where(x > 0, x, np.expm1(x)), rtol=1e-6)
        np.testing.assert_allclose(ops.tanh(x).numpy(), x, rtol=1e-6)


@each_backend
@pytest.mark.parametrize(
    ("function", "expected"),
    [(ops.relu, 0.0), (ops.leaky_relu, 0.01), (ops.elu, 1.0), (ops.softplus, 0.5), (ops.sigmoid, 0.25), (ops.tanh, 1.0)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_derivative_at_zero(function, expected, backend):
    for zero in (0.0, -0.0):
        assert value_and_derivative(function, np.array([zero]), backend)[1] == [expected]


def test_the_derivative_of_sigmoid_is_at_most_a_quarter():
    _, dx = value_and_derivative(ops.sigmoid, np.linspace(-10, 10, 1001), "reference")
    assert dx.max() == 0.25 and dx.argmax() == 500


# ---- softmax


@each_backend
@each_dtype
@pytest.mark.parametrize("C", [1, 2, 10, 16, 17, 1000])
def test_softmax_at_large_logits(C, dtype, backend):
    x = np.zeros((3, C), dtype)
    x[0, 0], x[1, C // 2], x[2] = 1e4, -1e4, 1e4
    with cl.use(backend), warnings.catch_warnings():
        warnings.simplefilter("error")
        y = ops.softmax(x).numpy()
        log_y = ops.log_softmax(x).numpy()
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
    assert y[0, 0] == 1 and (C == 1 or y[1, C // 2] == 0)
    np.testing.assert_allclose(log_y[2], -math.log(C), rtol=1e-6, atol=1e-6)
    assert np.isfinite(log_y).all() and (C == 1 or log_y[0, 1] == -1e4)


@each_backend
def test_softmax_does_not_change_when_all_logits_are_shifted(backend):
    x = np.random.default_rng(0).standard_normal((5, 7))
    with cl.use(backend):
        np.testing.assert_allclose(ops.softmax(x + 100).numpy(), ops.softmax(x).numpy(), rtol=1e-12)
        np.testing.assert_allclose(np.exp(ops.log_softmax(x).numpy()), ops.softmax(x).numpy(), rtol=1e-13)


@each_backend
def test_masked_logits_get_probability_zero(backend):
    x = np.array([[0.0, -np.inf, 0.0]], np.float32)
    with cl.use(backend):
        np.testing.assert_array_equal(ops.softmax(x).numpy(), [[0.5, 0.0, 0.5]])


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_softmax_along_any_axis(axis):
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    e = np.exp(x)
    np.testing.assert_allclose(ops.softmax(x, axis).numpy(), e / e.sum(axis=axis, keepdims=True), rtol=1e-13)


@each_backend
def test_an_adjoint_that_is_equal_for_all_classes_changes_nothing(backend):
    """Softmax sees differences of logits only."""
    t = Tensor(np.random.default_rng(0).standard_normal((4, 9)), requires_grad=True)
    with cl.use(backend):
        ops.softmax(t).backward(np.ones((4, 9)))
    np.testing.assert_allclose(t.grad, 0, atol=1e-15)


# ---- maxout


@each_backend
def test_at_a_tie_the_first_piece_wins_and_nan_before_all(backend):
    x = np.array([[1.0, 1.0, 0.0, 2.0, 5.0, np.nan]])
    with cl.use(backend):
        y, ctx = ops.Maxout.run(x, pieces=2)
    np.testing.assert_array_equal(y, [[1.0, 2.0, np.nan]])
    np.testing.assert_array_equal(ops.Maxout.backward(ctx, np.array([[1.0, 2.0, 3.0]])), [[1.0, 0.0, 0.0, 2.0, 0.0, 3.0]])


@each_backend
def test_maxout_of_maps(backend):
    x = np.random.default_rng(0).standard_normal((2, 6, 4, 5)).astype(np.float32)
    with cl.use(backend):
        np.testing.assert_array_equal(ops.maxout(x, 3).numpy(), x.reshape(2, 2, 3, 4, 5).max(axis=2))
        np.testing.assert_array_equal(ops.maxout(x, 5, axis=-1).numpy(), x.max(axis=-1, keepdims=True))


# ---- noisy ReLU


@each_backend
def test_noisy_relu_adds_the_noise_that_it_saves(backend):
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    with cl.use(backend):
        y, ctx = ops.NoisyReLU.run(x, std=0.5)
        np.testing.assert_array_equal(y, np.maximum(x + ctx.noise, 0))
        np.testing.assert_array_equal(ops.NoisyReLU.backward(ctx, np.ones_like(x)), x + ctx.noise > 0)
    assert abs(ctx.noise.std() - 0.5) < 5 * 0.5 / math.sqrt(2000) and ctx.noise.dtype == np.float32


def test_noisy_relu_draws_anew_in_training_and_not_in_evaluation():
    layer, x = nn.NoisyReLU(0.5), Tensor(np.ones(100, np.float32))
    assert not np.array_equal(layer(x).numpy(), layer(x).numpy())
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x.numpy())


# ---- layers


@pytest.mark.parametrize(
    ("layer", "function", "text"),
    [
        (nn.ReLU(), ops.relu, "ReLU()"),
        (nn.LeakyReLU(0.2), lambda x: ops.leaky_relu(x, 0.2), "LeakyReLU(negative_slope=0.2)"),
        (nn.ELU(0.5), lambda x: ops.elu(x, 0.5), "ELU(alpha=0.5)"),
        (nn.Softplus(), ops.softplus, "Softplus()"),
        (nn.Sigmoid(), ops.sigmoid, "Sigmoid()"),
        (nn.Tanh(), ops.tanh, "Tanh()"),
        (nn.Softmax(dim=0), lambda x: ops.softmax(x, 0), "Softmax(dim=0)"),
        (nn.LogSoftmax(), ops.log_softmax, "LogSoftmax(dim=-1)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_call_their_operation(layer, function, text):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(layer(Tensor(x)).numpy(), function(x).numpy())
    assert repr(layer) == text


@each_backend
@pytest.mark.parametrize("function", ELEMENTWISE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 1, 3, 1, 2, 1, 2, 1, 2)], ids=str)
def test_any_shape(function, shape, backend):
    x = np.full(shape, 0.5, np.float32)
    y, dx = value_and_derivative(function, x, backend)
    assert y.shape == dx.shape == shape
