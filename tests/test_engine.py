"""The engine on arrays: types, numbers, devices, broadcasting, the check for NaN and infinity."""

import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cnnlib as cl
from cnnlib import Op, Parameter, Tensor, nn, ops
from cnnlib.errors import CnnlibError, DeviceError, DtypeError, NonFiniteError, ShapeError
from tests.toys import Square, leaf

# ---- types: what a Tensor takes


@pytest.mark.parametrize(
    "value, dtype",
    [
        (1.5, "float32"),
        ([1.0, 2.0], "float32"),
        (np.float64(1.5), "float32"),
        (np.float32(1.5), "float32"),
        (np.zeros(2), "float64"),
        ([1, 2], "int64"),
        (True, "bool"),
    ],
)
def test_python_numbers_become_float32_and_arrays_keep_their_dtype(value, dtype):
    assert Tensor(value).dtype == dtype


def test_an_array_is_not_copied():
    a = np.ones(2, np.float32)
    assert Tensor(a).data is a


@pytest.mark.parametrize("values", [[1, 2], np.array([True]), np.zeros(2, np.uint8)])
def test_only_float_tensors_can_require_a_gradient(values):
    with pytest.raises(DtypeError, match=r"only float tensors can require a gradient, got .*astype\('float32'\)"):
        Tensor(values, requires_grad=True)
    with pytest.raises(DtypeError):
        Parameter(values)


@pytest.mark.parametrize("dtype", ["float16", "longdouble", ">f4"])
def test_other_float_types_are_refused(dtype):
    with pytest.raises(DtypeError, match="must be float32 or float64"):
        Tensor(np.ones(2, dtype))


@pytest.mark.parametrize("value", ["text", np.array(["a"]), 1j, None, [object()]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(DtypeError, match="expected numbers"):
        Tensor(value)


@pytest.mark.parametrize("layer", [nn.Linear(2, 3), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.CrossEntropyLoss()], ids=repr)
def test_none_where_a_layer_forgot_its_return_is_refused(layer):
    with pytest.raises(
        DtypeError, match="x is None, expected a Tensor or an array: does the function or layer that should give"
    ):
        layer(None, *([np.array([0])] if isinstance(layer, nn.CrossEntropyLoss) else []))


def test_a_ragged_list_is_refused():
    with pytest.raises(ShapeError, match=r"must be equally long, got \[\[1\], \[1, 2\]\]"):
        Tensor([[1], [1, 2]])


# ---- types: operations


def test_mixed_float_types_name_the_argument_to_cast():
    a32, b64 = Tensor([1.0, 2.0]), Tensor(np.ones(2))
    with pytest.raises(DtypeError, match=r"add: .*a float32, b float64.*b\.astype\('float32'\)"):
        ops.add(a32, b64)
    with pytest.raises(DtypeError, match=r"add: .*a float64, b float32.*a\.astype\('float32'\)"):
        ops.add(b64, a32)
    with pytest.raises(DtypeError, match=r"concat: .*xs\[0\] float32, xs\[1\] float64.*xs\[1\]\.astype\('float32'\)"):
        ops.concat([a32, b64])


@pytest.mark.parametrize("number", [2.0, 2, True, np.float64(2.0), np.int64(2), np.float32(2.0)], ids=repr)
@pytest.mark.parametrize("dtype", ["float32"])
def test_a_scalar_does_not_change_the_dtype(number, dtype):
    x = leaf([1.0, 2.0], dtype)
    for y in (x * number, number * x, x + number, x - number, number - x, x / number, number / x, ops.maximum(x, number)):
        assert y.dtype == dtype
        x.grad = None
        y.sum().backward()
        assert x.grad.dtype == dtype


def test_a_python_number_keeps_float64():
    assert (Tensor(np.ones(2)) * 0.1).data[0] == 0.1, "0.1 must not be rounded to float32 on the way"


def test_integer_tensors_and_python_integers_stay_integers():
    y = Tensor([1, 2]) + 1
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.data, [2, 3])


@pytest.mark.parametrize("start, target", [("float32", "float64"), ("float64", "float32"), ("int64", "float32")])
def test_astype_converts_and_gradients_come_back_in_the_first_type(start, target):
    x = Tensor(np.array([1, 2], start), requires_grad=start != "int64")
    y = x.astype(target)
    assert y.dtype == target and x.to(target).dtype == target
    if start != "int64":
        (y * y).sum().backward()
        assert x.grad.dtype == start
        np.testing.assert_array_equal(x.grad, [2.0, 4.0])


def test_astype_to_the_same_type_is_the_tensor_itself():
    x = leaf([1.0])
    assert x.astype("float32") is x and x.astype(np.float32) is x


@pytest.mark.parametrize("target", ["gpu", "cuda:0", "float23"])
def test_an_unknown_target_is_refused_with_the_known_ones(target):
    with pytest.raises(CnnlibError, match="'cpu', 'cuda'"):
        Tensor([1.0]).to(target)


def test_forward_that_turns_float32_into_float64_is_refused():
    class Widening(Op):
        @staticmethod
        def forward(ctx, x):
            return x * np.float64(2.0)

    with pytest.raises(DtypeError, match=r"widening: forward returned float64 for float32 inputs.*use Python floats"):
        Widening.apply(Tensor([1.0]))


@pytest.mark.parametrize("result", [None, 1.0, "y", [1.0, 2.0]])
def test_forward_that_returns_no_array_is_refused(result):
    class NoArray(Op):
        @staticmethod
        def forward(ctx, x):
            return result

    with pytest.raises(DtypeError, match=r"no_array: forward must return arrays, got (NoneType|float|str)"):
        NoArray.apply(Tensor([1.0]))


def test_an_input_that_is_no_array_is_named():
    with pytest.raises(DtypeError, match="square: x must be a Tensor or an array, got str"):
        Square.apply("abc")


def test_a_whole_step_in_float32_leaves_no_float64_on_the_tape():
    x = Tensor(np.random.default_rng(0).normal(size=(4, 1, 6, 6)).astype(np.float32))
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3))
    with cl.trace() as t:
        y = net(x)
        ((y * y).mean() + ops.sqrt(y.max(axis=1) ** 2 + 1.0).sum() / 3).backward()
    wide = [
        (entry.name, name)
        for entry in t
        for name, a in [*entry.inputs.items(), *entry.grads.items(), *entry.saved.items(), *enumerate(entry.outputs)]
        if getattr(a, "dtype", None) == np.float64
    ]
    assert not wide
    assert {p.grad.dtype for p in net.parameters()} == {np.dtype("float32")}


