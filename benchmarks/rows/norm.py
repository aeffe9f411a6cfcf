"""Normalisations. Operations per element are those of the formula, with a sum, a square or a root counted as one."""

from __future__ import annotations

from math import prod

from benchmarks.rows.row import Row, size

EPS = 1e-5


def rows(batch: int | None = None) -> list[Row]:
    images = ((16, 64, 56), (8, 256, 14), (8, 512, 7))
    table: list[Row] = []
    for n, c, h in images:
        table += batch_norm(min(n, batch or n), c, h)
    table += batch_norm(256, 1024) + layer_norm(2048, 512)
    for h in (27, 55):
        table += local_response_norm(min(8, batch or 8), 96, h)
    table += local_contrast_norm(min(8, batch or 8), 32, 32)
    return table + [row.in_float64() for row in batch_norm(min(8, batch or 8), 64, 56)]


def batch_norm(N, C, H=None) -> list[Row]:
    x = (N, C, H, H) if H else (N, C)
    name = f"batch norm {N}×{C}" + (f"×{H}²" if H else "")

    def ours(kernels, x, gamma, beta):
        x = x.reshape(N, C, -1)
        return lambda: kernels.batch_norm_forward(x, gamma, beta, EPS)

    def our_backward(kernels, dy, x, gamma, beta):
        x, dy = x.reshape(N, C, -1), dy.reshape(N, C, -1)
        _, mean, var = kernels.batch_norm_forward(x, gamma, beta, EPS)
        return lambda: kernels.batch_norm_backward(dy, x, gamma, mean, var, EPS)

    def theirs(torch, x, gamma, beta):
        return lambda: torch.native_batch_norm(x, gamma, beta, None, None, True, 0.1, EPS)

    def their_backward(torch, dy, x, gamma, beta):
        _, mean, rstd = theirs(torch, x, gamma, beta)()
        backward = torch.ops.aten.native_batch_norm_backward
        return lambda: backward(dy, x, gamma, None, None, mean, rstd, True, EPS, [True] * 3)

    common = {"family": "normalisation", "images": bool(H)}
    return [
        Row(
            name=f"{name} forward",
            inputs=lambda draw: (draw.normal(*x), draw.normal(C), draw.normal(C)),
            ours=ours,
            theirs=theirs,
            flops=5 * prod(x),
            elements=size(x, x) + 4 * C,
            target=4.0,
            compared=2,  # then the variance on one side, 1 / deviation on the other
            **common,
        ),
        Row(
            name=f"{name} backward",
            inputs=lambda draw: (draw.normal(*x), draw.normal(*x), draw.normal(C), draw.normal(C)),
            ours=our_backward,
            theirs=their_backward,
            flops=9 * prod(x),
            elements=size(x, x, x) + 5 * C,
            target=1.25,
            **common,
        ),
    ]


def layer_norm(R, D) -> list[Row]:
    def our_backward(kernels, dy, x, gamma, beta):
        _, mean, rstd = kernels.layer_norm_forward(x, gamma, beta, EPS)
        return lambda: kernels.layer_norm_backward(dy, x, gamma, mean, rstd)

    def their_backward(torch, dy, x, gamma, beta):
        _, mean, rstd = torch.native_layer_norm(x, [D], gamma, beta, EPS)
        backward = torch.ops.aten.native_layer_norm_backward
        return lambda: backward(dy, x, [D], mean, rstd, gamma, beta, [True] * 3)

    return [
        Row(
            name=f"layer norm {R}×{D} forward",
            family="normalisation",
            inputs=lambda draw: (draw.normal(R, D), draw.normal(D), draw.normal(D)),
            ours=lambda kernels, x, gamma, beta: lambda: kernels.layer_norm_forward(x, gamma, beta, EPS),
            theirs=lambda torch, x, gamma, beta: lambda: torch.native_layer_norm(x, [D], gamma, beta, EPS),
            flops=7 * R * D,
            elements=2 * R * D + 2 * D + 2 * R,
        ),
        Row(
            name=f"layer norm {R}×{D} backward",
            family="normalisation",
            inputs=lambda draw: (draw.normal(R, D), draw.normal(R, D), draw.normal(D), draw.normal(D)),
            ours=our_backward,
            theirs=their_backward,
            flops=11 * R * D,
            elements=3 * R * D + 3 * D + 2 * R,
        ),
    ]


def local_response_norm(N, C, H) -> list[Row]:
    """AlexNet's: over 5 channels."""
    x = (N, C, H, H)
    settings = (5, 1e-4, 0.75)

    def ours(kernels, x):
        x = x.reshape(N, C, -1)
        return lambda: kernels.local_response_norm_forward(x, *settings, 2.0)

    def our_backward(kernels, dy, x):
        x, dy = x.reshape(N, C, -1), dy.reshape(N, C, -1)
        _, s = kernels.local_response_norm_forward(x, *settings, 2.0)
        return lambda: kernels.local_response_norm_backward(dy, x, s, *settings)

    def their_backward(torch, dy, x):
        x = x.requires_grad_()
        y = torch.nn.functional.local_response_norm(x, *settings, 2.0)
        return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)

    name, common = f"LRN {N}×{C}×{H}²", {"family": "normalisation", "target": 10.0, "images": True}
    return [
        Row(
            name=f"{name} forward",
            inputs=lambda draw: (draw.normal(*x),),
            ours=ours,
            theirs=lambda torch, x: lambda: torch.nn.functional.local_response_norm(x, *settings, 2.0),
            flops=10 * prod(x),
            elements=size(x, x, x),  # s is kept for the backward pass
            compared=1,
            **common,
        ),
        Row(
            name=f"{name} backward",
            inputs=lambda draw: (draw.normal(*x), draw.normal(*x)),
            ours=our_backward,
            theirs=their_backward,
            flops=13 * prod(x),
            elements=size(x, x, x, x),
            **common,
        ),
    ]


def local_contrast_norm(N, C, H) -> list[Row]:
    """Jarrett's, over 9 × 9 pixels. PyTorch has none: measured against bandwidth only."""
    x, settings = (N, C, H, H), (9, 9 / 4, 1e-4)

    def our_backward(kernels, dy, x):
        _, v, deviation = kernels.local_contrast_norm_forward(x, *settings)
        return lambda: kernels.local_contrast_norm_backward(dy, v, deviation, *settings)

    return [
        Row(
            name=f"LCN {N}×{C}×{H}² forward",
            family="normalisation",
            inputs=lambda draw: (draw.normal(*x),),
            ours=lambda kernels, x: lambda: kernels.local_contrast_norm_forward(x, *settings),
            theirs=None,
            flops=5 * prod(x),
            elements=size(x, x, x, (N, H, H)),
        ),
        Row(
            name=f"LCN {N}×{C}×{H}² backward",
            family="normalisation",
            inputs=lambda draw: (draw.normal(*x), draw.normal(*x)),
            ours=our_backward,
            theirs=None,
            flops=8 * prod(x),
            elements=size(x, x, x, (N, H, H)),
        ),
    ]
