"""Tensor operators and indexing behave as NumPy's do, and gradients flow back through them."""

import operator

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnnlib import Tensor
from cnnlib.errors import ShapeError
from tests.toys import leaf

# ---- operators against NumPy

values = hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), elements=st.floats(-4, 4, width=32))
OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / (b + 9.0),
    "number on the left": lambda a, b: (2.0 - a) + 3.0 / (9.0 + b) + 2 * a + (1 + b),
    "power": lambda a, b: (abs(a) + 1.0) ** 1.5 + b**2 + b**3 + a**0,
    "unary": lambda a, b: -a + abs(b),
    "transpose": lambda a, b: (a + b).T + 0.0,
    "transpose axes": lambda a, b: (a + b).transpose(*range(a.ndim)[::-1]) + b.transpose(tuple(range(a.ndim))[::-1]),
    "sum": lambda a, b: (a * b).sum() + a.sum() * b.mean(),
    "keepdims": lambda a, b: a - a.max(axis=-1, keepdims=True) + b.min(axis=-1, keepdims=True) if a.ndim else a,
    "reshape": lambda a, b: a.reshape(-1) * b.reshape((-1,)) + a.reshape(1, -1)[0],
    "in place is rebinding": lambda a, b: operator.iadd(a + 0.0, b),
}


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=25, deadline=None)
@given(a=values, seed=st.integers(0, 1000))
def test_operators_agree_with_numpy(name, a, seed):
    b = np.asarray(np.random.default_rng(seed).normal(size=a.shape))
    got = OPERATORS[name](Tensor(a), Tensor(b))
    expected = OPERATORS[name](a, b)
    assert got.shape == np.shape(expected) and got.dtype == np.float64
    np.testing.assert_allclose(got.data, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(a=values, seed=st.integers(0, 1000))
def test_numpy_arrays_on_the_left_give_tensors(a, seed):
    b = np.asarray(np.random.default_rng(seed).normal(size=a.shape))
    for y, expected in (
        (a + Tensor(b), a + b),
        (a - Tensor(b), a - b),
        (a * Tensor(b), a * b),
        (a / (Tensor(b) ** 2 + 1.0), a / (b**2 + 1.0)),
    ):
        assert isinstance(y, Tensor)
        np.testing.assert_allclose(y.data, expected, rtol=1e-15)
    np.testing.assert_array_equal((a < Tensor(b)).data, a < b)
    assert isinstance(np.eye(3) @ Tensor(np.eye(3)), Tensor)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 1, 2, 3), (4, 3, 1)), ((1, 3), (3, 1))])
def test_matmul_agrees_with_numpy(shapes):
    a, b = (np.random.default_rng(i).normal(size=s) for i, s in enumerate(shapes))
    np.testing.assert_allclose((Tensor(a) @ Tensor(b)).data, a @ b, rtol=1e-12)


@pytest.mark.parametrize("compare", ["__lt__", "__le__", "__gt__", "__ge__"])
@pytest.mark.parametrize("kind", ["number", "array", "tensor"])
def test_comparisons_agree_with_numpy_and_carry_no_gradient(compare, kind):
    x = Tensor(np.array([1.0, 1.0, 1.0]), requires_grad=True)
    other = 1.0 if kind == "number" else np.array([0.0, 1.0, 2.0])
    y = getattr(x, compare)(Tensor(other) if kind == "tensor" else other)
    np.testing.assert_array_equal(y.data, getattr(x.data, compare)(other))
    assert y.dtype == bool and not y.requires_grad


def test_equality_is_element_by_element_or_refused():
    """Python's default would compare identities: (predictions == labels) would be False whatever they hold."""
    a, b = Tensor([1, 2, 3]), Tensor([1, 5, 3])
    try:
        equal, unequal = a == b, a != b
    except TypeError:
        return
    np.testing.assert_array_equal(equal.data, [True, False, True])
    np.testing.assert_array_equal(unequal.data, [False, True, False])


def test_tensors_have_no_in_place_operators():
    x = leaf([1.0, 2.0])
    before = x
    x += 1.0
    np.testing.assert_array_equal(before.data, [1.0, 2.0])
    with pytest.raises(TypeError):
        x[0] = 5.0
    with pytest.raises(TypeError):
        array = np.ones(2, np.float32)
        array += x


def test_a_tensor_as_an_array():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(np.asarray(x), x.data)
    assert np.asarray(x).dtype == np.float32
    assert len(x) == 2 and [row.shape for row in x] == [(2,), (2,)]
    assert float(x[1, 1]) == 4.0 and bool(x[0, 0])
    with pytest.raises(ValueError):
        bool(x)
    with pytest.raises(ValueError):
        float(x)


# ---- indexing

INDICES = [
    0,
    -1,
    (1, 2),
    slice(1, None),
    slice(None, None, -1),
    slice(0, 0),
    (slice(None), 1),
    (..., 0),
    (None, slice(None), None, 1),
    (slice(None, None, 2), slice(2, 0, -1)),
    [0, 2, 0],
    (slice(None), [1, 1, 1]),
    ([0, 1, 0], [2, 2, 2]),
    np.array([[0, 1], [1, 0]]),
    np.array([True, False, True]),
    (np.array([True, False, True]), 1),
    np.arange(12).reshape(3, 4) % 3 == 0,
    np.int64(1),
    (np.int64(1), slice(None)),
    np.zeros(3, bool),
    (..., None, [3, 3]),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indexing_agrees_with_numpy_and_elements_picked_twice_add_up(index):
    x = Tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[index])
    dy = np.random.default_rng(0).normal(size=y.shape)
    y.backward(dy)
    expected = np.zeros((3, 4))
    np.add.at(expected, index, dy)
    np.testing.assert_array_equal(x.grad, expected)


def test_tensors_as_indices():
    x = leaf([10.0, 20.0, 30.0])
    np.testing.assert_array_equal(x[Tensor([2, 0])].data, [30.0, 10.0])
    np.testing.assert_array_equal(x[x > 15.0].data, [20.0, 30.0])


@pytest.mark.parametrize("index", [3, (0, 0, 0), [5], np.array([True, False])], ids=repr)
def test_an_index_outside_is_refused_with_the_shape(index):
    with pytest.raises(ShapeError, match=r"getitem: .*\(x\.shape = \(3, 2\)\)"):
        Tensor(np.zeros((3, 2)))[index]


def test_iteration_ends():
    assert [float(t) for t in Tensor([1.0, 2.0, 3.0])] == [1.0, 2.0, 3.0]
    with pytest.raises(TypeError):
        iter(Tensor(1.0)).__next__()


@settings(max_examples=60, deadline=None)
@given(
    hnp.array_shapes(max_dims=3, max_side=4).flatmap(lambda s: st.tuples(st.just(s), hnp.basic_indices(s, allow_newaxis=True)))
)
def test_basic_indexing_is_the_adjoint_of_scattering(shape_and_index):
    shape, index = shape_and_index
    x = Tensor(np.random.default_rng(1).normal(size=shape), requires_grad=True)
    y = x[index]
    assume(y.size)
    y.backward(np.ones(y.shape))
    expected = np.zeros(shape)
    expected[index] += 1.0
    np.testing.assert_array_equal(x.grad, expected)
