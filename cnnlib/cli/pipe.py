"""What becomes of a command whose reader has read enough, such as ``cnnlib models | head -1``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Inside the block, a reader of the output that closes it ends the program: without a word, with exit code 1."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # as with `>&-`
                sys.stdout.flush()  # here: of what fails at exit Python itself complains
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which takes what the buffer still holds
        sys.exit(1)
