"""Linear layers and matrix products: y[n, o] = Σ_i x[n, i] w[o, i] + b[o]."""

from __future__ import annotations

from cnnlib import ops
from cnnlib.microscope.anatomy import LETTERS, Anatomy, Ran, explains
from cnnlib.microscope.rules import arrays, places, rule, total

x, w, b, dy, a = arrays("x w b dy a")


@explains(ops.Linear)
def linear(ran: Ran) -> Anatomy:
    *rows, inputs = ran.a["x"].shape
    outputs = ran.a["w"].shape[0]
    names = ["n"] if len(rows) == 1 else ["t", "n"] if len(rows) == 2 else LETTERS[1 : len(rows) + 1]
    r = places(" ".join(names))
    o, i = places("o i")
    over_rows = dict(zip(names, rows, strict=True))
    return Anatomy(
        {
            "y": total(x[*r, i] * w[o, i], i=inputs) + b[o],
            "dx": rule(total(dy[*r, o] * w[o, i], o=outputs)),
            "dw": rule(total(dy[*r, o] * x[*r, i], **over_rows)),
            "db": rule(total(dy[*r, o], **over_rows)),
        },
        axes={"x": " ".join([*names, "i"]), "w": "o i", "b": "o", "y": " ".join([*names, "o"])},
    )


@explains(ops.Matmul)
def matmul(ran: Ran) -> Anatomy:
    A, B = ran.a["a"], ran.a["b"]
    if A.ndim != B.ndim or A.ndim < 2 or A.shape[:-2] != B.shape[:-2]:
        return Anatomy({}, note="matmul: a and b with different leading axes have their numbers only.")
    letters = LETTERS[5 : 5 + A.ndim - 2]
    lead = places(" ".join(letters))
    m, k, n = places("m k n")
    named = {name: " ".join([*letters, *last]) for name, last in (("a", "mk"), ("b", "kn"), ("y", "mn"))}
    (M, K), N = A.shape[-2:], B.shape[-1]
    return Anatomy(
        {
            "y": rule(total(a[*lead, m, k] * b[*lead, k, n], k=K)),
            "da": rule(total(dy[*lead, m, n] * b[*lead, k, n], n=N)),
            "db": rule(total(dy[*lead, m, n] * a[*lead, m, k], m=M)),
        },
        axes=named,
    )


@explains(ops.LocallyConnected2d)
def locally_connected2d(ran: Ran) -> Anatomy:
    """A convolution with weights of its own at every position (oh, ow)."""
    _, (SH, SW), (top, _, left, _) = ran.saved["geometry"]
    F, C, KH, KW = ran.a["w"].shape[2:]
    n, f, c, h, u, oh, ow, kh, kw = places("n f c h w oh ow kh kw")
    row, column = SH * oh + kh - top, SW * ow + kw - left
    back = (h + top - kh) // SH, (u + left - kw) // SW
    N = len(ran.a["x"])
    return Anatomy(
        {
            "y": total(x[n, c, row, column] * w[oh, ow, f, c, kh, kw], c=C, kh=KH, kw=KW) + b[f, oh, ow],
            "dx": rule(total(dy[n, f, *back] * w[*back, f, c, kh, kw], f=F, kh=KH, kw=KW)),
            "dw": rule(total(dy[n, f, oh, ow] * x[n, c, row, column], n=N)),
            "db": rule(total(dy[n, f, oh, ow], n=N)),
        },
        axes={"x": "n c h w", "w": "oh ow f c kh kw", "b": "f oh ow", "y": "n f oh ow"},
    )
