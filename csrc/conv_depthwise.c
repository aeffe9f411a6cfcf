/* Depthwise convolution, one input channel per output channel: there is nothing to multiply as matrices. Vectors run along the
   columns and read the image in place (a mask stands for the padding); while they go down the rows, the output rows that meet
   the same image row are under way together. For square kernels of 3 and 5 with strides 1 and 2, and of 7 with stride 1.

   Backward-input with stride 1 is the forward pass with the kernel turned by 180 degrees. */

/* The output columns [column, column + n), n <= VL. Inside: no vector that it reads leaves the image. */
struct chunk { idx column, n; int inside; };

struct depthwise {
    idx N, outputs, inputs, fan;         /* planes of y and x per image; how many of x each of y sums over */
    idx K, S, H, W, OH, OW, top, left;
    const REAL *x, *w, *bias;
    REAL *y;                             /* backward-weight: dw */
    const REAL *dy;                      /* backward-weight only */
    int halves;                          /* all but the first chunk leave lane 0 to the one before */
    idx chunks;
    struct chunk *chunk;
    vi *mask;                            /* (chunk, kw, S): the lanes of each vector that are in the image */
    REAL *zeros;                         /* a row outside the image */
    vr *sums;                            /* (output, kh, kw) */
};

/* Masks as the loads of a chunk want them. No store can change a copy: it stays in registers, where there are any for it. */
#if VECTOR_BYTES == 64
typedef FOR_REAL(__mmask16, __mmask8) lanes_seen;
INLINE lanes_seen seen_by(const vi *mask) {
    return FOR_REAL(_mm512_movepi32_mask, _mm512_movepi64_mask)((__m512i)*mask);
}
#else
typedef const vi *lanes_seen;
INLINE lanes_seen seen_by(const vi *mask) { return mask; }
#endif
INLINE void see_lanes(const int n, const vi *mask, lanes_seen *seen) {
#pragma GCC unroll 14
    for (int i = 0; i < n; i++) seen[i] = seen_by(mask + i);
}

INLINE vr load_where(const int inside, const REAL *p, lanes_seen seen) {
    if (inside) return load(p);
#if VECTOR_BYTES == 64
    return FOR_REAL((vr)_mm512_maskz_loadu_ps, (vr)_mm512_maskz_loadu_pd)(seen, p);
#elif VECTOR_BYTES == 32
    return FOR_REAL((vr)_mm256_maskload_ps, (vr)_mm256_maskload_pd)(p, (__m256i)*seen);
#else
    vr v = {0};
    for (idx i = 0; i < VL; i++)
        if ((*seen)[i]) v[i] = p[i];
    return v;
#endif
}

/* What n columns of the kernel meet in a row: v[k] is every S-th element from p + k on, with S = 2 in dealt order. */
INLINE void load_columns(const int S, const int n, const int inside, const REAL *p, const lanes_seen *seen, vr *v) {
#pragma GCC unroll 7
    for (int k = 0; k < n; k += S) {
        v[k] = load_where(inside, p + k, seen[k * S]);
        if (S == 1) continue;
        const vr low = v[k], high = load_where(inside, p + k + VL, seen[k * S + 1]);
        v[k] = SHUFFLE(low, high, DEALT);
        if (k + 1 < n) v[k + 1] = SHUFFLE(low, high, DEALT_ODD);
    }
}

/* Strips of columns are no pattern that the machine sees through, so it is told what comes next. */
enum { AHEAD = 8192 };

/* Rows of the image as seen from one chunk of columns; those outside are zeros. */
struct view { const REAL *first, *zeros; idx H, W, top, ahead; };

