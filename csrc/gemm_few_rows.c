/* Matrix products of few rows, or of few columns beside others: B is read once, and nothing is packed. Part of gemm.c. */

enum { FEW = 4, MORE = 8, DOT_ROWS = 16, NEAR = 4 * 16384 / sizeof(REAL) };   /* of C, to stay near */
enum { SOON = 1024 / sizeof(REAL) };   /* further on in a row of B, or in the one that is next */

/* B stored by columns: dot products along k. */
INLINE void dots(const int m, const int n, const struct product *p, idx i0, idx j0) {
    vr sum[FEW][FEW] = {{{0}}};
    const REAL *a = p->a + i0 * p->ars, *b = p->b + j0 * p->bcs;
    for (idx k = 0; k < p->K; k += VL) {
        idx w = MIN(VL, p->K - k);
        vr av[FEW];
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) av[i] = w == VL ? load(a + i * p->ars + k) : load_n(a + i * p->ars + k, w);
#pragma GCC unroll 4
        for (int l = 0; l < n; l++) {
            vr bv = w == VL ? load(b + l * p->bcs + k) : load_n(b + l * p->bcs + k, w);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) sum[i][l] += av[i] * bv;
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int l = 0; l < n; l++)
            p->c[(i0 + i) * p->crs + (j0 + l) * p->ccs] = horizontal_sum(sum[i][l]) + bias_at(p, i0 + i, j0 + l);
}

INLINE void dots_of_rows(const int n, const struct product *p, idx j) {
    for (idx i = 0; i < p->M; i += FEW)
        switch (p->M - i) {
            case 1: dots(1, n, p, i, j); break;
            case 2: dots(2, n, p, i, j); break;
            case 3: dots(3, n, p, i, j); break;
            default: dots(4, n, p, i, j);
        }
}

/* B stored by rows: to every row of C, `depth` rows of B at a time, each with its factor. */
INLINE void add_rows_at(const int m, const int depth, REAL a[MORE][8], const REAL *b, idx brs, REAL *c, idx crs, idx w) {
    vr x[MORE];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) x[i] = load_part(c + i * crs, w);
#pragma GCC unroll 8
    for (int l = 0; l < depth; l++) {
        vr bv = load_part(b + l * brs, w);
        if (m > 1) hold(bv);
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) x[i] += a[i][l] * bv;
    }
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) store_part(c + i * crs, x[i], w);
}
INLINE void add_rows(const int m, const int depth, const struct product *p, idx k) {
    REAL a[MORE][8];
    for (int i = 0; i < m; i++)
        for (int l = 0; l < depth; l++) a[i][l] = p->a[i * p->ars + (k + l) * p->acs];
    const REAL *b = p->b + k * p->brs;
    idx j = 0;
    for (; j + LINE <= p->N; j += LINE) {
        const REAL *soon = b + j + SOON + (j + SOON < p->N ? 0 : depth * p->brs - p->N);
#pragma GCC unroll 8
        for (int l = 0; l < depth; l++)
            if (REAL_IS_FLOAT) __builtin_prefetch(soon + l * p->brs);   /* of doubles, it costs more than it brings */
#pragma GCC unroll 4
        for (idx v = j; v < j + LINE; v += VL) add_rows_at(m, depth, a, b + v, p->brs, p->c + v, p->crs, VL);
    }
    for (; j < p->N; j += VL) add_rows_at(m, depth, a, b + j, p->brs, p->c + j, p->crs, MIN(VL, p->N - j));
}

/* Where C is gone over time and again, it is in a place of its own: no other thread's prefetching takes lines of it away. */
INLINE void sums_of_rows(const int m, const int depth, const struct product *p, idx i, idx j0, idx j1) {
    REAL near[NEAR + MORE * LINE] __attribute__((aligned(64)));
    struct product q = {.M = m, .N = j1 - j0, .K = p->K, .a = p->a + i * p->ars, .ars = p->ars, .acs = p->acs,
                        .b = p->b + j0, .brs = p->brs, .bcs = 1, .c = p->c + i * p->crs + j0, .crs = p->crs, .ccs = 1,
                        .bias = p->bias ? p->bias + i * p->bias_rs + j0 * p->bias_cs : NULL, .bias_rs = p->bias_rs,
                        .bias_cs = p->bias_cs};
    const int again = p->K > FEW;
    if (again) q.c = near, q.crs = round_up(q.N, LINE) + LINE;
    idx k = 0;
    start_from_bias(&q, 0, m, 0, q.N);
    for (; k + depth <= p->K; k += depth) add_rows(m, depth, &q, k);
    for (; k < p->K; k++) add_rows(m, 1, &q, k);
    for (int r = 0; again && r < m; r++) copy_reals(p->c + (i + r) * p->crs + j0, near + r * q.crs, q.N);
}

