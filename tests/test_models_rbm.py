"""Restricted Boltzmann machines against sums over all states; deep belief nets and the autoencoders they unroll into."""

import itertools

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, optim
from cnnlib import random as streams
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from cnnlib.train import Checkpoint, ObjectiveTrainer, load


@pytest.fixture(autouse=True)
def same_random_numbers():
    cl.manual_seed(0)


def states(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)), np.float32)


def machine(D=5, H=3, seed=0, scale=0.7, visible="binary", **options):
    """One whose weights and biases are no longer small."""
    rbm = models.RBM(D, H, visible, **options)
    rng = np.random.default_rng(seed)
    for p in rbm.parameters():
        p.set(rng.normal(scale=scale, size=p.shape))
    return rbm


def energy(rbm, v, h):
    """E(v, h) for every pair: v (V, D), h (K, H) -> (V, K), float64, as the docstring has it."""
    W, b, c = (p.numpy().astype(float) for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    E = -(v @ b)[:, None] - (h @ c)[None] - v @ W.T @ h.T
    E = E + 0.5 * (v * v).sum(1)[:, None] if rbm.visible == "gaussian" else E
    return E + 0.5 * (h * h).sum(1)[None] if rbm.units == "gaussian" else E


GRID = np.linspace(-12, 12, 481)  # for sums in place of integrals
PLANE = np.stack(np.meshgrid(GRID, GRID), axis=-1).reshape(-1, 2)
CELL = GRID[1] - GRID[0]


# ---- what the formulas say


@pytest.mark.parametrize("visible", ["binary", "grey", "gaussian"])
def test_free_energy_is_the_sum_over_hidden_states(visible):
    rbm, v = machine(visible=visible), np.random.default_rng(1).uniform(size=(6, 5)).astype(np.float32)
    expected = -np.log(np.exp(-energy(rbm, v, states(3))).sum(axis=1))
    np.testing.assert_allclose(rbm.free_energy(v).numpy(), expected, rtol=1e-5)


def test_free_energy_of_gaussian_hidden_units_is_the_integral():
    rbm, v = machine(H=2, units="gaussian"), states(5)[::7]
    expected = -np.log(np.exp(-energy(rbm, v, PLANE)).sum(axis=1) * CELL**2 / (2 * np.pi))  # but for a constant
    np.testing.assert_allclose(rbm.free_energy(v).numpy(), expected, rtol=1e-5)


def test_conditional_means_are_those_of_the_joint_distribution():
    rbm, v, h = machine(), states(5), states(3)
    p = np.exp(-energy(rbm, v, h))
    np.testing.assert_allclose(rbm.encode(v).numpy(), p @ h / p.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(rbm.decode(h).numpy(), p.T @ v / p.T.sum(axis=1, keepdims=True), rtol=1e-5)
    gaussian = machine(2, 3, visible="gaussian")
    p = np.exp(-energy(gaussian, PLANE, h)).T
    np.testing.assert_allclose(gaussian.decode(h).numpy(), p @ PLANE / p.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("visible", ["binary", "gaussian"])
def test_probabilities_of_everything_there_is_add_up_to_one(visible):
    rbm = machine(5 if visible == "binary" else 2, 3, visible=visible)
    everything = states(5) if visible == "binary" else PLANE.astype(np.float32)
    total = np.exp(rbm.log_likelihood(everything)).sum() * (1 if visible == "binary" else CELL**2)
    assert total == pytest.approx(1, abs=1e-4)


def test_gibbs_sampling_keeps_the_machines_own_distribution():
    rbm, v, n = machine(4, 3), states(4), 20_000
    p = np.exp(rbm.log_likelihood(v))
    drawn = v[np.random.default_rng(0).choice(len(v), n, p=p / p.sum())]
    code = 2 ** np.arange(4)[::-1]
    shares = np.bincount((rbm.gibbs(drawn, 3) @ code).astype(int), minlength=16) / n
    assert np.abs(shares - p).max() < 5 * np.sqrt(0.25 / n)
    from_anywhere = np.bincount((rbm.gibbs(np.zeros_like(drawn), 60) @ code).astype(int), minlength=16) / n
    assert np.abs(from_anywhere - p).max() < 5 * np.sqrt(0.25 / n)


@pytest.mark.parametrize(("visible", "units"), [("gaussian", "binary"), ("binary", "gaussian")])
def test_draws_of_gaussian_units_have_unit_variance_around_their_mean(visible, units):
    rbm = machine(3, 2, visible=visible, units=units)
    v = np.tile(states(3)[5], (20_000, 1))
    if units == "gaussian":
        from cnnlib.models.rbm import _draw

        h = _draw(rbm.encode(v).data, "gaussian")
        np.testing.assert_allclose(h.mean(axis=0), rbm.encode(v).numpy()[0], atol=0.05)
        np.testing.assert_allclose(np.cov(h.T), np.eye(2), atol=0.05)
    else:
        rbm.weight.set(np.zeros((2, 3)))  # v does not hang on h: N(b, I)
        drawn = rbm.gibbs(v, 1)
        np.testing.assert_allclose(drawn.mean(axis=0), rbm.visible_bias.numpy(), atol=0.05)
        np.testing.assert_allclose(np.cov(drawn.T), np.eye(3), atol=0.05)


# ---- contrastive divergence


def test_the_gradient_is_the_rule_of_contrastive_divergence(monkeypatch):
    rbm, v = machine(k=4), states(5)[::3]
    end = np.random.default_rng(2).integers(0, 2, v.shape).astype(np.float32)
    asked = []
    monkeypatch.setattr(rbm, "gibbs", lambda start, steps: asked.append((start, steps)) or end)
    rbm.objective(v)[0].backward()
    np.testing.assert_array_equal(asked[0][0], v)
    assert asked[0][1] == 4
    up = lambda v: rbm.encode(v).numpy()  # noqa: E731
    np.testing.assert_allclose(-rbm.weight.grad, (up(v).T @ v - up(end).T @ end) / len(v), atol=1e-6)
    np.testing.assert_allclose(-rbm.visible_bias.grad, (v - end).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(-rbm.hidden_bias.grad, (up(v) - up(end)).mean(axis=0), atol=1e-6)


def test_with_long_chains_it_is_the_gradient_of_the_likelihood():
    few = states(4)[[3, 3, 12, 6]]
    rbm = machine(4, 3, k=40)
    rbm.objective(np.tile(few, (5000, 1)))[0].backward()
    slopes = []
    for i in np.ndindex(rbm.weight.shape):
        values = []
        for step in (1e-2, -1e-2):
            w = rbm.weight.numpy().copy()
            w[i] += step
            other = machine(4, 3)
            other.weight.set(w)
            values.append(other.log_likelihood(few).mean())
        slopes.append((values[0] - values[1]) / 2e-2)
    np.testing.assert_allclose(-rbm.weight.grad.ravel(), slopes, atol=0.02)
    assert np.abs(slopes).max() > 0.1


@pytest.mark.parametrize(("k", "chains", "lr"), [(1, 0, 0.02), (5, 200, 0.01)])
def test_training_raises_the_exact_likelihood(k, chains, lr):
    """Bars and stripes, 3×3: 14 of 512 pictures. A machine that knows nothing says −9 ln 2 = −6.24 nats."""
    x = np.unique([np.repeat(s[:, None], 3, 1).ravel() for s in states(3)] + [np.tile(s, 3) for s in states(3)], axis=0)
    rbm = models.RBM(9, 10, "binary", k=k, chains=chains)
    assert len(x) == 14 and rbm.log_likelihood(x).mean() == pytest.approx(-9 * np.log(2), abs=0.05)
    optimizer = optim.Adam(rbm.parameters(), lr=lr)
    for _ in range(600):
        rbm.zero_grad()
        rbm.objective(np.tile(x, (4, 1)))[0].backward()
        optimizer.step()
    assert rbm.log_likelihood(x).mean() > -4


def test_particles_move_are_saved_and_rest_in_evaluation(tmp_path):
    rbm = machine(chains=7)
    start = rbm.particles.copy()
    rbm.objective(states(5))
    moved = rbm.particles.copy()
    assert moved.shape == (7, 5) and set(np.unique(moved)) <= {0, 1} and not np.array_equal(start, moved)
    rbm.eval()
    before = streams.get_state()
    first, again = (rbm.objective(states(5))[0].item() for _ in range(2))
    assert first == again and streams.get_state() == before
    np.testing.assert_array_equal(rbm.particles, moved)
    cl.train.save(tmp_path / "rbm.safetensors", rbm)
    other = models.RBM(5, 3, "binary", chains=7)
    load(tmp_path / "rbm.safetensors").load_into(other)
    np.testing.assert_array_equal(other.particles, moved)


def test_what_is_measured_is_the_error_of_up_and_down_and_the_free_energy():
    rbm, v = machine(visible="grey"), np.random.default_rng(0).uniform(size=(9, 5)).astype(np.float32)
    measured = rbm.objective(v)[1]
    assert measured["mse"].item() == pytest.approx(((rbm(v).numpy() - v) ** 2).mean(), rel=1e-5)
    assert float(measured["free_energy"]) == pytest.approx(rbm.free_energy(v).numpy().mean(), rel=1e-5)


def test_samples_are_of_the_seed_alone():
    rbm = machine()
    before = streams.get_state()
    first = rbm.sample(4, seed=3, steps=5)
    assert first.shape == (4, 5) and 0 < first.min() and first.max() < 1 and streams.get_state() == before
    streams.next_key("sampling")
    np.testing.assert_array_equal(rbm.sample(4, seed=3, steps=5), first)
    assert not np.array_equal(rbm.sample(4, seed=4, steps=5), first)


def test_samples_are_of_the_machines_distribution_and_begin_where_they_are_told():
    rbm = machine(4, 3)
    p = np.exp(rbm.log_likelihood(states(4)))
    np.testing.assert_allclose(rbm.sample(20_000, steps=60).mean(axis=0), p @ states(4), atol=0.02)
    sticky = machine(4, 3)
    sticky.weight.set(np.zeros((3, 4)))
    sticky.weight.set(np.concatenate([40 * np.eye(3), np.zeros((3, 1))], axis=1))  # v_j and h_j are the same, and stay
    sticky.visible_bias.set(np.full(4, -20.0))
    sticky.hidden_bias.set(np.full(3, -20.0))
    np.testing.assert_allclose(sticky.sample(4, steps=9, start=states(4)[[2, 4, 14]]), states(4)[[2, 4, 14, 2]], atol=1e-3)
    sticky.register_buffer("particles", states(4)[[8, 6]])
    np.testing.assert_allclose(sticky.sample(3, steps=9), states(4)[[8, 6, 8]], atol=1e-3)


def test_chains_of_gaussian_units_begin_at_the_data_themselves():
    """h is 1 with probability σ(7 · 0.5) = 0.97 there; around it, with the noise of a draw, only with 0.69."""
    rbm = models.RBM(3, 1, "gaussian")
    rbm.weight.set([[7.0, 0.0, 0.0]])
    drawn = rbm.sample(1000, steps=1, start=np.float32([[0.5, 0, 0]]))
    assert (drawn[:, 0] == 7).mean() == pytest.approx(0.97, abs=0.02)


# ---- bad input


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: models.RBM(5, 3, "binary").objective(np.full((2, 5), 0.3)), ValueRangeError,
         r"x has 0.3 at \(0, 0\), but binary visible units are 0 or 1: visible='grey' takes values between them as probab"),
        (lambda: models.RBM(5, 3, visible="grey").objective(np.full((2, 5), 255.0)), ValueRangeError,
         r"x has 255 at \(0, 0\), but grey visible units are in 0 … 1: divide 8-bit pixels by 255"),
        (lambda: models.RBM(5, 3, visible="gaussian").objective(np.full((2, 5), np.nan)), ValueRangeError,
         r"x has nan at \(0, 0\), but gaussian visible units are finite"),
        (lambda: models.RBM(5, 3, "binary").objective(np.full((2, 5), np.nan)), ValueRangeError, "binary visible units are"),
        (lambda: models.RBM(5, 3).objective(np.zeros((2, 6))), ShapeError, r"RBM: x must be \(N, 5\), got \(2, 6\): create it"),
        (lambda: models.RBM(5, 3, visible="gray"), UnknownNameError, "unknown visible units 'gray': did you mean 'grey'"),
        (lambda: models.RBM(5, 3, units="linear"), UnknownNameError, "unknown hidden units 'linear'"),
        (lambda: models.RBM(5, 3, visible="gaussian", units="gaussian"), ValueRangeError, "cannot both be Gaussian: with"),
        (lambda: models.RBM(5, 0), ValueRangeError, "RBM: hidden must be a whole number >= 1, got 0"),
        (lambda: models.RBM(5, 3, chains=-1), ValueRangeError, "RBM: chains must be a whole number >= 0, got -1"),
        (lambda: models.RBM(5, 17).log_likelihood(np.zeros((1, 5))), ValueRangeError,
         r"sums over 2\^H states of binary hidden units, H at most 16; here are 17 binary ones. Compare free energies"),
        (lambda: models.RBM(5, 3).sample(steps=0), ValueRangeError, "RBM.sample: steps must be a whole number >= 1, got 0"),
        (lambda: models.DeepBeliefNet(5, ()), ValueRangeError, "DeepBeliefNet: sizes must name at least one layer"),
        (lambda: models.DeepBeliefNet(5, (3,), epochs_per_layer=0), ValueRangeError, "DeepBeliefNet: epochs_per_layer must be"),
    ],
)  # fmt: skip
def test_messages(build, error, message):
    with pytest.raises(error, match=message):
        build()


# ---- stacks


def grown(kind, *sizes, scale=1.0, **options):
    net, rng = kind(9, sizes, **options), np.random.default_rng(0)
    for layer in net.layers:
        for p in layer.parameters():
            p.set(rng.normal(scale=scale, size=p.shape))
    return net


@pytest.mark.parametrize("visible", ["grey", "gaussian"])
@pytest.mark.parametrize("code", ["binary", "gaussian"])
def test_unrolled_it_computes_the_same(visible, code):
    if visible == code == "gaussian":
        net = grown(models.DeepBeliefNet, 6, 4, 2, visible=visible, code=code)  # not one RBM has both
    else:
        net = grown(models.DeepBeliefNet, 6, 2, visible=visible, code=code)
    x = np.random.default_rng(1).uniform(size=(5, 9)).astype(np.float32)
    h = x
    for layer in net.layers:
        a = h @ layer.weight.numpy().T + layer.hidden_bias.numpy()
        h = a if layer.units == "gaussian" else 1 / (1 + np.exp(-a))
    np.testing.assert_allclose(net.encode(x).numpy(), h, rtol=1e-4, atol=1e-5)
    unrolled = net.unroll()
    np.testing.assert_allclose(unrolled.encode(x).numpy(), h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unrolled(x).numpy(), net(x).numpy(), rtol=1e-4, atol=1e-5)


def test_every_layer_takes_what_the_layer_below_gives():
    kinds = [(layer.visible, layer.units) for layer in models.DeepBeliefNet(9, (6, 4, 2), "binary", "gaussian").layers]
    assert kinds == [("binary", "binary"), ("grey", "binary"), ("grey", "gaussian")]


def test_samples_go_down_from_the_top_machine():
    net = grown(models.DeepBeliefNet, 6, 4)
    top = net.layers[1].sample(3, seed=2, steps=4)
    np.testing.assert_allclose(net.sample(3, seed=2, steps=4), net.layers[0].decode(top).numpy(), rtol=1e-5)
    x = np.random.default_rng(0).uniform(size=(50, 9)).astype(np.float32)
    top = net.layers[1].sample(50, steps=1, start=net.layers[0].encode(x).numpy())
    begun = net.sample(50, steps=1, start=x)  # more steps with the same random numbers, and all chains are one
    np.testing.assert_allclose(begun, net.layers[0].decode(top).numpy(), rtol=1e-5)
    assert not np.allclose(begun, net.sample(50, steps=1))


def test_a_deep_autoencoder_begins_its_fine_tuning_where_the_stack_ended():
    train, _ = cl.data.digits()
    net = models.DeepAutoencoder((1, 8, 8), (20, 5), epochs_per_layer=1)
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=3e-3), progress=False)
    trainer.fit(train[:200], epochs=2)
    stack = net(train.x[:9]).numpy()
    net.begin_epoch(2)
    np.testing.assert_allclose(net(train.x[:9]).numpy(), stack, rtol=1e-4, atol=1e-5)
    assert net.encode(train.x[:9]).shape == (9, 5)
    weights = [layer.weight.numpy().copy() for layer in net.layers]
    trainer.fit(train[:200], epochs=1)
    assert all(np.array_equal(layer.weight.numpy(), w) for layer, w in zip(net.layers, weights, strict=True))
    assert not np.array_equal(net.unrolled.encoder[0].weight.numpy(), net.unrolled.decoder[2].weight.numpy().T)
    assert np.abs(net(train.x[:9]).numpy() - stack).max() > 1e-3


