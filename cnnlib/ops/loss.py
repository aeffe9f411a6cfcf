"""Losses: one number that says how far predictions x are from targets t.

Formulas, per row of C logits (cross-entropy) or per element, and their derivatives by x::

    cross-entropy    l = −ln softmax(x)[t] = lse − x[t], lse = ln Σ_c e^(x_c)       ∂l/∂x_c = softmax(x)[c] − [c = t]
      probabilities  l = −Σ_c t_c ln softmax(x)[c]                                  ∂l/∂x_c = softmax(x)[c] Σ_k t_k − t_c
    negative log-    l = −x[t], x log-probabilities                                 ∂l/∂x_c = −[c = t]
      likelihood
    binary           l = −t ln σ(x) − (1 − t) ln(1 − σ(x))                          σ(x) − t
      cross-entropy    = (1 − t) x + ln(1 + e⁻ˣ), which does not overflow
    squared          l = (x − t)²                                                   2 (x − t)
    absolute         l = |x − t|                                                    sign(x − t), 0 at 0
    hinge            l = max(0, 1 − t x), t = ±1                                    −t where t x < 1, else 0
    multi-margin     l = Σ_{c ≠ t} max(0, margin − x[t] + x_c) / C                  1/C per active c; −(their number)/C at t

With class weights w, the term of class c counts w_c times. With label smoothing e the label t becomes the distribution
(1 − e) [c = t] + e / C. Rows with t = ignore_index count nothing.

Reduction. ``"none"``: the losses themselves; ``"sum"``: their sum; ``"mean"``, the default: divided by their number, which
for cross-entropy and negative log-likelihood is Σ w[t] over the rows that are not ignored (all this as in PyTorch). The
squared loss has no ½: the lecture's ½ Σ (x − t)² is 0.5 times ``reduction="sum"``.

Source: lecture: backpropagation (losses); Bishop, "Pattern Recognition and Machine Learning", 2006, chapters 4 and 7;
Szegedy et al., "Rethinking the Inception architecture", 2016 (label smoothing).
"""

from __future__ import annotations

import math

from cnnlib.backends import kernel, on_gpu, xp_of
from cnnlib.errors import DtypeError, ShapeError, ValueRangeError
from cnnlib.op import Op
from cnnlib.ops.arguments import check_float, check_not_empty, check_shape, first_wrong

# ---- the textbook. x (R, C) logits, labels (R,), weight (C,) or None.


@kernel
def cross_entropy_forward(x, labels, weight, label_smoothing, ignore_index):
    xp = xp_of(x)
    C = x.shape[1]
    counts = labels != ignore_index
    t = xp.where(counts, labels, 0)
    largest = x.max(axis=1)
    shifted = x - largest[:, None]
    log_sum = xp.log(xp.exp(shifted).sum(axis=1))
    loss = log_sum - shifted[xp.arange(len(t)), t]  # lse − x[t]; the shift cancels
    if weight is not None:
        loss = loss * weight[t]
    if label_smoothing:
        terms = log_sum[:, None] - shifted if weight is None else (log_sum[:, None] - shifted) * weight
        loss = (1.0 - label_smoothing) * loss + label_smoothing / C * terms.sum(axis=1)
    return xp.where(counts, loss, 0.0), largest + log_sum


@kernel
def cross_entropy_backward(dloss, x, labels, lse, weight, label_smoothing, ignore_index):
    xp = xp_of(x)
    C = x.shape[1]
    counts = labels != ignore_index
    t = xp.where(counts, labels, 0)
    w = xp.ones(C, dtype=x.dtype) if weight is None else weight
    of_label = (1.0 - label_smoothing) * w[t]
    of_all = label_smoothing / C * w
    dx = xp.exp(x - lse[:, None]) * (of_label + of_all.sum())[:, None] - of_all
    dx[xp.arange(len(t)), t] -= of_label
    return xp.where(counts[:, None], dx * dloss[:, None], 0.0)


