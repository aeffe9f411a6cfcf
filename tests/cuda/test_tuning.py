"""Which method of a convolution runs is measured: here with a clock by which each method takes as long as the test says."""

import json
import os

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import doctor, nn, ops, optim
from cnnlib.backends.cuda import conv, health, tuning
from cnnlib.backends.cuda.recordable import recordable
from tests.cuda.device import forget

MAY_MEASURE = tuning._may_measure
rng = np.random.default_rng(0)
X, W = rng.standard_normal((2, 3, 6, 6)).astype(np.float32), rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
SETTINGS = (1, 1), (0, 0, 0, 0), (1, 1), 1


class Clock:
    def __init__(self, cuda):
        self.cuda, self.now, self.waits, self.ran = cuda, 0.0, 0, []

    def takes(self, name, milliseconds, run=lambda: None):
        def ran(*arguments):
            self.ran.append(name)
            self.now += milliseconds
            return run(*arguments)

        return ran

    def event(self):
        clock = self

        class Event(self.cuda.Event):
            def record(self, stream=None):
                self.at = clock.now

            def synchronize(self):
                clock.waits += 1

        return Event


@pytest.fixture
def clock(device, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(device.cuda)
        patch.setenv("CUPY_CACHE_DIR", str(tmp_path))  # read when the file is looked for
        patch.setattr(device.cuda, "Event", clock.event())
        patch.setattr(device.cuda, "get_elapsed_time", lambda start, end: end.at - start.at)
        patch.setattr(tuning, "_may_measure", MAY_MEASURE)
        forget()
        yield clock
        forget()


@pytest.fixture
def costs(clock, monkeypatch):
    """Sets what a call of each method costs."""

    def set_costs(**milliseconds):
        clock.ran.clear()
        for passing, methods in METHODS.items():
            for method, cost in milliseconds.items():
                monkeypatch.setitem(conv.METHODS[passing], method, clock.takes(method, cost, methods[method]))

    return set_costs


METHODS = {passing: dict(methods) for passing, methods in conv.METHODS.items()}


def convolve(device, x=X, w=W):
    return conv.conv2d_forward(device.asarray(x), device.asarray(w), None, *SETTINGS)


@pytest.mark.parametrize("quick, slow", [("tiles", "windows"), ("windows", "tiles")])
def test_the_faster_method_is_chosen(device, clock, costs, quick, slow):
    costs(**{quick: 1.0, slow: 2.0})
    first = convolve(device)
    assert clock.waits == 2 * (1 + tuning.BURSTS) and clock.ran.count(slow) == 1 + tuning.BURSTS * tuning.CALLS
    clock.ran.clear()
    np.testing.assert_array_equal(convolve(device).get(), first.get())
    assert clock.ran == [quick] and list(tuning.measured().values()) == [{quick: 1.0, slow: 2.0}]


def test_the_least_of_the_bursts_counts_and_not_the_first_call(device, clock):
    """Which compiles the kernel."""
    costs = iter([0.1, *[5.0] * tuning.CALLS, *[3.0] * tuning.CALLS, *[4.0] * tuning.CALLS])

    def varies():
        clock.now += next(costs)

    tuning.fastest("p", {"varies": varies, "steady": lambda: None}, otherwise="varies")
    assert tuning.measured()["p"] == {"varies": pytest.approx(3.0), "steady": 0.0}


def test_each_problem_is_measured_once(device, clock, costs):
    """Another pass, dtype or shape is another problem."""
    costs(tiles=1.0, windows=2.0)
    dy = device.asarray(np.ones((2, 4, 4, 4), np.float32))
    for _ in range(2):
        convolve(device)
        convolve(device, X.astype(np.float64), W.astype(np.float64))
        convolve(device, X[:, :, :5])
        conv.conv2d_backward_input(dy, device.asarray(W), X.shape, *SETTINGS)
        conv.conv2d_backward_weight(dy, device.asarray(X), W.shape, *SETTINGS)
    assert len(tuning.measured()) == 5 and clock.waits == 5 * 2 * (1 + tuning.BURSTS)


def test_one_method_alone_is_not_measured(device, clock):
    depthwise = conv.conv2d_forward(device.asarray(X), device.asarray(W[:3, :1]), None, *SETTINGS[:3], 3)
    nothing = convolve(device, X[:0])
    assert depthwise.shape == (2, 3, 4, 4) and nothing.shape == (0, 4, 4, 4) and not tuning.measured() and not clock.waits


def test_a_1x1_convolution_is_cublas_or_tiles(device, clock, costs):
    costs(pointwise=2.0, tiles=1.0)
    convolve(device, X, W[:, :, :1, :1])
    assert list(tuning.measured().values()) == [{"pointwise": 2.0, "tiles": 1.0}] and clock.ran[-1] == "tiles"


def test_a_method_that_has_no_memory_is_not_chosen(device, clock, monkeypatch):
    def full(*_):
        raise device.cuda.memory.OutOfMemoryError("Out of memory allocating 512 bytes")

    monkeypatch.setitem(conv.METHODS["forward"], "windows", full)
    assert convolve(device).shape == (2, 4, 4, 4)
    assert tuning.measured().popitem()[1]["windows"] == float("inf")


# ---- the file


def test_a_later_run_takes_the_same_method(device, clock, costs, tmp_path):
    costs(tiles=2.0, windows=1.0)
    convolve(device)
    waited, (path,) = clock.waits, tmp_path.iterdir()
    kept = json.loads(path.read_text())
    assert path == tuning.file() and kept["gpu"] == "the stand-in" and list(kept["milliseconds"].values()) == [
        {"windows": 1.0, "tiles": 2.0}
    ]  # fmt: skip
    forget()
    costs(tiles=1.0, windows=2.0)  # today it would be the other way
    convolve(device)
    assert clock.ran == ["windows"] and clock.waits == waited


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[1, 2]", b"{}", b'{"milliseconds": 3}', b'{"milliseconds": {"p": [1]}}',
     b'{"milliseconds": {"p": {"tiles": "quick"}}}'],
)  # fmt: skip
def test_a_file_that_is_none_of_ours_is_measured_anew(device, clock, costs, content):
    costs(tiles=1.0, windows=2.0)
    tuning.file().write_bytes(content)
    convolve(device)
    assert list(json.loads(tuning.file().read_text())["milliseconds"].values()) == [{"tiles": 1.0, "windows": 2.0}]


