cdef extern from "kernels.h":
    struct loss_kernels:
        int (*cross_entropy)(idx R, idx C, double label_smoothing, int64_t ignore_index, const void *x, const int64_t *labels,
                             const void *weight, void *loss, void *lse) noexcept nogil
        int (*cross_entropy_backward)(idx R, idx C, double label_smoothing, int64_t ignore_index, const void *dloss,
                                      const void *x, const int64_t *labels, const void *lse, const void *weight,
                                      void *dx) noexcept nogil


def cross_entropy_forward(ndarray x, ndarray labels, weight, label_smoothing, ignore_index):
    cdef idx R = x.shape[0], C = x.shape[1]
    cdef double smoothing = label_smoothing
    cdef int64_t ignore = ignore_index
    cdef ndarray loss = empty((R,), x), lse = empty((R,), x)
    cdef const loss_kernels *k = table(x).loss
    cdef const void *x_data = ptr(x)
    cdef const int64_t *labels_data = <const int64_t *>integers(labels, cnp.NPY_INT64)
    cdef const void *weight_data = ptr_or_null(weight)
    cdef void *loss_data = ptr(loss)
    cdef void *lse_data = ptr(lse)
    cdef int status
    with nogil:
        status = k.cross_entropy(R, C, smoothing, ignore, x_data, labels_data, weight_data, loss_data, lse_data)
    check(status)
    return loss, lse

def cross_entropy_backward(ndarray dloss, ndarray x, ndarray labels, ndarray lse, weight, label_smoothing, ignore_index):
    cdef idx R = x.shape[0], C = x.shape[1]
    cdef double smoothing = label_smoothing
    cdef int64_t ignore = ignore_index
    cdef ndarray dx = empty((R, C), x)
    cdef const loss_kernels *k = table(x).loss
    cdef const void *dloss_data = ptr(dloss)
    cdef const void *x_data = ptr(x)
    cdef const int64_t *labels_data = <const int64_t *>integers(labels, cnp.NPY_INT64)
    cdef const void *lse_data = ptr(lse)
    cdef const void *weight_data = ptr_or_null(weight)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.cross_entropy_backward(R, C, smoothing, ignore, dloss_data, x_data, labels_data, lse_data, weight_data, dx_data)
    check(status)
    return dx
