"""Training on the device, with the stand-in for a GPU: results, waiting, copies ahead, graphs, and memory that ends."""

import contextlib

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.backends import kernel_set, xp_of
from cnnlib.backends.cuda.recordable import recordable, without_cublas
from cnnlib.errors import DeviceMemoryError, GraphError, ValueRangeError
from cnnlib.train import Callback, LRSchedule, NaNStop
from cnnlib.train.device import on_device

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((24, 3, 6, 6)).astype(np.float32), rng.integers(0, 4, 24)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.4), nn.Linear(16, 4),
    )  # fmt: skip


OPTIMISERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
}


def trained(device, epochs=2, optimiser="adam", n=24, batch_size=8, **settings):
    cl.manual_seed(3)
    net = network()
    optimizer = OPTIMISERS[optimiser](net.parameters())
    schedule = LRSchedule(optim.CosineAnnealingLR(optimizer, T_max=60), per="step")
    trainer = cl.Trainer(
        net, nn.CrossEntropyLoss(), optimizer, callbacks=[schedule, *settings.pop("callbacks", ())], batch_size=batch_size,
        device=device, progress=False, **settings,
    )  # fmt: skip
    with recordable() if device == "cuda" else contextlib.nullcontext():  # eager steps then have a graph's bits
        trainer.fit((X[:n], Y[:n]), epochs=epochs)
    return trainer


def same(state, expected, tolerance):
    assert state.keys() == expected.keys()
    for name, value in state.items():
        np.testing.assert_allclose(value, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_training_on_the_device_gives_what_the_cpu_gives(device):
    on_gpu, on_cpu = trained("cuda"), trained("cpu")
    assert next(on_gpu.model.parameters()).device == "cuda"
    same(on_gpu.model.state_dict(), on_cpu.model.state_dict(), 1e-4)
    assert on_gpu.history[-1]["loss"] == pytest.approx(on_cpu.history[-1]["loss"], rel=1e-4)


def test_a_step_waits_for_nothing(device):
    class Watch(Callback):
        waits = []

        def on_step_start(self, trainer, step):
            device.synchronisations.clear()

        def on_step(self, trainer, step):
            self.waits.append(list(device.synchronisations))

    watch = Watch()
    trained("cuda", callbacks=[watch], clip_grad_norm=0.1)
    assert watch.waits == [[]] * 6


@pytest.mark.parametrize("batch_size", [8, 7])
def test_batches_arrive_in_order_and_complete(device, batch_size):
    parts = [(X[i : i + batch_size], Y[i : i + batch_size]) for i in range(0, len(X), batch_size)]
    arrived = [(x.get(), y.get()) for x, y in on_device(iter(parts), "cuda")]
    for (x, y), (x0, y0) in zip(arrived, parts, strict=True):
        np.testing.assert_array_equal(x, x0)
        np.testing.assert_array_equal(y, y0)


def test_the_next_batch_is_on_its_way_before_a_step_begins(device):
    asked = []

    def batches():
        for i in range(3):
            asked.append(i)
            yield X[i : i + 1], Y[i : i + 1]

    seen = [list(asked) for _ in on_device(batches(), "cuda")]
    assert seen == [[0, 1], [0, 1, 2], [0, 1, 2]]


# ---- graphs


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_graph_gives_the_same_weights_as_the_same_steps_one_by_one(device, optimiser):
    eager = trained("cuda", epochs=17, optimiser=optimiser)  # 51 steps, with dropout, batch norm and a schedule
    graph = trained("cuda", epochs=17, optimiser=optimiser, cuda_graph=True)
    assert [r.graph.launches for r in graph.graph._recorded.values()] == [49]
    for name, value in graph.model.state_dict().items():
        assert value.tobytes() == eager.model.state_dict()[name].tobytes(), name
    for name, value in graph.optimizer.state_dict().items():
        np.testing.assert_array_equal(value, eager.optimizer.state_dict()[name], err_msg=name)
    assert cl.random.get_state()["dropout"] == 51
    assert graph.history[-1]["loss"] == eager.history[-1]["loss"]


def test_a_last_batch_of_another_size_is_computed_too(device):
    eager, graph = trained("cuda", 6, n=20), trained("cuda", 6, n=20, cuda_graph=True)
    assert [r.graph.launches for r in graph.graph._recorded.values()] == [10, 4]
    for name, value in graph.model.state_dict().items():
        assert value.tobytes() == eager.model.state_dict()[name].tobytes(), name


def test_another_seed_is_not_replayed_with_the_old_one(device):
    class Reseed(Callback):
        def on_step_start(self, trainer, step):
            if trainer.step == 6:
                cl.manual_seed(77)

    eager, graph = (trained("cuda", 4, callbacks=[Reseed()], cuda_graph=g) for g in (False, True))
    for name, value in graph.model.state_dict().items():
        assert value.tobytes() == eager.model.state_dict()[name].tobytes(), name


def test_a_checkpoint_loaded_in_between_counts(device):
    class Restore(Callback):
        def on_step_start(self, trainer, step):
            if trainer.step == 4:
                self.model, self.optimizer = trainer.model.state_dict(), trainer.optimizer.state_dict()
            if trainer.step == 9:
                trainer.model.load_state_dict(self.model)
                trainer.optimizer.load_state_dict(self.optimizer)

    eager, graph = (trained("cuda", 5, callbacks=[Restore()], cuda_graph=g) for g in (False, True))
    for name, value in graph.model.state_dict().items():
        assert value.tobytes() == eager.model.state_dict()[name].tobytes(), name


def test_a_step_that_waits_for_the_device_cannot_be_recorded(device):
    class Asking(nn.Module):
        def forward(self, x):
            return x if float(x.data.sum()) > -1e9 else x * 2.0

    net = nn.Sequential(nn.Flatten(), Asking(), nn.Linear(108, 4))
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), batch_size=8, device="cuda", cuda_graph=True,
                         progress=False)  # fmt: skip
    with pytest.raises(GraphError, match=r"cannot be recorded.*StreamCaptureUnsupported.*nothing may wait for the GPU"):
        trainer.fit((X, Y), epochs=2)


