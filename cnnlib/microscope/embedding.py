"""Embedding: a row of the table, as it stands; backwards, a row collects the adjoints of every place that read it."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.microscope.anatomy import LETTERS, Anatomy, Ran, explains
from cnnlib.microscope.rules import arrays, equal, places, rule, total

w, dy, indices = arrays("w dy indices")


@explains(ops.Embedding)
def embedding(ran: Ran) -> Anatomy:
    shape = ran.a["indices"].shape
    names = ["t", "n"] if len(shape) == 2 else LETTERS[: len(shape)]
    at = tuple(places(" ".join(names))) if names else ()
    v, d = places("v d")
    letters = " ".join(names)
    return Anatomy(
        {
            "y": rule(w[indices[at], d]),
            "dw": rule(total(equal(indices[at], v) * dy[*at, d], **dict(zip(names, shape, strict=True)))),
        },
        axes={"indices": letters, "w": "v d", "y": f"{letters} d".strip()},
    )
