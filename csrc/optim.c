/* Steps of the optimisers: one pass over w, its gradient and its state, which are written in place. */

struct optimizer {
    idx n;
    REAL lr, weight_decay, shrink, momentum, eps;
    REAL beta1, gain1, beta2, gain2, bias2;   /* gain = 1 - beta, rounded only once */
    int nesterov, decoupled;
    REAL *w, *a, *b, *c;   /* w and the state arrays, or NULL */
    const REAL *dw;
};

/* A range function that does `statements` on the vectors w, g (with weight decay), a, b, c at every place; which of the state
   arrays there are is known when it is compiled. */
#define STEP(name, statements)                                                                                                \
    INLINE void name##_at(const struct optimizer *o, idx i, idx n, const int has_a, const int has_b, const int has_c) {       \
        vr w = load_or(o->w + i, n, 0), g = load_or(o->dw + i, n, 0), a = {0}, b = {0}, c = {0};                              \
        if (o->weight_decay != 0 && !o->decoupled) g += o->weight_decay * w;                                                  \
        if (has_a) a = load_or(o->a + i, n, 0);                                                                               \
        if (has_b) b = load_or(o->b + i, n, 0);                                                                               \
        if (has_c) c = load_or(o->c + i, n, 0);                                                                               \
        statements                                                                                                            \
        store_part(o->w + i, w, n);                                                                                           \
        if (has_a) store_part(o->a + i, a, n);                                                                                \
        if (has_b) store_part(o->b + i, b, n);                                                                                \
        if (has_c) store_part(o->c + i, c, n);                                                                                \
    }                                                                                                                         \
    INLINE void name##_all(const struct optimizer o, idx i, idx stop, const int has_a, const int has_b, const int has_c) {    \
        const int asks = asks_for_pages();                                                                                    \
        for (; i + LINE <= stop; i += LINE) {                                                                                 \
            for (idx k = 0; k < LINE; k += VL) name##_at(&o, i + k, VL, has_a, has_b, has_c);                                 \
            if (!asks) continue;                                                                                              \
            prefetch_ahead(o.w + i), prefetch_ahead(o.dw + i);                                                                \
            if (has_a) prefetch_ahead(o.a + i);                                                                               \
            if (has_b) prefetch_ahead(o.b + i);                                                                               \
            if (has_c) prefetch_ahead(o.c + i);                                                                               \
        }                                                                                                                     \
        for (; i < stop; i += VL) name##_at(&o, i, stop - i, has_a, has_b, has_c);                                            \
    }                                                                                                                         \
    static void name##_blocks(void *arg, idx begin, idx end, int worker) {                                                    \
        const struct optimizer *o = arg;                                                                                      \
        const idx i = begin * BLOCK, stop = MIN(end * BLOCK, o->n);                                                           \
        (void)worker;                                                                                                         \
        if (o->b && o->c) name##_all(*o, i, stop, 1, 1, 1);                                                                   \
        else if (o->b) name##_all(*o, i, stop, 1, 1, 0);                                                                      \
        else if (o->c) name##_all(*o, i, stop, 1, 0, 1);                                                                      \
        else if (o->a) name##_all(*o, i, stop, 1, 0, 0);                                                                      \
        else name##_all(*o, i, stop, 0, 0, 0);                                                                                \
    }

static int by_blocks(range_body body, struct optimizer *o) {
    parallel_for((o->n + BLOCK - 1) / BLOCK, grain_of(3.0 * BLOCK), body, o);
    return CNN_OK;
}

STEP(sgd, {
    if (has_a) {
        a = o->momentum * a + o->gain1 * g;
        g = o->nesterov ? g + o->momentum * a : a;
    }
    w -= o->lr * g;
})
static int sgd_step(idx n, double lr, double momentum, double dampening, double weight_decay, int nesterov, void *w, const void *dw,
                    void *velocity) {
    struct optimizer o = {.n = n, .lr = (REAL)lr, .momentum = (REAL)momentum, .gain1 = (REAL)(1 - dampening), .nesterov = nesterov,
                          .weight_decay = (REAL)weight_decay, .w = w, .dw = dw, .a = velocity};
    return by_blocks(sgd_blocks, &o);
}

STEP(adagrad, {
    a += g * g;
    w -= o->lr * g / (vsqrt(a) + o->eps);
})
static int adagrad_step(idx n, double lr, double eps, double weight_decay, void *w, const void *dw, void *square_sum) {
    struct optimizer o = {.n = n, .lr = (REAL)lr, .eps = (REAL)eps, .weight_decay = (REAL)weight_decay, .w = w, .dw = dw,
                          .a = square_sum};
    return by_blocks(adagrad_blocks, &o);
}

STEP(rmsprop, {
    a = o->beta2 * a + o->gain2 * (g * g);
    vr variance = a;
    if (has_b) {
        b = o->beta2 * b + o->gain2 * g;
        variance = vmax((vr){0}, a - b * b);   /* rounding may leave a negative rest */
    }
    g = g / (vsqrt(variance) + o->eps);
    if (has_c) {
        c = o->momentum * c + g;
        g = c;
    }
    w -= o->lr * g;
})
static int rmsprop_step(idx n, double lr, double alpha, double eps, double weight_decay, double momentum, void *w, const void *dw,
                        void *square_avg, void *grad_avg, void *velocity) {
    struct optimizer o = {.n = n, .lr = (REAL)lr, .beta2 = (REAL)alpha, .gain2 = (REAL)(1 - alpha), .eps = (REAL)eps,
                          .weight_decay = (REAL)weight_decay, .momentum = (REAL)momentum, .w = w, .dw = dw, .a = square_avg,
                          .b = grad_avg, .c = velocity};
    return by_blocks(rmsprop_blocks, &o);
}

STEP(adam, {
    if (o->weight_decay != 0 && o->decoupled) w *= o->shrink;
    a = o->beta1 * a + o->gain1 * g;
    b = o->beta2 * b + o->gain2 * (g * g);
    w -= o->lr * a / (vsqrt(b * o->bias2) + o->eps);
})
static int adam_step(idx n, int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay, int decoupled,
                     void *w, const void *dw, void *m, void *v) {
    struct optimizer o = {.n = n, .lr = (REAL)(lr / (1 - pow(beta1, (double)step))), .beta1 = (REAL)beta1, .gain1 = (REAL)(1 - beta1),
                          .beta2 = (REAL)beta2, .gain2 = (REAL)(1 - beta2), .bias2 = (REAL)(1 / (1 - pow(beta2, (double)step))),
                          .eps = (REAL)eps, .weight_decay = (REAL)weight_decay, .shrink = (REAL)(1 - lr * weight_decay),
                          .decoupled = decoupled,
                          .w = w, .dw = dw, .a = m, .b = v};
    return by_blocks(adam_blocks, &o);
}

static const struct optim_kernels optim_kernels = {
    .sgd_step = sgd_step, .adagrad_step = adagrad_step, .rmsprop_step = rmsprop_step, .adam_step = adam_step};
