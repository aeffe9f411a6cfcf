"""The CUDA backend on a GPU: results, equal bits, waiting, graphs. Skipped where there is no usable GPU.

What it takes from tests/cuda/ runs there on the stand-in for CuPy, without a GPU. ``python -m tests.cuda.dry_run`` runs this
file on the stand-in, too.
"""

import contextlib
import json
import os

import numpy as np
import pytest

import cnnlib as cl
from benchmarks import gpu
from cnnlib import doctor, nn, ops, optim
from cnnlib.backends import REFERENCE, available, cuda, kernel_set
from cnnlib.backends.cuda import conv, recurrent, tuning
from cnnlib.backends.cuda.recordable import recordable
from cnnlib.compare import compare
from cnnlib.errors import DeviceMemoryError, GraphError, ValueRangeError
from cnnlib.random import Key, philox_words
from cnnlib.tensor import Tensor, to_device
from tests.cases import Draw
from tests.cuda import test_conv, test_recurrent, test_training
from tests.cuda.agreement import assert_agrees, nothing_waits
from tests.kernel_calls import FAMILIES, Calls, Sizes
from tests.op_cases import CASES

reason = available()["cuda"]
pytestmark = pytest.mark.skipif(reason is not None, reason=f"no GPU: {reason}")
rng = np.random.default_rng(0)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(autouse=True)
def the_gpu_still_works(request):
    yield
    if not gpu.works():
        end_the_process(request.node.name)


def end_the_process(test):
    """After an illegal address every call fails until the process ends; pytest-xdist names the test and starts another."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os._exit(1)
    pytest.exit(f"after {test} nothing runs on the GPU any more: the tests behind it were not run", returncode=1)


# ---- results


WAITS = "getitem mask"  # for the number of the elements that it picks


def run(case, device, dtype):
    """Outputs and gradients, on the CPU as float64. No operation waits for the GPU, nor does its backward pass."""
    cl.manual_seed(1)
    arrays = [None if a is None else a.astype(dtype) if a.dtype.kind == "f" else a for a in case.inputs(Draw(0))]
    arrays = [None if a is None else to_device(a, device) for a in arrays]
    floats = [i for i, a in enumerate(arrays) if a is not None and a.dtype.kind == "f"]
    learnt = [i in (floats if case.differentiable is None else case.differentiable) for i in range(len(arrays))]
    tensors = [None if a is None else Tensor(a, requires_grad=needs) for a, needs in zip(arrays, learnt, strict=True)]
    rng = np.random.default_rng(2)
    with nothing_waits() if device == "cuda" and case.name != WAITS else contextlib.nullcontext():
        outputs = case.function(*tensors, **case.settings)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for y in outputs:
            if y.requires_grad:
                y.backward(to_device(np.asarray(rng.standard_normal(y.shape), dtype), device), retain=True)
    results = [y.data for y in outputs] + [t.grad for t in tensors if t is not None and t.grad is not None]
    return [np.asarray(to_device(r, "cpu"), np.float64) for r in results]


@DTYPES
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gpu_agrees_with_the_textbook(case, dtype):
    with cl.use("reference"):
        expected = run(case, "cpu", dtype)
    allowed = 2e-4 if dtype == "float32" else 1e-10
    for got, y in zip(run(case, "cuda", dtype), expected, strict=True):
        np.testing.assert_allclose(got, y, rtol=allowed, atol=allowed * (abs(y).max(initial=0.0) or 1.0))


SIZES = {
    "plain": Sizes(),
    "small": Sizes(M=1, N=1, n=3, elements=1, H=5, W=4, window=(3, 2), step=(1, 3), margin=(1, 0, 1, 0)),
    "large": Sizes(M=70, N=90, K=300, n=2100, elements=250_000, images=5, C=20, F=40, H=30, W=33, margin=(1, 1, 1, 1)),
}


@DTYPES
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_kernel_agrees_with_the_textbook_gives_equal_bits_again_and_does_not_wait(family, size, dtype):
    kernels = kernel_set("cuda")
    for call in Calls(1, dtype, SIZES[size]).of(family):
        if not call.kernel.endswith("_step"):
            assert_agrees(call.kernel, getattr(kernels, call.kernel), call.arguments)


@DTYPES
@pytest.mark.parametrize("method, x_shape, w_shape, stride, pads, dilation, groups", test_conv.CASES)
def test_each_method_of_a_convolution_agrees(monkeypatch, method, x_shape, w_shape, stride, pads, dilation, groups, dtype):
    test_conv.agrees(method, x_shape, w_shape, (stride, pads, dilation, groups), dtype, monkeypatch)


@DTYPES
@pytest.mark.parametrize("method", ["tiles", "windows"])
def test_a_convolution_of_many_blocks_agrees(monkeypatch, method, dtype):
    test_conv.agrees(method, (6, 40, 30, 31), (150, 40, 3, 3), ((1, 1), (1, 1, 1, 1), (1, 1), 1), dtype, monkeypatch)


@DTYPES
@pytest.mark.parametrize("gates", [1, 3, 4])
@pytest.mark.parametrize("sizes", [(7, 3, 33), (5, 1, 300), (9, 7, 200), (4, 150, 260), (2, 1100, 24)], ids=str)
def test_recurrent_layers_agree(sizes, gates, dtype):
    """T, B, H: blocks alone, and blocks that wait for each other, as many as the GPU holds and more."""
    for reverse in (False, True):
        for cell in test_recurrent.every_cell(test_recurrent.Layer(gates, sizes, dtype, True, reverse)):
            test_recurrent.both_agree(cell)


def test_blocks_that_wait_for_each_other_are_on_time_for_many_steps():
    """A word that is not as it was would stop the GPU, or show as steps that mix."""
    layer = test_recurrent.Layer(3, (300, 20, 160), "float32", False, False)
    for _ in range(3):
        test_recurrent.both_agree(layer.gru(False, True))
    assert recurrent._alone(160, 20) is False


def test_random_words_are_those_of_the_cpu():
    key, x = Key(2**64 - 3, 3, 2**32 - 1), rng.standard_normal(100_003).astype(np.float32)
    np.testing.assert_array_equal(kernel_set("cuda").random_bits(key, 100_003).get(), philox_words(key, 100_003))
    keep = kernel_set("cuda").dropout_forward(to_device(x, "cuda"), 0.3, key)[1].get()
    np.testing.assert_array_equal(keep, REFERENCE.dropout_forward(x, 0.3, key)[1])


# ---- which method a convolution takes


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Nothing, at first, and kept in another file than the user's."""
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    tuning._table.cache_clear()
    yield tuning.measured()
    tuning._table.cache_clear()


