"""Steps of the optimisers: cnnlib's classes against PyTorch's, in each way that PyTorch offers on a CPU."""

from __future__ import annotations

from benchmarks.rows.row import Row, running

WAYS = {"": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}

# name: (class, settings, passes over arrays as large as the parameters, operations per parameter)
OPTIMISERS = {
    "SGD": ("SGD", {"lr": 1e-3}, 3, 2),
    "SGD momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}, 5, 4),
    "Adam": ("Adam", {"lr": 1e-3}, 7, 12),
}


def rows(batch: int | None = None) -> list[Row]:
    table = [step(name, 1, 1_000_000) for name in OPTIMISERS] + [step(name, 60, 20_000) for name in OPTIMISERS]
    return table + [step("Adam", 1, 1_000_000).in_float64()]


def step(name: str, tensors: int, n: int) -> Row:
    """One step of ``tensors`` parameters of n numbers each."""
    kind, settings, passes, operations = OPTIMISERS[name]

    def ours(kernels, *arrays):
        import cnnlib as cl
        from cnnlib import optim

        params = [cl.Parameter(w) for w in arrays[:tensors]]
        for p, g in zip(params, arrays[tensors:]):
            p.grad = g
        optimizer = getattr(optim, kind)(params, **settings)

        def run():
            with running(kernels):
                optimizer.step()
            return tuple(p.data for p in params)

        return run

    def theirs(way):
        def make(torch, *arrays):
            params = [torch.nn.Parameter(w.clone()) for w in arrays[:tensors]]
            for p, g in zip(params, arrays[tensors:]):
                p.grad = g
            optimizer = getattr(torch.optim, kind)(params, **settings, **way)

            def run():
                optimizer.step()
                return tuple(p.data for p in params)

            return run

        return make

    return Row(
        name=f"{name} step, {tensors} × {n // 1000}k",
        family="optimisers",
        inputs=lambda draw: tuple(draw.normal(n) for _ in range(2 * tensors)),
        ours=ours,
        theirs={name: theirs(way) for name, way in WAYS.items()},
        flops=operations * tensors * n,
        elements=passes * tensors * n,
    )
