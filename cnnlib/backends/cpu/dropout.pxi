from libc.math cimport ceil

cdef extern from "kernels.h":
    struct random_key:
        uint64_t seed
        uint32_t stream, call
    struct dropout_kernels:
        int (*random_bits)(const random_key *key, idx n, uint32_t *words) noexcept nogil
        int (*dropout)(const random_key *key, uint32_t threshold, double keep, idx n, const void *x, void *y) noexcept nogil


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
    cdef double probability = p, threshold = ceil(probability * 4294967296.0)
    cdef ndarray y = empty_like(x)
    if threshold > 4294967295.0:  # p so near 1 that no word is large enough
        y.fill(0)
        return y
    cdef uint32_t smallest = <uint32_t>threshold
    cdef idx n = cnp.PyArray_SIZE(x)
    cdef const dropout_kernels *k = table(x).dropout
    cdef const void *x_data = ptr(x)
    cdef void *y_data = ptr(y)
    cdef int status
    with nogil:
        status = k.dropout(&c_key, smallest, 1 - probability, n, x_data, y_data)
    check(status)
    return y
