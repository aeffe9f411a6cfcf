cdef extern from "kernels.h":
    struct optim_kernels:
        int (*sgd_step)(idx n, double lr, double momentum, double dampening, double weight_decay, int nesterov, void *w,
                        const void *dw, void *velocity) noexcept nogil
        int (*adagrad_step)(idx n, double lr, double eps, double weight_decay, void *w, const void *dw,
                            void *square_sum) noexcept nogil
        int (*rmsprop_step)(idx n, double lr, double alpha, double eps, double weight_decay, double momentum, void *w,
                            const void *dw, void *square_avg, void *grad_avg, void *velocity) noexcept nogil
        int (*adam_step)(idx n, int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
                         int decoupled, void *w, const void *dw, void *m, void *v) noexcept nogil


cdef void *writable(object a) except? NULL:
    """The data of an array that a step writes to, NULL for None."""
    if a is None:
        return NULL
    if not cnp.PyArray_ISWRITEABLE(<ndarray>a):
        raise ValueError("an optimiser's step writes in place, but the array is read-only")
    return ptr(<ndarray>a)


def sgd_step(ndarray w, ndarray dw, velocity, lr, momentum, dampening, weight_decay, nesterov):
    cdef idx n = cnp.PyArray_SIZE(w)
    cdef double lr_ = lr, momentum_ = momentum, dampening_ = dampening, decay = weight_decay
    cdef int nesterov_ = nesterov
    cdef const optim_kernels *k = table(w).optim
    cdef void *w_data = writable(w)
    cdef const void *dw_data = ptr(dw)
    cdef void *velocity_data = writable(velocity)
    cdef int status
    with nogil:
        status = k.sgd_step(n, lr_, momentum_, dampening_, decay, nesterov_, w_data, dw_data, velocity_data)
    check(status)

def adagrad_step(ndarray w, ndarray dw, ndarray square_sum, lr, eps, weight_decay):
    cdef idx n = cnp.PyArray_SIZE(w)
    cdef double lr_ = lr, eps_ = eps, decay = weight_decay
    cdef const optim_kernels *k = table(w).optim
    cdef void *w_data = writable(w)
    cdef const void *dw_data = ptr(dw)
    cdef void *square_sum_data = writable(square_sum)
    cdef int status
    with nogil:
        status = k.adagrad_step(n, lr_, eps_, decay, w_data, dw_data, square_sum_data)
    check(status)

def rmsprop_step(ndarray w, ndarray dw, ndarray square_avg, grad_avg, velocity, lr, alpha, eps, weight_decay, momentum):
    cdef idx n = cnp.PyArray_SIZE(w)
    cdef double lr_ = lr, alpha_ = alpha, eps_ = eps, decay = weight_decay, momentum_ = momentum
    cdef const optim_kernels *k = table(w).optim
    cdef void *w_data = writable(w)
    cdef const void *dw_data = ptr(dw)
    cdef void *square_avg_data = writable(square_avg)
    cdef void *grad_avg_data = writable(grad_avg)
    cdef void *velocity_data = writable(velocity)
    cdef int status
    with nogil:
        status = k.rmsprop_step(n, lr_, alpha_, eps_, decay, momentum_, w_data, dw_data, square_avg_data, grad_avg_data,
                                velocity_data)
    check(status)

def adam_step(ndarray w, ndarray dw, ndarray m, ndarray v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    cdef idx n = cnp.PyArray_SIZE(w)
    cdef int64_t step_ = step
    cdef double lr_ = lr, beta1_ = beta1, beta2_ = beta2, eps_ = eps, decay = weight_decay
    cdef int decoupled_ = decoupled
    cdef const optim_kernels *k = table(w).optim
    cdef void *w_data = writable(w)
    cdef const void *dw_data = ptr(dw)
    cdef void *m_data = writable(m)
    cdef void *v_data = writable(v)
    cdef int status
    with nogil:
        status = k.adam_step(n, step_, lr_, beta1_, beta2_, eps_, decay, decoupled_, w_data, dw_data, m_data, v_data)
    check(status)
