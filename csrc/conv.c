/* Convolution as an implicit matrix product: weights (M x K) times patches (K x pixels), K = channels x taps. The patches are
   never stored: a block of pixels at a time, the part of the image that it sees is padded into scratch memory, and strips of
   patches are copied from there (or read in place) into the micro-kernel of gemm.c.

   Forward and backward-input are both a `correlation`: they differ in the taps and in the strides of weights and output. */

/* The output pixel (oh, ow) sees the input pixel (oh * SH + tap.h, ow * SW + tap.w) with weight `index` of its KH x KW. */
struct tap { idx h, w, index; };

struct correlation {
    idx N, groups, C, H, W;                       /* input: C channels per group */
    idx M, OH, OW, SH, SW;                        /* output: M channels per group */
    idx taps; const struct tap *tap;
    const REAL *x;
    const REAL *w; idx w_group, w_out, w_in;      /* weight (g, m, c, tap) */
    const REAL *bias;                             /* per output channel, or NULL */
    REAL *y; idx y_plane, y_row, y_column;        /* output pixel (oh, ow) of a plane */

    idx images, rows, columns;                    /* a block of output pixels: whole images, whole rows or part of a row */
    idx image_blocks, row_blocks, column_blocks;
    idx top, left, PH, PW;                        /* the padded image of a block starts at the first tap */
    idx K, kc;
    int in_place;
    idx *offset;                                  /* of k inside the padded image */
    REAL *weights, *scratch;
    idx padded_reals, worker_reals;
};

enum { BLOCK_PIXELS = 512 };

static idx ceil_div(idx a, idx b) { return (a + b - 1) / b; }

/* ---- blocks ---- */

static void choose_blocks(struct correlation *p, idx pixels) {
    p->columns = block_of(p->OW, pixels);
    p->rows = p->columns < p->OW ? 1 : block_of(p->OH, MAX(1, pixels / p->OW));
    p->images = p->rows < p->OH || p->columns < p->OW ? 1 : block_of(p->N, MAX(1, pixels / (p->OH * p->OW)));
    p->image_blocks = ceil_div(p->N, p->images);
    p->row_blocks = ceil_div(p->OH, p->rows);
    p->column_blocks = ceil_div(p->OW, p->columns);
}

static idx blocks(const struct correlation *p) { return p->image_blocks * p->row_blocks * p->column_blocks; }

/* The columns of the padded image are sorted by their phase modulo SW: then patches are contiguous for every stride. */
static void choose_padding(struct correlation *p) {
    idx bottom = 0, right = 0;
    p->top = p->left = 0;
    for (idx t = 0; t < p->taps; t++) {
        p->top = t ? MIN(p->top, p->tap[t].h) : p->tap[t].h, bottom = t ? MAX(bottom, p->tap[t].h) : p->tap[t].h;
        p->left = t ? MIN(p->left, p->tap[t].w) : p->tap[t].w, right = t ? MAX(right, p->tap[t].w) : p->tap[t].w;
    }
    p->PH = (p->rows - 1) * p->SH + bottom - p->top + 1;
    p->PW = p->columns - 1 + (right - p->left) / p->SW + 1;
    p->padded_reals = round_up(p->images * p->C * p->PH * p->SW * p->PW, 16) + 2 * NR;
    for (idx k = 0; k < p->K; k++) {
        const struct tap *t = &p->tap[k % p->taps];
        idx h = t->h - p->top, w = t->w - p->left;
        p->offset[k] = ((k / p->taps * p->PH + h) * p->SW + w % p->SW) * p->PW + w / p->SW;
    }
}

struct block { idx group, image, images, row, rows, column, columns; };

static struct block block_at(const struct correlation *p, idx i) {
    idx column = i % p->column_blocks * p->columns;
    i /= p->column_blocks;
    idx row = i % p->row_blocks * p->rows;
    i /= p->row_blocks;
    idx image = i % p->image_blocks * p->images;
    return (struct block){i / p->image_blocks, image, MIN(p->images, p->N - image), row, MIN(p->rows, p->OH - row),
                          column, MIN(p->columns, p->OW - column)};
}

