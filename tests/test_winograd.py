"""Winograd's convolution: its matrices, its results in the three passes, and the switch that turns it off."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlib as cl
from cnnlib.backends import REFERENCE, cpu, kernel_set
from cnnlib.backends.tolerance import algorithm_of, bound, first_difference, in_float64
from cnnlib.errors import UnknownNameError

SOURCE = Path(__file__).parent.parent / "csrc" / "winograd.c"
ONE, TWO, SAME = (1, 1), (2, 2), (1, 1, 1, 1)
PASSES = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight")

compiled = pytest.mark.skipif(not cpu.available(), reason="the compiled kernels were not built")
each_isa = pytest.mark.parametrize("isa", cpu.available_isas())
each_pass = pytest.mark.parametrize("name", PASSES)


# ---- the matrices


def matrices(points, taps=3):
    """A' (4 rows), G (a column for each tap) and B' for the points and infinity, as the head of csrc/winograd.c says."""
    product = lambda roots: np.poly(roots)[::-1] if len(roots) else np.ones(1)  # noqa: E731
    a = np.array([[p**k for p in points] + [float(k == 3)] for k in range(4)])
    norm = [np.prod([p - q for q in points if q != p]) for p in points]
    g = np.array([[p**k / n for k in range(taps)] for p, n in zip(points, norm, strict=True)] + [[0.0] * (taps - 1) + [1.0]])
    rows = [np.append(product([q for q in points if q != p]), 0.0) for p in points] + [product(points)]
    return a, g, np.array(rows)


THREE = [0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)]
PAIR = [0.5, -0.5, 1.5, -1.5]


@pytest.mark.parametrize("points, taps", [(THREE, 3), (PAIR, 2)])
def test_the_matrices_filter_in_one_dimension(points, taps):
    rng = np.random.default_rng(0)
    a, g, b = matrices(points, taps)
    d, w = rng.standard_normal(3 + taps), rng.standard_normal(taps)
    np.testing.assert_allclose(a @ ((g @ w) * (b @ d)), np.correlate(d, w, "valid"), rtol=1e-13, atol=1e-13)
    assert abs(b).max() < 2.51 and abs(a).max() < 3.38 and abs(g).max() < 1.01  # near 1, so little is rounded away


def test_pairs_of_taps_round_less_than_three():
    """Over 64 channels in float32, relative to the result."""
    rng, errors = np.random.default_rng(0), []
    for points, taps in ((THREE, 3), (PAIR, 2)):
        a, g, b = (m.astype(np.float32) for m in matrices(points, taps))
        d, w = draw(rng, 200, 64, 3 + taps, 3 + taps), draw(rng, 64, taps, taps)
        windows = np.lib.stride_tricks.sliding_window_view(d.astype(np.float64), (taps, taps), (2, 3))
        exact = np.einsum("tcijhw,chw->tij", windows, w.astype(np.float64))
        y = a @ ((g @ w @ g.T) * (b @ d @ b.T)).sum(1) @ a.T
        errors.append(((y - exact) ** 2).mean() ** 0.5 / (exact**2).mean() ** 0.5)
    assert errors[1] < errors[0] < 2e-6


@pytest.mark.skipif(not SOURCE.exists(), reason="tests of a wheel run without the sources")
def test_the_constants_in_c_are_those_of_the_points():
    """transform_filter's 1/N, transform_input's rows of 0 and infinity."""
    half, two = Fraction(1, 2), Fraction(2)  # squares of the points
    assert (1 / (2 * half * (half - two)), 1 / (2 * two * (two - half))) == (Fraction(-2, 3), Fraction(1, 6))
    assert (half * two, half + two) == (1, Fraction(5, 2))
    text = SOURCE.read_text(encoding="utf-8")
    assert re.search(r"ca = \(REAL\)\(-2 / 3\.\), cb = \(REAL\)\(1 / 6\.\)", text)
    roots = re.search(r"ROOT_HALF = \(REAL\)([\d.]+), ROOT_TWO = \(REAL\)([\d.]+);", text)
    assert [float(r) ** 2 for r in roots.groups()] == pytest.approx([0.5, 2.0], abs=1e-15)


@pytest.mark.skipif(not SOURCE.exists(), reason="tests of a wheel run without the sources")
def test_the_constants_of_pairs_in_c_are_those_of_the_points():
    """pair_filter's 1/N, of which u has the signs; the squares of the points."""
    a, b = Fraction(1, 2), Fraction(3, 2)
    assert (1 / (2 * a * (a**2 - b**2)), 1 / (2 * b * (b**2 - a**2))) == (Fraction(-1, 2), Fraction(1, 6))
    text = (SOURCE.parent / "winograd_strided.c").read_text(encoding="utf-8")
    assert "ca = (REAL)(1 / 2.), cb = (REAL)(1 / 6.)" in text
    assert text.count(f"aa = (REAL){float(a**2)}, bb = (REAL){float(b**2)};") == 2


