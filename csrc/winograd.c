/* Winograd's minimal filtering F(4 x 4, 3 x 3): a 4 x 4 tile of the output from a 6 x 6 tile of the input, with 36
   multiplications where the definition takes 144. Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.

       y = A'[(G g G') * (B' d B)] A      (' transposes, * multiplies element by element)

   In one dimension, the product of two polynomials g (degree 2) and y (degree 3) is known from its values at five points and
   its leading coefficient ("infinity"); correlation is the transpose of that product. For the points p = 0, a, -a, b, -b:

       row p of A  = 1, p, p^2, p^3;   row p of G = (1, p, p^2) / N(p), where N(p) = product of p - q over the other points q;
       row p of B' = coefficients of the product of x - q over q != p; the last one: of x - q over all five;
       the rows of infinity in A and G: 0, 0, 0, 1 and 0, 0, 1.

   a = sqrt(1/2), b = sqrt(2): because a b = 1 the entries stay near 1, and with them the rounding errors, several times less
   than with 1 and 2. Then N(0) = 1, N(a) = N(-a) = -3/2, N(b) = N(-b) = 6. tests/test_winograd.py derives the rows again.

   The sum over channels makes of each of the 36 elements a matrix product: weights (F x C) times tiles (C x tiles). Tiles are
   numbered along the rows of tiles, over all images, and worked on in pieces.

   A larger kernel is a sum of parts, kernels of 3 x 3 whose images are shifted by threes: more channels, for all that follows.
   What a part has beyond the kernel is zero. For 5 x 5 that makes 4 * 36 multiplications of 400. */

enum { TILE = 4, POINTS = 6, ELEMENTS = POINTS * POINTS, TAPS = 3 };

static const REAL ROOT_HALF = (REAL)0.70710678118654752440, ROOT_TWO = (REAL)1.41421356237309504880;

/* ---- one dimension ---- */

INLINE void transform_input(vr *d) {   /* B' d */
    vr d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3], d4 = d[4], d5 = d[5];
    vr even_a = d4 - 2 * d2, odd_a = d3 - 2 * d1, even_b = d4 - (REAL)0.5 * d2, odd_b = d3 - (REAL)0.5 * d1;
    d[0] = d0 - (REAL)2.5 * d2 + d4;
    d[1] = even_a + ROOT_HALF * odd_a;
    d[2] = even_a - ROOT_HALF * odd_a;
    d[3] = even_b + ROOT_TWO * odd_b;
    d[4] = even_b - ROOT_TWO * odd_b;
    d[5] = d1 - (REAL)2.5 * d3 + d5;
}

INLINE void transform_output(vr *m) {   /* A' m: four results */
    vr even_a = m[1] + m[2], odd_a = ROOT_HALF * (m[1] - m[2]), even_b = m[3] + m[4], odd_b = ROOT_TWO * (m[3] - m[4]);
    m[0] = m[0] + even_a + even_b;
    m[1] = odd_a + odd_b;
    m[2] = (REAL)0.5 * even_a + 2 * even_b;
    m[3] = (REAL)0.5 * odd_a + 2 * odd_b + m[5];
}

