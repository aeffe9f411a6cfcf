"""What a test changes for the whole process is put back after it: backend, instruction set, threads, random state."""

from __future__ import annotations

import pytest

import cnnlib as cl
from cnnlib import backends, random
from cnnlib.backends import cpu


@pytest.fixture(autouse=True)
def process_as_before():
    choices, streams = list(backends._choices), random.get_state()
    isa, threads = (cpu.isa(), cl.get_num_threads()) if cpu.available() else (None, None)
    yield
    backends._choices[:] = choices
    random.set_state(streams)
    if isa is not None:
        cpu.set_isa(isa)
        cl.set_num_threads(threads)
