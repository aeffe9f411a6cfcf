"""Optional: recurrent layers and cells beside PyTorch's, where it is installed; the suite does not need it."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn
from cnnlib.backends import available, kernel_set

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None and hasattr(kernel_set(name), "lstm_forward")]
T, B, D, H = 7, 4, 3, 5
LENGTHS = [7, 2, 5, 1]
KINDS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {})]
STACKS = [
    {},
    {"bias": False},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_kind = pytest.mark.parametrize(("kind", "form"), KINDS, ids=lambda v: str(v))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def twins(kind, *arguments, **options):
    """A layer in float64 and PyTorch's with its weights, loaded by name."""
    ours = getattr(nn, kind)(*arguments, **options).to("float64")
    theirs = getattr(torch.nn, kind)(*arguments, **options).double()
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    return ours, theirs


def states_of(value):
    return value if isinstance(value, tuple) else (value,)


def as_state(values):
    return tuple(values) if len(values) > 1 else values[0]


def check(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-12)


@each_backend
@each_kind
@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_results_and_gradients_are_pytorchs(backend, kind, form, stack, lengths):
    ours, theirs = twins(kind, D, H, **form, **stack)
    batch_first, depth = stack.get("batch_first", False), stack.get("num_layers", 1) * (1 + stack.get("bidirectional", False))
    x = normal(B, T, D) if batch_first else normal(T, B, D)
    starts = [normal(depth, B, H, seed=1 + i) for i in range(ours.states)]

    a, begun = cl.Tensor(x, requires_grad=True), [cl.Tensor(s, requires_grad=True) for s in starts]
    with cl.use(backend):
        y, last = ours(a, as_state(begun), lengths)
    dy, dlast = normal(*y.shape, seed=8), [normal(depth, B, H, seed=9 + i) for i in range(ours.states)]
    ((y * dy).sum() + sum((s * d).sum() for s, d in zip(states_of(last), dlast, strict=True))).backward()

    b, start = torch.tensor(x, requires_grad=True), [torch.tensor(s, requires_grad=True) for s in starts]
    if lengths is None:
        z, end = theirs(b, as_state(start))
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(b, lengths, batch_first=batch_first, enforce_sorted=False)
        z, end = theirs(packed, as_state(start))
        z, _ = torch.nn.utils.rnn.pad_packed_sequence(z, batch_first=batch_first, total_length=T)
    total = (z * torch.from_numpy(dy)).sum()
    (total + sum((s * torch.from_numpy(d)).sum() for s, d in zip(states_of(end), dlast, strict=True))).backward()

    check(y.data, z)
    for s, e in zip(states_of(last), states_of(end), strict=True):
        check(s.data, e)
    check(a.grad, b.grad)
    for s, e in zip(begun, start, strict=True):
        check(s.grad, e.grad)
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        check(p.grad, q.grad)


@each_backend
@each_kind
def test_truncated_backpropagation_of_chunks_with_lengths_is_pytorchs(backend, kind, form):
    """Each chunk goes on from the state of the one before it, detached, with other lengths; the gradients of all add up."""
    ours, theirs = twins(kind, D, H, 2, bidirectional=True, **form)
    state = other = None
    for chunk, lengths in enumerate((LENGTHS, None, [3, 7, 1, 6])):
        x, dy = normal(T, B, D, seed=chunk), normal(T, B, 2 * H, seed=10 + chunk)
        z = torch.from_numpy(x)
        if lengths:
            z = torch.nn.utils.rnn.pack_padded_sequence(z, lengths, enforce_sorted=False)
        with cl.use(backend):
            y, state = ours(x, None if state is None else as_state([s.detach() for s in states_of(state)]), lengths)
        z, other = theirs(z, None if other is None else as_state([s.detach() for s in states_of(other)]))
        if lengths:
            z, _ = torch.nn.utils.rnn.pad_packed_sequence(z, total_length=T)
        check(y.data, z)
        (y * dy).sum().backward()
        (z * torch.from_numpy(dy)).sum().backward()
    for s, e in zip(states_of(state), states_of(other), strict=True):
        check(s.data, e)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        check(p.grad, q.grad)


@each_backend
@each_kind
@pytest.mark.parametrize("bias", [True, False])
def test_cells_are_pytorchs(backend, kind, form, bias):
    ours, theirs = twins(kind + "Cell", D, H, bias=bias, **form)
    x, state, other = normal(4, B, D), None, None
    with cl.use(backend):
        for x_t in x:
            state, other = ours(cl.Tensor(x_t), state), theirs(torch.from_numpy(x_t), other)
    states_of(state)[0].sum().backward()
    states_of(other)[0].sum().backward()
    for s, e in zip(states_of(state), states_of(other), strict=True):
        check(s.data, e)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        check(p.grad, q.grad)


@each_kind
def test_weights_go_both_ways(kind, form):
    ours, theirs = twins(kind, D, H, 2, bidirectional=True, **form)
    again = getattr(nn, kind)(D, H, 2, bidirectional=True, **form)
    again.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    for p, q in zip(again.parameters(), ours.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-7)
