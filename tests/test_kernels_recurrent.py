"""The compiled recurrent kernels on every instruction set against the textbook: sizes around strips and panels, ends, NaN."""

import functools
import itertools

import numpy as np
import pytest

from cnnlib.backends import REFERENCE, cpu, kernel_set
from cnnlib.backends.tolerance import bound, first_difference, in_float64
from tests.kernel_calls import Calls, Sizes

if not cpu.available():
    pytest.skip(f"the compiled kernels were not built: {cpu.why_not()}", allow_module_level=True)

COMPILED = kernel_set("cpu")
each_isa = pytest.mark.parametrize("isa", cpu.available_isas())
each_dtype = pytest.mark.parametrize("dtype", ("float32", "float64"))


@functools.cache
def calls_with_answers(dtype):
    """Steps that pay for packing one sequence or do not, sequences in one panel and several, units in one strip and several."""
    sizes = [
        *itertools.product((1, 6), (1, 3), (1, 33, 140)),
        *((3, B, H) for B, H in ((5, 17), (13, 8), (15, 64), (32, 33), (57, 5))),
    ]
    calls = [call for T, B, H in sizes for call in Calls(B, dtype, Sizes(steps=T, sequences=B, units=H)).of("recurrent")]
    return [(call, call.with_arrays(in_float64).on(REFERENCE)) for call in calls]


@each_isa
@each_dtype
def test_all_forms_and_sizes(isa, dtype):
    cpu.set_isa(isa)
    for call, expected in calls_with_answers(dtype):
        call.with_arrays(lambda a: a if a.dtype.kind == "i" else np.full_like(a, np.nan)).on(COMPILED)  # must not come back
        for i, (y, y64) in enumerate(zip(call.on(COMPILED), expected, strict=True)):
            assert y.dtype == dtype
            allowed = bound(call.kernel, getattr(REFERENCE, call.kernel), call.arguments, y64, np.dtype(dtype))
            worst = first_difference(y, y64, allowed)
            assert worst is None, f"{call}, output {i}: {worst}"


@each_dtype
def test_rounding_errors_that_a_recurrence_makes_large_are_no_disagreement_but_planted_ones_are(dtype):
    """Weights of spectral radius 3: one rounding error more or less, and after 100 steps all units are elsewhere."""
    T, B, H = 200, 4, 64
    rng = np.random.default_rng(0)
    x, h0, w_ih, w = (rng.normal(size=s).astype(dtype) for s in ((T, B, 5), (B, H), (H, 5), (H, H)))
    w_ih /= 3
    for radius in (3, 0.9):
        call = x, h0, w_ih, (radius / H**0.5 * w).astype(dtype), None, "tanh", None, False
        h, h64 = COMPILED.rnn_forward(*call), REFERENCE.rnn_forward(*map(in_float64, call))
        allowed = bound("rnn_forward", REFERENCE.rnn_forward, call, h64, dtype)
        assert first_difference(h, h64, allowed) is None
        assert (abs(h - h64).max() > 0.1) == (radius == 3)
    assert first_difference(1.001 * h, h64, allowed) is not None


@each_isa
@pytest.mark.parametrize("B", [2, 5, 15])
def test_a_sequence_meets_no_other(isa, B):
    """NaN in one sequence's inputs, and in what lies behind the ends of the others, reaches that sequence alone."""
    cpu.set_isa(isa)
    T, D, H, lengths = 7, 10, 19, np.array([7, 3, 1, 6, 5] * 3)[:B]
    rng = np.random.default_rng(0)
    x, h0, w_ih, w = (rng.normal(size=s) / 3 for s in ((T, B, D), (B, H), (4 * H, D), (4 * H, H)))
    spoilt = x.copy()
    spoilt[2, 1] = np.nan
    for b, length in enumerate(lengths):
        spoilt[length:, b] = np.nan
    for reverse in (False, True):
        rest = h0, h0, w_ih, w, None, None, "tanh", lengths, reverse
        for y, expected in zip(COMPILED.lstm_forward(spoilt, *rest), COMPILED.lstm_forward(x, *rest), strict=True):
            others = np.arange(B) != 1
            assert np.array_equal(y[:, others], expected[:, others])
            assert np.isnan(y[2, 1]).all()


@each_isa
@each_dtype
@pytest.mark.parametrize(("T", "B"), [(3, 2), (6, 2), (6, 5), (6, 16)])
def test_nan_in_one_sequence_reaches_no_other_in_any_form_forward_or_backward(isa, dtype, T, B):
    cpu.set_isa(isa)
    H, others = 19, np.arange(B) != 1

    def axis(a):
        return 1 if a.shape[:2] == (T, B) else 0 if a.shape == (B, H) else None

    def spoilt(a):
        a = a.copy()
        if axis(a) is not None:
            np.moveaxis(a, axis(a), 0)[1] = np.nan
        return a

    for call in Calls(B, dtype, Sizes(steps=T, sequences=B, units=H)).of("recurrent"):
        for y, expected in zip(call.with_arrays(spoilt).on(COMPILED), call.on(COMPILED), strict=True):
            if (k := axis(y)) is not None:
                assert y.compress(others, k).tobytes() == expected.compress(others, k).tobytes(), str(call)
                assert np.isnan(y.take(1, k)).any(), str(call)


@each_isa
def test_after_its_end_a_sequence_keeps_its_state_and_passes_adjoints_on(isa):
    cpu.set_isa(isa)
    T, B, H = 6, 7, 33
    rng = np.random.default_rng(1)
    x, h0, w_ih, w = (rng.normal(size=s) / 3 for s in ((T, B, 8), (B, H), (3 * H, 8), (3 * H, H)))
    dh = np.zeros((T, B, H))
    lengths = np.array([1, 6, 2, 6, 3, 6, 4])
    h, gates = COMPILED.gru_forward(x, h0, w_ih, w, None, None, True, lengths, False)
    dh[-1] = rng.normal(size=(B, H))
    da, *_ = COMPILED.gru_backward(dh, h, gates, h0, w, True, lengths, False)
    for b, length in enumerate(lengths):
        assert np.array_equal(h[length:, b], np.broadcast_to(h[length - 1, b], (T - length, H)))
        assert not gates[length:, b].any() and not da[length:, b].any()
        assert da[length - 1, b].any()  # what only the last state received arrives at the last real step


@each_isa
@each_dtype
def test_one_step_after_the_other_is_the_whole_sequence(isa, dtype):
    """A step alone takes the weights as they are, a sequence packs them: equal to rounding."""
    cpu.set_isa(isa)
    rng = np.random.default_rng(2)
    for B in (1, 3, 6):
        x, h, w = (rng.normal(size=s).astype(dtype) for s in ((9, B, 40), (B, 40), (2, 40, 40)))
        w /= 7
        whole = COMPILED.rnn_forward(x, h, *w, None, "tanh", None, False)
        for t in range(9):
            h = COMPILED.rnn_forward(x[t : t + 1], h, *w, None, "tanh", None, False)[0]
            np.testing.assert_allclose(h, whole[t], rtol=0, atol=100 * np.finfo(dtype).eps)
