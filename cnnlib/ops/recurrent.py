"""Recurrent layers: one step's function applied along a sequence, its state carried from step to step.

Notation: T steps, B sequences, D inputs, H units. x_t (B, D) is the input, h₋ (B, H) the state before the step, h after it;
"⊙" multiplies element by element, σ is the logistic sigmoid. Every step begins with the inputs' share of all G gates, which
needs no state and is one product for all T steps: ``gx = x W_ihᵀ + b_ih``, (T, B, G·H).

**RNN** (G = 1), g one of tanh, ReLU, σ, identity::

    h = g(a),  a = gx + W_hh h₋ + b_hh          da = dh ⊙ g'(a)          dh₋ = W_hhᵀ da

**LSTM** (G = 4: input gate i, forget gate f, candidate g, output gate o), a the sums inside, p the peepholes if any::

    i = σ(a_i + p_i c₋)   f = σ(a_f + p_f c₋)   g = tanh(a_g)   c = f ⊙ c₋ + i ⊙ g   o = σ(a_o + p_o c)   h = o ⊙ tanh(c)

    dao = dh ⊙ tanh(c) ⊙ o (1 − o)                   dc += dh ⊙ o ⊙ (1 − tanh²(c)) + p_oᵀ dao
    dai = dc ⊙ g ⊙ i (1 − i)    daf = dc ⊙ c₋ ⊙ f (1 − f)    dag = dc ⊙ i ⊙ (1 − g²)
    dc₋ = dc ⊙ f + p_iᵀ dai + p_fᵀ daf               dh₋ = W_hhᵀ da

The cell's path from c to c₋ is one product with f: with f = 1 an adjoint passes any number of steps unchanged, where an RNN
multiplies it by W_hhᵀ and g' each time. Peepholes p c are products with a matrix (H, H), or with one weight a unit, (H,).

**GRU** (G = 3: reset gate r, update gate z, candidate n)::

    r = σ(a_r)   z = σ(a_z)   n = tanh(gx_n + r ⊙ q), q = W_hn h₋ + b_hn  ("reset after the product": cuDNN, PyTorch)
                              n = tanh(gx_n + W_hn q + b_hn), q = r ⊙ h₋  ("before": the paper and the lecture)
    h = z ⊙ h₋ + (1 − z) ⊙ n

    dan = dh ⊙ (1 − z) ⊙ (1 − n²)    daz = dh ⊙ (h₋ − n) ⊙ z (1 − z)
    after:   dar = dan ⊙ q ⊙ r (1 − r)    dq = dan ⊙ r        dh₋ = dh ⊙ z + W_hrᵀ dar + W_hzᵀ daz + W_hnᵀ dq
    before:  dq = W_hnᵀ dan    dar = dq ⊙ h₋ ⊙ r (1 − r)      dh₋ = dh ⊙ z + W_hrᵀ dar + W_hzᵀ daz + dq ⊙ r

**Backpropagation through time** is backpropagation in the network unrolled along t: the adjoint dh of a step is what its
output received plus the dh₋ of the step after it. What da brought to each step is kept, and the weights' adjoints are products
over all steps at once, as the inputs' share was::

    dW_hh = Σ_t da_tᵀ h₋_t     db = Σ_t da_t     dW_ih = Σ_t da_tᵀ x_t     dx_t = W_ihᵀ da_t

**Lengths.** From step lengths[b] on, sequence b keeps its state and its output is 0, so padding changes nothing, in either
direction: read backwards, a sequence starts with its last real step.

Memory: beside x, forward keeps T·B·H numbers for the RNN, 6·T·B·H for the LSTM (h, c, four gates), 5·T·B·H for the GRU (h,
three gates, q), and no more while it runs: gx stands where the results will be. Backward needs G·T·B·H more while it runs (da).
Lengths that leave padding add T·B·H to each (y and dy without what stands there). The textbook kernels, not the compiled ones,
copy some arrays besides; on a GPU a GRU keeps gx, 3·T·B·H, while forward runs.

Source: lecture: recurrent networks; Elman, "Finding structure in time", 1990; Werbos, "Backpropagation through time", 1990;
Hochreiter & Schmidhuber, "Long short-term memory", 1997; Gers, Schraudolph & Schmidhuber, "Learning precise timing with LSTM
recurrent networks", 2002 (peepholes); Graves, "Supervised sequence labelling with recurrent neural networks", 2012; Cho et
al., "Learning phrase representations using RNN encoder-decoder", 2014 (GRU).
"""

