"""Checkpoints: everything that a run needs to go on, in one safetensors file, written so that no crash can spoil it.

Layout of the file (https://github.com/huggingface/safetensors):

- arrays ``model.PATH``, ``optimizer.PATH``, ``training.PATH``: parameters and buffers, the optimiser's state, copies that
  callbacks keep;
- header ``__metadata__["cnnlib"]``: JSON with the model's name and options, class names, the targets' scale, preprocessing,
  position in the run, random state, history, and what it was computed on; ``__metadata__["sha256"]``: of that JSON and of all
  arrays.

Any safetensors reader opens it; a file of another program, a truncated or a changed one is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib import files
from cnnlib.backends import backend, cpu
from cnnlib.data.scale import Scale
from cnnlib.errors import CheckpointError
from cnnlib.nn.module import Module
from cnnlib.tensor import to_device

FORMAT = 1
LAST = "last.safetensors"


@dataclasses.dataclass
class Saved:
    """What :func:`load` read. Nothing is applied yet: ``saved.load_into(model)`` does that."""

    path: Path
    model: dict[str, np.ndarray]  # as Module.state_dict
    optimizer: Any  # as Optimizer.state_dict, or None
    name: str | None  # of the model, as for cnnlib.models.create
    options: dict[str, Any]  # of the model, as for cnnlib.models.create
    classes: tuple[str, ...]
    scale: Scale | None  # what brings a regression's outputs into the unit of its targets
    preprocessing: list[dict[str, Any]]  # see cnnlib/train/preprocessing.py
    sample_shape: tuple[int, ...] | None  # of the data, before the preprocessing: pictures met later are brought to it first
    environment: dict[str, str]  # backend, instruction set, dtype, version
    training: dict[str, Any] | None  # position, random state, history, callbacks: what Trainer.fit(resume=...) reads
    about: dict[str, Any]  # whatever else the writer wanted to keep

    def load_into(self, model: Module) -> None:
        """Copy parameters and buffers into the model, all or nothing. Raises CheckpointError that lists the differences."""
        try:
            model.load_state_dict(self.model)
        except CheckpointError as reason:
            raise CheckpointError(f"{self.path}: the checkpoint is of another model"
                                  f"{f' ({self.name})' if self.name else ''}.\n{reason}\n"
                                  "Build the model that was saved, or name another file or folder.") from None  # fmt: skip

    def transform(self) -> Any:
        """The preprocessing as a transform for data, or None: what pictures must go through before the model sees them."""
        from cnnlib.train.preprocessing import build

        return build(self.preprocessing)


def save(path: str | os.PathLike, model: Module, optimizer: Any = None, *, name: str | None = None,
         options: Mapping[str, Any] | None = None, classes: Any = (), scale: Scale | None = None,
         preprocessing: Any = (), sample_shape: tuple[int, ...] | None = None, training: dict[str, Any] | None = None,
         about: Mapping[str, Any] | None = None) -> Path:  # fmt: skip
    """Write a checkpoint: the whole of it or, on any failure, nothing, and an old file of that name stays.

    Raises CheckpointError that says what failed and where (a full disk, a missing folder, settings that JSON cannot hold).

    >>> save("net.safetensors", net, name="lenet5", options={"num_classes": 10})
    >>> load("net.safetensors").load_into(net)
    """
    path = Path(path)
    tensors: dict[str, np.ndarray] = {f"model.{key}": value for key, value in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "name": name,
        "options": dict(options or {}),
        "classes": list(classes),
        "scale": None if scale is None else dataclasses.asdict(scale),
        "preprocessing": list(preprocessing),
        "sample_shape": sample_shape,
        "environment": environment(model),
        "optimizer": None if optimizer is None else _pack(optimizer.state_dict(), "optimizer", tensors),
        "training": None if training is None else _pack(training, "training", tensors),
        "about": dict(about or {}),
    }
    try:
        text = json.dumps(content)
    except TypeError as reason:
        raise CheckpointError(f"{path}: cannot be written: {reason}; options and states must be numbers, texts, lists, dicts "
                              "and arrays.") from None  # fmt: skip
    from safetensors.numpy import save as encode

    tensors = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in tensors.items()}
    write_atomically(path, encode(tensors, {"cnnlib": text, "sha256": _digest(text, tensors)}))
    return path


def load(path: str | os.PathLike) -> Saved:
    """Read and verify a checkpoint; of a folder, its ``last.safetensors``.

    Raises CheckpointError naming the file and the reason: missing, truncated, changed, of another program or version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / LAST
    metadata, tensors = _read(path)
    if "cnnlib" not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of cnnlib.")
    if metadata.get("sha256") != _digest(metadata["cnnlib"], tensors):
        raise CheckpointError(f"{path}: the checksum does not match: the file was damaged or changed after it was written. "
                              "Use another checkpoint.")  # fmt: skip
    content = json.loads(metadata["cnnlib"])
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path}: has format {content['format']}, this version of cnnlib reads format {FORMAT}: "
                              f"it was written by cnnlib {content['environment'].get('version', 'unknown')}.")  # fmt: skip
    return Saved(
        path=path,
        model={key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")},
        optimizer=_unpack(content["optimizer"], tensors),
        name=content["name"],
        options=content["options"],
        classes=tuple(content["classes"]),
        scale=Scale(**content["scale"]) if content.get("scale") else None,
        preprocessing=content["preprocessing"],
        sample_shape=tuple(content.get("sample_shape") or ()) or None,
        environment=content["environment"],
        training=_unpack(content["training"], tensors),
        about=content["about"],
    )


def environment(model: Module) -> dict[str, str]:
    """What the numbers depend on to the last bit."""
    import cnnlib

    first = next((p for p in model.parameters() if p.dtype.kind == "f"), None)
    runs_on = "cuda" if first is not None and first.device == "cuda" else backend()
    return {
        "backend": runs_on,
        "instruction set": cpu.isa() if runs_on == "cpu" else "none",
        "dtype": "none" if first is None else str(first.dtype),
        "version": cnnlib.__version__,
    }


def write_atomically(path: Path, data: bytes) -> None:
    """`cnnlib.files.write_atomically`. Raises CheckpointError that says what became of the old file."""
    try:
        files.write_atomically(path, data)
    except OSError as reason:
        kept = " The checkpoint that was there before is unharmed." if path.exists() else ""
        raise CheckpointError(f"{path}: the checkpoint ({len(data) / 1e6:.1f} MB) could not be written: "
                              f"{reason.strerror or reason}.{kept} Free space or change folder.") from reason  # fmt: skip


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint.")
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError) as reason:
        raise CheckpointError(f"{path}: cannot be read: it is truncated or no checkpoint of cnnlib ({reason}).") from None


def _digest(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        digest.update(f"\0{key} {tensors[key].dtype} {tensors[key].shape}\0".encode())
        digest.update(np.ascontiguousarray(tensors[key]).data.cast("B") if tensors[key].size else b"")
    return digest.hexdigest()


# ---- trees of dicts, lists, numbers and arrays <-> JSON with the arrays elsewhere ------------------------------------------


def _pack(tree: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, Mapping):
        return {"dict": [[key, _pack(value, f"{path}.{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return [_pack(value, f"{path}.{i}", tensors) for i, value in enumerate(tree)]
    if isinstance(tree, np.generic):
        return tree.item()
    if hasattr(tree, "dtype"):
        while path in tensors:  # the keys "a.b" and "a" -> "b" meet
            path += "_"
        tensors[path] = to_device(tree, "cpu")
        return {"array": path}
    return tree


def _unpack(tree: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_unpack(value, tensors) for value in tree]
    if isinstance(tree, dict):
        return tensors[tree["array"]] if "array" in tree else {key: _unpack(value, tensors) for key, value in tree["dict"]}
    return tree