# ---- devices


@pytest.fixture
def fake_cupy(monkeypatch):
    """Just enough of CuPy for an array to look as if it lived on a GPU."""

    class ndarray:
        __cuda_array_interface__ = {}
        dtype, shape, itemsize, flags = np.dtype("float32"), (2,), 4, types.SimpleNamespace(c_contiguous=True)
        data = types.SimpleNamespace(ptr=512)

    module = types.ModuleType("cupy")
    module.ndarray = ndarray
    monkeypatch.setitem(sys.modules, "cupy", module)
    return ndarray()


def test_arrays_on_two_devices_are_an_error_that_says_what_to_call(fake_cupy):
    for arrays in ((np.ones(2, np.float32), fake_cupy), (fake_cupy, np.ones(2, np.float32))):
        with pytest.raises(
            DeviceError, match=r"add: .*one device, got .*(a on cpu, b on cuda|a on cuda, b on cpu).*\.to\('cuda'\)"
        ):
            ops.add(*arrays)
    with pytest.raises(DeviceError, match="add"):
        ops.add(leaf([1.0, 2.0]), Tensor(fake_cupy))


# ---- broadcasting


def brute_force(dx, shape):
    """The adjoint of broadcasting ``shape``, element by element."""
    total = np.zeros(shape)
    for index in np.ndindex(dx.shape):
        own = index[len(dx.shape) - len(shape) :]
        total[tuple(0 if n == 1 else i for i, n in zip(own, shape, strict=True))] += dx[index]
    return total