def test_a_deep_autoencoder_stopped_in_its_fine_tuning_goes_on_with_it(tmp_path):
    train, _ = cl.data.digits()

    def trainer(folder):
        cl.manual_seed(0)
        net = models.DeepAutoencoder((1, 8, 8), (20, 5), epochs_per_layer=1)
        return ObjectiveTrainer(net, optim.Adam(net.parameters()), [Checkpoint(folder, best=None)], progress=False)

    whole = trainer(tmp_path / "whole")
    whole.fit(train[:100], epochs=4)
    trainer(tmp_path / "parts").fit(train[:100], epochs=3)
    again = trainer(tmp_path / "parts")
    again.fit(train[:100], epochs=4, resume=tmp_path / "parts")
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[name], value, err_msg=name)


def test_fine_tuned_from_a_stack_it_tells_digits_better_by_three_numbers_than_pca():
    train, test = cl.data.digits()
    net = models.DeepAutoencoder((1, 8, 8), (50, 3), epochs_per_layer=10)
    history = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-2), progress=False).fit(train, test, epochs=80)
    x, unseen = (data.x.reshape(len(data), -1) for data in (train, test))
    V = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:3].T
    pca = (((unseen - x.mean(axis=0)) @ (np.eye(64) - V @ V.T)) ** 2).mean()
    assert history["validation_mse"][-1] < 0.8 * pca, (history["validation_mse"][-1], pca)


def test_a_run_in_float32_stays_in_float32():
    net = models.DeepAutoencoder(9, (6, 2))
    x = cl.Tensor(np.random.default_rng(0).uniform(size=(4, 9)).astype(np.float32))
    for epoch in (0, 5, 10):
        net.begin_epoch(epoch)
        with cl.trace() as t:
            net.objective(x)[0].backward()
        for entry in t:
            arrays = [*entry.inputs.values(), *entry.outputs, *entry.dys, *entry.grads.values(), *entry.saved.values()]
            assert not [a for a in arrays if getattr(a, "dtype", None) == np.float64], entry.name
