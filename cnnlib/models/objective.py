"""What the systems with an objective of their own have in common: how they are trained, and from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cnnlib import nn
from cnnlib.tensor import Tensor

if TYPE_CHECKING:
    from cnnlib.data import Dataset


class ObjectiveModel(nn.Module):
    """A model that says itself what it minimises: `cnnlib.train.ObjectiveTrainer` trains it, and ``cnnlib train NAME``.

    measures    names of what `objective` reports beside the loss.
    settings    options of the constructor that the command line offers, with a line of help each. Types and defaults are
                those of the signature: numbers, texts, flags, and tuples of whole numbers.
    recipe      epochs, batch_size, optimizer, lr, and other ``settings`` of the optimizer, that ``cnnlib train NAME`` takes
                unless told otherwise.

    One created without options takes samples of ``input_shape``.

    >>> import cnnlib as cl, numpy as np
    >>> class Mean(ObjectiveModel):
    ...     measures = ("distance",)
    ...     def __init__(self, input_shape=(2,)):
    ...         super().__init__()
    ...         self.input_shape, self.centre = tuple(input_shape), cl.Parameter([0.0] * input_shape[0])
    ...     def objective(self, x, y):
    ...         loss = ((x - self.centre) ** 2).sum(axis=1).mean()
    ...         return loss, {"distance": loss.sqrt()}
    >>> net, x = Mean(), np.float32([[0, 1], [2, 3]])
    >>> trainer = cl.train.ObjectiveTrainer(net, cl.optim.SGD(net.parameters(), lr=0.5), progress=False)
    >>> _ = trainer.fit((x, x), epochs=1)
    >>> net.centre.numpy()
    array([1., 2.], dtype=float32)
    """

    measures: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[dict[str, str]] = {}
    recipe: ClassVar[dict[str, Any]] = {"epochs": 5, "batch_size": 64, "optimizer": "adam", "lr": 1e-3}
    targets: str | None = None  # what y has to be: "numbers", "two classes" or "classes"; None where no class is needed
    picture_size = 28  # of the pictures of a folder
    input_shape: tuple[int, ...]

    def objective(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Any]]:
        """(loss, measured): the mean over the batch, and a number for each of ``measures``."""
        raise NotImplementedError(f"{type(self).__name__} needs a method objective(self, x, y).")

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch of training, counted from 0: for what is learnt in stages."""

    def concern(self, row: dict[str, Any]) -> str | None:
        """What went wrong in the epoch with this row of the history, and what to try; None where all is well."""
        return None

    @staticmethod
    def options_from(train: Dataset) -> dict[str, Any]:
        """The options of the constructor that follow from the data."""
        return {"input_shape": list(train.x.shape[1:])}
