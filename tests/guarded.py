"""Kernels whose arrays lie at the edge of forbidden memory: what reads or writes outside of an array ends the process.

``python -m tests.guarded PROGRESS PLACE DTYPE COUNT`` makes NumPy allocate every array, the kernels' results too, between pages
without access, right before the one (PLACE "end") or after the other ("start"), and runs all kernels on COUNT random sizes
and on sizes of zero, with every instruction set. The file PROGRESS names the call at work.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import mmap
import sys
import warnings

import numpy as np

import cnnlib as cl
from cnnlib.backends import cpu, kernel_set
from tests.kernel_calls import FAMILIES, Call, Calls, Sizes, random_sizes

PAGE = mmap.PAGESIZE
MARK = 0xA5  # between an array and the other end of its pages

ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
ALLOCATE_MANY = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
REALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def c_library():
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


class Handler(ctypes.Structure):
    """PyDataMem_Handler of NumPy's C interface."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ALLOCATE),
        ("calloc", ALLOCATE_MANY),
        ("realloc", REALLOCATE),
        ("free", FREE),
    )


class Guard:
    """NumPy's allocator inside of ``with guard:``."""

    def __init__(self, place: str):
        self.at_end = place == "end"
        self.libc = c_library()
        self.blocks: dict[int, tuple[int, int, int]] = {}  # array -> its size, its pages
        self.damaged = 0
        self.handler = Handler(
            b"guarded", 1, None, ALLOCATE(lambda _, size: self.allocate(size)),
            ALLOCATE_MANY(lambda _, n, size: self.allocate(n * size, 0)), REALLOCATE(self.reallocate), FREE(self.free),
        )  # fmt: skip
        python = ctypes.pythonapi
        python.PyCapsule_New.restype = ctypes.py_object
        python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        python.PyCapsule_GetPointer.restype = ctypes.c_void_p
        python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        self.capsule = python.PyCapsule_New(ctypes.addressof(self.handler), b"mem_handler", None)
        interface = python.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
        functions = ctypes.cast(interface, ctypes.POINTER(ctypes.c_void_p))
        self.set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(functions[304])  # PyDataMem_SetHandler

    def allocate(self, size: int, fill: int = 0xFF) -> int:
        room = (size + PAGE - 1) // PAGE * PAGE
        pages = self.libc.mmap(None, room + 2 * PAGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self.libc.mprotect(pages + PAGE, room, mmap.PROT_READ | mmap.PROT_WRITE)
        array = pages + PAGE + (room - size if self.at_end else 0)
        ctypes.memset(pages + PAGE, MARK, room)
        ctypes.memset(array, fill, size)
        self.blocks[array] = size, pages, room
        return array

    def free(self, _, array: int, __=0) -> None:
        size, pages, room = self.blocks.pop(array)
        rest = ctypes.string_at(pages + PAGE, room - size) if self.at_end else ctypes.string_at(array + size, room - size)
        self.damaged += rest.count(MARK) != len(rest)
        self.libc.munmap(pages, room + 2 * PAGE)

    def reallocate(self, _, array: int, size: int) -> int:
        new = self.allocate(size)
        ctypes.memmove(new, array, min(size, self.blocks[array][0]))
        self.free(None, array)
        return new

    @contextlib.contextmanager
    def __call__(self):
        before, limit = self.set_handler(self.capsule), cpu.get_buffer_limit()
        cpu.set_buffer_limit(0)  # results from here, too, not from the kernels' own heap
        try:
            yield
        finally:
            cpu.set_buffer_limit(limit)
            self.set_handler(before)


def run(call: Call, guard: Guard, kernels, progress) -> None:
    """On every instruction set; the results must be those of plain memory, which comes second: damage there shows too late."""
    for isa in cpu.available_isas():
        cpu.set_isa(isa)
        progress.seek(0)
        progress.write(f"{isa} {call}\n".ljust(600))
        progress.flush()
        with guard():
            guarded = call.with_arrays(np.copy)
            results = guarded.on(kernels)
            if not all(y.ctypes.data in guard.blocks for y in results):
                raise AssertionError("the results do not come from NumPy's allocator: nothing is seen of what lies around them")
            bits = [(y.shape, y.dtype, y.tobytes()) for y in results]
        del guarded, results
        if guard.damaged or bits != call.bits_on(kernels):
            what = "wrote outside of its arrays" if guard.damaged else "gives other results there"
            raise AssertionError(f"{isa} {call}: {what}")


def calls_of_size_zero(dtype: str):
    """Every size as zero in turn, as far as the textbook can say what the other arguments are then."""
    for name in ("M", "N", "K", "batch", "images", "C", "F", "n", "elements", "steps", "sequences", "units"):
        for family in FAMILIES:
            with contextlib.suppress(ValueError, ZeroDivisionError, IndexError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from Calls(0, dtype, dataclasses.replace(Sizes(), **{name: 0})).of(family)


def main(progress_path: str, place: str, dtype: str, count: str) -> None:
    kernels, guard = kernel_set("cpu"), Guard(place)
    rng = np.random.default_rng(71)
    calls = [call for i in range(int(count)) for call in Calls(i, dtype, random_sizes(rng, 1 << 14))]
    for width in (5, 9, 17, 33):  # rows of outputs that fill vectors exactly, and whose last window ends the image
        calls += Calls(width, dtype, Sizes(W=width, window=(3, 3), step=(2, 2))).of("pool")
    calls += calls_of_size_zero(dtype)
    with open(progress_path, "w") as progress:
        for i, call in enumerate(calls):
            threads = 1 + i % 3
            cpu._kernels.split_finely(threads > 1)
            cl.set_num_threads(threads)
            run(call, guard, kernels, progress)
    print(f"{len(calls)} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
