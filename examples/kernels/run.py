"""From three loops to the machine's limit, one idea per step: compiles the steps, checks them and times them.

    python examples/kernels/run.py                        every step of gemm/, at 2048 x 2048 x 2048
    python examples/kernels/run.py --size 512 1000        other sizes; --steps 1-4 or 5,8 picks steps
    python examples/kernels/run.py conv                   the second ladder, convolution

Needs a C compiler (cc, gcc or clang, or the one in $CC). docs/kernels/ explains what happens.
"""

import argparse
import ctypes
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # before NumPy is imported: its product is timed on one thread
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL")}, VECLIB_MAXIMUM_THREADS="1")

import numpy as np

HERE = Path(__file__).parent
# The compiler may not invent vectors: what a step's code does not say, it does not do. --auto lifts that.
BY_HAND = ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"]
NATIVE = "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"
FLAGS = ["-std=gnu11", "-O3", NATIVE, "-ffp-contract=fast", "-fPIC", "-shared", "-pthread"]


class Gemm:
    """C = A B: a (M, K), b (K, N) -> (M, N)."""

    sizes, most = "M N K", 2048
    odd = [(1, 1, 1), (2, 3, 5), (15, 33, 7), (29, 65, 130), (61, 127, 31), (171, 97, 523), (4, 2081, 9)]

    @staticmethod
    def dims(size: int) -> tuple[int, ...]:
        return size, size, size

    @staticmethod
    def shapes(M: int, N: int, K: int) -> list[tuple[int, ...]]:
        return [(M, K), (K, N), (M, N)]

    @staticmethod
    def operations(M: int, N: int, K: int) -> float:
        return 2.0 * M * N * K

    @staticmethod
    def reference(a, b):
        return a @ b


class Conv:
    """3 x 3 convolution, padding 1: x (N, C, H, W), w (F, C, 3, 3) -> (N, F, H, W)."""

    sizes, most = "N C H W F", 64
    odd = [(1, 1, 1, 1, 1), (2, 3, 5, 7, 2), (1, 2, 33, 3, 15), (3, 7, 9, 41, 29), (2, 61, 13, 17, 15)]

    @staticmethod
    def dims(size: int) -> tuple[int, ...]:
        return 8, size, 56, 56, size

    @staticmethod
    def shapes(N: int, C: int, H: int, W: int, F: int) -> list[tuple[int, ...]]:
        return [(N, C, H, W), (F, C, 3, 3), (N, F, H, W)]

    @staticmethod
    def operations(N: int, C: int, H: int, W: int, F: int) -> float:
        return 2.0 * N * F * C * 9 * H * W

    @staticmethod
    def reference(x, w):
        H, W = x.shape[2:]
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        parts = (
            np.tensordot(w[:, :, r, s], padded[:, :, r : r + H, s : s + W], axes=(1, 1)) for r in range(3) for s in range(3)
        )
        return sum(parts).swapaxes(0, 1)


LADDERS: dict[str, type[Gemm] | type[Conv]] = {"gemm": Gemm, "conv": Conv}


class Step:
    """A C file: its number and idea (its first line), and its function once it is compiled."""

    def __init__(self, source: Path):
        self.source, self.ladder = source, source.parent.name
        self.number = int(source.name[:2])
        self.idea = re.sub(r"^/\* | \*/$", "", source.read_text(encoding="utf-8").splitlines()[0])

    def compile(self, cc: str, folder: Path, threads: int = 2, auto: bool = False) -> "Step":
        library = compile_c(cc, self.source, folder, [f"-DTHREADS={threads}", *([] if auto else BY_HAND)])
        self.threads = threads if "pthread_create" in self.source.read_text(encoding="utf-8") else 1
        self.function = getattr(library, self.ladder)
        self.function.restype = None
        return self

    def __call__(self, dims: tuple[int, ...], *arrays: np.ndarray) -> None:
        self.function(*dims, *(ctypes.c_void_p(x.ctypes.data) for x in arrays))


