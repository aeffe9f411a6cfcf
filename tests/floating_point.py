"""The floating-point state of the calling thread, read and set through the C library: for tests."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import platform

_X86 = platform.machine() in ("x86_64", "AMD64")
_WORD = 28 if _X86 else 0  # where MXCSR, or FPCR, is in glibc's fenv_t

CONTROL = 0xFFC0 if _X86 else 0xFFFFFFFF  # the rest of MXCSR are sticky flags, which any arithmetic sets
STATES = {  # bits to set: FZ and DAZ; the three other rounding modes
    "flush": 0x8040 if _X86 else 1 << 24,
    "down": 0x2000 if _X86 else 2 << 22,
    "up": 0x4000 if _X86 else 1 << 22,
    "towards zero": 0x6000 if _X86 else 3 << 22,
    "flush, up": 0xC040 if _X86 else 1 << 24 | 1 << 22,
}


def supported() -> bool:
    return platform.libc_ver()[0] == "glibc" and platform.machine() in ("x86_64", "aarch64")


_libm = ctypes.CDLL(ctypes.util.find_library("m")) if supported() else None


def control() -> int:
    """The control bits of this thread."""
    buffer = ctypes.create_string_buffer(64)
    _libm.fegetenv(buffer)
    return int.from_bytes(buffer[_WORD : _WORD + 4], "little") & CONTROL


@contextlib.contextmanager
def state(name: str):
    """Inside the block this thread is in that state of STATES."""
    before = ctypes.create_string_buffer(64)
    _libm.fegetenv(before)
    changed = ctypes.create_string_buffer(before.raw, 64)
    word = int.from_bytes(before[_WORD : _WORD + 4], "little") | STATES[name]
    changed[_WORD : _WORD + 4] = word.to_bytes(4, "little")
    _libm.fesetenv(changed)
    try:
        yield
    finally:
        _libm.fesetenv(before)
