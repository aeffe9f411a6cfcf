/* Pooling, of VL planes side by side: a band of their rows is transposed into scratch, where lane i belongs to plane i. A
   window is then a loop over whole vectors, whatever its size, stride and padding, and small maps need no other code. Threads
   split the groups of VL planes and their bands; no sum crosses a band. */

struct span { idx begin, end; };   /* [begin, end) */

/* What is pooled at a time. In scratch, element (r, w) of the image is image[(r - in.begin) * W + w] (a second one may stand
   beside it), output (oh, ow) is out[(oh - outs.begin) * OW + ow], and its argmax stands at the same place of index. */
struct band {
    idx plane, lanes;        /* the first plane; how many, at most VL */
    struct span in, outs;    /* rows of the image and of outputs */
    idx ahead;               /* elements from its image to the next one */
    vr *image, *second, *out;
    vi *index;
};

struct pool_call {
    struct pool_shape s;
    void (*pool)(const struct pool_call *c, const struct band *b);
    int backward;
    const REAL *x, *y, *dy;
    REAL *result;            /* y or dx */
    uint8_t *argmax;
    int count_include_pad;
    double p;
    idx rows, bands;         /* rows in a band, of y or (backward) of dx; bands in a plane */
    idx in_size, out_size;   /* vectors of scratch */
    vr *scratch;
};

/* ---- between planes and lanes ---- */

enum { SLACK = 16 };   /* vectors that a transposition may write too many */

/* VL elements of VL planes. */
INLINE void read_square(const REAL *p, idx step, idx ahead, vr *to) {
    vr v[VL];
#pragma GCC unroll 16
    for (idx l = 0; l < VL; l++, p += step) v[l] = load(p), __builtin_prefetch(p + ahead);
    transpose(v);
#pragma GCC unroll 16
    for (idx l = 0; l < VL; l++) to[l] = v[l];
}
INLINE void write_square(const vr *from, idx step, idx ahead, REAL *p) {
    vr v[VL];
#pragma GCC unroll 16
    for (idx l = 0; l < VL; l++) v[l] = from[l];
    transpose(v);
#pragma GCC unroll 16
    for (idx l = 0; l < VL; l++, p += step) store(p, v[l]), __builtin_prefetch(p + ahead, 1);
}
/* At the edges: n elements of `lanes` planes. */
static void read_part(const REAL *p, idx lanes, idx step, idx n, vr *to) {
    for (idx l = 0; l < VL; l++, p += l < lanes ? step : 0) to[l] = load_part(p, n);
    transpose(to);
}
static void write_part(const vr *from, idx lanes, idx step, idx n, REAL *p) {
    vr v[VL];
    memcpy(v, from, sizeof v);
    transpose(v);
    for (idx l = 0; l < lanes; l++, p += step) store_part(p, v[l], n);
}

/* Elements [0, n) of `lanes` planes, `step` apart; of the array, the part before `end` may be read. What is read next begins
   `ahead` elements further. */
static void read_planes(const REAL *from, const REAL *end, idx lanes, idx step, idx n, idx ahead, vr *to) {
    const int whole = step == n && lanes == VL;
    if (whole && n == 1) to[0] = load(from);
    else if (whole && n == 4) {
        vr v[4] = {load(from), load(from + VL), load(from + 2 * VL), load(from + 3 * VL)};
        unzip(v, 4);
        to[0] = v[0], to[1] = v[1], to[2] = v[2], to[3] = v[3];
    } else
        for (idx i = 0; i < n; i += VL)
            if (lanes == VL && end - from - i >= (VL - 1) * step + VL) read_square(from + i, step, ahead, to + i);
            else read_part(from + i, lanes, step, n - i, to + i);
}

static void write_planes(const vr *from, idx lanes, idx step, idx n, idx ahead, REAL *to) {
    const int whole = step == n && lanes == VL;
    if (whole && n == 1) store(to, from[0]);
    else if (whole && n == 4) {
        vr v[4] = {from[0], from[1], from[2], from[3]};
        zip(v, 4);
        store(to, v[0]), store(to + VL, v[1]), store(to + 2 * VL, v[2]), store(to + 3 * VL, v[3]);
    } else
        for (idx i = 0; i < n; i += VL)
            if (lanes == VL && n - i >= VL) write_square(from + i, step, ahead, to + i);
            else write_part(from + i, lanes, step, n - i, to + i);
}

