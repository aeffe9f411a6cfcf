"""The CUDA sources reach the user: in the wheel, in the archive of sources, and in a checkout."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cnnlib.backends.cuda import source
from cnnlib.errors import DeviceError

ROOT = Path(__file__).parent.parent
try:
    import setuptools.command.bdist_wheel  # noqa: F401  (setuptools >= 70.1; the build wants 77)

    BUILDS = (ROOT / "setup.py").exists()
except ImportError:
    BUILDS = False
in_checkout = pytest.mark.skipif(not BUILDS, reason="needs a checkout and setuptools >= 77")

EXPECTED = (
    "activation conv conv_depthwise conv_windows embedding linear loss norm norm_local optim pool random recurrent".split()
)


def setup_py(*arguments):
    done = subprocess.run([sys.executable, "setup.py", "-q", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sources_are_found():
    assert source.sources() == EXPECTED


@in_checkout
def test_an_installed_package_finds_them_without_the_checkout(tmp_path):
    setup_py("build_py", "--build-lib", str(tmp_path), "egg_info", "--egg-base", str(tmp_path))
    code = "from cnnlib.backends.cuda import source as s; print(s.folder(), *s.sources(), len(s.text('pool')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folder, *names, length = done.stdout.split()
    assert Path(folder) == tmp_path / "cnnlib" / "_csrc" and names == EXPECTED and int(length) == len(source.text("pool"))
    assert not list((tmp_path / "cnnlib" / "_csrc").glob("*.[ch]"))


@in_checkout
def test_the_archive_of_sources_has_them(tmp_path):
    setup_py("egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert names >= {f"csrc/{name}.cu" for name in EXPECTED} | {"csrc/cuda.cuh", "tests/cuda/emulator.h", "csrc/kernels.h"}


def test_where_they_are_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(source, "FOLDERS", (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(DeviceError, match=r"the CUDA sources \(\*\.cu\) are neither in .*a nor in .*b: reinstall cnnlib"):
        source.folder.__wrapped__()
