"""Matrix products and the linear layers of the networks."""

from __future__ import annotations

from benchmarks.rows.row import Row, size


def rows(batch: int | None = None) -> list[Row]:
    squares = [product(n, n, n, target=1.08) for n in (256, 512, 1024)]
    transposed = [product(512, 512, 512, sides, target=1.08) for sides in ("Aᵀ", "Bᵀ")]
    thin = [product(1, 1024, 1024), product(4, 1024, 1024)]
    skinny = [product(16, 1024, 1024, target=1.3), product(64, 1024, 1024, target=1.3)]
    table = [*squares, *transposed, *skinny, *thin]
    table += [row.in_float64(1.05) for row in (*squares, *transposed)]
    table += [row.in_float64(row.target) for row in (*skinny, *thin)]
    for R, I, O in ((64, 784, 256), (64, 400, 120), (128, 512, 512), (8, 9216, 4096)):
        table += layer(min(R, batch or R), I, O)
    return table


def product(M: int, N: int, K: int, transposed: str = "", target: float = 1.0) -> Row:
    a = (K, M) if transposed == "Aᵀ" else (M, K)
    b = (N, K) if transposed == "Bᵀ" else (K, N)
    flags = (transposed == "Aᵀ", transposed == "Bᵀ")
    shape = f"{M}³" if M == N == K else f"{M}×{N}×{K}"
    return Row(
        name=f"{'GEMV' if M <= 4 else 'GEMM'} {shape} {transposed}".strip(),
        family="GEMM",
        inputs=lambda draw: (draw.normal(*a), draw.normal(*b)),
        ours=lambda kernels, a, b: lambda: kernels.gemm(a, b, *flags),
        theirs=lambda torch, a, b: lambda: (a.T if flags[0] else a) @ (b.T if flags[1] else b),
        flops=2 * M * N * K,
        elements=size(a, b, (M, N)),
        target=target,
    )


def layer(R: int, I: int, O: int) -> list[Row]:
    """y = x wᵀ + b of R rows."""
    name, x, w, b, y = f"linear {I}→{O}, batch {R}", (R, I), (O, I), (O,), (R, O)
    flops = 2 * R * I * O
    return [
        Row(
            name=f"{name} forward",
            family="linear",
            inputs=lambda draw: (draw.normal(*x), draw.normal(*w), draw.normal(*b)),
            ours=lambda kernels, x, w, b: lambda: kernels.linear_forward(x, w, b),
            theirs=lambda torch, x, w, b: lambda: torch.nn.functional.linear(x, w, b),
            flops=flops,
            elements=size(x, w, b, y),
        ),
        Row(
            name=f"{name} dx",
            family="linear",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*w)),
            ours=lambda kernels, dy, w: lambda: kernels.linear_backward_input(dy, w),
            theirs=lambda torch, dy, w: lambda: dy @ w,
            flops=flops,
            elements=size(y, w, x),
        ),
        Row(
            name=f"{name} dw db",
            family="linear",
            inputs=lambda draw: (draw.normal(*y), draw.normal(*x)),
            ours=lambda kernels, dy, x: lambda: (kernels.linear_backward_weight(dy, x), kernels.linear_backward_bias(dy)),
            theirs=lambda torch, dy, x: lambda: (dy.T @ x, dy.sum(0)),
            flops=flops + size(y),
            elements=size(y, x, w, b),
        ),
    ]
