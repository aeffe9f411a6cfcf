/* Convolution as an implicit matrix product: weights (M x K) times patches (K x pixels), K = channels x taps. The patches are
   never stored: a block of pixels at a time, the part of the image that it sees is padded into scratch memory. From there the
   tiles of conv_channels.c read single pixels; with fewer output channels, strips of patches are copied (or read in place)
   into the micro-kernel of gemm.c.

   Forward and backward-input are both a `correlation`: they differ in the taps, in the strides of the weights, and in that
   backward-input with a stride has several phases of output pixels, each with taps of its own. */

/* The output pixel (oh, ow) sees the input pixel (oh * SH + tap.h, ow * SW + tap.w) with weight `index` of its KH x KW. */
struct tap { idx h, w, index; };

/* Output pixels (oh, ow) of a phase lie at (oh * step_h + h, ow * step_w + w) of the output; they see `taps` of the taps. */
struct phase { idx h, w, first, taps; };

struct correlation {
    idx N, groups, C, H, W;                       /* input: C channels per group */
    idx M, OH, OW, SH, SW;                        /* output: M channels per group, OH x OW pixels per phase */
    idx taps; const struct tap *tap;
    idx phases; const struct phase *phase;        /* none: one phase with all taps */
    const REAL *x;
    const REAL *w; idx w_group, w_out, w_in;      /* weight (g, m, c, tap) */
    const REAL *bias;                             /* per output channel, or NULL; only with one phase */
    REAL *y; idx y_rows, y_columns, step_h, step_w;

    idx images, rows, columns;                    /* a block of output pixels: whole images, whole rows or part of a row */
    idx image_blocks, row_blocks, column_blocks;
    idx top, left, PH, PW;                        /* the padded image of a block starts at the first tap */
    idx RS, PS, pitch;                            /* it keeps RS rows per output row, PS phases of columns: pitch reals */
    idx K, parts, part;                           /* M in parts of `part` rows, for several threads */
    int in_place, by_channels, sheared;
    idx across;                                   /* in place: taps that k goes through before the next channel */
    idx *offset;                                  /* of k inside the padded image */
    REAL *weights, *scratch;
    idx padded_reals, strip_reals, worker_reals;
};

enum { BLOCK_PIXELS = 1024, BLOCK_CHANNELS = 2 * MC };   /* weights are packed once only, so a block may be larger */
enum { PIXEL_BYTES = 400 << 10 };                        /* of a block of pixels, in L2 */
enum { EXACT_CHAIN = 512, FAST_CHAIN = 2048 };           /* products added up in one go: the error grows with them */
enum { MOST_ROWS = 4 };                                  /* of pixels that meet the weights of few channels together */
#define ROWS_OF(channels) MIN(MOST_ROWS, MR / (channels))
static idx chain_of(idx K) {
    const idx most = cnn_get_exact() ? EXACT_CHAIN : FAST_CHAIN;
    return K > most ? block_of(K, most) : MAX(1, K);   /* mostly without dividing, which takes as long as a small tile's edges */
}
static idx rows_together(idx channels) { return MAX(1, ROWS_OF(channels)); }
static idx rows_in_turn(const struct correlation *p, idx columns);

/* ---- blocks ---- */

/* How many units of `unit` pixels, at most `limit`, cut `total` of them into the fewest strips. */
static idx least_waste(idx total, idx unit, idx limit) {
    idx best = 1, fewest = PTRDIFF_MAX, most = MAX(1, MIN(total, limit));
    for (idx n = most; n > most / 2 && fewest > ceil_div(total * unit, NR); n--) {
        idx strips = total / n * ceil_div(n * unit, NR) + ceil_div(total % n * unit, NR);
        if (strips < fewest) fewest = strips, best = n;
    }
    return best;
}

static void choose_blocks(struct correlation *p, idx pixels) {
    p->columns = block_of(p->OW, pixels);
    idx together = p->in_place && !p->sheared && p->columns > VL ? rows_in_turn(p, p->columns) : 1;
    p->rows = p->columns < p->OW ? 1
            : together > 1 ? MIN(p->OH, round_up(block_of(p->OH, pixels / p->OW), together))
            : least_waste(p->OH, p->OW, pixels / p->OW);
    p->images = p->rows < p->OH || p->columns < p->OW ? 1 : least_waste(p->N, p->OH * p->OW, pixels / (p->OH * p->OW));
    p->image_blocks = ceil_div(p->N, p->images);
    p->row_blocks = ceil_div(p->OH, p->rows);
    p->column_blocks = ceil_div(p->OW, p->columns);
}

