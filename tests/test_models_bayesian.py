"""Bayesian regression: on linear models against the exact posterior, on networks against what the methods claim."""

import warnings

import numpy as np
import pytest
from scipy import stats

import cnnlib as cl
from cnnlib import Tensor, models, optim
from cnnlib.data import Dataset
from cnnlib.distributions import Normal, kl
from cnnlib.errors import UnknownNameError, ValueRangeError
from cnnlib.models.bayesian import linear_posterior
from cnnlib.train import Checkpoint, ObjectiveTrainer

F32 = np.float32
BETA, STD = 4.0, 1.0
ALL = (models.BayesByBackprop, models.MCDropout, models.SGLDNetwork)


def data(n=60, d=2, correlation=0.8):
    """Correlated inputs, so that weights are correlated in the posterior."""
    r = np.random.default_rng(0)
    x = r.standard_normal((n, d)) @ np.linalg.cholesky(np.full((d, d), correlation) + (1 - correlation) * np.eye(d)).T
    return x.astype(F32), (x @ np.arange(1, d + 1) - 0.5 + 0.5 * r.standard_normal(n))[:, None].astype(F32)


def linear(kind, n, **options):
    cl.manual_seed(0)
    return kind(2, hidden=(), noise="fixed", beta=BETA, prior_std=STD, data_size=n, **options)


def steps(net, x, y, opt, count, lr=None):
    """Full-batch steps; with ``lr`` the rate falls from the optimiser's to it."""
    start = opt.lr
    for i in range(count):
        if lr is not None:
            opt.lr = start * (lr / start) ** (i / count)
        net.zero_grad()
        net.objective(Tensor(x), Tensor(y))[0].backward()
        opt.step()
    return net


def test_the_exact_posterior_is_bishops():
    """p(w | data) ∝ p(w) p(data | w): the logarithms differ by the same constant everywhere."""
    x, y = data(10)
    mean, covariance = linear_posterior(x, y, BETA, STD)
    phi, w = np.hstack([x, np.ones((10, 1))]), np.random.default_rng(1).standard_normal((5, 3))
    joint = -0.5 * BETA * ((y - phi @ w.T) ** 2).sum(axis=0) - 0.5 * (w**2).sum(axis=1) / STD**2
    posterior = -0.5 * np.einsum("si,ij,sj->s", w - mean, np.linalg.inv(covariance), w - mean)
    np.testing.assert_allclose(np.diff(joint - posterior), 0.0, atol=1e-3)


# ---- each method on a linear model


def test_bayes_by_backprop_finds_the_mean_and_the_mean_field_variances():
    """The Gaussian without correlations that is nearest in KL(q ‖ p) has variances 1 / (Σ⁻¹)_ii, not Σ_ii."""
    x, y = data()
    net = linear(models.BayesByBackprop, len(x))
    steps(net, x, y, optim.Adam(net.parameters(), lr=0.05), 1000, lr=5e-4)
    mean, covariance = linear_posterior(x, y, BETA, STD)
    weight, bias = net.network[1].posterior()
    found = np.append(weight.mean.numpy(), bias.mean.numpy()), np.append(weight.variance.numpy(), bias.variance.numpy())
    np.testing.assert_allclose(found[0], mean, atol=0.02)
    np.testing.assert_allclose(found[1], 1 / np.diag(np.linalg.inv(covariance)), rtol=0.1)
    assert (found[1][:2] < 0.6 * np.diag(covariance)[:2]).all()  # too sure of correlated weights
    p = net.predictive(x[:5], 4000)
    np.testing.assert_allclose(p.epistemic[:, 0], np.hstack([x[:5] ** 2, np.ones((5, 1))]) @ found[1], rtol=0.1)
    np.testing.assert_allclose(p.aleatoric, 1 / BETA, rtol=1e-6)


def test_its_divergence_is_that_of_its_weights():
    net = linear(models.BayesByBackprop, 10)
    expected = sum(kl(q, Normal(0.0, std=STD)).numpy().sum() for q in net.network[1].posterior())
    loss, measured = net.objective(Tensor(np.ones((4, 2), F32)), Tensor(np.ones((4, 1), F32)))
    assert measured["complexity"].item() == pytest.approx(expected, rel=1e-6)
    assert loss.item() == pytest.approx(measured["nll"].item() + expected / 10, rel=1e-6)


