"""Recurrent layers against the lecture's equations, step by step and sequence by sequence; padding, states, directions."""

import copy
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnlib as cl
from cnnlib import nn, ops
from cnnlib.backends import available, kernel_set
from cnnlib.errors import GraphError

BACKENDS = [name for name in ("reference", "cpu") if available()[name] is None and hasattr(kernel_set(name), "lstm_forward")]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with cl.use(request.param):
        yield request.param


def normal(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def differentiable(*shape, seed=0, dtype="float64"):
    return cl.Tensor(normal(*shape, seed=seed, dtype=dtype), requires_grad=True)


# ---- the lecture's equations, by names of their own, for one sequence of vectors


def sigma(a):
    return 1 / (1 + np.exp(-a))


G = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "sigmoid": sigma, "identity": lambda a: a}


def per_gate(layer, names, suffix=""):
    """W_xi, W_hi, b_i ... of the gates with these names; biases of both kinds are added."""
    found = {}
    for kind, letter in (("weight_ih", "W_x"), ("weight_hh", "W_h")):
        for name, part in zip(names, np.split(getattr(layer, kind + suffix).data, len(names)), strict=True):
            found[letter + name] = part
    for name, k in zip(names, range(len(names)), strict=True):
        H = layer.hidden_size
        biases = [getattr(layer, kind + suffix).data[k * H : (k + 1) * H] if layer.bias else np.zeros(H) for kind in BIASES]
        found["bx_" + name], found["bh_" + name] = biases
        found["b_" + name] = sum(biases)
    return found


BIASES = ("bias_ih", "bias_hh")


def elman(layer, x, h, suffix="_l0"):
    w, outputs = per_gate(layer, "h", suffix), []
    for x_t in x:
        h = G[layer.options["nonlinearity"]](w["W_hh"] @ h + w["W_xh"] @ x_t + w["b_h"])
        outputs.append(h)
    return outputs, (h,)


def long_short_term_memory(layer, x, h, c, suffix="_l0"):
    w, outputs, H = per_gate(layer, "ifco", suffix), [], layer.hidden_size
    W_ci = W_cf = W_co = np.zeros((H, H))
    if layer.options["peepholes"]:
        W_ci, W_cf, W_co = (m if m.ndim == 2 else np.diag(m) for m in getattr(layer, "weight_peephole" + suffix).data)
    for x_t in x:
        i = sigma(w["W_xi"] @ x_t + w["W_hi"] @ h + W_ci @ c + w["b_i"])
        f = sigma(w["W_xf"] @ x_t + w["W_hf"] @ h + W_cf @ c + w["b_f"])
        c = f * c + i * np.tanh(w["W_xc"] @ x_t + w["W_hc"] @ h + w["b_c"])
        o = sigma(w["W_xo"] @ x_t + w["W_ho"] @ h + W_co @ c + w["b_o"])
        h = o * G[layer.options["output_activation"]](c)
        outputs.append(h)
    return outputs, (h, c)


def gated_recurrent_unit(layer, x, h, suffix="_l0"):
    w, outputs = per_gate(layer, "rzn", suffix), []
    for x_t in x:
        r = sigma(w["W_xr"] @ x_t + w["W_hr"] @ h + w["b_r"])
        z = sigma(w["W_xz"] @ x_t + w["W_hz"] @ h + w["b_z"])
        if layer.options["reset_after"]:
            n = np.tanh(w["W_xn"] @ x_t + w["bx_n"] + r * (w["W_hn"] @ h + w["bh_n"]))
        else:
            n = np.tanh(w["W_xn"] @ x_t + w["W_hn"] @ (r * h) + w["b_n"])
        h = z * h + (1 - z) * n
        outputs.append(h)
    return outputs, (h,)


STEPS = {nn.RNN: elman, nn.LSTM: long_short_term_memory, nn.GRU: gated_recurrent_unit}


