"""Losses against their definitions, written out slowly; conventions; limits; layers."""

import itertools
import math
import warnings

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Tensor, nn, ops
from cnnlib.backends import available

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
REDUCTIONS = ("mean", "sum", "none")
rng = np.random.default_rng(0)


def slow_cross_entropy(x, labels, weight, ignore_index, e):
    """(losses, what the mean divides by), row by row, in Python."""
    losses, divisor = [], 0.0
    C = x.shape[1]
    for row, t in zip(x.tolist(), labels.tolist(), strict=True):
        if t == ignore_index:
            losses.append(0.0)
            continue
        log_sum = math.log(math.fsum(math.exp(v) for v in row))
        w = [1.0] * C if weight is None else weight.tolist()
        target = [(1 - e) * (c == t) + e / C for c in range(C)]
        losses.append(math.fsum(-w[c] * target[c] * (row[c] - log_sum) for c in range(C)))
        divisor += w[t]
    return np.array(losses), divisor


@each_backend
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("e", [0.0, 0.1, 1.0])
def test_cross_entropy_equals_its_definition(e, weighted, reduction, backend):
    x, weight = rng.standard_normal((8, 5)), rng.uniform(0.5, 2, 5) if weighted else None
    labels = np.array([0, 4, -7, 2, 2, -7, 1, 3])
    losses, divisor = slow_cross_entropy(x, labels, weight, -7, e)
    expected = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / divisor}[reduction]
    with cl.use(backend):
        y = ops.cross_entropy(x, labels, weight, ignore_index=-7, reduction=reduction, label_smoothing=e)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-13)


@each_backend
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_of_maps_is_that_of_their_pixels(reduction, backend):
    x, labels = rng.standard_normal((2, 5, 3, 4)), rng.integers(0, 5, (2, 3, 4))
    t = Tensor(x, requires_grad=True)
    rows = Tensor(x.transpose(0, 2, 3, 1).reshape(24, 5), requires_grad=True)
    with cl.use(backend):
        y = ops.cross_entropy(t, labels, reduction=reduction)
        z = ops.cross_entropy(rows, labels.reshape(24), reduction=reduction)
        np.testing.assert_array_equal(y.numpy().reshape(-1), z.numpy().reshape(-1))
        y.backward(np.ones_like(y.data))
        z.backward(np.ones_like(z.data))
    np.testing.assert_array_equal(t.grad, rows.grad.reshape(2, 3, 4, 5).transpose(0, 3, 1, 2))


@each_backend
def test_the_gradient_is_softmax_minus_one_hot(backend):
    x, labels = Tensor(rng.standard_normal((6, 4)), requires_grad=True), rng.integers(0, 4, 6)
    with cl.use(backend):
        ops.cross_entropy(x, labels).backward()
        expected = (ops.softmax(x).numpy() - np.eye(4)[labels]) / 6
    np.testing.assert_allclose(x.grad, expected, rtol=1e-12, atol=1e-16)


@each_backend
@pytest.mark.parametrize("weighted", [False, True])
def test_smoothing_is_a_mixture_with_the_uniform_distribution(weighted, backend):
    x, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    weight = rng.uniform(0.5, 2, 4) if weighted else None
    e = 0.3
    with cl.use(backend):
        smooth = ops.cross_entropy(x, labels, weight, reduction="none", label_smoothing=e).numpy()
        mixed = ops.cross_entropy(x, (1 - e) * np.eye(4)[labels] + e / 4, weight, reduction="none").numpy()
        by_setting = ops.cross_entropy(x, np.eye(4)[labels], weight, reduction="none", label_smoothing=e).numpy()
    np.testing.assert_allclose(smooth, mixed, rtol=1e-12)
    np.testing.assert_allclose(smooth, by_setting, rtol=1e-12)


@each_backend
def test_one_hot_probabilities_equal_labels(backend):
    x, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    with cl.use(backend):
        for reduction in REDUCTIONS:
            a = ops.cross_entropy(x, labels, reduction=reduction).numpy()
            np.testing.assert_allclose(ops.cross_entropy(x, np.eye(4)[labels], reduction=reduction).numpy(), a, rtol=1e-12)


@each_backend
def test_nll_of_log_softmax_is_cross_entropy(backend):
    x, weight = Tensor(rng.standard_normal((6, 4)), requires_grad=True), rng.uniform(0.5, 2, 4)
    again, labels = Tensor(x.data, requires_grad=True), np.array([0, 3, -100, 1, 2, 0])
    with cl.use(backend):
        a = ops.cross_entropy(x, labels, weight)
        b = ops.nll_loss(ops.log_softmax(again), labels, weight)
        a.backward()
        b.backward()
    np.testing.assert_allclose(a.item(), b.item(), rtol=1e-13)
    np.testing.assert_allclose(x.grad, again.grad, rtol=1e-12, atol=1e-15)


