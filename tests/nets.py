"""What the tests of whole networks share."""

from __future__ import annotations

import numpy as np

import cnnlib as cl
from cnnlib.models.pictures import PictureNet


def without_weights(monkeypatch):
    """Networks created from here on are full of zeros: counting needs no random numbers, and zeros that nobody writes to
    take neither memory nor time.
    """
    for draw in ("uniform_", "normal_"):
        monkeypatch.setattr(cl.nn.init, draw, lambda shape, spread: np.zeros(shape, np.float32))
    monkeypatch.setattr(PictureNet, "start_for_relu", lambda net: None)


def parameter_count(net) -> int:
    return sum(p.size for p in net.parameters())


def check_gradients(net, criterion, x, labels, h: float = 1e-6, tolerance: float = 1e-5) -> None:
    """The whole network in float64: along a random direction in each parameter, and in all of them together, backward gives
    the slope that central differences measure. Dropout draws the same masks each time.
    """
    net.to("float64")
    x, streams = x.astype(np.float64), cl.random.get_state()
    parameters, rng = list(net.parameters()), np.random.default_rng(0)
    start = [p.data.copy() for p in parameters]

    def loss():
        cl.random.set_state(streams)
        return criterion(net(x), labels)

    def slope(directions):
        values = []
        for step in (h, -h):
            for p, at, d in zip(parameters, start, directions, strict=True):
                p.set(at + step * d)
            with cl.no_grad():
                values.append(loss().item())
        return (values[0] - values[1]) / (2 * h)

    loss().backward()
    grads = [p.grad for p in parameters]
    directions = [rng.standard_normal(p.shape) for p in parameters]
    expected = [float((g * d).sum()) for g, d in zip(grads, directions, strict=True)]
    largest = max(map(abs, expected))
    for i, p in enumerate(parameters):
        assert np.abs(grads[i]).max() > 0, f"no gradient reaches {p.name}"
        alone = [d if i == k else np.zeros_like(d) for k, d in enumerate(directions)]
        assert abs(slope(alone) - expected[i]) <= tolerance * max(abs(expected[i]), 1e-3 * largest), p.name
    assert abs(slope(directions) - sum(expected)) <= tolerance * largest