class Products(nn.Module):
    """All that would call cuBLAS: convolutions by 1×1 kernels and by many filters, a linear layer, products, a GRU."""

    def __init__(self):
        super().__init__()
        self.mixed, self.filters = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 256, 3)
        self.recurrent, self.head = nn.GRU(16, 5, reset_after=False), nn.Linear(5, 4)

    def forward(self, x):
        y = ops.reshape(self.filters(self.mixed(x)), (-1, 256, 16))
        _, state = self.recurrent(ops.matmul(ops.transpose(y, (0, 2, 1)), y))
        return self.head(ops.reshape(state, (-1, 5))[:8])


def test_no_recorded_step_calls_cublas(device):
    net = Products()
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), batch_size=8, device="cuda", cuda_graph=True,
                         progress=False)  # fmt: skip
    trainer.fit((X, Y), epochs=2)
    assert [r.graph.launches for r in trainer.graph._recorded.values()] == [4] and not without_cublas()


def test_training_without_a_graph_differs_by_rounding_only(device):
    cl.manual_seed(3)
    nets = [network() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, graph in zip(nets, (False, True), strict=True):
        cl.manual_seed(3)
        cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.05), batch_size=8, device="cuda",
                   cuda_graph=graph, progress=False).fit((X, Y), epochs=4)  # fmt: skip
    same(nets[1].state_dict(), nets[0].state_dict(), 1e-4)


class FromTheHost(nn.Module):
    def forward(self, x):
        return x * cl.Tensor(xp_of(x.data).asarray(np.ones(4, np.float32)))


