"""Optional: the same networks in PyTorch, where it is installed (`pip install torch`); the suite does not need it."""

import numpy as np
import pytest

import cnnlib as cl
from benchmarks.nets import NETS, batch_of, translate
from cnnlib import nn, optim

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")


@pytest.mark.parametrize("name", NETS)
def test_loss_and_every_gradient_of_a_step_are_pytorchs(name):
    net, shape = NETS[name]()
    twin = translate(net, torch).double()
    net.to("float64")
    if any(isinstance(module, nn.Dropout) for module in net.modules()):
        net.eval(), twin.eval()
    x, labels = batch_of(net, (3, *shape[1:]))  # three pictures, or three steps
    x = x.astype(np.float64) if x.dtype.kind == "f" else x

    loss = nn.CrossEntropyLoss()(net(cl.Tensor(x)), labels)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(labels))
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        expected = q.grad.numpy()
        assert abs(p.grad - expected).max() <= 1e-9 * abs(expected).max(), p.name


def test_a_training_takes_the_same_path():
    """LeNet-5 on the digits from equal weights through equal batches with Adam: any wrong gradient or update adds up."""
    train, _ = cl.data.digits()
    cl.manual_seed(0)
    net, _ = NETS["LeNet-5, batch 64"]()
    twin = translate(net, torch).double()
    net.to("float64")
    ours, theirs = optim.Adam(net.parameters(), lr=1e-3), torch.optim.Adam(twin.parameters(), lr=1e-3)
    pictures = np.pad(train.x.astype(np.float64), ((0, 0), (0, 0), (12, 12), (12, 12)))
    for i in range(0, 20 * 64, 64):
        x, y = pictures[i : i + 64], train.y[i : i + 64]
        ours.zero_grad()
        loss = nn.CrossEntropyLoss()(net(cl.Tensor(x)), y)
        loss.backward()
        ours.step()
        theirs.zero_grad()
        expected = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y))
        expected.backward()
        theirs.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-9)
