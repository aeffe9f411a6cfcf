"""The part of a transform that is not chance: what samples must also go through in evaluation, and once a model is in use.

A transform for training often mixes both, ``Compose([RandomCrop(32, 4), RandomFlip(), Normalize.fit(train)])``. Evaluation
needs the normalisation, and the middle where training cut at random; a checkpoint keeps both, so that a picture met later is
treated the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cnnlib.data.resize import Resize
from cnnlib.data.transforms import CentreCrop, Compose, Normalize, Pad, RandomCrop
from cnnlib.errors import CheckpointError


def without_chance(transform: Any) -> Any:
    """``transform`` reduced to its Normalize, Pad, CentreCrop and Resize, or None when nothing is left. RandomCrop becomes
    CentreCrop.

    >>> without_chance(Compose([RandomCrop(24), RandomFlip(), Normalize(0.5, 0.2)]))
    Compose([CentreCrop((24, 24)), Normalize(mean=[0.5], std=[0.2])])
    """
    if isinstance(transform, Compose):
        kept = [part for t in transform.transforms if (part := without_chance(t)) is not None]
        return Compose(kept) if len(kept) > 1 else kept[0] if kept else None
    if isinstance(transform, RandomCrop):
        return CentreCrop(transform.size)
    return transform if isinstance(transform, (Normalize, Pad, CentreCrop, Resize)) else None


def describe(transform: Any) -> list[dict[str, Any]]:
    """The Normalize, Pad, CentreCrop and Resize of a transform as JSON, for a checkpoint."""
    if isinstance(transform, Compose):
        return [step for t in transform.transforms for step in describe(t)]
    if isinstance(transform, Normalize):
        return [{"name": "Normalize", "mean": transform.mean.tolist(), "std": transform.std.tolist()}]
    if isinstance(transform, CentreCrop):
        return [{"name": "CentreCrop", "size": list(transform.size)}]
    if isinstance(transform, Resize):
        return [{"name": "Resize", "size": transform.size}]
    return [{"name": "Pad", "pad": transform.pad}] if isinstance(transform, Pad) else []


def build(steps: Iterable[Mapping[str, Any]]) -> Callable | None:
    """The transform that :func:`describe` described, or None."""
    made: list[Callable] = []
    for step in steps:
        if step["name"] == "Normalize":
            made.append(Normalize(step["mean"], step["std"]))
        elif step["name"] == "Pad":
            made.append(Pad(step["pad"]))
        elif step["name"] == "CentreCrop":
            made.append(CentreCrop(tuple(step["size"])))
        elif step["name"] == "Resize":
            made.append(Resize(step["size"]))
        else:
            raise CheckpointError(f"preprocessing step {step['name']!r} is not known to this version of cnnlib.")
    return Compose(made) if len(made) > 1 else made[0] if made else None
