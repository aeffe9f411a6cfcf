"""A stand-in for CuPy whose device is the host: arrays are NumPy's under another type, kernels run on the emulator.

As with CuPy, arrays of the host and of the device do not mix, and reductions and single elements are arrays of no dimension.
Fresh memory holds NaN. ``synchronisations`` lists what would have made the host wait for the device.
"""

from __future__ import annotations

import numpy as np

from tests.cuda import fake_cuda as cuda
from tests.cuda.emulator import Module as RawModule  # noqa: F401  (the name that CuPy gives it)
from tests.cuda.fake_cuda import do, synchronisations, wait  # noqa: F401

__version__ = "0 (emulated)"


class ndarray(np.ndarray):
    """An array "on the device"."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **settings):
        _may_run(ufunc.__name__)
        _known(ufunc.__name__, settings)
        if out:
            settings["out"] = tuple(_host(o, ufunc.__name__) for o in out)
        inputs = [_host(a, ufunc.__name__) for a in inputs]
        result = do(lambda: getattr(ufunc, method)(*inputs, **settings), settings.get("out", ()))
        if out:
            return out[0] if len(out) == 1 else out
        return _device(result)

    def __array_function__(self, function, types, arguments, settings):
        return _on_host(function)(*arguments, **settings)

    def __getitem__(self, where):
        host, where = self.view(np.ndarray), _index(where)
        return _device(do(lambda: host[where]))

    def __setitem__(self, where, value):
        host, where, value = self.view(np.ndarray), _index(where), _host(value, "assignment")
        do(lambda: host.__setitem__(where, value), (host,))

    def set(self, pinned, stream=None):
        """Begins now; is done when the stream's later event is waited for."""
        (stream or cuda.get_current_stream()).later(lambda: self.view(np.ndarray).__setitem__(..., pinned))

    def astype(self, dtype, copy=True):
        return _method("astype")(self, dtype) if copy or dtype != self.dtype else self

    def copy(self):
        return _method("copy")(self)

    def fill(self, value):
        self[...] = value

    def get(self):
        wait("get")
        return self.view(np.ndarray).copy()

    def item(self, *where):
        wait("item")
        return self.view(np.ndarray).item(*where)

    def tolist(self):
        wait("tolist")
        return self.view(np.ndarray).tolist()

    def __bool__(self):
        wait("bool")
        return bool(self.view(np.ndarray))

    def __float__(self):
        wait("float")
        return float(self.view(np.ndarray).item())

    def __int__(self):
        wait("int")
        return int(self.view(np.ndarray).item())

    __index__ = __int__


LIBRARIES = {
    "cuBLAS": ("matmul", "dot", "tensordot", "einsum", "inner", "vdot"),
    "thrust": ("sort", "argsort", "lexsort", "unique"),
}

WAITING = "nonzero", "flatnonzero", "argwhere", "unique", "bincount"  # the shape of the result is in the values


def _may_run(name):
    """CuPy's own refusal of cuBLAS, and what thrust's waiting comes to, while a graph is recorded."""
    if name in WAITING:
        wait(name)
    for library, names in LIBRARIES.items():
        if name in names:
            cuda.not_recorded(library)


def _known(name, settings):
    for setting in ("initial", "where"):
        if setting in settings:
            raise TypeError(f"{name}() got an unexpected keyword argument {setting!r}")  # NumPy only


def _method(name):
    def method(self, *arguments, **settings):
        _may_run(name)
        _known(name, settings)
        host, arguments = self.view(np.ndarray), [_host(a, name) for a in arguments]
        settings = {k: _host(v, name) for k, v in settings.items()}
        return _device(do(lambda: getattr(host, name)(*arguments, **settings)))

    return method


for _name in ("sum", "mean", "max", "min", "prod", "any", "all", "argmax", "argmin", "cumsum", "var", "std", "nonzero", "take",
              "dot", "argsort", "clip", "repeat"):  # fmt: skip
    setattr(ndarray, _name, _method(_name))


def _host(a, what):
    """The memory of a device array; NumPy's arrays are refused, as CuPy refuses them."""
    if isinstance(a, ndarray):
        return a.view(np.ndarray)
    if isinstance(a, np.ndarray):
        raise TypeError(f"{what}: unsupported type {np.ndarray}")
    if isinstance(a, (tuple, list)):
        return type(a)([_host(b, what) for b in a])
    return a


def _index(where):
    """As an index CuPy takes NumPy's arrays and lists, too, and sends them. Of a mask it counts the true elements and waits for
    their number, also where they are only written to."""
    if isinstance(where, tuple):
        return tuple(map(_index, where))
    if getattr(where, "dtype", None) == np.dtype(bool):
        wait("a mask, whose true elements are counted")
    if isinstance(where, (list, np.ndarray)) and not isinstance(where, ndarray):
        cuda.from_host(np.asarray(where).nbytes)
    return where.view(np.ndarray) if isinstance(where, np.ndarray) else where


def _device(a):
    if isinstance(a, (tuple, list)):
        return type(a)([_device(b) for b in a])
    if isinstance(a, (np.ndarray, np.generic)):
        return np.asarray(a).view(ndarray)
    return a


def _on_host(function):
    def run(*arguments, **settings):
        _may_run(function.__name__)
        _known(function.__name__, settings)
        arguments = [_host(a, function.__name__) for a in arguments]
        settings = {k: _host(v, function.__name__) for k, v in settings.items()}
        return _device(do(lambda: function(*arguments, **settings), [settings["out"]] if "out" in settings else ()))

    if isinstance(function, np.ufunc) and function.nin == 2:
        run.at = lambda a, where, b: function.at(_host(a, "at"), _index(where), _host(b, "at"))
    return run


def empty(shape, dtype=float, order="C"):
    a = np.empty(shape, dtype)
    a.view(np.ndarray).fill(np.nan if a.dtype.kind == "f" else np.iinfo(a.dtype).max if a.dtype.kind in "iu" else True)
    return a.view(ndarray)


def empty_like(a, dtype=None):
    return empty(a.shape, a.dtype if dtype is None else dtype)


def asarray(a, dtype=None):
    """From the host to the device; the only way, as ``array``."""
    return a if isinstance(a, ndarray) and dtype in (None, a.dtype) else array(a, dtype)


def array(a, dtype=None, copy=True):
    if isinstance(a, ndarray):
        host = a.view(np.ndarray)
        return _device(do(lambda: np.array(host, dtype, order="C")))
    host = np.array(a, dtype, order="C")
    if host.ndim:  # a number goes along with the kernel that fills the array
        cuda.from_host(host.nbytes)
    return host.view(ndarray)


def concatenate(arrays, axis=0):
    if len(arrays) > 8:  # CuPy sends their addresses
        cuda.from_host(8 * len(arrays))
    return _on_host(np.concatenate)(arrays, axis=axis)


def get_default_pinned_memory_pool():
    return cuda.pinned_pool


def get_default_memory_pool():
    return cuda.pool


def asnumpy(a):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def from_dlpack(a):
    return np.from_dlpack(a.host).view(ndarray)


def __getattr__(name):
    """The rest of NumPy's functions, on device arrays; constants and types are the same."""
    if name.startswith("__"):
        raise AttributeError(name)
    value = getattr(np, name)
    return value if isinstance(value, type) or not callable(value) else _on_host(value)
