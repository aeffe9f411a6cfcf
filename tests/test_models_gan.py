"""Generative adversarial networks: the game's formulas, whom a step moves, what is learnt, warnings and errors."""

import math

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.data import coverage, ring
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from cnnlib.models.gan import DCGAN, GAN
from cnnlib.tensor import Tensor
from cnnlib.train import AdversarialTrainer, Callback, Checkpoint
from tests.nets import check_gradients


def gan(shape=(2,), latents=3, hidden=(8,), kind=GAN, **options):
    cl.manual_seed(0)
    return kind(shape, latents, hidden, **options)


def points(n=6):
    return np.random.default_rng(1).normal(size=(n, 2)).astype(np.float32)


def trainer_of(net, lr=1e-3, batch_size=64, **options):
    optimizer = optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999))
    return AdversarialTrainer(net, optimizer, batch_size=batch_size, progress=False, **options)


def scores_of(net, x):
    """s(x) and s(G(z)) as the next objective will see them."""
    state = cl.random.get_state()
    with cl.no_grad():
        drawn = net.draw(len(x))
        real, fake = net.scores(Tensor(x)).numpy().astype(np.float64), net.scores(drawn).numpy().astype(np.float64)
    cl.random.set_state(state)
    return real, fake


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


# ---- the game


@pytest.mark.parametrize("loss", ["non-saturating", "minimax", "wasserstein"])
def test_both_objectives_are_those_of_the_formulas(loss):
    net, x = gan(loss=loss, smoothing=0.1), points()
    real, fake = scores_of(net, x)
    d_real, d_fake = sigmoid(real), sigmoid(fake)
    game = -(0.9 * np.log(d_real) + 0.1 * np.log(1 - d_real)).mean() - np.log(1 - d_fake).mean()
    expected = {
        "non-saturating": (game, -np.log(d_fake).mean()),
        "minimax": (game, np.log(1 - d_fake).mean()),
        "wasserstein": (fake.mean() - real.mean(), -fake.mean()),
    }[loss]
    state = cl.random.get_state()
    value, measured = net.objective(Tensor(x), None, "discriminator")
    cl.random.set_state(state)
    generator, _ = net.objective(Tensor(x), None, "generator")
    assert value.item() == pytest.approx(expected[0], rel=1e-4) and generator.item() == pytest.approx(expected[1], rel=1e-4)
    assert measured["generator_loss"].item() == pytest.approx(expected[1], rel=1e-4)
    shown = (real, fake) if loss == "wasserstein" else (d_real, d_fake)
    assert measured["d_real"].item() == pytest.approx(shown[0].mean(), rel=1e-4)
    assert measured["d_fake"].item() == pytest.approx(shown[1].mean(), rel=1e-4)


@pytest.mark.parametrize("sure", [-1000.0, 1000.0])
@pytest.mark.parametrize("loss", ["non-saturating", "minimax"])
def test_losses_of_a_discriminator_that_is_quite_sure_are_numbers(loss, sure):
    """Where D rounds to 0 or 1: −ln σ(s) = ln(1 + e^(−s)) is 0 or 1000 there, and its slope 0 or −1."""
    net = gan(loss=loss)
    net.discriminator._modules["3"].weight.set(1e-3 * net.discriminator._modules["3"].weight.numpy())
    net.discriminator._modules["3"].bias.set([sure])
    expected = {"non-saturating": max(-sure, 0.0), "minimax": min(-sure, 0.0)}[loss]
    value = net.objective(Tensor(points()), None, "generator")[0]
    value.backward()
    assert value.item() == pytest.approx(expected, abs=0.1)
    assert all(np.isfinite(p.grad).all() for p in net.parameters())
    assert (max(abs(p.grad).max() for p in net.generator.parameters()) > 0) == (expected != 0)
    net.zero_grad()
    value, _ = net.objective(Tensor(points()), None, "discriminator")
    value.backward()
    assert value.item() == pytest.approx(1000, abs=0.1)
    assert all(np.isfinite(p.grad).all() for p in net.discriminator.parameters())
    assert all(p.grad is None for p in net.generator.parameters())


def test_batch_norm_sees_what_is_real_and_what_is_drawn_by_themselves():
    """What the generator draws changes nothing about the scores of real pictures in the same step."""
    x = np.random.default_rng(0).random((4, 1, 4, 4)).astype(np.float32)
    net, seen = gan((1, 4, 4), 3, (2,), DCGAN), []
    for bias in (0.0, 3.0):
        net.generator._modules["7"].bias.set([bias])
        _, measured = net.objective(Tensor(x))
        seen.append((measured["d_real"].item(), measured["d_fake"].item(), *net(Tensor(x)).numpy()[[0, 4], 0]))
    (real, fake, first, drawn), (real_again, fake_again, first_again, drawn_again) = seen
    assert real == real_again and first == first_again and fake != fake_again and drawn != drawn_again


