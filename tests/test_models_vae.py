"""The variational autoencoder: its bound against closed forms and integrals, what it draws, what it refuses."""

import math

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import optim
from cnnlib.data import Dataset
from cnnlib.errors import DtypeError, ShapeError, UnknownNameError, ValueRangeError
from cnnlib.models.gan import GAN
from cnnlib.models.vae import VAE, ConvVAE
from cnnlib.tensor import Tensor
from cnnlib.train import ObjectiveTrainer
from tests.nets import check_gradients

RNG = np.random.default_rng(0)


def vae(shape=(4,), latents=2, hidden=(6,), kind=VAE, **options):
    cl.manual_seed(0)
    return kind(shape, latents, hidden, **options)


def pixels(n=5, shape=(4,)):
    return np.random.default_rng(1).random((n, *shape)).astype(np.float32)


# ---- the bound


def log_normal(x, mean, var):
    return -0.5 * (np.log(2 * math.pi * var) + (x - mean) ** 2 / var)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "isotropic"])
def test_the_elbo_is_below_the_likelihood_and_many_draws_reach_it(likelihood):
    """One latent: ln p(x) = ln ∫ p(x | z) p(z) dz, here on a fine grid."""
    net, x = vae(latents=1, likelihood=likelihood), pixels()
    z = np.linspace(-8, 8, 4001, dtype=np.float32)
    with cl.no_grad():
        conditional = net.decode(z[:, None]).log_prob(Tensor(x[:, None])).numpy().sum(axis=2)  # (N, grid)
    joint = conditional + log_normal(z, 0.0, 1.0)
    exact = np.log(np.exp(joint).sum(axis=1) * (z[1] - z[0]))
    estimate = net.log_likelihood(x, samples=2000)
    np.testing.assert_allclose(estimate, exact, atol=0.05)
    with cl.no_grad():
        draws = [sum(t.numpy() for t in net.terms(Tensor(x))) for _ in range(500)]
    bound = -np.mean(draws, axis=0).mean()
    ten = np.mean([net.log_likelihood(x, samples=10) for _ in range(50)])
    assert bound < ten < exact.mean()


def test_the_terms_are_those_of_the_formulas():
    net, x = vae(likelihood="gaussian", beta=3.0), pixels()
    q, state = net.encode(x), cl.random.get_state()
    mean, var = q.mean.numpy().astype(np.float64), q.variance.numpy().astype(np.float64)
    divergence = 0.5 * (var + mean**2 - 1.0 - np.log(var)).sum(axis=1)
    loss, measured = net.objective(Tensor(x), None)
    cl.random.set_state(state)
    p = net.decode(q.rsample())
    reconstruction = -log_normal(x, p.mean.numpy(), p.variance.numpy()).sum(axis=1)
    assert measured["kl"].item() == pytest.approx(divergence.mean(), rel=1e-5)
    assert measured["reconstruction"].item() == pytest.approx(reconstruction.mean(), rel=1e-4)
    assert loss.item() == pytest.approx(reconstruction.mean() + 3.0 * divergence.mean(), rel=1e-4)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "isotropic"])
@pytest.mark.parametrize("conditional", [False, True])
def test_gradients_through_the_draw(likelihood, conditional):
    net, y = vae(likelihood=likelihood, conditional=conditional, classes=3), np.array([0, 2, 1])
    wrapped = Objective(net, y)
    check_gradients(wrapped, lambda loss, _: loss, pixels(3), None)


def test_gradients_of_the_convolutional_one():
    net = vae((1, 4, 8), 2, (2, 5), ConvVAE)
    check_gradients(Objective(net, None), lambda loss, _: loss, pixels(2, (1, 4, 8)), None)


class Objective(cl.nn.Module):
    def __init__(self, net, y):
        super().__init__()
        self.net, self.y = net, y

    def forward(self, x):
        return self.net.objective(x if isinstance(x, Tensor) else Tensor(x), self.y)[0]


