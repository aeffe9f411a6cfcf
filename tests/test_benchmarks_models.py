"""The benchmark of full-size networks compares the same networks."""

import numpy as np
import pytest

import cnnlib as cl
from benchmarks.models import BATCHES, LIMIT, NETWORKS, all_rows, line
from benchmarks.twins import TWINS
from tests.nets import without_weights


@pytest.mark.parametrize("name", TWINS)
def test_both_sides_have_the_same_parameters(name, monkeypatch):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    without_weights(monkeypatch)
    with torch.device("meta"):  # shapes without memory
        twin = TWINS[name](torch)
    theirs = {key: tuple(value.shape) for key, value in twin.state_dict().items()}
    model = cl.models.create(name)
    ours = {key: p.shape for key, p in model.named_parameters()} | {key: np.shape(b) for key, b in model.named_buffers()}
    assert ours == theirs


def test_each_network_has_a_step_and_an_evaluation_for_each_batch():
    rows = all_rows()
    assert len({row.name for row in rows}) == len(rows) == 2 * len(NETWORKS) * len(BATCHES)
    assert set(NETWORKS) <= set(TWINS)
    assert all(row.ways == ["", "channels_last"] for row in rows)


def test_a_line_of_the_report():
    found = {
        "name": "vgg16 step, batch 4",
        "seconds": {"cnnlib": 2.0, "torch": 3.0},
        "memory": {"cnnlib": 1 << 30, "torch": None},
    }
    assert line(found) == "vgg16 step, batch 4: ours 2.000 s, torch 3.000 s (1.50); memory ours 1,024 MiB, torch not known"
    found["memory"]["cnnlib"] = LIMIT + 1
    assert line(found).endswith("ABOVE 6 GiB")
