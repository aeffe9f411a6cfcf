"""The training loop: batches through the model, the loss back, a step of the optimiser; and what is measured on the way.

>>> train, test = cl.data.digits()
>>> trainer = cl.Trainer(net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=1e-3))
>>> history = trainer.fit(train, test, epochs=5)
>>> trainer.evaluate(test)
{'loss': ..., 'accuracy': ...}
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib import optim, random
from cnnlib.backends import xp_of
from cnnlib.data import DataLoader, Dataset
from cnnlib.data.scale import Scale
from cnnlib.errors import DataError, DtypeError, ShapeError, ValueRangeError
from cnnlib.nn.module import Module, in_mode
from cnnlib.op import no_grad
from cnnlib.tensor import Tensor, to_device
from cnnlib.train import checkpoint, metrics, preprocessing, progress, resume
from cnnlib.train.callbacks import Callback, Checkpoint
from cnnlib.train.cuda_graph import StepGraph
from cnnlib.train.device import memory_errors, memory_summary, on_device
from cnnlib.train.history import History


@dataclasses.dataclass
class Step:
    """One batch on its way through the trainer, as callbacks see it."""

    x: Tensor
    y: Any  # array
    random_state: dict[str, int]  # before the forward pass
    outputs: Any = None  # after on_loss: Tensor or tuple
    loss: Any = None  # after on_loss: Tensor of one element


class Mean:
    """A running mean, weighted; float64. A value on the GPU stays there until ``value`` is read."""

    def __init__(self, total: Any = 0.0, count: int = 0):
        self.total, self.count = total, count

    def add(self, value: Any, n: int) -> None:
        value = getattr(value, "data", value) if isinstance(value, Tensor) else value
        on_gpu = hasattr(value, "dtype") and xp_of(value) is not np
        self.total = self.total + (value.astype("float64") if on_gpu else float(value)) * n
        self.count += n

    @property
    def value(self) -> float:
        return float(to_device(self.total, "cpu")) / max(self.count, 1)


class Trainer:
    """Trains ``model`` to make ``loss(model(x), y)`` small.

    loss            function or module (outputs, y) -> Tensor of one element, the mean over the batch.
    optimizer       of cnnlib.optim, made with ``model.parameters()``.
    metrics         names or functions (cnnlib.train.metrics); None: accuracy for integer labels, else nothing.
    callbacks       cnnlib.train.callbacks: Checkpoint, EarlyStopping, LRSchedule, NaNStop or your own.
    batch_size, seed, transform
                    of the training batches, as in `DataLoader`, when ``fit`` gets a Dataset. Dropout and initial weights
                    follow ``cnnlib.manual_seed`` instead.
    eval_transform  of evaluated and predicted samples; "auto": ``transform`` without its chance, the middle for a crop.
    device          "cpu" or "cuda"; the model is moved there, data batch by batch.
    clip_grad_norm  largest norm of all gradients together; larger ones are scaled down to it.
    cuda_graph      record the step as a CUDA graph and replay it (cnnlib/train/cuda_graph.py): for small networks on a GPU.
    progress        False: silent. True: a bar on a terminal, else a line per epoch.
    model_name, model_options
                    for checkpoints: what ``cnnlib.models.create`` needs to build the model again.

    ``trainer.history``, ``.epoch`` (whole ones done), ``.batch`` (done in the current epoch) and ``.step`` say where it is.
    """

    def __init__(self, model: Module, loss: Callable, optimizer: Any, metrics: Iterable | str | None = None,
                 callbacks: Sequence[Callback] = (), batch_size: int = 64, transform: Callable | None = None, seed: int = 0,
                 device: str = "cpu", clip_grad_norm: float | None = None, *, cuda_graph: bool = False,
                 eval_transform: Callable | str | None = "auto",
                 progress: bool = True, model_name: str | None = None,
                 model_options: dict[str, Any] | None = None):  # fmt: skip
        _check_arguments(model, loss, optimizer, callbacks, batch_size, clip_grad_norm)
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))  # it saves the others' state
        self.batch_size, self.transform, self.seed = batch_size, transform, seed
        self.eval_transform: Any = preprocessing.without_chance(transform) if eval_transform == "auto" else eval_transform
        self.device, self.clip_grad_norm, self.progress = device, clip_grad_norm, progress
        self.model_name, self.model_options = model_name, model_options
        self.metrics: dict[str, Callable] | None = None if metrics is None else _resolve(metrics)
        self._auto_eval_transform = eval_transform == "auto"

        self.history = History()
        self.epoch = self.batch = self.step = 0
        self.seconds = 0.0  # of the current epoch
        self.running: dict[str, Mean] = {}  # of the current epoch
        self.classes: tuple[str, ...] = ()
        self.scale: Scale | None = None  # of the targets
        self.sample_shape: tuple[int, ...] | None = None  # of the training data, before any transform
        self.columns: tuple[str, ...] = ()  # of the rows that this fit will write
        self.loader: Any = None
        self.stopped: str | None = None  # the reason
        self.last_saved: tuple[Path, int, int] | None = None  # path, epochs and steps done
        self._move()
        self.graph = self._step_graph() if cuda_graph else None

    # ---- training

    def fit(self, train: Any, validation: Any = None, epochs: int = 1,
            resume: str | os.PathLike | bool | None = None) -> History:  # fmt: skip
        """Train for ``epochs`` passes over ``train`` and return the history, one row per epoch.

        train, validation   Dataset, DataLoader or a pair of arrays (x, y).
        resume              a checkpoint or its folder: go on from there until ``epochs`` are done in all, as if nothing had
                            happened, to the last bit; the learning rate is the checkpoint's. True: from the folder of
                            the Checkpoint callback, or from the start where it holds none.

        A second ``fit`` goes on where the first ended, with epochs numbered on.

        Raises DataError, ShapeError, ValueRangeError (data or labels that do not fit), CheckpointError, NonFiniteError
        (with NaNStop). After Ctrl-C, KeyboardInterrupt that names the checkpoint to go on from.
        """
        if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
            raise ValueRangeError(f"fit: epochs must be a whole number of at least 1, got {epochs!r}.")
        self.loader = self._train_loader(train)
        checked = None if validation is None else self._loader(validation, "validation")
        self._learn_about(self.loader, checked)
        optim.check_parameters(self.model, self.optimizer)
        self.stopped = None
        resumed = self._resume(resume)
        last = int(epochs) if resumed else self.epoch + int(epochs)
        if not resumed:
            self._begin_epoch()

        def epochs_left(shown: progress.Silent) -> None:
            if self.epoch >= last:
                shown.say(f"nothing to do: of {last} epochs in all, {self.epoch} are done")
            while self.epoch < last and not self.stopped:
                self._run_epoch(checked, last, shown)

        return self._session(epochs_left, resumed)

    def _session(self, work: Callable[[progress.Silent], None], resumed: Path | None) -> History:
        """A run from its first step to its last, with what belongs around it."""
        shown = progress.show(self.progress)
        try:
            if resumed:
                shown.say(f"resumed from {resumed}: {self.epoch} epochs and {self.batch} batches done")
            self._call("on_fit_start")
            with in_mode(self.model, True), memory_errors(self.device, self.batch_size):
                work(shown)
            self._call("on_fit_end")
            if summary := memory_summary(self.device):
                shown.say(summary)
            if self.stopped:
                shown.say(f"stopped after epoch {self.epoch}: {self.stopped}")
        except KeyboardInterrupt:
            message = self._interrupted()
            shown.say(message)
            raise KeyboardInterrupt(message) from None
        finally:
            shown.close()
        return self.history

    def stop(self, reason: str) -> None:
        """For callbacks: end the run after this step."""
        self.stopped = reason

    def save(self, path: str | os.PathLike) -> Path:
        """Write a checkpoint from which ``fit(..., resume=path)`` goes on. Raises CheckpointError; an old file then stays."""
        written = checkpoint.save(
            path, self.model, self.optimizer, name=self.model_name, options=self.model_options, classes=self.classes,
            scale=self.scale, preprocessing=preprocessing.describe(self.eval_transform), sample_shape=self.sample_shape,
            training=resume.capture(self),
        )  # fmt: skip
        self.last_saved = (written, self.epoch, self.step)
        return written

    def _run_epoch(self, validation: Any, epochs: int, shown: progress.Silent) -> None:
        started, before = time.perf_counter(), self.seconds
        shown.start_epoch(self.epoch + 1, epochs, len(self.loader), self.batch)
        if self.batch == 0:
            self._call("on_epoch_start")
        for x, y in on_device(self.loader.iterate(self.epoch, start_batch=self.batch), self.device):
            self._train_on(x, y)
            self.seconds = before + time.perf_counter() - started
            self._call("on_step", self.current)
            shown.step(len(x), self._averages)
            if self.stopped:
                return
        row = {"epoch": self.epoch + 1, **self._averages()}
        if validation is not None:
            row |= {f"validation_{name}": value for name, value in self._measure(validation).items()}
        if hasattr(self.optimizer, "lr"):
            row["lr"] = float(self.optimizer.lr)
        row["seconds"] = round(before + time.perf_counter() - started, 3)
        if not math.isfinite(row["loss"]):
            warnings.warn("the loss is not finite any more: NaNStop() among the callbacks says where it began.", stacklevel=3)
        self.history.append(row)
        self.epoch += 1
        self._begin_epoch()
        shown.end_epoch(row)
        self._call("on_epoch_end", row)

    def _begin_epoch(self) -> None:
        self.batch, self.seconds, self.running = 0, 0.0, {name: Mean() for name in ("loss", *(self.metrics or ()))}

    def _train_on(self, x: Any, y: Any) -> None:
        """One step of training. The optimiser is reached only when everything before it went well."""
        step = self.current = Step(*self._on_device(x, y), random.get_state())
        self._call("on_step_start", step)
        step.outputs, step.loss = self._learn(step.x, step.y) if self.graph is None else self.graph(step.x, step.y)
        self._add(self.running, step.loss, step.outputs, step.y)
        self.batch += 1
        self.step += 1

    def _learn(self, x: Tensor, y: Any) -> tuple[Any, Tensor]:
        """Forward, backward and the optimiser's step."""
        step = self.current
        self.model.zero_grad()
        step.outputs, step.loss = self._forward(x, y)
        self._call("on_loss", step)
        step.loss.backward()
        self._call("on_gradients", step)
        if self.clip_grad_norm is not None:
            optim.clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)
        self.optimizer.step()
        return step.outputs, step.loss

    # ---- evaluation

    def evaluate(self, dataset: Any) -> dict[str, float]:
        """Mean loss and metrics over a Dataset, DataLoader or pair (x, y), without training: ``{"loss": …, "accuracy": …}``."""
        loader = self._loader(dataset, "evaluate")
        self._choose_metrics(loader)
        return self._measure(loader)

    def predict(self, x: Any) -> Any:
        """The model's outputs for samples x (N, ...), as a NumPy array, batch by batch in evaluation mode.

        >>> classes = trainer.predict(test.x).argmax(1)
        """
        x = x.x if isinstance(x, Dataset) else x.numpy() if isinstance(x, Tensor) else x
        if not hasattr(x, "shape") or x.ndim == 0 or len(x) == 0:
            came = getattr(x, "shape", type(x).__name__)
            raise DataError(f"predict: x must be an array of at least one sample, (N, ...), got {came}.")
        parts = []
        with in_mode(self.model, False), no_grad():
            for start in range(0, len(x), self.batch_size):
                batch = x[start : start + self.batch_size]
                if self.eval_transform is not None:
                    batch = self.eval_transform(batch, np.arange(start, start + len(batch)), self.seed, 0)
                parts.append(self.model(Tensor(to_device(batch, self.device))))
        return _joined(parts)

    def _measure(self, loader: Any) -> dict[str, float]:
        means = {name: Mean() for name in ("loss", *(self.metrics or ()))}
        with in_mode(self.model, False), no_grad():
            for batch in on_device(loader.iterate(0), self.device):
                x, y = self._on_device(*batch)
                outputs, loss = self._forward(x, y)
                self._add(means, loss, outputs, y)
        return {name: mean.value for name, mean in means.items()}

    # ---- shared by both

    def _forward(self, x: Tensor, y: Any) -> tuple[Any, Tensor]:
        outputs = self.model(x)
        loss = self.loss(outputs, y)
        if getattr(loss, "size", None) != 1:
            raise ShapeError(f"Trainer: the loss must be a Tensor of one number, the mean over the batch, got "
                             f"{getattr(loss, 'shape', loss)}: use reduction='mean' or end in .mean().")  # fmt: skip
        return outputs, loss

    def _add(self, means: dict[str, Mean], loss: Tensor, outputs: Any, y: Any) -> None:
        means["loss"].add(loss.data, len(y))
        arrays = tuple(o.data for o in outputs) if isinstance(outputs, tuple) else outputs.data
        for name, metric in (self.metrics or {}).items():
            means[name].add(metric(arrays, y), len(y))

    def _averages(self) -> dict[str, float]:
        return {name: mean.value for name, mean in self.running.items()}

    def _on_device(self, x: Any, y: Any) -> tuple[Tensor, Any]:
        return Tensor(to_device(x, self.device)), to_device(y, self.device)

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    # ---- preparations

    def _step_graph(self) -> StepGraph:
        if self.device != "cuda":
            raise ValueRangeError(f'Trainer: cuda_graph records what a GPU does: it needs device="cuda", got {self.device!r}.')
        for callback in self.callbacks:
            for event in ("on_loss", "on_gradients"):
                if getattr(type(callback), event) is not getattr(Callback, event):
                    raise ValueRangeError(f"Trainer: {type(callback).__name__}.{event} looks into the middle of a step, which "
                                          "a CUDA graph computes as a whole: leave out one of the two.")  # fmt: skip
        return StepGraph(self._learn, self.model, self.optimizer)

    def _move(self) -> None:
        for module in (self.model, self.loss):
            if isinstance(module, Module):
                arrays = [p.data for p in module.parameters()] + [buffer for _, buffer in module.named_buffers()]
                if self.device != "cpu" or any(xp_of(a) is not np for a in arrays):
                    module.to(self.device)

    def _train_loader(self, data: Any) -> Any:
        if not hasattr(data, "iterate"):
            return self._loader(data, "train", transform=self.transform, shuffle=True)
        if self.transform is not None:
            raise ValueRangeError("fit: the Trainer has a transform and train is a loader: give it to the loader only.")
        if self._auto_eval_transform:
            self.eval_transform = preprocessing.without_chance(getattr(data, "transform", None))
        return data

    def _loader(self, data: Any, what: str, transform: Callable | None = None, shuffle: bool = False) -> Any:
        if hasattr(data, "iterate"):
            return data
        pair = isinstance(data, (tuple, list)) and len(data) == 2
        if pair and any(isinstance(part, Dataset) for part in data):
            raise DtypeError(f"{what}: got two data sets where one is expected: fit(train, test) takes them one by one.")
        if not (pair or isinstance(data, Dataset)):
            raise DtypeError(f"{what}: expected a Dataset, a DataLoader or a pair of arrays (x, y), got {type(data).__name__}: "
                             "without labels there is no loss; predict(x) needs none.")  # fmt: skip
        return DataLoader(data, self.batch_size, shuffle, self.seed, transform=transform if shuffle else self.eval_transform)

    def _choose_metrics(self, loader: Any) -> None:
        if self.metrics is None:
            labels = getattr(getattr(loader, "dataset", None), "y", None)
            self.metrics = _resolve(("accuracy",) if labels is not None and labels.dtype.kind in "iu" else ())

    def _learn_about(self, loader: Any, validation: Any) -> None:
        self._choose_metrics(loader)
        dataset = getattr(loader, "dataset", None)
        self.classes = tuple(getattr(dataset, "classes", ())) or self.classes
        self.scale = self.scale if dataset is None else getattr(dataset, "scale", None)
        self.sample_shape = self.sample_shape if dataset is None else tuple(dataset.x.shape[1:])
        measured = ("loss", *(self.metrics or ()))
        checked = tuple(f"validation_{name}" for name in measured) if validation is not None else ()
        self.columns = (*measured, *checked, *(("lr",) if hasattr(self.optimizer, "lr") else ()))

    def _resume(self, path: str | os.PathLike | bool | None) -> Path | None:
        """Go back to a checkpoint; the file, or None when there is nothing to resume."""
        if path is None or path is False:
            return None
        if path is True:
            folders = [callback.folder for callback in self.callbacks if isinstance(callback, Checkpoint)]
            if not folders:
                raise ValueRangeError("fit: resume=True needs a Checkpoint(folder) among the callbacks; or pass a path.")
            if not (folders[0] / checkpoint.LAST).exists():
                return None
            path = folders[0]
        return resume.restore(self, checkpoint.load(path))

    def _interrupted(self) -> str:
        where = f"interrupted in epoch {self.epoch + 1}, after {self.batch} of {len(self.loader)} batches"
        if self.last_saved is None:
            among = any(isinstance(callback, Checkpoint) for callback in self.callbacks)
            cure = "save_every=N writes them within an epoch, too" if among else "callbacks=[Checkpoint(folder)] writes them"
            return f"{where}; no checkpoint was written{' yet' if among else ''} ({cure})."
        path, _, step = self.last_saved
        lost = f"{self.step - step} batches since then will be repeated" if self.step > step else "nothing is lost"
        return f"{where}; {path} goes on from step {step}: {lost}."


