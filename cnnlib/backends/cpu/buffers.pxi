# The arrays that kernels return get their memory from csrc/buffers.c, through NumPy's allocator interface (NEP 49): an array
# remembers the allocator that it was made with, and gives its memory back to it.
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memset

cdef extern from "buffers.h":
    void *buffer_take(size_t bytes) noexcept
    void buffer_give(void *data) noexcept
    void *buffer_resize(void *data, size_t bytes) noexcept
    void cnn_set_buffer_limit(size_t bytes)
    size_t cnn_buffer_limit()
    size_t cnn_idle_buffer_bytes()
    void cnn_release_buffers()

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept
        void *(*realloc)(void *ctx, void *data, size_t size) noexcept
        void (*free)(void *ctx, void *data, size_t size) noexcept
    ctypedef struct PyDataMem_Handler:
        char name[127]
        unsigned char version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object handler)

cdef void *_take(void *ctx, size_t size) noexcept:
    return buffer_take(size)

cdef void *_take_zeroed(void *ctx, size_t count, size_t size) noexcept:
    cdef void *data = NULL if size and count > <size_t>-1 // size else buffer_take(count * size)
    return memset(data, 0, count * size) if data else NULL

cdef void *_resize(void *ctx, void *data, size_t size) noexcept:
    return buffer_resize(data, size)

cdef void _give(void *ctx, void *data, size_t size) noexcept:
    buffer_give(data)

cdef PyDataMem_Handler _handler
memset(&_handler, 0, sizeof(_handler))
_handler.name[:6] = b"cnnlib"
_handler.version = 1
_handler.allocator = PyDataMemAllocator(NULL, _take, _take_zeroed, _resize, _give)
cdef object _pooled = PyCapsule_New(&_handler, "mem_handler", NULL)

cdef enum:
    SMALL = 8192   # numbers: with fewer, NumPy's own way costs less than ours saves

cdef ndarray new_array(int ndim, cnp.npy_intp *dims, int typenum):
    cdef cnp.npy_intp size = 1
    for i in range(ndim):
        size *= dims[i]
    if size < SMALL or not cnn_buffer_limit():
        return cnp.PyArray_EMPTY(ndim, dims, typenum, 0)
    before = PyDataMem_SetHandler(_pooled)
    try:
        return cnp.PyArray_EMPTY(ndim, dims, typenum, 0)
    finally:
        PyDataMem_SetHandler(before)

cdef inline ndarray empty_like(ndarray a):
    """A new array of a's shape and dtype."""
    return new_array(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a))

cdef inline ndarray empty(tuple shape, ndarray like):
    """A new array of like's dtype."""
    return empty_of(shape, cnp.PyArray_TYPE(like))

cdef inline ndarray empty_of(tuple shape, int typenum):
    """A new array of another type: cnp.NPY_UINT8, NPY_INT32, NPY_UINT32 ..."""
    cdef cnp.npy_intp dims[8]
    cdef int ndim = 0
    for n in shape:
        dims[ndim] = n
        ndim += 1
    return new_array(ndim, dims, typenum)


def get_buffer_limit():
    return cnn_buffer_limit()

def set_buffer_limit(size_t n):
    cnn_set_buffer_limit(n)

def release_buffers():
    cnn_release_buffers()

def idle_buffer_bytes():
    return cnn_idle_buffer_bytes()