/* The padded image of channels [c0, c1). */
static void pad_block(const struct correlation *p, const struct block *b, idx c0, idx c1, REAL *padded) {
    idx height = p->PH - (p->rows - b->rows) * p->SH;
    for (idx i = 0; i < b->images * (c1 - c0); i++) {
        idx n = i / (c1 - c0), c = c0 + i % (c1 - c0);
        const REAL *plane = p->x + (((b->image + n) * p->groups + b->group) * p->C + c) * p->H * p->W;
        REAL *d = padded + (n * p->C + c) * p->PH * p->SW * p->PW;
        for (idx r = 0; r < height; r++) {
            idx ih = b->row * p->SH + p->top + r;
            for (idx phase = 0; phase < p->SW; phase++, d += p->PW) {
                idx first = b->column * p->SW + p->left + phase, W = ih >= 0 && ih < p->H ? p->W : 0;
                idx end = MIN(p->PW, first < W ? (W - 1 - first) / p->SW + 1 : 0);
                idx begin = MIN(MAX(end, 0), first < 0 ? ceil_div(-first, p->SW) : 0);
                const REAL *s = plane + ih * p->W + first;
                for (idx j = 0; j < begin; j++) d[j] = 0;
                if (p->SW == 1 && begin < end) copy_reals(d + begin, s + begin, end - begin);
                else for (idx j = begin; j < end; j++) d[j] = s[j * p->SW];
                for (idx j = MAX(begin, end); j < p->PW; j++) d[j] = 0;
            }
        }
    }
}

/* ---- strips ---- */

/* A run of pixels of one output row: where it starts in the padded image, in y and in the tile. */
struct segment { idx from, to, at, length; };

static int segments_of(const struct correlation *p, const struct block *b, idx pixel, idx n, struct segment *s) {
    int count = 0;
    for (idx at = 0; n > 0; count++) {
        idx column = pixel % b->columns, row = pixel / b->columns % b->rows, image = pixel / (b->columns * b->rows);
        idx length = MIN(n, b->columns - column);
        s[count].from = (image * p->C * p->PH + row * p->SH) * p->SW * p->PW + column;
        s[count].to = (b->image + image) * p->groups * p->M * p->y_plane + (b->row + row) * p->y_row
                    + (b->column + column) * p->y_column;
        s[count].at = at, s[count].length = length;
        pixel += length, at += length, n -= length;
    }
    return count;
}

static int is_contiguous(const struct correlation *p, const struct segment *s, int count) {
    for (int i = 1; i < count; i++)
        if (s[i].to - s[i - 1].to != s[i - 1].length || s[i].at - s[i - 1].at != s[i - 1].length) return 0;
    return p->y_column == 1;
}

/* Whole vectors: what a segment writes too much, the next one or the next k overwrites, or the tile ignores. */
static void pack_patches(const struct segment *s, int count, const idx *offset, idx kc, const REAL *padded, REAL *d) {
    for (idx k = 0; k < kc; k++, d += NR) {
        const REAL *source = padded + offset[k];
        for (int i = 0; i < count; i++)
            for (idx j = 0; j < s[i].length; j += VL) store(d + s[i].at + j, load(source + s[i].from + j));
    }
}

static void scatter_tile(const struct correlation *p, const struct segment *s, int count, idx m, const REAL *t, REAL *y,
                         int accumulate) {
    for (idx i = 0; i < m; i++)
        for (int l = 0; l < count; l++) {
            const REAL *from = t + i * NR + s[l].at;
            REAL *to = y + i * p->y_plane + s[l].to;
            for (idx j = 0; j < s[l].length; j++) {
                REAL *d = to + j * p->y_column;
                *d = accumulate ? *d + from[j] : from[j];
            }
        }
}

/* All output channels of one strip: from a packed strip, or at p->offset in the padded image with its two vectors gap apart. */
static void multiply_strip(const struct correlation *p, idx kc, const REAL *weights, const REAL *strip, const idx *offset,
                           idx gap, const struct segment *s, int count, idx n, REAL *y, int accumulate) {
    idx height = panel_height(p->M);
    int contiguous = is_contiguous(p, s, count);
    REAL t[MR * NR] __attribute__((aligned(64)));
    for (idx i = 0; i < p->M; i += height) {
        idx m = MIN(height, p->M - i);
        if (contiguous) {
            tile(m, n, kc, weights + i * kc, strip, NR, offset, gap, y + i * p->y_plane + s->to, p->y_plane, 1, accumulate);
        } else {
            micro_kernels[m](kc, weights + i * kc, strip, NR, offset, gap, t, NR, 0);
            scatter_tile(p, s, count, m, t, y + i * p->y_plane, accumulate);
        }
    }
}

