"""What is bound at forward, and how the blocks (use, override, shadow, trace, no_grad ...) nest, restore and stay local."""

import asyncio
import contextvars
import threading

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Tensor, ops
from cnnlib.backends import REFERENCE, KernelSet
from cnnlib.errors import UnknownNameError
from tests.toys import Square, leaf


@pytest.fixture
def calls(monkeypatch):
    """A stand-in for the compiled backend that writes down which kernels ran; ``reference`` likewise."""
    seen = []

    def spy(name, backend, function):
        def run(*arguments):
            seen.append(f"{backend}:{name}")
            return function(*arguments)

        return run

    own = {name: f for name, f in vars(REFERENCE).items() if name != "name"}
    for backend in ("cpu", "reference"):
        spied = KernelSet(name=backend, **{name: spy(name, backend, f) for name, f in own.items()})
        monkeypatch.setitem(cl.backends._loaded, backend, spied)
    monkeypatch.setattr(cl.backends, "_process", "reference")  # and whatever a test chooses is undone after it
    monkeypatch.setattr(cl.backends, "_choices", [], raising=False)
    return seen


def product(a=None):
    """A matrix product, which takes one gemm forward and two back."""
    return leaf(np.eye(2)) @ (a if a is not None else leaf(np.ones((2, 2))))


def constant(value):
    """A backward that returns a constant, so that a test sees whose ran."""
    return lambda ctx, dy: np.full_like(dy, value)


# ---- bound at forward


def test_backward_runs_on_the_backend_of_its_forward(calls):
    with cl.use("cpu"):
        y = product()
    with cl.use("reference"):
        y.sum().backward()
    assert calls == ["cpu:gemm"] * 3


def test_backward_uses_the_override_that_forward_bound():
    x = leaf([3.0])
    with cl.override(Square, backward=constant(5.0)):
        inside = Square.apply(x)
    outside = Square.apply(x)
    inside.sum().backward()
    np.testing.assert_array_equal(x.grad, [5.0])
    x.grad = None
    with cl.override(Square, backward=constant(7.0)):
        outside.sum().backward()
    np.testing.assert_array_equal(x.grad, [6.0])


def test_backward_inside_no_grad_works_and_forward_there_records_nothing():
    x = leaf([3.0])
    y = (x * x).sum()
    with cl.no_grad():
        assert not (x * x).requires_grad
        y.backward()
    np.testing.assert_array_equal(x.grad, [6.0])


def test_a_kernel_override_is_bound_at_forward(calls):
    with cl.override_kernel("gemm", lambda a, b, ta=False, tb=False: np.full((2, 2), 9.0, np.float32)):
        x = leaf(np.ones((2, 2)))
        y = product(x)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, np.full((2, 2), 9.0))
    assert calls == []


# ---- override


def test_an_own_forward_with_the_own_backward_of_the_operation():
    def forward(ctx, x):
        ctx.save(x=x)
        return x * 0.0 + 42.0

    x = leaf([3.0])
    with cl.override(Square, forward=forward):
        y = Square.apply(x)
    y.sum().backward()
    assert y.item() == 42.0
    np.testing.assert_array_equal(x.grad, [6.0])


def test_the_innermost_override_wins_and_the_outer_one_comes_back():
    def gradient():
        x = leaf([3.0])
        Square.apply(x).sum().backward()
        return x.grad[0]

    with cl.override(Square, backward=constant(1.0)):
        with cl.override(Square, backward=constant(2.0)):
            assert gradient() == 2.0
        assert gradient() == 1.0
    assert gradient() == 6.0


def test_forward_and_backward_can_be_overridden_by_two_nested_blocks():
    x = leaf([3.0])
    with cl.override(Square, forward=lambda ctx, x: x - x), cl.override(Square, backward=constant(4.0)):
        y = Square.apply(x)
    y.sum().backward()
    assert y.item() == 0.0 and x.grad[0] == 4.0


def test_an_override_touches_only_its_own_class():
    class Child(Square):
        pass

    x = leaf([3.0])
    with cl.override(Square, backward=constant(0.0)):
        Child.apply(x).sum().backward()
    np.testing.assert_array_equal(x.grad, [6.0])