@each_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("C", [2, 10, 17])
def test_large_logits_neither_overflow_nor_lose_the_loss(C, dtype, backend):
    x = np.zeros((4, C), dtype)
    x[0, 0], x[1, 0], x[2], x[3, 1] = 1e4, -1e4, 1e4, 1e4
    t = Tensor(x, requires_grad=True)
    with cl.use(backend), warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = ops.cross_entropy(t, np.zeros(4, int), reduction="none")
        losses.backward(np.ones(4, dtype))
    np.testing.assert_allclose(losses.numpy(), [0, 1e4 + math.log(C - 1), math.log(C), 1e4], rtol=1e-6)
    np.testing.assert_allclose(t.grad[3, :2], [-1, 1], rtol=1e-6)
    assert np.isfinite(t.grad).all()


@each_backend
def test_a_confident_small_loss_keeps_its_digits(backend):
    """lse − x[t] as a difference of two numbers near 1000 would have no digits left in float32."""
    x = np.array([[1000.0, 995.0]], np.float32)
    with cl.use(backend):
        assert ops.cross_entropy(x, np.array([0])).item() == pytest.approx(math.log1p(math.exp(-5)), rel=1e-5)


@each_backend
def test_ignored_rows_count_nothing_even_when_they_are_nan(backend):
    x = rng.standard_normal((4, 3))
    broken = x.copy()
    broken[1] = np.nan
    labels = np.array([0, -100, 2, 1])
    with cl.use(backend):
        t = Tensor(broken, requires_grad=True)
        y = ops.cross_entropy(t, labels)
        y.backward()
        kept = [0, 2, 3]
        assert y.item() == pytest.approx(ops.cross_entropy(x[kept], labels[kept]).item(), rel=1e-14)
    assert not t.grad[1].any() and np.isfinite(t.grad).all()


def test_all_ignored_is_zero_in_a_sum():
    assert ops.cross_entropy(np.ones((2, 3)), np.full(2, -100), reduction="sum").item() == 0


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_labels_of_any_integer_type(dtype):
    labels = np.array([0, 2], dtype)
    assert ops.cross_entropy(np.zeros((2, 3)), labels).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_is_an_array_of_no_axes_and_of_the_dtype_of_x(dtype):
    x, labels, y = np.ones((2, 3), dtype), np.array([0, 1]), np.zeros((2, 3), dtype)
    for reduction in ("mean", "sum"):
        for loss in (
            ops.cross_entropy(x, labels, reduction=reduction),
            ops.cross_entropy(x, y, reduction=reduction, label_smoothing=0.1),
            ops.nll_loss(x, labels, reduction=reduction),
            ops.mse_loss(x, y, reduction),
            ops.l1_loss(x, y, reduction),
            ops.binary_cross_entropy_with_logits(x, y, reduction=reduction),
            ops.hinge_loss(x, y + 1, reduction),
            ops.multi_margin_loss(x, labels, reduction=reduction),
        ):
            assert isinstance(loss.data, np.ndarray) and loss.shape == () and loss.dtype == dtype


# ---- element by element

ELEMENTWISE = {  # operation: (loss, derivative by x) of Python numbers
    ops.mse_loss: (lambda x, t: (x - t) ** 2, lambda x, t: 2 * (x - t)),
    ops.l1_loss: (lambda x, t: abs(x - t), lambda x, t: math.copysign(1, x - t)),
    ops.hinge_loss: (lambda x, t: max(0.0, 1 - t * x), lambda x, t: -t if t * x < 1 else 0.0),
    ops.binary_cross_entropy_with_logits: (
        lambda x, t: -t * math.log(1 / (1 + math.exp(-x))) - (1 - t) * math.log(1 - 1 / (1 + math.exp(-x))),
        lambda x, t: 1 / (1 + math.exp(-x)) - t,
    ),
}


