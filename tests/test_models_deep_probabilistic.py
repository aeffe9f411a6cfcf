"""Deep probabilistic models: their losses are likelihoods, their optima those of the formulas, MAP is weight decay."""

import numpy as np
import pytest
from scipy import stats

import cnnlib as cl
from cnnlib import Tensor, models, ops, optim
from cnnlib.errors import NonFiniteError, ShapeError, UnknownNameError, ValueRangeError
from cnnlib.models.deep_probabilistic import log_prior, weight_decay_of
from cnnlib.models.predictive import Predictive

rng = np.random.default_rng(0)
F32 = np.float32


def fit(net, x, y, steps, lr=0.02, weight_decay=0.0):
    opt = optim.Adam(net.parameters(), lr=lr, weight_decay=weight_decay)
    for _ in range(steps):
        net.zero_grad()
        net.loss(net(Tensor(x)), y).backward()
        opt.step()
    return net


def regression(n=40, d=3, noise=0.3, seed=0):
    r = np.random.default_rng(seed)
    x, w = r.standard_normal((n, d)), r.standard_normal(d)
    return x.astype(F32), (x @ w + 0.5 + noise * r.standard_normal(n))[:, None].astype(F32)


# ---- losses are likelihoods


@pytest.mark.parametrize("noise", ["fixed", "learnt", "input"])
def test_the_gaussian_loss_is_the_density(noise):
    cl.manual_seed(0)
    net = models.GaussianRegression(3, (5,), 2, noise, beta=4.0)
    x, y = rng.standard_normal((7, 3)).astype(F32), rng.standard_normal((7, 2)).astype(F32)
    mean, log_var = (t.numpy() for t in net(Tensor(x)))
    expected = -stats.norm(mean, np.exp(0.5 * log_var)).logpdf(y).sum(axis=1).mean()
    assert net.loss(net(Tensor(x)), y).item() == pytest.approx(expected, rel=1e-5)
    if noise == "input":
        log_var = log_var - net.network(Tensor(x)).numpy()[:, 2:]  # what the network adds to the start
    np.testing.assert_allclose(np.exp(log_var), 0.25, rtol=1e-5)


def test_with_fixed_noise_the_loss_is_half_beta_times_the_squared_error():
    cl.manual_seed(0)
    net = models.GaussianRegression(3, (5,), noise="fixed", beta=4.0)
    x, y = regression()
    net.loss(net(Tensor(x)), y).backward()
    gradients = [p.grad for p in net.parameters() if p.requires_grad]
    net.zero_grad()
    (0.5 * 4.0 * ops.mse_loss(net(Tensor(x))[0], y)).backward()
    for p, g in zip((p for p in net.parameters() if p.requires_grad), gradients, strict=True):
        np.testing.assert_allclose(g, p.grad, rtol=1e-4, atol=1e-6)
    assert net.log_var.grad is None


def test_the_classifiers_losses_are_cross_entropies():
    cl.manual_seed(0)
    x = Tensor(rng.standard_normal((6, 2)).astype(F32))
    net, y = models.BernoulliClassifier(2, (4,), 3), rng.integers(0, 2, (6, 3)).astype(F32)
    expected = ops.binary_cross_entropy_with_logits(net(x), y, reduction="sum").item() / 6
    assert net.loss(net(x), y).item() == pytest.approx(expected, rel=1e-6)
    net, y = models.CategoricalClassifier(2, (4,), 3), rng.integers(0, 3, 6)
    assert net.loss(net(x), y).item() == pytest.approx(ops.cross_entropy(net(x), y).item(), rel=1e-6)


@pytest.mark.parametrize("kind", [models.GaussianRegression, models.MixtureOfExperts, models.MCDropout], ids=repr)
def test_regressions_measure_the_squared_error_of_the_mean(kind):
    net, (x, y) = kind(3, **({"data_size": 40} if kind is models.MCDropout else {})).eval(), regression()
    expected = ((net.mean(net(Tensor(x))) - y) ** 2).mean()
    assert float(net.objective(Tensor(x), Tensor(y))[1]["squared_error"]) == pytest.approx(expected, rel=1e-6)
    if kind is not models.MCDropout:
        assert expected == pytest.approx(net.predictive(x).rmse(y) ** 2, rel=1e-5)


