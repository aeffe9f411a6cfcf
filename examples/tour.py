"""A tour in five minutes: a network, trained; one step traced; its backward replaced and checked.

python examples/tour.py
"""

import numpy as np

import cnnlib as cl
from cnnlib import nn, ops, optim
from cnnlib.gradcheck import GradientError


def accuracy(net, data) -> float:
    net.eval()
    with cl.no_grad():
        answers = net(data.x).numpy().argmax(axis=1)
    net.train()
    return float((answers == data.y).mean())


def main() -> None:
    cl.manual_seed(0)
    print("1. A network, trained on handwritten digits of 8×8 pixels")
    train, test = cl.data.digits()
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 10),
    )  # fmt: skip
    optimizer = optim.Adam(net.parameters(), lr=5e-3)
    for epoch in range(5):
        for x, y in cl.data.DataLoader(train, batch_size=64, seed=epoch):
            loss = ops.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"   epoch {epoch + 1}: {accuracy(net, test):.1%} of the test digits are right")

    print("\n2. One step under the microscope")
    with cl.trace() as t:
        ops.cross_entropy(net(test.x[:32]), test.y[:32]).backward()
    print(t)
    conv = t["0.conv2d"]
    print("   the convolution kept", ", ".join(conv.saved), "for backward; ∂J/∂w has shape", conv.grads["w"].shape)

    print("\n3. The two functions of an operation, without a tape")
    y, ctx = ops.ReLU.run(np.array([-1.0, 0.0, 2.0]))
    print("   relu:", y, " its backward, for dy = 10:", ops.ReLU.backward(ctx, np.full(3, 10.0)))

    print("\n4. A backward of your own, checked; the network is trained with it")
    calls = 0

    def my_relu_backward(ctx, dy):
        nonlocal calls
        calls += 1
        return dy * (ctx.y > 0)  # ctx.y: what ReLU's forward saved

    with cl.override(ops.ReLU, backward=my_relu_backward):
        print("  ", cl.gradcheck(ops.relu, np.array([-1.0, 0.5, 2.0])))
        for x, y in cl.data.DataLoader(train, batch_size=64, seed=5):
            optimizer.zero_grad()
            ops.cross_entropy(net(x), y).backward()
            optimizer.step()
    print(f"   {calls} calls; then {accuracy(net, test):.1%} of the test digits are right")

    print("\n5. A wrong one, found")
    with cl.override(ops.ReLU, backward=lambda ctx, dy: dy):
        try:
            cl.gradcheck(ops.relu, np.array([-1.0, 0.5, 2.0]))
        except GradientError as error:
            print("  ", error)

    print("\n6. The textbook and the kernels in use")
    with cl.use("reference"):
        textbook = net(test.x).numpy()
    print(f"   backend {cl.backend()!r}: largest difference to 'reference' {abs(net(test.x).numpy() - textbook).max():.1e}")


if __name__ == "__main__":
    main()
