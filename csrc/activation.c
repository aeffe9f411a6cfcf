/* Activations: loops over vectors. Ranges are whole blocks of BLOCK elements, so that a partial vector occurs only at the
   end of the array and no result depends on where the threads' ranges are cut. */

enum { BLOCK = 1024 };

/* Compilers turn choose(b > zero, a, zero) into a load of a under a mask, which waits for b: without prefetching both would
   miss the cache in turn. */
struct elements { idx n; REAL s; const REAL *a, *b; REAL *y; };

/* name(n, s, a, b, y): y[i] = expression of the vectors a, b, s and zero. `work` is its cost in simple operations. */
#define ELEMENTWISE(name, work, expression)                                                          \
    INLINE void name##_at(const struct elements *e, idx i, idx n) {                                 \
        const int cheap = (work) == 1 && n >= VL;   /* memory is what it waits for */               \
        const vr a = cheap ? load_in_halves(e->a + i) : load_part(e->a + i, n);                     \
        const vr b = cheap ? load_in_halves(e->b + i) : load_part(e->b + i, n);                     \
        const vr s = broadcast(e->s), zero = {0};                                                   \
        (void)a, (void)b, (void)s, (void)zero;                                                      \
        store_part(e->y + i, expression, n);                                                        \
    }                                                                                               \
    static void name##_blocks(void *arg, idx begin, idx end, int worker) {                          \
        const struct elements e = *(const struct elements *)arg;                                    \
        idx i = begin * BLOCK, stop = MIN(end * BLOCK, e.n);                                        \
        const int asks = asks_for_pages();                                                          \
        (void)worker;                                                                               \
        for (; i + LINE <= stop; i += LINE) {                                                       \
            if (asks) prefetch_ahead(e.a + i), prefetch_ahead(e.b + i), prefetch_to_write(e.y + i); \
            for (idx k = 0; k < LINE; k += VL) name##_at(&e, i + k, VL);                            \
        }                                                                                           \
        for (; i < stop; i += VL) name##_at(&e, i, stop - i);                                       \
    }                                                                                               \
    static int name(idx n, double s, const void *a, const void *b, void *y) {                       \
        struct elements e = {n, (REAL)s, a, b ? b : a, y};                                          \
        parallel_for((n + BLOCK - 1) / BLOCK, grain_of((double)BLOCK * (work)), name##_blocks, &e); \
        return CNN_OK;                                                                              \
    }

/* log(1 + e) = 2 (s + s^3/3 + s^5/5 + ...) with s = e / (2 + e), at most 1/3 for e in [0, 1]. */
INLINE vr log1p_of_fraction(vr e) {
    static const REAL series[] = {
#if !REAL_IS_FLOAT
        2 / 33., 2 / 31., 2 / 29., 2 / 27., 2 / 25., 2 / 23., 2 / 21., 2 / 19., 2 / 17.,
#endif
        (REAL)(2 / 15.), (REAL)(2 / 13.), (REAL)(2 / 11.), (REAL)(2 / 9.), (REAL)(2 / 7.), (REAL)(2 / 5.), (REAL)(2 / 3.)};
    vr s = e / (2 + e), z = s * s;
    return 2 * s + s * z * polynomial(z, series, sizeof series / sizeof *series);
}

ELEMENTWISE(relu, 1, vmax(zero, a))
ELEMENTWISE(relu_backward, 1, choose(b > zero, a, zero))
ELEMENTWISE(leaky_relu, 1, choose(a > zero, a, s * a))
ELEMENTWISE(leaky_relu_backward, 2, choose(b > zero, a, s * a))
ELEMENTWISE(elu, 4, choose(a > zero, a, s * expm1_of_negative(vmin(zero, a))))
ELEMENTWISE(elu_backward, 3, choose(b > zero, a, a * (s * vexp(vmin(zero, b)))))
ELEMENTWISE(softplus, 5, vmax(zero, a) + log1p_of_fraction(vexp(-vabs(a))))
ELEMENTWISE(softplus_backward, 3, a * vsigmoid(b))
ELEMENTWISE(sigmoid, 3, vsigmoid(a))
ELEMENTWISE(sigmoid_backward, 1, a * (b * (1 - b)))
ELEMENTWISE(tanh_activation, 4, vtanh(a))
ELEMENTWISE(tanh_activation_backward, 1, a * (1 - b * b))

/* ---- rows (R, C): softmax, and what the losses share with it ---- */

/* A NaN may get lost in the maximum, not in the sums that follow. */
INLINE REAL row_max(const REAL *x, idx C) {
    vr m = broadcast(-INFINITY);
    idx i = 0;
    for (; i + VL <= C; i += VL) m = vmax(m, load(x + i));
    if (i < C) m = vmax(m, load_or(x + i, C - i, -INFINITY));
    return horizontal_max(m);
}

enum { TERMS = 1024 };   /* of one partial sum: the partial sums add up in double, so that long rows lose no digits */

/* Sum of e^(x - m); the terms go to e, unless that is NULL. */
INLINE REAL row_exp(const REAL *x, idx C, REAL m, REAL *e) {
    double total = 0;
    for (idx i = 0; i < C;) {
        vr sum = {0};
        idx end = MIN(C, i + TERMS);
        for (; i + VL <= end; i += VL) {
            vr v = vexp(load(x + i) - m);
            sum += v;
            if (e) store(e + i, v);
        }
        if (i < end) {
            vr v = vexp(load_n(x + i, end - i) - m);
            sum += choose(first_lanes(end - i), v, (vr){0});
            if (e) store_n(e + i, v, end - i);
            i = end;
        }
        total += (double)horizontal_sum(sum);
    }
    return (REAL)total;
}

struct rows { idx C; const REAL *a, *b; REAL *y; };

static void softmax_rows(void *arg, idx begin, idx end, int worker) {
    const struct rows *r = arg;
    (void)worker;
    for (idx row = begin; row < end; row++) {
        REAL *y = r->y + row * r->C;
        const REAL *x = r->a + row * r->C;
        REAL scale = 1 / row_exp(x, r->C, row_max(x, r->C), y);
        for (idx i = 0; i < r->C; i += VL) store_part(y + i, load_or(y + i, r->C - i, 0) * scale, r->C - i);
    }
}
/* Four sums side by side, as one would wait for each addition to end. The second pass finds the row in the first-level cache. */
INLINE REAL row_dot(const REAL *a, const REAL *b, idx C) {
    vr sums[4] = {{0}};
    idx i = 0;
    for (; i + 4 * VL <= C; i += 4 * VL)
        for (int k = 0; k < 4; k++) sums[k] += load(a + i + k * VL) * load(b + i + k * VL);
    for (; i + VL <= C; i += VL) sums[0] += load(a + i) * load(b + i);
    if (i < C) sums[1] += load_or(a + i, C - i, 0) * load_or(b + i, C - i, 0);
    return horizontal_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static void softmax_backward_rows(void *arg, idx begin, idx end, int worker) {
    const struct rows *r = arg;
    (void)worker;
    for (idx row = begin; row < end; row++) {
        const REAL *dy = r->a + row * r->C, *y = r->b + row * r->C;
        REAL *dx = r->y + row * r->C, s = row_dot(dy, y, r->C);
        idx i = 0;
        for (; i + VL <= r->C; i += VL) store(dx + i, load(y + i) * (load(dy + i) - s));
        if (i < r->C) store_n(dx + i, load_n(y + i, r->C - i) * (load_n(dy + i, r->C - i) - s), r->C - i);
    }
}
static void log_softmax_rows(void *arg, idx begin, idx end, int worker) {
    const struct rows *r = arg;
    (void)worker;
    for (idx row = begin; row < end; row++) {
        const REAL *x = r->a + row * r->C;
        REAL *y = r->y + row * r->C, m = row_max(x, r->C), log_sum = FOR_REAL(logf, log)(row_exp(x, r->C, m, NULL));
        for (idx i = 0; i < r->C; i += VL) store_part(y + i, (load_or(x + i, r->C - i, 0) - m) - log_sum, r->C - i);
    }
}
static void log_softmax_backward_rows(void *arg, idx begin, idx end, int worker) {
    const struct rows *r = arg;
    (void)worker;
    for (idx row = begin; row < end; row++) {
        const REAL *dy = r->a + row * r->C, *y = r->b + row * r->C;
        REAL *dx = r->y + row * r->C;
        vr sum = {0};
        for (idx i = 0; i < r->C; i += VL) sum += load_or(dy + i, r->C - i, 0);
        REAL s = horizontal_sum(sum);
        for (idx i = 0; i < r->C; i += VL) {
            idx n = r->C - i;
            store_part(dx + i, load_or(dy + i, n, 0) - vexp(load_or(y + i, n, 0)) * s, n);
        }
    }
}

static int by_rows(range_body body, idx R, idx C, const void *a, const void *b, void *y) {
    struct rows r = {C, a, b, y};
    parallel_for(R, grain_of(4.0 * (double)(C + VL)), body, &r);
    return CNN_OK;
}
static int softmax(idx R, idx C, const void *x, void *y) { return by_rows(softmax_rows, R, C, x, NULL, y); }
static int softmax_backward(idx R, idx C, const void *dy, const void *y, void *dx) {
    return by_rows(softmax_backward_rows, R, C, dy, y, dx);
}
static int log_softmax(idx R, idx C, const void *x, void *y) { return by_rows(log_softmax_rows, R, C, x, NULL, y); }
static int log_softmax_backward(idx R, idx C, const void *dy, const void *y, void *dx) {
    return by_rows(log_softmax_backward_rows, R, C, dy, y, dx);
}

/* ---- maxout: (R, P, S) -> (R, S) ---- */

struct pieces { idx P, S; const REAL *x, *dy; const uint8_t *won; REAL *y; uint8_t *argmax; };

static int by_units(range_body body, idx R, struct pieces q) {
    parallel_for(R, grain_of(5 + (double)q.P * (double)(q.S / VL + 2 * (q.S % VL))), body, &q);
    return CNN_OK;
}

/* Whole vectors along S, with keep_larger and the bytes of max pooling; the rest one by one. */
static void maxout_units(void *arg, idx begin, idx end, int worker) {
    const struct pieces *q = arg;
    (void)worker;
    for (idx r = begin; r < end; r++) {
        const REAL *x = q->x + r * q->P * q->S;
        REAL *y = q->y + r * q->S;
        uint8_t *argmax = q->argmax + r * q->S;
        idx i = 0;
        for (; i + VL <= q->S; i += VL) {
            vr best = load(x + i);
            vi winner = {0};
            for (idx p = 1; p < q->P; p++) keep_larger(load(x + p * q->S + i), (integer)p, &best, &winner);
            store(y + i, best);
            store_bytes(argmax + i, winner, VL);
        }
        for (; i < q->S; i++) {
            REAL best = x[i];
            idx winner = 0;
            for (idx p = 1; p < q->P; p++) {
                REAL v = x[p * q->S + i];
                if (!(v <= best) && best == best) best = v, winner = p;   /* the first NaN wins */
            }
            y[i] = best, argmax[i] = (uint8_t)winner;
        }
    }
}
static int maxout(idx R, idx P, idx S, const void *x, void *y, void *argmax) {
    return by_units(maxout_units, R, (struct pieces){.P = P, .S = S, .x = x, .y = y, .argmax = argmax});
}

static void maxout_backward_units(void *arg, idx begin, idx end, int worker) {
    const struct pieces *q = arg;
    (void)worker;
    for (idx r = begin; r < end; r++) {
        const REAL *dy = q->dy + r * q->S;
        const uint8_t *won = q->won + r * q->S;
        for (idx p = 0; p < q->P; p++) {
            REAL *dx = q->y + (r * q->P + p) * q->S;
            idx i = 0;
            for (; i + VL <= q->S; i += VL) store(dx + i, choose(load_bytes(won + i, q->S - i) == (integer)p, load(dy + i), (vr){0}));
            for (; i < q->S; i++) dx[i] = won[i] == p ? dy[i] : 0;
        }
    }
}
static int maxout_backward(idx R, idx P, idx S, const void *dy, const void *argmax, void *dx) {
    return by_units(maxout_backward_units, R, (struct pieces){.P = P, .S = S, .dy = dy, .won = argmax, .y = dx});
}

static const struct activation_kernels activation_kernels = {
    .relu = relu, .relu_backward = relu_backward,
    .leaky_relu = leaky_relu, .leaky_relu_backward = leaky_relu_backward,
    .elu = elu, .elu_backward = elu_backward,
    .softplus = softplus, .softplus_backward = softplus_backward,
    .sigmoid = sigmoid, .sigmoid_backward = sigmoid_backward,
    .tanh_ = tanh_activation, .tanh_backward = tanh_activation_backward,
    .softmax = softmax, .softmax_backward = softmax_backward,
    .log_softmax = log_softmax, .log_softmax_backward = log_softmax_backward,
    .maxout = maxout, .maxout_backward = maxout_backward,
};