from __future__ import annotations

from cnnlib.backends import kernel, on_gpu, xp_of
from cnnlib.errors import ShapeError, ValueRangeError, unknown_name
from cnnlib.op import Op
from cnnlib.ops.activation import relu_forward, sigmoid_forward
from cnnlib.ops.arguments import check_float, check_integers, check_ndim, check_not_empty, check_shape, first_wrong
from cnnlib.ops.nonfinite import first_in_sequence

NONLINEARITIES = ("tanh", "relu", "sigmoid", "identity")
OUTPUT_ACTIVATIONS = ("tanh", "identity")

# ---- the textbook


def share_of_inputs(x, w_ih, b):
    """gx of every step: (T, B, D) -> (T, B, G·H)."""
    return x @ w_ih.T if b is None else x @ w_ih.T + b


@kernel
def rnn_forward(x, h0, w_ih, w_hh, b, nonlinearity, lengths, reverse):
    return rnn_steps(share_of_inputs(x, w_ih, b), h0, w_hh, nonlinearity, lengths, reverse)


def rnn_steps(gx, h0, w_hh, nonlinearity, lengths, reverse):
    h, before = xp_of(gx).empty_like(gx), h0
    for t in _order(len(gx), reverse):
        new = _activated(gx[t] + before @ w_hh.T, nonlinearity)
        before = h[t] = _where_alive(lengths, t, new, before)
    return h


@kernel
def rnn_backward(dh, h, h0, w_hh, nonlinearity, lengths, reverse):
    da, dbefore = xp_of(h).empty_like(h), xp_of(h).zeros_like(h0)
    for t in _order(len(h), not reverse):
        dstate = dh[t] + dbefore
        da[t] = _where_alive(lengths, t, dstate * _slope(h[t], nonlinearity), 0)
        dbefore = _where_alive(lengths, t, da[t] @ w_hh, dstate)
    return da, dbefore, _outer(da, _states_before(h, h0, reverse))


@kernel
def lstm_forward(x, h0, c0, w_ih, w_hh, b, peephole, output_activation, lengths, reverse):
    return lstm_steps(share_of_inputs(x, w_ih, b), h0, c0, w_hh, peephole, output_activation, lengths, reverse)


def lstm_steps(gx, h0, c0, w_hh, peephole, output_activation, lengths, reverse):
    xp, H = xp_of(gx), h0.shape[1]
    h, c, gates = xp.empty((*gx.shape[:2], H), gx.dtype), xp.empty((*gx.shape[:2], H), gx.dtype), xp.empty_like(gx)
    for t in _order(len(gx), reverse):
        a_i, a_f, a_g, a_o = _parts(gx[t] + h0 @ w_hh.T, H)
        i, f, g = sigmoid_forward(a_i + _peep(peephole, 0, c0)), sigmoid_forward(a_f + _peep(peephole, 1, c0)), xp.tanh(a_g)
        new_c = f * c0 + i * g
        o = sigmoid_forward(a_o + _peep(peephole, 2, new_c))
        new_h = o * _activated(new_c, output_activation)
        gates[t] = _where_alive(lengths, t, xp.concatenate((i, f, g, o), axis=1), 0)
        c0 = c[t] = _where_alive(lengths, t, new_c, c0)
        h0 = h[t] = _where_alive(lengths, t, new_h, h0)
    return h, c, gates