# ---- reductions


def _reduce(losses, reduction, count):
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.sum() / count


def _spread(xp, dy, shape, reduction, count):
    """The adjoint of _reduce: the adjoint of every single loss."""
    if reduction == "none":
        return dy
    return xp.ascontiguousarray(xp.broadcast_to(dy / count if reduction == "mean" else dy, shape))


def _check_reduction(op, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ValueRangeError(f'{op}: reduction must be "mean", "sum" or "none", got {reduction!r}.')


# ---- the operations on labels


class CrossEntropy(Op):
    """Logits against labels. Saves x (R, C), labels (R,), lse (R,), weight, and count, what the mean divides by."""

    formula = "l = ln Σ eˣ − x[t]"
    integers = ("target",)

    @staticmethod
    def forward(ctx, x, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        labels, count = _labels("cross_entropy", x, target, weight, ignore_index, reduction)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueRangeError(f"cross_entropy: label_smoothing must be in 0 … 1, got {label_smoothing}.")
        rows = _class_rows(ctx.xp, x)
        losses, lse = ctx.kernels.cross_entropy_forward(rows, labels, weight, label_smoothing, ignore_index)
        ctx.save(x=rows, labels=labels, lse=lse, weight=weight, count=count, shape=x.shape)
        ctx.save(ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)
        return _reduce(losses.reshape(target.shape), reduction, count)

    @staticmethod
    def backward(ctx, dy):
        dloss = _spread(ctx.xp, dy.reshape(-1), ctx.labels.shape, ctx.reduction, ctx.count)
        dx = ctx.kernels.cross_entropy_backward(
            dloss, ctx.x, ctx.labels, ctx.lse, ctx.weight, ctx.label_smoothing, ctx.ignore_index
        )
        return _from_class_rows(ctx.xp, dx, ctx.shape), None, None


class CrossEntropyOfProbabilities(Op):
    """Logits against probabilities of x's shape. Saves y = log softmax(x), target, weight (all as rows) and count = R."""

    formula = "l = −Σ t ln softmax(x)"

    @staticmethod
    def forward(ctx, x, target, weight=None, *, reduction="mean", label_smoothing=0.0):
        _check_probabilities(x, target, weight, reduction, label_smoothing)
        y = ctx.kernels.log_softmax_forward(_class_rows(ctx.xp, x))
        t = (1.0 - label_smoothing) * _class_rows(ctx.xp, target) + label_smoothing / x.shape[1]
        if weight is not None:
            t = t * weight
        ctx.save(y=y, target=t, weight=weight, count=len(y), shape=x.shape)
        ctx.save(reduction=reduction, label_smoothing=label_smoothing)
        losses = -(t * y).sum(axis=1)
        return _reduce(losses.reshape(x.shape[:1] + x.shape[2:]), reduction, ctx.count)

    @staticmethod
    def backward(ctx, dy):
        y, t = ctx.y, ctx.target
        dloss = _spread(ctx.xp, dy.reshape(-1), y.shape[:1], ctx.reduction, ctx.count)[:, None]
        dx = dloss * (ctx.xp.exp(y) * t.sum(axis=1, keepdims=True) - t)
        dt = None
        if ctx.needs[1]:
            dt = (ctx.label_smoothing - 1.0) * dloss * (y if ctx.weight is None else y * ctx.weight)
            dt = _from_class_rows(ctx.xp, dt, ctx.shape)
        return _from_class_rows(ctx.xp, dx, ctx.shape), dt, None


class NLLLoss(Op):
    """Saves labels (R,), weight_of_row (R,), that is w[t] and 0 for ignored rows, count and shape."""

    formula = "l = −x[t]"
    integers = ("target",)

    @staticmethod
    def forward(ctx, x, target, weight=None, *, ignore_index=-100, reduction="mean"):
        xp = ctx.xp
        labels, count = _labels("nll_loss", x, target, weight, ignore_index, reduction)
        counts = labels != ignore_index
        t = xp.where(counts, labels, 0)
        weight_of_row = xp.where(counts, xp.ones_like(t, dtype=x.dtype) if weight is None else weight[t], 0.0)
        ctx.save(labels=t, weight_of_row=weight_of_row, count=count, shape=x.shape, reduction=reduction)
        picked = _class_rows(xp, x)[xp.arange(len(t)), t]
        return _reduce(xp.where(counts, -weight_of_row * picked, 0.0).reshape(target.shape), reduction, count)

    @staticmethod
    def backward(ctx, dy):
        xp, t = ctx.xp, ctx.labels
        dloss = _spread(xp, dy.reshape(-1), t.shape, ctx.reduction, ctx.count)
        dx = xp.zeros((len(t), ctx.shape[1]), dtype=dy.dtype)
        dx[xp.arange(len(t)), t] = -ctx.weight_of_row * dloss
        return _from_class_rows(xp, dx, ctx.shape), None, None


class MultiMarginLoss(Op):
    """Saves slope (R, C), the derivative of each row's loss, and count = R."""

    formula = "l = Σ_{c ≠ t} max(0, margin − x[t] + x_c) / C"
    integers = ("target",)

    @staticmethod
    def forward(ctx, x, target, *, margin=1.0, reduction="mean"):
        xp = ctx.xp
        labels, count = _labels("multi_margin_loss", x, target, None, None, reduction)
        rows, C = _class_rows(xp, x), x.shape[1]
        each = xp.arange(len(rows))
        slack = margin - rows[each, labels][:, None] + rows
        slack[each, labels] = 0.0
        slope = (slack > 0.0).astype(x.dtype) / C
        slope[each, labels] = -slope.sum(axis=1)
        ctx.save(slope=slope, count=count, shape=x.shape, reduction=reduction)
        return _reduce((xp.maximum(slack, 0.0).sum(axis=1) / C).reshape(target.shape), reduction, count)

    @staticmethod
    def backward(ctx, dy):
        dloss = _spread(ctx.xp, dy.reshape(-1), ctx.slope.shape[:1], ctx.reduction, ctx.count)
        return _from_class_rows(ctx.xp, dloss[:, None] * ctx.slope, ctx.shape), None


def _class_rows(xp, x):
    """(N, C, d1, ...) -> (N·d1·…, C)."""
    return x if x.ndim == 2 else xp.ascontiguousarray(xp.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def _from_class_rows(xp, rows, shape):
    """(N·d1·…, C) -> (N, C, d1, ...)."""
    if len(shape) == 2:
        return rows
    return xp.ascontiguousarray(xp.moveaxis(rows.reshape(*shape[:1], *shape[2:], shape[1]), -1, 1))


def _check_logits(op, x, weight, reduction):
    _check_reduction(op, reduction)
    check_float(op, "x", x)
    if x.ndim < 2:
        raise ShapeError(f"{op}: x must have at least 2 axes (N, C) or (N, C, d1, ...), got shape {x.shape}.")
    check_not_empty(op, "x", x)
    if weight is not None:
        check_shape(op, "weight", weight, (x.shape[1],), "one weight per class")


def _labels(op, x, target, weight, ignore_index, reduction):
    """Labels as (R,) int64 and what the mean divides by, after all checks."""
    _check_logits(op, x, weight, reduction)
    C, expected = x.shape[1], x.shape[:1] + x.shape[2:]
    if target.dtype.kind not in "iu":
        or_probabilities = f" or probabilities of x's shape {x.shape}" if op == "cross_entropy" else ""
        raise DtypeError(
            f"{op}: target must be integer labels of shape {expected}{or_probabilities}, "
            f"got {target.dtype} of shape {target.shape}. Labels: target.astype('int64')."
        )
    if target.shape != expected:
        one_hot = " One-hot rows: target.argmax(axis=1)." if target.shape == x.shape else ""
        raise ShapeError(
            f"{op}: x has shape {x.shape}, (N, C) or (N, C, d1, ...), so target must have shape {expected}, one label per row; "
            f"got {target.shape}.{one_hot}"
        )
    labels = target.reshape(-1).astype("int64")
    if on_gpu(labels):
        from cnnlib.backends.cuda.loss import check_labels

        return check_labels(op, x, labels, weight, ignore_index, reduction)
    wrong = (target < 0) | (target >= C)
    ignored = None
    if ignore_index is not None:
        ignored = target == ignore_index
        wrong &= ~ignored
    where = first_wrong(op, wrong)
    if where is not None:
        but = "" if ignore_index is None else f" (or ignore_index = {ignore_index})"
        raise ValueRangeError(
            f"{op}: label {int(target[where])} at position {where} is outside 0 … {C - 1}{but}: "
            f"x has C = {C} classes (x.shape = {x.shape})."
        )
    if reduction != "mean":
        return labels, None
    if weight is None:
        count = labels.size if ignored is None else labels.size - int(ignored.sum())
    else:
        count = float(weight[labels[labels != ignore_index]].sum())
    if not count:
        what = "every label is ignore_index" if bool(ignored.all()) else "the weights of all labels are 0"
        raise ValueRangeError(f'{op}: {what}, so there is nothing to average. Skip this batch, or use reduction="sum".')
    return labels, count


def _check_probabilities(x, target, weight, reduction, label_smoothing):
    op = "cross_entropy"
    _check_logits(op, x, weight, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueRangeError(f"{op}: label_smoothing must be in 0 … 1, got {label_smoothing}.")
    where = first_wrong("cross_entropy probability", ~(target >= 0.0))
    if where is not None:
        raise ValueRangeError(
            f"{op}: target holds probabilities, which are >= 0, but {float(target[where]):g} is at position {where}."
        )


# ---- the operations element by element


class MSELoss(Op):
    """Saves difference = x − target and count, the number of elements."""

    formula = "l = (x − t)²"

    @staticmethod
    def forward(ctx, x, target, *, reduction="mean"):
        _check_elements("mse_loss", x, target, reduction)
        difference = x - target
        ctx.save(difference=difference, count=x.size, reduction=reduction)
        return _reduce(difference * difference, reduction, x.size)

    @staticmethod
    def backward(ctx, dy):
        dx = _spread(ctx.xp, dy, ctx.difference.shape, ctx.reduction, ctx.count) * (2.0 * ctx.difference)
        return dx, -dx if ctx.needs[1] else None


class L1Loss(Op):
    """Saves difference = x − target and count, the number of elements."""

    formula = "l = |x − t|"

    @staticmethod
    def forward(ctx, x, target, *, reduction="mean"):
        _check_elements("l1_loss", x, target, reduction)
        difference = x - target
        ctx.save(difference=difference, count=x.size, reduction=reduction)
        return _reduce(ctx.xp.abs(difference), reduction, x.size)

    @staticmethod
    def backward(ctx, dy):
        dx = _spread(ctx.xp, dy, ctx.difference.shape, ctx.reduction, ctx.count) * ctx.xp.sign(ctx.difference)
        return dx, -dx if ctx.needs[1] else None


class BinaryCrossEntropyWithLogits(Op):
    """With pos_weight q the positive term counts q times: l = (1 − t) x + (1 + (q − 1) t) ln(1 + e⁻ˣ).

    Saves x, target, pos_weight and count, the number of elements.
    """

    formula = "l = (1 − t) x + ln(1 + e⁻ˣ)"

    @staticmethod
    def forward(ctx, x, target, pos_weight=None, *, reduction="mean"):
        op = "binary_cross_entropy_with_logits"
        _check_elements(op, x, target, reduction)
        where = first_wrong(op, ~((target >= 0.0) & (target <= 1.0)))
        if where is not None:
            raise ValueRangeError(
                f"{op}: target {float(target[where]):g} at position {where} is outside 0 … 1. "
                "Labels -1 and 1 belong to hinge_loss."
            )
        if pos_weight is not None and not _broadcasts_to(pos_weight.shape, x.shape):
            raise ShapeError(f"{op}: pos_weight of shape {pos_weight.shape} does not broadcast to x.shape = {x.shape}.")
        ctx.save(x=x, target=target, pos_weight=pos_weight, count=x.size, reduction=reduction)
        losses = (1.0 - target) * x + _positive(target, pos_weight) * ctx.kernels.softplus_forward(-x)
        return _reduce(losses, reduction, x.size)

    @staticmethod
    def backward(ctx, dy):
        x, t, q = ctx.x, ctx.target, ctx.pos_weight
        dloss = _spread(ctx.xp, dy, x.shape, ctx.reduction, ctx.count)
        dx = dloss * (1.0 - t - _positive(t, q) * ctx.kernels.sigmoid_forward(-x))
        dt = None
        if ctx.needs[1]:
            dt = dloss * (-x if q is None else (q - 1.0) * ctx.kernels.softplus_forward(-x) - x)
        return dx, dt, None


def _broadcasts_to(shape, target):
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(target), strict=False))


def _positive(t, pos_weight):
    return 1.0 if pos_weight is None else 1.0 + (pos_weight - 1.0) * t


class HingeLoss(Op):
    """Saves slope, −t where t x < 1, else 0, and count, the number of elements."""

    formula = "l = max(0, 1 − t x)"

    @staticmethod
    def forward(ctx, x, target, *, reduction="mean"):
        target = target.astype(x.dtype)
        _check_elements("hinge_loss", x, target, reduction)
        where = first_wrong("hinge_loss", abs(target) != 1.0)
        if where is not None:
            raise ValueRangeError(
                f"hinge_loss: target must be -1 or 1, got {float(target[where]):g} at position {where}. "
                "From labels 0 and 1: 2 * target - 1."
            )
        slack = 1.0 - target * x
        ctx.save(slope=ctx.xp.where(slack > 0.0, -target, 0.0), count=x.size, reduction=reduction)
        return _reduce(ctx.xp.maximum(slack, 0.0), reduction, x.size)

    @staticmethod
    def backward(ctx, dy):
        return _spread(ctx.xp, dy, ctx.slope.shape, ctx.reduction, ctx.count) * ctx.slope, None


def _check_elements(op, x, target, reduction):
    _check_reduction(op, reduction)
    check_float(op, "x", x)
    check_float(op, "target", target)
    if x.shape != target.shape:
        raise ShapeError(
            f"{op}: x and target must have one shape, got {x.shape} and {target.shape}: broadcasting would compare "
            "every prediction with every target. Reshape one of them."
        )
    check_not_empty(op, "x", x)


# ---- the public functions


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """−ln softmax(x)[target], as PyTorch's: x holds logits, softmax is inside.

    x (N, C) or (N, C, d1, ...). ``target``: integer labels (N,) or (N, d1, ...), or probabilities (float) of x's shape.
    ``weight`` (C,): a constant factor per class. ``ignore_index``: a label whose rows count nothing.

    >>> import cnnlib as cl
    >>> round(cl.ops.cross_entropy(cl.Tensor([[0.0, 0.0], [0.0, 0.0]]), cl.Tensor([0, 1])).item(), 4)  # ln 2
    0.6931

    Raises ValueRangeError (a label outside 0 … C − 1, with its position; all labels ignored in a mean; label smoothing
    outside 0 … 1), ShapeError (target's shape, empty batch), DtypeError (integer x; float labels).
    """
    _check_constant("cross_entropy", "weight", weight)
    if getattr(target, "shape", None) == getattr(x, "shape", ()) and target.dtype.kind == "f":
        return CrossEntropyOfProbabilities.apply(x, target, weight, reduction=reduction, label_smoothing=float(label_smoothing))
    return CrossEntropy.apply(
        x, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=float(label_smoothing)
    )


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """−x[target]: :func:`cross_entropy` for an x that holds log-probabilities already. Shapes and errors as there.

    >>> import cnnlib as cl
    >>> logp = cl.ops.log_softmax(cl.Tensor([[0.0, 0.0]]))
    >>> round(cl.ops.nll_loss(logp, cl.Tensor([1])).item(), 4)
    0.6931
    """
    _check_constant("nll_loss", "weight", weight)
    return NLLLoss.apply(x, target, weight, ignore_index=ignore_index, reduction=reduction)


def mse_loss(x, target, reduction="mean"):
    """(x − target)², averaged over all elements, without ½. The lecture's ½ Σ (x − t)² is ``0.5 * mse_loss(x, t, "sum")``.

    >>> import cnnlib as cl
    >>> cl.ops.mse_loss(cl.Tensor([1.0, 4.0]), cl.Tensor([0.0, 2.0])).item()
    2.5

    Raises ShapeError unless the shapes are equal: (N, 1) against (N,) would broadcast to (N, N) and train the wrong thing.
    """
    return MSELoss.apply(x, target, reduction=reduction)


def l1_loss(x, target, reduction="mean"):
    """|x − target|. Shapes and errors as :func:`mse_loss`.

    >>> import cnnlib as cl
    >>> cl.ops.l1_loss(cl.Tensor([1.0, 4.0]), cl.Tensor([0.0, 2.0])).item()
    1.5
    """
    return L1Loss.apply(x, target, reduction=reduction)


def binary_cross_entropy_with_logits(x, target, pos_weight=None, reduction="mean"):
    """−t ln σ(x) − (1 − t) ln(1 − σ(x)), the negative log-likelihood of Bernoulli(σ(x)); x holds logits.

    ``target``: of x's shape, in 0 … 1. ``pos_weight``: a constant factor of the positive term, broadcasting to x.

    >>> import cnnlib as cl
    >>> round(cl.ops.binary_cross_entropy_with_logits(cl.Tensor([0.0]), cl.Tensor([1.0])).item(), 4)
    0.6931

    Raises ValueRangeError (a target outside 0 … 1, with its position), ShapeError, DtypeError.
    """
    _check_constant("binary_cross_entropy_with_logits", "pos_weight", pos_weight)
    return BinaryCrossEntropyWithLogits.apply(x, target, pos_weight, reduction=reduction)


def hinge_loss(x, target, reduction="mean"):
    """max(0, 1 − t x) for labels t = ±1 (integer or float) of x's shape: the loss of a linear SVM. Subgradient 0 at the kink.

    >>> import cnnlib as cl
    >>> cl.ops.hinge_loss(cl.Tensor([0.5, 2.0]), cl.Tensor([1, -1])).item()
    1.75

    Raises ValueRangeError (a target that is not ±1, with its position), ShapeError, DtypeError.
    """
    return HingeLoss.apply(x, target, reduction=reduction)


def multi_margin_loss(x, target, margin=1.0, reduction="mean"):
    """Hinge loss of C classes: Σ_{c ≠ t} max(0, margin − x[t] + x_c) / C (the division by C as in PyTorch).

    x (N, C) or (N, C, d1, ...), integer labels as in :func:`cross_entropy`.

    >>> import cnnlib as cl
    >>> cl.ops.multi_margin_loss(cl.Tensor([[1.0, 0.5, -3.0, 0.0]]), cl.Tensor([0])).item()
    0.125
    """
    if not 0.0 < margin < math.inf:
        raise ValueRangeError(f"multi_margin_loss: margin must be a finite number > 0, got {margin}.")
    return MultiMarginLoss.apply(x, target, margin=float(margin), reduction=reduction)


def _check_constant(op, name, value):
    if getattr(value, "requires_grad", False):
        raise ValueRangeError(
            f"{op}: {name} is a constant and gets no gradient, but it has requires_grad=True. Pass {name}.detach()."
        )
