"""What reaches the compiled kernels: arrays of every layout, type and size are read right, copied or refused, and nothing
outside of an array is ever read or written."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnlib as cl
from cnnlib import Tensor
from cnnlib.backends import REFERENCE, available, cpu, kernel_set
from cnnlib.backends.tolerance import CONSTANT, bound, first_difference, in_float64
from cnnlib.errors import CnnlibError
from tests.guarded import calls_of_size_zero
from tests.kernel_calls import FAMILIES, Call, Calls, Sizes, every_window_sees_the_image
from tests.op_cases import CASES
from tests.test_ops import arrays_of, differentiable, same_bits

if not cpu.available():
    pytest.skip(f"the compiled kernels were not built: {cpu.why_not()}", allow_module_level=True)

COMPILED = kernel_set("cpu")
ISAS = cpu.available_isas()
DTYPES = ("float32", "float64")
BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None]
CALLS: dict[str, Call] = {}  # of each kernel the first with most arrays; no axis has length 1
for _call in Calls(0, "float32", Sizes(kernel=(2, 3))):
    _best = CALLS.setdefault(_call.kernel, _call)
    if sum(isinstance(a, np.ndarray) for a in _call.arguments) > sum(isinstance(a, np.ndarray) for a in _best.arguments):
        CALLS[_call.kernel] = _call

each_isa = pytest.mark.parametrize("isa", ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_case = pytest.mark.parametrize("case", CASES, ids=str)


# ---- memory


@pytest.mark.skipif(sys.platform == "win32", reason="needs mmap and mprotect")
@each_dtype
@pytest.mark.parametrize("place", ["end", "start"])
def test_nothing_outside_of_an_array_is_read_or_written(place, dtype, tmp_path):
    progress = tmp_path / "progress"
    progress.touch()
    done = subprocess.run(
        [sys.executable, "-m", "tests.guarded", str(progress), place, dtype, "30"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    last = progress.read_text().strip()
    assert done.returncode == 0, f"exit status {done.returncode} in {last}\n{done.stderr[-2000:]}"
    assert int(done.stdout.split()[0]) > 1000


# ---- layouts, at the kernels


def at_odd_address(a):
    """A copy whose address is no multiple of its element's size, if that is more than a byte."""
    memory = np.zeros(a.nbytes + 2 * a.itemsize, np.uint8)
    offset = -memory.ctypes.data % a.itemsize + 1
    result = memory[offset : offset + a.nbytes].view(a.dtype).reshape(a.shape)
    result[...] = a
    assert result.flags.aligned == (a.itemsize == 1)
    return result


def between_cache_lines(a):
    """A copy at a multiple of its element's size, and of nothing more."""
    memory = np.zeros(a.nbytes + 128, np.uint8)
    offset = -memory.ctypes.data % 64 + a.itemsize
    result = memory[offset : offset + a.nbytes].view(a.dtype).reshape(a.shape)
    result[...] = a
    return result


def read_only(a):
    result = a.copy()
    result.flags.writeable = False
    return result


