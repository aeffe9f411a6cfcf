"""The compiled pools, called directly: every instruction set of this machine, both dtypes, against the textbook."""

import functools
import itertools

import numpy as np
import pytest

import cnnlib as cl
from tests.test_kernels import case, check, draw, each_dtype, each_isa

WINDOWS = [  # kernel, stride, pads
    ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((2, 2), (1, 1), (1, 0, 0, 1)),
    ((3, 3), (1, 1), (1, 1, 1, 1)),
    ((3, 3), (2, 2), (0, 1, 1, 0)),
    ((3, 3), (2, 2), (0, 0, 0, 0)),
]


def with_ties(rng, x, share):
    """Many ties, and in every other plane what no comparison is true for: kernels look at such planes in another way."""
    ties = np.round(x)
    for special in (np.nan, -np.inf):
        ties[:, ::2][rng.random(ties[:, ::2].shape) < share] = special
    return ties


@functools.cache
def pool_cases(dtype):
    rng = np.random.default_rng(51)
    cases = []
    for width, (kernel, stride, pads) in itertools.product(range(1, 41), WINDOWS):
        if width + pads[2] + pads[3] < kernel[1]:
            continue
        x = draw(rng, dtype, 2, 2, 5, width)
        maxima = case("max_pool2d_forward", with_ties(rng, x, 0.05), kernel, stride, pads)
        dy = draw(rng, dtype, *maxima.expected[0].shape)
        inside = bool(width % 2)
        cases += [
            maxima,
            case("max_pool2d_backward", dy, maxima.expected[1], x.shape, kernel, stride, pads),
            case("avg_pool2d_forward", x, kernel, stride, pads, inside),
            case("avg_pool2d_backward", dy, x.shape, kernel, stride, pads, inside),
        ]
    return cases


@each_isa
@each_dtype
def test_pools_of_every_width(isa, dtype):
    check(pool_cases(dtype), isa, dtype)


GEOMETRIES = {  # N, C, image, kernel, stride, pads
    "fewer planes than lanes": (1, 3, (9, 7), (3, 3), (2, 2), (0, 1, 1, 0)),
    "planes of one element": (5, 7, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
    "planes of two by two": (3, 11, (2, 2), (2, 2), (2, 2), (0, 0, 0, 0)),
    "planes of four by four": (2, 17, (4, 4), (2, 2), (2, 2), (0, 0, 0, 0)),
    "whole planes": (3, 11, (7, 7), (7, 7), (1, 1), (0, 0, 0, 0)),
    "whole planes, more than 256 elements": (2, 9, (17, 19), (17, 19), (1, 1), (0, 0, 0, 0)),
    "argmax of more than one byte": (2, 5, (20, 40), (17, 16), (2, 3), (1, 0, 2, 5)),
    "gaps between windows": (2, 5, (11, 13), (2, 2), (4, 3), (0, 0, 0, 0)),
    "a row and a column left over": (2, 3, (9, 71), (2, 2), (2, 2), (0, 0, 0, 0)),
    "windows clipped on every side": (1, 18, (5, 6), (5, 4), (1, 2), (4, 4, 3, 3)),
    "rows of about a vector": (3, 11, (14, 14), (3, 3), (2, 2), (1, 1, 1, 1)),
    "rows of about a vector, not padded": (1, 7, (6, 13), (3, 3), (2, 2), (0, 0, 0, 0)),
    "rows of about a vector, padded above, some uncovered": (2, 9, (12, 7), (3, 3), (2, 2), (2, 0, 1, 0)),
    "rows of half a vector": (2, 5, (16, 16), (3, 3), (2, 2), (1, 0, 1, 0)),
    "rows of half a vector, not padded": (3, 6, (17, 17), (3, 3), (2, 2), (0, 0, 0, 0)),
    "several bands": (1, 19, (67, 50), (3, 3), (2, 2), (1, 1, 1, 1)),
    "rows of two to four vectors": (1, 5, (53, 57), (3, 3), (2, 2), (0, 0, 0, 0)),
    "rows of four to eight vectors": (2, 2, (37, 113), (3, 3), (2, 2), (1, 0, 1, 0)),
    "several bands, overlapping by more than a stride": (1, 3, (90, 41), (5, 4), (1, 1), (2, 2, 1, 2)),
    "a long signal": (1, 5, (1, 5003), (1, 3), (1, 2), (0, 0, 1, 1)),
    "a long signal without overlap": (2, 3, (1, 4099), (1, 2), (1, 2), (0, 0, 0, 0)),
    "a signal of one window": (2, 9, (1, 700), (1, 700), (1, 1), (0, 0, 0, 0)),
}


@functools.cache
def geometry_cases(dtype, name):
    rng = np.random.default_rng(52)
    N, C, image, *window = GEOMETRIES[name]
    x = draw(rng, dtype, N, C, *image)
    maxima = case("max_pool2d_forward", with_ties(rng, x, 0.01), *window)
    dy = draw(rng, dtype, *maxima.expected[0].shape)
    cases = [maxima, case("max_pool2d_backward", dy, maxima.expected[1], x.shape, *window)]
    for inside in (False, True):
        cases += [
            case("avg_pool2d_forward", x, *window, inside),
            case("avg_pool2d_backward", dy, x.shape, *window, inside),
        ]
    for p in (1.0, 2.0, 3.0):
        lp = case("lp_pool2d_forward", x, p, *window)
        cases += [lp, case("lp_pool2d_backward", dy, x, lp.expected[0].astype(dtype), p, *window)]
    return cases


@each_isa
@each_dtype
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_pools_of_every_geometry(name, threads, isa, dtype):
    cl.set_num_threads(threads)
    check(geometry_cases(dtype, name), isa, dtype)