def test_figures_of_other_methods_are_measured_anew(device, clock, costs):
    costs(tiles=1.0, windows=2.0)
    convolve(device)
    (problem,) = tuning.measured()
    tuning.file().write_text(json.dumps({"milliseconds": {problem: {"tiles": 5.0, "another": 0.1}}}))
    forget()
    convolve(device)
    assert clock.ran[-1] == "tiles" and tuning.measured() == {problem: {"tiles": 1.0, "windows": 2.0}}


def test_what_another_process_measured_first_stays(device, clock):
    tuning.measured()
    theirs = {"milliseconds": {"p": {"a": 1.0, "b": 2.0}, "q": {"a": 1.0, "b": 2.0}}}
    tuning.file().write_text(json.dumps(theirs))
    assert tuning.fastest("p", {"a": clock.takes("a", 4.0), "b": clock.takes("b", 3.0)}, "a") == "b"  # for this run
    assert json.loads(tuning.file().read_text())["milliseconds"] == theirs["milliseconds"]


def test_a_folder_that_cannot_be_written_to_is_no_error(device, clock, costs, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "taken"))
    costs(tiles=2.0, windows=1.0)
    convolve(device)
    convolve(device)
    assert clock.ran[-1] == "windows" and clock.waits == 2 * (1 + tuning.BURSTS)


@pytest.mark.parametrize("what", ["gpu", "cuda", "tf32", "kernels"])
def test_another_gpu_cuda_or_source_has_another_file(device, clock, monkeypatch, what):
    before = tuning.file()
    if what == "gpu":
        monkeypatch.setattr(device.cuda.runtime, "getDeviceProperties", lambda _: {"name": b"another"})
    elif what == "cuda":
        monkeypatch.setattr(device.cuda.runtime, "runtimeGetVersion", lambda: 13000)
    elif what == "tf32":
        monkeypatch.setenv("CUPY_TF32", "1" if os.environ.get("CUPY_TF32") != "1" else "0")
    else:
        monkeypatch.setattr(tuning.source, "text", lambda name: "changed")
    forget()
    assert tuning.file() != before


def test_the_doctor_tells_what_is_known_and_where(device, clock, costs, monkeypatch):
    costs(tiles=1.0, windows=2.0)
    convolve(device)
    monkeypatch.setattr(health, "problem", lambda: None)
    (found,) = (check.found for check in doctor.examine() if check.name == "CUDA")
    assert found.startswith("the stand-in") and found.endswith(f"convolutions timed on it: 1, kept in {tuning.file()}")


# ---- training


def trained(clock, steps, **settings):
    cl.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x, y = np.tile(X, (steps, 1, 1, 1)), np.zeros(2 * steps, np.int64)
    waits = []
    trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters()), batch_size=2, device="cuda", progress=False,
                         callbacks=[Waits(clock, waits)], **settings)  # fmt: skip
    trainer.fit((x, y), epochs=1)
    return waits


class Waits(cl.train.Callback):
    def __init__(self, clock, waits):
        self.clock, self.waits = clock, waits

    def on_step_start(self, trainer, step):
        self.before = self.clock.waits

    def on_step(self, trainer, step):
        self.waits.append(self.clock.waits - self.before)


def test_only_the_first_step_waits(clock):
    first, *later = trained(clock, 4)
    assert first >= 2 * 2 * (1 + tuning.BURSTS) and later == [0, 0, 0]


def test_what_is_recorded_or_as_if_measures_nothing(device, clock):
    assert trained(clock, 6, cuda_graph=True) == [0] * 6
    waited = clock.waits  # the loader's
    with recordable():
        convolve(device)
    with device.cuda.Stream() as stream:
        stream.begin_capture()
        assert tuning.fastest("p", {"a": clock.takes("a", 4.0), "b": clock.takes("b", 3.0)}, otherwise="a") == "a"
        stream.end_capture()
    assert not tuning.measured() and clock.waits == waited


def test_without_a_clock_nothing_is_measured(device):
    """As in all the other tests here."""
    ops.conv2d(cl.Tensor(device.asarray(X)), cl.Tensor(device.asarray(W)))
    assert not tuning.measured()
