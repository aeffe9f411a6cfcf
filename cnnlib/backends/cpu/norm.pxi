cdef extern from "kernels.h":
    struct norm_kernels:
        int (*batch_norm)(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta,
                          void *y, void *mean, void *var) noexcept nogil
        int (*batch_norm_backward)(idx N, idx C, idx S, double eps, const void *dy, const void *x, const void *gamma,
                                   const void *mean, const void *var, void *dx, void *dgamma, void *dbeta) noexcept nogil
        int (*batch_norm_inference)(idx N, idx C, idx S, double eps, const void *x, const void *gamma, const void *beta,
                                    const void *mean, const void *var, void *y) noexcept nogil
        int (*batch_norm_inference_backward)(idx N, idx C, idx S, double eps, const void *dy, const void *x, const void *gamma,
                                             const void *mean, const void *var, void *dx, void *dgamma,
                                             void *dbeta) noexcept nogil
        int (*layer_norm)(idx R, idx D, double eps, const void *x, const void *gamma, const void *beta,
                          void *y, void *mean, void *rstd) noexcept nogil
        int (*layer_norm_backward)(idx R, idx D, const void *dy, const void *x, const void *gamma, const void *mean,
                                   const void *rstd, void *dx, void *dgamma, void *dbeta) noexcept nogil
        int (*local_response_norm)(idx N, idx C, idx S, idx size, double alpha, double beta, double k, const void *x,
                                   void *y, void *s) noexcept nogil
        int (*local_response_norm_backward)(idx N, idx C, idx S, idx size, double alpha, double beta, const void *dy,
                                            const void *x, const void *s, void *dx) noexcept nogil
        int (*local_contrast_norm)(idx N, idx C, idx H, idx W, idx size, double sigma, double eps, const void *x,
                                   void *y, void *v, void *deviation) noexcept nogil
        int (*local_contrast_norm_backward)(idx N, idx C, idx H, idx W, idx size, double sigma, double eps, const void *dy,
                                            const void *v, const void *deviation, void *dx) noexcept nogil