# ---- the kernels


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def calls(rng, N, C, F, image, pads=SAME, groups=1, kernel=(3, 3)):
    """The arguments of each pass; C and F per group."""
    size = image[0] + sum(pads[:2]) - kernel[0] + 1, image[1] + sum(pads[2:]) - kernel[1] + 1
    x, w, dy = draw(rng, N, groups * C, *image), draw(rng, groups * F, C, *kernel), draw(rng, N, groups * F, *size)
    geometry = ONE, pads, ONE, groups
    return {
        "conv2d_forward": (x, w, draw(rng, groups * F), *geometry),
        "conv2d_backward_input": (dy, w, x.shape, *geometry),
        "conv2d_backward_weight": (dy, x, w.shape, *geometry),
    }


def strided_calls(rng, N, C, F, image, pads=SAME, groups=1, kernel=(3, 3)):
    """The same with stride 2; what is not written is the gradient of the weights, which is always direct."""
    size = [(image[i] + sum(pads[2 * i : 2 * i + 2]) - kernel[i]) // 2 + 1 for i in (0, 1)]
    x, w, dy = draw(rng, N, groups * C, *image), draw(rng, groups * F, C, *kernel), draw(rng, N, groups * F, *size)
    geometry = TWO, pads, ONE, groups
    return {"conv2d_forward": (x, w, draw(rng, groups * F), *geometry), "conv2d_backward_input": (dy, w, x.shape, *geometry)}


def run(name, arguments, precision="fast"):
    cl.set_precision(precision)
    return getattr(kernel_set("cpu"), name)(*arguments)


def spoil_scratch(name, arguments):
    """Scratch memory is used again: the NaN that this leaves in it must not come back."""
    run(name, [np.full_like(a, np.nan) if isinstance(a, np.ndarray) else a for a in arguments])


def check(name, arguments):
    cl.set_precision("fast")
    reference = getattr(REFERENCE, name)
    y64 = reference(*(in_float64(a) for a in arguments))
    assert algorithm_of(name, arguments, np.float32) == "winograd"
    worst = first_difference(run(name, arguments), y64, bound(name, reference, arguments, y64, np.float32))
    assert worst is None, f"{name} {[getattr(a, 'shape', a) for a in arguments]}: {worst}"


def results_of_threads(name, arguments):
    results = set()
    for threads in (1, 2, 3, 4, 8, 4):
        cl.set_num_threads(threads)
        results.add(run(name, arguments).tobytes())
    return results


def by_winograd(name, arguments):
    return run(name, arguments).tobytes() != run(name, arguments, "exact").tobytes()


GEOMETRIES = {  # N, C, F, image, pads, groups, kernel
    "exact tiles": (2, 32, 48, (16, 16), SAME, 1),
    "partial tiles, ragged channels": (3, 37, 45, (23, 18), SAME, 1),
    "one image": (1, 64, 33, (31, 29), SAME, 1),
    "no padding": (2, 40, 32, (17, 15), (0, 0, 0, 0), 1),
    "asymmetric padding": (2, 32, 33, (14, 19), (0, 2, 1, 0), 1),
    "wide padding": (6, 32, 32, (9, 10), (3, 4, 6, 5), 1),
    "lower than a tile": (16, 32, 32, (3, 50), SAME, 1),
    "narrower than a tile": (16, 32, 32, (50, 2), SAME, 1),
    "smaller than a tile": (100, 32, 32, (3, 3), SAME, 1),
    "groups": (2, 32, 35, (20, 20), SAME, 2),
    "several chunks": (8, 130, 64, (29, 31), SAME, 1),
    "large weights, several chunks": (6, 190, 170, (29, 30), SAME, 1),
    "many channels": (8, 300, 280, (7, 7), SAME, 1),
    "5×5": (3, 37, 45, (23, 18), (2, 2, 2, 2), 1, (5, 5)),
    "5×5 in groups, several chains": (2, 48, 64, (27, 27), (2, 2, 2, 2), 2, (5, 5)),
    "5×5, large weights": (4, 130, 96, (13, 14), (2, 2, 2, 2), 1, (5, 5)),
    "5×5, last panels of one row, or few": (3, 43, 85, (23, 18), (2, 2, 2, 2), 1, (5, 5)),
    "rows of one part, columns of three": (2, 32, 40, (21, 30), (1, 1, 3, 4), 1, (3, 8)),
    "columns of one part, rows of four": (2, 40, 32, (30, 21), (5, 6, 0, 2), 1, (12, 3)),
    "7×7 without padding": (2, 64, 48, (31, 30), (0, 0, 0, 0), 1, (7, 7)),
}
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)