static void fill_with_bias(const struct correlation *p, const struct block *b, REAL *y) {
    for (idx n = 0; n < b->images; n++)
        for (idx m = 0; m < p->M; m++)
            for (idx r = 0; r < b->rows; r++) {
                REAL *d = y + ((b->image + n) * p->groups * p->M + m) * p->y_plane + (b->row + r) * p->y_row
                        + b->column * p->y_column;
                REAL bias = p->bias ? p->bias[b->group * p->M + m] : 0;
                for (idx c = 0; c < b->columns; c++) d[c * p->y_column] = bias;
            }
}

/* Rows that fill only one vector go two by two. */
static void correlate_in_place(const struct correlation *p, const struct block *b, const REAL *weights, const REAL *padded,
                               REAL *y) {
    struct segment s[2];
    idx pixels = b->images * b->rows * b->columns, narrow = b->columns <= VL ? b->columns : 0;
    for (idx row = 0; row < pixels; row += MAX(b->columns, 2 * narrow))
        for (idx j = 0; j < b->columns; j += NR) {
            idx n = MIN(NR, b->columns - j), gap = VL;
            int count = segments_of(p, b, row + j, n, s);
            if (narrow && row + narrow < pixels) {
                count += segments_of(p, b, row + narrow, n, s + 1);
                s[1].at = VL, gap = s[1].from - s[0].from, n *= 2;
            }
            multiply_strip(p, p->K, weights, padded + s->from, p->offset, gap, s, count, n, y,
                           p->bias != NULL);
        }
}

