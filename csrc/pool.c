/* Pooling, of VL planes side by side: a band of their rows is transposed into scratch, where lane i belongs to plane i. A window
   is then a loop over whole vectors, whatever its size, stride and padding, and small maps run as fast as large ones. Threads
   split the groups of VL planes and their bands; no sum crosses a band. */

struct span { idx begin, end; };   /* [begin, end) */

/* What is pooled at a time. In scratch, element (r, w) of the image is image[(r - in.begin) * W + w] (a second one may stand beside it), output (oh, ow) is
   out[(oh - outs.begin) * OW + ow], and its argmax stands at the same place of index. */
struct band {
    idx plane, lanes;        /* the first plane; how many, at most VL */
    struct span in, outs;    /* rows of the image and of outputs */
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

/* Elements [0, n) of `lanes` planes, `step` apart; of the array, the part before `end` may be read. */
static void read_planes(const REAL *from, const REAL *end, idx lanes, idx step, idx n, vr *to) {
    const int whole = step == n && lanes == VL;
    if (whole && n == 1) to[0] = load(from);
    else if (whole && n == 4) {
        for (idx i = 0; i < 4; i++) to[i] = load(from + i * VL);
        unzip(to, 4);
    } else
        for (idx i = 0; i < n; i += VL) {
            const REAL *p = from + i;
            if (lanes == VL && end - p >= (VL - 1) * step + VL)
                for (idx l = 0; l < VL; l++) to[i + l] = load(p + l * step);
            else
                for (idx l = 0; l < VL; l++) to[i + l] = load_part(p + MIN(l, lanes - 1) * step, n - i);
            transpose(to + i);
        }
}

static void write_planes(const vr *from, idx lanes, idx step, idx n, REAL *to) {
    const int whole = step == n && lanes == VL;
    if (whole && n == 1) store(to, from[0]);
    else if (whole && n == 4) {
        vr v[4] = {from[0], from[1], from[2], from[3]};
        zip(v, 4);
        for (idx i = 0; i < 4; i++) store(to + i * VL, v[i]);
    } else
        for (idx i = 0; i < n; i += VL) {
            vr v[VL];
            for (idx l = 0; l < VL; l++) v[l] = from[i + l];
            transpose(v);
            if (lanes == VL && n - i >= VL)
                for (idx l = 0; l < VL; l++) store(to + i + l * step, v[l]);
            else
                for (idx l = 0; l < lanes; l++) store_part(to + i + l * step, v[l], n - i);
        }
}

static idx plane_size(const struct pool_shape *s) { return s->H * s->W; }
static idx output_size(const struct pool_shape *s) { return s->OH * s->OW; }

static idx image_count(const struct pool_call *c, const struct band *b) { return (b->in.end - b->in.begin) * c->s.W; }
static idx output_count(const struct pool_call *c, const struct band *b) { return (b->outs.end - b->outs.begin) * c->s.OW; }

static void read_image(const struct pool_call *c, const struct band *b, const REAL *x, vr *to) {
    const struct pool_shape *s = &c->s;
    const REAL *from = x + b->plane * plane_size(s) + b->in.begin * s->W;
    read_planes(from, x + s->planes * plane_size(s), b->lanes, plane_size(s), image_count(c, b), to);
}
static void write_image(const struct pool_call *c, const struct band *b) {
    const struct pool_shape *s = &c->s;
    write_planes(b->image, b->lanes, plane_size(s), image_count(c, b),
                 c->result + b->plane * plane_size(s) + b->in.begin * s->W);
}
static void read_outputs(const struct pool_call *c, const struct band *b, const REAL *y, vr *to) {
    const struct pool_shape *s = &c->s;
    const REAL *from = y + b->plane * output_size(s) + b->outs.begin * s->OW;
    read_planes(from, y + s->planes * output_size(s), b->lanes, output_size(s), output_count(c, b), to);
}
static void write_outputs(const struct pool_call *c, const struct band *b) {
    const struct pool_shape *s = &c->s;
    write_planes(b->out, b->lanes, output_size(s), output_count(c, b),
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
        for (idx l = 0; l < b->lanes; l++) store_start(to + l * step + i * (idx)sizeof(REAL), (vr)words[i + l], MIN(left, VECTOR_BYTES));
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

/* Calls each(window, rows, columns, o) for every output o of the band: `window` is the place in b->image of the window's first
   element, even where that is outside of it. `name` compiles windows of 2 x 2 and 3 x 3 without clipping on their own. */
#define FOR_WINDOWS(name, each)                                                                                   \
    INLINE void name##_windows(const struct pool_call *c, const struct band *b, const idx KH, const idx KW) {    \
        const struct pool_shape *s = &c->s;                                                                      \
        for (idx oh = b->outs.begin, o = 0; oh < b->outs.end; oh++) {                                            \
            const struct span rows = rows_of_window(s, oh, b->in);                                               \
            for (idx ow = 0; ow < s->OW; ow++, o++) {                                                            \
                const struct span columns = columns_of_window(s, ow);                                            \
                const idx window = (oh * s->SH - s->top - b->in.begin) * s->W + ow * s->SW - s->left;            \
                if (rows.end - rows.begin == KH && columns.end - columns.begin == KW)                            \
                    each(c, b, window, (struct span){0, KH}, (struct span){0, KW}, KW, o);                       \
                else each(c, b, window, rows, columns, KW, o);                                                   \
            }                                                                                                    \
        }                                                                                                        \
    }                                                                                                            \
    static void name##_of_band(const struct pool_call *c, const struct band *b) {                                \
        if (c->s.KH == 2 && c->s.KW == 2) name##_windows(c, b, 2, 2);                                            \
        else if (c->s.KH == 3 && c->s.KW == 3) name##_windows(c, b, 3, 3);                                       \
        else name##_windows(c, b, c->s.KH, c->s.KW);                                                             \
    }

/* ---- bands ---- */

enum { BAND_BYTES = 32768 };   /* of the image in scratch: about what the first-level cache holds */

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
            b.outs = (struct span){MAX(0, row + s->top - s->KH + s->SH) / s->SH, MIN(s->OH, (b.in.end - 1 + s->top) / s->SH + 1)};
            b.outs.end = MAX(b.outs.begin, b.outs.end);
        } else {
            b.outs = (struct span){row, MIN(s->OH, row + c->rows)};
            b.in = (struct span){MAX(0, row * s->SH - s->top), MIN(s->H, (b.outs.end - 1) * s->SH - s->top + s->KH)};
        }
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
    const idx all = c->backward ? s->H : s->OH, room = MAX(1, BAND_BYTES / VECTOR_BYTES / s->W);   /* room: rows of the image */
    c->rows = c->backward ? room : MAX(1, (room - s->KH) / s->SH + 1);
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

