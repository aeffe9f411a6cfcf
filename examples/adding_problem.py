"""The adding problem: which recurrent layer remembers two numbers over many steps?

    python examples/adding_problem.py

Every step of a sequence brings a random number in 0 … 1 and a mark. One number of the first half is marked, and one of the
second: their sum is asked for at the end. Who always answers 1 has a mean squared error of 1/6 = 0.167, the variance of the sum
of two such numbers; to do better, a number must be kept over tens of steps on which others arrive. Adam, a new batch in every
iteration, gradients clipped to norm 1; the error is that on 1,000 sequences of their own.

Source: lecture: recurrent networks; Hochreiter & Schmidhuber, "Long short-term memory", 1997 (the problem); Arjovsky, Shah &
Bengio, "Unitary evolution recurrent neural networks", 2016 (a mark in each half).
"""

import argparse
import time

import numpy as np

import cnnlib as cl
from cnnlib import nn, optim
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.errors import CnnlibError, ValueRangeError
from cnnlib.ops.arguments import check_whole

CELLS = ("RNN", "LSTM", "GRU")


def sequences(rng, B, T):
    """x (T, B, 2): numbers and marks; y (B, 1): the sums of the two marked numbers."""
    numbers, marks, b = rng.random((T, B)), np.zeros((T, B)), np.arange(B)
    marks[rng.integers(0, T // 2, B), b] = 1
    marks[rng.integers(T // 2, T, B), b] = 1
    return np.stack([numbers, marks], axis=2).astype(np.float32), (numbers * marks).sum(axis=0)[:, None].astype(np.float32)


class Adder(nn.Module):
    """A recurrent layer, and a linear one that reads its last state."""

    def __init__(self, cell: str, hidden: int):
        super().__init__()
        self.layer = getattr(nn, cell)(2, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x):
        _, state = self.layer(x)
        h = state[0] if isinstance(state, tuple) else state
        return self.output(h[-1])


def train(cell, T=50, hidden=64, batch=50, lr=5e-3, iterations=2500, seed=0, every=500):
    """Yields (iteration, mean squared error on the test sequences) after every ``every`` iterations."""
    if T < 2:
        raise ValueRangeError(f"adding problem: each half of a sequence has a mark, so T must be at least 2, got {T}.")
    check_whole("adding problem", "iterations", iterations)
    cl.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x_test, y_test = sequences(np.random.default_rng(1_000_000), 1000, T)
    net, loss = Adder(cell, hidden), nn.MSELoss()
    optimizer = optim.Adam(net.parameters(), lr=lr)
    for iteration in range(1, iterations + 1):
        x, y = sequences(rng, batch, T)
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optim.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if iteration % every == 0:
            with cl.no_grad():
                yield iteration, loss(net(x_test), y_test).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--length", type=int, default=50, help="steps T of a sequence; default 50")
    parser.add_argument("--hidden", type=int, default=64, help="units of the recurrent layer; default 64")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--iterations", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    every = max(1, args.iterations // 5)
    print(f"T = {args.length}, test error after … iterations (always answering 1: {1 / 6:.4f})")
    print("      " + "".join(f"{k * every:9,}" for k in range(1, args.iterations // every + 1)))
    for cell in args.cells:
        print(f"{cell:5} ", end="", flush=True)
        started = time.perf_counter()
        settings = {"hidden": args.hidden, "lr": args.lr, "iterations": args.iterations, "seed": args.seed, "every": every}
        try:
            for _, error in train(cell, args.length, **settings):
                print(f"{error:9.4f}", end="", flush=True)
        except CnnlibError as reason:
            parser.exit(1, f"\n{reason}\n")
        print(f"   {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    with reader_may_leave():
        main()
