/* The gradients of a convolution's parameters. Few output channels, or few weights for each: dot products (conv_dots.c),
   which transpose nothing. Many: outer products.

   dw[k, f] = sum over pixels of x[k, pixel] dy[pixel, f]: both operands are transposed once, a block of pixels at a time, so
   that their channels are contiguous. dy becomes strips of f for the vectors. x becomes a padded image with its channels
   innermost: there a pixel meets whole rows of the kernel, `run` elements (kw, c), without any copy per tap, whatever the
   stride. */
#include "conv_dots.c"

enum { CHANNEL_BLOCK = 32, F_BLOCK = 512, MAX_DOT_WEIGHTS = 36 };

struct weight_sum {
    const struct conv_shape *s;
    const REAL *dy, *x;
    REAL *dw;
    idx C, F, K;                     /* per group */
    idx cb, channel_blocks;
    idx run, runs;                   /* elements of the image that a tile of rows may cross, and how many of them there are */
    idx images, rows, columns;       /* a block of output pixels: whole images, whole rows or part of a row */
    idx image_blocks, row_blocks, column_blocks;
    idx PH, PW, pitch;               /* the padded image of a block; reals from row to row */
    idx step_h, step_w;              /* of x for one of it: a 1x1 kernel with stride never sees the pixels between */
    idx parts;                       /* of the pixels, each with sums of its own */
    idx channel_splits, f_splits;
    int ahead;                       /* products ask for the rows of the next image; else each row asks for the one below it */
    idx lanes;                       /* F, rounded up to whole vectors */
    idx *pixel, *row;                /* where a pixel starts in the padded image; where an element of a run is in dw */
    REAL *sums, *scratch;            /* (group, part, K, lanes) */
    idx image_reals, line_reals, worker_reals;
};

/* ---- micro-kernel ---- */

/* What will be packed next: so many planes, a little of each every so many pixels, while memory has nothing else to do. By
   reference: a copy would wait for the last products to be stored. */
enum { PLANES_AHEAD = 8 };
struct ahead { const REAL *from; idx plane, step; };   /* step: for PLANES_AHEAD pixels */

/* Rows of a tile of sums. Six of one vector would wait for each other: a multiply-add takes four cycles, two begin in one. With
   one vector each product loads its own x, so that loads are the limit: a taller tile shares those of dy among more. */
enum { TALLEST = MR > 12 ? 30 : 12 };

/* sums (m x lanes) = or += x (m values per pixel) times dy (lanes per pixel), row i of them at sums + row[i] * ld. */
INLINE void outer_products(const int m, const int vectors, idx pixels, const REAL *restrict x, const idx *restrict pixel,
                           const REAL *restrict dy, REAL *restrict sums, const idx *restrict row, idx ld, int accumulate,
                           const struct ahead *ahead) {
    vr sum[TALLEST][NV];
    const REAL *soon = ahead->from;
#pragma GCC unroll 32
    for (int i = 0; i < m; i++) sum[i][0] = sum[i][1] = (vr){0};
    for (idx p = 0; p < pixels; p++, dy += vectors * VL) {
        const REAL *a = x + pixel[p];
        if (vectors > 1 && (p & (PLANES_AHEAD - 1)) == 0) {   /* with one, there are no instructions to spare */
#pragma GCC unroll 8
            for (int i = 0; i < PLANES_AHEAD; i++) __builtin_prefetch(soon + i * ahead->plane);
            soon += ahead->step;
        }
        vr d0 = load(dy), d1 = vectors > 1 ? load(dy + VL) : d0;
#pragma GCC unroll 32
        for (int i = 0; i < m; i++) {
            sum[i][0] += a[i] * d0;
            if (vectors > 1) sum[i][1] += a[i] * d1;
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < m; i++)
        for (int v = 0; v < vectors; v++) {
            REAL *d = sums + row[i] * ld + v * VL;
            store(d, accumulate ? load(d) + sum[i][v] : sum[i][v]);
        }
}

typedef void (*outer_kernel)(int, idx, const REAL *, const idx *, const REAL *, REAL *, const idx *, idx, int,
                             const struct ahead *);
#define OUTER(m) \
    static void outer_##m(int vectors, idx pixels, const REAL *x, const idx *pixel, const REAL *dy, REAL *sums, \
                          const idx *row, idx ld, int accumulate, const struct ahead *ahead) { \
        if (vectors > 1 && m <= MR) outer_products(m, 2, pixels, x, pixel, dy, sums, row, ld, accumulate, ahead); \
        else outer_products(m, 1, pixels, x, pixel, dy, sums, row, ld, accumulate, ahead); \
    }