def test_langevin_dynamics_finds_the_whole_posterior():
    x, y = data()
    mean, covariance = linear_posterior(x, y, BETA, STD)
    stiffest = np.linalg.eigvalsh(np.linalg.inv(covariance)).max() / len(x)
    net = linear(models.SGLDNetwork, len(x), keep=750, every=5)
    steps(net, x, y, net.optimizer(lr=0.2 / stiffest), 4000)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((net.kept.mean(axis=0) - mean) / deviation, 0.0, atol=0.25)
    found = np.cov(net.kept.T)
    np.testing.assert_allclose(np.sqrt(np.diag(found)) / deviation, 1.0, atol=0.15)
    correlation = lambda c: c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])  # noqa: E731
    assert correlation(covariance) < -0.7 and correlation(found) == pytest.approx(correlation(covariance), abs=0.1)
    p, phi = net.predictive(x[:5], 2000), np.hstack([x[:5], np.ones((5, 1))])
    np.testing.assert_allclose(p.epistemic[:, 0], np.einsum("ni,ij,nj->n", phi, covariance, phi), rtol=0.3)


def test_dropout_does_not_get_surer_with_more_data():
    """Its variance is p/(1 − p) Σ m_i² x_i², whatever N; the exact one falls like 1/N."""
    p, at, sure = 0.1, np.array([[1.0, 1.0]], F32), []
    for n in (50, 800):
        x, y = data(n)
        net = linear(models.MCDropout, n, p=p)
        steps(net, x, y, optim.Adam(net.parameters(), lr=0.05), 300, lr=0.002)
        m, drawn = net.network[2].weight.numpy()[0], net.predictive(at, 4000).epistemic.item()
        assert drawn == pytest.approx(p / (1 - p) * (m**2).sum(), rel=0.1)
        exact = np.append(at, 1) @ linear_posterior(x, y, BETA, STD)[1] @ np.append(at, 1)
        sure.append((drawn, exact))
    (few, exact_few), (many, exact_many) = sure
    assert exact_many < exact_few / 10
    assert many > few / 1.5


def test_the_optimum_of_dropout_is_ridge_regression_with_its_own_penalty():
    x, y = data()
    p, n = 0.2, len(x)
    net = linear(models.MCDropout, n, p=p)
    steps(net, x, y, optim.Adam(net.parameters(), lr=0.05), 2000, lr=1e-4)
    phi = np.hstack([x, np.ones((n, 1))]).astype(float)
    noise = p / (1 - p) * np.diag(np.append((x**2).sum(axis=0), 0.0))
    exact = np.linalg.solve(BETA * (phi.T @ phi + noise) + np.eye(3) / STD**2, BETA * phi.T @ y)[:, 0]
    found = np.append(net.network[2].weight.numpy(), net.network[2].bias.numpy())
    np.testing.assert_allclose(found, exact, atol=0.03)


@pytest.mark.parametrize("kind", [models.MCDropout, models.SGLDNetwork])
def test_the_prior_is_of_the_weights_and_biases_not_of_the_noise(kind):
    net = kind(2, (3,), noise="learnt", prior_std=0.7, data_size=10)
    net.log_var.set([5.0])
    expected = -sum(stats.norm(0, 0.7).logpdf(p.numpy()).sum() for p in net.network.parameters())
    assert net.complexity().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("hidden", "expected"), [((), ["Dropout", "Linear"]), ((4, 4), ["Linear", *["Dropout", "Linear"] * 2])]
)
def test_dropout_stands_before_each_linear_layer_but_the_first_of_several(hidden, expected):
    layers = [type(layer).__name__ for layer in models.MCDropout(2, hidden).network]
    assert [name for name in layers if name in ("Dropout", "Linear")] == expected


# ---- on networks


def gap():
    """A sine that is known left and right, not in the middle."""
    r = np.random.default_rng(0)
    x = np.concatenate([r.uniform(-2, -0.8, 60), r.uniform(0.8, 2, 60)])[:, None]
    return x.astype(F32), (np.sin(2 * x) + 0.1 * r.standard_normal(x.shape)).astype(F32)


def trained(kind, x, y, count, lr, batch_size=60, **options):
    cl.manual_seed(0)
    net = kind(1, hidden=(20,), data_size=len(x), **options)
    opt = net.optimizer(lr) if kind is models.SGLDNetwork else optim.Adam(net.parameters(), lr)
    ObjectiveTrainer(net, opt, batch_size=batch_size, progress=False).fit((x, y), epochs=count)
    return net


@pytest.mark.parametrize(
    ("kind", "count", "lr", "options"),
    [
        (models.BayesByBackprop, 400, 0.02, {}),
        (models.SGLDNetwork, 800, 0.03, {"keep": 50, "every": 10, "beta": 10.0}),
    ],
)
def test_it_is_less_sure_where_there_were_no_data(kind, count, lr, options):
    """Between the data. Dropout is not: its noise is the same there (docs/probabilistic.md)."""
    x, y = gap()
    net = trained(kind, x, y, count, lr, 120 if options else 60, **options)
    known, unknown = (np.linspace(low, high, 20, dtype=F32)[:, None] for low, high in ((-2, -0.8), (-0.4, 0.4)))
    assert net.predictive(known).rmse(np.sin(2 * known)) < 0.2
    assert net.predictive(unknown).epistemic.mean() > 2 * net.predictive(known).epistemic.mean()