@compiled
@each_isa
@each_pass
@each_geometry
def test_agrees_with_the_float64_textbook(name, geometry, isa):
    cpu.set_isa(isa)
    arguments = calls(np.random.default_rng(1), *geometry)[name]
    spoil_scratch(name, arguments)
    assert by_winograd(name, arguments)
    check(name, arguments)


STRIDED = {  # N, C, F, image, pads, groups, kernel: by Winograd in both passes
    "3×3": (8, 96, 96, (56, 56), SAME, 1, (3, 3)),
    "4×4": (4, 48, 64, (32, 32), SAME, 1, (4, 4)),
    "4×4, odd image": (5, 37, 45, (47, 39), (1, 2, 0, 3), 1, (4, 4)),
    "3×4, no padding": (8, 72, 90, (31, 62), (0, 0, 0, 0), 1, (3, 4)),
    "4×3, wide padding": (8, 64, 64, (26, 41), (3, 4, 2, 5), 1, (4, 3)),
    "groups": (5, 50, 53, (32, 31), SAME, 2, (4, 4)),
    "large weights, several chunks": (8, 130, 140, (30, 32), SAME, 1, (4, 4)),
}
each_strided = pytest.mark.parametrize("geometry", STRIDED.values(), ids=STRIDED)
each_strided_pass = pytest.mark.parametrize("name", PASSES[:2])


@compiled
@each_isa
@each_strided_pass
@each_strided
def test_stride_2_agrees_with_the_float64_textbook(name, geometry, isa):
    cpu.set_isa(isa)
    arguments = strided_calls(np.random.default_rng(1), *geometry)[name]
    spoil_scratch(name, arguments)
    assert by_winograd(name, arguments)
    check(name, arguments)


@compiled
@each_isa
@each_strided_pass
@pytest.mark.parametrize("geometry", ["4×4, odd image", "groups", "large weights, several chunks"])
def test_stride_2_on_any_number_of_threads_gives_equal_bits(name, geometry, isa):
    cpu.set_isa(isa)
    arguments = strided_calls(np.random.default_rng(2), *STRIDED[geometry])[name]
    assert by_winograd(name, arguments)
    assert len(results_of_threads(name, arguments)) == 1


@compiled
@each_isa
@each_strided_pass
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_come_through_stride_2_and_stay_near(name, value, isa):
    cpu.set_isa(isa)
    arguments = strided_calls(np.random.default_rng(3), *STRIDED["4×4, odd image"])[name]
    arguments[0][1, 2, 17, 13] = value
    with np.errstate(invalid="ignore"):
        check(name, arguments)
    y = run(name, arguments)
    assert by_winograd(name, arguments) and not np.isfinite(y).all()
    before = 4 if name == "conv2d_forward" else 24  # the row of dy goes to rows 32 to 39 of dx or so
    assert np.isfinite(y[0]).all() and np.isfinite(y[1, :, :before]).all()


@compiled
def test_a_transposed_convolution_is_the_gradient_of_one_with_stride_2():
    dy, w, x_shape, *_ = strided_calls(np.random.default_rng(4), *STRIDED["4×4"])["conv2d_backward_input"]
    with cl.use("cpu"):
        y = cl.ops.conv_transpose2d(cl.Tensor(dy), cl.Tensor(w), stride=2, padding=1).data
    fast = run("conv2d_backward_input", (dy, w, x_shape, TWO, SAME, ONE, 1))
    assert y.tobytes() == fast.tobytes() != run("conv2d_backward_input", (dy, w, x_shape, TWO, SAME, ONE, 1), "exact").tobytes()


sizes = st.integers(1, 21)


