"""Recurrent layers, step by step and gate by gate: every gate's sum, the cell, the state; backwards, the adjoints through time.

The names are those of cnnlib/ops/recurrent.py. A gate g of H units has rows g·H … g·H + H − 1 of the weights; ``da_i`` is the
adjoint of the sum inside gate i. A state before step t is that after step t − 1 (t + 1, read backwards), or h0 at the first.
The adjoint of a state, ``dh``, is what its own output received plus what the step after it sends back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlib import ops
from cnnlib.microscope.anatomy import Anatomy, Ran, explains
from cnnlib.microscope.rules import Place, Product, Rule, arrays, equal, places, rule, total
from cnnlib.ops.recurrent import gru_backward, lstm_backward, rnn_backward

x, w_ih, w_hh, b_ih, b_hh, peephole, h, h0, c, c0 = arrays("x w_ih w_hh b_ih b_hh peephole h h0 c c0")
dh, dy, dh_n, dc, dc_n, tanh_c, q, dq, alive = arrays("dh dy dh_n dc dc_n tanh_c q dq alive")
t, b, k, u, j, d, v = places("t b k u j d v")
AXES = {"x": "t b d", "w_ih": "k d", "w_hh": "k j", "b_ih": "k", "b_hh": "k", "h0": "b u", "c0": "b u", "y": "t b u",
        "h": "t b u", "h_n": "b u", "c_n": "b u", "alive": "t b"}  # fmt: skip
ALIVE = "1 in a sequence, 0 in its padding"
ACTIVATION = {"tanh": "tanh v", "relu": "max(v, 0)", "sigmoid": "σ(v)", "identity": ""}
SLOPE = {"tanh": "1 − v²", "relu": "[v > 0]", "sigmoid": "v (1 − v)"}  # by the value of the function


class Time:
    """T steps of B sequences with D inputs and H units; the step before one, the one after it, the first and the last."""

    def __init__(self, ran: Ran):
        self.T, self.B, self.D = ran.a["x"].shape
        self.H = ran.a["w_hh"].shape[1]
        back = -1 if ran.saved["how"][-1] else 1
        self.before, self.after = t - back, t + back
        self.first: int = 0 if back == 1 else self.T - 1
        self.last: int = self.T - 1 if back == 1 else 0
        self.order = range(self.T) if back == 1 else range(self.T - 1, -1, -1)
        mask = ran.saved["mask"]  # (T, B, 1): 0 in the padding, where a sequence keeps its state
        self.alive = None if mask is None else mask[:, :, 0]

    def live(self, of: Any) -> Any:
        """Only in steps that are no padding."""
        return of if self.alive is None else of * alive[t, b]

    @property
    def gate(self) -> dict[str, Any]:
        """The same of the value of a function."""
        return {} if self.alive is None else {"after": alive[t, b]}

    def kept(self, state: Any, initial: Any) -> Rule:
        """In the padding: the state before."""
        return Rule(()) if self.alive is None else self.state_before(alive[t, b].by("1 − v") * 1.0, state, initial)

    def passed(self, adjoint: Any) -> Rule:
        """What a step of padding sends back as it came."""
        return Rule(()) if self.alive is None else rule(alive[self.after, b].by("1 − v") * adjoint[self.after, b, u])

    def passed_first(self, adjoint: Any) -> Rule:
        return Rule(()) if self.alive is None else rule(alive[self.first, b].by("1 − v") * adjoint[self.first, b, u])

    def rows(self, gate: int) -> Place:
        return u + gate * self.H

    def sum_of(self, gate: int) -> Rule:
        """What stands inside a gate: inputs, the states before, biases."""
        row = self.rows(gate)
        return self.from_inputs(gate) + self.from_states(gate) + b_hh[row]

    def from_inputs(self, gate: int) -> Rule:
        row = self.rows(gate)
        return rule(total(x[t, b, d] * w_ih[row, d], d=self.D)) + b_ih[row]

    def from_states(self, gate: int) -> Rule:
        row = self.rows(gate)
        return total(h[self.before, b, j] * w_hh[row, j], j=self.H) + total(
            equal(t, self.first) * h0[b, j] * w_hh[row, j], j=self.H
        )

    def state_before(self, product: Product, state: Any, initial: Any, unit: Place = u) -> Rule:
        """product · h₋, with the initial state at the first step."""
        return product * state[self.before, b, unit] + equal(t, self.first) * product * initial[b, unit]

    def adjoint_of_state(self, gates: list[str]) -> Rule:
        """dy, dh_n at the last step, and from the step after it Σ da W_hh of every gate named."""
        found = rule(self.live(dy[t, b, u])) + equal(t, self.last) * dh_n[b, u]
        for gate, name in enumerate(gates):
            if name:
                found = found + total(arrays(name)[0][self.after, b, k] * w_hh[k + gate * self.H, u], k=self.H)
        return found + self.passed(dh)

    def of_inputs(self, gates: list[str]) -> dict[str, Rule]:
        """dx, dW_ih and db_ih; a row of the weights belongs to one gate, the others have no such unit."""
        dx, dw, db = [], [], []
        for gate, name in enumerate(gates):
            (da,) = arrays(name)
            unit = k - gate * self.H
            dx.append(total(da[t, b, k] * w_ih[k + gate * self.H, d], k=self.H))
            dw.append(total(da[t, b, unit] * x[t, b, d], t=self.T, b=self.B))
            db.append(total(da[t, b, unit], t=self.T, b=self.B))
        return {"dx": Rule(tuple(dx)), "dw_ih": Rule(tuple(dw)), "db_ih": Rule(tuple(db))}

    def of_states(self, gates: list[str]) -> dict[str, Rule]:
        """dW_hh, db_hh and dh0."""
        dw, db, first = [], [], []
        for gate, name in enumerate(gates):
            (da,) = arrays(name)
            unit = k - gate * self.H
            dw.append(total(da[t, b, unit] * h[self.before, b, j], t=self.T, b=self.B))
            dw.append(total(da[self.first, b, unit] * h0[b, j], b=self.B))
            db.append(total(da[t, b, unit], t=self.T, b=self.B))
            first.append(total(da[self.first, b, k] * w_hh[k + gate * self.H, u], k=self.H))
        initial = Rule(tuple(first)) + self.passed_first(dh)
        return {"dw_hh": Rule(tuple(dw)), "db_hh": Rule(tuple(db)), "dh0": initial}

    def outputs(self) -> dict[str, Rule]:
        return {"y": rule(self.live(h[t, b, u])), "h_n": rule(h[self.last, b, u])}

    def carried(self, own: np.ndarray, back: np.ndarray, through: Any = None, last: Any = 0.0) -> np.ndarray:
        """The adjoint of a state at every step: its own, and what the step after it sends back: ``back``, and what arrived
        there times ``through``; as it arrived in the padding."""
        result, arrives = np.empty_like(own), last
        for step in reversed(self.order):
            result[step] = own[step] + arrives
            arrives = back[step] if through is None else back[step] + result[step] * through[step]
            if self.alive is not None:
                arrives = np.where(self.alive[step][:, None] > 0, arrives, result[step])
        return result

    def arrived(self, ran: Ran) -> np.ndarray:
        """dy, and dh_n at the step that is done last."""
        own = np.zeros((self.T, self.B, self.H)) if ran.dy[0] is None else ran.dy[0].astype(np.float64)
        if self.alive is not None:
            own = np.where(self.alive[:, :, None] > 0, own, 0.0)
        if ran.dy[1] is not None:
            own[self.last] += ran.dy[1]
        return own


def _padding(time: Time) -> dict[str, np.ndarray]:
    return {} if time.alive is None else {"alive": time.alive}


def _gates(names: str) -> list[str]:
    return [f"da_{gate}" for gate in names]


@explains(ops.RNN)
def rnn(ran: Ran) -> Anatomy:
    time, saved = Time(ran), ran.saved
    kind = saved["how"][0]
    inner = {**_padding(time), "h": saved["h"]}
    new = time.sum_of(0)
    if time.alive is not None:
        inner["new"] = np.where(time.alive[:, :, None] > 0, saved["h"], 0)
    if ran.backward_ran:
        own = time.arrived(ran)
        da = rnn_backward(own, saved["h"].astype(np.float64), saved["h0"], saved["w_hh"], *saved["how"])[0]
        inner |= {"da_h": da, "dh": time.carried(own, da @ saved["w_hh"])}
    slope = dh[t, b, u] * h[t, b, u].by(SLOPE[kind]) if kind in SLOPE else dh[t, b, u] * 1.0
    state = {"h": new.by(ACTIVATION[kind])}
    if time.alive is not None:
        state = {"new": new.by(ACTIVATION[kind], **time.gate), "h": arrays("new")[0][t, b, u] + time.kept(h, h0)}
    return Anatomy(
        {
            **time.outputs(),
            **state,
            "dh": time.adjoint_of_state(["da_h"]),
            "da_h": rule(time.live(slope)),
            **time.of_inputs(["da_h"]),
            **time.of_states(["da_h"]),
        },
        axes={**AXES, "da_h": "t b u", "new": "t b u"},
        inner=inner,
        says={"h": "the state", "alive": ALIVE, "new": "what the step computes", "da_h": "∂J/∂(the sum inside g)"},
        outputs=("y", "h_n"),
    )


@explains(ops.LSTM)
def lstm(ran: Ran) -> Anatomy:
    outputs = ("y", "h_n", "c_n")
    time, saved = Time(ran), ran.saved
    i, f, g, o = arrays("i f g o")
    here, names = (t, b, u), _gates("ifgo")
    squashes = saved["how"][1] == "tanh"
    inner = {**_padding(time), **dict(zip("ifgo", np.split(saved["gates"], 4, axis=2), strict=True))}
    inner |= {"c": saved["c"], "tanh_c": np.tanh(saved["c"]) if squashes else saved["c"], "h": saved["h"]}
    if ran.backward_ran:
        inner |= _lstm_adjoints(ran, time, inner)
    peep = _peepholes(ran, time)
    cell = dh[here] * o[here] * tanh_c[here].by("1 − v²") if squashes else dh[here] * o[here]
    rules = {
        **time.outputs(),
        "c_n": rule(c[time.last, b, u]),
        "i": (time.sum_of(0) + peep["i"]).by("σ(v)", **time.gate),
        "f": (time.sum_of(1) + peep["f"]).by("σ(v)", **time.gate),
        "g": time.sum_of(2).by("tanh v", **time.gate),
        "o": (time.sum_of(3) + peep["o"]).by("σ(v)", **time.gate),
        "c": rule(i[here] * g[here]) + time.state_before(f[here] * 1.0, c, c0) + time.kept(c, c0),
        "tanh_c": rule(c[here].by("tanh v" if squashes else "")),
        "h": rule(o[here] * tanh_c[here]) + time.kept(h, h0),
        "dh": time.adjoint_of_state(names),
        "dc": rule(cell)
        + dc[time.after, b, u] * f[time.after, b, u]
        + equal(t, time.last) * dc_n[b, u]
        + peep["dc"]
        + time.passed(dc),
        "da_i": rule(dc[here] * g[here] * i[here].by("v (1 − v)")),
        "da_f": time.state_before(dc[here] * f[here].by("v (1 − v)"), c, c0),
        "da_g": rule(dc[here] * i[here] * g[here].by("1 − v²")),
        "da_o": rule(dh[here] * tanh_c[here] * o[here].by("v (1 − v)")),
        **time.of_inputs(names),
        **time.of_states(names),
        "dc0": rule(dc[time.first, b, u] * f[time.first, b, u]) + peep["dc0"] + time.passed_first(dc),
        "dpeephole": peep["dpeephole"],
    }
    letters = dict.fromkeys(("i", "f", "g", "o", "c", "tanh_c", *names), "t b u")
    shape = "" if ran.a["peephole"] is None else " u j"[: ran.a["peephole"].ndim * 2 - 2]
    says = {"alive": ALIVE, "i": "input gate", "f": "forget gate", "g": "candidate", "o": "output gate", "c": "the cell",
            "h": "the state", "tanh_c": "what the output gate lets out"}  # fmt: skip
    says |= {name: f"∂J/∂(the sum inside {name[3:]})" for name in names}
    return Anatomy(rules, axes={**AXES, **letters, "peephole": "k" + shape}, inner=inner, says=says, outputs=outputs)


def _lstm_adjoints(ran: Ran, time: Time, inner: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    saved, own = ran.saved, time.arrived(ran)
    last = np.zeros_like(saved["c0"]) if ran.dy[2] is None else ran.dy[2]
    wide = [saved[name].astype(np.float64) for name in ("h", "c", "gates", "h0", "c0")]
    arguments: list[Any] = [own, last.astype(np.float64), *wide, saved["w_hh"], *saved["how"]]
    da = lstm_backward(*arguments)[0]
    found = dict(zip(_gates("ifgo"), np.split(da, 4, axis=2), strict=True))
    found["dh"] = time.carried(own, da @ saved["w_hh"])
    slope = 1 - inner["tanh_c"] ** 2 if saved["how"][1] == "tanh" else 1
    from_state = found["dh"] * inner["o"] * slope + _through_peephole(ran, 2, found["da_o"])
    back = _through_peephole(ran, 0, found["da_i"]) + _through_peephole(ran, 1, found["da_f"])
    return {**found, "dc": time.carried(from_state, back + np.zeros_like(from_state), inner["f"], last)}


def _through_peephole(ran: Ran, gate: int, da: np.ndarray) -> Any:
    weights = ran.a["peephole"]
    return 0.0 if weights is None else da * weights[gate] if weights.ndim == 2 else da @ weights[gate]


def _peepholes(ran: Ran, time: Time) -> dict[str, Rule]:
    """What the peepholes add: to the gates' sums, to dc, and their own adjoint. One weight a unit, or a matrix (H, H)."""
    da = arrays("da_i da_f da_o")
    nothing = Rule(())
    if ran.a["peephole"] is None:
        return dict.fromkeys(("i", "f", "o", "dc", "dc0", "dpeephole"), nothing)
    a_unit = ran.a["peephole"].ndim == 2
    seen = u if a_unit else j  # the cell's unit that a gate's unit u looks at
    over = {} if a_unit else {"j": time.H}
    from_unit, back_over = (u, {}) if a_unit else (v, {"v": time.H})  # the gate's unit that looks at the cell's unit u
    weight = lambda gate, to, of: peephole[gate, to] if a_unit else peephole[gate, to, of]  # noqa: E731
    sums, back, weights = {}, [], []
    for gate, name in enumerate("ifo"):
        old = gate < 2
        cell = c[time.before if old else t, b, seen]
        products = [total(weight(gate, u, seen) * cell, **over)]
        if old:
            products.append(total(equal(t, time.first) * weight(gate, u, seen) * c0[b, seen], **over))
        sums[name] = Rule(tuple(products))
        at = time.after if old else t
        back.append(total(weight(gate, from_unit, u) * da[gate][at, b, from_unit], **back_over))
        mine, steps = equal(k, gate), {"t": time.T, "b": time.B}
        weights.append(total(mine * da[gate][t, b, u] * cell, **steps))
        if old:
            weights.append(total(mine * da[gate][time.first, b, u] * c0[b, seen], b=time.B))
    first = [total(weight(g, from_unit, u) * da[g][time.first, b, from_unit], **back_over) for g in (0, 1)]
    return {**sums, "dc": Rule(tuple(back)), "dc0": Rule(tuple(first)), "dpeephole": Rule(tuple(weights))}


