"""The compiled normalisations, called directly: every instruction set of this machine, both dtypes, against the textbook."""

import functools

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.backends import cpu
from tests.test_kernels import COMPILED, case, check, draw, each_dtype, each_isa, outputs


@functools.cache
def long_batch_norm(dtype, C):
    rng = np.random.default_rng(61)
    x = draw(rng, dtype, 2, C, 100_003) + np.asarray(3, dtype)
    dy = (0.5 * x + draw(rng, dtype, *x.shape)).astype(dtype)
    gamma, beta = np.linspace(0.5, 2, C).astype(dtype), np.ones(C, dtype)
    moments = x.mean(axis=(0, 2), dtype=np.float64).astype(dtype), x.var(axis=(0, 2), dtype=np.float64).astype(dtype)
    return [
        case("batch_norm_forward", x, gamma, beta, 1e-5),
        case("batch_norm_backward", dy, x, gamma, *moments, 1e-5),
    ]


@each_isa
@each_dtype
@pytest.mark.parametrize("C", [1, 3])
def test_batch_norm_of_long_channels_does_not_depend_on_threads(isa, dtype, C):
    cpu.set_isa(isa)
    results = []
    for threads in (1, 2, 3):
        cl.set_num_threads(threads)
        results.append([[y.tobytes() for y in outputs(COMPILED, c.kernel, c.arguments)] for c in long_batch_norm(dtype, C)])
    assert results[0] == results[1] == results[2]
    check(long_batch_norm(dtype, C), isa, dtype)


@functools.cache
def small_plane_cases(dtype):
    """Few values per channel and image: channels lie side by side in vectors."""
    rng = np.random.default_rng(62)
    cases = []
    shapes = [(9, 1, 1), (8, 5, 2), (7, 131, 1), (300, 9, 3), (5, 70, 4), (2, 33, 16), (3, 7, 17), (4, 3, 32), (2, 5, 33)]
    for N, C, S in [*shapes, (6, 3, 49), (1, 40, 33)]:
        x = draw(rng, dtype, N, C, S) * np.asarray(0.5, dtype) + np.linspace(-9, 9, C).astype(dtype)[:, None]
        dy = (0.5 * x + draw(rng, dtype, *x.shape)).astype(dtype)
        gamma, beta = np.linspace(0.5, 2, C).astype(dtype), np.ones(C, dtype)
        moments = x.mean(axis=(0, 2), dtype=np.float64).astype(dtype), x.var(axis=(0, 2), dtype=np.float64).astype(dtype)
        cases += [
            case("batch_norm_forward", x, gamma, beta, 1e-5),
            case("batch_norm_backward", dy, x, gamma, *moments, 1e-5),
            case("batch_norm_inference_forward", x, gamma, None, *moments, 1e-5),
            case("batch_norm_inference_backward", dy, x, None, *moments, 1e-5),
        ]
    return cases


@each_isa
@each_dtype
@pytest.mark.parametrize("threads", [1, 3])
def test_batch_norm_of_small_planes(isa, dtype, threads):
    cl.set_num_threads(threads)
    check(small_plane_cases(dtype), isa, dtype)


@each_isa
@each_dtype
@pytest.mark.parametrize("S", [1, 4, 49, 9000])
def test_the_variance_does_not_cancel(isa, dtype, S):
    """Far from 0, and where the values jump: to where no earlier ones were, at the end or after the first few."""
    cpu.set_isa(isa)
    rng = np.random.default_rng(63)
    N = 40_000 // S
    unit = draw(rng, "float64", N * S)
    place = np.arange(N * S)
    early, late = np.where(place < N * S // 50, 1e-3 * unit, unit + 3000), np.where(place < N * S - 9, unit, 5e4)
    for values in (unit + 3000, early, late):
        x = values.astype(dtype).reshape(N, 1, S)
        _, mean, var = COMPILED.batch_norm_forward(x, None, None, 1e-5)
        exact = x.astype(np.float64)
        np.testing.assert_allclose(mean, exact.mean(), rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(var, exact.var(), rtol=64 * np.finfo(dtype).eps)


@each_isa
@each_dtype
@pytest.mark.parametrize("S", [1, 3, 49, 5000])
def test_a_constant_has_no_variance(isa, dtype, S):
    cpu.set_isa(isa)
    x = np.full((9, 3, S), 0.1, dtype)
    y, mean, var = COMPILED.batch_norm_forward(x, None, None, 1e-5)
    assert (mean == x[0, 0, 0]).all() and not var.any() and not y.any()
