"""Weights that were trained elsewhere: state dicts with torchvision's names, as safetensors files or dictionaries.

The names of our layers are torchvision's, so an entry goes where its name says. Counterparts there have ``alexnet_single``,
``vgg11`` … ``vgg19_bn``, ``googlenet_bn`` and ``resnet18`` … ``resnet152``, for pictures of 224×224 and 1000 classes. A file is
written where PyTorch and torchvision are installed::

    safetensors.torch.save_file(torchvision.models.resnet50(weights="DEFAULT").state_dict(), "resnet50.safetensors")

Those networks were trained on colours in [0, 1], normalised by mean (0.485, 0.456, 0.406) and deviation (0.229, 0.224, 0.225);
googlenet by mean and deviation 0.5.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib.errors import CheckpointError
from cnnlib.nn.module import Module

COUNTERS = "num_batches_tracked"  # of batch normalisation: not used in evaluation, and older files have none
HEADS = ("aux1.", "aux2.")


def load_torchvision(model: Module, state: str | os.PathLike | Mapping[str, Any]) -> None:
    """Copy the entries of ``state`` into the parameters and buffers of the same name. All or nothing.

    state   a safetensors file, or a dictionary: name -> array (or a PyTorch tensor on the CPU).

    >>> load_torchvision(cl.models.ResNet50(), "resnet50.safetensors")        # doctest: +SKIP

    Raises CheckpointError: the file cannot be read; entries are missing, too many or mis-shaped (all are named); or the
    model computes something else with the same weights. The model then is as it was.
    """
    if getattr(model, "stride_on", 3) != 3:
        raise CheckpointError(f"load_torchvision: this {type(model).__name__} halves its maps in the 1×1 convolutions, "
                              "torchvision's in the 3×3 ones: create it with stride_on=3.")  # fmt: skip
    if not isinstance(state, (Mapping, str, os.PathLike)):
        raise CheckpointError("load_torchvision: state must be a safetensors file, or a dictionary of arrays such as "
                              f"module.state_dict(), got {type(state).__name__}.")  # fmt: skip
    given = state if isinstance(state, Mapping) else _read(Path(state))
    entries = {str(name): _array(name, value) for name, value in given.items()}
    own = {name: p.data for name, p in model.named_parameters()} | dict(model.named_buffers())
    entries = {name: own[name] for name in own if name.endswith(COUNTERS)} | entries
    try:
        model.load_state_dict(entries)
    except CheckpointError as reason:
        where = "" if isinstance(state, Mapping) else f"{state}: "
        raise CheckpointError(f"load_torchvision: {where}{str(reason).removeprefix('load_state_dict: ')}"
                              f"{_hint(own, entries)}") from None  # fmt: skip


def _array(name: Any, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as reason:  # a tensor on a GPU, of bfloat16, or with a gradient
        raise CheckpointError(f"load_torchvision: {name} cannot become an array ({reason}): "
                              "give value.detach().float().cpu().") from None  # fmt: skip


def _hint(own: Mapping[str, Any], entries: Mapping[str, Any]) -> str:
    """What may have happened, where it can be told."""
    more = [name for name in entries if name not in own]
    if more and all(name.startswith(HEADS) for name in more):
        return "\n  The model has no auxiliary heads: create it with auxiliary=True."
    if "fc.weight" in own and any(name.startswith("inception3a.branch1.bn") for name in more):
        return "\n  These are weights of a GoogLeNet with batch normalisation: that model is googlenet_bn."
    last = next((name for name in ("fc.weight", "classifier.6.weight") if name in own and name in entries), None)
    if last and np.shape(entries[last])[0] != len(own[last]):
        return f"\n  The weights tell {np.shape(entries[last])[0]} classes apart: create the model with that num_classes."
    return ""


def _read(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise CheckpointError(f"load_torchvision: {path}: there is no such file.")
    try:
        return load_file(path)
    except TypeError as reason:
        raise CheckpointError(f"load_torchvision: {path}: has numbers that NumPy does not know ({reason}): write it from "
                              "module.float().state_dict().") from None  # fmt: skip
    except (SafetensorError, OSError, ValueError) as reason:
        raise CheckpointError(
            f"load_torchvision: {path}: not a safetensors file ({reason}). A .pth file is a pickle, which may run code, and is "
            "not read: load it in PyTorch and write it with safetensors.torch.save_file."
        ) from None
