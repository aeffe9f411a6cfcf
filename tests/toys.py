"""Small operations for the engine's tests. Each does one unusual thing, and is right unless its name says otherwise."""

import numpy as np

from cnnlib import Op, Tensor


def leaf(values, dtype="float32"):
    return Tensor(np.array(values, dtype), requires_grad=True)


def read_only(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


class Square(Op):
    formula = "y = x²"

    @staticmethod
    def forward(ctx, x):
        ctx.save(x=x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        return 2.0 * dy * ctx.x


class Pick(Op):
    """y = a or b, so that the other input gets no adjoint at all."""

    formula = "y = a"

    @staticmethod
    def forward(ctx, a, b, *, second=False):
        ctx.save(second=second)
        return (b if second else a) * 1.0

    @staticmethod
    def backward(ctx, dy):
        return (None, dy) if ctx.second else (dy, None)


class Polar(Op):
    """Two differentiable outputs, radius and angle; remembers which adjoints arrived."""

    formula = "r = √(a² + b²), φ = atan2(b, a)"
    arrived = ()

    @staticmethod
    def forward(ctx, a, b):
        r = np.hypot(a, b)
        ctx.save(a=a, b=b, r=r)
        return r, np.arctan2(b, a)

    @staticmethod
    def backward(ctx, dr, dphi):
        Polar.arrived = (dr is not None, dphi is not None)
        da, db = np.zeros_like(ctx.a), np.zeros_like(ctx.b)
        if dr is not None:
            da, db = da + dr * ctx.a / ctx.r, db + dr * ctx.b / ctx.r
        if dphi is not None:
            da, db = da - dphi * ctx.b / ctx.r**2, db + dphi * ctx.a / ctx.r**2
        return da, db


class TopTwo(Op):
    """The largest element, differentiable, its position, an integer, and a float statistic that is marked."""

    formula = "y, i, m = max x, argmax x, mean x"

    @staticmethod
    def forward(ctx, x):
        i = x.argmax()
        ctx.save(i=i, shape=x.shape)
        ctx.mark_non_differentiable(2)
        return x.max(), np.asarray(i), x.mean()

    @staticmethod
    def backward(ctx, dy, di, dm):
        assert di is None and dm is None
        dx = np.zeros(ctx.shape, dy.dtype)
        dx[ctx.i] = dy
        return dx


def returning(*adjoints):
    """An operation y = a + b whose backward returns just these objects."""

    class Returning(Op):
        formula = "y = a + b"

        @staticmethod
        def forward(ctx, a, b):
            return a + b

        @staticmethod
        def backward(ctx, dy):
            return adjoints

    return Returning