INLINE void transform_filter(const vr *g, vr *u) {   /* G g */
    const REAL ca = (REAL)(-2 / 3.), cb = (REAL)(1 / 6.);
    vr even_a = ca * (g[0] + (REAL)0.5 * g[2]), odd_a = (ca * ROOT_HALF) * g[1];
    vr even_b = cb * (g[0] + 2 * g[2]), odd_b = (cb * ROOT_TWO) * g[1];
    u[0] = g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* ---- lanes ---- */

#if VECTOR_BYTES == 16 && !REAL_IS_FLOAT
#define EVEN 0, 2
#define ODD 1, 3
#define LOW 0, 2
#define HIGH 1, 3
#elif VECTOR_BYTES == 16 || (VECTOR_BYTES == 32 && !REAL_IS_FLOAT)
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#elif VECTOR_BYTES == 32 || !REAL_IS_FLOAT
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

/* Every fourth real from s on, from s + 1 on, ... (the first n of these four) */
INLINE void split_phases(const int n, const REAL *s, vr *d) {
    vr a = load(s), b = load(s + VL), c = load(s + 2 * VL), e = load(s + 3 * VL);
    vr even_ab = __builtin_shufflevector(a, b, EVEN), even_ce = __builtin_shufflevector(c, e, EVEN);
    vr odd_ab = __builtin_shufflevector(a, b, ODD), odd_ce = __builtin_shufflevector(c, e, ODD);
    d[0] = __builtin_shufflevector(even_ab, even_ce, EVEN);
    d[1] = __builtin_shufflevector(odd_ab, odd_ce, EVEN);
    if (n <= 2) return;
    d[2] = __builtin_shufflevector(even_ab, even_ce, ODD);
    d[3] = __builtin_shufflevector(odd_ab, odd_ce, ODD);
}

INLINE void join_phases(const vr *s, REAL *d) {
    vr low_02 = __builtin_shufflevector(s[0], s[2], LOW), high_02 = __builtin_shufflevector(s[0], s[2], HIGH);
    vr low_13 = __builtin_shufflevector(s[1], s[3], LOW), high_13 = __builtin_shufflevector(s[1], s[3], HIGH);
    store(d, __builtin_shufflevector(low_02, low_13, LOW));
    store(d + VL, __builtin_shufflevector(low_02, low_13, HIGH));
    store(d + 2 * VL, __builtin_shufflevector(high_02, high_13, LOW));
    store(d + 3 * VL, __builtin_shufflevector(high_02, high_13, HIGH));
}

/* ---- parts of a kernel ---- */

struct kernel { idx KH, KW, across, parts; };

static struct kernel kernel_of(idx KH, idx KW) {
    idx across = ceil_div(KW, TAPS);
    return (struct kernel){KH, KW, across, ceil_div(KH, TAPS) * across};
}

INLINE idx top_of(const struct kernel *k, idx part) { return part / k->across * TAPS; }
INLINE idx left_of(const struct kernel *k, idx part) { return part % k->across * TAPS; }

/* ---- tiles ---- */

struct tiling { idx rows, columns, count; };   /* of tiles in an image; tiles in all images */

static struct tiling tiling_of(idx N, idx OH, idx OW) {
    idx rows = ceil_div(OH, TILE), columns = ceil_div(OW, TILE);
    return (struct tiling){rows, columns, N * rows * columns};
}

/* Tiles beside each other in one image. */
struct tile_run { idx image, row, column, length; };

static struct tile_run run_at(const struct tiling *t, idx first, idx at, idx end) {
    idx tile = first + at, column = tile % t->columns;
    return (struct tile_run){.image = tile / t->columns / t->rows, .row = tile / t->columns % t->rows, .column = column,
                             .length = MIN(t->columns - column, end - at)};
}

/* Lines of an image plane, zero outside. */
struct plane { const REAL *pixels; idx H, W; const REAL *zeros; };

INLINE void fill_zeros(REAL *z, idx pitch, idx begin, idx end) {
    for (int i = 0; i < POINTS; i++)
        for (idx k = begin; k < end; k += VL) store(z + i * pitch + k, (vr){0});
}

/* The transform down the columns [column, column + n) of the `height` rows from `row` on: six lines. Writes whole vectors. */
INLINE void transform_columns(void (*const transform)(vr *), const int height, const struct plane *s, idx row, idx column,
                              idx n, REAL *z, idx pitch) {
    const REAL *line[POINTS];
    idx begin = MIN(n, MAX(0, -column)), end = MAX(begin, MIN(n, s->W - column)), k = begin;
    for (int i = 0; i < height; i++)
        line[i] = row + i >= 0 && row + i < s->H ? s->pixels + (row + i) * s->W + column + begin : s->zeros;
    fill_zeros(z, pitch, 0, begin);
    for (; k < end; k += VL) {
        vr d[POINTS];
#pragma GCC unroll 6
        for (int i = 0; i < height; i++) {
            d[i] = end - k >= VL ? load(line[i]) : load_n(line[i], end - k);
            line[i] += VL;
        }
        transform(d);
#pragma GCC unroll 6
        for (int i = 0; i < POINTS; i++) store(z + i * pitch + k, d[i]);
    }
    fill_zeros(z, pitch, k, n);
}

/* Rows of a plane that lies next to the one at work: too short, and too far from each other, for the hardware to see a pattern. */
INLINE void prefetch_rows(const REAL *pixels, idx rows, idx columns, idx pitch, const int writes) {
    for (idx i = 0; i < rows; i++, pixels += pitch)
        for (idx k = 0; k < columns; k += 64 / sizeof(REAL))
            if (writes) __builtin_prefetch(pixels + k, 1);
            else __builtin_prefetch(pixels + k);
}

/* ---- forward, and backward-input: the same with rotated, transposed weights and padding K - 1 - p ---- */

/* A piece of transformed input, with a block of weights and of products, fits into L2; a chunk and small weights into L3. */
enum { PIECE_TILES = 64, PIECE_REALS = 72 << 10, BLOCK_ROWS = 28, SMALL_WEIGHTS = 1 << 20, CHUNK_REALS = 2 << 20 };
enum { CHAIN = 128 };   /* channels summed in one go: with longer chains the error would grow */
enum { LONGEST = 12, MOST_TAPS = LONGEST * LONGEST, MOST_SHIFTS = 4, LANES_OF_PANEL = (MR + 15) / 16 * 16 };   /* of kernels */

struct winograd {
    idx C, H, W, F, OH, OW, top, left;
    const REAL *x; idx x_image;
    const REAL *w; idx w_out, w_in; int rotated;   /* weight (f, c, KH, KW) */
    struct kernel kernel;
    const REAL *bias;
    REAL *y; idx y_image;

    struct tiling tiling;
    idx items, terms;                  /* channels for each row of parts; for each part */
    idx chain, span, kept;             /* terms summed at once, transformed at once; blocks of products under way */
    idx first, pieces;                 /* the chunk at work: its first tile, its pieces */
    idx piece;                         /* tiles of a piece */
    idx height, block, blocks;         /* output channels: rows of a panel, rows of a block, blocks */
    idx v_element, u_element, m_element, line;
    idx lines_reals, v_reals, u_reals, m_reals;   /* a channel's lines, a piece's input, a block's weights, their products */
    REAL *u, *v, *zeros, *scratch;
    idx worker_reals;
};

/* The lines of tiles begin four columns apart: as many as the parts of a row need, which begin three apart and take six. */
INLINE int shifts_of(int across) { return ((across - 1) * TAPS + POINTS + TILE - 1) / TILE; }

/* A channel of the tiles from `first` on for a row of parts, to v: (element, strip, term, NR). z: six lines along the pixels of
   all tiles; then those one tile to the right, computed again because reading back what was just written would wait for it. */
INLINE void transform_terms(const struct winograd *p, const int across, idx first, idx tiles, idx item, REAL *v, REAL *z) {
    const int shifts = shifts_of(across), columns = (across - 1) * TAPS + POINTS;
    const idx c = item % p->C, top = p->top - item / p->C * TAPS, image = POINTS * p->line;
    for (idx at = 0; at < tiles;) {
        struct tile_run r = run_at(&p->tiling, first, at, tiles);
        struct plane plane = {p->x + r.image * p->x_image + c * p->H * p->W, p->H, p->W, p->zeros};
        idx row = r.row * TILE - top, column = r.column * TILE - p->left, n = r.length * TILE;
        if (c + 1 < p->C) prefetch_rows(plane.pixels + (p->H + MAX(0, row)) * p->W + MAX(0, column), POINTS, n, p->W, 0);
        for (int k = 0; k < shifts; k++)
            transform_columns(transform_input, POINTS, &plane, row, column + k * TILE, n, z + k * image + at * TILE, p->line);
        at += r.length;
    }
    for (idx q = 0; q < tiles; q += VL)
        for (int i = 0; i < POINTS; i++) {
            REAL *to = v + i * POINTS * p->v_element + (q / NR * p->span + item * across % p->span) * NR + q % NR;
            vr pixels[MOST_SHIFTS * TILE];
#pragma GCC unroll 4
            for (int k = 0; k < shifts; k++)
                split_phases(MIN(TILE, columns - k * TILE), z + k * image + i * p->line + q * TILE, pixels + k * TILE);
#pragma GCC unroll 2
            for (int k = 0; k < across; k++, to += NR) {
                vr d[POINTS];
#pragma GCC unroll 6
                for (int j = 0; j < POINTS; j++) d[j] = pixels[k * TAPS + j];
                transform_input(d);
#pragma GCC unroll 6
                for (int j = 0; j < POINTS; j++) store(to + j * p->v_element, d[j]);
            }
        }
}

static void transform_piece(const struct winograd *p, idx first, idx tiles, idx item, REAL *v, REAL *z) {
    if (p->kernel.across == 1) transform_terms(p, 1, first, tiles, item, v, z);
    else if (p->kernel.across == 2) transform_terms(p, 2, first, tiles, item, v, z);
    else transform_terms(p, (int)p->kernel.across, first, tiles, item, v, z);
}

/* A part of a filter, zero beyond it; taps: KH KW vectors, ld apart. */
INLINE void load_taps(const struct kernel *k, int rotated, idx top, idx left, const REAL *taps, idx ld, vr g[TAPS][TAPS]) {
    for (int i = 0; i < TAPS; i++)
        for (int j = 0; j < TAPS; j++) {
            idx tap = (top + i) * k->KW + left + j;
            if (rotated) tap = k->KH * k->KW - 1 - tap;
            g[i][j] = top + i < k->KH && left + j < k->KW ? load(taps + tap * ld) : (vr){0};
        }
}

/* The panel of m output channels from f on: (element, term, m). Whole vectors: the next term overwrites what is too much. */
static void transform_weights(const struct winograd *p, idx f, idx m, REAL *u) {
    const idx ld = LANES_OF_PANEL, all = p->kernel.KH * p->kernel.KW, most = MOST_TAPS / all;
    REAL taps[MOST_TAPS * LANES_OF_PANEL] __attribute__((aligned(64)));
    for (idx item = 0; item < p->items; item++) {
        idx c = item % p->C, channels = MIN(most, p->C - c / most * most), row = item / p->C * TAPS;
        const REAL *w = p->w + f * p->w_out + c * p->w_in;
        if (c % most == 0)
            for (idx k = 0; k < channels; k++) pack(m, all, w + k * p->w_in, p->w_out, 1, taps + k * all * ld, ld);
        for (idx k = 0; k < p->kernel.across; k++, u += m)
            for (idx l = 0; l < m; l += VL) {
                vr g[TAPS][TAPS], half[TAPS][POINTS], t[TAPS], d[POINTS];
                load_taps(&p->kernel, p->rotated, row, k * TAPS, taps + c % most * all * ld + l, ld, g);
                for (int i = 0; i < TAPS; i++) transform_filter(g[i], half[i]);
                for (int j = 0; j < POINTS; j++) {
                    for (int i = 0; i < TAPS; i++) t[i] = half[i][j];
                    transform_filter(t, d);
                    for (int i = 0; i < POINTS; i++) store(u + (i * POINTS + j) * p->u_element + l, d[i]);
                }
            }
    }
}

static void transform_block(const struct winograd *p, idx block, REAL *u) {
    idx end = MIN(p->F, (block + 1) * p->block);
    for (idx f = block * p->block; f < end; f += p->height, u += ELEMENTS * p->u_element)
        transform_weights(p, f, MIN(p->height, end - f), u);
}

/* The tiles of one output channel as four lines of pixels, then into the image. */
static void transform_channel(const struct winograd *p, idx first, idx tiles, idx f, const REAL *m, REAL *lines) {
    REAL bias = p->bias ? p->bias[f] : 0;
    for (idx at = 0; at < tiles;) {
        struct tile_run r = run_at(&p->tiling, first, at, tiles);
        REAL *y = p->y + r.image * p->y_image + ((f + 1) * p->OH + r.row * TILE) * p->OW + r.column * TILE;
        prefetch_rows(y, MIN(TILE, p->OH - r.row * TILE), r.length * TILE, p->OW, 1);
        at += r.length;
    }
    for (idx q = 0; q < tiles; q += VL) {
        vr columns[TILE][POINTS];
#pragma GCC unroll 6
        for (int j = 0; j < POINTS; j++) {
            vr d[POINTS];
#pragma GCC unroll 6
            for (int i = 0; i < POINTS; i++) d[i] = load(m + (i * POINTS + j) * p->m_element + q);
            transform_output(d);
#pragma GCC unroll 4
            for (int i = 0; i < TILE; i++) columns[i][j] = d[i];
        }
#pragma GCC unroll 4
        for (int i = 0; i < TILE; i++) {
            transform_output(columns[i]);
            for (int j = 0; j < TILE; j++) columns[i][j] += bias;
            join_phases(columns[i], lines + i * p->line + q * TILE);
        }
    }
    for (idx at = 0; at < tiles;) {
        struct tile_run r = run_at(&p->tiling, first, at, tiles);
        REAL *y = p->y + r.image * p->y_image + (f * p->OH + r.row * TILE) * p->OW + r.column * TILE;
        for (idx i = 0; i < MIN(TILE, p->OH - r.row * TILE); i++)
            copy_reals(y + i * p->OW, lines + i * p->line + at * TILE, MIN(r.length * TILE, p->OW - r.column * TILE));
        at += r.length;
    }
}

static idx tiles_of_piece(const struct winograd *p, idx piece) {
    return MIN(p->piece, p->tiling.count - p->first - piece * p->piece);
}

/* A block of output channels of a piece, by the `span` terms from `term` on; products m: (element, channel, tile). */
static void multiply_block(const struct winograd *p, idx block, idx piece, idx term, const REAL *u, const REAL *v, REAL *m,
                           REAL *lines) {
    idx rows = MIN(p->block, p->F - block * p->block), tiles = tiles_of_piece(p, piece);
    idx end = MIN(p->terms, term + p->span);
    for (int e = 0; e < ELEMENTS; e++)
        for (idx t = 0; t < tiles; t += NR)
            for (idx k = term; k < end; k += p->chain)
                for (idx i = 0; i < rows; i += p->height) {
                    idx height = MIN(p->height, rows - i);
                    micro_kernels[height](
                        MIN(p->chain, end - k), u + (i / p->height * ELEMENTS + e) * p->u_element + k * height,
                        v + e * p->v_element + t * p->span + (k - term) * NR, NR, NULL, VL,
                        m + e * p->m_element + i * p->piece + t, p->piece, NULL, k > 0);
                }
    if (end < p->terms) return;
    for (idx i = 0; i < rows; i++)
        transform_channel(p, p->first + piece * p->piece, tiles, block * p->block + i, m + i * p->piece, lines);
}

/* Small weights are transformed once; then a worker takes whole pieces, and all that is at hand stays in its cache. */
static void transform_blocks(void *arg, idx begin, idx end, int worker) {
    (void)worker;
    const struct winograd *p = arg;
    for (idx block = begin; block < end; block++) transform_block(p, block, p->u + block * p->u_reals);
}

static void whole_pieces(void *arg, idx begin, idx end, int worker) {
    const struct winograd *p = arg;
    REAL *lines = p->scratch + worker * p->worker_reals, *v = lines + p->lines_reals, *m = v + p->v_reals;
    for (idx piece = begin; piece < end; piece++)
        for (idx term = 0; term < p->terms; term += p->span) {
            for (idx k = term; k < MIN(p->terms, term + p->span); k += p->kernel.across)
                transform_piece(p, p->first + piece * p->piece, tiles_of_piece(p, piece), k / p->kernel.across, v, lines);
            for (idx block = 0; block < p->blocks; block++)
                multiply_block(p, block, piece, term, p->u + block * p->u_reals, v, m + block % p->kept * p->m_reals, lines);
        }
}

/* Large weights are transformed block by block where they are used, for a whole chunk of transformed input. */
static void transform_pieces(void *arg, idx begin, idx end, int worker) {
    const struct winograd *p = arg;
    for (idx item = begin; item < end; item++) {
        idx piece = item / p->items;
        transform_piece(p, p->first + piece * p->piece, tiles_of_piece(p, piece), item % p->items, p->v + piece * p->v_reals,
                        p->scratch + worker * p->worker_reals);
    }
}

static void multiply_blocks_of_pieces(void *arg, idx begin, idx end, int worker) {
    const struct winograd *p = arg;
    REAL *lines = p->scratch + worker * p->worker_reals, *u = lines + p->lines_reals, *m = u + p->u_reals;
    idx ready = -1;
    for (idx item = begin; item < end; item++) {
        idx block = item / p->pieces, piece = item % p->pieces;
        if (block != ready) transform_block(p, block, u);
        ready = block;
        multiply_block(p, block, piece, 0, u, p->v + piece * p->v_reals, m, lines);
    }
}

static int winograd(struct winograd p) {
    idx tiles = p.tiling.count;
    if (!tiles || !p.C || !p.F) return CNN_OK;
    p.items = ceil_div(p.kernel.KH, TAPS) * p.C, p.terms = p.items * p.kernel.across;
    p.chain = block_of(p.items, CHAIN / p.kernel.across) * p.kernel.across;
    p.height = panel_height(p.F), p.block = MAX(1, BLOCK_ROWS / p.height) * p.height, p.blocks = ceil_div(p.F, p.block);
    p.piece = MIN(MAX(NR, MIN(PIECE_TILES, PIECE_REALS / (ELEMENTS * p.terms) / NR * NR)), round_up(tiles, NR));
    p.line = round_up((p.piece + 1) * TILE + 2 * VL, 16), p.lines_reals = shifts_of((int)p.kernel.across) * POINTS * p.line;
    p.u_element = round_up(p.terms * p.height, 16) + 16, p.m_element = p.block * p.piece + 16;   /* + 16: not all in the */
    p.u_reals = p.block / p.height * ELEMENTS * p.u_element, p.m_reals = ELEMENTS * p.m_element;   /* same sets of a cache */

    idx all_pieces = ceil_div(tiles, p.piece);
    int whole = p.blocks * p.u_reals <= SMALL_WEIGHTS && all_pieces >= 2 * cnn_get_num_threads();
    p.span = whole ? p.chain : p.terms, p.kept = p.span < p.terms ? p.blocks : 1;
    p.v_element = p.span * p.piece + 16, p.v_reals = ELEMENTS * p.v_element;
    idx pieces = block_of(all_pieces, MAX(1, CHUNK_REALS / p.v_reals));
    idx shared_v = whole ? 0 : pieces * p.v_reals, shared_u = whole ? p.blocks * p.u_reals : 0;
    p.worker_reals = p.lines_reals + (whole ? p.v_reals : p.u_reals) + p.kept * p.m_reals;
    double work = 0.1 * ELEMENTS * (double)(p.block * p.piece) * (double)p.terms;
    idx grain_piece = grain_of(work * (double)p.blocks), grain_in = grain_of(30 * (double)p.piece), grain_out = grain_of(work);
    idx workers = whole ? parallel_workers(all_pieces, grain_piece)
                        : MAX(parallel_workers(pieces * p.items, grain_in), parallel_workers(pieces * p.blocks, grain_out));
    REAL *shared = scratch_take(sizeof(REAL) * (size_t)(p.line + shared_u + shared_v + workers * p.worker_reals));
    if (!shared) return CNN_NO_MEMORY;
    memset(shared, 0, sizeof(REAL) * (size_t)p.line);
    p.zeros = shared, p.u = shared + p.line, p.v = p.u + shared_u, p.scratch = p.v + shared_v;
    if (whole) {
        p.pieces = all_pieces;
        parallel_for(p.blocks, grain_of(30 * (double)(p.block * p.terms)), transform_blocks, &p);
        parallel_for(p.pieces, grain_piece, whole_pieces, &p);
    }
    for (; !whole && p.first < tiles; p.first += pieces * p.piece) {
        p.pieces = MIN(pieces, ceil_div(tiles - p.first, p.piece));
        parallel_for(p.pieces * p.items, grain_in, transform_pieces, &p);
        parallel_for(p.pieces * p.blocks, grain_out, multiply_blocks_of_pieces, &p);
    }
    scratch_give(shared);
    return CNN_OK;
}

static int winograd_forward(const struct conv_shape *s, const REAL *x, const REAL *w, const REAL *b, REAL *y) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    int status = CNN_OK;
    for (idx g = 0; g < s->groups && status == CNN_OK; g++)
        status = winograd((struct winograd){
            .C = C, .H = s->H, .W = s->W, .F = F, .OH = s->OH, .OW = s->OW, .top = s->top, .left = s->left,
            .x = x + g * C * s->H * s->W, .x_image = s->C * s->H * s->W, .w = w + g * F * C * taps, .w_out = C * taps,
            .w_in = taps, .kernel = kernel_of(s->KH, s->KW),
            .bias = b ? b + g * F : NULL, .y = y + g * F * s->OH * s->OW, .y_image = s->F * s->OH * s->OW,
            .tiling = tiling_of(s->N, s->OH, s->OW)});
    return status;
}