/* The next plane's own columns are best, if it is neither too near nor too far. */
INLINE struct view view_of(const struct depthwise *p, const REAL *plane, idx column) {
    const idx bytes = p->H * p->W * (idx)sizeof(REAL);
    return (struct view){plane + column, p->zeros + column, p->H, p->W, p->top,
                         bytes > AHEAD && bytes < 2 * AHEAD ? bytes : AHEAD};
}
INLINE void prefetch_vectors(const int n, const REAL *p, idx ahead) {
#pragma GCC unroll 2
    for (int i = 0; i < n * VECTOR_BYTES; i += 64) __builtin_prefetch((const char *)p + ahead + i);
}
INLINE const REAL *row_of(const int S, const struct view *view, idx row) {
    idx ih = row - view->top;
    const REAL *inside = view->first + ih * view->W;
    prefetch_vectors(S, inside, view->ahead);
    return (size_t)ih < (size_t)view->H ? inside : view->zeros;
}

/* ---- forward ---- */

/* Step t reads the rows t * S + j, j < S, and adds them with kernel row q * S + j to the output row t - q: to sum[q]. */
INLINE void convolve_step(const int K, const int S, const int inside, const struct view *view, const lanes_seen *seen,
                          const REAL *w, idx t, REAL bias, vr *sum) {
    const int last = (K - 1) / S;
#pragma GCC unroll 7
    for (int q = last; q > 0; q--) sum[q] = sum[q - 1];
    sum[0] = broadcast(bias);
#pragma GCC unroll 2
    for (int j = 0; j < S; j++) {
        const REAL *row = row_of(S, view, t * S + j);
        vr v[7], part[7];   /* one sum through all rows would be a chain that nothing overlaps */
        load_columns(S, K, inside, row, seen, v);
#pragma GCC unroll 7
        for (int kw = 0; kw < K; kw++)
#pragma GCC unroll 7
            for (int q = 0; q <= last; q++)
                if (q * S + j < K) {
                    REAL weight = w[(q * S + j) * K + kw];
                    part[q] = kw ? part[q] + weight * v[kw] : weight * v[kw];
                }
#pragma GCC unroll 7
        for (int q = 0; q <= last; q++)
            if (q * S + j < K) sum[q] += part[q];
    }
}

/* What is too much, the next row overwrites; whole: nothing is. */
INLINE void store_row(const int whole, REAL *y, vr v, idx n, const REAL *end) {
    if (whole || y + VL <= end) store(y, v);
    else store_n(y, v, n);
}

/* whole: all of a vector, which no other plane has a part in. */
INLINE void convolve_chunk(const int K, const int S, const int inside, const int whole, const struct depthwise *p,
                           struct chunk c, const vi *mask, const REAL *x, const REAL *weights, REAL bias, int more, REAL *y) {
    const int last = (K - 1) / S;
    REAL w[49];
    memcpy(w, weights, sizeof(REAL) * (size_t)(K * K));   /* no store can change a copy: it stays in registers */
    const struct view view = view_of(p, x, c.column * S - p->left);
    idx OH = p->OH, OW = p->OW;
    const REAL *end = p->fan == 1 ? y + OH * OW : y;
    vr sum[7] = {{0}};
    lanes_seen seen[14];
    see_lanes(K * S, mask, seen);
    y += c.column;
    for (idx t = 0; t < last; t++) convolve_step(K, S, inside, &view, seen, w, t, bias, sum);
    for (idx t = last; t < OH + last; t++, y += OW) {
        convolve_step(K, S, inside, &view, seen, w, t, bias, sum);
        __builtin_prefetch((char *)y + AHEAD, 1);
        vr total = S == 2 ? in_order(sum[last]) : sum[last];
        if (!whole && more) total += load_n(y, c.n);
        store_row(whole, y, total, c.n, end);
    }
}

/* 49 weights are more than registers hold, and a load for each product more than there can be: two whole chunks share them. */
enum { IN_TWOS = MR > 12 };