/* Up to MORE rows together, if they are all there are; else FEW at a time. */
static idx at_once(const struct product *p) { return p->M <= MORE ? p->M : FEW; }

static void sums_without_packing(const struct product *p, idx j0, idx j1) {
    for (idx i = 0; i < p->M; i += at_once(p))
        switch (MIN(p->M - i, at_once(p))) {
            case 1: sums_of_rows(1, 8, p, i, j0, j1); break;
            case 2: sums_of_rows(2, 8, p, i, j0, j1); break;
            case 3: sums_of_rows(3, 4, p, i, j0, j1); break;
            case 4: sums_of_rows(4, 4, p, i, j0, j1); break;
            case 5: sums_of_rows(5, 8, p, i, j0, j1); break;
            case 6: sums_of_rows(6, 8, p, i, j0, j1); break;
            case 7: sums_of_rows(7, 8, p, i, j0, j1); break;
            default: sums_of_rows(8, 8, p, i, j0, j1);
        }
}

/* A short K would spend its time in the horizontal sums, a short row of B in its start. More rows of C go through L1 again and
   again: that pays where B is so large that it comes from memory, in which it then is read row by row. */
static int is_dots(const struct product *p) {
    return p->M <= DOT_ROWS && p->acs == 1 && p->brs == 1 && p->K >= MAX(4, p->M) * VL;
}
static int is_sums(const struct product *p) {
    int few = p->M <= FEW || p->K <= FEW || (p->M <= MORE && p->N * p->K > 4 * (idx)FAR);
    return few && p->bcs == 1 && p->ccs == 1 && p->N >= NR;
}
static int needs_no_packing(const struct product *p) { return is_dots(p) || is_sums(p); }

static void dots_without_packing(const struct product *p, idx j0, idx j1) {
    for (; j0 + FEW <= j1; j0 += FEW) dots_of_rows(FEW, p, j0);
    for (; j0 < j1; j0++) dots_of_rows(1, p, j0);
}

static void multiply_unpacked(const struct product *p, idx begin, idx end) {
    if (is_dots(p)) {
        dots_without_packing(p, begin, end);
    } else {
        const idx chunk = NEAR / (at_once(p) > FEW ? MORE : FEW);
        for (idx j = begin; j < end; j += chunk) sums_without_packing(p, j, MIN(end, j + chunk));
    }
}

/* ---- a few columns more than whole vectors hold ---- */

static int multiply(struct product given);

/* The last n columns, turned: as a product of n rows. */
static struct product last_columns(const struct product *p, idx n) {
    const idx first = p->N - n;
    return (struct product){.M = n, .N = p->M, .K = p->K, .a = p->b + first * p->bcs, .ars = p->bcs, .acs = p->brs, .b = p->a,
                            .brs = p->acs, .bcs = p->ars, .c = p->c + first * p->ccs, .crs = p->ccs, .ccs = p->crs,
                            .bias = p->bias ? p->bias + first * p->bias_cs : NULL, .bias_rs = p->bias_cs, .bias_cs = p->bias_rs};
}

/* As columns they would take as long as a whole vector of them. What they read of B and write of C is brought in order. */
enum { WORTH_TURNING = 2048 };
static int multiply_last_columns(struct product *p) {
    const idx n = p->N % VL, M = p->M, K = p->K;
    const struct product lies = last_columns(p, n);
    struct product turned = lies;
    turned.ars = K, turned.acs = 1, turned.crs = M, turned.ccs = 1;
    if (!n || p->whole || p->N <= NR || M * K <= WORTH_TURNING || needs_no_packing(p) || n > FEW || !needs_no_packing(&turned)) return CNN_OK;
    REAL *a = scratch_take(sizeof(REAL) * (size_t)(n * (K + M))), *c = a + n * K;
    if (!a) return CNN_NO_MEMORY;
    for (idx k = 0; k < K; k++)
        for (idx j = 0; j < n; j++) a[j * K + k] = lies.a[j * lies.ars + k * lies.acs];
    turned.a = a, turned.c = c;
    const int status = multiply(turned);
    for (idx i = 0; i < M; i++)
        for (idx j = 0; j < n; j++) lies.c[j * lies.crs + i * lies.ccs] = c[j * M + i];
    scratch_give(a);
    p->N -= n;
    return status;
}