def steps_of(ladder: str, wanted: str | None = None) -> list[Step]:
    """The steps of a ladder; ``wanted`` is "1-4", "5,8" or None for all."""
    found = [Step(source) for source in sorted((HERE / ladder).glob("[0-9]*.c"))]
    if wanted is None:
        return found
    numbers = set()
    for part in wanted.split(","):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return [step for step in found if step.number in numbers]


def compiler() -> str | None:
    """The system's C compiler: $CC, or the first of cc, gcc and clang."""
    return next((path for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None)


def compile_c(cc: str, source: Path, folder: Path, flags: list[str]) -> ctypes.CDLL:
    library = folder / f"{source.parent.name}_{source.stem}.so"
    done = subprocess.run([cc, *FLAGS, *flags, str(source), "-o", str(library)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{cc} cannot compile {source.name}:\n{done.stderr}")
    return ctypes.CDLL(str(library))


# ---- right before fast


def guarded(shape: tuple[int, ...]) -> np.ndarray:
    """A NaN array with NaN before and behind it, where nothing may be written (x.base) and what is read does harm."""
    size, margin = int(np.prod(shape)), 64
    return np.full(size + 2 * margin, np.nan, np.float32)[margin : margin + size].reshape(shape)


def check(step: Step, dims: tuple[int, ...]) -> np.ndarray:
    """Compares a step with float64 and returns its result. The bound is that of any order of summation in float32."""
    ladder, rng = LADDERS[step.ladder], np.random.default_rng(sum(dims))
    *inputs, out = (guarded(shape) for shape in ladder.shapes(*dims))
    for x in inputs:
        x[...] = rng.standard_normal(x.shape)
    step(dims, *inputs, out)
    exact = [x.astype(np.float64) for x in inputs]
    terms = ladder.operations(*dims) / 2 / out.size
    bound = (terms + 1) * np.finfo(np.float32).eps * ladder.reference(*map(abs, exact))
    wrong = ~(abs(out - ladder.reference(*exact)) <= bound)
    if wrong.any():
        raise AssertionError(f"{step.source.name} is wrong at {dims}: {wrong.sum()} of {out.size} elements")
    if np.isfinite(out.ravel().base).sum() != out.size:
        raise AssertionError(f"{step.source.name} writes outside of its array at {dims}")
    return out


# ---- how fast


class Row:
    """What the table times: work() does `operations` and is timed in short bursts."""

    def __init__(self, label: str, idea: str, threads: int, operations: float, work: Callable[[], object], mark: str = ""):
        self.label, self.idea, self.threads, self.mark = label, idea, threads, mark
        self.operations, self.work = operations, work
        self.seconds: list[float] = []

    def burst(self, seconds: float = 0.05) -> None:
        end = time.perf_counter() + seconds
        while True:
            started = time.perf_counter()
            self.work()
            stopped = time.perf_counter()
            self.seconds.append(stopped - started)
            if stopped > end:
                return

    @property
    def rate(self) -> float:
        """Billions a second."""
        return self.operations / statistics.median(self.seconds) / 1e9


def step_row(step: Step, dims: tuple[int, ...], arrays: list[np.ndarray]) -> Row:
    """A step that would take more than a second is timed on fewer rows of A (or images): its rate is the same."""
    ladder, first = LADDERS[step.ladder], dims[0]
    few = (max(1, first // 64), *dims[1:])
    started = time.perf_counter()
    step(few, *arrays)
    seconds = (time.perf_counter() - started) * first / few[0]
    some = (max(few[0], int(first * min(1, 0.5 / seconds))) if seconds > 1 else first, *dims[1:])
    mark = "" if some == dims else "*"
    return Row(f"{step.number}", step.idea, step.threads, ladder.operations(*some), lambda: step(some, *arrays), mark)


def comparisons(ladder: str, dims: tuple[int, ...], arrays: list[np.ndarray], threads: int) -> list[Row]:
    """cnnlib's own kernel, and NumPy's product."""
    inputs, out, operations = arrays[:-1], arrays[-1], LADDERS[ladder].operations(*dims)
    rows = []
    try:
        import cnnlib as cl
        from cnnlib.backends import cpu
    except ImportError:
        print("cnnlib is not installed: its own kernel is left out.")
    else:
        kernels = cpu.kernels()

        def ours(n: int) -> None:
            cl.set_num_threads(n)
            if ladder == "gemm":
                kernels["gemm"](*inputs)
            else:
                kernels["conv2d_forward"](*inputs, None, (1, 1), (1, 1, 1, 1), (1, 1), 1)

        for n in sorted({1, threads}) if kernels else ():
            name = f"cnnlib's {'gemm' if ladder == 'gemm' else 'conv2d'}, {n} thread{'s' * (n > 1)}"
            rows.append(Row("", name, n, operations, lambda n=n: ours(n)))
    if ladder == "gemm":
        rows.append(Row("", "NumPy's matmul, 1 thread", 1, operations, lambda: np.matmul(*inputs, out=out)))
    return rows


def limits(library: ctypes.CDLL) -> list[Row]:
    """What the machine can do at most, on one core: multiply-adds, and bytes read from memory."""
    library.multiply_adds.restype = ctypes.c_double
    steps, memory = ctypes.c_long(10**6), np.ones(1 << 26, np.float32)  # 256 MiB: more than the caches hold

    def read() -> None:
        library.sum(ctypes.c_void_p(memory.ctypes.data), ctypes.c_long(memory.size))

    return [
        Row("", "operations", 1, library.multiply_adds(steps), lambda: library.multiply_adds(steps)),
        Row("", "bytes", 1, memory.nbytes, read),
    ]


def measure(rows: list[Row], rounds: int) -> None:
    """In turns, so that a drift of the machine's speed meets all rows alike."""
    for row in rows:
        row.work()
    for _ in range(rounds):
        for row in rows:
            row.burst()


def table(rows: list[Row], peak: float) -> str:
    lines = [f"step  {'idea':70} {'GFLOP/s':>8}  {'% of peak':>9} {'gain':>8}"]
    before = None
    for row in rows:
        gain = f"{row.rate / before:.2f} x" if before and row.label else ""
        before = row.rate if row.label else before
        share = 100 * row.rate / (peak * row.threads)
        lines.append(f"{row.label:>4}  {row.idea:70} {row.rate:8.1f}{row.mark:1} {share:9.1f} {gain:>8}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", nargs="?", default="gemm", choices=list(LADDERS))
    parser.add_argument("--size", type=int, nargs="+", help="M = N = K (gemm), or the channels (conv)")
    parser.add_argument("--steps", help="1-4, or 5,8")
    parser.add_argument("--threads", type=int, default=2, help="of the step with threads")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--auto", action="store_true", help="let the compiler vectorise by itself")
    options = parser.parse_args()

    cc = compiler()
    if cc is None or sys.platform == "win32":
        raise SystemExit("The steps are C files, and no C compiler (cc, gcc or clang) was found: install one, or set CC.")
    steps = steps_of(options.ladder, options.steps)
    if not steps:
        raise SystemExit(f"No step {options.steps}: {options.ladder} has 1 to {len(steps_of(options.ladder))}.")
    ladder = LADDERS[options.ladder]

    with tempfile.TemporaryDirectory() as folder:
        library = compile_c(cc, HERE / "peak.c", Path(folder), [])
        for step in steps:
            step.compile(cc, Path(folder), options.threads, options.auto)
            for dims in ladder.odd:
                check(step, dims)
        print(f"Every step agrees with float64 at {len(ladder.odd)} odd sizes.")

        for size in options.size or [ladder.most]:
            dims = ladder.dims(size)
            arrays = [np.random.default_rng(0).standard_normal(s, np.float32) for s in ladder.shapes(*dims)]
            rows = [step_row(step, dims, arrays) for step in steps]
            rows += comparisons(options.ladder, dims, arrays, options.threads)
            peak, reading = limits(library)
            measure([peak, reading, *rows], options.rounds)
            print(f"\n{ladder.sizes} = {' '.join(map(str, dims))}")
            print(f"One core: at most {peak.rate:.0f} GFLOP/s; reads memory at {reading.rate:.0f} GB/s.")
            print(table(rows, peak.rate))
            if any(row.mark for row in rows):
                print("* timed on fewer rows of A" if options.ladder == "gemm" else "* timed on fewer images")


if __name__ == "__main__":
    main()
