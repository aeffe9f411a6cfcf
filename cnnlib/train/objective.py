"""Training models that say themselves what they minimise: autoencoders, variational ones, adversaries, energies, posteriors.

A classifier gives outputs and the trainer compares them with labels. The systems here have an objective of their own::

    loss, measured = model.objective(x, y)     a Tensor of one number, the mean over the batch; and {name: number} besides
    model.measures                             those names, which become columns of the history: ("reconstruction", "kl")
    model.begin_epoch(epoch)                   optional: called before each epoch, for what is learnt in stages
    model.concern(row)                         optional: what is wrong with an epoch that ended in this row, or None

y is what the data set has beside x, and most do without. Players with opposite aims, as in a GAN, take turns; see
`AdversarialTrainer`.

>>> net = cl.models.VAE(input_shape=train.x.shape[1:], latents=2)
>>> trainer = ObjectiveTrainer(net, optim.Adam(net.parameters(), lr=1e-3), progress=False)
>>> history = trainer.fit(train, test, epochs=2)
>>> history["validation_kl"]
[..., ...]
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from cnnlib import optim, random
from cnnlib.errors import DtypeError, ShapeError
from cnnlib.nn.module import Module
from cnnlib.tensor import Tensor
from cnnlib.train import progress as progress_of
from cnnlib.train.callbacks import Callback
from cnnlib.train.trainer import Mean, Step, Trainer


class ObjectiveTrainer(Trainer):
    """Makes ``model.objective(x, y)`` small; all else is as in `Trainer`: callbacks, checkpoints, resuming, evaluation.

    Raises DtypeError for a model without ``objective`` and ``measures``, ShapeError for a loss that is not one number.
    """

    def __init__(self, model: Module, optimizer: Any, callbacks: Sequence[Callback] = (), batch_size: int = 64,
                 transform: Callable | None = None, seed: int = 0, device: str = "cpu", clip_grad_norm: float | None = None, *,
                 progress: bool = True, model_name: str | None = None,
                 model_options: dict[str, Any] | None = None):  # fmt: skip
        if not (hasattr(model, "objective") and hasattr(model, "measures")):
            raise DtypeError(f"{type(self).__name__}: {type(model).__name__} has no objective(x, y) -> (loss, measured) with "
                             "the names measures; a model that is compared with labels is trained by Trainer.")  # fmt: skip
        super().__init__(model, model.objective, optimizer, (), callbacks, batch_size, transform, seed, device, clip_grad_norm,
                         progress=progress, model_name=model_name, model_options=model_options)  # fmt: skip
        self.metrics = {name: operator.itemgetter(name) for name in model.measures}

    def _forward(self, x: Tensor, y: Any) -> tuple[Any, Tensor]:
        with self.model.inside():
            loss, measured = self._objective(x, y)
        if getattr(loss, "size", None) != 1:
            raise ShapeError(f"{type(self.model).__name__}.objective: the loss must be a Tensor of one number, the mean over "
                             f"the batch, got {getattr(loss, 'shape', loss)}.")  # fmt: skip
        return measured, loss

    def _objective(self, x: Tensor, y: Any) -> tuple[Tensor, Any]:
        return self.loss(x, y)

    def _add(self, means: dict[str, Mean], loss: Tensor, outputs: Any, y: Any) -> None:
        means["loss"].add(loss.data, len(y))
        self._add_measured(means, outputs, len(y))

    @staticmethod
    def _add_measured(means: dict[str, Mean], measured: Any, n: int) -> None:
        for name, value in measured.items():
            means[name].add(value, n)

    def _run_epoch(self, validation: Any, epochs: int, shown: progress_of.Silent) -> None:
        rows = len(self.history)
        if self.batch == 0:
            getattr(self.model, "begin_epoch", lambda epoch: None)(self.epoch)
        super()._run_epoch(validation, epochs, shown)
        if len(self.history) == rows:  # stopped midway
            return
        *known, new = (getattr(self.model, "concern", lambda row: None)(row) for row in self.history[-2:])
        if new and not any(known):  # said once, when it begins
            warnings.warn(f"after epoch {self.epoch}: {new}", stacklevel=5)


class AdversarialTrainer(ObjectiveTrainer):
    """Players of one model that take turns on every batch, each with an objective of its own::

        for player in model.turns(step):             such as ("discriminator", "generator")
            loss, measured = model.objective(x, y, player)
            its backward pass; a step of the parameters of ``getattr(model, player)``, and of no others
            model.after_turn(player)                 such as clipping the weights

    One optimiser serves all: it leaves parameters without a gradient, those of the other players, alone. The loss in the
    history, and that of held-out data, is the first player's.
    """

    player: str | None = None

    def _train_on(self, x: Any, y: Any) -> None:
        x, y = self._on_device(x, y)
        model: Any = self.model
        try:
            for i, player in enumerate(model.turns(self.step)):
                self.player = player
                step = self.current = Step(x, y, random.get_state())
                self._call("on_step_start", step)
                self._take_turn(step)
                if i:  # the loss is the first one's, what is measured everybody's
                    self._add_measured(self.running, step.outputs, len(y))
                else:
                    self._add(self.running, step.loss, step.outputs, y)
        finally:
            self.player = None
        self.batch += 1
        self.step += 1

    def _take_turn(self, step: Step) -> None:
        model: Any = self.model
        own = {id(p) for p in getattr(model, self.player or "").parameters()}
        model.zero_grad()
        step.outputs, step.loss = self._forward(step.x, step.y)
        self._call("on_loss", step)
        step.loss.backward()
        for p in model.parameters():
            if id(p) not in own:
                p.grad = None
        self._call("on_gradients", step)
        if self.clip_grad_norm is not None:
            optim.clip_grad_norm_(model.parameters(), self.clip_grad_norm)
        self.optimizer.step()
        model.after_turn(self.player)

    def _objective(self, x: Tensor, y: Any) -> tuple[Tensor, Any]:
        model: Any = self.model
        return self.loss(x, y, self.player or model.turns(0)[0])
