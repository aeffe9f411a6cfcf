"""Gradient clipping: a cliff must not throw you off

A recurrent network's loss has cliffs: weights where the product of fifty Jacobians explodes. A step along such a
gradient, a thousand times longer than usual, throws away what thousands of steps have learnt. The cure is one line: if
the gradient is too long, shorten it, and keep its direction.

    ‖g‖ = √(Σ over all parameters Σ over all elements g²)           one norm for the whole network
    g  ← g · min(1, max_norm / ‖g‖)

The norm is that of all gradients together, seen as one long vector. Clipping every array by its own norm, or every
element by itself, would change the direction: the step would no longer go down the steepest way. A gradient that is
short enough is not touched, and one of zeros must not end in 0/0.

Write clip_gradients(dw_ih, dw_hh, db, max_norm): it returns the three gradients clipped, as new arrays, and the norm
‖g‖ before clipping, a number. Watch that number while you train: it tells you when a cliff was near.

Source: lecture: recurrent networks (gradient clipping); Pascanu, Mikolov & Bengio, "On the difficulty of training
recurrent neural networks", 2013.
"""

import math

from cnnlib.learn.exercise import Case, Exercise, Explanation, Fast, Mutant


def clip_gradients(dw_ih, dw_hh, db, max_norm):
    gradients = (dw_ih, dw_hh, db)
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    scale = max_norm / norm if norm > max_norm else 1.0
    return (*(g * scale for g in gradients), norm)


def cases(rng):
    def case(H, D, size, max_norm, *features):
        shapes = ((H, D), (H, H), (H,))
        return Case((*(size * rng.normal(size=shape) for shape in shapes), max_norm), features)

    return [
        case(3, 4, 1.0, 1.0),
        case(3, 4, 0.01, 1.0, "a short gradient"),
        case(4, 2, 300.0, 5.0, "an exploded gradient"),
        case(1, 1, 2.0, 0.25, "one unit"),
        case(2, 3, 0.0, 1.0, "a gradient of zeros"),
        case(2, 3, 0.3, 0.5, "max_norm below 1"),
    ]


def fast(rng):
    return rng.normal(size=(1024, 512)), rng.normal(size=(1024, 1024)), rng.normal(size=1024), 1.0


EXERCISE = Exercise(
    number=23,
    name="gradient_clipping",
    topic="lecture: recurrent networks (gradient clipping)",
    function=clip_gradients,
    outputs=("dw_ih", "dw_hh", "db", "norm"),
    starter='''\
import numpy as np


def clip_gradients(dw_ih, dw_hh, db, max_norm):
    """Gradients of any shapes and a number above 0 -> dw_ih, dw_hh, db clipped, and their common norm before"""
    # norm of all three together
    # one factor for all three, 1 when the norm is small enough
    ...
''',
    cases=cases,
    hints=(
        "How long is a vector whose first part has length 3 and whose second part has length 4?",
        "Add up the squares of all elements of all three arrays, then take one square root.",
        "norm = np.sqrt((dw_ih**2).sum() + (dw_hh**2).sum() + (db**2).sum()); scale = max_norm / norm if norm > max_norm "
        "else 1.0.",
    ),
    question="Does clipping help against vanishing gradients? Why not simply divide by the norm, always?",
    answer="No: it only shortens; lengthening a vanished gradient would blow up its rounding errors and the noise of the "
    "batch. Always "
    "dividing would make every step equally long: near a minimum, where gradients are small because one is nearly there, the "
    "steps would jump over it for ever.",
    link="cnnlib/optim.py",
    explanations=(
        Explanation(
            "element", "your elements are clipped one by one, which changes the direction: scale all by max_norm / ‖g‖."
        ),
        Explanation("each_array", "your arrays are scaled each by its own norm: it is one norm for all parameters together."),
        Explanation("always", "your gradient is scaled even when it is short enough: the factor is min(1, max_norm / ‖g‖)."),
        Explanation("sum_of_norms", "your norm adds the three norms: add their squares, then take the root."),
        Explanation("no_root", "your norm is Σ g²: the square root is missing."),
        Explanation("l1", "your norm is Σ |g|: the length of a vector is √(Σ g²)."),
        Explanation("rms", "your norm divides by the number of elements: it is the length √(Σ g²), no mean."),
        Explanation("norm_after", "your norm is that after clipping: return the one from before, it shows the explosion."),
        Explanation("no_db", "your norm leaves out db: it is taken over all parameters."),
        Explanation("db_not_clipped", "your db is not scaled: all gradients get the same factor, or the direction changes."),
        Explanation("largest", "your norm is the largest element: the length of a vector is √(Σ g²)."),
        Explanation("to_one", "your clipped gradient has length 1: it is to have length max_norm."),
        Explanation("zeros", "your factor is 0/0 for a gradient of zeros: divide only when the norm is above max_norm."),
    ),
    mutants=(
        Mutant(
            "(*(g * scale for g in gradients), norm)",
            "(*(g.clip(-max_norm, max_norm) for g in gradients), norm)",
            says="element",
        ),
        Mutant(
            "g * scale for g in gradients",
            "g * (max_norm / float((g**2).sum()) ** 0.5 if float((g**2).sum()) ** 0.5 > max_norm else 1.0) for g in gradients",
            says="each_array",
        ),
        Mutant("max_norm / norm if norm > max_norm else 1.0", "max_norm / norm if norm > 0 else 1.0", says="always"),
        Mutant("if norm > max_norm else 1.0", "if norm > max_norm else 1.0 if norm > 0 else math.nan", says="zeros"),
        Mutant(
            "math.sqrt(sum(float((g**2).sum()) for g in gradients))",
            "sum(math.sqrt((g**2).sum()) for g in gradients)",
            says="sum_of_norms",
        ),
        Mutant(
            "math.sqrt(sum(float((g**2).sum()) for g in gradients))",
            "sum(float((g**2).sum()) for g in gradients)",
            says="no_root",
        ),
        Mutant(
            "math.sqrt(sum(float((g**2).sum()) for g in gradients))", "sum(float(abs(g).sum()) for g in gradients)", says="l1"
        ),
        Mutant(
            "math.sqrt(sum(float((g**2).sum()) for g in gradients))",
            "max(float(abs(g).max()) for g in gradients)",
            says="largest",
        ),
        Mutant(
            "math.sqrt(sum(float((g**2).sum()) for g in gradients))",
            "math.sqrt(sum(float((g**2).sum()) for g in gradients) / sum(g.size for g in gradients))",
            says="rms",
        ),
        Mutant("for g in gradients), norm)", "for g in gradients), norm * scale)", says="norm_after"),
        Mutant("(g**2).sum()) for g in gradients)", "(g**2).sum()) for g in gradients[:2])", says="no_db"),
        Mutant(
            "return (*(g * scale for g in gradients), norm)",
            "return (dw_ih * scale, dw_hh * scale, db, norm)",
            says="db_not_clipped",
        ),
        Mutant("scale = max_norm / norm if", "scale = 1 / norm if", says="to_one"),
    ),
    alternatives=(
        """\
import numpy as np


def clip_gradients(dw_ih, dw_hh, db, max_norm):
    everything = np.concatenate([dw_ih.ravel(), dw_hh.ravel(), db.ravel()])
    norm = np.linalg.norm(everything)
    clipped = everything / max(1.0, norm / max_norm)
    first, second = dw_ih.size, dw_ih.size + dw_hh.size
    return clipped[:first].reshape(dw_ih.shape), clipped[first:second].reshape(dw_hh.shape), clipped[second:], norm
""",
    ),
    fast=Fast(fast, {}),
)