def test_the_faster_method_is_measured_once_and_kept(measured):
    x, w = (to_device(rng.standard_normal(s).astype(np.float32), "cuda") for s in ((8, 64, 28, 28), (96, 64, 3, 3)))
    settings = (1, 1), (1, 1, 1, 1), (1, 1), 1
    first = conv.conv2d_forward(x, w, None, *settings)
    ((problem, times),) = measured.items()
    assert times.keys() == {"tiles", "windows"} and all(0 < ms < 1000 for ms in times.values())
    assert json.loads(tuning.file().read_text())["milliseconds"] == {problem: times}
    again = conv.conv2d_forward(x, w, None, *settings)
    assert again.tobytes() == first.tobytes() and measured == {problem: times}


# ---- training


@pytest.mark.parametrize("optimizer", test_training.OPTIMIZERS)
@pytest.mark.parametrize("system", [test_training.mlp, test_training.convolutional, test_training.tagger])
def test_a_training_step_does_not_wait(system, optimizer):
    """After the first, in which convolutions are measured."""
    step = test_training.training(system, optimizer, "cuda")[0]
    step()
    with nothing_waits(), nothing_from_the_host():
        step(), step()


@contextlib.contextmanager
def nothing_from_the_host():
    """Inside, no array is copied to the GPU: for that CuPy asks for pinned memory."""
    import cupy

    def refuse(size):
        raise AssertionError(f"{size} bytes are copied from the host")

    cupy.cuda.set_pinned_memory_allocator(refuse)
    try:
        yield
    finally:
        cupy.cuda.set_pinned_memory_allocator(cupy.get_default_pinned_memory_pool().malloc)


X, Y = rng.standard_normal((24, 3, 6, 6)).astype(np.float32), rng.integers(0, 4, 24)