def by_the_book(layer, x, states, lengths):
    """Every sequence by itself, without padding; layers and directions as in Schuster & Paliwal's figure."""
    T, B, _ = x.shape
    last = [np.zeros_like(states[0]) for _ in states]
    rows = []
    for b in range(B):
        y = list(x[: lengths[b], b])
        k = 0
        for number in range(layer.num_layers):
            outputs = []
            for suffix in (f"_l{number}", f"_l{number}_reverse")[: 1 + layer.bidirectional]:
                backwards = suffix.endswith("reverse")
                out, end = STEPS[type(layer)](layer, y[::-1] if backwards else y, *[s[k, b] for s in states], suffix)
                outputs.append(out[::-1] if backwards else out)
                for s, value in zip(last, end, strict=True):
                    s[k, b] = value
                k += 1
            if not layer.bidirectional:
                y = outputs[0]
            elif layer.merge == "sum":
                y = [a + c for a, c in zip(*outputs, strict=True)]
            else:
                y = [np.concatenate(pair) for pair in zip(*outputs, strict=True)]
        rows.append(np.array(y + [np.zeros(layer.output_size)] * (T - lengths[b])))
    return np.stack(rows, axis=1), last


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


FORMS = [
    *((nn.RNN, {"nonlinearity": g}) for g in G),
    (nn.RNN, {"bias": False}),
    (nn.LSTM, {}),
    (nn.LSTM, {"bias": False}),
    (nn.LSTM, {"peepholes": "diagonal"}),
    (nn.LSTM, {"peepholes": "full", "output_activation": "identity"}),
    (nn.GRU, {}),
    (nn.GRU, {"reset_after": False}),
    (nn.GRU, {"reset_after": False, "bias": False}),
]
STACKS = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "merge": "sum"},
    {"num_layers": 2, "bidirectional": True},
]
each_form = pytest.mark.parametrize(("kind", "form"), FORMS, ids=lambda v: getattr(v, "__name__", str(v)))
each_kind = pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU], ids=lambda k: k.__name__)
each_stack = pytest.mark.parametrize("stack", STACKS, ids=str)


def started(layer, B, seed=1):
    """Initial states as arrays, one (layers · directions, B, H) each."""
    depth = layer.num_layers * (1 + layer.bidirectional)
    return [normal(depth, B, layer.hidden_size, seed=seed + i) for i in range(layer.states)]


def as_state(states):
    return tuple(states) if len(states) > 1 else states[0]


@each_form
@each_stack
def test_outputs_and_last_states_are_those_of_the_equations(kind, form, stack):
    layer = kind(3, 5, **form, **stack).to("float64")
    x, start = normal(6, 4, 3), started(layer, 4)
    for lengths, states in ((None, None), ([6, 2, 5, 1], start)):
        y, state = layer(x, states and as_state(states), lengths)
        expected, last = by_the_book(layer, x, states or [np.zeros_like(s) for s in start], lengths or [6] * 4)
        np.testing.assert_allclose(y.data, expected, rtol=0, atol=1e-12)
        for s, e in zip(as_tuple(state), last, strict=True):
            np.testing.assert_allclose(s.data, e, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "form"), [(nn.RNN, {}), (nn.GRU, {"bias": False}), (nn.LSTM, {"peepholes": "full"})], ids=lambda v: str(v)
)
def test_gradients_of_two_layers_in_both_directions_with_lengths(kind, form):
    layer = kind(2, 3, 2, bidirectional=True, **form).to("float64")
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *arrays):
        twin = copy.copy(layer)  # with tensors in the place of its parameters
        for name, w in zip(names, arrays[layer.states :], strict=True):
            object.__setattr__(twin, name, w)
        y, state = twin(x, as_state(arrays[: layer.states]), [4, 2, 3])
        return (y, *as_tuple(state))

    weights = [getattr(layer, name).data for name in names]
    report = cl.gradcheck(run, normal(4, 3, 2), *started(layer, 3), *weights, elements=0, directions=3)
    assert len(report.checked) == 1 + layer.states + len(names) and all(report.checked.values())


# ---- what PyTorch's users know


def test_names_shapes_and_number_of_parameters():
    assert {n: p.shape for n, p in nn.LSTM(3, 5, 2, bidirectional=True, peepholes="full").named_parameters()} == {
        f"{name}_l{layer}{direction}": shape
        for layer, D in ((0, 3), (1, 10))
        for direction in ("", "_reverse")
        for name, shape in (("weight_ih", (20, D)), ("weight_hh", (20, 5)), ("bias_ih", (20,)), ("bias_hh", (20,)),
                            ("weight_peephole", (3, 5, 5)))
    }  # fmt: skip
    assert [n for n, _ in nn.GRU(3, 5, bias=False).named_parameters()] == ["weight_ih_l0", "weight_hh_l0"]
    assert nn.LSTM(3, 5, 2, bidirectional=True, merge="sum").weight_ih_l1.shape == (20, 5)
    assert nn.LSTMCell(3, 5, peepholes="diagonal").weight_peephole.shape == (3, 5)


