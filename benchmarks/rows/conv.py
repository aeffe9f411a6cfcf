"""Convolutions: forward, the gradient of the input and of the weights, each a row."""

from __future__ import annotations

from math import prod

from benchmarks.rows.row import Row, size

WINOGRAD = (2.0, 2.0, 2.2)  # targets of forward, dx, dw
DIRECT = (1.0, 1.0, 1.0)
FEW_CHANNELS = (1.5, 2.0, 2.0)
DEPTHWISE = (1.4, 1.4, 1.4)
POINTWISE = (1.1, 1.1, 1.1)
FLOAT64 = 2.0


def rows(batch: int | None = None) -> list[Row]:
    def conv(n, *args, **settings):
        return passes(min(n, batch or n), *args, **settings)

    lenet = [*conv(64, 1, 6, 32, 5, targets=FEW_CHANNELS), *conv(64, 6, 16, 14, 5, targets=FEW_CHANNELS)]
    small = conv(4, 64, 64, 32, 3, padding=1, targets=WINOGRAD)
    strided = conv(4, 3, 64, 224, 7, stride=2, padding=3, targets=DIRECT)
    pointwise = conv(8, 512, 128, 28, 1, targets=POINTWISE)
    depthwise = conv(16, 128, 128, 28, 3, padding=1, groups=128, targets=DEPTHWISE)
    table = [
        *conv(16, 64, 64, 32, 3, padding=1, targets=WINOGRAD),
        *conv(8, 64, 64, 56, 3, padding=1, targets=WINOGRAD),
        *conv(8, 128, 128, 28, 3, padding=1, targets=WINOGRAD),
        *conv(8, 256, 256, 14, 3, padding=1, targets=WINOGRAD),
        *conv(8, 512, 512, 14, 3, padding=1, targets=(1.6, 1.6, 1.6)),
        *conv(8, 512, 512, 7, 3, padding=1, targets=DIRECT),
        *conv(8, 64, 128, 56, 3, stride=2, padding=1, targets=DIRECT),
        *conv(8, 256, 512, 14, 3, stride=2, padding=1, targets=DIRECT),
        *conv(8, 3, 96, 227, 11, stride=4, targets=DIRECT),
        *strided,
        *conv(8, 96, 256, 27, 5, padding=2, groups=2, targets=DIRECT),
        *conv(8, 64, 256, 56, 1, targets=POINTWISE),
        *conv(8, 256, 64, 56, 1, targets=POINTWISE),
        *pointwise,
        *conv(8, 256, 512, 56, 1, stride=2, targets=POINTWISE),
        *lenet,
        *conv(16, 3, 64, 32, 3, padding=1, targets=FEW_CHANNELS),
        *depthwise,
        *conv(8, 128, 128, 56, 3, stride=2, padding=1, groups=128, targets=DEPTHWISE),
        *conv(8, 512, 512, 14, 3, padding=1, groups=512, targets=DEPTHWISE),
        *conv(8, 512, 512, 7, 3, padding=1, groups=512, targets=DEPTHWISE),
        *conv(8, 96, 96, 56, 7, padding=3, groups=96, targets=DEPTHWISE),
        *conv(8, 256, 256, 28, 3, padding=1, groups=32, targets=DIRECT),
    ]
    table += transposed(min(16, batch or 16), 64, 32, 16)
    return table + [row.in_float64(FLOAT64) for row in (*small, *strided, *pointwise, *lenet, *depthwise)]


