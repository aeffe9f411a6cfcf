"""What is timed: one row per operation, forward and each backward, as kernels of a backend and as PyTorch calls.

A row maps a name to ``make(kernels, torch)``, which returns a function without arguments. ``kernels`` is a KernelSet or None,
``torch`` the module or None: exactly one of them is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlib.random import Key

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def rows() -> dict[str, Callable[[Any, Any], Callable[[], object]]]:
    table: dict[str, Callable] = {}
    for n in (128, 512, 1024):
        table[f"gemm {n}³ f32"] = _gemm(n, np.float32)
    table["gemm 512³ f64"] = _gemm(512, np.float64)
    table.update(_linear("linear 64×784→256", 64, 784, 256))
    table.update(_conv("conv 1→6 5×5, 64×32²", (64, 1, 32, 32), (6, 1, 5, 5), 0, 1))
    table.update(_conv("conv 6→16 5×5, 64×14²", (64, 6, 14, 14), (16, 6, 5, 5), 0, 1))
    table.update(_conv("conv 64→64 3×3, 16×32²", (16, 64, 32, 32), (64, 64, 3, 3), 1, 1))
    table.update(_conv("conv 3→64 7×7 s2, 8×112²", (8, 3, 112, 112), (64, 3, 7, 7), 3, 2))
    table.update(_conv("conv 128→128 1×1, 16×28²", (16, 128, 28, 28), (128, 128, 1, 1), 0, 1))
    table.update(_conv("conv depthwise 64 3×3, 16×28²", (16, 64, 28, 28), (64, 1, 3, 3), 1, 1, groups=64))
    table.update(_pool())
    table.update(_batch_norm())
    table.update(_layer_norm())
    table.update(_local_response_norm())
    table.update(_activations())
    table.update(_dropout())
    table.update(_cross_entropy())
    table.update(_embedding())
    table.update(_optimisers())
    return table


def _gemm(n, dtype):
    a, b = rng.standard_normal((2, n, n)).astype(dtype)

    def make(kernels, torch):
        if torch:
            ta, tb = torch.from_numpy(a), torch.from_numpy(b)
            return lambda: ta @ tb
        return lambda: kernels.gemm(a, b)

    return make


def _both(name, ours, theirs):
    """Rows whose two sides are given: ours(kernels) and theirs(torch) return functions."""
    return {name: lambda kernels, torch: theirs(torch) if torch else ours(kernels)}


def _linear(name, R, I, O):
    x, w, b, dy = normal(R, I), normal(O, I), normal(O), normal(R, O)
    t = lambda torch: [torch.from_numpy(a) for a in (x, w, b, dy)]  # noqa: E731

    def forward(torch):
        tx, tw, tb, _ = t(torch)
        return lambda: torch.nn.functional.linear(tx, tw, tb)

    def backward(torch):
        tx, tw, _, tdy = t(torch)
        return lambda: (tdy @ tw, tdy.T @ tx, tdy.sum(0))

    return {
        **_both(f"{name} forward", lambda k: lambda: k.linear_forward(x, w, b), forward),
        **_both(
            f"{name} backward",
            lambda k: lambda: (k.linear_backward_input(dy, w), k.linear_backward_weight(dy, x), k.linear_backward_bias(dy)),
            backward,
        ),
    }


def _conv(name, x_shape, w_shape, padding, stride, groups=1):
    x, w, b = normal(*x_shape), normal(*w_shape), normal(w_shape[0])
    s, p, d = (stride, stride), (padding,) * 4, (1, 1)
    size = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x_shape[2:], w_shape[2:])]
    dy = normal(x_shape[0], w_shape[0], *size)

    def forward(torch):
        tx, tw, tb = (torch.from_numpy(a) for a in (x, w, b))
        return lambda: torch.nn.functional.conv2d(tx, tw, tb, stride, padding, 1, groups)

    def gradient(mask):
        def make(torch):
            tx, tw, tdy = (torch.from_numpy(a) for a in (x, w, dy))
            return lambda: torch.ops.aten.convolution_backward(
                tdy, tx, tw, [w_shape[0]], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask
            )

        return make

    return {
        **_both(f"{name} forward", lambda k: lambda: k.conv2d_forward(x, w, b, s, p, d, groups), forward),
        **_both(
            f"{name} dx",
            lambda k: lambda: k.conv2d_backward_input(dy, w, x.shape, s, p, d, groups),
            gradient([True, False, False]),
        ),
        **_both(
            f"{name} dw",
            lambda k: lambda: k.conv2d_backward_weight(dy, x, w.shape, s, p, d, groups),
            gradient([False, True, False]),
        ),
    }


def _pool():
    x = normal(16, 64, 56, 56)
    table = {}
    for k, s in ((2, 2), (3, 2)):
        size, stride, pads = (k, k), (s, s), (0, 0, 0, 0)
        out = (56 - k) // s + 1
        dy = normal(16, 64, out, out)

        def ours_backward(kernels, size=size, stride=stride, pads=pads, dy=dy):
            _, argmax = kernels.max_pool2d_forward(x, size, stride, pads)
            return lambda: kernels.max_pool2d_backward(dy, argmax, x.shape, size, stride, pads)

        def forward(torch, k=k, s=s):
            tx = torch.from_numpy(x)
            return lambda: torch.nn.functional.max_pool2d(tx, k, s, return_indices=True)

        def backward(torch, k=k, s=s, dy=dy):
            tx, tdy = torch.from_numpy(x), torch.from_numpy(dy)
            _, indices = torch.nn.functional.max_pool2d(tx, k, s, return_indices=True)
            return lambda: torch.ops.aten.max_pool2d_with_indices_backward(
                tdy, tx, [k, k], [s, s], [0, 0], [1, 1], False, indices
            )

        ours = lambda kernels, size=size, stride=stride, pads=pads: lambda: kernels.max_pool2d_forward(x, size, stride, pads)  # noqa: E731
        table.update(_both(f"max pool {k}×{k} s{s} forward", ours, forward))
        table.update(_both(f"max pool {k}×{k} s{s} backward", ours_backward, backward))
    pads = (0, 0, 0, 0)
    table.update(
        _both(
            "avg pool 2×2 forward",
            lambda k: lambda: k.avg_pool2d_forward(x, (2, 2), (2, 2), pads, True),
            lambda torch: (lambda tx: lambda: torch.nn.functional.avg_pool2d(tx, 2))(torch.from_numpy(x)),
        )
    )
    return table


def _batch_norm():
    x, gamma, beta, dy = normal(16, 64, 56 * 56), normal(64), normal(64), normal(16, 64, 56 * 56)

    def backward(kernels):
        _, mean, var = kernels.batch_norm_forward(x, gamma, beta, 1e-5)
        return lambda: kernels.batch_norm_backward(dy, x, gamma, mean, var, 1e-5)

    def torch_forward(torch):
        tx, tg, tb = (torch.from_numpy(a) for a in (x, gamma, beta))
        return lambda: torch.native_batch_norm(tx, tg, tb, None, None, True, 0.1, 1e-5)

    def torch_backward(torch):
        tx, tg, tb, tdy = (torch.from_numpy(a) for a in (x, gamma, beta, dy))
        _, mean, rstd = torch.native_batch_norm(tx, tg, tb, None, None, True, 0.1, 1e-5)
        return lambda: torch.ops.aten.native_batch_norm_backward(tdy, tx, tg, None, None, mean, rstd, True, 1e-5, [True] * 3)

    return {
        **_both("batch norm forward", lambda k: lambda: k.batch_norm_forward(x, gamma, beta, 1e-5), torch_forward),
        **_both("batch norm backward", backward, torch_backward),
    }


def _layer_norm():
    x, gamma, beta, dy = normal(2048, 512), normal(512), normal(512), normal(2048, 512)

    def backward(kernels):
        _, mean, rstd = kernels.layer_norm_forward(x, gamma, beta, 1e-5)
        return lambda: kernels.layer_norm_backward(dy, x, gamma, mean, rstd)

    def torch_forward(torch):
        tx, tg, tb = (torch.from_numpy(a) for a in (x, gamma, beta))
        return lambda: torch.native_layer_norm(tx, [512], tg, tb, 1e-5)

    def torch_backward(torch):
        tx, tg, tb, tdy = (torch.from_numpy(a) for a in (x, gamma, beta, dy))
        _, mean, rstd = torch.native_layer_norm(tx, [512], tg, tb, 1e-5)
        return lambda: torch.ops.aten.native_layer_norm_backward(tdy, tx, [512], mean, rstd, tg, tb, [True] * 3)

    return {
        **_both("layer norm forward", lambda k: lambda: k.layer_norm_forward(x, gamma, beta, 1e-5), torch_forward),
        **_both("layer norm backward", backward, torch_backward),
    }


def _local_response_norm():
    x = normal(8, 96, 27 * 27)

    def theirs(torch):
        tx = torch.from_numpy(x)
        return lambda: torch.nn.functional.local_response_norm(tx, 5, 1e-4, 0.75, 2.0)

    return _both("LRN forward", lambda k: lambda: k.local_response_norm_forward(x, 5, 1e-4, 0.75, 2.0), theirs)


def _activations():
    x, dy = normal(16, 64, 56, 56), normal(16, 64, 56, 56)
    table = {}
    for name in ("relu", "sigmoid", "tanh", "softplus", "elu"):
        settings = (1.0,) if name == "elu" else ()

        def ours(kernels, name=name, settings=settings):
            forward = getattr(kernels, f"{name}_forward")
            return lambda: forward(x, *settings)

        def theirs(torch, name=name):
            tx = torch.from_numpy(x)
            function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
            return lambda: function(tx)

        table.update(_both(f"{name} forward", ours, theirs))

    def relu_backward(kernels):
        y = kernels.relu_forward(x)
        return lambda: kernels.relu_backward(dy, y)

    def torch_relu_backward(torch):
        ty, tdy = torch.relu(torch.from_numpy(x)), torch.from_numpy(dy)
        return lambda: torch.ops.aten.threshold_backward(tdy, ty, 0)

    table.update(_both("relu backward", relu_backward, torch_relu_backward))
    return table


def _dropout():
    x = normal(64, 4096)

    def theirs(torch):
        tx = torch.from_numpy(x)
        return lambda: torch.nn.functional.dropout(tx, 0.5)

    return _both("dropout", lambda k: lambda: k.dropout_forward(x, 0.5, Key(0, 1, 0)), theirs)


def _cross_entropy():
    x, labels = normal(256, 1000), rng.integers(0, 1000, 256)

    def ours(kernels):
        dloss = np.full(256, 1 / 256, np.float32)

        def run():
            _, lse = kernels.cross_entropy_forward(x, labels, None, 0.0, -100)
            return kernels.cross_entropy_backward(dloss, x, labels, lse, None, 0.0, -100)

        return run

    def theirs(torch):
        tx, tl = torch.from_numpy(x), torch.from_numpy(labels)

        def run():
            p = torch.log_softmax(tx, 1)
            torch.nn.functional.nll_loss(p, tl)
            d = torch.zeros_like(p).scatter_(1, tl[:, None], -1 / 256)
            return torch.ops.aten._log_softmax_backward_data(d, p, 1, torch.float32)

        return run

    return _both("softmax + cross-entropy, forward + backward", ours, theirs)


def _embedding():
    w, indices, dy = normal(10000, 256), rng.integers(0, 10000, 4096), normal(4096, 256)

    def theirs(torch):
        ti, tdy = torch.from_numpy(indices), torch.from_numpy(dy)
        return lambda: torch.ops.aten.embedding_dense_backward(tdy, ti, 10000, -1, False)

    return {
        **_both(
            "embedding forward",
            lambda k: lambda: k.embedding_forward(indices, w),
            lambda torch: (lambda ti, tw: lambda: torch.nn.functional.embedding(ti, tw))(
                torch.from_numpy(indices), torch.from_numpy(w)
            ),
        ),
        **_both("embedding backward", lambda k: lambda: k.embedding_backward(dy, indices, 10000), theirs),
    }


def _optimisers():
    n = 1_000_000
    g = normal(n)

    def adam(kernels):
        w, m, v = normal(n), np.zeros(n, np.float32), np.zeros(n, np.float32)
        return lambda: kernels.adam_step(w, g, m, v, 10, 1e-3, 0.9, 0.999, 1e-8, 0.0, False)

    def sgd(kernels):
        w, v = normal(n), np.zeros(n, np.float32)
        return lambda: kernels.sgd_step(w, g, v, 1e-3, 0.9, 0.0, 0.0, False)

    def theirs(make):
        def build(torch):
            p = torch.nn.Parameter(torch.from_numpy(normal(n)))
            p.grad = torch.from_numpy(g)
            optimizer = make(torch, [p])
            return optimizer.step

        return build

    return {
        **_both("Adam step, 1 M", adam, theirs(lambda torch, p: torch.optim.Adam(p))),
        **_both("SGD momentum step, 1 M", sgd, theirs(lambda torch, p: torch.optim.SGD(p, 1e-3, 0.9))),
    }