OUTER(1) OUTER(2) OUTER(3) OUTER(4) OUTER(5) OUTER(6) OUTER(7) OUTER(8) OUTER(9) OUTER(10) OUTER(11) OUTER(12)
#if MR > 12
OUTER(13) OUTER(14) OUTER(15) OUTER(16) OUTER(17) OUTER(18) OUTER(19) OUTER(20) OUTER(21) OUTER(22) OUTER(23) OUTER(24)
OUTER(25) OUTER(26) OUTER(27) OUTER(28) OUTER(29) OUTER(30)
#endif
static const outer_kernel outer_kernels[] = {
    NULL, outer_1, outer_2, outer_3, outer_4, outer_5, outer_6, outer_7, outer_8, outer_9, outer_10, outer_11, outer_12,
#if MR > 12
    outer_13, outer_14, outer_15, outer_16, outer_17, outer_18, outer_19, outer_20, outer_21, outer_22, outer_23, outer_24,
    outer_25, outer_26, outer_27, outer_28, outer_29, outer_30,
#endif
};

/* ---- operands ---- */

struct pixels { idx group, image, images, row, rows, column, columns; };

static struct pixels pixels_at(const struct weight_sum *q, idx group, idx i) {
    idx column = i % q->column_blocks * q->columns;
    i /= q->column_blocks;
    idx row = i % q->row_blocks * q->rows, image = i / q->row_blocks * q->images;
    return (struct pixels){group, image, MIN(q->images, q->s->N - image), row, MIN(q->rows, q->s->OH - row),
                           column, MIN(q->columns, q->s->OW - column)};
}

/* Many short pieces far apart: what comes next has to be told. */
INLINE void prefetch_reals(const REAL *p, idx n) {
    for (idx i = 0; i < n; i += 64 / (idx)sizeof(REAL)) __builtin_prefetch(p + i);
}

/* Strips of dy: NR channels per pixel, the last strip VL if that is enough. */
static void pack_dy(const struct weight_sum *q, const struct pixels *b, idx f0, idx f1, REAL *d) {
    idx run = b->rows * b->columns, S = q->s->OH * q->s->OW;
    for (idx f = f0; f < f1; f += NR) {
        idx n = MIN(NR, f1 - f), width = round_up(n, VL);
        if (n < width) memset(d, 0, sizeof(REAL) * (size_t)(b->images * run * width));
        for (idx i = b->image; i < b->image + b->images; i++, d += run * width) {
            const REAL *dy = q->dy + (i * q->s->F + b->group * q->F + f) * S + b->row * q->s->OW + b->column;
            for (idx j = 0; j < n; j += PACKED, dy += PACKED * S) {
                for (idx l = PACKED; l < MIN(2 * PACKED, n - j); l++) prefetch_reals(dy + l * S, run);
                pack(MIN(PACKED, n - j), run, dy, S, 1, d + j, width);
            }
        }
    }
}

/* One row of the padded image, channels innermost. */
static void pack_image_row(const struct weight_sum *q, idx channels, idx ih, idx first, const REAL *x, REAL *line, REAL *d) {
    idx H = q->s->H, W = q->s->W, S = H * W, step = q->step_w, cb = q->cb, seen = ih >= 0 && ih < H ? W - first : 0;
    idx begin = MIN(q->PW, ceil_div(MAX(0, -first), step)), end = MAX(begin, MIN(q->PW, ceil_div(MAX(0, seen), step)));
    memset(d, 0, sizeof(REAL) * (size_t)(begin * cb));
    for (idx c = 0; c < channels && !q->ahead; c++) prefetch_reals(x + c * S + (ih + q->step_h) * W, W);
    if (begin < end) {
        const REAL *from = x + ih * W + first + begin * step;
        if (step > 1) skip_columns(channels, end - begin, from, S, step, line, end - begin);
        pack(channels, end - begin, step > 1 ? line : from, step > 1 ? end - begin : S, 1, d + begin * cb, cb);
    }
    memset(d + end * cb, 0, sizeof(REAL) * (size_t)((q->PW - end) * cb));
}

static idx height_of(const struct weight_sum *q, const struct pixels *b) {
    return q->PH - (q->rows - b->rows) * (q->s->SH / q->step_h);
}

