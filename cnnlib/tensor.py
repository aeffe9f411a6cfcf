"""Tensor: an array, its gradient, and the place on the tape where it was made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlib.backends import on_gpu, xp_of
from cnnlib.errors import DeviceError, DtypeError, GraphError, ShapeError

if TYPE_CHECKING:
    from cnnlib.op import Context


_DL_CPU, _DL_CUDA = 1, (2, 3, 13)  # DLPack's numbers: kDLCPU; kDLCUDA, kDLCUDAHost, kDLCUDAManaged


class Tensor:
    """An array that remembers how it was computed.

    ``data``: a NumPy or CuPy array, or anything ``numpy.asarray`` takes. Lists and Python numbers become float32 (or
    int64, bool); arrays keep their dtype and are not copied. ``requires_grad`` needs a float dtype.

    ``t.grad`` is an array of the shape of ``t``, or None before :meth:`backward`. Tensors have no in-place operators.

    >>> import cnnlib as cl
    >>> x = cl.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4., 6.], dtype=float32)

    Raises DtypeError when an integer tensor is to require a gradient.
    """

    __slots__ = ("__weakref__", "ctx", "data", "grad", "hooks", "index", "requires_grad")
    __array_priority__ = 1000  # so that ndarray + Tensor calls Tensor.__radd__
    __array_ufunc__ = None

    data: Any
    grad: Any
    ctx: Context | None
    hooks: Sequence[Callable[[Any], None]]

    def __init__(self, data: Any, requires_grad: bool = False):
        if isinstance(data, Tensor):
            data = data.data
        elif not hasattr(data, "dtype") or isinstance(data, np.generic):
            try:
                data = np.asarray(data)
            except ValueError:
                raise ShapeError(f"Tensor: lists inside a list must be equally long, got {data!r}.") from None
            if data.dtype == np.float64:
                data = data.astype(np.float32)
        if data.dtype.kind not in "fiub":
            raise DtypeError(f"Tensor: expected numbers, got an array of {data.dtype}.")
        if requires_grad and data.dtype.kind != "f":
            raise DtypeError(
                f"Tensor: only float tensors can require a gradient, got {data.dtype}. Use data.astype('float32')."
            )
        if data.dtype.kind == "f" and data.dtype not in (np.float32, np.float64):
            raise DtypeError(f"Tensor: float arrays must be float32 or float64, got {data.dtype}. Use data.astype('float32').")
        self.data = data
        self.requires_grad = requires_grad
        self.grad = None
        self.ctx = None
        self.index = 0
        self.hooks = ()

    @classmethod
    def wrap(cls, data: Any) -> Tensor:
        """A Tensor around an array that is known to be fine: the engine's shortcut."""
        t = object.__new__(Tensor)
        t.data, t.requires_grad, t.grad, t.ctx, t.index, t.hooks = data, False, None, None, 0, ()
        return t

    # ---- looking at it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return "cpu" if xp_of(self.data) is np else "cuda"

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def item(self) -> float:
        """The number in a tensor of one element."""
        return to_device(self.data, "cpu").item()

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(to_device(self.data, "cpu"))

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the tensor's own array on the CPU, a copy from the GPU."""
        return to_device(self.data, "cpu")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    # ---- sharing memory with other libraries

    @classmethod
    def from_dlpack(cls, array: Any) -> Tensor:
        """The memory of another library's array (PyTorch, CuPy, JAX, ...) as a tensor, on the device where it is: no copy.

        What one of the two writes, the other sees. Raises DeviceError for a device that is neither CPU nor CUDA, DtypeError.

        >>> import cnnlib as cl, numpy as np
        >>> a = np.zeros(3, np.float32)
        >>> t = cl.Tensor.from_dlpack(a)
        >>> a[0] = 7.0
        >>> t.numpy()
        array([7., 0., 0.], dtype=float32)
        """
        if not hasattr(array, "__dlpack__"):
            raise DtypeError(
                f"Tensor.from_dlpack: expected an array that speaks DLPack (__dlpack__), got {type(array).__name__}."
            )
        kind = int(array.__dlpack_device__()[0])
        if kind not in (_DL_CPU, *_DL_CUDA):
            raise DeviceError(f"Tensor.from_dlpack: the array is on DLPack device {kind}; cnnlib knows the CPU and CUDA only.")
        if kind == _DL_CPU:
            return cls(np.from_dlpack(array))
        to_device(np.empty(0), "cuda")  # the reason, where there is no usable GPU
        import cupy

        return cls(cupy.from_dlpack(array))

    def __dlpack__(self, **how: Any) -> Any:
        """Hand the memory to another library: ``torch.from_dlpack(t)``. Raises GraphError where a gradient would be lost."""
        if self.requires_grad:
            raise GraphError(
                "__dlpack__: this tensor requires a gradient, which another library cannot send back: t.detach() first."
            )
        return self.data.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", precision=4, threshold=60, edgeitems=2, prefix="Tensor(")
        made = (
            f", made by {self.ctx.op.name()}" if self.ctx is not None else ", requires_grad=True" if self.requires_grad else ""
        )
        where = ", device='cuda'" if self.device == "cuda" else ""
        return f"Tensor({values}, shape={self.shape}, {self.dtype}{where}{made})"

    # ---- the graph

    def backward(self, dy: Any = None, retain: bool = False) -> None:
        """Go back through the tape and add this tensor's derivative to ``.grad`` of every leaf it depends on.

        ``dy``: adjoint of this tensor, an array of its shape and dtype; a tensor of one element needs none.
        The tape is freed on the way, unless ``retain``: a second backward through it is an error.

        Raises GraphError (no graph, freed graph, a parameter changed since forward), ShapeError.
        """
        from cnnlib.tape import backward

        backward(self, dy, retain)

    def detach(self) -> Tensor:
        """The same values, cut off from the tape."""
        return Tensor.wrap(self.data)

    def register_hook(self, hook: Callable[[Any], None]) -> None:
        """Call ``hook(grad)`` each time backward has added to this leaf's ``.grad``. The hook must not write to it.

        Raises GraphError on a tensor that is not a leaf: ``cl.trace()`` shows adjoints in between.
        """
        if self.ctx is not None or not self.requires_grad:
            raise GraphError(
                "register_hook: only a leaf that requires a gradient has hooks; cl.trace() shows adjoints in between."
            )
        self.hooks = (*self.hooks, hook)

    def to(self, target: Any) -> Tensor:
        """Move to a device (``"cpu"``, ``"cuda"``) or cast to a dtype; on the tape, so that gradients flow back."""
        if target in ("cpu", "cuda"):
            return self if target == self.device else ops.move(self, target)
        return self.astype(target)

    def astype(self, dtype: Any) -> Tensor:
        """Cast to float32 or float64, on the tape. Raises DtypeError for anything else."""
        if str(getattr(dtype, "__name__", dtype)) not in ("float32", "float64"):
            raise DtypeError(f"to: expected 'cpu', 'cuda', 'float32' or 'float64', got {dtype!r}.")
        return self if np.dtype(dtype) == self.dtype else ops.cast(self, np.dtype(dtype).name)

    # ---- operators: each is an operation of cnnlib.ops

    def __add__(self, other):
        return ops.add(self, other)

    def __radd__(self, other):
        return ops.add(other, self)

    def __sub__(self, other):
        return ops.subtract(self, other)

    def __rsub__(self, other):
        return ops.subtract(other, self)

    def __mul__(self, other):
        return ops.multiply(self, other)

    def __rmul__(self, other):
        return ops.multiply(other, self)

    def __truediv__(self, other):
        return ops.divide(self, other)

    def __rtruediv__(self, other):
        return ops.divide(other, self)

    def __pow__(self, exponent):
        return ops.power(self, exponent)

    def __neg__(self):
        return ops.negative(self)

    def __abs__(self):
        return ops.absolute(self)

    def __matmul__(self, other):
        return ops.matmul(self, other)

    def __rmatmul__(self, other):
        return ops.matmul(other, self)

    def __getitem__(self, index):
        return ops.getitem(self, index)

    __hash__ = object.__hash__

    def __eq__(self, other):  # type: ignore[override]  # element by element, as in NumPy
        return Tensor.wrap(self.data == _array(other))

    def __ne__(self, other):  # type: ignore[override]
        return Tensor.wrap(self.data != _array(other))

    def __lt__(self, other):
        return Tensor.wrap(self.data < _array(other))

    def __le__(self, other):
        return Tensor.wrap(self.data <= _array(other))

    def __gt__(self, other):
        return Tensor.wrap(self.data > _array(other))

    def __ge__(self, other):
        return Tensor.wrap(self.data >= _array(other))

    def exp(self):
        return ops.exp(self)

    def log(self):
        return ops.log(self)

    def sqrt(self):
        return ops.sqrt(self)

    def sum(self, axis=None, keepdims=False):
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis=None, keepdims=False):
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis=None, keepdims=False):
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis=None, keepdims=False):
        return ops.min(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis=None):
        return Tensor.wrap(xp_of(self.data).asarray(self.data.argmax(axis=axis)))

    def reshape(self, *shape):
        return ops.reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def transpose(self, *axes):
        return ops.transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)

    @property
    def T(self):
        return ops.transpose(self)

    def flatten(self, start_dim=0, end_dim=-1):
        return ops.flatten(self, start_dim, end_dim)

    def split(self, sizes, axis=0):
        return ops.split(self, sizes, axis)