INLINE void convolve_two(const int K, const int inside, const int next_inside, const struct depthwise *p, const struct chunk *c,
                         const vi *mask, const REAL *x, const REAL *weights, REAL bias, REAL *y) {
    const struct view view = view_of(p, x, c->column - p->left);
    const idx gap = c[1].column - c->column, OW = p->OW, steps = p->OH + K - 1;
    const vr start = broadcast(bias);
    vr sum[7][2] = {{{0}}};
    lanes_seen seen[14];
    see_lanes(2 * K, mask, seen);
    y += c->column;
    for (idx t = 0; t < steps; t++) {
        const REAL *row = row_of(2, &view, t), *next_row = row + gap, *w = weights;
        hold_address(w);
        hold_address(next_row);
#pragma GCC unroll 7
        for (int kw = 0; kw < K; kw++) {
            const vr v = load_where(inside, row + kw, seen[kw]), next = load_where(next_inside, next_row + kw, seen[K + kw]);
#pragma GCC unroll 7
            for (int q = K - 1; q >= 0; q--) {
                vr weight = broadcast(w[q * K + kw]);
                hold(weight);
                sum[q][0] = weight * v + (kw ? sum[q][0] : q ? sum[q - 1][0] : start);
                sum[q][1] = weight * next + (kw ? sum[q][1] : q ? sum[q - 1][1] : start);
            }
        }
        prefetch_vectors(2, y, AHEAD);
        store(y, sum[K - 1][0]);
        store(y + gap, sum[K - 1][1]);
        y += t < K - 1 ? 0 : OW;   /* the first ones lack rows: written over */
    }
}

INLINE void convolve_planes(const int K, const int S, const struct depthwise *p, idx begin, idx end) {
    idx shared = MAX(1, p->outputs / p->inputs), fan = p->fan, outputs = p->outputs, image = p->H * p->W;
    for (idx i = begin, o = begin % outputs; i < end; i++, o = o + 1 < outputs ? o + 1 : 0) {
        const REAL *x = p->x + (shared > 1 ? i / shared : i * fan) * image, *w = p->w + o * fan * K * K;
        REAL bias = p->bias ? p->bias[o] : 0, *y = p->y + i * p->OH * p->OW;
        for (idx j = 0; j < fan; j++, x += image, w += K * K, bias = 0)
            for (idx c = 0; c < p->chunks; c++) {
                struct chunk chunk = p->chunk[c];
                const vi *mask = p->mask + c * K * S;
                const int whole = fan == 1 && chunk.column + VL <= p->OW;
                if (IN_TWOS && K == 7 && whole && c + 1 < p->chunks) {
                    const struct chunk *two = p->chunk + c++;
                    if (two[0].inside && two[1].inside) convolve_two(K, 1, 1, p, two, mask, x, w, bias, y);
                    else if (two[0].inside) convolve_two(K, 1, 0, p, two, mask, x, w, bias, y);
                    else if (two[1].inside) convolve_two(K, 0, 1, p, two, mask, x, w, bias, y);
                    else convolve_two(K, 0, 0, p, two, mask, x, w, bias, y);
                    continue;
                }
                if (whole && chunk.inside) convolve_chunk(K, S, 1, 1, p, chunk, mask, x, w, bias, 0, y);
                else if (whole) convolve_chunk(K, S, 0, 1, p, chunk, mask, x, w, bias, 0, y);
                else convolve_chunk(K, S, 0, 0, p, chunk, mask, x, w, bias, j > 0, y);
            }
    }
}

/* ---- forward, 3x3 with stride 2 behind one column of padding ---- */

/* Half as many loads: columns 1 and 2 of the kernel are the even and odd lanes of what is loaded, column 0 is the odd ones, a
   lane later. So its sums are kept apart and moved at the end; what lane 0 lacks is the padding in the first chunk, and in
   others the chunk before writes it. */
struct halves { vr here, next; };   /* sums over columns 1 and 2; over column 0 */