static idx plane_size(const struct pool_shape *s) { return s->H * s->W; }
static idx output_size(const struct pool_shape *s) { return s->OH * s->OW; }

static idx image_count(const struct pool_call *c, const struct band *b) { return (b->in.end - b->in.begin) * c->s.W; }
static idx output_count(const struct pool_call *c, const struct band *b) { return (b->outs.end - b->outs.begin) * c->s.OW; }

static void read_image(const struct pool_call *c, const struct band *b, const REAL *x, vr *to) {
    const struct pool_shape *s = &c->s;
    const REAL *from = x + b->plane * plane_size(s) + b->in.begin * s->W;
    read_planes(from, x + s->planes * plane_size(s), b->lanes, plane_size(s), image_count(c, b), b->ahead, to);
}
static void write_image(const struct pool_call *c, const struct band *b) {
    const struct pool_shape *s = &c->s;
    write_planes(b->image, b->lanes, plane_size(s), image_count(c, b), b->ahead,
                 c->result + b->plane * plane_size(s) + b->in.begin * s->W);
}
static void read_outputs(const struct pool_call *c, const struct band *b, const REAL *y, vr *to) {
    const struct pool_shape *s = &c->s;
    const REAL *from = y + b->plane * output_size(s) + b->outs.begin * s->OW;
    read_planes(from, y + s->planes * output_size(s), b->lanes, output_size(s), output_count(c, b), 0, to);
}
static void write_outputs(const struct pool_call *c, const struct band *b) {
    const struct pool_shape *s = &c->s;
    write_planes(b->out, b->lanes, output_size(s), output_count(c, b), 0,
                 c->result + b->plane * output_size(s) + b->outs.begin * s->OW);
}

/* Indices are moved as words as large as a REAL, each of which holds `packed` of one plane. */
static idx bytes_of_index(const struct pool_shape *s) { return s->KH * s->KW <= 256 ? 1 : 4; }

static void write_indices(const struct pool_call *c, const struct band *b) {
    const idx item = bytes_of_index(&c->s), step = output_size(&c->s) * item, packed = (idx)sizeof(REAL) / item;
    const idx bytes = output_count(c, b) * item;
    uint8_t *to = c->argmax + b->plane * step + b->outs.begin * c->s.OW * item;
    if (step == 1) {
        store_bytes(to, b->index[0], b->lanes);
        return;
    }
    vi *words = b->index;
    for (idx w = 0; w * (idx)sizeof(REAL) < bytes; w++) {
        vi word = b->index[w * packed];
        for (idx j = 1; j < packed; j++) word |= b->index[w * packed + j] << (int)(8 * item * j);
        words[w] = word;
    }
    for (idx i = 0; i * (idx)sizeof(REAL) < bytes; i += VL) {
        transpose((vr *)words + i);
        const idx left = bytes - i * (idx)sizeof(REAL);
        for (idx l = 0; l < b->lanes; l++)
            store_start(to + l * step + i * (idx)sizeof(REAL), (vr)words[i + l], MIN(left, VECTOR_BYTES));
    }
}

static void read_indices(const struct pool_call *c, const struct band *b) {
    const idx item = bytes_of_index(&c->s), step = output_size(&c->s) * item, packed = (idx)sizeof(REAL) / item;
    const idx bytes = output_count(c, b) * item;
    const uint8_t *from = c->argmax + b->plane * step + b->outs.begin * c->s.OW * item, *end = c->argmax + c->s.planes * step;
    if (step == 1) {
        b->index[0] = load_bytes(from, b->lanes);
        return;
    }
    vi *words = b->index;
    for (idx i = 0; i * (idx)sizeof(REAL) < bytes; i += VL) {
        for (idx l = 0; l < VL; l++) {
            const uint8_t *p = from + MIN(l, b->lanes - 1) * step + i * (idx)sizeof(REAL);
            memcpy(words + i + l, p, (size_t)MIN(VECTOR_BYTES, end - p));
        }
        transpose((vr *)words + i);
    }
    if (packed == 1) return;
    const integer mask = item == 1 ? 255 : INT32_MAX;
    for (idx w = (bytes - 1) / (idx)sizeof(REAL); w >= 0; w--) {
        const vi word = words[w];
        for (idx j = packed - 1; j >= 0; j--) b->index[w * packed + j] = word >> (int)(8 * item * j) & mask;
    }
}

