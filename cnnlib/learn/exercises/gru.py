"""GRU: two gates, one state, forward and back through time

Three gates and a cell beside the state: is all of that needed? The gated recurrent unit does with one state and two
gates. z, the update gate, says how much of the old state stays; r, the reset gate, how much of it the candidate n gets
to see:

    r = σ(a_r),  z = σ(a_z)                                     a_r = gx_r + W_hr h₋ + b_hr,  a_z likewise
    n = tanh(gx_n + W_hn q + b_hn),  q = r ⊙ h₋                 reset before the product: the paper, the lecture
    n = tanh(gx_n + r ⊙ q),          q = W_hn h₋ + b_hn         reset after the product: cuDNN, PyTorch
    h = z ⊙ h₋ + (1 − z) ⊙ n                                    h₋ the state before the step, h after it

    gx (T, B, 3H)   the inputs' share of the three sums, done already; parts: r, z, n      h0 (B, H)
    w_hh (3H, H), b_hh (3H,)   rows in the same order
    gates (T, B, 4H)   r, z, n and q of every step, kept for the way back

(The lecture calls the gates in_fr and fr, and writes h = f h₋ + (1 − f) cl with an f that it does not define. Take it
for the reset gate, and the update gate is dead: nothing would depend on it. It is z.)

**Back**, with dh = dh_t + what the step behind sent back:

    da_n = dh ⊙ (1 − z) ⊙ (1 − n²)      da_z = dh ⊙ (h₋ − n) ⊙ z (1 − z)
    before:  dq = W_hnᵀ da_n    da_r = dq ⊙ h₋ ⊙ r (1 − r)    dh₋ = dh ⊙ z + W_hrᵀ da_r + W_hzᵀ da_z + dq ⊙ r
    after:   dq = da_n ⊙ r      da_r = da_n ⊙ q ⊙ r (1 − r)   dh₋ = dh ⊙ z + W_hrᵀ da_r + W_hzᵀ da_z + W_hnᵀ dq

The path dh ⊙ z is the GRU's carousel: with z = 1 the state and its adjoint pass unchanged.

Write gru(gx, h0, w_hh, b_hh, reset_after) -> h, gates, and gru_bptt(dh, gx, h0, w_hh, b_hh, reset_after, h, gates) ->
da, dh0, dw_hh, db_hh. dh (T, B, H) is the upstream gradient of all states; da (T, B, 3H) is the adjoint of gx. Begin
with reset_after = False; the checker says when that half is right.

Source: lecture: recurrent networks (GRU); Cho et al., "Learning phrase representations using RNN encoder-decoder",
2014.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant, Numerical, Train
from cnnlib.ops.activation import sigmoid_forward
from cnnlib.ops.recurrent import _order, _outer, _parts, _states_before, _where_alive, gru_backward, gru_steps, share_of_inputs


def gru(gx, h0, w_hh, b_hh, reset_after):
    return gru_steps(gx, h0, w_hh, b_hh, reset_after, None, False)


def gru_bptt(dh, gx, h0, w_hh, b_hh, reset_after, h, gates):
    return gru_backward(dh, h, gates, h0, w_hh, reset_after, None, False)


def run(gx, h, w_hh, b_hh, reset_after):
    """h and gates of all steps, written step by step."""
    sigmoid, kept = lambda a: 0.5 * (1 + np.tanh(0.5 * a)), ([], [])
    (w_r, w_z, w_n), (b_r, b_z, b_n) = np.split(w_hh, 3), np.split(b_hh, 3)
    for gx_t in gx:
        gx_r, gx_z, gx_n = np.split(gx_t, 3, axis=1)
        r, z = sigmoid(gx_r + h @ w_r.T + b_r), sigmoid(gx_z + h @ w_z.T + b_z)
        q = h @ w_n.T + b_n if reset_after else r * h
        n = np.tanh(gx_n + r * q) if reset_after else np.tanh(gx_n + q @ w_n.T + b_n)
        h = z * h + (1 - z) * n
        kept[0].append(h)
        kept[1].append(np.hstack([r, z, n, q]))
    return np.stack(kept[0]), np.stack(kept[1])


def states(dh, gx, h0, w_hh, b_hh, reset_after, h, gates):
    return run(gx, h0, w_hh, b_hh, reset_after)[0]


def cases(rng):
    found = []
    for T, B, H, reset_after, *features in (
        (4, 3, 3, False),
        (4, 3, 3, True, "reset after the product"),
        (1, 2, 4, False, "T = 1"),
        (5, 1, 2, False, "B = 1"),
        (8, 2, 1, False, "one unit"),
        (9, 2, 3, True, "reset after the product", "a longer sequence"),
    ):
        gx, w_hh = rng.normal(size=(T, B, 3 * H)), rng.normal(size=(3 * H, H)) / H**0.5
        args = (gx, rng.normal(size=(B, H)), w_hh, rng.normal(size=3 * H), reset_after)
        found += [Case(args, features, "gru"), Case((rng.normal(size=(T, B, H)), *args, *run(*args)), features, "gru_bptt")]
    return found


def fast(rng):
    T, B, H = 50, 32, 128
    args = (rng.normal(size=(T, B, 3 * H)), np.zeros((B, H)), rng.normal(size=(3 * H, H)) / H**0.5, np.zeros(3 * H), False)
    return (rng.normal(size=(T, B, H)), *args, *run(*args))


def kernel_args(dh, gx, h0, w_hh, b_hh, reset_after, h, gates):
    return dh, h, gates, h0, w_hh, reset_after, None, False


def kernels(f):
    """The learner's two functions as kernels; backward's is not given gx and b_hh, so they are remembered."""
    gru, gru_bptt = f
    last = {}

    def forward(x, h0, w_ih, w_hh, b_ih, b_hh, reset_after, lengths, reverse):
        gx = share_of_inputs(x, w_ih, b_ih)
        last["given"] = gx, b_hh
        return gru(gx, h0, w_hh, b_hh, reset_after)

    def backward(dh, h, gates, h0, w_hh, reset_after, lengths, reverse):
        gx, b_hh = last["given"]
        return gru_bptt(dh, gx, h0, w_hh, b_hh, reset_after, h, gates)

    return {"gru_forward": forward, "gru_backward": backward}


EXERCISE = Exercise(
    number=26,
    name="gru",
    topic="lecture: recurrent networks (GRU)",
    function=(gru, gru_bptt),
    uses=(sigmoid_forward, _order, _where_alive, _states_before, _outer, _parts, gru_steps, gru_backward),
    specialised=True,
    outputs={"gru": ("h", "gates"), "gru_bptt": ("da", "dh0", "dw_hh", "db_hh")},
    starter='''\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gru(gx, h0, w_hh, b_hh, reset_after):
    """gx (T, B, 3H), h0 (B, H), w_hh (3H, H), b_hh (3H,), reset_after a bool -> h (T, B, H), gates (T, B, 4H): r, z, n, q"""
    # for every t: r and z first, then q and n, then h = z h + (1 - z) n
    ...


def gru_bptt(dh, gx, h0, w_hh, b_hh, reset_after, h, gates):
    """dh (T, B, H), what gru got, what it returned -> da, dh0, dw_hh, db_hh, of the shapes of gx, h0, w_hh, b_hh"""
    # from the last step to the first; four ways lead from h to the state before:
    #     z, the two gates, the candidate
    ...
''',
    cases=cases,
    numerical=Numerical(states, wrt={"da": 1, "dh0": 2, "dw_hh": 3, "db_hh": 4}, upstream=0, function="gru_bptt"),
    hints=(
        "In how many places of the four formulas of a step does h₋ stand? Each is one term of dh₋.",
        "w_r, w_z, w_n = np.split(w_hh, 3) and r, z, n, q = np.split(gates[t], 4, axis=1). da_r and da_z have the state h₋ "
        "as their "
        "other factor in dw_hh; for n it depends: W_hn was multiplied by q (before) or by h₋ (after).",
        "Before: dq = da_n @ w_n; da_r = dq * before * r * (1 - r); carried = d * z + da_r @ w_r + da_z @ w_z + dq * r; and "
        "dw_n += da_n.T @ q. The bias b_hn stands beside the product with W_hn: its adjoint is Σ da_n (before) or Σ dq "
        "(after).",
    ),
    question="The reset gate closes: r = 0. What does the unit compute then, in the two forms, and how can it still remember?",
    answer="Before: n = tanh(gx_n + b_hn), after: n = tanh(gx_n): the candidate sees the input alone, as if a new sequence "
    "began. The "
    "old state survives all the same where z is near 1, since h = z ⊙ h₋ + (1 − z) ⊙ n does not ask r.",
    link="cnnlib/ops/recurrent.py",
    explanations=(
        Explanation(
            "z_swapped",
            "your z and 1 − z are interchanged: here z is what stays, h = z ⊙ h₋ + (1 − z) ⊙ n (papers have both forms).",
        ),
        Explanation(
            "dead_z",
            "your state mixes with r, so the update gate is dead: the slide's undefined f is z, h = z ⊙ h₋ + (1 − z) ⊙ n.",
        ),
        Explanation("gates_swapped", "your gates are interchanged: the parts of gx, w_hh and b_hh are r, z, n in this order."),
        Explanation("reset_by_z", "your candidate is reset by z: it is the reset gate r that says what n sees of h₋."),
        Explanation("no_reset", "your candidate sees all of h₋: the reset gate r decides how much, q = r ⊙ h₋."),
        Explanation("no_b_n", "your candidate leaves out b_hn."),
        Explanation("z_sign", "your da_z has n − h₋: h = z ⊙ h₋ + (1 − z) ⊙ n, so ∂h/∂z = h₋ − n."),
        Explanation("z_half", "your da_z sees one of z's two places only: h = z ⊙ h₋ + (1 − z) ⊙ n, so ∂h/∂z = h₋ − n."),
        Explanation("dn_z", "your da_n has the factor z: the candidate comes in with 1 − z."),
        Explanation("no_slope_n", "your da_n leaves out the derivative of tanh, 1 − n²."),
        Explanation("no_slope_r", "your da_r is the adjoint of r: to get to a_r it must go through σ, times r (1 − r)."),
        Explanation("no_direct", "your dh₋ lacks dh ⊙ z: the share of the state that the update gate lets stay."),
        Explanation("direct_swapped", "your dh₋ has dh ⊙ (1 − z): the old state comes in with z."),
        Explanation("no_gates", "your dh₋ lacks what goes back through the gates: W_hrᵀ da_r + W_hzᵀ da_z."),
        Explanation("no_candidate", "your dh₋ lacks what goes back through the candidate n."),
        Explanation(
            "no_time", "your dh_t is only what came from above: h_t also went into the next step, add dh₋ of the step behind."
        ),
        Explanation(
            "dw_n_before",
            "your dw_hh takes h₋ in the rows of n: with the reset before the product W_hn is multiplied by q = r ⊙ h₋.",
        ),
        Explanation("dw_n_after", "your dw_hh takes da_n in the rows of n: after the product comes r, so it is dq = da_n ⊙ r."),
        Explanation(
            "db_n",
            "your db_hh takes da_n for b_hn: it is added before r multiplies, so its adjoint is the sum of dq = da_n ⊙ r.",
        ),
        Explanation("same_step", "your dw_hh pairs da_t with h_t: W_hh was multiplied by the state before the step, h₋."),
        Explanation("dq_no_r", "your way back through the candidate lacks r: q = r ⊙ h₋, so dq ⊙ r goes back to h₋."),
        Explanation(
            "dq_no_r_after", "your way back through the candidate lacks r: W_hn h₋ was multiplied by r, dq = da_n ⊙ r."
        ),
        Explanation("z_no_slope", "your da_z is the adjoint of z: to get to a_z it must go through σ, times z (1 − z)."),
        Explanation(
            "b_inside", "your candidate adds b_hn behind the reset: in this form r multiplies W_hn h₋ + b_hn, all of q."
        ),
        Explanation(
            "forward_loop",
            "your loop over the steps goes forward in time: what step t + 1 sends back must be known at step t, start at the "
            "last.",
        ),
        Explanation(
            "da_with_r", "your da has the factor r in the part of n: gx_n is added outside the reset, its adjoint is da_n."
        ),
        Explanation("no_b_rz", "your gates r and z leave out their biases in b_hh."),
        Explanation("gates_order", "your gates come back in another order: r, z, n, q."),
        Explanation("no_z_path", "your dh₋ lacks what goes back through the update gate, W_hzᵀ da_z."),
        Explanation("no_r_path", "your dh₋ lacks what goes back through the reset gate, W_hrᵀ da_r."),
    ),
    mutants=(
        Mutant("z * h0 + (1 - z) * n", "(1 - z) * h0 + z * n", says="z_swapped"),
        Mutant("z * h0 + (1 - z) * n", "r * h0 + (1 - r) * n", says="dead_z"),
        Mutant("r, z = _parts(sigmoid_forward(", "z, r = _parts(sigmoid_forward(", says="gates_swapped"),
        Mutant("if reset_after else r * h0", "if reset_after else z * h0", says="reset_by_z"),
        Mutant("if reset_after else r * h0", "if reset_after else h0", says="no_reset"),
        Mutant("q @ w_n.T + b_n)", "q @ w_n.T)", says="no_b_n"),
        Mutant("dstate * (h_before[t] - n) * z", "dstate * (n - h_before[t]) * z", says="z_sign"),
        Mutant("dstate * (h_before[t] - n) * z", "dstate * h_before[t] * z", says="z_half"),
        Mutant("dstate * (1 - z) * (1 - n * n)", "dstate * z * (1 - n * n)", says="dn_z"),
        Mutant("dstate * (1 - z) * (1 - n * n)", "dstate * (1 - z)", says="no_slope_n"),
        Mutant("dq[t] * h_before[t]) * r * (1 - r)", "dq[t] * h_before[t])", says="no_slope_r"),
        Mutant("dstate * z + da[t", "da[t", says="no_direct"),
        Mutant("dstate * z + da[t", "dstate * (1 - z) + da[t", says="direct_swapped"),
        Mutant("dstate * z + da[t, :, :2 * H] @ w_rz", "dstate * z", says="no_gates"),
        Mutant("@ w_rz + through_n", "@ w_rz", says="no_candidate"),
        Mutant("dstate = dh[t] + dbefore", "dstate = dh[t]", says="no_time"),
        Mutant("(_outer(da_n, q), da_n)", "(_outer(da_n, h_before), da_n)", says="dw_n_before"),
        Mutant("(_outer(dq, h_before), dq)", "(_outer(da_n, h_before), dq)", says="dw_n_after"),
        Mutant("(_outer(dq, h_before), dq)", "(_outer(dq, h_before), da_n)", says="db_n"),
        Mutant("dw_rz = _outer(da[:, :, :2 * H], h_before)", "dw_rz = _outer(da[:, :, :2 * H], h)", says="same_step"),
        Mutant("else dq[t] * r", "else dq[t]", says="dq_no_r"),
        Mutant("dq[t] = da_n * r if reset_after", "dq[t] = da_n if reset_after", says="dq_no_r_after"),
        Mutant("(h_before[t] - n) * z * (1 - z)", "(h_before[t] - n)", says="z_no_slope"),
        Mutant("(da_r, da_z, da_n), axis", "(da_r, da_z, da_n * r if reset_after else da_n), axis", says="da_with_r"),
        Mutant("(r * q if reset_after", "(r * (q - b_n) + b_n if reset_after", says="b_inside"),
        Mutant("for t in range(len(h) - 1, -1, -1)", "for t in range(len(h))", says="forward_loop"),
        Mutant("+ h0 @ w_rz.T + b_rz", "+ h0 @ w_rz.T", says="no_b_rz"),
        Mutant("np.concatenate((r, z, n, q), axis=1)", "np.concatenate((z, r, n, q), axis=1)", says="gates_order"),
        Mutant("da[t, :, :2 * H] @ w_rz", "da[t, :, :H] @ w_rz[:H]", says="no_z_path"),
        Mutant("da[t, :, :2 * H] @ w_rz", "da[t, :, H:2 * H] @ w_rz[H:]", says="no_r_path"),
    ),
    equivalent=dict.fromkeys(("_outer: 1 -> 2", "_outer: 1 -> 2 #2"), "NumPy finds the length for any negative number"),
    alternatives=(
        """\
