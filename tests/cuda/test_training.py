"""Training steps on the emulated device: they end where those of the CPU end, bit for bit again, and wait for nothing."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import ops
from cnnlib.backends.shadow import ShadowError
from tests.cuda import emulator

rng = np.random.default_rng(0)
X = rng.standard_normal((4, 3)).astype(np.float32)


class Tagger(cl.nn.Module):
    """Words -> a class for each."""

    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.out = cl.nn.Embedding(7, 5), cl.nn.LSTM(5, 6), cl.nn.Linear(6, 3)

    def forward(self, words):
        return ops.transpose(self.out(self.lstm(self.embed(words))[0]), (0, 2, 1))


def mlp():
    nn = cl.nn
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)), X, np.array([0, 1, 2, -100])


def convolutional():
    nn = cl.nn
    features = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.LocalResponseNorm(3)
    averages = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=None), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten()
    images = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype(np.float32)
    return (
        nn.Sequential(*features, *averages, nn.LayerNorm(4), nn.GaussianNoise(0.1), nn.Linear(4, 3)),
        images,
        np.array([0, 2]),
    )


def tagger():
    words = np.random.default_rng(1).integers(0, 7, (5, 2))
    return Tagger(), words, words % 3


OPTIMIZERS = {
    "adam": lambda p: cl.optim.Adam(p),
    "adagrad": lambda p: cl.optim.Adagrad(p),
    "rmsprop": lambda p: cl.optim.RMSprop(p, momentum=0.9, centered=True),
    "sgd": lambda p: cl.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


def training(system, optimizer, device, dtype="float32"):
    """A function that does a step and gives its loss, and the model."""
    cl.manual_seed(3)
    model, x, labels = system()
    model.to(dtype).to(device)
    x = x.astype(dtype) if x.dtype.kind == "f" else x
    descent, x, labels = OPTIMIZERS[optimizer](model.parameters()), cl.Tensor(x).to(device), cl.Tensor(labels).to(device)

    def step():
        loss = ops.cross_entropy(model(x), labels, label_smoothing=0.1)
        loss.backward()
        descent.step()
        descent.zero_grad()
        return loss

    return step, model


def trained(system, optimizer, device, dtype="float32", steps=3):
    """Losses and the model after some steps."""
    step, model = training(system, optimizer, device, dtype)
    return [step() for _ in range(steps)], model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("system", [mlp, convolutional, tagger])
def test_a_training_step_does_not_wait(device, system, optimizer):
    device.synchronisations.clear()
    trained(system, optimizer, "cuda")
    assert not device.synchronisations


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("system", [mlp, convolutional, tagger])
def test_training_on_the_device_ends_where_the_textbook_ends(device, system, optimizer):
    with cl.use("reference"):
        losses, model = trained(system, optimizer, "cpu", "float64")
    losses_there, model_there = trained(system, optimizer, "cuda", "float64")
    np.testing.assert_allclose([x.item() for x in losses_there], [x.item() for x in losses], rtol=1e-9)
    state = model_there.state_dict()
    for name, a in model.state_dict().items():
        np.testing.assert_allclose(state[name], a, rtol=1e-7, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("system", [mlp, convolutional, tagger])
def test_shadow_compares_the_kernels_of_a_step_and_finds_one_that_is_wrong(device, system):
    with cl.shadow("reference"):
        trained(system, "adam", "cuda", steps=1)
        ops.masking_noise(cl.Tensor(device.asarray(X)), 0.5, training=True)
        wrong = cl.backends.kernel_set("cuda").cross_entropy_forward
        with cl.override_kernel("cross_entropy_forward", lambda *a: (wrong(*a)[0] * 1.001, wrong(*a)[1])):
            with pytest.raises(ShadowError, match="kernel cross_entropy_forward of backend 'cuda' disagrees"):
                trained(system, "adam", "cuda", steps=1)


@pytest.mark.parametrize("system", [mlp, convolutional, tagger])
def test_training_twice_gives_equal_bits(device, system, monkeypatch):
    """Also where blocks and threads run in another order."""
    ends = []
    for seed in (0, 1):
        monkeypatch.setattr(emulator, "seed", seed)
        ends.append(trained(system, "adam", "cuda")[1].state_dict())
    for name, a in ends[0].items():
        assert a.tobytes() == ends[1][name].tobytes(), name
