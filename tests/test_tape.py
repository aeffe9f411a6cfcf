"""The tape: several outputs, order, sums, stale parameters, and what backward refuses."""

import gc
import weakref

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Op, Parameter, Tensor, ops
from cnnlib.errors import CnnlibError, DtypeError, GraphError, ShapeError
from tests.toys import Pick, Polar, Square, TopTwo, leaf, read_only, returning

# ---- several outputs


def test_both_adjoints_of_two_outputs_arrive_in_one_call():
    a, b = leaf([3.0]), leaf([4.0])
    r, phi = Polar.apply(a, b)
    (r * 10.0 + phi * 25.0).backward()
    assert Polar.arrived == (True, True)
    np.testing.assert_allclose(a.grad, 10 * 0.6 - 25 * 4 / 25, rtol=1e-6)
    np.testing.assert_allclose(b.grad, 10 * 0.8 + 25 * 3 / 25, rtol=1e-6)


@pytest.mark.parametrize("used, expected", [(0, (0.6, 0.8)), (1, (-4 / 25, 3 / 25))])
def test_an_output_that_nobody_uses_sends_none(used, expected):
    a, b = leaf([3.0]), leaf([4.0])
    Polar.apply(a, b)[used].sum().backward()
    assert Polar.arrived == (used == 0, used == 1)
    np.testing.assert_allclose([a.grad[0], b.grad[0]], expected, rtol=1e-6)


def test_split_puts_each_adjoint_back_in_its_place_and_zero_where_none_came():
    x = leaf(np.arange(6.0))
    first, _, last = ops.split(x, [1, 2, 3])
    (first * 7.0).sum().backward(retain=True)
    np.testing.assert_array_equal(x.grad, [7, 0, 0, 0, 0, 0])
    (last * Tensor([1.0, 2.0, 3.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [7, 0, 0, 1, 2, 3])


def test_integer_and_marked_outputs_carry_no_gradient():
    x = leaf([1.0, 5.0, 3.0])
    y, i, mean = TopTwo.apply(x)
    assert (y.requires_grad, i.requires_grad, mean.requires_grad) == (True, False, False)
    assert i.item() == 1
    with pytest.raises(GraphError, match="does not require a gradient"):
        mean.backward()
    (y * mean).backward()
    np.testing.assert_array_equal(x.grad, [0, 3, 0])


def test_batch_norm_statistics_are_outputs_without_gradient():
    x, gamma, beta = leaf(np.random.default_rng(0).normal(size=(6, 3))), leaf(np.ones(3)), leaf(np.zeros(3))
    y, mean, var = ops.batch_norm(x, gamma, beta)
    assert y.requires_grad and not mean.requires_grad and not var.requires_grad
    np.testing.assert_allclose(var.data, x.data.var(axis=0), rtol=1e-5)
    y.backward(np.ones_like(y.data))
    np.testing.assert_allclose(x.grad, 0.0, atol=1e-5)  # y sums to the same whatever x is
    np.testing.assert_allclose(beta.grad, 6.0, rtol=1e-6)


def test_an_input_that_backward_gives_none_keeps_no_gradient():
    a, b = leaf([1.0]), leaf([2.0])
    Pick.apply(a, b).sum().backward()
    assert b.grad is None
    np.testing.assert_array_equal(a.grad, [1.0])


def test_operations_behind_an_adjoint_of_none_are_not_called():
    called = []

    def spy(ctx, dy):
        called.append(dy)
        return 2.0 * dy * ctx.x

    a, b = leaf([1.0]), leaf([2.0])
    with cl.override(Square, backward=spy):
        Pick.apply(Square.apply(a), Square.apply(b), second=True).sum().backward()
    assert len(called) == 1 and a.grad is None
    np.testing.assert_array_equal(b.grad, [4.0])


# ---- order and sums


def test_diamond_visits_the_shared_operation_once_with_the_whole_adjoint():
    calls = []

    def spy(ctx, dy):
        calls.append(dy.copy())
        return 2.0 * dy * ctx.x

    x = leaf([3.0])
    with cl.override(Square, backward=spy):
        s = Square.apply(x)
    ((s + s * 2.0) + (s * 4.0 + s)).sum().backward()
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], [8.0])
    np.testing.assert_array_equal(x.grad, [48.0])


def test_a_short_path_waits_for_a_long_one():
    x = leaf([1.0])
    s = Square.apply(x)
    long = s
    for _ in range(5):
        long = long * 1.0
    (s + long).sum().backward()
    np.testing.assert_array_equal(x.grad, [4.0])


