"""Where data files come from: a folder of yours (``CNNLIB_DATA``), the cache, or a checked download into the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnlib.errors import DataError


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded: its name, its SHA-256, and the addresses (folders) that have it."""

    name: str
    sha256: str
    mirrors: tuple[str, ...]


def cache_dir() -> Path:
    """Where downloads are kept: ``CNNLIB_CACHE``, or the system's cache folder + ``cnnlib``. It need not exist yet."""
    if chosen := os.environ.get("CNNLIB_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "cnnlib"


def local_files(folder: str, names: Sequence[str]) -> list[Path] | None:
    """The files below ``CNNLIB_DATA/folder``, each as it is named or without its ``.gz``; None if none of them is there.

    Some but not all of them is an error: a download would silently mix two sources.
    """
    if not (root := os.environ.get("CNNLIB_DATA")):
        return None
    root_path = Path(root).expanduser()
    if not root_path.is_dir():
        raise DataError(f"CNNLIB_DATA is {root!r}, which is not a folder: correct it or unset it.")
    found = [_first_file(root_path / folder / n, root_path / folder / n.removesuffix(".gz")) for n in names]
    missing = [n for n, f in zip(names, found, strict=True) if f is None]
    if len(missing) == len(names):
        return None
    if missing:
        raise DataError(
            f"{root_path / folder} lacks {', '.join(missing)}: put {'it' if len(missing) == 1 else 'them'} "
            f"there, or take the other files away to have the set downloaded."
        )
    return [f for f in found if f is not None]


def _first_file(*paths: Path) -> Path | None:
    return next((p for p in paths if p.is_file()), None)


def cached(folder: str, remote: Remote) -> Path | None:
    """The file in the cache, if it is there and has the right SHA-256."""
    path = cache_dir() / folder / remote.name
    return path if path.is_file() and sha256(path) == remote.sha256 else None


def fetch(folder: str, remote: Remote) -> Path:
    """The file from the cache, else downloaded into it. What does not have the right SHA-256 is not kept."""
    if path := cached(folder, remote):
        return path
    pooch = _pooch()
    target = cache_dir() / folder
    problems = []
    for mirror in remote.mirrors:
        try:
            return Path(pooch.retrieve(mirror + remote.name, f"sha256:{remote.sha256}", remote.name, target))
        except ValueError:  # pooch has already removed what it downloaded
            problems.append(f"{mirror}: the file does not have the SHA-256 {remote.sha256}; it was thrown away")
        except Exception as error:  # whatever the network or the disk says: try the next address
            problems.append(f"{mirror}: {error}")
    with contextlib.suppress(OSError):
        (target / remote.name).unlink()  # a damaged older download, or it would have been returned above
    raise DataError(
        f"{remote.name} ({folder}) could not be downloaded:\n  " + "\n  ".join(problems) + "\n"
        f"Try again later, or put the files into a folder {folder!r} and let CNNLIB_DATA name the "
        f"folder above it."
    )


def _pooch():
    try:
        import pooch
    except ImportError:
        raise DataError(
            'downloading data needs the package pooch: pip install "cnnlib[data]" '
            "(or put the files below a folder named by CNNLIB_DATA)."
        ) from None
    return pooch


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