static void pack_image(const struct weight_sum *q, const struct pixels *b, idx c0, REAL *line, REAL *d) {
    const struct conv_shape *s = q->s;
    idx channels = MIN(q->cb, q->C - c0), height = height_of(q, b), S = s->H * s->W;
    idx ih = b->row * s->SH - s->top, first = b->column * s->SW - s->left;
    int one_piece = q->step_h * q->step_w == 1 && q->PW == s->W && first == 0 && ih >= 0 && ih + height <= s->H;
    for (idx i = b->image; i < b->image + b->images; i++, d += q->PH * q->pitch) {
        const REAL *x = q->x + (i * s->C + b->group * q->C + c0) * S;
        if (one_piece) pack(channels, height * s->W, x + ih * s->W, S, 1, d, q->cb);
        else for (idx r = 0; r < height; r++)
            pack_image_row(q, channels, ih + r * q->step_h, first, x, line, d + r * q->pitch);
    }
}

/* ---- sums ---- */

/* A row of the next image, of PLANES_AHEAD channels: what the n-th products with the image at hand ask for. */
static struct ahead ahead_of(const struct weight_sum *q, const struct pixels *b, idx c0, idx n) {
    const struct conv_shape *s = q->s;
    idx groups = ceil_div(MIN(q->cb, q->C - c0), PLANES_AHEAD), height = height_of(q, b);
    idx row = n / groups, image = row / height;
    idx ih = b->row * s->SH - s->top + row % height * q->step_h, first = MAX(0, b->column * s->SW - s->left);
    if (!q->ahead || image >= b->images || ih < 0 || ih >= s->H) return (struct ahead){q->x, 0, 0};
    idx width = MIN(s->W - first, q->PW * q->step_w), plane = s->H * s->W;
    idx channel = ((b->image + image) * s->groups + b->group) * q->C + c0 + n % groups * PLANES_AHEAD;
    return (struct ahead){q->x + channel * plane + ih * s->W + first, plane,
                          ceil_div(width * PLANES_AHEAD, q->images * q->rows * q->columns)};
}

/* What one block of pixels adds to the rows of one block of channels and to the columns [f0, f1). */
static void add_products(const struct weight_sum *q, idx pixels, idx c0, const REAL *image, idx f0, idx f1, const REAL *strips,
                         REAL *sums, int accumulate, const struct pixels *after, idx next) {
    const struct conv_shape *s = q->s;
    idx height = block_of(q->run, f1 - f0 > VL ? MR : TALLEST), taps = s->KH * s->KW, n = 0;
    for (idx r = 0; r < q->runs; r++) {
        idx tap = r * (taps / q->runs);
        const REAL *x = image + tap / s->KW * s->DH * q->pitch + tap % s->KW * s->DW * q->cb;
        REAL *d = sums + (c0 * taps + tap) * q->lanes;
        for (idx i = 0; i < q->run; i += height) {
            const REAL *strip = strips;
            for (idx f = f0; f < f1; f += NR) {
                int vectors = f1 - f > VL ? 2 : 1;
                struct ahead ahead = ahead_of(q, after, next, n++);
                outer_kernels[MIN(height, q->run - i)](vectors, pixels, x + i, q->pixel, strip, d + f, q->row + i, q->lanes,
                                                       accumulate, &ahead);
                strip += pixels * vectors * VL;
            }
        }
    }
}

static void sum_item(const struct weight_sum *q, idx item, REAL *scratch) {
    idx f_unit = ceil_div(ceil_div(q->F, q->f_splits), NR) * NR, f0 = item % q->f_splits * f_unit, f1 = MIN(q->F, f0 + f_unit);
    item /= q->f_splits;
    idx split = item % q->channel_splits;
    idx first = q->channel_blocks * split / q->channel_splits, last = q->channel_blocks * (split + 1) / q->channel_splits;
    item /= q->channel_splits;
    idx part = item % q->parts, group = item / q->parts, blocks = q->image_blocks * q->row_blocks * q->column_blocks;
    REAL *image = scratch, *line = scratch + q->image_reals, *strips = line + q->line_reals;
    REAL *sums = q->sums + item * q->channel_blocks * q->cb * q->s->KH * q->s->KW * q->lanes;
    idx begin = blocks * part / q->parts, end = blocks * (part + 1) / q->parts;
    for (idx i = begin; i < end; i++) {
        struct pixels b = pixels_at(q, group, i);
        if (f0 < f1) pack_dy(q, &b, f0, f1, strips);
        struct pixels after = pixels_at(q, group, MIN(i + 1, end - 1));
        for (idx c = first; c < last; c++) {
            idx next = c + 1 < last ? c + 1 : first;
            pack_image(q, &b, c * q->cb, line, image);
            add_products(q, b.images * b.rows * b.columns, c * q->cb, image, f0, f1, strips, sums, i > begin,
                         c + 1 < last ? &b : &after, next * q->cb);
        }
    }
}

