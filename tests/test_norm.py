"""Normalisations: formulas written out, running statistics, hard numbers."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.backends import available, kernel_set
from cnnlib.errors import ShapeError, ValueRangeError

BACKENDS = [
    name for name in ("reference", "cpu") if available()[name] is None and hasattr(kernel_set(name), "batch_norm_forward")
]


@pytest.fixture(params=BACKENDS)
def backend(request):
    with cl.use(request.param):
        yield request.param


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def far_from_zero(*shape, mean=1e4, std=1e-2):
    return (mean + std * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


class TestBatchNorm:
    @pytest.mark.parametrize("shape", [(8, 3), (300, 70), (4, 3, 5), (2, 5, 7, 9), (3, 2, 40, 41), (64, 1, 8, 8)])
    def test_formula(self, backend, shape):
        x, C = normal(*shape, dtype=np.float64), shape[1]
        gamma, beta = normal(C, dtype=np.float64, seed=1), normal(C, dtype=np.float64, seed=2)
        y, mean, var = ops.batch_norm(x, gamma, beta, eps=0.01)
        for c in range(C):
            values = x[:, c].ravel()
            mu, sigma2 = values.sum() / values.size, ((values - values.mean()) ** 2).sum() / values.size
            np.testing.assert_allclose([mean.numpy()[c], var.numpy()[c]], [mu, sigma2], rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(
                y.numpy()[:, c], gamma[c] * (x[:, c] - mu) / np.sqrt(sigma2 + 0.01) + beta[c], atol=1e-12
            )

    def test_statistics_carry_no_gradient(self, backend):
        y, mean, var = ops.batch_norm(cl.Tensor(normal(4, 3), requires_grad=True))
        assert y.requires_grad and not mean.requires_grad and not var.requires_grad

    def test_gradient_is_orthogonal_to_one_and_to_x(self, backend):
        """y does not change when x is shifted or (but for eps) scaled."""
        x = cl.Tensor(normal(6, 3, 4, 4, dtype=np.float64), requires_grad=True)
        ops.batch_norm(x, eps=1e-12)[0].backward(normal(6, 3, 4, 4, dtype=np.float64, seed=1))
        np.testing.assert_allclose(x.grad.sum(axis=(0, 2, 3)), 0, atol=1e-10)
        np.testing.assert_allclose((x.grad * x.data).sum(axis=(0, 2, 3)), 0, atol=1e-10)

    @pytest.mark.parametrize("shape", [(16, 2, 5, 5), (400, 3)])
    def test_constant_channel(self, backend, shape):
        x = np.full(shape, 0.3, np.float32)
        x[:, 1] = 1e6
        t = cl.Tensor(x, requires_grad=True)
        y, mean, var = ops.batch_norm(t, np.ones(shape[1], np.float32), np.full(shape[1], 0.25, np.float32))
        np.testing.assert_array_equal(y.numpy(), 0.25)
        np.testing.assert_array_equal(var.numpy(), 0)
        np.testing.assert_array_equal(mean.numpy(), x.reshape(shape[0], shape[1], -1)[0, :, 0])
        y.backward(normal(*shape))
        assert np.isfinite(t.grad).all()

    @pytest.mark.parametrize("shape", [(32, 2, 14, 14), (500, 3), (7, 2, 3)])
    def test_mean_much_larger_than_deviation(self, backend, shape):
        x, gamma = far_from_zero(*shape), normal(shape[1], seed=3)
        dy = normal(*shape, seed=1)
        exact = [ops.BatchNorm.run(x.astype(np.float64), gamma.astype(np.float64))]
        exact += [ops.BatchNorm.backward(exact[0][1], dy.astype(np.float64))]
        (y, mean, var), ctx = ops.BatchNorm.run(x, gamma)
        dx, dgamma, _ = ops.BatchNorm.backward(ctx, dy)
        (y64, mean64, var64), (dx64, dgamma64, _) = exact[0][0], exact[1]
        np.testing.assert_allclose(mean, mean64, rtol=1e-7)
        np.testing.assert_allclose(var, var64, rtol=1e-5)
        np.testing.assert_allclose(y, y64, atol=1e-4)
        np.testing.assert_allclose(dgamma, dgamma64, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(dx, dx64, rtol=1e-3, atol=1e-4 * abs(dx64).max())

    def test_an_outlier_first(self, backend):
        """A one-pass variance that is shifted by the first value loses everything here."""
        x = normal(8, 1, 30, 30)
        x[0, 0, 0, 0] = 1e4
        _, _, var = ops.batch_norm(x)
        np.testing.assert_allclose(var.numpy(), x.astype(np.float64).var(), rtol=1e-6)

    def test_nan_stays_in_its_channel(self, backend):
        x = normal(4, 3, 5, 5)
        x[1, 1, 2, 2] = np.nan
        y, mean, var = (t.numpy() for t in ops.batch_norm(x))
        assert np.isnan(y[:, 1]).all() and np.isnan(mean[1]) and np.isnan(var[1])
        assert np.isfinite(y[:, [0, 2]]).all()


class TestBatchNormModule:
    def test_running_statistics(self, backend):
        bn = nn.BatchNorm2d(3)
        x, z = normal(4, 3, 5, 5), 3 + 2 * normal(2, 3, 4, 4, seed=1)
        bn(x)
        bn(z)
        expected_mean, expected_var = np.zeros(3), np.ones(3)
        for batch in (x.astype(np.float64), z.astype(np.float64)):
            expected_mean = 0.9 * expected_mean + 0.1 * batch.mean(axis=(0, 2, 3))
            expected_var = 0.9 * expected_var + 0.1 * batch.var(axis=(0, 2, 3), ddof=1)  # the unbiased variance
        np.testing.assert_allclose(bn.running_mean, expected_mean, rtol=1e-5)
        np.testing.assert_allclose(bn.running_var, expected_var, rtol=1e-5)
        assert bn.num_batches_tracked == 2
        assert bn.running_mean.dtype == bn.running_var.dtype == np.float32

    def test_evaluation_uses_and_keeps_them(self, backend):
        bn = nn.BatchNorm1d(3)
        bn(normal(8, 3))
        before = bn.state_dict()
        x = 5 + normal(1, 3)
        y = bn.eval()(x)
        np.testing.assert_allclose(y.numpy(), (x - bn.running_mean) / np.sqrt(bn.running_var + 1e-5), rtol=1e-5)
        for name, value in bn.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    def test_momentum_none_averages_over_all_batches(self, backend):
        bn = nn.BatchNorm1d(2, momentum=None)
        batches = [normal(6, 2, seed=i) for i in range(4)]
        for x in batches:
            bn(x)
        np.testing.assert_allclose(bn.running_mean, np.mean([x.mean(axis=0) for x in batches], axis=0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(bn.running_var, np.mean([x.var(axis=0, ddof=1) for x in batches], axis=0), rtol=1e-5)

    def test_without_running_statistics(self, backend):
        bn = nn.BatchNorm1d(2, affine=False, track_running_stats=False).eval()
        assert bn.state_dict() == {}
        np.testing.assert_allclose(bn(normal(8, 2)).numpy().mean(axis=0), 0, atol=1e-6)

    def test_state_survives_a_round_trip(self, backend):
        bn, other = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        bn(normal(3, 2, 4, 4))
        assert sorted(bn.state_dict()) == ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
        other.load_state_dict(bn.state_dict())
        x = normal(3, 2, 4, 4, seed=1)
        np.testing.assert_array_equal(bn.eval()(x).numpy(), other.eval()(x).numpy())

    def test_refusals(self):
        with pytest.raises(ShapeError, match=r"BatchNorm2d: x must have axes \(N, C, H, W\), got shape \(2, 3\)"):
            nn.BatchNorm2d(3)(normal(2, 3))
        with pytest.raises(ShapeError, match=r"BatchNorm1d\(4\): x has 3 channels"):
            nn.BatchNorm1d(4)(normal(2, 3))
        with pytest.raises(ShapeError, match="one value per channel"):
            nn.BatchNorm1d(3)(normal(1, 3))
        with pytest.raises(ValueRangeError, match="BatchNorm2d: num_features must be a whole number >= 1, got 0"):
            nn.BatchNorm2d(0)
        with pytest.raises(ValueRangeError, match="BatchNorm1d: momentum, the weight of the new batch, must be in 0 <= m"):
            nn.BatchNorm1d(3, momentum=2)

    def test_repr(self):
        assert repr(nn.BatchNorm2d(8)) == "BatchNorm2d(8)"
        assert repr(nn.BatchNorm1d(8, eps=0.01, affine=False)) == "BatchNorm1d(8, eps=0.01, affine=False)"


class TestLayerNorm:
    @pytest.mark.parametrize("shape, normalized", [((5, 3), 3), ((3, 130), 130), ((2, 4, 6), (4, 6)), ((7,), 7), ((3, 1), 1)])
    def test_formula(self, backend, shape, normalized):
        x = normal(*shape, dtype=np.float64)
        axes = tuple(range(-1 if isinstance(normalized, int) else -len(normalized), 0))
        expected = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
        np.testing.assert_allclose(ops.layer_norm(x, normalized).numpy(), expected, rtol=1e-12, atol=1e-13)

    def test_mean_much_larger_than_deviation(self, backend):
        x, dy = far_from_zero(5, 200), normal(5, 200)
        y64, ctx64 = ops.LayerNorm.run(x.astype(np.float64), normalized_shape=200)
        y, ctx = ops.LayerNorm.run(x, normalized_shape=200)
        np.testing.assert_allclose(y, y64, atol=1e-4)
        dx, dx64 = ops.LayerNorm.backward(ctx, dy)[0], ops.LayerNorm.backward(ctx64, dy.astype(np.float64))[0]
        np.testing.assert_allclose(dx, dx64, atol=1e-4 * abs(dx64).max())

    def test_module(self, backend):
        x = normal(4, 3, 5)
        module = nn.LayerNorm((3, 5))
        np.testing.assert_array_equal(module(x).numpy(), ops.layer_norm(x, (3, 5)).numpy())
        assert sorted(module.state_dict()) == ["bias", "weight"] and module.weight.shape == (3, 5)


class TestLocalResponseNorm:
    @pytest.mark.parametrize("C, size", [(7, 5), (6, 4), (3, 9), (1, 1), (20, 2)])
    def test_formula(self, backend, C, size):
        x = normal(2, C, 3, 11, dtype=np.float64)
        y = ops.local_response_norm(x, size, alpha=0.3, beta=0.6, k=1.5).numpy()
        for c in range(C):
            near = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
            np.testing.assert_allclose(y[:, c], x[:, c] / (1.5 + 0.3 / size * (near**2).sum(axis=1)) ** 0.6, rtol=1e-12)

    def test_beta_of_alexnet(self, backend):
        x = normal(2, 8, 5, 5, dtype=np.float64) * 30
        module = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        s = np.stack([2 + 1e-4 * (x[:, max(0, c - 2) : c + 3] ** 2).sum(axis=1) for c in range(8)], axis=1)
        np.testing.assert_allclose(module(x).numpy(), x / s**0.75, rtol=1e-12)


class TestLocalContrastNorm:
    def slow(self, x, size, sigma, eps):
        H, W = x.shape[2:]

        def blur(a):  # (C, H, W) -> (H, W)
            out = np.zeros((H, W))
            for h in range(H):
                for w in range(W):
                    total = weights = 0.0
                    for p in range(max(0, h - size // 2), min(H, h + size // 2 + 1)):
                        for q in range(max(0, w - size // 2), min(W, w + size // 2 + 1)):
                            g = np.exp(-((p - h) ** 2 + (q - w) ** 2) / (2 * sigma**2))
                            total, weights = total + g * a[:, p, q].mean(), weights + g
                    out[h, w] = total / weights
            return out

        v = np.stack([image - blur(image) for image in x])
        deviation = np.stack([np.sqrt(blur(image**2)) for image in v])
        return v / np.maximum(np.maximum(deviation.mean(axis=(1, 2), keepdims=True), deviation), eps)[:, None]

    @pytest.mark.parametrize("shape, size, sigma", [((2, 3, 8, 9), 5, 1.2), ((1, 1, 3, 4), 9, 2.0), ((1, 2, 6, 37), 3, 0.7)])
    def test_formula(self, backend, shape, size, sigma):
        x = normal(*shape, dtype=np.float64)
        np.testing.assert_allclose(
            ops.local_contrast_norm(x, size, sigma).numpy(), self.slow(x, size, sigma, 1e-4), rtol=1e-10, atol=1e-12
        )

    @pytest.mark.parametrize("value", [0.0, 0.7, 1e3, -1e6])
    def test_constant_image_becomes_0(self, backend, value):
        x = cl.Tensor(np.full((2, 3, 20, 37), value, np.float32), requires_grad=True)
        y = nn.LocalContrastNorm()(x)
        assert not y.numpy().any()
        y.backward(normal(2, 3, 20, 37))
        assert np.isfinite(x.grad).all()

    def test_brightness_and_contrast_do_not_matter(self, backend):
        x = normal(2, 3, 12, 12, dtype=np.float64)
        np.testing.assert_allclose(ops.local_contrast_norm(5 * x + 3).numpy(), ops.local_contrast_norm(x).numpy(), atol=1e-10)
