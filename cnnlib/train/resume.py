"""From a trainer to the part of a checkpoint that makes a run go on, and back."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlib import random
from cnnlib.errors import CheckpointError
from cnnlib.train import checkpoint
from cnnlib.train.callbacks import Callback
from cnnlib.train.history import History

if TYPE_CHECKING:
    from cnnlib.train.trainer import Trainer


def capture(trainer: Trainer) -> dict[str, Any]:
    """Position, running averages, random state, history, the callbacks' state and what the batches were made of."""
    return {
        "optimizer": type(trainer.optimizer).__name__,
        "position": {"epoch": trainer.epoch, "batch": trainer.batch, "step": trainer.step, "seconds": trainer.seconds},
        "running": {name: [float(mean.total), mean.count] for name, mean in trainer.running.items()},
        "random": random.get_state(),
        "history": list(trainer.history),
        "callbacks": {name: callback.state_dict() for name, callback in _named(trainer.callbacks)},
        "data": _data(trainer.loader),
    }


def restore(trainer: Trainer, saved: checkpoint.Saved) -> Path:
    """Bring the trainer to where the checkpoint was written, or raise CheckpointError and leave everything as it was."""
    state = saved.training
    if state is None or saved.optimizer is None:
        raise CheckpointError(f"{saved.path}: holds a model but no training to resume; "
                              "cnnlib.train.load(path).load_into(model) reads it.")  # fmt: skip
    if state["optimizer"] != type(trainer.optimizer).__name__:
        raise CheckpointError(f"{saved.path}: was trained with {state['optimizer']}, now the optimiser is "
                              f"{type(trainer.optimizer).__name__}: resume with the same.")  # fmt: skip
    _compare_data(trainer, saved, state)
    _load_parts(trainer, saved, state)
    _compare_environment(trainer, saved)

    from cnnlib.train.trainer import Mean

    trainer._begin_epoch()
    trainer.epoch, trainer.batch, trainer.step = (int(state["position"][name]) for name in ("epoch", "batch", "step"))
    trainer.seconds = float(state["position"]["seconds"])
    trainer.running |= {name: Mean(*entry) for name, entry in state["running"].items() if name in trainer.running}
    trainer.history = History(state["history"])
    trainer.last_saved = (saved.path, trainer.epoch, trainer.step)
    random.set_state(state["random"])
    return saved.path


def _load_parts(trainer: Trainer, saved: checkpoint.Saved, state: dict[str, Any]) -> None:
    """Model, optimiser and callbacks: all of them or none."""
    parts: list[tuple[Any, Any]] = [*_matched(trainer.callbacks, state["callbacks"], saved.path)]
    parts.append((trainer.optimizer, saved.optimizer))  # last: a schedule sets the learning rate, the saved one is what counts
    before = trainer.model.state_dict()
    parts_before = [(part, copy.deepcopy(part.state_dict())) for part, _ in parts]
    saved.load_into(trainer.model)
    try:
        for part, values in parts:
            part.load_state_dict(values)
    except Exception as reason:
        trainer.model.load_state_dict(before)
        for loaded, values in parts_before:
            loaded.load_state_dict(values)
        raise CheckpointError(f"{saved.path}: does not fit {type(part).__name__} as it is set up now: {reason}") from reason


def _named(callbacks: Iterable[Callback]) -> list[tuple[str, Callback]]:
    """Callbacks under the names of their classes; a second one of a class gets a number."""
    names: list[str] = []
    for callback in callbacks:
        name = type(callback).__name__
        taken = sum(n == name or n.startswith(f"{name} ") for n in names)
        names.append(f"{name} {taken + 1}" if taken else name)
    return list(zip(names, callbacks, strict=True))


def _matched(callbacks: Iterable[Callback], states: dict[str, Any], path: Path) -> list[tuple[Callback, Any]]:
    named = dict(_named(callbacks))
    lost = [name for name, state in states.items() if state and name not in named]
    fresh = [name for name, callback in named.items() if name not in states and callback.state_dict()]
    if lost or fresh:
        said = [f"{', '.join(lost)} took part then and is missing now"] if lost else []
        said += [f"{', '.join(fresh)} is new and starts afresh"] if fresh else []
        _warn(path, f"{'; '.join(said)}: the run will differ from an uninterrupted one.")
    return [(callback, states[name]) for name, callback in named.items() if states.get(name)]


def _data(loader: Any) -> dict[str, Any]:
    """What decides which samples are in which batch, and how they are changed."""
    transform = repr(getattr(loader, "transform", None))
    scale = getattr(getattr(loader, "dataset", None), "scale", None)
    return {
        "samples": len(loader.dataset) if hasattr(loader, "dataset") else None,
        **{name: getattr(loader, name, None) for name in ("batch_size", "length", "shuffle", "seed", "drop_last", "checksum")},
        "transform": None if " at 0x" in transform else transform,
        "scale": scale and repr(scale),
    }


def _compare_data(trainer: Trainer, saved: checkpoint.Saved, state: dict[str, Any]) -> None:
    now = _data(trainer.loader)
    changed = [f"{name} was {then}, now {now[name]}" for name, then in state["data"].items() if then != now[name]]
    if saved.classes and trainer.classes and tuple(saved.classes) != trainer.classes:
        raise CheckpointError(f"{saved.path}: was trained on classes {_few(saved.classes)}; "
                              f"these data have {_few(trainer.classes)}.")  # fmt: skip
    if changed and state["position"]["batch"]:
        raise CheckpointError(f"{saved.path}: was written within an epoch, whose other batches cannot be made again: "
                              f"{'; '.join(changed)}. Set it as it was, or resume from the end of an epoch.")  # fmt: skip
    if changed:
        _warn(saved.path, f"{'; '.join(changed)}: the run will differ from an uninterrupted one.")


def _compare_environment(trainer: Trainer, saved: checkpoint.Saved) -> None:
    now = checkpoint.environment(trainer.model)
    changed = [f"{name} was {then}, now {now.get(name)}" for name, then in saved.environment.items() if then != now.get(name)]
    if changed:
        _warn(saved.path, f"{'; '.join(changed)}: the results will not be equal to the last bit.")


def _warn(path: Path, what: str) -> None:
    warnings.warn(f"resume from {path}: {what}", stacklevel=6)  # the line that called fit


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)})" if len(names) > 5 else "")
