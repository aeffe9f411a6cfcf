"""What else can be done here with a CUDA kernel that the emulator found right: compile it, and run it on a GPU.

`compiled` asks NVIDIA's compiler: NVRTC, as a library that CuPy or CUDA brought along, in a process of its own (``python -m
cnnlib.learn.cuda``, the kernel on standard input), or else nvcc. `on_gpu` runs a learner's function with a `launch` that goes
through CuPy.
"""

from __future__ import annotations

import ast
import ctypes
import ctypes.util
import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cnnlib.backends import available
from cnnlib.errors import DeviceError

SECONDS = 30.0
HEAD = "#ifndef INFINITY\n#define INFINITY __int_as_float(0x7f800000)\n#endif\n#line 1\n"


def what_else(text: str) -> str:
    """The end of a verdict: what the emulator did, what the compiler says, and whether a GPU is here."""
    said = "It ran in the emulator, thread by thread; " + "; ".join(sorted({compiled(k) for k in kernels_in(text)}))
    why_not = available()["cuda"]
    return said + ("; `cnnlib learn fast 38` runs it on the GPU." if why_not is None else "; no GPU is used here.")


def never_launched(text: str) -> str | None:
    """Why a file without a kernel of its own does not count, or None."""
    launches = any(isinstance(node, ast.Name) and node.id == "launch" for node in ast.walk(ast.parse(text)))
    if launches and kernels_in(text):
        return None
    return (
        "your numbers are right, but no kernel of yours made them: write it as a string with __global__ in it, and launch it."
    )


def kernels_in(text: str) -> list[str]:
    """The strings of a Python file that hold a CUDA kernel; nothing is run."""
    strings = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return [s for s in strings if isinstance(s, str) and "__global__" in s]


@functools.lru_cache(maxsize=64)
def compiled(kernel: str) -> str:
    """What a compiler says about a kernel: "NVRTC 12.9 compiled it", its first error, or that there is none."""
    if next(_libraries(), None):
        command, name = [sys.executable, "-P", "-m", "cnnlib.learn.cuda"], "NVRTC"
    elif nvcc := shutil.which("nvcc"):
        command, name = [nvcc, "-x", "cu", "-ptx", "-o", os.devnull, "-"], "nvcc"
    else:
        return "no CUDA compiler is here"
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory(prefix="cnnlib-learn-") as folder:
        try:
            done = subprocess.run(
                command, input=HEAD + kernel, capture_output=True, text=True, timeout=SECONDS, cwd=folder, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            return f"{name} could not be asked ({type(e).__name__})"
    if done.returncode == 0:
        return f"{done.stdout.strip() or name} compiled it"
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line] or ["no reason given"]
    line = re.search(r"\((\d+)\): error: (.*)", errors[0])
    return f"but {name} does not compile it: {f'line {line[1]}: {line[2]}' if line else errors[0].strip()}"[:300]


def on_gpu(text: str, function: str) -> tuple[str, Callable[..., Any]]:
    """The learner's ``function``, whose launches go to the GPU. Raises DeviceError with the reason where there is none."""
    if why_not := available()["cuda"]:
        raise DeviceError(f"it does not run on a GPU: {why_not}")
    space: dict[str, Any] = {"launch": launch, "__name__": "learner"}
    exec(compile(text, "<learner>", "exec"), space)
    return "yours, on the GPU", space[function]


def launch(source: str, grid: Any, block: Any, *arguments: Any) -> None:
    """As cnnlib.learn.emulator.launch, on the GPU, in float32, with the arrays' way there and back."""
    name = re.search(r"__global__\s+void\s+(\w+)", source)
    if name is None:
        raise DeviceError("launch: the source holds no __global__ void function.")
    import cupy

    source = source if 'extern "C"' in source else source.replace("__global__", 'extern "C" __global__', 1)
    there = [cupy.asarray(a, dtype=np.float32) if isinstance(a, np.ndarray) else _scalar(a) for a in arguments]
    size = [tuple(map(int, n)) if isinstance(n, tuple | list) else (int(n),) for n in (grid, block)]
    cupy.RawKernel(HEAD + source, name[1])(*size, tuple(there))
    for here, result in zip(arguments, there, strict=True):
        if isinstance(here, np.ndarray) and here.flags.writeable:
            here[...] = result.get()


def _scalar(a: Any) -> Any:
    return np.float32(a) if isinstance(a, float) else np.int32(a)


# ---- NVRTC, without CuPy


def _libraries() -> Iterator[str]:
    """Where NVRTC may be: in the wheels that CuPy uses, in a CUDA installation, on the system's path."""
    folders = [Path(sysconfig.get_path("purelib")), *map(Path, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    for folder in folders:
        yield from map(str, sorted(folder.glob("nvidia/*/lib/libnvrtc.so.*")))
    for home in filter(None, (os.environ.get("CUDA_PATH"), "/usr/local/cuda")):
        yield from map(str, sorted(Path(home).glob("lib64/libnvrtc.so*")))
    if found := ctypes.util.find_library("nvrtc"):
        yield found


def nvrtc(kernel: str) -> tuple[str, str]:
    """(version, log of errors): the log is empty when the kernel compiles."""
    library = ctypes.CDLL(next(_libraries()))
    major, minor, program, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    library.nvrtcCreateProgram(ctypes.byref(program), kernel.encode(), b"kernel.cu", 0, None, None)
    failed = library.nvrtcCompileProgram(program, 0, None)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    return f"NVRTC {major.value}.{minor.value}", log.value.decode(errors="replace") if failed else ""


if __name__ == "__main__":
    version, log = nvrtc(sys.stdin.read())
    print(log or version)
    sys.exit(bool(log))
