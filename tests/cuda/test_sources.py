"""The CUDA sources compile for every architecture, with no GPU and no driver."""

import re

import pytest

from cnnlib.backends.cuda import source
from tests.cuda import emulator, nvrtc

needs_nvrtc = pytest.mark.skipif(nvrtc.why_not() is not None, reason=str(nvrtc.why_not()))
SOURCES = source.sources()
OLDEST, NEWEST = nvrtc.ARCHITECTURES[0], nvrtc.ARCHITECTURES[-1]
QUICK = ("f", OLDEST), ("d", NEWEST)  # the others where slow tests run
BUILDS = [
    pytest.param(name, dtype, architecture, marks=[] if (dtype, architecture) in QUICK else pytest.mark.slow)
    for name in SOURCES
    for dtype in source.REALS
    for architecture in nvrtc.ARCHITECTURES
]


@needs_nvrtc
@pytest.mark.parametrize("name, dtype, architecture", BUILDS)
def test_a_source_compiles_without_a_warning(name, dtype, architecture):
    code, log = nvrtc.compile_for(source.text(name), source.options(dtype), architecture)
    assert code and not log, log


@needs_nvrtc
def test_a_mistake_is_reported_in_its_own_file_and_line(tmp_path, monkeypatch):
    (tmp_path / "cuda.cuh").write_text((source.folder() / "cuda.cuh").read_text())
    (tmp_path / "wrong.cu").write_text('/* A comment. */\n#include "cuda.cuh"\n\nKERNEL k(idx n) {\n    undeclared = n;\n}\n')
    monkeypatch.setattr(source, "folder", lambda: tmp_path)
    code, log = nvrtc.compile_for(source.text("wrong"), source.options("f"), "sm_90")
    assert not code and re.search(r'wrong\.cu\(5\): error: identifier "undeclared" is undefined', log), log


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_says_how_its_threads_are_laid_out(name):
    comment = source.text(name).partition("*/")[0]
    assert comment.startswith("/*") and "thread" in comment and len(comment) > 300


def test_the_text_holds_the_shared_header():
    """CuPy's cache does not look into included files."""
    for name in SOURCES:
        assert "#include" not in source.text(name) and "group_sum" in source.text(name)


@pytest.mark.parametrize("name", SOURCES)
def test_no_float_is_added_atomically(name):
    """Their order would differ from run to run. The emulator has atomics of integers only, too."""
    assert not re.search(r"atomicAdd\s*\(\s*\(?\s*(REAL|float|double)", source.text(name))


@pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
@pytest.mark.parametrize("name", SOURCES)
def test_every_kernel_is_found(name):
    """What the emulator can call is what the source calls KERNEL, with those that macros define."""
    text = (source.folder() / f"{name}.cu").read_text()
    assert set(re.findall(r"^KERNEL (\w+)\(", text, re.M)) <= set(emulator.kernel_names(source.text(name)))