/* ---- windows ---- */

/* Offsets inside the window at output o that fall into [in.begin, in.end). */
INLINE struct span inside(idx o, idx stride, idx before, idx reach, struct span in) {
    idx start = o * stride - before;
    return (struct span){MAX(0, in.begin - start), MIN(reach, in.end - start)};
}
static struct span rows_of_window(const struct pool_shape *s, idx oh, struct span in) {
    return inside(oh, s->SH, s->top, s->KH, in);
}
static struct span columns_of_window(const struct pool_shape *s, idx ow) {
    return inside(ow, s->SW, s->left, s->KW, (struct span){0, s->W});
}

/* Outputs whose windows need no clipping at left or right. */
static struct span unclipped_columns(const struct pool_shape *s) {
    const idx begin = MIN(s->OW, (s->left + s->SW - 1) / s->SW), room = s->W + s->left - s->KW;
    const idx end = room < 0 ? 0 : MIN(s->OW, room / s->SW + 1);
    return (struct span){begin, MAX(begin, end)};
}

struct window { idx at; struct span rows, columns; };   /* at: place of its first element in b->image, or outside of that */

/* each(c, b, window, KH, KW, o) for every output o of the band. Whole windows of 2 x 2 and 3 x 3 are compiled on their own. */
#define FOR_WINDOWS(name, each)                                                                                       \
    INLINE void name##_windows(const struct pool_call *c, const struct band *b, const idx KH, const idx KW) {        \
        const struct pool_shape *s = &c->s;                                                                          \
        const struct span unclipped = unclipped_columns(s);                                                          \
        for (idx oh = b->outs.begin, o = 0; oh < b->outs.end; oh++) {                                                \
            const struct span rows = rows_of_window(s, oh, b->in);                                                   \
            const idx at = (oh * s->SH - s->top - b->in.begin) * s->W - s->left;                                     \
            const int whole = rows.end - rows.begin == KH;                                                           \
            for (idx ow = 0; ow < s->OW; ow++, o++) {                                                                \
                for (; whole && ow >= unclipped.begin && ow < unclipped.end; ow++, o++)                              \
                    each(c, b, (struct window){at + ow * s->SW, {0, KH}, {0, KW}}, KH, KW, o);                       \
                if (ow < s->OW)                                                                                      \
                    each(c, b, (struct window){at + ow * s->SW, rows, columns_of_window(s, ow)}, KH, KW, o);         \
                else break;                                                                                          \
            }                                                                                                        \
        }                                                                                                            \
    }                                                                                                                \
    static void name##_of_band(const struct pool_call *c, const struct band *b) {                                    \
        if (c->s.KH == 2 && c->s.KW == 2) name##_windows(c, b, 2, 2);                                                \
        else if (c->s.KH == 3 && c->s.KW == 3) name##_windows(c, b, 3, 3);                                           \
        else name##_windows(c, b, c->s.KH, c->s.KW);                                                                 \
    }
#define FOR_ELEMENTS(w, kh, kw)                                  \
    for (idx kh = w.rows.begin; kh < w.rows.end; kh++)          \
        for (idx kw = w.columns.begin; kw < w.columns.end; kw++)

/* ---- bands ---- */

enum { BAND_BYTES = 16384 };   /* of the image in scratch: it shares the first-level cache with what is read and written */

static void pool_bands(void *arg, idx begin, idx end, int worker) {
    const struct pool_call *c = arg;
    const struct pool_shape *s = &c->s;
    vr *scratch = c->scratch + worker * 2 * (c->in_size + c->out_size);
    for (idx i = begin; i < end; i++) {
        const idx plane = i / c->bands * VL, row = i % c->bands * c->rows;
        struct band b = {.plane = plane, .lanes = MIN(VL, s->planes - plane), .image = scratch,
                         .second = scratch + c->in_size, .out = scratch + 2 * c->in_size,
                         .index = (vi *)(scratch + 2 * c->in_size + c->out_size)};
        if (c->backward) {
            b.in = (struct span){row, MIN(s->H, row + c->rows)};
            const idx last = (b.in.end - 1 + s->top) / s->SH;
            b.outs = (struct span){MAX(0, row + s->top - s->KH + s->SH) / s->SH, MIN(s->OH, last + 1)};
            b.outs.end = MAX(b.outs.begin, b.outs.end);
        } else {
            b.outs = (struct span){row, MIN(s->OH, row + c->rows)};
            b.in = (struct span){MAX(0, row * s->SH - s->top), MIN(s->H, (b.outs.end - 1) * s->SH - s->top + s->KH)};
        }
        const idx next = (i + 1) % c->bands ? c->rows * (c->backward ? 1 : s->SH) : VL * s->H - b.in.begin;
        b.ahead = next * s->W;
        c->pool(c, &b);
    }
}