@pytest.mark.parametrize("kind", ALL)
def test_a_prediction_leaves_the_model_as_it_was(kind):
    x, y = gap()
    net = trained(kind, x, y, 4, 1e-3, **({"keep": 3, "every": 2} if kind is models.SGLDNetwork else {}))
    net.eval()
    before = net.state_dict()
    net.predictive(x[:4], 5)
    assert not any(m.training for m in net.modules())
    assert all(np.array_equal(a, before[name]) for name, a in net.state_dict().items())


@pytest.mark.parametrize("kind", ALL)
def test_evaluation_draws_nothing_and_training_does(kind):
    cl.manual_seed(0)
    net, x = kind(1, hidden=(20,)), Tensor(np.ones((3, 1), F32))
    drawn = [net(x)[0].numpy() for _ in range(2)]
    assert np.array_equal(*drawn) == (kind is models.SGLDNetwork)
    net.eval()
    assert np.array_equal(net(x)[0].numpy(), net(x)[0].numpy())


def test_the_last_draws_are_kept_in_turn():
    x, y = gap()
    net = trained(models.SGLDNetwork, x, y, 11, 1e-3, batch_size=120, keep=3, every=2)
    assert net.remembered == 3
    passed = [net.kept[i].copy() for i in range(3)]
    opt = net.optimizer(1e-3)
    steps(net, x, y, opt, 1)  # the twelfth call: the sixth draw takes the place of the third
    assert [np.array_equal(net.kept[i], passed[i]) for i in range(3)] == [True, True, False]
    np.testing.assert_array_equal(net.predictive(x, 2).mean.shape, (120, 1))


@pytest.mark.parametrize(("calls", "counted"), [(1, []), (2, [1]), (6, [2, 3]), (18, [4, 5, 6, 7, 8, 9]), (40, range(11, 21))])
def test_the_first_third_of_a_run_is_the_way_there(calls, counted):
    """Draws 1, 2, … are told apart by their mean; at most ten are kept."""
    net = models.SGLDNetwork(1, (), data_size=3, keep=10, every=2)
    for call in range(1, calls + 1):
        net.network[1].bias.set([call / 2])
        net.objective(Tensor(np.zeros((3, 1), F32)), np.zeros((3, 1), F32))
    assert net.remembered == len(counted)
    if counted:
        means = [outputs[0].numpy().item() for outputs in net.draws(Tensor(np.zeros((1, 1), F32)), 100)]
        assert means == list(counted)


def test_evaluation_keeps_no_draws():
    net = models.SGLDNetwork(1, (), data_size=2, every=1)
    net.eval()
    net.objective(Tensor(np.ones((2, 1), F32)), np.ones((2, 1), F32))
    assert net.remembered == 0 and not net.kept.any()


def test_a_resumed_run_goes_on_with_the_same_draws(tmp_path):
    x, y = gap()

    def run(epochs, folder, resume=None):
        cl.manual_seed(0)
        net = models.SGLDNetwork(1, (5,), data_size=120, keep=4, every=3)
        trainer = ObjectiveTrainer(net, net.optimizer(1e-3), [Checkpoint(tmp_path / folder)], batch_size=60, progress=False)
        trainer.fit((x, y), epochs=epochs, resume=resume)
        return net.state_dict()

    whole = run(10, "whole")
    run(5, "parts")
    resumed = run(10, "parts", True)
    assert all(np.array_equal(a, resumed[name]) for name, a in whole.items())


def test_the_noise_of_langevin_dynamics_has_the_right_size():
    cl.manual_seed(0)
    w = cl.Parameter(np.zeros(20_000, F32))
    opt = optim.SGLD([w], lr=0.02, data_size=100)
    w.grad = np.ones(20_000, F32)
    opt.step()
    assert w.data.mean() == pytest.approx(-0.02, abs=5e-4)
    assert w.data.std() == pytest.approx(np.sqrt(2 * 0.02 / 100), rel=0.02)


def sized(kind, n, **options):
    return kind(2, **(options | {"data_size": n} if kind in ALL else options))


