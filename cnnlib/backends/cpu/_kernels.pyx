# cython: language_level=3, binding=True, embedsignature=False, boundscheck=False, wraparound=False
"""Thin wrappers of csrc/: each allocates the outputs, picks the table by dtype, releases the GIL and calls C. No loops here.

The pattern (linear.pxi, linear_backward_bias): sizes from .shape; `empty` for outputs; `table(x).<family>` for the functions;
`ptr` for data, or `ptr_or_null` where the contract allows None; the call inside `with nogil`; `check` its status.
"""
cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from numpy cimport ndarray

import os
from functools import wraps

cnp.import_array()

ctypedef Py_ssize_t idx

cdef extern from "kernels.h":
    struct kernel_table:
        const linear_kernels *linear
        const conv_kernels *conv
        const pool_kernels *pool
        const norm_kernels *norm
        const activation_kernels *activation
        const dropout_kernels *dropout
        const loss_kernels *loss
        const recurrent_kernels *recurrent
        const embedding_kernels *embedding
        const optim_kernels *optim
    const kernel_table *cnn_f32
    const kernel_table *cnn_f64
    int cnn_set_isa(const char *name)
    const char *cnn_isa()
    const char *cnn_available_isa(int i)
    void cnn_set_exact(int exact)
    int cnn_get_exact()
    void cnn_set_num_threads(int n)
    int cnn_get_num_threads()
    void cnn_split_finely(int yes)
    struct kernel_call:
        pass
    kernel_call kernel_enter()
    void kernel_leave(kernel_call before)


include "buffers.pxi"


# ---- helpers of every family ------------------------------------------------------------------------------------------
cdef inline const kernel_table *table(ndarray a) except NULL:
    """The kernels for the dtype of a."""
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32:
        return cnn_f32
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64:
        return cnn_f64
    raise TypeError(f"the compiled kernels take float32 and float64, got {a.dtype}")

cdef inline void *ptr(ndarray a) except? NULL:
    """The data of an array of floats, whether read-only or not: declare it `const void *` for inputs."""
    if cnp.PyArray_TYPE(a) != cnp.NPY_FLOAT32 and cnp.PyArray_TYPE(a) != cnp.NPY_FLOAT64:
        raise TypeError(f"the compiled kernels take float32 and float64, got {a.dtype}")
    return cnp.PyArray_DATA(a)

cdef inline void *ptr_or_null(object a) except? NULL:
    return NULL if a is None else ptr(a)

cdef inline const void *integers(ndarray a, int typenum) except? NULL:
    """The data of labels or indices (cnp.NPY_INT64), or of an argmax."""
    if not cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(a), typenum):
        raise TypeError(f"a compiled kernel takes {cnp.PyArray_DescrFromType(typenum)} here, got {a.dtype}")
    return cnp.PyArray_DATA(a)

cdef inline tuple shape_of(ndarray a):
    """a.shape as a Python tuple."""
    return (<object>a).shape

cdef inline int check(int status) except -1:
    if status != 0:
        raise MemoryError("a compiled kernel found no memory for its scratch buffers")
    return 0


# ---- what every call goes through --------------------------------------------------------------------------------------
def gate(kernel):
    """kernel, called only with arrays that C reads as they are, in the default floating-point state, with one number of threads.

    The arithmetic outside of parallel regions (settings rounded to float32, sums of partial sums) needs that state too, and
    scratch memory is sized by that number before a region uses it.
    """
    def call(*args, **settings):
        require_readable(kernel, (*args, *settings.values()) if settings else args)
        cdef kernel_call before = kernel_enter()
        try:
            return kernel(*args, **settings)
        finally:
            kernel_leave(before)
    return wraps(kernel)(call)

cdef int require_readable(object kernel, tuple arguments) except -1:
    cdef int floats = cnp.NPY_NOTYPE, typenum
    for a in arguments:
        if not isinstance(a, ndarray):
            continue
        if not cnp.PyArray_ISCARRAY_RO(<ndarray>a):
            raise ValueError(f"{kernel.__name__}: compiled kernels read C-contiguous, aligned arrays of this machine's byte order; "
                             f"one of shape {a.shape} is not: pass a.astype(a.dtype.newbyteorder('='), order='C').")
        typenum = cnp.PyArray_TYPE(<ndarray>a)
        if cnp.PyTypeNum_ISFLOAT(typenum):
            if floats != cnp.NPY_NOTYPE and typenum != floats:
                raise TypeError(f"{kernel.__name__}: the arrays of one call must have one float dtype, got "
                                f"{cnp.PyArray_DescrFromType(floats)} and {a.dtype}.")
            floats = typenum
    return 0


# ---- settings ---------------------------------------------------------------------------------------------------------
def available_isas():
    """Instruction sets that this build and this machine have, best first."""
    names, i = [], 0
    while cnn_available_isa(i) != NULL:
        names.append(cnn_available_isa(i).decode())
        i += 1
    return names

def isa():
    """The instruction set in use."""
    return cnn_isa().decode()

def set_isa(name):
    """Switch to one of available_isas(); None takes the best. Not while another thread runs a kernel."""
    cdef bytes encoded = b"" if name is None else name.encode()
    if cnn_set_isa(NULL if name is None else <const char *>encoded) != 0:
        raise ValueError(f"instruction set {name!r} is unknown or not supported here: this machine has {', '.join(available_isas())}")

def set_exact(bint exact):
    cnn_set_exact(exact)

def get_exact():
    return cnn_get_exact() != 0

def set_num_threads(int n):
    if n < 1:
        raise ValueError(f"set_num_threads: n must be at least 1, got {n}")
    cnn_set_num_threads(n)

def get_num_threads():
    return cnn_get_num_threads()

def split_finely(bint yes):
    """For tests: threads share even the smallest work. Not while another thread runs a kernel."""
    cnn_split_finely(yes)


include "linear.pxi"
include "conv.pxi"
include "pool.pxi"
include "norm.pxi"
include "activation.pxi"
include "dropout.pxi"
include "loss.pxi"
include "recurrent.pxi"
include "embedding.pxi"
include "optim.pxi"


_asked = os.environ.get("CNNLIB_ISA")
try:
    set_isa(_asked or None)
except ValueError as error:
    raise ValueError(f"CNNLIB_ISA={_asked}: {error}") from None
