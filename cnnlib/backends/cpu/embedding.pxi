cdef extern from "kernels.h":
    struct embedding_kernels:
        int (*embedding)(idx R, idx D, const int64_t *indices, const void *w, void *y) noexcept nogil
        int (*embedding_backward)(idx R, idx V, idx D, const void *dy, const int64_t *indices, void *dw) noexcept nogil


def embedding_forward(ndarray indices, ndarray w):
    cdef idx R = indices.shape[0], D = w.shape[1]
    cdef ndarray y = empty((R, D), w)
    cdef const embedding_kernels *k = table(w).embedding
    cdef const int64_t *indices_data = <const int64_t *>integers(indices, cnp.NPY_INT64)
    cdef const void *w_data = ptr(w)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.embedding(R, D, indices_data, w_data, y_data)
    check(status)
    return y

def embedding_backward(ndarray dy, ndarray indices, num_embeddings):
    cdef idx R = dy.shape[0], V = num_embeddings, D = dy.shape[1]
    cdef ndarray dw = empty((V, D), dy)
    cdef const embedding_kernels *k = table(dy).embedding
    cdef const void *dy_data = ptr(dy)
    cdef const int64_t *indices_data = <const int64_t *>integers(indices, cnp.NPY_INT64)
    cdef void *dw_data = ptr(dw)
    cdef int status
    with nogil:
        status = k.embedding_backward(R, V, D, dy_data, indices_data, dw_data)
    check(status)
    return dw
