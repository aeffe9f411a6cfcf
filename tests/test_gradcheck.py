"""gradcheck and check_op: right operations pass, planted mistakes are found and named."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import Op, ops
from cnnlib.errors import CnnlibError, DtypeError
from cnnlib.gradcheck import GradientError, check_op, gradcheck
from cnnlib.random import next_key, uniform
from tests.toys import Polar, Square, TopTwo

rng = np.random.default_rng(0)
X, W, B = rng.normal(size=(5, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)


def linear_with(backward):
    """y = x wᵀ + b with another backward."""

    class Linear(Op):
        @staticmethod
        def forward(ctx, x, w, b):
            ctx.save(x=x, w=w)
            return x @ w.T + b

    Linear.backward = staticmethod(backward)
    return Linear


def right(ctx, dy):
    return dy @ ctx.w, dy.T @ ctx.x, dy.sum(axis=0)


# ---- what is right passes


@pytest.mark.parametrize(
    "function, arrays, checked",
    [
        (ops.linear, (X, W, B), {"x": 20, "w": 12, "b": 3}),
        (ops.linear, (X, W, None), {"x": 20, "w": 12}),
        (ops.matmul, (X, W.T), {"a": 20, "b": 12}),
        (ops.exp, (np.array(0.3),), {"x": 1}),
        (ops.split, (np.arange(4.0), [1, 3]), {"x": 4}),
        (lambda i, x: x[i], (np.array([0, 0, 1]), X), {"x": 20}),
    ],
    ids=["linear", "None", "matmul", "no axes", "several outputs", "integers"],
)
def test_right_operations_pass_and_every_element_is_checked(function, arrays, checked):
    if function is ops.split:
        arrays, settings = arrays[:1], {"sizes": arrays[1]}
    else:
        settings = {}
    report = gradcheck(function, *arrays, **settings)
    assert report.checked == checked
    assert all(error < 1e-7 for error in report.error.values()) and not any(report.skipped.values())


def test_float32_inputs_are_checked_in_float64():
    assert gradcheck(ops.linear, *(a.astype(np.float32) for a in (X, W, B))).error["w"] < 1e-7


def test_the_callers_arrays_are_not_touched():
    x = X.copy()
    gradcheck(ops.exp, x)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("seed", [0, 1])
def test_upstream_adjoints_do_not_repeat_the_callers_random_numbers(seed):
    """default_rng(0) is what everybody draws x from; dy = x would hide, for one, most of a normalisation's adjoint."""
    seen = []

    def spy(ctx, dy):
        seen.append(dy.copy())
        return 2.0 * dy * ctx.x

    x = np.random.default_rng(seed).standard_normal((10, 10))
    with cl.override(Square, backward=spy):
        gradcheck(lambda x: Square.apply(x), x, seed=seed)
    assert abs(np.corrcoef(seen[0].ravel(), x.ravel())[0, 1]) < 0.5


def test_operations_with_steep_and_flat_parts_pass():
    gradcheck(ops.exp, np.linspace(-20, 8, 30))
    gradcheck(lambda x: ops.power(x, 5), np.linspace(-3, 3, 31))


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1.0, 1e5, 1e10])
def test_the_verdict_does_not_depend_on_the_unit(scale):
    def wrong(ctx, dy):
        return 2.002 * scale * dy * ctx.x

    def scaled(x):
        return Square.apply(x) * scale

    gradcheck(scaled, X)
    with cl.override(ops.Multiply, backward=lambda ctx, dy: (dy * scale * 1.001, None)), pytest.raises(GradientError):
        gradcheck(scaled, X)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, 1e7])
def test_the_verdict_does_not_depend_on_the_unit_of_the_input(scale):
    x = scale * np.random.default_rng(1).uniform(0.5, 2.0, 10)
    gradcheck(ops.sqrt, x)
    gradcheck(ops.log, x)
    with cl.override(ops.Log, backward=lambda ctx, dy: 1.001 * dy / ctx.x), pytest.raises(GradientError):
        gradcheck(ops.log, x)


