"""Training a recurrent network on long texts: truncated backpropagation through time.

A text of millions of steps cannot be unrolled as a whole. It is cut into stretches of T steps; each is a batch, which begins
with the state that the batch before it ended with, while the gradient stops at its first step::

    scores, s_k = model(x_k, detach(s_(k−1)))        loss_k = mean of −ln p(y_k)

So what the network remembers reaches as far back as it likes, what it learns from reaches T steps.

>>> text = cl.data.read_text("sonnets")
>>> train, held_out = text.split()
>>> net = cl.models.CharRNN(text.alphabet.characters, hidden=16)
>>> trainer = SequenceTrainer(net, optim.Adam(net.parameters(), lr=2e-3), callbacks=[NaNStop(), Checkpoint("runs/sonnets")])
>>> history = trainer.fit(Streams(train), Streams.fitting(held_out), iterations=2)
iteration 2/2  bits ...  validation_bits ...  ... s

Source: lecture: recurrent networks; Williams & Peng, "An efficient gradient-based algorithm for on-line training of recurrent
network trajectories", 1990; Mikolov et al., "Recurrent neural network based language model", 2010.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnnlib import nn, ops, optim
from cnnlib.data.text import Streams, check_positive
from cnnlib.errors import NonFiniteError
from cnnlib.models.char_rnn import sample
from cnnlib.nn.module import in_mode
from cnnlib.op import no_grad
from cnnlib.tensor import Tensor, to_device
from cnnlib.train import progress
from cnnlib.train.callbacks import Callback
from cnnlib.train.device import on_device
from cnnlib.train.history import History
from cnnlib.train.trainer import Mean, Trainer


class Carried(Callback):
    """The state between two batches: none at the beginning of the text; part of checkpoints."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()  # of arrays: h, or h and c
        self.after: tuple[Any, ...] = ()  # the state after the last batch that went through the network

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.state = ()

    def on_step(self, trainer: Trainer, step: Any) -> None:
        self.state = self.after

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = tuple(state["state"])

    def forward(self, model: nn.Module, x: Tensor) -> Tensor:
        """The scores for x, read after what was read before."""
        before = [Tensor(to_device(s, x.device)) for s in self.state]
        scores, state = model(x, None if not before else before[0] if len(before) == 1 else tuple(before))
        self.after = tuple(s.data for s in (state if isinstance(state, tuple) else (state,)))
        return scores


