"""Kernels that wait for memory: what one pass, a fresh array, a wider type and a block in the cache cost.

    python examples/kernels/memory.py                     arrays of 64 MiB; --size 16 for others

docs/kernels/memory.md explains what happens.
"""

import argparse
import ctypes
import tempfile
from pathlib import Path

import numpy as np
from run import HERE, Row, compile_c, compiler, measure

BLOCK = 1 << 15  # floats, 128 KiB: parts of x, y and the value in between fit into an L2 of 1 MiB


def rows_of(mebibytes: int, library: ctypes.CDLL) -> list[Row]:
    n = mebibytes << 18
    x, y = np.linspace(-1, 1, n, dtype=np.float32), np.ones(n, np.float32)
    between, small = np.ones(n, np.float32), np.ones(BLOCK, np.float32)
    x64, y64 = x.astype(np.float64), np.ones(n)

    def two_passes() -> None:
        np.multiply(x, 2, out=between)
        np.add(between, 1, out=y)

    def two_passes_by_blocks() -> None:
        for i in range(0, n, BLOCK):
            part = small[: min(BLOCK, n - i)]
            np.multiply(x[i : i + BLOCK], 2, out=part)
            np.add(part, 1, out=y[i : i + BLOCK])

    def one_pass() -> None:
        library.one_pass(ctypes.c_long(n), ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data))

    least = 8 * n  # bytes: x is read, y written
    return [
        Row("1", "reading x", 1, 4 * n, lambda: x.max()),
        Row("2", "y = 2 x", 1, least, lambda: np.multiply(x, 2, out=y)),
        Row("3", "y = 2 x into a fresh array", 1, least, lambda: x * 2),
        Row("4", "y = 2 x in float64", 1, least, lambda: np.multiply(x64, 2, out=y64)),
        Row("5", "y = 2 x + 1, two passes over arrays", 1, least, two_passes),
        Row("6", "y = 2 x + 1, two passes over blocks of 128 KiB", 1, least, two_passes_by_blocks),
        Row("7", "y = 2 x + 1, one pass in C", 1, least, one_pass),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="MiB of one float32 array")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    cc = compiler()
    if cc is None:
        raise SystemExit("No C compiler (cc, gcc or clang) was found: install one, or set CC.")
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(options.size, compile_c(cc, HERE / "one_pass.c", Path(folder), []))
        measure(rows, options.rounds)
    print(f"{'':4}  {'what':50} {'ms':>8} {'GB/s':>8}")
    for row in rows:
        print(f"{row.label:>4}  {row.idea:50} {row.operations / row.rate / 1e6:8.2f} {row.rate:8.1f}")


if __name__ == "__main__":
    main()
