/* The products of conv.c with output channels as the lanes of a vector. A tile is a few pixels times two vectors of channels;
   per k it loads the weights of these channels, and of each pixel the one number that the padded image holds at offset[k].
   So patches are never copied, whatever the kernel and the stride. */

enum { MOST_VECTORS = 3, FEW_PIXELS = MR * 2 / 3 };   /* 2 x MR or 3 x FEW_PIXELS vectors of sums */

/* A single vector of channels takes twice the pixels. Each product loads one of its own, so that loads are the limit. */
enum { SINGLE = MR > 12, MOST_PIXELS = SINGLE ? 2 * MR : MR };

/* Where a tile has more pixels than there are registers for addresses, one that crosses rows is two whole rows. */
enum { PAIRS = MR > 6 };

typedef REAL pixel_row[MOST_PIXELS];

/* Of a long sum one chain: the sums of those before are `done`, to which it adds its own unless it is the last one. */
struct chain { REAL *done; int follows, goes_on; };

/* y (channels x m pixels, row stride ldy) = bias + weights (vectors per k) times pixels: number i of step k lies at
   image[offset[k] + i] or, when the tile crosses rows, at image[offset[k] + at[i]]. */
INLINE void channel_tile(const int m, const int vectors, const int crosses, idx K, const REAL *restrict image,
                         const idx *restrict offset, const idx *restrict at, const REAL *restrict weights, const REAL *bias,
                         const struct chain *chain, REAL *restrict y, idx ldy, idx channels) {
    vr sum[MOST_PIXELS][MOST_VECTORS];
    for (int v = 0; v < vectors; v++) {
        vr start = bias ? load_part(bias + v * VL, MIN(VL, channels - v * VL)) : (vr){0};
#pragma GCC unroll 32
        for (int i = 0; i < m; i++) sum[i][v] = start;
    }
    /* In one row, or two, a pixel is at a constant distance from the first one: it needs no address of its own. */
    const REAL *from[MR], *upper = image + (crosses ? at[0] : 0), *lower = image + (crosses ? at[m / 2] : m / 2);
#pragma GCC unroll 16
    for (int i = 0; crosses && !PAIRS && i < m; i++) from[i] = image + at[i];
    const REAL *row = y;
    const idx pace = MAX(1, K / (vectors * VL));
    for (idx k = 0, next = 0; k < K; k++, weights += vectors * VL) {
        if (k == next) {
            __builtin_prefetch(row, 1);
            row += ldy, next += pace;
        }
        const pixel_row *up = (const pixel_row *)(upper + offset[k]), *low = (const pixel_row *)(lower + offset[k]);
#pragma GCC unroll 3
        for (int v = 0; v < vectors * VL; v += LINE)
            if (vectors > 1) prefetch_ahead(weights + v);   /* with one, there are no loads to spare */
        vr w0 = load(weights), w1 = vectors > 1 ? load(weights + VL) : w0, w2 = vectors > 2 ? load(weights + 2 * VL) : w0;
#pragma GCC unroll 32
        for (int i = 0; i < m; i++) {
            const REAL pixel = crosses && !PAIRS ? from[i][offset[k]] : i < m / 2 ? (*up)[i] : (*low)[i - m / 2];
            sum[i][0] += pixel * w0;
            if (vectors > 1) sum[i][1] += pixel * w1;
            if (vectors > 2) sum[i][2] += pixel * w2;
        }
    }
    if (chain->follows)
#pragma GCC unroll 32
        for (int i = 0; i < m * vectors; i++) sum[i / vectors][i % vectors] += load(chain->done + i * VL);
    if (chain->goes_on) {
#pragma GCC unroll 32
        for (int i = 0; i < m * vectors; i++) store(chain->done + i * VL, sum[i / vectors][i % vectors]);
        return;
    }
#pragma GCC unroll 3
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i += VL) {
            vr pixels[LANES_IN_VECTOR];
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++) pixels[l] = i + l < m ? sum[i + l][v] : (vr){0};
            transpose(pixels);
            idx rows = MIN(VL, channels - v * VL);
            REAL *d = y + v * VL * ldy + i;
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++, d += ldy)
                if (l < rows) store_part(d, pixels[l], m - i);
        }
}

typedef void (*channel_kernel)(int vectors, idx K, const REAL *image, const idx *offset, const idx *at, const REAL *weights,
                               const REAL *bias, const struct chain *chain, REAL *y, idx ldy, idx channels);