INLINE void halve_step(const int inside, const struct view *view, const lanes_seen *seen, const REAL *w, idx t, REAL bias,
                       struct halves *sum) {
    sum[1] = sum[0];
    sum[0] = (struct halves){broadcast(bias), {0}};
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
        const REAL *row = row_of(2, view, t * 2 + j);
        const vr low = load_where(inside, row, seen[0]), high = load_where(inside, row + VL, seen[1]);
        const vr even = SHUFFLE(low, high, DEALT), odd = SHUFFLE(low, high, DEALT_ODD);
#pragma GCC unroll 2
        for (int q = 0; q < 2 - j; q++) {
            const REAL *weight = w + (q * 2 + j) * 3;
            sum[q].next += weight[0] * odd;
            sum[q].here += weight[1] * even + weight[2] * odd;
        }
    }
}

/* Lane i is what dealt order has of i - 1. */
#define BEFORE(i) ((i) ? LANES_IN_VECTOR + MENDED((i) - 1) : 0)

INLINE void halve_chunk(const int inside, const int whole, const struct depthwise *p, struct chunk c, const vi *mask,
                        const REAL *x, const REAL *weights, REAL bias, REAL *y) {
    REAL w[9];
    memcpy(w, weights, sizeof w);   /* no store can change a copy: it stays in registers */
    const struct view view = view_of(p, x, c.column * 2);
    const idx OH = p->OH, OW = p->OW;
    const REAL *end = y + OH * OW;
    struct halves sum[2] = {{{0}, {0}}};
    lanes_seen seen[2];
    see_lanes(2, mask, seen);
    y += c.column;
    halve_step(inside, &view, seen, w, 0, bias, sum);
    for (idx t = 1; t <= OH; t++, y += OW) {
        halve_step(inside, &view, seen, w, t, bias, sum);
        store_row(whole, y, in_order(sum[1].here) + SHUFFLE((vr){0}, sum[1].next, BEFORE), c.n, end);
    }
}

static void halve_planes(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct depthwise *p = arg;
    for (idx i = begin; i < end; i++) {
        const idx o = i % p->outputs;
        const REAL *x = p->x + i / MAX(1, p->outputs / p->inputs) * p->H * p->W, *w = p->w + o * 9;
        const REAL bias = p->bias ? p->bias[o] : 0;
        REAL *y = p->y + i * p->OH * p->OW;
        for (idx c = p->chunks - 1; c >= 0; c--) {
            const struct chunk chunk = p->chunk[c];
            const vi *mask = p->mask + (c * 3 + 1) * 2;
            if (chunk.inside) halve_chunk(1, 1, p, chunk, mask, x, w, bias, y);
            else halve_chunk(0, 0, p, chunk, mask, x, w, bias, y);
        }
    }
}

/* ---- backward-input, stride 2 ---- */

/* Row u - q of dy adds with the kernel's rows 2q and 2q + 1 to the rows 2u and 2u + 1 of dx, counted from the padding on; so do
   columns, counted from the chunk's first: whether left is odd says which columns of the kernel share a vector v[q][] of dy. */
INLINE void spread_step(const int K, const int odd, vr (*v)[3], const REAL *w, vr (*sum)[2]) {
#pragma GCC unroll 2
    for (int a = 0; a < 2; a++)
#pragma GCC unroll 3
        for (int q = 0; 2 * q + a < K; q++)
#pragma GCC unroll 5
            for (int kw = 0; kw < K; kw++) {
                const vr term = w[(2 * q + a) * K + kw] * v[q][(kw + odd) / 2];
                vr *s = &sum[a][(kw + odd) % 2];
                *s = q == 0 && kw < 2 ? term : *s + term;
            }
}

/* whole: two vectors, that no other plane has a part in. */
INLINE void store_zipped(const int whole, REAL *d, vr even, vr odd, idx n, int more) {
    vr low = SHUFFLE(even, odd, ZIP_DEALT_LOW), high = SHUFFLE(even, odd, ZIP_DEALT_HIGH);
    prefetch_vectors(2, d, AHEAD);
    if (whole) {
        store(d, low), store(d + VL, high);
        return;
    }
    if (more) low += load_part(d, n), high += n > VL ? load_part(d + VL, n - VL) : (vr){0};
    store_part(d, low, n);
    if (n > VL) store_part(d + VL, high, n - VL);
}

