"""compare(): equal backends agree, and a planted error is found where it is."""

import json

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models
from cnnlib.compare import compare, usable
from cnnlib.errors import UnknownNameError

X = np.random.default_rng(0).normal(size=(4, 1, 32, 32)).astype(np.float32)
Y = np.array([0, 3, 9, 3])


RUNNING = [name for name, reason in usable().items() if reason is None]


def test_all_backends_run_the_same_step_and_agree():
    result = compare(models.LeNet5, X, Y, repeats=1)
    assert [b.name for b in result.backends] == list(usable())
    assert [b.name for b in result.backends if not b.skipped] == RUNNING
    assert result.agree and all(b.ms > 0 and b.memory_mb > 0 for b in result.backends if not b.skipped)
    names = [row.name for row in result.layers]
    assert names[0] == "c1.conv2d" and "output.linear" in names
    assert all(set(row.forward) == set(RUNNING) for row in result.layers)


def test_missing_backends_are_listed_with_the_reason():
    result = compare(models.LeNet5, X, Y, repeats=1)
    for b in result.backends:
        assert b.skipped == (usable()[b.name] or "")
        assert any(line.startswith(b.name) for line in result.lines())


def test_a_wrong_kernel_is_found_where_it_is(monkeypatch):
    import cnnlib.backends as backends

    reference = backends.REFERENCE
    broken = backends.KernelSet(**{**vars(reference), "name": "cpu"})
    broken.conv2d_backward_bias = lambda dy: reference.conv2d_backward_bias(dy) * np.float32(1.01)
    monkeypatch.setitem(backends._loaded, "cpu", broken)
    monkeypatch.setattr("cnnlib.compare.usable", lambda: {"reference": None, "cpu": None, "cuda": "no CuPy."})
    result = compare(models.LeNet5, X, Y, repeats=1)
    assert not result.agree and 0.009 < result.worst < 0.011
    wrong = [row.name for row in result.layers if row.backward["cpu"] > 1e-3]
    assert wrong == ["c1.conv2d", "c3.conv2d"]
    assert all(row.forward["cpu"] == 0 for row in result.layers)
    assert any("DISAGREE" in line for line in result.lines())


def test_a_nan_is_a_disagreement(monkeypatch):
    import cnnlib.backends as backends

    reference = backends.REFERENCE
    broken = backends.KernelSet(**{**vars(reference), "name": "cpu"})
    broken.linear_forward = lambda x, w, b: reference.linear_forward(x, w, b) * np.float32("nan")
    monkeypatch.setitem(backends._loaded, "cpu", broken)
    monkeypatch.setattr("cnnlib.compare.usable", lambda: {"reference": None, "cpu": None})
    assert not compare(models.LeNet5, X, Y, repeats=1).agree


def test_streams_and_backend_are_as_before_and_the_result_is_json():
    cl.manual_seed(5)
    before, backend = cl.random.get_state(), cl.backend()
    result = compare(models.LeNet5, X, Y, repeats=1)
    assert cl.random.get_state() == before and cl.backend() == backend
    assert json.loads(json.dumps(result.as_dict()))["agree"] is True


def test_a_tie_that_rounding_decides_is_not_called_a_disagreement(monkeypatch):
    import cnnlib.backends as backends

    reference = backends.REFERENCE
    nudged = backends.KernelSet(**{**vars(reference), "name": "cpu"})

    def one_unit_in_the_last_place_off(x, w, b, *geometry):
        y = reference.conv2d_forward(x, w, b, *geometry)
        if y.dtype == np.float32 and y.shape[1] == 1:
            y[:, :, 0, 0] = np.nextafter(y[:, :, 0, 0], np.float32(-100.0))
        return y

    nudged.conv2d_forward = one_unit_in_the_last_place_off
    monkeypatch.setitem(backends._loaded, "cpu", nudged)
    monkeypatch.setattr("cnnlib.compare.usable", lambda: {"reference": None, "cpu": None})

    def make():  # a constant picture: every window of the pooling is a tie
        return cl.nn.Sequential(cl.nn.Conv2d(1, 1, 1), cl.nn.MaxPool2d(2), cl.nn.Flatten(), cl.nn.Linear(2500, 2))

    x = np.ones((1, 1, 100, 100), np.float32)
    result = compare(make, x, np.array([1]), repeats=1)
    assert result.worst > 0.1 and result.ties and result.agree
    said = f"they agree: in float64 to the last digits; in float32 up to a relative difference of {result.worst:.1e}"
    assert any(line.startswith(said) for line in result.lines())
    assert any("a tie in max pooling" in line for line in result.lines())


needs_two = pytest.mark.skipif(len(RUNNING) < 2, reason="only the reference runs here")


@needs_two
@pytest.mark.parametrize(
    ("kernel", "culprit"),
    [
        ("conv2d_forward", "forward of c1.conv2d on cpu"),
        ("conv2d_backward_weight", "backward of c3.conv2d on cpu"),
        ("conv2d_backward_input", "backward of c3.conv2d on cpu"),  # c1's own input needs none
        ("linear_backward_bias", "backward of output.linear on cpu"),
        ("cross_entropy_backward", "backward of cross_entropy on cpu"),
    ],
)
def test_an_injected_error_is_named_at_its_layer(kernel, culprit):
    result = compare(models.LeNet5, X, Y, repeats=1, backends=["cpu"], inject=kernel)
    assert not result.agree
    assert result.culprit.startswith(culprit)
    assert any(line == f"the first wrong numbers: {result.culprit}" for line in result.lines())


@needs_two
def test_without_an_injected_error_there_is_no_culprit():
    result = compare(models.LeNet5, X, Y, repeats=1)
    assert result.culprit is None and not any("wrong numbers" in line for line in result.lines())


def test_the_reference_is_always_among_the_chosen_backends():
    result = compare(models.LeNet5, X, Y, repeats=1, backends=["cuda"])
    assert [b.name for b in result.backends] == ["reference", "cuda"]


def test_an_unknown_backend_or_kernel_is_named_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown backend 'gpu'"):
        compare(models.LeNet5, X, Y, backends=["gpu"])
    with pytest.raises(UnknownNameError, match="did you mean 'conv2d_forward'"):
        compare(models.LeNet5, X, Y, backends=["reference"], inject="conv2d_forwards")


def test_batch_sizes_are_timed_and_the_winner_changes_where_the_times_cross():
    result = compare(models.LeNet5, X, Y, repeats=1, backends=["reference"], batch_sizes=(1, 6))
    assert set(result.batches) == {1, 6} and all(ms["reference"] > 0 for ms in result.batches.values())
    result.batches = {1: {"cpu": 1.0, "cuda": 3.0}, 8: {"cpu": 2.0, "cuda": 3.1}, 64: {"cpu": 9.0, "cuda": 3.5}}
    assert result.wins() == [(1, "cpu"), (64, "cuda")]
    assert result.lines()[-1] == "the fastest: cpu from batch 1 on, cuda from batch 64 on"
    assert json.loads(json.dumps(result.as_dict()))["wins"] == [[1, "cpu"], [64, "cuda"]]


def test_the_picture_shows_every_backend_and_batch_size():
    from cnnlib import viz

    result = compare(models.LeNet5, X, Y, repeats=1, batch_sizes=(1, 2))
    bars, lines = viz.comparison(result, "LeNet-5").axes
    assert [t.get_text() for t in bars.get_legend().get_texts()] == RUNNING
    assert len(bars.patches) == len(RUNNING) * len(result.layers)
    assert [list(line.get_xdata()) for line in lines.lines] == [[1, 2]] * len(RUNNING)
