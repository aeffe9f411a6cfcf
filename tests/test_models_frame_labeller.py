"""The frame labeller: frame by frame or with what came before, learning what one frame does not show, refusals."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, optim
from cnnlib.errors import ShapeError, ValueRangeError


def small(**options):
    cl.manual_seed(0)
    return models.FrameLabeller(num_classes=2, in_channels=1, input_size=4, width=4, features=8, hidden=8, **options).eval()


def videos(n, T=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, T, 1, 4, 4)).astype(np.float32)


def test_without_the_lstm_every_frame_stands_for_itself():
    net, x = small(recurrent=False), videos(3)
    y = net(cl.Tensor(x)).numpy()
    assert y.shape == (3, 2, 6) and y.dtype == np.float32
    turned = net(cl.Tensor(x[:, ::-1].copy())).numpy()
    np.testing.assert_allclose(turned[:, :, ::-1], y, atol=1e-6)


def test_with_the_lstm_a_frame_changes_what_comes_after_and_nothing_before():
    net, x = small(), videos(2)
    changed = x.copy()
    changed[1, 3] += 1
    before, after = net(cl.Tensor(x)).numpy(), net(cl.Tensor(changed)).numpy()
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    np.testing.assert_allclose(after[1, :, :3], before[1, :, :3], atol=1e-6)
    assert (abs(after - before)[1, :, 3:].max(axis=0) > 1e-4).all()


def test_what_changed_since_the_frame_before_needs_the_lstm():
    """Is the frame, bright or dark, another than the one before?"""
    bright = np.random.default_rng(0).integers(0, 2, (160, 7))
    x = np.broadcast_to(bright[:, :, None, None, None], (160, 7, 1, 4, 4)).astype(np.float32)
    y = np.zeros((160, 7), np.int64)
    y[:, 1:] = bright[:, 1:] != bright[:, :-1]
    accuracy = {}
    for recurrent in (False, True):
        net = small(recurrent=recurrent)
        trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=0.02), batch_size=16, progress=False)
        trainer.fit((x[:128], y[:128]), epochs=15)
        accuracy[recurrent] = trainer.evaluate((x[128:], y[128:]))["accuracy"]
    assert accuracy[True] > 0.95 and accuracy[False] < 0.7


def test_bad_input_is_refused_in_a_sentence():
    with pytest.raises(ShapeError, match=r"FrameLabeller: x must have the shape \(N, T, 1, 4, 4\), got \(2, 1, 4, 4\)"):
        small()(cl.Tensor(videos(2)[:, 0]))
    with pytest.raises(ValueRangeError, match="must be a multiple of 4, got 10"):
        models.FrameLabeller(2, input_size=10)