def test_classifiers_measure_the_share_of_right_answers():
    x = np.array([[-2.0], [-0.1], [0.1], [2.0], [3.0]], F32)
    net = models.BernoulliClassifier(1, ())
    net.network[1].weight.set([[1.0]])
    net.network[1].bias.set([0.0])
    assert net.objective(Tensor(x), np.array([0, 0, 1, 0, 1], F32))[1]["accuracy"] == 0.8  # logits above 0 are a 1
    net = models.CategoricalClassifier(1, (), 2)
    net.network[1].weight.set([[1.0], [-1.0]])
    net.network[1].bias.set([0.0, 0.0])
    assert net.objective(Tensor(x), np.array([1, 1, 0, 0, 1]))[1]["accuracy"] == 0.8


# ---- optima


def test_learnt_noise_becomes_the_mean_squared_error():
    """∂/∂β (β/2 · MSE − ½ ln β) = 0 at 1/β = MSE."""
    x, y = regression(200)
    net = fit(models.GaussianRegression(3, ()), x, y, 400)
    w, residual, *_ = np.linalg.lstsq(np.hstack([x, np.ones((200, 1))]), y, rcond=None)
    np.testing.assert_allclose(net.network.state_dict()["1.weight"][0], w[:3, 0], atol=1e-3)
    np.testing.assert_allclose(np.exp(net.log_var.numpy()), residual / 200, rtol=0.01)


def test_noise_of_the_input_is_found():
    """y = N(0, σ(x)²), σ from 0.1 to 1: ln σ² is linear in x."""
    x = np.linspace(0, 1, 3000, dtype=F32)[:, None]
    y = (np.exp(-2.3 * (1 - x)) * np.random.default_rng(1).standard_normal((3000, 1))).astype(F32)
    net = fit(models.GaussianRegression(1, (), noise="input"), x, y, 400, lr=0.05)
    p = net.predictive(np.array([[0.0], [0.5], [1.0]], F32))
    np.testing.assert_allclose(np.sqrt(p.aleatoric[:, 0]), [0.1, 0.316, 1.0], rtol=0.08)
    np.testing.assert_array_equal(p.epistemic, 0.0)
    found, homoscedastic = (net.predictive(x).log_likelihood(y), fit(models.GaussianRegression(1, ()), x, y, 300))
    assert found > homoscedastic.predictive(x).log_likelihood(y) + 0.2


# ---- MAP is weight decay


@pytest.mark.parametrize("noise", ["learnt", "input"])
def test_the_gradient_of_the_log_prior_is_weight_decay(noise):
    """Step by step, gradient descent on the posterior is gradient descent on the likelihood with weight decay 1 / (N τ²)."""
    x, y = regression()
    std, n = 0.7, len(x)
    cl.manual_seed(0)
    posterior, decayed = (models.GaussianRegression(3, (5,), noise=noise).to("float64") for _ in range(2))
    decayed.load_state_dict(posterior.state_dict())
    x, y = x.astype(float), y.astype(float)
    with_prior = optim.SGD(posterior.parameters(), lr=0.05)
    with_decay = optim.SGD(decayed.parameters(), lr=0.05, weight_decay=weight_decay_of(std, n))
    for _ in range(20):
        posterior.zero_grad(), decayed.zero_grad()
        (posterior.loss(posterior(Tensor(x)), y) - log_prior(posterior, std) / n).backward()
        decayed.loss(decayed(Tensor(x)), y).backward()
        with_prior.step(), with_decay.step()
    for (name, a), b in zip(posterior.state_dict().items(), decayed.state_dict().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15, err_msg=name)


def test_map_of_a_linear_model_is_ridge_regression():
    x, y = regression(noise=1.0)
    beta, std = 4.0, 0.5
    net = models.GaussianRegression(3, (), noise="fixed", beta=beta)
    fit(net, x, y, 600, lr=0.05, weight_decay=weight_decay_of(std, len(x)))
    phi = np.hstack([x, np.ones((len(x), 1))]).astype(float)
    exact = np.linalg.solve(beta * phi.T @ phi + np.eye(4) / std**2, beta * phi.T @ y)[:, 0]
    state = net.network.state_dict()
    np.testing.assert_allclose(np.append(state["1.weight"][0], state["1.bias"]), exact, atol=2e-3)


