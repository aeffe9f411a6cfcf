"""A stand-in for CuPy whose device is the host: arrays are NumPy's under another type, kernels run on the emulator.

As with CuPy, arrays of the host and of the device do not mix, and reductions and single elements are arrays of no dimension.
Fresh memory holds NaN. ``synchronisations`` lists what would have made the host wait for the device.
"""

from __future__ import annotations

import numpy as np

from tests.cuda.emulator import Module as RawModule  # noqa: F401  (the name that CuPy gives it)

__version__ = "0 (emulated)"
synchronisations: list[str] = []


class ndarray(np.ndarray):
    """An array "on the device"."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **settings):
        if out:
            settings["out"] = tuple(_host(o, ufunc.__name__) for o in out)
        with np.errstate(all="ignore"):  # a device does not warn
            result = getattr(ufunc, method)(*[_host(a, ufunc.__name__) for a in inputs], **settings)
        if out:
            return out[0] if len(out) == 1 else out
        return _device(result)

    def __array_function__(self, function, types, arguments, settings):
        return _on_host(function)(*arguments, **settings)

    def __getitem__(self, where):
        return _device(self.view(np.ndarray)[_index(where)])

    def __setitem__(self, where, value):
        self.view(np.ndarray)[_index(where)] = _host(value, "assignment")

    def get(self):
        synchronisations.append("get")
        return self.view(np.ndarray).copy()

    def item(self, *where):
        synchronisations.append("item")
        return self.view(np.ndarray).item(*where)

    def tolist(self):
        synchronisations.append("tolist")
        return self.view(np.ndarray).tolist()

    def __bool__(self):
        synchronisations.append("bool")
        return bool(self.view(np.ndarray))

    def __float__(self):
        synchronisations.append("float")
        return float(self.view(np.ndarray).item())

    def __int__(self):
        synchronisations.append("int")
        return int(self.view(np.ndarray).item())

    __index__ = __int__


def _method(name):
    def method(self, *arguments, **settings):
        arguments = [_host(a, name) for a in arguments]
        return _device(getattr(self.view(np.ndarray), name)(*arguments, **{k: _host(v, name) for k, v in settings.items()}))

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
    """As an index CuPy takes NumPy's arrays, too."""
    if isinstance(where, tuple):
        return tuple(map(_index, where))
    return where.view(np.ndarray) if isinstance(where, np.ndarray) else where


def _device(a):
    if isinstance(a, (tuple, list)):
        return type(a)([_device(b) for b in a])
    if isinstance(a, (np.ndarray, np.generic)):
        return np.asarray(a).view(ndarray)
    return a


def _on_host(function):
    def run(*arguments, **settings):
        arguments = [_host(a, function.__name__) for a in arguments]
        with np.errstate(all="ignore"):
            return _device(function(*arguments, **{k: _host(v, function.__name__) for k, v in settings.items()}))

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
    return np.array(a.view(np.ndarray) if isinstance(a, ndarray) else a, dtype, order="C").view(ndarray)


def asnumpy(a):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def __getattr__(name):
    """The rest of NumPy's functions, on device arrays; constants and types are the same."""
    if name.startswith("__"):
        raise AttributeError(name)
    value = getattr(np, name)
    return value if isinstance(value, type) or not callable(value) else _on_host(value)
