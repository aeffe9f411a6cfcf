"""Recurrent layers: parameters, initial values, and how layers and directions are put together; maths: cnnlib/ops/recurrent.py.

Arguments, names and order of parameters, gates and results are PyTorch's where it has the feature, so its weights load by name.
"""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import Any

from cnnlib import ops
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError, unknown_name
from cnnlib.nn import init
from cnnlib.nn.module import Module
from cnnlib.ops.arguments import check_whole
from cnnlib.ops.recurrent import NONLINEARITIES, OUTPUT_ACTIVATIONS
from cnnlib.tensor import Parameter

PEEPHOLES = ("diagonal", "full")


class _Weights(Module):
    """What layers and cells have in common: a set of weights W_ih, W_hh, biases and peepholes by suffix. ±1/√H at the start."""

    gates = 1  # rows of W_ih and W_hh per unit
    states = 1  # h, or h and c

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool, options: dict[str, Any]):
        super().__init__()
        check_whole(type(self).__name__, "input_size", input_size)
        check_whole(type(self).__name__, "hidden_size", hidden_size)
        self.input_size, self.hidden_size, self.bias, self.options = input_size, hidden_size, bias, options

    def _add_weights(self, D: int, suffix: str) -> None:
        H, rows = self.hidden_size, self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, D), "weight_hh": (rows, H)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if peepholes := self.options.get("peepholes"):
            shapes["weight_peephole"] = (3, H) if peepholes == "diagonal" else (3, H, H)
        for name, shape in shapes.items():
            setattr(self, name + suffix, Parameter(init.uniform_(shape, 1 / math.sqrt(H))))

    def _weights(self, suffix: str) -> list[Any]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, name + suffix, None) for name in names]

    def _run(self, x, states, suffix, lengths=None, reverse=False):
        """One direction of one layer over all steps -> y, and its last states."""
        raise NotImplementedError

    def _check_x(self, x, ndim, layout, hint=""):
        name, axes = type(self).__name__, f"{layout} with D = input_size = {self.input_size}"
        if not hasattr(x, "shape"):
            raise DtypeError(f"{name}: x must be a Tensor or an array, got {type(x).__name__}.")
        if len(x.shape) != ndim or x.shape[-1] != self.input_size:
            raise ShapeError(f"{name}: x must have the shape {axes}, got {x.shape}{hint}.")

    def _given(self, state, shape, axes):
        """The initial states, each of this shape, as a list; empty where none is given."""
        if state is None:
            return []
        given = list(state) if self.states > 1 and isinstance(state, (tuple, list)) else [state]
        if len(given) != self.states or any(getattr(s, "shape", None) != shape for s in given):
            what = "the pair (h_0, c_0), each" if self.states > 1 else "h_0"
            came = ", ".join(str(getattr(s, "shape", type(s).__name__)) for s in given)
            raise ShapeError(f"{type(self).__name__}: state must be {what} of shape {axes} = {shape}, got {came}.")
        return given

    def multiply_adds(self, x: tuple[int, ...], y: tuple[int, ...]) -> int:
        """For ``summary``: every weight once a step."""
        weights = [p for name, p in self._parameters.items() if not name.startswith("bias")]
        return math.prod(x[:-1]) * sum(p.size for p in weights)

    def neurons(self, y: tuple[int, ...]) -> int:
        """For ``summary``: the units of all layers and directions, once a step."""
        return math.prod(y[:-1]) * sum(p.shape[1] for name, p in self._parameters.items() if name.startswith("weight_hh"))

    def _settings(self) -> str:
        usual = {"nonlinearity": "tanh", "peepholes": None, "output_activation": "tanh", "reset_after": True}
        shown = "".join(f", {k}={v!r}" for k, v in self.options.items() if v != usual[k])
        return f"{self.input_size}, {self.hidden_size}{shown}" + ("" if self.bias else ", bias=False")


class _RNN(_Weights):
    def __init__(self, *args, nonlinearity: str = "tanh", **kwargs):
        if nonlinearity not in NONLINEARITIES:
            raise unknown_name("nonlinearity of RNN", nonlinearity, NONLINEARITIES)
        super().__init__(*args, options={"nonlinearity": nonlinearity}, **kwargs)

    def _run(self, x, states, suffix, lengths=None, reverse=False):
        y, h = ops.rnn(x, *states, *self._weights(suffix), lengths=lengths, reverse=reverse, **self.options)
        return y, (h,)


