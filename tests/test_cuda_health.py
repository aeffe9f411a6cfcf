"""Broken CUDA set-ups, played by a module that raises what the real one raised: the original error and the cure are told."""

import importlib.abc
import importlib.machinery
import sys
import types

import pytest

from cnnlib import backends, doctor
from cnnlib.backends.cuda import health


class CUDARuntimeError(RuntimeError):
    """Of the name that CuPy's has."""


class CompileException(Exception): ...


class OutOfMemoryError(MemoryError): ...


NO_NVRTC = (
    "CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot open shared object file: No such file or directory"
)
NO_HEADERS = '/tmp/x/kernel.cu(1): catastrophic error: cannot open source file "cuda_fp16.h"\n\n1 catastrophic error detected'
OLD_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
NO_RUNTIME = "libcudart.so.12: cannot open shared object file: No such file or directory"
NUMPY_1 = "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88"
TO_12 = 'pip uninstall -y cupy-cuda13x && pip install "cupy-cuda12x[ctk]"'

# where the error comes, the error, the installed distributions, the driver's CUDA, words of the cure
SET_UPS = {
    "no driver": ("kernel", CUDARuntimeError(OLD_DRIVER), ["cupy-cuda12x"], None, "there is no NVIDIA driver"),
    "driver too old for any CuPy": (
        "kernel", CUDARuntimeError(OLD_DRIVER), ["cupy-cuda12x"], 12020, "the NVIDIA driver is too old: update it"),
    "CuPy for a newer CUDA than the driver's": (
        "kernel", CUDARuntimeError(OLD_DRIVER), ["cupy-cuda13x"], 12040,
        f"built for CUDA 13, the driver runs CUDA 12.4: update the driver, or {TO_12}"),
    "two distributions": (
        "import", ImportError("cannot import name 'core' from 'cupy_backends'"), ["cupy-cuda12x", "cupy-cuda13x"], 13000,
        'pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install "cupy-cuda13x[ctk]"'),
    "no NVRTC": ("kernel", RuntimeError(NO_NVRTC), ["cupy-cuda12x"], 12040, 'pip install "cupy-cuda12x[ctk]"'),
    "no headers": ("kernel", CompileException(NO_HEADERS), ["cupy-cuda13x"], 13000, "CUDA's headers are missing"),
    "no device": (
        "kernel", CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"), ["cupy-cuda13x"], 13000,
        "CUDA_VISIBLE_DEVICES"),
    "device out of memory": (
        "kernel", OutOfMemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes)."), ["cupy-cuda13x"], 13000,
        "have the GPU's memory"),
    "device out of memory at start": (
        "kernel", CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"), ["cupy-cuda13x"], 13000,
        "have the GPU's memory"),
    "no CUDA libraries": ("import", ImportError(NO_RUNTIME), ["cupy-cuda12x"], 13000, "pip uninstall -y cupy-cuda12x"),
    "no driver library": (
        "import", ImportError("libcuda.so.1: cannot open shared object file: No such file or directory"), ["cupy-cuda12x"],
        None, "there is no NVIDIA driver"),
    "GPU newer than the compiler": (
        "kernel", CompileException("nvrtc: error: invalid value for --gpu-architecture (-arch)"), ["cupy-cuda12x"], 13000,
        "the GPU is newer than CuPy's compiler"),
    "built for NumPy 1": ("import", ValueError(NUMPY_1), ["cupy-cuda12x"], 12040, "built for another NumPy"),
    "something else": ("kernel", SystemError("unknown"), ["cupy-cuda13x"], 13000,
        'pip install --force-reinstall "cupy-cuda13x[ctk]"'),
}  # fmt: skip


class Raises(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """``import cupy`` finds this, which raises."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "cupy" else None

    def create_module(self, spec):
        return types.ModuleType(spec.name)

    def exec_module(self, module):
        raise self.error


def raises(error):
    def function(*_, **__):
        raise error

    return function


@pytest.fixture
def broken(monkeypatch, request):
    where, error, packages, driver, cure = SET_UPS[request.param]
    monkeypatch.setattr(health, "distributions", lambda: packages)
    monkeypatch.setattr(health, "driver_cuda", lambda: driver)
    finder = Raises(error)
    if where == "import":
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
    else:
        cupy = types.ModuleType("cupy")
        cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", finder)
        cupy.ElementwiseKernel, cupy.ndarray = raises(error), type("ndarray", (), {})
        monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    health.problem.cache_clear()
    yield error, cure
    health.problem.cache_clear()


each = pytest.mark.parametrize("broken", SET_UPS, indirect=True)


@each
def test_available_gives_the_original_error_and_the_cure(broken):
    error, cure = broken
    reason = backends.available()["cuda"]
    assert reason.startswith(f"{type(error).__name__}: {str(error).splitlines()[0].rstrip('.')}.")
    assert cure in reason.partition("To mend it: ")[2]


@each
def test_doctor_gives_the_original_error_and_the_cure(broken):
    error, cure = broken
    check = next(c for c in doctor.examine() if c.name == "CUDA")
    assert check.state == "problem"
    assert str(error).splitlines()[0].rstrip(".") in check.found
    assert cure in check.fix


@each
def test_a_move_to_the_device_says_why_not(broken):
    from cnnlib import Tensor
    from cnnlib.errors import DeviceError

    error, cure = broken
    with pytest.raises(DeviceError, match="device 'cuda' is not available") as raised:
        Tensor([1.0]).to("cuda")
    assert type(error).__name__ in str(raised.value) and cure in str(raised.value)


def test_without_cupy_the_line_to_install_it_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(health, "_installed", lambda module: False)
    health.problem.cache_clear()
    try:
        assert "CuPy is not installed." in backends.available()["cuda"]
        assert 'pip install "cnnlib[cuda13]"' in backends.available()["cuda"]
    finally:
        health.problem.cache_clear()


def test_a_kernel_with_a_wrong_result_is_no_healthy_one(monkeypatch):
    import numpy as np

    cupy = types.ModuleType("cupy")
    cupy.ElementwiseKernel = lambda *_: lambda x: x
    cupy.ones, cupy.float32, cupy.ndarray = np.ones, np.float32, type("ndarray", (), {})
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    health.problem.cache_clear()
    try:
        assert "wrong result" in str(health.problem())
    finally:
        health.problem.cache_clear()
