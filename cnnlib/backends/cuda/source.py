"""From a .cu file to a kernel that runs: finds the sources, has CuPy compile them at first use, launches.

The sources are in ``cnnlib/_csrc`` of an installed package, in ``csrc`` of a checkout. CuPy keeps what NVRTC compiled on disk,
under a key made of the text and the options: so the shared header is put into the text, where a change of it is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cnnlib.errors import DeviceError

PACKAGE = Path(__file__).parents[2]
FOLDERS = PACKAGE / "_csrc", PACKAGE.parent / "csrc"
HEADER = '#include "cuda.cuh"\n'
REALS = {"f": "float", "d": "double"}  # by the character of a dtype

THREADS = 256  # in a block: eight warps, of which any GPU holds several blocks at a time
LONG_ROW = 1024  # longer rows get a block of threads each, shorter ones a warp


@cache
def folder() -> Path:
    """Where the CUDA sources are; DeviceError when they are in neither place."""
    for path in FOLDERS:
        if (path / "cuda.cuh").exists():
            return path
    raise DeviceError(f"the CUDA sources (*.cu) are neither in {FOLDERS[0]} nor in {FOLDERS[1]}: reinstall cnnlib.")


def sources() -> list[str]:
    """The names of the sources: "activation" for activation.cu."""
    return sorted(path.stem for path in folder().glob("*.cu"))


def text(name: str) -> str:
    """The source with the shared header in place; its lines keep their numbers, for the compiler's messages."""
    source = (folder() / f"{name}.cu").read_text(encoding="utf-8")
    header = (folder() / "cuda.cuh").read_text(encoding="utf-8")
    before, _, after = source.partition(HEADER)
    return f'{before}#line 1 "cuda.cuh"\n{header}#line {before.count(chr(10)) + 2} "{name}.cu"\n{after}'


def options(dtype: str) -> tuple[str, ...]:
    """What the compiler is told; ``dtype`` is "f" or "d". CuPy adds -ftz=true: float32 below 1.2e-38 becomes 0."""
    return "-std=c++17", f"-DREAL={REALS[dtype]}", f"-DREAL_IS_FLOAT={int(dtype == 'f')}"


Key = tuple[str, str, str, bool]  # source, kernel, dtype, cooperative
_functions: dict[Key, Callable[..., None]] = {}
_modules: dict[tuple[str, str, bool], Any] = {}


def _function(key: Key) -> Callable[..., None]:
    import cupy

    source, name, dtype, cooperative = key
    module = source, dtype, cooperative
    if module not in _modules:
        _modules[module] = cupy.RawModule(code=text(source), options=options(dtype), enable_cooperative_groups=cooperative)
    _functions[key] = _modules[module].get_function(name)
    return _functions[key]


def launch(
    source: str,
    name: str,
    dtype: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    *arguments: Any,
    cooperative: bool = False,
) -> None:
    """Run kernel ``name`` of ``source``.cu on the current stream. A grid of nothing is no launch.

    Arguments are arrays, ints (long long), floats (double) and None (a null pointer). ``cooperative``: all blocks run at the
    same time, so that they may wait for each other. Where they do not fit, CuPy warns and launches fewer.
    """
    if not grid[0]:
        return
    key = source, name, dtype, cooperative
    function = _functions.get(key) or _function(key)
    function(grid, block, tuple([0 if a is None else a for a in arguments]))


@cache
def multiprocessors() -> int:
    """Of the current GPU."""
    import cupy

    return int(cupy.cuda.Device().attributes["MultiProcessorCount"])


Launch = tuple[tuple[int, ...], tuple[int, ...]]


def elements(n: int, per_thread: int = 1) -> Launch:
    """Grid and block for n elements, of which a block takes THREADS * per_thread."""
    return (-(-n // (THREADS * per_thread)),), (THREADS,)


def rows(R: int, C: int) -> Launch:
    """Grid and block for R rows of C: a warp each, and as many rows in a block as make THREADS; or a block each."""
    if C > LONG_ROW:
        return (R,), (THREADS, 1)
    per_block = THREADS // 32
    return (-(-R // per_block),), (32, per_block)
