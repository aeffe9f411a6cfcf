"""Element by element, and softmax row by row. An exponential counts as one operation."""

from __future__ import annotations

from math import prod

from benchmarks.rows.row import Row, size

BANDWIDTH = 0.97  # the target where PyTorch, too, runs at the limit of bandwidth

# name: (settings of ours, PyTorch's forward, PyTorch's backward of (dy, x, y), what our backward takes beside dy)
FUNCTIONS = {
    "relu": ((), "relu", lambda aten, dy, x, y: aten.threshold_backward(dy, y, 0), "y"),
    "leaky_relu": ((0.01,), "leaky_relu", lambda aten, dy, x, y: aten.leaky_relu_backward(dy, x, 0.01, False), "x"),
    "elu": ((1.0,), "elu", lambda aten, dy, x, y: aten.elu_backward(dy, 1.0, 1, 1, False, x), "x"),
    "softplus": ((), "softplus", lambda aten, dy, x, y: aten.softplus_backward(dy, x, 1, 20), "x"),
    "sigmoid": ((), "sigmoid", lambda aten, dy, x, y: aten.sigmoid_backward(dy, y), "y"),
    "tanh": ((), "tanh", lambda aten, dy, x, y: aten.tanh_backward(dy, y), "y"),
}


def rows(batch: int | None = None) -> list[Row]:
    large, small = (min(16, batch or 16), 64, 56, 56), (64, 6, 28, 28)
    table: list[Row] = []
    for name in FUNCTIONS:
        table += element_wise(name, large)
    table += element_wise("relu", small) + element_wise("tanh", small)
    softmaxes = [row for name in ("softmax", "log_softmax") for row in by_rows(name, 1024, 1000)]
    doubled = [*element_wise("relu", large), *element_wise("tanh", large)]
    return [*table, *softmaxes, *(row.in_float64(BANDWIDTH) for row in doubled), *(row.in_float64() for row in softmaxes)]


def element_wise(name: str, shape: tuple[int, ...]) -> list[Row]:
    settings, their_name, their_gradient, wanted = FUNCTIONS[name]
    title = f"{name.replace('_', ' ')} {'×'.join(map(str, shape[:2]))}×{shape[2]}²"

    def our_backward(kernels, dy, x):
        saved = x if wanted == "x" else getattr(kernels, f"{name}_forward")(x, *settings)
        backward = getattr(kernels, f"{name}_backward")
        return lambda: backward(dy, saved, *settings)

    def our_forward(kernels, x):
        forward = getattr(kernels, f"{name}_forward")
        return lambda: forward(x, *settings)

    def their_forward(torch, x):
        forward = getattr(torch.ops.aten, their_name)
        return lambda: forward(x)

    def their_backward(torch, dy, x):
        y = getattr(torch.ops.aten, their_name)(x)
        return lambda: their_gradient(torch.ops.aten, dy, x, y)

    common = {"family": "activation", "flops": prod(shape), "target": BANDWIDTH}
    return [
        Row(
            name=f"{title} forward",
            inputs=lambda draw: (draw.normal(*shape),),
            ours=our_forward,
            theirs=their_forward,
            elements=size(shape, shape),
            **common,
        ),
        Row(
            name=f"{title} backward",
            inputs=lambda draw: (draw.normal(*shape), draw.normal(*shape)),
            ours=our_backward,
            theirs=their_backward,
            elements=size(shape, shape, shape),
            **common,
        ),
    ]


def by_rows(name: str, R: int, C: int) -> list[Row]:
    title = f"{name.replace('_', ' ')} {R}×{C}"

    def our_backward(kernels, dy, x):
        y = getattr(kernels, f"{name}_forward")(x)
        backward = getattr(kernels, f"{name}_backward")
        return lambda: backward(dy, y)

    def their_backward(torch, dy, x):
        y = getattr(torch, name)(x, 1)
        backward = getattr(torch.ops.aten, f"_{name}_backward_data")
        return lambda: backward(dy, y, 1, x.dtype)

    return [
        Row(
            name=f"{title} forward",
            family="softmax and loss",
            inputs=lambda draw: (draw.normal(R, C),),
            ours=lambda kernels, x: lambda: getattr(kernels, f"{name}_forward")(x),
            theirs=lambda torch, x: lambda: getattr(torch, name)(x, 1),
            flops=4 * R * C,
            elements=2 * R * C,
        ),
        Row(
            name=f"{title} backward",
            family="softmax and loss",
            inputs=lambda draw: (draw.normal(R, C), draw.normal(R, C)),
            ours=our_backward,
            theirs=their_backward,
            flops=4 * R * C,
            elements=3 * R * C,
        ),
    ]
