"""Every case on the GPU against the CPU's textbook. Skipped where there is no usable GPU."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib.backends import available
from cnnlib.tensor import Tensor, to_device
from tests.cases import Draw
from tests.op_cases import CASES

reason = available()["cuda"]
pytestmark = pytest.mark.skipif(reason is not None, reason=f"no GPU: {reason}")


def run(case, device, dtype):
    """Outputs and gradients, on the CPU as float64."""
    cl.manual_seed(1)
    arrays = [None if a is None else a.astype(dtype) if a.dtype.kind == "f" else a for a in case.inputs(Draw(0))]
    arrays = [None if a is None else to_device(a, device) for a in arrays]
    floats = [i for i, a in enumerate(arrays) if a is not None and a.dtype.kind == "f"]
    learnt = [i in (floats if case.differentiable is None else case.differentiable) for i in range(len(arrays))]
    tensors = [None if a is None else Tensor(a, requires_grad=needs) for a, needs in zip(arrays, learnt, strict=True)]
    outputs = case.function(*tensors, **case.settings)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    rng = np.random.default_rng(2)
    for y in outputs:
        if y.requires_grad:
            y.backward(to_device(np.asarray(rng.standard_normal(y.shape), dtype), device), retain=True)
    results = [y.data for y in outputs] + [t.grad for t in tensors if t is not None and t.grad is not None]
    return [np.asarray(to_device(r, "cpu"), np.float64) for r in results]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gpu_agrees_with_the_textbook(case, dtype):
    with cl.use("reference"):
        expected = run(case, "cpu", dtype)
    allowed = 2e-4 if dtype == "float32" else 1e-10
    for got, y in zip(run(case, "cuda", dtype), expected, strict=True):
        np.testing.assert_allclose(got, y, rtol=allowed, atol=allowed * (abs(y).max(initial=0.0) or 1.0))
