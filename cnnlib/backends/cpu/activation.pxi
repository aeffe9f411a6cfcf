cdef extern from "kernels.h":
    ctypedef int (*elementwise_kernel)(idx n, double s, const void *a, const void *b, void *y) noexcept nogil
    struct activation_kernels:
        elementwise_kernel relu, relu_backward, leaky_relu, leaky_relu_backward, elu, elu_backward, softplus, softplus_backward
        elementwise_kernel sigmoid, sigmoid_backward, tanh_, tanh_backward
        int (*softmax)(idx R, idx C, const void *x, void *y) noexcept nogil
        int (*softmax_backward)(idx R, idx C, const void *dy, const void *y, void *dx) noexcept nogil
        int (*log_softmax)(idx R, idx C, const void *x, void *y) noexcept nogil
        int (*log_softmax_backward)(idx R, idx C, const void *dy, const void *y, void *dx) noexcept nogil
        int (*maxout)(idx R, idx P, idx S, const void *x, void *y, void *argmax) noexcept nogil
        int (*maxout_backward)(idx R, idx P, idx S, const void *dy, const void *argmax, void *dx) noexcept nogil


cdef ndarray elementwise(elementwise_kernel f, double s, ndarray a, object b=None):
    """f on every element of a (and b), in an array like a of any number of axes."""
    cdef ndarray y = empty_like(a)
    cdef idx n = cnp.PyArray_SIZE(a)
    cdef const void *a_data = ptr(a)
    cdef const void *b_data = ptr_or_null(b)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = f(n, s, a_data, b_data, y_data)
    check(status)
    return y


def relu_forward(ndarray x):
    return elementwise(table(x).activation.relu, 0, x)

def relu_backward(ndarray dy, ndarray y):
    return elementwise(table(dy).activation.relu_backward, 0, dy, y)

def leaky_relu_forward(ndarray x, slope):
    return elementwise(table(x).activation.leaky_relu, slope, x)

def leaky_relu_backward(ndarray dy, ndarray x, slope):
    return elementwise(table(dy).activation.leaky_relu_backward, slope, dy, x)

def elu_forward(ndarray x, alpha):
    return elementwise(table(x).activation.elu, alpha, x)

def elu_backward(ndarray dy, ndarray x, alpha):
    return elementwise(table(dy).activation.elu_backward, alpha, dy, x)

def softplus_forward(ndarray x):
    return elementwise(table(x).activation.softplus, 0, x)

def softplus_backward(ndarray dy, ndarray x):
    return elementwise(table(dy).activation.softplus_backward, 0, dy, x)

def sigmoid_forward(ndarray x):
    return elementwise(table(x).activation.sigmoid, 0, x)

def sigmoid_backward(ndarray dy, ndarray y):
    return elementwise(table(dy).activation.sigmoid_backward, 0, dy, y)

def tanh_forward(ndarray x):
    return elementwise(table(x).activation.tanh_, 0, x)

def tanh_backward(ndarray dy, ndarray y):
    return elementwise(table(dy).activation.tanh_backward, 0, dy, y)


def softmax_forward(ndarray x):
    cdef idx R = x.shape[0], C = x.shape[1]
    cdef ndarray y = empty((R, C), x)
    cdef const activation_kernels *k = table(x).activation
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.softmax(R, C, x_data, y_data)
    check(status)
    return y

def softmax_backward(ndarray dy, ndarray y):
    cdef idx R = dy.shape[0], C = dy.shape[1]
    cdef ndarray dx = empty((R, C), dy)
    cdef const activation_kernels *k = table(dy).activation
    cdef const void *dy_data = ptr(dy)
    cdef const void *y_data = ptr(y)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.softmax_backward(R, C, dy_data, y_data, dx_data)
    check(status)
    return dx

def log_softmax_forward(ndarray x):
    cdef idx R = x.shape[0], C = x.shape[1]
    cdef ndarray y = empty((R, C), x)
    cdef const activation_kernels *k = table(x).activation
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.log_softmax(R, C, x_data, y_data)
    check(status)
    return y

def log_softmax_backward(ndarray dy, ndarray y):
    cdef idx R = dy.shape[0], C = dy.shape[1]
    cdef ndarray dx = empty((R, C), dy)
    cdef const activation_kernels *k = table(dy).activation
    cdef const void *dy_data = ptr(dy)
    cdef const void *y_data = ptr(y)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.log_softmax_backward(R, C, dy_data, y_data, dx_data)
    check(status)
    return dx


def maxout_forward(ndarray x):
    cdef idx R = x.shape[0], P = x.shape[1], S = x.shape[2]
    cdef ndarray y = empty((R, S), x), argmax = empty_of((R, S), cnp.NPY_UINT8)
    cdef const activation_kernels *k = table(x).activation
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef void *argmax_data = cnp.PyArray_DATA(argmax)
    cdef int status
    with nogil:
        status = k.maxout(R, P, S, x_data, y_data, argmax_data)
    check(status)
    return y, argmax

def maxout_backward(ndarray dy, ndarray argmax, pieces):
    cdef idx R = dy.shape[0], P = pieces, S = dy.shape[1]
    cdef ndarray dx = empty((R, P, S), dy)
    cdef const activation_kernels *k = table(dy).activation
    cdef const void *dy_data = ptr(dy)
    cdef const void *argmax_data = integers(argmax, cnp.NPY_UINT8)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.maxout_backward(R, P, S, dy_data, argmax_data, dx_data)
    check(status)
    return dx
