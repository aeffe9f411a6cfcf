"""A model out of a checkpoint that ``cnnlib train`` wrote."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib import models
from cnnlib.errors import CheckpointError
from cnnlib.train import checkpoint


class Trained:
    """The model, in evaluation mode, with what it takes to use it: class names, the shape of a sample, preprocessing.

    ``shape`` is that of the training data's samples, from which the preprocessing makes what the model takes: with
    ``--size``, pictures of another size.
    """

    def __init__(self, path: str, device: str = "cpu"):
        saved = checkpoint.load(path)
        if saved.name is None:
            raise CheckpointError(
                f"{saved.path}: does not say which model it is of: give the Trainer model_name and model_options, "
                "or load it in Python with cnnlib.train.checkpoint.load."
            )
        kind = models.get(saved.name)
        if hasattr(kind, "train_command") or getattr(kind, "targets", "classes") not in ("classes", "two classes"):
            use = ": `cnnlib sample` draws from it" if hasattr(kind, "sample") else ""
            use = (
                ": in Python, net.predictive(x) foretells numbers, and how sure they are"
                if hasattr(kind, "predictive")
                else use
            )
            use = ": `cnnlib sample` writes with it" if hasattr(kind, "train_command") else use
            raise CheckpointError(f"{saved.path}: holds {saved.name}, which does not name classes{use}.")
        self.name, self.classes, self.path = saved.name, saved.classes, saved.path
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
