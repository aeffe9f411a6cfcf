"""Autoencoders: tied weights, PCA's subspace, noise that teaches, layers that learn one after the other."""

import itertools

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib import random as streams
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from cnnlib.train import Callback, Checkpoint, ObjectiveTrainer, load
from tests.nets import check_gradients, parameter_count


@pytest.fixture(autouse=True)
def same_random_numbers():
    cl.manual_seed(0)


def pixels(n=6, *shape, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, *(shape or (12,)))).astype(np.float32)


def descend(net, x, steps, lr=0.05):
    """The whole of x in every step; the rate falls to 0, so that the end is a minimum and not a walk around it."""
    optimizer = optim.Adam(net.parameters(), lr=lr)
    schedule = optim.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        net.zero_grad()
        net.objective(x)[0].backward()
        optimizer.step()
        schedule.step()


# ---- the network


def test_sizes_are_the_documented_ones():
    net = models.Autoencoder()
    assert parameter_count(net) == 100_480 + 4_128 + 4_224 + 101_136
    assert parameter_count(models.ConvAutoencoder()) == 160 + 4_640 + 50_208 + 51_744 + 8_208 + 257
    assert parameter_count(models.StackedAutoencoder()) == 392_500 + 784 + 250_500 + 500 + 5_010
    assert net.encode(pixels(2, 784)).shape == (2, 32) and net(pixels(2, 784)).shape == (2, 1, 28, 28)


@pytest.mark.parametrize("net", [models.Autoencoder((1, 8, 8), (5,)), models.ConvAutoencoder((1, 8, 8), (2, 3), 5)], ids=repr)
def test_a_reconstruction_has_the_shape_of_a_sample_and_values_that_pixels_have(net):
    z = net(pixels(3, 1, 8, 8)).numpy()
    assert z.shape == (3, 1, 8, 8) and z.dtype == np.float32 and 0 < z.min() and z.max() < 1
    np.testing.assert_array_equal(z, net.decode(net.encode(pixels(3, 1, 8, 8))).numpy())


@pytest.mark.parametrize(
    "net",
    [
        models.Autoencoder(12, (7, 3), activation="tanh", sparsity=0.3),
        models.Autoencoder(12, (7, 3), activation="sigmoid", code="sigmoid", error="cross_entropy", tied=True),
        models.DenoisingAutoencoder(12, (20,), noise="salt_and_pepper"),
        models.ConvAutoencoder((3, 8, 8), (4, 6), 4),
    ],
    ids=["sparse", "tied", "denoising", "convolutional"],
)
def test_gradients_are_the_measured_slopes(net):
    x = pixels(5, *net.input_shape)
    check_gradients(net, lambda outputs, samples: net.objective(samples.astype(np.float64))[0], x, x)


def test_loss_is_the_formula():
    net, x = models.Autoencoder(12, (4,), code="tanh", sparsity=0.5, error="cross_entropy"), pixels()
    z, code = net(x).numpy(), net.encode(x).numpy()
    loss, measured = net.objective(x)
    expected = -(x * np.log(z) + (1 - x) * np.log(1 - z)).mean() + 0.5 * np.abs(code).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert measured["mse"].item() == pytest.approx(((x - z) ** 2).mean(), rel=1e-5)
    assert models.Autoencoder(12, (4,)).objective(x)[1].keys() == set(net.measures)


# ---- tied weights


def test_a_tied_weight_gets_the_sum_of_both_gradients():
    settings = dict(input_shape=12, sizes=(7, 3), activation="sigmoid", error="cross_entropy")
    tied, free = models.Autoencoder(**settings, tied=True), models.Autoencoder(**settings)
    pairs = [(tied.encoder[i], free.encoder[i], tied.decoder[2 - i], free.decoder[2 - i]) for i in (0, 2)]
    for of_tied, encoder, decoder_of_tied, decoder in pairs:
        encoder.weight.set(of_tied.weight.data)
        decoder.weight.set(of_tied.weight.data.T)
        encoder.bias.set(of_tied.bias.data)
        decoder.bias.set(decoder_of_tied.bias.data)
    x = pixels()
    for net in (tied, free):
        net.to("float64")
        net.objective(x.astype(np.float64))[0].backward()
    for of_tied, encoder, _, decoder in pairs:
        assert np.abs(decoder.weight.grad).max() > 1e-4
        np.testing.assert_allclose(of_tied.weight.grad, encoder.weight.grad + decoder.weight.grad.T, rtol=1e-12, atol=1e-15)
    assert parameter_count(tied) == parameter_count(free) - 12 * 7 - 7 * 3


