"""How much of the first input is left in a recurrent network after t steps? Vanishing and exploding gradients, measured.

    python examples/vanishing_gradient.py --out vanishing_gradient.png

Prints three tables and draws them (needs matplotlib: pip install "cnnlib[viz]"):

1. ‖∂h_t/∂h_0‖ of an RNN against ρ, the spectral radius of W_hh: it shrinks or grows by a factor of about ρ in every step;
2. ‖∂h_t/∂x_1‖ of an RNN, and of an LSTM that closes its input gate after the first step and keeps its forget gate open;
3. the same LSTM with an output gate that opens now and then: ∂h_t/∂x_1 comes and goes, ∂c_t/∂x_1 stays.

A derivative is measured by the layer's own backward: one copy of the sequence for every unit, the adjoint of copy k being the
k-th unit vector, so that the adjoints of x_1 are the rows of the Jacobian.

Source: lecture: recurrent networks; Graves, "Supervised sequence labelling with recurrent neural networks", 2012, figures 4.1
and 4.4; Bengio, Simard & Frasconi, "Learning long-term dependencies with gradient descent is difficult", 1994; Pascanu, Mikolov
& Bengio, "On the difficulty of training recurrent neural networks", 2013.
"""

import argparse
from pathlib import Path

import numpy as np

from cnnlib import ops
from cnnlib.cli.pipe import reader_may_leave

UNITS, STEPS = 16, 100
RADII = (0.5, 0.9, 1.0, 1.1, 1.5)
PICTURES = (".png", ".svg", ".pdf")
OPEN = 20.0  # what a gate receives: σ(20) is 1 − 2·10⁻⁹, σ(−20) is 2·10⁻⁹


def norms(op, x, w_ih, w_hh, of="h", by="x_1", **settings):
    """‖∂h_t/∂x_1‖ for t = 1 … T, the largest singular value; or of c_t, or by h_0. x (T, D), weights (G·H, ·), float64."""
    H = w_hh.shape[1]
    start = [np.zeros((H, H))] * (2 if op is ops.LSTM else 1)
    adjoints = [np.eye(H) if name == of else None for name in ("y", "h", "c")[: 1 + len(start)]]
    found = []
    for t in range(1, len(x) + 1):
        copies = np.repeat(x[:t, None], H, axis=1)
        _, ctx = op.run(copies, *start, w_ih, w_hh, **settings)
        dx, dh_0, *_ = op.backward(ctx, *adjoints)
        found.append(np.linalg.norm(dx[0] if by == "x_1" else dh_0, 2))
    return np.array(found)


def recurrent_weights(rng, H, radius):
    """A random matrix (H, H) whose largest eigenvalue has this absolute value."""
    w = rng.normal(size=(H, H))
    return w * (radius / abs(np.linalg.eigvals(w)).max())


def gated_lstm(w_ih, w_hh):
    """Weights of an LSTM whose gates i, f, o do what three additional inputs of ±1 tell them; g is that of the RNN."""
    H, D = w_ih.shape
    gate = lambda k: np.hstack([np.zeros((H, D)), np.full((H, 1), OPEN) * (np.arange(3) == k)])  # noqa: E731
    closed = np.zeros((H, H))
    candidate = np.hstack([w_ih, np.zeros((H, 3))])
    return np.vstack([gate(0), gate(1), candidate, gate(2)]), np.vstack([closed, closed, w_hh, closed])


def with_gates(x, i, f, o):
    """x (T, D) with the schedules of the gates, each T times open (True) or closed, as three more inputs."""
    return np.hstack([x, np.stack([i, f, o], axis=1) * 2.0 - 1.0])


def radius_table(seed=0, steps=50):
    """(ρ, ‖∂h_T/∂h_0‖ with g the identity, with tanh and inputs of size 0.1, with tanh and inputs of size 3) for every ρ."""
    rng = np.random.default_rng(seed)
    w, w_ih, x = recurrent_weights(rng, UNITS, 1.0), rng.normal(size=(UNITS, 1)), rng.normal(size=(steps, 1))
    rows = []
    for radius in RADII:
        run = lambda scale, g, r=radius: norms(ops.RNN, scale * x, w_ih, r * w, by="h_0", nonlinearity=g)[-1]  # noqa: E731
        rows.append((radius, run(0.1, "identity"), run(0.1, "tanh"), run(3.0, "tanh")))
    return rows