static int run_pool(struct pool_call *c, const struct pool_shape *shape) {
    struct pool_shape *s = &c->s;
    *s = *shape;
    if (s->H == 1 && s->KH == 1 && s->OH == 1 && !s->top) {   /* a signal: as a column, it has bands */
        s->H = s->W, s->KH = s->KW, s->OH = s->OW, s->SH = s->SW, s->top = s->left;
        s->W = s->KW = s->OW = s->SW = 1, s->left = 0;
    }
    if (!s->planes || !plane_size(s) || !output_size(s)) return CNN_OK;
    const idx all = c->backward ? s->H : s->OH;
    const idx room = MAX(2 * s->SH, BAND_BYTES / VECTOR_BYTES / s->W);   /* for rows of the image */
    c->rows = c->backward ? room - room % s->SH : MAX(1, (room - s->KH) / s->SH + 1);
    c->bands = (all + c->rows - 1) / c->rows;
    c->rows = (all + c->bands - 1) / c->bands;
    const idx in_rows = c->backward ? c->rows : (c->rows - 1) * s->SH + s->KH;
    const idx out_rows = c->backward ? (c->rows + s->KH - 2) / s->SH + 1 : c->rows;
    c->in_size = MIN(s->H, in_rows) * s->W + SLACK, c->out_size = MIN(s->OH, out_rows) * s->OW + SLACK;

    const idx items = (s->planes + VL - 1) / VL * c->bands;
    const double windows = (double)output_size(s) * (double)(s->KH * s->KW) / 4;
    const idx grain = grain_of((double)VL * ((double)plane_size(s) + windows) / (double)c->bands);
    const size_t vectors = (size_t)(2 * (c->in_size + c->out_size));
    c->scratch = scratch_take(sizeof(vr) * vectors * (size_t)parallel_workers(items, grain));
    if (!c->scratch) return CNN_NO_MEMORY;
    parallel_for(items, grain, pool_bands, c);
    scratch_give(c->scratch);
    return CNN_OK;
}

#include "pool_rows.c"

/* ---- max pooling ---- */

INLINE void max_of_window(const struct pool_call *c, const struct band *b, struct window w, const idx KH, const idx KW, idx o) {
    (void)KH;
    vr best = broadcast(-INFINITY);
    vi winner = (integer)(w.rows.begin * KW + w.columns.begin) - (vi){0};
    FOR_ELEMENTS(w, kh, kw) keep_greater(b->image[w.at + kh * c->s.W + kw], (integer)(kh * KW + kw), &best, &winner);
    b->out[o] = best, b->index[o] = winner;
}
FOR_WINDOWS(max, max_of_window)

INLINE void max_or_nan_of_window(const struct pool_call *c, const struct band *b, struct window w, const idx KH, const idx KW,
                                 idx o) {
    (void)KH;
    vr best = broadcast(-INFINITY);
    vi winner = (integer)(w.rows.begin * KW + w.columns.begin) - (vi){0};
    FOR_ELEMENTS(w, kh, kw) keep_larger(b->image[w.at + kh * c->s.W + kw], (integer)(kh * KW + kw), &best, &winner);
    b->out[o] = best, b->index[o] = winner;
}
FOR_WINDOWS(max_or_nan, max_or_nan_of_window)

static int may_hold_nan(const vr *v, idx n) {   /* also true for infinity */
    vr sums[4] = {{0}};
    idx i = 0;
    for (; i + 4 <= n; i += 4)
        for (idx j = 0; j < 4; j++) sums[j] += v[i + j] * 0;
    for (; i < n; i++) sums[0] += v[i] * 0;
    const vr sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return any(sum != sum);
}