@kernel
def lstm_backward(dh, dc, h, c, gates, h0, c0, w_hh, peephole, output_activation, lengths, reverse):
    xp, H = xp_of(h), h0.shape[1]
    da, c_before, dbefore = xp.empty_like(gates), _states_before(c, c0, reverse), xp.zeros_like(h0)
    for t in _order(len(h), not reverse):
        i, f, g, o = _parts(gates[t], H)
        dstate, squashed = dh[t] + dbefore, _activated(c[t], output_activation)
        da_o = dstate * squashed * o * (1 - o)
        dcell = dc + dstate * o * _slope(squashed, output_activation) + _peep_backward(peephole, 2, da_o)
        da_i, da_f, da_g = dcell * g * i * (1 - i), dcell * c_before[t] * f * (1 - f), dcell * i * (1 - g * g)
        da[t] = _where_alive(lengths, t, xp.concatenate((da_i, da_f, da_g, da_o), axis=1), 0)
        dc_before = dcell * f + _peep_backward(peephole, 0, da_i) + _peep_backward(peephole, 1, da_f)
        dc = _where_alive(lengths, t, dc_before, dc)
        dbefore = _where_alive(lengths, t, da[t] @ w_hh, dstate)
    dpeephole = None if peephole is None else _peep_weights(peephole, da, c_before, c)
    return da, dbefore, dc, _outer(da, _states_before(h, h0, reverse)), dpeephole


@kernel
def gru_forward(x, h0, w_ih, w_hh, b_ih, b_hh, reset_after, lengths, reverse):
    return gru_steps(share_of_inputs(x, w_ih, b_ih), h0, w_hh, b_hh, reset_after, lengths, reverse)


def gru_steps(gx, h0, w_hh, b_hh, reset_after, lengths, reverse):
    xp, H = xp_of(gx), h0.shape[1]
    h, gates = xp.empty((*gx.shape[:2], H), gx.dtype), xp.empty((*gx.shape[:2], 4 * H), gx.dtype)
    b_rz, b_n = (0, 0) if b_hh is None else (b_hh[: 2 * H], b_hh[2 * H :])
    w_rz, w_n = w_hh[: 2 * H], w_hh[2 * H :]
    for t in _order(len(gx), reverse):
        r, z = _parts(sigmoid_forward(gx[t, :, : 2 * H] + h0 @ w_rz.T + b_rz), H)
        q = h0 @ w_n.T + b_n if reset_after else r * h0
        n = xp.tanh(gx[t, :, 2 * H :] + (r * q if reset_after else q @ w_n.T + b_n))
        gates[t] = _where_alive(lengths, t, xp.concatenate((r, z, n, q), axis=1), 0)
        h0 = h[t] = _where_alive(lengths, t, z * h0 + (1 - z) * n, h0)
    return h, gates


@kernel
def gru_backward(dh, h, gates, h0, w_hh, reset_after, lengths, reverse):
    xp, H = xp_of(h), h0.shape[1]
    h_before, dbefore = _states_before(h, h0, reverse), xp.zeros_like(h0)
    da, dq = xp.empty((*h.shape[:2], 3 * H), h.dtype), xp.empty_like(h)
    w_rz, w_n = w_hh[: 2 * H], w_hh[2 * H :]
    for t in _order(len(h), not reverse):
        r, z, n, q = _parts(gates[t], H)
        dstate = dh[t] + dbefore
        da_n, da_z = dstate * (1 - z) * (1 - n * n), dstate * (h_before[t] - n) * z * (1 - z)
        dq[t] = _where_alive(lengths, t, da_n * r if reset_after else da_n @ w_n, 0)
        da_r = (da_n * q if reset_after else dq[t] * h_before[t]) * r * (1 - r)
        da[t] = _where_alive(lengths, t, xp.concatenate((da_r, da_z, da_n), axis=1), 0)
        through_n = dq[t] @ w_n if reset_after else dq[t] * r
        dbefore = _where_alive(lengths, t, dstate * z + da[t, :, : 2 * H] @ w_rz + through_n, dstate)
    dw_rz = _outer(da[:, :, : 2 * H], h_before)
    da_n, q = da[:, :, 2 * H :], gates[:, :, 3 * H :]
    dw_n, db_n = (_outer(dq, h_before), dq) if reset_after else (_outer(da_n, q), da_n)
    db_hh = xp.concatenate((da[:, :, : 2 * H].sum(axis=(0, 1)), db_n.sum(axis=(0, 1))))
    return da, dbefore, xp.concatenate((dw_rz, dw_n)), db_hh