def test_a_ladder_of_diamonds_is_walked_in_linear_time():
    x = leaf([1.0])
    y = x
    for _ in range(60):  # 2^60 paths
        y = (y + y) * 0.5
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0])


def test_a_chain_of_5000_operations_needs_no_recursion():
    x = leaf([1.0])
    y = x
    for _ in range(5000):
        y = y + 1.0
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0])


def test_a_long_chain_can_be_dropped_without_backward():
    y = leaf([1.0])
    for _ in range(50_000):
        y = ops.negative(y)
    del y
    gc.collect()


def test_several_backward_calls_add_up_and_leave_earlier_arrays_alone():
    x = leaf([2.0, 3.0])
    (x * x).sum().backward()
    first = x.grad
    (x * 10.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [14.0, 16.0])
    np.testing.assert_array_equal(first, [4.0, 6.0])


def test_backward_of_a_leaf_adds_the_adjoint():
    x = leaf([1.0, 2.0])
    x.backward(np.array([5.0, 6.0], np.float32))
    x.backward(np.array([1.0, 1.0], np.float32))
    np.testing.assert_array_equal(x.grad, [6.0, 7.0])


def test_unused_results_do_not_matter():
    x = leaf([1.0])
    used, unused = x * 2.0, x * 3.0
    used.sum().backward()
    np.testing.assert_array_equal(x.grad, [2.0])
    unused.sum().backward()
    np.testing.assert_array_equal(x.grad, [5.0])


def test_only_leaves_that_require_a_gradient_get_one():
    x, frozen = leaf([2.0]), Tensor([3.0])
    y = x * frozen
    y.sum().backward()
    assert frozen.grad is None and y.grad is None
    np.testing.assert_array_equal(x.grad, [3.0])


def test_detach_cuts_the_tape_but_not_the_values():
    x = leaf([3.0])
    y = x * x
    cut = y.detach()
    assert not cut.requires_grad and cut.item() == 9.0
    (cut * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [9.0])


# ---- stale parameters


def test_a_parameter_changed_after_forward_is_an_error_that_names_it():
    p = Parameter(np.ones(2, np.float32))
    p.name = "conv1.weight"
    x = leaf([1.0, 2.0])
    y = (p * x).sum()
    p.set(np.zeros(2))
    with pytest.raises(GraphError, match=r"multiply.*'conv1\.weight' was changed .*Run forward again"):
        y.backward()
    assert p.grad is None and x.grad is None


def test_a_stale_parameter_that_needs_no_gradient_is_refused_too():
    p = Parameter(np.full(2, 3.0, np.float32), requires_grad=False)
    p.name = "frozen"
    x = leaf([1.0, 2.0])
    y = (p * x).sum()
    p.set(np.zeros(2))
    with pytest.raises(GraphError, match="'frozen'"):
        y.backward()


def test_a_subclass_of_parameter_is_guarded_as_well():
    class Mine(Parameter):
        pass

    p = Mine(np.ones(2, np.float32))
    p.name = "mine"
    y = (p * p).sum()
    p.set(np.zeros(2))
    with pytest.raises(GraphError, match="'mine'"):
        y.backward()


@pytest.mark.parametrize(
    "view", [lambda p: p.detach(), lambda p: p.reshape(2), lambda p: p[:], lambda p: p.T], ids=["detach", "reshape", "[:]", "T"]
)
def test_a_step_does_not_change_gradients_through_a_view_of_a_frozen_parameter(view):
    """A view shares the parameter's memory but not its version: a copy, or an error, but never another number."""
    p = Parameter(np.full(2, 3.0, np.float32), requires_grad=False)
    x = leaf([1.0, 2.0])
    y = (view(p) * x).sum()
    p.set(np.zeros(2))
    try:
        y.backward()
    except GraphError:
        return
    np.testing.assert_array_equal(x.grad, [3.0, 3.0])


def test_forward_after_the_step_is_fine():
    p = Parameter(np.ones(2, np.float32))
    p.set(np.array([2.0, 3.0]))
    (p * p).sum().backward()
    np.testing.assert_array_equal(p.grad, [4.0, 6.0])


def test_a_parameter_owns_its_array():
    values = read_only(np.ones(2, np.float32))
    p = Parameter(values)
    p.set([5.0, 6.0])
    np.testing.assert_array_equal(values, [1.0, 1.0])


# ---- what backward refuses


def test_backward_without_a_graph():
    with pytest.raises(GraphError, match="does not require a gradient"):
        Tensor([1.0]).backward()


