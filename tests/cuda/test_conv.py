"""Every method of a convolution on the emulated device, by name, over several tiles and ragged edges."""

import numpy as np
import pytest

from cnnlib.backends import REFERENCE
from cnnlib.backends.cuda import conv
from tests.cuda.agreement import assert_agrees, results

pytestmark = pytest.mark.usefixtures("device")

# name: (N, C, H, W), (F, C / groups, KH, KW), stride, pads, dilation, groups
GEOMETRIES = {
    "several tiles": ((3, 5, 13, 11), (70, 5, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "stride 2": ((2, 9, 12, 13), (20, 9, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "stride 3, 2, dilation 2, 3": ((2, 3, 17, 18), (33, 3, 3, 2), (3, 2), (2, 0, 1, 3), (2, 3), 1),
    "stride 4, dilation 2: phases without taps": ((1, 4, 15, 15), (6, 4, 3, 3), (4, 4), (0, 1, 2, 0), (2, 2), 1),
    "stride larger than kernel": ((2, 2, 11, 10), (3, 2, 2, 1), (3, 3), (0, 0, 0, 0), (1, 1), 1),
    "stride larger than image": ((2, 2, 2, 1), (3, 2, 2, 1), (1, 3), (0, 0, 0, 0), (1, 1), 1),
    "padding wider than the kernel": ((1, 2, 3, 4), (3, 2, 2, 2), (1, 1), (3, 2, 4, 3), (1, 1), 1),
    "groups": ((2, 12, 7, 9), (120, 4, 3, 3), (1, 2), (1, 0, 1, 2), (1, 1), 3),
    "many channels, few pixels": ((1, 130, 4, 4), (17, 130, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "pointwise": ((3, 20, 7, 6), (40, 20, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "pointwise, stride 2": ((2, 20, 7, 6), (40, 20, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "narrow": ((2, 3, 1, 140), (5, 3, 1, 5), (1, 1), (0, 0, 2, 2), (1, 1), 1),
    "depthwise": ((3, 6, 11, 9), (6, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6),
    "depthwise, multiplier, stride": ((5, 3, 12, 11), (6, 1, 5, 3), (2, 3), (2, 1, 0, 2), (1, 2), 3),
}


def applies(method, x, w, stride, pads, groups):
    pointwise = w[2:] == (1, 1) and stride == (1, 1) and not any(pads) and groups == 1
    return {"tiles": True, "windows": groups == 1, "pointwise": pointwise, "depthwise": groups > 1 and w[1] == 1}[method]


CASES = [
    pytest.param(method, *geometry, id=f"{method}: {name}")
    for method in conv.METHODS["forward"]
    for name, geometry in GEOMETRIES.items()
    if applies(method, geometry[0], geometry[1], geometry[2], geometry[3], geometry[5])
]


def agrees(method, x_shape, w_shape, settings, dtype, monkeypatch):
    monkeypatch.setattr(conv, "_method", lambda *_: method)
    rng = np.random.default_rng(3)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1]))
    dy = rng.standard_normal(REFERENCE.conv2d_forward(x, w, None, *settings).shape).astype(dtype)
    assert_agrees("conv2d_forward", conv.conv2d_forward, (x, w, b, *settings))
    assert_agrees("conv2d_forward", conv.conv2d_forward, (x, w, None, *settings))
    assert_agrees("conv2d_backward_input", conv.conv2d_backward_input, (dy, w, x.shape, *settings))
    assert_agrees("conv2d_backward_weight", conv.conv2d_backward_weight, (dy, x, w.shape, *settings))
    assert_agrees("conv2d_backward_bias", conv.conv2d_backward_bias, (dy,))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method, x_shape, w_shape, stride, pads, dilation, groups", CASES)
def test_each_method_agrees_with_the_textbook(monkeypatch, method, x_shape, w_shape, stride, pads, dilation, groups, dtype):
    agrees(method, x_shape, w_shape, (stride, pads, dilation, groups), dtype, monkeypatch)


@pytest.mark.parametrize("seed", range(30))
def test_any_geometry_agrees_with_the_textbook(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    pick = lambda most, n=1: tuple(int(i) for i in rng.integers(1, most + 1, n))  # noqa: E731
    (N, groups), (C, M), kernel, stride, dilation = pick(3, 2), pick(12, 2), pick(4, 2), pick(4, 2), pick(3, 2)
    pads = tuple(int(i) for i in rng.integers(0, 4, 4))
    reach = [d * (k - 1) + 1 - sum(p) for k, d, p in zip(kernel, dilation, (pads[:2], pads[2:]), strict=True)]
    image = tuple(max(1, r) + int(rng.integers(0, 12)) for r in reach)
    x, w = (N, groups * C, *image), (groups * M, C, *kernel)
    for method in conv.METHODS["forward"]:
        if applies(method, x, w, stride, pads, groups):
            agrees(method, x, w, (stride, pads, dilation, groups), "float32", monkeypatch)


@pytest.mark.parametrize("method", conv.METHODS["forward"])
def test_of_no_images_the_gradients_of_parameters_are_zero(monkeypatch, method):
    monkeypatch.setattr(conv, "_method", lambda *_: method)
    groups = 3 if method == "depthwise" else 1
    x, w = np.zeros((0, 3, 5, 4), np.float32), np.ones((6, 3 // groups, 1, 1), np.float32)
    dy, settings = np.zeros((0, 6, 5, 4), np.float32), ((1, 1), (0, 0, 0, 0), (1, 1), groups)
    (y,) = results(conv.conv2d_forward, (x, w, np.ones(6, np.float32), *settings))
    (dx,) = results(conv.conv2d_backward_input, (dy, w, x.shape, *settings))
    (dw,) = results(conv.conv2d_backward_weight, (dy, x, w.shape, *settings))
    (db,) = results(conv.conv2d_backward_bias, (dy,))
    assert (y.shape, dx.shape, dw.shape, db.shape) == (dy.shape, x.shape, w.shape, (6,)) and not dw.any() and not db.any()


@pytest.mark.parametrize(
    "x, w, stride, groups, method",
    [
        ((64, 1, 28, 28), (6, 1, 5, 5), (1, 1), 1, "tiles"),
        ((8, 64, 56, 56), (64, 64, 3, 3), (1, 1), 1, "tiles"),
        ((8, 512, 14, 14), (512, 512, 3, 3), (1, 1), 1, "windows"),
        ((4096, 512, 14, 14), (512, 512, 3, 3), (1, 1), 1, "tiles"),  # 15 GB of windows
        ((8, 256, 56, 56), (64, 256, 1, 1), (1, 1), 1, "pointwise"),
        ((8, 256, 56, 56), (64, 256, 1, 1), (2, 2), 1, "tiles"),
        ((8, 64, 28, 28), (64, 1, 3, 3), (1, 1), 64, "depthwise"),
        ((8, 512, 14, 14), (1024, 256, 3, 3), (1, 1), 2, "tiles"),
    ],
)
def test_without_measuring_the_method_follows_from_the_shape(x, w, stride, groups, method):
    pads = (0, 0, 0, 0)
    assert conv._methods(conv._geometry(x, w, stride, pads, (1, 1), groups), pads, 4)[0] == method


def test_a_sum_that_is_long_for_its_blocks_is_cut_into_parts():
    assert conv._parts(blocks=1, most=1000) == conv.ENOUGH_BLOCKS
    assert conv._parts(blocks=1, most=3) == 3
    assert conv._parts(blocks=conv.ENOUGH_BLOCKS, most=1000) == 1
    assert conv._parts(blocks=5, most=0) == 1
