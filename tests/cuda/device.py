"""The device that tests without a GPU use: inside ``emulated()``, ``cupy`` is fake_cupy.py, and backend "cuda" runs on it.

The fixture ``device`` (conftest.py) is the fake module inside of such a block: ``device.asarray``, ``device.synchronisations``.
"""

from __future__ import annotations

import contextlib
import sys

import pytest

from cnnlib import backends
from cnnlib.backends import cuda
from cnnlib.backends.cuda import errors, source, tuning
from tests.cuda import emulator, fake_cupy

needs_emulator = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))

_compiled = {}, {}  # modules and functions, for the session
_of_the_device = source.multiprocessors, tuning._conditions, tuning._table  # what is asked once


def forget():
    for asked_once in _of_the_device:
        asked_once.cache_clear()


@contextlib.contextmanager
def emulated():
    cupyx = sys.modules.get("cupyx")
    real = sys.modules.get("cupy"), cuda.why_not, backends._loaded.pop("cuda", None), source._modules, source._functions
    may_measure, tuning._may_measure = tuning._may_measure, lambda: False  # there is no clock
    forget()
    sys.modules["cupy"], sys.modules["cupyx"] = fake_cupy, fake_cupy.cuda
    errors._word = None
    cuda.why_not = lambda: None
    source._modules, source._functions = _compiled
    fake_cupy.synchronisations.clear()
    emulator.launches.clear()
    try:
        yield fake_cupy
    finally:
        module, cuda.why_not, kernels, source._modules, source._functions = real
        tuning._may_measure = may_measure
        forget()
        backends._loaded.pop("cuda", None)
        del sys.modules["cupy"], sys.modules["cupyx"]
        errors._word = None
        if module is not None:
            sys.modules["cupy"] = module
        if cupyx is not None:
            sys.modules["cupyx"] = cupyx
        if kernels is not None:
            backends._loaded["cuda"] = kernels
