"""What a test changes for the whole process is put back after it: backend, instruction set, threads, precision, streams."""

from __future__ import annotations

import shutil

import pytest

import cnnlib as cl
from cnnlib import backends, random
from cnnlib.backends import cpu
from tests.cuda import emulator
from tests.cuda.device import emulated


@pytest.fixture(autouse=True)
def process_as_before():
    choices, streams = list(backends._choices), random.get_state()
    isa, threads, precision = cpu.isa(), cl.get_num_threads(), cl.get_precision()
    yield
    backends._choices[:] = choices
    random.set_state(streams)
    if cpu.available():
        cpu.set_isa(isa)
        cl.set_num_threads(threads)
        cl.set_precision(precision)


@pytest.fixture
def device():
    """A device to test with where there is no GPU: the fake CuPy (tests/cuda/device.py)."""
    if reason := emulator.why_not():
        pytest.skip(reason)
    with emulated() as cupy:
        yield cupy


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, for the tests of pages."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as p:
        try:
            found = shutil.which("chromium") or shutil.which("google-chrome")
            running = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield running
        running.close()
