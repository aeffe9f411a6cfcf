"""Your own backward trains the network: Conv2d's adjoints in plain NumPy, put in with ``cl.override``.

    python examples/own_backward.py

Change a sign below and see what becomes of the accuracy. With y = conv(x, w) + b, where
y[n,f,i,j] = Σ_{c,h,k} w[f,c,h,k] x[n,c,i·S+h,j·S+k] + b[f] on the padded x, the chain rule says:

    dw[f,c,h,k]         = Σ_{n,i,j} dy[n,f,i,j] x[n,c,i·S+h,j·S+k]
    dx[n,c,i·S+h,j·S+k] += Σ_f      dy[n,f,i,j] w[f,c,h,k]
    db[f]               = Σ_{n,i,j} dy[n,f,i,j]
"""

import argparse

import numpy as np

import cnnlib as cl
from cnnlib import models, nn, ops, optim

calls = 0


def my_conv2d_backward(ctx, dy):
    """dy (N, F, OH, OW) -> dx, dw, db. The loops run over the kernel's offsets; groups and dilation are left to you."""
    global calls
    calls += 1
    (SH, SW), (top, bottom, left, right), _, _ = ctx.geometry
    x = np.pad(ctx.x, [(0, 0), (0, 0), (top, bottom), (left, right)])
    dx, dw = np.zeros_like(x), np.empty_like(ctx.w)
    OH, OW = dy.shape[2:]
    for h in range(ctx.w.shape[2]):
        for k in range(ctx.w.shape[3]):
            seen = np.s_[:, :, h : h + OH * SH : SH, k : k + OW * SW : SW]  # what w[:, :, h, k] is multiplied with
            dw[:, :, h, k] = np.tensordot(dy, x[seen], axes=([0, 2, 3], [0, 2, 3]))  # (F, C)
            dx[seen] += np.tensordot(dy, ctx.w[:, :, h, k], axes=([1], [0])).transpose(0, 3, 1, 2)  # (N, C, OH, OW)
    dx = dx[:, :, top : dx.shape[2] - bottom, left : dx.shape[3] - right]
    return dx, dw, dy.sum(axis=(0, 2, 3))


def accuracy(net: nn.Module, test: cl.data.Dataset) -> float:
    with cl.no_grad():
        return float((net(test.x).numpy().argmax(axis=1) == test.y).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    cl.manual_seed(args.seed)
    train, test = cl.data.digits(size=32)
    net, loss = models.LeNet5(), nn.CrossEntropyLoss()
    optimizer = optim.Adam(net.parameters(), lr=2e-3)
    loader = cl.data.DataLoader(train, batch_size=32, seed=args.seed)
    with cl.override(ops.Conv2d, backward=my_conv2d_backward):
        for epoch in range(args.epochs):
            for x, y in loader:
                optimizer.zero_grad()
                loss(net(x), y).backward()
                optimizer.step()
            print(f"epoch {epoch + 1}: {accuracy(net, test):.1%} of {len(test)} digits it has never seen")
    print(f"your backward ran {calls:,} times: {args.epochs} epochs × {len(loader)} batches × 2 convolutions")


if __name__ == "__main__":
    main()
