"""Max and average pooling, from LeNet's 28² to 112², and the global average."""

from __future__ import annotations

from math import prod

from benchmarks.rows.row import Row, size

MAX_FORWARD, MAX_BACKWARD, AVG_FORWARD = 18.0, 1.8, 7.0  # targets

SHAPES = ((64, 6, 28), (8, 512, 14), (8, 256, 28), (8, 128, 56), (8, 64, 112))


def rows(batch: int | None = None) -> list[Row]:
    table: list[Row] = []
    shapes = [(min(n, batch or n), c, h) for n, c, h in SHAPES]
    for shape in shapes:
        table += max_pool(*shape, 2, 2, 0) + max_pool(*shape, 3, 2, 1)
    for shape in (shapes[0], shapes[3], shapes[4]):
        table += avg_pool(*shape)
    table += global_pool(min(16, batch or 16), 512, 7)
    return table + [row.in_float64() for row in max_pool(*shapes[3], 2, 2, 0)]


def max_pool(N, C, H, K, stride, padding) -> list[Row]:
    out = (H + 2 * padding - K) // stride + 1
    x, y = (N, C, H, H), (N, C, out, out)
    name = f"max pool {K}×{K} s{stride}, {N}×{C}×{H}²"
    ours = ((K, K), (stride, stride), (padding,) * 4)
    theirs = ([K, K], [stride] * 2, [padding] * 2, [1, 1], False)

    def our_backward(kernels, dy, x):
        _, argmax = kernels.max_pool2d_forward(x, *ours)
        return lambda: kernels.max_pool2d_backward(dy, argmax, x.shape, *ours)

    def their_backward(torch, dy, x):
        _, indices = torch.ops.aten.max_pool2d_with_indices(x, *theirs)
        return lambda: torch.ops.aten.max_pool2d_with_indices_backward(dy, x, *theirs, indices)

    return [
        Row(
            name=f"{name} forward",
            family="pooling",
            inputs=lambda draw: (draw.normal(*x),),
            ours=lambda kernels, x: lambda: kernels.max_pool2d_forward(x, *ours),
            theirs=lambda torch, x: lambda: torch.ops.aten.max_pool2d_with_indices(x, *theirs),
            flops=prod(y) * (K * K - 1),
            elements=size(x, y),
            other_bytes=prod(y),  # the offset of the maximum, one byte each
            target=MAX_FORWARD,
            images=True,
            compared=1,
        ),
        Row(
            name=f"{name} backward",
            family="pooling",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*x)),
            ours=our_backward,
            theirs=their_backward,
            flops=prod(y),
            elements=size(y, x),
            other_bytes=prod(y),
            target=MAX_BACKWARD,
            images=True,
        ),
    ]


def avg_pool(N, C, H) -> list[Row]:
    x, y = (N, C, H, H), (N, C, H // 2, H // 2)
    name = f"avg pool 2×2, {N}×{C}×{H}²"
    ours, theirs = ((2, 2), (2, 2), (0,) * 4, True), ([2, 2], [2, 2], [0, 0], False, True, None)
    return [
        Row(
            name=f"{name} forward",
            family="pooling",
            inputs=lambda draw: (draw.normal(*x),),
            ours=lambda kernels, x: lambda: kernels.avg_pool2d_forward(x, *ours),
            theirs=lambda torch, x: lambda: torch.ops.aten.avg_pool2d(x, *theirs),
            flops=prod(x),
            elements=size(x, y),
            target=AVG_FORWARD,
            images=True,
        ),
        Row(
            name=f"{name} backward",
            family="pooling",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*x)),
            ours=lambda kernels, dy, x: lambda: kernels.avg_pool2d_backward(dy, x.shape, *ours),
            theirs=lambda torch, dy, x: lambda: torch.ops.aten.avg_pool2d_backward(dy, x, *theirs),
            flops=prod(x),
            elements=size(y, x),
            images=True,
        ),
    ]


def global_pool(N, C, H) -> list[Row]:
    x, y = (N, C, H, H), (N, C, 1, 1)
    ours = ((H, H), (H, H), (0,) * 4, True)
    return [
        Row(
            name=f"global avg pool, {N}×{C}×{H}² forward",
            family="pooling",
            inputs=lambda draw: (draw.normal(*x),),
            ours=lambda kernels, x: lambda: kernels.avg_pool2d_forward(x, *ours),
            theirs=lambda torch, x: lambda: torch.nn.functional.adaptive_avg_pool2d(x, 1),
            flops=prod(x),
            elements=size(x, y),
            images=True,
        ),
        Row(
            name=f"global avg pool, {N}×{C}×{H}² backward",
            family="pooling",
            inputs=lambda draw: (draw.normal(*y),),
            ours=lambda kernels, dy: lambda: kernels.avg_pool2d_backward(dy, x, *ours),
            theirs=lambda torch, dy: lambda: dy.expand(x) / (H * H),  # what autograd does for a mean
            flops=prod(x),
            elements=size(y, x),
            images=True,
        ),
    ]