def with_huge_strides(a):
    """Of axes of length 1: they are never used."""
    strides = [2**40 if n == 1 else step for n, step in zip(a.shape, a.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(a.copy(), a.shape, strides)


def every_second(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 9, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def backwards(a):
    return np.ascontiguousarray(a[::-1])[::-1]


def transposed(a):
    return np.asfortranarray(a) if a.ndim > 1 else every_second(a)


def repeated(a):
    """Other values: the first of each row, broadcast."""
    return np.broadcast_to(a[..., :1], a.shape)


def big_endian(a):
    return a.astype(a.dtype.newbyteorder(">"))


READABLE = (between_cache_lines, read_only, with_huge_strides)
UNREADABLE = (at_odd_address, every_second, backwards, transposed, repeated, big_endian)
FOREIGN = ("float16", "float64", "longdouble", "complex64", "bool", "int8", "int32", "uint32", "int64", "object", "U3", "M8[s]")


def with_each_array_changed(call, change):
    """The calls in which one array is changed, for those that the change does change."""
    for i, a in enumerate(call.arguments):
        if isinstance(a, np.ndarray) and a.itemsize > 1:
            arguments = list(call.arguments)
            arguments[i] = change(a)
            yield i, Call(call.kernel, tuple(arguments))


@each_isa
@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_reads_arrays_wherever_they_lie_and_writes_to_none(name, isa):
    cpu.set_isa(isa)
    call = CALLS[name]
    before, expected = [a.tobytes() for a in call.arguments if isinstance(a, np.ndarray)], call.bits_on(COMPILED)
    for change in READABLE:
        for _, changed in with_each_array_changed(call, change):
            assert changed.bits_on(COMPILED) == expected
    assert before == [a.tobytes() for a in call.arguments if isinstance(a, np.ndarray)]


@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_refuses_what_it_would_misread(name):
    for change in UNREADABLE:
        for _, changed in with_each_array_changed(CALLS[name], change):
            with pytest.raises(ValueError, match=f"{name}: compiled kernels read C-contiguous, aligned arrays of this"):
                getattr(COMPILED, name)(*changed.arguments)
    for dtype in FOREIGN:
        for i, changed in with_each_array_changed(CALLS[name], lambda a: np.zeros(a.shape, dtype)):  # noqa: B023
            if changed.arguments[i].dtype != CALLS[name].arguments[i].dtype:
                one_float = sum(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in CALLS[name].arguments) == 1
                if dtype == "float64" and one_float and CALLS[name].arguments[i].dtype.kind == "f":
                    continue  # a call in float64
                with pytest.raises(TypeError, match=r"float32 and float64|takes u?int|one float dtype"):
                    getattr(COMPILED, name)(*changed.arguments)


@pytest.mark.parametrize("name", [name for name in CALLS if name.endswith("_step")])
def test_a_step_does_not_write_to_what_is_read_only(name):
    for i, changed in with_each_array_changed(CALLS[name], read_only):
        if i != 1:  # the gradient is read
            with pytest.raises(ValueError, match="read-only"):
                getattr(COMPILED, name)(*changed.arguments)


@each_isa
@each_dtype
def test_sizes_of_zero_give_what_the_textbook_gives(isa, dtype):
    cpu.set_isa(isa)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in calls_of_size_zero(dtype):
            try:
                expected = call.on(REFERENCE)
            except (ValueError, ZeroDivisionError):
                expected = None  # the maximum of nothing
            results = call.on(COMPILED)
            for y, y64 in zip(results, expected or results, strict=True):
                assert y.shape == y64.shape and y.dtype == y64.dtype, str(call)
                np.testing.assert_allclose(y, y64, rtol=1e-4, atol=1e-4, err_msg=str(call))


# ---- layouts and types, at the operations


def run(case, arrays, backend, change=lambda a: a):
    """[outputs], [adjoints], inputs and upstream adjoints laid out by ``change``."""
    cl.manual_seed(1)
    wanted = differentiable(case, arrays)
    laid_out = [None if a is None else change(a) if a.ndim else a for a in arrays]
    tensors = [None if a is None else Tensor(a, requires_grad=i in wanted) for i, a in enumerate(laid_out)]
    with cl.use(backend):
        y = case.function(*tensors, **case.settings)
        rng = np.random.default_rng(2)
        for t in y if isinstance(y, tuple) else (y,):
            if t.requires_grad:
                dy = np.asarray(rng.standard_normal(t.shape) + 0.5, t.dtype)
                t.backward(change(dy) if dy.ndim else dy, retain=True)
    outputs = [t.data for t in (y if isinstance(y, tuple) else (y,))]
    return outputs, [tensors[i].grad for i in wanted if tensors[i] is not None]


@each_case
@each_backend
@pytest.mark.parametrize("change", [at_odd_address, between_cache_lines, transposed, backwards])
def test_operations_read_arrays_of_every_layout(case, backend, change):
    arrays = arrays_of(case, "float32")
    if change is at_odd_address and not all(a is None or a.size for a in arrays):
        pytest.skip("an empty array is always aligned")
    for part, expected in zip(run(case, arrays, backend, change), run(case, arrays, backend), strict=True):
        for y, plain in zip(part, expected, strict=True):  # NumPy's own sums depend on strides, in the last place
            np.testing.assert_allclose(y, plain, rtol=1e-5, atol=1e-6)


@each_case
@each_backend
def test_operations_read_broadcast_arrays(case, backend):
    arrays = [None if a is None else repeated(a) if a.ndim and a.dtype.kind == "f" else a for a in arrays_of(case, "float32")]
    copies = [None if a is None else a.copy() for a in arrays]
    with np.errstate(all="ignore"):
        same_bits(run(case, arrays, backend), run(case, copies, backend))


@each_case
def test_operations_refuse_types_that_they_do_not_know_or_agree_with_the_textbook(case):
    arrays = arrays_of(case, "float32")
    for i, a in enumerate(arrays):
        if a is None or a.dtype.kind != "f":
            continue
        for dtype in (">f4", *FOREIGN):
            foreign = list(arrays)
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                foreign[i] = np.ones(a.shape, dtype)
                results = []
                for backend in ("cpu", "reference"):
                    try:
                        with cl.use(backend):
                            cl.manual_seed(1)
                            y = case.function(*foreign, **case.settings)
                            results.append([t.data for t in (y if isinstance(y, tuple) else (y,))])
                    except (CnnlibError, TypeError):
                        results.append(None)
            if results[0] is None:
                continue
            assert results[1] is not None, f"argument {i} as {dtype}: only the compiled kernels take it"
            for y, expected in zip(*results, strict=True):
                if isinstance(y, np.ndarray) and y.dtype.kind == "f":
                    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


# ---- any shape


@st.composite
def any_sizes(draw):
    small, odd = st.integers(1, 4), st.integers(1, 35)
    pair = st.tuples(small, small)
    window = draw(pair)
    margin = tuple(draw(st.integers(0, k // 2)) for k in (window[0], window[0], window[1], window[1]))
    sizes = Sizes(
        M=draw(odd), N=draw(odd), K=draw(st.one_of(odd, st.integers(1, 600))), batch=draw(small), images=draw(small),
        groups=draw(small), C=draw(st.integers(1, 18)), F=draw(st.integers(1, 18)), H=draw(st.integers(1, 18)), W=draw(odd),
        kernel=draw(pair), stride=draw(pair), pads=draw(st.tuples(*[st.integers(0, 3)] * 4)), dilation=draw(pair),
        window=window, step=draw(pair), margin=margin, p=draw(st.sampled_from((1.5, 3.0))),
        n=draw(st.one_of(odd, st.integers(1, 1100))), elements=draw(st.one_of(odd, st.integers(1000, 2100))),
        size=draw(st.integers(1, 6)), steps=draw(st.integers(1, 6)), sequences=draw(st.integers(1, 18)), units=draw(odd),
    )  # fmt: skip
    return sizes if min(*sizes.output(), *sizes.pooled()) > 0 and every_window_sees_the_image(sizes) else Sizes()


def check_against_the_textbook(call):
    with np.errstate(all="ignore"):
        wide = call.with_arrays(in_float64)
        expected = wide.on(REFERENCE)
        arguments = [a for a in call.arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        dtype = arguments[0].dtype if arguments else np.dtype("float32")
        reference = getattr(REFERENCE, call.kernel)
        if call.kernel.endswith("_step"):
            allowed = [64 * np.finfo(dtype).eps * (1 + abs(y).max(initial=0.0)) for y in expected]
        else:
            allowed = [bound(call.kernel, reference, call.arguments, y, dtype) for y in expected]
        # Where all of a result cancels, what rounding leaves is as large as what went in, through a norm's 1 / sqrt(eps).
        went_in = max((float(abs(a).max(initial=0.0)) for a in arguments), default=0.0)
        gain = 1000.0 if "norm" in call.kernel else 1.0
        floor = CONSTANT["direct"] * np.finfo(dtype).eps * went_in * gain
    for y, y64, limit in zip(call.on(COMPILED), expected, allowed, strict=True):
        worst = first_difference(y, y64, limit + floor if y64.dtype.kind == "f" else limit)
        assert worst is None, f"{cpu.isa()} {call}: {worst}, got {y[worst[0]]}, expected {y64[worst[0]]}"


@pytest.fixture
def finely():
    """Threads share even the smallest work."""
    cpu._kernels.split_finely(True)
    yield
    cpu._kernels.split_finely(False)


@each_dtype
@pytest.mark.parametrize("family", FAMILIES)
@given(sizes=any_sizes(), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_kernels_of_any_shape_agree_with_the_textbook_for_any_number_of_threads(family, dtype, finely, sizes, seed):
    calls = list(Calls(seed, dtype, sizes).of(family))
    for isa in ISAS:
        cpu.set_isa(isa)
        cl.set_num_threads(1)
        expected = [call.bits_on(COMPILED) for call in calls]
        for call in calls:
            check_against_the_textbook(call)
        for threads in (2, 3, 4):
            cl.set_num_threads(threads)
            for call, bits in zip(calls, expected, strict=True):
                assert call.bits_on(COMPILED) == bits, f"{isa} {call}: {threads} threads"