import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gru(gx, h0, w_hh, b_hh, reset_after):
    T, B, _ = gx.shape
    H = h0.shape[1]
    w_r, w_z, w_n = w_hh[:H], w_hh[H : 2 * H], w_hh[2 * H :]
    b_r, b_z, b_n = b_hh[:H], b_hh[H : 2 * H], b_hh[2 * H :]
    h, gates = np.zeros((T, B, H)), np.zeros((T, B, 4 * H))
    state = h0
    for t in range(T):
        x_r, x_z, x_n = gx[t, :, :H], gx[t, :, H : 2 * H], gx[t, :, 2 * H :]
        r = sigmoid(x_r + state @ w_r.T + b_r)
        z = sigmoid(x_z + state @ w_z.T + b_z)
        if reset_after:
            q = state @ w_n.T + b_n
            n = np.tanh(x_n + r * q)
        else:
            q = r * state
            n = np.tanh(x_n + q @ w_n.T + b_n)
        state = h[t] = n + z * (state - n)
        gates[t] = np.concatenate([r, z, n, q], axis=1)
    return h, gates


def gru_bptt(dh, gx, h0, w_hh, b_hh, reset_after, h, gates):
    T, B, H = h.shape
    w_r, w_z, w_n = w_hh[:H], w_hh[H : 2 * H], w_hh[2 * H :]
    da, dw_hh, db_hh, carried = np.zeros_like(gx), np.zeros_like(w_hh), np.zeros_like(b_hh), np.zeros_like(h0)
    for t in reversed(range(T)):
        r, z, n, q = np.split(gates[t], 4, axis=1)
        before = h0 if t == 0 else h[t - 1]
        d = dh[t] + carried
        da_n = d * (1 - z) * (1 - n**2)
        da_z = d * (before - n) * z * (1 - z)
        if reset_after:
            dq = da_n * r
            da_r = da_n * q * r * (1 - r)
            carried = d * z + da_r @ w_r + da_z @ w_z + dq @ w_n
            dw_hh[2 * H :] += dq.T @ before
            db_hh[2 * H :] += dq.sum(axis=0)
        else:
            dq = da_n @ w_n
            da_r = dq * before * r * (1 - r)
            carried = d * z + da_r @ w_r + da_z @ w_z + dq * r
            dw_hh[2 * H :] += da_n.T @ q
            db_hh[2 * H :] += da_n.sum(axis=0)
        dw_hh[: 2 * H] += np.hstack([da_r, da_z]).T @ before
        db_hh[: 2 * H] += np.hstack([da_r, da_z]).sum(axis=0)
        da[t] = np.hstack([da_r, da_z, da_n])
    return da, carried, dw_hh, db_hh