# ---- what is wrong is found


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("x", lambda ctx, dy: (dy @ ctx.w * 1.001, dy.T @ ctx.x, dy.sum(0))),
        ("w", lambda ctx, dy: (dy @ ctx.w, dy.T @ ctx.x + 0.001 * np.outer(dy[0], ctx.x[0]), dy.sum(0))),
        ("x", lambda ctx, dy: (2.0 * (dy @ ctx.w), dy.T @ ctx.x, dy.sum(0))),
        ("w", lambda ctx, dy: (dy @ ctx.w, -(dy.T @ ctx.x), dy.sum(0))),
        ("b", lambda ctx, dy: (dy @ ctx.w, dy.T @ ctx.x, dy[0])),
        ("b", lambda ctx, dy: (dy @ ctx.w, dy.T @ ctx.x, dy.mean(0))),
        ("b", lambda ctx, dy: (dy @ ctx.w, dy.T @ ctx.x, None)),
        ("x", lambda ctx, dy: (np.zeros_like(ctx.x), dy.T @ ctx.x, dy.sum(0))),
        ("x", lambda ctx, dy: (np.full_like(ctx.x, np.nan), dy.T @ ctx.x, dy.sum(0))),
        ("w", lambda ctx, dy: (dy @ ctx.w, (dy.T @ ctx.x)[::-1], dy.sum(0))),
    ],
    ids="0.1%,0.1% of one term,factor,sign,forgot the batch,mean for sum,None,zero,NaN,order".split(","),
)
def test_a_wrong_adjoint_is_rejected_naming_argument_and_index(name, wrong):
    def linear(x, w, b):
        return linear_with(wrong).apply(x, w, b)

    with pytest.raises(
        GradientError, match=rf"d{name} is wrong at \(\d.*\): backward gives .*, the numerical derivative is "
    ) as caught:
        gradcheck(linear, X, W, B)
    assert "disagree)" in str(caught.value)


def test_a_transposed_adjoint_of_a_square_matrix_is_rejected():
    class Product(Op):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save(a=a, b=b)
            return a @ b

        @staticmethod
        def backward(ctx, dy):
            return dy @ ctx.b, dy @ ctx.a.T

    with pytest.raises(GradientError, match="da is wrong"):
        gradcheck(lambda a, b: Product.apply(a, b), rng.normal(size=(3, 3)), rng.normal(size=(3, 3)))


def test_the_named_index_is_the_wrong_one():
    def one_wrong(ctx, dy):
        dx = 2.0 * dy * ctx.x
        dx[2, 1] += 1.0
        return dx

    with (
        cl.override(Square, backward=one_wrong),
        pytest.raises(GradientError, match=r"dx is wrong at \(2, 1\).* 1 of 20 disagree"),
    ):
        gradcheck(lambda x: Square.apply(x), X)


def test_an_operation_that_ignores_its_second_adjoint_is_rejected():
    with cl.override(
        Polar, backward=lambda ctx, dr, dphi: tuple(np.zeros(5) if dr is None else dr * v / ctx.r for v in (ctx.a, ctx.b))
    ):
        with pytest.raises(GradientError):
            gradcheck(lambda a, b: Polar.apply(a, b), rng.normal(size=5), rng.normal(size=5))


def test_an_operation_wrong_only_when_both_adjoints_arrive_is_rejected():
    """In training both arrive in one call; checking one output at a time misses it."""
    own = Polar.backward

    def first_only(ctx, dr, dphi):
        return own(ctx, dr, None if dr is not None else dphi)

    with cl.override(Polar, backward=first_only), pytest.raises(GradientError):
        gradcheck(lambda a, b: Polar.apply(a, b), rng.normal(size=5), rng.normal(size=5))


def test_an_operation_wrong_only_when_one_adjoint_is_missing_is_rejected():
    own = Polar.backward

    def needs_both(ctx, dr, dphi):
        return own(ctx, dr, dphi) if dr is not None and dphi is not None else (np.zeros_like(ctx.a), np.zeros_like(ctx.b))

    with cl.override(Polar, backward=needs_both), pytest.raises(GradientError):
        gradcheck(lambda a, b: Polar.apply(a, b), rng.normal(size=5), rng.normal(size=5))


def test_a_backward_that_writes_to_its_adjoint_does_not_fool_the_check():
    def doubled(ctx, dy):
        dy *= 2.0
        return dy

    class Identity(Op):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

    Identity.backward = staticmethod(doubled)
    with pytest.raises((CnnlibError, ValueError)):
        gradcheck(lambda x: Identity.apply(x), X)