ALL_KINDS = (models.GaussianRegression, models.MixtureOfExperts, *ALL)


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.__name__)
def test_a_training_step_leaves_no_float64_on_the_tape(kind):
    cl.manual_seed(0)
    net, x, y = sized(kind, 4), Tensor(np.ones((4, 2), F32)), np.ones((4, 1), F32)
    with cl.trace() as t:
        net.objective(x, y)[0].backward()
    for entry in t:
        arrays = [*entry.inputs.values(), *entry.outputs, *entry.dys, *entry.grads.values(), *entry.saved.values()]
        assert not [a for a in arrays if getattr(a, "dtype", None) == np.float64], entry.name
    assert all(p.grad.dtype == F32 for p in net.parameters())
    (net.optimizer(1e-3) if kind is models.SGLDNetwork else optim.Adam(net.parameters())).step()
    assert all(p.dtype == F32 for p in net.parameters())


@pytest.mark.parametrize("noise", ["learnt", "input"])
@pytest.mark.parametrize("kind", (models.GaussianRegression, *ALL), ids=lambda kind: kind.__name__)
def test_the_gradient_of_the_objective_along_a_direction(kind, noise):
    """With the same draw each time: the seed decides it."""
    chance = np.random.default_rng(0)
    cl.manual_seed(5)
    net = sized(kind, 6, hidden=(4,), noise=noise).to("float64")
    x, y = chance.standard_normal((6, 2)), chance.standard_normal((6, 1))
    learnt = [p for p in net.parameters() if p.requires_grad]
    start, way = [p.numpy().copy() for p in learnt], [chance.standard_normal(p.shape) for p in learnt]

    def objective(distance):
        for p, s, w in zip(learnt, start, way, strict=True):
            p.set(s + distance * w)
        cl.manual_seed(1)
        return net.objective(Tensor(x), Tensor(y))[0]

    expected = (objective(1e-5).item() - objective(-1e-5).item()) / 2e-5
    objective(0.0).backward()
    assert sum((p.grad * w).sum() for p, w in zip(learnt, way, strict=True)) == pytest.approx(expected, rel=1e-6)


# ---- refusals and warnings


def test_a_collapsed_posterior_is_named():
    x = np.random.default_rng(0).standard_normal((64, 1)).astype(F32)
    noise = np.random.default_rng(1).standard_normal((64, 1)).astype(F32)
    net = models.BayesByBackprop(1, (), data_size=64, noise="fixed", beta=1e-3)  # y might be anything
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), 0.1), batch_size=64, progress=False)
    with pytest.warns(UserWarning, match=r"collapsed onto the prior.*Is data_size, 64, the number of training samples"):
        trainer.fit((x, noise), epochs=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(models.BayesByBackprop, *gap(), 5, 0.01)


def test_held_out_samples_may_be_more_than_those_of_training():
    net = models.MCDropout(1, data_size=2).eval()
    x = np.ones((4, 1), F32)
    loss, measured = net.objective(Tensor(x), x)
    assert loss.item() == pytest.approx(measured["nll"].item() + measured["complexity"].item() / 2, rel=1e-6)


REFUSED = {
    "units": (lambda: models.BayesByBackprop(hidden=(0,)), "BayesLinear: out_features must be a whole number >= 1"),
    "prior": (lambda: models.BayesByBackprop(prior_std=0.0), "BayesByBackprop: prior_std must be a finite number above 0"),
    "size": (lambda: models.MCDropout(data_size=0), "MCDropout: data_size must be a whole number >= 1"),
    "p": (lambda: models.MCDropout(1, p=1.0), "MCDropout: p, .* must be in 0 <= p < 1, got 1.0"),
    "batch": (
        lambda: models.SGLDNetwork(1).objective(Tensor(np.ones((4, 1), F32)), np.ones((4, 1), F32)),
        "data_size, the number of training samples, is 1, but a batch has 4: .* Set it to len",
    ),
    "keep": (lambda: models.SGLDNetwork(keep=0), "keep must be a whole number >= 1"),
    "draws": (lambda: models.SGLDNetwork(1).predictive(np.ones((1, 1), F32)), "no draws yet: one is kept every 50 steps"),
    "optimiser": (lambda: optim.SGLD([cl.Parameter([0.0])], data_size=0), "data_size must be >= 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueRangeError, match=message):
        call()


@pytest.mark.parametrize("kind", ALL)
def test_an_unknown_activation_names_the_nearest(kind):
    with pytest.raises(UnknownNameError, match="unknown activation 'tanhh': did you mean 'tanh'"):
        kind(activation="tanhh")


def test_the_size_of_the_data_is_taken_from_them():
    x, y = gap()
    options = models.MCDropout.options_from(Dataset(x, y))
    assert options == {"input_shape": [1], "out_features": 1, "data_size": 120}
