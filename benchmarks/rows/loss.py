"""Cross-entropy, dropout and embedding."""

from __future__ import annotations

from benchmarks.rows.row import Row
from cnnlib.backends import xp_of

P = 0.5  # of dropout


def rows(batch: int | None = None) -> list[Row]:
    table = cross_entropy(256, 1000) + cross_entropy(64, 10) + dropout(64, 4096) + dropout(8, 9216)
    table += embedding(10_000, 256, 4096)
    return table + [row.in_float64(row.target) for row in cross_entropy(256, 1000)]


def cross_entropy(R, C) -> list[Row]:
    """Logits to the mean loss, and back: one row, as PyTorch saves the softmax in between and cnnlib one number per row."""

    def ours(kernels, x, labels):
        dloss = xp_of(x).full(R, 1 / R, x.dtype)

        def run():
            _, lse = kernels.cross_entropy_forward(x, labels, None, 0.0, -100)
            return kernels.cross_entropy_backward(dloss, x, labels, lse, None, 0.0, -100)

        return run

    def theirs(torch, x, labels):
        aten, one = torch.ops.aten, torch.ones((), dtype=x.dtype, device=x.device)

        def run():
            y = torch.log_softmax(x, 1)
            _, weight = aten.nll_loss_forward(y, labels, None, 1, -100)
            dy = aten.nll_loss_backward(one, y, labels, None, 1, -100, weight)
            return aten._log_softmax_backward_data(dy, y, 1, x.dtype)

        return run

    return [
        Row(
            name=f"cross-entropy {R}×{C} forward + backward",
            family="softmax and loss",
            inputs=lambda draw: (draw.normal(R, C), draw.below(C, R)),
            ours=ours,
            theirs=theirs,
            flops=7 * R * C,
            elements=3 * R * C,  # x is read in both passes
            other_bytes=8 * R,
            target=2.0,
        )
    ]


def dropout(R, C) -> list[Row]:
    """Both keep the mask and multiply by it in the backward pass: PyTorch's is of numbers, cnnlib's of bits."""

    def ours(kernels, x):
        from cnnlib.random import Key

        key = Key(seed=0, stream=1, call=0)
        return lambda: kernels.dropout_forward(x, P, key)[0]

    def our_backward(kernels, dy):
        from cnnlib.random import Key

        keep = kernels.dropout_forward(dy, P, Key(seed=0, stream=1, call=0))[1]
        return lambda: kernels.dropout_backward(dy, keep, P)

    def their_backward(torch, dy):
        mask = torch.empty_like(dy).bernoulli_(1 - P).div_(1 - P)
        return lambda: dy * mask

    common = {"family": "dropout", "flops": R * C, "inputs": lambda draw: (draw.normal(R, C),)}
    return [
        Row(
            name=f"dropout {R}×{C} forward",
            ours=ours,
            theirs=lambda torch, x: lambda: torch.nn.functional.dropout(x, P, training=True),
            elements=2 * R * C,
            target=30.0,
            **common,
        ),
        Row(
            name=f"dropout {R}×{C} backward",
            ours=our_backward,
            theirs=their_backward,
            elements=2 * R * C,
            **common,
        ),
    ]


def embedding(V, D, R) -> list[Row]:
    """R rows of D out of a table of V."""
    name = f"embedding {R} of {V}×{D}"
    return [
        Row(
            name=f"{name} forward",
            family="embedding",
            inputs=lambda draw: (draw.below(V, R), draw.normal(V, D)),
            ours=lambda kernels, indices, w: lambda: kernels.embedding_forward(indices, w),
            theirs=lambda torch, indices, w: lambda: torch.nn.functional.embedding(indices, w),
            elements=2 * R * D,  # the rows that are looked up, not the whole table
            other_bytes=8 * R,
        ),
        Row(
            name=f"{name} backward",
            family="embedding",
            inputs=lambda draw: (draw.normal(R, D), draw.below(V, R)),
            ours=lambda kernels, dy, indices: lambda: kernels.embedding_backward(dy, indices, V),
            theirs=lambda torch, dy, indices: lambda: torch.ops.aten.embedding_dense_backward(dy, indices, V, -1, False),
            flops=R * D,
            elements=R * D + V * D,
            other_bytes=8 * R,
        ),
    ]