@pytest.mark.parametrize("player", ["discriminator", "generator"])
@pytest.mark.parametrize("kind", [GAN, DCGAN])
def test_gradients_of_both_players(kind, player):
    shape, hidden = ((2,), (8,)) if kind is GAN else ((1, 4, 8), (3,))
    net = gan(shape, 3, hidden, kind, noise=0.1)
    if kind is DCGAN:
        for p in net.parameters():
            p.set(10 * p.numpy())  # weights of deviation 0.02 leave gradients that are too small to measure
    other = net.generator if player == "discriminator" else None
    x = np.random.default_rng(0).random((4, *shape)).astype(np.float32)
    check_gradients(Player(net, player, without=other), lambda loss, _: loss, x, None)


class Player(nn.Module):
    """The objective of one player as a function of the parameters that it reaches."""

    def __init__(self, net, player, without):
        super().__init__()
        object.__setattr__(self, "net", net)
        if without is None:
            self.whole = net
        else:
            without.to("float64")
            self.discriminator = net.discriminator
        self.player = player

    def forward(self, x):
        return self.net.objective(Tensor(x), None, self.player)[0]


def test_the_minimax_generator_learns_nothing_from_a_sure_discriminator():
    """∂/∂s ln(1 − σ(s)) = −σ(s), which dies at s = −20; of −ln σ(s) it is −(1 − σ(s)), which is −1 there."""
    largest = {}
    for loss in ("minimax", "non-saturating"):
        net = gan(loss=loss)
        net.discriminator._modules["3"].bias.set([-20.0])
        net.objective(Tensor(points()), None, "generator")[0].backward()
        largest[loss] = max(float(abs(p.grad).max()) for p in net.generator.parameters())
    assert largest["minimax"] < 1e-6 * largest["non-saturating"]


