"""Recurrent layers on CuPy arrays: csrc/recurrent.cu, all steps in one launch; cuBLAS for the weights' adjoints."""

from __future__ import annotations

from cnnlib.backends import xp_of
from cnnlib.backends.cuda.linear import gemm, linear_backward_bias, linear_forward
from cnnlib.backends.cuda.source import launch, multiprocessors

# To be measured on a GPU by benchmarks/gpu.py. Up to so many units a block does all of them, reading their weights from the
# cache at every step; to wait for other blocks takes about as long.
MOST_UNITS, MOST_SEQUENCES = 128, 1024
ENOUGH_WARPS = 2048  # on the largest GPU of the day: 16 on each multiprocessor
TOGETHER = 256  # threads of a block that meets others; of such a multiprocessor holds two, as __launch_bounds__ promises

NONLINEARITIES = {"tanh": 0, "relu": 1, "sigmoid": 2, "identity": 3}
PEEPHOLES = {None: 0, 2: 1, 3: 2}  # by the number of axes


def _alone(H, B):
    """Whether a block does all units of its sequences, so that it need not meet the others."""
    return H <= MOST_UNITS and B <= MOST_SEQUENCES


def _most_together(batch, itemsize):
    """How many blocks the GPU holds at the same time, by the last lines of csrc/recurrent.cu."""
    return multiprocessors() * (1 if batch == 16 and itemsize == 8 else 2)


def _splits(groups, terms, least, most):
    """How many warps share sums of so many terms: until there are ``least`` of them, every lane keeps four terms or more, and
    the block has no more than ``most``."""
    splits = 1
    while groups * splits < least and terms >= 4 * 32 * 2 * splits and 2 * splits <= most:
        splits *= 2
    return splits


