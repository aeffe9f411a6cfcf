"""What a network holds in evaluation: its parameters and two activations at a time."""

import tracemalloc

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models


def activations(net, x):
    """Bytes of the output of every operation."""
    with cl.trace() as t, cl.no_grad():
        net(x)
    return [entry.outputs[0].nbytes for entry in t]


def peak(net, x):
    """Bytes that evaluation allocates at most, results of all operations included."""
    with cl.no_grad():
        net(x)
        tracemalloc.start()
        try:
            net(x)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "options", "arrays"),
    [
        ("vgg16", {"width": 0.25, "input_size": 64}, 2),
        ("vgg11_bn", {"width": 0.25, "input_size": 64}, 2),
        ("resnet18", {"width": 0.25, "input_size": 128}, 2),
        ("resnet50", {"width": 0.25, "input_size": 128}, 3),  # the shortcut's is held while the block's are computed
        ("googlenet", {"width": 0.25, "input_size": 128}, 3),  # the input of an inception block, its branches, their sum
    ],
)
def test_evaluation_frees_what_is_done_with(name, options, arrays):
    """Peak ≤ 1.2 times the largest activations that must exist at once; parameters come on top and are there before."""
    if cl.backend() == "reference":
        pytest.skip("the textbook's intermediate arrays are larger than its results")
    net = models.create(name, num_classes=10, **options).eval()
    x = cl.Tensor(np.ones((4, *net.input_shape), np.float32))
    assert peak(net, x) <= 1.2 * sum(sorted(activations(net, x))[-arrays:])