static void sum_items(void *arg, idx begin, idx end, int worker) {
    const struct weight_sum *q = arg;
    for (idx i = begin; i < end; i++) sum_item(q, i, q->scratch + worker * q->worker_reals);
}

/* The parts together, and the rows back to columns: VL output channels at a time. */
static void finish_sums(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct weight_sum *q = arg;
    idx vectors = q->lanes / VL, rows = q->channel_blocks * q->cb * q->s->KH * q->s->KW;
    for (idx i = begin; i < end; i++) {
        idx group = i / vectors, f = i % vectors * VL;
        REAL *sums = q->sums + group * q->parts * rows * q->lanes + f;
        for (idx k = 0; k < q->K && q->parts > 1; k++) {
            vr sum = load(sums + k * q->lanes);
            for (idx part = 1; part < q->parts; part++) sum += load(sums + (part * rows + k) * q->lanes);
            store(sums + k * q->lanes, sum);
        }
        pack(q->K, MIN(VL, q->F - f), sums, q->lanes, 1, q->dw + (group * q->F + f) * q->K, q->K);
    }
}

/* ---- the choice of blocks ---- */

/* Low tiles are over before L2 has answered: what their pixels meet in the image, a line each, stays in L1 then. A power of two
   apart, these lines would have few of its sets to share, so every row of pixels begins a line further on. */
static void choose_pixels(struct weight_sum *q) {
    const struct conv_shape *s = q->s;
    q->step_h = s->KH == 1 ? s->SH : 1, q->step_w = s->KW == 1 ? s->SW : 1;
    int lines = MR <= 6 && s->SW / q->step_w * q->cb >= LINE;
    idx in_l2 = (1 << 19) / (idx)sizeof(REAL) / MIN(q->F, F_BLOCK), most = MIN(lines ? 256 : 512, MAX(128, in_l2));
    q->columns = block_of(s->OW, most);
    q->rows = q->columns < s->OW ? 1 : block_of(s->OH, MAX(1, most / s->OW));
    q->images = q->rows < s->OH || q->columns < s->OW ? 1 : block_of(s->N, MAX(1, most / (s->OH * s->OW)));
    q->image_blocks = ceil_div(s->N, q->images);
    q->row_blocks = ceil_div(s->OH, q->rows);
    q->column_blocks = ceil_div(s->OW, q->columns);
    q->PH = (q->rows - 1) * (s->SH / q->step_h) + (s->KH - 1) * s->DH + 1;
    q->PW = (q->columns - 1) * (s->SW / q->step_w) + (s->KW - 1) * s->DW + 1;
    q->pitch = q->PW * q->cb + (lines && q->PW != s->W ? LINE / s->SH : 0);
    q->ahead = s->H == 1;
    q->image_reals = round_up(q->images * q->PH * q->pitch, 16);
    q->line_reals = q->step_w > 1 ? round_up(q->columns * q->cb, 16) : 0;
    q->worker_reals = q->image_reals + q->line_reals + q->images * q->rows * q->columns * round_up(MIN(q->F, F_BLOCK), NR);
}

/* Parts of at least 1024 pixels and sums of at most 4 MB do not cost much, whatever the number of threads. Where they do
   not come out even, threads share the channels of a part, at the price of packing the other operand twice. */
static void choose_splits(struct weight_sum *q, idx rows) {
    idx blocks = q->image_blocks * q->row_blocks * q->column_blocks, pixels = q->s->N * q->s->OH * q->s->OW;
    idx most = (4 << 20) / (idx)sizeof(REAL) / (rows * q->lanes * q->s->groups);
    q->parts = MAX(1, MIN(MIN(blocks, pixels / 1024), MIN(most, 16)));
    idx threads = cnn_get_num_threads(), items = q->s->groups * q->parts;
    idx wanted = items % threads ? ceil_div(4 * threads, items) : 1;
    q->channel_splits = q->f_splits = 1;
    if (threads > 1) q->channel_splits = MIN(wanted, MAX(1, MIN(q->channel_blocks, rows / 256)));
    q->f_splits = MAX(ceil_div(q->F, F_BLOCK), MIN(ceil_div(wanted, q->channel_splits), q->F / 256));
}

