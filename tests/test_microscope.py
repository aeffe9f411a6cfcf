"""The microscope: the terms of every rule add up to what the operation stored, for every operation and its cases."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.errors import ShapeError, UnknownNameError, ValueRangeError
from cnnlib.microscope.nodes import graph
from cnnlib.microscope.rules import arrays, combined, equal, places, rule, terms, total
from tests.cases import Draw
from tests.op_cases import CASES

# Of these only the numbers are shown, and the story says so.
NUMBERS_ONLY = {
    "clip", "conv_transpose2d", "cross_entropy_of_probabilities", "gaussian_noise", "hinge_loss", "local_contrast_norm",
    "local_response_norm", "locally_connected2d", "lp_pool2d", "maximum", "min", "multi_margin_loss", "nll_loss", "noisy_relu",
    "salt_and_pepper_noise", "where",
}  # fmt: skip


def traced(case, rng):
    """The case as a graph: all its outputs go into one number, with random weights."""
    constant = {"weight", "pos_weight"}
    names = list(case.function.__code__.co_varnames)
    inputs = [
        None if a is None else cl.Tensor(a, a.dtype.kind == "f" and name not in constant)
        for a, name in zip(case.inputs(Draw()), names, strict=False)
    ]
    with cl.trace() as t:
        outputs = case.function(*inputs, **case.settings)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        weighted = [(y * cl.Tensor(rng.standard_normal(y.shape))).sum() for y in outputs if y.requires_grad]
        whole = weighted[0]
        for more in weighted[1:]:
            whole = whole + more
        whole.backward()
    return graph(list(t))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_terms_make_the_stored_value(case):
    rng = np.random.default_rng(0)
    try:
        operations = traced(case, rng)
    except IndexError:
        pytest.skip("nothing to differentiate")
    for operation in operations:
        for name, node in operation.nodes.items():
            for _ in range(4 if node.rule is not None else 0):
                index = tuple(int(rng.integers(n)) for n in node.array.shape)
                made = node.made_of(index)
                np.testing.assert_allclose(made, node.array[index], rtol=1e-9, atol=1e-11, err_msg=f"{name}{index}: {node.rule}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_output_and_adjoint_has_a_rule_or_a_note(case):
    try:
        operations = traced(case, np.random.default_rng(0))
    except IndexError:
        pytest.skip("nothing to differentiate")
    for operation in operations:
        kind, about = operation.entry.op.name(), operation.anatomy
        if about.note:
            continue
        assert kind not in NUMBERS_ONLY
        for name in (*about.outputs, *(f"d{n}" for n in operation.entry.grads)):
            assert operation.nodes[name].rule is not None or (kind, name) == ("batch_norm", "var"), (kind, name)