def _order(T, reverse):
    return range(T - 1, -1, -1) if reverse else range(T)


def _where_alive(lengths, t, new, kept):
    """``new`` for the sequences that have a step t, ``kept`` for the others."""
    return new if lengths is None else xp_of(new).where((t < lengths)[:, None], new, kept)


def _states_before(h, h0, reverse):
    """h₋ of every step, (T, B, H)."""
    xp = xp_of(h)
    return xp.concatenate((h[1:], h0[None]) if reverse else (h0[None], h[:-1]))


def _outer(da, before):
    """Σ_t da_tᵀ before_t: (T, B, K), (T, B, H) -> (K, H)."""
    return da.reshape(-1, da.shape[2]).T @ before.reshape(-1, before.shape[2])


def _parts(a, H):
    """(B, G·H) -> G arrays (B, H)."""
    return [a[:, k : k + H] for k in range(0, a.shape[1], H)]


def _steps(a, H):
    """(T, B, G·H) -> G arrays (T, B, H)."""
    return [a[:, :, k : k + H] for k in range(0, a.shape[2], H)]


def _activated(a, name):
    xp = xp_of(a)
    return {"tanh": xp.tanh, "relu": relu_forward, "sigmoid": sigmoid_forward, "identity": lambda a: a}[name](a)


def _slope(y, name):
    """g'(a) by y = g(a)."""
    if name == "relu":
        return (y > 0).astype(y.dtype)
    return {"tanh": 1 - y * y, "sigmoid": y * (1 - y), "identity": 1}[name]


def _peep(peephole, k, c):
    """p_k c of gate k = 0, 1, 2 for i, f, o: peephole (3, H), one weight a unit, or (3, H, H)."""
    if peephole is None:
        return 0
    return c * peephole[k] if peephole.ndim == 2 else c @ peephole[k].T


def _peep_backward(peephole, k, da):
    if peephole is None:
        return 0
    return da * peephole[k] if peephole.ndim == 2 else da @ peephole[k]


def _peep_weights(peephole, da, c_before, c):
    xp, H = xp_of(c), c.shape[2]
    pairs = [(da[:, :, :H], c_before), (da[:, :, H : 2 * H], c_before), (da[:, :, 3 * H :], c)]
    return xp.stack([(d * s).sum(axis=(0, 1)) if peephole.ndim == 2 else _outer(d, s) for d, s in pairs])


# ---- the operations


class _Recurrent(Op):
    gates: tuple[str, ...] = ()  # names, in the order of the weights' rows

    @staticmethod
    def computed(ctx):
        """What forward computed at a step, in that order, as {name: (T, B, H)}; what stands in one dict can be bad at once."""
        raise NotImplementedError

    @staticmethod
    def through_time(ctx, *dys):
        """What the kernel of backward returns; first da (T, B, G·H), the adjoints of the sums inside the gates."""
        raise NotImplementedError

    @classmethod
    def began(cls, ctx, dys=None):
        if not ctx.saved or "how" not in ctx.saved:
            return ""  # somebody's own forward
        order = _order(len(ctx.h), ctx.how[-1])
        if dys is None:
            return first_in_sequence(cls.computed(ctx), order)
        parts = _steps(cls.through_time(ctx, *dys)[0], ctx.h.shape[2])
        adjoints = {f"the adjoint of {name}": da for name, da in zip(cls.gates, parts, strict=True)}
        finite = ": every gate's adjoint is finite at every step, their sums and products with weights are not"
        return first_in_sequence([adjoints], order[::-1]) or finite