def test_where_the_generator_draws_the_data_the_best_discriminator_says_one_half():
    net = gan((1,), 1, (16,))
    net.generator = nn.Sequential(nn.Linear(1, 1))  # x = z
    net.generator._modules["0"].weight.set([[1.0]])
    net.generator._modules["0"].bias.set([0.0])
    net.turns = lambda step: ("discriminator",)
    x = np.random.default_rng(0).normal(size=(6400, 1)).astype(np.float32)
    trainer = trainer_of(net)
    trainer.fit((x, x), epochs=5)
    at_end = trainer.evaluate((x, x))
    assert at_end["loss"] == pytest.approx(2 * math.log(2), abs=0.02)
    assert at_end["d_real"] == pytest.approx(0.5, abs=0.02) and at_end["d_fake"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("options", [{}, {"loss": "wasserstein", "clip": 0.1, "discriminator_steps": 3}, {"pack": 2}])
def test_it_learns_where_the_data_are_and_how_wide(options):
    x = (3.0 + 0.5 * np.random.default_rng(0).normal(size=(6400, 1))).astype(np.float32)
    net = gan((1,), 2, (32,), **options)
    trainer_of(net, lr=2e-3).fit((x, x), epochs=12)
    drawn = net.sample(2000)
    assert drawn.mean() == pytest.approx(3.0, abs=0.3) and 0.2 < drawn.std() < 0.9


# ---- turns


def test_a_turn_moves_its_player_only_and_wasserstein_cuts_the_discriminator():
    net = gan(loss="wasserstein", clip=0.05, discriminator_steps=2)
    assert [net.turns(step) for step in range(4)] == [("discriminator",), ("discriminator", "generator")] * 2
    before = net.state_dict()
    trainer = trainer_of(net, batch_size=6)
    trainer.fit((points(), points()), epochs=1)
    after = net.state_dict()
    assert all(np.array_equal(before[n], after[n]) for n in after if n.startswith("generator"))
    assert all(np.abs(after[n]).max() <= np.float32(0.05) for n in after if n.startswith("discriminator"))
    trainer.fit((points(), points()), epochs=1)
    moved = net.state_dict()
    assert all(not np.array_equal(moved[n], after[n]) for n in after if n.startswith("generator"))
    assert max(np.abs(moved[n]).max() for n in after if n.startswith("generator")) > 0.05


def test_a_run_that_was_ended_within_an_epoch_goes_on_to_the_same_bits(tmp_path):
    x = np.random.default_rng(0).random((60, 1, 4, 4)).astype(np.float32)

    def run(*callbacks, **how):
        net = gan((1, 4, 4), 3, (2,), DCGAN, noise=0.1, discriminator_steps=2)
        trainer = trainer_of(net, batch_size=10, callbacks=callbacks)
        trainer.fit((x, x), **how)
        return net.state_dict(), trainer.history

    class Stop(Callback):
        def on_step(self, trainer, step):
            if trainer.step == 9:
                trainer.stop("enough")

    whole, rows = run(epochs=3)
    run(Stop(), Checkpoint(tmp_path, save_every=3), epochs=3)
    parts, again = run(Checkpoint(tmp_path), epochs=3, resume=tmp_path)
    assert all(np.array_equal(value, parts[name]) for name, value in whole.items())
    assert [row["d_fake"] for row in rows] == [row["d_fake"] for row in again]


def test_a_pack_is_judged_together():
    net, x = gan(pack=3), points(6)
    both = net.scores(Tensor(x)).numpy()
    changed = x.copy()
    changed[4] += 1.0  # of the second pack
    again = net.scores(Tensor(changed)).numpy()
    assert both.shape == (2, 1) and both[0] == again[0] and both[1] != again[1]
    with pytest.raises(ShapeError, match=r"GAN: x must have shape \(N, 2\), N a multiple of pack = 3, got \(4, 2\)"):
        net.scores(Tensor(points(4)))
    net.eval()
    whole, cut = (net.objective(Tensor(points(n)))[1]["d_real"].item() for n in (6, 8))
    assert np.array_equal(points(6), points(8)[:6]) and whole == cut  # the two beyond two packs of three are left out


def test_noise_is_for_training_only():
    net, x = gan(noise=0.5), Tensor(points())
    assert not np.array_equal(net.scores(x), net.scores(x))
    judge, net.discriminator = net.discriminator, nn.Identity()
    added = net.scores(Tensor(np.ones((5000, 2), np.float32))).numpy() - 1
    assert added.mean() == pytest.approx(0.0, abs=0.02) and added.std() == pytest.approx(0.5, rel=0.03)
    net.discriminator = judge
    net.eval()
    assert np.array_equal(net.scores(x), net.scores(x))


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_a_turn_leaves_the_parameters_of_the_other_player(player):
    """With weight decay, too, which would move what has a gradient of 0."""
    net = gan((1, 4, 4), 3, (2,), DCGAN)
    x = np.random.default_rng(0).random((20, 1, 4, 4)).astype(np.float32)
    trainer = AdversarialTrainer(net, optim.AdamW(net.parameters(), weight_decay=0.1), batch_size=10, progress=False)
    trainer.fit((x, x), epochs=1)  # both: the optimiser has moments of all
    before = {name: p.numpy().copy() for name, p in net.named_parameters()}
    both, net.turns = net.turns, lambda step: (player,)
    trainer._train_on(x[:10], x[:10])
    net.turns = both
    moved = {name for name, p in net.named_parameters() if not np.array_equal(p.numpy(), before[name])}
    assert moved == {name for name in before if name.startswith(player)}


# ---- the convolutional one


def test_dcgan_begins_as_the_paper_says_and_draws_pictures():
    net = gan((3, 8, 12), 5, (16,), DCGAN)
    weights = np.concatenate([p.numpy().ravel() for n, p in net.named_parameters() if p.ndim == 4])
    assert weights.std() == pytest.approx(0.02, rel=0.02) and abs(weights.mean()) < 1e-3
    drawn = net.sample(4)
    assert drawn.shape == (4, 3, 8, 12) and drawn.min() >= 0 and drawn.max() <= 1
    assert net(np.zeros((2, 3, 8, 12), np.float32)).shape == (4, 1)


def test_the_discriminator_sees_pixels_around_zero():
    net, x = gan((1, 4, 4), 3, (2,), DCGAN), np.random.default_rng(0).random((2, 1, 4, 4)).astype(np.float32)
    net.discriminator = nn.Identity()
    np.testing.assert_allclose(net.scores(Tensor(x)).numpy(), 2 * x - 1, rtol=1e-6)


def test_sampling_leaves_the_model_and_the_random_numbers_as_they_are():
    net = gan((1, 4, 4), 5, (4,), DCGAN)
    state, numbers = net.state_dict(), cl.random.get_state()
    a = net.sample(3, seed=1)
    assert np.array_equal(a, net.sample(3, seed=1)) and not np.array_equal(a, net.sample(3, seed=2))
    assert net.training and cl.random.get_state() == numbers
    assert all(np.array_equal(state[n], value) for n, value in net.state_dict().items())


# ---- the ring


def test_the_ring_and_what_is_found_of_it():
    data = ring(16_000, seed=3)
    assert np.bincount(data.y).tolist() == [2000] * 8
    middle = np.array([data.x[data.y == k].mean(axis=0) for k in range(8)])
    np.testing.assert_allclose(np.linalg.norm(middle, axis=1), 2.0, atol=0.01)
    assert data.x[data.y == 2].std(axis=0) == pytest.approx([0.02, 0.02], rel=0.05)
    whole = coverage(data.x)
    assert whole.modes == 8 and whole.quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    half = coverage(np.concatenate([data.x[data.y < 4], np.zeros((8000, 2), np.float32)]))
    assert half.modes == 4 and half.quality == pytest.approx(whole.quality / 2, abs=0.005) and half.shares[5] == 0
    with pytest.raises(ValueRangeError, match="ring: std must be above 0, got 0"):
        ring(10, std=0)
    with pytest.raises(ShapeError, match=r"coverage: samples must be points of the plane, .*got \(3, 3\)"):
        coverage(np.zeros((3, 3)))


# ---- warnings and errors


def test_a_discriminator_that_is_always_right_is_named():
    message = r"the discriminator is right always: D\(x\) is .*What helps: smoothing=0.1"
    x = np.full((640, 2), 5.0, np.float32)
    net = gan()
    net.turns = lambda step: ("discriminator",)
    with pytest.warns(UserWarning, match=message):
        trainer_of(net, lr=0.01).fit((x, x), epochs=20)
    assert gan(loss="wasserstein").concern({"d_real": 1.0, "d_fake": 0.0}) is None
    assert gan().concern({"d_real": 0.97, "d_fake": 0.0}) is None
    assert gan(smoothing=0.1).concern({"d_real": 0.89, "d_fake": 0.0}) is not None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "wassertein"}, UnknownNameError, "did you mean 'wasserstein'"),
        ({"smoothing": 0.5}, ValueRangeError, "GAN: smoothing must be in 0 <= smoothing < 0.5, got 0.5"),
        ({"noise": -1.0}, ValueRangeError, "GAN: noise must be in 0 <= noise < inf, got -1.0"),
        ({"clip": math.nan}, ValueRangeError, "GAN: clip must be in 0 <= clip < inf, got nan"),
        ({"pack": 0}, ValueRangeError, "GAN: pack must be a whole number"),
        ({"kind": DCGAN}, ShapeError, r"multiples of 4, got \(2,\): GAN takes any"),
        ({"kind": DCGAN, "shape": (1, 8, 8), "hidden": (4, 8)}, ShapeError, r"hidden must be one number.*got \(4, 8\)"),
    ],
)
def test_settings_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        gan(**options)


