"""A model out of a checkpoint that ``cnnlib train`` wrote."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib import models
from cnnlib.data.scale import Scale
from cnnlib.errors import CheckpointError
from cnnlib.models.predictive import Predictive
from cnnlib.train import checkpoint


def _use(kind: type[Any]) -> str:
    """What a model that names no classes is good for."""
    if hasattr(kind, "train_command"):
        return ": `cnnlib sample` writes with it"
    if hasattr(kind, "predictive"):
        return ": `cnnlib evaluate` measures its numbers; in Python, net.predictive(x) foretells them, and how sure they are"
    return ": `cnnlib sample` draws from it" if hasattr(kind, "sample") else ""


class Trained:
    """The model, in evaluation mode, with what it takes to use it: class names, the shape of a sample, preprocessing.

    ``shape`` is that of the training data's samples, from which the preprocessing makes what the model takes: with
    ``--size``, pictures of another size. With ``numbers`` a regression will do, too.
    """

    def __init__(self, path: str, device: str = "cpu", numbers: bool = False):
        saved = checkpoint.load(path)
        if saved.name is None:
            raise CheckpointError(
                f"{saved.path}: does not say which model it is of: give the Trainer model_name and model_options, "
                "or load it in Python with cnnlib.train.checkpoint.load."
            )
        kind = models.get(saved.name)
        targets = None if hasattr(kind, "train_command") else getattr(kind, "targets", "classes")
        self.numbers = targets == "numbers"
        if targets not in ("classes", "two classes") and not (numbers and self.numbers):
            raise CheckpointError(f"{saved.path}: holds {saved.name}, which does not name classes{_use(kind)}.")
        self.name, self.classes, self.path = saved.name, saved.classes, saved.path
        self.scale = saved.scale or Scale(0.0, 1.0)
        self.model: Any = models.create(saved.name, **saved.options)
        saved.load_into(self.model)
        self.shape: tuple[int, ...] = saved.sample_shape or self.model.input_shape
        self.model.to(device).eval()
        self.device = device
        self._transform = saved.transform()
        self.scales = any(step["name"] == "Resize" for step in saved.preprocessing)  # pictures of other sizes are welcome

    @property
    def takes_pictures(self) -> bool:
        return len(self.shape) == 3

    def prepare(self, x: np.ndarray) -> np.ndarray:
        """Samples as the model learnt to see them."""
        return x if self._transform is None else self._transform(x, np.arange(len(x)), 0, 0)

    def predictive(self, x: np.ndarray) -> Predictive:
        """What a regression says of (N, ...), in the unit of its targets."""
        from cnnlib.tensor import Tensor

        return self.model.predictive(Tensor(self.prepare(x)).to(self.device)).restored(self.scale)

    def scores(self, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """(N, ...) -> the model's outputs (N, classes)."""
        from cnnlib import no_grad
        from cnnlib.tensor import Tensor

        with no_grad():
            parts = [
                self.model(Tensor(self.prepare(x[i : i + batch_size])).to(self.device)) for i in range(0, len(x), batch_size)
            ]
        scores = np.concatenate([part.numpy() for part in parts])
        if scores.shape[1] == 1:  # one logit s for two classes: the softmax of (0, s) is (1 − σ(s), σ(s))
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        return scores
