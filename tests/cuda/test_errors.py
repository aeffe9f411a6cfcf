"""What only the device knows: labels and indices out of range set bits in a word, which is read where the host waits anyway."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import ops
from cnnlib.backends.cuda import errors
from cnnlib.errors import ValueRangeError
from tests.toys import leaf

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
WHERE = "Found by the GPU, which does not say where: the same call on arrays of the CPU names the position"


def on(values, **settings):
    return cl.Tensor(np.asarray(values), **settings).to("cuda")


@pytest.fixture
def x(device):
    return on(X)


WEIGHT, EYE = np.float32([1, 0, 1]), np.eye(3, dtype="float32")
LABELS = "a label is outside 0 … C − 1, C being x.shape\\[1\\], and is not ignore_index"
NONE = "the labels' weights add up to 0, or every label is ignore_index, so there is nothing to average"
WRONG = {
    "cross_entropy": (lambda x: ops.cross_entropy(x, on([0, 1, 3, 2])), f"cross_entropy: {LABELS}"),
    "cross_entropy, negative": (lambda x: ops.cross_entropy(x, on([0, -1, 0, 2]), reduction="sum"), f"cross_entropy: {LABELS}"),
    "cross_entropy, mean": (lambda x: ops.cross_entropy(x, on([-100] * 4)), f"cross_entropy: {NONE}"),
    "cross_entropy, weights": (lambda x: ops.cross_entropy(x, on([1] * 4), on(WEIGHT)), f"cross_entropy: {NONE}"),
    "cross_entropy, probabilities": (
        lambda x: ops.cross_entropy(x, on(-abs(X))),
        "cross_entropy: target holds probabilities, which are >= 0, but one is not",
    ),
    "nll_loss": (lambda x: ops.nll_loss(x, on([0, 1, 99, 2])), f"nll_loss: {LABELS}"),
    "nll_loss, mean": (lambda x: ops.nll_loss(x, on([7] * 4), ignore_index=7), f"nll_loss: {NONE}"),
    "multi_margin_loss": (lambda x: ops.multi_margin_loss(x, on([0, 1, 3, -100])), f"multi_margin_loss: {LABELS}"),
    "bce": (
        lambda x: ops.binary_cross_entropy_with_logits(x, on(X * 9)),
        "binary_cross_entropy_with_logits: a target is outside 0 … 1. Labels -1 and 1 belong to hinge_loss",
    ),
    "hinge_loss": (lambda x: ops.hinge_loss(x, on(X)), "hinge_loss: a target is neither -1 nor 1. From labels 0 and 1"),
    "embedding": (lambda x: ops.embedding(on([0, 4]), x), "embedding: an index is outside 0 … num_embeddings − 1 .*row 0"),
    "embedding, negative": (lambda x: ops.embedding(on([-1, 2]), x), "embedding: an index is outside 0 … num_embeddings − 1"),
    "lengths": (
        lambda x: ops.rnn(on(X.reshape(2, 2, 3)), None, on(EYE), on(EYE), lengths=on([2, 3]))[0],
        "a recurrent layer: one of lengths is outside 1 … T, T being the number of steps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_operation_is_named_where_the_host_waits(device, x, name):
    call, message = WRONG[name]
    device.synchronisations.clear()
    y = call(x)
    assert not device.synchronisations
    with pytest.raises(ValueRangeError, match=f"^{message}") as raised:
        y.numpy()
    assert WHERE in str(raised.value)
    errors.check()  # said once


def test_all_that_was_found_is_said_at_once(x):
    ops.embedding(on([9]), x)
    ops.cross_entropy(x, on([9] * 4))
    with pytest.raises(ValueRangeError, match=r"embedding: .*\ncross_entropy: .*\nFound by the GPU"):
        float(x.sum())


def test_nothing_is_found_in_what_is_right(device, x):
    for reduction in ("mean", "sum", "none"):
        ops.cross_entropy(x, on([0, 1, -100, 2]), on(np.float32([1, 2, 3])), reduction=reduction)
        ops.nll_loss(x, on([0, 1, 5, 2]), ignore_index=5, reduction=reduction)
    ops.cross_entropy(x, on([-100] * 4), reduction="sum")
    ops.multi_margin_loss(x, on([0, 1, 2, 2]))
    ops.hinge_loss(x, on(np.sign(X)))
    ops.binary_cross_entropy_with_logits(x, on(abs(np.sign(X))))
    ops.embedding(on([0, 3]), x)
    device.synchronisations.clear()
    errors.check()
    assert device.synchronisations == ["int"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wrong_label_or_index_reads_nothing_outside(device, dtype):
    """Backward, too: as if it were label 0; the row of an index that does not exist gets no gradient."""
    x = leaf(X.astype(dtype)).to("cuda")
    right, wrong = (ops.cross_entropy(x, on(labels), reduction="none").data for labels in ([0, 1, 0, 2], [0, 1, 77, 2]))
    np.testing.assert_array_equal(wrong.get(), right.get())
    kernels = cl.backends.kernel_set("cuda")
    dy = X.astype(dtype)
    dw = kernels.embedding_backward(on(dy).data, on([1, -5, 1, 99]).data, 3)
    np.testing.assert_array_equal(dw.get(), np.stack([0 * dy[0], dy[0] + dy[2], 0 * dy[0]]))