#define PIXELS(m) \
    static void channel_tile_##m(int vectors, idx K, const REAL *image, const idx *offset, const idx *at, const REAL *weights, \
                                 const REAL *bias, const struct chain *chain, REAL *y, idx ldy, idx channels) { \
        if (vectors > 2 && m <= FEW_PIXELS) { \
            if (at) channel_tile(m, 3, 1, K, image, offset, at, weights, bias, chain, y, ldy, channels); \
            else channel_tile(m, 3, 0, K, image, offset, at, weights, bias, chain, y, ldy, channels); \
        } else if (SINGLE && vectors == 1) { \
            channel_tile(m, 1, 1, K, image, offset, at, weights, bias, chain, y, ldy, channels); \
        } else { \
            if (at) channel_tile(m, 2, 1, K, image, offset, at, weights, bias, chain, y, ldy, channels); \
            else channel_tile(m, 2, 0, K, image, offset, at, weights, bias, chain, y, ldy, channels); \
        } \
    }
PIXELS(1) PIXELS(2) PIXELS(3) PIXELS(4) PIXELS(5) PIXELS(6)
#if MR > 6
PIXELS(7) PIXELS(8) PIXELS(9) PIXELS(10) PIXELS(11) PIXELS(12)
#endif
#if MR > 12
PIXELS(13) PIXELS(14)
#define MANY_PIXELS(m) \
    static void channel_tile_##m(int vectors, idx K, const REAL *image, const idx *offset, const idx *at, const REAL *weights, \
                                 const REAL *bias, const struct chain *chain, REAL *y, idx ldy, idx channels) { \
        (void)vectors; \
        channel_tile(m, 1, 1, K, image, offset, at, weights, bias, chain, y, ldy, channels); \
    }
MANY_PIXELS(15) MANY_PIXELS(16) MANY_PIXELS(17) MANY_PIXELS(18) MANY_PIXELS(19) MANY_PIXELS(20) MANY_PIXELS(21)
MANY_PIXELS(22) MANY_PIXELS(23) MANY_PIXELS(24) MANY_PIXELS(25) MANY_PIXELS(26) MANY_PIXELS(27) MANY_PIXELS(28)
#endif
static const channel_kernel channel_kernels[] = {
    NULL, channel_tile_1, channel_tile_2, channel_tile_3, channel_tile_4, channel_tile_5, channel_tile_6,
#if MR > 6
    channel_tile_7, channel_tile_8, channel_tile_9, channel_tile_10, channel_tile_11, channel_tile_12,
#endif
#if MR > 12
    channel_tile_13, channel_tile_14, channel_tile_15, channel_tile_16, channel_tile_17, channel_tile_18, channel_tile_19,
    channel_tile_20, channel_tile_21, channel_tile_22, channel_tile_23, channel_tile_24, channel_tile_25, channel_tile_26,
    channel_tile_27, channel_tile_28,
#endif
};

/* ---- strips of weights ---- */

/* Strips of two vectors of channels, and a last one of three where their number is odd, or the only one. */
static idx strips_of(idx channels) { return MAX(1, ceil_div(channels, VL) / 2); }
static idx strip_lanes(idx channels, idx f) {
    idx vectors = ceil_div(channels - f, VL);
    return vectors == 3 || vectors == 1 ? vectors * VL : NR;
}

/* A pixel of a block, and where it lies in the padded image. */
struct position { idx image, row, column; };

static idx place_of_pixel(const struct correlation *p, struct position at) {
    return at.image * p->C * p->PH * p->PS * p->PW + at.row * p->pitch + at.column;
}
static struct position pixels_after(const struct block *b, struct position at, idx n) {
    for (at.column += n; at.column >= b->columns; at.column -= b->columns)
        if (++at.row == b->rows) at.row = 0, at.image++;
    return at;
}

/* Too few to hide the latency of a multiply-add. */
static int few_sums(idx pixels, idx vectors) { return pixels * vectors < 8; }

/* Pixels that are cut into tiles whatever their rows, where those inside of one would be narrow: two rows, or a block. */
static idx joined(idx columns, idx pixels, idx most, idx vectors) {
    if (PAIRS) return 2 * columns <= most ? 2 * columns : columns;
    return columns < 4 * most || few_sums(columns % most, vectors) ? pixels : columns;
}

/* A tile whose first `split` pixels are the last ones of an image. */
static void copy_split(const REAL *tile, idx m, idx split, idx channels, REAL *y, REAL *next, idx ldy) {
    for (idx l = 0; l < channels; l++, tile += MOST_PIXELS, y += ldy, next += ldy)
        for (idx i = 0; i < m; i++) *(i < split ? y + i : next + i - split) = tile[i];
}

