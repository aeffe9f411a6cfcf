"""tests/test_cuda.py, which is for a GPU, on the stand-in for CuPy: ``python -m tests.cuda.dry_run [what pytest takes]``."""

from __future__ import annotations

import sys

import pytest

from tests.cuda.device import emulated

NEEDS_CUPY = "faster_method or memory_that_ends or shared_with_pytorch or doctor"


def main() -> int:
    with emulated():
        return int(
            pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_cuda.py", "-k", f"not ({NEEDS_CUPY})", *sys.argv[1:]])
        )


if __name__ == "__main__":
    sys.exit(main())
