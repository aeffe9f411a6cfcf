"""The forecaster: it begins as the naive forecast, learns what is better, and moves with the series where it is to."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.data.series import windows
from cnnlib.errors import ShapeError


def trained(relative=False):
    """On a wave of 10 steps."""
    cl.manual_seed(0)
    train, test, _ = windows(np.sin(2 * np.pi * np.arange(120) / 10), 10)
    net = models.Forecaster(hidden=8, relative=relative)
    trainer = cl.Trainer(net, nn.MSELoss(), optim.Adam(net.parameters(), lr=0.02), batch_size=16, progress=False)
    trainer.fit(train, epochs=25)
    return net.eval(), test, trainer.evaluate(test)["loss"]


def test_it_begins_as_the_naive_forecast():
    x = np.random.default_rng(0).normal(size=(4, 7, 2)).astype(np.float32)
    y = models.Forecaster(features=2)(cl.Tensor(x))
    assert y.shape == (4, 2) and y.dtype == np.float32
    np.testing.assert_array_equal(y.numpy(), x[:, -1])


def test_it_learns_a_wave():
    _, test, loss = trained()
    naive = np.mean((test.x[:, -1] - test.y) ** 2)
    assert loss < 0.02 * naive


def test_a_relative_one_foretells_the_same_for_a_higher_series():
    net, test, loss = trained(relative=True)
    assert loss < 0.05
    higher = net(cl.Tensor(test.x + 5)).numpy()
    np.testing.assert_allclose(higher, net(cl.Tensor(test.x)).numpy() + 5, atol=1e-4)
    absolute = trained()[0]
    assert not np.allclose(absolute(cl.Tensor(test.x + 5)).numpy(), absolute(cl.Tensor(test.x)).numpy() + 5, atol=1e-2)


def test_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"Forecaster: x must have the shape \(N, T, D\) with D = features = 1, got \(4, 7\)"):
        models.Forecaster()(cl.Tensor(np.zeros((4, 7))))
