"""Learning backpropagation by writing it: the exercises behind ``cnnlib learn``, and their checker."""

from cnnlib.learn.inprocess import check
from cnnlib.learn.verdict import Verdict

__all__ = ["Verdict", "check"]