def test_a_step_that_copies_from_the_host_cannot_be_recorded(device):
    """CUDA would not mind, and replay the copy from memory that holds something else by then."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 4), FromTheHost())
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), batch_size=8, device="cuda", cuda_graph=True,
                         progress=False)  # fmt: skip
    with pytest.raises(GraphError, match=r"cannot be recorded.*16 bytes would be copied from the host"):
        trainer.fit((X, Y), epochs=2)
    np.testing.assert_array_equal(device.asarray(X[0]).get(), X[0])  # outside, copies are as ever


class Joined(nn.Module):
    """As many parts as a sequence has steps."""

    def forward(self, x):
        parts = ops.split(x, 4, axis=1)
        return ops.concat([ops.sum(ops.stack(parts, axis=-1), axis=-1), *parts], axis=1)


def test_many_parts_are_joined_in_a_recorded_step(device):
    cl.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), Joined(), nn.Linear(112, 4))
    state, found = net.state_dict(), []
    for where in ("cpu", "cuda"):
        net.to(where).load_state_dict(state)
        cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.1), batch_size=24, device=where,
                   cuda_graph=where == "cuda", progress=False).fit((X, Y), epochs=4)  # fmt: skip
        found.append(net.state_dict())
    same(found[1], found[0], 1e-4)


def test_what_cannot_be_recorded_is_refused_before_the_training(device):
    net = network()
    with pytest.raises(ValueRangeError, match=r"NaNStop\.on_loss looks into the middle of a step"):
        cl.Trainer(
            net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), callbacks=[NaNStop()], device="cuda", cuda_graph=True
        )
    with pytest.raises(GraphError, match="SGLD draws noise beside its kernel"):
        cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGLD(net.parameters()), device="cuda", cuda_graph=True)


def test_a_graph_needs_a_gpu():
    net = network()
    with pytest.raises(ValueRangeError, match="it needs device=\"cuda\", got 'cpu'"):
        cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), cuda_graph=True)


# ---- what only the device knows, and memory


def test_a_label_out_of_range_ends_the_epoch_with_an_error_that_names_the_operation(device):
    net = network()
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), batch_size=8, device="cuda", progress=False)
    with pytest.raises(ValueRangeError, match=r"cross_entropy: a label is outside 0 … C − 1"):
        trainer.fit((X, np.where(np.arange(24) == 5, 9, Y)))
    assert trainer.step == 3 and not trainer.history  # seen where the loss is read


def test_memory_that_ends_is_told_with_the_operation_and_a_batch_size(device, monkeypatch):
    def full(*_):
        raise device.cuda.OutOfMemoryError("Out of memory allocating 5,242,880 bytes (allocated so far: 1,024 bytes).")

    monkeypatch.setattr(kernel_set("cuda"), "conv2d_forward", full)
    with pytest.raises(DeviceMemoryError) as raised:
        trained("cuda")
    text = str(raised.value)
    assert text.startswith("0.conv2d: Out of memory allocating 5,242,880 bytes")
    assert "1.00 of the GPU's 80.00 GB are free" in text and "Try batch_size=4 instead of 8" in text
    assert device.cuda.pool.freed and isinstance(raised.value, MemoryError)


def test_memory_that_ends_in_a_recorded_step_is_told_alike(device, monkeypatch):
    """The graph has a pool of its own beside that of the steps before."""
    kernels = kernel_set("cuda")
    forward = kernels.conv2d_forward

    def full(*arguments):
        if device.cuda._recording is not None:
            raise device.cuda.OutOfMemoryError("Out of memory allocating 512 bytes (allocated so far: 1,024 bytes).")
        return forward(*arguments)

    monkeypatch.setattr(kernels, "conv2d_forward", full)
    with pytest.raises(
        DeviceMemoryError, match=r"0\.conv2d: Out of memory allocating 512 bytes.*Try batch_size=4 instead of 8"
    ):
        trained("cuda", cuda_graph=True)


def test_the_summary_of_a_run_tells_the_memory(device, capsys):
    cl.manual_seed(0)
    net = network()
    cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), device="cuda").fit((X, Y))
    assert "GPU memory: 123 MB held by the pool" in capsys.readouterr().out