def test_a_function_that_loses_the_tape_is_rejected():
    with pytest.raises(GradientError, match=r"gradient"):
        gradcheck(lambda x: x.detach() * 2.0, X)
    with cl.no_grad(), pytest.raises(GradientError):
        gradcheck(ops.exp, X)


def test_nothing_to_check_is_an_error():
    with pytest.raises(GradientError, match="no derivative was checked"):
        gradcheck(lambda i: i, np.arange(3))


def test_what_leaves_the_library_or_is_no_operation_is_named():
    with pytest.raises(DtypeError, match="gradcheck: the function must return a Tensor, or a tuple of them, got ndarray"):
        gradcheck(lambda x: ops.relu(x).numpy(), np.ones(3))
    with pytest.raises(DtypeError, match=r"check_op: the first argument is an Op class such as ops.ReLU, got <function relu"):
        check_op(ops.relu, np.ones(3))


# ---- kinks


def test_elements_at_a_kink_are_skipped_and_reported():
    report = gradcheck(ops.absolute, np.array([0.0, 1.0, -1.0, 1e-5]))
    assert report.checked == {"x": 2} and report.skipped == {"x": 2}
    assert str(report).startswith("x: 2 derivatives agree") and "2 skipped at kinks" in str(report)


def test_of_several_outputs_the_report_keeps_what_was_skipped():
    """The last output, checked alone, has no kink."""
    assert gradcheck(lambda x: (ops.relu(x), x * 1.0), np.array([0.0, 1.0])).skipped == {"x": 1}


def test_ties_of_a_maximum_are_skipped():
    assert gradcheck(ops.maximum, np.array([1.0, 2.0]), np.array([1.0, 0.0])).skipped == {"a": 1, "b": 1}


def test_only_kinks_is_an_error():
    with pytest.raises(GradientError, match="every element lies at a kink"):
        gradcheck(ops.absolute, np.zeros(3))


def test_an_argument_of_which_nothing_could_be_checked_is_not_passed_silently():
    with pytest.raises(GradientError, match="a"):
        gradcheck(lambda a, b: ops.absolute(a) * b, np.zeros(3), np.ones(3))


def test_a_kink_does_not_hide_a_mistake_elsewhere():
    with (
        cl.override(ops.Absolute, backward=lambda ctx, dy: 1.001 * dy * np.sign(ctx.x)),
        pytest.raises(GradientError, match=r"at \(1,\)|at \(2,\)"),
    ):
        gradcheck(ops.absolute, np.array([0.0, 1.0, -1.0]))


def test_integers_and_marked_outputs_do_not_disturb():
    report = gradcheck(lambda x: TopTwo.apply(x), np.array([1.0, 3.0, 2.0]))
    assert report.checked == {"x": 3}


# ---- large inputs


def test_large_inputs_are_checked_along_random_directions():
    report = gradcheck(ops.matmul, rng.normal(size=(40, 30)), rng.normal(size=(30, 2)))
    assert report.checked == {"a": 20, "b": 60}


@pytest.mark.parametrize("factor", [1.001, -1.0, 0.0])
def test_a_mistake_in_a_large_adjoint_is_found(factor):
    with cl.override(Square, backward=lambda ctx, dy: factor * 2.0 * dy * ctx.x):
        with pytest.raises(GradientError, match="dx is wrong along random direction"):
            gradcheck(lambda x: Square.apply(x), rng.normal(size=(50, 50)))


def test_one_wrong_element_of_a_large_adjoint_is_found():
    def one_wrong(ctx, dy):
        dx = 2.0 * dy * ctx.x
        dx[17, 31] *= 1.5
        return dx

    x = rng.normal(size=(50, 50)) + 3.0
    with cl.override(Square, backward=one_wrong), pytest.raises(GradientError, match="dx is wrong"):
        gradcheck(lambda x: Square.apply(x), x)


# ---- random operations


class Noisy(Op):
    """Multiplies by uniform random numbers of the stream "dropout"."""

    @staticmethod
    def forward(ctx, x):
        ctx.save(mask=uniform(next_key("dropout"), x.shape).astype(x.dtype))
        return x * ctx.mask

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.mask