static int winograd_backward_input(const struct conv_shape *s, const REAL *dy, const REAL *w, REAL *dx) {
    idx C = s->C / s->groups, F = s->F / s->groups, taps = s->KH * s->KW;
    int status = CNN_OK;
    for (idx g = 0; g < s->groups && status == CNN_OK; g++)
        status = winograd((struct winograd){
            .C = F, .H = s->OH, .W = s->OW, .F = C, .OH = s->H, .OW = s->W, .top = s->KH - 1 - s->top,
            .left = s->KW - 1 - s->left,
            .x = dy + g * F * s->OH * s->OW, .x_image = s->F * s->OH * s->OW, .w = w + g * F * C * taps, .w_out = taps,
            .w_in = C * taps, .rotated = 1, .kernel = kernel_of(s->KH, s->KW), .y = dx + g * C * s->H * s->W,
            .y_image = s->C * s->H * s->W,            .tiling = tiling_of(s->N, s->H, s->W)});
    return status;
}

#include "winograd_weight.c"

/* Whether the filtering costs less than summing directly. In multiplications per pair of channels: the products, on whole
   vectors of tiles or, for the weights, of input channels; the transforms of tiles, shared by all channels on the other side;
   those of the weights. The constants are fitted to measured times, as is what a direct multiplication costs. */