INLINE void spread_chunk(const int K, const int odd, const int inside, const int whole, const struct depthwise *p,
                         struct chunk c, const vi *mask, const REAL *x, const REAL *weights, int more, REAL *y) {
    const int last = (K - 1) / 2;
    const struct view view = {x + c.column + p->left / 2 + odd, p->zeros + c.column + p->left / 2 + odd, p->H, p->W, 0, AHEAD};
    const idx top = p->top, OH = p->OH, OW = p->OW, begin = top / 2, end = (OH + top + 1) / 2;
    const idx n = MIN(2 * VL, OW - 2 * c.column);
    REAL w[25];
    vr v[3][3] = {{{0}}}, sum[2][2];
    lanes_seen seen[5];
    see_lanes(K, mask, seen);
    memcpy(w, weights, sizeof(REAL) * (size_t)(K * K));   /* no store can change a copy: it stays in registers */
    y += 2 * c.column;
    for (idx u = begin - last; u < end; u++) {
        const REAL *row = row_of(1, &view, u);
#pragma GCC unroll 3
        for (int i = 0; i <= last; i++) {
#pragma GCC unroll 3
            for (int q = last; q > 0; q--) v[q][i] = v[q - 1][i];
            v[0][i] = as_dealt(load_where(inside, row - i, seen[MAX(0, 2 * i - odd)]));
        }
        if (u < begin) continue;
        spread_step(K, odd, v, w, sum);
#pragma GCC unroll 2
        for (int a = 0; a < 2; a++) {
            const idx to = 2 * u + a - top;
            if (to >= 0 && to < OH) store_zipped(whole, y + to * OW, sum[a][0], sum[a][1], n, more);
        }
    }
}

INLINE void spread_planes(const int K, const int odd, const struct depthwise *p, idx begin, idx end) {
    for (idx i = begin; i < end; i++) {
        const REAL *x = p->x + i * p->fan * p->H * p->W, *w = p->w + i % p->outputs * p->fan * K * K;
        REAL *y = p->y + i * p->OH * p->OW;
        for (idx j = 0; j < p->fan; j++, x += p->H * p->W, w += K * K)
            for (idx c = 0; c < p->chunks; c++) {
                const struct chunk chunk = p->chunk[c];
                const vi *mask = p->mask + c * K;
                const int whole = p->fan == 1 && 2 * (chunk.column + VL) <= p->OW;
                if (whole && chunk.inside) spread_chunk(K, odd, 1, 1, p, chunk, mask, x, w, 0, y);
                else if (whole) spread_chunk(K, odd, 0, 1, p, chunk, mask, x, w, 0, y);
                else spread_chunk(K, odd, 0, 0, p, chunk, mask, x, w, j > 0, y);
            }
    }
}

/* ---- backward-weight ---- */

/* As many of the kernel's rows and columns at a time as there are registers for: with fewer than eight sums, each addition
   waits for the one before. */
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define WEIGHED_ROWS(K, S) (K)
#define WEIGHED_COLUMNS(K, S) ((K) == 7 ? 2 : 3)
#else
#define WEIGHED_ROWS(K, S) ((K) == 5 && (S) == 1 ? 2 : (K))
#define WEIGHED_COLUMNS(K, S) ((K) == 3 ? 3 : (K) == 5 && (S) == 1 ? 5 : 1)
#endif

