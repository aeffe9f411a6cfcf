"""Is the installation healthy? Each check says what it found, and each problem how to mend it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from pathlib import Path

import numpy as np

REINSTALL = "pip install --force-reinstall --no-deps --no-cache-dir"  # past pip's cache of the wheel it built


@dataclasses.dataclass
class Check:
    """``state``: "ok", "note" (works, could be more) or "problem"."""

    name: str
    state: str
    found: str
    fix: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which they are shown."""
    return [
        _python(),
        _numpy(),
        _kernels(),
        _compiler(),
        _instruction_set(),
        _threads(),
        _precision(),
        _cuda(),
        _cache(),
        *_extras(),
    ]


def _python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _numpy() -> Check:
    if int(np.__version__.split(".")[0]) < 2:
        return Check("NumPy", "problem", f"{np.__version__}, but cnnlib needs 2 or newer", 'pip install --upgrade "numpy>=2"')
    return Check("NumPy", "ok", np.__version__)


def _kernels() -> Check:
    from cnnlib.backends import backend
    from cnnlib.compare import usable

    if reason := usable()["cpu"]:
        return Check("compiled kernels", "problem", f"missing, the slower NumPy reference runs instead: {reason}", _rebuild())
    return Check("compiled kernels", "ok", f"built; in use: {backend()}")


def _rebuild() -> str:
    """In a checkout that was installed with -e the sources are next to the package; else pip has noted where they were."""
    root = Path(__file__).parent.parent
    if (root / "setup.py").is_file():
        return f"cd {root} && pip install -e ."
    folder = sources()
    return f"{REINSTALL} {folder}" if folder else f"{REINSTALL} --no-binary cnnlib cnnlib"


def sources() -> str | None:
    """The folder that pip installed cnnlib from (PEP 610); None where it came from an index, or without pip."""
    try:
        noted = importlib.metadata.distribution("cnnlib").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = json.loads(noted)["url"] if noted else ""
    return url if url.startswith("file:") else None


def _compiler() -> Check:
    from cnnlib.backends import cpu

    found = [
        path for name in (os.environ.get("CC", ""), "cc", "gcc", "clang", "clang-cl") if name and (path := shutil.which(name))
    ]
    if found:
        return Check("C compiler", "ok", found[0])
    fix = {
        "darwin": "xcode-select --install",
        "win32": "winget install LLVM.LLVM",
    }.get(sys.platform, "sudo apt install build-essential python3-dev   (or your system's packages for gcc)")
    if cpu.available():
        return Check("C compiler", "note", "none found; only needed to build the kernels again", fix)
    return Check("C compiler", "problem", "none found, so the kernels cannot be built", fix)


def _instruction_set() -> Check:
    from cnnlib.backends import cpu

    if not cpu.available():
        return Check("instruction set", "note", "none without the compiled kernels")
    can = cpu.available_isas()
    forced = os.environ.get("CNNLIB_ISA")
    if can and cpu.isa() != can[0]:
        why = f"CNNLIB_ISA={forced}" if forced else "set_isa()"
        return Check("instruction set", "note", f"{cpu.isa()} by {why}; this machine can run {', '.join(can)}",
                     "unset CNNLIB_ISA" if forced else "")  # fmt: skip
    return Check("instruction set", "ok", f"{cpu.isa()} (available: {', '.join(can)})")


def _threads() -> Check:
    from cnnlib.backends import cpu

    limit = os.environ.get("OMP_NUM_THREADS")
    by = f", limited by OMP_NUM_THREADS={limit}" if limit else ""
    return Check("threads", "ok", f"{cpu.get_num_threads()} of {os.cpu_count()} processors{by}")


def _precision() -> Check:
    from cnnlib.backends import cpu

    if not cpu.available():
        return Check("precision", "ok", "exact, as the reference always is")
    how = {"fast": 'fast: Winograd for convolutions in float32; cl.set_precision("exact") sums directly', "exact": "exact"}
    return Check("precision", "ok", how[cpu.get_precision()])


def _cuda() -> Check:
    from cnnlib.backends import cuda
    from cnnlib.backends.cuda import health, tuning

    if importlib.util.find_spec("cupy") is None:
        has_gpu = health.driver_cuda() is not None
        return Check("CUDA", "note", "no CuPy, so no GPU" + (", although this machine has an NVIDIA driver" if has_gpu else ""),
                     health.INSTALL if has_gpu else "")  # fmt: skip
    if problem := health.problem():
        return Check("CUDA", "problem", f"CuPy is installed but does not work: {problem.error}", problem.cure)
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    free, total = cupy.cuda.Device().mem_info
    memory = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free, {cuda.pool_bytes() / 1e6:.0f} MB in this process's pool"
    timed = f"convolutions timed on it: {len(tuning.measured())}, kept in {tuning.file()}"
    versions = f"CuPy {cupy.__version__}, CUDA {health.dotted(health.driver_cuda())}"
    return Check("CUDA", "ok", f"{name}, {versions}; memory: {memory}; {timed}")


def _cache() -> Check:
    from cnnlib import data

    folder = data.cache_dir()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Check(
            "data cache", "problem", f"{folder} cannot be written", "export CNNLIB_CACHE=~/cnnlib-cache   (any folder of yours)"
        )
    local = f"; CNNLIB_DATA={os.environ['CNNLIB_DATA']}" if os.environ.get("CNNLIB_DATA") else ""
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6 if folder.is_dir() else 0.0
    return Check("data cache", "ok", f"{folder}, {size:.0f} MB{local}")


def _extras() -> list[Check]:
    extras = (("matplotlib", "viz", "pictures"), ("pooch", "data", "downloading data sets"))
    return [
        Check(package, "ok", "installed")
        if importlib.util.find_spec(package)
        else Check(package, "note", f"missing; needed for {purpose}", f'pip install "cnnlib[{extra}]"')
        for package, extra, purpose in extras
    ]