/* One output channel (depthwise): many rows at once keep enough sums in flight. */
INLINE void sum_rows(const int rows, const struct correlation *p, const REAL *weights, const REAL *from, REAL bias, REAL *to,
                     idx n) {
    vr sum[8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sum[r] = broadcast(bias);
    for (idx k = 0; k < p->K; k++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) sum[r] += weights[k] * load(from + p->offset[k] + r * p->SH * p->SW * p->PW);
    for (int r = 0; r < rows; r++) store_n(to + r * p->y_row, sum[r], n);
}

static void correlate_one_channel(const struct correlation *p, const struct block *b, const REAL *weights, const REAL *padded,
                                  REAL *y) {
    idx step = b->rows >= 8 ? 8 : b->rows >= 4 ? 4 : 1;
    REAL bias = p->bias ? p->bias[b->group] : 0;
    struct segment s;
    for (idx image = 0; image < b->images; image++)
        for (idx r = 0; r < b->rows; r += step)
            for (idx j = 0; j < b->columns; j += VL) {
                idx row = MIN(r, b->rows - step), n = MIN(VL, b->columns - j);   /* the last rows once more rather than fewer */
                segments_of(p, b, (image * b->rows + row) * b->columns + j, n, &s);
                if (step == 8) sum_rows(8, p, weights, padded + s.from, bias, y + s.to, n);
                else if (step == 4) sum_rows(4, p, weights, padded + s.from, bias, y + s.to, n);
                else sum_rows(1, p, weights, padded + s.from, bias, y + s.to, n);
            }
}

static void correlate_block(const struct correlation *p, const struct block *b, REAL *scratch) {
    struct segment s[NR];
    REAL *padded = scratch, *strips = scratch + p->padded_reals;
    REAL *y = p->y + b->group * p->M * p->y_plane;
    const REAL *weights = p->weights + b->group * p->M * p->K;
    idx pixels = b->images * b->rows * b->columns;
    pad_block(p, b, 0, p->C, padded);
    if (p->M == 1 && p->y_column == 1) {
        correlate_one_channel(p, b, weights, padded, y);
        return;
    }
    if (p->bias || !p->K) fill_with_bias(p, b, y);
    if (p->in_place) {
        correlate_in_place(p, b, weights, padded, y);
        return;
    }
    for (idx pc = 0; pc < p->K; pc += p->kc) {
        idx kc = MIN(p->kc, p->K - pc);
        for (idx j = 0; j < pixels; j += NR)
            pack_patches(s, segments_of(p, b, j, MIN(NR, pixels - j), s), p->offset + pc, kc, padded, strips + j * kc);
        for (idx j = 0; j < pixels; j += NR) {
            idx n = MIN(NR, pixels - j);
            int count = segments_of(p, b, j, n, s);
            multiply_strip(p, kc, weights + pc * p->M, strips + j * kc, NULL, VL, s, count, n, y, p->bias || pc > 0);
        }
    }
}

static void correlate_blocks(void *arg, idx begin, idx end, int worker) {
    const struct correlation *p = arg;
    for (idx i = begin; i < end; i++) {
        struct block b = block_at(p, i);
        correlate_block(p, &b, p->scratch + worker * p->worker_reals);
    }
}

/* Weights become panels for each kc, as pack_panels makes them. */
static void pack_weights(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct correlation *p = arg;
    idx height = panel_height(p->M), panels = ceil_div(p->M, height);
    for (idx item = begin; item < end; item++) {
        idx g = item / panels, i = item % panels * height, m = MIN(height, p->M - i);
        for (idx pc = 0; pc < p->K; pc += p->kc) {
            idx kc = MIN(p->kc, p->K - pc);
            REAL *d = p->weights + (g * p->K + pc) * p->M + i * kc;
            for (idx k = pc; k < pc + kc; k++, d += m) {
                const REAL *s = p->w + g * p->w_group + i * p->w_out + k / p->taps * p->w_in + p->tap[k % p->taps].index;
                for (idx u = 0; u < m; u++) d[u] = s[u * p->w_out];
            }
        }
    }
}

/* Few output channels read a packed strip only a few times: packing (about as much work as 7 channels) costs more than the lanes
   that stay empty at the end of each row. */
static int prefers_in_place(const struct correlation *p) {
    idx lanes = p->OW <= VL ? VL : round_up(p->OW, NR);
    return p->M == 1 || (p->M * p->K <= 8 * KC * MR && p->M * lanes < (p->M + 7) * p->OW);
}

static int correlate(struct correlation p) {
    if (!p.N || !p.groups || !p.M || !p.OH || !p.OW) return CNN_OK;
    p.K = p.C * p.taps;
    p.in_place = prefers_in_place(&p);
    p.kc = p.in_place ? MAX(1, p.K) : block_of(p.K, KC);
    idx pixels = p.in_place ? MAX(BLOCK_PIXELS, 8192 / MAX(1, p.C)) : BLOCK_PIXELS;
    do choose_blocks(&p, pixels);   /* small enough for every thread to have some */
    while (blocks(&p) * p.groups < 4 * cnn_get_num_threads() && (pixels /= 2) >= 2 * NR);

    size_t offsets = (size_t)round_up(p.K * (idx)sizeof(idx), 64);
    char *shared = scratch_take(offsets + sizeof(REAL) * (size_t)(p.groups * p.M * p.K));
    if (!shared) return CNN_NO_MEMORY;
    p.offset = (idx *)shared, p.weights = (REAL *)(shared + offsets);
    choose_padding(&p);
    p.worker_reals = p.padded_reals + (p.in_place ? 0 : round_up(p.images * p.rows * p.columns, NR) * p.kc + NR);
    idx items = blocks(&p) * p.groups, height = panel_height(p.M);
    idx grain = grain_of(0.1 * (double)p.M * (double)(p.K + 8) * (double)(p.images * p.rows * p.columns));
    p.scratch = scratch_take(sizeof(REAL) * (size_t)p.worker_reals * (size_t)parallel_workers(items, grain));
    if (p.scratch) {
        parallel_for(p.groups * ceil_div(p.M, height), grain_of((double)(height * p.K)), pack_weights, &p);
        parallel_for(items, grain, correlate_blocks, &p);
    }
    int status = p.scratch ? CNN_OK : CNN_NO_MEMORY;
    scratch_give(p.scratch);
    scratch_give(shared);
    return status;
}

/* ---- 1 x 1: a plain product per image ---- */

static int is_pointwise(const struct conv_shape *s) {
    return s->KH * s->KW == 1 && s->SH == 1 && s->SW == 1 && s->top == 0 && s->left == 0 && s->OH == s->H && s->OW == s->W
        && s->groups == 1;
}

/* y[n] (M x S) = w (M x K, by its strides) x[n] (K x S) */
static int pointwise(idx N, idx M, idx K, idx S, const REAL *w, idx wrs, idx wcs, const REAL *x, const REAL *bias, REAL *y) {
    struct product p = {.M = M, .N = S, .K = K, .a = w, .ars = wrs, .acs = wcs, .b = x, .brs = S, .bcs = 1,
                        .c = y, .crs = S, .ccs = 1, .bias = bias, .bias_rs = 1};
    if (N >= cnn_get_num_threads()) {
        struct product oriented = well_oriented(&p);
        int swapped = oriented.a == x && M != 0;
        return multiply_batch((struct batch){oriented, swapped ? K * S : 0, swapped ? 0 : K * S, M * S}, N);
    }
    int status = CNN_OK;
    for (idx n = 0; n < N && status == CNN_OK; n++, p.b += K * S, p.c += M * S) status = multiply(p);
    return status;
}

#include "conv_depthwise.c"
#include "winograd.c"

/* ---- kernels ---- */

static int conv2d_forward(const struct conv_shape *s, const void *x, const void *w, const void *b, void *y) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    if (is_pointwise(s)) return pointwise(s->N, F, C, s->H * s->W, w, C, 1, x, b, y);
    if (is_depthwise(s)) return depthwise_forward(s, x, w, b, y);
    if (winograd_pays(s, FORWARD)) return winograd_forward(s, x, w, b, y);
    struct tap *tap = scratch_take(sizeof(struct tap) * (size_t)taps);
    if (!tap) return CNN_NO_MEMORY;
    for (idx t = 0; t < taps; t++) tap[t] = (struct tap){t / s->KW * s->DH - s->top, t % s->KW * s->DW - s->left, t};
    int status = correlate((struct correlation){
        .N = s->N, .groups = s->groups, .C = C, .H = s->H, .W = s->W, .M = F, .OH = s->OH, .OW = s->OW, .SH = s->SH, .SW = s->SW,
        .taps = taps, .tap = tap, .x = x, .w = w, .w_group = F * C * taps, .w_out = C * taps, .w_in = taps, .bias = b,
        .y = y, .y_plane = s->OH * s->OW, .y_row = s->OW, .y_column = 1});
    scratch_give(tap);
    return status;
}

