"""The compiled kernels, called directly: every instruction set of this machine, both dtypes, against the textbook."""

import itertools
import os
import platform
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.backends import REFERENCE, cpu, kernel_set
from cnnlib.backends.tolerance import bound, first_difference, in_float64
from cnnlib.random import Key

if not cpu.available():
    pytest.skip(f"the compiled kernels were not built: {cpu.why_not()}", allow_module_level=True)

COMPILED = kernel_set("cpu")
ISAS = cpu.available_isas()
DTYPES = ("float32", "float64")
PATIENCE = 60  # seconds until what hangs is a failure

each_isa = pytest.mark.parametrize("isa", ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


class Case(NamedTuple):
    """One call of a kernel, with what the float64 textbook says and how far from it is allowed."""

    kernel: str
    arguments: tuple
    expected: list
    allowed: list

    def __str__(self):
        return f"{self.kernel}({', '.join(str(getattr(a, 'shape', a)) for a in self.arguments)})"


def outputs(kernels, name, arguments):
    result = getattr(kernels, name)(*arguments)
    return list(result) if isinstance(result, tuple) else [result]


def case(name, *arguments):
    for a in arguments:
        if isinstance(a, np.ndarray):
            a.flags.writeable = False
    dtype = next(a.dtype for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f")
    with np.errstate(all="ignore"):
        expected = outputs(REFERENCE, name, [in_float64(a) for a in arguments])
        allowed = [bound(name, getattr(REFERENCE, name), arguments, y64, dtype) for y64 in expected]
    return Case(name, arguments, expected, allowed)


def check(cases, isa, dtype):
    cpu.set_isa(isa)
    for c in cases:
        # Scratch memory is used again: the NaN that this leaves in it must not come back.
        outputs(COMPILED, c.kernel, [np.full_like(a, np.nan) if in_float64(a) is not a else a for a in c.arguments])
        for i, (y, y64, allowed) in enumerate(
            zip(outputs(COMPILED, c.kernel, c.arguments), c.expected, c.allowed, strict=True)
        ):
            assert y.dtype == (dtype if y64.dtype.kind == "f" else y64.dtype), f"{c}, output {i}"
            worst = first_difference(y, y64, allowed)
            assert worst is None, f"{isa} {c}, output {i}: {worst}, got {y[worst[0]]}, expected {y64[worst[0]]}"


def draw(rng, dtype, *shape) -> Any:
    return rng.standard_normal(shape).astype(dtype)


# ---- gemm and linear


def tile_sizes(isa, dtype):
    """MR, NR, VL and KC of csrc/gemm.c."""
    vector = {"avx512": 64, "avx2": 32}.get(isa, 16)
    item = np.dtype(dtype).itemsize
    rows = 14 if vector == 64 else 12 if platform.machine() in ("aarch64", "arm64") else 6
    return rows, 2 * vector // item, vector // item, 1024 // item


def matrix_cases(rng, dtype, M, N, K):
    """Every kernel of the family with result M x N and sums of K terms; gemm with random flags."""
    a, b = draw(rng, dtype, M, K), draw(rng, dtype, K, N)
    ta, tb = (bool(flag) for flag in rng.integers(0, 2, 2))
    yield case("gemm", np.ascontiguousarray(a.T) if ta else a, np.ascontiguousarray(b.T) if tb else b, ta, tb)
    yield case("linear_forward", a, np.ascontiguousarray(b.T), draw(rng, dtype, N) if rng.random() < 0.7 else None)
    yield case("linear_backward_input", a, b)
    yield case("linear_backward_weight", np.ascontiguousarray(a.T), b)
    yield case("linear_backward_bias", a)


@each_isa
@each_dtype
def test_a_product_of_few_terms_has_all_its_columns(isa, dtype):
    """More rows than columns, and panels of rows that are higher than strips are wide."""
    rng = np.random.default_rng(0)
    shapes = [(M, N, K) for M in (15, 17, 29) for N in range(8, M, 2) for K in (1, 2, 3)]
    check([case("linear_backward_input", draw(rng, dtype, M, K), draw(rng, dtype, K, N + 1)) for M, N, K in shapes], isa, dtype)


@each_isa
@each_dtype
def test_products_of_random_shapes(isa, dtype):
    rng = np.random.default_rng(11)
    MR, NR, VL, KC = tile_sizes(isa, dtype)
    edges = sorted({0, 1, 2, 5, VL - 1, VL, VL + 1, MR - 1, MR, MR + 1, NR - 1, NR, NR + 1, 3 * NR + 5})
    shapes = [rng.choice(edges, 3) for _ in range(40)]
    shapes += [(*rng.choice(edges, 2), K) for K in (0, KC - 1, KC, KC + 1, 2 * KC + 1) for _ in range(4)]
    shapes += [(337, NR + 1, KC + 1), (2, 2049, 5), (2049, 3, 7), (1, 40, 3 * KC), (3, 41, 4 * VL + 1)]  # MC, NC, dots
    shapes += [(9, 6, 9 * VL + 3), (16, 5, 16 * VL), (3, 4099, 13), (4, 2 * NR + 3, 11), (7, NR + 2, 3)]  # dots, rows of B
    shapes += [(345, 2 * NR + 3, 2 * KC - 1), (500, 3 * NR + 5, 40), (2 * MR + 1, 1024, 9)]  # strips packed on the way, or not
    for M, N, K in shapes:
        check(matrix_cases(rng, dtype, int(M), int(N), int(K)), isa, dtype)


@each_isa
@each_dtype
def test_a_few_columns_more_than_whole_vectors_hold(isa, dtype):
    """They are a product of their own, whichever way a and b lie."""
    rng = np.random.default_rng(15)
    MR, NR, VL, _ = tile_sizes(isa, dtype)
    for more, (M, K) in itertools.product((1, 2, 3, 4), [(25, 400), (400, 25), (3 * MR + 2, 5 * VL + 70)]):
        N = 2 * NR + more
        a, b, bias = draw(rng, dtype, M, K), draw(rng, dtype, K, N), draw(rng, dtype, N)
        a[M // 2, 1], b[2, N - 1] = np.inf, np.nan
        for ta, tb in itertools.product((False, True), repeat=2):
            left, right = np.ascontiguousarray(a.T) if ta else a, np.ascontiguousarray(b.T) if tb else b
            check([case("gemm", left, right, ta, tb)], isa, dtype)
        check([case("linear_forward", a, np.ascontiguousarray(b.T), bias)], isa, dtype)


@each_isa
@each_dtype
def test_products_that_no_cache_holds(isa, dtype):
    """Few rows and a B beyond L2, short sums and a C beyond L2; the last C passes the caches by, but for a strip cut short."""
    rng = np.random.default_rng(13)
    for M, N, K in [(20, 600, 500), (100, 1030, 300), (300, 1000, 20), (601, 513, 32), (5, 2101, 500), (8, 1030, 1027)]:
        check(matrix_cases(rng, dtype, M, N, K), isa, dtype)
    check([case("gemm", draw(rng, dtype, 2100, 3), draw(rng, dtype, 3, 4112), False, False)], isa, dtype)


@each_isa
@each_dtype
def test_batched_products(isa, dtype):
    rng = np.random.default_rng(12)
    MR, NR, VL, KC = tile_sizes(isa, dtype)
    shapes = [
        (1, MR, NR, VL),
        (3, MR + 1, NR - 1, KC + 1),
        (5, 2, 3, 4 * VL),
        (4, NR + 3, 2, 9),
        (0, 3, 4, 5),
        (2, 0, 4, 5),
        (2, 3, 4, 0),
    ]
    for B, M, N, K in shapes:
        for ta, tb in itertools.product((False, True), repeat=2):
            a, b = draw(rng, dtype, B, *((K, M) if ta else (M, K))), draw(rng, dtype, B, *((N, K) if tb else (K, N)))
            check([case("gemm", a, b, ta, tb)], isa, dtype)


@each_isa
@each_dtype
def test_products_pass_nan_and_infinity_on(isa, dtype):
    """Also 0 · NaN and 0 · inf, and to no row or column that they do not belong to."""
    rng = np.random.default_rng(13)
    MR, NR, VL, KC = tile_sizes(isa, dtype)
    for M, N, K in [(3, 5, 4 * VL + 3), (MR + 1, NR + 1, KC + 1), (1, 7, 5 * VL), (NR + 1, 3, 2)]:
        a, b = draw(rng, dtype, M, K), draw(rng, dtype, K, N)
        a[0] = 0.0
        a[M - 1, K - 1] = -np.inf
        b[K // 2, N - 1], b[0, 0] = np.nan, np.inf
        checked = [
            case("gemm", a, b),
            case("gemm", np.ascontiguousarray(a.T), b, True, False),
            case("linear_forward", a, np.ascontiguousarray(b.T), draw(rng, dtype, N)),
            case("linear_backward_weight", np.ascontiguousarray(a.T), b),
            case("linear_backward_bias", b),
        ]
        assert np.isnan(checked[0].expected[0][0, N - 1])
        check(checked, isa, dtype)


@each_dtype
@each_isa
def test_a_sum_over_very_many_rows_is_made_of_sums(isa, dtype):
    """Added up one by one, 300,000 numbers of one sign are wrong in the third digit of float32."""
    cpu.set_isa(isa)
    dy = np.full((300_000, 3), 0.1, dtype)
    exact = 300_000 * float(dy[0, 0])
    np.testing.assert_allclose(COMPILED.linear_backward_bias(dy), exact, rtol=256 * np.finfo(dtype).eps)


# ---- environment


def test_an_unknown_instruction_set_is_refused():
    before = cpu.isa()
    with pytest.raises(ValueError, match=r"instruction set 'sse9' is unknown .*: this machine has .*baseline"):
        cpu.set_isa("sse9")
    assert cpu.isa() == before


def python(code, **environment):
    kept = {
        name: value for name, value in os.environ.items() if name not in ("CNNLIB_ISA", "CNNLIB_BACKEND", "OMP_NUM_THREADS")
    }
    return subprocess.run(
        [sys.executable, "-c", f"from cnnlib.backends import cpu; {code}"],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


def test_an_unknown_instruction_set_in_the_environment_is_an_error_that_names_it():
    done = python("cpu.isa()", CNNLIB_ISA="sse9")
    assert done.returncode == 1
    assert "ValueError: CNNLIB_ISA=sse9: instruction set 'sse9' is unknown" in done.stderr
    assert f"this machine has {', '.join(ISAS)}" in done.stderr


def test_the_environment_chooses_the_instruction_set():
    assert python("print(cpu.isa())", CNNLIB_ISA="baseline").stdout.split() == ["baseline"]


def test_omp_num_threads_limits_and_does_not_raise_the_number_of_threads():
    code = "print(cpu.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="1").stdout.split() == ["1"]
    own = python(code).stdout
    assert int(own) >= 1 and python(code, OMP_NUM_THREADS="1000").stdout == own


# ---- random numbers

KEY = Key(2**64 - 3, 3, 2**32 - 1)


@each_isa
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("key", [KEY, Key(0, 0, 0), Key(1 << 40, 1, 7)])
def test_random_words_are_those_of_the_textbook(isa, threads, key):
    cpu.set_isa(isa)
    cl.set_num_threads(threads)
    expected = REFERENCE.random_bits(key, 61 * 1024 + 5)
    for n in (*range(71), 1023, 1024, 1025, expected.size):
        words = COMPILED.random_bits(key, n)
        assert words.dtype == np.uint32 and words.tobytes() == expected[:n].tobytes(), n


@each_isa
@each_dtype
@pytest.mark.parametrize("threads", [1, 3])
def test_dropout_keeps_what_the_words_say(isa, dtype, threads):
    cpu.set_isa(isa)
    cl.set_num_threads(threads)
    words = REFERENCE.random_bits(KEY, 61 * 1024 + 5)
    x = draw(np.random.default_rng(41), dtype, words.size)
    x[::7], x[1::7] = np.nan, np.inf
    exactly = words[5] / 2**32  # word 5 is kept at p = word / 2^32, and not half a step above
    for p in (0.0, 0.3, 0.5, exactly, (words[5] + 0.5) / 2**32, 1 - 2.0**-40):
        p = float(p)
        kept = words.astype(np.float64) >= p * 2.0**32
        for n in (*range(71), 1023, 1025) if p == 0.3 else (70, x.size):
            y, keep = COMPILED.dropout_forward(x[:n], p, KEY)
            expected, bits = REFERENCE.dropout_forward(x[:n], p, KEY)
            assert y.dtype == dtype and y.tobytes() == expected.tobytes(), (p, n)
            np.testing.assert_array_equal(y, np.where(kept[:n], x[:n] * x.dtype.type(1 / (1 - p)), 0))
            assert keep.dtype == np.uint8 and keep.tobytes() == bits.tobytes(), (p, n)
            np.testing.assert_array_equal(np.unpackbits(keep, bitorder="little", count=n), kept[:n])
            dx = COMPILED.dropout_backward(x[:n], keep, p)
            assert dx.dtype == dtype and dx.tobytes() == y.tobytes() == REFERENCE.dropout_backward(x[:n], keep, p).tobytes()
    assert COMPILED.dropout_forward(np.ones(70, dtype), exactly, KEY)[0][5] != 0