def test_a_linear_one_reaches_probabilistic_pca():
    """Tipping & Bishop: the best W spans the first K eigenvectors of the covariance, the best σ² is the mean of the other
    eigenvalues, and ln p(x) is that of N(μ, W Wᵀ + σ² I)."""
    D, K, N = 6, 2, 2000
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, K)) @ rng.normal(size=(K, D)) * 1.5 + 0.5 * rng.normal(size=(N, D)) + rng.normal(size=D)
    x = x.astype(np.float32)
    S = np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(S)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[K:].mean()
    best = -0.5 * (D * np.log(2 * np.pi) + np.log(values[:K]).sum() + (D - K) * np.log(noise) + D)
    net = vae((D,), K, (), likelihood="isotropic")
    optimizer = optim.Adam(net.parameters(), lr=0.02)
    trainer = ObjectiveTrainer(net, optimizer, batch_size=200, progress=False)
    trainer.fit((x, x), epochs=60)
    optimizer.lr = 1e-3
    trainer.fit((x, x), epochs=30)
    elbo = -np.mean([trainer.evaluate((x, x))["loss"] for _ in range(5)])
    assert best - 0.03 < elbo < best + 0.01
    assert net.log_likelihood(x, samples=20).mean() == pytest.approx(best, abs=0.01)
    W = net.decoder._modules["0"].weight.numpy()  # (D, K)
    angles = np.linalg.svd(np.linalg.qr(W)[0].T @ vectors[:, :K], compute_uv=False)
    assert angles.min() > 0.999
    assert np.exp(net.log_var.item()) == pytest.approx(noise, rel=0.03)
    np.testing.assert_allclose(net.decoder._modules["0"].bias.numpy(), x.mean(axis=0), atol=0.05)


# ---- what it draws


def test_samples_are_a_function_of_the_seed_and_touch_no_other_random_numbers():
    net, state = vae(), cl.random.get_state()
    a = net.sample(4, seed=1)
    assert a.shape == (4, 4) and a.min() >= 0 and a.max() <= 1 and cl.random.get_state() == state
    assert np.array_equal(a, net.sample(4, seed=1)) and not np.array_equal(a, net.sample(4, seed=2))


@pytest.mark.parametrize("kind", [VAE, GAN])
def test_samples_in_float64_are_those_in_float32_but_for_rounding(kind):
    net = vae(kind=kind)
    single, double = net.sample(4, seed=1), net.to("float64").sample(4, seed=1)
    assert single.dtype == np.float32 and double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:after epoch 1")  # until z is discovered
def test_a_conditional_one_learns_what_the_class_says_and_z_the_rest():
    """Class c: pixel c is on; four others are on or off together, by chance: that is for z."""
    rng, y = np.random.default_rng(0), np.arange(600) % 3
    x = np.zeros((600, 7), np.float32)
    x[np.arange(600), y] = 1
    x[:, 3:] = rng.random((600, 1)) < 0.5
    net = vae((7,), 1, (16,), conditional=True, classes=3)
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=0.01), batch_size=50, progress=False)
    trainer.fit((x, y), epochs=20)
    drawn = net.sample(300, seed=0, y=np.full(300, 2))
    assert drawn[:, 2].min() > 0.9 and drawn[:, :2].max() < 0.1
    assert 0.3 < (drawn[:, 3] > 0.5).mean() < 0.7
    assert np.array_equal(net.sample(6)[:, :3].argmax(axis=1), [0, 1, 2, 0, 1, 2])
    assert trainer.history[-1]["kl"] == pytest.approx(math.log(2), abs=0.25)  # one fair coin


def test_a_pixel_that_never_changes_does_not_give_infinity():
    net, x = vae((2,), 1, (4,), likelihood="gaussian"), np.zeros((64, 2), np.float32)
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=0.1), batch_size=8, progress=False)
    with pytest.warns(UserWarning, match="the posterior has collapsed"):
        history = trainer.fit((x, x), epochs=40)
    assert history[-1]["reconstruction"] == pytest.approx(log_normal(0.0, 0.0, 1e-3) * -2, abs=0.5)


def test_the_decoders_variance_is_at_least_a_thousandth_and_any_number_above():
    net = vae((2,), 1, (), likelihood="gaussian")
    net.decoder._modules["0"].weight.set(np.zeros((4, 1)))
    for output, variance in ((-60.0, 1e-3), (math.log(1e-3), 2e-3), (3.0, math.exp(3.0))):
        net.decoder._modules["0"].bias.set([0.0, 0.0, output, output])
        np.testing.assert_allclose(net.decode(np.zeros((1, 1), np.float32)).variance.numpy(), variance, rtol=2e-3)