/* The pixels (h, w) of dx with the same phase (h mod SH, w mod SW) receive from the same taps, with stride 1 in dy: each phase is
   a correlation of its own, and no product with an inserted zero is ever formed. */
static int backward_input_phase(const struct conv_shape *s, idx h, idx w, struct tap *tap, const REAL *dy, const REAL *weight,
                                REAL *dx) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = 0;
    for (idx kh = 0; kh < s->KH; kh++)
        for (idx kw = 0; kw < s->KW; kw++) {
            idx oh = h + s->top - kh * s->DH, ow = w + s->left - kw * s->DW;
            if (oh % s->SH == 0 && ow % s->SW == 0) tap[taps++] = (struct tap){oh / s->SH, ow / s->SW, kh * s->KW + kw};
        }
    return correlate((struct correlation){
        .N = s->N, .groups = s->groups, .C = F, .H = s->OH, .W = s->OW, .M = C, .SH = 1, .SW = 1,
        .OH = ceil_div(MAX(0, s->H - h), s->SH), .OW = ceil_div(MAX(0, s->W - w), s->SW), .taps = taps, .tap = tap,
        .x = dy, .w = weight, .w_group = F * C * s->KH * s->KW, .w_out = s->KH * s->KW, .w_in = C * s->KH * s->KW,
        .y = dx + h * s->W + w, .y_plane = s->H * s->W, .y_row = s->SH * s->W, .y_column = s->SW});
}

static int conv2d_backward_input(const struct conv_shape *s, const void *dy, const void *w, void *dx) {
    if (is_pointwise(s)) return pointwise(s->N, s->C, s->F, s->H * s->W, w, 1, s->C, dy, NULL, dx);
    if (is_depthwise(s)) return depthwise_backward_input(s, dy, w, dx);
    if (winograd_pays(s, BACKWARD_INPUT)) return winograd_backward_input(s, dy, w, dx);
    struct tap *tap = scratch_take(sizeof(struct tap) * (size_t)(s->KH * s->KW));
    if (!tap) return CNN_NO_MEMORY;
    int status = CNN_OK;
    for (idx h = 0; h < MIN(s->SH, s->H); h++)
        for (idx c = 0; c < MIN(s->SW, s->W) && status == CNN_OK; c++) status = backward_input_phase(s, h, c, tap, dy, w, dx);
    scratch_give(tap);
    return status;
}

#include "conv_weight.c"

static const struct conv_kernels conv_kernels = {
    .conv2d_forward = conv2d_forward,
    .conv2d_backward_input = conv2d_backward_input,
    .conv2d_backward_weight = conv2d_backward_weight,
    .conv2d_backward_bias = conv2d_backward_bias,
};
