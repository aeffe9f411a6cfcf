/* Embedding: rows of w (V, D) picked by index. */

struct lookup { idx R, D; const int64_t *indices; const REAL *from; REAL *to; };

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

/* A page of dw belongs to one thread, which goes through all of dy, in order, and adds the rows that are its own. A scrambled
   number says whose it is: frequent words often stand together. */
enum { OWNERS = 64, NEARBY = 4096 / sizeof(REAL) };
static idx owner_of(idx place) { return (idx)((uint64_t)(place / NEARBY) * 0x9E3779B97F4A7C15u >> 58); }

static void embedding_backward_rows(void *arg, idx begin, idx end, int worker) {
    const struct lookup *l = arg;
    const idx D = l->D;
    (void)worker;
    for (idx r = 0; r < l->R; r++) {
        const idx place = l->indices[r] * D, owner = owner_of(place);
        if (owner < begin || owner >= end) continue;
        const REAL *dy = l->from + r * D;
        REAL *dw = l->to + place;
        for (idx d = 0; d < D; d += VL) store_part(dw + d, load_part(dw + d, D - d) + load_part(dy + d, D - d), D - d);
    }
}
static void embedding_backward_zero(void *arg, idx begin, idx end, int worker) {
    const struct lookup *l = arg;
    (void)worker;
    memset(l->to + begin * l->D, 0, (size_t)((end - begin) * l->D) * sizeof *l->to);
}
static int embedding_backward(idx R, idx V, idx D, const void *dy, const int64_t *indices, void *dw) {
    struct lookup l = {.R = R, .D = D, .indices = indices, .from = dy, .to = dw};
    parallel_for(V, grain_of((double)D), embedding_backward_zero, &l);
    parallel_for(OWNERS, grain_of((double)(R * (D + VL)) / OWNERS), embedding_backward_rows, &l);
    return CNN_OK;
}

static const struct embedding_kernels embedding_kernels = {.embedding = embedding, .embedding_backward = embedding_backward};