@compiled
@each_isa
@each_strided_pass
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(
    N=st.integers(4, 9), C=st.integers(40, 70), F=st.integers(40, 70), H=st.integers(1, 41), W=st.integers(1, 41),
    pads=st.tuples(*[st.integers(0, 3)] * 4), groups=st.integers(1, 2), seed=st.integers(0, 9),
    kernel=st.tuples(st.integers(3, 4), st.integers(3, 4)),
)  # fmt: skip
def test_stride_2_agrees_with_the_float64_textbook_for_random_shapes(name, isa, N, C, F, H, W, pads, groups, kernel, seed):
    cpu.set_isa(isa)
    sides = (kernel[0], kernel[0], kernel[1], kernel[1])
    pads = tuple(p + k // 2 if size < k else p for p, size, k in zip(pads, (H, H, W, W), sides, strict=True))
    arguments = strided_calls(np.random.default_rng(seed), N, C, F, (H, W), pads, groups, kernel)[name]
    spoil_scratch(name, arguments)
    check(name, arguments)


@compiled
@each_isa
@each_pass
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(
    N=st.integers(1, 9), C=st.integers(16, 70), F=st.integers(16, 70), H=sizes, W=sizes,
    pads=st.tuples(*[st.integers(0, 3)] * 4), groups=st.integers(1, 2), seed=st.integers(0, 9),
    kernel=st.one_of(st.just((3, 3)), st.tuples(st.integers(3, 8), st.integers(3, 8))),
)  # fmt: skip
def test_agrees_with_the_float64_textbook_for_random_shapes(name, isa, N, C, F, H, W, pads, groups, kernel, seed):
    cpu.set_isa(isa)
    sides = (kernel[0], kernel[0], kernel[1], kernel[1])
    pads = tuple(p + k // 2 if size < k else p for p, size, k in zip(pads, (H, H, W, W), sides, strict=True))
    arguments = calls(np.random.default_rng(seed), N, C, F, (H, W), pads, groups, kernel)[name]
    spoil_scratch(name, arguments)
    check(name, arguments)


@compiled
@each_isa
@each_pass
@pytest.mark.parametrize(
    "geometry", ["groups", "several chunks", "large weights, several chunks", "many channels", "5×5 in groups, several chains"]
)
def test_any_number_of_threads_gives_equal_bits(name, geometry, isa):
    cpu.set_isa(isa)
    arguments = calls(np.random.default_rng(2), *GEOMETRIES[geometry])[name]
    assert by_winograd(name, arguments)
    assert len(results_of_threads(name, arguments)) == 1


@compiled
@each_isa
@each_pass
@pytest.mark.parametrize("geometry", ["partial tiles, ragged channels", "5×5"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_come_through_and_stay_near(name, value, geometry, isa):
    """Every output that they meet is not finite; at most those of the same tiles are not, either."""
    cpu.set_isa(isa)
    arguments = calls(np.random.default_rng(3), *GEOMETRIES[geometry])[name]
    arguments[0][1, 2, 9, 13] = value
    with np.errstate(invalid="ignore"):
        check(name, arguments)
    y = run(name, arguments)
    assert by_winograd(name, arguments) and not np.isfinite(y).all()
    if name != "conv2d_backward_weight":
        assert np.isfinite(y[0]).all() and np.isfinite(y[1, :, :4]).all() and np.isfinite(y[1, :, :, :8]).all()


@compiled
@each_pass
def test_float64_never_uses_it(name):
    arguments = [
        a.astype(np.float64) if isinstance(a, np.ndarray) else a
        for a in calls(np.random.default_rng(4), *GEOMETRIES["exact tiles"])[name]
    ]
    assert not by_winograd(name, arguments)
    np.testing.assert_allclose(run(name, arguments), getattr(REFERENCE, name)(*arguments), rtol=1e-11, atol=1e-11)


@compiled
@each_pass
@pytest.mark.parametrize("change", ["few channels", "stride", "dilation", "2×2", "one small image"])
def test_it_is_left_alone_where_it_does_not_fit(name, change):
    rng = np.random.default_rng(5)
    geometry = {"few channels": (2, 3, 40, (16, 16)), "one small image": (1, 32, 32, (3, 3))}.get(change, (2, 32, 32, (16, 16)))
    arguments = list(calls(rng, *geometry)[name])
    if change in ("stride", "dilation", "2×2"):
        arguments[3 if change == "stride" else 5] = (1, 1) if change == "2×2" else (2, 1)
        kernel = (2, 2) if change == "2×2" else (3, 3)
        size = {"stride": (8, 16), "dilation": (14, 16), "2×2": (17, 17)}[change]
        x, w, dy = draw(rng, 2, 32, 16, 16), draw(rng, 32, 32, *kernel), draw(rng, 2, 32, *size)
        first = {"conv2d_forward": (x, w, None), "conv2d_backward_input": (dy, w, x.shape)}
        arguments[:3] = first.get(name, (dy, x, w.shape))
    assert not by_winograd(name, arguments)


# ---- the switch


@compiled
def test_the_choice_is_taken_when_a_kernel_runs():
    """Not when its forward was bound: the setting belongs to the process."""
    arguments = calls(np.random.default_rng(6), *GEOMETRIES["exact tiles"])
    x, w = cl.Tensor(arguments["conv2d_forward"][0], requires_grad=True), cl.Tensor(arguments["conv2d_forward"][1])
    dy = arguments["conv2d_backward_input"][0]
    with cl.use("cpu"):
        y = cl.ops.conv2d(x, w, padding=1)
        cl.set_precision("exact")
        y.backward(dy)
    assert x.grad.tobytes() == run("conv2d_backward_input", arguments["conv2d_backward_input"], "exact").tobytes()
    assert y.data.tobytes() == run("conv2d_forward", (x.data, w.data, None, ONE, SAME, ONE, 1)).tobytes()


@compiled
def test_fast_is_the_default_and_the_switch_is_read_back():
    assert cl.get_precision() == "fast"
    cl.set_precision("exact")
    assert cl.get_precision() == "exact"
    cl.set_precision("fast")
    assert cl.get_precision() == "fast"


@pytest.mark.parametrize("word, near", [("exakt", "exact"), ("Fast", "fast")])
def test_another_word_is_refused_with_the_two_that_there_are(word, near):
    before = cl.get_precision()
    with pytest.raises(UnknownNameError, match=f"unknown precision '{word}': did you mean '{near}'.*known: exact, fast"):
        cl.set_precision(word)
    assert cl.get_precision() == before


def test_the_reference_ignores_it():
    arguments = calls(np.random.default_rng(7), *GEOMETRIES["exact tiles"])["conv2d_forward"]
    results = []
    for precision in ("fast", "exact"):
        cl.set_precision(precision)
        results.append(REFERENCE.conv2d_forward(*arguments).tobytes())
    assert results[0] == results[1]


# ---- the tolerance


@compiled
@each_pass
@pytest.mark.parametrize("C, F, N, size", [(32, 32, 4, 12), (64, 128, 2, 21), (512, 512, 1, 14)])
def test_an_error_of_a_thousandth_is_outside(name, C, F, N, size):
    cl.set_precision("fast")
    arguments, reference = calls(np.random.default_rng(8), N, C, F, (size, size))[name], getattr(REFERENCE, name)
    y, y64 = run(name, arguments), reference(*(in_float64(a) for a in arguments))
    allowed = bound(name, reference, arguments, y64, np.float32)
    assert algorithm_of(name, arguments, np.float32) == "winograd"
    assert first_difference(y, y64, allowed) is None
    assert first_difference(y * np.float32(1.001), y64, allowed) is not None, "all of it"
    largest = np.unravel_index(abs(y64).argmax(), y64.shape)
    y[largest] *= 1.001
    assert first_difference(y, y64, allowed)[0] == largest, "one element"


@compiled
@each_pass
def test_shadow_accepts_it_where_one_pixel_towers_over_its_tile(name):
    """Next to a huge pixel Winograd rounds to the huge pixel's last digit, also where its kernel does not reach."""
    arguments = calls(np.random.default_rng(9), *GEOMETRIES["exact tiles"])[name]
    arguments[0][...] *= 1e-4
    arguments[0][0, :, 5, 6] = 1e4
    assert by_winograd(name, arguments)
    check(name, arguments)


def test_exact_is_held_to_the_direct_tolerance():
    arguments = calls(np.random.default_rng(10), *GEOMETRIES["exact tiles"])["conv2d_forward"]
    cl.set_precision("exact")
    assert algorithm_of("conv2d_forward", arguments, np.float32) == "direct"
    assert algorithm_of("conv2d_forward", arguments, np.float64) == "direct"