def passes(N, C, F, H, K, stride=1, padding=0, groups=1, targets=DIRECT) -> list[Row]:
    """The three passes of N images of C channels and H × H pixels through F filters of K × K."""
    out = (H + 2 * padding - K) // stride + 1
    x, w, y = (N, C, H, H), (F, C // groups, K, K), (N, F, out, out)
    how = f"s{stride} " * (stride > 1) + ("depthwise " if groups == C > 1 else f"groups {groups} " * (groups > 1))
    name = f"conv {K}×{K} {how}{C}→{F}, {N}×{H}²"
    ours = ((stride, stride), (padding,) * 4, (1, 1), groups)

    def gradient(torch, dy, x, w, which):
        mask = [which == "x", which == "w", False]
        settings = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups)
        return lambda: torch.ops.aten.convolution_backward(dy, x, w, [F], *settings, mask)["xw".index(which)]

    common = {
        "family": family_of(K, stride, groups, C),
        "flops": 2 * prod(y) * (C // groups) * K * K,
        "images": True,
    }
    return [
        Row(
            name=f"{name} forward",
            inputs=lambda draw: (draw.normal(*x), draw.normal(*w), draw.normal(F)),
            ours=lambda kernels, x, w, b: lambda: kernels.conv2d_forward(x, w, b, *ours),
            theirs=lambda torch, x, w, b: lambda: torch.nn.functional.conv2d(x, w, b, stride, padding, 1, groups),
            elements=size(x, w, (F,), y),
            target=targets[0],
            **common,
        ),
        Row(
            name=f"{name} dx",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*x), draw.normal(*w)),
            ours=lambda kernels, dy, _, w: lambda: kernels.conv2d_backward_input(dy, w, x, *ours),
            theirs=lambda torch, dy, x, w: gradient(torch, dy, x, w, "x"),
            elements=size(y, w, x),
            target=targets[1],
            **common,
        ),
        Row(
            name=f"{name} dw",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*x), draw.normal(*w)),
            ours=lambda kernels, dy, x, _: lambda: kernels.conv2d_backward_weight(dy, x, w, *ours),
            theirs=lambda torch, dy, x, w: gradient(torch, dy, x, w, "w"),
            elements=size(y, x, w),
            target=targets[2],
            **common,
        ),
    ]


def family_of(K, stride, groups, C) -> str:
    if groups == C > 1:
        return "depthwise convolution"
    if K == 1:
        return "1×1 convolution"
    return "3×3 convolution" if (K, stride) == (3, 1) and C > 16 else "other convolutions"


def transposed(N, C, F, H) -> list[Row]:
    """4×4, stride 2, padding 1: doubles the image. Its forward is the gradient of the input of a convolution F → C."""
    x, w, y = (N, C, H, H), (C, F, 4, 4), (N, F, 2 * H, 2 * H)
    name = f"transposed conv 4×4 s2 {C}→{F}, {N}×{H}²"
    ours = ((2, 2), (1,) * 4, (1, 1), 1)
    theirs = ([2, 2], [1, 1], [1, 1], True, [0, 0], 1)
    common = {"family": "other convolutions", "flops": 2 * prod(x) * F * 16, "images": True}
    return [
        Row(
            name=f"{name} forward",
            inputs=lambda draw: (draw.normal(*x), draw.normal(*w)),
            ours=lambda kernels, x, w: lambda: kernels.conv2d_backward_input(x, w, y, *ours),
            theirs=lambda torch, x, w: lambda: torch.nn.functional.conv_transpose2d(x, w, None, 2, 1),
            elements=size(x, w, y),
            **common,
        ),
        Row(
            name=f"{name} dx",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*x), draw.normal(*w)),
            ours=lambda kernels, dy, _, w: lambda: kernels.conv2d_forward(dy, w, None, *ours),
            theirs=lambda torch, dy, x, w: (
                lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *theirs, [True, False, False])[0]
            ),
            elements=size(y, w, x),
            **common,
        ),
        Row(
            name=f"{name} dw",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*x), draw.normal(*w)),
            ours=lambda kernels, dy, x, _: lambda: kernels.conv2d_backward_weight(x, dy, w, *ours),
            theirs=lambda torch, dy, x, w: (
                lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *theirs, [False, True, False])[1]
            ),
            elements=size(y, x, w),
            **common,
        ),
    ]