def test_a_tied_decoder_multiplies_as_much_and_has_no_weights_of_its_own():
    tied, free = (cl.summary(models.Autoencoder(12, (7, 3), tied=tied), (12,)) for tied in (True, False))
    assert tied.multiply_adds == free.multiply_adds == 2 * (12 * 7 + 7 * 3) and 2 * tied.weights == free.weights


def test_a_tied_weight_stays_one_through_training_and_checkpoints(tmp_path):
    options = {"input_shape": 12, "sizes": [5], "tied": True}
    net = models.create("autoencoder", **options)
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=0.1), [Checkpoint(tmp_path)], progress=False,
                               model_name="autoencoder", model_options=options)  # fmt: skip
    trainer.fit((pixels(64), np.zeros(64, int)), epochs=2)
    saved = load(tmp_path)
    again = models.create(saved.name, **saved.options)
    saved.load_into(again)
    assert again.decoder[0].weight is again.encoder[0].weight and set(saved.model) == {
        "encoder.0.weight", "encoder.0.bias", "decoder.0.bias"
    }  # fmt: skip
    np.testing.assert_array_equal(again(pixels()).numpy(), net(pixels()).numpy())


# ---- PCA


def largest_angle(a, b):
    """The largest principal angle between the column spaces of a and b (D, K), by the sine, which is exact for small ones."""
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    return np.arcsin(min(np.linalg.norm(b - a @ (a.T @ b), 2), 1.0))


def principal_components(x, K):
    """(D, K), and the squared error of the projection."""
    centred = x - x.mean(axis=0)
    V = np.linalg.svd(centred, full_matrices=False)[2][:K].T
    return V, ((centred - centred @ V @ V.T) ** 2).mean()


