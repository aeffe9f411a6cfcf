"""tests/test_cuda.py, which is for a GPU, on the stand-in for CuPy: ``python -m tests.cuda.dry_run [what pytest takes]``."""

from __future__ import annotations

import sys

import pytest

from tests.cuda.device import emulated

LEFT_OUT = (
    "faster_method", "memory_that_ends", "shared_with_pytorch", "doctor",  # CuPy itself is needed
    "large", "many_blocks", "many_steps", "recurrent_layers",  # take minutes on the emulator
)  # fmt: skip


def main() -> int:
    with emulated():
        return int(
            pytest.main(
                ["-q", "-p", "no:cacheprovider", "tests/test_cuda.py", "-k", f"not ({' or '.join(LEFT_OUT)})", *sys.argv[1:]]
            )
        )


if __name__ == "__main__":
    sys.exit(main())