/* As in convolve_step, with row t - q of dy in d[q]: the rows of dy that there are have from <= q <= to. */
INLINE void weigh_step(const int rows, const int S, const int columns, const int inside, const struct view *view,
                       const lanes_seen *seen, idx t, idx from, idx to, const REAL *dy, idx n, vr *d, vr (*sum)[5]) {
#pragma GCC unroll 7
    for (int q = (rows - 1) / S; q > 0; q--) d[q] = d[q - 1];
    if (from == 0) {
        __builtin_prefetch((const char *)dy + AHEAD);
        d[0] = inside ? load(dy) : load_n(dy, n);
        if (S == 2) d[0] = as_dealt(d[0]);
    }
#pragma GCC unroll 2
    for (int j = 0; j < S; j++) {
        const REAL *row = row_of(S, view, t * S + j);
        vr v[5];
        load_columns(S, columns, inside, row, seen, v);
#pragma GCC unroll 7
        for (int q = 0; q <= (rows - 1) / S; q++)
            if (q * S + j < rows && q >= from && q <= to)
#pragma GCC unroll 5
                for (int u = 0; u < columns; u++) sum[q * S + j][u] += d[q] * v[u];
    }
}

/* From row kh and column kw of the kernel on. */
INLINE void weigh_chunk(const int K, const int S, const int rows, const int columns, const int inside,
                        const struct depthwise *p, struct chunk c, const vi *mask, idx kh, idx kw, const REAL *x,
                        const REAL *dy, vr *sums) {
    const int last = (rows - 1) / S;
    struct view view = view_of(p, x, c.column * S - p->left + kw);
    const idx OH = p->OH, OW = p->OW;
    vr sum[7][5], d[7] = {{0}};
    lanes_seen seen[10];
    see_lanes(columns * S, mask + kw * S, seen);
    view.top -= kh, sums += kh * K + kw;
#pragma GCC unroll 7
    for (int k = 0; k < rows; k++)
#pragma GCC unroll 5
        for (int u = 0; u < columns; u++) sum[k][u] = sums[k * K + u];
    dy += c.column;
    idx t = 0;
    for (; t < MIN(last, OH); t++, dy += OW) weigh_step(rows, S, columns, inside, &view, seen, t, 0, t, dy, c.n, d, sum);
    for (; t < OH; t++, dy += OW) weigh_step(rows, S, columns, inside, &view, seen, t, 0, last, dy, c.n, d, sum);
    for (; t < OH + last; t++)
        weigh_step(rows, S, columns, inside, &view, seen, t, t - OH + 1, MIN(last, t), dy, c.n, d, sum);
#pragma GCC unroll 7
    for (int k = 0; k < rows; k++)
#pragma GCC unroll 5
        for (int u = 0; u < columns; u++) sums[k * K + u] = sum[k][u];
}

INLINE void weigh_rows(const int K, const int S, const int rows, const struct depthwise *p, idx c, idx kh, const REAL *x,
                       const REAL *dy, vr *sums) {
    const int columns = WEIGHED_COLUMNS(K, S), rest = K % columns;
    const struct chunk chunk = p->chunk[c];
    const vi *mask = p->mask + c * K * S;
    for (idx kw = 0; kw < K - rest; kw += columns)
        if (chunk.inside) weigh_chunk(K, S, rows, columns, 1, p, chunk, mask, kh, kw, x, dy, sums);
        else weigh_chunk(K, S, rows, columns, 0, p, chunk, mask, kh, kw, x, dy, sums);
    if (rest && chunk.inside) weigh_chunk(K, S, rows, rest, 1, p, chunk, mask, kh, K - rest, x, dy, sums);
    else if (rest) weigh_chunk(K, S, rows, rest, 0, p, chunk, mask, kh, K - rest, x, dy, sums);
}