def _array(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


class Parameter(Tensor):
    """A tensor that a model learns. It owns a copy of its array, which optimisers update in place.

    ``version`` counts those updates, so that backward can refuse a graph that was recorded before one.
    ``name`` is its path in the model, such as ``"conv1.weight"``, once it belongs to one.
    """

    __slots__ = ("name", "version")

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)
        self.data = self.data.copy()
        self.name = ""
        self.version = 0

    def set(self, data: Any) -> None:
        """Give the parameter a copy of ``data``, of its shape, dtype and device, and raise its version."""
        if np.shape(data) not in (self.shape, ()):
            raise ShapeError(f"Parameter.set: {self.name or 'the parameter'} has shape {self.shape}, got {np.shape(data)}.")
        new = xp_of(self.data).empty_like(self.data)
        new[...] = data
        self.data = new  # a new array: views of the old one, which a graph may hold, stay as they are
        self.version += 1


def to_device(array: Any, device: str) -> Any:
    """``array`` on ``"cpu"`` or ``"cuda"``. Raises DeviceError with the reason when there is no usable GPU.

    The way from the GPU is where the host waits: ValueRangeError when kernels met a label or an index that cannot be by then.
    """
    if device == "cpu":
        return _from_gpu(array) if on_gpu(array) else array
    if device != "cuda":
        raise DeviceError(f"unknown device {device!r}: use 'cpu' or 'cuda'.")
    from cnnlib.backends import cuda

    if reason := cuda.why_not():
        raise DeviceError(f"device 'cuda' is not available: {reason} Run `cnnlib doctor` for what to do.")
    import cupy

    return cupy.asarray(array)


def _from_gpu(array: Any) -> Any:
    from cnnlib.backends.cuda import errors

    errors.check()
    return array.get()


from cnnlib import ops  # noqa: E402  at the bottom: operations are built on Tensor, and its operators are operations
