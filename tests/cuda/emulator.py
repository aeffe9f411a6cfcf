"""Compiles a CUDA source behind emulator.h and calls its kernels on NumPy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.cuda.fake_cuda import do

HEADER = Path(__file__).with_name("emulator.h")
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=fast", "-U_FORTIFY_SOURCE", "-Wall"]
FLAGS += ["-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-variable", "-fno-strict-aliasing"]


class EmulatorError(Exception):
    """A launch that a GPU would misread, or that would hang there."""


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("g++") or shutil.which("clang++")


def why_not() -> str | None:
    """Why sources cannot be emulated here, or None."""
    if platform.system() != "Linux":
        return "the emulator of CUDA sources is written for Linux"
    return None if compiler() else "no C++ compiler to emulate CUDA sources with"


def cache_folder() -> Path:
    """Of what was compiled, for the next run, too; this user's own."""
    path = Path(tempfile.gettempdir()) / f"cnnlib-emulated-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid() or path.stat().st_mode & 0o022:
        raise EmulatorError(f"{path} is open to others: remove it.")
    return path


def kernel_names(text: str) -> list[str]:
    """The kernels of a source, also those that a macro defines."""
    preprocessed = subprocess.run(
        [compiler(), "-E", "-P", "-x", "c++", "-"], input=text.replace("__global__", "KERNEL_OF_A_GRID"),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return re.findall(r'extern "C"\s+KERNEL_OF_A_GRID\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(', preprocessed)


def build(text: str, options: tuple[str, ...]) -> Path:
    """The shared library of a source, compiled once per text."""
    macros = [option for option in options if option.startswith("-D")]
    stamp = hashlib.sha256("\0".join([text, HEADER.read_text(), *macros, *FLAGS, compiler()]).encode()).hexdigest()[:24]
    library = cache_folder() / f"{stamp}.so"
    if not library.exists():
        entries = "\n".join(f"EMULATE({name})" for name in kernel_names(text))
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            source = Path(folder) / "emulated.cpp"
            source.write_text(f'#include "{HEADER}"\n{text}\n{entries}\n', encoding="utf-8")
            done = subprocess.run(
                [compiler(), *FLAGS, *macros, str(source), "-o", str(Path(folder) / "emulated.so")],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise EmulatorError(done.stderr)
            os.replace(Path(folder) / "emulated.so", library)
    return library


class Module:
    """As cupy.RawModule."""

    def __init__(self, code: str, options: tuple[str, ...] = (), enable_cooperative_groups: bool = False):
        self.library, self.cooperative = ctypes.CDLL(str(build(code, options))), enable_cooperative_groups

    def get_function(self, name: str):
        try:
            entry = getattr(self.library, f"emulate_{name}")
        except AttributeError:
            raise EmulatorError(f"no kernel {name}") from None
        entry.restype = ctypes.c_char_p
        return Kernel(name, entry, self.cooperative)


MULTIPROCESSORS, AT_ONCE = 2, 512  # of the emulated device; threads that are sure to fit on one at the same time

launches: list[str] = []  # the names of the kernels that ran
seed = 0  # of the orders of blocks and threads


class Kernel:
    def __init__(self, name, entry, cooperative=False):
        self.name, self.entry, self.cooperative = name, entry, cooperative

    def __call__(self, grid, block, arguments):
        launches.append(self.name)
        n = len(arguments)
        cells, letters = zip(*map(_argument, arguments), strict=True)
        values = (ctypes.c_void_p * n)(*[ctypes.addressof(cell) for cell in cells])
        given = (ctypes.c_char_p * n)(*letters)
        shapes = [(ctypes.c_uint * 3)(*_checked(self.name, what, shape)) for what, shape in (("grid", grid), ("block", block))]
        if self.cooperative and math.prod(grid) * math.prod(block) > MULTIPROCESSORS * AT_ONCE:
            raise EmulatorError(
                f"{self.name}: {math.prod(grid)} blocks of {math.prod(block)} threads do not run at the same time"
            )

        def run(kept=(arguments, cells)):
            problem = self.entry(*shapes, values, given, n, seed, self.cooperative)
            if problem:
                raise EmulatorError(f"{self.name}: {problem.decode()}")

        do(run, [a.view(np.ndarray) for a in arguments if isinstance(a, np.ndarray) and a.flags.writeable])


def _checked(name, what, shape):
    full = (*shape, 1, 1, 1)[:3]
    limits = (2**31 - 1, 65535, 65535) if what == "grid" else (1024, 1024, 64)
    fits = all(isinstance(n, int) and 1 <= n <= limit for n, limit in zip(full, limits, strict=True))
    if not fits or (what == "block" and full[0] * full[1] * full[2] > 1024):
        raise EmulatorError(f"{name}: {what} {shape} is not possible on a GPU")
    return full


def _argument(value):
    """Eight bytes, and the letter of the type, as CuPy passes arguments: int as long long, float as double."""
    if isinstance(value, np.ndarray):
        from tests.cuda import fake_cupy

        if not isinstance(value, fake_cupy.ndarray):
            raise EmulatorError("a NumPy array where a kernel expects one on the device")
        if not value.flags.c_contiguous:
            raise EmulatorError(f"an array of shape {value.shape} that is not contiguous")
        letter = {"l": "q", "L": "Q", "?": "B"}.get(value.dtype.char, value.dtype.char)
        return ctypes.c_void_p(value.ctypes.data), b"*" + letter.encode()
    if type(value) is int:
        return ctypes.c_longlong(value), b"q" if value else b"0"
    if type(value) is float:
        return ctypes.c_double(value), b"d"
    raise EmulatorError(f"an argument of type {type(value).__name__}: kernels take arrays, int and float")