class RNN(_Recurrent):
    """Saves x, w_ih, w_hh, h0, h (T, B, H): the state after every step, and mask (T, B, 1) or None."""

    formula = "h_t = g(W_ih x_t + W_hh h_(t-1) + b)"
    gates = ("the state h",)

    @staticmethod
    def forward(ctx, x, h0, w_ih, w_hh, b_ih=None, b_hh=None, *, nonlinearity="tanh", lengths=None, reverse=False):
        _check("rnn", 1, x, (("h0", h0),), w_ih, w_hh, b_ih, b_hh)
        _check_word("rnn", "nonlinearity", nonlinearity, NONLINEARITIES)
        lengths, mask = _checked_lengths(ctx.xp, "rnn", x, lengths)
        h0 = _initial(ctx.xp, x, h0, w_hh)
        h = ctx.kernels.rnn_forward(x, h0, w_ih, w_hh, _sum(b_ih, b_hh), nonlinearity, lengths, reverse)
        ctx.save(x=x, w_ih=w_ih, w_hh=w_hh, h0=h0, h=h, mask=mask, how=(nonlinearity, lengths, reverse))
        return _masked(h, mask), _last(h, reverse)

    @staticmethod
    def backward(ctx, dy, dh_n):
        da, dh0, dw_hh = RNN.through_time(ctx, dy, dh_n)
        dx, dw_ih, db = _inputs_backward(ctx, da, 2)
        return dx, dh0, dw_ih, dw_hh, db, db

    @staticmethod
    def through_time(ctx, dy, dh_n):
        return ctx.kernels.rnn_backward(_adjoint_of_states(ctx, dy, dh_n), ctx.h, ctx.h0, ctx.w_hh, *ctx.how)

    @staticmethod
    def computed(ctx):
        return [{"the state h": ctx.h}]


class LSTM(_Recurrent):
    """Saves x, w_ih, w_hh, peephole, h0, c0, h and c (T, B, H), gates (T, B, 4H): i, f, g, o of every step, and mask."""

    formula = "c_t = f c_(t-1) + i g, h_t = o tanh(c_t)"
    gates = ("the input gate i", "the forget gate f", "the candidate g", "the output gate o")

    @staticmethod
    def forward(ctx, x, h0, c0, w_ih, w_hh, b_ih=None, b_hh=None, peephole=None, *, output_activation="tanh", lengths=None,
                reverse=False):  # fmt: skip
        _check("lstm", 4, x, (("h0", h0), ("c0", c0)), w_ih, w_hh, b_ih, b_hh)
        _check_peephole(peephole, w_hh.shape[1])
        _check_word("lstm", "output_activation", output_activation, OUTPUT_ACTIVATIONS)
        lengths, mask = _checked_lengths(ctx.xp, "lstm", x, lengths)
        h0, c0 = _initial(ctx.xp, x, h0, w_hh), _initial(ctx.xp, x, c0, w_hh)
        how = (peephole, output_activation, lengths, reverse)
        h, c, gates = ctx.kernels.lstm_forward(x, h0, c0, w_ih, w_hh, _sum(b_ih, b_hh), *how)
        ctx.save(x=x, w_ih=w_ih, w_hh=w_hh, peephole=peephole, h0=h0, c0=c0, h=h, c=c, gates=gates, mask=mask, how=how)
        return _masked(h, mask), _last(h, reverse), _last(c, reverse)

    @staticmethod
    def backward(ctx, dy, dh_n, dc_n):
        da, dh0, dc0, dw_hh, dpeephole = LSTM.through_time(ctx, dy, dh_n, dc_n)
        dx, dw_ih, db = _inputs_backward(ctx, da, 3)
        return dx, dh0, dc0, dw_ih, dw_hh, db, db, dpeephole

    @staticmethod
    def through_time(ctx, dy, dh_n, dc_n):
        dh = _adjoint_of_states(ctx, dy, dh_n)
        dc = ctx.xp.zeros(ctx.c0.shape, dh.dtype) if dc_n is None else dc_n
        return ctx.kernels.lstm_backward(dh, dc, ctx.h, ctx.c, ctx.gates, ctx.h0, ctx.c0, ctx.w_hh, *ctx.how)

    @staticmethod
    def computed(ctx):
        i, f, g, o = zip(LSTM.gates, _steps(ctx.gates, ctx.h.shape[2]), strict=True)
        first, last = ([i, f, g, o], []) if ctx.peephole is None else ([i, f, g], [o])
        return [dict(first), {"the cell c": ctx.c}, dict(last), {"the state h": ctx.h}]