_resolve = metrics.resolve  # under this name because Trainer.__init__ has an argument called metrics


def _joined(parts: list) -> Any:
    if isinstance(parts[0], tuple):
        return tuple(_joined(list(column)) for column in zip(*parts, strict=True))
    return np.concatenate([part.numpy() for part in parts])


def _check_arguments(model: Any, loss: Any, optimizer: Any, callbacks: Any, batch_size: Any, clip_grad_norm: Any) -> None:
    if not isinstance(model, Module):
        raise DtypeError(f"Trainer: model must be a Module, got {type(model).__name__}.")
    if not callable(loss) or isinstance(loss, type):
        raise DtypeError(f"Trainer: loss must be a function or module (outputs, y) -> Tensor, got {loss!r}"
                         + (f": write {loss.__name__}()." if isinstance(loss, type) else "."))  # fmt: skip
    if not hasattr(optimizer, "step") or isinstance(optimizer, type):
        raise DtypeError(f"Trainer: optimizer must be one such as optim.Adam(model.parameters()), got {optimizer!r}.")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise DtypeError(f"Trainer: callbacks must be Callback objects, got {callback!r}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueRangeError(f"Trainer: batch_size must be a whole number of at least 1, got {batch_size!r}.")
    if clip_grad_norm is not None and not clip_grad_norm > 0:
        raise ValueRangeError(f"Trainer: clip_grad_norm must be above 0, got {clip_grad_norm!r}.")