""",
        """\
import numpy as np


def step(gx, h, w, b, reset_after):
    \"\"\"One step and the function that goes back through it; w (3, H, H), b (3, H).\"\"\"
    x_r, x_z, x_n = np.split(gx, 3, axis=-1)
    r, z = (1 / (1 + np.exp(-(x + h @ w[k].T + b[k]))) for k, x in enumerate((x_r, x_z)))
    read = h if reset_after else r * h  # what W_hn is multiplied by
    product = read @ w[2].T + b[2]
    n = np.tanh(x_n + (r * product if reset_after else product))

    def back(d):
        da_n = d * (1 - z) * (1 - n * n)
        dproduct = r * da_n if reset_after else da_n
        dread = dproduct @ w[2]
        dr = da_n * product if reset_after else dread * h
        da_r, da_z = dr * r * (1 - r), d * (h - n) * z * (1 - z)
        dh = d * z + da_r @ w[0] + da_z @ w[1] + (dread if reset_after else r * dread)
        dw = [da_r.T @ h, da_z.T @ h, dproduct.T @ read]
        return np.hstack([da_r, da_z, da_n]), dh, np.vstack(dw), np.hstack([da_r, da_z, dproduct]).sum(0)

    q = product if reset_after else read
    return h * z + n - n * z, np.hstack([r, z, n, q]), back


def gru(gx, h0, w_hh, b_hh, reset_after):
    h, kept = h0, []
    for gx_t in gx:
        h, gates, _ = step(gx_t, h, w_hh.reshape(3, *h0.shape[1:], -1), b_hh.reshape(3, -1), reset_after)
        kept.append((h, gates))
    return np.array([h for h, _ in kept]), np.array([gates for _, gates in kept])


def gru_bptt(dh, gx, h0, w_hh, b_hh, reset_after, h, gates):
    before = [h0, *h]
    da, carried, dw, db = [None] * len(h), 0, 0, 0
    for t in range(len(h))[::-1]:
        _, _, back = step(gx[t], before[t], w_hh.reshape(3, *h0.shape[1:], -1), b_hh.reshape(3, -1), reset_after)
        da[t], carried, dw_t, db_t = back(dh[t] + carried)
        dw, db = dw + dw_t, db + db_t
    return np.array(da), carried, dw, db
""",
    ),
    fast=Fast(fast, "gru_backward", kernel_args),
    train=Train(kernels, "gru_before"),
)
