"""Linear, locally connected, maxout and DropConnect layers against formulas written out, and what tells them apart."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Tensor, nn, ops, optim
from cnnlib.errors import ShapeError, ValueRangeError


@pytest.fixture(autouse=True)
def same_random_numbers():
    cl.manual_seed(0)


def normal(*shape, dtype="float32"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def test_locally_connected_is_the_formula_written_out():
    x, w, b = normal(2, 3, 6, 7, dtype="float64"), normal(3, 4, 5, 3, 2, 3, dtype="float64"), normal(5, 3, 4, dtype="float64")
    y = ops.locally_connected2d(x, w, b, stride=(2, 2), padding=(0, 1)).numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))
    for n, f, oh, ow in np.ndindex(y.shape):
        window = padded[n, :, 2 * oh : 2 * oh + 2, 2 * ow : 2 * ow + 3]
        assert y[n, f, oh, ow] == pytest.approx((w[oh, ow, f] * window).sum() + b[f, oh, ow], abs=1e-12)


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"padding": "same"}], ids=repr)
def test_equal_weights_everywhere_are_a_convolution_and_its_gradient_is_the_sum_over_the_positions(settings):
    x = [Tensor(normal(3, 2, 7, 6, dtype="float64"), requires_grad=True) for _ in range(2)]
    w = Tensor(normal(4, 2, 3, 2, dtype="float64"), requires_grad=True)
    y = ops.conv2d(x[0], w, **settings)
    everywhere = np.broadcast_to(w.data, (*y.shape[2:], *w.shape))
    own = Tensor(everywhere.copy(), requires_grad=True)
    z = ops.locally_connected2d(x[1], own, **settings)
    dy = normal(*y.shape, dtype="float64")
    y.backward(dy)
    z.backward(dy)
    np.testing.assert_allclose(z.numpy(), y.numpy(), atol=1e-12)
    np.testing.assert_allclose(x[1].grad, x[0].grad, atol=1e-12)
    np.testing.assert_allclose(own.grad.sum(axis=(0, 1)), w.grad, atol=1e-12)


def test_a_window_as_large_as_the_image_is_a_linear_layer():
    x, w, b = normal(5, 2, 3, 4), normal(1, 1, 6, 2, 3, 4), normal(6, 1, 1)
    y = ops.locally_connected2d(x, w, b).numpy().reshape(5, 6)
    np.testing.assert_allclose(y, ops.linear(x.reshape(5, 24), w.reshape(6, 24), b.reshape(6)).numpy(), rtol=1e-5, atol=1e-5)


def test_a_convolution_moves_with_the_picture_and_a_locally_connected_layer_does_not():
    x = np.zeros((1, 1, 8, 8), np.float32)
    x[0, 0, 2:5, 2:5] = normal(3, 3)
    moved = np.roll(x, 2, axis=(2, 3))
    conv, local = nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.LocallyConnected2d(1, 2, 8, 3, padding=1, bias=False)
    np.testing.assert_allclose(np.roll(conv(x).numpy(), 2, axis=(2, 3)), conv(moved).numpy(), atol=1e-6)
    assert abs(np.roll(local(x).numpy(), 2, axis=(2, 3)) - local(moved).numpy()).max() > 0.1


def test_the_layer_has_the_weights_of_its_formula_and_the_range_of_a_convolutions():
    layer = nn.LocallyConnected2d(4, 8, (9, 7), 3, stride=2, padding=1)
    assert layer.weight.shape == (5, 4, 8, 4, 3, 3) and layer.bias.shape == (8, 5, 4)
    for p in layer.parameters():
        assert 0.99 / 6 < abs(p.data).max() <= 1 / 6 and p.dtype == np.float32  # 1/√(4·3·3)
    assert repr(layer) == "LocallyConnected2d(4, 8, input_size=(9, 7), kernel_size=(3, 3), stride=(2, 2), padding=1)"
    assert layer(normal(2, 4, 9, 7)).shape == (2, 8, 5, 4)


def test_a_locally_connected_network_learns_the_digits():
    train, test = cl.data.digits()
    net = nn.Sequential(nn.LocallyConnected2d(1, 4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    optimizer = optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(3):
        for x, y in cl.data.DataLoader(train, 64):
            optimizer.zero_grad()
            ops.cross_entropy(net(x), y).backward()
            optimizer.step()
    assert (net(test.x).numpy().argmax(axis=1) == test.y).mean() > 0.9


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: nn.LocallyConnected2d(0, 8, 6, 3), ValueRangeError, "in_channels must be a whole number >= 1, got 0"),
        (lambda: nn.LocallyConnected2d(1, 2.0, 6, 3), ValueRangeError, "out_channels must be a whole number >= 1, got 2.0"),
        (lambda: nn.LocallyConnected2d(1, 2, (6, 0), 3), ValueRangeError, "LocallyConnected2d: input_size must be a whole"),
        (lambda: nn.LocallyConnected2d(1, 2, 4, 5), ShapeError, "LocallyConnected2d: the kernel .* only \\(4, 4\\)"),
        (lambda: nn.LocallyConnected2d(1, 2, 8, 3)(normal(1, 1, 9, 8)), ShapeError, "made for one size of image"),
    ],
)
def test_settings_are_checked(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_maxout_is_the_largest_of_its_linear_maps():
    layer, x = nn.Maxout(5, 3, pieces=4), normal(7, 5)
    maps = [x @ layer.linear.weight.data[p::4].T + layer.linear.bias.data[p::4] for p in range(4)]
    np.testing.assert_allclose(layer(x).numpy(), np.maximum.reduce(maps), rtol=1e-5, atol=1e-6)


def test_two_pieces_of_opposite_sign_make_the_absolute_value():
    layer = nn.Maxout(1, 1, pieces=2, bias=False)
    layer.linear.weight.set(np.array([[1.0], [-1.0]], np.float32))
    np.testing.assert_array_equal(layer(np.array([[-3.0], [2.0]], np.float32)).numpy(), [[3.0], [2.0]])


def test_drop_connect_drops_weights_of_the_whole_batch_in_training():
    layer, x = nn.DropConnect(200, 300, p=0.3, bias=False), np.eye(200, dtype=np.float32)
    used = layer(x).numpy().T  # a unit vector shows a column of the weights in use
    kept = used != 0
    np.testing.assert_allclose(used[kept], layer.linear.weight.data[kept] / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / kept.size)
    assert not np.array_equal(layer(x).numpy().T != 0, kept), "another mask at the next call"


def test_a_dropped_weight_has_no_gradient():
    layer = nn.DropConnect(20, 30, p=0.5, bias=False)
    y = layer(np.eye(20, dtype=np.float32))
    y.backward(np.ones(y.shape, np.float32))
    np.testing.assert_array_equal(layer.linear.weight.grad, np.where(y.numpy().T != 0, 2.0, 0.0))


def test_drop_connect_in_evaluation_is_linear():
    layer, x = nn.DropConnect(5, 3).eval(), normal(4, 5)
    np.testing.assert_array_equal(layer(x).numpy(), ops.linear(x, layer.linear.weight, layer.linear.bias).numpy())


@pytest.mark.parametrize("lead", [(), (3,)])
def test_a_product_with_a_transposed_view_copies_nothing(lead):
    x, w = Tensor(normal(*lead, 5, 4), requires_grad=True), Tensor(normal(*lead, 6, 4), requires_grad=True)
    seen = []

    def gemm(a, b, transpose_a=False, transpose_b=False):
        seen.append((a, b, transpose_a, transpose_b))
        return textbook(a, b, transpose_a, transpose_b)

    textbook = cl.backends.REFERENCE.gemm
    with cl.override_kernel("gemm", gemm):
        y = x @ w.transpose(*range(len(lead)), -1, -2)
        y.sum().backward()
    (a, b, *flags), (_, b_again, *flags_dx), (a_again, _, *flags_dw) = seen
    assert np.shares_memory(a, x.data) and np.shares_memory(a_again, x.data)
    assert np.shares_memory(b, w.data) and np.shares_memory(b_again, w.data)
    assert (flags, flags_dx, flags_dw) == ([False, True], [False, False], [True, False])
    assert all(operand.flags.c_contiguous for call in seen for operand in call[:2])
    np.testing.assert_allclose(y.numpy(), x.data @ w.data.swapaxes(-1, -2), rtol=1e-5)
    np.testing.assert_allclose(w.grad, np.broadcast_to(x.data.sum(axis=-2, keepdims=True), w.shape), rtol=1e-5)