/* ---- max pooling ---- */

INLINE void max_of_window(const struct pool_call *c, const struct band *b, idx window, struct span rows, struct span columns,
                          const idx KW, idx o) {
    vr best = broadcast(-INFINITY);
    vi winner = (integer)(rows.begin * KW + columns.begin) - (vi){0};
    for (idx kh = rows.begin; kh < rows.end; kh++)
        for (idx kw = columns.begin; kw < columns.end; kw++)
            keep_larger(b->image[window + kh * c->s.W + kw], (integer)(kh * KW + kw), &best, &winner);
    b->out[o] = best, b->index[o] = winner;
}
FOR_WINDOWS(max, max_of_window)

static void max_pool_band(const struct pool_call *c, const struct band *b) {
    read_image(c, b, c->x, b->image);
    max_of_band(c, b);
    write_outputs(c, b);
    write_indices(c, b);
}
static int max_pool2d(const struct pool_shape *s, const void *x, void *y, void *argmax) {
    struct pool_call c = {.pool = max_pool_band, .x = x, .result = y, .argmax = argmax};
    return run_pool(&c, s);
}

INLINE void send_to_winner(const struct pool_call *c, const struct band *b, idx window, struct span rows, struct span columns,
                           const idx KW, idx o) {
    const vr dy = b->out[o];
    const vi winner = b->index[o];
    for (idx kh = rows.begin; kh < rows.end; kh++)
        for (idx kw = columns.begin; kw < columns.end; kw++)
            b->image[window + kh * c->s.W + kw] += (vr)((vi)dy & (winner == (integer)(kh * KW + kw)));
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
    return run_pool(&c, s);
}

/* ---- average pooling ---- */

INLINE void sum_of_window(const struct pool_call *c, const struct band *b, idx window, struct span rows, struct span columns,
                          const idx KW, idx o) {
    (void)KW;
    vr sum = {0};
    for (idx kh = rows.begin; kh < rows.end; kh++)
        for (idx kw = columns.begin; kw < columns.end; kw++) sum += b->image[window + kh * c->s.W + kw];
    b->out[o] = sum;
}
FOR_WINDOWS(sum, sum_of_window)

INLINE void spread_over_window(const struct pool_call *c, const struct band *b, idx window, struct span rows,
                               struct span columns, const idx KW, idx o) {
    (void)KW;
    const vr share = b->out[o];
    for (idx kh = rows.begin; kh < rows.end; kh++)
        for (idx kw = columns.begin; kw < columns.end; kw++) b->image[window + kh * c->s.W + kw] += share;
}
FOR_WINDOWS(spread, spread_over_window)

static void divide_by_counts(const struct pool_call *c, const struct band *b) {
    const struct pool_shape *s = &c->s;
    for (idx oh = b->outs.begin, o = 0; oh < b->outs.end; oh++) {
        const struct span rows = rows_of_window(s, oh, (struct span){0, s->H});
        for (idx ow = 0; ow < s->OW; ow++, o++) {
            const struct span columns = columns_of_window(s, ow);
            const idx inside = (rows.end - rows.begin) * (columns.end - columns.begin);
            b->out[o] /= (REAL)(c->count_include_pad ? s->KH * s->KW : inside);
        }
    }
}

static void avg_pool_band(const struct pool_call *c, const struct band *b) {
    read_image(c, b, c->x, b->image);
    sum_of_band(c, b);
    divide_by_counts(c, b);
    write_outputs(c, b);
}
static int avg_pool2d(const struct pool_shape *s, int count_include_pad, const void *x, void *y) {
    struct pool_call c = {.pool = avg_pool_band, .x = x, .result = y, .count_include_pad = count_include_pad};
    return run_pool(&c, s);
}

static void avg_pool_backward_band(const struct pool_call *c, const struct band *b) {
    clear_image(c, b);
    read_outputs(c, b, c->dy, b->out);
    divide_by_counts(c, b);
    spread_of_band(c, b);
    write_image(c, b);
}
static int avg_pool2d_backward(const struct pool_shape *s, int count_include_pad, const void *dy, void *dx) {
    struct pool_call c = {.pool = avg_pool_backward_band, .backward = 1, .dy = dy, .result = dx,
                          .count_include_pad = count_include_pad};
    return run_pool(&c, s);
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