class GRU(_Recurrent):
    """Saves x, w_ih, w_hh, h0, h (T, B, H), gates (T, B, 4H): r, z, n and q of every step, and mask."""

    formula = "h_t = z h_(t-1) + (1 - z) n"
    gates = ("the reset gate r", "the update gate z", "the candidate n")

    @staticmethod
    def forward(ctx, x, h0, w_ih, w_hh, b_ih=None, b_hh=None, *, reset_after=True, lengths=None, reverse=False):
        _check("gru", 3, x, (("h0", h0),), w_ih, w_hh, b_ih, b_hh)
        lengths, mask = _checked_lengths(ctx.xp, "gru", x, lengths)
        h0 = _initial(ctx.xp, x, h0, w_hh)
        h, gates = ctx.kernels.gru_forward(x, h0, w_ih, w_hh, b_ih, b_hh, reset_after, lengths, reverse)
        how = (reset_after, lengths, reverse)
        ctx.save(x=x, w_ih=w_ih, w_hh=w_hh, h0=h0, h=h, gates=gates, mask=mask, how=how)
        return _masked(h, mask), _last(h, reverse)

    @staticmethod
    def backward(ctx, dy, dh_n):
        da, dh0, dw_hh, db_hh = GRU.through_time(ctx, dy, dh_n)
        dx, dw_ih, db_ih = _inputs_backward(ctx, da, 2)
        return dx, dh0, dw_ih, dw_hh, db_ih, db_hh

    @staticmethod
    def through_time(ctx, dy, dh_n):
        return ctx.kernels.gru_backward(_adjoint_of_states(ctx, dy, dh_n), ctx.h, ctx.gates, ctx.h0, ctx.w_hh, *ctx.how)

    @staticmethod
    def computed(ctx):
        r, z, n, q = zip((*GRU.gates, "the state's share q of n"), _steps(ctx.gates, ctx.h.shape[2]), strict=True)
        return [dict([r, z]), dict([q]), dict([n]), {"the state h": ctx.h}]


def _inputs_backward(ctx, da, w):
    """dx, dw_ih, db; w is the place of w_ih among the arguments."""
    x, rows = _masked(ctx.x, ctx.mask), da.reshape(-1, da.shape[2])  # da is 0 in the padding, but 0 · NaN is not
    needs, kernels = ctx.needs, ctx.kernels
    dx = kernels.linear_backward_input(rows, ctx.w_ih).reshape(x.shape) if needs[0] else None
    dw = kernels.linear_backward_weight(rows, x.reshape(-1, x.shape[2])) if needs[w] else None
    return dx, dw, kernels.linear_backward_bias(rows) if any(needs[w + 2 : w + 4]) else None


def _sum(b_ih, b_hh):
    return b_hh if b_ih is None else b_ih if b_hh is None else b_ih + b_hh


def _initial(xp, x, state, w_hh):
    return xp.zeros((x.shape[1], w_hh.shape[1]), x.dtype) if state is None else state


