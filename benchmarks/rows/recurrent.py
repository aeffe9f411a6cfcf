"""Recurrent layers, one direction: RNN, LSTM and GRU, alone and with the backward pass to inputs, weights and biases."""

from __future__ import annotations

from benchmarks.rows.row import Row, running, size

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
SIZES = (  # T, B, D, H, targets of LSTM, GRU and RNN
    (64, 32, 256, 256, (1.05, 1.6, 1.6)),
    (50, 64, 512, 512, (1.05, 1.6, 1.6)),
    (25, 1, 65, 100, (3.0, 4.0, 4.0)),
)


def rows(batch: int | None = None) -> list[Row]:
    table = []
    for T, B, D, H, targets in SIZES:
        for cell, target in zip(("LSTM", "GRU", "RNN"), targets):
            table += layer(cell, T, min(B, batch or B), D, H, target)
    return table + [row.in_float64(row.target) for row in table[: 2 * len(GATES)]]


def layer(cell: str, T: int, B: int, D: int, H: int, target: float) -> list[Row]:
    x, w_ih, w_hh, b, y = (T, B, D), (GATES[cell] * H, D), (GATES[cell] * H, H), (GATES[cell] * H,), (T, B, H)
    flops = 2 * T * B * GATES[cell] * H * (D + H)
    common = {
        "family": "recurrent",
        "inputs": lambda draw: (draw.normal(*x), *(weight(draw, H, *s) for s in (w_ih, w_hh, b, b)), draw.normal(*y)),
        "target": target,
    }
    name, once = f"{cell} {D}→{H}, {T} steps, batch {B}", (x, w_ih, w_hh, b, b, y)
    return [
        Row(
            name=f"{name} forward",
            ours=lambda kernels, *arrays: ours(kernels, cell, arrays, backward=False),
            theirs=lambda torch, *tensors: theirs(torch, cell, tensors, backward=False),
            flops=flops,
            elements=size(*once),
            **common,
        ),
        Row(
            name=f"{name} forward, backward",
            ours=lambda kernels, *arrays: ours(kernels, cell, arrays, backward=True),
            theirs=lambda torch, *tensors: theirs(torch, cell, tensors, backward=True),
            flops=3 * flops,
            elements=2 * size(*once),
            **common,
        ),
    ]


def weight(draw, H: int, *shape: int):
    """About as large as a layer's at the start of a training, so that states neither explode nor vanish."""
    drawn = draw.normal(*shape)
    drawn /= 2 * H**0.5
    return drawn


def ours(kernels, cell, arrays, backward):
    import cnnlib as cl

    x, *weights = (cl.Tensor(a, requires_grad=backward) for a in arrays[:-1])
    states, dy = [None] * (2 if cell == "LSTM" else 1), cl.Tensor(arrays[-1])
    op = getattr(cl.ops, cell.lower())

    def run():
        with running(kernels):
            if not backward:
                return op(x, *states, *weights)[0].data
            for p in (x, *weights):
                p.grad = None
            op(x, *states, *weights)[0].backward(dy)
            return tuple(p.grad for p in (x, *weights))

    return run


def theirs(torch, cell, tensors, backward):
    x, *weights, dy = tensors
    layer = getattr(torch.nn, cell)(x.shape[2], weights[1].shape[1], dtype=x.dtype, device=x.device)
    with torch.no_grad():
        for p, w in zip(layer.parameters(), weights):
            p.copy_(w)

    def run():
        if not backward:
            with torch.no_grad():
                return layer(x)[0]
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x)[0].backward(dy)
        return (x.grad, *(p.grad for p in layer.parameters()))

    x.requires_grad_(backward)
    return run
