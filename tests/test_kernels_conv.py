"""The compiled convolutions, called directly: every instruction set of this machine, both dtypes, against the textbook."""

import functools
import itertools

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.backends import REFERENCE, cpu
from cnnlib.backends.tolerance import in_float64
from tests.test_kernels import COMPILED, case, check, draw, each_dtype, each_isa

GEOMETRIES = {  # N, groups, channels and outputs per group, image, kernel, stride, pads, dilation
    "small maps, more outputs than a block": (5, 1, 3, 350, (5, 4), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "small maps, stride 2": (7, 1, 30, 20, (7, 7), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "whole image": (5, 1, 4, 6, (3, 4), (3, 4), (1, 1), (0, 0, 0, 0), (1, 1)),
    "stride larger than the image": (2, 1, 2, 3, (2, 1), (1, 1), (3, 2), (0, 0, 0, 0), (1, 1)),
    "pointwise": (2, 1, 17, 15, (5, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "pointwise, more outputs than inputs": (3, 1, 17, 40, (23, 29), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "pointwise, more inputs than outputs": (2, 1, 65, 33, (31, 37), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "pointwise, small maps": (9, 1, 35, 34, (5, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "pointwise with stride": (2, 1, 5, 6, (7, 8), (1, 1), (2, 3), (0, 0, 0, 0), (1, 1)),
    "pointwise with stride, large maps": (2, 1, 35, 33, (33, 35), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    "pointwise with strides, large maps in groups": (3, 2, 36, 40, (40, 64), (1, 1), (2, 3), (0, 0, 0, 0), (1, 1)),
    "pointwise with stride, two blocks of inputs": (1, 1, 530, 34, (33, 33), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    "pointwise with stride, two blocks of outputs": (1, 1, 33, 530, (32, 34), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    "pointwise in groups": (2, 3, 2, 4, (6, 5), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "depthwise": (2, 9, 1, 1, (13, 19), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "depthwise, small maps": (3, 37, 1, 1, (7, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "depthwise, two outputs each, stride": (2, 5, 1, 2, (12, 11), (3, 5), (2, 1), (1, 0, 2, 2), (1, 1)),
    "signal": (3, 1, 4, 7, (1, 45), (1, 5), (1, 2), (0, 0, 3, 1), (1, 2)),
    "kernel as large as the image": (3, 1, 6, 9, (5, 4), (5, 4), (1, 1), (0, 0, 0, 0), (1, 1)),
    "sums longer than one block": (1, 1, 75, 16, (6, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "first layer": (2, 1, 1, 6, (28, 28), (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    "wide": (1, 1, 2, 3, (3, 1100), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "stride larger than the kernel": (2, 1, 3, 4, (11, 13), (2, 2), (4, 3), (0, 1, 2, 0), (1, 1)),
    "mostly padding": (1, 1, 2, 3, (2, 1), (3, 3), (1, 1), (5, 4, 3, 6), (1, 1)),
    # output channels as the lanes of a vector: strips of one to three vectors, tiles within and across rows
    "one channel, a strip and one more, stride": (2, 1, 1, 33, (9, 31), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "three vectors, stride 3": (2, 1, 7, 46, (13, 20), (5, 4), (3, 3), (2, 2, 1, 2), (1, 1)),
    "three vectors, dilation": (1, 1, 3, 24, (12, 13), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "groups of one and a half vectors": (2, 3, 7, 12, (11, 9), (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    "pads beyond the kernel": (2, 1, 7, 17, (3, 4), (3, 3), (2, 1), (5, 4, 6, 3), (1, 1)),
    "a last strip alone in its part": (1, 1, 2, 656, (4, 7), (3, 3), (2, 1), (1, 1, 1, 1), (1, 1)),
    "rows across vectors, stride 4": (1, 2, 3, 16, (19, 150), (5, 7), (4, 4), (1, 2, 3, 3), (1, 1)),
    "five outputs, dilation and stride": (3, 1, 7, 5, (10, 17), (3, 3), (2, 3), (1, 1, 1, 1), (2, 2)),
    "rows of seven": (2, 1, 15, 32, (14, 14), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "tiles across rows and images": (3, 1, 15, 20, (9, 10), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "a narrow rest of each row": (1, 1, 6, 48, (5, 27), (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    "one vector, stride": (2, 1, 16, 16, (20, 20), (5, 5), (2, 2), (1, 2, 2, 1), (1, 1)),
    "one vector, rows of 23": (2, 1, 7, 14, (23, 27), (5, 5), (1, 1), (0, 0, 0, 0), (1, 1)),
    # few output channels: rows of taps that see only padding are left out
    "few outputs, padded by a kernel": (2, 1, 6, 5, (10, 14), (5, 5), (1, 1), (4, 4, 4, 4), (1, 1)),
    "one output, padded by a kernel": (2, 1, 3, 1, (6, 9), (5, 5), (1, 1), (4, 4, 4, 4), (1, 1)),
    "rows that see only padding": (2, 1, 3, 6, (5, 16), (3, 3), (1, 1), (6, 5, 1, 1), (1, 1)),
    "padding, stride and dilation of rows": (2, 2, 4, 9, (6, 30), (5, 3), (2, 1), (5, 4, 1, 1), (2, 1)),
    # short rows, copied once for each column of the kernel: the ends of two images in one tile, rows of several vectors
    "short rows, a pair of images and one": (3, 1, 6, 16, (14, 14), (5, 5), (1, 1), (0, 0, 0, 0), (1, 1)),
    "short rows in groups, padded": (4, 2, 3, 12, (13, 11), (3, 5), (1, 1), (2, 0, 3, 1), (1, 1)),
    "short rows of two vectors": (2, 1, 7, 16, (20, 20), (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    "short rows, dilation": (5, 1, 5, 15, (9, 10), (5, 3), (1, 1), (3, 4, 2, 0), (2, 3)),
    # backward-weight as dot products with rows of the padded image: several images, parts of one, of a row, taps apart
    "few outputs, images together": (7, 3, 8, 8, (14, 15), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "few outputs, parts of an image": (2, 1, 9, 5, (41, 60), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "few outputs, parts of a row": (1, 2, 9, 3, (3, 1250), (3, 3), (1, 1), (0, 1, 1, 1), (1, 1)),
    "few outputs, dilation": (2, 1, 12, 3, (22, 45), (3, 2), (1, 1), (2, 0, 1, 3), (2, 3)),
    # backward-weight as outer products: strips of outputs, blocks of channels, blocks and parts of pixels
    "a strip and one vector more": (2, 1, 5, 40, (9, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "three blocks of channels": (2, 1, 65, 33, (5, 4), (3, 2), (1, 1), (1, 0, 1, 1), (1, 1)),
    "two blocks of outputs": (1, 2, 3, 530, (3, 4), (2, 3), (1, 1), (1, 0, 1, 1), (1, 1)),
    "tiles of weights that threads share": (16, 2, 3, 9, (14, 14), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "parts of the pixels": (5, 1, 3, 34, (29, 23), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "parts of a row": (1, 1, 2, 35, (2, 1111), (2, 3), (1, 1), (0, 1, 1, 0), (1, 1)),
    "many outputs, strides and dilation": (2, 2, 7, 36, (17, 19), (3, 5), (2, 3), (2, 1, 0, 3), (2, 2)),
    "image blocks of a large stride": (3, 1, 3, 64, (23, 21), (11, 7), (4, 4), (2, 2, 2, 2), (1, 1)),
    "one pixel per image": (33, 1, 16, 40, (5, 5), (5, 5), (1, 1), (0, 0, 0, 0), (1, 1)),
}


def output_size(image, kernel, stride, pads, dilation):
    sizes = zip(image, kernel, stride, (pads[:2], pads[2:]), dilation, strict=True)
    return tuple((n + p[0] + p[1] - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)


def random_geometry(rng):
    while True:
        pick = lambda *values: int(rng.choice(values))  # noqa: E731
        groups, C, F = pick(1, 1, 1, 2, 3, 7), pick(1, 2, 3, 6, 16), pick(1, 2, 5, 6, 14, 15, 33)
        image = pick(1, 4, 7, 8, 14, 17), pick(1, 4, 7, 8, 15, 16, 17, 33)
        kernel, stride = (pick(1, 2, 3, 3, 5), pick(1, 2, 3, 3, 5)), (pick(1, 1, 2, 3), pick(1, 1, 2, 3))
        pads, dilation = tuple(pick(0, 0, 1, 2, 3) for _ in range(4)), (pick(1, 1, 2, 3), pick(1, 1, 2, 3))
        N = pick(1, 2, 3)
        size = output_size(image, kernel, stride, pads, dilation)
        if min(size) > 0 and N * groups * C * F * np.prod(size) * np.prod(kernel) < 1e6:
            return N, groups, C, F, image, kernel, stride, pads, dilation


def conv_arrays(rng, dtype, N, groups, C, F, image, kernel, stride, pads, dilation):
    size = output_size(image, kernel, stride, pads, dilation)
    x, w = draw(rng, dtype, N, groups * C, *image), draw(rng, dtype, groups * F, C, *kernel)
    return x, w, draw(rng, dtype, groups * F), draw(rng, dtype, N, groups * F, *size)


def four_cases(x, w, b, dy, *settings):
    return [
        case("conv2d_forward", x, w, b, *settings),
        case("conv2d_backward_input", dy, w, x.shape, *settings),
        case("conv2d_backward_weight", dy, x, w.shape, *settings),
        case("conv2d_backward_bias", dy),
    ]


def cases_of(rng, dtype, geometries):
    for geometry in geometries:
        _, groups, *_, stride, pads, dilation = geometry
        x, w, b, dy = conv_arrays(rng, dtype, *geometry)
        yield from four_cases(x, w, b if rng.random() < 0.7 else None, dy, stride, pads, dilation, groups)


@functools.cache
def conv_cases(dtype):
    rng = np.random.default_rng(21)
    return list(cases_of(rng, dtype, [*GEOMETRIES.values(), *(random_geometry(rng) for _ in range(40))]))


@functools.cache
def depthwise_cases(dtype):
    """Every width up to a few vectors: the image ends in each lane, rows are shorter than a vector, chunks overlap."""
    rng = np.random.default_rng(23)
    pick = lambda *values: int(rng.choice(values))  # noqa: E731
    geometries = []
    widths = [(width, 3, (1, 1, 2, 3)) for width in range(1, 41)]
    widths += [(width, pick(4, 15, 16, 31), (1,)) for width in range(1, 18)]  # small maps of channels that fill the lanes
    for (width, channels, outputs), kernel, stride in itertools.product(widths, (3, 5, 7), (1, 2)):
        pads = tuple(pick(0, kernel // 2, kernel // 2, kernel // 2, kernel) for _ in range(4))
        height, outputs = pick(1, 3, 6, 8), pick(*outputs)
        geometry = (2, channels, 1, outputs, (height, width), (kernel,) * 2, (stride,) * 2, pads, (1, 1))
        if min(output_size(*geometry[4:])) > 0:
            geometries.append(geometry)
    return list(cases_of(rng, dtype, geometries))


@each_isa
@each_dtype
@pytest.mark.parametrize("threads", [1, 3])  # how an image is cut into blocks depends on it
def test_convolutions_of_random_geometry(isa, dtype, threads):
    cl.set_num_threads(threads)
    check(conv_cases(dtype), isa, dtype)


@each_isa
@each_dtype
@pytest.mark.parametrize("threads", [1, 3])
def test_depthwise_convolutions_of_every_width(isa, dtype, threads):
    cl.set_num_threads(threads)
    check(depthwise_cases(dtype), isa, dtype)


@each_isa
@each_dtype
@pytest.mark.parametrize(
    "name",
    [
        "parts of the pixels",
        "three blocks of channels",
        "two blocks of outputs",
        "tiles of weights that threads share",
        "depthwise",
        "depthwise, small maps",
    ],
)
def test_gradients_of_weights_do_not_depend_on_threads(isa, dtype, name):
    cpu.set_isa(isa)
    _, groups, *_, stride, pads, dilation = GEOMETRIES[name]
    x, w, _, dy = conv_arrays(np.random.default_rng(24), dtype, *GEOMETRIES[name])
    results = []
    for threads in (1, 2, 3, 7):
        cl.set_num_threads(threads)
        results.append(COMPILED.conv2d_backward_weight(dy, x, w.shape, stride, pads, dilation, groups).tobytes())
    assert len(set(results)) == 1


@each_isa
@each_dtype
def test_convolutions_are_bitwise_equal_for_any_number_of_threads(isa, dtype):
    cpu.set_isa(isa)
    rng = np.random.default_rng(23)
    for name, geometry in GEOMETRIES.items():
        _, groups, *_, stride, pads, dilation = geometry
        x, w, b, dy = conv_arrays(rng, dtype, *geometry)
        results = []
        for threads in (1, 2, 4):
            cl.set_num_threads(threads)
            forward = COMPILED.conv2d_forward(x, w, b, stride, pads, dilation, groups)
            results.append((forward, COMPILED.conv2d_backward_input(dy, w, x.shape, stride, pads, dilation, groups)))
        for other in results[1:]:
            for one, same in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(one, same, err_msg=name)


LONG_SUMS = {  # N, channels, outputs, image, kernel, stride
    "many channels": (2, 512, 64, 14, 3, 1),
    "few outputs": (2, 512, 5, 20, 3, 1),
    "one output": (1, 512, 1, 16, 4, 1),
    "rows in place": (2, 512, 12, 7, 3, 1),
    "stride 2": (2, 512, 32, 15, 3, 2),
    "few inputs": (2, 3, 512, 24, 4, 2),
}


@each_isa
@pytest.mark.parametrize("name", LONG_SUMS)
def test_long_sums_are_cut_into_chains(isa, name):
    """Added up in one go, n products have an error that grows as the root of n: here two to four times what is allowed."""
    cpu.set_isa(isa)
    cl.set_precision("exact")
    N, C, F, size, kernel, stride = LONG_SUMS[name]
    where = (stride, stride), (1, 1, 1, 1), (1, 1)
    x, w, _, dy = conv_arrays(np.random.default_rng(25), "float32", N, 1, C, F, (size, size), (kernel, kernel), *where)
    for result, arguments in (("conv2d_forward", (x, w, None)), ("conv2d_backward_input", (dy, w, x.shape))):
        y64 = getattr(REFERENCE, result)(*map(in_float64, arguments), *where, 1)
        y = getattr(COMPILED, result)(*arguments, *where, 1)
        assert ((y - y64) ** 2).mean() < 5e-7**2 * (y64**2).mean(), result


@each_isa
@each_dtype
def test_convolutions_pass_nan_and_infinity_on(isa, dtype):
    rng = np.random.default_rng(22)
    for name in (
        "depthwise",
        "pointwise",
        "signal",
        "first layer",
        "sums longer than one block",
        "a strip and one vector more",
        "parts of the pixels",
        "few outputs, images together",
        "few outputs, parts of an image",
        "many outputs, strides and dilation",
    ):
        geometry = GEOMETRIES[name]
        _, groups, *_, stride, pads, dilation = geometry
        x, w, b, dy = conv_arrays(rng, dtype, *geometry)
        x[0, 0, 0, 0], x[-1, -1, -1, -1], dy[0, 0, 0, 0], dy[-1, -1, -1, -1] = np.nan, np.inf, -np.inf, np.nan
        w[0] = 0.0
        settings = stride, pads, dilation, groups
        checked = four_cases(x, w, b, dy, *settings)
        check(checked, isa, dtype)


@each_isa
@each_dtype
def test_convolutions_of_no_images_are_empty_and_their_gradients_zero(isa, dtype):
    cpu.set_isa(isa)
    x, w, dy = (np.ones(shape, dtype) for shape in ((0, 3, 5, 5), (4, 3, 3, 3), (0, 4, 5, 5)))
    settings = (1, 1), (1, 1, 1, 1), (1, 1), 1
    assert COMPILED.conv2d_forward(x, w, None, *settings).shape == dy.shape
    assert COMPILED.conv2d_backward_input(dy, w, x.shape, *settings).shape == x.shape
    np.testing.assert_array_equal(COMPILED.conv2d_backward_weight(dy, x, w.shape, *settings), np.zeros(w.shape))
    np.testing.assert_array_equal(COMPILED.conv2d_backward_bias(dy), np.zeros(4))
