cdef extern from "kernels.h":
    struct sequence_shape:
        idx T, B, H
        const int64_t *lengths
        int reverse
    struct sequence_inputs:
        const void *x
        const void *w_ih
        const void *b
        idx D
    enum nonlinearity:
        TANH, RELU, SIGMOID, IDENTITY
    enum peephole:
        NO_PEEPHOLE, ONE_PER_UNIT, MATRIX
    struct recurrent_kernels:
        int (*rnn_forward)(const sequence_shape *s, const sequence_inputs *inputs, int nonlinearity, const void *h0,
                           const void *w_hh, void *h) noexcept nogil
        int (*rnn_backward)(const sequence_shape *s, int nonlinearity, const void *dh, const void *h, const void *h0,
                            const void *w_hh, void *da, void *dh0, void *dw_hh) noexcept nogil
        int (*lstm_forward)(const sequence_shape *s, const sequence_inputs *inputs, int nonlinearity, int peepholes,
                            const void *h0, const void *c0, const void *w_hh, const void *peephole, void *h, void *c,
                            void *gates) noexcept nogil
        int (*lstm_backward)(const sequence_shape *s, int nonlinearity, int peepholes, const void *dh, const void *dc,
                             const void *h, const void *c, const void *gates, const void *h0, const void *c0, const void *w_hh,
                             const void *peephole, void *da, void *dh0, void *dc0, void *dw_hh, void *dpeephole) noexcept nogil
        int (*gru_forward)(const sequence_shape *s, const sequence_inputs *inputs, int reset_after, const void *h0,
                           const void *w_hh, const void *b_hh, void *h, void *gates) noexcept nogil
        int (*gru_backward)(const sequence_shape *s, int reset_after, const void *dh, const void *h, const void *gates,
                            const void *h0, const void *w_hh, void *da, void *dh0, void *dw_hh, void *db_hh) noexcept nogil


_NONLINEARITIES = {"tanh": TANH, "relu": RELU, "sigmoid": SIGMOID, "identity": IDENTITY}

cdef sequence_shape sequence_of(idx T, ndarray h0, object lengths, bint reverse) except *:
    cdef sequence_shape s
    s.T, s.B, s.H, s.reverse = T, h0.shape[0], h0.shape[1], reverse
    s.lengths = NULL if lengths is None else <const int64_t *>integers(<ndarray?>lengths, cnp.NPY_INT64)
    return s

cdef sequence_inputs inputs_of(ndarray x, ndarray w_ih, object b) except *:
    cdef sequence_inputs given
    given.x, given.w_ih, given.b, given.D = ptr(x), ptr(w_ih), ptr_or_null(b), x.shape[2]
    return given

cdef int peepholes_of(object peephole):
    return NO_PEEPHOLE if peephole is None else ONE_PER_UNIT if peephole.ndim == 2 else MATRIX


def rnn_forward(ndarray x, ndarray h0, ndarray w_ih, ndarray w_hh, b, nonlinearity, lengths, reverse):
    cdef sequence_shape s = sequence_of(x.shape[0], h0, lengths, reverse)
    cdef sequence_inputs inputs = inputs_of(x, w_ih, b)
    cdef int g = _NONLINEARITIES[nonlinearity]
    cdef ndarray h = empty((s.T, s.B, s.H), x)
    cdef const recurrent_kernels *k = table(x).recurrent
    cdef const void *h0_data = ptr(h0)
    cdef const void *w_data = ptr(w_hh)
    cdef void *h_data = ptr(h)
    cdef int status
    with nogil:
        status = k.rnn_forward(&s, &inputs, g, h0_data, w_data, h_data)
    check(status)
    return h

def rnn_backward(ndarray dh, ndarray h, ndarray h0, ndarray w_hh, nonlinearity, lengths, reverse):
    cdef sequence_shape s = sequence_of(h.shape[0], h0, lengths, reverse)
    cdef int g = _NONLINEARITIES[nonlinearity]
    cdef ndarray da = empty_like(h), dh0 = empty_like(h0), dw_hh = empty_like(w_hh)
    cdef const recurrent_kernels *k = table(h).recurrent
    cdef const void *dh_data = ptr(dh)
    cdef const void *h_data = ptr(h)
    cdef const void *h0_data = ptr(h0)
    cdef const void *w_data = ptr(w_hh)
    cdef void *da_data = ptr(da)
    cdef void *dh0_data = ptr(dh0)
    cdef void *dw_data = ptr(dw_hh)
    cdef int status
    with nogil:
        status = k.rnn_backward(&s, g, dh_data, h_data, h0_data, w_data, da_data, dh0_data, dw_data)
    check(status)
    return da, dh0, dw_hh


