"""Vector maths through the compiled activations: every instruction set of this machine, both dtypes."""

import functools

import numpy as np
import pytest

from cnnlib.backends import cpu
from tests.test_kernels import COMPILED, each_dtype, each_isa


@functools.cache
def grid(dtype):
    limits = np.finfo(dtype)
    special = [0.0, np.inf, np.nan, limits.tiny, limits.smallest_subnormal, limits.tiny / 8, limits.eps, limits.max]
    special += [0.5, 0.625, 1, 17, 20, 36, 87.3, 88, 88.7, 88.8, 103.9, 104, 708.3, 709.7, 710, 744.4, 745, 746]
    x = np.concatenate([special, np.geomspace(1e-8, 1, 400), np.linspace(0.001, 25, 3000), np.linspace(25, 760, 1500)])
    with np.errstate(over="ignore"):
        return np.concatenate([x, -x]).astype(dtype)


def stable_sigmoid(x):
    e = np.exp(-abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


FUNCTIONS = {  # the kernel, and the same with long doubles
    "exp": (lambda x: COMPILED.elu_backward(np.ones_like(x), x, 1.0), lambda x: np.exp(np.minimum(x, 0))),
    "elu": (lambda x: COMPILED.elu_forward(x, 1.0), lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "tanh": (lambda x: COMPILED.tanh_forward(x), np.tanh),
    "sigmoid": (lambda x: COMPILED.sigmoid_forward(x), stable_sigmoid),
    "softplus": (lambda x: COMPILED.softplus_forward(x), lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))),
}


@each_isa
@each_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_exact_to_a_few_units_in_the_last_place(name, isa, dtype):
    cpu.set_isa(isa)
    function, exact = FUNCTIONS[name]
    x = grid(dtype)
    y = function(x)
    with np.errstate(all="ignore"):
        expected = exact(x.astype(np.longdouble))
        rounded = expected.astype(dtype)
        units = abs(y.astype(np.longdouble) - expected) / np.spacing(abs(rounded)).astype(np.longdouble)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    worst = int(np.where(finite, units, 0).argmax())
    limit = 5 if dtype == "float32" else 8
    assert units[worst] <= limit, f"{name}({x[worst]!r}) = {y[worst]!r}, exactly {expected[worst]!r}: {units[worst]} ulp"
    assert np.isfinite(y[finite]).all()
    for start in (1, 2, 3):  # in other lanes, and in the rest behind the last whole vector
        np.testing.assert_array_equal(function(x[start : start + 61].copy()), y[start : start + 61])


@each_isa
@each_dtype
def test_tanh_keeps_the_sign_of_zero_and_of_what_is_smallest(isa, dtype):
    cpu.set_isa(isa)
    x = np.array([0.0, -0.0, np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).smallest_subnormal] * 5, dtype)
    assert COMPILED.tanh_forward(x).tobytes() == x.tobytes()


@functools.cache
def every_so_many_floats(name):
    """About two million float32 from all of them, NaN and infinity included, and the function's values in float64."""
    x = np.arange(0, 2**32, 2039, dtype=np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        return x, FUNCTIONS[name][1](x.astype(np.float64))


@each_isa
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_exact_for_float32_of_every_size(name, isa):
    cpu.set_isa(isa)
    x, expected = every_so_many_floats(name)
    y = FUNCTIONS[name][0](x)
    with np.errstate(all="ignore"):
        rounded = expected.astype(np.float32)
        units = abs(y.astype(np.float64) - expected) / np.spacing(abs(rounded)).astype(np.float64)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    worst = int(np.where(finite, units, 0).argmax())
    assert units[worst] <= 5, f"{name}({x[worst]!r}) = {y[worst]!r}, exactly {expected[worst]!r}: {units[worst]} ulp"