def _run(name, like, units, sizes, terms, order, *arguments):
    """One launch of ``name``: all steps. ``units`` of a warp; sizes = (T, B, H); terms of a sum; order = (lengths, reverse)."""
    T, B, H = sizes
    lengths, reverse = order
    groups = max(1, -(-H // units))
    if _alone(H, B):
        batch = 1 if B <= 64 else 4
        splits = _splits(groups, terms, 16, 16 // min(16, groups))
        blocks, threads, barrier = -(-B // batch), 32 * min(16, groups * splits), None
    else:
        batch = 1 if B <= 2 else 4 if B <= 8 else 16
        splits = _splits(groups * -(-B // batch), terms, ENOUGH_WARPS, 8)
        wanted = -(-groups * splits // (TOGETHER // 32)) * -(-B // batch)
        blocks, threads = min(wanted, _most_together(batch, like.itemsize)), TOGETHER
        barrier = xp_of(like).zeros(1, "uint32")  # its own: what runs on another stream does not meet here
    head = splits, T, B, H, int(reverse), lengths, barrier
    kernel = "recurrent", f"{name}_{batch}", like.dtype.char
    launch(*kernel, (blocks,), (threads,), *head, *arguments, cooperative=barrier is not None)


def _transposed(w):
    return xp_of(w).ascontiguousarray(w.swapaxes(-1, -2))


def _rows(a):
    return a.reshape(a.shape[0] * a.shape[1], a.shape[2])


def _states_before(h, h0, reverse):
    """The state before every step, as rows (T·B, H)."""
    states = (h[1:], h0[None]) if reverse else (h0[None], h[:-1])
    return _rows(xp_of(h).concatenate(states)[: len(h)])


def _share_of_inputs(x, w_ih, b):
    """gx of every step, (T, B, D) -> (T, B, G·H); a kernel may write what a step becomes over its share."""
    return linear_forward(_rows(x), w_ih, b).reshape(*x.shape[:2], len(w_ih))


def rnn_forward(x, h0, w_ih, w_hh, b, nonlinearity, lengths, reverse):
    h = _share_of_inputs(x, w_ih, b)
    _run("rnn", h, 4, h.shape, h.shape[2], (lengths, reverse), NONLINEARITIES[nonlinearity], h, h0, w_hh, h)
    return h


def rnn_backward(dh, h, h0, w_hh, nonlinearity, lengths, reverse):
    da, dh0 = xp_of(h).empty_like(h), xp_of(h).empty_like(h0)
    arguments = NONLINEARITIES[nonlinearity], dh, h, _transposed(w_hh), da, dh0
    _run("rnn_backward", h, 4, h.shape, h.shape[2], (lengths, reverse), *arguments)
    return da, dh0, gemm(_rows(da), _states_before(h, h0, reverse), transpose_a=True)


def _peepholes(peephole):
    return PEEPHOLES[None if peephole is None else peephole.ndim]


def lstm_forward(x, h0, c0, w_ih, w_hh, b, peephole, output_activation, lengths, reverse):
    xp, (T, B, _), H = xp_of(x), x.shape, h0.shape[1]
    h, c, gates = xp.empty((T, B, H), x.dtype), xp.empty((T, B, H), x.dtype), _share_of_inputs(x, w_ih, b)
    arguments = NONLINEARITIES[output_activation], _peepholes(peephole), gates, h0, c0, w_hh, peephole, h, c, gates
    _run("lstm", x, 1, (T, B, H), H, (lengths, reverse), *arguments)
    return h, c, gates


def lstm_backward(dh, dc, h, c, gates, h0, c0, w_hh, peephole, output_activation, lengths, reverse):
    xp, peepholes, turned = xp_of(h), _peepholes(peephole), peephole
    if peepholes == 2:  # those of i and f side by side, (H, 2H), as one product takes them; then that of o
        H = h.shape[2]
        turned = xp.concatenate((_transposed(peephole[:2].reshape(2 * H, H)).reshape(-1), _transposed(peephole[2]).reshape(-1)))
    da, dh0, dc0 = xp.empty_like(gates), xp.empty_like(h0), dc.copy()
    arguments = NONLINEARITIES[output_activation], peepholes, dh, c, gates, c0, _transposed(w_hh), turned, da, dh0, dc0
    _run("lstm_backward", h, 4, h.shape, gates.shape[2], (lengths, reverse), *arguments)
    dw = gemm(_rows(da), _states_before(h, h0, reverse), transpose_a=True)
    return da, dh0, dc0, dw, _peepholes_adjoint(peephole, _rows(da), _states_before(c, c0, reverse), _rows(c))


def _peepholes_adjoint(peephole, da, c_before, c):
    """da (T·B, 4H), the cell states that the gates i, f and o saw (T·B, H) -> as peephole."""
    if peephole is None:
        return None
    H, dpeephole = c.shape[1], xp_of(c).empty_like(peephole)
    for k, (gate, seen) in enumerate(((0, c_before), (1, c_before), (3, c))):
        adjoint = da[:, gate * H : (gate + 1) * H]
        dpeephole[k] = linear_backward_bias(adjoint * seen) if peephole.ndim == 2 else gemm(adjoint, seen, transpose_a=True)
    return dpeephole


def gru_forward(x, h0, w_ih, w_hh, b_ih, b_hh, reset_after, lengths, reverse):
    gx, xp, (T, B, _), H = _share_of_inputs(x, w_ih, b_ih), xp_of(x), x.shape, h0.shape[1]
    h, gates = xp.empty((T, B, H), x.dtype), xp.empty((T, B, 4 * H), x.dtype)
    arguments = int(reset_after), gx, h0, w_hh, b_hh, h, gates
    _run("gru", gx, 1 if reset_after else 2, (T, B, H), H, (lengths, reverse), *arguments)
    return h, gates


def gru_backward(dh, h, gates, h0, w_hh, reset_after, lengths, reverse):
    xp, (T, B, H) = xp_of(h), h.shape
    da, dh0 = xp.empty((T, B, 3 * H), h.dtype), xp.empty_like(h0)
    dg = xp.empty_like(da) if reset_after else da  # the adjoints of the state's products by w_hh, where those are da's not all
    arguments = int(reset_after), dh, h, gates, h0, _transposed(w_hh), da, dg, dh0
    _run("gru_backward", h, 4, h.shape, 3 * H, (lengths, reverse), *arguments)
    dw = gemm(_rows(dg), _states_before(h, h0, reverse), transpose_a=True)
    if not reset_after:
        dw[2 * H :] = gemm(_rows(da)[:, 2 * H :], _rows(gates)[:, 3 * H :], transpose_a=True)
    return da, dh0, dw, linear_backward_bias(_rows(dg))