def batch_norm_forward(ndarray x, gamma, beta, double eps):
    cdef idx N = x.shape[0], C = x.shape[1], S = x.shape[2]
    cdef ndarray y = empty((N, C, S), x), mean = empty((C,), x), var = empty((C,), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *x_data = ptr(x)
    cdef const void *gamma_data = ptr_or_null(gamma)
    cdef const void *beta_data = ptr_or_null(beta)
    cdef void *y_data = ptr(y)
    cdef void *mean_data = ptr(mean)
    cdef void *var_data = ptr(var)
    cdef int status
    with nogil:
        status = k.batch_norm(N, C, S, eps, x_data, gamma_data, beta_data, y_data, mean_data, var_data)
    check(status)
    return y, mean, var


def batch_norm_backward(ndarray dy, ndarray x, gamma, ndarray mean, ndarray var, double eps):
    cdef idx N = x.shape[0], C = x.shape[1], S = x.shape[2]
    cdef ndarray dx = empty((N, C, S), x), dgamma = empty((C,), x), dbeta = empty((C,), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *dy_data = ptr(dy)
    cdef const void *x_data = ptr(x)
    cdef const void *gamma_data = ptr_or_null(gamma)
    cdef const void *mean_data = ptr(mean)
    cdef const void *var_data = ptr(var)
    cdef void *dx_data = ptr(dx)
    cdef void *dgamma_data = ptr(dgamma)
    cdef void *dbeta_data = ptr(dbeta)
    cdef int status
    with nogil:
        status = k.batch_norm_backward(N, C, S, eps, dy_data, x_data, gamma_data, mean_data, var_data, dx_data, dgamma_data,
                                       dbeta_data)
    check(status)
    return dx, dgamma, dbeta


def batch_norm_inference_forward(ndarray x, gamma, beta, ndarray mean, ndarray var, double eps):
    cdef idx N = x.shape[0], C = x.shape[1], S = x.shape[2]
    cdef ndarray y = empty((N, C, S), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *x_data = ptr(x)
    cdef const void *gamma_data = ptr_or_null(gamma)
    cdef const void *beta_data = ptr_or_null(beta)
    cdef const void *mean_data = ptr(mean)
    cdef const void *var_data = ptr(var)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.batch_norm_inference(N, C, S, eps, x_data, gamma_data, beta_data, mean_data, var_data, y_data)
    check(status)
    return y


def batch_norm_inference_backward(ndarray dy, ndarray x, gamma, ndarray mean, ndarray var, double eps):
    cdef idx N = x.shape[0], C = x.shape[1], S = x.shape[2]
    cdef ndarray dx = empty((N, C, S), x), dgamma = empty((C,), x), dbeta = empty((C,), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *dy_data = ptr(dy)
    cdef const void *x_data = ptr(x)
    cdef const void *gamma_data = ptr_or_null(gamma)
    cdef const void *mean_data = ptr(mean)
    cdef const void *var_data = ptr(var)
    cdef void *dx_data = ptr(dx)
    cdef void *dgamma_data = ptr(dgamma)
    cdef void *dbeta_data = ptr(dbeta)
    cdef int status
    with nogil:
        status = k.batch_norm_inference_backward(
            N, C, S, eps, dy_data, x_data, gamma_data, mean_data, var_data, dx_data, dgamma_data, dbeta_data)
    check(status)
    return dx, dgamma, dbeta


def layer_norm_forward(ndarray x, gamma, beta, double eps):
    cdef idx R = x.shape[0], D = x.shape[1]
    cdef ndarray y = empty((R, D), x), mean = empty((R,), x), rstd = empty((R,), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *x_data = ptr(x)
    cdef const void *gamma_data = ptr_or_null(gamma)
    cdef const void *beta_data = ptr_or_null(beta)
    cdef void *y_data = ptr(y)
    cdef void *mean_data = ptr(mean)
    cdef void *rstd_data = ptr(rstd)
    cdef int status
    with nogil:
        status = k.layer_norm(R, D, eps, x_data, gamma_data, beta_data, y_data, mean_data, rstd_data)
    check(status)
    return y, mean, rstd


def layer_norm_backward(ndarray dy, ndarray x, gamma, ndarray mean, ndarray rstd):
    cdef idx R = x.shape[0], D = x.shape[1]
    cdef ndarray dx = empty((R, D), x), dgamma = empty((D,), x), dbeta = empty((D,), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *dy_data = ptr(dy)
    cdef const void *x_data = ptr(x)
    cdef const void *gamma_data = ptr_or_null(gamma)
    cdef const void *mean_data = ptr(mean)
    cdef const void *rstd_data = ptr(rstd)
    cdef void *dx_data = ptr(dx)
    cdef void *dgamma_data = ptr(dgamma)
    cdef void *dbeta_data = ptr(dbeta)
    cdef int status
    with nogil:
        status = k.layer_norm_backward(R, D, dy_data, x_data, gamma_data, mean_data, rstd_data, dx_data, dgamma_data,
                                       dbeta_data)
    check(status)
    return dx, dgamma, dbeta


def local_response_norm_forward(ndarray x, idx size, double alpha, double beta, double k):
    cdef idx N = x.shape[0], C = x.shape[1], S = x.shape[2]
    cdef ndarray y = empty((N, C, S), x), s = empty((N, C, S), x)
    cdef const norm_kernels *kernels = table(x).norm
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef void *s_data = ptr(s)
    cdef int status
    with nogil:
        status = kernels.local_response_norm(N, C, S, size, alpha, beta, k, x_data, y_data, s_data)
    check(status)
    return y, s


def local_response_norm_backward(ndarray dy, ndarray x, ndarray s, idx size, double alpha, double beta):
    cdef idx N = x.shape[0], C = x.shape[1], S = x.shape[2]
    cdef ndarray dx = empty((N, C, S), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *dy_data = ptr(dy)
    cdef const void *x_data = ptr(x)
    cdef const void *s_data = ptr(s)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.local_response_norm_backward(N, C, S, size, alpha, beta, dy_data, x_data, s_data, dx_data)
    check(status)
    return dx


def local_contrast_norm_forward(ndarray x, idx size, double sigma, double eps):
    cdef idx N = x.shape[0], C = x.shape[1], H = x.shape[2], W = x.shape[3]
    cdef ndarray y = empty((N, C, H, W), x), v = empty((N, C, H, W), x), deviation = empty((N, H, W), x)
    cdef const norm_kernels *k = table(x).norm
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef void *v_data = ptr(v)
    cdef void *deviation_data = ptr(deviation)
    cdef int status
    with nogil:
        status = k.local_contrast_norm(N, C, H, W, size, sigma, eps, x_data, y_data, v_data, deviation_data)
    check(status)
    return y, v, deviation


def local_contrast_norm_backward(ndarray dy, ndarray v, ndarray deviation, idx size, double sigma, double eps):
    cdef idx N = v.shape[0], C = v.shape[1], H = v.shape[2], W = v.shape[3]
    cdef ndarray dx = empty((N, C, H, W), v)
    cdef const norm_kernels *k = table(v).norm
    cdef const void *dy_data = ptr(dy)
    cdef const void *v_data = ptr(v)
    cdef const void *deviation_data = ptr(deviation)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.local_contrast_norm_backward(N, C, H, W, size, sigma, eps, dy_data, v_data, deviation_data, dx_data)
    check(status)
    return dx