/* All images for the output channels [begin, end). */
INLINE void weigh_planes(const int K, const int S, const struct depthwise *p, idx begin, idx end) {
    const int rows = WEIGHED_ROWS(K, S), rest = K % rows;
    idx shared = p->outputs / p->inputs;
    for (idx i = begin * K * K; i < end * K * K; i++) p->sums[i] = (vr){0};
    for (idx n = 0; n < p->N; n++)
        for (idx o = begin; o < end; o++) {
            const REAL *x = p->x + (n * p->inputs + (shared > 1 ? o / shared : o)) * p->H * p->W;
            const REAL *dy = p->dy + (n * p->outputs + o) * p->OH * p->OW;
            vr *sums = p->sums + o * K * K;
            for (idx c = 0; c < p->chunks; c++) {
                for (idx kh = 0; kh < K - rest; kh += rows) weigh_rows(K, S, rows, p, c, kh, x, dy, sums);
                if (rest) weigh_rows(K, S, rest, p, c, K - rest, x, dy, sums);
            }
        }
    for (idx i = begin * K * K; i < end * K * K; i++) p->y[i] = horizontal_sum(p->sums[i]);
}

/* ---- what each kernel size has ---- */

#define KERNELS(K, S) \
    static void convolve_##K##_##S(void *p, idx begin, idx end, int worker) { \
        (void)worker; \
        convolve_planes(K, S, p, begin, end); \
    } \
    static void weigh_##K##_##S(void *p, idx begin, idx end, int worker) { \
        (void)worker; \
        weigh_planes(K, S, p, begin, end); \
    }
#define SPREAD(K) \
    static void spread_##K(void *arg, idx begin, idx end, int worker) { \
        const struct depthwise *p = arg; \
        (void)worker; \
        if (p->left % 2) spread_planes(K, 1, p, begin, end); \
        else spread_planes(K, 0, p, begin, end); \
    }
KERNELS(3, 1) KERNELS(5, 1) KERNELS(7, 1) KERNELS(3, 2) KERNELS(5, 2)
SPREAD(3) SPREAD(5)

static const range_body convolve_bodies[][2] = {{convolve_3_1, convolve_3_2}, {convolve_5_1, convolve_5_2}, {convolve_7_1}};
static const range_body weigh_bodies[][2] = {{weigh_3_1, weigh_3_2}, {weigh_5_1, weigh_5_2}, {weigh_7_1, NULL}};
static const range_body spread_bodies[] = {spread_3, spread_5};

static int is_depthwise(const struct conv_shape *s) {
    return s->C == s->groups && s->KH == s->KW && s->SH == s->SW && s->DH == 1 && s->DW == 1
        && (s->KH == 3 || s->KH == 5 || s->KH == 7) && (s->SH == 1 || (s->SH == 2 && s->KH < 7));
}

static struct depthwise depthwise_of(const struct conv_shape *s) {
    return (struct depthwise){.N = s->N, .outputs = s->F, .inputs = s->C, .fan = 1, .K = s->KH, .S = s->SH,
                              .H = s->H, .W = s->W, .OH = s->OH, .OW = s->OW, .top = s->top, .left = s->left};
}

/* The first column of the image that column 0 of the output reads with column kw of the kernel. */
static idx first_column(const struct depthwise *p, int spreads, idx kw) {
    return spreads ? p->left / 2 - ((kw - p->left % 2) >> 1) : kw - p->left;
}

/* `columns` of the output, or pairs of them. Chunks may overlap where columns may be written twice. */
static void fill_chunks(struct depthwise *p, idx columns, int overlap, int spreads) {
    idx S = spreads ? 1 : p->S;
    vi *mask = p->mask;
    for (struct chunk *c = p->chunk; c < p->chunk + p->chunks; c++) {
        idx column = (c - p->chunk) * (VL - p->halves);
        *c = (struct chunk){overlap ? MAX(0, MIN(column, columns - VL)) : column, MIN(VL, columns - column), 1};
        if (overlap && columns >= VL) c->n = VL;
        for (idx kw = 0; kw < p->K; kw++) {
            idx at = c->column * S + first_column(p, spreads, kw), end = MIN(p->W, at + c->n * S);
            if (!p->halves || kw == 1) c->inside &= at >= 0 && at + S * VL <= p->W && c->n == VL;
            for (idx i = 0; i < S; i++, mask++)
                for (idx l = 0; l < VL; l++) (*mask)[l] = at + i * VL + l >= 0 && at + i * VL + l < end ? -1 : 0;
        }
    }
}