static idx blocks(const struct correlation *p) { return p->image_blocks * p->row_blocks * p->column_blocks; }

static struct phase phase_of(const struct correlation *p, idx i) {
    return p->phase ? p->phase[i] : (struct phase){0, 0, 0, p->taps};
}

/* Where k has tap t of channel c, when it goes by `across` taps. */
static idx place_of(const struct correlation *p, idx c, idx t) {
    return (t / p->across * p->C + c) * p->across + t % p->across;
}

/* The columns of the padded image are sorted by their phase modulo SW: then patches are contiguous for every stride. When all
   taps lie in one row (column), only the rows (columns) that they meet are kept. */
static void choose_padding(struct correlation *p) {
    idx bottom = 0, right = 0;
    p->top = p->left = 0;
    for (idx t = 0; t < p->taps; t++) {
        p->top = t ? MIN(p->top, p->tap[t].h) : p->tap[t].h, bottom = t ? MAX(bottom, p->tap[t].h) : p->tap[t].h;
        p->left = t ? MIN(p->left, p->tap[t].w) : p->tap[t].w, right = t ? MAX(right, p->tap[t].w) : p->tap[t].w;
    }
    p->RS = bottom > p->top ? p->SH : 1, p->PS = p->sheared ? right - p->left + 1 : right > p->left ? p->SW : 1;
    p->PH = (p->rows - 1) * p->RS + bottom - p->top + 1;
    p->PW = p->sheared ? p->columns : p->columns - 1 + (right - p->left) / p->SW + 1;
    p->pitch = p->RS * p->PS * p->PW;
    p->padded_reals = round_up(MAX(1, p->images * p->C * p->PH * p->PS * p->PW), NR) + 2 * NR;
    for (idx i = 0; i < MAX(1, p->phases); i++) {
        struct phase phase = phase_of(p, i);
        idx *offset = p->offset + p->C * phase.first;
        for (idx k = 0; k < p->C * phase.taps; k++) {
            idx c = k / phase.taps, t = k % phase.taps, place = p->in_place && p->phases == 1 ? place_of(p, c, t) : k;
            idx h = p->tap[phase.first + t].h - p->top, w = p->tap[phase.first + t].w - p->left;
            offset[place] = p->sheared ? ((c * p->PS + w) * p->PH + h) * p->PW
                                       : ((c * p->PH + h) * p->PS + w % p->PS) * p->PW + w / p->PS;
        }
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

/* ---- padding ---- */

/* Writes up to VL - 1 zeros more: the next row overwrites them. */
INLINE void zero_and_beyond(REAL *d, idx n) {
    for (idx j = 0; j < n; j += VL) store(d + j, (vr){0});
}
INLINE void copy_and_zero_beyond(REAL *d, const REAL *s, idx n) {
    idx j = 0;
    for (; j + VL <= n; j += VL) store(d + j, load(s + j));
    if (j < n) store(d + j, load_n(s + j, n - j));
}
/* One row: columns [begin, end) of s between zeros, their `n` phases `width` apart in d, of which only the first `kept` are
   wanted. Whole vectors are read, also before begin and from end on. */
INLINE void pad_row(const int n, int kept, REAL *d, const REAL *s, idx begin, idx end, idx width, idx ahead) {
    for (idx j = 0; j < width; j += VL) {
        vr v[4];
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            __builtin_prefetch(s + n * j + i * VL + ahead);
            const vi column = lane_numbers() + (integer)(n * j + i * VL);
            v[i] = (vr)((vi)load(s + n * j + i * VL) & (column >= (integer)begin) & (column < (integer)end));
        }
        unzip(v, n);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            if (i < kept) store_part(d + i * width + j, v[i], width - j);
    }
}

/* The same one by one, where a vector would leave the array, or for other strides. */
static void pad_row_by_ones(idx n, idx kept, REAL *d, const REAL *s, idx begin, idx end, idx width) {
    for (idx i = 0; i < kept; i++)
        for (idx j = 0; j < width; j++) d[i * width + j] = n * j + i >= begin && n * j + i < end ? s[n * j + i] : 0;
}

/* One plane of the input. */
static void pad_plane(const struct correlation *p, const struct block *b, const REAL *plane, REAL *d) {
    idx height = p->PH - (p->rows - b->rows) * p->RS, step = p->RS == p->SH ? 1 : p->SH, ih = b->row * p->SH + p->top;
    idx width = p->PS * p->PW, first = b->column * p->SW + p->left, begin = MAX(0, -first), end = p->W - first;
    if (width == p->W && first == 0 && p->SW == 1 && step == 1) {   /* no columns to add: all rows at once */
        idx above = MIN(height, MAX(0, -ih)), inside = MAX(0, MIN(height, p->H - ih) - above);
        zero_and_beyond(d, above * width);
        copy_and_zero_beyond(d + above * width, plane + (ih + above) * p->W, inside * width);
        zero_and_beyond(d + (above + inside) * width, (height - above - inside) * width);
        return;
    }
    idx at = plane - p->x + ih * p->W + first, end_of_x = p->N * p->groups * p->C * p->H * p->W;
    for (idx r = 0; r < height; r++, ih += step, at += step * p->W, d += width) {
        int outside = at < 0 || at + p->SW * round_up(p->PW, VL) > end_of_x, kept = (int)p->PS;
        if (ih < 0 || ih >= p->H) memset(d, 0, sizeof(REAL) * (size_t)width);
        else if (p->SW == 1 && !outside) pad_row(1, kept, d, p->x + at, begin, end, p->PW, p->H * p->W);
        else if (p->SW == 2 && !outside) pad_row(2, kept, d, p->x + at, begin, end, p->PW, p->H * p->W);
        else if (p->SW == 4 && !outside) pad_row(4, kept, d, p->x + at, begin, end, p->PW, p->H * p->W);
        else pad_row_by_ones(p->SW, kept, d, p->x + at, begin, end, p->PW);
    }
}

/* One plane, once for each column of the kernel: moved by it and cut to the columns of the output, whose rows then lie next to
   each other for every tap. Whole vectors, the last ones first: what is too much is overwritten. */
static void shear_plane(const struct correlation *p, const struct block *b, const REAL *plane, REAL *d) {
    idx height = p->PH - (p->rows - b->rows), above = MIN(height, MAX(0, -b->row - p->top)), PW = p->PW;
    idx below = MAX(above, MIN(height, p->H - b->row - p->top)), end_of_x = p->N * p->groups * p->C * p->H * p->W;
    for (idx shift = 0; shift < p->PS; shift++, d += p->PH * PW) {
        idx first = b->column + p->left + shift, begin = MAX(0, -first), end = p->W - first;
        idx at = plane - p->x + (b->row + p->top + above) * p->W + first, last = at + (below - above - 1) * p->W;
        const REAL *from = p->x + at;
        REAL *to = d + above * PW;
        zero_and_beyond(d, above * PW);
        if (at < 0 || last + round_up(PW, VL) > end_of_x)
            for (idx r = above; r < below; r++, from += p->W, to += PW) pad_row_by_ones(1, 1, to, from, begin, end, PW);
        else for (idx j = (PW - 1) / VL * VL; j >= 0; j -= VL) {
            const vi column = lane_numbers() + (integer)j, seen = (column >= (integer)begin) & (column < (integer)end);
            for (idx r = 0; r < below - above; r++) store(to + r * PW + j, (vr)((vi)load(from + r * p->W + j) & seen));
        }
        zero_and_beyond(d + below * PW, (height - below) * PW);
    }
}

/* The padded image of channels [c0, c1). */
static void pad_block(const struct correlation *p, const struct block *b, idx c0, idx c1, REAL *padded) {
    for (idx n = 0; n < b->images; n++)
        for (idx c = c0; c < c1; c++) {
            const REAL *plane = p->x + (((b->image + n) * p->groups + b->group) * p->C + c) * p->H * p->W;
            (p->sheared ? shear_plane : pad_plane)(p, b, plane, padded + (n * p->C + c) * p->PH * p->PS * p->PW);
        }
}

/* ---- packed strips ---- */

/* A vector of pixels of one output row: where it starts in the padded image and in the strip. */
struct piece { idx from, at; };

static int pieces_of(const struct correlation *p, const struct block *b, idx pixel, idx n, struct piece *piece) {
    int count = 0;
    for (idx at = 0; at < n;) {
        idx column = (pixel + at) % b->columns, row = (pixel + at) / b->columns % b->rows;
        idx image = (pixel + at) / (b->columns * b->rows), length = MIN(n - at, b->columns - column);
        idx from = image * p->C * p->PH * p->PS * p->PW + row * p->pitch + column;
        for (idx j = 0; j < length; j += VL) piece[count++] = (struct piece){from + j, at + j};
        at += length;
    }
    return count;
}

/* Whole vectors: what a piece writes too much, the next one or the next k overwrites, or nobody reads. */
INLINE void pack_pieces(const int count, const struct piece *piece, const idx *offset, idx kc, const REAL *padded, REAL *d) {
    for (idx k = 0; k < kc; k++, d += NR) {
        const REAL *source = padded + offset[k];
#pragma GCC unroll 6
        for (int i = 0; i < count; i++) store(d + piece[i].at, load(source + piece[i].from));
    }
}

static void pack_patches(const struct correlation *p, const struct block *b, idx pixel, idx n, const idx *offset, idx kc,
                         const REAL *padded, REAL *d) {
    struct piece piece[MAX(NR, 6)];
    if (n < NR) memset(d, 0, sizeof(REAL) * (size_t)(kc * NR));   /* lanes without a pixel: see scratch_take */
    int count = pieces_of(p, b, pixel, n, piece);
    switch (count) {
        case 1: pack_pieces(1, piece, offset, kc, padded, d); break;
        case 2: pack_pieces(2, piece, offset, kc, padded, d); break;
        case 3: pack_pieces(3, piece, offset, kc, padded, d); break;
        case 4: pack_pieces(4, piece, offset, kc, padded, d); break;
        case 5: pack_pieces(5, piece, offset, kc, padded, d); break;
        case 6: pack_pieces(6, piece, offset, kc, padded, d); break;
        default: pack_pieces(count, piece, offset, kc, padded, d);
    }
}

static idx block_of_k(const struct correlation *p, idx taps) {   /* whole channels */
    return p->in_place ? MAX(1, p->K) : taps * block_of(p->C, MAX(1, KC / MAX(1, taps)));
}

/* Output channels [m0, m1) of one strip. */
static void multiply_strip(const struct correlation *p, idx m0, idx m1, idx kc, const REAL *weights, const REAL *strip, idx n,
                           REAL *c, idx ldc, const REAL *bias, int accumulate) {
    idx height = panel_height(p->M);
    for (idx i = m0; i < m1; i += height)
        tile(MIN(height, m1 - i), n, kc, weights + i * kc, strip, NR, NULL, VL, c + (i - m0) * ldc, ldc, 1,
             bias ? bias + i : NULL, accumulate);
}

/* C (row stride ldc) for channels [m0, m1) of one phase. If these weights fit into L2, one strip is in use at a time. */
static void multiply_phase(const struct correlation *p, const struct block *b, struct phase phase, idx m0, idx m1,
                           const REAL *padded, REAL *strips, REAL *c, idx ldc, int whole_strips, const REAL *bias) {
    idx height = panel_height(p->M), mc = MAX(1, BLOCK_CHANNELS / height) * height, pixels = b->images * b->rows * b->columns;
    idx K = p->C * phase.taps, kc0 = block_of_k(p, phase.taps), next = m1 - m0 > mc ? 1 : 0;
    const REAL *weights = p->weights + (b->group * p->K + p->C * phase.first) * p->M;
    for (idx pc = 0; pc < K; pc += kc0)
        for (idx ic = m0; ic < m1; ic += mc)
            for (idx j = 0; j < pixels; j += NR) {
                idx kc = MIN(kc0, K - pc), n = MIN(NR, pixels - j);
                REAL *strip = strips + next * j * kc;
                if (ic == m0) pack_patches(p, b, j, n, p->offset + p->C * phase.first + pc, kc, padded, strip);
                multiply_strip(p, ic, MIN(m1, ic + mc), kc, weights + pc * p->M, strip, whole_strips ? NR : n,
                               c + (ic - m0) * ldc + j, ldc, pc ? NULL : bias, pc > 0);
            }
}

/* ---- from the sums of a block to y ---- */

/* A row from its even and its odd numbers; those that are nowhere are 0. */
INLINE void interleave_two(REAL *d, idx n, const REAL *even, const REAL *odd) {
    for (idx j = 0; j < n; j += 2 * VL) {
        vr even_ones = even ? load(even + j / 2) : (vr){0}, odd_ones = odd ? load(odd + j / 2) : (vr){0};
        store_part(d + j, SHUFFLE(even_ones, odd_ones, ZIP_LOW), n - j);
        if (n - j > VL) store_part(d + j + VL, SHUFFLE(even_ones, odd_ones, ZIP_HIGH), n - j - VL);
    }
}

/* A row of the output from the rows of its phases, `distance` apart; those without taps are 0 and nowhere. */
static void interleave(REAL *d, idx n, const struct phase *phase, const REAL *s, idx distance, idx phases, idx step) {
    if (step == 2 && phases == 2) {
        interleave_two(d, n, phase[0].taps ? s : NULL, phase[1].taps ? s + distance : NULL);
        return;
    }
    for (idx w = 0; w < phases; w++)
        for (idx j = 0; j * step + w < n; j++) d[j * step + w] = phase[w].taps ? s[w * distance + j] : 0;
}

static REAL *output_at(const struct correlation *p, const struct block *b, idx image, idx m, idx row) {
    return p->y + (((b->image + image) * p->groups + b->group) * p->M + m) * p->y_rows * p->y_columns
         + row * p->y_columns + b->column * p->step_w;
}

static void write_sums(const struct correlation *p, const struct block *b, idx m0, idx m1, const REAL *sums, idx ld) {
    idx across = MIN(p->step_w, p->y_columns), distance = (m1 - m0) * ld, run = b->rows * b->columns;
    for (idx m = m0; m < m1; m++)
        for (idx image = 0; image < b->images; image++) {
            const REAL *s = sums + (m - m0) * ld + image * run;
            if (p->phases == 1) {
                copy_reals(output_at(p, b, image, m, b->row), s, run);
                continue;
            }
            for (idx r = 0; r < b->rows; r++)
                for (idx h = 0, row = (b->row + r) * p->step_h; h < MIN(p->step_h, p->y_rows - row); h++)
                    interleave(output_at(p, b, image, m, row + h),
                               MIN(b->columns * p->step_w, p->y_columns - b->column * p->step_w), p->phase + h * across,
                               s + h * across * distance + r * b->columns, distance, across, p->step_w);
        }
}

/* Rows k of a panel, for m output channels: the taps of channels [c0, c1). */
static void pack_weights_of(const struct correlation *p, const struct tap *tap, idx taps, const REAL *w, idx m, idx c0, idx c1,
                            REAL *d, idx ld) {
    int in_order = 1;
    for (idx t = 1; t < taps; t++) in_order &= tap[t].index == tap[t - 1].index + 1;
    if (in_order && taps == p->w_in) {
        pack(m, (c1 - c0) * taps, w + c0 * taps, p->w_out, 1, d, ld);
        return;
    }
    for (idx c = c0; c < c1; c++, d += taps * ld) {
        const REAL *s = w + c * p->w_in;
        for (idx i = 0; i < m * p->w_out; i += 64 / sizeof(REAL)) __builtin_prefetch(s + 4 * p->w_in + i);
        if (in_order) pack(m, taps, s + tap->index, p->w_out, 1, d, ld);
        else for (idx t = 0; t < taps; t++) pack(m, 1, s + tap[t].index, p->w_out, 0, d + t * ld, ld);
    }
}

#include "conv_channels.c"
#include "conv_in_place.c"

/* A block inside one image goes to y directly: there its pixels are as contiguous as in a strip. */
static int is_direct(const struct correlation *p) { return p->phases == 1 && (p->by_channels || p->images == 1) && p->K; }

static void correlate_packed(const struct correlation *p, const struct block *b, idx m0, idx m1, REAL *padded) {
    REAL *strips = padded + p->padded_reals, *sums = strips + p->strip_reals;
    const REAL *bias = p->bias ? p->bias + b->group * p->M : NULL;
    if (is_direct(p)) {
        REAL *y = output_at(p, b, 0, m0, b->row);
        idx ldy = p->y_rows * p->y_columns;
        if (p->by_channels) multiply_channels(p, b, p->phase[0], m0, m1, padded, y, ldy, p->groups * p->M * ldy, bias);
        else multiply_phase(p, b, p->phase[0], m0, m1, padded, strips, y, ldy, 0, bias);
        return;
    }
    idx ld = round_up(b->images * b->rows * b->columns, NR);
    for (idx i = 0; i < p->phases; i++) {
        REAL *c = sums + i * (m1 - m0) * ld;
        if (p->by_channels && p->phase[i].taps)
            multiply_channels(p, b, p->phase[i], m0, m1, padded, c, ld, b->rows * b->columns, bias);
        else if (p->in_place && p->phase[i].taps) multiply_in_place(p, b, p->phase[i], padded, c, ld);
        else if (p->C && p->phase[i].taps) multiply_phase(p, b, p->phase[i], m0, m1, padded, strips, c, ld, 1, bias);
        else if (!p->C || p->phases == 1)
            for (idx j = 0; j < (m1 - m0) * ld; j++) c[j] = bias ? bias[m0 + j / ld] : 0;
    }
    write_sums(p, b, m0, m1, sums, ld);
}

/* Channels that fill the lanes, pixels enough to hide the latency of a multiply-add, a sum long enough to pay for transposing
   its tile, and taps that read the same cache lines again. With a single vector of channels, whose products wait for loads,
   also more than a tenth of the lanes empty, or patches to pack, if pixels were the lanes. And rows of whole vectors are read
   in place where the sum is short: there the transposed tile would cost more than vectors that straddle two lines. */
static int prefers_channels(const struct correlation *p) {
    idx pixels = p->OH * p->OW;
    if (p->taps == 1 || p->K < 128 || 4 * round_up(p->M, VL) > 5 * p->M || pixels < 8) return 0;
    if (p->M > VL) return !(p->K < 256 && p->phases == 1 && p->OW % VL == 0 && prefers_in_place(p));
    if (!SINGLE || p->K < 128 * p->phases) return 0;
    if (prefers_sheared(p)) return 10 * pixels < 9 * round_up(pixels, VL);
    return !prefers_in_place(p) || 10 * p->OW < 9 * lanes_of_row(p);
}

/* ---- the whole correlation ---- */

static void correlate_items(void *arg, idx begin, idx end, int worker) {
    const struct correlation *p = arg;
    REAL *padded = p->scratch + worker * p->worker_reals;
    memset(padded + p->padded_reals - 3 * NR, 0, sizeof(REAL) * 3 * NR);   /* read past the last row: see scratch_take */
    for (idx i = begin; i < end; i++) {
        struct block b = block_at(p, i / p->parts);
        idx part = i % p->parts, m0 = part * p->part, m1 = part + 1 < p->parts ? m0 + p->part : p->M;
        if (i == begin || i % p->parts == 0) pad_block(p, &b, 0, p->C, padded);
        if (!p->in_place || p->phases > 1) correlate_packed(p, &b, m0, m1, padded);
        else if (p->M == 1) correlate_one_channel(p, &b, padded);
        else if (p->sheared) correlate_sheared(p, &b, padded);
        else correlate_in_place(p, &b, padded);
    }
}

static void pack_weights_by_rows(const struct correlation *p, const REAL *w, idx m, REAL *d) {
    for (idx t = 0; t < p->taps; t += p->across)
        for (idx c = 0; c < p->C; c++, d += p->across * m)
            pack_weights_of(p, p->tap + t, p->across, w, m, c, c + 1, d, m);
}

/* Weights become panels for each kc, as pack_panels makes them. */
static void pack_weights(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct correlation *p = arg;
    idx height = panel_height(p->M), panels = ceil_div(p->M, height);
    for (idx item = begin; item < end; item++) {
        idx g = item / panels, i = item % panels * height, m = MIN(height, p->M - i);
        if (p->in_place && p->across < p->taps) {
            pack_weights_by_rows(p, p->w + g * p->w_group + i * p->w_out, m, p->weights + g * p->K * p->M + i * p->K);
            continue;
        }
        for (idx n = 0; n < p->phases; n++) {
            struct phase phase = p->phase[n];
            idx K = p->C * phase.taps, kc0 = block_of_k(p, phase.taps);
            for (idx pc = 0; pc < K; pc += kc0) {
                idx kc = MIN(kc0, K - pc);
                pack_weights_of(p, p->tap + phase.first, phase.taps, p->w + g * p->w_group + i * p->w_out, m, pc / phase.taps,
                                (pc + kc) / phase.taps, p->weights + (g * p->K + p->C * phase.first + pc) * p->M + i * kc, m);
            }
        }
    }
}

/* What a block of pixels sees and, with several phases, its sums stay in L2 beside a strip of weights. */
static idx pixels_of_channels(const struct correlation *p) {
    idx reals = p->C * p->SH * p->SW + (p->phases > 1 ? p->M * p->phases : 0);
    return MAX(2 * NR, MIN(BLOCK_PIXELS, PIXEL_BYTES / (idx)sizeof(REAL) / reals));
}

/* Blocks of pixels small enough for every thread to have some; where there are few pixels, the channels are split too. */
static void choose_items(struct correlation *p) {
    idx threads = cnn_get_num_threads(), wanted = threads > 1 ? 4 * threads : 1;
    idx height = p->by_channels ? NR : panel_height(p->M), panels = p->by_channels ? strips_of(p->M) : ceil_div(p->M, height);
    idx most_parts = p->in_place ? 1 : MAX(1, panels / (p->by_channels ? 4 : 6));
    idx pixels = p->by_channels ? pixels_of_channels(p)
               : p->in_place ? MAX(BLOCK_PIXELS / 2, 8192 / MAX(1, p->C)) : BLOCK_PIXELS;
    do choose_blocks(p, pixels);
    while (blocks(p) * p->groups * most_parts < wanted && (pixels /= 2) >= 2 * NR);
    p->parts = MIN(most_parts, ceil_div(wanted, blocks(p) * p->groups));
    p->part = ceil_div(panels, p->parts) * height;
    p->parts = ceil_div(panels * height, p->part);
}

static void choose_scratch(struct correlation *p) {
    idx longest = 1, pixels = round_up(p->images * p->rows * p->columns, NR), mc = MAX(1, BLOCK_CHANNELS / panel_height(p->M));
    for (idx i = 0; i < p->phases; i++) longest = MAX(longest, block_of_k(p, p->phase[i].taps));
    p->strip_reals = p->in_place ? 0 : round_up((p->part <= mc * panel_height(p->M) ? NR : pixels) * longest + NR, 16);
    p->worker_reals = p->padded_reals;
    if (p->in_place && p->phases == 1) return;
    p->worker_reals += p->strip_reals;
    if (!is_direct(p)) p->worker_reals += p->phases * MIN(p->M, p->part + VL) * pixels + NR;   /* `interleave` reads beyond */
}

static int correlate(struct correlation p) {
    if (!p.N || !p.groups || !p.M || !p.OH || !p.OW) return CNN_OK;
    p.K = p.C * p.taps;
    p.by_channels = prefers_channels(&p);
    p.sheared = !p.by_channels && prefers_sheared(&p);
    p.in_place = p.sheared || (!p.by_channels && prefers_in_place(&p));
    if (p.in_place) p.across = p.phases == 1 && !p.sheared ? taps_across(&p) : p.taps;
    choose_items(&p);
    size_t offsets = (size_t)round_up(p.K * (idx)sizeof(idx), 64);
    char *shared = scratch_take(offsets + sizeof(REAL) * (size_t)(p.groups * round_up(p.M, VL) * p.K));
    if (!shared) return CNN_NO_MEMORY;
    p.offset = (idx *)shared, p.weights = (REAL *)(shared + offsets);
    choose_padding(&p);
    choose_scratch(&p);
    idx items = blocks(&p) * p.groups * p.parts, height = panel_height(p.M);
    idx grain = grain_of(0.1 * (double)p.part * (double)(p.K + 8) * (double)(p.images * p.rows * p.columns));
    p.scratch = scratch_take(sizeof(REAL) * (size_t)p.worker_reals * (size_t)parallel_workers(items, grain));
    if (p.scratch) {
        if (p.by_channels) parallel_for(p.groups * strips_of(p.M), grain_of((double)(NR * p.K)), pack_strips_of_weights, &p);
        else parallel_for(p.groups * ceil_div(p.M, height), grain_of((double)(height * p.K)), pack_weights, &p);
        parallel_for(items, grain, correlate_items, &p);
    }
    int status = p.scratch ? CNN_OK : CNN_NO_MEMORY;
    scratch_give(p.scratch);
    scratch_give(shared);
    return status;
}

/* ---- 1 x 1: a plain product per image ---- */

static int is_pointwise(const struct conv_shape *s) {   /* and large enough to pack the weights anew for every image */
    return s->KH * s->KW == 1 && s->SH == 1 && s->SW == 1 && s->top == 0 && s->left == 0 && s->OH == s->H && s->OW == s->W
        && s->groups == 1 && (s->H * s->W >= 8 * NR || s->N == 1);
}

/* y[n] (M x S) = w (M x K, by its strides) x[n] (K x S), `whole` as in a batch of them: how many threads there are chooses. */
static int pointwise(idx N, idx M, idx K, idx S, const REAL *w, idx wrs, idx wcs, const REAL *x, const REAL *bias, REAL *y) {
    struct product p = {.M = M, .N = S, .K = K, .a = w, .ars = wrs, .acs = wcs, .b = x, .brs = S, .bcs = 1,
                        .c = y, .crs = S, .ccs = 1, .bias = bias, .bias_rs = 1, .whole = 1};
    if (N >= cnn_get_num_threads()) {
        struct product oriented = well_oriented(&p);
        int swapped = oriented.a == x && M != 0;
        return multiply_batch((struct batch){oriented, swapped ? K * S : 0, swapped ? 0 : K * S, M * S}, N);
    }
    int status = CNN_OK;
    for (idx n = 0; n < N && status == CNN_OK; n++, p.b += K * S, p.c += M * S) status = multiply(p);
    return status;
}

/* One output pixel that sees the whole image: a product of matrices (N x K) and (F x K). */
static int is_whole_image(const struct conv_shape *s) {
    return s->OH * s->OW == 1 && s->top == 0 && s->left == 0 && s->KH == s->H && s->KW == s->W && s->DH * s->DW == 1
        && s->groups == 1;
}

#include "conv_strided.c"
#include "conv_depthwise.c"
#include "winograd.c"

/* ---- kernels ---- */

static int conv2d_forward(const struct conv_shape *s, const void *x, const void *w, const void *b, void *y) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    if (is_whole_image(s)) return linear_forward(s->N, C * taps, F, x, w, b, y);
    if (is_pointwise(s)) return pointwise(s->N, F, C, s->H * s->W, w, C, 1, x, b, y);
    if (is_depthwise(s)) return depthwise_forward(s, x, w, b, y);
    if (winograd_pays(s, FORWARD)) return winograd_forward(s, x, w, b, y);
    if (winograd_strided_pays(s, FORWARD)) return winograd_strided_forward(s, x, w, b, y);
    if (is_strided_product(s) && NR > LINE)   /* else products are over too soon for what they ask for */
        return multiply_strided((struct strided_product){.s = s, .M = F, .K = C, .in = x, .w = w, .bias = b, .out = y});
    struct tap *tap = scratch_take(sizeof(struct tap) * (size_t)taps);
    if (!tap) return CNN_NO_MEMORY;
    for (idx t = 0; t < taps; t++) tap[t] = (struct tap){t / s->KW * s->DH - s->top, t % s->KW * s->DW - s->left, t};
    struct phase all = {0, 0, 0, taps};
    int status = correlate((struct correlation){
        .N = s->N, .groups = s->groups, .C = C, .H = s->H, .W = s->W, .M = F, .OH = s->OH, .OW = s->OW,
        .SH = s->SH, .SW = s->SW, .taps = taps, .tap = tap, .phases = 1, .phase = &all, .x = x, .w = w, .w_group = F * C * taps,
        .w_out = C * taps, .w_in = taps, .bias = b, .y = y, .y_rows = s->OH, .y_columns = s->OW, .step_h = 1, .step_w = 1});
    scratch_give(tap);
    return status;
}