class SequenceTrainer(Trainer):
    """Trains ``model(x, state) -> (scores, state)``, such as `CharRNN`, on `Streams`: x, y (T, B), scores (T, B, V).

    callbacks, device, progress, model_name, model_options: as for `Trainer`. Gradients are scaled down to the norm
    ``clip_grad_norm``, for those of a recurrent network may explode.

    An epoch is one pass over the text; ``on_epoch_end`` is called at each report, which is a row of the history:
    ``{"iteration": 100, "loss": 2.1, "bits": 3.03, "validation_loss": …, "validation_bits": …, "lr": …, "seconds": …}``. The
    loss is in nats, bits = loss / ln 2 are per character; both are means since the last report.
    """

    def __init__(self, model: nn.Module, optimizer: Any, callbacks: Sequence[Callback] = (), clip_grad_norm: float | None = 5.0,
                 *, device: str = "cpu", progress: bool = True, model_name: str | None = None,
                 model_options: dict[str, Any] | None = None):  # fmt: skip
        self.carried = Carried()
        super().__init__(model, nn.CrossEntropyLoss(), optimizer, (), [self.carried, *callbacks], device=device,
                         clip_grad_norm=clip_grad_norm, progress=progress, model_name=model_name,
                         model_options=model_options)  # fmt: skip

    def fit(self, train: Streams, validation: Streams | None = None, iterations: int = 1000, every: int = 100,  # type: ignore[override]
            resume: str | os.PathLike | bool | None = None) -> History:  # fmt: skip
        """Train for ``iterations`` batches, as often over the text as that takes, and report after every so many.

        ``resume`` as in `Trainer.fit`: ``iterations`` then count from the very beginning. A second ``fit`` begins the text
        anew.
        """
        check_positive("fit", iterations=iterations, every=every)
        self.loader, self.classes = train, tuple(getattr(getattr(self.model, "alphabet", None), "characters", ()))
        self.columns = ("loss", "bits", *(("validation_loss", "validation_bits") if validation is not None else ()), "lr")
        optim.check_parameters(self.model, self.optimizer)
        self.stopped = None
        resumed = self._resume(resume)
        last = iterations if resumed else self.step + iterations
        if not resumed:
            self._begin_epoch()

        def steps_left(shown: progress.Silent) -> None:
            shown.start("iterations", last, self.step)
            batches = self._batches()
            while not self.stopped:
                if self._unreported(every, last):
                    self._report(validation, last, shown)
                if self.step >= last:
                    return
                started = time.perf_counter()
                self._train_on(*next(batches))
                self.seconds += time.perf_counter() - started
                self._call("on_step", self.current)
                shown.step(self.current.x.size, self._averages)

        return self._session(steps_left, resumed)

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        """Pass after pass over the text, from the position of now on."""
        while True:
            if self.batch == 0:
                self._call("on_epoch_start")
            yield from on_device(self.loader.iterate(self.epoch, start_batch=self.batch), self.device)
            self.epoch, self.batch = self.epoch + 1, 0

    def _unreported(self, every: int, last: int) -> bool:
        due = self.step > 0 and (self.step % every == 0 or self.step >= last)
        return due and not (self.history and self.history[-1]["iteration"] == self.step)

    def _report(self, validation: Streams | None, last: int, shown: progress.Silent) -> None:
        started = time.perf_counter()
        row = {"iteration": self.step, **_with_bits(self._averages()["loss"])}
        if validation is not None:
            row |= {f"validation_{name}": value for name, value in self._measure(validation).items()}
        row["lr"] = float(self.optimizer.lr)
        row["seconds"] = round(self.seconds + time.perf_counter() - started, 3)
        if not math.isfinite(row["loss"]):
            warnings.warn("the loss is not finite any more: NaNStop() among the callbacks says where it began.", stacklevel=4)
        self.history.append(row)
        self.seconds, self.running = 0.0, {"loss": Mean()}
        read: dict[str, Any] = {name: row[name] for name in ("bits", "validation_bits", "seconds") if name in row}
        shown.say(f"iteration {self.step:,}/{last:,}  {progress.readable(read)}")
        self._call("on_epoch_end", row)

    def _measure(self, streams: Any) -> dict[str, float]:
        """Loss and bits per character of streams that are read from their beginning; the carried state stays as it is."""
        mean, carried = Mean(), self.carried
        self.carried = Carried()
        try:
            with in_mode(self.model, False), no_grad():
                for batch in on_device(streams.iterate(0), self.device):
                    x, y = self._on_device(*batch)
                    mean.add(self._forward(x, y)[1], y.size)
                    self.carried.state = self.carried.after
        finally:
            self.carried = carried
        return _with_bits(mean.value)

    def _forward(self, x: Tensor, y: Any) -> tuple[Tensor, Tensor]:
        scores = self.carried.forward(self.model, x)
        return scores, self.loss(ops.reshape(scores, (-1, scores.shape[-1])), y.reshape(-1))  # (T, B, V) -> (T·B, V)


class Samples(Callback):
    """Shows what the model, a `CharRNN`, writes after some iterations, and at the end. Training does not notice.

    show    called with the iteration and the text; prints both unless given.
    """

    def __init__(self, at: Iterable[int] = (100, 300, 700, 2000), prime: str = "", length: int = 300, temperature: float = 0.8,
                 seed: int = 0, show: Callable[[int, str], None] | None = None):  # fmt: skip
        self.at, self.settings, self.show = frozenset(at), (prime, length, temperature, seed), show or _print_sample
        self.last = -1

    def on_step(self, trainer: Trainer, step: Any) -> None:
        if trainer.step in self.at:
            try:
                self._write(trainer)
            except NonFiniteError as error:  # of which the next batch, and NaNStop, can tell where it began
                self.show(trainer.step, f"({error})")

    def on_fit_end(self, trainer: Trainer) -> None:
        if trainer.step != self.last:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        model: Any = trainer.model  # a CharRNN
        self.last = trainer.step
        self.show(trainer.step, self.settings[0] + sample(model, *self.settings))


def _print_sample(iteration: int, text: str) -> None:
    print(f"---- sample after iteration {iteration:,}\n{text}\n----", flush=True)


def _with_bits(loss: float) -> dict[str, float]:
    return {"loss": loss, "bits": loss / math.log(2)}
