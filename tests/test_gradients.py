"""Gradients as arrays: whose memory they are, what may be written, how long intermediates live."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlib as cl
from cnnlib import Op, Tensor, ops
from cnnlib.errors import CnnlibError, GraphError
from tests.toys import Square, leaf, read_only, returning

# ---- zero and no axes


def test_arrays_of_no_elements_flow_both_ways():
    x = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    row = leaf([1.0, 2.0, 3.0])
    (x * row + row).sum().backward()
    assert x.grad.shape == (0, 3)
    np.testing.assert_array_equal(row.grad, np.zeros(3))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_gradient_of_a_tensor_without_axes_is_an_array_however_often_it_is_used(times):
    x = leaf(3.0)
    y = x * 1.0
    for _ in range(times - 1):
        y = y + x
    y.backward()
    assert type(x.grad) is np.ndarray and x.grad.shape == () and x.grad.dtype == np.float32
    assert x.grad == times


def test_gradient_of_a_tensor_without_axes_stays_an_array_over_backward_calls():
    x = leaf(3.0)
    for _ in range(3):
        (x * 2.0).backward()
    assert type(x.grad) is np.ndarray and x.grad.shape == () and x.grad == 6.0


def test_a_numpy_scalar_as_adjoint_gives_an_array():
    x = leaf(3.0)
    x.backward(np.float32(2.0))
    assert type(x.grad) is np.ndarray and x.grad == 2.0


# ---- aliasing


def test_adding_a_tensor_to_itself():
    x = leaf([1.0, 2.0])
    ops.add(x, x).sum().backward()
    np.testing.assert_array_equal(x.grad, [2.0, 2.0])


def test_gradients_of_two_leaves_never_share_memory():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (a + b).sum().backward()
    assert not np.shares_memory(a.grad, b.grad)
    a.grad[0] = 99.0
    np.testing.assert_array_equal(b.grad, [1.0, 1.0])


def test_gradients_do_not_share_memory_with_the_adjoint_passed_in():
    a, b = leaf([[1.0, 2.0]]), leaf([1.0, 2.0])
    dy = np.ones(2, np.float32)
    (a.reshape(2) + b).backward(dy)
    dy[:] = 7.0
    np.testing.assert_array_equal(a.grad, [[1.0, 1.0]])
    np.testing.assert_array_equal(b.grad, [1.0, 1.0])


def test_gradients_through_views_do_not_share_memory():
    a, b, c = leaf([1.0, 2.0]), leaf([[1.0], [2.0]]), leaf([3.0])
    y = a + b.reshape(2) + ops.broadcast_to(c, (2,))
    y.backward(np.array([1.0, 10.0], np.float32))
    for one, other in ((a, b), (a, c), (b, c)):
        assert not np.shares_memory(one.grad, other.grad)
    assert all(t.grad.flags.writeable for t in (a, b, c))
    np.testing.assert_array_equal(c.grad, [11.0])


def test_reshape_and_transpose_beside_the_tensor_itself():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    w = Tensor([[1.0, 10.0], [100.0, 1000.0]])
    (x * w + x.T * w + x.reshape(4).reshape(2, 2) * w).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * w.data + w.data.T)


def test_joined_parts_do_not_leak_into_each_other():
    a, b = leaf([1.0]), leaf([2.0])
    y = ops.concat([a, b, a])
    (y * Tensor([1.0, 10.0, 100.0]) + y).sum().backward()
    np.testing.assert_array_equal(a.grad, [103.0])
    np.testing.assert_array_equal(b.grad, [11.0])


def test_adjoints_that_are_views_of_one_another_are_summed_correctly():
    class Outer(Op):  # y = a + b, where db is a row of da
        @staticmethod
        def forward(ctx, a, b):
            return a + b

        @staticmethod
        def backward(ctx, dy):
            da = dy * 1.0
            return da, da[0]

    a, b = leaf([[1.0, 2.0]]), leaf([1.0, 2.0])
    scaled = a * 10.0  # runs first, so its adjoint for a arrives last
    (Outer.apply(a, b) + scaled).sum().backward()
    np.testing.assert_array_equal(a.grad, [[11.0, 11.0]])
    np.testing.assert_array_equal(b.grad, [1.0, 1.0])


def test_an_array_that_backward_keeps_for_itself_is_not_written():
    kept = np.ones(2, np.float32)

    class Kept(Op):
        @staticmethod
        def forward(ctx, x):
            ctx.save(parts=[kept])
            return x * 1.0

        @staticmethod
        def backward(ctx, dy):
            return ctx.parts[0]

    x = leaf([1.0, 2.0])
    scaled = x * 10.0
    (Kept.apply(x) + scaled).sum().backward()
    np.testing.assert_array_equal(x.grad, [11.0, 11.0])
    np.testing.assert_array_equal(kept, [1.0, 1.0])


@pytest.mark.parametrize("keeps", ["nothing", "owner", "view"])
def test_a_reshaped_adjoint_is_taken_without_a_copy_unless_somebody_else_holds_its_memory(keeps):
    held, made = [], []

    class Reshaped(Op):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, dy):
            owner = dy.reshape(-1) * 2.0
            made.append(owner.ctypes.data)
            held.extend({"nothing": [], "owner": [owner], "view": [owner[1:]]}[keeps])
            return owner.reshape(dy.shape)

    x = leaf([[1.0, 2.0]])
    Reshaped.apply(x).sum().backward()
    assert (x.grad.ctypes.data == made[0]) == (keeps == "nothing") and x.grad.flags.writeable
    x.grad += 1.0
    np.testing.assert_array_equal(x.grad, [[3.0, 3.0]])
    assert all((a == 2.0).all() for a in held)


def test_a_constant_returned_for_two_leaves_is_not_shared_by_their_gradients():
    constant = np.ones(2, np.float32)

    class Constant(Op):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, dy):
            return constant

    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (Constant.apply(a) + Constant.apply(b)).sum().backward()
    assert not np.shares_memory(a.grad, b.grad) and not np.shares_memory(a.grad, constant)


def test_the_same_array_returned_for_both_inputs_is_not_shared():
    shared = np.ones(1, np.float32)
    a, b = leaf([1.0]), leaf([2.0])
    returning(shared, shared).apply(a, b).sum().backward()
    a.grad += 1.0
    np.testing.assert_array_equal(b.grad, [1.0])
    np.testing.assert_array_equal(shared, [1.0])


def test_a_trace_does_not_make_gradients_share_memory_with_what_it_shows():
    x = leaf([1.0, 2.0])
    with cl.trace() as t:
        (x * x).sum().backward()
    x.grad[:] = 0.0
    np.testing.assert_array_equal(t["multiply"].grads["a"], [1.0, 2.0])


# ---- nothing is written


def test_inputs_and_adjoints_may_be_read_only():
    x = Tensor(read_only(np.arange(6, dtype=np.float32).reshape(2, 3)), requires_grad=True)
    y = ops.concat([(x + x).T.reshape(6), ops.maximum(x, 2.0)[0], ops.exp(x).sum(axis=1)])
    dy = read_only(np.ones(11, np.float32))
    y.backward(dy)
    np.testing.assert_array_equal(dy, 1.0)
    np.testing.assert_array_equal(x.data.reshape(-1), np.arange(6))


# ---- freeing


def test_a_second_backward_is_an_error_that_says_retain():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GraphError, match=r"(sum|multiply) was freed by an earlier backward; pass retain=True"):
        y.backward()
    np.testing.assert_array_equal(x.grad, [2.0])


def test_a_graph_that_shares_a_freed_part_is_an_error_and_adds_nothing():
    x, other = leaf([1.0]), leaf([1.0])
    shared = x * x
    (shared * 2.0).sum().backward()
    with pytest.raises(GraphError, match="multiply was freed"):
        (shared * other).sum().backward()
    assert other.grad is None
    np.testing.assert_array_equal(x.grad, [4.0])


def test_retain_allows_a_second_backward_with_the_same_result():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [4.0, 8.0])
    with pytest.raises(GraphError, match="retain=True"):
        y.backward()


def intermediate(x):
    """A weak reference to an array that only the tape may hold."""
    y = Square.apply(x)
    alive = weakref.ref(y.data)
    return Square.apply(y), alive


def test_backward_frees_what_forward_saved():
    z, alive = intermediate(leaf(np.ones(1000)))
    gc.collect()
    assert alive() is not None
    z.sum().backward()
    gc.collect()
    assert alive() is None, "the tape still holds an intermediate after backward"


def test_no_grad_keeps_no_intermediates():
    with cl.no_grad():
        z, alive = intermediate(leaf(np.ones(1000)))
    gc.collect()
    assert alive() is None and not z.requires_grad


def test_inputs_without_gradient_keep_no_intermediates():
    z, alive = intermediate(Tensor(np.ones(1000, np.float32)))
    gc.collect()
    assert alive() is None and not z.requires_grad


def test_no_reference_cycle_keeps_a_finished_graph_alive():
    gc.collect()
    gc.disable()
    try:
        z, alive = intermediate(leaf(np.ones(1000)))
        del z
        assert alive() is None, "dropping the result must free the graph without the cycle collector"
    finally:
        gc.enable()


# ---- hooks


def test_a_hook_sees_the_whole_gradient_after_each_backward():
    seen = []
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: seen.append(g.copy()))
    (x + x * x).sum().backward()
    (x * 1.0).sum().backward()
    np.testing.assert_array_equal(seen, [[3.0, 5.0], [4.0, 6.0]])


def test_a_hook_that_raises_leaves_no_leaf_half_done():
    a, b = leaf([1.0]), leaf([1.0])

    def stop(grad):
        raise KeyboardInterrupt

    for t in (a, b):
        t.register_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        (a + b).sum().backward()
    assert (a.grad is None) == (b.grad is None)


def test_a_hook_on_a_tensor_that_is_no_leaf_is_called_or_refused():
    seen = []
    x = leaf([1.0])
    y = x * 2.0
    try:
        y.register_hook(seen.append)
    except CnnlibError:
        return
    (y * 3.0).sum().backward()
    np.testing.assert_array_equal(seen, [[3.0]])


# ---- any graph at all

STEPS = (
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a + a,
    lambda a, b: a * a * 0.5,
    lambda a, b: a.reshape(3, 2).T + b,
    lambda a, b: a[:, [0, 0, 2]] - b,
    lambda a, b: a[0] + b,  # a row, broadcast
    lambda a, b: a.sum(axis=0, keepdims=True) * 0.3 + b * b.mean(),
    lambda a, b: a[:, ::-1] * b[1:] + a[:1],
    lambda a, b: -b,
)


@settings(max_examples=150, deadline=None)
@given(
    program=st.lists(
        st.tuples(st.sampled_from(range(len(STEPS))), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_of_any_program_equal_its_complex_derivative(program, seed):
    """f(x + i h d) = f(x) + i h ⟨∇f, d⟩ + O(h²): a derivative without subtraction, by NumPy alone."""
    rng = np.random.default_rng(seed)
    starts = [rng.uniform(-1, 1, (2, 3)) for _ in range(3)]
    ds = [rng.normal(size=(2, 3)) for _ in range(3)]
    weights = rng.normal(size=(2, 3))

    def run(values):
        for step, i, j in program:
            values = [*values, STEPS[step](values[i % len(values)], values[j % len(values)])]
        return (sum(values[3:]) * weights).sum()

    leaves = [Tensor(read_only(a), requires_grad=True) for a in starts]
    y = run(leaves)
    y.backward()
    h = 1e-30
    expected = run([a + 1j * h * d for a, d in zip(starts, ds, strict=True)]).imag / h
    grads = [np.zeros((2, 3)) if t.grad is None else t.grad for t in leaves]
    got = sum((g * d).sum() for g, d in zip(grads, ds, strict=True))
    size = sum(abs(g * d).sum() for g, d in zip(grads, ds, strict=True))
    assert abs(got - expected) <= 1e-9 * (1.0 + size)
    for i, one in enumerate(leaves):
        for other in leaves[i + 1 :]:
            assert one.grad is None or other.grad is None or not np.shares_memory(one.grad, other.grad)