def test_one_override_object_can_be_entered_again_also_inside_itself():
    block = cl.override(Square, backward=constant(2.0))
    x = leaf([3.0])
    with block:
        with block:
            pass
        Square.apply(x).sum().backward()
    Square.apply(x).sum().backward()
    np.testing.assert_array_equal(x.grad, [8.0])


@pytest.mark.parametrize("wrong", [ops.conv2d, "Conv2d", int, None])
def test_override_wants_an_operation_class(wrong):
    with pytest.raises(TypeError, match=r"override: the first argument is an Op class such as ops\.Conv2d"):
        cl.override(wrong, backward=constant(0.0))


def test_override_wants_something_to_put_in_place():
    with pytest.raises(TypeError, match=r"override\(Square\): pass forward=, backward= or both"):
        cl.override(Square)


def test_a_wrong_adjoint_from_an_override_is_refused_as_the_operations_own():
    with cl.override(Square, backward=lambda ctx, dy: dy.astype(np.float64)):
        y = Square.apply(leaf([1.0]))
    with pytest.raises(cl.errors.DtypeError, match="square: backward returned dx as float64"):
        y.sum().backward()


def test_the_textbook_kernels_can_be_called_from_an_override():
    def doubled(ctx, dy):
        dx, dw, db = ops.Linear.backward(ctx, dy)
        return dx, 2.0 * dw, db

    x, w = Tensor([[1.0, 2.0]]), leaf([[3.0, 4.0]])
    with cl.override(ops.Linear, backward=doubled):
        ops.linear(x, w).sum().backward()
    np.testing.assert_array_equal(w.grad, [[2.0, 4.0]])


# ---- override_kernel


def test_an_unknown_kernel_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="unknown kernel 'conv2d_foward': did you mean 'conv2d_forward'"):
        cl.override_kernel("conv2d_foward", lambda: None)


def test_kernel_overrides_nest_and_apply_to_every_backend(calls):
    def filled(value):
        return lambda a, b, ta=False, tb=False: np.full((2, 2), value, np.float32)

    for backend in ("cpu", "reference"):
        with cl.use(backend), cl.override_kernel("gemm", filled(1.0)):
            with cl.override_kernel("gemm", filled(2.0)), cl.override_kernel("relu_forward", lambda x: x):
                assert product().data[0, 0] == 2.0
            assert product().data[0, 0] == 1.0
    assert calls == []
    product()
    assert calls == ["reference:gemm"]


# ---- use


def test_the_innermost_use_wins_and_the_outer_one_comes_back(calls):
    with cl.use("cpu"):
        with cl.use("reference"):
            assert cl.backend() == "reference"
        assert cl.backend() == "cpu"
    assert cl.backend() == "reference"


def test_use_as_a_call_sets_the_process_and_a_block_leaves_it_alone(calls):
    cl.use("cpu")
    assert cl.backend() == "cpu"
    with cl.use("reference"):
        pass
    assert cl.backend() == "cpu"


def test_a_block_made_early_and_entered_late_does_not_bring_an_old_choice_back(calls):
    block = cl.use("reference")
    cl.use("cpu")
    with block:
        assert cl.backend() == "reference"
    assert cl.backend() == "cpu"


def test_one_use_block_can_be_entered_again(calls):
    block = cl.use("cpu")
    with block:
        pass
    cl.use("cpu")
    with block, block:
        assert cl.backend() == "cpu"
    assert cl.backend() == "cpu"


def test_use_blocks_of_two_threads_do_not_change_the_process(calls):
    """Each thread makes and enters its block while the other is between the two."""
    made, entered = threading.Barrier(2), threading.Barrier(2)
    found = {}

    def work(name):
        block = cl.use(name)
        made.wait(10)
        with block:
            entered.wait(10)
            found[name] = cl.backend()

    for order in (("cpu", "reference"), ("reference", "cpu")):
        threads = [threading.Thread(target=work, args=(name,)) for name in order]
        for t in threads:
            t.start()
        for t in threads:
            t.join(20)
        assert found == {"cpu": "cpu", "reference": "reference"}
        assert cl.backend() == "reference"