class _LSTM(_Weights):
    gates, states = 4, 2

    def __init__(self, *args, peepholes: str | None = None, output_activation: str = "tanh", **kwargs):
        if peepholes is not None and peepholes not in PEEPHOLES:
            raise unknown_name("peepholes of LSTM", peepholes, PEEPHOLES)
        if output_activation not in OUTPUT_ACTIVATIONS:
            raise unknown_name("output_activation of LSTM", output_activation, OUTPUT_ACTIVATIONS)
        super().__init__(*args, options={"peepholes": peepholes, "output_activation": output_activation}, **kwargs)

    def _run(self, x, states, suffix, lengths=None, reverse=False):
        peephole, activation = getattr(self, "weight_peephole" + suffix, None), self.options["output_activation"]
        y, h, c = ops.lstm(x, *states, *self._weights(suffix), peephole, activation, lengths=lengths, reverse=reverse)
        return y, (h, c)


class _GRU(_Weights):
    gates = 3

    def __init__(self, *args, reset_after: bool = True, **kwargs):
        super().__init__(*args, options={"reset_after": reset_after}, **kwargs)

    def _run(self, x, states, suffix, lengths=None, reverse=False):
        y, h = ops.gru(x, *states, *self._weights(suffix), lengths=lengths, reverse=reverse, **self.options)
        return y, (h,)


class _Layers(_Weights):
    """Layers on top of each other, each in one direction or both."""

    def __init__(self, input_size, hidden_size, num_layers=1, *, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
                 merge="concat", options):  # fmt: skip
        super().__init__(input_size, hidden_size, bias=bias, options=options)
        name = type(self).__name__
        check_whole(name, "num_layers", num_layers)
        if merge not in ("concat", "sum"):
            raise unknown_name(f"merge of {name}", merge, ("concat", "sum"))
        if not (isinstance(dropout, Real) and 0 <= dropout < 1):
            raise ValueRangeError(f"{name}: dropout must be a probability, 0 <= dropout < 1, got {dropout!r}.")
        if dropout and num_layers == 1:
            warnings.warn(f"{name}: dropout={dropout!r} stands between layers, and there is one layer: nothing is dropped. "
                          "nn.Dropout drops inputs or outputs.", stacklevel=3)  # fmt: skip
        self.num_layers, self.batch_first, self.dropout = num_layers, batch_first, dropout
        self.bidirectional, self.merge = bidirectional, merge
        self._directions = ("", "_reverse") if bidirectional else ("",)
        self.output_size = hidden_size * (2 if bidirectional and merge == "concat" else 1)
        for layer in range(num_layers):
            for direction in self._directions:
                self._add_weights(self.output_size if layer else input_size, f"_l{layer}{direction}")

    def forward(self, x, state=None, lengths=None):
        layout = "(B, T, D), batch_first=True" if self.batch_first else "(T, B, D); batch_first=True takes (B, T, D)"
        self._check_x(x, 3, layout)
        y = ops.transpose(x, (1, 0, 2)) if self.batch_first else x
        shape = (self.num_layers * len(self._directions), x.shape[0 if self.batch_first else 1], self.hidden_size)
        given, last = self._given(state, shape, "(num_layers · directions, B, H)"), []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                y = ops.dropout(y, self.dropout, self.training)
            outputs = []
            for k, direction in enumerate(self._directions):
                states = [s[layer * len(self._directions) + k] for s in given] or [None] * self.states
                output, states = self._run(y, states, f"_l{layer}{direction}", lengths, reverse=bool(k))
                outputs.append(output)
                last.append(states)
            y = self._merged(outputs)
        y = ops.transpose(y, (1, 0, 2)) if self.batch_first else y
        state = tuple(ops.stack(states) for states in zip(*last, strict=True))
        return y, state if self.states > 1 else state[0]

    def _merged(self, outputs):
        if len(outputs) == 1:
            return outputs[0]
        return outputs[0] + outputs[1] if self.merge == "sum" else ops.concat(outputs, axis=2)

    def extra_repr(self) -> str:
        usual = {"num_layers": 1, "batch_first": False, "dropout": 0.0, "bidirectional": False, "merge": "concat"}
        return self._settings() + "".join(f", {k}={getattr(self, k)!r}" for k, v in usual.items() if getattr(self, k) != v)


