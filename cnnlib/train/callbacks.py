"""Callbacks: what else happens during a run. Write your own by overriding some of the methods of `Callback`.

>>> class Shout(Callback):
...     def on_epoch_end(self, trainer, row):
...         print(f"epoch {row['epoch']}: {row['loss']:.3f}!")
>>> Trainer(net, loss, optimizer, callbacks=[Checkpoint("runs/first"), EarlyStopping(patience=5), NaNStop(), Shout()])
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlib.errors import CheckpointError, NonFiniteError, ValueRangeError, unknown_name
from cnnlib.train import nonfinite
from cnnlib.train.checkpoint import LAST, write_atomically
from cnnlib.train.metrics import larger_is_better

if TYPE_CHECKING:
    from cnnlib.train.trainer import Step, Trainer


HELP = "What helps: a smaller learning rate, clip_grad_norm=1.0, inputs of mean 0 and deviation 1."


class Callback:
    """Does nothing. The trainer calls the methods in the order in which they stand here.

    What a callback has learnt during the run and needs after a resume, it gives to checkpoints in `state_dict`: numbers,
    texts, lists, dicts and arrays.
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step of a ``fit``; after a checkpoint was loaded, if one is."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch; not when a resumed run enters it midway."""

    def on_step_start(self, trainer: Trainer, step: Step) -> None:
        """Before the forward pass; ``step.x``, ``step.y``."""

    def on_loss(self, trainer: Trainer, step: Step) -> None:
        """After the forward pass; ``step.outputs``, ``step.loss``."""

    def on_gradients(self, trainer: Trainer, step: Step) -> None:
        """After the backward pass, before clipping and the optimiser; ``p.grad`` of the parameters."""

    def on_step(self, trainer: Trainer, step: Step) -> None:
        """After the optimiser's step."""

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After the validation; ``row`` is the last of ``trainer.history``."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """When all epochs are done or a callback called ``trainer.stop``; not after an error."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class _Best:
    """The best value so far of one column of the history."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        if mode not in ("auto", "min", "max"):
            raise ValueRangeError(f"mode must be 'auto', 'min' or 'max', got {mode!r}.")
        if not min_delta >= 0:
            raise ValueRangeError(f"min_delta must be at least 0, got {min_delta!r}.")
        self.monitor, self.mode, self.min_delta = monitor, mode, float(min_delta)
        self.value = math.nan

    def check(self, trainer: Trainer) -> None:
        """Find out before the run, not after its first epoch, whether the column will be there."""
        if self.monitor not in trainer.columns:
            raise unknown_name("monitor", self.monitor, trainer.columns)
        if self.mode == "auto":
            larger = larger_is_better(self.monitor)
            if larger is None:
                raise ValueRangeError(f"monitor {self.monitor!r}: its name does not tell whether larger is better: "
                                      "pass mode='min' or 'max'.")  # fmt: skip
            self.mode = "max" if larger else "min"

    def improves(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is better by more than ``min_delta`` than all before; NaN never is."""
        value = float(row[self.monitor])
        gain = value - self.value if self.mode == "max" else self.value - value
        if math.isnan(value) or not (math.isnan(self.value) or gain > self.min_delta):
            return False
        self.value = value
        return True


class Checkpoint(Callback):
    """Writes ``folder/last.safetensors`` at the end of each epoch, and ``folder/best.safetensors`` when ``best`` improved.

    best        column of the history, "validation_loss" (only with validation data), or None.
    save_every  also after each so many steps.
    keep_last   above 1: that many of the latest are kept, too, as ``step-00001234.safetensors``.
    mode        "min", "max", or "auto" by the name of the column.

    Files are complete at any moment: a new one takes the place of the old in one move. Raises CheckpointError on a full disk,
    and before the run for a folder that cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike, best: str | None = "validation_loss", save_every: int | None = None,
                 keep_last: int = 1, mode: str = "auto"):  # fmt: skip
        for what, value in (("save_every", save_every), ("keep_last", keep_last)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueRangeError(f"Checkpoint: {what} must be a whole number of at least 1, got {value!r}.")
        self.folder, self.save_every, self.keep_last = Path(folder), save_every, keep_last
        self.best = None if best is None else _Best(best, mode)

    def on_fit_start(self, trainer: Trainer) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"Checkpoint: {self.folder} is a file; give a folder.")
        if (self.folder / LAST).exists() and trainer.last_saved is None:
            warnings.warn(f"Checkpoint: {self.folder} holds the checkpoints of an earlier run, which this run will replace; "
                          "fit(..., resume=True) would go on with it.", stacklevel=4)  # fmt: skip
        if self.best and self.best.monitor == "validation_loss" and "validation_loss" not in trainer.columns:
            self.best = None
        if self.best:
            self.best.check(trainer)
        self._make_folder()

    def _make_folder(self) -> None:
        """Now, rather than fail after the first epoch."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            writable, reason = os.access(self.folder, os.W_OK), "it is read-only"
        except OSError as error:
            writable, reason = False, error.strerror or str(error)
        if not writable:
            raise CheckpointError(f"Checkpoint: {self.folder} cannot be written to ({reason}); give another folder.")

    def on_step(self, trainer: Trainer, step: Step) -> None:
        if self.save_every and trainer.step % self.save_every == 0:
            self._save(trainer)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        if self.best and self.best.improves(row):
            trainer.save(self.folder / "best.safetensors")
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        last = trainer.save(self.folder / LAST)
        if self.keep_last > 1:
            _copy(last, self.folder / f"step-{trainer.step:08d}.safetensors")
            # by age, not by number: an earlier run in this folder may have got further
            kept = sorted(self.folder.glob("step-*.safetensors"), key=lambda file: (file.stat().st_mtime_ns, file.name))
            for old in kept[: -self.keep_last]:
                old.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.value} if self.best else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.best and "best" in state:
            self.best.value = float(state["best"])


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)  # both names, one file: `source` is replaced later, never written to
    except OSError:
        write_atomically(target, source.read_bytes())


