"""How far convolutions in float32 lie from float64: Winograd ("fast"), direct summation ("exact"), PyTorch if installed.

    python -m benchmarks.error

Inputs as in a network: x after a ReLU, w drawn as He does, dy normal. Errors are relative to the root mean square of the
float64 result: the largest, and the root mean square.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

import cnnlib as cl
from cnnlib.backends import REFERENCE, cpu, kernel_set
from cnnlib.cli.pipe import reader_may_leave

# batch, channels in and out, image, kernel, stride
SHAPES = (
    *((4, 64, 56, 3, 1), (4, 64, 32, 3, 1), (4, 256, 28, 3, 1), (8, 256, 8, 3, 1), (2, 512, 14, 3, 1), (8, 512, 7, 3, 1)),
    *((4, 64, 28, 5, 1), (4, 128, 14, 5, 1), (4, 64, 28, 7, 1), (8, 96, 56, 3, 2), (8, 64, 32, 4, 2), (8, 256, 16, 4, 2)),
)


def main() -> None:
    if not cpu.available():
        raise SystemExit(f"benchmarks: the compiled kernels are needed; {cpu.why_not()}")
    before = cl.get_precision()
    print(f"instruction set {cpu.isa()}; largest error / root mean square error, relative to the rms of the result")
    print(f"{'pass':16} {'x':>16} {'w':>7} {'fast':>19} {'exact':>19} {'torch':>19}")
    for batch, channels, size, kernel, stride in SHAPES:
        for name, arguments in passes(batch, channels, size, kernel, stride).items():
            y64 = getattr(REFERENCE, name)(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments))
            columns = []
            for precision in cpu.PRECISIONS:
                cl.set_precision(precision)
                columns.append(errors(getattr(kernel_set("cpu"), name)(*arguments), y64))
            columns.append(errors(torch_result(name, arguments), y64) if importlib.util.find_spec("torch") else "")
            shape = f"{batch}×{channels}×{size}×{size}"
            print(
                f"{name.removeprefix('conv2d_'):16} {shape:>16} {kernel}×{kernel} s{stride:<2} "
                + " ".join(f"{c:>19}" for c in columns),
                flush=True,
            )
    cl.set_precision(before)


def passes(batch: int, channels: int, size: int, kernel: int, stride: int) -> dict[str, tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    padding = (kernel - 1) // 2
    out = (size + 2 * padding - kernel) // stride + 1
    x = rng.standard_normal((batch, channels, size, size), dtype=np.float32)
    dy = rng.standard_normal((batch, channels, out, out), dtype=np.float32)
    w = rng.standard_normal((channels, channels, kernel, kernel), dtype=np.float32)
    w *= np.float32((2 / (kernel**2 * channels)) ** 0.5)
    settings = (stride, stride), (padding,) * 4, (1, 1), 1
    x = np.maximum(x, 0)
    return {
        "conv2d_forward": (x, w, None, *settings),
        "conv2d_backward_input": (dy, w, x.shape, *settings),
        "conv2d_backward_weight": (dy, x, w.shape, *settings),
    }


def errors(y: np.ndarray, y64: np.ndarray) -> str:
    scale = float((y64**2).mean() ** 0.5)
    difference = abs(y - y64) / scale
    return f"{difference.max():.1e} / {(difference**2).mean() ** 0.5:.1e}"


def torch_result(name: str, arguments: tuple[Any, ...]) -> np.ndarray:
    import torch

    a, b = (torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in arguments[:2])
    gradient: Callable = torch.ops.aten.convolution_backward
    stride, padding = list(arguments[3]), list(arguments[4][:2])
    geometry = stride, padding, [1, 1], False, [0, 0], 1
    if name == "conv2d_forward":
        return torch.nn.functional.conv2d(a, b, stride=stride, padding=padding).numpy()
    if name == "conv2d_backward_input":
        return gradient(a, torch.empty(arguments[2]), b, None, *geometry, [True, False, False])[0].numpy()
    return gradient(a, b, torch.empty(arguments[2]), None, *geometry, [False, True, False])[1].numpy()


if __name__ == "__main__":
    with reader_may_leave():
        main()