static void fill_tables(struct weight_sum *q) {
    const struct conv_shape *s = q->s;
    for (idx i = 0, n = 0; n < q->images; n++)
        for (idx r = 0; r < q->rows; r++)
            for (idx c = 0; c < q->columns; c++) {
                idx row = n * q->PH + r * (s->SH / q->step_h);
                q->pixel[i++] = row * q->pitch + c * (s->SW / q->step_w) * q->cb;
            }
    for (idx e = 0; e < q->run; e++) q->row[e] = e % q->cb * s->KH * s->KW + e / q->cb;
}

static int weight_by_outer_products(const struct conv_shape *s, const REAL *dy, const REAL *x, REAL *dw) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    struct weight_sum q = {.s = s, .dy = dy, .x = x, .dw = dw, .C = C, .F = F, .K = C * taps, .lanes = round_up(F, VL)};
    q.cb = block_of(C, CHANNEL_BLOCK), q.channel_blocks = ceil_div(C, q.cb);
    q.runs = s->DW == 1 ? s->KH : taps, q.run = taps / q.runs * q.cb;
    idx rows = q.channel_blocks * q.cb * taps;
    choose_pixels(&q);
    choose_splits(&q, rows);

    size_t tables = sizeof(idx) * (size_t)round_up(q.images * q.rows * q.columns + q.run, 8);
    char *shared = scratch_take(tables + sizeof(REAL) * (size_t)(s->groups * q.parts * rows * q.lanes));
    if (!shared) return CNN_NO_MEMORY;
    q.pixel = (idx *)shared, q.row = q.pixel + q.images * q.rows * q.columns, q.sums = (REAL *)(shared + tables);
    fill_tables(&q);
    idx items = s->groups * q.parts * q.channel_splits * q.f_splits;
    idx grain = grain_of(0.1 * (double)(s->N * s->OH * s->OW) * (double)(s->F * q.K) / (double)items);
    q.scratch = scratch_take(sizeof(REAL) * (size_t)q.worker_reals * (size_t)parallel_workers(items, grain));
    if (q.scratch) {
        parallel_for(items, grain, sum_items, &q);
        parallel_for(s->groups * q.lanes / VL, grain_of((double)(q.parts * q.K * VL)), finish_sums, &q);
    }
    int status = q.scratch ? CNN_OK : CNN_NO_MEMORY;
    scratch_give(q.scratch);
    scratch_give(shared);
    return status;
}

#include "conv_weight_pointwise.c"

/* ---- kernels ---- */

static int conv2d_backward_weight(const struct conv_shape *s, const void *dy, const void *x, void *dw) {
    if (!s->F || !s->C || !s->KH || !s->KW) return CNN_OK;
    if (!s->N || !s->OH || !s->OW) {
        memset(dw, 0, sizeof(REAL) * (size_t)(s->F * (s->C / s->groups) * s->KH * s->KW));
        return CNN_OK;
    }
    if (is_depthwise(s)) return depthwise_backward_weight(s, dy, x, dw);
    if (winograd_pays(s, BACKWARD_WEIGHT)) return winograd_backward_weight(s, dy, x, dw);
    idx C = s->C / s->groups;
    int few = s->F / s->groups < VL || (C <= 4 && C * s->KH * s->KW <= MAX_DOT_WEIGHTS);
    if (few) return weight_by_dots(s, dy, x, dw);
    return is_sum_over_pixels(s) ? weight_of_pixels(s, dy, x, dw) : weight_by_outer_products(s, dy, x, dw);
}

struct plane_sum { idx N, F, S; const REAL *dy; REAL *db; };

static void plane_sum(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct plane_sum *p = arg;
    for (idx f = begin; f < end; f++) {
        vr sum[4] = {{0}};
        for (idx n = 0; n < p->N; n++) {
            const REAL *s = p->dy + (n * p->F + f) * p->S;
            idx i = 0;
            for (; i + 4 * VL <= p->S; i += 4 * VL)
                for (int u = 0; u < 4; u++) sum[u] += load(s + i + u * VL);
            for (; i < p->S; i += VL) sum[0] += load_n(s + i, MIN(VL, p->S - i));
        }
        p->db[f] = horizontal_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
}

static int conv2d_backward_bias(idx N, idx F, idx S, const void *dy, void *db) {
    struct plane_sum p = {N, F, S, dy, db};
    parallel_for(F, grain_of((double)N * (double)S / (double)VL), plane_sum, &p);
    return CNN_OK;
}