static int run_depthwise(struct depthwise p, range_body body, idx items, idx columns, int spreads) {
    p.chunks = MAX(1, ceil_div(columns - p.halves, VL - p.halves));
    size_t masks = sizeof(vi) * (size_t)(p.chunks * p.K * 2), sums = p.dy ? sizeof(vr) * (size_t)(p.outputs * p.K * p.K) : 0;
    size_t zeros = sizeof(REAL) * (size_t)round_up(p.W, 16), chunks = sizeof(struct chunk) * (size_t)p.chunks;
    char *scratch = scratch_take(masks + sums + zeros + chunks);
    if (!scratch) return CNN_NO_MEMORY;
    p.mask = (vi *)scratch, p.sums = (vr *)(scratch + masks), p.zeros = (REAL *)(scratch + masks + sums);
    p.chunk = (struct chunk *)(scratch + masks + sums + zeros);
    memset(p.zeros, 0, zeros);
    fill_chunks(&p, columns, p.fan == 1 && !p.dy, spreads);
    double work = (double)(p.N * p.outputs * p.OH * p.OW) * (double)(p.K * p.K * p.fan) / (double)items;
    parallel_for(items, grain_of(work / (double)VL), body, &p);
    scratch_give(scratch);
    return CNN_OK;
}

#include "conv_depthwise_small.c"

static int depthwise_forward(const struct conv_shape *s, const REAL *x, const REAL *w, const REAL *b, REAL *y) {
    struct depthwise p = depthwise_of(s);
    p.x = x, p.w = w, p.bias = b, p.y = y;
    if (prefers_lanes(&p)) return run_lanes(&p, convolve_group_bodies[s->KH / 2 - 1], 0);
    p.halves = VL > 2 && s->KH == 3 && s->SH == 2 && s->left == 1;
    return run_depthwise(p, p.halves ? halve_planes : convolve_bodies[s->KH / 2 - 1][s->SH - 1], s->N * s->F, s->OW, 0);
}

static int depthwise_backward_input(const struct conv_shape *s, const REAL *dy, const REAL *w, REAL *dx) {
    struct depthwise p = depthwise_of(s);
    p.x = dy, p.w = w, p.y = dx, p.H = s->OH, p.W = s->OW, p.OH = s->H, p.OW = s->W;
    p.outputs = s->C, p.inputs = s->F, p.fan = s->F / s->C;
    if (s->SH == 2) return run_depthwise(p, spread_bodies[s->KH / 2 - 1], s->N * s->C, ceil_div(s->W, 2), 1);
    p.top = s->KH - 1 - s->top, p.left = s->KW - 1 - s->left;
    if (prefers_lanes(&p)) return run_lanes(&p, convolve_group_bodies[s->KH / 2 - 1], 1);
    idx taps = s->KH * s->KW;
    REAL *turned = scratch_take(sizeof(REAL) * (size_t)(s->F * taps));
    if (!turned) return CNN_NO_MEMORY;
    for (idx f = 0; f < s->F; f++)
        for (idx k = 0; k < taps; k++) turned[f * taps + k] = w[f * taps + taps - 1 - k];
    p.w = turned;
    int status = run_depthwise(p, convolve_bodies[s->KH / 2 - 1][0], s->N * s->C, s->W, 0);
    scratch_give(turned);
    return status;
}

static int depthwise_backward_weight(const struct conv_shape *s, const REAL *dy, const REAL *x, REAL *dw) {
    struct depthwise p = depthwise_of(s);
    p.x = x, p.dy = dy, p.y = dw;
    if (prefers_lanes(&p)) return run_lanes(&p, weigh_group_bodies[s->KH / 2 - 1], 0);
    return run_depthwise(p, weigh_bodies[s->KH / 2 - 1][s->SH - 1], s->F, s->OW, 0);
}
