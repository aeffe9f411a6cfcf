"""Does CUDA work here, and if not, what was the original error and what mends it?

``import cupy`` can raise, the driver is asked at the first array, and the compiler (NVRTC) loads at the first kernel: so only
a kernel that was really compiled and run proves health. What went wrong is read off the error's own words; the version that
the driver supports and the CuPy distributions that are installed tell apart what one message leaves open.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.metadata
import sys
import warnings
from functools import cache

INSTALL = 'pip install "cnnlib[cuda13]"   (driver 580 or newer; for an older one "cnnlib[cuda12]")'


@dataclasses.dataclass(frozen=True)
class Problem:
    """``error``: the original one, as its type and text. ``cure``: what to do."""

    error: str
    cure: str

    def __str__(self) -> str:
        return f"{self.error} To mend it: {self.cure}"


@cache
def problem() -> Problem | None:
    """None when a kernel really compiled and ran on the GPU, else what stood in the way. Asked once per process."""
    if "cupy" not in sys.modules and not _installed("cupy"):
        return Problem("CuPy is not installed.", INSTALL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its warning of two distributions is part of the cure, below
            import cupy

        double = cupy.ElementwiseKernel("float32 x", "float32 y", "y = 2 * x", "cnnlib_health")
        if float(double(cupy.ones(4, dtype=cupy.float32)).sum()) != 8.0:
            return Problem(
                "a kernel ran on the GPU and gave a wrong result.", "restart the machine; if it stays, the GPU is broken"
            )
    except Exception as error:  # import cupy raises many kinds of errors on a broken installation
        return Problem(f"{type(error).__name__}: {_first_line(error)}", cure(error))
    return None


def cure(error: BaseException) -> str:
    """What mends ``error``, from its words, the driver and the installed distributions."""
    text = f"{type(error).__name__}: {error}"
    packages, driver = distributions(), driver_cuda()
    fitting, same = _fitting(driver), _fitting(driver, packages)
    if len(packages) > 1:
        several = f"{len(packages)} CuPy distributions break each other"
        return f"{several}: pip uninstall -y {' '.join(packages)} && pip install {fitting}"
    if _has(text, "InsufficientDriver", "driver version", "libcuda.so", "nvcuda.dll"):
        return _driver_cure(driver, packages, fitting)
    for words, what in (
        (("OutOfMemory", "cudaErrorMemoryAllocation", "out of memory"), _TAKEN),
        (("cudaErrorNoDevice", "no CUDA-capable device"), _NO_GPU),
        (("gpu-architecture", "NoKernelImage", "no kernel image"),
         f"the GPU is newer than CuPy's compiler: pip install --upgrade {fitting}"),
        (("nvrtc",), f"the compiler NVRTC is missing: pip install {same}   ([ctk] brings it)"),
        (("cannot open source file", "CUDA headers"), f"CUDA's headers are missing: pip install {same}   ([ctk] brings them)"),
        (("cannot open shared object", "DLL load failed"),
         f"CuPy does not find CUDA's libraries: pip uninstall -y {' '.join(packages)} && pip install {fitting}"),
        (("numpy.dtype size changed", "_ARRAY_API"), f"this CuPy was built for another NumPy: pip install --upgrade {same}"),
    ):  # fmt: skip
        if _has(text, *words):
            return what
    return f"install CuPy anew: pip install --force-reinstall {same}"


_TAKEN = "other processes have the GPU's memory, nvidia-smi shows which: stop them, or choose a GPU with CUDA_VISIBLE_DEVICES"
_NO_GPU = "the driver sees no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES (a container needs --gpus all)"


def _driver_cure(driver: int | None, packages: list[str], fitting: str) -> str:
    if driver is None:
        return (
            "there is no NVIDIA driver: install it, until nvidia-smi works; on a machine without an NVIDIA GPU uninstall CuPy"
        )
    wanted = _major(packages)
    if wanted is not None and driver // 1000 < wanted:
        return (
            f"CuPy is built for CUDA {wanted}, the driver runs CUDA {dotted(driver)}: update the driver, or "
            f"pip uninstall -y {packages[0]} && pip install {fitting}"
        )
    return "the NVIDIA driver is too old: update it"


def distributions() -> list[str]:
    """The installed CuPy distributions, such as ``["cupy-cuda12x"]``; there must be one."""
    names = {(d.metadata["Name"] or "").lower() for d in importlib.metadata.distributions()}
    return sorted(n for n in names if n == "cupy" or n.startswith(("cupy-cuda", "cupy-rocm")))


def driver_cuda() -> int | None:
    """The CUDA version that the NVIDIA driver runs, 12040 for 12.4; None without a driver."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int()
        return version.value if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None


def _installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def _fitting(driver: int | None, packages: list[str] | None = None) -> str:
    """The distribution to install: the one that is there, else the one for the driver."""
    known = _major(packages or [])
    major = known if known is not None else 12 if driver is not None and driver < 13000 else 13
    return f'"cupy-cuda{major}x[ctk]"'


def _major(packages: list[str]) -> int | None:
    """12 of ``cupy-cuda12x``."""
    digits = "".join(c for c in packages[0].removeprefix("cupy-cuda")[:2] if c.isdigit()) if packages else ""
    return int(digits) if digits else None


def dotted(version: int | None) -> str:
    return "?" if version is None else f"{version // 1000}.{version % 1000 // 10}"


def _has(text: str, *words: str) -> bool:
    return any(word.lower() in text.lower() for word in words)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message").rstrip(".") + "."