@pytest.mark.parametrize("value", [-0.5, 2.0, math.nan])
def test_pictures_outside_0_and_1_are_refused(value):
    x = np.full((2, 1, 4, 4), 0.5, np.float32)
    x[1, 0, 2, 2] = value
    with pytest.raises(ValueRangeError, match="DCGAN: pictures must be in 0 … 1, where the generator draws, got"):
        gan((1, 4, 4), 2, (2,), DCGAN).objective(Tensor(x))


@pytest.mark.slow
def test_noise_that_fades_finds_the_whole_ring_and_a_discriminator_ahead_loses_most_of_it():
    """With a seed that neither chose the settings nor is in the lab."""
    gan_ring = pytest.importorskip("examples.labs.gan_ring")
    found = gan_ring.measure(5, gan_ring.STABLE, gan_ring.STEPS)
    assert found["modes"] == 8 and found["quality"] > 0.8
    assert gan_ring.measure(5, gan_ring.COLLAPSES, gan_ring.STEPS)["modes"] <= 4


def test_a_last_batch_smaller_than_a_pack_says_what_to_change():
    net = cl.models.GAN(input_shape=(2,), latents=2, hidden=(4,), pack=4)
    trainer = AdversarialTrainer(net, cl.optim.Adam(net.parameters(), lr=1e-3), batch_size=8, progress=False)
    with pytest.raises(
        ShapeError, match=r"N a multiple of pack = 4, got \(1, 2\)\. Take a batch size that leaves no last batch"
    ):
        trainer.fit(cl.data.ring(9), epochs=1)