def _masked(a, mask):
    """a with 0 in the padding, whatever stands there: 0 · NaN would be NaN."""
    if mask is None:
        return a
    if on_gpu(a):  # where CuPy indexes by a mask it waits for the number of its elements
        return xp_of(a).where(mask != 0, a, 0)
    a = a.copy()
    a[mask[:, :, 0] == 0] = 0
    return a


def _last(h, reverse):
    """The state after the step that is done last, as an array of its own."""
    return h[0 if reverse else -1].copy()


def _adjoint_of_states(ctx, dy, dh_n):
    """dh of every step: from the outputs, and from the last state at the step that is done last."""
    if dh_n is None and dy is not None:
        return _masked(dy, ctx.mask)
    dh = ctx.xp.zeros_like(ctx.h) if dy is None else dy.copy() if ctx.mask is None else _masked(dy, ctx.mask)
    if dh_n is not None:
        dh[0 if ctx.how[-1] else -1] += dh_n
    return dh


# ---- what is refused


def _check(op, gates, x, states, w_ih, w_hh, b_ih, b_hh):
    for name, a in (("x", x), *states, ("w_ih", w_ih), ("w_hh", w_hh), ("b_ih", b_ih), ("b_hh", b_hh)):
        if a is not None:
            check_float(op, name, a)
    check_ndim(op, "x", x, 3, "(T, B, D): steps, sequences, inputs")
    check_not_empty(op, "x", x)
    check_ndim(op, "w_hh", w_hh, 2, f"({gates}·H, H)" if gates > 1 else "(H, H)")
    B, D, H = x.shape[1], x.shape[2], w_hh.shape[1]
    rows = "one row per gate and unit"
    if not H:
        raise ShapeError(f"{op}: w_hh must have one column per unit, H >= 1, got shape {w_hh.shape}: there is no unit.")
    check_shape(op, "w_hh", w_hh, (gates * H, H), rows)
    check_shape(op, "w_ih", w_ih, (gates * H, D), f"{rows}, one column per input (x.shape = {x.shape})")
    for name, b in (("b_ih", b_ih), ("b_hh", b_hh)):
        if b is not None:
            check_shape(op, name, b, (gates * H,), "one bias per gate and unit")
    for name, state in states:
        if state is not None:
            check_shape(op, name, state, (B, H), f"a state for each of the {B} sequences of x (T, B, D) = {x.shape}")


def _check_peephole(peephole, H):
    if peephole is None:
        return
    check_float("lstm", "peephole", peephole)
    if peephole.shape not in ((3, H), (3, H, H)):
        raise ShapeError(
            f"lstm: peephole must have shape (3, H) = (3, {H}), a weight per unit of the gates i, f, o, "
            f"or (3, H, H) = (3, {H}, {H}), a matrix per gate; got {peephole.shape}."
        )


def _check_word(op, name, word, known):
    if word not in known:
        raise unknown_name(f"{name} of {op}", word, known)


def _checked_lengths(xp, op, x, lengths):
    """lengths as (B,) int64, and the mask (T, B, 1), 1 where a step is real; None, None where nothing is padding."""
    if lengths is None:
        return None, None
    T, B = x.shape[:2]
    lengths = getattr(lengths, "data", lengths) if hasattr(lengths, "requires_grad") else lengths
    lengths = xp_of(lengths).asarray(lengths)  # values on the host are looked at there
    check_integers(op, "lengths", lengths)
    check_shape(op, "lengths", lengths, (B,), f"one length for each of the {B} sequences of x (T, B, D) = {x.shape}")
    where = first_wrong("lengths", (lengths < 1) | (lengths > T))
    if where is not None:
        b = where[0]
        raise ValueRangeError(
            f"{op}: lengths[{b}] = {int(lengths[b])}, but every length must lie in 1 … T = {T}: "
            "a sequence has at least one step, and x has T. Leave empty sequences out of the batch."
        )
    if not on_gpu(lengths) and bool((lengths == T).all()):
        return None, None
    lengths = xp.asarray(lengths).astype("int64")
    return lengths, (xp.arange(T)[:, None] < lengths)[:, :, None].astype(x.dtype)


