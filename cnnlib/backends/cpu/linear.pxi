cdef extern from "kernels.h":
    struct linear_kernels:
        int (*gemm)(idx batch, idx M, idx N, idx K, const void *a, bint transpose_a, const void *b, bint transpose_b, void *c) noexcept nogil
        int (*linear_forward)(idx R, idx n_in, idx n_out, const void *x, const void *w, const void *b, void *y) noexcept nogil
        int (*linear_backward_input)(idx R, idx n_in, idx n_out, const void *dy, const void *w, void *dx) noexcept nogil
        int (*linear_backward_weight)(idx R, idx n_in, idx n_out, const void *dy, const void *x, void *dw) noexcept nogil
        int (*linear_backward_bias)(idx R, idx O, const void *dy, void *db) noexcept nogil


def gemm(ndarray a, ndarray b, transpose_a=False, transpose_b=False):
    cdef bint ta = transpose_a, tb = transpose_b, batched = a.ndim == 3
    cdef int d = a.ndim - 2
    cdef idx batch = a.shape[0] if batched else 1
    cdef idx M = a.shape[d + ta], K = a.shape[d + (not ta)], N = b.shape[d + (not tb)]
    cdef tuple shape = (M, N)
    cdef ndarray c = empty((batch, *shape) if batched else shape, a)
    cdef const linear_kernels *k = table(a).linear
    cdef const void *a_data = ptr(a)
    cdef const void *b_data = ptr(b)
    cdef void *c_data = ptr(c)
    cdef int status
    with nogil:
        status = k.gemm(batch, M, N, K, a_data, ta, b_data, tb, c_data)
    check(status)
    return c


def linear_forward(ndarray x, ndarray w, b):
    cdef idx R = x.shape[0], n_in = x.shape[1], n_out = w.shape[0]
    cdef ndarray y = empty((R, n_out), x)
    cdef const linear_kernels *k = table(x).linear
    cdef const void *x_data = ptr(x)
    cdef const void *w_data = ptr(w)
    cdef const void *b_data = ptr_or_null(b)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.linear_forward(R, n_in, n_out, x_data, w_data, b_data, y_data)
    check(status)
    return y


def linear_backward_input(ndarray dy, ndarray w):
    cdef idx R = dy.shape[0], n_in = w.shape[1], n_out = w.shape[0]
    cdef ndarray dx = empty((R, n_in), dy)
    cdef const linear_kernels *k = table(dy).linear
    cdef const void *dy_data = ptr(dy)
    cdef const void *w_data = ptr(w)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.linear_backward_input(R, n_in, n_out, dy_data, w_data, dx_data)
    check(status)
    return dx


def linear_backward_weight(ndarray dy, ndarray x):
    cdef idx R = dy.shape[0], n_in = x.shape[1], n_out = dy.shape[1]
    cdef ndarray dw = empty((n_out, n_in), dy)
    cdef const linear_kernels *k = table(dy).linear
    cdef const void *dy_data = ptr(dy)
    cdef const void *x_data = ptr(x)
    cdef void *dw_data = ptr(dw)
    cdef int status
    with nogil:
        status = k.linear_backward_weight(R, n_in, n_out, dy_data, x_data, dw_data)
    check(status)
    return dw


def linear_backward_bias(ndarray dy):
    cdef idx R = dy.shape[0], O = dy.shape[1]
    cdef ndarray db = empty((O,), dy)
    cdef const linear_kernels *k = table(dy).linear
    cdef const void *dy_data = ptr(dy)
    cdef void *db_data = ptr(db)
    cdef int status
    with nogil:
        status = k.linear_backward_bias(R, O, dy_data, db_data)
    check(status)
    return db