def test_operations_that_draw_random_numbers_are_checked():
    assert gradcheck(lambda x: Noisy.apply(x), X).checked == {"x": 20}
    assert check_op(Noisy, X).checked == {"x": 20}
    with cl.override(Noisy, backward=lambda ctx, dy: dy), pytest.raises(GradientError, match="dx is wrong"):
        gradcheck(lambda x: Noisy.apply(x), X)


def test_gradcheck_is_deterministic_and_takes_one_draw_like_a_call():
    cl.manual_seed(3)
    first = gradcheck(lambda x: Noisy.apply(x), X).error
    cl.manual_seed(3)
    assert gradcheck(lambda x: Noisy.apply(x), X).error == first


# ---- check_op


def op_of(forward, backward=lambda ctx, dy: dy * 2.0, **attributes):
    return type("Mine", (Op,), {"forward": staticmethod(forward), "backward": staticmethod(backward), **attributes})


def test_check_op_passes_the_right_and_names_arguments():
    assert list(check_op(linear_with(right), X, W, B).checked) == ["x", "w", "b"]
    assert list(
        check_op(ops.Conv2d, rng.normal(size=(1, 2, 4, 4)), rng.normal(size=(2, 2, 3, 3)), None, padding=1).checked
    ) == ["x", "w"]


def test_check_op_names_the_argument_whose_gradient_is_wrong():
    wrong = linear_with(lambda ctx, dy: (dy @ ctx.w, 2.0 * (dy.T @ ctx.x), dy.sum(0)))
    with pytest.raises(GradientError, match=r"linear.*dw is wrong|dw is wrong.*"):
        check_op(wrong, X, W, B)


def writes_to_input(ctx, x):
    x *= 2.0
    return x * 1.0


def writes_to_input_quietly(ctx, x):
    y = x * 2.0
    x.setflags(write=True)
    x += 1.0
    return y


def writes_to_adjoint(ctx, dy):
    dy *= 2.0
    return dy


draws = np.random.default_rng(7)


@pytest.mark.parametrize(
    "op, text",
    [
        (op_of(writes_to_input), "writes to its input|changed its input x"),
        (op_of(writes_to_input_quietly), "writes to its input|changed its input x"),
        (op_of(lambda ctx, x: x * 2.0, writes_to_adjoint), "backward to its adjoint"),
        (op_of(lambda ctx, x: x.astype(np.float64) * 2.0), "forward returned float64 for float32"),
        (op_of(lambda ctx, x: x * 2.0, lambda ctx, dy: dy * np.float64(2.0)), "backward returned dx as float64"),
        (op_of(lambda ctx, x: x * 2.0 + 1e-9 * draws.normal(size=x.shape).astype(x.dtype)), "two runs on equal inputs differ"),
        (op_of(lambda ctx, x: x * 2.0 + draws.normal(size=x.shape).astype(x.dtype)), "two runs on equal inputs differ"),
        (
            op_of(
                lambda ctx, x: 2.0 * np.lib.stride_tricks.as_strided(x, strides=(x.shape[1] * x.itemsize, x.itemsize)),
                contiguous=False,
            ),
            "non-contiguous inputs give another result",
        ),
        (
            op_of(lambda ctx, x: 2.0 * x.ravel(order="K").reshape(x.shape), contiguous=False),
            "non-contiguous inputs give another result",
        ),
    ],
    ids=[
        "writes to input",
        "writes to input in spite of the flag",
        "writes to adjoint",
        "float64 output",
        "float64 adjoint",
        "hardly deterministic",
        "not deterministic",
        "assumes strides",
        "memory order",
    ],
)
def test_check_op_says_which_rule_is_broken(op, text):
    with pytest.raises(CnnlibError, match=text) as caught:
        check_op(op, X)
    assert "mine" in str(caught.value)


def test_check_op_checks_the_adjoints_contiguity_too():
    op = op_of(lambda ctx, x: x * 2.0, lambda ctx, dy: 2.0 * dy.ravel(order="K").reshape(dy.shape), contiguous=False)
    with pytest.raises(CnnlibError, match="non-contiguous"):
        check_op(op, X)


def test_check_op_leaves_the_callers_arrays_alone():
    x = X.copy()
    with pytest.raises(CnnlibError):
        check_op(op_of(writes_to_input), x)
    np.testing.assert_array_equal(x, X)