def test_backward_of_many_elements_needs_an_adjoint():
    with pytest.raises(ShapeError, match=r"one element has an implicit adjoint of 1, this has shape \(2,\): pass dy"):
        (leaf([1.0, 2.0]) * 1.0).backward()


@pytest.mark.parametrize("dy", [np.ones(3, np.float32), np.ones(2, np.float64), [1.0, 1.0], 1.0, np.ones((1, 2), np.float32)])
def test_backward_refuses_an_adjoint_of_another_shape_or_dtype(dy):
    with pytest.raises(ShapeError, match=r"dy must have shape \(2,\) and dtype float32, got"):
        (leaf([1.0, 2.0]) * 1.0).backward(dy)


@pytest.mark.parametrize(
    "adjoints, error, text",
    [
        ((np.ones(2, np.float32),), ShapeError, r"returning: backward must return one adjoint .*\(a, b\): expected 2, got 1"),
        ((None, None, None), ShapeError, "expected 2, got 3"),
        ((np.ones(3, np.float32), None), ShapeError, r"returned da of shape \(3,\), expected the shape of a, \(2,\)"),
        ((None, np.ones((1, 2), np.float32)), ShapeError, r"returned db of shape \(1, 2\)"),
        ((np.ones(2), None), DtypeError, "returned da as float64, expected float32"),
        ((None, [1.0, 1.0]), DtypeError, "must return arrays, got list for db"),
        ((1.0, None), DtypeError, "must return arrays, got float for da"),
    ],
)
def test_backward_with_a_wrong_return_value_is_named(adjoints, error, text):
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    with pytest.raises(error, match=text):
        returning(*adjoints).apply(a, b).backward(np.ones(2, np.float32))
    assert a.grad is None and b.grad is None


def test_a_backward_that_ends_without_a_return_is_named():
    x = leaf([1.0, 2.0])
    with cl.override(ops.ReLU, backward=lambda ctx, dy: None):
        y = ops.relu(x)
    with pytest.raises(GraphError, match=r"relu: backward returned None: does it end without a return\? .* of forward \(x\)"):
        y.backward(np.ones(2, np.float32))
    assert x.grad is None


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (1, 1, 2)])
def test_an_adjoint_that_cannot_be_summed_back_is_refused(shape):
    class Wrong(Op):
        broadcasts = True

        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, dy):
            return np.ones(shape, np.float32)

    x = Tensor(np.ones((2, 1, 3), np.float32), requires_grad=True)
    with pytest.raises(ShapeError, match=r"\(2, 1, 3\)"):
        Wrong.apply(x).backward(np.ones((2, 1, 3), np.float32))


def test_a_failing_backward_leaves_every_gradient_as_it_was():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (a * b).sum().backward()
    before = a.grad.copy(), b.grad.copy()
    bad = returning(np.ones(5, np.float32), None).apply(a * 1.0, b)
    with pytest.raises(CnnlibError):
        (bad + b).sum().backward()
    np.testing.assert_array_equal(a.grad, before[0])
    np.testing.assert_array_equal(b.grad, before[1])


# ---- what forward saved


def test_reading_what_was_not_saved_names_what_was():
    _, ctx = Square.run(np.ones(2))
    with pytest.raises(AttributeError, match="square: ctx has no 'w'; forward saved x"):
        ctx.w  # noqa: B018


@pytest.mark.parametrize(
    "name", ["inputs", "outputs", "needs", "settings", "kernels", "xp", "op", "saved", "backward", "scope"]
)
def test_saving_under_a_name_of_the_engine_is_refused_or_works(name):
    """Silently reading the engine's own value instead of the saved one would train the wrong thing."""

    class Clash(Op):
        @staticmethod
        def forward(ctx, x):
            ctx.save(**{name: x})
            return x * 1.0

        @staticmethod
        def backward(ctx, dy):
            return dy * getattr(ctx, name)

    x = leaf([3.0])
    try:
        y = Clash.apply(x)
    except (CnnlibError, AttributeError, ValueError, TypeError) as error:
        assert name in str(error)
        return
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [3.0])


def test_the_tape_does_not_keep_values_that_no_operation_saved():
    """negative saves nothing: its input's array lives as long as somebody else wants it, and backward still works."""
    x = cl.Tensor([1.0, 2.0], requires_grad=True)
    middle = ops.negative(x)
    values = weakref.ref(middle.data)
    y = ops.negative(middle)
    del middle
    assert values() is None
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0, 1.0])