class RNN(_RNN, _Layers):
    """h_t = g(W_ih x_t + W_hh h_(t−1) + b) along a sequence: x (T, B, D) -> y (T, B, H), h_n (num_layers · directions, B, H).

    ``nonlinearity``: g, one of tanh, relu, sigmoid, identity. The other arguments, here and in :class:`LSTM` and :class:`GRU`:

    - ``num_layers``: layers on top of each other; ``dropout``: between them, in training.
    - ``bidirectional``: a second set of weights reads the sequence backwards; ``merge``: its outputs are put beside the others
      (``"concat"``, y (T, B, 2H), as in PyTorch) or added to them (``"sum"``).
    - ``batch_first``: x and y are (B, T, ·). ``bias=False``: no biases.

    Called with ``state``, the result of an earlier call, it goes on from there; ``state.detach()``, of an LSTM's pair each by
    itself, cuts the gradient (truncated backpropagation through time). With ``lengths``, B whole numbers, sequence b ends after
    lengths[b] steps: y is 0 beyond, and what stands in the padding of x or of y's adjoint changes nothing.

    >>> import cnnlib as cl, numpy as np
    >>> y, h_n = cl.nn.RNN(10, 20, num_layers=2)(cl.Tensor(np.ones((5, 3, 10), np.float32)))
    >>> y.shape, h_n.shape
    ((5, 3, 20), (2, 3, 20))

    Raises ShapeError (x or state of another shape), ValueRangeError (lengths outside 1 … T), UnknownNameError.

    Source: lecture: recurrent networks; Elman, "Finding structure in time", 1990; Schuster & Paliwal, "Bidirectional recurrent
    neural networks", 1997.
    """


class LSTM(_LSTM, _Layers):
    """c = f ⊙ c₋ + i ⊙ g, h = o ⊙ tanh(c) along a sequence: x (T, B, D) -> y (T, B, H), (h_n, c_n).

    ``peepholes``: gates that see the cell, ``"diagonal"`` (a weight per unit) or ``"full"`` (a matrix);
    ``output_activation="identity"``: h = o ⊙ c. Rows of the weights: i, f, g, o. Else as :class:`RNN`.

    >>> import cnnlib as cl, numpy as np
    >>> y, (h_n, c_n) = cl.nn.LSTM(10, 20, bidirectional=True)(cl.Tensor(np.ones((5, 3, 10), np.float32)))
    >>> y.shape, h_n.shape
    ((5, 3, 40), (2, 3, 20))

    Source: lecture: recurrent networks; Hochreiter & Schmidhuber, "Long short-term memory", 1997.
    """


class GRU(_GRU, _Layers):
    """h = z ⊙ h₋ + (1 − z) ⊙ n along a sequence: x (T, B, D) -> y (T, B, H), h_n.

    ``reset_after``: whether the reset gate multiplies W_hn h₋ + b_hn (as in PyTorch) or h₋ (as in the paper). Rows of the
    weights: r, z, n. Else as :class:`RNN`.

    Source: lecture: recurrent networks; Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.
    """


class _Cell(_Weights):
    """One step: x (B, D) and the states (B, H) -> the new states."""

    def __init__(self, input_size, hidden_size, *, bias=True, options):
        super().__init__(input_size, hidden_size, bias=bias, options=options)
        self._add_weights(input_size, "")

    def forward(self, x, state=None):
        self._check_x(x, 2, "(B, D)", hint=": a cell does one step")
        states = self._given(state, (x.shape[0], self.hidden_size), "(B, H)") or [None] * self.states
        _, states = self._run(ops.reshape(x, (1, *x.shape)), states, "")
        return states if self.states > 1 else states[0]

    def extra_repr(self) -> str:
        return self._settings()


class RNNCell(_RNN, _Cell):
    """One step of :class:`RNN`: x (B, D), h (B, H) or None -> h."""


class LSTMCell(_LSTM, _Cell):
    """One step of :class:`LSTM`: x (B, D), (h, c) or None -> (h, c).

    >>> import cnnlib as cl, numpy as np
    >>> cell, state = cl.nn.LSTMCell(4, 3), None
    >>> for x in np.ones((5, 2, 4), np.float32):
    ...     state = cell(cl.Tensor(x), state)
    >>> state[0].shape
    (2, 3)
    """


class GRUCell(_GRU, _Cell):
    """One step of :class:`GRU`: x (B, D), h (B, H) or None -> h."""
