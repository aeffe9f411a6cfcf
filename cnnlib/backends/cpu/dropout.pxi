from libc.math cimport ceil

cdef extern from "kernels.h":
    struct random_key:
        uint64_t seed
        uint32_t stream, call
    struct dropout_kernels:
        int (*random_bits)(const random_key *key, idx n, uint32_t *words) noexcept nogil
        int (*dropout)(const random_key *key, uint32_t threshold, double scale, idx n, const void *x, void *y,
                       uint8_t *mask) noexcept nogil
        int (*dropout_backward)(double scale, idx n, const void *dy, const uint8_t *mask, void *dx) noexcept nogil


def random_bits(key, n):
    cdef random_key c_key = random_key(seed=key[0], stream=key[1], call=key[2])
    cdef idx size = n
    cdef ndarray words = empty_of((n,), cnp.NPY_UINT32)
    cdef const dropout_kernels *k = cnn_f32.dropout
    cdef uint32_t *words_data = <uint32_t *>cnp.PyArray_DATA(words)
    cdef int status
    with nogil:
        status = k.random_bits(&c_key, size, words_data)
    check(status)
    return words

def dropout_forward(ndarray x, p, key):
    cdef random_key c_key = random_key(seed=key[0], stream=key[1], call=key[2])
    cdef double probability = p, threshold = ceil(probability * 4294967296.0), scale = 1 / (1 - probability)
    cdef idx n = cnp.PyArray_SIZE(x)
    cdef ndarray y = empty_like(x), keep = empty_of(((n + 7) // 8,), cnp.NPY_UINT8)
    if threshold > 4294967295.0:  # p so near 1 that no word is large enough
        y.fill(0)
        keep.fill(0)
        return y, keep
    cdef uint32_t smallest = <uint32_t>threshold
    cdef const dropout_kernels *k = table(x).dropout
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef uint8_t *keep_data = <uint8_t *>cnp.PyArray_DATA(keep)
    cdef int status
    with nogil:
        status = k.dropout(&c_key, smallest, scale, n, x_data, y_data, keep_data)
    check(status)
    return y, keep

def dropout_backward(ndarray dy, ndarray keep, p):
    cdef double probability = p, scale = 1 / (1 - probability)
    cdef idx n = cnp.PyArray_SIZE(dy)
    cdef ndarray dx = empty_like(dy)
    cdef const dropout_kernels *k = table(dy).dropout
    cdef const void *dy_data = ptr(dy)
    cdef const uint8_t *keep_data = <const uint8_t *>integers(keep, cnp.NPY_UINT8)
    cdef void *dx_data = ptr(dx)
    cdef int status
    with nogil:
        status = k.dropout_backward(scale, n, dy_data, keep_data, dx_data)
    check(status)
    return dx