class EarlyStopping(Callback):
    """Ends the run when ``monitor`` has not improved by more than ``min_delta`` for ``patience`` epochs.

    ``restore_best``: when training ends, give the model the parameters of its best epoch.
    """

    def __init__(self, monitor: str = "validation_loss", patience: int = 3, min_delta: float = 0.0, mode: str = "auto",
                 restore_best: bool = False):  # fmt: skip
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueRangeError(f"EarlyStopping: patience must be a whole number of epochs, at least 1, got {patience!r}.")
        self.best = _Best(monitor, mode, min_delta)
        self.patience, self.restore_best = patience, restore_best
        self.waited = 0  # epochs since the best
        self.weights: Any = None  # of the best epoch

    def on_fit_start(self, trainer: Trainer) -> None:
        self.best.check(trainer)
        self._decide(trainer)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.waited += 1
        if self.best.improves(row):
            self.waited = 0
            self.weights = trainer.model.state_dict() if self.restore_best else None
        self._decide(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.restore_best and self.weights is not None:
            trainer.model.load_state_dict(self.weights)

    def _decide(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:
            trainer.stop(f"{self.best.monitor} has not improved for {self.waited} epochs (best {self.best.value:.4g}).")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.value, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best.value, self.waited, self.weights = float(state["best"]), int(state["waited"]), state["weights"]


class LRSchedule(Callback):
    """Calls ``schedule.step()`` after each epoch, or with ``per="step"`` after each step of the optimiser."""

    def __init__(self, schedule: Any, per: str = "epoch"):
        if per not in ("epoch", "step"):
            raise ValueRangeError(f"LRSchedule: per must be 'epoch' or 'step', got {per!r}.")
        self.schedule, self.per = schedule, per

    def on_step(self, trainer: Trainer, step: Step) -> None:
        if self.per == "step":
            self.schedule.step()

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        if self.per == "epoch":
            self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.schedule.load_state_dict(state)


class NaNStop(Callback):
    """Ends the run with NonFiniteError at the first NaN or infinity in the loss or a gradient, before the optimiser uses it.

    The message names where it began, module, operation and parameter, in a recurrent layer the step and the gate, too: the
    batch is run again with the same random numbers under ``cnnlib.check_finite``. Parameters and buffers stay as they were
    before the batch. Where the optimiser itself makes a parameter NaN or infinite, the run ends before a checkpoint takes it.
    ``gradients=False`` looks at the loss only. On a GPU each look waits for it.
    """

    def __init__(self, gradients: bool = True):
        self.gradients = gradients
        self._buffers: list[tuple[Any, str, Any]] = []

    def on_step_start(self, trainer: Trainer, step: Step) -> None:
        self._buffers = nonfinite.buffers(trainer.model)

    def on_loss(self, trainer: Trainer, step: Step) -> None:
        if not math.isfinite(step.loss.item()):
            self._end(trainer, step, f"the loss is {step.loss.item()}")

    def on_gradients(self, trainer: Trainer, step: Step) -> None:
        if self.gradients and (bad := nonfinite.gradient(trainer.model)):
            self._end(trainer, step, f"the gradient of {bad} has NaN or infinity")

    def on_step(self, trainer: Trainer, step: Step) -> None:
        if self.gradients and (bad := nonfinite.parameter(trainer.model)):
            raise NonFiniteError(
                f"{bad} after the optimiser's step in epoch {trainer.epoch + 1}, batch {trainer.batch} (step {trainer.step}).\n"
                f"  Where it began: in that step; the loss and all gradients were finite.\n  {HELP}"
            )

    def _end(self, trainer: Trainer, step: Step, what: str) -> None:
        cause = nonfinite.cause(trainer, step, self._buffers)
        raise NonFiniteError(
            f"{what} in epoch {trainer.epoch + 1}, batch {trainer.batch + 1} (step {trainer.step + 1}); "
            f"the optimiser has not used it.\n  Where it began: {cause}\n  {HELP}"
        ) from None