def memory_curves(seed=0, steps=STEPS, outputs=None):
    """‖∂h_t/∂x_1‖ of an RNN with ρ = 0.9, and ‖∂c_t/∂x_1‖ and ‖∂h_t/∂x_1‖ of the LSTM with the same weights in g."""
    rng = np.random.default_rng(seed)
    w_ih, w_hh, x = rng.normal(size=(UNITS, 1)), recurrent_weights(rng, UNITS, 0.9), 0.5 * rng.normal(size=(steps, 1))
    first, always = np.arange(steps) == 0, np.ones(steps, bool)
    told = with_gates(x, i=first, f=always, o=always if outputs is None else outputs)
    lstm = gated_lstm(w_ih, w_hh)
    return norms(ops.RNN, x, w_ih, w_hh), norms(ops.LSTM, told, *lstm, of="c"), norms(ops.LSTM, told, *lstm)


def draw(radii, curves, outputs, gated, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for column, label in ((1, "identity"), (2, "tanh, inputs of size 0.1"), (3, "tanh, inputs of size 3")):
        left.semilogy([r[0] for r in radii], [r[column] for r in radii], "o-", label=label)
    left.set(xlabel="spectral radius of $W_{hh}$", title="RNN: ‖∂h₅₀/∂h₀‖")
    steps = np.arange(1, len(curves[0]) + 1)
    middle.semilogy(steps, curves[0], label="RNN, h")
    middle.semilogy(steps, curves[1], label="LSTM, c: input gate closed, forget gate open")
    middle.set(xlabel="step t", title="What is left of the first input: ‖∂·/∂x₁‖")
    t = np.arange(1, len(outputs) + 1)
    right.plot(t, gated[1], "s-", label="‖∂c_t/∂x₁‖")
    right.plot(t, gated[2], "o-", label="‖∂h_t/∂x₁‖")
    for step, is_open in zip(t, outputs, strict=True):
        right.annotate("O" if is_open else "—", (step, 0), (0, -28), textcoords="offset points", ha="center")
    right.set(title="The output gate: O open, — closed", ylim=(0, None), xticks=t)
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="draw the tables into this file")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"--seed must be a whole number >= 0, got {args.seed}")
    if args.out and args.out.suffix.lower() not in PICTURES:
        parser.error(f"--out {args.out}: a picture's name ends in {', '.join(PICTURES)}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)

    radii = radius_table(args.seed)
    print("RNN, ‖∂h_50/∂h_0‖\n    ρ      ρ^50   identity   tanh, inputs of size 0.1   of size 3")
    for radius, linear, small, large in radii:
        print(f"{radius:5}  {radius**50:8.1e}  {linear:8.1e}   {small:24.1e}   {large:9.1e}")

    curves = memory_curves(args.seed)
    print("\nWhat is left of x_1 after t steps\n    t    RNN ‖∂h_t/∂x_1‖    LSTM ‖∂c_t/∂x_1‖")
    for t in (1, 2, 5, 10, 20, 50, 100):
        print(f"{t:5}    {curves[0][t - 1]:17.1e}    {curves[1][t - 1]:17.4f}")

    outputs = np.array([False, True, False, False, True, True, False, True, False, True])
    gated = memory_curves(args.seed, len(outputs), outputs)
    print("\nThe output gate (O open, — closed)")
    print("t             " + "".join(f"{t:6}" for t in range(1, len(outputs) + 1)))
    print("input gate    " + "".join(f"{'O' if t == 0 else '—':>6}" for t in range(len(outputs))))
    print("forget gate   " + "".join(f"{'O':>6}" for _ in outputs))
    print("output gate   " + "".join(f"{'O' if is_open else '—':>6}" for is_open in outputs))
    print("‖∂c_t/∂x_1‖   " + "".join(f"{v:6.2f}" for v in gated[1]))
    print("‖∂h_t/∂x_1‖   " + "".join(f"{v:6.2f}" for v in gated[2]))
    if args.out:
        draw(radii, curves, outputs, gated, args.out)


if __name__ == "__main__":
    with reader_may_leave():
        main()