def test_weights_start_between_plus_and_minus_one_over_root_H():
    for p in nn.GRU(30, 25).parameters():
        assert abs(p.data).max() <= 0.2 and abs(p.data).max() > 0.19 and abs(p.data.mean()) < 0.05


@each_kind
def test_batch_first_swaps_the_axes_of_x_and_y_only(kind):
    layer = kind(3, 5, 2, bidirectional=True)
    other = kind(3, 5, 2, bidirectional=True, batch_first=True)
    other.load_state_dict(layer.state_dict())
    x = normal(6, 4, 3, dtype="float32")
    (y, state), (z, same) = layer(x, None, [6, 2, 5, 1]), other(x.transpose(1, 0, 2), None, [6, 2, 5, 1])
    np.testing.assert_array_equal(y.data.transpose(1, 0, 2), z.data)
    for a, b in zip(as_tuple(state), as_tuple(same), strict=True):
        np.testing.assert_array_equal(a.data, b.data)


@each_form
def test_a_cell_step_by_step_is_the_layer(kind, form):
    layer, cell = kind(3, 5, **form), getattr(nn, kind.__name__ + "Cell")(3, 5, **form)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x = normal(6, 4, 3, dtype="float32")
    y, state = layer(x)
    steps, carried = [], None
    for x_t in x:
        carried = cell(x_t, carried)
        steps.append(as_tuple(carried)[0])
    np.testing.assert_allclose(np.stack([s.data for s in steps]), y.data, rtol=0, atol=1e-6)
    for a, b in zip(as_tuple(carried), as_tuple(state), strict=True):
        np.testing.assert_allclose(a.data, b.data[0], rtol=0, atol=1e-6)
    dy = normal(6, 4, 5, dtype="float32")
    (ops.stack(steps) * dy).sum().backward()
    (y * dy).sum().backward()
    for name, p in layer.named_parameters():
        np.testing.assert_allclose(getattr(cell, name.removesuffix("_l0")).grad, p.grad, rtol=0, atol=1e-5)


# ---- padding

OPS = {ops.RNN: (1, 1), ops.LSTM: (4, 2), ops.GRU: (3, 1)}  # gates, states
each_op = pytest.mark.parametrize("op", OPS, ids=lambda o: o.__name__)