def test_the_prior_is_scipys_density():
    net = models.GaussianRegression(2, (3,))
    expected = sum(stats.norm(0, 0.6).logpdf(p.numpy()).sum() for p in net.parameters())
    assert log_prior(net, 0.6).item() == pytest.approx(expected, rel=1e-5)


# ---- mixture of experts


def inverse_problem(n=400):
    """Bishop's: y is asked for x = y + 0.3 sin 2πy + noise, which has up to three answers."""
    r = np.random.default_rng(0)
    y = r.uniform(size=(n, 1))
    x = y + 0.3 * np.sin(2 * np.pi * y) + 0.05 * r.standard_normal((n, 1))
    return tuple(((a - 0.5) / 0.3).astype(F32) for a in (x, y))


def test_one_expert_is_a_gaussian_regression():
    cl.manual_seed(0)
    net = models.MixtureOfExperts(2, experts=1, hidden=(4,), out_features=2)
    x, y = Tensor(rng.standard_normal((6, 2)).astype(F32)), rng.standard_normal((6, 2)).astype(F32)
    assert net.loss(net(x), y).item() == pytest.approx(net.experts[0].loss(net.experts[0](x), y).item(), rel=1e-6)
    ours, expert = net.predictive(x), net.experts[0].predictive(x)
    np.testing.assert_allclose(ours.mean, expert.mean, rtol=1e-6)
    np.testing.assert_allclose(ours.aleatoric, expert.aleatoric, rtol=1e-5)


def test_the_mixtures_loss_and_moments_are_those_of_its_density():
    cl.manual_seed(1)
    net = models.MixtureOfExperts(1, experts=3)
    x = np.array([[0.3]], F32)
    logits, means, log_vars = (t.numpy()[0] for t in net(Tensor(x)))
    share = np.exp(logits) / np.exp(logits).sum()
    grid = np.linspace(-12, 12, 20001)
    density = sum(
        s * stats.norm(m, np.exp(v / 2)).pdf(grid) for s, m, v in zip(share, means[:, 0], log_vars[:, 0], strict=True)
    )
    p = net.predictive(x)
    mean = np.trapezoid(grid * density, grid)
    assert p.mean.item() == pytest.approx(mean, rel=1e-4)
    assert p.aleatoric.item() == pytest.approx(np.trapezoid((grid - mean) ** 2 * density, grid), rel=1e-4)
    y = np.array([[0.7]], F32)
    assert net.loss(net(Tensor(x)), y).item() == pytest.approx(-np.log(np.interp(0.7, grid, density)), rel=1e-4)


def test_an_expert_learns_by_its_responsibility():
    cl.manual_seed(0)
    net = models.MixtureOfExperts(1, experts=3)
    x, y = inverse_problem(20)
    logits, means, log_vars = net(Tensor(x))
    means = Tensor(means.numpy(), requires_grad=True)
    (20 * net.loss((logits, means, log_vars), y)).backward()
    alone = (means.numpy() - y[:, None]) / np.exp(log_vars.numpy())  # the derivative of −ln N
    np.testing.assert_allclose(means.grad[..., 0], net.responsibilities(x, y) * alone[..., 0], rtol=1e-4, atol=1e-6)


def test_a_far_sample_has_a_finite_loss_and_gradient():
    net = models.MixtureOfExperts(1, experts=2)
    loss = net.loss(net(Tensor([[0.0]])), np.array([[1e4]], F32))
    loss.backward()
    assert np.isfinite(loss.item()) and all(np.isfinite(p.grad).all() for p in net.parameters())


def test_experts_share_out_an_inverse_problem_that_one_gaussian_cannot_solve():
    cl.manual_seed(0)
    x, y = inverse_problem()
    mixture, single = models.MixtureOfExperts(1, experts=3), models.GaussianRegression(1, (20,), noise="input")
    losses = [fit(net, x, y, 500).loss(net(Tensor(x)), y).item() for net in (mixture, single)]
    assert losses[0] < losses[1] - 0.5  # nats per sample
    middle = mixture.responsibilities(np.zeros((3, 1), F32), np.array([[-1.2], [0.0], [1.2]], F32))
    assert sorted(middle.argmax(axis=1)) == [0, 1, 2]  # three answers at x = 0, of three experts
    assert (middle.max(axis=1) > 0.9).all()