@settings(max_examples=150, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3), st.integers(0, 2**32 - 1))
@example(hnp.BroadcastableShapes(((), (2, 0)), (2, 0)), 0)
@example(hnp.BroadcastableShapes(((1, 1), ()), (1, 1)), 0)
def test_adjoints_of_broadcast_inputs_are_summed(shapes, seed):
    rng = np.random.default_rng(seed)
    a, b = (Tensor(rng.normal(size=s), requires_grad=True) for s in shapes.input_shapes)
    dy = rng.normal(size=shapes.result_shape)
    (a * b).backward(dy)
    np.testing.assert_allclose(a.grad, brute_force(dy * b.data, a.shape), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(b.grad, brute_force(dy * a.data, b.shape), rtol=1e-12, atol=1e-12)
    assert type(a.grad) is type(b.grad) is np.ndarray


@pytest.mark.parametrize("operation", [ops.add, ops.subtract, ops.multiply, ops.divide, ops.maximum])
def test_shapes_that_do_not_broadcast(operation):
    with pytest.raises(ShapeError, match=rf"{operation.__name__}: shapes \(2, 3\) and \(2,\) do not broadcast"):
        operation(np.ones((2, 3)), np.ones(2))


def test_an_operation_that_does_not_broadcast_is_not_summed_silently():
    class Bias(Op):  # forgot to sum over the rows
        @staticmethod
        def forward(ctx, x, b):
            return x + b

        @staticmethod
        def backward(ctx, dy):
            return dy, dy

    with pytest.raises(ShapeError, match=r"bias: backward returned db of shape \(4, 3\), expected the shape of b, \(3,\)"):
        Bias.apply(leaf(np.ones((4, 3))), leaf(np.ones(3))).sum().backward()


# ---- the check for NaN and infinity


class Scaled(nn.Module):
    """x · weight, then a logarithm."""

    def __init__(self, weight):
        super().__init__()
        self.weight = Parameter(np.array(weight, np.float32))

    def forward(self, x):
        return ops.log(x * self.weight)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_first_output_that_is_not_finite_is_named_with_its_module():
    net = nn.Sequential(nn.Flatten(), Scaled([1.0, -1.0]))
    with (
        cl.check_finite(),
        pytest.raises(NonFiniteError, match=r"1\.log: output 0 \(1, 2\) has NaN or infinity; all inputs were finite"),
    ):
        net(Tensor([[1.0, 2.0]]))


def test_an_input_that_was_bad_already_is_named():
    with cl.check_finite(), pytest.raises(NonFiniteError, match=r"multiply: output 0 .*already in b"):
        Tensor([1.0]) * Tensor([np.inf])


def root_at_zero(weight):
    p = Parameter(np.array([weight], np.float32))
    p.name = "layer.weight"
    return ops.sqrt(p * 1.0).sum(), ops.sqrt(p).sum()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_adjoint_that_is_not_finite_names_operation_argument_and_parameter():
    with cl.check_finite():
        through, direct = root_at_zero(0.0)
    with pytest.raises(NonFiniteError, match=r"sqrt: backward gave dx \(parameter 'layer.weight'\) \(1,\).*it began here"):
        direct.backward()  # the check is bound at forward
    with pytest.raises(NonFiniteError, match=r"sqrt: backward gave dx \(1,\) with NaN or infinity; .*it began here"):
        through.backward()


def test_an_adjoint_that_arrives_bad_is_not_blamed_on_the_operation():
    with cl.check_finite():
        y = leaf([1.0]) * 2.0
    with pytest.raises(NonFiniteError, match=r"multiply: backward gave da .*already in the adjoint that arrived"):
        y.backward(np.array([np.nan], np.float32))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_without_the_check_nan_flows():
    y = ops.log(leaf([-1.0]))
    assert np.isnan(y.data).all()
    y.backward(np.ones(1, np.float32))


# ---- errors a caller can catch in one place


def test_every_error_is_a_cnnlib_error_and_a_usual_python_error():
    with pytest.raises(ValueError):
        ops.reshape(np.ones(6), (4,))
    with pytest.raises(CnnlibError, match=r"reshape: 6 elements of shape \(2, 3\) do not fit into shape \(4,\)"):
        ops.reshape(np.ones((2, 3)), (4,))


@pytest.mark.parametrize("axis", [2, -3, (0, 2), (0, 0), (1, -1)])
@pytest.mark.parametrize("reduction", [ops.sum, ops.mean, ops.max, ops.min])
def test_axes_that_do_not_exist_or_repeat_are_refused(reduction, axis):
    with pytest.raises(ShapeError, match=rf"{reduction.__name__}: .*axis"):
        reduction(np.ones((2, 3)), axis=axis)


def test_a_numpy_integer_is_an_axis():
    assert ops.sum(np.ones((2, 3)), axis=np.int64(1)).shape == (2,)


def test_importing_the_engine_first_by_any_door_works():
    """tensor.py and ops import each other; whichever comes first must not matter."""
    for module in ("tensor", "op", "ops.conv", "nn.module", "backends.shadow", "gradcheck"):
        subprocess.run([sys.executable, "-c", f"import cnnlib.{module}"], check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("dtype", ["f2", "g", ">f4", ">f8"])
@pytest.mark.parametrize("function", [ops.relu, ops.exp, ops.softmax, ops.sum], ids=lambda f: f.__name__)
def test_other_float_types_are_refused_before_a_kernel_sees_them(function, dtype):
    with pytest.raises(DtypeError, match=rf"{function.__name__}: x must be float32 or float64, got .* Cast it: x.astype"):
        function(np.ones((4, 5), dtype))


def test_integers_average_to_float32():
    assert Tensor([1, 2]).mean().dtype == np.float32 and (Tensor([1, 2]) / 2).dtype == np.float32