@each_backend
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("operation", ELEMENTWISE, ids=lambda f: f.__name__)
def test_elementwise_losses_equal_their_definition(operation, reduction, backend):
    loss, slope = ELEMENTWISE[operation]
    x = rng.standard_normal((3, 4)) * 2
    target = rng.choice([-1.0, 1.0], (3, 4)) if operation is ops.hinge_loss else rng.uniform(0, 1, (3, 4))
    pairs = list(zip(x.ravel().tolist(), target.ravel().tolist(), strict=True))
    losses, slopes = (np.array([f(*pair) for pair in pairs]).reshape(3, 4) for f in (loss, slope))
    t = Tensor(x, requires_grad=True)
    with cl.use(backend):
        y = operation(t, target, reduction=reduction)
        y.backward(np.ones_like(y.data))
    expected = {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(t.grad, slopes / (12 if reduction == "mean" else 1), rtol=1e-12, atol=1e-16)


def test_the_squared_loss_of_the_lecture_is_half_the_sum():
    x, t = rng.standard_normal(5), rng.standard_normal(5)
    assert (0.5 * ops.mse_loss(x, t, "sum")).item() == pytest.approx(0.5 * np.linalg.norm(x - t) ** 2)


@each_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_of_large_logits(dtype, backend):
    x = Tensor(np.array([1e4, -1e4, 1e4, -1e4], dtype), requires_grad=True)
    with cl.use(backend), warnings.catch_warnings():
        warnings.simplefilter("error")
        y = ops.binary_cross_entropy_with_logits(x, np.array([1, 0, 0, 1], dtype), reduction="none")
        y.backward(np.ones(4, dtype))
    np.testing.assert_array_equal(y.numpy(), [0, 0, 1e4, 1e4])
    np.testing.assert_array_equal(x.grad, [0, 0, 1, -1])


def test_pos_weight_repeats_the_positive_examples():
    x = rng.standard_normal(4)
    t = np.array([1.0, 0.0, 1.0, 0.0])
    twice = ops.binary_cross_entropy_with_logits(np.concatenate([x, x[t == 1]]), np.concatenate([t, [1, 1]]), reduction="sum")
    weighted = ops.binary_cross_entropy_with_logits(x, t, np.array([2.0]), reduction="sum")
    assert weighted.item() == pytest.approx(twice.item())


def test_derivatives_at_the_kinks():
    x = Tensor(np.array([1.0, -1.0]), requires_grad=True)
    ops.hinge_loss(x, np.array([1, -1]), "sum").backward()
    np.testing.assert_array_equal(x.grad, [0, 0])
    x = Tensor(np.array([2.0]), requires_grad=True)
    ops.l1_loss(x, np.array([2.0])).backward()
    np.testing.assert_array_equal(x.grad, [0])


def test_multi_margin_loss_equals_its_definition():
    x, labels, margin = rng.standard_normal((6, 4)), rng.integers(0, 4, 6), 0.7
    expected = [
        sum(max(0.0, margin - row[t] + row[c]) for c in range(4) if c != t) / 4 for row, t in zip(x, labels, strict=True)
    ]
    np.testing.assert_allclose(ops.multi_margin_loss(x, labels, margin, "none").numpy(), expected, rtol=1e-12)


def test_two_class_multi_margin_is_a_hinge():
    x, labels = rng.standard_normal((6, 2)), rng.integers(0, 2, 6)
    hinge = ops.hinge_loss(x[:, 1] - x[:, 0], 2 * labels - 1, "none").numpy()
    np.testing.assert_allclose(ops.multi_margin_loss(x, labels, reduction="none").numpy(), hinge / 2, rtol=1e-12)


# ---- an adjoint other than 1


@each_backend
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_adjoint_that_arrives_scales_the_gradient(reduction, backend):
    x, labels = rng.standard_normal((5, 3)), rng.integers(0, 3, 5)
    grads = []
    with cl.use(backend):
        for factor in (1.0, -2.5):
            t = Tensor(x, requires_grad=True)
            (ops.cross_entropy(t, labels, reduction=reduction) * factor).backward()
            grads.append(t.grad)
    np.testing.assert_allclose(grads[1], -2.5 * grads[0], rtol=1e-13)


# ---- layers


@pytest.mark.parametrize(
    ("layer", "operation", "target"),
    [
        (nn.MSELoss(), ops.mse_loss, np.full((2, 3), 0.5, np.float32)),
        (nn.L1Loss("sum"), lambda x, t: ops.l1_loss(x, t, "sum"), np.zeros((2, 3), np.float32)),
        (nn.BCEWithLogitsLoss(), ops.binary_cross_entropy_with_logits, np.ones((2, 3), np.float32)),
        (nn.HingeLoss(), ops.hinge_loss, np.ones((2, 3), np.float32)),
        (nn.CrossEntropyLoss(), ops.cross_entropy, np.array([0, 2])),
        (nn.CrossEntropyLoss(label_smoothing=0.1), lambda x, t: ops.cross_entropy(x, t, label_smoothing=0.1), np.array([0, 2])),
        (nn.NLLLoss(ignore_index=2), lambda x, t: ops.nll_loss(x, t, ignore_index=2), np.array([0, 2])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_call_their_operation(layer, operation, target):
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    assert layer(Tensor(x), target).item() == operation(x, target).item()


def test_class_weights_of_a_layer_are_a_buffer_that_casts_with_it():
    layer = nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(layer.state_dict()["weight"], np.array([1, 2, 3], np.float32))
    layer.to("float64")
    x, labels = np.zeros((2, 3)), np.array([1, 2])
    assert layer(x, labels).item() == pytest.approx(math.log(3))
    assert nn.BCEWithLogitsLoss(pos_weight=2.0)(np.zeros(1, np.float32), np.ones(1, np.float32)).item() == pytest.approx(
        2 * math.log(2)
    )
    assert not nn.CrossEntropyLoss().state_dict()


def test_repr_shows_the_settings():
    assert repr(nn.MSELoss("sum")) == "MSELoss(reduction='sum')"
    assert repr(nn.CrossEntropyLoss(label_smoothing=0.1)) == "CrossEntropyLoss(reduction='mean', label_smoothing=0.1)"


# ---- the loss falls when one follows its gradient


@each_backend
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_small_step_downhill_lowers_every_loss(reduction, backend):
    x, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    for loss, target in itertools.product(
        (ops.cross_entropy, ops.nll_loss, ops.multi_margin_loss), (labels, labels.astype(np.int32))
    ):
        t = Tensor(x, requires_grad=True)
        with cl.use(backend):
            before = loss(t, target, reduction=reduction)
            before.backward()
            assert loss(x - 1e-3 * t.grad, target, reduction=reduction).item() < before.item()