# ---- what is predicted


def test_intervals_coverage_and_likelihood_are_those_of_the_normal_distribution():
    r = np.random.default_rng(2)
    mean, epistemic, aleatoric = r.standard_normal((500, 1)), r.uniform(0, 1, (500, 1)), r.uniform(0, 1, (500, 1))
    p, d = Predictive(mean, epistemic, aleatoric), stats.norm(mean, np.sqrt(epistemic + aleatoric))
    np.testing.assert_allclose(p.interval(0.8), (d.ppf(0.1), d.ppf(0.9)), rtol=1e-9)
    y = d.rvs(random_state=0)
    assert p.log_likelihood(y) == pytest.approx(d.logpdf(y).mean())
    assert p.coverage(y, 0.8) == np.mean((y >= d.ppf(0.1)) & (y <= d.ppf(0.9)))
    np.testing.assert_allclose(p.calibration(y, [0.5, 0.9]), [0.5, 0.9], atol=0.04)
    assert p.rmse(y) == pytest.approx(np.sqrt(np.mean((y - mean) ** 2)))


def test_the_two_parts_are_the_law_of_total_variance():
    """Of draws y ~ N(m_s, v_s) with s uniform."""
    means, variances = np.array([[[0.0]], [[2.0]], [[4.0]]]), np.array([[[1.0]], [[2.0]], [[6.0]]])
    mean, epistemic, aleatoric = Predictive.of(zip(means, np.log(variances), strict=True))
    assert (mean.item(), aleatoric.item()) == pytest.approx((2.0, 3.0))
    assert epistemic.item() == pytest.approx(8 / 3)


# ---- refusals

X, Y = np.ones((4, 2), F32), np.ones((4, 1), F32)


def blown_up():
    net = models.GaussianRegression(2, (), noise="input")
    net.network.parameters().__next__().set(1e3)
    net.loss(net(Tensor(X)), Y)


def not_a_number():
    net = models.GaussianRegression(2, ())
    net.network.parameters().__next__().set(np.nan)
    net.loss(net(Tensor(X)), Y)


def loss_of(net, y):
    return net.loss(net(Tensor(X)), y)


REFUSED = {
    "noise": (lambda: models.GaussianRegression(noise="learned"), UnknownNameError, "did you mean 'learnt'"),
    "beta": (lambda: models.GaussianRegression(beta=0.0), ValueRangeError, "beta = 1/σ² must be a finite number above 0"),
    "vector": (lambda: loss_of(models.GaussianRegression(2), Y[:, 0]), ShapeError, r"\(4, 1\), got \(4,\).*y.reshape"),
    "bits": (lambda: loss_of(models.BernoulliClassifier(2, (), 3), Y[:, 0]), ShapeError, "y must be an array of the shape"),
    "labels": (lambda: loss_of(models.BernoulliClassifier(2), -Y), ValueRangeError, "x must be in 0 … 1, but -1"),
    "mixture": (lambda: loss_of(models.MixtureOfExperts(2), Y[:, 0]), ShapeError, "MixtureOfExperts.loss: y must be an array"),
    "experts": (lambda: models.MixtureOfExperts(experts=0), ValueRangeError, "experts must be a whole number >= 1"),
    "overflow": (blown_up, ValueRangeError, r"ln σ² is \d.* beyond ±80: .* overflows float32"),
    "nan": (not_a_number, NonFiniteError, "Normal: mean is nan"),
    "samples": (lambda: models.GaussianRegression(2).predictive(X, 0), ValueRangeError, "samples must be a whole number"),
    "level": (lambda: Predictive(Y, Y, Y).interval(90), ValueRangeError, "as 0.9 for 90 %, got 90"),
    "coverage": (lambda: Predictive(Y, Y, Y).coverage(Y[:, 0]), ShapeError, r"mean, \(4, 1\), got \(4,\)"),
    "std": (lambda: weight_decay_of(0.0, 10), ValueRangeError, "std, of the prior"),
    "n": (lambda: weight_decay_of(1.0, 0), ValueRangeError, "n must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()
