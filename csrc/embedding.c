/* Embedding: rows of w (V, D) picked by index. */

enum { COLUMNS = 64 / sizeof(REAL) };   /* one cache line */
struct lookup { idx R, V, D; const int64_t *indices; const REAL *from; REAL *to; };

static void embedding_rows(void *arg, idx begin, idx end, int worker) {
    const struct lookup *l = arg;
    (void)worker;
    for (idx r = begin; r < end; r++)
        memcpy(l->to + r * l->D, l->from + l->indices[r] * l->D, (size_t)l->D * sizeof *l->to);
}
static int embedding(idx R, idx D, const int64_t *indices, const void *w, void *y) {
    struct lookup l = {.R = R, .D = D, .indices = indices, .from = w, .to = y};
    parallel_for(R, grain_of((double)D), embedding_rows, &l);
    return CNN_OK;
}

/* Split by columns: each thread goes through all rows, in their order, whatever indices repeat. */
static void embedding_backward_columns(void *arg, idx begin, idx end, int worker) {
    const struct lookup *l = arg;
    idx first = begin * COLUMNS, n = MIN(end * COLUMNS, l->D) - first;
    (void)worker;
    for (idx v = 0; v < l->V; v++) memset(l->to + v * l->D + first, 0, (size_t)n * sizeof *l->to);
    for (idx r = 0; r < l->R; r++) {
        const REAL *dy = l->from + r * l->D + first;
        REAL *dw = l->to + l->indices[r] * l->D + first;
        idx i = 0;
        for (; i + VL <= n; i += VL) store(dw + i, load(dw + i) + load(dy + i));
        if (i < n) store_n(dw + i, load_n(dw + i, n - i) + load_n(dy + i, n - i), n - i);
    }
}
static int embedding_backward(idx R, idx V, idx D, const void *dy, const int64_t *indices, void *dw) {
    struct lookup l = {.R = R, .V = V, .D = D, .indices = indices, .from = dy, .to = dw};
    parallel_for((D + COLUMNS - 1) / COLUMNS, grain_of((double)(R + V) * COLUMNS), embedding_backward_columns, &l);
    return CNN_OK;
}

static const struct embedding_kernels embedding_kernels = {.embedding = embedding, .embedding_backward = embedding_backward};