@pytest.mark.parametrize("tied", [False, True])
def test_a_linear_autoencoder_spans_the_subspace_of_pca(tied):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 10)) * [3, 2.5, 2, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    x = x @ np.linalg.qr(rng.normal(size=(10, 10)))[0] + 1.0
    net = models.Autoencoder(10, (3,), output="identity", tied=tied).to("float64")
    V, error = principal_components(x, 3)
    W = net.encoder[0].weight
    assert largest_angle(W.numpy().T, V) > 0.5 and net.objective(x)[0].item() > 1.5 * error
    descend(net, x, steps=1000)
    decoder = net.decoder[0].weight.numpy() if not tied else W.numpy().T
    assert largest_angle(W.numpy().T, V) < 1e-3 and largest_angle(decoder, V) < 1e-3
    assert net.objective(x)[0].item() == pytest.approx(error, rel=1e-6)
    if tied:  # W Wᵀ = I is the best that tied weights can do: an orthonormal basis, but not the components themselves
        np.testing.assert_allclose(W.numpy() @ W.numpy().T, np.eye(3), atol=1e-3)
    assert np.abs(np.linalg.qr(decoder)[0].T @ V).max() < 0.999


def test_on_digits_the_decoder_spans_the_subspace_of_pca():
    """Pixels that are always 0 give the encoder no gradient: what it does with them stays as it was drawn."""
    x = cl.data.digits()[0].x[:500].reshape(500, -1).astype(np.float64)
    net = models.Autoencoder(64, (3,), output="identity").to("float64")
    descend(net, x, steps=1500)
    V, error = principal_components(x, 3)
    assert largest_angle(net.decoder[0].weight.numpy(), V) < 1e-3
    assert net.objective(x)[0].item() == pytest.approx(error, rel=1e-5)


# ---- noise


@pytest.mark.parametrize("noise", ["masking", "salt_and_pepper", "gaussian"])
def test_the_encoder_sees_noise_in_training_and_the_target_is_clean(noise):
    net, x = models.DenoisingAutoencoder(12, (20,), noise=noise, level=0.4), pixels()
    state = streams.get_state()
    seen = net.corrupted(cl.Tensor(x)).numpy()
    changed = (seen != x).mean()
    assert changed == 1 if noise == "gaussian" else 0.2 < changed < 0.6
    streams.set_state(state)
    loss = net.objective(x)[0].item()
    z = net.decode(net.encode(seen)).numpy()
    assert loss == pytest.approx(-(x * np.log(z) + (1 - x) * np.log(1 - z)).mean(), rel=1e-5)
    net.eval()
    assert net.objective(x)[0].item() == net.objective(x)[0].item()
    np.testing.assert_array_equal(net(x).numpy(), net.decode(net.encode(x)).numpy())


def test_an_overcomplete_code_copies_unless_there_is_noise():
    """50 units for 12 inputs that hang together: the plain one is better at copying, the other at telling what is missing."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 12))
    x, unseen = ((1 / (1 + np.exp(-rng.normal(size=(400, 3)) @ mixing))).astype(np.float32) for _ in range(2))
    masked = (unseen * (rng.uniform(size=unseen.shape) > 0.5)).astype(np.float32)
    copied, told = {}, {}
    for level in (0.0, 0.5):
        cl.manual_seed(1)
        net = models.DenoisingAutoencoder(12, (50,), level=level, tied=False)
        descend(net, x, steps=1500, lr=0.02)
        net.eval()
        copied[level], told[level] = (float(((net(seen).numpy() - unseen) ** 2).mean()) for seen in (unseen, masked))
    assert copied[0.0] < 0.2 * copied[0.5], copied
    assert told[0.5] < 0.4 * told[0.0], told


def test_sparsity_makes_codes_small():
    sizes = {}
    for weight in (0.0, 0.1):
        cl.manual_seed(0)
        net = models.Autoencoder(12, (24,), code="relu", sparsity=weight)
        descend(net, pixels(100), steps=200)
        sizes[weight] = np.abs(net.encode(pixels(100)).numpy()).mean()
    assert sizes[0.1] < 0.3 * sizes[0.0]


# ---- one layer after the other


class Recorder(Callback):
    """Weights of all layers at the start of each epoch."""

    def __init__(self):
        self.seen = []

    def on_epoch_start(self, trainer):
        self.seen.append([layer.encoder[0].weight.numpy().copy() for layer in trainer.model.layers])


def changed(before, after):
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


def test_layers_learn_one_after_the_other_and_then_together():
    net, x, y = models.StackedAutoencoder(12, (8, 5), num_classes=3, epochs_per_layer=2), pixels(40), np.arange(40) % 3
    recorder = Recorder()
    trainer = ObjectiveTrainer(net, optim.SGD(net.parameters(), lr=0.5), [recorder], progress=False)
    trainer.fit((x, y), epochs=6)
    moves = [changed(*pair) for pair in itertools.pairwise(recorder.seen)]
    assert moves == [[True, False], [True, False], [False, True], [False, True], [True, True]]
    assert int(net.stage) == 2


def test_a_layer_learns_from_the_codes_of_the_layers_below():
    net, x = models.StackedAutoencoder(12, (8, 5)), pixels()
    net.begin_epoch(net.epochs_per_layer)
    state = streams.get_state()
    loss, _ = net.objective(cl.Tensor(x), np.zeros(len(x), int))
    loss.backward()
    ours = net.layers[1].encoder[0].weight.grad.copy()
    net.zero_grad()
    streams.set_state(state)
    codes = 1 / (1 + np.exp(-(x @ net.layers[0].encoder[0].weight.numpy().T + net.layers[0].encoder[0].bias.numpy())))
    net.layers[1].objective(codes)[0].backward()
    np.testing.assert_allclose(ours, net.layers[1].encoder[0].weight.grad, atol=1e-6)
    assert all(p.grad is None for p in net.layers[0].parameters())


def test_fine_tuning_reaches_every_encoder_and_leaves_the_decoders():
    net = models.StackedAutoencoder(12, (8, 5), num_classes=3)
    net.criterion()(net(pixels(4)), np.array([0, 1, 2, 0])).backward()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == {"layers.0.decoder.0.bias", "layers.1.decoder.0.bias"}


def test_a_stopped_run_goes_on_in_its_stage(tmp_path):
    def trainer(folder):
        cl.manual_seed(0)
        net = models.StackedAutoencoder(12, (8, 5), num_classes=3, epochs_per_layer=1)
        return ObjectiveTrainer(net, optim.Adam(net.parameters()), [Checkpoint(folder, best=None)], progress=False)

    data = pixels(40), np.arange(40) % 3
    whole = trainer(tmp_path / "whole")
    whole.fit(data, epochs=3)
    trainer(tmp_path / "parts").fit(data, epochs=2)
    again = trainer(tmp_path / "parts")
    again.fit(data, epochs=3, resume=tmp_path / "parts")
    assert again.model.stage == 2
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[name], value, err_msg=name)


def test_pretraining_helps_a_deep_stack_of_sigmoids_that_has_few_labels():
    """The bundled digits, 50 labels, two layers: a rehearsal of the lab `pretraining`."""
    train, test = cl.data.digits()
    labelled = train.split(50, seed=0)[1]
    accuracy = {}
    for epochs in (0, 40):
        cl.manual_seed(0)
        net = models.StackedAutoencoder((1, 8, 8), (100, 100), epochs_per_layer=20)
        if epochs:
            ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=3e-3), progress=False).fit(train, epochs=epochs)
        trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=3e-3), batch_size=10, progress=False)
        trainer.fit(labelled, epochs=40)
        accuracy[epochs] = trainer.evaluate(test)["accuracy"]
    assert accuracy[40] > accuracy[0] + 0.03, accuracy


# ---- bad input


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: models.Autoencoder(12, ()), ValueRangeError, "Autoencoder: sizes must name at least the size of the code"),
        (lambda: models.Autoencoder(12, (3,), output="tanh"), UnknownNameError, "unknown output of an autoencoder 'tanh'"),
        (lambda: models.Autoencoder(12, (3,), error="l1"), UnknownNameError, "unknown error of an autoencoder 'l1'"),
        (lambda: models.Autoencoder(12, (3,), code="rleu"), UnknownNameError, "unknown activation 'rleu': did you mean 'relu'"),
        (lambda: models.Autoencoder(12, (3,), output="identity", error="cross_entropy"), ValueRangeError,
         r"needs output='sigmoid', as z is a probability; got 'identity': for inputs that are not in 0 … 1: error="),
        (lambda: models.Autoencoder(12, (3,), sparsity=-1), ValueRangeError, r"sparsity, the weight of mean \|y\|, must be"),
        (lambda: models.DenoisingAutoencoder(12, noise="mask"), UnknownNameError, "unknown noise 'mask': did you mean"),
        (lambda: models.ConvAutoencoder(maps=(4, 8, 9)), ValueRangeError, r"maps must be two numbers.*got \(4, 8, 9\)"),
        (lambda: models.ConvAutoencoder((1, 30, 30)), ShapeError, r"are multiples of 4; got \(1, 30, 30\)"),
        (lambda: models.Autoencoder(12, (3,)).objective(pixels(2, 13)), ShapeError,
         r"^Autoencoder: x must be \(N, 12\), got \(2, 13\): create it for the shape of your samples"),
        (lambda: models.Autoencoder(12, (3,)).objective(255 * pixels()), ValueRangeError,
         r"x has 162\.\d+ at \(0, 0\), but its output, a sigmoid, is in 0 … 1: divide 8-bit pixels by 255"),
        (lambda: models.Autoencoder(12, (3,)).objective(np.full((2, 12), np.nan)), ValueRangeError, r"x has nan at \(0, 0\)"),
    ],
)  # fmt: skip
def test_messages(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_any_number_will_do_where_the_output_is_linear():
    assert np.isfinite(models.Autoencoder(12, (3,), output="identity").objective(-7 * pixels())[0].item())


# ---- real pictures


@pytest.mark.slow
def test_fashion_mnist_is_told_by_32_numbers():
    """784-128-32-128-784, 5 epochs: 0.0120 with seed 0."""
    try:
        train, test = cl.data.fashion()
    except cl.errors.DataError as reason:
        pytest.skip(str(reason))
    net = models.Autoencoder()
    trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-3), progress=False)
    assert trainer.fit(train, test, epochs=5)["validation_mse"][-1] <= 0.0125
