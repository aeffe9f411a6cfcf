"""Exercises of an instructor's own: files outside the package, in the folders and files that $CNNLIB_EXERCISES names.

`cnnlib learn template NAME` writes one to start from; it is a file as those in ``cnnlib/learn/exercises``, whose fields
cnnlib/learn/exercise.py explains.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from cnnlib.errors import DataError

VARIABLE = "CNNLIB_EXERCISES"


def add(path: Path) -> None:
    """Name ``path`` in the environment, where processes that are started later find it, too."""
    known = os.environ.get(VARIABLE, "").split(os.pathsep)
    if (name := str(path.resolve())) not in known:
        os.environ[VARIABLE] = os.pathsep.join([*filter(None, known), name])


def modules() -> list[ModuleType]:
    """The modules of all own exercises. Raises DataError for a path that is not there and a file that does not run."""
    return [_module(path) for path in _files()]


def _files() -> list[Path]:
    files: list[Path] = []
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(name)
        if not path.exists():
            raise DataError(f"${VARIABLE}: there is no {path}. Expected folders or files, with {os.pathsep!r} between them.")
        inside = sorted(p for p in path.glob("*.py") if p.name[0] not in "_.") if path.is_dir() else [path]
        files += [p for p in inside if p not in files]
    return files


def _module(path: Path) -> ModuleType:
    name = f"cnnlib_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: no Python file. An exercise of your own is one: cnnlib learn template NAME writes it.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise DataError(f"{path}: this exercise of your own does not run: {type(error).__name__}: {error}") from error
    return module