@given(
    kind=st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    longer=st.integers(0, 4),
    stack=st.sampled_from(STACKS),
    content=st.sampled_from([1.0, -1e4, 1e30, np.inf, np.nan]),
    peepholes=st.sampled_from([None, "diagonal", "full"]),
    batch_first=st.booleans(),
    given_state=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_padding_never_changes_a_result_or_a_gradient(
    backend, kind, lengths, longer, stack, content, peepholes, batch_first, given_state, seed
):
    """Of every sequence alone, for what stands in the padding of x and dy, and however long it is."""
    cl.manual_seed(seed)
    layer = kind(2, 3, batch_first=batch_first, **stack, **({"peepholes": peepholes} if kind is nn.LSTM else {})).to("float64")
    T, B = max(lengths), len(lengths)
    x = normal(T + longer, B, 2, seed=seed)
    states, dy = started(layer, B), normal(T + longer, B, layer.output_size, seed=seed + 9)
    for b, n in enumerate(lengths):
        x[n:, b] = dy[n:, b] = content

    def run(columns, steps, lengths):
        layer.zero_grad()
        x_b = cl.Tensor(np.swapaxes(x[:steps, columns], 0, 1) if batch_first else x[:steps, columns], requires_grad=True)
        begun = [cl.Tensor(s[:, columns], requires_grad=True) for s in states]
        with np.errstate(invalid="ignore", over="ignore"):
            y, state = layer(x_b, as_state(begun) if given_state else None, lengths)
            dy_b = np.swapaxes(dy[:steps, columns], 0, 1) if batch_first else dy[:steps, columns]
            ((y * dy_b).sum() + sum((s * s).sum() for s in as_tuple(state))).backward()
        turn = (lambda a: np.swapaxes(a, 0, 1)) if batch_first else (lambda a: a)
        grads = [p.grad for p in layer.parameters()]
        return turn(y.data), [s.data for s in as_tuple(state)], turn(x_b.grad), [s.grad for s in begun if given_state], grads

    y, state, dx, dstate, grads = run(list(range(B)), T + longer, lengths)
    totals = [np.zeros_like(g) for g in grads]
    for b, n in enumerate(lengths):
        y_b, state_b, dx_b, dstate_b, grads_b = run([b], n, None)
        np.testing.assert_allclose(y[:n, b], y_b[:, 0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(dx[:n, b], dx_b[:, 0], rtol=0, atol=1e-12)
        assert not y[n:, b].any() and not dx[n:, b].any()
        for a, e in zip([*state, *dstate], [*state_b, *dstate_b], strict=True):
            np.testing.assert_allclose(a[:, b], e[:, 0], rtol=0, atol=1e-12)
        for total, g in zip(totals, grads_b, strict=True):
            total += g
    for total, g in zip(totals, grads, strict=True):
        np.testing.assert_allclose(g, total, rtol=0, atol=1e-11)


@each_kind
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_as_a_list_a_tensor_or_integers_of_any_size(kind, reverse):
    layer, x = kind(3, 5, bidirectional=reverse), normal(6, 4, 3, dtype="float32")
    expected = layer(x, None, [6, 2, 5, 1])[0].data
    for form in (tuple, cl.Tensor, *(lambda v, t=t: np.array(v, t) for t in ("int64", "int32", "uint8"))):
        assert layer(x, None, form([6, 2, 5, 1]))[0].data.tobytes() == expected.tobytes()
    kept = np.array([6, 2, 5, 1])
    y, _ = layer(x, None, kept)
    kept[:] = 1  # the caller's array: backward must not see this
    y.sum().backward()
    again = {n: p.grad for n, p in layer.named_parameters()}
    layer.zero_grad()
    layer(x, None, [6, 2, 5, 1])[0].sum().backward()
    for name, p in layer.named_parameters():
        np.testing.assert_array_equal(again[name], p.grad)


@each_kind
def test_lengths_that_leave_no_padding_change_no_bit_and_cost_no_memory(kind):
    op, gates = {nn.RNN: (ops.RNN, 1), nn.LSTM: (ops.LSTM, 4), nn.GRU: (ops.GRU, 3)}[kind]
    arrays = [normal(6, 4, 3), *[None] * kind.states, normal(5 * gates, 3), normal(5 * gates, 5)]
    plain, full = op.run(*arrays), op.run(*arrays, lengths=[6] * 4)
    for a, b in zip(plain[0], full[0], strict=True):
        assert a.tobytes() == b.tobytes()
    assert full[1].mask is None


@each_op
@pytest.mark.parametrize("reverse", [False, True])
def test_in_the_padding_states_are_kept_gates_and_outputs_are_0(op, reverse):
    """What a look at gates and cells finds there."""
    gates, states = OPS[op]
    starts = [normal(3, 5, seed=4 + i) for i in range(states)]
    arrays = [normal(6, 3, 2), *starts, normal(5 * gates, 2), normal(5 * gates, 5)]
    (y, *last), ctx = op.run(*arrays, lengths=[4, 6, 1], reverse=reverse)
    for b, n in enumerate([4, 6, 1]):
        assert not y[n:, b].any() and y[:n, b].all()
        for name, start, end in zip("hc", starts, last, strict=False):
            kept = start[b] if reverse else end[b]
            np.testing.assert_array_equal(getattr(ctx, name)[n:, b], np.broadcast_to(kept, (6 - n, 5)))
        if op is not ops.RNN:
            assert not ctx.gates[n:, b].any() and ctx.gates[:n, b].all()


@each_op
@pytest.mark.parametrize("reverse", [False, True])
def test_in_the_padding_outputs_are_0_even_of_a_state_that_is_nan(op, reverse):
    gates, states = OPS[op]
    x, starts = normal(6, 3, 2), [normal(3, 5, seed=4 + i) for i in range(states)]
    x[1, 0] = starts[0][0] = np.nan
    y, *_ = op.run(x, *starts, normal(5 * gates, 2), normal(5 * gates, 5), lengths=[4, 6, 1], reverse=reverse)[0]
    assert not y[4:, 0].any() and np.isnan(y[1, 0]).all() and np.isfinite(y[:, 1:]).all()


# ---- carried states


@each_form
def test_chunks_with_carried_state_are_one_long_run(kind, form):
    layer, x = kind(3, 5, 2, **form).to("float64"), normal(12, 4, 3)
    dy = normal(12, 4, 5, seed=3)
    y, last = layer(x)
    (y * dy).sum().backward()
    expected = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    state, loss = None, 0.0
    for start in (0, 5, 6):
        stop = {0: 5, 5: 6, 6: 12}[start]
        part, state = layer(x[start:stop], state)
        np.testing.assert_allclose(part.data, y.data[start:stop], rtol=0, atol=1e-13)
        loss = loss + (part * dy[start:stop]).sum()
    for a, b in zip(as_tuple(state), as_tuple(last), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=1e-13)
    loss.backward()
    for p, g in zip(layer.parameters(), expected, strict=True):
        np.testing.assert_allclose(p.grad, g, rtol=0, atol=1e-11)


@each_kind
def test_truncated_backpropagation_has_the_gradient_of_the_last_chunk(kind):
    """By differences in the parameters that only the last chunk sees, its initial state held fixed."""
    layer, x = kind(3, 4, 2).to("float64"), normal(10, 2, 3)
    _, state = layer(x[:6])
    detached = as_state([s.detach() for s in as_tuple(state)])
    layer(x[6:], detached)[0].sum().backward()
    found = [p.grad for p in layer.parameters()]
    fixed = as_state([s.data.copy() for s in as_tuple(state)])
    for p, grad in zip(layer.parameters(), found, strict=True):
        d, start, values = normal(*p.shape, seed=5), p.data.copy(), []
        for h in (1e-5, -1e-5):
            p.set(start + h * d)
            values.append(layer(x[6:], fixed)[0].data.sum())
        p.set(start)
        assert (grad * d).sum() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)
    layer.zero_grad()
    layer(x[6:], layer(x[:6])[1])[0].sum().backward()
    assert any(abs(p.grad - g).max() > 1e-3 for p, g in zip(layer.parameters(), found, strict=True)), "nothing was truncated"


@each_kind
def test_a_carried_state_that_was_not_detached_is_refused_with_what_to_do(kind):
    layer, x, state = kind(3, 4), normal(4, 2, 3, dtype="float32"), None
    y, state = layer(x)
    y.sum().backward()
    y, state = layer(x, state)
    with pytest.raises(
        GraphError, match=r"was freed by an earlier backward; .* with \.detach\(\), such as a recurrent layer's state"
    ):
        y.sum().backward()


# ---- dropout between layers


def test_dropout_is_between_layers_and_in_training_only():
    cl.manual_seed(0)
    layer, x = nn.LSTM(3, 40, 2, dropout=0.5), normal(6, 4, 3, dtype="float32")
    with cl.trace() as t:
        layer(x)
    first, dropped, second = t["lstm"].outputs[0], t["dropout"].outputs[0], t["lstm_2"].inputs["x"]
    assert len(t) == 5 and second is dropped  # and two stacks of states: no dropout on x, none on y
    assert 0.4 < (dropped == 0).mean() < 0.6
    np.testing.assert_allclose(dropped[dropped != 0], 2 * first[dropped != 0], rtol=1e-6)
    assert (layer(x)[0].data != layer(x)[0].data).any()
    layer.eval()
    plain = nn.LSTM(3, 40, 2)
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(layer(x)[0].data, plain(x)[0].data)
    with pytest.warns(
        UserWarning, match=r"LSTM: dropout=0.5 stands between layers, and there is one layer: nothing is dropped"
    ):
        one = nn.LSTM(3, 40, dropout=0.5)
    np.testing.assert_array_equal(one(x)[0].data, one(x)[0].data)


# ---- nothing behind the caller's back


@each_op
@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_are_arrays_of_their_own_and_adjoints_share_no_memory(op, lengths, reverse):
    gates, states = OPS[op]
    shapes = [(5, 3, 2), *[(3, 4)] * states, (4 * gates, 2), (4 * gates, 4), (4 * gates,), (4 * gates,)]
    tensors = [differentiable(*s, seed=i) for i, s in enumerate(shapes)]
    y, *last = getattr(ops, op.name())(*tensors, lengths=lengths, reverse=reverse)
    for s in last:
        assert not np.shares_memory(s.data, y.data) and s.data.base is None
    before = y.data.copy(), [t.data.copy() for t in tensors]
    dys = [normal(*t.shape, seed=8) for t in (y, *last)]
    for dy in dys:
        dy.flags.writeable = False
    (ops.sum(y * dys[0]) + sum(ops.sum(s * d) for s, d in zip(last, dys[1:], strict=True))).backward()
    np.testing.assert_array_equal(y.data, before[0])
    for i, t in enumerate(tensors):
        np.testing.assert_array_equal(t.data, before[1][i])
        for other in tensors[i + 1 :]:
            assert not np.shares_memory(t.grad, other.grad)


@each_op
def test_every_adjoint_is_float32_for_float32_and_only_what_is_wanted_is_computed(op):
    gates, states = OPS[op]
    shapes = [(5, 3, 2), *[(3, 4)] * states, (4 * gates, 2), (4 * gates, 4), (4 * gates,), (4 * gates,)]
    (_, ctx) = op.run(*[normal(*s, dtype="float32") for s in shapes], lengths=np.array([5, 2, 1]))
    for value in ctx.saved.values():
        for a in value if isinstance(value, tuple) else (value,):
            assert getattr(a, "dtype", np.float32) in (np.float32, np.int64)
    dys = [normal(5, 3, 4, dtype="float32"), *[normal(3, 4, dtype="float32")] * states]
    assert {g.dtype.name for g in op.backward(ctx, *dys) if g is not None} == {"float32"}
    ctx.needs = (False,) * len(ctx.needs)
    dx, *_, db = op.backward(ctx, *dys)[: len(shapes)]
    assert dx is None and (op is ops.GRU or db is None)


@each_op
def test_an_adjoint_wanted_alone_is_the_one_among_all(op):
    gates, states = OPS[op]
    shapes = [(5, 3, 2), *[(3, 4)] * states, (4 * gates, 2), (4 * gates, 4), (4 * gates,), (4 * gates,)]
    arrays, function = [normal(*s, seed=i) for i, s in enumerate(shapes)], getattr(ops, op.name())

    def grads(wanted):
        tensors = [cl.Tensor(a, requires_grad=i in wanted) for i, a in enumerate(arrays)]
        function(*tensors, lengths=[5, 2, 4])[0].sum().backward()
        return [t.grad for t in tensors]

    every = grads(range(len(arrays)))
    for i, expected in enumerate(every):
        np.testing.assert_array_equal(grads([i])[i], expected)


@each_op
@pytest.mark.parametrize("padded", [False, True])
def test_memory_is_what_the_page_says(op, padded, backend):
    """In T·B·H numbers: kept for backward, at most in forward, at most in backward, beside weights, x, dx and dy."""
    gates, states = OPS[op]
    T, B, D, H = 60, 16, 4, 64
    shapes = (T, B, D), (gates * H, D), (gates * H, H)
    x, w_ih, w_hh = (cl.Tensor(normal(*s, dtype="float32"), requires_grad=True) for s in shapes)
    function = partial(getattr(ops, op.name()), lengths=[T] + [T // 2] * (B - 1) if padded else None)
    function(x, *[None] * states, w_ih, w_hh)[0].sum().backward()  # whatever is allocated once
    x.grad = w_ih.grad = w_hh.grad = None
    dy = normal(T, B, H, dtype="float32")
    tracemalloc.start()
    try:
        outputs = function(x, *[None] * states, w_ih, w_hh)
        kept, most = (n / (4 * T * B * H) for n in tracemalloc.get_traced_memory())
        tracemalloc.reset_peak()
        outputs[0].backward(dy)
        during = tracemalloc.get_traced_memory()[1] / (4 * T * B * H) - kept
    finally:
        tracemalloc.stop()
    numbers = {ops.RNN: 1, ops.LSTM: 6, ops.GRU: 5}[op] + padded
    assert numbers <= kept < numbers + 0.1
    if backend == "cpu":
        assert most < numbers + 0.2 and during < gates + padded + 1
