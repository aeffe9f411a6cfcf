"""cnnlib: a deep-learning engine that a person can read to the bottom."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cnnlib import ops, optim
from cnnlib.backends import backend, override, override_kernel, shadow, use
from cnnlib.gradcheck import check_op, gradcheck
from cnnlib.op import Context, Op, check_finite, no_grad
from cnnlib.random import manual_seed
from cnnlib.tensor import Parameter, Tensor
from cnnlib.trace import trace

if TYPE_CHECKING:
    from cnnlib import data as data
    from cnnlib import distributions as distributions
    from cnnlib import learn as learn
    from cnnlib import models as models
    from cnnlib import nn as nn
    from cnnlib import train as train
    from cnnlib import viz as viz
    from cnnlib.microscope import explain as explain
    from cnnlib.nn.summary import summary as summary
    from cnnlib.train import Trainer as Trainer

__version__ = "0.1.0"

# What is imported when it is first used, so that `import cnnlib` stays quick.
_LAZY = {
    "Trainer": "cnnlib.train",
    "explain": "cnnlib.microscope",
    "summary": "cnnlib.nn.summary",
    "get_buffer_limit": "cnnlib.backends.cpu",
    "get_num_threads": "cnnlib.backends.cpu",
    "release_buffers": "cnnlib.backends.cpu",
    "set_buffer_limit": "cnnlib.backends.cpu",
    "get_precision": "cnnlib.backends.cpu",
    "set_num_threads": "cnnlib.backends.cpu",
    "set_precision": "cnnlib.backends.cpu",
}
_MODULES = ("data", "distributions", "learn", "models", "nn", "train", "viz")

__all__ = [
    "Context",
    "Op",
    "Parameter",
    "Tensor",
    "backend",
    "check_finite",
    "check_op",
    "gradcheck",
    "manual_seed",
    "no_grad",
    "ops",
    "optim",
    "override",
    "override_kernel",
    "shadow",
    "trace",
    "use",
    *_LAZY,
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cnnlib.{name}")
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'cnnlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