def test_another_thread_does_not_see_a_block(calls):
    block = cl.use("cpu")
    seen = []
    with block:
        thread = threading.Thread(target=lambda: seen.append(cl.backend()))
        thread.start()
        thread.join(10)
    assert seen == ["reference"]


# ---- restored, whatever happens

BLOCKS = {
    "use": lambda: cl.use("reference"),
    "override": lambda: cl.override(Square, backward=constant(0.0)),
    "override_kernel": lambda: cl.override_kernel("gemm", lambda *a: None),
    "shadow": lambda: cl.shadow("reference"),
    "trace": lambda: cl.trace(),
    "no_grad": lambda: cl.no_grad(),
    "check_finite": lambda: cl.check_finite(),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_an_exception_restores_the_state_and_is_not_swallowed(name):
    before = cl.backends.current()
    with pytest.raises(ZeroDivisionError), BLOCKS[name]():
        assert cl.backends.current() != before
        raise ZeroDivisionError
    assert cl.backends.current() is before


@pytest.mark.parametrize("outer", BLOCKS)
@pytest.mark.parametrize("inner", BLOCKS)
def test_blocks_nest_in_any_order_without_touching_each_other(outer, inner):
    before = cl.backends.current()
    with BLOCKS[outer]():
        middle = cl.backends.current()
        with BLOCKS[inner]():
            pass
        assert cl.backends.current() is middle
    assert cl.backends.current() is before


def test_an_error_inside_forward_restores_the_module_path():
    from cnnlib import nn

    class Fails(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nn.Sequential(Fails())(Tensor([1.0]))
    with cl.trace() as t:
        Square.apply(Tensor([1.0]))
    assert [e.name for e in t] == ["square"]


# ---- local to a thread and to a task


def in_thread(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join(30)
    return result[0]


def test_blocks_hold_in_their_own_thread_only():
    def gradient():
        x = leaf([3.0])
        y = Square.apply(x)
        if y.requires_grad:
            y.sum().backward()
        return x.grad

    with cl.no_grad(), cl.override(Square, backward=constant(0.0)), cl.trace() as t:
        np.testing.assert_array_equal(in_thread(gradient), [6.0])
        assert gradient() is None
    assert len(t) == 1


def test_a_graph_recorded_in_one_thread_can_go_back_in_another():
    x = leaf([3.0])
    with cl.override(Square, backward=constant(5.0)):
        y = Square.apply(x)
    in_thread(y.sum().backward)
    np.testing.assert_array_equal(x.grad, [5.0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_block_object_in_two_threads_at_once_keeps_them_apart():
    block = cl.no_grad()
    inside, leave = threading.Event(), threading.Event()
    result = []

    def recording():
        return (leaf([1.0]) * 1.0).requires_grad

    def hold():
        with block:
            inside.set()
            leave.wait(10)
        result.append(recording())

    def enter_meanwhile():
        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait(10)
        with block:
            leave.set()
            thread.join(10)
            assert not recording()
        assert recording()

    contextvars.copy_context().run(enter_meanwhile)  # a copy, so that a failure here does not leak into other tests
    assert result == [True]


def test_tasks_do_not_see_each_others_blocks():
    async def quiet(started):
        with cl.no_grad():
            started.set()
            await asyncio.sleep(0)
            return (leaf([1.0]) * 1.0).requires_grad

    async def recording(started):
        await started.wait()
        return (leaf([1.0]) * 1.0).requires_grad

    async def both():
        started = asyncio.Event()
        return await asyncio.gather(quiet(started), recording(started))

    assert asyncio.run(both()) == [False, True]


def test_threads_train_side_by_side_with_equal_results():
    def train(seed):
        rng = np.random.default_rng(seed)
        w = leaf(rng.normal(size=(4, 4)))
        for _ in range(20):
            y = w
            for _ in range(5):
                y = Square.apply(y) * 0.1 + w
            y.sum().backward()
        return w.grad

    alone = [train(seed) for seed in range(4)]
    together: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda s=s: together.update({s: train(s)})) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for seed, expected in enumerate(alone):
        np.testing.assert_array_equal(together[seed], expected)