def lstm_forward(ndarray x, ndarray h0, ndarray c0, ndarray w_ih, ndarray w_hh, b, peephole, output_activation, lengths,
                 reverse):
    cdef sequence_shape s = sequence_of(x.shape[0], h0, lengths, reverse)
    cdef sequence_inputs inputs = inputs_of(x, w_ih, b)
    cdef int g = _NONLINEARITIES[output_activation], peepholes = peepholes_of(peephole)
    cdef ndarray h = empty((s.T, s.B, s.H), x), c = empty((s.T, s.B, s.H), x), gates = empty((s.T, s.B, 4 * s.H), x)
    cdef const recurrent_kernels *k = table(x).recurrent
    cdef const void *h0_data = ptr(h0)
    cdef const void *c0_data = ptr(c0)
    cdef const void *w_data = ptr(w_hh)
    cdef const void *peephole_data = ptr_or_null(peephole)
    cdef void *h_data = ptr(h)
    cdef void *c_data = ptr(c)
    cdef void *gates_data = ptr(gates)
    cdef int status
    with nogil:
        status = k.lstm_forward(&s, &inputs, g, peepholes, h0_data, c0_data, w_data, peephole_data, h_data, c_data, gates_data)
    check(status)
    return h, c, gates

def lstm_backward(ndarray dh, ndarray dc, ndarray h, ndarray c, ndarray gates, ndarray h0, ndarray c0, ndarray w_hh, peephole,
                  output_activation, lengths, reverse):
    cdef sequence_shape s = sequence_of(h.shape[0], h0, lengths, reverse)
    cdef int g = _NONLINEARITIES[output_activation], peepholes = peepholes_of(peephole)
    cdef ndarray da = empty_like(gates), dh0 = empty_like(h0), dc0 = empty_like(c0), dw_hh = empty_like(w_hh)
    dpeephole = None if peephole is None else empty_like(peephole)
    cdef const recurrent_kernels *k = table(h).recurrent
    cdef const void *dh_data = ptr(dh)
    cdef const void *dc_data = ptr(dc)
    cdef const void *h_data = ptr(h)
    cdef const void *c_data = ptr(c)
    cdef const void *gates_data = ptr(gates)
    cdef const void *h0_data = ptr(h0)
    cdef const void *c0_data = ptr(c0)
    cdef const void *w_data = ptr(w_hh)
    cdef const void *peephole_data = ptr_or_null(peephole)
    cdef void *da_data = ptr(da)
    cdef void *dh0_data = ptr(dh0)
    cdef void *dc0_data = ptr(dc0)
    cdef void *dw_data = ptr(dw_hh)
    cdef void *dpeephole_data = ptr_or_null(dpeephole)
    cdef int status
    with nogil:
        status = k.lstm_backward(&s, g, peepholes, dh_data, dc_data, h_data, c_data, gates_data, h0_data, c0_data, w_data,
                                 peephole_data, da_data, dh0_data, dc0_data, dw_data, dpeephole_data)
    check(status)
    return da, dh0, dc0, dw_hh, dpeephole


def gru_forward(ndarray x, ndarray h0, ndarray w_ih, ndarray w_hh, b_ih, b_hh, reset_after, lengths, reverse):
    cdef sequence_shape s = sequence_of(x.shape[0], h0, lengths, reverse)
    cdef sequence_inputs inputs = inputs_of(x, w_ih, b_ih)
    cdef int after = bool(reset_after)
    cdef ndarray h = empty((s.T, s.B, s.H), x), gates = empty((s.T, s.B, 4 * s.H), x)
    cdef const recurrent_kernels *k = table(x).recurrent
    cdef const void *h0_data = ptr(h0)
    cdef const void *w_data = ptr(w_hh)
    cdef const void *b_data = ptr_or_null(b_hh)
    cdef void *h_data = ptr(h)
    cdef void *gates_data = ptr(gates)
    cdef int status
    with nogil:
        status = k.gru_forward(&s, &inputs, after, h0_data, w_data, b_data, h_data, gates_data)
    check(status)
    return h, gates

def gru_backward(ndarray dh, ndarray h, ndarray gates, ndarray h0, ndarray w_hh, reset_after, lengths, reverse):
    cdef sequence_shape s = sequence_of(h.shape[0], h0, lengths, reverse)
    cdef int after = bool(reset_after)
    cdef ndarray da = empty((s.T, s.B, 3 * s.H), h), dh0 = empty_like(h0)
    cdef ndarray dw_hh = empty_like(w_hh), db_hh = empty((3 * s.H,), h)
    cdef const recurrent_kernels *k = table(h).recurrent
    cdef const void *dh_data = ptr(dh)
    cdef const void *h_data = ptr(h)
    cdef const void *gates_data = ptr(gates)
    cdef const void *h0_data = ptr(h0)
    cdef const void *w_data = ptr(w_hh)
    cdef void *da_data = ptr(da)
    cdef void *dh0_data = ptr(dh0)
    cdef void *dw_data = ptr(dw_hh)
    cdef void *db_data = ptr(db_hh)
    cdef int status
    with nogil:
        status = k.gru_backward(&s, after, dh_data, h_data, gates_data, h0_data, w_data, da_data, dh0_data, dw_data, db_data)
    check(status)
    return da, dh0, dw_hh, db_hh
