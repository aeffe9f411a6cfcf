"""An operation of your own, from its formula to a C kernel: Swish, also called SiLU.

    python examples/own_op/swish.py

Formula, for each element, with the logistic function σ(x) = 1 / (1 + e^−x)::

    y = x σ(x)

Adjoint, with dy = ∂J/∂y. The product rule, and σ′ = σ (1 − σ)::

    ∂y/∂x = σ + x σ (1 − σ) = σ (1 + x (1 − σ)),   so   dx = dy σ (1 + x (1 − σ))

Source: Elfwing, Uchibe & Doya, "Sigmoid-weighted linear units for neural network function approximation in reinforcement
learning", 2018; Ramachandran, Zoph & Le, "Searching for activation functions", 2017. docs/own-op.md explains each step.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.backends import xp_of
from cnnlib.backends.tolerance import bound, first_difference

# ---- 1. the textbook: plain functions on arrays, forward followed at once by backward


def sigmoid(x):
    xp = xp_of(x)  # numpy or cupy
    e = xp.exp(-abs(x))  # at most 1: never overflows
    return xp.where(x < 0, e, 1.0) / (1.0 + e)


def swish_forward(x):
    return x * sigmoid(x)


def swish_backward(dy, x):
    s = sigmoid(x)
    return dy * s * (1.0 + x * (1.0 - s))


# ---- 2. the operation: what is saved, and which adjoint comes from which kernel


class Swish(cl.Op):
    """Saves x."""

    formula = "y = x σ(x)"

    @staticmethod
    def forward(ctx, x):
        ctx.save(x=x)
        return swish_forward(x)

    @staticmethod
    def backward(ctx, dy):
        return swish_backward(dy, ctx.x)


# ---- 3. the public function


def swish(x):
    """x σ(x), element by element: any shape, float32 or float64."""
    return Swish.apply(x)


# ---- 4. the same kernels in C


def compiler() -> str | None:
    """The system's C compiler: $CC, or the first of cc, gcc and clang."""
    return next((path for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None)


def compile_swish(folder: Path) -> ctypes.CDLL:
    """swish.c, compiled for float32 and for float64 and linked into one library."""
    source = Path(__file__).with_name("swish.c")
    cc, library = compiler(), folder / "swish.so"
    assert cc is not None
    flags = ["-std=c11", "-O3", "-fno-trapping-math", "-fPIC"]
    objects = []
    for real, integer, suffix in (("float", "int32_t", "f32"), ("double", "int64_t", "f64")):
        macros = [f"-DREAL={real}", f"-DINT={integer}", f"-DNAME(f)=f##_{suffix}"]
        objects.append(str(folder / f"{suffix}.o"))
        subprocess.run([cc, *flags, *macros, "-c", str(source), "-o", objects[-1]], check=True)
    subprocess.run([cc, "-shared", *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class Compiled:
    """The two C functions with the signatures of the textbook."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library

    def swish_forward(self, x):
        y = np.empty_like(x)
        self._call("swish_forward", x, y)
        return y

    def swish_backward(self, dy, x):
        dx = np.empty_like(x)
        self._call("swish_backward", dy, x, dx)
        return dx

    def _call(self, name, *arrays):
        # C sees addresses only. The engine has made the arrays contiguous, and equal in dtype and shape.
        function = getattr(self.library, f"{name}_f32" if arrays[0].dtype == np.float32 else f"{name}_f64")
        function(ctypes.c_ssize_t(arrays[0].size), *(ctypes.c_void_p(a.ctypes.data) for a in arrays))


# ---- 5. checks


def check_kernel(name, textbook, compiled, *arrays):
    """Does a C kernel lie as near to the float64 textbook as rounding allows?"""
    for dtype in (np.float32, np.float64):
        arguments = tuple(a.astype(dtype) for a in arrays)
        expected = textbook(*(a.astype(np.float64) for a in arguments))
        worst = first_difference(compiled(*arguments), expected, bound(name, textbook, arguments, expected, dtype))
        if worst is not None:
            index, size = worst
            sys.exit(f"{name} in C is wrong at {index} in {np.dtype(dtype)}: off by {size:.1e} of the largest value.")
        print(f"{name}: C and textbook agree in {np.dtype(dtype)}")


def milliseconds(function, *arrays, repeats=15):
    """Median over some runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function(*arrays)
        times.append((time.perf_counter() - started) * 1e3)
    return sorted(times)[repeats // 2]


def train(steps: int = 800) -> float:
    """Fits sin(3x) with a small network that uses swish; returns the last loss."""
    cl.manual_seed(0)
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    target = np.sin(3 * x)
    first, second = nn.Linear(1, 16), nn.Linear(16, 1)
    optimizer = optim.Adam([*first.parameters(), *second.parameters()], lr=0.01)
    for _ in range(steps):
        loss = ops.mse_loss(second(swish(first(x))), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 5)) * 3

    print("The operation with the textbook kernels: check_op")
    print(cl.check_op(Swish, x))
    print(f"a network with it fits sin(3x): last mean squared error {train():.2e}")

    if compiler() is None or sys.platform == "win32":
        print("\nThe C half is left out: no C compiler (cc, gcc or clang) was found. Install one, or set CC.")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        c = Compiled(compile_swish(Path(folder)))
        print("\nThe C kernels against the textbook")
        extreme = np.array([0.0, -0.0, 1e-30, -80.0, 80.0, -1e4, 1e4])
        x = np.concatenate([(rng.standard_normal(10_000) * 3), extreme])
        dy = rng.standard_normal(x.shape)
        check_kernel("swish_forward", swish_forward, c.swish_forward, x)
        check_kernel("swish_backward", swish_backward, c.swish_backward, dy, x)

        print("\nThe operation with the C kernels in place of its own: check_op")

        def forward(ctx, x):
            ctx.save(x=x)
            return c.swish_forward(x)

        def backward(ctx, dy):
            return c.swish_backward(dy, ctx.x)

        with cl.override(Swish, forward=forward, backward=backward):
            print(cl.check_op(Swish, rng.standard_normal((8, 5)) * 3))
            print(f"the same network, with C: last mean squared error {train():.2e}")

        print("\nMilliseconds on this machine for a million float32 numbers, one thread, medians")
        x, dy = rng.standard_normal((2, 1_000_000)).astype(np.float32)
        for name, textbook, compiled, arrays in (
            ("forward", swish_forward, c.swish_forward, (x,)),
            ("backward", swish_backward, c.swish_backward, (dy, x)),
        ):
            print(f"{name:8}  textbook {milliseconds(textbook, *arrays):6.2f}   C {milliseconds(compiled, *arrays):6.2f}")


if __name__ == "__main__":
    main()