/* y (channels x pixels, row stride ldy), the images y_image apart: channels [m0, m1) of one phase. */
static void multiply_channels(const struct correlation *p, const struct block *b, struct phase phase, idx m0, idx m1,
                              const REAL *padded, REAL *y, idx ldy, idx y_image, const REAL *bias) {
    idx in_image = b->rows * b->columns, pixels = b->images * in_image, K = p->C * phase.taps;
    const idx *offset = p->offset + p->C * phase.first, chain = chain_of(K);
    REAL done[2 * MR * LANES_IN_VECTOR] __attribute__((aligned(64)));
    for (idx f = m0, lanes; f < m1; f += lanes) {
        lanes = strip_lanes(p->M, f);
        idx most = lanes > NR ? FEW_PIXELS : lanes < NR ? MOST_PIXELS : MR, channels = MIN(lanes, p->M - f), at[MOST_PIXELS];
        idx run = joined(b->columns, pixels, most, lanes / VL), width = block_of(run, most);
        int balanced = few_sums(run % width, lanes / VL);
        const REAL *weights = p->weights + (b->group * round_up(p->M, VL) + f) * p->K + p->C * phase.first * lanes;
        struct position here = {0}, next;
        for (idx j = 0, m; j < pixels; j += m, here = next) {
            idx first = here.row * b->columns + here.column;
            idx left = run == pixels ? pixels - j : MIN(run - first % run, in_image - first);
            m = balanced ? block_of(left, most) : MIN(width, left);
            next = pixels_after(b, here, m);
            int across = lanes < NR || here.column + m > b->columns, split = first + m > in_image;
            for (idx i = 0; across && i < m; i += PAIRS ? MAX(1, m / 2) : 1)
                at[i] = place_of_pixel(p, pixels_after(b, here, i));
            REAL tile[MOST_VECTORS * LANES_IN_VECTOR * MOST_PIXELS], *to = y + here.image * y_image + (f - m0) * ldy + first;
            const REAL *from = across ? padded : padded + place_of_pixel(p, here);
            for (idx k = 0; k == 0 || k < K; k += chain) {
                const struct chain part = {done, k > 0, k + chain < K};
                channel_kernels[m]((int)(lanes / VL), MIN(chain, K - k), from, offset + k, across ? at : NULL, weights + k * lanes,
                                   bias && !k ? bias + f : NULL, &part, split ? tile : to, split ? MOST_PIXELS : ldy, channels);
            }
            if (split) copy_split(tile, m, in_image - first, channels, to, to - first + y_image, ldy);
        }
    }
}

enum { PACKED_ROWS = 64 };   /* of weights: enough that they are written before they are read again */

/* Where the taps want them: rows [first, first + n) of the weights of input channel c. */
static void place_rows(const struct correlation *p, idx c, idx first, idx n, const REAL *rows, REAL *d, idx lanes) {
    for (idx i = 0; i < p->phases; i++) {
        const struct phase *phase = &p->phase[i];
        REAL *to = d + (p->C * phase->first + c * phase->taps) * lanes;
        for (idx t = 0; t < phase->taps; t++, to += lanes) {
            idx row = p->tap[phase->first + t].index - first;
            if (row >= 0 && row < n) for (idx l = 0; l < lanes; l += VL) store(to + l, load(rows + row * lanes + l));
        }
    }
}

/* Weight `index` of every channel of the sum, for the channels of a strip, becomes a row wherever a tap has it. */
static void pack_strip(const struct correlation *p, idx group, idx f) {
    REAL rows[PACKED_ROWS * MOST_VECTORS * LANES_IN_VECTOR] __attribute__((aligned(64)));
    idx lanes = strip_lanes(p->M, f), channels = MIN(lanes, p->M - f), indices = 0;
    REAL *d = p->weights + (group * round_up(p->M, VL) + f) * p->K;
    const REAL *w = p->w + group * p->w_group + f * p->w_out;
    int in_order = p->phases == 1 && p->taps == p->w_in;
    for (idx t = 0; t < p->taps; t++) indices = MAX(indices, p->tap[t].index + 1), in_order &= p->tap[t].index == t;
    if (channels < lanes) memset(in_order ? d : rows, 0, in_order ? sizeof(REAL) * (size_t)(p->K * lanes) : sizeof rows);
    if (in_order) {
        pack(channels, p->K, w, p->w_out, 1, d, lanes);
        return;
    }
    idx together = MAX(1, PACKED_ROWS / indices);
    for (idx c0 = 0; c0 < p->C; c0 += together)
        for (idx first = 0; first < indices; first += PACKED_ROWS) {
            idx n = MIN(PACKED_ROWS, indices - first), c1 = MIN(p->C, c0 + together);
            for (idx c = c0; c < c1; c++) {
                const REAL *from = w + c * p->w_in + first;
                for (idx i = 0; i < channels * p->w_out; i += LINE) __builtin_prefetch(from + together * p->w_in + i);
                pack(channels, n, from, p->w_out, 1, rows + (c - c0) * n * lanes, lanes);
            }
            for (idx c = c0; c < c1; c++) place_rows(p, c, first, n, rows + (c - c0) * n * lanes, d, lanes);
        }
}

static void pack_strips_of_weights(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct correlation *p = arg;
    idx strips = strips_of(p->M);
    for (idx i = begin; i < end; i++) pack_strip(p, i / strips, i % strips * NR);
}
