"""Cython in plain Python clothes: typed loops that run as they are, and fast once they are compiled.

Cython reads types from annotations (``i: cython.Py_ssize_t``, ``x: cython.floating[:, ::1]``). `cython` here is a stand-in
for the module of that name, so that such code also runs where there is no Cython: the judge runs it as plain Python.
`compiled` turns the same text into C, compiles that and loads it, where Cython and a C compiler are found.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnlib.errors import DeviceError

DIRECTIVES = "language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False"
HEADER = f"# cython: {DIRECTIVES}\nimport cython\n"
HEADER_LINES = 2


class TypeName:
    """A C type in an annotation: ``cython.double``, ``cython.double[:, ::1]``, ``cython.int(3.7)``."""

    def __getitem__(self, axes):
        return self

    def __call__(self, value=0):
        return value


class cython:
    """What typed code needs of the module cython, without effect."""

    int = long = uint = char = uchar = bint = Py_ssize_t = size_t = float = double = floating = TypeName()
    compiled = False

    def boundscheck(on):
        return lambda function: function

    wraparound = cdivision = initializedcheck = nonecheck = boundscheck

    def locals(**types):
        return lambda function: function

    def cfunc(function):
        return function

    ccall = inline = cfunc

    def declare(kind, value=None):
        return value


def compiled(text: str, names: Sequence[str]) -> tuple[Any, ...]:
    """The functions called ``names`` of a text in Cython's pure Python mode, compiled with ``cc -O2 -march=native``.

    Raises DeviceError with the reason: no Cython, no compiler, or what either of them says about the text.
    """
    if importlib.util.find_spec("Cython") is None:
        raise DeviceError("Cython is not installed: pip install Cython")
    with tempfile.TemporaryDirectory(prefix="cnnlib-learn-") as folder:
        source = Path(folder, "learnt.pyx")
        library = source.with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
        source.write_text(HEADER + text, encoding="utf-8")
        _run([sys.executable, "-m", "cython", "-3", str(source)])
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        include, c = f"-I{sysconfig.get_path('include')}", str(source.with_suffix(".c"))
        _run([*compiler, "-shared", "-fPIC", "-O2", "-march=native", "-w", include, c, "-o", str(library), *_linking()])
        spec = importlib.util.spec_from_file_location("learnt", library)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return tuple(getattr(module, name) for name in names)


def whether() -> str:
    """The end of a verdict: what was done with the types, and what can be."""
    missing = [] if importlib.util.find_spec("Cython") else ["Cython"]
    if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        missing.append("a C compiler")
    if missing:
        return f"It ran as plain Python; to compile it, {' and '.join(missing)} would be needed."
    return "It ran as plain Python; `cnnlib learn fast 37` compiles it."


def _linking() -> list[str]:
    return ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise DeviceError(f"{Path(command[0]).name} could not be run: {e}") from e
    if done.returncode:
        found = re.search(r"learnt\.pyx:(\d+):\d+: (.*)", done.stdout + done.stderr)
        where = f"line {int(found[1]) - HEADER_LINES}: {found[2]}" if found else done.stderr.strip()[-300:]
        raise DeviceError(f"it does not compile: {where}")
