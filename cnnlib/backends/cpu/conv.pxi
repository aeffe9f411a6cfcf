cdef extern from "kernels.h":
    struct conv_shape:
        idx N, C, H, W, F, KH, KW, OH, OW, SH, SW, DH, DW, top, left, groups
    struct conv_kernels:
        int (*conv2d_forward)(const conv_shape *s, const void *x, const void *w, const void *b, void *y) noexcept nogil
        int (*conv2d_backward_input)(const conv_shape *s, const void *dy, const void *w, void *dx) noexcept nogil
        int (*conv2d_backward_weight)(const conv_shape *s, const void *dy, const void *x, void *dw) noexcept nogil
        int (*conv2d_backward_bias)(idx N, idx F, idx S, const void *dy, void *db) noexcept nogil


cdef conv_shape conv_shape_of(x_shape, w_shape, stride, pads, dilation, groups):
    cdef conv_shape s
    cdef idx bottom, right
    s.N, s.C, s.H, s.W = x_shape
    s.F, _, s.KH, s.KW = w_shape
    s.SH, s.SW = stride
    s.DH, s.DW = dilation
    s.top, bottom, s.left, right = pads
    s.groups = groups
    s.OH = (s.H + s.top + bottom - s.DH * (s.KH - 1) - 1) // s.SH + 1
    s.OW = (s.W + s.left + right - s.DW * (s.KW - 1) - 1) // s.SW + 1
    return s


def conv2d_forward(ndarray x, ndarray w, b, stride, pads, dilation, groups):
    cdef conv_shape s = conv_shape_of(shape_of(x), shape_of(w), stride, pads, dilation, groups)
    cdef ndarray y = empty((s.N, s.F, s.OH, s.OW), x)
    cdef const conv_kernels *k = table(x).conv
    cdef const void *x_data = ptr(x)
    cdef const void *w_data = ptr(w)
    cdef const void *b_data = ptr_or_null(b)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.conv2d_forward(&s, x_data, w_data, b_data, y_data)
    check(status)
    return y


def conv2d_backward_input(ndarray dy, ndarray w, x_shape, stride, pads, dilation, groups):
    cdef conv_shape s = conv_shape_of(x_shape, shape_of(w), stride, pads, dilation, groups)
    s.OH, s.OW = dy.shape[2], dy.shape[3]
    cdef ndarray dx = empty(tuple(x_shape), dy)
    cdef const conv_kernels *k = table(dy).conv
    cdef const void *dy_data = ptr(dy)
    cdef const void *w_data = ptr(w)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.conv2d_backward_input(&s, dy_data, w_data, dx_data)
    check(status)
    return dx


def conv2d_backward_weight(ndarray dy, ndarray x, w_shape, stride, pads, dilation, groups):
    cdef conv_shape s = conv_shape_of(shape_of(x), w_shape, stride, pads, dilation, groups)
    cdef ndarray dw = empty(tuple(w_shape), dy)
    cdef const conv_kernels *k = table(dy).conv
    cdef const void *dy_data = ptr(dy)
    cdef const void *x_data = ptr(x)
    cdef void *dw_data = ptr(dw)
    cdef int status
    with nogil:
        status = k.conv2d_backward_weight(&s, dy_data, x_data, dw_data)
    check(status)
    return dw


def conv2d_backward_bias(ndarray dy):
    cdef idx N = dy.shape[0], F = dy.shape[1], S = dy.shape[2] * dy.shape[3]
    cdef ndarray db = empty((F,), dy)
    cdef const conv_kernels *k = table(dy).conv
    cdef const void *dy_data = ptr(dy)
    cdef void *db_data = ptr(db)
    cdef int status
    with nogil:
        status = k.conv2d_backward_bias(N, F, S, dy_data, db_data)
    check(status)
    return db