static void max_pool_band(const struct pool_call *c, const struct band *b) {
    read_image(c, b, c->x, b->image);
    if (may_hold_nan(b->image, image_count(c, b))) max_or_nan_of_band(c, b);
    else max_of_band(c, b);
    write_outputs(c, b);
    write_indices(c, b);
}
static int max_pool2d(const struct pool_shape *s, const void *x, void *y, void *argmax) {
    struct pool_call c = {.pool = max_pool_band, .x = x, .result = y, .argmax = argmax};
    if (is_3x3_of_strips(s)) return run_on_planes(&c, s, max_pool_3x3_planes);
    if (is_short_3x3(s)) return run_on_planes(&c, s, max_pool_3x3_short_planes);
    if (is_narrow_2x2(s)) return run_on_planes(&c, s, max_pool_2x2_narrow_planes);
    return is_wide_2x2(s) ? run_on_planes(&c, s, max_pool_2x2_planes) : run_pool(&c, s);
}

INLINE void send_to_winner(const struct pool_call *c, const struct band *b, struct window w, const idx KH, const idx KW,
                           idx o) {
    const int alone = KH <= c->s.SH && KW <= c->s.SW;   /* no other window has a share in these elements */
    const vr dy = b->out[o];
    const vi winner = b->index[o];
    FOR_ELEMENTS(w, kh, kw) {
        vr *dx = &b->image[w.at + kh * c->s.W + kw];
        const vr sent = (vr)((vi)dy & (winner == (integer)(kh * KW + kw)));
        *dx = alone ? sent : *dx + sent;
    }
}
FOR_WINDOWS(send, send_to_winner)

static void clear_image(const struct pool_call *c, const struct band *b) {
    memset(b->image, 0, sizeof(vr) * (size_t)image_count(c, b));
}
static void max_pool_backward_band(const struct pool_call *c, const struct band *b) {
    clear_image(c, b);
    read_outputs(c, b, c->dy, b->out);
    read_indices(c, b);
    send_of_band(c, b);
    write_image(c, b);
}
static int max_pool2d_backward(const struct pool_shape *s, const void *dy, const void *argmax, void *dx) {
    struct pool_call c = {.pool = max_pool_backward_band, .backward = 1, .dy = dy, .argmax = (uint8_t *)argmax, .result = dx};
    if (is_wide_3x3(s)) return run_on_planes(&c, s, max_pool_3x3_backward_planes);
    if (is_narrow_3x3(s)) return run_on_planes(&c, s, max_pool_3x3_backward_narrow_planes);
    if (is_narrow_2x2(s)) return run_on_planes(&c, s, max_pool_2x2_backward_narrow_planes);
    return is_wide_2x2(s) ? run_on_planes(&c, s, max_pool_2x2_backward_planes) : run_pool(&c, s);
}

/* ---- average pooling ---- */

INLINE void sum_of_window(const struct pool_call *c, const struct band *b, struct window w, const idx KH, const idx KW, idx o) {
    (void)KH, (void)KW;
    vr sum = {0};
    FOR_ELEMENTS(w, kh, kw) sum += b->image[w.at + kh * c->s.W + kw];
    b->out[o] = sum;
}
FOR_WINDOWS(sum, sum_of_window)

INLINE void spread_over_window(const struct pool_call *c, const struct band *b, struct window w, const idx KH, const idx KW,
                               idx o) {
    const int alone = KH <= c->s.SH && KW <= c->s.SW;
    const vr share = b->out[o];
    FOR_ELEMENTS(w, kh, kw) {
        vr *dx = &b->image[w.at + kh * c->s.W + kw];
        *dx = alone ? share : *dx + share;
    }
}
FOR_WINDOWS(spread, spread_over_window)

INLINE void divide_by_count(const struct pool_call *c, const struct band *b, struct window w, const idx KH, const idx KW,
                            idx o) {
    const struct pool_shape *s = &c->s;
    idx rows = w.rows.end - w.rows.begin, columns = w.columns.end - w.columns.begin;
    if (c->count_include_pad || (rows == KH && columns == KW)) rows = KH, columns = KW;
    else if (c->backward) {   /* of the window's rows, the band may have only some */
        const struct span inside = rows_of_window(s, b->outs.begin + o / s->OW, (struct span){0, s->H});
        rows = inside.end - inside.begin;
    }
    b->out[o] /= (REAL)(rows * columns);
}
FOR_WINDOWS(divide, divide_by_count)