@explains(ops.GRU)
def gru(ran: Ran) -> Anatomy:
    time, saved = Time(ran), ran.saved
    after = saved["how"][0]  # the reset gate comes after the product
    r, z, n, da_n = arrays("r z n da_n")
    here, at, names = (t, b, u), (time.after, b, u), _gates("rzn")
    inner = {**_padding(time), **dict(zip("rznq", np.split(saved["gates"], 4, axis=2), strict=True)), "h": saved["h"]}
    if ran.backward_ran:
        inner |= _gru_adjoints(ran, time, inner)
    rows, bias = time.rows(2), b_hh[time.rows(2)]
    if after:
        candidate = time.from_inputs(2) + r[here] * q[here]
        share = time.from_states(2) + bias
        da_r_rule = rule(da_n[here] * q[here] * r[here].by("v (1 − v)"))
        dq_rule = rule(da_n[here] * r[here])
        dh_rule = time.adjoint_of_state(["da_r", "da_z", "dq"])
        states = time.of_states(["da_r", "da_z", "dq"])
    else:
        candidate = time.from_inputs(2) + total(q[t, b, j] * w_hh[rows, j], j=time.H) + bias
        share = time.state_before(r[here] * 1.0, h, h0)
        da_r_rule = time.state_before(dq[here] * r[here].by("v (1 − v)"), h, h0)
        dq_rule = rule(total(da_n[t, b, k] * w_hh[k + 2 * time.H, u], k=time.H))
        dh_rule = time.adjoint_of_state(["da_r", "da_z"]) + dq[at] * r[at]
        states = time.of_states(["da_r", "da_z"])
        unit = k - 2 * time.H
        states["dw_hh"] = states["dw_hh"] + total(da_n[t, b, unit] * q[t, b, j], t=time.T, b=time.B)
        states["db_hh"] = states["db_hh"] + total(da_n[t, b, unit], t=time.T, b=time.B)
        states["dh0"] = states["dh0"] + dq[time.first, b, u] * r[time.first, b, u]
    states["dh0"] = states["dh0"] + dh[time.first, b, u] * z[time.first, b, u]
    slope_z = dh[here] * z[here].by("v (1 − v)")
    rules = {
        **time.outputs(),
        "r": time.sum_of(0).by("σ(v)", **time.gate),
        "z": time.sum_of(1).by("σ(v)", **time.gate),
        "n": candidate.by("tanh v", **time.gate),
        "q": share.by("", **time.gate),
        "h": time.state_before(z[here] * 1.0, h, h0) + z[here].by("1 − v") * n[here] + time.kept(h, h0),
        "dh": dh_rule + dh[at] * z[at],
        "da_n": rule(time.live(dh[here] * z[here].by("1 − v") * n[here].by("1 − v²"))),
        "da_z": time.state_before(slope_z, h, h0) - slope_z * n[here],
        "da_r": da_r_rule,
        "dq": dq_rule,
        **time.of_inputs(names),
        **states,
    }
    letters = dict.fromkeys(("r", "z", "n", "q", *names), "t b u")
    says = {"alive": ALIVE, "r": "reset gate", "z": "update gate", "n": "candidate", "q": "the state's share of n",
            "h": "the state"}  # fmt: skip
    says |= {name: f"∂J/∂(the sum inside {name[3:]})" for name in names}
    return Anatomy(rules, axes={**AXES, **letters}, inner=inner, says=says, outputs=("y", "h_n"))


def _gru_adjoints(ran: Ran, time: Time, inner: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    saved, own, H = ran.saved, time.arrived(ran), time.H
    wide = [saved[name].astype(np.float64) for name in ("h", "gates", "h0")]
    arguments: list[Any] = [own, *wide, saved["w_hh"], *saved["how"]]
    da = gru_backward(*arguments)[0]
    found = dict(zip(_gates("rzn"), np.split(da, 3, axis=2), strict=True))
    w_n = saved["w_hh"][2 * H :]
    found["dq"] = found["da_n"] * inner["r"] if saved["how"][0] else found["da_n"] @ w_n
    through_n = found["dq"] @ w_n if saved["how"][0] else found["dq"] * inner["r"]
    back = da[:, :, : 2 * H] @ saved["w_hh"][: 2 * H] + through_n
    return {**found, "dh": time.carried(own, back, inner["z"])}
