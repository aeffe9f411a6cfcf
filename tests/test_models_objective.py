"""What every model with an objective of its own takes as samples, and what it refuses."""

import inspect

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.models.objective import ObjectiveModel

KINDS = [kind for name in cl.models.list() if issubclass(kind := cl.models.get(name), ObjectiveModel)]
OF_PICTURES = [kind for kind in KINDS if kind.targets in (None, "classes")]
X = np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)
Y = np.arange(8) % 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [0, (), (1, -8, 8), "abc", 3.5, None])
def test_a_shape_that_is_none_is_refused_by_name(kind, shape):
    with pytest.raises(cl.errors.ValueRangeError) as error:
        kind(input_shape=shape)
    assert f"must be a whole number >= 1 or a shape of them, such as (1, 28, 28), got {shape!r}" in str(error.value)


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_an_array_is_worth_a_tensor(kind):
    losses = []
    for x in (X, cl.Tensor(X)):
        cl.manual_seed(0)
        losses.append(kind(input_shape=(1, 8, 8)).objective(x, Y)[0].item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", OF_PICTURES)
@pytest.mark.parametrize("x", [X[:0], X[:, :, :7]])
def test_no_samples_and_samples_of_another_shape_are_refused(kind, x):
    with pytest.raises(cl.errors.ShapeError, match=r"shape|must be"):
        kind(input_shape=(1, 8, 8)).objective(x, Y[: len(x)])


@pytest.mark.parametrize("name", ["vae", "conv_vae", "gan", "dcgan"])
def test_generative_models_say_which_shape(name):
    kind = cl.models.get(name)
    with pytest.raises(cl.errors.ShapeError) as error:
        kind(input_shape=(1, 8, 8)).objective(X[:0])
    assert str(error.value) == f"{kind.__name__}: x must have shape (N, 1, 8, 8), N at least 1, got (0, 1, 8, 8)."


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.__name__ != "RBM"])
def test_one_number_where_a_tuple_is_meant(kind):
    known = inspect.signature(kind).parameters
    name = next(name for name in ("sizes", "hidden", "maps") if name in known)
    with pytest.raises(cl.errors.ValueRangeError, match=rf"{name} must be a tuple of .*, such as \(400, 200\).*, got 50\."):
        kind(**{name: 50})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cl.models.StackedAutoencoder(sizes=()), "sizes must be a tuple of at least 1 whole number, such as"),
        (lambda: cl.models.ConvVAE(hidden=()), "hidden must be a tuple of at least 1 whole number, such as"),
        (lambda: cl.models.ConvAutoencoder(maps=(8,)), "maps must be a tuple of at least 2 whole numbers, such as"),
        (lambda: cl.models.MCDropout(p=1.0), "p, the probability that a unit is dropped, must be in 0 <= p < 1, got 1.0"),
        (lambda: cl.models.DenoisingAutoencoder(level=2), "must be in 0 <= p < 1, got 2"),
        (lambda: cl.models.DenoisingAutoencoder(noise="gaussian", level=-1), "-1"),
        (lambda: cl.models.VAE(conditional=True, classes=0), "classes must be a whole number >= 1, got 0"),
    ],
)
def test_settings_are_refused_before_the_first_step(make, message):
    with pytest.raises(cl.errors.ValueRangeError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["gaussian_regression", "mixture_of_experts", "bernoulli_classifier"])
@pytest.mark.parametrize("y", [None, [1.0, 0.0]])
def test_targets_that_are_no_array(name, y):
    with pytest.raises(cl.errors.ShapeError, match=rf"y must be an array of the shape .*\(2, 1\), got {type(y).__name__}"):
        cl.models.create(name).objective(cl.Tensor(np.zeros((2, 1), np.float32)), y)