static void avg_pool_band(const struct pool_call *c, const struct band *b) {
    read_image(c, b, c->x, b->image);
    sum_of_band(c, b);
    divide_of_band(c, b);
    write_outputs(c, b);
}
static int avg_pool2d(const struct pool_shape *s, int count_include_pad, const void *x, void *y) {
    struct pool_call c = {.pool = avg_pool_band, .x = x, .result = y, .count_include_pad = count_include_pad};
    if (is_global(s)) return run_on_planes(&c, s, avg_pool_global_planes);
    return is_wide_2x2(s) ? run_on_planes(&c, s, avg_pool_2x2_planes) : run_pool(&c, s);
}

static void avg_pool_backward_band(const struct pool_call *c, const struct band *b) {
    clear_image(c, b);
    read_outputs(c, b, c->dy, b->out);
    divide_of_band(c, b);
    spread_of_band(c, b);
    write_image(c, b);
}
static int avg_pool2d_backward(const struct pool_shape *s, int count_include_pad, const void *dy, void *dx) {
    struct pool_call c = {.pool = avg_pool_backward_band, .backward = 1, .dy = dy, .result = dx,
                          .count_include_pad = count_include_pad};
    return is_wide_2x2(s) ? run_on_planes(&c, s, avg_pool_2x2_backward_planes) : run_pool(&c, s);
}

/* ---- Lp pooling ---- */

INLINE vr power_of(vr x, double p) {   /* x >= 0 */
    return p == 0 ? broadcast(1) : p == 1 ? x : p == 2 ? x * x : p == 0.5 ? vsqrt(x) : vexp((REAL)p * vlog(x));
}
static void lp_pool_band(const struct pool_call *c, const struct band *b) {
    read_image(c, b, c->x, b->image);
    for (idx i = 0; i < image_count(c, b); i++) b->image[i] = power_of(vabs(b->image[i]), c->p);
    sum_of_band(c, b);
    for (idx o = 0; o < output_count(c, b); o++) b->out[o] = power_of(b->out[o], 1 / c->p);
    write_outputs(c, b);
}
static int lp_pool2d(const struct pool_shape *s, double p, const void *x, void *y) {
    struct pool_call c = {.pool = lp_pool_band, .x = x, .result = y, .p = p};
    return run_pool(&c, s);
}

/* dx = sign(x) |x|^(p-1) (sum over windows of dy y^(1-p)) */
static void lp_pool_backward_band(const struct pool_call *c, const struct band *b) {
    vr *norm = (vr *)b->index, *x = b->second;
    const double e = c->p - 1;
    clear_image(c, b);
    read_outputs(c, b, c->dy, b->out);
    read_outputs(c, b, c->y, norm);
    for (idx o = 0; o < output_count(c, b); o++)
        b->out[o] = choose(norm[o] == 0, (vr){0}, b->out[o] / power_of(norm[o], e));
    spread_of_band(c, b);
    read_image(c, b, c->x, x);
    for (idx i = 0; i < image_count(c, b); i++) {
        vr factor = e == 0 ? choose(x[i] == 0, x[i], broadcast(1)) : power_of(vabs(x[i]), e);
        b->image[i] *= choose(x[i] == x[i], copy_sign(factor, x[i]), x[i]);
    }
    write_image(c, b);
}
static int lp_pool2d_backward(const struct pool_shape *s, double p, const void *dy, const void *x, const void *y, void *dx) {
    struct pool_call c = {.pool = lp_pool_backward_band, .backward = 1, .dy = dy, .x = x, .y = y, .result = dx, .p = p};
    return run_pool(&c, s);
}

static const struct pool_kernels pool_kernels = {
    .max_pool2d = max_pool2d,
    .max_pool2d_backward = max_pool2d_backward,
    .avg_pool2d = avg_pool2d,
    .avg_pool2d_backward = avg_pool2d_backward,
    .lp_pool2d = lp_pool2d,
    .lp_pool2d_backward = lp_pool2d_backward,
};
