"""Whole training steps of the networks in benchmarks/nets.py: forward, loss, backward, optimiser."""

from __future__ import annotations

import inspect
from functools import partial

from benchmarks.rows.row import Row

STEP = "training steps"
TARGETS = {
    "mlp": 1.2,
    "lenet": 2.0,
    "vgg": 1.3,
    "alexnet": 1.5,
    "resnet": 1.4,
    "charlstm": 1.1,
}  # by what the name of the network contains


def rows() -> list[Row]:
    from benchmarks.nets import NETS, theirs

    can_choose = "channels_last" in inspect.signature(theirs).parameters
    return [step(name, make, can_choose) for name, make in NETS.items()]


def step(name: str, make, can_choose: bool) -> Row:
    def ours(kernels):
        from benchmarks.nets import ours

        return ours(make, kernels.name)

    def torch_way(torch, **layout):
        from benchmarks.nets import theirs

        return theirs(make, torch, **layout)

    plain = "".join(c for c in name.lower() if c.isalnum())
    ways = {"": torch_way}
    if can_choose and not plain.startswith(("mlp", "charlstm")):
        ways["channels_last"] = partial(torch_way, channels_last=True)
    target = next((value for key, value in TARGETS.items() if key in plain), 1.0)
    return Row(name=name, family=STEP, inputs=lambda draw: (), ours=ours, theirs=ways, target=target)
