"""Every row of the table of operation cases: gradients, backends, layouts, determinism, error texts."""

import inspect
import warnings

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Tensor, ops
from cnnlib import random as streams
from cnnlib.backends import available
from cnnlib.gradcheck import gradcheck
from tests.cases import Draw
from tests.op_cases import CASES, ERRORS

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None]
DTYPES = ("float32", "float64")

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def same_random_numbers():
    cl.manual_seed(1)


def arrays_of(case, dtype="float64", seed=0):
    arrays = case.inputs(Draw(seed))
    return [None if a is None else a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]


def differentiable(case, arrays):
    every = [i for i, a in enumerate(arrays) if a is not None and a.dtype.kind == "f"]
    return every if case.differentiable is None else list(case.differentiable)


def run(case, arrays, backend="reference"):
    """[outputs], [adjoints], from random upstream adjoints that depend on shapes only."""
    streams.manual_seed(1)
    wanted = differentiable(case, arrays)
    tensors = [None if a is None else Tensor(a, requires_grad=i in wanted) for i, a in enumerate(arrays)]
    with cl.use(backend):
        y = case.function(*tensors, **case.settings)
        outputs = list(y) if isinstance(y, tuple) else [y]
        rng = np.random.default_rng(2)
        dys = [np.asarray(rng.standard_normal(t.shape) + 0.5, t.dtype) if t.dtype.kind == "f" else None for t in outputs]
        for t, dy in zip(outputs, dys, strict=True):
            if dy is not None:
                dy.flags.writeable = False
            if t.requires_grad:
                t.backward(dy, retain=True)
    return [t.data for t in outputs], [tensors[i].grad for i in wanted if tensors[i] is not None]


def same_bits(got, expected):
    for part, other in zip(got, expected, strict=True):
        for a, b in zip(part, other, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_names_of_cases_are_unique():
    seen = [case.name for case in CASES]
    assert len(set(seen)) == len(seen), sorted({n for n in seen if seen.count(n) > 1})


@each_case
@each_backend
def test_backward_is_the_derivative(case, backend):
    with cl.use(backend):
        report = gradcheck(
            case.function, *arrays_of(case), only=case.differentiable, elements=60, directions=6, seed=9, **case.settings
        )
    assert all(report.checked.values()), f"nothing checked: {report}"


@each_case
@pytest.mark.parametrize("dtype", DTYPES)
@each_backend
def test_every_kernel_agrees_with_the_float64_textbook(case, dtype, backend):
    """Shadow compares each kernel with the tolerance that serves everywhere; whole results are compared loosely on top."""
    arrays = arrays_of(case, dtype)
    if backend == "reference":
        outputs, grads = run(case, arrays)
    else:
        with cl.shadow("reference"):
            outputs, grads = run(case, arrays, backend)
    wide_outputs, wide_grads = run(case, [a if a is None or a.dtype.kind != "f" else a.astype(np.float64) for a in arrays])
    loose = 2e-4 if dtype == "float32" else 1e-10
    for y, y64 in zip(outputs + grads, wide_outputs + wide_grads, strict=True):
        assert y.dtype == (dtype if y64.dtype.kind == "f" else y64.dtype) and y.shape == y64.shape
        scale = float(abs(y64).max(initial=0.0)) or 1.0
        np.testing.assert_allclose(y, y64, rtol=loose, atol=loose * scale)


@each_case
@each_backend
def test_read_only_inputs_are_read_and_not_changed(case, backend):
    arrays = arrays_of(case, "float32")
    before = [None if a is None else a.copy() for a in arrays]
    for a in arrays:
        if a is not None:
            a.flags.writeable = False
    outputs, grads = run(case, arrays, backend)
    for a, b in zip(arrays, before, strict=True):
        assert a is None or a.tobytes() == b.tobytes()
    for y in grads:
        assert y.flags.writeable and not any(a is not None and np.shares_memory(a, y) for a in arrays)
    assert outputs


def strided(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 9, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


LAYOUTS = {
    "every second": strided,
    "Fortran order": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
}


@each_case
@each_backend
def test_the_memory_layout_of_inputs_does_not_matter(case, backend):
    arrays = arrays_of(case, "float32")
    plain = run(case, arrays, backend)
    for layout in LAYOUTS.values():
        laid_out = [a if a is None or a.ndim == 0 else layout(a) for a in arrays]
        same_bits(run(case, laid_out, backend), plain)


@each_case
@each_backend
def test_two_runs_are_equal_bit_for_bit(case, backend):
    arrays = arrays_of(case, "float32")
    same_bits(run(case, arrays, backend), run(case, arrays, backend))


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the compiled kernels were not built")
@each_case
def test_one_thread_and_several_give_equal_bits(case):
    arrays = arrays_of(case, "float32")
    before = cl.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            cl.set_num_threads(threads)
            results.append(run(case, arrays, "cpu"))
    finally:
        cl.set_num_threads(before)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


@each_case
def test_no_warning_and_no_nan(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs, grads = run(case, arrays_of(case, "float32"))
    assert all(np.isfinite(a).all() for a in outputs + grads)


@pytest.mark.parametrize("case", ERRORS, ids=str)
def test_what_is_wrong_is_refused_with_a_message(case):
    with pytest.raises(case.error) as caught:
        case.call()
    assert case.message in str(caught.value)
    assert isinstance(caught.value, (cl.errors.CnnlibError, TypeError))


def test_every_operation_has_a_case():
    with cl.trace() as t:
        for case in CASES:
            case.function(*arrays_of(case), **case.settings)
    covered = {entry.name.rstrip("_0123456789") for entry in t}
    operations = {
        c.name().rstrip("_0123456789"): n for n, c in vars(ops).items() if inspect.isclass(c) and issubclass(c, cl.Op)
    }
    missing = {n for name, n in operations.items() if name not in covered}
    assert missing <= {"Move"}, f"no case for {sorted(missing)}"