/* The taps that send to the pixels of dx with one phase (h mod SH, w mod SW), with stride 1 in dy: no product with an inserted
   zero is ever formed. */
static idx taps_of_phase(const struct conv_shape *s, idx h, idx w, struct tap *tap) {
    idx taps = 0;
    for (idx kh = 0; kh < s->KH; kh++)
        for (idx kw = 0; kw < s->KW; kw++) {
            idx oh = h + s->top - kh * s->DH, ow = w + s->left - kw * s->DW;
            if (oh % s->SH == 0 && ow % s->SW == 0) tap[taps++] = (struct tap){oh / s->SH, ow / s->SW, kh * s->KW + kw};
        }
    return taps;
}

static int conv2d_backward_input(const struct conv_shape *s, const void *dy, const void *w, void *dx) {
    idx C = s->C / s->groups, F = s->F / s->groups, all = s->KH * s->KW, across = MIN(s->SW, s->W);
    idx phases = MIN(s->SH, s->H) * across;
    if (is_whole_image(s)) return linear_backward_input(s->N, C * all, F, dy, w, dx);
    if (is_pointwise(s)) return pointwise(s->N, s->C, s->F, s->H * s->W, w, 1, s->C, dy, NULL, dx);
    if (is_depthwise(s)) return depthwise_backward_input(s, dy, w, dx);
    if (winograd_pays(s, BACKWARD_INPUT)) return winograd_backward_input(s, dy, w, dx);
    if (winograd_strided_pays(s, BACKWARD_INPUT)) return winograd_strided_backward_input(s, dy, w, dx);
    if (is_strided_product(s))
        return multiply_strided((struct strided_product){.s = s, .backward = 1, .M = C, .K = F, .in = dy, .w = w, .out = dx});
    struct tap *tap = scratch_take(sizeof(struct tap) * (size_t)all + sizeof(struct phase) * (size_t)phases);
    if (!tap) return CNN_NO_MEMORY;
    struct phase *phase = (struct phase *)(tap + all);
    idx taps = 0;
    for (idx i = 0; i < phases; i++) {
        phase[i] = (struct phase){i / across, i % across, taps, taps_of_phase(s, i / across, i % across, tap + taps)};
        taps += phase[i].taps;
    }
    int status = correlate((struct correlation){
        .N = s->N, .groups = s->groups, .C = F, .H = s->OH, .W = s->OW, .M = C, .SH = 1, .SW = 1,
        .OH = ceil_div(s->H, s->SH), .OW = ceil_div(s->W, s->SW), .taps = taps, .tap = tap, .phases = phases, .phase = phase,
        .x = dy, .w = w, .w_group = F * C * all, .w_out = all, .w_in = C * all,
        .y = dx, .y_rows = s->H, .y_columns = s->W, .step_h = s->SH, .step_w = s->SW});
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