class Network(nn.Module):
    """Of each kind of kernel some, recurrent ones of both ways among them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Dropout(0.4)
        self.alone, self.together = nn.LSTM(8, 6), nn.GRU(6, 140, reset_after=False)
        self.head = nn.Linear(140, 4)

    def forward(self, x):
        y = ops.max_pool2d(ops.relu(self.norm(self.conv(x))), 2)
        y = ops.transpose(ops.reshape(y, (-1, 8, 4)), (2, 0, 1))
        return self.head(self.drop(self.together(self.alone(y)[0])[0])[-1])


class NoWaiting(cl.train.Callback):
    """From the fourth step on, when kernels are compiled and a graph is recorded."""

    def __init__(self):
        self.forbidden = contextlib.ExitStack()

    def on_step_start(self, trainer, step):
        if trainer.step > 3:
            self.forbidden.enter_context(nothing_waits())

    def on_step(self, trainer, step):
        self.forbidden.close()


def trained(device, optimiser=optim.Adam, epochs=17, net=Network, **settings):
    """51 steps of 8 pictures, with dropout, batch norm and a schedule, without cuBLAS."""
    cl.manual_seed(3)
    net = net()
    optimizer = optimiser(net.parameters(), lr=0.01)
    schedule = cl.train.LRSchedule(optim.CosineAnnealingLR(optimizer, T_max=60), per="step")
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optimizer, callbacks=[schedule, *settings.pop("callbacks", ())],
                         batch_size=8, device=device, progress=False, **settings)  # fmt: skip
    with recordable() if device == "cuda" else contextlib.nullcontext():
        trainer.fit((X, Y), epochs=epochs)
    return trainer


def agree(trainer, expected, tolerance):
    found = trainer.model.state_dict()
    for name, a in expected.model.state_dict().items():
        np.testing.assert_allclose(found[name], a, rtol=tolerance, atol=tolerance, err_msg=name)


def test_training_gives_what_the_cpu_gives():
    agree(trained("cuda", optim.SGD, epochs=2), trained("cpu", optim.SGD, epochs=2), 1e-3)


def test_training_again_gives_equal_bits():
    ends = [trained("cuda", epochs=3).model.state_dict() for _ in range(2)]
    for name, a in ends[0].items():
        assert a.tobytes() == ends[1][name].tobytes(), name


@pytest.mark.parametrize("graph", [False, True])
def test_a_step_of_the_trainer_does_not_wait(graph):
    watch = NoWaiting()
    with watch.forbidden:
        trained("cuda", epochs=4, callbacks=[watch], cuda_graph=graph)


@pytest.mark.parametrize("optimiser", [optim.SGD, optim.RMSprop, optim.Adagrad, optim.Adam, optim.AdamW])
def test_a_graph_gives_the_same_weights_as_the_same_steps_one_by_one(optimiser):
    """Equal bits, but for what 1 − βᵗ differs in its last bit on the GPU."""
    eager, graph = trained("cuda", optimiser), trained("cuda", optimiser, cuda_graph=True)
    agree(graph, eager, 1e-4 if optimiser in (optim.Adam, optim.AdamW) else 0)
    assert cl.random.get_state()["dropout"] == 51


class Asking(nn.Module):
    def forward(self, x):
        return x if float(x.data.sum()) > -1e9 else x * 2.0


def test_a_step_that_waits_cannot_be_recorded():
    net = lambda: nn.Sequential(nn.Flatten(), Asking(), nn.Linear(108, 4))  # noqa: E731
    with pytest.raises(GraphError, match="cannot be recorded"):
        trained("cuda", optim.SGD, net=net, cuda_graph=True)
    trained("cuda", optim.SGD, 2, net=lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 4)), cuda_graph=True)


def test_a_label_out_of_range_is_reported_with_the_operation():
    loss = ops.cross_entropy(Tensor(to_device(X[:, 0, 0], "cuda")), to_device(np.where(np.arange(24) == 5, 9, Y), "cuda"))
    with pytest.raises(ValueRangeError, match=r"cross_entropy: a label is outside 0 … C − 1"):
        loss.item()


# ---- memory, and other libraries


class Full(cl.train.Callback):
    """The pool may hold no more than what it holds already."""

    def __init__(self, pool):
        self.pool = pool

    def on_step_start(self, trainer, step):
        self.pool.free_all_blocks()
        self.pool.set_limit(size=self.pool.total_bytes())


def test_memory_that_ends_is_told_with_the_operation_and_a_batch_size():
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()  # of what other tests left, a part of one would have room for all
    try:
        with pytest.raises(DeviceMemoryError, match=r"conv2d: Out of memory allocating .*Try batch_size=4 instead of 8"):
            trained("cuda", epochs=1, net=lambda: nn.Sequential(nn.Conv2d(3, 20_000, 3), nn.Flatten(), nn.Linear(320_000, 4)),
                    callbacks=[Full(pool)])  # fmt: skip
    finally:
        pool.set_limit(size=0)
    assert trained("cuda", epochs=1).step == 3


def test_arrays_are_shared_with_pytorch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    there = torch.arange(6.0, device="cuda").reshape(2, 3)
    t = Tensor.from_dlpack(there)
    back = torch.from_dlpack(t)
    there[0, 0] = 7.0
    assert t.device == "cuda" and t.numpy()[0, 0] == 7.0 and back.data_ptr() == there.data_ptr()


def test_the_doctor_finds_the_gpu():
    (check,) = (check for check in doctor.examine() if check.name == "CUDA")
    assert check.state == "ok" and "GB free" in check.found and cuda.pool_bytes() >= 0


def test_backends_agree_layer_by_layer():
    x, y = rng.standard_normal((4, 1, 32, 32)).astype(np.float32), np.array([0, 3, 1, 9])
    result = compare(cl.models.LeNet5, x, y, repeats=1, backends=["reference", "cuda"], batch_sizes=(1, 2))
    assert result.agree and [b.name for b in result.backends if not b.skipped] == ["reference", "cuda"]
