cdef extern from "kernels.h":
    struct pool_shape:
        idx planes, H, W, KH, KW, OH, OW, SH, SW, top, left
    struct pool_kernels:
        int (*max_pool2d)(const pool_shape *s, const void *x, void *y, void *argmax) noexcept nogil
        int (*max_pool2d_backward)(const pool_shape *s, const void *dy, const void *argmax, void *dx) noexcept nogil
        int (*avg_pool2d)(const pool_shape *s, bint count_include_pad, const void *x, void *y) noexcept nogil
        int (*avg_pool2d_backward)(const pool_shape *s, bint count_include_pad, const void *dy, void *dx) noexcept nogil
        int (*lp_pool2d)(const pool_shape *s, double p, const void *x, void *y) noexcept nogil
        int (*lp_pool2d_backward)(const pool_shape *s, double p, const void *dy, const void *x, const void *y,
                                  void *dx) noexcept nogil


cdef pool_shape pool_shape_of(tuple x_shape, tuple kernel_size, tuple stride, tuple pads):
    cdef pool_shape s
    s.planes, s.H, s.W = x_shape[0] * x_shape[1], x_shape[2], x_shape[3]
    s.KH, s.KW = kernel_size
    s.SH, s.SW = stride
    s.top, s.left = pads[0], pads[2]
    s.OH = (s.H + <idx>pads[0] + <idx>pads[1] - s.KH) // s.SH + 1
    s.OW = (s.W + <idx>pads[2] + <idx>pads[3] - s.KW) // s.SW + 1
    return s


def max_pool2d_forward(ndarray x, tuple kernel_size, tuple stride, tuple pads):
    cdef pool_shape s = pool_shape_of(shape_of(x), kernel_size, stride, pads)
    cdef tuple y_shape = (x.shape[0], x.shape[1], s.OH, s.OW)
    cdef ndarray y = empty(y_shape, x)
    cdef ndarray argmax = empty_of(y_shape, cnp.NPY_UINT8 if s.KH * s.KW <= 256 else cnp.NPY_INT32)
    cdef const pool_kernels *k = table(x).pool
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef void *argmax_data = cnp.PyArray_DATA(argmax)
    cdef int status
    with nogil:
        status = k.max_pool2d(&s, x_data, y_data, argmax_data)
    check(status)
    return y, argmax


def max_pool2d_backward(ndarray dy, ndarray argmax, tuple x_shape, tuple kernel_size, tuple stride, tuple pads):
    cdef pool_shape s = pool_shape_of(x_shape, kernel_size, stride, pads)
    cdef ndarray dx = empty(x_shape, dy)
    cdef const pool_kernels *k = table(dy).pool
    cdef const void *dy_data = ptr(dy)
    cdef const void *argmax_data = integers(argmax, cnp.NPY_UINT8 if s.KH * s.KW <= 256 else cnp.NPY_INT32)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.max_pool2d_backward(&s, dy_data, argmax_data, dx_data)
    check(status)
    return dx


def avg_pool2d_forward(ndarray x, tuple kernel_size, tuple stride, tuple pads, bint count_include_pad):
    cdef pool_shape s = pool_shape_of(shape_of(x), kernel_size, stride, pads)
    cdef ndarray y = empty((x.shape[0], x.shape[1], s.OH, s.OW), x)
    cdef const pool_kernels *k = table(x).pool
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.avg_pool2d(&s, count_include_pad, x_data, y_data)
    check(status)
    return y


def avg_pool2d_backward(ndarray dy, tuple x_shape, tuple kernel_size, tuple stride, tuple pads, bint count_include_pad):
    cdef pool_shape s = pool_shape_of(x_shape, kernel_size, stride, pads)
    cdef ndarray dx = empty(x_shape, dy)
    cdef const pool_kernels *k = table(dy).pool
    cdef const void *dy_data = ptr(dy)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.avg_pool2d_backward(&s, count_include_pad, dy_data, dx_data)
    check(status)
    return dx


def lp_pool2d_forward(ndarray x, double p, tuple kernel_size, tuple stride, tuple pads):
    cdef pool_shape s = pool_shape_of(shape_of(x), kernel_size, stride, pads)
    cdef ndarray y = empty((x.shape[0], x.shape[1], s.OH, s.OW), x)
    cdef const pool_kernels *k = table(x).pool
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.lp_pool2d(&s, p, x_data, y_data)
    check(status)
    return y


def lp_pool2d_backward(ndarray dy, ndarray x, ndarray y, double p, tuple kernel_size, tuple stride, tuple pads):
    cdef pool_shape s = pool_shape_of(shape_of(x), kernel_size, stride, pads)
    cdef ndarray dx = empty(shape_of(x), dy)
    cdef const pool_kernels *k = table(dy).pool
    cdef const void *dy_data = ptr(dy)
    cdef const void *x_data = ptr(x)
    cdef const void *y_data = ptr(y)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.lp_pool2d_backward(&s, p, dy_data, x_data, y_data, dx_data)
    check(status)
    return dx