enum winograd_pass { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT };

static int winograd_fits(const struct conv_shape *s) {
    return REAL_IS_FLOAT && MIN(s->KH, s->KW) >= TAPS && MAX(s->KH, s->KW) <= LONGEST && s->SH * s->SW * s->DH * s->DW == 1
        && MIN(s->C, s->F) / s->groups >= 16;
}

static int winograd_pays(const struct conv_shape *s, enum winograd_pass pass) {
    if (!winograd_fits(s) || cnn_get_exact()) return 0;
    idx OH = pass == BACKWARD_INPUT ? s->H : s->OH, OW = pass == BACKWARD_INPUT ? s->W : s->OW;
    struct tiling tiling = tiling_of(s->N, OH, OW);
    double tiles = (double)tiling.count, pixels = (double)(s->N * OH * OW), parts = (double)kernel_of(s->KH, s->KW).parts;
    double in = (double)(s->C / s->groups), out = (double)(s->F / s->groups);
    double padded = pass == BACKWARD_WEIGHT ? tiles * (double)round_up((idx)in, NR) / in : (double)round_up((idx)tiles, NR);
    if (pass == BACKWARD_INPUT) in = out, out = (double)(s->C / s->groups);
    double direct = (parts > 1 ? 1 : 1.25) * (double)(s->KH * s->KW) * pixels;
    return ELEMENTS * parts * padded + 600 * tiles * (parts / out + 1 / in) + 400 * parts < direct;
}