def test_the_likelihood_of_many_pixels_does_not_underflow():
    """p(x) = 2^(−3000) is no float64; its logarithm is one. Here x does not depend on z."""
    net = vae((3000,), 1, ())
    net.decoder._modules["0"].weight.set(np.zeros((3000, 1)))
    net.decoder._modules["0"].bias.set(np.zeros(3000))
    assert net.log_likelihood(pixels(2, (3000,)), samples=500) == pytest.approx(-3000 * math.log(2), abs=0.5)


def test_the_number_of_classes_is_that_of_the_data():
    data = Dataset(np.zeros((4, 1, 2, 3), np.float32), np.arange(4), classes=("a", "b", "c", "d"))
    assert VAE.options_from(data) == {"input_shape": [1, 2, 3], "classes": 4}


# ---- warnings and errors


def test_a_collapsed_posterior_is_named():
    net = vae()
    assert net.concern({"kl": 5.0}) is None
    assert "KL(q(z | x) ‖ N(0, I)) is 0.01 nats, z says nothing of x. A smaller beta" in net.concern({"kl": 0.01})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"likelihood": "gausian"}, UnknownNameError, "did you mean 'gaussian'"),
        ({"latents": 0}, ValueRangeError, "VAE: latents must be a whole number"),
        ({"beta": -1.0}, ValueRangeError, "VAE: beta must be at least 0 and finite, got -1.0"),
        ({"beta": math.nan}, ValueRangeError, "VAE: beta must be at least 0 and finite, got nan"),
        ({"conditional": True, "classes": 0}, ValueRangeError, "VAE: classes must be a whole number >= 1, got 0"),
        ({"kind": ConvVAE, "shape": (1, 6, 8)}, ShapeError, r"multiples of 4, got \(1, 6, 8\): VAE takes any"),
    ],
)
def test_settings_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        vae(**options)


@pytest.mark.parametrize(("value", "came"), [(1.5, r"0 … 1.5"), (-0.25, r"-0.25 … 0"), (math.nan, r"nan … nan")])
def test_pixels_outside_0_and_1_are_refused_under_bernoulli(value, came):
    x = np.zeros((2, 4), np.float32)
    x[1, 2] = value
    with pytest.raises(
        ValueRangeError, match=f"under likelihood 'bernoulli' x must be in 0 … 1, got {came}: divide pixels by 255"
    ):
        vae().objective(Tensor(x))
    if not math.isnan(value):
        assert np.isfinite(vae(likelihood="gaussian").objective(Tensor(x))[0].item())


def test_a_variance_that_overflows_is_named():
    net = vae()
    net.posterior._modules["2"].bias.set(np.full(4, 100.0, np.float32))
    with pytest.raises(ValueRangeError, match=r"Normal: ln σ² is .* overflows float32"):
        net.objective(Tensor(pixels()))


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueRangeError, "a conditional model of 3 classes needs labels y"),
        (np.zeros(5, np.float32), DtypeError, "labels y must be integers, got float32"),
        (np.zeros(4, np.int64), ShapeError, r"one label for each of 5 samples, got shape \(4,\)"),
        (np.full(5, 3), ValueRangeError, "labels must be in 0 … 2, got 3 … 3"),
    ],
)
def test_labels_of_a_conditional_one(y, error, message):
    with pytest.raises(error, match=message):
        vae(conditional=True, classes=3).objective(Tensor(pixels()), y)


def test_samples_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"VAE: x must have shape \(N, 4\), N at least 1, got \(2, 5\)"):
        vae().encode(np.zeros((2, 5), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bound"), [("mnist", 110.0), ("fashion", 248.5)])
def test_the_bound_after_five_epochs(name, bound):
    where = next(row.where for row in cl.data.info() if row.name == name)
    if where.startswith(("would download", "unusable")):
        pytest.skip(f"{name} is not on this machine")
    train, test = cl.data.load(name)
    cl.manual_seed(7)
    net = VAE()
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-3), batch_size=128, seed=7, progress=False)
    assert trainer.fit(train, test, epochs=5)[-1]["validation_loss"] <= bound
