"""The vanishing gradient, measured: how much does the last state know of the first?

Your recurrent network is right, every gradient of it, and yet it does not learn what happened fifty steps ago. This
exercise measures why. How the last state answers to an earlier one is a product of one Jacobian matrix per step:

    ∂h_k/∂h_(k−1) = diag(1 − h_k²) W_hh                             of h_k = tanh(… + W_hh h_(k−1))
    ∂h_T/∂h_t     = Π diag(1 − h_k²) W_hh,  k = T, T − 1, …, t + 1  the last step stands leftmost; for t = T it is 1

How long is it? The matrix norm ‖J‖₂, the largest singular value, says by how much an adjoint can grow on its way from T
to t. Without tanh the product is a power of W_hh, which grows or shrinks like ρ^(T − t), ρ being its spectral radius:
the largest absolute value of its eigenvalues. The slopes of tanh, at most 1, make every factor smaller. Multiplication
by the same matrix is what makes it exponential.

The LSTM's cell does without that matrix: c_k = f_k ⊙ c_(k−1) + … Along the cell,

    ∂c_T/∂c_t = Π diag(f_k),  k = T … t + 1                        a diagonal matrix: its norm is its largest element

and with forget gates near 1 it stays near 1 for as long as you like. (The rest of the LSTM's gradient, through h, comes
on top.)

Write gradient_norms(h, w_hh, f). h (T, H) holds the states of one sequence, h[0] after the first step; f (T, H) the
forget gates of an LSTM of the same size. Return
    rnn (T,)      rnn[t] = ‖∂h_T/∂h_t‖₂ from every state to the last, so that rnn[-1] = 1
    cell (T,)     the same along the cell
    radius        ρ of w_hh, a number

Source: lecture: recurrent networks (vanishing gradient); Bengio, Simard & Frasconi, "Learning long-term dependencies
with gradient descent is difficult", 1994; Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural
networks", 2013.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant
from cnnlib.ops.recurrent import _slope


def gradient_norms(h, w_hh, f):
    T, H = h.shape
    jacobian, gates, rnn, cell = np.eye(H), np.ones(H), np.ones(T), np.ones(T)
    for t in range(T - 2, -1, -1):
        jacobian = jacobian @ (_slope(h[t + 1], "tanh")[:, None] * w_hh)
        gates = gates * f[t + 1]
        rnn[t], cell[t] = np.linalg.norm(jacobian, 2), gates.max()
    return rnn, cell, np.abs(np.linalg.eigvals(w_hh)).max()


def cases(rng):
    def case(T, H, size, *features, radius=None):
        w = rng.normal(size=(H, H)) * size / H**0.5
        if radius:
            w *= radius / np.abs(np.linalg.eigvals(w)).max()
        h, states = np.zeros(H), []
        for _ in range(T):
            h = np.tanh(w @ h + 0.5 * rng.normal(size=H))
            states.append(h)
        return Case((np.array(states), w, rng.uniform(0.3, 0.99, size=(T, H))), features)

    return [
        case(6, 3, 1.0),
        case(1, 3, 1.0, "T = 1"),
        case(5, 1, 1.5, "one unit"),
        case(20, 4, 1.0, "vanishing", radius=0.5),
        case(12, 4, 1.0, "exploding", radius=2.5),
    ]


def gate_of_t(h, w_hh, f):
    rnn, _, radius = gradient_norms(h, w_hh, f)
    return rnn, np.cumprod(f[::-1], axis=0)[::-1].max(axis=1), radius


def frobenius(h, w_hh, f):
    """Also of the unit matrix, where it is √H."""
    found = [np.eye(h.shape[1])]
    for h_t in h[:0:-1]:
        found.insert(0, found[0] @ ((1 - h_t**2)[:, None] * w_hh))
    return np.linalg.norm(found, axis=(1, 2)), *gradient_norms(h, w_hh, f)[1:]


def fast(rng):
    T, H = 50, 64
    return np.tanh(rng.normal(size=(T, H))), rng.normal(size=(H, H)) / H**0.5, rng.uniform(0.3, 0.99, size=(T, H))


def kernel_args(h, w_hh, f):
    T, H = h.shape
    return np.zeros((T, H, H), h.dtype), np.repeat(h[:, None], H, axis=1), np.zeros_like(w_hh), w_hh, "tanh", None, False


EXERCISE = Exercise(
    number=22,
    name="vanishing_gradient",
    topic="lecture: recurrent networks (vanishing gradient)",
    function=gradient_norms,
    uses=(_slope,),
    specialised=True,
    outputs=("rnn", "cell", "radius"),
    starter='''\
import numpy as np


def gradient_norms(h, w_hh, f):
    """h (T, H) states, w_hh (H, H), f (T, H) forget gates -> rnn (T,), cell (T,), radius"""
    # walk from the last state to the first with J = ∂h_T/∂h_t, which begins as the unit matrix
    # rnn[t] = largest singular value of J: np.linalg.norm(J, 2)
    # cell[t] = largest element of the product of the gates after t
    # radius = largest absolute value of an eigenvalue: np.linalg.eigvals
    ...
''',
    cases=cases,
    hints=(
        "Which steps lie between h_t and h_T? For t = T − 1 it is one: step T, with the slope 1 − h_T².",
        "J = np.eye(H); from t = T − 2 down to 0, J = J @ (∂h_(t+1)/∂h_t), and diag(s) @ W is s[:, None] * W.",
        "J = J @ ((1 - h[t + 1] ** 2)[:, None] * w_hh); gates = gates * f[t + 1]; rnn[t] = np.linalg.norm(J, 2); cell[t] = "
        "gates.max().",
    ),
    question="Can a recurrent network explode although every |h| is below 1? And what happens to its gradient when the units "
    "saturate?",
    answer="Yes: the states are bounded, their derivatives are not; with ρ well above 1 and small states, slopes 1 − h² near "
    "1, the "
    "product grows like ρ^(T − t). Saturated units have slopes near 0, so the same network may explode on quiet inputs and "
    "vanish "
    "on loud ones: ρ > 1 is not sufficient. What an explosion needs is ‖W_hh‖₂ > 1, since no factor is longer than that.",
    link="examples/vanishing_gradient.py",
    explanations=(
        Explanation(
            "f_of_t",
            "your cell counts the forget gate of step t itself: c_t is behind it already, begin with f_(t+1).",
            gate_of_t,
        ),
        Explanation(
            "w_transposed", "your Jacobian multiplies by W_hhᵀ: ∂h_k/∂h_(k−1) = diag(1 − h_k²) W_hh, from the right of J."
        ),
        Explanation("no_slope", "your product leaves out tanh's slopes: each step is diag(1 − h_k²) W_hh, not W_hh alone."),
        Explanation("slope_columns", "your slopes multiply the columns of W_hh: diag(s) W scales its rows, s[:, None] * W."),
        Explanation(
            "order",
            "your matrices are multiplied in the wrong order: step T stands leftmost, going back you multiply from the right.",
        ),
        Explanation(
            "from_first", "your norms are in backward order: rnn[0] belongs to the first state, rnn[-1] = 1 to the last."
        ),
        Explanation("slope_step", "your slopes are one step off: between h_(k−1) and h_k lies the tanh of step k, 1 − h_k²."),
        Explanation("tanh_twice", "your slope takes tanh of h again: h is tanh(a) already, so it is 1 − h²."),
        Explanation(
            "frobenius",
            "your norm is √(Σ J²), Frobenius' (NumPy's default): the largest singular value is np.linalg.norm(J, 2).",
            frobenius,
        ),
        Explanation("f_shift", "your gates are one step off: between c_t and c_T lie the forget gates of the steps t + 1 … T."),
        Explanation(
            "mean_gate", "your cell takes the mean over the units: the norm of a diagonal matrix is its largest element."
        ),
        Explanation("smallest_gate", "your cell takes the smallest element: the norm of a diagonal matrix is its largest."),
        Explanation(
            "each_step", "your cell has the largest gate of each step: multiply unit by unit first, then take the largest."
        ),
        Explanation(
            "singular",
            "your radius is the largest singular value of w_hh: the spectral radius is the largest |eigenvalue|, at most that.",
        ),
        Explanation(
            "real_part", "your radius takes the real part of the eigenvalues: complex ones count by their absolute value."
        ),
        Explanation("squared", "your norm is the largest eigenvalue of J Jᵀ: its square root is the singular value."),
        Explanation(
            "eigenvalue", "your norm is the largest eigenvalue of J: a vector can grow by more, by the largest singular value."
        ),
    ),
    mutants=(
        Mutant("* w_hh)", "* w_hh.T)", says="w_transposed"),
        Mutant("(1 - h[t + 1] * h[t + 1])[:, None] * w_hh", "w_hh", says="no_slope"),
        Mutant("(1 - h[t + 1] * h[t + 1])", "(1 - h[t] * h[t])", says="slope_step"),
        Mutant("(1 - h[t + 1] * h[t + 1])", "(1 - np.tanh(h[t + 1]) ** 2)", says="tanh_twice"),
        Mutant("h[t + 1])[:, None] * w_hh", "h[t + 1])[None, :] * w_hh", says="slope_columns"),
        Mutant(
            "jacobian = jacobian @ ((1 - h[t + 1] * h[t + 1])[:, None] * w_hh)",
            "jacobian = (1 - h[t + 1] * h[t + 1])[:, None] * w_hh @ jacobian",
            says="order",
        ),
        Mutant("np.linalg.norm(jacobian, 2)", "np.linalg.norm(jacobian)", says="frobenius"),
        Mutant("gates * f[t + 1]", "gates * f[t]", says="f_shift"),
        Mutant("gates.max()", "gates.mean()", says="mean_gate"),
        Mutant("gates.max()", "gates.min()", says="smallest_gate"),
        Mutant("gates * f[t + 1]", "gates * f[t + 1].max()", says="each_step"),
        Mutant("np.abs(np.linalg.eigvals(w_hh)).max()", "np.linalg.norm(w_hh, 2)", says="singular"),
        Mutant("np.abs(np.linalg.eigvals(w_hh)).max()", "np.linalg.eigvals(w_hh).real.max()", says="real_part"),
        Mutant("return rnn, cell", "return rnn[::-1], cell", says="from_first"),
        Mutant("np.linalg.norm(jacobian, 2)", "np.linalg.norm(jacobian, 2) ** 2", says="squared"),
        Mutant("np.linalg.norm(jacobian, 2)", "np.abs(np.linalg.eigvals(jacobian)).max()", says="eigenvalue"),
    ),
    alternatives=(
        """\
import numpy as np


def gradient_norms(h, w_hh, f):
    # backpropagation of H adjoints at once: row j is the unit vector that asks for unit j of the last state
    T, H = h.shape
    rows, rnn = np.eye(H), []
    for t in reversed(range(T)):
        rnn.append(np.sqrt(np.linalg.eigvalsh(rows @ rows.T)[-1]))
        rows = rows * (1 - h[t] ** 2) @ w_hh
    later = np.vstack([f[1:], np.ones((1, H))])
    products = np.cumprod(later[::-1], axis=0)[::-1]
    return np.array(rnn[::-1]), products.max(axis=1), max(abs(np.linalg.eigvals(w_hh)))
""",
    ),
    fast=Fast(fast, "rnn_backward", kernel_args),
)