# ---- the public functions


def rnn(x, h0, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity="tanh", lengths=None, reverse=False):
    """A simple recurrent layer over a whole sequence, as defined at the top of this file -> (y, h_n).

    x (T, B, D), h0 (B, H) or None for zeros, w_ih (H, D), w_hh (H, H), biases (H,) or None; float32 or float64 ->
    y (T, B, H), the state after every step, and h_n (B, H), after the last. ``nonlinearity``: tanh, relu, sigmoid or identity.
    ``lengths``: B whole numbers in 1 … T; ``reverse``: from the last step to the first.

    >>> import cnnlib as cl
    >>> w = cl.Tensor([[1.0]])
    >>> y, h_n = cl.ops.rnn(cl.Tensor([[[1.0]], [[2.0]], [[3.0]]]), None, w, w, nonlinearity="identity")
    >>> y.numpy().ravel()
    array([1., 3., 6.], dtype=float32)

    Raises ShapeError (an array or lengths of another shape), ValueRangeError (a length outside 1 … T), UnknownNameError,
    DtypeError.
    """
    return RNN.apply(x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity=nonlinearity, lengths=lengths, reverse=reverse)


def lstm(x, h0, c0, w_ih, w_hh, b_ih=None, b_hh=None, peephole=None, output_activation="tanh", lengths=None, reverse=False):
    """An LSTM layer over a whole sequence, as defined at the top of this file -> (y, h_n, c_n).

    x (T, B, D), h0 and c0 (B, H) or None for zeros, w_ih (4H, D) and w_hh (4H, H) with the rows of i, f, g, o one after the
    other, biases (4H,) or None, peephole (3, H), (3, H, H) or None with those of i, f, o; float32 or float64 -> y (T, B, H),
    h_n and c_n (B, H). ``output_activation="identity"``: h = o ⊙ c. ``lengths``, ``reverse`` and errors: as in :func:`rnn`.

    >>> import cnnlib as cl, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (cl.Tensor(rng.normal(size=s)) for s in ((7, 2, 3), (20, 3), (20, 5)))
    >>> y, h_n, c_n = cl.ops.lstm(x, None, None, w_ih, w_hh)
    >>> y.shape, h_n.shape, c_n.shape
    ((7, 2, 5), (2, 5), (2, 5))
    """
    settings = {"output_activation": output_activation, "lengths": lengths, "reverse": reverse}
    return LSTM.apply(x, h0, c0, w_ih, w_hh, b_ih, b_hh, peephole, **settings)


def gru(x, h0, w_ih, w_hh, b_ih=None, b_hh=None, reset_after=True, lengths=None, reverse=False):
    """A GRU layer over a whole sequence, as defined at the top of this file -> (y, h_n).

    x (T, B, D), h0 (B, H) or None for zeros, w_ih (3H, D) and w_hh (3H, H) with the rows of r, z, n one after the other,
    biases (3H,) or None; float32 or float64 -> y (T, B, H), h_n (B, H). ``reset_after``: whether r multiplies W_hn h₋ + b_hn
    (as in PyTorch) or h₋ (as in the paper). ``lengths``, ``reverse`` and errors: as in :func:`rnn`.

    >>> import cnnlib as cl, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (cl.Tensor(rng.normal(size=s)) for s in ((7, 2, 3), (15, 3), (15, 5)))
    >>> y, h_n = cl.ops.gru(x, None, w_ih, w_hh)
    >>> y.shape, h_n.shape
    ((7, 2, 5), (2, 5))
    """
    return GRU.apply(x, h0, w_ih, w_hh, b_ih, b_hh, reset_after=reset_after, lengths=lengths, reverse=reverse)
