"""cnnlib compare and the benchmark with the stand-in for a GPU: the same code as with one."""

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.rows import primitives
from cnnlib import models
from cnnlib.backends import kernel_set
from cnnlib.compare import compare
from cnnlib.tensor import to_device

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((2, 1, 32, 32)).astype(np.float32), np.array([0, 3])
QUICK = [row for row in primitives(batch=1) if row.flops < 3e6 and row.elements < 3e5]


def test_the_device_agrees_with_the_reference(device):
    result = compare(models.LeNet5, X, Y, repeats=1, backends=["reference", "cuda"], batch_sizes=(1, 2))
    assert [b.name for b in result.backends if not b.skipped] == ["reference", "cuda"]
    assert result.agree and result.worst < 1e-4 and result.culprit is None
    assert set(result.batches[2]) == {"reference", "cuda"}


@pytest.mark.parametrize(
    ("kernel", "culprit"),
    [("max_pool2d_backward", "backward of s4.max_pool2d on cuda"), ("relu_forward", "forward of act1.relu on cuda")],
)
def test_an_injected_error_is_named_at_its_layer(device, kernel, culprit):
    result = compare(models.LeNet5, X, Y, repeats=1, backends=["cuda"], inject=kernel)
    assert not result.agree and result.culprit.startswith(culprit)


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.name)
def test_rows_of_the_benchmark_compute_the_same_on_the_device(device, row):
    found, expected = row.run_cuda(kernel_set("cuda"))(), row.run(kernel_set("reference"))()
    several = isinstance(expected, tuple)
    for ours, theirs in zip(found if several else [found], expected if several else [expected], strict=True):
        np.testing.assert_allclose(to_device(ours, "cpu"), theirs, rtol=1e-3, atol=1e-4 * abs(theirs).max())


def test_a_row_is_measured_against_the_ceilings(device):
    row = next(row for row in QUICK if row.dtype == "float32")
    found = gpu.measure(row, None, {"GB/s": 100.0, "float32": 1.0}, seconds=0.001)
    assert found["ms"].keys() == {"ours"} and found["ratio"] is None
    assert found["of ceiling"] == pytest.approx(max(found["GB/s"] / 100.0, found["TFLOP/s"]))


def test_steps_are_measured_with_and_without_a_graph(device):
    from benchmarks.nets import NETS

    name = next(name for name in NETS if name.startswith("MLP"))
    found = gpu.measure_step(name, NETS[name], None, seconds=0.001)
    assert found["ms"].keys() == {"ours", "ours, graph"} and found["ratios"] == {}
